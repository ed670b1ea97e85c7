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
/// SQL; ENUM and SET sort by number and compare by text.
pub(crate) fn can_be_key(column: &Column) -> bool {
    let is_list = ["enum", "set", "bit"]
        .iter()
        .any(|t| column.type_name.starts_with(t));
    !is_list
        && matches!(
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
        )
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
}
