//! A followed table as the log describes it.
//!
//! A table map with names describes itself and is believed. One without names says how the
//! bytes lie and nothing more; then the columns are those that the server described when
//! the log was opened, and only while the map agrees with them in number, type and
//! nullability, and no ALTER has been seen since. Otherwise the table stops with the
//! setting that would have helped, since a guess would put one column's values under
//! another's name.

use std::sync::Arc;

use rollcall_binlog::rows::{self, OldRows};
use rollcall_binlog::table_map::{MappedColumn, TableMap};
use rollcall_binlog::types::{ColumnFacts, Oddities, Reading};
use rollcall_contract::{Column, ConnectorError, TableName, TableNo, TableSchema};

use crate::config::ZeroDates;
use crate::schema::{Table, reads_alike};
use crate::{types, values};

/// How rows of a followed table are read.
pub(super) struct Layout {
    pub(super) schema: Arc<TableSchema>,
    pub(super) rows: rows::Layout,
    map: Arc<TableMap>,
}

impl Layout {
    /// Whether rows that refer to this map are read with it. Equal maps are one allocation.
    pub(super) fn is_of(&self, map: &Arc<TableMap>) -> bool {
        Arc::ptr_eq(&self.map, map)
    }
}

/// A followed table.
pub(super) struct Followed {
    pub(super) no: TableNo,
    /// How rows are read that come now; none before a map has come.
    pub(super) layout: Option<Layout>,
    /// Its index in the open batch.
    pub(super) index: Option<u16>,
    /// As the server described it when the log was opened.
    definition: Table,
    /// As the log described it last.
    schema: Arc<TableSchema>,
    map: Option<Arc<TableMap>>,
    /// An ALTER has been seen since the last map.
    is_altered: bool,
    /// An ALTER has been seen since the definition was read.
    is_outdated: bool,
    pub(super) reading: Reading,
    /// What was odd was told.
    has_told: bool,
}

/// What a new map means.
pub(super) struct Taken {
    /// The columns are others than before.
    pub(super) schema: Option<Arc<TableSchema>>,
    /// Old rows were rewritten without a word: why.
    pub(super) rewritten: Option<String>,
}

impl Followed {
    pub(super) fn new(no: TableNo, definition: Table, zero_dates: ZeroDates) -> Followed {
        Followed {
            no,
            layout: None,
            index: None,
            schema: Arc::clone(&definition.schema),
            definition,
            map: None,
            is_altered: false,
            is_outdated: false,
            reading: values::reading(zero_dates),
            has_told: false,
        }
    }

    pub(super) fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub(super) fn name(&self) -> &TableName {
        &self.schema.table
    }

    /// Whether a map describes it.
    pub(super) fn is(&self, map: &TableMap) -> bool {
        let table = &self.schema.table;
        map.table == table.name && map.database == table.schema
    }

    /// Says once that values were not what their types promise. A table full of them would
    /// say so with every batch.
    pub(super) fn tell_oddities(&mut self) {
        let met = self.reading.oddities.take();
        if self.has_told || met == Oddities::default() {
            return;
        }
        self.has_told = true;
        tracing::warn!(
            table = %self.schema.table,
            zero_dates = met.zero_dates,
            invalid_texts = met.invalid_texts,
            "the table has dates that no calendar has, or texts with bytes that are no \
             character of their character set"
        );
    }

    /// An ALTER was seen.
    pub(super) fn altered(&mut self) {
        self.is_altered = true;
        self.is_outdated = true;
    }

    /// Another table has its name now; what its columns were does not matter any more.
    pub(super) fn replaced(&mut self) {
        // Rows that follow have a table map of their own.
        self.layout = None;
        self.map = None;
        self.is_altered = false;
        self.is_outdated = true;
    }

