//! The one writer.
//!
//! It owns the only connection that writes, the instance lock, and the small state that
//! mirrors the database (counts, the waiting match keys). That state is replaced after a
//! transaction was committed and at no other time, so after any failure it is what the
//! database holds. After a failure that leaves the disk in doubt nothing is written any
//! more: see [`crate::StoreError`].
//!
//! What dies with the process at any moment: before the log's flush, the whole
//! transaction; after it, nothing. Numbers handed out for users and runs of a transaction
//! that died were never stored, so handing them out again is harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rollcall_contract::Key;
use rollcall_core::attribute::{AttrId, AttrType, FIRST_CUSTOM};
use rollcall_core::conflict::{ConflictRow, Fingerprint};
use rollcall_core::id::{MatchHash, RunId, SourceId, UserRow};
use rollcall_core::state::{KeyBytes, LinkTarget, State, StateError};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::apply;
use crate::commit::{Commit, Committed};
use crate::counts::Counts;
use crate::error::StoreError;
use crate::lock::InstanceLock;
use crate::match_delta::MatchDelta;
use crate::open::OpenOptions;
use crate::outbox::{self, OutboxBlock, Trimmed};
use crate::position::Position;
use crate::preload::{self, Preloaded};
use crate::query;

/// Bytes of a log frame: a page and its header.
const FRAME_BYTES: u64 = 4096 + 24;

