//! The one thread that applies everything: the directory's rules over the store.
//!
//! Work is taken in order, gathered while more of the same source is waiting (so a flood is
//! committed in large lots and a single change at once), and committed in one transaction
//! with its cursor. The store writes a lot on a thread of its own while the next one is
//! decided on here; a lot is closed when it is full, when nothing more waits, or when the
//! store has nothing to do. Sources are served in turn: their drivers wait for the one place in
//! the queue in the order in which they came, work of another source closes a lot, and while
//! several of them bring something, lots and batches are small. So what one brings waits for
//! one lot of another that is applied and one that is written, however much that has. Only behind the commit come the acknowledgement to the source,
//! the hand-over to the sinks and the answers to whoever waits. If the store cannot commit,
//! the engine ends and the daemon stops: nothing was acknowledged, so nothing is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use rollcall_contract::{Acknowledge, Cursor, Key};
use rollcall_core::id::SourceId;
use rollcall_core::plan::Counters;
use rollcall_core::state::KeyBytes;
use rollcall_store::{Commit, Committed, Flushing, Readers, StoreError, Writer};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;

use super::apply::Directory;
use super::approval::Approval;
use super::clock::now_us;
use super::due::{Alarm, DueBook};
use super::pending::{Answer, Pending};
use super::shared::SourceLive;
use super::track::{Ask, SourceTrack};
use super::work::{ResumePoint, Work};
use crate::delivery::hub::Hub;
use crate::observe::metrics::{OUTCOMES, outcome_of};
use crate::observe::names;
use crate::observe::notify::Notifier;

/// After so long without a change the store takes in its log and gives memory back.
const QUIET_US: i64 = 5_000_000;

/// Lots of a source are small for so long after another one has brought something.
const NEIGHBOURLY: Duration = Duration::from_secs(10);

/// So many pages of a scan are stored with one commit at most.
const PAGES_PER_LOT: usize = 4;

/// So long a related row that was deleted leaves a trace: no page that was read before is
/// still on its way.
const TRACES_US: i64 = 3_600_000_000;

/// So often is looked for history that may go.
const HISTORY_US: i64 = 60_000_000;

/// How long what is over is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Delivered events stay for so long, microseconds.
    pub keep_us: i64,
    /// … unless the outbox is larger than this.
    pub max_bytes: u64,
    /// Runs that ended, and gaps and conflicts that were closed, stay for so long,
    /// microseconds.
    pub keep_history_us: i64,
}

/// The engine.
pub struct Engine {
    pub(super) writer: Writer,
    pub(super) readers: Readers,
    pub(super) directory: Directory,
    pub(super) sources: HashMap<SourceId, SourceTrack>,
    hub: Arc<Hub>,
    retention: Retention,
    /// When to look for history that may go.
    history_due_us: i64,
    pub(super) due: DueBook,
    /// Names of all configured sinks: the outbox is trimmed behind the slowest of them.
    sinks: HashMap<String, u64>,
    /// What an event took in the last large block, to make room for the next one.
    pub(super) event_bytes: usize,
    /// Told when something needs a person.
    pub(super) notifier: Option<Notifier>,
    /// The engine's own queue, to be told when the store has nothing to do.
    queue: mpsc::WeakSender<Work>,
    /// Plans that are being applied.
    pub(super) approvals: VecDeque<Approval>,
    /// Whether there may be users who are still to be told that a key leads to somebody else.
    pub(super) relinks: bool,
    /// The source whose records were told of a related row last.
    pub(super) told_last: Option<SourceId>,
    flushing: Flushing,
}

/// A block of fewer events grows as it likes.
const LARGE_BLOCK: usize = 100;

