//! Which transactions a page has seen.
//!
//! A page is read in one `REPEATABLE READ` transaction, so it sees exactly the transactions
//! that its snapshot says were finished. `pg_current_snapshot()` names them: every
//! transaction below `xmax` that is not in the list of those in progress. A change of the
//! log whose transaction is not among them may be newer than the page, whatever its LSN
//! is: a commit record can be in the log before the transaction becomes visible.
//!
//! The log names transactions by 32 bits, the snapshot by 64. At any time all transactions
//! that are alive lie within 2^31 of each other (that is what freezing is for), so the
//! 64-bit id of a logged transaction is the one nearest to `xmax`. A [`TxId`] ends with those
//! 32 bits, most significant byte first.
//!
//! The high mark is the insert position, read by the statement that took the snapshot and
//! after it was taken. Each transaction that the snapshot sees has its commit record in the
//! log before it becomes visible, so all of them end at or before the high mark. Nothing
//! that is written while the rows are read matters for it: the rows are those of the
//! snapshot.

use rollcall_contract::{Cursor, TxId, Window};

use crate::lsn::{Lsn, Xid};
use crate::position::PgCursor;

/// What `pg_current_snapshot()` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    xmax: Xid,
    /// Sorted.
    in_progress: Vec<Xid>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip,…`.
    pub(crate) fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let xmin: u64 = parts.next()?.parse().ok()?;
        let xmax: u64 = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() || xmin > xmax {
            return None;
        }
        let mut in_progress = Vec::new();
        for xid in list.split(',').filter(|x| !x.is_empty()) {
            in_progress.push(Xid(xid.parse().ok()?));
        }
        in_progress.sort_unstable();
        Some(Snapshot {
            xmax: Xid(xmax),
            in_progress,
        })
    }

    /// Whether the effects of a transaction of the log are in this snapshot.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        let full = self.xmax.extend(xid);
        full < self.xmax && self.in_progress.binary_search(&full).is_err()
    }
}

/// The sizes that decide where a record of the log can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLayout {
    /// `wal_block_size`, bytes.
    pub(crate) page_size: u64,
    /// `wal_segment_size`, bytes.
    pub(crate) segment_size: u64,
}

impl LogLayout {
    /// The insert position stands behind the header of a page that has no record yet,
    /// while the last record ended at the page's start. A reader of the log would wait for
    /// those few bytes until the next record is written, so they are taken off. A record
    /// that continues on the page leaves at least eight more bytes there, hence the exact
    /// comparison (`SizeOfXLogShortPHD`, `SizeOfXLogLongPHD` in xlog_internal.h).
    pub(crate) fn last_record_end(self, insert: Lsn) -> Lsn {
        const SHORT_HEADER: u64 = 24;
        const LONG_HEADER: u64 = 40;
        let at = insert.0;
        let empty = if at % self.segment_size < self.page_size {
            at % self.segment_size == LONG_HEADER
        } else {
            at % self.page_size == SHORT_HEADER
        };
        if empty {
            Lsn(at - at % self.page_size)
        } else {
            insert
        }
    }
}

/// The window of one page.
#[derive(Clone, Debug)]
pub(crate) struct PageWindow {
    pub(crate) snapshot: Snapshot,
    pub(crate) high: Lsn,
}

impl PageWindow {
    /// The window, knowing the one before it on the same server. A snapshot that sees what
    /// the one before saw has seen nothing that came later than that one's high mark. The
    /// log of a server on which nothing is written then closes page after page at once,
    /// instead of waiting each time until the server flushes what is no transaction's.
    pub(crate) fn continued(self, before: Option<&PageWindow>) -> PageWindow {
        match before {
            Some(before) if before.snapshot == self.snapshot => PageWindow {
                high: self.high.min(before.high),
                ..self
            },
            _ => self,
        }
    }
}

impl Window for PageWindow {
    fn may_be_newer(&self, tx: &TxId) -> bool {
        match tx.0.last_chunk::<4>() {
            Some(low) => !self.snapshot.sees(u32::from_be_bytes(*low)),
            None => true,
        }
    }

    fn is_closed_by(&self, cursor: &Cursor) -> bool {
        PgCursor::decode(cursor).is_ok_and(|at| at.commit_end >= self.high)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_snapshot_sees_what_was_finished_and_nothing_else() {
        let s = Snapshot::parse("10:20:12,15").unwrap();
        assert!(s.sees(9));
        assert!(s.sees(11));
        assert!(!s.sees(12));
        assert!(!s.sees(15));
        assert!(s.sees(19));
        assert!(!s.sees(20));
        assert!(!s.sees(21));
        let none = Snapshot::parse("10:10:").unwrap();
        assert!(none.sees(9));
        assert!(!none.sees(10));
        assert_eq!(Snapshot::parse("10:9:"), None);
        assert_eq!(Snapshot::parse("10:20"), None);
        assert_eq!(Snapshot::parse("10:20:x"), None);
    }

    proptest! {
        #[test]
        fn visibility_is_right_across_a_wrap_of_the_32_bits(
            xmax in (1u64 << 31)..(5u64 << 32),
            back in 0u64..(1 << 31) - 1,
            ahead in 0u64..(1 << 30),
            held in 1u64..1000,
        ) {
            let s = Snapshot {
                xmax: Xid(xmax),
                in_progress: vec![Xid(xmax - held)],
            };
            let old = xmax - back;
            prop_assert_eq!(s.sees(old as u32), back != 0 && back != held);
            prop_assert!(!s.sees((xmax + ahead) as u32));
        }
    }

    #[test]
    fn a_page_that_sees_nothing_new_keeps_the_high_mark() {
        let window = |snapshot: &str, high| PageWindow {
            snapshot: Snapshot::parse(snapshot).unwrap(),
            high: Lsn(high),
        };
        let first = window("10:20:12,15", 100);
        let same = window("10:20:12,15", 300).continued(Some(&first));
        assert_eq!(same.high, Lsn(100));
        // 15 ended, 21 began and ended, or another one is in progress.
        for later in ["10:20:12", "10:22:12,15", "10:20:12,15,16"] {
            let window = window(later, 300).continued(Some(&same));
            assert_eq!(window.high, Lsn(300), "{later}");
        }
        assert_eq!(window("10:20:12,15", 300).continued(None).high, Lsn(300));
    }

    #[test]
    fn only_a_page_without_a_record_is_rounded_down() {
        let layout = LogLayout {
            page_size: 8192,
            segment_size: 16 << 20,
        };
        assert_eq!(layout.last_record_end(Lsn(8192 * 3 + 24)), Lsn(8192 * 3));
        assert_eq!(
            layout.last_record_end(Lsn(8192 * 3 + 32)),
            Lsn(8192 * 3 + 32)
        );
        assert_eq!(layout.last_record_end(Lsn((16 << 20) + 40)), Lsn(16 << 20));
        assert_eq!(
            layout.last_record_end(Lsn((16 << 20) + 24)),
            Lsn((16 << 20) + 24)
        );
        assert_eq!(layout.last_record_end(Lsn(8192)), Lsn(8192));
    }
}
