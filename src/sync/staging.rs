//! How much a source may take away before somebody has looked.
//!
//! What counts is decided by the directory ([`rollcall_core::staged`]); here it is decided
//! what becomes of it.
//!
//! - **In the log** a lot is applied and counted first, in memory. If it and what was applied
//!   within the window are too many, the lot is thrown away whole and decided on again with
//!   everything that counts staged: nothing of a large delete is applied. A connector hands
//!   over transactions whole, up to the size of a lot, so a large one trips with its first.
//! - **In a scan** everything that counts is held back, page by page, and counted when the
//!   scan has ended. What may pass is applied then; else it is the plan. After a crash the
//!   scan goes on and comes to the same count: what was applied already is in the window.
//! - **When the mapping changed**, whatever others would see of anybody counts until a scan has
//!   ended, and of those who wait then until they no longer do.
//! - **When a plan of people who are gone was given up** whatever counts of the next scan waits as
//!   well, however little it is: somebody has said that they are not, and the source still says so.
//! - **While a plan is open** whatever counts joins it. Everything else of the source, and
//!   all other sources, go on.
//!
//! The window is kept in buckets of a minute, written in the commit whose effects they
//! count, so it is right after any crash. What a person has approved does not count.
//!
//! How a plan is applied once it is approved: [`super::approval`].

use std::collections::VecDeque;

use rollcall_contract::{GapReason, Key};
use rollcall_core::event::EventKind;
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::reason::SkipReason;
use rollcall_core::staged::{Counted, Counting, Limit, PlanHash, Remapping};
use rollcall_core::state::KeyBytes;
use rollcall_store::{
    CountedChanges, GapId, PlanRow, PlanStep, StagedRow, StateChange, StoreError,
};
use tokio::sync::oneshot;

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::TrackedRun;
use super::work::Work;

const MINUTE_US: i64 = 60_000_000;

/// In place of the fingerprint of a mapping that was applied: no mapping has it.
const MAPPING_GIVEN_UP: &str = "given up";

/// Records that are approved or discarded in one commit.
pub(super) const AT_ONCE: usize = 2_000;

/// A source's limit, and what was applied within its window.
#[derive(Clone, Debug)]
pub struct LimitTrack {
    limit: Limit,
    window_minutes: i64,
    /// Applied changes that count, by minutes, ascending.
    counted: VecDeque<(i64, u64)>,
}

impl LimitTrack {
    /// A limit over a window, and what was counted by minutes before.
    pub fn new(limit: Limit, window_us: i64, counted: Vec<(i64, u64)>) -> LimitTrack {
        LimitTrack {
            limit,
            window_minutes: window_minutes(window_us),
            counted: counted.into(),
        }
    }

    /// Stops nothing from here on. What counts is still held back until a scan has ended.
    pub(crate) fn let_everything_pass(&mut self) {
        self.limit.floor = u64::MAX;
    }

    /// The limit.
    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    /// How many changes that all count are looked at together, at least: twice as many as may
    /// pass, so a transaction trips with its first ones when every other one counts.
    pub(crate) fn looked_at(&self) -> usize {
        let pass = self.limit.max_changes.max(self.limit.floor);
        usize::try_from(pass)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .saturating_mul(2)
    }

    /// What was applied within the window.
    pub(crate) fn recent(&mut self, now: i64) -> u64 {
        let since = self.since(now);
        while self.counted.front().is_some_and(|(m, _)| *m < since) {
            self.counted.pop_front();
        }
        self.counted.iter().map(|(_, n)| n).sum()
    }

    /// The first minute that counts.
    fn since(&self, now: i64) -> i64 {
        minute(now) - self.window_minutes
    }

    fn add(&mut self, now: i64, changes: u64) {
        let minute = minute(now);
        match self.counted.back_mut() {
            // A clock that was set back adds to what it counted last.
            Some((last, n)) if *last >= minute => *n += changes,
            _ => self.counted.push_back((minute, changes)),
        }
    }
}

