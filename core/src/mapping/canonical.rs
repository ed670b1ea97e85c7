//! Values in the canonical form of their attribute.
//!
//! Two sources that mean the same must produce the same bytes, or the directory would see
//! changes where there are none. Each attribute type therefore has one form, and every way
//! into it (a column, an expression, a constant, text read from a varchar column) ends
//! here:
//!
//! | type | form |
//! |---|---|
//! | text | NFC; `userName` and `email` trimmed, nothing left is null |
//! | boolean | `true`, `false` |
//! | integer | decimal digits, within 64 bits |
//! | decimal | digits without needless zeros: `12.5`, never `012.50` |
//! | date | `YYYY-MM-DD`, a real day |
//! | timestamp | `YYYY-MM-DDTHH:MM:SS[.f]`, with `Z` when it is an instant |
//! | list | [`ListValue`]: trimmed texts in NFC without repeats, empty ones left out |
//! | reference | in a mapped row the key of a record (`reference`), in a user the id of one |
//!
//! A value that has no such form fails with a reason; it is never bent into shape.

use std::borrow::Cow;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt};
use cel::common::value::Val;
use rollcall_contract::{Class, Value};
use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;

use super::reference;
use super::spec::{ConstValue, DEFAULT_MAX_VALUE_BYTES};
use super::text::{is_plainly_nfc, push_nfc};
use crate::attribute::{AttrType, Attribute, EMAIL, USER_NAME};
use crate::mapped::ListValue;
use crate::reason::SkipReason;

/// Whether a value was appended (`true`) or the input stands for null.
type Pushed = Result<bool, SkipReason>;

/// What a rule's value must become.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: AttrType,
    trimmed: bool,
    split: Option<String>,
    /// Of a reference: what the key column that the value stands for holds.
    key: Option<Class>,
}