impl Engine {
    /// An engine over an open store.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        writer: Writer,
        readers: Readers,
        directory: Directory,
        sources: HashMap<SourceId, SourceTrack>,
        hub: Arc<Hub>,
        retention: Retention,
        sinks: HashMap<String, u64>,
        queue: mpsc::WeakSender<Work>,
    ) -> Engine {
        Engine {
            due: DueBook::new(&directory.leavers()),
            flushing: writer.flushing(),
            writer,
            readers,
            directory,
            sources,
            hub,
            retention,
            history_due_us: 0,
            sinks,
            event_bytes: 0,
            notifier: None,
            queue,
            approvals: VecDeque::new(),
            relinks: true,
            told_last: None,
        }
    }

    /// Has somebody told when something needs a person.
    pub fn with_notifier(self, notifier: Option<Notifier>) -> Engine {
        Engine { notifier, ..self }
    }

    /// Rings when something is due: the engine is to be told by [`Work::Due`].
    pub fn alarm(&self) -> Alarm {
        self.due.alarm()
    }

    /// Works until told to stop, or until the store fails. Waits for work and for nothing else;
    /// what it does blocks, so it wants a thread of its own.
    ///
    /// # Errors
    /// The store's failure. Nothing that was not committed has been acknowledged.
    pub async fn run(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), StoreError> {
        self.resume_runs()?;
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(work) => Some(work),
                None if self.has_approved() || self.relinks || self.has_fanouts() => {
                    match work.try_recv() {
                        Ok(work) => Some(work),
                        Err(TryRecvError::Empty) => None,
                        Err(TryRecvError::Disconnected) => break,
                    }
                }
                None => match work.recv().await {
                    Some(work) => Some(work),
                    None => break,
                },
            };
            match first {
                Some(Work::Stop) => break,
                Some(first) => next = self.take_lot(first, &mut work)?,
                None => {}
            }
            // A plan of any size takes turns with everything else.
            self.apply_some_approved()?;
            self.tell_some_relinked()?;
            // So does what is told of a related row.
            if self.has_fanouts() {
                self.fan_out_some()?;
            }
        }
        self.close()
    }

    /// Applies one lot; gives work that was taken from the queue and belongs to the next.
    fn take_lot(
        &mut self,
        first: Work,
        queue: &mut mpsc::Receiver<Work>,
    ) -> Result<Option<Work>, StoreError> {
        if matches!(first, Work::Written) {
            self.writer.settle()?;
            return Ok(None);
        }
        let mut pending = Pending::in_plan(self.writer.plan());
        let mut work = first;
        loop {
            let source = work.joins().filter(|_| !self.is_for_approval(&work));
            if matches!(work, Work::Written) {
                // The store has nothing to do: it is given what there is.
                break;
            }
            if source.is_none() {
                // Questions and changes of state stand alone, behind everything before them.
                if !pending.is_empty() {
                    self.decide_lot(&mut pending)?;
                    self.commit(&mut pending)?;
                }
                self.writer.settle()?;
                self.handle(work, &mut pending)?;
                self.commit(&mut pending)?;
                return Ok(None);
            }
            let in_scan = work.in_scan();
            let is_other = pending.source != source
                || in_scan.is_some_and(|scan| pending.in_scan.is_some_and(|s| s != scan));
            if pending.source.is_some() && is_other {
                self.commit_lot(&mut pending)?;
                return Ok(Some(work));
            }
            if let Some(source) = source.filter(|_| pending.source.is_none()) {
                self.look_at_plan(source)?;
            }
            pending.source = source;
            pending.in_scan = in_scan.or(pending.in_scan);
            self.handle(work, &mut pending)?;
            if source.is_some_and(|s| self.is_lot_full(s, &pending)) {
                break;
            }
            match queue.try_recv() {
                Ok(more) if matches!(more, Work::Stop) => {
                    self.decide_lot(&mut pending)?;
                    self.commit(&mut pending)?;
                    return Ok(Some(more));
                }
                Ok(more) => work = more,
                Err(_) => break,
            }
        }
        self.commit_lot(&mut pending)?;
        Ok(None)
    }

    /// Whether another source than this one has brought something.
    pub(super) fn is_shared(&self, source: SourceId) -> bool {
        let now = Instant::now();
        let is_recent = |t: &SourceTrack| {
            let ago = t.worked.map(|at| now.saturating_duration_since(at));
            ago.is_some_and(|ago| ago < NEIGHBOURLY)
        };
        let mut others = self.sources.iter().filter(|(id, _)| **id != source);
        others.any(|(_, track)| is_recent(track))
    }

    /// Whether a lot of a source takes no more.
    fn is_lot_full(&mut self, source: SourceId, pending: &Pending) -> bool {
        let now = Instant::now();
        let is_shared = self.is_shared(source);
        let Some(track) = self.sources.get_mut(&source) else {
            return true;
        };
        let pages = pending.commit.seen.len();
        if pending.changes > 0 || pages > 0 {
            track.worked = Some(now);
        }
        track.live.beside_others.store(is_shared, Ordering::Relaxed);
        self.flushing.keep_small(is_shared);
        if let Some(acknowledge) = &track.acknowledge {
            acknowledge.keep_small(is_shared.then(|| track.small()));
        }
        let (limit, at_most) = match is_shared {
            true => (track.lot.beside_others(), 1),
            false => (track.lot, PAGES_PER_LOT),
        };
        limit.is_full(pending.changes, pending.bytes) || pages >= at_most
    }

    fn handle(&mut self, work: Work, pending: &mut Pending) -> Result<(), StoreError> {
        match self.joined(work, pending)? {
            Work::Resume { source, reply } => {
                let row = self
                    .readers
                    .sources()?
                    .into_iter()
                    .find(|s| s.id == source)
                    .and_then(|s| s.resume);
                let repairs = self.readers.repairs(source)?;
                // A driver that is gone asks again when it is back.
                let _ = reply.send(ResumePoint {
                    cursor: row,
                    repairs,
                });
            }
            Work::Opened(opened) => self.opened(opened, pending)?,
            Work::Changes(mut changes) => {
                pending.turn = changes.turn.take();
                self.apply_changes(&changes, pending)?;
                if self.may_trip(changes.source) {
                    pending.lot.push(Work::Changes(changes));
                }
            }
            Work::Progress { source, cursor } => {
                pending.progress(source, cursor.clone());
                if !pending.lot.is_empty() {
                    pending.lot.push(Work::Progress { source, cursor });
                }
            }
            Work::Gap { source, gap } => self.gap_found(source, gap, pending)?,
            Work::Schema {
                source,
                schema,
                reply,
            } => {
                let known = self.schema_versions(source, &schema, pending)?;
                pending.then(move || {
                    let _ = reply.send(known);
                });
            }
            Work::Mapper {
                source,
                mapper,
                joining,
                reply,
            } => {
                let is_retyped = self.set_join(source, joining, pending)?;
                let scan_due = is_retyped | self.mapper_set(source, mapper, pending)?;
                self.resume_plan(source, pending)?;
                pending.then(move || {
                    let _ = reply.send(scan_due);
                });
            }
            Work::Duplicates { source, keys } => self.scan_duplicates(source, keys),
            Work::Ordered {
                source,
                cause,
                reply,
            } => {
                let cause = cause.as_str().to_owned();
                pending.commit.ordered.push((source, Some(cause)));
                pending.then(move || {
                    // Whoever asked may be gone.
                    let _ = reply.send(());
                });
            }
            Work::Obeyed { source } => pending.commit.ordered.push((source, None)),
            Work::ScanBegin {
                source,
                cause,
                obeys,
                reply,
            } => {
                if obeys {
                    pending.commit.ordered.push((source, None));
                }
                let place = self.scan_begin(source, cause, pending)?;
                pending.then(move || {
                    let _ = reply.send(place);
                });
            }
            Work::Polling {
                source,
                lineage,
                poll,
                reply,
            } => {
                self.polling(source, lineage, poll, pending)?;
                pending.then(move || {
                    // A driver that is gone asks again when it is back.
                    let _ = reply.send(());
                });
            }
            Work::PollEnd { reply } => {
                let _ = reply.send(());
            }
            Work::Page(page) if self.is_for_approval_of(&page) => {
                self.apply_read_again(&page, pending)?;
            }
            Work::Page(page) => {
                self.apply_page(&page, pending)?;
                if !page.page.is_of_scan() && self.may_trip(page.source) {
                    pending.lot.push(Work::Page(page));
                }
            }
            Work::Keys { page, cause, ended } => {
                let run = self.sync_keys(page, cause, pending)?;
                pending.then(move || {
                    // Who asked may be gone.
                    let _ = ended.send(Ok(run));
                });
            }
            Work::ScanMissing { source, reply } => {
                // A driver that is gone asks again when it is back.
                let _ = reply.send(self.scan_missing(source)?);
            }
            Work::ScanEnd { source, reply } => {
                self.scan_end(source, pending)?;
                pending.then(move || {
                    let _ = reply.send(());
                });
            }
            Work::RelatedPage(page) => self.apply_related_page(&page, pending)?,
            Work::RelatedMissing {
                source,
                table,
                reply,
            } => {
                // A driver that is gone asks again when it is back.
                let _ = reply.send(self.related_missing(source, table)?);
            }
            Work::RelatedEnd {
                source,
                table,
                reply,
            } => {
                self.related_ended(source, table, pending);
                pending.then(move || {
                    let _ = reply.send(());
                });
            }
            Work::Planned(work) => self.apply_planned(work, pending)?,
            Work::Proof(work) => self.proof_went_on(work, pending)?,
            Work::State {
                source,
                state,
                reason,
            } => self.state_changed(source, state, reason, pending)?,
            Work::Delivered {
                sink,
                position,
                refused,
            } => self.delivered(sink, position, refused, pending)?,
            Work::StoreRestored { sink, position } => {
                self.store_restored(&sink, position, pending)?
            }
            Work::Plan { hash, word, reply } => {
                self.plan_word(hash, word, reply, pending)?;
            }
            Work::Edit(work) => {
                let edited = self.edit(&work, pending)?;
                pending.then(move || {
                    // Who asked may be gone.
                    let _ = work.reply.send(edited);
                });
            }
            Work::Undo(work) => self.apply_undo(work, pending)?,
            Work::Resolve(work) => {
                let word = self.resolve(&work, pending)?;
                pending.then(move || {
                    // Who asked may be gone.
                    let _ = work.reply.send(word);
                });
            }
            Work::Upkeep => self.upkeep(pending)?,
            Work::Due => self.fall_due(pending)?,
            Work::Settle { reply } => {
                self.end_all_runs(pending, now_us());
                pending.then(move || {
                    let _ = reply.send(());
                });
            }
            // The first is joined before; the second is kept with the lot that it is in.
            Work::Unjoined(_) | Work::Told(_) => {}
            Work::Written | Work::Stop => {}
        }
        Ok(())
    }

    /// Commits what is pending, and waits for it.
    pub(super) fn commit(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let Some((mut commit, after)) = self.prepare(pending)? else {
            return Ok(());
        };
        let mut committed = self.writer.commit(&mut commit)?;
        for (id, gap) in committed.gaps.drain(..).zip(&after.gap_sources) {
            if let Some(track) = self.sources.get_mut(gap) {
                track.open_gaps.push(id);
            }
        }
        after.tell(committed);
        Ok(())
    }

    /// Commits a lot, and goes on meanwhile.
    fn commit_lot(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let _turn = pending.turn.take();
        self.decide_lot(pending)?;
        let Some((commit, after)) = self.prepare(pending)? else {
            return Ok(());
        };
        let engine = self.queue.clone();
        self.writer.commit_behind(commit, move |committed| {
            if let Some(committed) = committed {
                after.tell(committed);
            }
            if let Some(engine) = engine.upgrade() {
                // An engine that has other work looks by itself.
                let _ = engine.try_send(Work::Written);
            }
        })
    }

    /// What is to be committed, and what comes behind it; nothing when there is nothing to
    /// store.
    fn prepare(&mut self, pending: &mut Pending) -> Result<Option<(Commit, After)>, StoreError> {
        let mut done = std::mem::take(pending);
        if !done.has_effects() {
            self.writer.release()?;
            done.run_answers();
            return Ok(None);
        }
        let now = now_us();
        self.count_changes(&mut done, now);
        self.roll_runs(&mut done, now);
        let events = &done.plan.events;
        if events.len() >= LARGE_BLOCK {
            self.event_bytes = events.as_bytes().len() / events.len() + 16;
        }
        self.due.stored(&done.plan.due);
        self.relinks |= done.plan.relinked.values().any(Option::is_some);
        let rereads = std::mem::take(&mut done.plan.reread);
        for track in self.sources.values_mut() {
            if let Some(related) = &mut track.related {
                related.written(&done.commit.related);
            }
        }
        let after = After::of(self, &mut done, &rereads, now);
        let mut commit = done.commit;
        commit.now_us = now;
        commit.plan = done.plan;
        commit.plan.reread = rereads;
        Ok(Some((commit, after)))
    }

    fn delivered(
        &mut self,
        sink: String,
        position: u64,
        refused: Vec<rollcall_contract::Refused>,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let now = now_us();
        for r in refused {
            pending.commit.parked.push(rollcall_store::ParkedRow {
                sink: sink.clone(),
                position: rollcall_store::Position(r.sequence),
                sequence: None,
                reason: r.reason.to_owned(),
                detail: r.detail,
                parked_us: now,
            });
        }
        if self.sinks.insert(sink.clone(), position) != Some(position)
            || !pending.commit.parked.is_empty()
        {
            pending.commit.sinks.push(rollcall_store::SinkRow {
                name: sink,
                delivered: rollcall_store::Position(position),
                state: "delivering".to_owned(),
                reason: None,
            });
        }
        Ok(())
    }

    fn upkeep(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let now = now_us();
        // Without sinks nobody waits for the outbox but the retention.
        let delivered = self.sinks.values().min().copied().unwrap_or(u64::MAX);
        self.writer.trim_outbox(
            rollcall_store::Position(delivered),
            now - self.retention.keep_us,
            self.retention.max_bytes,
        )?;
        if now >= self.history_due_us {
            let forgotten = self
                .writer
                .forget_history(now - self.retention.keep_history_us)?
                + self.writer.forget_related(now - TRACES_US)?;
            // In small lots; nobody waits for the rest.
            self.history_due_us = if forgotten > 0 { now } else { now + HISTORY_US };
        }
        self.end_long_runs(pending, now);
        if self.is_quiet(now) {
            self.writer.rest()?;
        }
        Ok(())
    }

    /// Whether no source has brought a change for a while.
    fn is_quiet(&self, now: i64) -> bool {
        self.sources.values().all(|t| {
            t.scan.is_none() && now - t.live.last_commit_us.load(Ordering::Relaxed) > QUIET_US
        })
    }

    fn close(mut self) -> Result<(), StoreError> {
        let mut pending = Pending::default();
        self.end_all_runs(&mut pending, now_us());
        self.commit(&mut pending)?;
        self.writer.close()
    }
}

