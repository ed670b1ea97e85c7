//! Typed views on cells.
//!
//! A cell travels as text in one canonical form per [`Class`]; the connector produces that
//! form for the log and for a scan alike, so equal values are equal bytes wherever they
//! were read. The view is computed on demand and borrows the arena.

use std::borrow::Cow;

/// What kind of value a column holds. The canonical text of each:
///
/// | class | canonical text |
/// |---|---|
/// | `Bool` | `t` or `f` |
/// | `Int` | decimal digits with an optional `-` |
/// | `Decimal` | exact digits as the source prints them (`12.340`), or `NaN`, `Infinity` |
/// | `Float` | the shortest text that reads back to the same number |
/// | `Text` | UTF-8 |
/// | `Bytes` | lowercase hexadecimal, two digits a byte |
/// | `Date` | `YYYY-MM-DD`, or `infinity`, `-infinity`, with ` BC` behind it |
/// | `Time` | `HH:MM:SS[.ffffff]` with an optional offset |
/// | `Timestamp` | `YYYY-MM-DDTHH:MM:SS[.ffffff]` (no zone) |
/// | `TimestampTz` | the same in UTC, followed by `Z` |
/// | `Uuid` | 36 lowercase characters |
/// | `Json` | the document as the source prints it |
/// | `List` | a JSON array of strings and nulls |
/// | `Other` | the source's own text |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A boolean.
    Bool,
    /// An integer that fits 64 bits, signed or unsigned.
    Int,
    /// An exact decimal number.
    Decimal,
    /// A binary floating-point number.
    Float,
    /// Text.
    Text,
    /// Raw bytes.
    Bytes,
    /// A calendar date.
    Date,
    /// A time of day.
    Time,
    /// A date and time without zone.
    Timestamp,
    /// An instant.
    TimestampTz,
    /// A UUID.
    Uuid,
    /// A JSON document.
    Json,
    /// A list of scalars.
    List,
    /// Anything else, as the source's own text.
    Other,
}

impl Class {
    /// The name an operator reads in findings and in `discover`.
    pub fn name(self) -> &'static str {
        match self {
            Class::Bool => "bool",
            Class::Int => "int",
            Class::Decimal => "decimal",
            Class::Float => "float",
            Class::Text => "text",
            Class::Bytes => "bytes",
            Class::Date => "date",
            Class::Time => "time",
            Class::Timestamp => "timestamp",
            Class::TimestampTz => "timestamptz",
            Class::Uuid => "uuid",
            Class::Json => "json",
            Class::List => "list",
            Class::Other => "other",
        }
    }
}

/// A typed view on one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A floating-point number.
    Float(f64),
    /// Every other class: its canonical text.
    Text(&'a str),
    /// A list: its elements, `None` for null.
    List(Vec<Option<Cow<'a, str>>>),
}

impl<'a> Value<'a> {
    /// Reads canonical text of the given class. `None` when the text is not of that class
    /// (a connector's fault) or not UTF-8.
    pub fn parse(class: Class, text: &'a [u8]) -> Option<Value<'a>> {
        let s = std::str::from_utf8(text).ok()?;
        Some(match class {
            Class::Bool => Value::Bool(match s {
                "t" => true,
                "f" => false,
                _ => return None,
            }),
            Class::Int => match s.parse::<i64>() {
                Ok(n) => Value::Int(n),
                Err(_) => Value::UInt(s.parse().ok()?),
            },
            Class::Float => Value::Float(s.parse().ok()?),
            Class::List => Value::List(
                serde_json::from_str::<Vec<Option<String>>>(s)
                    .ok()?
                    .into_iter()
                    .map(|e| e.map(Cow::Owned))
                    .collect(),
            ),
            _ => Value::Text(s),
        })
    }
}
