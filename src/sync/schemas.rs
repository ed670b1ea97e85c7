//! The numbers under which shadows of a table's columns are stored.
//!
//! A shadow holds its schema's number, not its names; every version that was ever used is
//! kept, so a shadow that was written before a column came or went can still be read.

use rollcall_contract::{Gap, GapReason, TableSchema};
use rollcall_core::id::SourceId;
use rollcall_store::{SchemaVersion, StoreError};

use super::engine::Engine;
use super::pending::Pending;
use super::work::KnownSchemas;

impl Engine {
    /// All versions of a source's schema, the wanted one last; it is made known if it is new.
    pub(super) fn schema_versions(
        &mut self,
        source: SourceId,
        wanted: &TableSchema,
        pending: &mut Pending,
    ) -> Result<KnownSchemas, StoreError> {
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
            return Ok(KnownSchemas {
                versions: known,
                scan_due: false,
            });
        }
        let columns = serde_json::to_string(wanted)
            .map_err(|e| StoreError::Refused(format!("a schema cannot be stored: {e}")))?;
        pending.commit.schemas.push(SchemaVersion {
            source,
            version: highest + 1,
            columns,
        });
        let gained = known
            .last()
            .is_some_and(|(_, before)| gains_values(before, wanted));
        if gained {
            let gap = Gap {
                tables: vec![wanted.table.clone()],
                reason: GapReason::SchemaChanged,
                from: None,
                to: None,
                detail: format!(
                    "Columns of {} were added or changed their type. Rows that exist have values in them that the log does not bring: the table is read again.",
                    wanted.table
                ),
            };
            self.gap_found(source, gap, pending)?;
        }
        known.push((highest + 1, wanted.clone()));
        Ok(KnownSchemas {
            versions: known,
            scan_due: gained,
        })
    }
}

/// Whether rows may have values under the new columns that were never seen: a column that
/// was not there, or not of that type. A column that is gone brings nothing new.
fn gains_values(before: &TableSchema, after: &TableSchema) -> bool {
    after.columns.iter().any(|column| {
        before
            .position(&column.name)
            .is_none_or(|at| before.columns[at].type_name != column.type_name)
    })
}
