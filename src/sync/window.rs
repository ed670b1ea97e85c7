//! The page window: between reading a page and applying it.
//!
//! A page is read in a snapshot of its own while the log flows. It is applied when the log
//! has been applied past everything that the snapshot saw, and until then every log event
//! that may be newer than the snapshot takes its record out of the page: that event itself
//! carries the record. So an old page row can never overwrite a newer event, and an absence
//! that a page found is cancelled by any newer event of that record. Taking a row out
//! needlessly costs nothing, which is why the connector may answer "newer" in doubt.
//!
//! The window opens before the page is asked for: events that arrive while the read is under
//! way are remembered by key and shown to the page when it comes.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use rollcall_contract::{Batch, Before, Change, Cursor, Key, Op, Page, TableNo, TxId, Window};

/// What a page was read for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The n-th page of the scan that is under way.
    Scan {
        /// Counted from 0 within one run of the scan.
        number: u64,
    },
    /// Records whose values were not in the log: read again by key.
    Repair,
    /// Records that a whole scan did not find: read again by key before anything follows.
    Absence,
    /// Records that somebody wants to be read by key. What does not exist is absent.
    Sync,
    /// Rows that a change column names, while the table is polled. What is not among them is
    /// not absent.
    Changed,
    /// Records of a plan that is to be applied, which stood on the page of that number.
    Plan {
        /// See [`super::planned::PlannedRecord::page`].
        page: u32,
    },
}

/// The window while no log is followed: it is closed at once, and a page is newer than
/// whatever was stored before.
#[derive(Clone, Copy, Debug)]
pub struct NoLog;

impl Window for NoLog {
    fn may_be_newer(&self, _tx: &TxId) -> bool {
        false
    }

    fn is_closed_by(&self, _cursor: &Cursor) -> bool {
        true
    }
}

/// A page that waits for its window to close.
pub struct HeldPage {
    /// Of which table of the source.
    pub table: TableNo,
    /// Its rows.
    pub rows: Batch,
    /// Key of the last row; none when nothing follows.
    pub last: Option<Key>,
    /// What it was read for.
    pub purpose: Purpose,
    /// Answers for single transactions.
    pub window: Arc<dyn Window>,
    /// Records that were asked for by key; none of a page of a scan.
    pub asked: Vec<Key>,
    /// Those of them that the page does not have, and that the log has not named since.
    pub absent: Vec<Key>,
    /// The key of each row; none when it cannot be read.
    keys: Vec<Option<Key>>,
    /// Whether the row of that index still counts.
    alive: Vec<bool>,
    /// Where each key is, since something first had to be looked for.
    index: OnceCell<HashMap<Key, usize>>,
}

impl HeldPage {
    /// Holds a page of a table. `asked` are the keys that were asked for, empty for a page of
    /// a scan.
    pub fn new(page: Page, table: TableNo, purpose: Purpose, asked: Vec<Key>) -> HeldPage {
        let key = |change: Change<'_>| Key::of_row(change.table(), &change.after()?);
        let mut held = HeldPage {
            table,
            keys: page.rows.changes().map(key).collect(),
            alive: vec![true; page.rows.len()],
            rows: page.rows,
            last: page.last,
            purpose,
            window: Arc::from(page.window),
            asked,
            absent: Vec::new(),
            index: OnceCell::new(),
        };
        held.absent = held.unfound().cloned().collect();
        held
    }

    /// Records that were asked for and that the page does not have, whatever the log says.
    pub fn unfound(&self) -> impl Iterator<Item = &Key> {
        self.asked.iter().filter(|key| self.row_of(key).is_none())
    }

    /// The key of the row of that index.
    pub fn key(&self, row: usize) -> Option<&Key> {
        self.keys.get(row)?.as_ref()
    }

    /// The keys of all rows that have one, whether these count or not.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().flatten()
    }

    fn row_of(&self, key: &Key) -> Option<usize> {
        let index = self.index.get_or_init(|| {
            let keys = self.keys.iter().enumerate();
            keys.filter_map(|(row, key)| Some((key.clone()?, row)))
                .collect()
        });
        index.get(key).copied()
    }

    /// Whether it is part of a whole scan.
    pub fn is_of_scan(&self) -> bool {
        matches!(self.purpose, Purpose::Scan { .. } | Purpose::Absence)
    }

    /// Whether the row of that index still counts.
    pub fn is_alive(&self, row: usize) -> bool {
        self.alive.get(row).copied().unwrap_or(false)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(row) = self.row_of(key) {
            self.alive[row] = false;
        }
        self.absent.retain(|k| k != key);
    }

    fn observe(&mut self, event: &Seen) {
        if event.table != self.table || !self.window.may_be_newer(&event.tx) {
            return;
        }
        match &event.key {
            Some(key) => self.forget(key),
            None => {
                self.alive.fill(false);
                self.absent.clear();
            }
        }
    }
}

