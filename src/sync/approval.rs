//! A plan that a person has approved, applied.
//!
//! All or nothing in meaning: a plan with another hash than the one that was seen is refused
//! before anything is done. Otherwise each of its records is marked as approved, in one commit,
//! and from there on all of that is going to be applied, whatever happens:
//!
//! - It goes record by record in several commits, one at a time between other work, so that no
//!   source waits for another one's plan. Whoever finds marked records after a crash goes on.
//! - What the source says meanwhile of a record in the plan is looked at as ever. If that counts,
//!   it is staged anew, without the mark: nobody has seen it, and it stays in the plan.
//! - A row that cannot be mapped from what is stored (a rule reads a redacted column) is read
//!   again by its key. If it is the row that was approved, it is applied; if not, the record is
//!   named to whoever approved the plan, and stays as it is.
//!
//! What was approved does not count against the limit.

use hashbrown::HashSet;
use rollcall_contract::Key;
use rollcall_core::id::SourceId;
use rollcall_core::staged::Counting;
use rollcall_core::state::KeyBytes;
use rollcall_store::{PlanRow, PlanStep, RunFilter, StoreError};
use tokio::sync::oneshot;

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::pages::is_newer;
use super::pending::Pending;
use super::staging::{AT_ONCE, PlanAnswer, asked_again};
use super::track::TrackedRun;
use super::window::Purpose;
use super::work::{PageRows, PageWork, Work};

/// So many records that are not what was approved are named.
const NAMED_MAX: usize = 1_000;

/// A plan that is being applied.
pub(super) struct Approval {
    source: SourceId,
    run: TrackedRun,
    /// Records that it had.
    records: u64,
    /// All records up to this one have had their turn; none when every one has.
    after: Option<KeyBytes>,
    /// Records that are being read again.
    asked: HashSet<KeyBytes>,
    /// Records whose row is not the one that was approved.
    changed: Vec<Key>,
    /// Told when it has ended.
    reply: Option<oneshot::Sender<PlanAnswer>>,
}

impl Approval {
    fn is_over(&self) -> bool {
        self.after.is_none() && self.asked.is_empty()
    }

    fn answer(&self, left: u64) -> PlanAnswer {
        let mut changed = self.changed.clone();
        changed.sort_unstable();
        PlanAnswer::Done {
            source: self.source,
            records: self.records,
            left,
            changed,
        }
    }

    fn name(&mut self, key: &Key) {
        if self.changed.len() < NAMED_MAX {
            self.changed.push(key.clone());
        }
    }
}

impl Engine {
    /// Somebody has approved a plan as it is.
    pub(super) fn begin_approval(
        &mut self,
        plan: &PlanRow,
        reply: Option<oneshot::Sender<PlanAnswer>>,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        pending.commit.plans.push((plan.source, PlanStep::Approved));
        self.commit(pending)?;
        if let Some(track) = self.sources.get_mut(&plan.source) {
            track.given_up = false;
        }
        self.go_on_with(plan, reply)
    }

    /// Goes on with a plan that was approved before a crash.
    pub(super) fn resume_plan(
        &mut self,
        source: SourceId,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let is_open = self.sources.get(&source).is_some_and(|t| t.plan_open);
        if !is_open || self.approvals.iter().any(|a| a.source == source) {
            return Ok(());
        }
        self.commit(pending)?;
        match self.writer.open_plan(source)?.filter(|plan| plan.approved) {
            Some(plan) => self.go_on_with(&plan, None),
            None => Ok(()),
        }
    }

    fn go_on_with(
        &mut self,
        plan: &PlanRow,
        reply: Option<oneshot::Sender<PlanAnswer>>,
    ) -> Result<(), StoreError> {
        let source = plan.source;
        // Whoever approved it before is told with this one.
        let under_way = self.approvals.iter().position(|a| a.source == source);
        let under_way = under_way.and_then(|at| self.approvals.remove(at));
        let run = match under_way {
            Some(before) => before.run,
            None => self.approval_run(source)?,
        };
        self.approvals.push_back(Approval {
            source,
            run,
            records: plan.records,
            after: Some(KeyBytes::new()),
            asked: HashSet::new(),
            changed: Vec::new(),
            reply,
        });
        Ok(())
    }

    fn approval_run(&mut self, source: SourceId) -> Result<TrackedRun, StoreError> {
        let cut = RunFilter {
            source: Some(source),
            kind: Some("plan".to_owned()),
            outcome: Some("running".to_owned()),
            ..RunFilter::default()
        };
        let mut cut = self.readers.runs(&cut, 10)?.into_iter();
        Ok(match cut.find(|row| row.cause == "approved") {
            Some(row) => self.resumed_run(row)?,
            None => TrackedRun::new(self.new_run(source, "plan", "approved", now_us())?),
        })
    }

    /// Whether there is something to apply.
    pub(super) fn has_approved(&self) -> bool {
        self.approvals.iter().any(|a| a.after.is_some())
    }

