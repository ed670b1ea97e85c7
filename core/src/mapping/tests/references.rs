//! Rules that name another record.

use super::*;

fn two_columns() -> TableSchema {
    let mut schema = schema_of(&[
        ("company", Class::Text),
        ("id", Class::Int),
        ("of", Class::Text),
        ("boss", Class::Int),
        ("boss_text", Class::Text),
        ("hired", Class::Date),
        ("secret", Class::Int),
    ]);
    schema.key = vec![0, 1];
    schema
}

fn one_column() -> TableSchema {
    TableSchema {
        key: vec![1],
        ..two_columns()
    }
}

fn manager(kind: RuleKind) -> RuleSpec {
    RuleSpec::new("manager", kind)
}

fn columns(names: &[&str]) -> RuleKind {
    RuleKind::Columns(names.iter().map(|n| (*n).to_owned()).collect())
}

fn compiled(schema: &TableSchema, rule: RuleSpec) -> Result<Mapper, Vec<String>> {
    let spec = MappingSpec {
        rules: vec![rule],
        redact: vec!["secret".to_owned()],
        ..MappingSpec::default()
    };
    Mapper::compile(&spec, schema, &attributes(), 1).map_err(|errors| {
        assert!(errors.iter().all(|e| e.place == Place::Rule(0)));
        errors.iter().map(ToString::to_string).collect()
    })
}

