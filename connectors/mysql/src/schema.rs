//! Tables as the server describes them now.
//!
//! `information_schema` shows the present, the log the past: what is read here names the
//! columns of pages and of the log's first table map that agrees with it, and never rows
//! that are older.

use std::collections::BTreeMap;
use std::sync::Arc;

use rollcall_contract::{
    Column, ConnectorError, FollowedTable, RelationKind, TableName, TableSchema,
};

use crate::query::literal;
use crate::types;
use crate::wire::{Client, Row};

/// What only the server's own description says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnInfo {
    /// Its place among all columns, from 1.
    pub(crate) ordinal: u32,
    /// The type's bare name, `varchar`.
    pub(crate) data_type: String,
    /// With everything, `varchar(20) unsigned`.
    pub(crate) column_type: String,
    /// The character set; none for what is not text.
    pub(crate) charset: Option<String>,
}

/// A table of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) schema: Arc<TableSchema>,
    /// Parallel to the schema's columns.
    pub(crate) columns: Vec<ColumnInfo>,
    pub(crate) kind: RelationKind,
    pub(crate) engine: String,
    /// MariaDB: it keeps its old rows.
    pub(crate) is_versioned: bool,
    pub(crate) estimated_rows: Option<u64>,
    /// The unique index behind the key; empty when there is none.
    pub(crate) key_index: String,
    /// Why there is no key, or why it serves for polling only.
    pub(crate) key_fault: Option<String>,
}

impl Table {
    /// Whether a unique index stands behind the key.
    pub(crate) fn key_is_unique(&self) -> bool {
        !self.key_index.is_empty()
    }

    /// Whether columns are missing because this account may not see them.
    pub(crate) fn hides_columns(&self) -> bool {
        self.columns
            .iter()
            .zip(1..)
            .any(|(column, number)| column.ordinal != number)
    }

    /// Whether its rows take part in transactions, and so in snapshots.
    pub(crate) fn is_transactional(&self) -> bool {
        matches!(
            self.engine.to_ascii_lowercase().as_str(),
            "innodb" | "rocksdb" | "ndbcluster" | "tokudb"
        )
    }
}

const COLUMNS: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, \
     DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE \
     FROM information_schema.COLUMNS";
const INDEXES: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, \
     NULLABLE FROM information_schema.STATISTICS";
const TABLES: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, \
     CREATE_OPTIONS FROM information_schema.TABLES";

/// More tables than this are not listed.
const MAX_TABLES: usize = 10_000;

/// Reads one table; none when there is none of that name.
pub(crate) async fn load(
    client: &mut Client,
    followed: &FollowedTable<'_>,
) -> Result<Option<Table>, ConnectorError> {
    let name = followed.table;
    let filter = format!(
        "WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        literal(&name.schema),
        literal(&name.name)
    );
    let found = read(client, &filter, followed.key).await?;
    // With lower_case_table_names the comparison ignores case; the configured spelling is
    // then as good as the server's.
    Ok(found.into_iter().next())
}

/// Reads every table that this account can see, without the server's own.
pub(crate) async fn all(client: &mut Client) -> Result<Vec<Table>, ConnectorError> {
    read(
        client,
        "WHERE TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')",
        None,
    )
    .await
}

async fn read(
    client: &mut Client,
    filter: &str,
    key: Option<&[String]>,
) -> Result<Vec<Table>, ConnectorError> {
    let tables = client
        .rows(&format!(
            "{TABLES} {filter} ORDER BY TABLE_SCHEMA, TABLE_NAME LIMIT {MAX_TABLES}"
        ))
        .await?;
    let columns = client
        .rows(&format!(
            "{COLUMNS} {filter} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ))
        .await?;
    let indexes = client
        .rows(&format!(
            "{INDEXES} {filter} AND NON_UNIQUE = 0 \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
        ))
        .await?;
    let mut columns = by_table(&columns)?;
    let mut indexes = by_table(&indexes)?;
    let mut found = Vec::new();
    for row in &tables {
        let name = TableName::new(row.need(0)?, row.need(1)?);
        let columns = columns.remove(&name).unwrap_or_default();
        let indexes = unique_indexes(&indexes.remove(&name).unwrap_or_default())?;
        found.push(table(name, row, &columns, &indexes, key)?);
    }
    Ok(found)
}

fn by_table(rows: &[Row]) -> Result<BTreeMap<TableName, Vec<&Row>>, ConnectorError> {
    let mut map: BTreeMap<TableName, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let name = TableName::new(row.need(0)?, row.need(1)?);
        map.entry(name).or_default().push(row);
    }
    Ok(map)
}

/// A unique index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Index {
    name: String,
    /// None for an expression.
    columns: Vec<Option<String>>,
    /// Some part is only the beginning of a value.
    has_prefix: bool,
    has_nulls: bool,
}