    /// Applies some of what is approved; each plan has its turn.
    pub(super) fn apply_some_approved(&mut self) -> Result<(), StoreError> {
        let next = self.approvals.iter().position(|a| a.after.is_some());
        let Some(mut approval) = next.and_then(|at| self.approvals.remove(at)) else {
            return Ok(());
        };
        let (source, now) = (approval.source, now_us());
        self.writer.settle()?;
        let mut pending = Pending::in_plan(self.writer.plan());
        let after = approval.after.take().unwrap_or_default();
        let rows = self.writer.approved_after(source, &after, AT_ONCE)?;
        self.directory.rules.set_counting(source, Counting::Apply);
        self.approve_rows(source, &rows, approval.run.row.id, now, &mut pending)?;
        pending.plan.counters.processed += rows.len() as u64;
        approval.asked.extend(asked_again(source, &rows, &pending));
        if rows.len() == AT_ONCE {
            approval.after = rows.last().map(|row| row.key.clone());
        }
        self.go_on_or_end(approval, &mut pending)
    }

    /// Stores what was done, and ends an approval that is over.
    fn go_on_or_end(
        &mut self,
        mut approval: Approval,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let source = approval.source;
        // Somebody has looked.
        pending.plan.counted.clear();
        approval.run.take_over(&self.directory, pending);
        if !approval.is_over() {
            pending.commit.runs.push(approval.run.row.clone());
            self.commit(pending)?;
            let waits = approval.after.is_none();
            self.approvals.push_back(approval);
            if waits && self.sources.get(&source).is_none_or(|t| !t.is_connected()) {
                self.tell_of_approval(source)?;
            }
            return Ok(());
        }
        let named = approval.changed.len() as u64;
        pending.commit.plans.push((source, PlanStep::Ended));
        let run = approval.run.row.clone();
        self.end_run(run, "completed", None, pending, now_us());
        self.commit(pending)?;
        let left = self.writer.open_plan(source)?.map_or(0, |p| p.records);
        if let Some(track) = self.sources.get_mut(&source) {
            track.plan_open = left > 0;
            tracing::info!(
                source = track.name,
                records = approval.records,
                left,
                changed = named,
                "the plan is approved and applied"
            );
        }
        let answer = approval.answer(left);
        if let Some(reply) = approval.reply {
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// A source cannot be reached: whoever approved its plan is told what waits for that.
    pub(super) fn tell_of_approval(&mut self, source: SourceId) -> Result<(), StoreError> {
        let mut waiting = self.approvals.iter_mut();
        let Some(approval) = waiting.find(|a| a.source == source && a.after.is_none()) else {
            return Ok(());
        };
        let left = self.writer.open_plan(source)?.map_or(0, |p| p.records);
        let answer = approval.answer(left);
        if let Some(reply) = approval.reply.take() {
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// Whether a page has records of an approved plan that were to be read again.
    pub(super) fn is_for_approval(&self, work: &Work) -> bool {
        matches!(work, Work::Page(page) if self.is_for_approval_of(page))
    }

    pub(super) fn is_for_approval_of(&self, page: &PageWork) -> bool {
        let waits = |a: &Approval| a.source == page.source && !a.asked.is_empty();
        page.page.purpose == Purpose::Repair && self.approvals.iter().any(waits)
    }

    /// Applies the rows of such a page that are as they were approved. Whatever else is in it
    /// is looked at as ever. Nothing else is pending.
    pub(super) fn apply_read_again(
        &mut self,
        work: &PageWork,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        // Records that are read by key were mapped.
        let PageRows::Mapped(mapped) = &work.mapped else {
            return self.apply_page(work, pending);
        };
        let source = work.source;
        let at = self.approvals.iter().position(|a| a.source == source);
        let Some(mut approval) = at.and_then(|at| self.approvals.remove(at)) else {
            return self.apply_page(work, pending);
        };
        let (page, now, run) = (&work.page, now_us(), approval.run.row.id);
        let history = self.sources.get(&source).map_or(0, |t| t.history);
        self.directory.rules.set_counting(source, Counting::Apply);
        let mut others: Vec<Key> = page.unfound().cloned().collect();
        let mut overtaken = Vec::new();
        for row in 0..page.rows.len() {
            let Some(key) = page.key(row).cloned() else {
                continue;
            };
            if !approval.asked.contains(key.as_bytes()) {
                continue;
            }
            let mapped = mapped.row(row);
            let approved = self.writer.approved(source, key.as_bytes())?;
            if approved.is_none_or(|staged| staged.hash != mapped.hash()) {
                others.push(key);
                continue;
            }
            let directory = &mut self.directory;
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            if !page.is_alive(row) || is_newer(&mut resolver, source, &key, page, history)? {
                overtaken.push(key);
                continue;
            }
            resolver
                .approve_row(source, key.as_bytes(), mapped)
                .map_err(failed)?;
            resolver.finish().map_err(failed)?;
            approval.asked.remove(key.as_bytes());
        }
        for key in others {
            if approval.asked.remove(key.as_bytes()) {
                approval.name(&key);
            }
        }
        let again = overtaken
            .iter()
            .map(Key::as_bytes)
            .map(KeyBytes::from_slice);
        pending.plan.reread.extend(again.map(|key| (source, key)));
        self.go_on_or_end(approval, pending)?;
        self.apply_page(work, pending)
    }
}