/// Appends a value that a person wrote as text, in the form of its attribute; the parts of a
/// list are separated by commas. `false` when nothing is left of it.
///
/// # Errors
/// When it is no value of the attribute, or too long for one.
pub fn push_written(
    attribute: &Attribute,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<bool, SkipReason> {
    if text.len() > DEFAULT_MAX_VALUE_BYTES {
        return Err(SkipReason::TooLong);
    }
    let split = (attribute.kind == AttrType::List).then(|| ",".to_owned());
    let before = out.len();
    let pushed = Target::new(attribute, split).push_text(text, out)?;
    Ok(pushed && out.len() > before)
}

impl Target {
    pub(crate) fn new(attribute: &Attribute, split: Option<String>) -> Target {
        Target {
            kind: attribute.kind,
            trimmed: attribute.id == EMAIL || attribute.id == USER_NAME,
            split,
            key: None,
        }
    }

    /// A reference to a record whose key is one column of this class.
    pub(crate) fn referring(self, key: Class) -> Target {
        Target {
            key: Some(key),
            ..self
        }
    }

    /// What the key column holds that a reference names.
    pub(crate) fn key_class(&self) -> Option<Class> {
        self.key
    }

    /// Whether some texts are values of the attribute.
    pub(crate) fn reads_text(&self) -> bool {
        self.kind != AttrType::List || self.split.is_some()
    }

    /// Whether a column of this class can be copied into the attribute. The error is what
    /// would do instead.
    pub(crate) fn accepts(&self, class: Class) -> Result<(), &'static str> {
        use AttrType as A;
        use Class as C;
        match (self.kind, class) {
            (A::Text, C::Json) => Err("compute the value with an expression over the column"),
            (A::Text, C::Bytes) => Err("compute the text with an expression over the column"),
            (A::Text, C::List) => Err("join the list with an expression: `join(column, \" \")`"),
            (A::Text, _) => Ok(()),
            (A::Boolean, C::Bool | C::Text | C::Int | C::Other) => Ok(()),
            (A::Integer, C::Int | C::Decimal | C::Text | C::Other) => Ok(()),
            (A::Integer, C::Float) => Err("round it with an expression: `int(column)`"),
            (A::Decimal, C::Decimal | C::Int | C::Text | C::Other) => Ok(()),
            (A::Decimal, C::Float) => {
                Err("a binary fraction is not exact; accept that with an expression: `column`")
            }
            (A::Date, C::Date | C::Timestamp | C::TimestampTz | C::Text | C::Other) => Ok(()),
            (A::Timestamp, C::Timestamp | C::TimestampTz | C::Text | C::Other) => Ok(()),
            (A::Timestamp, C::Date) => {
                Err("add the time of day with an expression: `column + \"T00:00:00\"`")
            }
            (A::List, C::List) => match self.split {
                None => Ok(()),
                Some(_) => Err("leave `split` out: the column already holds a list"),
            },
            (A::List, C::Text | C::Other) => match self.split {
                Some(_) => Ok(()),
                None => Err(
                    "say what separates the values with `split`, or make a list of one \
                             with an expression: `[column]`",
                ),
            },
            (A::Reference, _) => match self.key {
                Some(key) if reference::fits(class, key) => Ok(()),
                _ => Err("name the column that holds the key of the other record"),
            },
            (A::List, _) => Err("make a list with an expression: `[string(column)]`"),
            _ => Err("convert it with an expression"),
        }
    }

    /// Appends a column's value.
    #[inline]
    pub(crate) fn push_cell(&self, class: Class, cell: &[u8], out: &mut Vec<u8>) -> Pushed {
        let text = std::str::from_utf8(cell).map_err(|_| SkipReason::BadValue)?;
        match (self.kind, class) {
            (AttrType::Text, Class::Bool) => push_boolean(text, out),
            (AttrType::Text | AttrType::Integer, Class::Int) => {
                if self.kind == AttrType::Integer {
                    text.parse::<i64>().map_err(|_| SkipReason::TypeMismatch)?;
                }
                out.extend_from_slice(cell);
                Ok(true)
            }
            (AttrType::Timestamp, Class::Timestamp | Class::TimestampTz) => {
                if !starts_with_date(cell) || cell.get(10) != Some(&b'T') {
                    return Err(SkipReason::TypeMismatch);
                }
                out.extend_from_slice(cell);
                Ok(true)
            }
            (AttrType::Date, Class::Date) if cell.len() == 10 => push_shaped_date(cell, out),
            (AttrType::Date, Class::Timestamp | Class::TimestampTz)
                if cell.get(10) == Some(&b'T') =>
            {
                push_shaped_date(&cell[..10], out)
            }
            (AttrType::List, Class::List) => match Value::parse(Class::List, cell) {
                Some(Value::List(items)) => {
                    let items = items.into_iter().flatten();
                    push_list(items, out)
                }
                _ => Err(SkipReason::BadValue),
            },
            _ => self.push_text(text, out),
        }
    }

    /// Appends a value that was written as text.
    pub(crate) fn push_text(&self, text: &str, out: &mut Vec<u8>) -> Pushed {
        if text.as_bytes().contains(&0) {
            return Err(SkipReason::BadValue);
        }
        if self.kind == AttrType::Text {
            let text = if self.trimmed { text.trim() } else { text };
            if self.trimmed && text.is_empty() {
                return Ok(false);
            }
            push_nfc(text, out);
            return Ok(true);
        }
        if self.kind == AttrType::List {
            let split = self.split.as_deref().ok_or(SkipReason::TypeMismatch)?;
            return push_list(text.split(split).map(Cow::Borrowed), out);
        }
        if self.kind == AttrType::Reference {
            return self.push_reference(text, out);
        }
        let text = text.trim();
        if text.is_empty() {
            // An empty field of a form is how a varchar column says that there is nothing.
            return Ok(false);
        }
        match self.kind {
            AttrType::Boolean => push_boolean(text, out),
            AttrType::Integer => push_integer(text, out),
            AttrType::Decimal => push_decimal(text, out),
            AttrType::Date => push_date(text, out),
            _ => push_timestamp(text, out),
        }
    }

    fn push_reference(&self, text: &str, out: &mut Vec<u8>) -> Pushed {
        if text.trim().is_empty() {
            return Ok(false);
        }
        match self.key {
            Some(key) => reference::push_part(text, key, out).map(|()| true),
            None => Err(SkipReason::TypeMismatch),
        }
    }

    /// Appends what an expression gave.
    pub(crate) fn push_cel(&self, value: &(dyn Val + '_), out: &mut Vec<u8>) -> Pushed {
        if value.downcast_ref::<CelNull>().is_some() {
            return Ok(false);
        }
        if let Some(text) = value.downcast_ref::<CelString>() {
            return self.push_text(text.inner(), out);
        }
        if let Some(b) = value.downcast_ref::<CelBool>() {
            return match self.kind {
                AttrType::Boolean => {
                    out.extend_from_slice(if *b.inner() { b"true" } else { b"false" });
                    Ok(true)
                }
                _ => Err(SkipReason::TypeMismatch),
            };
        }
        if let Some(n) = value.downcast_ref::<CelInt>() {
            return self.push_int(*n.inner(), out);
        }
        if let Some(n) = value.downcast_ref::<CelUInt>() {
            return match self.kind {
                AttrType::Reference => self.push_text(&n.inner().to_string(), out),
                AttrType::Text | AttrType::Decimal => {
                    out.extend_from_slice(itoa::Buffer::new().format(*n.inner()).as_bytes());
                    Ok(true)
                }
                _ => match i64::try_from(*n.inner()) {
                    Ok(n) => self.push_int(n, out),
                    Err(_) => Err(SkipReason::TypeMismatch),
                },
            };
        }
        if let Some(n) = value.downcast_ref::<CelDouble>() {
            return self.push_number(*n.inner(), out);
        }
        if let Some(list) = value.downcast_ref::<CelList>() {
            if self.kind != AttrType::List {
                return Err(SkipReason::TypeMismatch);
            }
            let mut items: SmallVec<[Cow<'_, str>; 16]> = SmallVec::new();
            for item in list.inner() {
                if let Some(text) = item.downcast_ref::<CelString>() {
                    items.push(Cow::Borrowed(text.inner()));
                } else if let Some(n) = item.downcast_ref::<CelInt>() {
                    items.push(Cow::Owned(n.inner().to_string()));
                } else if item.downcast_ref::<CelNull>().is_none() {
                    return Err(SkipReason::TypeMismatch);
                }
            }
            return push_list(items.into_iter(), out);
        }
        Err(SkipReason::TypeMismatch)
    }

    /// Appends a value from the configuration.
    pub(crate) fn push_const(&self, value: &ConstValue, out: &mut Vec<u8>) -> Pushed {
        match value {
            ConstValue::Text(text) => self.push_text(text, out),
            ConstValue::Boolean(b) if self.kind == AttrType::Boolean => {
                out.extend_from_slice(if *b { b"true" } else { b"false" });
                Ok(true)
            }
            ConstValue::Integer(n) if self.kind != AttrType::Text => self.push_int(*n, out),
            ConstValue::Decimal(digits) if self.kind == AttrType::Decimal => {
                push_decimal(digits, out)
            }
            ConstValue::List(items) if self.kind == AttrType::List => {
                push_list(items.iter().map(|t| Cow::Borrowed(t.as_str())), out)
            }
            _ => Err(SkipReason::TypeMismatch),
        }
    }

    fn push_int(&self, n: i64, out: &mut Vec<u8>) -> Pushed {
        match self.kind {
            AttrType::Reference => self.push_text(itoa::Buffer::new().format(n), out),
            AttrType::Text | AttrType::Integer | AttrType::Decimal => {
                out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
                Ok(true)
            }
            AttrType::Boolean if n == 0 || n == 1 => {
                out.extend_from_slice(if n == 1 { b"true" } else { b"false" });
                Ok(true)
            }
            _ => Err(SkipReason::TypeMismatch),
        }
    }

    fn push_number(&self, n: f64, out: &mut Vec<u8>) -> Pushed {
        match self.kind {
            AttrType::Text | AttrType::Decimal if n.is_finite() => {
                push_decimal(&n.to_string(), out)
            }
            _ => Err(SkipReason::TypeMismatch),
        }
    }
}

fn push_boolean(text: &str, out: &mut Vec<u8>) -> Pushed {
    const YES: [&str; 6] = ["t", "true", "1", "y", "yes", "on"];
    const NO: [&str; 6] = ["f", "false", "0", "n", "no", "off"];
    if YES.iter().any(|w| w.eq_ignore_ascii_case(text)) {
        out.extend_from_slice(b"true");
    } else if NO.iter().any(|w| w.eq_ignore_ascii_case(text)) {
        out.extend_from_slice(b"false");
    } else {
        return Err(SkipReason::TypeMismatch);
    }
    Ok(true)
}

/// Accepts a fraction of zeros only, as decimal columns that hold whole numbers print it.
fn push_integer(text: &str, out: &mut Vec<u8>) -> Pushed {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return Err(SkipReason::TypeMismatch),
        None => text,
    };
    let n: i64 = whole.parse().map_err(|_| SkipReason::TypeMismatch)?;
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    Ok(true)
}

fn push_decimal(text: &str, out: &mut Vec<u8>) -> Pushed {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(SkipReason::TypeMismatch);
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        out.push(b'-');
    }
    out.extend_from_slice(if whole.is_empty() { "0" } else { whole }.as_bytes());
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
    Ok(true)
}

