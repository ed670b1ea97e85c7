//! The proof that nobody has asked for: a slice of each source at a time, round after round.
//!
//! A round begins at the first row and ends behind the last, and how far it is stands in the
//! store, in the same commit as what its slice has found and its run has counted. So a crash
//! costs the slice that was under way and no more, and a round is one run.
//!
//! A slice is looked at only while its source is followed or polled and no gap is open and no
//! scan reads it, and counts only if that is still so when it is done: a difference then is what
//! the gap's own scan finds. It reads on a connection of its own and compares on a thread of its
//! own, and only one slice of all sources is looked at in any moment.
//!
//! What differs is *certain* in a source whose log is followed when the proof says so
//! ([`super`]). In one that is polled the next poll of every row may bring it: it is certain
//! once such a poll began behind the reading and was applied, and a reading that began after
//! that finds the record still the same and still different. Until then it is remembered and
//! looked at again, and the round does not end. So is what is certain, until it is right: by
//! itself, by a reconciliation, or, if the configuration says so, because it was read again by
//! key, through the same door as any other such order and within the source's limit.
//!
//! Related tables are compared whole, once a round. Whoever a row that differs is joined to is
//! known only when it is right, so the source is reconciled, if repairing is wanted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_contract::{ConnectorError, Key, Source};
use rollcall_core::attribute::Attributes;
use rollcall_core::id::SourceId;
use rollcall_core::mapping::MappingSpec;
use rollcall_core::state::KeyBytes;
use rollcall_store::{DriftPlace, DriftRow, ProofRow, Readers, RelatedId, StoreError, Walk};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pacing::{Pacing, SHORTEST};
use super::{Drift, Pace, Proof, ProofError, Prover, Rows, Slice, schema_versions};
use crate::config::ProofConfig;
use crate::sync::backoff::Backoff;
use crate::sync::clock::now_us;
use crate::sync::joined::{Bound, Tables};
use crate::sync::mapper;
use crate::sync::shared::SourceLive;
use crate::sync::work::{Cause, KeysOrder, Order, ProofWork, Work};

/// At most so many records that differ are remembered; the run counts all.
pub const LISTED_MAX: usize = 1_000;

/// Looked at least this often, so that a clock that was set is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// While a scan runs, a gap is open or the source cannot be read, it is looked again so often.
const RESTS: Duration = Duration::from_secs(2);

/// How long a difference may be on its way before the slice goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long records that are read again are waited for. One that takes longer is found right
/// the next time.
const REPAIRED_WITHIN: Duration = Duration::from_secs(30);

/// The longest pause while slices fail.
const LONGEST: Duration = Duration::from_secs(300);

/// Of so many open gaps the sources are looked at.
const GAPS_LOOKED_AT: usize = 100_000;

/// At most so many records are read again with one order.
const KEYS_PER_ORDER: usize = 500;

/// What one source's rolling proof needs.
pub struct Rolling {
    /// The source's number.
    pub id: SourceId,
    /// The source's name.
    pub name: String,
    /// How it is proved.
    pub config: ProofConfig,
    /// The most rows and bytes of a page.
    pub page: (usize, usize),
    /// The connector.
    pub source: Arc<dyn Source>,
    /// The mapping, not yet bound to a schema.
    pub mapping: Arc<MappingSpec>,
    /// The organization's attributes.
    pub attributes: Arc<Attributes>,
    /// The store, to read.
    pub readers: Readers,
    /// How the source is.
    pub live: Arc<SourceLive>,
    /// Where results go.
    pub engine: mpsc::Sender<Work>,
    /// Where records are ordered to be read again.
    pub orders: mpsc::Sender<Order>,
    /// Whose slice it is, among all sources.
    pub turn: Arc<Semaphore>,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// Why nothing came of a turn.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The source is not as it has to be.
    #[error("the source is being read, or cannot be")]
    Rests,
    /// The engine is gone, or the daemon stops.
    #[error("the daemon stops")]
    Stops,
}

