//! From what an operator asks to a mapper, or to everything that is wrong with it.
//!
//! Every check that needs no record is made here, and none of them stops at the first
//! fault. A mapper that comes out refers to columns and attributes by number only; nothing
//! is looked up by name for a row.

use rollcall_contract::{Class, Column, TableSchema};

use super::canonical::Target;
use super::drift::Pauses;
use super::dry_run;
use super::error::{MappingError, Place, did_you_mean, unknown};
use super::expression::{Expression, Flaw};
use super::mapper::{Mapper, Rule, Source};
use super::spec::{ConstValue, MappingSpec, OnNull, RuleKind, RuleSpec};
use crate::attribute::{AttrId, AttrType, Attributes};

impl Mapper {
    /// Compiles a mapping for rows of a schema.
    ///
    /// `schema_version` is the number under which the caller remembers the schema; shadows
    /// carry it. All errors are returned, each with its place.
    pub fn compile(
        spec: &MappingSpec,
        schema: &TableSchema,
        attributes: &Attributes,
        schema_version: u32,
    ) -> Result<Mapper, Vec<MappingError>> {
        Mapper::compile_without(spec, schema, attributes, schema_version, &Pauses::default())
    }

    /// The same without some of its rules, which keep what they gave.
    pub(super) fn compile_without(
        spec: &MappingSpec,
        schema: &TableSchema,
        attributes: &Attributes,
        schema_version: u32,
        pauses: &Pauses,
    ) -> Result<Mapper, Vec<MappingError>> {
        let mut compiler = Compiler {
            schema,
            attributes,
            redacted: vec![false; schema.columns.len()],
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        compiler.redact(&spec.redact, &pauses.redacted);
        let scope = spec.scope.as_deref().and_then(|s| compiler.scope(s));
        let mut rules: Vec<Rule> = Vec::with_capacity(spec.rules.len());
        for (index, rule) in spec.rules.iter().enumerate() {
            compiler.repeated(index, spec);
            rules.extend(match pauses.rules.contains(&index) {
                true => compiler.paused_rule(index, rule),
                false => compiler.rule(index, rule),
            });
        }
        let changed = compiler.changed(&spec.changed);
        let Compiler {
            redacted,
            errors,
            warnings,
            ..
        } = compiler;
        if !errors.is_empty() {
            return Err(errors);
        }
        rules.sort_by_key(|r| r.attribute);
        let mut needed: Vec<bool> = redacted.iter().map(|redacted| !redacted).collect();
        let mut need = |column: usize| needed[column] = true;
        if let Some(scope) = &scope {
            scope.columns().iter().copied().for_each(&mut need);
        }
        for rule in &rules {
            match &rule.source {
                Source::Column { index, .. } => need(*index),
                Source::Key(parts) => parts.iter().for_each(|(index, _)| need(*index)),
                Source::Expr(e) => e.columns().iter().copied().for_each(&mut need),
                Source::Constant(_) | Source::Paused => {}
            }
        }
        let mut said = spec.said();
        if rules.iter().any(|r| r.target.kind == AttrType::Reference) {
            // Before there were references the same rule copied a text.
            said.push_str(" references");
        }
        let fingerprint = xxhash_rust::xxh3::xxh3_64(said.as_bytes());
        Ok(Mapper {
            version: schema_version,
            columns: schema
                .columns
                .iter()
                .map(|c| (c.name.clone(), c.class))
                .collect(),
            rules,
            scope,
            redacts: redacted.contains(&true),
            redacted,
            needed,
            max_value_bytes: spec.max_value_bytes,
            fingerprint,
            hash_seed: fingerprint,
            texts: spec.rules.iter().map(rule_text).collect(),
            scope_text: spec
                .scope
                .as_ref()
                .map(|s| format!("scope = expression {s}")),
            warnings,
            changed,
            paused: Vec::new(),
            older: hashbrown::HashMap::new(),
        })
    }
}

fn rule_text(rule: &RuleSpec) -> String {
    let attribute = &rule.attribute;
    match &rule.kind {
        RuleKind::Column(column) => format!("{attribute} = column {column}"),
        RuleKind::Columns(columns) => format!("{attribute} = columns {}", columns.join(", ")),
        RuleKind::Expr(source) => format!("{attribute} = expression {source}"),
        RuleKind::Constant(value) => match value {
            ConstValue::Text(t) => format!("{attribute} = constant \"{t}\""),
            ConstValue::Boolean(b) => format!("{attribute} = constant {b}"),
            ConstValue::Integer(n) => format!("{attribute} = constant {n}"),
            ConstValue::Decimal(n) => format!("{attribute} = constant {n}"),
            ConstValue::List(items) => format!("{attribute} = constant {items:?}"),
        },
    }
}

struct Compiler<'s> {
    schema: &'s TableSchema,
    attributes: &'s Attributes,
    redacted: Vec<bool>,
    errors: Vec<MappingError>,
    warnings: Vec<MappingError>,
}