/// What comes behind a commit, wherever that is written: nothing of it may come before.
struct After {
    hub: Arc<Hub>,
    moved: Option<Moved>,
    /// Sources of the gaps that are opened, in their order.
    gap_sources: Vec<SourceId>,
    told: Option<Told>,
    rereads: Vec<(mpsc::UnboundedSender<Ask>, Vec<Key>)>,
    answers: Vec<Answer>,
    began: Instant,
    now: i64,
}

/// The log of a source is taken in to here.
struct Moved {
    cursor: Cursor,
    acknowledge: Option<Arc<dyn Acknowledge>>,
    live: Arc<SourceLive>,
}

/// What the metrics are told of a lot.
struct Told {
    source: String,
    live: Arc<SourceLive>,
    queued_bytes: u64,
    oldest_commit_us: Option<i64>,
    newest_commit_us: Option<i64>,
    counted: Counters,
}

impl After {
    fn of(
        engine: &Engine,
        done: &mut Pending,
        rereads: &[(SourceId, KeyBytes)],
        now: i64,
    ) -> After {
        let moved = done.commit.progress.as_ref().and_then(|p| {
            let track = engine.sources.get(&p.source)?;
            Some(Moved {
                cursor: p.cursor.clone(),
                acknowledge: track.acknowledge.clone(),
                live: Arc::clone(&track.live),
            })
        });
        let told = done.source.and_then(|source| {
            let track = engine.sources.get(&source)?;
            Some(Told {
                source: track.name.clone(),
                live: Arc::clone(&track.live),
                queued_bytes: done.queued_bytes,
                oldest_commit_us: done.oldest_commit_us,
                newest_commit_us: done.newest_commit_us,
                counted: done.counted,
            })
        });
        let mut asks: Vec<(mpsc::UnboundedSender<Ask>, Vec<Key>)> = Vec::new();
        for same in rereads.chunk_by(|a, b| a.0 == b.0) {
            if let Some(track) = same.first().and_then(|(s, _)| engine.sources.get(s)) {
                let keys = same.iter().filter_map(|(_, key)| Key::from_bytes(key));
                asks.push((track.asks.clone(), keys.collect()));
            }
        }
        After {
            hub: Arc::clone(&engine.hub),
            moved,
            gap_sources: std::mem::take(&mut done.gap_sources),
            told,
            rereads: asks,
            answers: done.take_answers(),
            began: Instant::now(),
            now,
        }
    }

