//! Tables and columns as a connector sees them.

use std::fmt;

use crate::{Class, ConnectorError};

/// The qualified name of a table.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct TableName {
    /// The schema (or database) that holds the table.
    pub schema: String,
    /// The table's own name.
    pub name: String,
}

impl TableName {
    /// A table name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName {
            schema: schema.into(),
            name: name.into(),
        }
    }
}

/// As SQL and the configuration write it: a part stands in double quotes where it has to, so
/// that no two tables look the same.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        for (i, part) in [&self.schema, &self.name].into_iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match is_plain(part) {
                true => f.write_str(part)?,
                false => write!(f, "\"{}\"", part.replace('"', "\"\""))?,
            }
        }
        Ok(())
    }
}

/// The number of a table among those that a source follows.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct TableNo(pub u16);

impl TableNo {
    /// The table whose rows are people; the related ones have the numbers behind it.
    pub const MAIN: TableNo = TableNo(0);

    /// The place in a list of all followed tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number of a place in a list of all followed tables.
    ///
    /// # Panics
    /// Beyond 65,536 tables: a configuration has far fewer.
    pub fn at(index: usize) -> TableNo {
        assert!(index <= usize::from(u16::MAX), "too many followed tables");
        TableNo(index as u16)
    }
}

/// A table beside the main one, whose rows say more about people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedTable {
    /// What the configuration calls it.
    pub name: String,
    /// The table. No other one of the source is the same.
    pub table: TableName,
    /// The columns that identify its rows; none means the primary key.
    pub key: Option<Vec<String>>,
}

/// One of the tables that a source follows, as a connector's configuration names them.
#[derive(Clone, Copy, Debug)]
pub struct FollowedTable<'a> {
    /// Its number.
    pub no: TableNo,
    /// What the configuration calls it; none for the main table.
    pub name: Option<&'a str>,
    /// The table.
    pub table: &'a TableName,
    /// The columns that identify its rows; none means the primary key.
    pub key: Option<&'a [String]>,
}

impl<'a> FollowedTable<'a> {
    /// All of them in the order of their numbers: the main table, then the related ones.
    pub fn all(
        table: &'a TableName,
        key: Option<&'a [String]>,
        related: &'a [RelatedTable],
    ) -> impl Iterator<Item = FollowedTable<'a>> + Clone {
        (0..=related.len()).map(move |at| {
            let no = TableNo::at(at);
            match at.checked_sub(1).map(|at| &related[at]) {
                None => FollowedTable {
                    no,
                    name: None,
                    table,
                    key,
                },
                Some(related) => FollowedTable {
                    no,
                    name: Some(&related.name),
                    table: &related.table,
                    key: related.key.as_deref(),
                },
            }
        })
    }

    /// The one of a number.
    ///
    /// # Errors
    /// Definite, when there are fewer.
    pub fn of_number(
        mut all: impl Iterator<Item = FollowedTable<'a>>,
        no: TableNo,
    ) -> Result<FollowedTable<'a>, ConnectorError> {
        all.nth(no.index()).ok_or_else(|| {
            ConnectorError::definite(
                "no_such_table",
                format!("The source follows no table of number {}.", no.0),
                "Report this: the number is not from the configuration.",
            )
        })
    }

    /// Where the configuration says it: `table` of the source, or of the related table.
    pub fn place(&self) -> String {
        match self.name {
            None => "`table`".to_owned(),
            Some(name) => format!("`table` of the related table \"{name}\""),
        }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// The column's name, as the server spells it.
    pub name: String,
    /// The class that decides how its cells read.
    pub class: Class,
    /// The server's own name of the type, for people.
    pub type_name: String,
    /// Whether the server allows null; `true` when unknown.
    pub nullable: bool,
}

/// The columns of one table in one version. Equal schemas are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TableSchema {
    /// Which table.
    pub table: TableName,
    /// The columns in the order in which rows carry them.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the record key, in key order. Never empty in a schema
    /// that belongs to a stream or a page.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// The index of a column by its exact name.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_as_it_has_to_be_written() {
        let name = |schema, name| TableName::new(schema, name).to_string();
        assert_eq!(name("public", "employees_2"), "public.employees_2");
        assert_eq!(name("HR", "a.b"), "\"HR\".\"a.b\"");
        assert_eq!(name("h", "x\"y"), "h.\"x\"\"y\"");
        assert_eq!(name("h", "1st"), "h.\"1st\"");
    }
}