impl Compiler<'_> {
    fn error(
        &mut self,
        place: Place,
        rule: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.errors.push(MappingError {
            place,
            rule: rule.to_owned(),
            found: found.into(),
            expected: expected.into(),
            suggestion,
        });
    }

    fn flaw(&mut self, place: Place, rule: &str, flaw: Flaw) {
        self.error(place, rule, flaw.found, flaw.expected, flaw.suggestion);
    }

    fn unknown_column(&mut self, place: Place, rule: &str, column: &str) {
        let names = self.schema.columns.iter().map(|c| c.name.as_str());
        let suggestion = did_you_mean(column, names);
        self.error(
            place,
            rule,
            unknown("column", column),
            format!("a column of {}", self.schema.table),
            suggestion,
        );
    }

    fn redact(&mut self, columns: &[String], gone: &[usize]) {
        for (index, column) in columns.iter().enumerate() {
            if gone.contains(&index) {
                continue;
            }
            let place = Place::Redact(index);
            match self.schema.position(column) {
                None => self.unknown_column(place, "redact", column),
                Some(at) if self.schema.key.contains(&at) => self.error(
                    place,
                    "redact",
                    format!("the key column `{column}`"),
                    "a column that is not part of the key: links are stored by their key",
                    None,
                ),
                Some(at) => self.redacted[at] = true,
            }
        }
    }

    /// The columns that say when a value was changed. They are read from stored rows.
    fn changed(&mut self, columns: &[(String, String)]) -> Vec<(AttrId, usize)> {
        let mut found = Vec::new();
        for (index, (attribute, column)) in columns.iter().enumerate() {
            let place = Place::Changed(index);
            let Some(at) = self.schema.position(column) else {
                self.unknown_column(place, attribute, column);
                continue;
            };
            let of = &self.schema.columns[at];
            let fits = matches!(
                of.class,
                Class::Timestamp | Class::TimestampTz | Class::Date
            );
            if self.redacted[at] || !fits {
                let found = match self.redacted[at] {
                    true => format!("the redacted column `{column}`"),
                    false => format!("column `{column}` of type {}", of.type_name),
                };
                let expected = "a stored column with a time stamp or a day";
                self.error(place, attribute, found, expected, None);
                continue;
            }
            found.extend(self.attributes.by_name(attribute).map(|a| (a.id, at)));
        }
        found
    }

    fn scope(&mut self, source: &str) -> Option<Expression> {
        self.expression(Place::Scope, "scope", source, None)
    }

    fn expression(
        &mut self,
        place: Place,
        rule: &str,
        source: &str,
        target: Option<&Target>,
    ) -> Option<Expression> {
        let expression = match Expression::compile(source, self.schema) {
            Ok(expression) => expression,
            Err(flaws) => {
                for flaw in flaws {
                    self.flaw(place, rule, flaw);
                }
                return None;
            }
        };
        let findings = dry_run::run(&expression, self.schema, target);
        if let Some(flaw) = findings.flaw {
            self.flaw(place, rule, flaw);
            return None;
        }
        for column in findings.null_fails {
            self.warnings.push(MappingError {
                place,
                rule: rule.to_owned(),
                found: format!("an expression that fails where `{column}` is null"),
                expected: "an answer for every record that the table allows".into(),
                suggestion: Some(format!(
                    "use `coalesce({column}, \"\")`, `concat(…)` or `{column} == null ? … : …`"
                )),
            });
        }
        Some(expression)
    }

    fn repeated(&mut self, index: usize, spec: &MappingSpec) {
        let attribute = &spec.rules[index].attribute;
        let first = spec.rules[..index]
            .iter()
            .position(|r| r.attribute == *attribute);
        if let Some(first) = first {
            self.error(
                Place::Rule(index),
                attribute,
                format!("a second rule for `{attribute}`"),
                "one rule for each attribute",
                Some(format!(
                    "join it with rule {} in one expression: `condition ? a : b`",
                    first + 1
                )),
            );
        }
    }

    fn rule(&mut self, index: usize, rule: &RuleSpec) -> Option<Rule> {
        let place = Place::Rule(index);
        let name = rule.attribute.as_str();
        let attributes = self.attributes;
        let Some(attribute) = attributes.by_name(name) else {
            let names = attributes.iter().map(|a| a.name.as_str());
            let suggestion = did_you_mean(name, names).or_else(|| {
                Some("declare it as a custom attribute and map `custom.<name>`".to_owned())
            });
            self.error(
                place,
                name,
                format!("an unknown attribute `{name}`"),
                "an attribute of users",
                suggestion,
            );
            // The rest of the rule is still looked at, for what it says of columns.
            match &rule.kind {
                RuleKind::Column(c) if self.schema.position(c).is_none() => {
                    self.unknown_column(place, name, c);
                }
                RuleKind::Expr(source) => {
                    if let Err(flaws) = Expression::compile(source, self.schema) {
                        flaws.into_iter().for_each(|f| self.flaw(place, name, f));
                    }
                }
                _ => {}
            }
            return None;
        };
        let number = u16::try_from(index).ok()?;
        let before = self.errors.len();
        self.options(place, rule, attribute.kind);
        let mut target = Target::new(attribute, rule.split.clone());
        if attribute.kind == AttrType::Reference {
            target = self.reference(place, rule, target)?;
        }
        let source = match &rule.kind {
            RuleKind::Column(column) => self.column(place, name, column, &target),
            RuleKind::Columns(columns) => self.columns(place, name, columns, &target),
            RuleKind::Expr(source) => self
                .expression(place, name, source, Some(&target))
                .map(Source::Expr),
            RuleKind::Constant(value) => self
                .constant(place, name, "constant", value, &target)
                .map(Source::Constant),
        };
        let default = rule
            .default
            .as_ref()
            .and_then(|value| self.constant(place, name, "default", value, &target));
        if self.errors.len() > before {
            return None;
        }
        Some(Rule {
            number,
            attribute: attribute.id,
            strength: rule.strength,
            source: source?,
            target,
            default,
            on_null: rule.on_null,
        })
    }

    /// What a rule must give that names another record; none when it never could.
    fn reference(&mut self, place: Place, rule: &RuleSpec, target: Target) -> Option<Target> {
        let key: Vec<&Column> = self
            .schema
            .key
            .iter()
            .map(|&at| &self.schema.columns[at])
            .collect();
        let names: Vec<&str> = key.iter().map(|c| c.name.as_str()).collect();
        let expected = match &names[..] {
            [name] => format!("the key of another record of the table (`{name}`)"),
            _ => format!(
                "the key of another record of the table ({})",
                names.join(", ")
            ),
        };
        let of_each = || {
            Some(format!(
                "write `columns = […]` with a column for each of: {}",
                names.join(", ")
            ))
        };
        let before = self.errors.len();
        let name = rule.attribute.as_str();
        if rule.default.is_some() {
            let fix = Some("leave `default` out: a null names nobody".to_owned());
            self.error(place, name, "a default", expected.clone(), fix);
        }
        match &rule.kind {
            RuleKind::Constant(_) => {
                let fix = Some("name the column that holds that key".to_owned());
                self.error(
                    place,
                    name,
                    "the same value for every record",
                    expected,
                    fix,
                );
            }
            RuleKind::Columns(columns) if columns.len() != key.len() => {
                let found = format!("{} columns", columns.len());
                self.error(place, name, found, expected, of_each());
            }
            RuleKind::Column(column) if key.len() != 1 => {
                self.error(
                    place,
                    name,
                    format!("one column (`{column}`)"),
                    expected,
                    of_each(),
                );
            }
            RuleKind::Expr(_) if key.len() != 1 => {
                self.error(
                    place,
                    name,
                    "an expression, which gives one value",
                    expected,
                    of_each(),
                );
            }
            RuleKind::Column(_) | RuleKind::Columns(_) | RuleKind::Expr(_) => {}
        }
        (self.errors.len() == before).then(|| match &key[..] {
            [column] => target.referring(column.class),
            _ => target,
        })
    }

    /// Columns that are together the key of another record.
    fn columns(
        &mut self,
        place: Place,
        name: &str,
        columns: &[String],
        target: &Target,
    ) -> Option<Source> {
        if target.kind != AttrType::Reference {
            let fix = Some("join them with an expression: `join([a, b], \" \")`".to_owned());
            self.error(
                place,
                name,
                "`columns` for an attribute that is no reference",
                "`column`, or `expr`",
                fix,
            );
            return None;
        }
        let mut parts = Vec::with_capacity(columns.len());
        for (column, &at) in columns.iter().zip(&self.schema.key) {
            let class = self.schema.columns[at].class;
            let part = target.clone().referring(class);
            match self.column(place, name, column, &part)? {
                Source::Key(part) => parts.extend(part),
                _ => return None,
            }
        }
        Some(Source::Key(parts))
    }

    fn paused_rule(&self, index: usize, rule: &RuleSpec) -> Option<Rule> {
        let attribute = self.attributes.by_name(&rule.attribute)?;
        Some(Rule {
            number: u16::try_from(index).ok()?,
            attribute: attribute.id,
            strength: rule.strength,
            source: Source::Paused,
            target: Target::new(attribute, rule.split.clone()),
            default: None,
            on_null: OnNull::Keep,
        })
    }

    fn options(&mut self, place: Place, rule: &RuleSpec, kind: AttrType) {
        let name = rule.attribute.as_str();
        match (rule.on_null, &rule.default) {
            (OnNull::Default, None) => self.error(
                place,
                name,
                "`on_null = \"default\"` without a default",
                "a `default`",
                None,
            ),
            (OnNull::Keep, Some(_)) => self.error(
                place,
                name,
                "a default beside `on_null = \"keep\"`",
                "one of the two: a null either keeps the value or becomes the default",
                None,
            ),
            _ => {}
        }
        if let Some(split) = &rule.split {
            if kind != AttrType::List {
                self.error(
                    place,
                    name,
                    "`split` on an attribute that holds a single value",
                    "an attribute that holds a list",
                    None,
                );
            } else if split.is_empty() {
                self.error(place, name, "an empty `split`", "a separator", None);
            }
        }
    }

    fn column(
        &mut self,
        place: Place,
        name: &str,
        column: &str,
        target: &Target,
    ) -> Option<Source> {
        let Some(index) = self.schema.position(column) else {
            self.unknown_column(place, name, column);
            return None;
        };
        let found = &self.schema.columns[index];
        if self.redacted[index] {
            self.error(
                place,
                name,
                format!("the redacted column `{column}`"),
                "a column whose values may be stored",
                Some("take it out of `redact`, or compute with it in an expression".into()),
            );
            return None;
        }
        if let Err(fix) = target.accepts(found.class) {
            self.error(
                place,
                name,
                format!(
                    "column `{column}` of type {} ({})",
                    found.type_name,
                    found.class.name()
                ),
                format!("values for an attribute of type {:?}", target.kind).to_lowercase(),
                Some(fix.replace("column", column)),
            );
            return None;
        }
        if let Some(key) = target.key_class() {
            return Some(Source::Key(vec![(index, key)]));
        }
        Some(Source::Column {
            index,
            class: found.class,
        })
    }

    fn constant(
        &mut self,
        place: Place,
        name: &str,
        what: &str,
        value: &ConstValue,
        target: &Target,
    ) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match target.push_const(value, &mut bytes) {
            Ok(true) => Some(bytes),
            Ok(false) => {
                self.error(place, name, format!("an empty {what}"), "a value", None);
                None
            }
            Err(_) => {
                self.error(
                    place,
                    name,
                    format!("{} as {what}", value.kind()),
                    format!("a value for an attribute of type {:?}", target.kind).to_lowercase(),
                    None,
                );
                None
            }
        }
    }
}