    /// Takes a map on that is another one than the last: rows are read with it from here on.
    pub(super) fn take_on(&mut self, map: &Arc<TableMap>) -> Result<Taken, ConnectorError> {
        let facts = self.facts(map)?;
        let key = self.key(map)?;
        let rows = rows::Layout::new(map, &facts, &key, OldRows::Key)
            .map_err(|e| values::unreadable_column(&self.name_of(map, e.index), e.why))?;
        let columns =
            map.columns
                .iter()
                .zip(rows.columns())
                .enumerate()
                .map(|(i, (mapped, column))| {
                    let name = self.name_of(map, i);
                    let class = column.column_type().class();
                    let known = self.schema.columns.iter().find(|c| c.name == name);
                    Column {
                        type_name: match known {
                            Some(known) if known.class == class => known.type_name.clone(),
                            _ => column.column_type().name(),
                        },
                        name,
                        class,
                        nullable: mapped.is_nullable,
                    }
                });
        let schema = TableSchema {
            table: self.schema.table.clone(),
            columns: columns.collect(),
            key,
        };
        if !map.has_names() && (self.is_outdated || !reads_alike(&schema, &self.definition.schema))
        {
            return Err(self.nameless());
        }
        let rewritten = std::mem::take(&mut self.is_altered)
            .then(|| self.rewritten(map))
            .flatten();
        let changed = !reads_alike(&schema, &self.schema);
        if changed {
            self.schema = Arc::new(schema);
        }
        self.map = Some(Arc::clone(map));
        self.index = None;
        self.layout = Some(Layout {
            schema: Arc::clone(&self.schema),
            rows,
            map: Arc::clone(map),
        });
        Ok(Taken {
            schema: changed.then(|| Arc::clone(&self.schema)),
            rewritten,
        })
    }

    fn name_of(&self, map: &TableMap, index: usize) -> String {
        let mapped = map.columns.get(index).and_then(|c| c.name.clone());
        mapped.unwrap_or_else(|| {
            let known = self.definition.schema.columns.get(index);
            known.map_or_else(String::new, |c| c.name.clone())
        })
    }

    /// What the server said of each column of the map.
    fn facts(&self, map: &TableMap) -> Result<Vec<ColumnFacts>, ConnectorError> {
        let definition = &self.definition;
        if !map.has_names() && map.columns.len() != definition.columns.len() {
            return Err(self.nameless());
        }
        let described = |(i, column): (usize, &MappedColumn)| {
            let at = match &column.name {
                Some(name) => definition.schema.position(name),
                None => Some(i),
            };
            at.and_then(|at| definition.columns.get(at))
                .map(types::facts)
                .unwrap_or_default()
        };
        Ok(map.columns.iter().enumerate().map(described).collect())
    }

    /// The record key by its columns' names, wherever they are now.
    fn key(&self, map: &TableMap) -> Result<Vec<usize>, ConnectorError> {
        let names = self
            .schema
            .key
            .iter()
            .map(|&i| &self.schema.columns[i].name);
        names
            .map(|name| {
                (0..map.columns.len())
                    .find(|&i| self.name_of(map, i) == *name)
                    .ok_or_else(|| {
                        ConnectorError::definite(
                            "no_key",
                            format!(
                                "The key column \"{name}\" of {} is no longer there.",
                                self.schema.table
                            ),
                            "Name in `key` the columns that identify a record now, and have the \
                             table read again.",
                        )
                    })
            })
            .collect()
    }

    /// Columns whose old values may have been converted.
    fn rewritten(&self, map: &TableMap) -> Option<String> {
        let Some(before) = &self.map else {
            return Some(format!(
                "{} was altered, and what its columns were before is not known here.",
                self.schema.table
            ));
        };
        let stored = |c: &MappedColumn| (c.code, c.meta, c.collation, c.is_unsigned);
        let names: Vec<String> = map
            .columns
            .iter()
            .enumerate()
            .filter(|(i, column)| {
                let name = self.name_of(map, *i);
                (0..before.columns.len())
                    .find(|&b| self.name_of(before, b) == name)
                    .is_some_and(|b| {
                        let old = &before.columns[b];
                        stored(old) != stored(column) || is_reordered(old, column)
                    })
            })
            .map(|(i, _)| self.name_of(map, i))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "The type of {} of {} was changed, and what that did to old rows is not in the \
                 log.",
                names.join(", "),
                self.schema.table
            )
        })
    }

    fn nameless(&self) -> ConnectorError {
        ConnectorError::definite(
            "binlog_row_metadata",
            format!(
                "The log describes {} otherwise than the server does now, and without the names \
                 of its columns: after an ALTER TABLE they cannot be told apart \
                 (binlog_row_metadata).",
                self.schema.table
            ),
            "Set binlog_row_metadata = FULL, and have the table read again.",
        )
    }
}

/// An ENUM or SET keeps its numbers when a member is added behind the others.
fn is_reordered(old: &MappedColumn, new: &MappedColumn) -> bool {
    match (&old.members, &new.members) {
        (Some(old), Some(new)) => !new.starts_with(old),
        _ => false,
    }
}
