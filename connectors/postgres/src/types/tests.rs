//! Every class, and shapes that are refused.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;
use rollcall_contract::{
    Cell, Column, Cursor, Op, TableName, TableNo, TableSchema, Tx, TxId, Value,
};
use std::sync::Arc;

fn types() -> HashMap<u32, ResolvedType> {
    let t = |name: &str, kind| ResolvedType {
        name: name.to_owned(),
        kind,
    };
    HashMap::from_iter([
        (90_001, t("mood", ResolvedKind::Enum)),
        (90_002, t("hired", ResolvedKind::Domain(1184))),
        (
            90_003,
            t(
                "_hired",
                ResolvedKind::Array {
                    element: 90_002,
                    delimiter: b',',
                },
            ),
        ),
        (90_004, t("citext", ResolvedKind::Text)),
        (90_005, t("endless", ResolvedKind::Domain(90_005))),
    ])
}

fn text(oid: u32, value: &str) -> String {
    let out = canonical(oid, &types(), value.as_bytes()).unwrap();
    String::from_utf8(out.into_owned()).unwrap()
}

#[test]
fn values_become_canonical() {
    for (oid, value, expected) in [
        (16, "t", "t"),
        (17, "\\xdead01", "dead01"),
        (17, "\\x", ""),
        (25, " x ", " x "),
        (1114, "2024-02-29 10:11:12.5", "2024-02-29T10:11:12.5"),
        (1114, "0044-03-15 12:00:00 BC", "0044-03-15T12:00:00 BC"),
        (1114, "-infinity", "-infinity"),
        (1114, "12024-01-01 00:00:00", "12024-01-01T00:00:00"),
        (1184, "2024-02-29 10:11:12+00", "2024-02-29T10:11:12Z"),
        (
            1184,
            "2024-02-29 10:11:12.000001+00",
            "2024-02-29T10:11:12.000001Z",
        ),
        (1184, "0044-03-15 12:00:00+00 BC", "0044-03-15T12:00:00Z BC"),
        (1184, "infinity", "infinity"),
        (90_002, "2024-02-29 10:11:12+00", "2024-02-29T10:11:12Z"),
        (1009, "{}", "[]"),
        (
            1009,
            "{a,NULL,\"NULL\",\"\",\"q\\\"\\\\,}\"}",
            r#"["a",null,"NULL","","q\"\\,}"]"#,
        ),
        (1009, "[0:1]={a,b}", r#"["a","b"]"#),
        (1009, "{{a,b},{\"}\",d}}", r#"["{a,b}","{\"}\",d}"]"#),
        (1009, "{\"a\nb\u{1}\"}", "[\"a\\nb\\u0001\"]"),
        (1007, "{1,-2}", r#"["1","-2"]"#),
        (1001, "{\"\\\\x01\"}", r#"["01"]"#),
        (
            90_003,
            "{\"2024-02-29 10:11:12+00\"}",
            r#"["2024-02-29T10:11:12Z"]"#,
        ),
        (
            1020,
            "{(1,1),(0,0);(2,2),(1,1)}",
            r#"["(1,1),(0,0)","(2,2),(1,1)"]"#,
        ),
    ] {
        assert_eq!(text(oid, value), expected, "{oid} {value}");
    }
}

#[test]
fn classes_follow_the_type() {
    for (oid, class) in [
        (23, Class::Int),
        (1700, Class::Decimal),
        (1005, Class::List),
        (869, Class::Other),
        (22, Class::Other),
        (90_001, Class::Text),
        (90_002, Class::TimestampTz),
        (90_003, Class::List),
        (90_004, Class::Text),
        (90_005, Class::Other),
        (99_999, Class::Other),
    ] {
        assert_eq!(Form::of(oid, &types()).class(), class, "{oid}");
    }
    assert_eq!(type_name(23, &types()), "int4");
    assert_eq!(type_name(90_001, &types()), "mood");
    assert_eq!(type_name(99_999, &types()), "type 99999");
}

#[test]
fn another_shape_is_refused() {
    for (oid, value) in [
        (17, "abc\\001"),
        (1184, "2024-02-29 10:11:12+02"),
        (1184, "2024-02-29 10:11:12"),
        (1184, "Thu 29 Feb 10:11:12 2024 CET"),
        (1114, "29/02/2024 10:11:12"),
        (1114, ""),
        (1009, ""),
        (1009, "{"),
        (1009, "{a"),
        (1009, "{a}b"),
        (1009, "{\"a\\"),
        (1009, "[0:1]"),
        (1009, "{{a}"),
    ] {
        assert_eq!(
            canonical(oid, &types(), value.as_bytes()),
            Err(NotCanonical::Shape),
            "{oid} {value}"
        );
    }
}

/// The cell that [`Form::add_cell`] makes of a text in the middle of a buffer.
fn added(form: Form, text: &[u8]) -> Result<Vec<u8>, NotCanonical> {
    let mut data = b"before".to_vec();
    data.extend_from_slice(text);
    data.extend_from_slice(b"behind");
    let mut builder = BatchBuilder::with_buffer(data);
    let table = builder.table(
        TableNo::MAIN,
        &Arc::new(TableSchema {
            table: TableName::new("public", "t"),
            columns: vec![Column {
                name: "c".to_owned(),
                class: form.class(),
                type_name: String::new(),
                nullable: true,
            }],
            key: vec![0],
        }),
    );
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    builder.begin(table, Op::Insert, 0);
    form.add_cell(&mut builder, 6..6 + text.len(), &mut Vec::new())?;
    builder.finish(true, 0);
    assert!(builder.data().starts_with(b"before") && builder.data().ends_with(b"behind"));
    let batch = builder.build(Cursor::new(&[], ""));
    match batch.change(0).after().unwrap().cell(0) {
        Cell::Value(v) => Ok(v.to_vec()),
        other => unreachable!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn log_and_scan_agree_and_nothing_panics(
        oid in prop::sample::select(vec![17u32, 25, 1114, 1184, 1009, 1001, 1185, 1020]),
        text in "[\\[\\]={}\",;\\\\x0-9a: +TZBCNUL-]{0,40}",
    ) {
        let form = Form::of(oid, &types());
        let alone = form.canonical(text.as_bytes()).map(Cow::into_owned);
        prop_assert_eq!(added(form, text.as_bytes()), alone.clone());
        if let (Class::List, Ok(out)) = (form.class(), alone) {
            prop_assert!(Value::parse(Class::List, &out).is_some());
        }
    }

    #[test]
    fn an_array_keeps_its_elements(elements in prop::collection::vec(
        prop::option::of("\\PC{0,12}"), 0..6)
    ) {
        let parts: Vec<String> = elements.iter().map(|e| match e {
            None => "NULL".to_owned(),
            Some(s) => format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\"")),
        }).collect();
        let printed = format!("{{{}}}", parts.join(","));
        let out = Form::of(1009, &types()).canonical(printed.as_bytes()).unwrap().into_owned();
        let Some(Value::List(found)) = Value::parse(Class::List, &out) else {
            return Err(TestCaseError::fail("not a list"));
        };
        let found: Vec<Option<String>> =
            found.into_iter().map(|e| e.map(Cow::into_owned)).collect();
        prop_assert_eq!(found, elements);
    }
}
