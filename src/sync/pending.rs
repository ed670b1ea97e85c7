//! What one commit will hold, while it is gathered.

use rollcall_contract::Cursor;
use rollcall_core::id::SourceId;
use rollcall_core::plan::{Counters, Plan};
use rollcall_store::{Commit, Progress};

use super::joining::Overlay;
use super::work::{Turn, Work};

/// A lot that is being gathered.
#[derive(Default)]
pub struct Pending {
    /// The source whose lot this is.
    pub source: Option<SourceId>,
    /// Effects on the directory.
    pub plan: Plan,
    /// Everything else that becomes true with it.
    pub commit: Commit,
    /// Sources of the gaps that are opened, in their order.
    pub gap_sources: Vec<SourceId>,
    /// Changes in it.
    pub changes: usize,
    /// Bytes of log in it.
    pub bytes: usize,
    /// Bytes of batches that leave the queue with it.
    pub queued_bytes: u64,
    /// Commit time of its oldest change.
    pub oldest_commit_us: Option<i64>,
    /// Commit time of its newest change.
    pub newest_commit_us: Option<i64>,
    /// What its changes did.
    pub counted: Counters,
    /// Its work, for as long as it may have to be decided on again.
    pub lot: Vec<Work>,
    /// What the stream's run had counted, and had not listed, before it.
    pub run_before: Option<(Counters, u64)>,
    /// Whether it is a scan's.
    pub in_scan: Option<bool>,
    /// Its source's turn.
    pub turn: Turn,
    /// Related rows in it, as they will be.
    pub(super) overlay: Overlay,
    answers: Vec<Answer>,
}

/// Tells somebody who waits.
pub type Answer = Box<dyn FnOnce() + Send>;

impl Pending {
    /// Nothing yet, in the memory of an empty plan.
    pub fn in_plan(plan: Plan) -> Pending {
        Pending {
            plan,
            ..Pending::default()
        }
    }

    /// Whether nothing was gathered.
    pub fn is_empty(&self) -> bool {
        !self.has_effects() && self.answers.is_empty()
    }

    /// Whether there is anything to store.
    pub fn has_effects(&self) -> bool {
        let c = &self.commit;
        c.progress.is_some()
            || !self.plan.is_empty()
            || !(c.states.is_empty() && c.gaps_opened.is_empty() && c.gaps_closed.is_empty())
            || !(c.runs.is_empty()
                && c.run_records.is_empty()
                && c.scans.is_empty()
                && c.seen.is_empty()
                && c.scans_ended.is_empty())
            || !(c.counted.is_empty() && c.plans.is_empty() && c.ordered.is_empty())
            || !(c.repaired.is_empty()
                && c.sinks.is_empty()
                && c.parked.is_empty()
                && c.schemas.is_empty())
            || !(c.proofs.is_empty()
                && c.proofs_ended.is_empty()
                && c.drifted.is_empty()
                && c.undrifted.is_empty())
            || !c.related.is_empty()
    }

    /// Does something behind the commit.
    pub fn then(&mut self, answer: impl FnOnce() + Send + 'static) {
        self.answers.push(Box::new(answer));
    }

    /// Tells everybody who waits.
    pub fn run_answers(&mut self) {
        for answer in self.take_answers() {
            answer();
        }
    }

    /// Everybody who waits.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// The log of a source is taken in up to here.
    pub fn progress(&mut self, source: SourceId, cursor: Cursor) {
        let lineage = self.commit.progress.take().and_then(|p| p.lineage);
        self.commit.progress = Some(Progress {
            source,
            cursor,
            lineage,
        });
    }

    /// Notes the commit time of changes.
    pub fn committed_at(&mut self, us: i64) {
        self.oldest_commit_us = Some(self.oldest_commit_us.map_or(us, |t| t.min(us)));
        self.newest_commit_us = Some(self.newest_commit_us.map_or(us, |t| t.max(us)));
    }
}
