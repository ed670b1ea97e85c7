//! What the server's own description says of its types.
//!
//! The log and a result say most of it themselves; what they do not say is taken from here.

use rollcall_binlog::charset::Charset;
use rollcall_binlog::types::{ColumnFacts, Disguised};
use rollcall_contract::{Class, Column};

use crate::schema::ColumnInfo;

/// The class of a type: the same as that of its values in the log and in a result.
pub(crate) fn class_of(info: &ColumnInfo) -> Class {
    match info.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "year" => Class::Int,
        "decimal" | "numeric" => Class::Decimal,
        "float" | "double" | "real" => Class::Float,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" => {
            Class::Text
        }
        "set" => Class::List,
        "bit" if info.column_type.starts_with("bit(1)") => Class::Bool,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "bit"
        | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" | "vector" => Class::Bytes,
        "date" => Class::Date,
        "time" => Class::Time,
        "datetime" => Class::Timestamp,
        "timestamp" => Class::TimestampTz,
        "json" => Class::Json,
        "uuid" => Class::Uuid,
        _ => Class::Other,
    }
}

/// What a table map without its metadata leaves open.
pub(crate) fn facts(info: &ColumnInfo) -> ColumnFacts {
    ColumnFacts {
        is_unsigned: Some(info.column_type.contains("unsigned")),
        charset: match &info.charset {
            Some(name) => Charset::by_name(name),
            None => Some(Charset::Binary),
        },
        members: members(&info.column_type),
        disguised: match info.data_type.as_str() {
            "uuid" => Some(Disguised::Uuid),
            "inet4" => Some(Disguised::Inet4),
            "inet6" => Some(Disguised::Inet6),
            _ => None,
        },
        has_fraction: has_fraction(info),
    }
}

/// Whether it is a time with a fraction in the format of MariaDB 5.3
/// (`mysql56_temporal_format = OFF`), whose length the log does not say.
pub(crate) fn is_old_fraction(info: &ColumnInfo) -> bool {
    has_fraction(info) && info.column_type.contains("mariadb-5.3")
}

fn has_fraction(info: &ColumnInfo) -> bool {
    matches!(info.data_type.as_str(), "time" | "datetime" | "timestamp")
        && info.column_type.contains('(')
}

/// The members of `enum('a','it''s')` and `set(…)`; none for other types.
fn members(column_type: &str) -> Option<Vec<String>> {
    let list = column_type
        .strip_prefix("enum(")
        .or_else(|| column_type.strip_prefix("set("))?;
    let mut members = Vec::new();
    let mut member = String::new();
    let mut is_inside = false;
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if is_inside && chars.peek() == Some(&'\'') => {
                chars.next();
                member.push('\'');
            }
            '\'' => {
                if is_inside {
                    members.push(std::mem::take(&mut member));
                }
                is_inside = !is_inside;
            }
            c if is_inside => member.push(c),
            ')' => break,
            _ => {}
        }
    }
    Some(members)
}

/// Whether rows can be read in the order of such a column, and its value be written as a
/// constant that compares as the column does. Floating-point numbers have no exact text in
/// SQL. The empty text of an ENUM is that of its number 0, too: with a member of that text,
/// two keys would be one.
pub(crate) fn can_be_key(column: &Column) -> bool {
    match numbered(column) {
        Some(Numbered::Enum) => {
            members(&column.type_name).is_some_and(|members| members.iter().all(|m| !m.is_empty()))
        }
        Some(Numbered::Set | Numbered::Bit) => true,
        None => matches!(
            column.class,
            Class::Int
                | Class::Decimal
                | Class::Text
                | Class::Bytes
                | Class::Date
                | Class::Time
                | Class::Timestamp
                | Class::TimestampTz
                | Class::Uuid
        ),
    }
}

/// Types that sort by number, whatever their text is. Compared with a number they compare
/// so, too.
enum Numbered {
    Enum,
    Set,
    Bit,
}

fn numbered(column: &Column) -> Option<Numbered> {
    let name = column.type_name.split('(').next();
    match name.unwrap_or_default() {
        "enum" => Some(Numbered::Enum),
        "set" => Some(Numbered::Set),
        "bit" => Some(Numbered::Bit),
        _ => None,
    }
}

/// The number by which a value sorts, from its canonical text. None when the column sorts
/// by something else; an error when it has no such value.
pub(crate) fn number_of(column: &Column, text: &str) -> Option<Result<u64, NoSuchValue>> {
    let number = match numbered(column)? {
        Numbered::Enum if text.is_empty() => Some(0),
        Numbered::Enum => members(&column.type_name)
            .and_then(|members| members.iter().position(|m| m == text))
            .map(|at| at as u64 + 1),
        Numbered::Set => bits_of(&members(&column.type_name).unwrap_or_default(), text),
        Numbered::Bit => match text {
            "t" => Some(1),
            "f" => Some(0),
            _ => u64::from_str_radix(text, 16).ok(),
        },
    };
    Some(number.ok_or(NoSuchValue))
}

/// The numbers above a number of an ENUM, as a list: neither server takes a comparison of
/// one with `>` for a range of its index. None for other types, and for so many members that
/// they are no list any more; these are compared, from the index's beginning.
pub(crate) fn numbers_above(column: &Column, number: &str) -> Option<String> {
    const LISTED: usize = 1000;
    let Some(Numbered::Enum) = numbered(column) else {
        return None;
    };
    let members = members(&column.type_name)?.len();
    let number: usize = number.parse().ok()?;
    let above: Vec<String> = (number + 1..=members).map(|n| n.to_string()).collect();
    (members <= LISTED).then(|| above.join(", "))
}

/// A value that its column does not have (any more).
pub(crate) struct NoSuchValue;

fn bits_of(members: &[String], list: &str) -> Option<u64> {
    let chosen: Vec<String> = serde_json::from_str(list).ok()?;
    chosen.iter().try_fold(0, |bits, member| {
        let at = members.iter().position(|m| m == member)?;
        Some(bits | 1u64.checked_shl(u32::try_from(at).ok()?)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_the_server_prints_them() {
        let read = |text| members(text).unwrap_or_default();
        assert_eq!(read("enum('a','it''s','(x)','')"), ["a", "it's", "(x)", ""]);
        assert_eq!(read("set('x','y')"), ["x", "y"]);
        assert_eq!(members("varchar(20)"), None);
    }

    #[test]
    fn what_sorts_by_number_has_one() {
        let number = |type_name: &str, text| {
            let column = Column {
                name: "k".to_owned(),
                class: Class::Text,
                type_name: type_name.to_owned(),
                nullable: false,
            };
            number_of(&column, text).map(|n| n.ok())
        };
        assert_eq!(number("enum('b','a''s')", "a's"), Some(Some(2)));
        assert_eq!(number("enum('b','a')", ""), Some(Some(0)));
        assert_eq!(number("enum('b','a')", "c"), Some(None));
        assert_eq!(number("set('x','y','z')", r#"["x","z"]"#), Some(Some(5)));
        assert_eq!(number("set('x','y','z')", "[]"), Some(Some(0)));
        assert_eq!(number("set('x')", r#"["y"]"#), Some(None));
        assert_eq!(number("bit(1)", "t"), Some(Some(1)));
        assert_eq!(number("bit(64)", "ffffffffffffffff"), Some(Some(u64::MAX)));
        assert_eq!(number("bit(8)", "1 OR 1"), Some(None));
        assert_eq!(number("varchar(20)", "a"), None);
    }
}
