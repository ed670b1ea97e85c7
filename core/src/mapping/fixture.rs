//! An operator's own tests of a mapping.
//!
//! A test is a row as data and what should come of it. It runs through the same mapper as
//! live rows, by way of a real batch, so that what passes here is what happens. The file is
//! TOML or JSON with the same shape; everything about it is in the mapping reference.
//!
//! Differences show values, because every value in them comes from the test's own file.

use std::sync::Arc;

use rollcall_contract::{
    BatchBuilder, Cell, Class, Cursor, Key, Op, TableNo, TableSchema, Tx, TxId, Value as Typed,
};
use serde_json::Value;
use smallvec::SmallVec;

use super::canonical::Target;
use super::mapper::Mapper;
use super::shadow;
use super::spec::ConstValue;
use crate::attribute::{AttrType, Attributes};
use crate::mapped::{Assigned, ListValue, MappedRow, MappedRows, Outcome, key_text};

/// A file of tests.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixtureFile {
    /// The tests, in the order in which they run.
    #[serde(default, rename = "test")]
    pub tests: Vec<Fixture>,
}

/// One test.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// The row: column to value. Columns that are not named are null.
    #[serde(default)]
    pub row: serde_json::Map<String, Value>,
    /// Columns whose value is not in the image because it did not change.
    #[serde(default)]
    pub unchanged: Vec<String>,
    /// Columns that are not in the image for another reason.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The record as it was stored before. Without it, a row with unchanged or missing
    /// columns is the first that is seen of its record.
    #[serde(default)]
    pub stored: Option<serde_json::Map<String, Value>>,
    /// How mapping should end: `mapped` (the default), `out_of_scope`, or the reason of a
    /// failure: `bad_value`, `expression_failed`, `type_mismatch`, `too_long`, `incomplete`.
    #[serde(default)]
    pub outcome: Option<String>,
    /// For a failure: the attribute whose rule should fail.
    #[serde(default)]
    pub rule: Option<String>,
    /// Attributes and their values; null for one that is cleared, the key of the other
    /// record for a reference.
    #[serde(default)]
    pub expect: serde_json::Map<String, Value>,
    /// Attributes that are cleared (TOML has no null).
    #[serde(default)]
    pub clear: Vec<String>,
    /// Attributes that keep what they have.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Whether attributes that are not named fail the test.
    #[serde(default)]
    pub exact: bool,
}

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FixtureResult {
    /// The test's name.
    pub name: String,
    /// What differs; nothing when it passed.
    pub differences: Vec<Difference>,
}

impl FixtureResult {
    /// Whether nothing differs.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// An attribute, `outcome`, `rule`, or the part of the test that cannot be used.
    pub field: String,
    /// What the test says.
    pub expected: String,
    /// What came.
    pub actual: String,
}

/// Runs the tests of a file.
pub fn run(
    file: &FixtureFile,
    mapper: &Mapper,
    schema: &Arc<TableSchema>,
    attributes: &Attributes,
) -> Vec<FixtureResult> {
    let tests = file.tests.iter();
    tests
        .map(|test| {
            let mut runner = Runner {
                mapper,
                schema,
                attributes,
                differences: Vec::new(),
            };
            runner.run(test);
            FixtureResult {
                name: test.name.clone(),
                differences: runner.differences,
            }
        })
        .collect()
}

/// A cell that owns its text.
#[derive(Clone)]
enum Own {
    Null,
    Missing,
    Unchanged,
    Value(String),
}

impl Own {
    fn cell(&self) -> Cell<'_> {
        match self {
            Own::Null => Cell::Null,
            Own::Missing => Cell::Missing,
            Own::Unchanged => Cell::Unchanged,
            Own::Value(text) => Cell::Value(text.as_bytes()),
        }
    }
}

struct Runner<'a> {
    mapper: &'a Mapper,
    schema: &'a Arc<TableSchema>,
    attributes: &'a Attributes,
    differences: Vec<Difference>,
}

