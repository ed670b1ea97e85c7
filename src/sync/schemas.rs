//! The numbers under which shadows of a table's columns are stored.
//!
//! A shadow holds its schema's number, not its names; every version that was ever used is
//! kept, so a shadow that was written before a column came or went can still be read.

use rollcall_contract::TableSchema;
use rollcall_core::id::SourceId;
use rollcall_store::{SchemaVersion, StoreError};

use super::engine::Engine;
use super::pending::Pending;

impl Engine {
    /// All versions of a source's schema, the wanted one last; it is made known if it is new.
    pub(super) fn schema_versions(
        &mut self,
        source: SourceId,
        wanted: &TableSchema,
        pending: &mut Pending,
    ) -> Result<Vec<(u32, TableSchema)>, StoreError> {
        let mut known = Vec::new();
        let mut highest = 0;
        for stored in self.readers.schemas(source)? {
            highest = highest.max(stored.version);
            let schema =
                serde_json::from_str(&stored.columns).map_err(|_| StoreError::Damaged {
                    detail: "a stored schema cannot be read".to_owned(),
                })?;
            known.push((stored.version, schema));
        }
        if let Some(at) = known.iter().position(|(_, schema)| schema == wanted) {
            let found = known.remove(at);
            known.push(found);
            return Ok(known);
        }
        let columns = serde_json::to_string(wanted)
            .map_err(|e| StoreError::Refused(format!("a schema cannot be stored: {e}")))?;
        pending.commit.schemas.push(SchemaVersion {
            source,
            version: highest + 1,
            columns,
        });
        known.push((highest + 1, wanted.clone()));
        Ok(known)
    }
}