fn starts_with_date(b: &[u8]) -> bool {
    b.len() >= 10
        && b[..10].iter().enumerate().all(|(i, c)| match i {
            4 | 7 => *c == b'-',
            _ => c.is_ascii_digit(),
        })
}

/// A date from a date column: the connector vouches for the day, but not for infinity, eras
/// and years beyond 9999.
fn push_shaped_date(date: &[u8], out: &mut Vec<u8>) -> Pushed {
    if !starts_with_date(date) {
        return Err(SkipReason::TypeMismatch);
    }
    out.extend_from_slice(date);
    Ok(true)
}

fn push_date(text: &str, out: &mut Vec<u8>) -> Pushed {
    let behind = text.as_bytes().get(10);
    if !starts_with_date(text.as_bytes()) || !matches!(behind, None | Some(b'T' | b' ')) {
        return Err(SkipReason::TypeMismatch);
    }
    let day = &text[..10];
    day.parse::<jiff::civil::Date>()
        .map_err(|_| SkipReason::TypeMismatch)?;
    if behind.is_some() {
        // What follows the day must be a time, or this was some other text.
        push_timestamp(text, &mut Vec::new())?;
    }
    out.extend_from_slice(day.as_bytes());
    Ok(true)
}

fn push_timestamp(text: &str, out: &mut Vec<u8>) -> Pushed {
    use std::io::Write;
    if !starts_with_date(text.as_bytes()) || !matches!(text.as_bytes().get(10), Some(b'T' | b' ')) {
        return Err(SkipReason::TypeMismatch);
    }
    let written = if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        write!(out, "{instant}")
    } else if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        write!(out, "{local}")
    } else {
        return Err(SkipReason::TypeMismatch);
    };
    written.map(|()| true).map_err(|_| SkipReason::TypeMismatch)
}

