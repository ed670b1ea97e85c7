//! Polls, from the engine's side: that the log is left, and what polled rows tell.
//!
//! Before the first row of a poll is applied the stored cursor becomes one that names no
//! place. So whenever the log is opened again, after whatever crash, it begins anew with a
//! gap, and what it held of the time in which the table was polled is never applied over
//! newer rows.

use std::sync::atomic::Ordering;

use rollcall_contract::{Cell, Cursor, Key, Lineage, SourceStatus};
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Shadow;
use rollcall_store::{Progress, StoreError};

use super::apply::{Step, failed};
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use crate::observe::names;

/// What the engine knows of a source that is polled.
#[derive(Clone, Debug, Default)]
pub struct PollTrack {
    /// The column that every change of a row is to raise.
    pub change_column: Option<String>,
}

/// How a polled row compares with what was stored of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// It is as it was.
    Same,
    /// It is another one.
    Changed,
    /// It is another one, and its change column does not tell so.
    Unmarked,
}

/// What a server keeps for a log that is not read, and what to do about it.
pub(crate) struct LogKept {
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) fix: &'static str,
}

impl LogKept {
    /// Of a source that is polled; none when its server keeps nothing.
    pub(crate) fn of(status: &SourceStatus) -> Option<LogKept> {
        let bytes = status.retained_bytes?;
        Some(LogKept {
            found: format!(
                "The server keeps {bytes} bytes of log for this source, although its log is not read."
            ),
            fix: "Drop its replication slot if the log is not going to be read again.",
        })
    }
}

impl Engine {
    /// The log is left, and the table polled.
    pub(super) fn polling(
        &mut self,
        source: SourceId,
        lineage: Lineage,
        poll: PollTrack,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let stored = self.readers.sources()?.into_iter().find(|s| s.id == source);
        let cursor = stored.and_then(|s| s.resume).map(|(cursor, _)| cursor);
        let was_followed = cursor.is_some_and(|cursor| !cursor.is_nowhere());
        let now = now_us();
        // The polls' own run goes on, from one session to the next.
        self.end_runs(pending, now, |row| {
            row.source == source && row.kind != "poll"
        });
        if was_followed {
            // Its pages lie on both sides of a time that nobody saw.
            self.give_up_scan(source, "The log can no longer be read.", pending, now)?;
        }
        if let Some(track) = self.sources.get_mut(&source) {
            track.acknowledge = None;
            track.poll = Some(poll);
        }
        pending.commit.progress = Some(Progress {
            source,
            cursor: Cursor::nowhere("polled"),
            lineage: Some(lineage),
        });
        Ok(())
    }

    /// Compares polled rows with what is stored.
    pub(super) fn compare_polled(
        &mut self,
        source: SourceId,
        steps: &[Step<'_>],
        mapped: &MappedRows,
        pending: &mut Pending,
    ) -> Result<Vec<Polled>, StoreError> {
        let track = self.sources.get(&source);
        let column = track.and_then(|t| t.poll.as_ref()?.change_column.clone());
        let mut compared = Vec::with_capacity(steps.len());
        let mut stored = Vec::new();
        let directory = &mut self.directory;
        let mut resolver =
            directory.resolver(&mut self.writer, &mut pending.plan, now_us(), RunId(0));
        for step in steps {
            let (Some(key), Some(index)) = (&step.key, step.mapped) else {
                compared.push(Polled::Changed);
                continue;
            };
            stored.clear();
            resolver
                .stored_shadow(source, Key::as_bytes(key), &mut stored)
                .map_err(failed)?;
            let column = column
                .as_ref()
                .and_then(|c| step.change.table().position(c));
            compared.push(compare(&stored, mapped.row(index).shadow(), column));
        }
        Ok(compared)
    }

    /// Takes down which rows of a whole poll changed without their change column.
    pub(super) fn count_unmarked(&self, source: SourceId, polled: &[Polled]) {
        let unmarked = polled.iter().filter(|p| **p == Polled::Unmarked).count() as u64;
        if let Some(track) = self.sources.get(&source).filter(|_| unmarked > 0) {
            track.live.unmarked.fetch_add(unmarked, Ordering::Relaxed);
            metrics::counter!(names::POLL_UNMARKED, "source" => track.name.clone())
                .increment(unmarked);
        }
    }
}

/// Compares a row with the one that is stored. `column` is the change column.
fn compare(stored: &[u8], row: &[u8], column: Option<usize>) -> Polled {
    if stored == row {
        return Polled::Same;
    }
    let (Some(column), Ok(before), Ok(now)) = (column, Shadow::decode(stored), Shadow::decode(row))
    else {
        return Polled::Changed;
    };
    // A row without a value is read by every poll.
    match (before.cell(column), now.cell(column)) {
        (Cell::Value(a), Cell::Value(b)) if a == b && before.version() == now.version() => {
            Polled::Unmarked
        }
        _ => Polled::Changed,
    }
}
