//! Reminders: users to be looked at when a time is over.
//!
//! A reminder says since when, not until when, so that what the configuration says today holds
//! for everybody. It is a hint and no promise: whoever finds one looks at the user, and removes
//! it when it means nothing any more.

use rollcall_core::id::{SourceId, UserRow};
use rollcall_core::plan::{Due, DueKind, Plan};
use rusqlite::Connection;

use crate::error::StoreError;
use crate::readers::Readers;

pub(crate) fn write(connection: &Connection, plan: &Plan) -> Result<(), StoreError> {
    for (due, is_due) in &plan.due {
        let statement = match is_due {
            true => {
                "INSERT OR IGNORE INTO due(source, kind, since_us, user) VALUES(?1, ?2, ?3, ?4)"
            }
            false => {
                "DELETE FROM due WHERE source = ?1 AND kind = ?2 AND since_us = ?3 AND user = ?4"
            }
        };
        connection.prepare_cached(statement)?.execute((
            due.source.0,
            due.kind as u8,
            due.since_us,
            due.user.0,
        ))?;
    }
    Ok(())
}

impl Readers {
    /// Reminders of a source behind a place (time and user), in their order, at most `limit`.
    pub fn due_after(
        &self,
        source: SourceId,
        kind: DueKind,
        after: (i64, UserRow),
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT since_us, user FROM due WHERE source = ?1 AND kind = ?2 \
                 AND (since_us, user) > (?3, ?4) ORDER BY since_us, user LIMIT ?5",
            )?;
            let place = (source.0, kind as u8, after.0, after.1.0);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map((place.0, place.1, place.2, place.3, limit), |r| {
                Ok(Due {
                    source,
                    kind,
                    since_us: r.get(0)?,
                    user: UserRow(r.get(1)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many reminders of a kind a source has: about so many users are suspected, wait for
    /// their deletion, or are tombstones.
    pub fn due_count(&self, source: SourceId, kind: DueKind) -> Result<u64, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached("SELECT COUNT(*) FROM due WHERE source = ?1 AND kind = ?2")?
                    .query_row((source.0, kind as u8), |r| r.get::<_, i64>(0))?
                    .unsigned_abs(),
            )
        })
    }
}