fn unique_indexes(rows: &[&Row]) -> Result<Vec<Index>, ConnectorError> {
    let mut indexes: Vec<Index> = Vec::new();
    for row in rows {
        let name = row.need(2)?;
        if indexes.last().is_none_or(|index| index.name != name) {
            indexes.push(Index {
                name: name.to_owned(),
                ..Index::default()
            });
        }
        if let Some(index) = indexes.last_mut() {
            index.columns.push(row.text(3).map(str::to_owned));
            index.has_prefix |= row.text(4).is_some();
            index.has_nulls |= row.text(5) == Some("YES");
        }
    }
    Ok(indexes)
}

fn table(
    name: TableName,
    row: &Row,
    columns: &[&Row],
    indexes: &[Index],
    key: Option<&[String]>,
) -> Result<Table, ConnectorError> {
    let mut schema = TableSchema {
        table: name,
        columns: Vec::with_capacity(columns.len()),
        key: Vec::new(),
    };
    let mut infos = Vec::with_capacity(columns.len());
    for column in columns {
        let info = ColumnInfo {
            ordinal: column.number(3).unwrap_or(0),
            data_type: column.need(4)?.to_ascii_lowercase(),
            column_type: column.need(5)?.to_owned(),
            charset: column.text(6).map(str::to_owned),
        };
        schema.columns.push(Column {
            name: column.need(2)?.to_owned(),
            class: types::class_of(&info),
            type_name: info.column_type.clone(),
            nullable: column.text(7) != Some("NO"),
        });
        infos.push(info);
    }
    let options = row.text(5).unwrap_or_default();
    let kind = match row.text(2).unwrap_or_default() {
        "BASE TABLE" | "SYSTEM VERSIONED" if options.contains("partitioned") => {
            RelationKind::PartitionedTable
        }
        "BASE TABLE" | "SYSTEM VERSIONED" => RelationKind::Table,
        _ => RelationKind::View,
    };
    let engine = row.text(3).unwrap_or_default().to_owned();
    let (key_index, key_fault) = match choose_key(&schema, indexes, key) {
        Ok((index, key)) => {
            schema.key = key;
            (index, None)
        }
        Err(fault) => {
            schema.key = key
                .and_then(|k| without_index(&schema, k))
                .unwrap_or_default();
            (String::new(), Some(fault))
        }
    };
    Ok(Table {
        schema: Arc::new(schema),
        columns: infos,
        kind,
        engine,
        is_versioned: row.text(2) == Some("SYSTEM VERSIONED"),
        estimated_rows: row.number(4),
        key_index,
        key_fault,
    })
}

