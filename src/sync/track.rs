//! What the engine knows of each source between two pieces of work.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use rollcall_contract::{Acknowledge, Gap, Key, Small, TxId};
use rollcall_core::id::MatchHash;
use rollcall_core::plan::Noted;
use rollcall_core::reason::SkipReason;
use rollcall_core::staged::Remapping;
use rollcall_store::{GapId, RunRow, ScanRow};
use tokio::sync::mpsc;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::polling::PollTrack;
use super::related::RelatedTrack;
use super::scanning::Search;
use super::shared::SourceLive;
use super::staging::LimitTrack;

/// How the raw changes of a source are published.
#[derive(Clone, Debug)]
pub struct RawChanges {
    /// Columns that are left out of every image.
    pub redact: Vec<String>,
}

/// When a lot of a source is closed: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct LotLimit {
    /// At so many changes.
    pub changes: usize,
    /// At so many bytes of log.
    pub bytes: usize,
}

impl LotLimit {
    /// Beside sources that bring something too: what comes from one of them waits for a lot
    /// that is being applied and one that is being written, so lots are small.
    pub fn beside_others(self) -> LotLimit {
        LotLimit {
            changes: self.changes.min(BESIDE_OTHERS.changes),
            bytes: self.bytes.min(BESIDE_OTHERS.bytes),
        }
    }

    /// Whether a lot that holds so much takes no more.
    pub fn is_full(&self, changes: usize, bytes: usize) -> bool {
        changes >= self.changes || bytes >= self.bytes
    }
}

/// The lots of sources that share the engine. Their batches are as small
/// ([`rollcall_contract::BatchCaps::beside_others`]).
const BESIDE_OTHERS: LotLimit = LotLimit {
    changes: 25,
    bytes: 64 << 10,
};

/// What the engine asks of a source's driver.
#[derive(Debug)]
pub enum Ask {
    /// These records are to be read again.
    Reread(Vec<Key>),
    /// A gap was opened here: everything is to be read again.
    Scan,
}

/// One source.
pub struct SourceTrack {
    /// Its name.
    pub name: String,
    /// What the daemon shows.
    pub live: Arc<SourceLive>,
    /// To be told what is durable; none before the log is open.
    pub acknowledge: Option<Arc<dyn Acknowledge>>,
    /// Where the driver is asked for what the engine finds to be due.
    pub asks: mpsc::UnboundedSender<Ask>,
    /// Gaps that no scan has closed.
    pub open_gaps: Vec<GapId>,
    /// The rolling run of the stream.
    pub stream_run: Option<TrackedRun>,
    /// The scan that is under way.
    pub scan: Option<ScanTrack>,
    /// Whether it is proved in the background.
    pub is_proved: bool,
    /// The run of the proof's round that is under way.
    pub proof_run: Option<TrackedRun>,
    /// When a lot is closed.
    pub lot: LotLimit,
    /// When it last brought something.
    pub worked: Option<Instant>,
    /// How much it may take away unseen; none when there is no limit.
    pub limit: Option<LimitTrack>,
    /// Whether a plan waits for approval.
    pub plan_open: bool,
    /// Whether a plan of people who are gone was discarded, and nobody has agreed to a like one since.
    pub given_up: bool,
    /// Its related tables; none when it has none, or their columns are not known yet.
    pub related: Option<RelatedTrack>,
    /// How it is polled, while it is.
    pub poll: Option<PollTrack>,
    /// Which of its changes count because the mapping changed.
    pub remapping: Remapping,
    /// Where the source stands.
    pub state: &'static str,
    /// Why.
    pub reason: String,
    /// Position of the last change applied.
    pub position: String,
    /// Whether raw changes are published.
    pub raw_changes: Option<RawChanges>,
    /// Number of the source's history: one more with each gap behind which another one
    /// began. Wraps; what is compared lies one gap apart.
    pub history: u8,
}

impl SourceTrack {
    /// How small its batches are beside other sources: where a transaction takes from people,
    /// still so many changes that the limit can trip with the first of them.
    pub(super) fn small(&self) -> Small {
        let taking = self.limit.as_ref().map_or(0, LimitTrack::looked_at);
        Small {
            taking: taking.max(BESIDE_OTHERS.changes),
        }
    }

    /// Whether its rows can be read at present.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, "scanning" | "streaming" | "polling")
    }

    /// The source of a simulation: its limit stops nothing, and no raw change is published.
    pub(crate) fn let_everything_pass(&mut self) {
        if let Some(limit) = &mut self.limit {
            limit.let_everything_pass();
        }
        self.raw_changes = None;
    }
}