impl Runner<'_> {
    fn differ(
        &mut self,
        field: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) {
        self.differences.push(Difference {
            field: field.into(),
            expected: expected.into(),
            actual: actual.into(),
        });
    }

    fn run(&mut self, test: &Fixture) {
        let mut cells = self.cells("row", &test.row);
        for (part, columns, state) in [
            ("unchanged", &test.unchanged, Own::Unchanged),
            ("missing", &test.missing, Own::Missing),
        ] {
            for column in columns {
                if test.row.contains_key(column) {
                    let field = format!("{part}.{column}");
                    self.differ(
                        field,
                        "a column that `row` does not name",
                        "one that it names",
                    );
                } else if let Some(at) = self.column(part, column) {
                    cells[at] = state.clone();
                }
            }
        }
        let mut stored = Vec::new();
        if let Some(values) = &test.stored {
            let cells = self.cells("stored", values);
            let cells: Vec<Cell<'_>> = cells.iter().map(Own::cell).collect();
            let redacted = |c| self.mapper.redacted.get(c).copied().unwrap_or(false);
            shadow::encode(self.mapper.version, &cells, redacted, &mut stored);
        }
        if !self.differences.is_empty() {
            return;
        }
        let mut out = MappedRows::default();
        self.map(&cells, &stored, &mut out);
        self.compare(test, &out.row(0));
    }

    fn column(&mut self, part: &str, column: &str) -> Option<usize> {
        let at = self.schema.position(column);
        if at.is_none() {
            let expected = format!("a column of {}", self.schema.table);
            self.differ(format!("{part}.{column}"), expected, "an unknown column");
        }
        at
    }

    fn cells(&mut self, part: &str, values: &serde_json::Map<String, Value>) -> Vec<Own> {
        let mut cells = vec![Own::Null; self.schema.columns.len()];
        for (column, value) in values {
            let Some(at) = self.column(part, column) else {
                continue;
            };
            let class = self.schema.columns[at].class;
            match cell_of(class, value) {
                Some(cell) => cells[at] = cell,
                None => {
                    let expected = format!("a value of class {}", class.name());
                    self.differ(format!("{part}.{column}"), expected, value.to_string());
                }
            }
        }
        cells
    }

    fn map(&self, cells: &[Own], stored: &[u8], out: &mut MappedRows) {
        let mut batch = BatchBuilder::default();
        let table = batch.table(TableNo::MAIN, self.schema);
        batch.tx(Tx {
            id: TxId(SmallVec::new()),
            position: SmallVec::new(),
            commit_us: 0,
        });
        batch.begin(table, Op::Update, 0);
        for cell in cells {
            match cell {
                Own::Null => batch.cell_null(),
                Own::Missing => batch.cell_missing(),
                Own::Unchanged => batch.cell_unchanged(),
                Own::Value(text) => batch.cell_bytes(text.as_bytes()),
            }
        }
        batch.finish(true, 0);
        let batch = batch.build(Cursor::new(&[], ""));
        if let Some(row) = batch.change(0).after() {
            self.mapper.map(&row, Some(stored), out);
        }
    }

    fn compare(&mut self, test: &Fixture, row: &MappedRow<'_>) {
        let expected = test.outcome.as_deref().unwrap_or("mapped");
        let (actual, rule) = match row.outcome() {
            Outcome::Mapped => ("mapped", None),
            Outcome::OutOfScope => ("out_of_scope", None),
            Outcome::Deferred => ("deferred", None),
            Outcome::Failed { reason, rule } => (reason.as_str(), rule),
        };
        let failed = rule.and_then(|number| {
            let rule = self.mapper.rules.iter().find(|r| r.number == number)?;
            Some(self.attributes.get(rule.attribute)?.name.as_str())
        });
        if expected != actual {
            let shown = match failed {
                Some(rule) => format!("{actual} (the rule of {rule})"),
                None => actual.to_owned(),
            };
            self.differ("outcome", expected, shown);
            return;
        }
        if let Some(rule) = &test.rule
            && failed != Some(rule)
        {
            self.differ("rule", rule, failed.unwrap_or("no rule"));
        }
        for (name, value) in &test.expect {
            self.expect(name, Some(value), row);
        }
        for name in &test.clear {
            self.expect(name, Some(&Value::Null), row);
        }
        for name in &test.keep {
            self.expect(name, None, row);
        }
        if test.exact {
            for field in row.fields() {
                let Some(attribute) = self.attributes.get(field.attribute) else {
                    continue;
                };
                let name = &attribute.name;
                let named = test.expect.contains_key(name)
                    || test.clear.contains(name)
                    || test.keep.contains(name);
                if !named {
                    let actual = shown(field.assigned, attribute.kind);
                    self.differ(name, "not named by the test", actual);
                }
            }
        }
    }

    /// Compares one attribute; `None` stands for "keeps what it has".
    fn expect(&mut self, name: &str, value: Option<&Value>, row: &MappedRow<'_>) {
        let Some(attribute) = self.attributes.by_name(name) else {
            return self.differ(name, "an attribute of users", "an unknown attribute");
        };
        let kind = attribute.kind;
        let actual = row.fields().find(|f| f.attribute == attribute.id);
        let Some(actual) = actual.map(|f| f.assigned) else {
            return self.differ(name, "a rule for it", "no rule gives it");
        };
        let mut bytes = Vec::new();
        let expected = match value {
            None => Assigned::Keep,
            Some(Value::Null) => Assigned::Clear,
            Some(value) if kind == AttrType::Reference => match key_of(value) {
                Some(key) => {
                    bytes.extend_from_slice(key.as_bytes());
                    Assigned::Reference(&bytes)
                }
                None => {
                    let expected = "the key of a record: a text, a number, or a list of them";
                    return self.differ(name, expected, value.to_string());
                }
            },
            Some(value) => {
                let target = Target::new(attribute, None);
                let pushed = const_of(value, kind).map(|c| target.push_const(&c, &mut bytes));
                match pushed {
                    Some(Ok(true)) => Assigned::Value(&bytes),
                    _ => {
                        let expected = format!("a value of type {kind:?}").to_lowercase();
                        return self.differ(name, expected, value.to_string());
                    }
                }
            }
        };
        if expected != actual {
            self.differ(name, shown(expected, kind), shown(actual, kind));
        }
    }
}

