//! Types of the server and the canonical text of their values.
//!
//! The log and a scan both receive the server's text output under the same session
//! settings ([`crate::config::SESSION_OPTIONS`]), and both pass it through the one
//! [`Form`] of its type. Equal values are therefore equal bytes wherever they were read;
//! the contract's table of classes says what the bytes are. A text that does not have the
//! shape which those settings promise is refused, not passed on in another form.

use std::borrow::Cow;
use std::ops::Range;

use hashbrown::HashMap;
use rollcall_contract::{BatchBuilder, Class};
use smallvec::SmallVec;
use tokio_postgres::types::{Kind, Type};

/// What the query side knows of types that are not built in.
pub trait TypeResolver: Send + Sync {
    /// A type by its OID; none when it is not known (yet).
    fn resolve(&self, oid: u32) -> Option<ResolvedType>;
}

/// A type as `pg_type` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedType {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: ResolvedKind,
}

/// What a type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedKind {
    /// `typtype = 'e'`.
    Enum,
    /// `typtype = 'd'`: the OID of `typbasetype`.
    Domain(u32),
    /// An array: the OID of `typelem`, and the element's `typdelim`.
    Array {
        /// The element type.
        element: u32,
        /// The character between elements.
        delimiter: u8,
    },
    /// A type of an extension that reads as text (`citext`).
    Text,
    /// Anything else: kept as the server's own text.
    Other,
}

impl TypeResolver for HashMap<u32, ResolvedType> {
    fn resolve(&self, oid: u32) -> Option<ResolvedType> {
        self.get(&oid).cloned()
    }
}

impl TypeResolver for std::collections::HashMap<u32, ResolvedType> {
    fn resolve(&self, oid: u32) -> Option<ResolvedType> {
        self.get(&oid).cloned()
    }
}

/// How the text of one type becomes canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    class: Class,
    rewrite: Rewrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewrite {
    Scalar(Scalar),
    List { element: Scalar, delimiter: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    AsIs,
    Bytes,
    Timestamp,
    TimestampTz,
}

/// A text that the session settings do not allow for its type, or that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// The server prints this type in another way than it was told to.
    #[error("is not printed in the form that the session settings ask for")]
    Shape,
    /// The canonical text would take more than 1 GiB.
    #[error("is longer than 1 GiB in canonical form")]
    TooLong,
}

const LIMIT: usize = 1 << 30;
/// Domains over domains; the server allows more, nobody uses it.
const MAX_DEPTH: usize = 16;

impl Form {
    const OTHER: Form = Form::scalar(Class::Other, Scalar::AsIs);

    const fn scalar(class: Class, scalar: Scalar) -> Form {
        Form {
            class,
            rewrite: Rewrite::Scalar(scalar),
        }
    }

    /// The form of a type. Unknown types are [`Class::Other`].
    pub fn of(oid: u32, types: &dyn TypeResolver) -> Form {
        Form::at_depth(oid, types, 0)
    }

    fn at_depth(oid: u32, types: &dyn TypeResolver, depth: usize) -> Form {
        if let Some(form) = builtin(oid) {
            return form;
        }
        let (element, delimiter) = match Type::from_oid(oid).as_ref().map(Type::kind) {
            Some(Kind::Array(element)) => {
                // Only `box` has another delimiter (pg_type.typdelim).
                let delimiter = if *element == Type::BOX { b';' } else { b',' };
                (element.oid(), delimiter)
            }
            Some(_) => return Form::OTHER,
            None => match types.resolve(oid).map(|t| t.kind) {
                _ if depth >= MAX_DEPTH => return Form::OTHER,
                Some(ResolvedKind::Enum | ResolvedKind::Text) => {
                    return Form::scalar(Class::Text, Scalar::AsIs);
                }
                Some(ResolvedKind::Domain(base)) => {
                    return Form::at_depth(base, types, depth + 1);
                }
                Some(ResolvedKind::Array { element, delimiter }) => (element, delimiter),
                Some(ResolvedKind::Other) | None => return Form::OTHER,
            },
        };
        let element = match Form::at_depth(element, types, depth + 1).rewrite {
            Rewrite::Scalar(scalar) => scalar,
            Rewrite::List { .. } => Scalar::AsIs,
        };
        Form {
            class: Class::List,
            rewrite: Rewrite::List { element, delimiter },
        }
    }

