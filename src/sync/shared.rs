//! What the running daemon shows of its sources: written by drivers and the engine, read by
//! the API and the metrics. Touched once a batch, never per change.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rollcall_contract::SourceStatus;

/// The live figures of one source.
#[derive(Default)]
pub struct SourceLive {
    inner: Mutex<Live>,
    /// Rows read by the scan that is under way.
    pub scan_rows: AtomicU64,
    /// The server's estimate of all rows; 0 when unknown.
    pub scan_total: AtomicU64,
    /// Commit time of the last change applied, microseconds since the Unix epoch.
    pub last_commit_us: AtomicI64,
    /// Bytes of batches that are between the reader and the store.
    pub queued_bytes: AtomicU64,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
struct Live {
    state: String,
    reason: String,
    position: String,
    server: SourceStatus,
}

/// A copy of the live figures at one moment.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SourceSnapshot {
    /// `connecting`, `scanning`, `streaming`, `waiting`, `refused`, `stopped`.
    pub state: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Readable position up to which everything is stored.
    pub position: String,
    /// The server's view.
    pub server: SourceStatus,
    /// Rows read by the present scan.
    pub scan_rows: u64,
    /// The estimate of all rows.
    pub scan_total: u64,
    /// Commit time of the last change applied.
    pub last_commit_us: i64,
    /// Bytes waiting inside the daemon.
    pub queued_bytes: u64,
}

impl SourceLive {
    fn with(&self, change: impl FnOnce(&mut Live)) {
        let mut live = self
            .inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        change(&mut live);
    }

    /// Sets state and reason.
    pub fn set_state(&self, state: &str, reason: &str) {
        self.with(|l| {
            state.clone_into(&mut l.state);
            reason.clone_into(&mut l.reason);
        });
    }

    /// Sets the position.
    pub fn set_position(&self, position: &str) {
        self.with(|l| position.clone_into(&mut l.position));
    }

    /// Sets the server's view.
    pub fn set_server(&self, status: SourceStatus) {
        self.with(|l| l.server = status);
    }

    /// All of it.
    pub fn snapshot(&self) -> SourceSnapshot {
        let mut copy = Live::default();
        self.with(|l| copy = l.clone());
        SourceSnapshot {
            state: copy.state,
            reason: copy.reason,
            position: copy.position,
            server: copy.server,
            scan_rows: self.scan_rows.load(Ordering::Relaxed),
            scan_total: self.scan_total.load(Ordering::Relaxed),
            last_commit_us: self.last_commit_us.load(Ordering::Relaxed),
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed),
        }
    }
}