/// A transaction as it is stored with a record: its id, and the number of the history that
/// the id belongs to.
///
/// The ids of a restored database begin again below what was stored before, so an id of
/// another history must never be asked whether it is newer than a page: the page would lose
/// against a transaction that no longer exists.
#[derive(Clone, Debug)]
pub(crate) struct TxMark(TxId);

impl TxMark {
    /// Stores nothing for a row without a transaction.
    pub(super) fn new(id: &TxId, history: u8) -> TxMark {
        let mut bytes = id.0.clone();
        if !bytes.is_empty() {
            bytes.push(history);
        }
        TxMark(TxId(bytes))
    }

    /// What is stored.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The id, if it was stored in this history.
    pub(crate) fn of_history(mut stored: TxId, history: u8) -> Option<TxId> {
        (stored.0.pop() == Some(history)).then_some(stored)
    }
}

/// The number of a source's history: how many gaps lie behind which another one began.
pub(crate) fn history_of<'g>(gaps: impl Iterator<Item = &'g Gap>) -> u8 {
    let begun = gaps.filter(|gap| gap.reason.is_other_history());
    (begun.count() % 256) as u8
}

/// A run and whether its row differs from the stored one.
pub struct TrackedRun {
    /// The row as it is now.
    pub row: RunRow,
    /// Whether it must be written with the next commit.
    pub dirty: bool,
    /// The records that it names.
    pub(super) named: Named,
}

impl TrackedRun {
    /// A run that began.
    pub fn new(row: RunRow) -> TrackedRun {
        TrackedRun {
            row,
            dirty: true,
            named: Named::default(),
        }
    }
}

/// A scan that is under way.
pub struct ScanTrack {
    /// How far it is.
    pub row: ScanRow,
    /// Its run.
    pub run: TrackedRun,
    /// The gaps that it closes: those that were open when it began.
    pub closes: Vec<GapId>,
    /// Records that were read again by key and do not exist. A log event of a record takes
    /// it out again. In order: who comes first may get a value that several want.
    pub absent: BTreeSet<Key>,
    /// Match keys that several rows share.
    pub duplicates: HashSet<MatchHash>,
    /// How far the search for records that no page had is.
    pub(super) search: Search,
}

/// For each reason a run names so many records at most, and so many that are applied again:
/// however many of one sort there are, they push out no other.
pub(super) const NAMED_MAX: u32 = 1_000;

/// The records that a run names, by hash, so that each is named once and the list is bounded.
#[derive(Default)]
pub(super) struct Named {
    records: HashSet<u64>,
    by_reason: [u32; SkipReason::ALL.len()],
    healed: u32,
}

impl Named {
    /// Whether a record is named already, or may be.
    pub(super) fn admits(&mut self, record: &Noted) -> bool {
        let mut hasher = Xxh3::new();
        hasher.update(&[record.reason as u8, u8::from(record.healed)]);
        hasher.update(&record.source.0.to_le_bytes());
        hasher.update(&record.key);
        let hash = hasher.digest();
        if self.records.contains(&hash) {
            return true;
        }
        let named = match record.healed {
            true => &mut self.healed,
            false => &mut self.by_reason[record.reason as usize - 1],
        };
        if *named >= NAMED_MAX {
            return false;
        }
        *named += 1;
        self.records.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_names_a_record_once_and_one_sort_pushes_out_no_other() {
        let record = |reason, n: u32, healed| Noted {
            source: rollcall_core::id::SourceId(1),
            key: n.to_le_bytes().into_iter().collect(),
            reason,
            healed,
            attribute: None,
            rule: None,
        };
        let mut named = Named::default();
        let bad = SkipReason::BadValue;
        assert!((0..5_000).all(|_| named.admits(&record(bad, 7, false))));
        let admitted = (0..5_000).filter(|n| named.admits(&record(bad, *n, false)));
        assert_eq!(admitted.count() as u32, NAMED_MAX);
        assert!(named.admits(&record(bad, 7, false)), "it is named already");
        assert!(named.admits(&record(bad, 4_999, true)));
        assert!(named.admits(&record(SkipReason::TooLong, 4_999, false)));
    }

    #[test]
    fn a_transaction_of_another_history_is_never_compared() {
        let id = TxId([1, 2, 3].into_iter().collect());
        let stored = TxId(TxMark::new(&id, 7).as_bytes().iter().copied().collect());
        assert_eq!(TxMark::of_history(stored.clone(), 7), Some(id));
        assert_eq!(TxMark::of_history(stored, 8), None);
        assert!(TxMark::new(&TxId::default(), 7).as_bytes().is_empty());
    }
}
