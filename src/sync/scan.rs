//! Where a scan stands, from its first page to its end.
//!
//! ```text
//! Idle ─► Pages ─► Searching ─► Missing ─► Idle
//! Idle ─► Changed ─► Idle
//! ```
//!
//! Related tables come first, each through `Pages`, `Searching` and `Missing` of its own: so
//! what is read of the main table behind them is joined with what they have now. A scan that
//! goes on behind a page of the main table has read them already.
//!
//! `Pages` reads the whole table in key order. Only when every page is applied is the
//! engine asked, some at a time, which of its records no page had (`Searching`); these are
//! read again by key (`Missing`), so a record that was inserted behind the scan, or whose key sorts
//! elsewhere than expected, is found after all and never taken for a leaver. A poll that reads
//! changed rows only (`Changed`) is no scan: it ends with its last page. An error
//! anywhere ends the session with the scan unfinished: it goes on behind its last applied
//! page, and nothing was proved absent.

use rollcall_contract::{Key, PageRequest, Since, TableNo};
use rollcall_core::id::RunId;

use super::window::Purpose;
use super::work::{Missing, ScanPlace};

/// What is to be read next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A page of the table.
    Page,
    /// Records by key.
    Keys(Vec<Key>),
    /// Nothing now: pages wait for their windows.
    Wait,
    /// All pages are applied: ask the engine what is missing, or what else is.
    AskMissing,
    /// Everything is applied: end the scan.
    End,
    /// Everything of a related table is applied: the next one follows.
    EndTable,
    /// Every changed row is applied: end the poll.
    EndPoll,
    /// No scan is under way.
    Nothing,
}

/// At most so many keys are read again in one request.
const KEYS_PER_READ: usize = 1000;

/// At most so many pages of a scan wait for their windows, so memory stays bounded while
/// reading never waits for a window to close.
const PAGES_AHEAD: usize = 3;

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Pages {
        after: Option<Key>,
        number: u64,
        exhausted: bool,
    },
    Searching {
        found: Vec<Key>,
        is_asked: bool,
    },
    Missing {
        keys: Vec<Key>,
    },
    Changed {
        since: Since,
        after: Option<Key>,
        exhausted: bool,
    },
}

/// The state of one source's scan.
#[derive(Debug, Default)]
pub struct Scan {
    phase: Phase,
    /// The table that is read.
    table: TableNo,
    /// The last one that is read before the main table.
    last_related: TableNo,
    /// How the main table is read behind the related ones.
    then: Phase,
    /// The run that it is.
    run: Option<RunId>,
    /// Pages read and not yet applied.
    in_flight: usize,
}

impl Scan {
    /// Begins, or goes on, at a place, behind so many related tables.
    pub fn begin(&mut self, place: ScanPlace, related: usize) {
        let has_read_them = place.next_page > 0;
        let main = Phase::Pages {
            after: place.after,
            number: place.next_page,
            exhausted: false,
        };
        self.run = Some(place.run);
        self.begin_behind(if has_read_them { 0 } else { related }, main);
    }

    /// Reads so many related tables, and then the main one.
    fn begin_behind(&mut self, related: usize, main: Phase) {
        self.in_flight = 0;
        self.last_related = TableNo::at(related);
        self.then = main;
        self.table = TableNo::MAIN;
        self.next_table();
    }

    /// The next table is read, the main one last.
    pub fn next_table(&mut self) {
        if self.table < self.last_related {
            self.table = TableNo::at(self.table.index() + 1);
            self.phase = Phase::Pages {
                after: None,
                number: 0,
                exhausted: false,
            };
        } else {
            self.table = TableNo::MAIN;
            self.last_related = TableNo::MAIN;
            self.phase = std::mem::take(&mut self.then);
        }
    }

    /// The table that is read.
    pub fn table(&self) -> TableNo {
        self.table
    }

    /// The run of the scan that is under way.
    pub fn run(&self) -> Option<RunId> {
        self.run
    }

    /// Begins to read the rows that have changed since, behind so many related tables, which
    /// are read whole.
    pub fn begin_changed(&mut self, since: Since, related: usize) {
        let main = Phase::Changed {
            since,
            after: None,
            exhausted: false,
        };
        self.begin_behind(related, main);
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// What to do now, when no read is under way.
    pub fn what_next(&mut self) -> Next {
        match &mut self.phase {
            Phase::Idle => Next::Nothing,
            Phase::Pages {
                exhausted: false, ..
            }
            | Phase::Changed {
                exhausted: false, ..
            } if self.in_flight < PAGES_AHEAD => Next::Page,
            Phase::Changed {
                exhausted: true, ..
            } if self.in_flight == 0 => Next::EndPoll,
            Phase::Pages {
                exhausted: true, ..
            } if self.in_flight == 0 => {
                self.phase = Phase::Searching {
                    found: Vec::new(),
                    is_asked: true,
                };
                Next::AskMissing
            }
            Phase::Searching { is_asked, .. } if !*is_asked => {
                *is_asked = true;
                Next::AskMissing
            }
            Phase::Missing { keys } if !keys.is_empty() && self.in_flight == 0 => {
                let at = keys.len().saturating_sub(KEYS_PER_READ);
                Next::Keys(keys.split_off(at))
            }
            Phase::Missing { keys } if keys.is_empty() && self.in_flight == 0 => match self.table {
                TableNo::MAIN => Next::End,
                _ => Next::EndTable,
            },
            Phase::Pages { .. }
            | Phase::Searching { .. }
            | Phase::Missing { .. }
            | Phase::Changed { .. } => Next::Wait,
        }
    }

    /// The request for the next page.
    pub fn request(&self, limit_rows: usize, limit_bytes: usize) -> PageRequest {
        let (after, since) = match &self.phase {
            Phase::Pages { after, .. } => (after.clone(), None),
            Phase::Changed { after, since, .. } => (after.clone(), Some(since.clone())),
            Phase::Idle | Phase::Searching { .. } | Phase::Missing { .. } => (None, None),
        };
        PageRequest {
            after,
            limit_rows,
            limit_bytes,
            only: None,
            since,
        }
    }

    /// A page came; gives what it was read for.
    pub fn page_came(&mut self, last: Option<&Key>) -> Purpose {
        self.in_flight += 1;
        let (after, exhausted, purpose) = match &mut self.phase {
            Phase::Pages {
                after,
                number,
                exhausted,
            } => {
                let purpose = Purpose::Scan { number: *number };
                *number += 1;
                (after, exhausted, purpose)
            }
            Phase::Changed {
                after, exhausted, ..
            } => (after, exhausted, Purpose::Changed),
            Phase::Idle | Phase::Searching { .. } | Phase::Missing { .. } => {
                return Purpose::Scan { number: 0 };
            }
        };
        match last {
            Some(key) => *after = Some(key.clone()),
            None => *exhausted = true,
        }
        purpose
    }

    /// Records that were asked for by key came.
    pub fn keys_came(&mut self) {
        self.in_flight += 1;
    }

    /// A page of this scan was handed to the engine.
    pub fn applied(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The engine named some of what no page had.
    pub fn missing(&mut self, missing: Missing) {
        if let Phase::Searching { found, is_asked } = &mut self.phase {
            found.extend(missing.keys);
            *is_asked = false;
            if missing.is_last {
                let keys = std::mem::take(found);
                self.phase = Phase::Missing { keys };
            }
        }
    }

    /// The scan ended.
    pub fn end(&mut self) {
        *self = Scan::default();
    }
}