/// The key: the configured columns, when a unique index without nulls has exactly these;
/// else the primary key. In the order of the index, so that pages are read along it.
fn choose_key(
    schema: &TableSchema,
    indexes: &[Index],
    key: Option<&[String]>,
) -> Result<(String, Vec<usize>), String> {
    let name = &schema.table;
    let index = match key {
        None => indexes
            .iter()
            .find(|index| index.name == "PRIMARY")
            .ok_or_else(|| {
                format!("{name} has no primary key, so its rows cannot be told apart.")
            })?,
        Some(wanted) => {
            for column in wanted {
                if schema.position(column).is_none() {
                    return Err(format!("{name} has no column \"{column}\"."));
                }
            }
            indexes
                .iter()
                .find(|index| {
                    index.columns.len() == wanted.len()
                        && index
                            .columns
                            .iter()
                            .all(|c| c.as_ref().is_some_and(|c| wanted.contains(c)))
                        && !index.has_nulls
                        && !index.has_prefix
                })
                .ok_or_else(|| {
                    format!(
                        "{name} has no unique index without nulls over exactly {}.",
                        wanted.join(", ")
                    )
                })?
        }
    };
    if index.has_prefix {
        return Err(format!(
            "The primary key of {name} holds only the beginning of a column, which cannot be \
             read in order."
        ));
    }
    let mut columns = Vec::with_capacity(index.columns.len());
    for column in index.columns.iter().flatten() {
        let at = schema
            .position(column)
            .ok_or_else(|| format!("The key column \"{column}\" of {name} cannot be seen."))?;
        if !types::can_be_key(&schema.columns[at]) {
            return Err(format!(
                "The key column \"{column}\" of {name} is of type {}, which cannot be read in \
                 order.",
                schema.columns[at].type_name
            ));
        }
        columns.push(at);
    }
    Ok((index.name.clone(), columns))
}

/// Configured columns as a key that no index stands behind: good for polling, by whoever sees
/// that no key comes twice.
fn without_index(schema: &TableSchema, key: &[String]) -> Option<Vec<usize>> {
    let can_be_key = |&at: &usize| types::can_be_key(&schema.columns[at]);
    let column = |name: &String| schema.position(name).filter(can_be_key);
    key.iter().map(column).collect()
}

/// Whether two versions of a table read alike: names, classes and key, in order. The
/// server's spelling of a type does not count.
pub(crate) fn reads_alike(a: &TableSchema, b: &TableSchema) -> bool {
    let read = |c: &Column| (c.class, c.nullable);
    a.key == b.key
        && a.columns.len() == b.columns.len()
        && a.columns
            .iter()
            .zip(&b.columns)
            .all(|(a, b)| a.name == b.name && read(a) == read(b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rollcall_contract::Class;

    use super::*;

    fn schema(columns: &[(&str, Class)]) -> TableSchema {
        TableSchema {
            table: TableName::new("hr", "people"),
            columns: columns
                .iter()
                .map(|(name, class)| Column {
                    name: (*name).to_owned(),
                    class: *class,
                    type_name: class.name().to_owned(),
                    nullable: false,
                })
                .collect(),
            key: Vec::new(),
        }
    }

    fn index(name: &str, columns: &[&str]) -> Index {
        Index {
            name: name.to_owned(),
            columns: columns.iter().map(|c| Some((*c).to_owned())).collect(),
            ..Index::default()
        }
    }

    #[test]
    fn the_key_follows_the_index_not_the_configuration() {
        let schema = schema(&[("id", Class::Int), ("org", Class::Text), ("no", Class::Int)]);
        let indexes = [index("PRIMARY", &["id"]), index("u", &["no", "org"])];
        assert_eq!(
            choose_key(&schema, &indexes, None).unwrap(),
            ("PRIMARY".to_owned(), vec![0])
        );
        let wanted = ["org".to_owned(), "no".to_owned()];
        assert_eq!(
            choose_key(&schema, &indexes, Some(&wanted)).unwrap(),
            ("u".to_owned(), vec![2, 1])
        );
        for wanted in [&["org".to_owned()][..], &["nobody".to_owned()][..]] {
            assert!(choose_key(&schema, &indexes, Some(wanted)).is_err());
        }
    }

    #[test]
    fn a_key_that_does_not_identify_is_refused() {
        let schema = schema(&[("id", Class::Int), ("x", Class::Float)]);
        assert!(choose_key(&schema, &[], None).is_err());
        let nulls = Index {
            has_nulls: true,
            ..index("u", &["id"])
        };
        let prefix = Index {
            has_prefix: true,
            ..index("PRIMARY", &["id"])
        };
        let wanted = ["id".to_owned()];
        assert!(choose_key(&schema, &[nulls], Some(&wanted)).is_err());
        assert!(choose_key(&schema, &[prefix], None).is_err());
        assert!(choose_key(&schema, &[index("PRIMARY", &["x"])], None).is_err());
    }
}