impl From<StoreError> for Missed {
    fn from(e: StoreError) -> Missed {
        Missed::Proof(ProofError::Store(e))
    }
}

/// What one reading has found.
struct Found {
    source: SourceId,
    proof: Proof,
    read: Walk,
    known: Walk,
    /// Whether the log was followed.
    has_log: bool,
    /// When the last poll of every row began that was applied before anything was compared.
    polled_us: i64,
    /// When it was done.
    at_us: i64,
}

impl Rolling {
    /// Runs until cancelled.
    pub async fn run(self) {
        let (this, mut delay, mut looked_us) = (Arc::new(self), Backoff::new(LONGEST), 0);
        loop {
            let pause = match this.turn(&mut looked_us).await {
                Ok(pause) => {
                    delay.reset();
                    pause
                }
                Err(Missed::Rests) => RESTS,
                Err(Missed::Stops) => return,
                Err(Missed::Proof(e)) => {
                    tracing::warn!(source = this.name, "a slice could not be proved: {e}");
                    delay.pause()
                }
            };
            tokio::select! {
                () = this.cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks at what is due; gives how long to wait then.
    async fn turn(self: &Arc<Self>, looked_us: &mut i64) -> Result<Duration, Missed> {
        let Some(row) = self.readers.proof(self.id)? else {
            self.is_followed()?;
            self.store(|reply| ProofWork::first(new_proof(self.id, now_us()), reply))
                .await?;
            return Ok(SHORTEST);
        };
        let listed = self.readers.drifted(self.id, LISTED_MAX)?;
        let expected = self.expected_rows(&row)?;
        let pacing = Pacing {
            period: self.config.period,
            page_rows: self.page.0 as u64,
        };
        let slice_due = match row.is_through() {
            true => i64::MAX,
            false => pacing.due_us(&row, expected),
        };
        let again_us = i64::try_from(pacing.again().as_micros()).unwrap_or(i64::MAX);
        let again_due = match listed.is_empty() && !row.is_through() {
            true => i64::MAX,
            false => looked_us.saturating_add(again_us),
        };
        let now = now_us();
        let wait_us = slice_due.min(again_due).saturating_sub(now);
        if wait_us > 0 {
            return Ok(Duration::from_micros(wait_us.unsigned_abs()).min(LOOK_EVERY));
        }
        let _turn = self.turn.acquire().await.map_err(|_| Missed::Stops)?;
        if slice_due <= now {
            let rows = usize::try_from(pacing.slice_rows(expected)).unwrap_or(usize::MAX);
            self.look(begun(row, now), listed, Some(rows)).await?;
        } else {
            self.look(row, listed, None).await?;
        }
        *looked_us = now_us();
        Ok(SHORTEST)
    }

    /// How many rows a round will have, as far as anybody knows.
    fn expected_rows(&self, row: &ProofRow) -> Result<u64, StoreError> {
        let linked = self.readers.counts()?.linked;
        let linked = linked.get(&self.id).copied().unwrap_or(0);
        let scanned = self.live.scan_total.load(Ordering::Relaxed);
        Ok(row.expected_rows.max(linked).max(scanned))
    }

    /// Looks at a slice of so many rows, or only again at what differed, and has the engine
    /// store it.
    async fn look(
        self: &Arc<Self>,
        mut row: ProofRow,
        listed: Vec<DriftRow>,
        rows: Option<usize>,
    ) -> Result<(), Missed> {
        let mut slice = Slice::of_keys(records(&listed).collect());
        slice.related = match rows {
            // Once a round.
            Some(_) if row.slices == 0 => Rows::All,
            _ => Rows::These(related_rows(&listed).collect()),
        };
        if rows.is_some() {
            (slice.read, slice.known) = (row.read.clone(), row.known.clone());
        }
        let found = self.read(slice, rows.unwrap_or(self.page.0)).await?;
        let (is_round, is_first) = (rows.is_some() || row.run.is_some(), row.slices == 0);
        if rows.is_some() {
            row.slices += 1;
            (row.read, row.known) = (found.read.clone(), found.known.clone());
        }
        row.rows += found.proof.records;
        let before: HashMap<DriftPlace, DriftRow> =
            listed.into_iter().map(|d| (d.place(), d)).collect();
        let mut drifted = found.judge(&before);
        let is_new = |d: &DriftRow| d.proved && !before.get(&d.place()).is_some_and(|b| b.proved);
        let new = drifted.iter().filter(|d| is_new(d)).count();
        row.drifted += new as u64;
        if new > 0 {
            tracing::warn!(
                source = self.name,
                records = new,
                "records differ from the source: `rollcall status` names them"
            );
        }
        if self.config.repairs {
            // What could not be repaired is tried again once a round.
            let wanted = drifted.iter();
            let wanted = wanted.filter(|d| d.proved && (is_first || is_new(d)));
            let wanted: Vec<DriftRow> = wanted.cloned().collect();
            if related_rows(&wanted).next().is_some() {
                self.reconcile().await?;
            }
            let wanted = records(&wanted).collect();
            row.repaired += self.repair(wanted, &mut drifted).await?;
        }
        let still: HashSet<DriftPlace> = drifted.iter().map(DriftRow::place).collect();
        let undrifted = before.keys().filter(|place| !still.contains(place));
        let undrifted: Vec<DriftPlace> = undrifted.cloned().collect();
        drifted.sort_by_key(|d| !before.contains_key(&d.place()));
        drifted.truncate(LISTED_MAX);
        let in_doubt = drifted.iter().any(|d| !d.proved);
        let ended = (is_round && row.is_through() && !in_doubt).then_some(!drifted.is_empty());
        self.is_followed()?;
        self.store(|reply| ProofWork {
            row,
            counters: found.proof.counters,
            position: found.proof.position,
            drifted,
            undrifted,
            is_round,
            ended,
            reply,
        })
        .await
    }

    /// Has the source reconciled.
    async fn reconcile(&self) -> Result<(), Missed> {
        let order = Order::Reconcile {
            cause: Cause::Proof,
            began: None,
        };
        self.orders.send(order).await.map_err(|_| Missed::Stops)
    }

    async fn store(
        &self,
        work: impl FnOnce(oneshot::Sender<()>) -> ProofWork,
    ) -> Result<(), Missed> {
        let (reply, stored) = oneshot::channel();
        let sent = self.engine.send(Work::Proof(work(reply))).await;
        sent.map_err(|_| Missed::Stops)?;
        stored.await.map_err(|_| Missed::Stops)
    }

    /// Whether the source is as it has to be, and whether its log is followed.
    fn is_followed(&self) -> Result<bool, Missed> {
        let live = self.live.snapshot();
        let open = self.readers.gaps(false, GAPS_LOOKED_AT)?;
        if live.scan.is_some() || open.iter().any(|gap| gap.source == self.id) {
            return Err(Missed::Rests);
        }
        match live.state.as_str() {
            "streaming" => Ok(true),
            "polling" => Ok(false),
            _ => Err(Missed::Rests),
        }
    }

    /// Reads a slice, in pages of so many rows, and compares it, on a thread of its own.
    async fn read(self: &Arc<Self>, slice: Slice, rows: usize) -> Result<Found, Missed> {
        // A poll that is applied while it is compared is told by the next reading.
        let polled_us = self.live.whole_poll_us.load(Ordering::Relaxed);
        let has_log = self.is_followed()?;
        let (this, runtime) = (Arc::clone(self), Handle::current());
        let read = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = this.cancel.cancelled() => Err(Missed::Stops),
                    found = this.compare(slice, rows, has_log, polled_us) => Ok(found?),
                }
            })
        };
        let found = tokio::task::spawn_blocking(read).await.map_err(|_| {
            let why = "A slice was not looked at to its end.";
            ProofError::Source(ConnectorError::transient("proof_aborted", why))
        })??;
        match self.is_followed()? == has_log {
            true => Ok(found),
            false => Err(Missed::Rests),
        }
    }

    async fn compare(
        &self,
        slice: Slice,
        rows: usize,
        has_log: bool,
        polled_us: i64,
    ) -> Result<Found, ProofError> {
        let tables = Tables::of(&*self.source, &self.mapping).await?;
        let Bound { schema, join } = tables.bound(&self.mapping)?;
        let versions = schema_versions(&self.readers, self.id, &schema)?;
        let mapper = mapper::compile(&self.mapping, &versions, &self.attributes)?;
        let of = (self.id, self.name.as_str());
        let attributes = Attributes::clone(&self.attributes);
        let prover = Prover::new(&self.readers, of, mapper, attributes, false)?
            .with_related(&self.mapping.related, join);
        let prover = match has_log {
            true => prover,
            false => prover.without_log(),
        };
        let pace = Pace {
            page_rows: rows,
            page_bytes: self.page.1,
            patience: PATIENCE,
        };
        let (proof, read, known) = prover.slice(&*self.source, pace, slice).await?;
        Ok(Found {
            proof,
            read,
            known,
            has_log,
            polled_us,
            source: self.id,
            at_us: now_us(),
        })
    }

    /// Has records read again and applied; takes those that are right then out of what
    /// differs, and gives how many they are.
    async fn repair(
        self: &Arc<Self>,
        wanted: Vec<Key>,
        drifted: &mut Vec<DriftRow>,
    ) -> Result<u64, Missed> {
        if wanted.is_empty() {
            return Ok(0);
        }
        for keys in wanted.chunks(KEYS_PER_ORDER) {
            let (ended, end) = oneshot::channel();
            let order = Order::Keys(KeysOrder {
                keys: keys.iter().map(|key| vec![key.clone()]).collect(),
                cause: Cause::Proof,
                ended,
            });
            let sent = self.orders.send(order).await;
            sent.map_err(|_| Missed::Stops)?;
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Missed::Stops),
                // What came of it is looked at below.
                _ = tokio::time::timeout(REPAIRED_WITHIN, end) => {}
            }
        }
        let asked: HashSet<KeyBytes> = wanted.iter().map(key_bytes).collect();
        let found = self.read(Slice::of_keys(wanted), self.page.0).await?;
        let left: HashSet<KeyBytes> = found
            .proof
            .drifted
            .iter()
            .map(|d| key_bytes(&d.key))
            .collect();
        let all = drifted.len();
        drifted.retain(|d| d.related.is_some() || !asked.contains(&d.key) || left.contains(&d.key));
        Ok((all - drifted.len()) as u64)
    }
}

