//! Tables and columns as a connector sees them.

use std::fmt;

use crate::Class;

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

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
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
