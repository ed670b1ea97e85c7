//! Rows to what the engine wants of them, under the schema that they came with.

use std::sync::Arc;

use rollcall_contract::{Batch, Pooled, TableSchema};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;

use super::session::Session;
use super::{Ended, INLINE_ROWS};
use crate::sync::work::Work;

impl Session<'_> {
    /// The mapper of each table of a batch.
    pub(super) async fn mappers_of(&mut self, batch: &Batch) -> Result<Vec<Arc<Mapper>>, Ended> {
        let mut mappers = Vec::with_capacity(batch.tables().len());
        for table in batch.tables() {
            mappers.push(self.mapper(&table.schema).await?);
        }
        Ok(mappers)
    }

    /// Maps every new row of a batch.
    pub(super) fn map(&self, batch: &Batch, mappers: &[Arc<Mapper>]) -> Pooled<MappedRows> {
        let mut mapped = self.mapped.take();
        mapped.clear();
        for change in batch.changes() {
            if let Some(row) = change.after() {
                mappers[change.table_index()].map(&row, None, &mut mapped);
            }
        }
        mapped
    }

    /// The mapper of a schema, which is the one in force from here on.
    pub(super) async fn mapper(&mut self, schema: &Arc<TableSchema>) -> Result<Arc<Mapper>, Ended> {
        let known = |(s, _): &&(Arc<TableSchema>, _)| Arc::ptr_eq(s, schema) || s == schema;
        let (at, mapper) = match self.mappers.iter().position(|m| known(&m)) {
            Some(at) => (at, Arc::clone(&self.mappers[at].1)),
            None => return self.bind(schema).await,
        };
        let last = self.mappers.last().map(|(_, last)| last.paused());
        if last == Some(mapper.paused()) {
            return Ok(mapper);
        }
        // The table is what it was before: what is paused is another thing now.
        self.mappers.remove(at);
        self.bind(schema).await
    }

    /// Binds the mapping to a schema. A scan is due when the mapping changed, or when the
    /// columns did in a way that the log does not bring to old rows.
    pub(super) async fn bind(&mut self, schema: &Arc<TableSchema>) -> Result<Arc<Mapper>, Ended> {
        let source = self.driver.id;
        let schemas = self
            .driver
            .ask(|reply| Work::Schema {
                source,
                schema: Arc::clone(schema),
                reply,
            })
            .await?;
        let mapper = crate::sync::mapper::compile(
            &self.driver.mapping,
            &schemas.versions,
            &self.driver.attributes,
        )?;
        let mapper = Arc::new(mapper);
        let changed = self
            .driver
            .ask(|reply| Work::Mapper {
                source,
                mapper: Arc::clone(&mapper),
                reply,
            })
            .await?;
        self.mappers.push((Arc::clone(schema), Arc::clone(&mapper)));
        self.scan_due |= changed || schemas.scan_due;
        Ok(mapper)
    }
}

/// Does something with every row of a batch; when there are many, the runtime's other tasks
/// go elsewhere meanwhile.
pub(super) fn on_worker<T>(batch: &Batch, work: impl FnOnce() -> T) -> T {
    match batch.len() > INLINE_ROWS {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

/// What tells whether each row of a page is as it is stored.
pub(super) fn hash_rows(page: &Batch, mappers: &[Arc<Mapper>]) -> Vec<Option<u64>> {
    let mut scratch = Vec::new();
    let rows = page.changes().map(|change| {
        let mapper = &mappers[change.table_index()];
        mapper.hash(&change.after()?, &mut scratch)
    });
    rows.collect()
}