impl Found {
    /// What differs; `before` was known to.
    fn judge(&self, before: &HashMap<DriftPlace, DriftRow>) -> Vec<DriftRow> {
        let judge = |drift: &Drift| {
            let place = (drift.related, key_bytes(&drift.key));
            let same = before.get(&place).filter(|b| b.hash == drift.hash);
            let since_us = same.map_or(self.at_us, |b| b.since_us);
            let is_new = drift.proved && (self.has_log || since_us < self.polled_us);
            DriftRow {
                source: self.source,
                related: drift.related,
                key: place.1,
                what: drift.what.to_owned(),
                fields: drift.fields.iter().map(|f| f.attribute.clone()).collect(),
                hash: drift.hash,
                proved: is_new || same.is_some_and(|b| b.proved),
                since_us,
            }
        };
        self.proof.drifted.iter().map(judge).collect()
    }
}

/// The records among what differs.
fn records(drifted: &[DriftRow]) -> impl Iterator<Item = Key> {
    let records = drifted.iter().filter(|d| d.related.is_none());
    records.filter_map(|d| Key::from_bytes(&d.key))
}

/// The rows of related tables among it.
fn related_rows(drifted: &[DriftRow]) -> impl Iterator<Item = (RelatedId, Key)> {
    let rows = drifted.iter().filter_map(|d| Some((d.related?, &d.key)));
    rows.filter_map(|(table, key)| Some((table, Key::from_bytes(key)?)))
}