/// The store, for its one writer. Owned by one thread.
pub struct Writer {
    connection: Connection,
    directory: PathBuf,
    options: OpenOptions,
    identity: Identity,
    counts: Counts,
    next_user: i64,
    next_run: u64,
    delta: MatchDelta,
    preloaded: Preloaded,
    log_frames: Arc<AtomicU64>,
    poisoned: Option<String>,
    /// Released last.
    _lock: InstanceLock,
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
        options: OpenOptions,
    ) -> Result<Writer, StoreError> {
        let identity = begin_generation(&mut connection, &options.organization)?;
        let mut counts = Counts::load(&connection)?;
        let waiting: i64 =
            connection.query_row("SELECT COUNT(*) FROM waiting", [], |row| row.get(0))?;
        counts.waiting = waiting.unsigned_abs();
        let delta = MatchDelta::load(&connection, options.match_delta_entries)?;
        let log_frames = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&log_frames);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames| {
            seen.store(u64::try_from(frames).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Writer {
            connection,
            directory,
            options,
            identity,
            next_user: counts.next_user,
            next_run: counts.next_run,
            counts,
            delta,
            preloaded: Preloaded::default(),
            log_frames,
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

    /// What is counted, as of the last commit.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A number for a new run. Handed out once.
    pub fn allocate_run(&mut self) -> RunId {
        let id = self.next_run;
        self.next_run += 1;
        RunId(id)
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

    /// Reads what a batch is going to ask about these match keys.
    pub fn preload_owners(
        &mut self,
        hashes: impl IntoIterator<Item = MatchHash>,
    ) -> Result<(), StoreError> {
        let hashes = hashes.into_iter().collect();
        let outcome = self
            .preloaded
            .load_owners(&self.connection, &self.delta, hashes);
        self.guard(outcome)
    }

    /// Stores everything or nothing.
    ///
    /// # Errors
    /// After [`StoreError::DiskFull`] the store is as it was and the same commit may be
    /// tried again. After [`StoreError::Damaged`] and [`StoreError::Poisoned`] nothing is
    /// written any more.
    pub fn commit(&mut self, mut commit: Commit<'_>) -> Result<Committed, StoreError> {
        self.refuse_if_poisoned()?;
        let outcome = self.commit_durably(&mut commit);
        self.preloaded.clear();
        let committed = self.guard(outcome)?;
        // What was committed stays committed, whatever becomes of this.
        if self.log_frames.load(Ordering::Relaxed) * FRAME_BYTES >= self.options.checkpoint_bytes
            && let Err(e) = self.checkpoint("PASSIVE")
        {
            tracing::warn!(
                code = e.code(),
                "the store's log could not be taken in: {e}"
            );
        }
        Ok(committed)
    }

    fn commit_durably(&mut self, commit: &mut Commit<'_>) -> Result<Committed, StoreError> {
        let mut counts = self.counts.clone();
        counts.next_user = self.next_user;
        counts.next_run = self.next_run;
        let (position, sequence) = (counts.next_position, counts.next_sequence);
        // What was read beforehand was read in a transaction, which goes on as the writing one:
        // nobody else writes, so it cannot be too old for that.
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        let applied = apply::apply(
            &self.connection,
            commit,
            &self.counts,
            counts,
            &self.delta,
            &self.preloaded,
        )?;
        self.connection.execute_batch("COMMIT")?;

        self.counts = applied.counts;
        self.delta
            .settle(applied.match_step, &applied.match_changes);
        let events = commit
            .plan
            .as_deref_mut()
            .map(|plan| std::mem::take(&mut plan.events))
            .unwrap_or_default();
        let block = (!events.is_empty()).then(|| {
            Arc::new(OutboxBlock {
                first_position: position,
                first_sequence: sequence,
                count: events.len() as u64,
                sequenced: u64::from(events.sequenced()),
                created_us: commit.now_us,
                bytes: Bytes::from(events.into_bytes()),
            })
        });
        Ok(Committed {
            block,
            gaps: applied.gaps,
        })
    }

    /// Removes outbox blocks that every sink has passed (`delivered`) and that are older
    /// than `keep_newer_than_us`, or that make the outbox larger than `max_bytes`. Removes
    /// a bounded number at a time.
    pub fn trim_outbox(
        &mut self,
        delivered: Position,
        keep_newer_than_us: i64,
        max_bytes: u64,
    ) -> Result<Trimmed, StoreError> {
        self.refuse_if_poisoned()?;
        let outcome = self.trim(delivered, keep_newer_than_us, max_bytes);
        self.guard(outcome)
    }

    fn trim(
        &mut self,
        delivered: Position,
        keep_newer_than_us: i64,
        max_bytes: u64,
    ) -> Result<Trimmed, StoreError> {
        let Some((last, trimmed)) = outbox::trimmable(
            &self.connection,
            delivered,
            keep_newer_than_us,
            max_bytes,
            self.counts.outbox_bytes,
        )?
        else {
            return Ok(Trimmed::default());
        };
        let mut counts = self.counts.clone();
        counts.outbox_blocks = counts.outbox_blocks.saturating_sub(trimmed.blocks);
        counts.outbox_bytes = counts.outbox_bytes.saturating_sub(trimmed.bytes);
        let tx = begin(&mut self.connection)?;
        tx.prepare_cached("DELETE FROM outbox WHERE position <= ?1")?
            .execute([last.to_sql()])?;
        counts.save(&tx, &self.counts)?;
        tx.commit()?;
        self.counts = counts;
        Ok(trimmed)
    }

    /// Goes on behind a position that somebody has already seen, with positions and
    /// sequences alike: for a store that was restored from a backup, so that what it gives
    /// out from here on is never taken for what it gave out before.
    pub fn skip_to(&mut self, seen: Position) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        let next = seen.next();
        if next <= self.counts.next_position {
            return Ok(());
        }
        let mut counts = self.counts.clone();
        let skipped = next.0 - counts.next_position.0;
        counts.next_position = next;
        counts.next_sequence = counts.next_sequence.plus(skipped);
        let outcome = (|| {
            let tx = begin(&mut self.connection)?;
            counts.save(&tx, &self.counts)?;
            tx.commit()?;
            Ok(())
        })();
        self.guard(outcome)?;
        self.counts = counts;
        Ok(())
    }

    /// Forgets runs that ended, and gaps and conflicts that were closed, before a time. At
    /// most a thousand of each in one call; gives how many. Gaps behind which a source had
    /// another history stay: their number tells which history a stored record belongs to.
    pub fn forget_history(&mut self, before_us: i64) -> Result<u64, StoreError> {
        self.refuse_if_poisoned()?;
        let outcome = (|| {
            let tx = begin(&mut self.connection)?;
            let mut forgotten = 0;
            for sql in [
                "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE ended_us < ?1 LIMIT 1000)",
                "DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE closed_us < ?1 AND \
                 json_extract(body, '$.reason') NOT IN \
                 ('other_server', 'timeline_diverged', 'restored') LIMIT 1000)",
                "DELETE FROM conflict WHERE fingerprint IN (SELECT fingerprint FROM conflict \
                 WHERE closed_us < ?1 LIMIT 1000)",
            ] {
                forgotten += tx.execute(sql, [before_us])? as u64;
            }
            tx.commit()?;
            Ok(forgotten)
        })();
        self.guard(outcome)
    }

    /// The number of a source, making it known if it is new. A name keeps its number for
    /// ever.
    pub fn source(&mut self, name: &str, now_us: i64) -> Result<SourceId, StoreError> {
        self.refuse_if_poisoned()?;
        let outcome = (|| {
            let tx = begin(&mut self.connection)?;
            let find = |c: &Connection| -> Result<Option<u16>, StoreError> {
                Ok(
                    c.query_row("SELECT id FROM source WHERE name = ?1", [name], |r| {
                        r.get(0)
                    })
                    .optional()?,
                )
            };
            if let Some(id) = find(&tx)? {
                return Ok(SourceId(id));
            }
            let next: i64 =
                tx.query_row("SELECT COALESCE(MAX(id), 0) + 1 FROM source", [], |r| {
                    r.get(0)
                })?;
            let id = u16::try_from(next).map_err(|_| {
                StoreError::Refused("a store holds at most 65,535 sources".to_owned())
            })?;
            tx.execute(
                "INSERT INTO source(id, name, state, state_us) VALUES(?1, ?2, 'new', ?3)",
                (id, name, now_us),
            )?;
            tx.commit()?;
            Ok(SourceId(id))
        })();
        self.guard(outcome)
    }

    /// The numbers of custom attributes (names without the prefix `custom.`), making known
    /// those that are new. A name keeps its number and its type for ever, because documents
    /// hold values under the number.
    pub fn custom_attributes(
        &mut self,
        wanted: &[(String, AttrType)],
    ) -> Result<Vec<(AttrId, String, AttrType)>, StoreError> {
        self.refuse_if_poisoned()?;
        let outcome = (|| {
            let tx = begin(&mut self.connection)?;
            let mut all = Vec::with_capacity(wanted.len());
            for (name, kind) in wanted {
                let text = query::attribute_kind_name(*kind)?;
                let known: Option<(u16, String)> = tx
                    .query_row(
                        "SELECT id, kind FROM attribute WHERE name = ?1",
                        [name],
                        |r| Ok((r.get(0)?, r.get(1)?)),
                    )
                    .optional()?;
                let id = match known {
                    Some((id, stored)) if stored == text => id,
                    Some((_, stored)) => {
                        return Err(StoreError::Refused(format!(
                            "custom.{name} is stored as {stored} and is now declared as {text}; give the new one another name"
                        )));
                    }
                    None => {
                        let next: i64 = tx.query_row(
                            "SELECT COALESCE(MAX(id) + 1, ?1) FROM attribute",
                            [FIRST_CUSTOM],
                            |r| r.get(0),
                        )?;
                        let id = u16::try_from(next).map_err(|_| {
                            StoreError::Refused("too many custom attributes".to_owned())
                        })?;
                        tx.execute(
                            "INSERT INTO attribute(id, name, kind) VALUES(?1, ?2, ?3)",
                            (id, name, &text),
                        )?;
                        id
                    }
                };
                all.push((AttrId(id), name.clone(), *kind));
            }
            tx.commit()?;
            Ok(all)
        })();
        self.guard(outcome)
    }

    /// Streams the links of a source in the order of their keys, from behind a key on, at
    /// most `limit` of them. As of the last commit.
    pub fn links_after(
        &self,
        source: SourceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(KeyBytes, LinkTarget)>, StoreError> {
        query::links_after(&self.connection, source, after, limit)
    }

    /// For quiet times (some seconds without a commit): takes the log into the database as
    /// far as readers allow, and gives back the memory that the last batches needed.
    pub fn rest(&mut self) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        self.preloaded = Preloaded::default();
        let outcome = self
            .connection
            .execute_batch("PRAGMA shrink_memory")
            .map_err(StoreError::from);
        self.guard(outcome)?;
        if self.log_frames.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.checkpoint("PASSIVE")
    }

    /// Reads what follows as one committed state, which saves a lock for each question.
    fn read_as_one(&mut self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN")?;
        }
        Ok(())
    }

    /// Ends what [`Writer::preload`] began, when nothing came of it: an open reading keeps the
    /// log from being taken in.
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

    fn checkpoint(&mut self, mode: &str) -> Result<(), StoreError> {
        self.release()?;
        let outcome = checkpoint(&self.connection, mode);
        if let Ok(true) = outcome {
            self.log_frames.store(0, Ordering::Relaxed);
        }
        self.guard(outcome).map(|_| ())
    }

    pub(crate) fn checkpoint_whole(&self) -> Result<(), StoreError> {
        checkpoint(&self.connection, "TRUNCATE").map(|_| ())
    }

    /// Ends in order: the log is taken in whole and emptied, then the lock is released.
    /// Dropping the writer instead loses nothing, the next start only takes longer.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        self.checkpoint("TRUNCATE")
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
        if let Err(e) = &outcome {
            let in_doubt = !self.connection.is_autocommit()
                && self.connection.execute_batch("ROLLBACK").is_err();
            if e.poisons() || in_doubt {
                self.poisoned = Some(e.to_string());
            }
        }
        outcome
    }
}