/// One log event as far as pages care.
struct Seen {
    table: TableNo,
    tx: TxId,
    /// None: all records of the table (truncate).
    key: Option<Key>,
}

/// A read that is under way.
#[derive(Debug)]
#[must_use]
pub struct Opened(usize);

/// The pages of one source that wait, oldest first. They close in the order in which they
/// were read, since each window's high mark is at least its predecessor's.
#[derive(Default)]
pub struct Windows {
    held: VecDeque<HeldPage>,
    /// Events since the oldest read that is under way began.
    recent: Vec<Seen>,
    under_way: usize,
}

impl Windows {
    /// Opens a window. To be called before the page is asked for.
    pub fn open(&mut self) -> Opened {
        self.under_way += 1;
        Opened(self.recent.len())
    }

    /// The read came to nothing.
    pub fn cancel(&mut self, opened: Opened) {
        let Opened(_) = opened;
        self.ended();
    }

    /// Adds a page behind the others.
    pub fn hold(&mut self, opened: Opened, mut page: HeldPage) {
        for event in self.recent.get(opened.0..).unwrap_or_default() {
            page.observe(event);
        }
        self.ended();
        self.held.push_back(page);
    }

    fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.recent.clear();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Lets the waiting pages see a batch of the log. To be called before the batch is
    /// handed on.
    pub fn observe(&mut self, batch: &Batch) {
        if self.held.is_empty() && self.under_way == 0 {
            return;
        }
        for change in batch.changes() {
            let table = change.table();
            let rows = [change.after(), Before::row(change.before())];
            if change.op() == Op::Truncate {
                self.see(Seen {
                    table: change.table_no(),
                    tx: change.tx().id.clone(),
                    key: None,
                });
            }
            for row in rows.into_iter().flatten() {
                if let Some(key) = Key::of_row(table, &row) {
                    self.see(Seen {
                        table: change.table_no(),
                        tx: change.tx().id.clone(),
                        key: Some(key),
                    });
                }
            }
        }
    }

    fn see(&mut self, event: Seen) {
        for page in &mut self.held {
            page.observe(&event);
        }
        if self.under_way > 0 {
            self.recent.push(event);
        }
    }

    /// The next page whose window the log, handed on up to this cursor, has closed.
    pub fn pop_closed(&mut self, cursor: &Cursor) -> Option<HeldPage> {
        if self.held.front()?.window.is_closed_by(cursor) {
            self.held.pop_front()
        } else {
            None
        }
    }

    /// Waits for nothing any more; gives the pages that waited.
    pub fn clear(&mut self) -> VecDeque<HeldPage> {
        self.recent.clear();
        self.under_way = 0;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use rollcall_contract::BatchBuilder;

    use super::*;

    /// Nothing closes it, and everything is newer.
    struct Open;

    impl Window for Open {
        fn may_be_newer(&self, _: &TxId) -> bool {
            true
        }

        fn is_closed_by(&self, _: &Cursor) -> bool {
            false
        }
    }

    fn key(id: &str) -> Key {
        let mut key = Key::new();
        key.push(id.as_bytes());
        key
    }

    #[test]
    fn what_was_asked_for_stays_known_whatever_the_log_names() {
        let page = Page {
            rows: BatchBuilder::default().build(Cursor::nowhere("")),
            last: None,
            window: Box::new(Open),
        };
        let asked = vec![key("1"), key("2")];
        let mut windows = Windows::default();
        let window = windows.open();
        let held = HeldPage::new(page, TableNo::MAIN, Purpose::Repair, asked.clone());
        windows.hold(window, held);
        let named = |key| Seen {
            table: TableNo::MAIN,
            tx: TxId::default(),
            key,
        };
        windows.see(named(Some(key("2"))));
        assert_eq!(windows.held[0].absent, [key("1")]);
        windows.see(named(None));
        let held = windows.clear();
        assert!(windows.is_empty() && held[0].absent.is_empty());
        assert_eq!(held[0].asked, asked);
        assert!(held[0].unfound().eq(&asked));
    }
}
