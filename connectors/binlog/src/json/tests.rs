#![allow(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::*;

fn printed(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    print(bytes, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn string(text: &str) -> Vec<u8> {
    let mut out = vec![STRING, text.len() as u8];
    out.extend(text.as_bytes());
    out
}

fn opaque(code: TypeCode, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![OPAQUE, code.0];
    let len = bytes.len();
    if len < 128 {
        out.push(len as u8);
    } else {
        out.extend([len as u8 & 0x7F | 0x80, (len >> 7) as u8]);
    }
    out.extend(bytes);
    out
}

#[test]
fn scalars_print_as_the_server_prints_them() {
    for (bytes, text) in [
        (vec![], "null"),
        (vec![LITERAL, 0], "null"),
        (vec![LITERAL, 1], "true"),
        (vec![LITERAL, 2], "false"),
        (vec![INT16, 0xFE, 0xFF], "-2"),
        (vec![UINT16, 0xFE, 0xFF], "65534"),
        (vec![INT32, 0, 0, 0, 0x80], "-2147483648"),
        (
            vec![UINT64, 255, 255, 255, 255, 255, 255, 255, 255],
            "18446744073709551615",
        ),
        (
            string("a\"\\\n\u{1}é\u{7f}"),
            "\"a\\\"\\\\\\n\\u0001é\u{7f}\"",
        ),
        (opaque(TypeCode::NEWDECIMAL, &[3, 2, 0x81, 10]), "1.10"),
        (opaque(TypeCode::NEWDECIMAL, &[3, 2, 0x7E, 0xF5]), "-1.10"),
        (opaque(TypeCode::VAR_STRING, b"x"), "\"x\""),
        (opaque(TypeCode::BLOB, b"abc"), "\"base64:type252:YWJj\""),
    ] {
        assert_eq!(printed(&bytes), text);
    }
    let long = printed(&opaque(TypeCode::BLOB, &[0; 60]));
    assert_eq!(
        long,
        format!("\"base64:type252:{}\\nAAAA\"", "A".repeat(76))
    );
}

#[test]
fn numbers_print_as_my_gcvt_prints_them() {
    for (value, text) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (1.5, "1.5"),
        (0.1, "0.1"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (123456789012345680.0, "1.2345678901234568e17"),
        (1234567890123456.7, "1234567890123456.8"),
        (1e-14, "0.00000000000001"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (-1.25e-7, "-0.000000125"),
        (1.797_693_134_862_315_7e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ] {
        let mut bytes = vec![DOUBLE];
        bytes.extend(f64::to_le_bytes(value));
        assert_eq!(printed(&bytes), text, "{value:e}");
    }
}

#[test]
fn containers_print_with_their_inlined_and_their_distant_values() {
    // {"a": 1, "bb": ["x", null]}
    let array = [2, 0, 13, 0, STRING, 10, 0, LITERAL, 0, 0, 1, b'x', 0];
    let mut object = vec![SMALL_OBJECT, 2, 0, 0, 0];
    object.extend([18, 0, 1, 0, 19, 0, 2, 0]);
    object.extend([INT16, 1, 0, SMALL_ARRAY, 21, 0]);
    object.extend(b"abb");
    object.extend(array);
    object[3] = (object.len() - 1) as u8;
    assert_eq!(printed(&object), r#"{"a": 1, "bb": ["x", null]}"#);
    assert_eq!(printed(&[SMALL_OBJECT, 0, 0, 4, 0]), "{}");
    assert_eq!(printed(&[LARGE_ARRAY, 0, 0, 0, 0, 8, 0, 0, 0]), "[]");
}

#[test]
fn a_document_that_refers_to_itself_does_not_grow() {
    // An array whose two elements are the array itself.
    let hostile = [
        SMALL_ARRAY,
        2,
        0,
        10,
        0,
        SMALL_ARRAY,
        0,
        0,
        SMALL_ARRAY,
        0,
        0,
    ];
    let mut out = Vec::new();
    assert!(print(&hostile, &mut out).is_err());
    assert!(out.len() < 1000);
    // Levels that each refer twice to the next.
    let mut bytes = vec![SMALL_ARRAY];
    for level in 1..=60u16 {
        let next = (level * 10).to_le_bytes();
        let _ = next;
        bytes.extend([2, 0, 0xFF, 0x0F, SMALL_ARRAY, 10, 0, SMALL_ARRAY, 10, 0]);
    }
    bytes.resize(0x1100, 0);
    out.clear();
    assert!(print(&bytes, &mut out).is_err());
    assert!(out.len() < 64 << 10);
}

fn difference(steps: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (operation, path, value) in steps {
        out.extend([*operation, path.len() as u8]);
        out.extend(path.as_bytes());
        if *operation != 2 {
            out.push(value.len() as u8);
            out.extend(*value);
        }
    }
    out
}

fn applied(old: &str, steps: &[(u8, &str, &[u8])]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    apply(old.as_bytes(), &difference(steps), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn differences_are_applied_in_order_and_keep_what_they_do_not_touch() {
    let old = r#"{"a": 1.10, "bb": ["x", {"k y": "\u0001é\\"}, 3], "ccc": null}"#;
    for (steps, new) in [
        (
            vec![(0, "$.a", &[INT16, 7, 0][..])],
            r#"{"a": 7, "bb": ["x", {"k y": "\u0001é\\"}, 3], "ccc": null}"#,
        ),
        (
            vec![(2, "$.bb[1]", &[])],
            r#"{"a": 1.10, "bb": ["x", 3], "ccc": null}"#,
        ),
        (
            vec![
                (1, "$.bb[0]", &[LITERAL, 1]),
                (2, "$.ccc", &[]),
                (1, "$.b", &[LITERAL, 2]),
            ],
            r#"{"a": 1.10, "b": false, "bb": [true, "x", {"k y": "\u0001é\\"}, 3]}"#,
        ),
        (
            vec![(0, r#"$.bb[1]."k y""#, &[STRING, 1, b'"'])],
            r#"{"a": 1.10, "bb": ["x", {"k y": "\""}, 3], "ccc": null}"#,
        ),
        (vec![(0, "$", &[SMALL_OBJECT, 0, 0, 4, 0])], "{}"),
        (
            vec![(1, "$.bb[9]", &[INT16, 4, 0])],
            r#"{"a": 1.10, "bb": ["x", {"k y": "\u0001é\\"}, 3, 4], "ccc": null}"#,
        ),
        (vec![], old),
    ] {
        assert_eq!(applied(old, &steps).unwrap(), new);
    }
    for steps in [
        [(0, "$.zz", &[LITERAL, 0][..])],
        [(2, "$.bb[3]", &[])],
        [(1, "$.a", &[LITERAL, 0])],
        [(2, "$", &[])],
        [(0, "a", &[LITERAL, 0])],
        [(0, "$.bb[", &[LITERAL, 0])],
        [(3, "$.a", &[LITERAL, 0])],
    ] {
        assert!(applied(old, &steps).is_err(), "{steps:?}");
    }
}

/// A document in binary form, small containers only.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (0u8..3).prop_map(|l| vec![LITERAL, l]),
        any::<i16>().prop_map(|n| [vec![INT16], n.to_le_bytes().to_vec()].concat()),
        any::<u64>().prop_map(|n| [vec![UINT64], n.to_le_bytes().to_vec()].concat()),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(|n| [vec![DOUBLE], n.to_le_bytes().to_vec()].concat()),
        "\\PC{0,8}".prop_map(|s| string(&s)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        proptest::collection::vec(inner, 0..4).prop_map(|items| {
            let head = 4 + 3 * items.len();
            let mut entries: Vec<u8> = Vec::new();
            let mut values: Vec<u8> = Vec::new();
            for item in &items {
                entries.push(item[0]);
                if matches!(item[0], LITERAL | INT16) {
                    entries.push(item[1]);
                    entries.push(item.get(2).copied().unwrap_or(0));
                } else {
                    entries.extend(((head + values.len()) as u16).to_le_bytes());
                    values.extend(&item[1..]);
                }
            }
            let mut out = vec![SMALL_ARRAY];
            out.extend((items.len() as u16).to_le_bytes());
            out.extend(((head + values.len()) as u16).to_le_bytes());
            out.extend(entries);
            out.extend(values);
            out
        })
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_json_and_survives_an_empty_difference(bytes in document()) {
        let text = printed(&bytes);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        prop_assert_eq!(applied(&text, &[]).unwrap(), text);
    }

    #[test]
    fn damaged_documents_are_read_or_refused(
        mut bytes in document(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut out = Vec::new();
        let _ = print(&bytes, &mut out);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        text in "[\\[\\]{}\":, a1\\\\u$.]{0,32}",
    ) {
        let mut out = Vec::new();
        let _ = print(&bytes, &mut out);
        let _ = apply(text.as_bytes(), &bytes, &mut out);
        let _ = apply(b"{\"a\": [1]}", &difference(&[(0, &text, &[LITERAL, 0])]), &mut out);
    }
}
