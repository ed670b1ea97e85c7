//! The one writer.
//!
//! It has two halves. A thread ([`crate::scribe`]) owns the connection that writes; this one
//! owns a connection that reads, and the small state that mirrors the database (counts, the
//! values that wait to be sorted in, the filter of values). A commit may be given to the
//! thread and left to it ([`Writer::commit_behind`]) while the next batch is decided on
//! here. Why that is the same as doing one after the other:
//!
//! * At most one commit is under way. Its plan is laid over whatever is read meanwhile, and a
//!   plan holds final states, so it makes no difference whether a reading sees the database
//!   before or behind that commit.
//! * The mirrored state follows a commit only when no reading is open that began before it
//!   ended ([`Writer::settle`]): a value that a commit has moved from the journal to the
//!   table is found in at least one of them by every reading.
//! * When a commit fails, the next call says so, and nothing decided on top of it is stored.
//!
//! After a failure that leaves the disk in doubt nothing is written any more: see
//! [`crate::StoreError`].
//!
//! What dies with the process at any moment: before the log's flush, the whole
//! transaction; after it, nothing. Numbers handed out for users and runs of a transaction
//! that died were never stored, so handing them out again is harmless.

mod state;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashSet;
use rollcall_contract::Key;
use rollcall_core::attribute::{AttrId, AttrType, FIRST_CUSTOM};
use rollcall_core::conflict::Fingerprint;
use rollcall_core::event::EventBlock;
use rollcall_core::id::{RunId, SourceId, UserId, UserRow, ValueHash};
use rollcall_core::plan::Plan;
use rollcall_core::state::{KeyBytes, LinkTarget};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use uuid::Uuid;

use crate::apply::{self, Writing};
use crate::commit::{Commit, Committed};
use crate::counts::Counts;
use crate::error::StoreError;
use crate::filter::ValueFilter;
use crate::glance;
use crate::lock::InstanceLock;
use crate::match_delta::{MatchDelta, Step};
use crate::memory::BlockMemory;
use crate::open::{OpenOptions, connect_state};
use crate::outbox::OutboxBlock;
use crate::preload::Preloaded;
use crate::query;
use crate::references;
use crate::scribe::{Answer, Core, Flushing, Scribe};

/// The store, for its one writer. Owned by one thread.
pub struct Writer {
    scribe: Scribe,
    /// Reads only.
    connection: Connection,
    directory: PathBuf,
    identity: Identity,
    /// As of the last commit that was settled.
    counts: Counts,
    next_user: i64,
    next_run: u64,
    delta: MatchDelta,
    filter: ValueFilter,
    /// The conflicts that are open: asked of for every new record, and nearly never there.
    open: HashSet<Fingerprint>,
    preloaded: Preloaded,
    under_way: Option<UnderWay>,
    /// The plan that may not be in what was read: of the commit under way, or of one that
    /// ended since the reading began.
    overlay: Option<Arc<Plan>>,
    spare: Option<Plan>,
    memory: BlockMemory,
    poisoned: Option<String>,
    /// Released last.
    _lock: InstanceLock,
}

/// A commit that the thread was given.
struct UnderWay {
    answer: Answer<Result<Written, StoreError>>,
    changes: Changes,
}

/// What a commit does to the mirrored state.
struct Changes {
    values: Arc<Step>,
    /// Conflicts, and whether they are open.
    conflicts: Vec<(Fingerprint, bool)>,
}

/// What a commit leaves.
struct Written {
    counts: Counts,
    /// Whether the log is to be taken in to its end, or why it could not be taken in ahead.
    is_log_due: Result<bool, StoreError>,
}

