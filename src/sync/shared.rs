//! What the running daemon shows of its sources: written by drivers and the engine, read by
//! the API and the metrics. Touched once a batch, never per change.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use rollcall_contract::SourceStatus;

use super::work::ScanPlace;

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
    /// Rows that a whole poll found changed without a change of their change column, since
    /// the daemon started.
    pub unmarked: AtomicU64,
    /// Rows without a key that the last scan came upon.
    pub keyless: AtomicU64,
    /// When the last poll of every row that was applied began, microseconds since the Unix
    /// epoch; 0 when there was none.
    pub whole_poll_us: AtomicI64,
    /// Whether other sources are at work too.
    pub beside_others: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Live {
    state: String,
    reason: String,
    position: String,
    server: SourceStatus,
    notices: Vec<String>,
    paused: Vec<String>,
    scan: Option<ScanLive>,
    next_due_us: Option<i64>,
}

/// A scan that is under way.
#[derive(Clone, Debug)]
struct ScanLive {
    run: u64,
    kind: &'static str,
    cause: String,
    /// When this session began to read, and behind how many rows.
    began: Instant,
    rows_before: u64,
}

/// How far a scan is.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ScanProgress {
    /// Its run.
    pub run: u64,
    /// `load` or `reconcile`.
    pub kind: String,
    /// Why it began.
    pub cause: String,
    /// Rows that were read.
    pub rows: u64,
    /// The server's estimate of all rows; none when it has none.
    pub total: Option<u64>,
    /// Rows read each second since the source was last connected.
    pub rows_per_second: f64,
    /// Seconds until everything is read at this rate; none when it cannot be told.
    pub seconds_left: Option<f64>,
}

impl ScanProgress {
    fn new(scan: &ScanLive, rows: u64, total: u64, elapsed_seconds: f64) -> ScanProgress {
        let read = rows.saturating_sub(scan.rows_before) as f64;
        let rate = if elapsed_seconds > 0.0 {
            read / elapsed_seconds
        } else {
            0.0
        };
        // An estimate that was passed says nothing any more.
        let left = total.checked_sub(rows).filter(|_| total > 0 && rate > 0.0);
        ScanProgress {
            run: scan.run,
            kind: scan.kind.to_owned(),
            cause: scan.cause.clone(),
            rows,
            total: Some(total).filter(|&n| n > 0),
            rows_per_second: rate,
            seconds_left: left.map(|n| n as f64 / rate),
        }
    }
}

/// For people: `40000 of about 100000 rows, 12000 rows/s, 5 s left`.
impl std::fmt::Display for ScanProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.rows)?;
        if let Some(total) = self.total {
            write!(f, " of about {total}")?;
        }
        write!(f, " rows, {:.0} rows/s", self.rows_per_second)?;
        match self.seconds_left {
            Some(left) if left >= 90.0 => write!(f, ", {:.0} min left", left / 60.0),
            Some(left) => write!(f, ", {left:.0} s left"),
            None => Ok(()),
        }
    }
}

/// A copy of the live figures at one moment.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SourceSnapshot {
    /// `connecting`, `scanning`, `streaming`, `polling`, `waiting`, `refused`,
    /// `quarantined`, `stopped`.
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
    /// The scan that is under way.
    pub scan: Option<ScanProgress>,
    /// When the schedule has the source reconciled next, microseconds since the Unix epoch.
    pub next_due_us: Option<i64>,
    /// Commit time of the last change applied.
    pub last_commit_us: i64,
    /// Bytes waiting inside the daemon.
    pub queued_bytes: u64,
    /// Rows that a whole poll found changed without a change of their change column, since
    /// the daemon started.
    #[serde(default)]
    pub poll_unmarked: u64,
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

    /// Says of each field that is paused why it is.
    pub fn set_paused(&self, paused: Vec<String>) {
        self.with(|l| l.paused = paused);
    }

    /// Sets what there is to warn of besides the server's view.
    pub fn set_notices(&self, notices: Vec<String>) {
        self.with(|l| l.notices = notices);
    }

    /// A scan reads from here on.
    pub fn scan_began(&self, place: &ScanPlace) {
        self.scan_rows.store(place.rows, Ordering::Relaxed);
        self.with(|l| {
            l.scan = Some(ScanLive {
                run: place.run.0,
                kind: if place.is_load { "load" } else { "reconcile" },
                cause: place.cause.clone(),
                began: Instant::now(),
                rows_before: place.rows,
            });
        });
    }

    /// No scan reads any more.
    pub fn scan_ended(&self) {
        self.with(|l| l.scan = None);
    }

    /// When the source is reconciled next.
    pub fn set_next_due(&self, us: i64) {
        self.with(|l| l.next_due_us = Some(us));
    }

    /// All of it.
    pub fn snapshot(&self) -> SourceSnapshot {
        let mut copy = Live::default();
        self.with(|l| copy = l.clone());
        copy.server.warnings.append(&mut copy.notices);
        copy.server.warnings.append(&mut copy.paused);
        let rows = self.scan_rows.load(Ordering::Relaxed);
        let total = self.scan_total.load(Ordering::Relaxed);
        SourceSnapshot {
            scan: copy.scan.map(|scan| {
                ScanProgress::new(&scan, rows, total, scan.began.elapsed().as_secs_f64())
            }),
            state: copy.state,
            reason: copy.reason,
            position: copy.position,
            server: copy.server,
            next_due_us: copy.next_due_us,
            scan_rows: rows,
            scan_total: total,
            last_commit_us: self.last_commit_us.load(Ordering::Relaxed),
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed),
            poll_unmarked: self.unmarked.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(before: u64, rows: u64, total: u64, seconds: f64) -> ScanProgress {
        let scan = ScanLive {
            run: 7,
            kind: "reconcile",
            cause: "manual".to_owned(),
            began: Instant::now(),
            rows_before: before,
        };
        ScanProgress::new(&scan, rows, total, seconds)
    }

    #[test]
    fn the_rate_counts_what_this_session_read_and_the_rest_follows_from_it() {
        let p = progress(400, 600, 1_000, 2.0);
        assert_eq!((p.rows_per_second, p.seconds_left), (100.0, Some(4.0)));
        assert_eq!(p.total, Some(1_000));
    }

    #[test]
    fn nothing_is_foretold_without_a_rate_or_an_estimate_that_holds() {
        assert_eq!(progress(0, 0, 1_000, 0.0).seconds_left, None);
        assert_eq!(progress(0, 10, 0, 1.0).seconds_left, None);
        assert_eq!(progress(0, 10, 0, 1.0).total, None);
        assert_eq!(progress(0, 1_001, 1_000, 1.0).seconds_left, None);
    }
}