/// The minute since the Unix epoch.
pub fn minute(us: i64) -> i64 {
    us.div_euclid(MINUTE_US)
}

/// The minutes of a window, the one that has begun included.
pub fn window_minutes(us: i64) -> i64 {
    us.div_euclid(MINUTE_US) + i64::from(us.rem_euclid(MINUTE_US) > 0)
}

/// What a person says of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is applied.
    Approve,
    /// It is given up: everybody stays as before.
    Discard,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanAnswer {
    /// It was done, for so many records; so many still wait, because they have to be read
    /// again first.
    Done {
        /// Whose plan.
        source: SourceId,
        /// Records.
        records: u64,
        /// Records that still wait.
        left: u64,
        /// Of these, some whose row is not the one that was approved.
        changed: Vec<Key>,
    },
    /// No plan has this hash.
    Unknown,
    /// The plan is another one by now.
    Changed {
        /// As it was with this hash.
        was: PlanRow,
        /// As it is; none when it is gone.
        is: Option<PlanRow>,
    },
    /// The source has not been reached since the daemon started: what is stored cannot be
    /// mapped.
    NotReady(SourceId),
}

/// Whether what a scan finds behind such a gap is never believed unseen: everybody was
/// absent at once, or the source may be an older copy of itself.
fn is_suspicious(reason: GapReason) -> bool {
    reason.is_other_history() || matches!(reason, GapReason::Truncated | GapReason::TableRecreated)
}

impl Engine {
    /// Before a lot: whether everything that waited has left the plan by itself.
    pub(super) fn look_at_plan(&mut self, source: SourceId) -> Result<(), StoreError> {
        let is_open = self.sources.get(&source).is_some_and(|t| t.plan_open);
        if is_open
            && self.writer.open_plan(source)?.is_none()
            && let Some(track) = self.sources.get_mut(&source)
        {
            tracing::info!(source = track.name, "nothing waits for approval any more");
            track.plan_open = false;
        }
        Ok(())
    }

    /// Before work of a source: this becomes of changes that count.
    pub(super) fn set_counting(&mut self, source: SourceId, in_scan: bool) {
        let counting = match self.sources.get(&source) {
            Some(track) if track.limit.is_some() => match (track.plan_open, in_scan) {
                (true, _) => Counting::Stage,
                (false, true) => Counting::HoldBack,
                (false, false) => Counting::Apply,
            },
            _ => Counting::Apply,
        };
        self.directory.rules.set_counting(source, counting);
        let remapping = match self
            .sources
            .get(&source)
            .map(|t| (t.remapping, t.plan_open))
        {
            None | Some((Remapping::Waiting, false)) => Remapping::Nobody,
            Some((remapping, _)) => remapping,
        };
        self.directory.rules.set_remapping(source, remapping);
    }

    /// A scan has ended: everybody has been mapped by the present mapping, or waits.
    pub(super) fn end_remapping(&mut self, source: SourceId) {
        if let Some(track) = self.sources.get_mut(&source)
            && track.remapping == Remapping::Everybody
        {
            track.remapping = match track.plan_open {
                true => Remapping::Waiting,
                false => Remapping::Nobody,
            };
        }
    }

    /// Whether work of a source has to be kept until its lot is decided on.
    pub(super) fn may_trip(&self, source: SourceId) -> bool {
        let track = self.sources.get(&source);
        track.is_some_and(|t| t.limit.is_some() && !t.plan_open)
    }

