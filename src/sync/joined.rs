//! A source's tables as they are now, and the one joined table that the mapping sees.
//!
//! For a source without related tables that is its table as it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use rollcall_contract::{Batch, ConnectorError, Key, PageRequest, Source, TableNo, TableSchema};
use rollcall_core::id::SourceId;
use rollcall_core::mapping::MappingSpec;
use rollcall_core::mapping::related::{
    Join, JoinValue, Joiner, MAX_JOINED, RelatedReader, RelatedRows, RelatedSpec, Shown,
};
use rollcall_core::state::KeyBytes;
use rollcall_store::{Readers, RelatedId, RelatedState, RelatedTableRow, StoreError};

/// The schemas of the followed tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The table whose rows are people.
    pub main: Arc<TableSchema>,
    /// The related ones, in the order of the configuration.
    pub related: Vec<Arc<TableSchema>>,
}

/// What the mapping is bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The columns that rules see.
    pub schema: Arc<TableSchema>,
    /// How rows get there; none when there is nothing to join.
    pub join: Option<Arc<Join>>,
}

impl Tables {
    /// Asks a source for all of them.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub async fn of(source: &dyn Source, spec: &MappingSpec) -> Result<Tables, ConnectorError> {
        let main = source.schema(TableNo::MAIN).await?;
        let mut related = Vec::with_capacity(spec.related.len());
        for at in 1..=spec.related.len() {
            related.push(source.schema(TableNo::at(at)).await?);
        }
        Ok(Tables { main, related })
    }

    /// A table has these columns from here on.
    pub fn set(&mut self, table: TableNo, schema: Arc<TableSchema>) {
        match table.index().checked_sub(1) {
            None => self.main = schema,
            Some(at) => {
                if let Some(known) = self.related.get_mut(at) {
                    *known = schema;
                }
            }
        }
    }

    /// What the mapping is bound to under these schemas.
    ///
    /// # Errors
    /// Definite, when a name means two things.
    pub fn bound(&self, spec: &MappingSpec) -> Result<Bound, ConnectorError> {
        if spec.related.is_empty() {
            return Ok(Bound {
                schema: Arc::clone(&self.main),
                join: None,
            });
        }
        let join = Join::new(&spec.related, &self.main, &self.related).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ConnectorError::definite(
                "related_invalid",
                format!(
                    "The related tables do not fit the table {}: {}.",
                    self.main.table,
                    all.join("; ")
                ),
                "Give the related table another name in the configuration and restart.",
            )
        })?;
        Ok(Bound {
            schema: Arc::clone(join.schema()),
            join: Some(Arc::new(join)),
        })
    }
}

/// The rows of related tables as they are in the source, as far as some rows of the main table
/// need them: for a look without a store.
#[derive(Debug, Default)]
pub struct Fetched {
    rows: BTreeMap<(TableNo, KeyBytes), BTreeMap<KeyBytes, Vec<u8>>>,
}

impl Fetched {
    /// Reads the related tables, and keeps what rows of the main table are joined with.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn of(
        source: &dyn Source,
        join: &Join,
        rows: &Batch,
    ) -> Result<Fetched, ConnectorError> {
        let mut fetched = Fetched::default();
        for row in rows.changes().filter_map(|change| change.after()) {
            for table in join.tables() {
                if let JoinValue::Value(value) = join.value(table, |at| row.cell(at)) {
                    fetched.rows.entry((table, value)).or_default();
                }
            }
        }
        for table in join.tables() {
            let Some(reader) = join.reader(table) else {
                continue;
            };
            let mut after = None;
            loop {
                let request = PageRequest {
                    after,
                    limit_rows: FETCHED_ROWS,
                    limit_bytes: FETCHED_BYTES,
                    only: None,
                    since: None,
                };
                let page = source.page(table, request).await?;
                fetched.take_in(table, reader, &page.rows);
                match page.last {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(fetched)
    }

    fn take_in(&mut self, table: TableNo, reader: &RelatedReader, rows: &Batch) {
        for change in rows.changes() {
            let Some(row) = change.after() else { continue };
            let Some(key) = Key::of_row(change.table(), &row) else {
                continue;
            };
            let image = reader.image(&row, None);
            let wanted = image.joined.map(|joined| (table, joined));
            if let Some(of_value) = wanted.and_then(|place| self.rows.get_mut(&place))
                && of_value.len() <= MAX_JOINED
            {
                of_value.insert(KeyBytes::from_slice(key.as_bytes()), image.cells);
            }
        }
    }
}

/// Rows of a related table that are read at once.
const FETCHED_ROWS: usize = 10_000;

/// Bytes of a related table that are read at once.
const FETCHED_BYTES: usize = 16 << 20;

impl RelatedRows for Fetched {
    type Error = Infallible;

    fn rows(
        &mut self,
        table: TableNo,
        joined: &[u8],
        show: &mut dyn FnMut(&[u8]) -> Shown,
    ) -> Result<bool, Infallible> {
        let rows = self.rows.get(&(table, KeyBytes::from_slice(joined)));
        for cells in rows.into_iter().flat_map(BTreeMap::values) {
            if show(cells) == Shown::Enough {
                break;
            }
        }
        Ok(true)
    }
}

/// The rows of related tables as they are stored.
#[derive(Debug)]
pub struct StoredRows<'r> {
    readers: &'r Readers,
    tables: Vec<RelatedTableRow>,
}

impl<'r> StoredRows<'r> {
    /// Those of a source's tables, in the order of the configuration.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of(
        readers: &'r Readers,
        source: SourceId,
        specs: &[RelatedSpec],
    ) -> Result<StoredRows<'r>, StoreError> {
        let stored = readers.related_tables(source)?;
        let table = |spec: &RelatedSpec| {
            let mut stored = stored.iter().rev();
            let known = stored
                .find(|t| t.name == spec.name && t.state != RelatedState::Dropped)
                .cloned();
            known.unwrap_or_else(|| RelatedTableRow {
                source,
                id: RelatedId(0),
                name: spec.name.clone(),
                definition: String::new(),
                state: RelatedState::Loading,
            })
        };
        Ok(StoredRows {
            readers,
            tables: specs.iter().map(table).collect(),
        })
    }

    /// A table as it is stored.
    pub fn table(&self, table: TableNo) -> Option<&RelatedTableRow> {
        self.tables.get(table.index().checked_sub(1)?)
    }
}

impl RelatedRows for StoredRows<'_> {
    type Error = StoreError;

    fn rows(
        &mut self,
        table: TableNo,
        joined: &[u8],
        show: &mut dyn FnMut(&[u8]) -> Shown,
    ) -> Result<bool, StoreError> {
        let Some(table) = loaded(&self.tables, table) else {
            return Ok(false);
        };
        let place = (table.source, table.id, joined);
        self.readers
            .related_rows(place, |_, cells| show(cells) == Shown::More)?;
        Ok(true)
    }
}

/// A related table whose rows are all stored.
pub(super) fn loaded(tables: &[RelatedTableRow], table: TableNo) -> Option<&RelatedTableRow> {
    let table = tables.get(table.index().checked_sub(1)?);
    table.filter(|table| table.state == RelatedState::Loaded)
}

/// The rows of a batch, joined.
///
/// # Errors
/// When related rows cannot be read.
pub fn joined<R: RelatedRows>(
    join: &Join,
    rows: &Batch,
    related: &mut R,
) -> Result<Batch, R::Error> {
    let mut joiner = Joiner::default();
    for change in rows.changes() {
        joiner.push(join, &change, related)?;
    }
    Ok(joiner.finish(rows.cursor().clone()))
}