/// Which store this is, and how often it was opened: a sink that has seen a higher
/// generation of the same store has seen a later state than this one, which was restored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// Made once, with the store.
    pub store: Uuid,
    /// The organization that it belongs to.
    pub organization: String,
    /// 1 at the first start, and one more with each.
    pub generation: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("directory", &self.directory)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Takes over a connection whose file has been looked at and migrated.
    pub(crate) fn start(
        mut connection: Connection,
        lock: InstanceLock,
        directory: PathBuf,
        options: &OpenOptions,
        memory: BlockMemory,
    ) -> Result<Writer, StoreError> {
        let identity = begin_generation(&mut connection, &options.organization)?;
        let mut counts = Counts::load(&connection)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        counts.count_links(&tx)?;
        tx.commit()?;
        let waiting: i64 =
            connection.query_row("SELECT COUNT(*) FROM waiting", [], |row| row.get(0))?;
        counts.waiting = waiting.unsigned_abs();
        counts.references = references::count(&connection)?;
        let delta = MatchDelta::load(&connection, options.match_delta_entries)?;
        let filter = ValueFilter::load(&connection, delta.hashes())?;
        let open = query::open_conflicts(&connection)?;
        let reading = connect_state(&directory)?;
        let core = Core::new(connection, counts.clone(), options.checkpoint_bytes)?;
        Ok(Writer {
            scribe: match &options.desk {
                Some(desk) => Scribe::at(desk.clone(), core),
                None => Scribe::start(core, &directory)?,
            },
            connection: reading,
            directory,
            identity,
            next_user: counts.next_user,
            next_run: counts.next_run,
            counts,
            delta,
            filter,
            open,
            preloaded: Preloaded::default(),
            under_way: None,
            overlay: None,
            spare: None,
            memory,
            poisoned: None,
            _lock: lock,
        })
    }

    /// Which store this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The directory that it lies in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is counted, as of the last commit that this half knows to have ended.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A number for a new run. Handed out once.
    pub fn allocate_run(&mut self) -> RunId {
        let id = self.next_run;
        self.next_run += 1;
        RunId(id)
    }

    /// The id of the user that was made last, if there is any: each id is greater than all
    /// before it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_user_id(&mut self) -> Result<Option<UserId>, StoreError> {
        self.settle()?;
        let outcome = query::last_user_id(&self.connection);
        self.guard(outcome)
    }

    /// An empty plan, with the memory of one that was stored.
    pub fn plan(&mut self) -> Plan {
        let mut plan = self.spare.take().unwrap_or_default();
        plan.events = EventBlock::in_memory(self.memory.take());
        plan
    }

    /// Reads what a batch of changes is going to ask about these records: their links and
    /// the documents of their users.
    pub fn preload<'k>(
        &mut self,
        source: SourceId,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<(), StoreError> {
        self.read_as_one()?;
        let keys = keys.into_iter().collect();
        let outcome = self.preloaded.load_links(&self.connection, source, keys);
        self.guard(outcome)
    }

    /// Reads what a batch is going to ask about these values.
    pub fn preload_owners(
        &mut self,
        hashes: impl IntoIterator<Item = ValueHash>,
    ) -> Result<(), StoreError> {
        self.read_as_one()?;
        let known = hashes.into_iter().filter(|h| self.filter.may_have(*h));
        let known = known.collect();
        let outcome = self
            .preloaded
            .load_owners(&self.connection, &self.delta, known);
        self.guard(outcome)
    }

    /// Shows what is stored of records that lead to users: the index in `keys`, the user and
    /// its document. What the commit under way has changed is not shown. Nothing is kept, so
    /// this suits records of which most are looked at once.
    pub fn glance(
        &mut self,
        source: SourceId,
        keys: &[&[u8]],
        mut show: impl FnMut(usize, UserRow, &[u8]),
    ) -> Result<(), StoreError> {
        self.read_as_one()?;
        let plan = self.overlay.as_deref();
        let has_changed = |at: usize, row| {
            plan.is_some_and(|plan| {
                let record = || (source, KeyBytes::from_slice(keys[at]));
                plan.users.get(row).is_some()
                    || !plan.links.is_empty() && plan.links.contains_key(&record())
            })
        };
        let outcome = glance::documents(&self.connection, source, keys, |at, row, document| {
            if !has_changed(at, row) {
                show(at, row, document);
            }
        });
        self.guard(outcome)
    }

    /// Stores everything or nothing, and waits for it. Takes what was stored out of
    /// `commit`; after a failure it is as it was.
    ///
    /// # Errors
    /// After [`StoreError::DiskFull`] the store is as it was and the same commit may be
    /// tried again. After [`StoreError::Damaged`] and [`StoreError::Poisoned`] nothing is
    /// written any more.
    pub fn commit(&mut self, commit: &mut Commit) -> Result<Committed, StoreError> {
        self.refuse_if_poisoned()?;
        self.settle()?;
        let (next_user, next_run) = (self.next_user, self.next_run);
        let (writing, changes) = self.take_apart(std::mem::take(commit));
        let memory = self.memory.clone();
        let answer = self.scribe.give(move |core| {
            Ok(match write(core, writing, next_user, next_run, &memory) {
                Ok((committed, written, plan)) => Ok((committed, written, plan)),
                Err((e, commit)) => Err((core.clean_up(e), commit)),
            })
        });
        let outcome = answer.wait().flatten();
        match self.guard(outcome)? {
            Ok((committed, written, plan)) => {
                self.follow(changes, written)?;
                self.keep(plan);
                Ok(committed)
            }
            Err((e, back)) => {
                *commit = *back;
                self.guard(Err(e))
            }
        }
    }

    /// As [`Writer::commit`], but goes on while the thread writes. `then` is called there,
    /// as soon as everything is durable, or with nothing when the commit has failed. Waits
    /// for the commit before it, if that is still under way.
    ///
    /// # Errors
    /// The failure of the commit before. That of this one is the next call's.
    pub fn commit_behind(
        &mut self,
        commit: Commit,
        then: impl FnOnce(Option<Committed>) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        self.settle()?;
        let (next_user, next_run) = (self.next_user, self.next_run);
        let (writing, changes) = self.take_apart(commit);
        self.overlay = Some(Arc::clone(&writing.plan));
        let memory = self.memory.clone();
        let answer = self.scribe.give(move |core| {
            match write(core, writing, next_user, next_run, &memory) {
                Ok((committed, written, _)) => {
                    then(Some(committed));
                    Ok(written)
                }
                Err((e, _)) => {
                    then(None);
                    Err(e)
                }
            }
        });
        self.under_way = Some(UnderWay { answer, changes });
        Ok(())
    }

    /// Waits for the commit that is under way, and forgets what was read before it ended.
    ///
    /// # Errors
    /// Its failure.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.release()?;
        if let Some(UnderWay { answer, changes }) = self.under_way.take() {
            let written = self.guard(answer.wait().flatten())?;
            self.follow(changes, written)?;
        }
        if let Some(plan) = self.overlay.take().and_then(Arc::into_inner) {
            self.keep(plan);
        }
        Ok(())
    }

    /// How what the log has brought is written to the database.
    pub fn flushing(&self) -> Flushing {
        self.scribe.flushing()
    }

    /// Follows what was committed. No reading is open.
    fn follow(&mut self, changes: Changes, written: Written) -> Result<(), StoreError> {
        self.counts = written.counts;
        for (fingerprint, is_open) in changes.conflicts {
            if is_open {
                self.open.insert(fingerprint);
            } else {
                self.open.remove(&fingerprint);
            }
        }
        for hash in changes.values.gained() {
            self.filter.add(hash);
        }
        self.delta.settle(&changes.values);
        if self.filter.is_crowded() {
            let outcome = ValueFilter::load(&self.connection, self.delta.hashes());
            self.filter = self.guard(outcome)?;
        }
        // Nothing is read here meanwhile, so the log can be begun anew behind it.
        let taken_in = match self.guard(written.is_log_due) {
            Ok(true) => self.call(|core| core.checkpoint("PASSIVE")),
            Ok(false) => Ok(()),
            Err(e) => Err(e),
        };
        // What was committed stays committed, whatever becomes of this.
        if let Err(e) = taken_in {
            tracing::warn!(
                code = e.code(),
                "the store's log could not be taken in: {e}"
            );
        }
        Ok(())
    }

    fn keep(&mut self, mut plan: Plan) {
        plan.clear();
        self.spare = Some(plan);
    }

    fn take_apart(&mut self, mut commit: Commit) -> (Writing, Changes) {
        let mut plan = std::mem::take(&mut commit.plan);
        let events = std::mem::take(&mut plan.events);
        let changes = Changes {
            values: Arc::new(self.delta.plan(apply::match_changes(&plan))),
            conflicts: plan
                .conflicts
                .iter()
                .map(|(fingerprint, conflict)| (*fingerprint, conflict.closed_us.is_none()))
                .collect(),
        };
        let writing = Writing {
            commit,
            plan: Arc::new(plan),
            events,
            values: Arc::clone(&changes.values),
        };
        (writing, changes)
    }

    /// Lets the thread do something and waits for it. Nothing else is under way then.
    fn call<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.refuse_if_poisoned()?;
        self.settle()?;
        let outcome = self.scribe.give(job).wait().flatten();
        self.guard(outcome)
    }

    /// As [`Writer::call`], in a transaction of its own.
    pub(crate) fn transact<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(|core| {
            core.connection.execute_batch("BEGIN IMMEDIATE")?;
            let outcome = change(&core.connection)?;
            core.connection.execute_batch("COMMIT")?;
            Ok(outcome)
        })
    }

    /// Changes the counts in a transaction of its own.
    fn recount<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&Connection, &mut Counts) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (outcome, counts) = self.call(|core| {
            let mut counts = core.counts.clone();
            core.connection.execute_batch("BEGIN IMMEDIATE")?;
            let outcome = change(&core.connection, &mut counts)?;
            counts.save(&core.connection, &core.counts)?;
            core.connection.execute_batch("COMMIT")?;
            core.counts = counts.clone();
            Ok((outcome, counts))
        })?;
        self.counts = counts;
        Ok(outcome)
    }

    /// The number of a source, making it known if it is new. A name keeps its number for
    /// ever.
    pub fn source(&mut self, name: &str, now_us: i64) -> Result<SourceId, StoreError> {
        let name = name.to_owned();
        self.transact(move |c| {
            let known: Option<u16> = c
                .query_row("SELECT id FROM source WHERE name = ?1", [&name], |r| {
                    r.get(0)
                })
                .optional()?;
            if let Some(id) = known {
                return Ok(SourceId(id));
            }
            let next: i64 =
                c.query_row("SELECT COALESCE(MAX(id), 0) + 1 FROM source", [], |r| {
                    r.get(0)
                })?;
            let id = u16::try_from(next).map_err(|_| {
                StoreError::Refused("a store holds at most 65,535 sources".to_owned())
            })?;
            c.execute(
                "INSERT INTO source(id, name, state, state_us) VALUES(?1, ?2, 'new', ?3)",
                (id, &name, now_us),
            )?;
            Ok(SourceId(id))
        })
    }

    /// The numbers of custom attributes (names without the prefix `custom.`), making known
    /// those that are new. A name keeps its number and its type for ever, because documents
    /// hold values under the number.
    pub fn custom_attributes(
        &mut self,
        wanted: &[(String, AttrType)],
    ) -> Result<Vec<(AttrId, String, AttrType)>, StoreError> {
        let wanted = wanted.to_vec();
        self.transact(move |c| {
            wanted
                .into_iter()
                .map(|(name, kind)| Ok((custom_attribute(c, &name, kind)?, name, kind)))
                .collect()
        })
    }

    /// Shows the links of a source in the order of their keys, from behind a key on, at most
    /// `limit` of them; gives the last key when there may be more. As of the last commit.
    pub fn links_after(
        &mut self,
        source: SourceId,
        after: Option<&Key>,
        limit: usize,
        show: impl FnMut(&[u8], LinkTarget),
    ) -> Result<Option<Key>, StoreError> {
        self.asked(|connection| query::show_links_after(connection, source, after, limit, show))
    }

    /// Asks what was committed last.
    pub(crate) fn asked<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.settle()?;
        let outcome = question(&self.connection);
        self.guard(outcome)
    }

    /// Asks without waiting for the commit under way, which may have been read or not.
    pub(crate) fn glanced<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.read_as_one()?;
        let outcome = question(&self.connection);
        self.guard(outcome)
    }

    /// Reads what follows as one committed state, which saves a lock for each question.
    fn read_as_one(&mut self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            if self.under_way.as_ref().is_some_and(|u| u.answer.has_come()) {
                self.settle()?;
            }
            self.connection.execute_batch("BEGIN")?;
        }
        Ok(())
    }

    /// Ends what [`Writer::preload`] began: an open reading keeps the log from being taken
    /// in.
    ///
    /// # Errors
    /// When SQLite cannot end it.
    pub fn release(&mut self) -> Result<(), StoreError> {
        self.preloaded.clear();
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// Ends in order: the log is taken in whole and emptied, then the lock is released.
    /// Dropping the writer instead loses nothing, the next start only takes longer.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.call(|core| core.checkpoint("TRUNCATE"))
    }

    /// As [`Writer::close`] takes the log in, but goes on.
    pub(crate) fn checkpoint_whole(&mut self) -> Result<(), StoreError> {
        self.call(|core| core.checkpoint("TRUNCATE"))
    }

    /// Why nothing is written any more, if that is so.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn refuse_if_poisoned(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(reason) => Err(StoreError::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Looks at an outcome for what must stop all writing.
    fn guard<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(e) = &outcome
            && e.poisons()
            && self.poisoned.is_none()
        {
            self.poisoned = Some(e.to_string());
        }
        outcome
    }
}