    /// Looks at what a lot has taken away. If it is too much, the lot is decided on again,
    /// and all of that waits.
    pub(super) fn decide_lot(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let lot = std::mem::take(&mut pending.lot);
        let Some(source) = pending.source else {
            return Ok(());
        };
        let changes = pending.plan.counted_of(source);
        if changes == 0 {
            return Ok(());
        }
        let now = now_us();
        self.writer.settle()?;
        let linked = self.writer.counts().linked_of(source);
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        let Some(limit) = &mut track.limit else {
            return Ok(());
        };
        let recent = limit.recent(now);
        if lot.is_empty() || !limit.limit.trips(changes + recent, linked) {
            return Ok(());
        }
        track.plan_open = true;
        let mut plan = std::mem::take(&mut pending.plan);
        plan.clear();
        if let (Some(run), Some(before)) = (&mut track.stream_run, &pending.run_before) {
            (run.row.counters, run.row.unlisted) = *before;
        }
        *pending = Pending::in_plan(plan);
        pending.source = Some(source);
        for work in lot {
            match work {
                Work::Changes(changes) => self.apply_changes(&changes, pending)?,
                Work::Page(page) => self.apply_page(&page, pending)?,
                Work::Progress { source, cursor } => pending.progress(source, cursor),
                Work::Told(piece) => self.apply_piece(&piece, pending)?,
                _ => {}
            }
        }
        let run = self.stream_run(source, now)?;
        self.plan_opened(source, run, changes, recent, linked, pending, now);
        Ok(())
    }

    /// Says that a plan was opened.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the event")]
    fn plan_opened(
        &mut self,
        source: SourceId,
        run: RunId,
        changes: u64,
        recent: u64,
        linked: u64,
        pending: &mut Pending,
        now: i64,
    ) {
        let Some(track) = self.sources.get_mut(&source) else {
            return;
        };
        track.plan_open = true;
        let name = track.name.clone();
        let body = serde_json::json!({
            "source": name,
            "run": run.0,
            "changes": changes,
            "appliedWithinWindow": recent,
            "linkedActiveUsers": linked,
        });
        tracing::warn!(
            source = name,
            changes,
            recent,
            linked,
            "so many changes that take something away wait for approval: see `rollcall plan list`"
        );
        let what = format!("plan:{}:{now}", run.0);
        if let Some(notifier) = self.notifier.clone() {
            let id = self
                .directory
                .operational_id(EventKind::RunStaged, &name, &what);
            let event = serde_json::json!({
                "specversion": "1.0",
                "id": id.iter().map(|b| format!("{b:02x}")).collect::<String>(),
                "source": format!("/rollcall/{}", self.directory.rules.organization),
                "type": EventKind::RunStaged.type_name(),
                "orgid": self.directory.rules.organization,
                "sourceid": name,
                "runid": run.0,
                "data": body,
            });
            pending.then(move || notifier.tell(event.to_string()));
        }
        self.operational(
            EventKind::RunStaged,
            source,
            &what,
            run,
            &body,
            pending,
            now,
        );
    }

    /// Counts what a commit applies.
    pub(super) fn count_changes(&mut self, pending: &mut Pending, now: i64) {
        for (source, changes) in std::mem::take(&mut pending.plan.counted) {
            let track = self.sources.get_mut(&source);
            let Some(limit) = track.and_then(|t| t.limit.as_mut()) else {
                continue;
            };
            limit.add(now, changes);
            pending.commit.counted.push(CountedChanges {
                source,
                minute: minute(now),
                changes,
                since: limit.since(now),
            });
        }
    }