fn cell_of(class: Class, value: &Value) -> Option<Own> {
    let text = match value {
        Value::Null => return Some(Own::Null),
        Value::Bool(b) if class == Class::Bool => (if *b { "t" } else { "f" }).to_owned(),
        Value::Number(n) if class != Class::Bool => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) if class == Class::List => {
            let items = items.iter().map(|item| match item {
                Value::Null | Value::String(_) => item.clone(),
                other => Value::String(other.to_string()),
            });
            Value::Array(items.collect()).to_string()
        }
        other if class == Class::Json => other.to_string(),
        _ => return None,
    };
    Typed::parse(class, text.as_bytes())?;
    Some(Own::Value(text))
}

/// The key of a record; of several columns as a list.
fn key_of(value: &Value) -> Option<Key> {
    let mut key = Key::new();
    let mut push = |part: &Value| {
        match part {
            Value::String(text) => key.push(text.as_bytes()),
            Value::Number(n) => key.push(n.to_string().as_bytes()),
            _ => return None,
        }
        Some(())
    };
    match value {
        Value::Array(parts) => parts.iter().try_for_each(push)?,
        part => push(part)?,
    }
    Some(key)
}

fn const_of(value: &Value, kind: AttrType) -> Option<ConstValue> {
    Some(match value {
        Value::Bool(b) => ConstValue::Boolean(*b),
        Value::Number(n) if kind == AttrType::Text => ConstValue::Text(n.to_string()),
        Value::Number(n) => match n.as_i64() {
            Some(n) => ConstValue::Integer(n),
            None => ConstValue::Decimal(n.to_string()),
        },
        Value::String(s) => ConstValue::Text(s.clone()),
        Value::Array(items) => {
            let items = items.iter().map(|i| i.as_str().map(str::to_owned));
            ConstValue::List(items.collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    })
}

fn shown(assigned: Assigned<'_>, kind: AttrType) -> String {
    match assigned {
        Assigned::Clear => "cleared".to_owned(),
        Assigned::Keep => "kept".to_owned(),
        Assigned::Value(bytes) if kind == AttrType::List => {
            Value::from(ListValue::texts(bytes).collect::<Vec<_>>()).to_string()
        }
        Assigned::Reference(key) => Value::from(key_text(key)).to_string(),
        Assigned::Value(bytes) => {
            Value::from(String::from_utf8_lossy(bytes).into_owned()).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a failed test should stop at once"
    )]
    use super::*;
    use crate::mapping::{MappingSpec, RuleSpec};
    use rollcall_contract::{Column, TableName};
    use serde_json::json;

    fn run_one(test: Value) -> Vec<String> {
        let column = |name: &str, class: Class| Column {
            name: name.to_owned(),
            class,
            type_name: class.name().to_owned(),
            nullable: true,
        };
        let schema = Arc::new(TableSchema {
            table: TableName::new("hr", "employees"),
            columns: vec![
                column("id", Class::Int),
                column("mail", Class::Text),
                column("dept", Class::Text),
                column("skills", Class::List),
                column("on", Class::Bool),
            ],
            key: vec![0],
        });
        let attributes = Attributes::new([]);
        let spec = MappingSpec {
            rules: vec![
                RuleSpec::column("email", "mail"),
                RuleSpec::column("department", "dept"),
                RuleSpec::column("roles", "skills"),
                RuleSpec::column("employeeNumber", "id"),
                RuleSpec::expr("nickName", "dept.split('-')[1]"),
            ],
            scope: Some("row['on'] == true".into()),
            ..MappingSpec::default()
        };
        let mapper = Mapper::compile(&spec, &schema, &attributes, 1).unwrap();
        let file: FixtureFile = serde_json::from_value(json!({ "test": [test] })).unwrap();
        let results = run(&file, &mapper, &schema, &attributes);
        assert_eq!(results.len(), 1);
        let shown = results[0].differences.iter();
        shown
            .map(|d| format!("{}: {} / {}", d.field, d.expected, d.actual))
            .collect()
    }

    #[test]
    fn a_test_that_is_right_passes() {
        let differences = run_one(json!({
            "name": "everything",
            "row": { "id": 7, "mail": " Ann@x.org ", "skills": ["b", "a"], "on": true },
            "unchanged": ["dept"],
            "stored": { "id": 7, "dept": "R-D" },
            "expect": {
                "email": "Ann@x.org", "department": "R-D", "roles": ["a", "b"],
                "employeeNumber": 7, "nickName": "D",
            },
            "exact": true,
        }));
        assert_eq!(differences, [""; 0]);
    }

    #[test]
    fn outcomes_and_unknown_values_can_be_expected() {
        for test in [
            json!({ "name": "n", "row": { "on": false }, "outcome": "out_of_scope" }),
            json!({ "name": "n", "row": { "on": true, "dept": "x" }, "outcome": "expression_failed",
                "rule": "nickName" }),
            json!({ "name": "n", "row": { "on": true, "dept": "a-b" }, "missing": ["mail"],
                "keep": ["email"], "clear": ["roles"], "expect": { "employeeNumber": null } }),
            json!({ "name": "n", "missing": ["on"], "outcome": "incomplete" }),
        ] {
            assert_eq!(run_one(test), [""; 0]);
        }
    }

    #[test]
    fn what_differs_is_shown_by_field() {
        for (test, want) in [
            (
                json!({ "name": "n", "row": { "on": true, "mail": "a@x", "dept": "a-b" },
                    "expect": { "email": "b@x", "title": "x" }, "clear": ["department"] }),
                vec![
                    "email: \"b@x\" / \"a@x\"",
                    "title: a rule for it / no rule gives it",
                    "department: cleared / \"a-b\"",
                ],
            ),
            (
                json!({ "name": "n", "row": { "on": true, "dept": "x" } }),
                vec!["outcome: mapped / expression_failed (the rule of nickName)"],
            ),
            (
                json!({ "name": "n", "row": { "male": "a", "on": "yes" } }),
                vec![
                    "row.male: a column of hr.employees / an unknown column",
                    "row.on: a value of class bool / \"yes\"",
                ],
            ),
            (
                json!({ "name": "n", "row": { "on": true, "dept": "a-b" }, "exact": true,
                    "clear": ["email", "roles", "employeeNumber"], "expect": { "nickName": "b" } }),
                vec!["department: not named by the test / \"a-b\""],
            ),
        ] {
            assert_eq!(run_one(test), want);
        }
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused() {
        let file = json!({ "test": [{ "name": "n", "expects": {} }] });
        assert!(serde_json::from_value::<FixtureFile>(file).is_err());
    }
}