/// What a commit became, or why it did not and the commit as it was.
type Outcome = Result<(Committed, Written, Plan), (StoreError, Box<Commit>)>;

/// Writes a commit in one transaction.
fn write(
    core: &mut Core,
    writing: Writing,
    next_user: i64,
    next_run: u64,
    memory: &BlockMemory,
) -> Outcome {
    let mut counts = core.counts.clone();
    counts.next_user = next_user;
    counts.next_run = next_run;
    let (position, sequence) = (counts.next_position, counts.next_sequence);
    let mut transaction = || {
        core.connection.execute_batch("BEGIN IMMEDIATE")?;
        let gaps = apply::apply(
            &core.connection,
            &writing,
            &core.counts,
            &mut counts,
            &mut core.memory,
        )?;
        core.connection.execute_batch("COMMIT")?;
        Ok(gaps)
    };
    let gaps = match transaction() {
        Ok(gaps) => gaps,
        Err(e) => return Err((e, Box::new(writing.into_commit()))),
    };
    core.counts = counts.clone();
    let created_us = writing.commit.now_us;
    let events = writing.events;
    let (count, sequenced) = (events.len() as u64, u64::from(events.sequenced()));
    let bytes = memory.share(events.into_bytes());
    let block = (count > 0).then(|| {
        Arc::new(OutboxBlock {
            first_position: position,
            first_sequence: sequence,
            count,
            sequenced,
            created_us,
            bytes,
        })
    });
    let written = Written {
        counts,
        is_log_due: core.is_log_due(),
    };
    let plan = Arc::into_inner(writing.plan).unwrap_or_default();
    Ok((Committed { block, gaps }, written, plan))
}

