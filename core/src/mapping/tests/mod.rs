//! What mapping promises, over whole rows: tables here, properties beside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test should stop at once"
)]

use std::sync::Arc;

use rollcall_contract::{
    Batch, BatchBuilder, Cell, Class, Column, Cursor, Op, TableName, TableNo, TableSchema, Tx, TxId,
};

use super::*;
use crate::attribute::{AttrId, AttrType, Attributes, FIRST_CUSTOM};
use crate::mapped::{Assigned, ListValue, MappedRow, MappedRows, Outcome};
use crate::reason::SkipReason;

mod drift;
mod properties;
mod references;
mod related;

const COLUMNS: &[(&str, Class)] = &[
    ("id", Class::Int),
    ("emp_email", Class::Text),
    ("first_name", Class::Text),
    ("last_name", Class::Text),
    ("dept", Class::Text),
    ("status", Class::Text),
    ("hired", Class::Date),
    ("skills", Class::List),
    ("teams", Class::Text),
    ("enabled", Class::Bool),
    ("salary", Class::Decimal),
    ("Badge No", Class::Other),
    ("notes", Class::Json),
    ("score", Class::Float),
];

fn schema_of(columns: &[(&str, Class)]) -> TableSchema {
    TableSchema {
        table: TableName::new("hr", "employees"),
        columns: columns
            .iter()
            .map(|(name, class)| Column {
                name: (*name).to_owned(),
                class: *class,
                type_name: class.name().to_owned(),
                nullable: *name != "id",
            })
            .collect(),
        key: vec![0],
    }
}

fn schema() -> TableSchema {
    schema_of(COLUMNS)
}

fn attributes() -> Attributes {
    Attributes::new([
        (AttrId(FIRST_CUSTOM), "hired".to_owned(), AttrType::Date),
        (
            AttrId(FIRST_CUSTOM + 1),
            "level".to_owned(),
            AttrType::Integer,
        ),
        (
            AttrId(FIRST_CUSTOM + 2),
            "pay".to_owned(),
            AttrType::Decimal,
        ),
    ])
}

