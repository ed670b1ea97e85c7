//! Runs: what was done, counted, so that a stream, a load and a scan read alike.
//!
//! A stream reports rolling runs: one ends and the next begins each hour in which there was
//! something to do. The rows are written with the commits whose effects they count, so
//! they are exact after a crash; a run that a crash cut goes on with its source's next
//! session.

use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::SourceId;
use rollcall_core::plan::Counters;
use rollcall_store::{RunRow, StoreError};

use super::engine::Engine;
use super::pending::Pending;
use super::track::TrackedRun;

/// A stream's run ends after so long.
const STREAM_RUN_US: i64 = 3_600_000_000;

impl Engine {
    /// A new run of a source.
    pub(super) fn new_run(
        &mut self,
        source: SourceId,
        kind: &str,
        cause: &str,
        now: i64,
    ) -> Result<RunRow, StoreError> {
        let from = self
            .sources
            .get(&source)
            .map(|t| t.position.clone())
            .filter(|p| !p.is_empty());
        Ok(RunRow {
            id: self.writer.allocate_run(),
            source,
            kind: kind.to_owned(),
            cause: cause.to_owned(),
            outcome: "running".to_owned(),
            detail: None,
            started_us: now,
            ended_us: None,
            from,
            to: None,
            counters: Counters::default(),
        })
    }

    /// The stream's run, begun if there is none.
    pub(super) fn stream_run(
        &mut self,
        source: SourceId,
        now: i64,
    ) -> Result<rollcall_core::id::RunId, StoreError> {
        if let Some(run) = self
            .sources
            .get(&source)
            .and_then(|t| t.stream_run.as_ref())
        {
            return Ok(run.row.id);
        }
        let row = self.new_run(source, "stream", "log", now)?;
        let id = row.id;
        if let Some(track) = self.sources.get_mut(&source) {
            track.stream_run = Some(TrackedRun::new(row));
        }
        Ok(id)
    }

    /// Adds the rows that changed to the commit.
    pub(super) fn roll_runs(&mut self, pending: &mut Pending, _now: i64) {
        for track in self.sources.values_mut() {
            let runs = track
                .stream_run
                .iter_mut()
                .chain(track.scan.iter_mut().map(|s| &mut s.run));
            for run in runs.filter(|r| r.dirty) {
                pending.commit.runs.push(run.row.clone());
                run.dirty = false;
            }
        }
    }

    /// Ends stream runs that are older than their window.
    pub(super) fn end_long_runs(&mut self, pending: &mut Pending, now: i64) {
        self.end_runs(pending, now, |row| now - row.started_us >= STREAM_RUN_US);
    }

    /// Ends all stream runs: the daemon stops. A scan's run goes on at the next start.
    pub(super) fn end_all_runs(&mut self, pending: &mut Pending, now: i64) {
        self.end_runs(pending, now, |_| true);
    }

    fn end_runs(&mut self, pending: &mut Pending, now: i64, is_due: impl Fn(&RunRow) -> bool) {
        let due: Vec<SourceId> = self
            .sources
            .iter()
            .filter(|(_, t)| t.stream_run.as_ref().is_some_and(|r| is_due(&r.row)))
            .map(|(&id, _)| id)
            .collect();
        for source in due {
            let run = self
                .sources
                .get_mut(&source)
                .and_then(|t| t.stream_run.take());
            if let Some(run) = run {
                self.end_run(run.row, "completed", None, pending, now);
            }
        }
    }

    /// Ends a run: its last row and its event go into the commit.
    pub(super) fn end_run(
        &mut self,
        mut row: RunRow,
        outcome: &str,
        detail: Option<String>,
        pending: &mut Pending,
        now: i64,
    ) {
        outcome.clone_into(&mut row.outcome);
        row.detail = detail;
        row.ended_us = Some(now);
        let name = self
            .sources
            .get(&row.source)
            .map_or_else(String::new, |t| t.name.clone());
        let kind = if outcome == "staged" {
            EventKind::RunStaged
        } else {
            EventKind::RunCompleted
        };
        let body = serde_json::json!({
            "run": row.id.0,
            "source": name,
            "kind": row.kind,
            "cause": row.cause,
            "outcome": row.outcome,
            "detail": row.detail,
            "durationMs": (now - row.started_us) / 1000,
            "from": row.from,
            "to": row.to,
            "counters": row.counters,
        });
        self.operational(
            kind,
            row.source,
            &format!("run:{}", row.id.0),
            row.id,
            &body,
            pending,
            now,
        );
        pending.commit.runs.push(row);
    }

    /// Puts an operational event into the commit. `what` names it within its kind, so that
    /// the same thing has the same id after a crash.
    #[allow(clippy::too_many_arguments, reason = "each is a part of the event")]
    pub(super) fn operational(
        &self,
        kind: EventKind,
        source: SourceId,
        what: &str,
        run: rollcall_core::id::RunId,
        body: &serde_json::Value,
        pending: &mut Pending,
        now: i64,
    ) {
        let name = self.sources.get(&source).map_or("", |t| t.name.as_str());
        let id = self.directory.operational_id(kind, name, what);
        pending.plan.events.push(&Event {
            kind,
            id,
            user: None,
            source: Some(source),
            time_us: now,
            run,
            position: "",
            key: &[],
            data: body.to_string().as_bytes(),
        });
    }
}