/// Begins a transaction of its own, ending a reading that is open.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Whether the whole log was taken in.
fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, StoreError> {
    let (busy, log, done): (i64, i64, i64) =
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })?;
    Ok(busy == 0 && log == done)
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

impl State for Writer {
    fn link(&mut self, source: SourceId, key: &[u8]) -> Result<Option<LinkTarget>, StateError> {
        if let Some(answer) = self.preloaded.link(source, key) {
            return Ok(answer);
        }
        let outcome = self
            .connection
            .prepare_cached("SELECT user FROM link WHERE source = ?1 AND key = ?2")
            .map_err(StoreError::from)
            .and_then(|mut s| preload::link_target(&mut s, source, key));
        Ok(self.guard(outcome)?)
    }

    fn user(&mut self, row: UserRow, into: &mut Vec<u8>) -> Result<bool, StateError> {
        if let Some(document) = self.preloaded.user(row) {
            into.extend_from_slice(document);
            return Ok(true);
        }
        let outcome = query::append_blob(
            &self.connection,
            "SELECT document FROM user WHERE id = ?1",
            [row.0],
            into,
        );
        Ok(self.guard(outcome)?)
    }

    fn record(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        let outcome = query::append_blob(
            &self.connection,
            "SELECT document FROM record WHERE source = ?1 AND key = ?2",
            (source.0, key),
            into,
        );
        Ok(self.guard(outcome)?)
    }

    fn owners(
        &mut self,
        hash: MatchHash,
        into: &mut SmallVec<[UserRow; 4]>,
    ) -> Result<(), StateError> {
        if let Some(owners) = self.preloaded.owners(hash) {
            into.extend_from_slice(owners);
            return Ok(());
        }
        let outcome = preload::owners(&self.connection, &self.delta, hash, into);
        Ok(self.guard(outcome)?)
    }

    fn anything_waits(&mut self) -> bool {
        self.counts.waiting > 0
    }

    fn waiting(
        &mut self,
        hash: MatchHash,
        into: &mut Vec<(SourceId, KeyBytes)>,
    ) -> Result<(), StateError> {
        let outcome = query::waiting(&self.connection, hash, into);
        Ok(self.guard(outcome)?)
    }

    fn conflict(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        let outcome = query::open_conflict(&self.connection, fingerprint);
        Ok(self.guard(outcome)?)
    }

    fn allocate_user(&mut self) -> UserRow {
        let row = self.next_user;
        self.next_user += 1;
        UserRow(row)
    }
}