fn batch_of(schema: &TableSchema, rows: &[Vec<Cell<'_>>]) -> Batch {
    let mut builder = BatchBuilder::default();
    let table = builder.table(TableNo::MAIN, &Arc::new(schema.clone()));
    builder.tx(Tx {
        id: TxId(smallvec::SmallVec::new()),
        position: smallvec::SmallVec::from_slice(b"0/1"),
        commit_us: 0,
    });
    for (i, row) in rows.iter().enumerate() {
        builder.begin(table, Op::Update, i as u32);
        for cell in row {
            match cell {
                Cell::Null => builder.cell_null(),
                Cell::Missing => builder.cell_missing(),
                Cell::Unchanged => builder.cell_unchanged(),
                Cell::Value(v) => builder.cell_bytes(v),
            }
        }
        builder.finish(true, 0);
    }
    builder.build(Cursor::new(&[], ""))
}

/// A row that is null but for the given columns.
fn row(values: &[(&str, Cell<'static>)]) -> Vec<Cell<'static>> {
    let mut cells = vec![Cell::Null; COLUMNS.len()];
    cells[0] = Cell::Value(b"1");
    for (name, cell) in values {
        let at = COLUMNS.iter().position(|(n, _)| n == name).unwrap();
        cells[at] = *cell;
    }
    cells
}

fn text(t: &'static str) -> Cell<'static> {
    Cell::Value(t.as_bytes())
}

fn mapper(rules: Vec<RuleSpec>) -> Mapper {
    compile(MappingSpec {
        rules,
        ..MappingSpec::default()
    })
    .unwrap()
}

fn scoped(scope: &str) -> Mapper {
    compile(MappingSpec {
        rules: vec![RuleSpec::column("email", "emp_email")],
        scope: Some(scope.to_owned()),
        ..MappingSpec::default()
    })
    .unwrap()
}

fn compile(spec: MappingSpec) -> Result<Mapper, Vec<MappingError>> {
    Mapper::compile(&spec, &schema(), &attributes(), 3)
}

fn map(mapper: &Mapper, cells: Vec<Cell<'_>>, stored: Option<&[u8]>) -> MappedRows {
    let batch = batch_of(&schema(), &[cells]);
    let mut out = MappedRows::default();
    mapper.map(&batch.change(0).after().unwrap(), stored, &mut out);
    assert_eq!(out.len(), 1, "exactly one row for each row");
    out
}

/// The single field of a mapper with a single rule, as text.
fn value(mapper: &Mapper, cells: Vec<Cell<'_>>) -> Result<Option<String>, SkipReason> {
    let out = map(mapper, cells, None);
    match out.row(0).outcome() {
        Outcome::Failed { reason, .. } => return Err(reason),
        Outcome::Mapped => {}
        other => panic!("{other:?}"),
    }
    let field = out.row(0).fields().next().unwrap();
    Ok(match field.assigned {
        Assigned::Value(v) => Some(String::from_utf8(v.to_vec()).unwrap()),
        Assigned::Reference(key) => Some(format!("-> {}", crate::mapped::key_text(key))),
        Assigned::Clear => None,
        Assigned::Keep => Some("(keep)".to_owned()),
    })
}

fn one(rule: RuleSpec, cells: Vec<Cell<'_>>) -> Result<Option<String>, SkipReason> {
    value(&mapper(vec![rule]), cells)
}

type Field = (AttrId, u16, Option<Vec<u8>>, bool);

fn fields(row: &MappedRow<'_>) -> Vec<Field> {
    row.fields()
        .map(|f| match f.assigned {
            Assigned::Value(v) | Assigned::Reference(v) => {
                (f.attribute, f.rule, Some(v.to_vec()), false)
            }
            Assigned::Clear => (f.attribute, f.rule, None, false),
            Assigned::Keep => (f.attribute, f.rule, None, true),
        })
        .collect()
}

fn some(t: &str) -> Result<Option<String>, SkipReason> {
    Ok(Some(t.to_owned()))
}

#[test]
fn simple_computed_conditional_default_and_constant_rules_give_their_values() {
    let ann = || {
        row(&[
            ("emp_email", text("  Ann@Example.org ")),
            ("first_name", text("Ann")),
            ("last_name", text("Le\u{301}e")),
            ("dept", text("Engineering")),
            ("salary", text("1200.50")),
            ("Badge No", text("B-7")),
            ("notes", text("{\"desk\":{\"floor\":3}}")),
        ])
    };
    for (rule, want) in [
        (RuleSpec::column("email", "emp_email"), "Ann@Example.org"),
        (RuleSpec::column("name.familyName", "last_name"), "L\u{e9}e"),
        (
            RuleSpec::expr("displayName", "first_name + ' ' + last_name"),
            "Ann L\u{e9}e",
        ),
        (
            RuleSpec::expr("userType", "dept == 'Engineering' ? 'developer' : 'user'"),
            "developer",
        ),
        (RuleSpec::expr("employeeNumber", "row['Badge No']"), "B-7"),
        (RuleSpec::expr("employeeNumber", "id"), "1"),
        (
            RuleSpec::expr("custom.level", "jsonGet(notes, 'desk.floor')"),
            "3",
        ),
        (RuleSpec::expr("custom.pay", "salary"), "1200.5"),
        (RuleSpec::expr("active", "status != 'left'"), "true"),
        (
            RuleSpec {
                default: Some(ConstValue::Text("en".into())),
                ..RuleSpec::column("locale", "status")
            },
            "en",
        ),
        (
            RuleSpec::new(
                "organization",
                RuleKind::Constant(ConstValue::Text("Acme".into())),
            ),
            "Acme",
        ),
        (
            RuleSpec::new("active", RuleKind::Constant(ConstValue::Boolean(true))),
            "true",
        ),
    ] {
        assert_eq!(one(rule.clone(), ann()), some(want), "{rule:?}");
    }
}

#[test]
fn null_clears_keeps_or_becomes_the_default() {
    let rule = |on_null, default: Option<&str>| RuleSpec {
        on_null,
        default: default.map(|d| ConstValue::Text(d.into())),
        ..RuleSpec::column("title", "dept")
    };
    assert_eq!(one(rule(OnNull::Clear, None), row(&[])), Ok(None));
    assert_eq!(one(rule(OnNull::Keep, None), row(&[])), some("(keep)"));
    assert_eq!(one(rule(OnNull::Default, Some("x")), row(&[])), some("x"));
    // An expression's null and a blank e-mail are nulls too.
    let rule = RuleSpec::expr("title", "dept == null ? null : dept");
    assert_eq!(one(rule, row(&[])), Ok(None));
    let blank = row(&[("emp_email", text(" \t "))]);
    assert_eq!(one(RuleSpec::column("email", "emp_email"), blank), Ok(None));
}

#[test]
fn a_missing_value_clears_nothing_and_asks_for_the_record_again() {
    let mapper = mapper(vec![
        RuleSpec::column("email", "emp_email"),
        RuleSpec {
            default: Some(ConstValue::Text("none".into())),
            ..RuleSpec::column("title", "dept")
        },
        RuleSpec::expr("displayName", "coalesce(first_name, last_name)"),
    ]);
    for hole in [Cell::Missing, Cell::Unchanged] {
        let cells = || {
            row(&[
                ("emp_email", text("a@x.org")),
                ("dept", hole),
                ("first_name", hole),
            ])
        };
        assert_eq!(
            map(&mapper, cells(), None).row(0).outcome(),
            Outcome::Deferred
        );
        for nothing in [&b""[..], b"\xff\xff"] {
            let out = map(&mapper, cells(), Some(nothing));
            let mapped = out.row(0);
            assert_eq!(mapped.outcome(), Outcome::Mapped);
            assert!(mapped.incomplete());
            let kept: Vec<bool> = fields(&mapped).iter().map(|f| f.3).collect();
            assert_eq!(kept, [true, true, false]);
        }
    }
}

#[test]
fn an_unchanged_value_comes_from_the_shadow() {
    let mapper = mapper(vec![
        RuleSpec::column("email", "emp_email"),
        RuleSpec::column("title", "dept"),
    ]);
    let before = map(
        &mapper,
        row(&[("emp_email", text("a@x.org")), ("dept", text("R&D"))]),
        None,
    );
    let change = row(&[("emp_email", text("b@x.org")), ("dept", Cell::Unchanged)]);
    let after = map(&mapper, change, Some(before.row(0).shadow()));
    let whole = map(
        &mapper,
        row(&[("emp_email", text("b@x.org")), ("dept", text("R&D"))]),
        None,
    );
    assert!(!after.row(0).incomplete());
    assert_eq!(fields(&after.row(0)), fields(&whole.row(0)));
    assert_eq!(after.row(0).shadow(), whole.row(0).shadow());
    assert_eq!(after.row(0).hash(), whole.row(0).hash());
}

#[test]
fn a_scope_that_cannot_be_decided_is_no_leaver() {
    let mapper = scoped("status != 'contractor'");
    let out = map(&mapper, row(&[("status", Cell::Missing)]), Some(b""));
    let incomplete = Outcome::Failed {
        reason: SkipReason::Incomplete,
        rule: None,
    };
    assert_eq!(out.row(0).outcome(), incomplete);
    assert!(out.row(0).incomplete());
    assert_eq!(out.row(0).fields().count(), 0);
}

#[test]
fn only_true_is_in_scope() {
    for (scope, status, want) in [
        ("status != 'contractor'", text("staff"), Outcome::Mapped),
        (
            "status != 'contractor'",
            text("contractor"),
            Outcome::OutOfScope,
        ),
        ("status != 'contractor'", Cell::Null, Outcome::Mapped),
        ("status == 'staff'", Cell::Null, Outcome::OutOfScope),
        ("enabled", Cell::Null, Outcome::OutOfScope),
        (
            "status in ['staff', 'intern'] && id > 0",
            text("intern"),
            Outcome::Mapped,
        ),
        (
            "int(status) > 3",
            text("abc"),
            Outcome::Failed {
                reason: SkipReason::ExpressionFailed,
                rule: None,
            },
        ),
    ] {
        let out = map(&scoped(scope), row(&[("status", status)]), None);
        assert_eq!(out.row(0).outcome(), want, "{scope}");
        assert!(
            !out.row(0).shadow().is_empty(),
            "the shadow is kept: {scope}"
        );
    }
}

#[test]
fn an_unsigned_number_equals_no_negative_one() {
    for (scope, want) in [
        ("id == -1", Outcome::OutOfScope),
        ("id != -1", Outcome::Mapped),
        ("id in [-1, 7]", Outcome::OutOfScope),
    ] {
        let cells = row(&[("id", text("18446744073709551615"))]);
        let out = map(&scoped(scope), cells, None);
        assert_eq!(out.row(0).outcome(), want, "{scope}");
    }
}

#[test]
fn a_failed_record_names_its_rule_and_leaves_no_fields() {
    let mapper = mapper(vec![
        RuleSpec::column("email", "emp_email"),
        RuleSpec::column("custom.level", "dept"),
    ]);
    let out = map(
        &mapper,
        row(&[("emp_email", text("a@x.org")), ("dept", text("high"))]),
        None,
    );
    let failed = Outcome::Failed {
        reason: SkipReason::TypeMismatch,
        rule: Some(1),
    };
    assert_eq!(out.row(0).outcome(), failed);
    assert_eq!(out.row(0).fields().count(), 0);
    assert_eq!(mapper.rule_text(1), Some("custom.level = column dept"));
    assert_eq!(mapper.rule_text(2), None);
}

#[test]
fn a_value_beyond_the_limit_fails_its_record() {
    let mapper = compile(MappingSpec {
        rules: vec![RuleSpec::column("title", "dept")],
        max_value_bytes: 4,
        ..MappingSpec::default()
    })
    .unwrap();
    assert_eq!(value(&mapper, row(&[("dept", text("abcd"))])), some("abcd"));
    let long = value(&mapper, row(&[("dept", text("abcde"))]));
    assert_eq!(long, Err(SkipReason::TooLong));
}

#[test]
fn bytes_that_are_not_text_fail_their_record() {
    let rule = RuleSpec::column("title", "dept");
    let bad = one(rule, row(&[("dept", Cell::Value(&[0xc3, 0x28]))]));
    assert_eq!(bad, Err(SkipReason::BadValue));
    let rule = RuleSpec::expr("title", "lower(dept)");
    let bad = one(rule, row(&[("dept", Cell::Value(&[0xc3, 0x28]))]));
    assert_eq!(bad, Err(SkipReason::BadValue));
}

#[test]
fn lists_come_from_arrays_text_and_expressions() {
    let list = |rule: RuleSpec, cells| -> Vec<String> {
        let out = map(&mapper(vec![rule]), cells, None);
        let field = out.row(0).fields().next().unwrap();
        match field.assigned {
            Assigned::Value(v) => ListValue::texts(v).map(str::to_owned).collect(),
            other => panic!("{other:?}"),
        }
    };
    let cells = || {
        row(&[
            ("skills", text("[\"b\",\"a\"]")),
            ("teams", text("x; y;;x")),
        ])
    };
    assert_eq!(
        list(RuleSpec::column("roles", "skills"), cells()),
        ["a", "b"]
    );
    let split = RuleSpec {
        split: Some(";".into()),
        ..RuleSpec::column("groups", "teams")
    };
    assert_eq!(list(split, cells()), ["x", "y"]);
    let rule = RuleSpec::expr("roles", "skills.filter(s, s != 'a') + ['c']");
    assert_eq!(list(rule, cells()), ["b", "c"]);
}

#[test]
fn fields_come_in_the_order_of_attributes_whatever_the_order_of_rules() {
    let mapper = mapper(vec![
        RuleSpec::column("custom.hired", "hired"),
        RuleSpec::column("email", "emp_email"),
        RuleSpec::column("name.givenName", "first_name"),
    ]);
    let out = map(&mapper, row(&[]), None);
    let order: Vec<(u16, u16)> = out
        .row(0)
        .fields()
        .map(|f| (f.attribute.0, f.rule))
        .collect();
    assert_eq!(order, [(3, 2), (16, 1), (1000, 0)]);
}

#[test]
fn a_redacted_value_can_be_computed_with_but_is_never_stored() {
    let mapper = compile(MappingSpec {
        rules: vec![RuleSpec::expr(
            "userType",
            "double(salary) > 1000.0 ? 'a' : 'b'",
        )],
        redact: vec!["salary".into(), "notes".into()],
        ..MappingSpec::default()
    })
    .unwrap();
    let rich = map(&mapper, row(&[("salary", text("31337.77"))]), None);
    assert_eq!(fields(&rich.row(0))[0].2.as_deref(), Some(&b"a"[..]));
    assert!(!rich.row(0).shadow().windows(5).any(|w| w == b"31337"));
    let poor = map(&mapper, row(&[("salary", text("7"))]), None);
    assert_eq!(rich.row(0).shadow(), poor.row(0).shadow());
    assert_ne!(
        rich.row(0).hash(),
        poor.row(0).hash(),
        "the hash sees redacted columns"
    );
    // Nobody needs the notes: that they are unchanged defers nothing.
    let out = map(
        &mapper,
        row(&[("salary", text("7")), ("notes", Cell::Unchanged)]),
        None,
    );
    assert_eq!(out.row(0).outcome(), Outcome::Mapped);
    // The salary is needed and in no shadow.
    let out = map(
        &mapper,
        row(&[("salary", Cell::Unchanged)]),
        Some(rich.row(0).shadow()),
    );
    assert!(out.row(0).incomplete());
    assert!(fields(&out.row(0))[0].3);
    let mut again = MappedRows::default();
    mapper.map_shadow(rich.row(0).shadow(), &mut again);
    assert!(again.row(0).incomplete());
    mapper.map_shadow_or_defer(rich.row(0).shadow(), &mut again);
    assert_eq!(again.row(1).outcome(), Outcome::Deferred);
    assert!(again.row(1).shadow().is_empty() && again.row(1).fields().count() == 0);
}

#[test]
fn a_pattern_that_is_none_is_an_error_and_not_a_failure_of_every_record() {
    let spec = |expr: &str| MappingSpec {
        rules: vec![RuleSpec::expr("active", expr)],
        ..MappingSpec::default()
    };
    let errors = compile(spec("first_name.matches('(')")).unwrap_err();
    let said = errors[0].to_string();
    assert!(
        said.contains("always fails: matches") && said.contains("not a valid regex"),
        "{said}"
    );
    assert!(compile(spec("first_name.matches('^[a-z]+$')")).is_ok());
}

#[test]
fn a_shadow_of_an_older_schema_is_read_by_column_names() {
    let mut mapper = mapper(vec![
        RuleSpec::column("email", "emp_email"),
        RuleSpec::column("title", "dept"),
        RuleSpec::column("custom.hired", "hired"),
    ]);
    // Columns stood elsewhere, one is gone, `hired` was text once.
    let old = schema_of(&[
        ("id", Class::Int),
        ("dept", Class::Text),
        ("fax", Class::Text),
        ("emp_email", Class::Text),
        ("hired", Class::Text),
    ]);
    let mut stored = Vec::new();
    let cells = [
        text("1"),
        text("R&D"),
        text("12"),
        text("a@x.org"),
        text("soon"),
    ];
    shadow::encode(2, &cells, |_| false, &mut stored);
    let mut out = MappedRows::default();
    mapper.map_shadow(&stored, &mut out);
    assert!(out.row(0).incomplete() && fields(&out.row(0)).iter().all(|f| f.3));
    mapper.learn_schema(2, &old);
    assert!(mapper.knows_schema(2) && mapper.knows_schema(3) && !mapper.knows_schema(1));
    out.clear();
    mapper.map_shadow(&stored, &mut out);
    let got: Vec<_> = fields(&out.row(0))
        .into_iter()
        .map(|f| (f.2, f.3))
        .collect();
    let title = (Some(b"R&D".to_vec()), false);
    let email = (Some(b"a@x.org".to_vec()), false);
    assert_eq!(got, [title, email, (None, true)]);
}

#[test]
fn all_errors_are_reported_with_place_and_suggestion() {
    let spec = MappingSpec {
        rules: vec![
            RuleSpec::column("email", "emp_emial"),
            RuleSpec::column("emial", "emp_email"),
            RuleSpec::column("title", "dept"),
            RuleSpec::expr("title", "dept"),
            RuleSpec::column("displayName", "notes"),
            RuleSpec::expr("nickName", "first_nam + 'x'"),
            RuleSpec::expr("locale", "lowr(dept)"),
            RuleSpec::expr("timezone", "dept +"),
            RuleSpec::column("costCenter", "salary"),
            RuleSpec::new(
                "active",
                RuleKind::Constant(ConstValue::Text("maybe".into())),
            ),
            RuleSpec {
                on_null: OnNull::Default,
                ..RuleSpec::column("division", "dept")
            },
            RuleSpec::expr("department", "id + dept"),
            RuleSpec::expr("custom.level", "dept == 'x'"),
            RuleSpec::column("groups", "teams"),
            RuleSpec {
                split: Some(",".into()),
                ..RuleSpec::column("organization", "dept")
            },
            RuleSpec::column("custom.level2", "id"),
            RuleSpec {
                on_null: OnNull::Keep,
                default: Some(ConstValue::Text("x".into())),
                ..RuleSpec::column("userType", "dept")
            },
            RuleSpec::column("custom.pay", "score"),
        ],
        scope: Some("id".to_owned()),
        redact: vec!["salary".into(), "id".into(), "salry".into()],
        ..MappingSpec::default()
    };
    let errors = compile(spec).unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let all = shown.join("\n");
    for want in [
        "email: found an unknown column `emp_emial`, expected a column of hr.employees; did you mean `emp_email`?",
        "emial: found an unknown attribute `emial`, expected an attribute of users; did you mean `email",
        "title: found a second rule for `title`",
        "displayName: found column `notes` of type json (json), expected values for an attribute of type text",
        "nickName: found an unknown variable `first_nam`, expected a column of hr.employees; did you mean `first_name`?",
        "locale: found an unknown function `lowr`, expected a function of the mapping reference; did you mean `lower`?",
        "timezone: found an expression that cannot be read at line 1",
        "costCenter: found the redacted column `salary`",
        "active: found a text as constant, expected a value for an attribute of type boolean",
        "division: found `on_null = \"default\"` without a default",
        "department: found an expression that always fails",
        "custom.level: found an expression that gives a bool",
        "groups: found column `teams`",
        "organization: found `split` on an attribute that holds a single value",
        "custom.level2: found an unknown attribute",
        "userType: found a default beside `on_null = \"keep\"`",
        "custom.pay: found column `score` of type float (float)",
        "scope: found an expression that gives a int, expected true or false",
        "redact: found the key column `id`",
        "redact: found an unknown column `salry`, expected a column of hr.employees; did you mean `salary`?",
    ] {
        assert!(all.contains(want), "missing: {want}\nin:\n{all}");
    }
    assert_eq!(errors.len(), 20, "{all}");
    let places: Vec<Place> = errors.iter().map(|e| e.place).collect();
    assert!(places.contains(&Place::Rule(5)) && places.contains(&Place::Redact(2)));
}

#[test]
fn an_expression_that_null_fails_is_remarked_on() {
    let mapper = mapper(vec![
        RuleSpec::expr("displayName", "first_name + ' ' + last_name"),
        RuleSpec::expr("nickName", "concat(first_name, ' ', last_name)"),
    ]);
    let shown: Vec<String> = mapper.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(
        shown[0]
            .starts_with("displayName: found an expression that fails where `first_name` is null")
    );
    let cells = row(&[("first_name", text("Ann"))]);
    let out = map(&mapper, cells, None);
    let failed = Outcome::Failed {
        reason: SkipReason::ExpressionFailed,
        rule: Some(0),
    };
    assert_eq!(out.row(0).outcome(), failed);
}

#[test]
fn expressions_are_bounded() {
    let compiled = |source: String| {
        let rule = RuleSpec::expr("title", source);
        compile(MappingSpec {
            rules: vec![rule],
            ..MappingSpec::default()
        })
    };
    assert!(compiled(format!("'{}'", "a".repeat(MAX_EXPRESSION_BYTES))).is_err());
    assert!(compiled(format!("{}dept{}", "(".repeat(500), ")".repeat(500))).is_err());
    assert!(compiled(vec!["1"; 2048].join("+")).is_err());
    for n in [40, 1000] {
        assert!(compiled(vec!["dept"; n].join("+")).is_err());
        assert!(compiled(format!("dept{}", "[0]".repeat(n))).is_err());
    }
    assert!(compiled(vec!["dept"; 30].join("+")).is_ok());
    assert!(compiled(format!("{}dept{}", "(".repeat(40), ")".repeat(40))).is_ok());
    let of_json = "jsonGet(notes, 'desk') + '!'";
    assert!(compiled(of_json.to_owned()).is_ok());
    let nested = "[1].map(a, [a].map(b, [b].map(c, c)))[0][0][0]";
    assert!(compiled(nested.to_owned()).is_err());
    assert!(compiled("string([1].map(a, [a].map(b, b))[0][0])".to_owned()).is_ok());
}

#[test]
fn a_comprehension_may_use_any_name_for_its_variable() {
    let rule = RuleSpec::expr("roles", "skills.map(dept, dept + '!')");
    let mapper = mapper(vec![rule]);
    let out = map(
        &mapper,
        row(&[("skills", text("[\"a\"]")), ("dept", Cell::Missing)]),
        Some(b""),
    );
    assert!(
        !out.row(0).incomplete(),
        "the column of that name is not read"
    );
}

#[test]
fn a_mapper_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Mapper>();
}