/// The key that a row names.
fn named(schema: &TableSchema, rule: RuleSpec, cells: Vec<Cell<'_>>) -> Option<String> {
    let mapper = compiled(schema, rule).unwrap();
    let batch = batch_of(schema, &[cells]);
    let mut out = MappedRows::default();
    mapper.map(&batch.change(0).after().unwrap(), Some(&[]), &mut out);
    let row = out.row(0);
    assert_eq!(row.outcome(), Outcome::Mapped);
    let field = row.fields().next().unwrap();
    match field.assigned {
        Assigned::Reference(key) => Some(crate::mapped::key_text(key)),
        Assigned::Clear => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_names_the_record_whose_key_it_gives() {
    let row = |of: Cell<'static>, boss: Cell<'static>, boss_text: Cell<'static>| {
        vec![
            text("acme"),
            text("1"),
            of,
            boss,
            boss_text,
            Cell::Null,
            Cell::Null,
        ]
    };
    let one = one_column();
    for (rule, cells, want) in [
        (
            RuleKind::Column("boss".into()),
            row(Cell::Null, text("7"), Cell::Null),
            Some("7"),
        ),
        (
            RuleKind::Column("boss".into()),
            row(Cell::Null, Cell::Null, Cell::Null),
            None,
        ),
        (
            RuleKind::Column("boss_text".into()),
            row(Cell::Null, Cell::Null, text(" 007 ")),
            Some("7"),
        ),
        (
            RuleKind::Column("boss_text".into()),
            row(Cell::Null, Cell::Null, text("  ")),
            None,
        ),
        (
            RuleKind::Column("boss_text".into()),
            row(Cell::Null, Cell::Null, text("n/a")),
            Some("n/a"),
        ),
        (
            columns(&["boss"]),
            row(Cell::Null, text("7"), Cell::Null),
            Some("7"),
        ),
        (
            RuleKind::Expr("boss == 0 ? null : boss".into()),
            row(Cell::Null, text("0"), Cell::Null),
            None,
        ),
        (
            RuleKind::Expr("boss_text.split('-')[1]".into()),
            row(Cell::Null, Cell::Null, text("e-07")),
            Some("7"),
        ),
    ] {
        let said = format!("{rule:?}");
        assert_eq!(named(&one, manager(rule), cells).as_deref(), want, "{said}");
    }
    let two = two_columns();
    let both = || manager(columns(&["of", "boss"]));
    let of = |of, boss| named(&two, both(), row(of, boss, Cell::Null));
    assert_eq!(of(text("acme"), text("7")).as_deref(), Some("acme,7"));
    assert_eq!(of(text(""), text("7")).as_deref(), Some(",7"));
    assert_eq!(of(text("acme"), Cell::Null), None);
    assert_eq!(of(Cell::Null, text("7")), None);
}

#[test]
fn a_rule_that_could_never_name_a_record_is_an_error_that_says_what_would() {
    let (one, two) = (one_column(), two_columns());
    let constant = RuleKind::Constant(ConstValue::Integer(1));
    let with_default = RuleSpec {
        default: Some(ConstValue::Integer(1)),
        ..manager(RuleKind::Column("boss".into()))
    };
    for (schema, rule, words) in [
        (
            &one,
            manager(constant),
            ["the same value for every record", "(`id`)"],
        ),
        (&one, with_default, ["a default", "names nobody"]),
        (
            &one,
            manager(RuleKind::Column("hired".into())),
            ["column `hired`", "the key of the other record"],
        ),
        (
            &one,
            manager(RuleKind::Column("nosuch".into())),
            ["unknown column", "nosuch"],
        ),
        (
            &one,
            manager(RuleKind::Column("secret".into())),
            ["redacted", "secret"],
        ),
        (
            &one,
            manager(RuleKind::Expr("boss > 1".into())),
            ["a bool", "reference"],
        ),
        (
            &one,
            manager(columns(&["of", "boss"])),
            ["2 columns", "(`id`)"],
        ),
        (
            &two,
            manager(RuleKind::Column("boss".into())),
            ["one column", "company, id"],
        ),
        (
            &two,
            manager(RuleKind::Expr("boss".into())),
            ["one value", "company, id"],
        ),
        (
            &two,
            manager(columns(&["of", "hired"])),
            ["column `hired`", "the key of the other record"],
        ),
        (
            &two,
            RuleSpec::new("title", columns(&["of", "boss"])),
            ["no reference", "join"],
        ),
    ] {
        let said = format!("{rule:?}");
        let errors = compiled(schema, rule).unwrap_err();
        let all = errors.join("\n");
        assert!(words.iter().all(|w| all.contains(w)), "{said}: {all}");
    }
}

#[test]
fn a_mapping_with_a_reference_is_another_one_than_that_which_copied_a_text() {
    let spec = |attribute: &str| MappingSpec {
        rules: vec![RuleSpec::column(attribute, "boss")],
        ..MappingSpec::default()
    };
    let of = |attribute: &str| {
        let mapper = Mapper::compile(&spec(attribute), &one_column(), &attributes(), 1);
        mapper.unwrap().fingerprint()
    };
    let as_text = xxhash_rust::xxh3::xxh3_64(spec("manager").said().as_bytes());
    assert_ne!(of("manager"), as_text);
    let as_ever = xxhash_rust::xxh3::xxh3_64(spec("title").said().as_bytes());
    assert_eq!(of("title"), as_ever, "others keep their name");
}

#[test]
fn a_test_of_a_mapping_expects_the_key_of_the_record() {
    let file = serde_json::json!({ "test": [
        { "name": "one", "row": { "id": 1, "boss": 7 }, "expect": { "manager": 7 } },
        { "name": "text", "row": { "id": 1, "boss": 7 }, "expect": { "manager": "7" } },
        { "name": "none", "row": { "id": 1 }, "clear": ["manager"] },
        { "name": "wrong", "row": { "id": 1, "boss": 7 }, "expect": { "manager": 8 } },
    ]});
    let file: fixture::FixtureFile = serde_json::from_value(file).unwrap();
    let schema = Arc::new(one_column());
    let mapper = compiled(&schema, manager(RuleKind::Column("boss".into()))).unwrap();
    let results = fixture::run(&file, &mapper, &schema, &attributes());
    let passed: Vec<bool> = results.iter().map(|r| r.passed()).collect();
    assert_eq!(passed, [true, true, true, false]);
    assert_eq!(results[3].differences[0].actual, "\"7\"");
    let two = Arc::new(two_columns());
    let mapper = compiled(&two, manager(columns(&["of", "boss"]))).unwrap();
    let file = serde_json::json!({ "test": [
        { "name": "both", "row": { "of": "a", "boss": 7 }, "expect": { "manager": ["a", 7] } },
    ]});
    let file: fixture::FixtureFile = serde_json::from_value(file).unwrap();
    assert!(fixture::run(&file, &mapper, &two, &attributes())[0].passed());
}