fn custom_attribute(c: &Connection, name: &str, kind: AttrType) -> Result<AttrId, StoreError> {
    let text = query::attribute_kind_name(kind)?;
    let known: Option<(u16, String)> = c
        .query_row(
            "SELECT id, kind FROM attribute WHERE name = ?1",
            [name],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .optional()?;
    match known {
        Some((id, stored)) if stored == text => Ok(AttrId(id)),
        Some((_, stored)) => Err(StoreError::Refused(format!(
            "custom.{name} is stored as {stored} and is now declared as {text}; give the new one another name"
        ))),
        None => {
            let next: i64 = c.query_row(
                "SELECT COALESCE(MAX(id) + 1, ?1) FROM attribute",
                [FIRST_CUSTOM],
                |r| r.get(0),
            )?;
            let id = u16::try_from(next)
                .map_err(|_| StoreError::Refused("too many custom attributes".to_owned()))?;
            c.execute(
                "INSERT INTO attribute(id, name, kind) VALUES(?1, ?2, ?3)",
                (id, name, &text),
            )?;
            Ok(AttrId(id))
        }
    }
}

fn begin_generation(
    connection: &mut Connection,
    organization: &str,
) -> Result<Identity, StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let generation = match query::identity(&tx)? {
        Some(before) => before.generation + 1,
        None => {
            tx.execute(
                "INSERT INTO meta(name, value) VALUES('store', ?1), ('organization', ?2)",
                (Uuid::now_v7().to_string(), organization),
            )?;
            1
        }
    };
    tx.execute(
        "INSERT OR REPLACE INTO meta(name, value) VALUES('generation', ?1)",
        [generation.to_string()],
    )?;
    let identity = query::identity(&tx)?.ok_or_else(|| StoreError::Damaged {
        detail: "the store does not say which one it is".to_owned(),
    })?;
    tx.commit()?;
    Ok(identity)
}
