//! Runs: what was done, counted, so that a stream, a load and a scan read alike.
//!
//! A stream reports rolling runs: one ends and the next begins each hour in which there was
//! something to do. The rows are written with the commits whose effects they count, so
//! they are exact after a crash. A run that a crash cut is still `running` in the store; it
//! is taken up at the start and goes on with its source's next session (that of a plan, with
//! the plan), so it is one run to whoever reads of it. What nobody can go on with is ended as `interrupted`.
//!
//! A run names the records that it skipped, that failed in it, and that are applied again,
//! with attribute, rule and reason, never with a value. The list is bounded; the counts are
//! not, and the run says how much its list leaves out. A record that heals later stands as
//! healed in the later run, and as failed in the earlier one.

use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::plan::{Counters, Noted};
use rollcall_core::reason::SkipReason;
use rollcall_store::{RunFilter, RunRecord, RunRow, StoreError};

use super::apply::Directory;
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::TrackedRun;

/// At most so many runs of a source are looked at that a crash has cut.
const RESUMED_MAX: usize = 1_000;

/// A stream's run ends after so long.
const STREAM_RUN_US: i64 = 3_600_000_000;

/// What a run is.
pub const RUN_KINDS: [&str; 9] = [
    "load",
    "reconcile",
    "stream",
    "poll",
    "sync",
    "plan",
    "apply",
    "undo",
    "proof",
];

/// How a run ends, or that it has not.
pub const RUN_OUTCOMES: [&str; 7] = [
    "running",
    "completed",
    "drifted",
    "unproved",
    "staged",
    "superseded",
    "interrupted",
];

impl Engine {
    /// A new run of a source.
    pub(super) fn new_run(
        &mut self,
        source: SourceId,
        kind: &str,
        cause: &str,
        now: i64,
    ) -> Result<RunRow, StoreError> {
        debug_assert!(RUN_KINDS.contains(&kind), "{kind}");
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
            unlisted: 0,
        })
    }

    /// A run that goes on, with the list of records that it has.
    pub(super) fn resumed_run(&self, row: RunRow) -> Result<TrackedRun, StoreError> {
        let mut run = TrackedRun::new(row);
        for record in self.readers.run_records(run.row.id, usize::MAX)? {
            run.named.admits(&Noted {
                source: record.source,
                key: record.key,
                reason: record.reason,
                healed: record.healed,
                attribute: None,
                rule: None,
            });
        }
        Ok(run)
    }

    /// Takes up the runs that a crash has cut.
    pub(super) fn resume_runs(&mut self) -> Result<(), StoreError> {
        let now = now_us();
        let mut pending = Pending::default();
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        for source in sources {
            let filter = RunFilter {
                source: Some(source),
                outcome: Some("running".to_owned()),
                ..RunFilter::default()
            };
            let scan = self.readers.scan(source)?.map(|scan| scan.run);
            let proof = self.resume_proof(source, &mut pending)?;
            let is_approved = self.writer.open_plan(source)?.is_some_and(|p| p.approved);
            for row in self.readers.runs(&filter, RESUMED_MAX)? {
                // A plan that is approved takes up its run when it goes on.
                if scan == Some(row.id)
                    || is_approved && row.kind == "plan" && row.cause == "approved"
                {
                    continue;
                }
                let goes_on = matches!(row.kind.as_str(), "stream" | "poll")
                    && self
                        .sources
                        .get(&source)
                        .is_some_and(|t| t.stream_run.is_none());
                if proof == Some(row.id) {
                    let run = self.resumed_run(row)?;
                    if let Some(track) = self.sources.get_mut(&source) {
                        track.proof_run = Some(run);
                    }
                } else if goes_on {
                    let run = self.resumed_run(row)?;
                    if let Some(track) = self.sources.get_mut(&source) {
                        track.stream_run = Some(run);
                    }
                } else {
                    self.end_run(row, "interrupted", None, &mut pending, now);
                }
            }
        }
        self.commit(&mut pending)
    }

    /// The rolling run of the stream, or of the polls in its place, begun if there is none.
    pub(super) fn stream_run(&mut self, source: SourceId, now: i64) -> Result<RunId, StoreError> {
        if let Some(run) = self
            .sources
            .get(&source)
            .and_then(|t| t.stream_run.as_ref())
        {
            return Ok(run.row.id);
        }
        let is_polled = self.sources.get(&source).is_some_and(|t| t.poll.is_some());
        let (kind, cause) = match is_polled {
            true => ("poll", "poll"),
            false => ("stream", "log"),
        };
        let row = self.new_run(source, kind, cause, now)?;
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
                .chain(track.scan.iter_mut().map(|s| &mut s.run))
                .chain(track.proof_run.iter_mut());
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

    /// Ends the rolling runs that are due.
    pub(super) fn end_runs(
        &mut self,
        pending: &mut Pending,
        now: i64,
        is_due: impl Fn(&RunRow) -> bool,
    ) {
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
        debug_assert!(RUN_OUTCOMES.contains(&outcome), "{outcome}");
        outcome.clone_into(&mut row.outcome);
        row.detail = detail;
        row.ended_us = Some(now);
        let c = &row.counters;
        let left = c.suspected + c.deactivated + c.deleted;
        let brought = c.created + c.updated + left + c.activated + c.healed;
        if row.kind == "poll" && matches!(outcome, "completed" | "unproved") && brought == 0 {
            // A table that is polled every minute is no news every minute.
            pending.commit.runs.push(row);
            return;
        }
        let name = self
            .sources
            .get(&row.source)
            .map_or_else(String::new, |t| t.name.clone());
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
            "unlisted": row.unlisted,
        });
        self.operational(
            EventKind::RunCompleted,
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
        run: RunId,
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
            source: source.named(),
            time_us: now,
            run,
            position: "",
            key: &[],
            data: body.to_string().as_bytes(),
        });
    }
}

impl TrackedRun {
    /// Takes over what a plan counted and noted since the last time.
    pub(super) fn take_over(&mut self, directory: &Directory, pending: &mut Pending) {
        let counted = std::mem::take(&mut pending.plan.counters);
        pending.counted.add(&counted);
        self.row.counters.add(&counted);
        self.dirty = true;
        if pending.plan.noted.is_empty() {
            return;
        }
        let now = now_us();
        for noted in pending.plan.noted.drain(..) {
            if self.named.admits(&noted) {
                let record = named(directory, self.row.id, noted, now);
                pending.commit.run_records.push(record);
            } else {
                self.row.unlisted += 1;
            }
        }
    }
}

/// What a run tells of a record: names in place of numbers, since numbers change with the
/// configuration.
fn named(directory: &Directory, run: RunId, noted: Noted, noted_us: i64) -> RunRecord {
    let Noted {
        source,
        key,
        reason,
        healed,
        attribute,
        rule,
    } = noted;
    let mapper = directory.mapper(source);
    let mapper = mapper.as_deref();
    let text = match rule {
        Some(rule) => mapper.and_then(|m| m.rule_text(rule)),
        // Whatever an expression does to a record without a rule, the scope has done.
        None if !healed && reason.is_error() && reason != SkipReason::NoKey => {
            mapper.and_then(|m| m.scope_text())
        }
        None => None,
    };
    let attribute = attribute.or_else(|| mapper.and_then(|m| m.rule_attribute(rule?)));
    RunRecord {
        run,
        reason,
        healed,
        source,
        key,
        attribute: attribute.and_then(|id| directory.attribute_name(id)),
        rule: text.map(str::to_owned),
        noted_us,
    }
}