    /// The class of the values.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The canonical text of one value.
    ///
    /// # Errors
    /// See [`NotCanonical`].
    pub fn canonical<'a>(&self, text: &'a [u8]) -> Result<Cow<'a, [u8]>, NotCanonical> {
        match self.rewrite {
            Rewrite::Scalar(Scalar::AsIs) => Ok(Cow::Borrowed(text)),
            Rewrite::Scalar(scalar) => {
                let mut own = text.to_vec();
                let range = in_place(scalar, &mut own)?;
                own.truncate(range.end);
                own.drain(..range.start);
                Ok(Cow::Owned(own))
            }
            Rewrite::List { element, delimiter } => {
                let mut out = Vec::with_capacity(text.len() + 16);
                list(element, delimiter, text, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Adds the value whose text lies at a range of the builder's data as the next cell, in
    /// canonical form. Rewrites it where it lies when it fits, through `scratch` when not.
    ///
    /// # Errors
    /// See [`NotCanonical`]; no cell was added.
    ///
    /// # Panics
    /// When the range is not inside of the builder's data.
    #[inline]
    pub fn add_cell(
        &self,
        builder: &mut BatchBuilder,
        at: Range<usize>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NotCanonical> {
        match self.rewrite {
            Rewrite::Scalar(Scalar::AsIs) => builder.cell_range(at.start, at.len()),
            Rewrite::Scalar(scalar) => {
                let found = in_place(scalar, &mut builder.data()[at.clone()])?;
                builder.cell_range(at.start + found.start, found.len());
            }
            Rewrite::List { element, delimiter } => {
                scratch.clear();
                list(element, delimiter, &builder.data()[at], scratch)?;
                builder.cell_bytes(scratch);
            }
        }
        Ok(())
    }
}

/// The name of a type for people, as far as it is known.
pub fn type_name(oid: u32, types: &dyn TypeResolver) -> String {
    match Type::from_oid(oid) {
        Some(t) => t.name().to_owned(),
        None => types
            .resolve(oid)
            .map_or_else(|| format!("type {oid}"), |t| t.name),
    }
}

/// Canonical text of a value of the given type: the function that log and scan share.
///
/// # Errors
/// See [`NotCanonical`].
pub fn canonical<'a>(
    type_oid: u32,
    types: &dyn TypeResolver,
    text: &'a [u8],
) -> Result<Cow<'a, [u8]>, NotCanonical> {
    Form::of(type_oid, types).canonical(text)
}

/// OIDs of `pg_type.dat`; they never change.
fn builtin(oid: u32) -> Option<Form> {
    Some(match oid {
        16 => Form::scalar(Class::Bool, Scalar::AsIs),
        17 => Form::scalar(Class::Bytes, Scalar::Bytes),
        // int8, int2, int4, oid, xid, cid, xid8
        20 | 21 | 23 | 26 | 28 | 29 | 5069 => Form::scalar(Class::Int, Scalar::AsIs),
        // "char", name, text, bpchar, varchar
        18 | 19 | 25 | 1042 | 1043 => Form::scalar(Class::Text, Scalar::AsIs),
        // json, jsonb
        114 | 3802 => Form::scalar(Class::Json, Scalar::AsIs),
        // float4, float8
        700 | 701 => Form::scalar(Class::Float, Scalar::AsIs),
        1082 => Form::scalar(Class::Date, Scalar::AsIs),
        // time, timetz
        1083 | 1266 => Form::scalar(Class::Time, Scalar::AsIs),
        1114 => Form::scalar(Class::Timestamp, Scalar::Timestamp),
        1184 => Form::scalar(Class::TimestampTz, Scalar::TimestampTz),
        1700 => Form::scalar(Class::Decimal, Scalar::AsIs),
        2950 => Form::scalar(Class::Uuid, Scalar::AsIs),
        // int2vector and oidvector call themselves arrays and do not print as such
        22 | 30 => Form::OTHER,
        _ => return None,
    })
}

/// Rewrites a scalar within its own bytes; gives where the canonical text lies.
fn in_place(scalar: Scalar, text: &mut [u8]) -> Result<Range<usize>, NotCanonical> {
    match scalar {
        Scalar::AsIs => Ok(0..text.len()),
        Scalar::Bytes => text
            .starts_with(b"\\x")
            .then_some(2..text.len())
            .ok_or(NotCanonical::Shape),
        Scalar::Timestamp => {
            if !matches!(&*text, b"infinity" | b"-infinity") {
                separate(text)?;
            }
            Ok(0..text.len())
        }
        Scalar::TimestampTz => {
            if matches!(&*text, b"infinity" | b"-infinity") {
                return Ok(0..text.len());
            }
            let at = separate(text)?;
            let zone = text[at..]
                .iter()
                .position(|b| matches!(b, b'+' | b'-'))
                .ok_or(NotCanonical::Shape)?
                + at;
            if !matches!(&text[zone..], b"+00" | b"+00 BC") {
                return Err(NotCanonical::Shape);
            }
            text[zone] = b'Z';
            text.copy_within(zone + 3.., zone + 1);
            Ok(0..text.len() - 2)
        }
    }
}

/// Puts the `T` between an ISO date and its time; gives where.
fn separate(text: &mut [u8]) -> Result<usize, NotCanonical> {
    // The year has four digits or more; a space that is not where an ISO date ends would
    // be another date style.
    let at = text
        .iter()
        .position(|&b| b == b' ')
        .filter(|&at| at >= 10 && text[at - 3] == b'-' && text[at - 6] == b'-')
        .ok_or(NotCanonical::Shape)?;
    text[at] = b'T';
    Ok(at)
}

/// Writes an array as a JSON list of strings and nulls. The elements of an array with
/// several dimensions are its sub-arrays, as the server prints them.
fn list(
    element: Scalar,
    delimiter: u8,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), NotCanonical> {
    let mut rest = text;
    if rest.first() == Some(&b'[') {
        // Bounds other than from 1: `[0:2]={…}`
        let equals = memchr::memchr(b'=', rest).ok_or(NotCanonical::Shape)?;
        rest = &rest[equals + 1..];
    }
    let mut rest = rest.strip_prefix(b"{").ok_or(NotCanonical::Shape)?;
    out.push(b'[');
    if rest == b"}" {
        out.push(b']');
        return Ok(());
    }
    let mut value = SmallVec::<[u8; 64]>::new();
    loop {
        value.clear();
        let (&first, tail) = rest.split_first().ok_or(NotCanonical::Shape)?;
        let mut is_null = false;
        match first {
            b'"' => {
                rest = quoted(tail, &mut value)?;
                let range = in_place(element, &mut value)?;
                json_string(&value[range], out);
            }
            b'{' => {
                let len = nested(rest)?;
                json_string(&rest[..len], out);
                rest = &rest[len..];
            }
            _ => {
                let len = rest
                    .iter()
                    .position(|&b| b == delimiter || b == b'}')
                    .ok_or(NotCanonical::Shape)?;
                is_null = rest[..len].eq_ignore_ascii_case(b"null");
                if !is_null {
                    value.extend_from_slice(&rest[..len]);
                    let range = in_place(element, &mut value)?;
                    json_string(&value[range], out);
                }
                rest = &rest[len..];
            }
        }
        if is_null {
            out.extend_from_slice(b"null");
        }
        if out.len() > LIMIT {
            return Err(NotCanonical::TooLong);
        }
        let (&next, tail) = rest.split_first().ok_or(NotCanonical::Shape)?;
        rest = tail;
        if next == delimiter {
            out.push(b',');
        } else if next == b'}' && rest.is_empty() {
            out.push(b']');
            return Ok(());
        } else {
            return Err(NotCanonical::Shape);
        }
    }
}

/// Takes a quoted element behind its opening quote; gives what follows the closing one.
fn quoted<'a>(
    mut rest: &'a [u8],
    value: &mut SmallVec<[u8; 64]>,
) -> Result<&'a [u8], NotCanonical> {
    loop {
        let stop = memchr::memchr2(b'"', b'\\', rest).ok_or(NotCanonical::Shape)?;
        value.extend_from_slice(&rest[..stop]);
        if rest[stop] == b'"' {
            return Ok(&rest[stop + 1..]);
        }
        value.push(*rest.get(stop + 1).ok_or(NotCanonical::Shape)?);
        rest = &rest[stop + 2..];
    }
}

/// The length of a sub-array that begins here.
fn nested(text: &[u8]) -> Result<usize, NotCanonical> {
    let (mut depth, mut in_quotes, mut at) = (0usize, false, 0);
    while let Some(&b) = text.get(at) {
        match b {
            b'\\' => at += 1,
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(NotCanonical::Shape)
}

fn json_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(b >> 4)],
                HEX[usize::from(b & 15)],
            ]),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use rollcall_contract::{Cell, Column, Cursor, Op, TableName, TableSchema, Tx, TxId, Value};
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
        let table = builder.table(&Arc::new(TableSchema {
            table: TableName::new("public", "t"),
            columns: vec![Column {
                name: "c".to_owned(),
                class: form.class(),
                type_name: String::new(),
                nullable: true,
            }],
            key: vec![0],
        }));
        builder.tx(Tx {
            id: TxId::default(),
            position: SmallVec::new(),
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
}
