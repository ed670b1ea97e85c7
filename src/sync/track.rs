//! What the engine knows of each source between two pieces of work.

use std::collections::HashSet;
use std::sync::Arc;

use rollcall_contract::{Acknowledge, Key, TxId};
use rollcall_core::id::MatchHash;
use rollcall_store::{GapId, RunRow, ScanRow};
use tokio::sync::mpsc;

use super::shared::SourceLive;

/// How many leavers a scan may find before somebody has to look: more than both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RescanGuard {
    /// Percent of the source's linked active users.
    pub max_percent: f64,
    /// People.
    pub max_leavers: u64,
}

impl RescanGuard {
    /// Whether so many leavers among so many linked users may be applied unseen.
    pub fn allows(&self, leavers: u64, linked: u64) -> bool {
        leavers <= self.max_leavers || leavers as f64 * 100.0 <= self.max_percent * linked as f64
    }
}

/// How the raw changes of a source are published.
#[derive(Clone, Debug)]
pub struct RawChanges {
    /// Columns that are left out of every image.
    pub redact: Vec<String>,
}

/// One source.
pub struct SourceTrack {
    /// Its name.
    pub name: String,
    /// What the daemon shows.
    pub live: Arc<SourceLive>,
    /// To be told what is durable; none before the log is open.
    pub acknowledge: Option<Arc<dyn Acknowledge>>,
    /// Where records to be read again are asked for.
    pub repairs: mpsc::UnboundedSender<Vec<Key>>,
    /// Gaps that no scan has closed.
    pub open_gaps: Vec<GapId>,
    /// The rolling run of the stream.
    pub stream_run: Option<TrackedRun>,
    /// The scan that is under way.
    pub scan: Option<ScanTrack>,
    /// The limit on leavers found by a scan.
    pub guard: RescanGuard,
    /// What an operator allows the next scan beyond the guard.
    pub allowed_leavers: u64,
    /// Where the source stands.
    pub state: &'static str,
    /// Position of the last change applied.
    pub position: String,
    /// Whether raw changes are published.
    pub raw_changes: Option<RawChanges>,
    /// Number of the source's history: one more with each gap behind which another one
    /// began. Wraps; what is compared lies one gap apart.
    pub history: u8,
}

/// A transaction as it is stored with a record: its id, and the number of the history that
/// the id belongs to.
///
/// The ids of a restored database begin again below what was stored before, so an id of
/// another history must never be asked whether it is newer than a page: the page would lose
/// against a transaction that no longer exists.
#[derive(Clone, Debug)]
pub(super) struct TxMark(TxId);

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
    pub(super) fn of_history(mut stored: TxId, history: u8) -> Option<TxId> {
        (stored.0.pop() == Some(history)).then_some(stored)
    }
}

/// A run and whether its row differs from the stored one.
pub struct TrackedRun {
    /// The row as it is now.
    pub row: RunRow,
    /// Whether it must be written with the next commit.
    pub dirty: bool,
}

impl TrackedRun {
    /// A run that began.
    pub fn new(row: RunRow) -> TrackedRun {
        TrackedRun { row, dirty: true }
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
    /// it out again.
    pub absent: HashSet<Key>,
    /// Match keys that several rows share.
    pub duplicates: HashSet<MatchHash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_of_another_history_is_never_compared() {
        let id = TxId([1, 2, 3].into_iter().collect());
        let stored = TxId(TxMark::new(&id, 7).as_bytes().iter().copied().collect());
        assert_eq!(TxMark::of_history(stored.clone(), 7), Some(id));
        assert_eq!(TxMark::of_history(stored, 8), None);
        assert!(TxMark::new(&TxId::default(), 7).as_bytes().is_empty());
    }

    #[test]
    fn a_scan_may_remove_few_or_a_small_share_and_nothing_more() {
        let guard = RescanGuard {
            max_percent: 5.0,
            max_leavers: 5,
        };
        assert!(
            guard.allows(5, 5),
            "five people are few, whatever their share"
        );
        assert!(
            !guard.allows(6, 100),
            "six of a hundred are more than five and more than 5 %"
        );
        assert!(guard.allows(50, 1000), "5 % exactly are allowed");
        assert!(!guard.allows(51, 1000));
        assert!(!guard.allows(6, 0));
    }
}