    /// A scan has ended and its gaps are closed with what is pending: applies what it held
    /// back, or makes a plan of it. Gives how many records wait. The counts of the run are
    /// brought along.
    pub(super) fn end_holding_back(
        &mut self,
        source: SourceId,
        closes: &[GapId],
        run: &mut TrackedRun,
        pending: &mut Pending,
        now: i64,
    ) -> Result<(), StoreError> {
        if self.sources.get(&source).is_none_or(|t| t.limit.is_none()) {
            return Ok(());
        }
        // What is held back is asked of the store.
        self.commit(pending)?;
        let held = self.writer.held_back(source)?;
        let given_up = self.sources.get(&source).is_some_and(|t| t.given_up);
        if held == 0 {
            if given_up && let Some(track) = self.sources.get_mut(&source) {
                track.given_up = track.plan_open;
                if !track.given_up {
                    pending.commit.plans.push((source, PlanStep::Agreed));
                }
            }
            return Ok(());
        }
        let gaps = self.readers.gaps(false, 10_000)?;
        let mut closed = gaps.iter().filter(|g| closes.contains(&g.id));
        let suspicious = closed.any(|g| is_suspicious(g.gap.reason));
        let linked = self.writer.counts().linked_of(source);
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        let Some(limit) = &mut track.limit else {
            return Ok(());
        };
        let recent = limit.recent(now);
        let was_open = track.plan_open;
        if was_open || suspicious || given_up || limit.limit.trips(held + recent, linked) {
            self.count_staged(source, run, pending)?;
            pending.commit.plans.push((source, PlanStep::Open));
            if !was_open {
                self.plan_opened(source, run.row.id, held, recent, linked, pending, now);
            }
            return Ok(());
        }
        self.directory.rules.set_counting(source, Counting::Apply);
        let mut after = KeyBytes::new();
        let mut is_whole = true;
        loop {
            let rows = self.writer.staged_after(source, true, &after, AT_ONCE)?;
            self.approve_rows(source, &rows, run.row.id, now, pending)?;
            is_whole &= asked_again(source, &rows, pending).is_empty();
            run.take_over(&self.directory, pending);
            match rows.last() {
                Some(last) if rows.len() == AT_ONCE => after.clone_from(&last.key),
                _ => break,
            }
            pending.commit.runs.push(run.row.clone());
            self.commit(pending)?;
        }
        if !is_whole {
            // They are read again first, and nobody needs to look at them.
            pending.commit.plans.push((source, PlanStep::Open));
            pending.commit.plans.push((source, PlanStep::Approved));
            self.commit(pending)?;
            if let Some(track) = self.sources.get_mut(&source) {
                track.plan_open = true;
            }
            self.resume_plan(source, pending)?;
        }
        Ok(())
    }