fn key_bytes(key: &Key) -> KeyBytes {
    KeyBytes::from_slice(key.as_bytes())
}

/// Nothing was looked at yet.
fn new_proof(source: SourceId, now_us: i64) -> ProofRow {
    ProofRow {
        source,
        since_us: now_us,
        proved_us: None,
        began_us: now_us,
        run: None,
        slices: 0,
        read: Walk::Begins,
        known: Walk::Begins,
        rows: 0,
        expected_rows: 0,
        drifted: 0,
        repaired: 0,
    }
}

/// The round that is under way, or the next one.
fn begun(row: ProofRow, now_us: i64) -> ProofRow {
    match row.run {
        Some(_) => row,
        None => ProofRow {
            since_us: row.since_us,
            proved_us: row.proved_us,
            expected_rows: row.expected_rows,
            ..new_proof(row.source, now_us)
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn found(has_log: bool, proved: bool, hash: Option<u64>, at_us: i64) -> Found {
        let mut key = Key::new();
        key.push(b"7");
        let drift = Drift {
            record: "7".to_owned(),
            what: "values differ",
            proved,
            fields: Vec::new(),
            related: None,
            key,
            hash,
        };
        Found {
            proof: Proof {
                drifted: vec![drift],
                ..Proof::default()
            },
            read: Walk::Ended,
            known: Walk::Ended,
            has_log,
            polled_us: 0,
            source: SourceId(1),
            at_us,
        }
    }

    fn judged(found: Found, before: &[DriftRow], polled_us: i64) -> DriftRow {
        let before = before.iter().map(|d| (d.place(), d.clone())).collect();
        let found = Found { polled_us, ..found };
        found.judge(&before).remove(0)
    }

    #[test]
    fn what_the_log_proves_is_certain_and_what_it_does_not_is_looked_at_again() {
        let on_its_way = judged(found(true, false, Some(1), 10), &[], 0);
        assert!(!on_its_way.proved);
        let certain = judged(found(true, true, Some(1), 20), &[on_its_way], 0);
        assert!(certain.proved);
        assert_eq!(certain.since_us, 10);
    }

    #[test]
    fn of_a_polled_source_only_what_a_later_poll_of_every_row_left_as_it_was_is_certain() {
        let first = judged(found(false, true, Some(1), 10), &[], 9);
        assert!(!first.proved, "the poll began before the reading");
        let before = std::slice::from_ref(&first);
        let later = || found(false, true, Some(1), 30);
        assert!(!judged(later(), before, 10).proved);
        assert!(judged(later(), before, 11).proved);
        let changed = judged(found(false, true, Some(2), 30), before, 11);
        assert!(!changed.proved, "it is another row, which no poll has seen");
        assert_eq!(changed.since_us, 30);
        assert!(!judged(found(false, true, None, 30), before, 11).proved);
    }

    #[test]
    fn a_round_that_is_under_way_goes_on_and_the_next_one_begins_anew() {
        let row = ProofRow {
            run: Some(rollcall_core::id::RunId(3)),
            slices: 4,
            rows: 40,
            drifted: 2,
            ..new_proof(SourceId(1), 5)
        };
        assert_eq!(begun(row.clone(), 9), row);
        let ended = ProofRow {
            run: None,
            proved_us: Some(8),
            expected_rows: 40,
            ..row
        };
        let next = begun(ended, 9);
        assert_eq!((next.since_us, next.proved_us), (5, Some(8)));
        assert_eq!((next.began_us, next.expected_rows), (9, 40));
        assert_eq!((next.slices, next.rows, next.drifted), (0, 0, 0));
    }
}