    fn tell(self, committed: Committed) {
        metrics::histogram!(names::STORE_COMMIT).record(self.began.elapsed().as_secs_f64());
        if let Some(block) = committed.block {
            self.hub.publish(block);
        }
        if let Some(moved) = self.moved {
            if let Some(acknowledge) = moved.acknowledge {
                acknowledge.acknowledge(&moved.cursor);
            }
            moved.live.set_position(moved.cursor.text());
        }
        if let Some(told) = self.told {
            told.tell(self.now);
        }
        for (asks, keys) in self.rereads {
            // A driver that is gone finds the records in the store when it is back.
            let _ = asks.send(Ask::Reread(keys));
        }
        for answer in self.answers {
            answer();
        }
    }
}

impl Told {
    fn tell(self, now: i64) {
        let live = &self.live;
        live.queued_bytes
            .fetch_sub(self.queued_bytes, Ordering::Relaxed);
        if let Some(oldest) = self.oldest_commit_us {
            metrics::histogram!(names::COMMIT_TO_STORE, "source" => self.source.clone())
                .record((now - oldest).max(0) as f64 / 1e6);
        }
        if let Some(newest) = self.newest_commit_us {
            live.last_commit_us.store(newest, Ordering::Relaxed);
        }
        let c = &self.counted;
        let applied = [
            c.created,
            c.updated,
            c.suspected,
            c.deactivated,
            c.deleted,
            c.activated,
            c.unchanged,
        ];
        for (outcome, n) in OUTCOMES.into_iter().zip(applied) {
            if n > 0 {
                metrics::counter!(names::CHANGES, "source" => self.source.clone(), "outcome" => outcome)
                    .increment(n);
            }
        }
        for (reason, n) in c.reasons.iter() {
            metrics::counter!(names::CHANGES, "source" => self.source.clone(), "outcome" => outcome_of(reason), "reason" => reason.as_str())
                .increment(n);
        }
    }
}