    /// What a scan held back stays so: its run counts and names it.
    fn count_staged(
        &mut self,
        source: SourceId,
        run: &mut TrackedRun,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let mut after = KeyBytes::new();
        loop {
            let rows = self.writer.staged_after(source, true, &after, AT_ONCE)?;
            for StagedRow { key, staged } in &rows {
                let reason = match staged.kind.gone() {
                    Some(_) => SkipReason::StagedLeaver,
                    None => SkipReason::Staged,
                };
                pending.plan.leave_out(source, key, reason, (None, None));
            }
            run.take_over(&self.directory, pending);
            match rows.last() {
                Some(last) if rows.len() == AT_ONCE => after.clone_from(&last.key),
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn approve_rows(
        &mut self,
        source: SourceId,
        rows: &[StagedRow],
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let mut resolver = self
            .directory
            .resolver(&mut self.writer, &mut pending.plan, now, run);
        for row in rows {
            resolver
                .approve(source, &row.key, &row.staged)
                .map_err(super::apply::failed)?;
        }
        resolver.finish().map_err(super::apply::failed)
    }

    /// A person has looked at the plan with this hash.
    pub(super) fn plan_word(
        &mut self,
        hash: PlanHash,
        word: Word,
        reply: oneshot::Sender<PlanAnswer>,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let answer = match self.look_up(hash)? {
            Ok(plan) if word == Word::Approve => {
                return self.begin_approval(&plan, Some(reply), pending);
            }
            Ok(plan) => self.discard_plan(&plan, pending)?,
            Err(answer) => answer,
        };
        pending.then(move || {
            // Who asked may be gone.
            let _ = reply.send(answer);
        });
        Ok(())
    }

    /// The plan with this hash, or why nothing can be done with it.
    fn look_up(&self, hash: PlanHash) -> Result<Result<PlanRow, PlanAnswer>, StoreError> {
        let Some(since) = self.readers.plan_since(hash)? else {
            return Ok(Err(PlanAnswer::Unknown));
        };
        let source = since.was.source;
        let fits = since.is.filter(|is| is.hash == hash);
        let Some(plan) = fits else {
            return Ok(Err(PlanAnswer::Changed {
                was: since.was,
                is: since.is,
            }));
        };
        let is_ready =
            self.sources.contains_key(&source) && self.directory.mapper(source).is_some();
        Ok(match is_ready {
            true => Ok(plan),
            false => Err(PlanAnswer::NotReady(source)),
        })
    }

    /// A plan that waits because of the mapping is given up, so nobody has agreed to that
    /// mapping: the next scan counts what it changes once more, also behind a restart.
    fn give_up_mapping(
        &mut self,
        source: SourceId,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        if let Some(track) = self.sources.get_mut(&source) {
            track.remapping = Remapping::Everybody;
        }
        let stored = self.readers.sources()?.into_iter().find(|s| s.id == source);
        if let Some(stored) = stored {
            pending.commit.states.push(StateChange {
                source,
                state: stored.state,
                reason: stored.reason,
                mapping: Some(MAPPING_GIVEN_UP.to_owned()),
            });
        }
        Ok(())
    }

    fn discard_plan(
        &mut self,
        plan: &PlanRow,
        pending: &mut Pending,
    ) -> Result<PlanAnswer, StoreError> {
        let (source, now) = (plan.source, now_us());
        let kinds = self.readers.plan_kinds(source)?;
        if kinds.iter().any(|(kind, _)| *kind == Counted::Mapping) {
            self.give_up_mapping(source, pending)?;
        }
        let takes_people = kinds.iter().any(|(kind, _)| kind.gone().is_some());
        if takes_people {
            pending.commit.plans.push((source, PlanStep::GivenUp));
        }
        let run = self.stream_run(source, now)?;
        loop {
            let rows = self.writer.staged_after(source, false, &[], AT_ONCE)?;
            if rows.is_empty() {
                break;
            }
            let mut resolver =
                self.directory
                    .resolver(&mut self.writer, &mut pending.plan, now, run);
            for row in &rows {
                resolver
                    .discard(source, &row.key)
                    .map_err(super::apply::failed)?;
            }
            resolver.finish().map_err(super::apply::failed)?;
            self.commit(pending)?;
        }
        if let Some(track) = self.sources.get_mut(&source) {
            track.plan_open = false;
            track.given_up |= takes_people;
            tracing::info!(
                source = track.name,
                records = plan.records,
                "the plan is discarded"
            );
        }
        Ok(PlanAnswer::Done {
            source,
            records: plan.records,
            left: 0,
            changed: Vec::new(),
        })
    }
}

/// Of these records, those that are read again before anything is decided.
pub(super) fn asked_again(
    source: SourceId,
    rows: &[StagedRow],
    pending: &Pending,
) -> Vec<KeyBytes> {
    let asked = pending.plan.reread.iter().filter(|(s, _)| *s == source);
    let is_of_rows = |key: &&KeyBytes| rows.binary_search_by(|row| row.key.cmp(key)).is_ok();
    asked
        .map(|(_, key)| key)
        .filter(is_of_rows)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> LimitTrack {
        let limit = Limit {
            max_changes: 50,
            max_percent: 5.0,
            floor: 5,
        };
        LimitTrack::new(limit, 60 * MINUTE_US, vec![(10, 3), (70, 4)])
    }

    #[test]
    fn what_was_applied_counts_for_as_long_as_the_window() {
        let mut limit = limit();
        assert_eq!(limit.recent(70 * MINUTE_US), 7);
        assert_eq!(limit.recent(71 * MINUTE_US), 4);
        limit.add(71 * MINUTE_US, 2);
        limit.add(71 * MINUTE_US + 1, 2);
        limit.add(70 * MINUTE_US, 1);
        assert_eq!(limit.recent(130 * MINUTE_US), 9);
        assert_eq!(limit.recent(131 * MINUTE_US), 5);
        assert_eq!(limit.recent(132 * MINUTE_US), 0);
    }
}
