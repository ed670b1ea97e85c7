//! Rows to what the engine wants of them, under the schema that they came with.

use std::sync::Arc;

use rollcall_contract::{Batch, ConnectorError, Pooled, TableNo, TableSchema};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Join, RelatedReader};

use super::session::Session;
use super::{Ended, INLINE_ROWS};
use crate::sync::joined::Tables;
use crate::sync::related::TableUse;
use crate::sync::work::{Joining, Work};
use crate::sync::worker::in_place;

impl Session<'_> {
    /// The mapper of each table of a batch.
    pub(super) async fn mappers_of(&mut self, batch: &Batch) -> Result<Vec<Arc<Mapper>>, Ended> {
        let mut mappers = Vec::with_capacity(batch.tables().len());
        for table in batch.tables() {
            mappers.push(self.mapper(&table.schema).await?);
        }
        Ok(mappers)
    }

    /// How rows of the main table are joined and mapped at present; none where nothing is
    /// joined.
    pub(super) fn joined(&self) -> Option<(Arc<Join>, Arc<Mapper>)> {
        let (join, mapper) = self.joining.as_ref()?;
        Some((Arc::clone(join), Arc::clone(mapper)))
    }

    /// What is to be made of each table of a batch, where tables are joined.
    pub(super) async fn uses_of(&mut self, batch: &Batch) -> Result<Vec<TableUse>, Ended> {
        let mut uses = Vec::with_capacity(batch.tables().len());
        for table in batch.tables() {
            let at = table.no.index().checked_sub(1);
            uses.push(
                match at.and_then(|at| self.driver.mapping.related.get(at)) {
                    Some(spec) => TableUse::Related(RelatedReader::new(spec, &table.schema)),
                    None => {
                        let (join, mapper) = self.join_of(&table.schema).await?;
                        TableUse::Main(join, mapper)
                    }
                },
            );
        }
        Ok(uses)
    }

    /// The same of a page of the main table.
    pub(super) async fn joins_of(
        &mut self,
        page: &Batch,
    ) -> Result<(Vec<Arc<Join>>, Vec<Arc<Mapper>>), Ended> {
        let (mut joins, mut mappers) = (Vec::new(), Vec::new());
        for table in page.tables() {
            let (join, mapper) = self.join_of(&table.schema).await?;
            joins.push(join);
            mappers.push(mapper);
        }
        Ok((joins, mappers))
    }

    /// How rows of the main table are joined and mapped that have these columns: those that it
    /// has from here on.
    async fn join_of(
        &mut self,
        main: &Arc<TableSchema>,
    ) -> Result<(Arc<Join>, Arc<Mapper>), Ended> {
        let is_known = |tables: &Tables| Arc::ptr_eq(&tables.main, main) || tables.main == *main;
        match (&self.tables, &self.joining) {
            (Some(tables), Some((join, mapper))) if is_known(tables) => {
                Ok((Arc::clone(join), Arc::clone(mapper)))
            }
            _ => self.table_changed(TableNo::MAIN, main).await,
        }
    }

    /// A table has these columns from here on.
    pub(super) async fn table_changed(
        &mut self,
        table: TableNo,
        schema: &Arc<TableSchema>,
    ) -> Result<(Arc<Join>, Arc<Mapper>), Ended> {
        let mut tables = match &self.tables {
            Some(tables) => tables.clone(),
            None => Tables::of(&*self.driver.source, &self.driver.mapping).await?,
        };
        tables.set(table, Arc::clone(schema));
        match self.bind_tables(tables).await? {
            Some(joined) => Ok(joined),
            None => Err(ConnectorError::transient(
                "no_schema",
                "The columns of the related tables are not known yet.",
            )
            .into()),
        }
    }

    /// Binds the mapping to tables.
    pub(super) async fn bind_tables(
        &mut self,
        tables: Tables,
    ) -> Result<Option<(Arc<Join>, Arc<Mapper>)>, Ended> {
        let bound = tables.bound(&self.driver.mapping)?;
        let joining = bound.join.as_ref().map(|join| Joining {
            specs: self.driver.mapping.related.clone(),
            tables: tables.clone(),
            join: Arc::clone(join),
        });
        let mapper = self.bind_joined(&bound.schema, joining).await?;
        self.tables = Some(tables);
        self.joining = bound.join.map(|join| (join, mapper));
        Ok(self.joined())
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
        self.bind_joined(schema, None).await
    }

    async fn bind_joined(
        &mut self,
        schema: &Arc<TableSchema>,
        joining: Option<Joining>,
    ) -> Result<Arc<Mapper>, Ended> {
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
                joining,
                reply,
            })
            .await?;
        // A schema is bound again when what is paused has changed.
        self.mappers.retain(|(known, _)| known != schema);
        self.mappers.push((Arc::clone(schema), Arc::clone(&mapper)));
        self.scan_due |= changed || schemas.scan_due;
        Ok(mapper)
    }
}

/// Does something with every row of a batch; when there are many, the runtime's other tasks
/// go elsewhere meanwhile.
pub(super) fn on_worker<T>(batch: &Batch, work: impl FnOnce() -> T) -> T {
    match batch.len() > INLINE_ROWS {
        true => in_place(work),
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