fn push_list<'t>(items: impl Iterator<Item = Cow<'t, str>>, out: &mut Vec<u8>) -> Pushed {
    let mut kept: SmallVec<[Cow<'t, str>; 16]> = SmallVec::new();
    for item in items {
        if item.as_bytes().contains(&0) {
            return Err(SkipReason::BadValue);
        }
        let item = match item {
            Cow::Borrowed(t) if is_plainly_nfc(t) => Cow::Borrowed(t.trim()),
            other => Cow::Owned(other.trim().nfc().collect()),
        };
        if !item.is_empty() {
            kept.push(item);
        }
    }
    let mut texts: SmallVec<[&str; 16]> = kept.iter().map(AsRef::as_ref).collect();
    ListValue::encode_slice(&mut texts, out);
    Ok(true)
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
    use crate::attribute::AttrId;
    use proptest::prelude::*;

    fn target(kind: AttrType, split: Option<&str>) -> Target {
        let attribute = Attribute::new(AttrId(1000), "custom.x".into(), kind);
        Target::new(&attribute, split.map(str::to_owned))
    }

    fn of(kind: AttrType, class: Class, text: &str) -> Result<Option<String>, SkipReason> {
        let mut out = Vec::new();
        target(kind, None)
            .push_cell(class, text.as_bytes(), &mut out)
            .map(|some| some.then(|| String::from_utf8(out).unwrap()))
    }

    fn list(bytes: &[u8]) -> Vec<&str> {
        ListValue::texts(bytes).collect()
    }

    #[test]
    fn each_way_into_a_type_gives_one_form() {
        use AttrType as A;
        use Class as C;
        for (kind, class, text, want) in [
            (A::Text, C::Text, " a ", " a "),
            (A::Text, C::Bool, "f", "false"),
            (A::Text, C::Int, "-7", "-7"),
            (A::Text, C::Decimal, "12.340", "12.340"),
            (A::Boolean, C::Bool, "t", "true"),
            (A::Boolean, C::Text, " YES ", "true"),
            (A::Boolean, C::Int, "0", "false"),
            (A::Integer, C::Int, "42", "42"),
            (A::Integer, C::Text, "+0042 ", "42"),
            (A::Integer, C::Decimal, "42.00", "42"),
            (A::Decimal, C::Decimal, "012.500", "12.5"),
            (A::Decimal, C::Decimal, "-0.0", "0"),
            (A::Decimal, C::Text, ".5", "0.5"),
            (A::Decimal, C::Int, "-3", "-3"),
            (A::Date, C::Date, "2024-02-29", "2024-02-29"),
            (A::Date, C::Timestamp, "2024-02-29T10:00:00", "2024-02-29"),
            (A::Date, C::Text, "2024-02-29 10:00:00", "2024-02-29"),
            (
                A::Timestamp,
                C::TimestampTz,
                "2024-02-29T10:00:00.5Z",
                "2024-02-29T10:00:00.5Z",
            ),
            (
                A::Timestamp,
                C::Text,
                "2024-02-29 10:00:00+02:00",
                "2024-02-29T08:00:00Z",
            ),
            (
                A::Timestamp,
                C::Text,
                "2024-02-29 10:00:00",
                "2024-02-29T10:00:00",
            ),
        ] {
            assert_eq!(
                of(kind, class, text),
                Ok(Some(want.to_owned())),
                "{kind:?} {class:?}"
            );
        }
    }

    #[test]
    fn what_has_no_form_fails_and_is_never_bent() {
        use AttrType as A;
        use Class as C;
        for (kind, class, text, reason) in [
            (A::Boolean, C::Text, "active", SkipReason::TypeMismatch),
            (A::Boolean, C::Int, "2", SkipReason::TypeMismatch),
            (
                A::Integer,
                C::Int,
                "18446744073709551615",
                SkipReason::TypeMismatch,
            ),
            (A::Integer, C::Decimal, "1.5", SkipReason::TypeMismatch),
            (A::Integer, C::Text, "1.", SkipReason::TypeMismatch),
            (A::Decimal, C::Decimal, "NaN", SkipReason::TypeMismatch),
            (A::Decimal, C::Text, "1e5", SkipReason::TypeMismatch),
            (A::Decimal, C::Text, ".", SkipReason::TypeMismatch),
            (A::Date, C::Date, "infinity", SkipReason::TypeMismatch),
            (A::Date, C::Date, "-infinity", SkipReason::TypeMismatch),
            (A::Date, C::Date, "0044-03-15 BC", SkipReason::TypeMismatch),
            (A::Date, C::Text, "2023-02-29", SkipReason::TypeMismatch),
            (A::Date, C::Text, "2024-02-28 x", SkipReason::TypeMismatch),
            (
                A::Timestamp,
                C::Text,
                "2024-02-28",
                SkipReason::TypeMismatch,
            ),
            (
                A::Timestamp,
                C::Timestamp,
                "infinity",
                SkipReason::TypeMismatch,
            ),
            (A::Text, C::Text, "a\0b", SkipReason::BadValue),
        ] {
            assert_eq!(of(kind, class, text), Err(reason), "{kind:?} {class:?}");
        }
        let mut out = Vec::new();
        let bad = target(A::Text, None).push_cell(C::Text, &[0xc3], &mut out);
        assert_eq!(bad, Err(SkipReason::BadValue));
    }

    #[test]
    fn an_empty_varchar_says_nothing_to_a_typed_attribute() {
        assert_eq!(of(AttrType::Date, Class::Text, "  "), Ok(None));
        assert_eq!(of(AttrType::Text, Class::Text, ""), Ok(Some(String::new())));
    }

    #[test]
    fn lists_come_from_arrays_and_from_text() {
        let mut out = Vec::new();
        target(AttrType::List, None)
            .push_cell(Class::List, br#"["b", null, " a ", "", "b"]"#, &mut out)
            .unwrap();
        assert_eq!(list(&out), ["a", "b"]);
        out.clear();
        target(AttrType::List, Some(";"))
            .push_cell(Class::Text, b"b; a;;b", &mut out)
            .unwrap();
        assert_eq!(list(&out), ["a", "b"]);
        let bad = target(AttrType::List, None).push_cell(Class::List, b"{a}", &mut out);
        assert_eq!(bad, Err(SkipReason::BadValue));
    }

    proptest! {
        #[test]
        fn a_decimal_is_stable_and_keeps_its_number(whole in 0u64..1_000_000, fraction in "[0-9]{0,6}", minus: bool) {
            let text = format!("{}{whole}.{fraction}", if minus { "-" } else { "" });
            let once = of(AttrType::Decimal, Class::Decimal, &text).unwrap().unwrap();
            prop_assert_eq!(once.parse::<f64>().unwrap(), text.parse::<f64>().unwrap());
            let twice = of(AttrType::Decimal, Class::Decimal, &once).unwrap().unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in any::<String>()) {
            for kind in [AttrType::Boolean, AttrType::Integer, AttrType::Decimal, AttrType::Date, AttrType::Timestamp] {
                if let Ok(Some(once)) = of(kind, Class::Text, &text) {
                    let twice = of(kind, Class::Text, &once);
                    prop_assert_eq!(twice, Ok(Some(once)));
                }
            }
        }
    }
}
