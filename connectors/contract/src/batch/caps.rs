//! How large a batch becomes.

use std::sync::atomic::{AtomicUsize, Ordering};

/// When a reader closes a batch. One that somebody waits for ends with the first transaction
/// behind `changes`; while nobody does it grows. It never exceeds the two others by more than the
/// smallest piece that the log is read in (a change, or an event of rows), and ends with a
/// transaction where one ends in its second half. So a transaction of up to half of them is
/// never split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchCaps {
    /// Changes in a batch that is waited for.
    pub changes: usize,
    /// Changes in any batch.
    pub most_changes: usize,
    /// Bytes that a batch holds in memory.
    pub bytes: usize,
}

/// What a reader has gathered for a batch, and where in the log it is.
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// Changes that are whole.
    pub changes: usize,
    /// Bytes that they hold in memory.
    pub bytes: usize,
    /// Whether each of them is an insert.
    pub only_inserts: bool,
    /// Whether their last transaction goes on.
    pub in_transaction: bool,
    /// Whether somebody waits for them.
    pub is_awaited: bool,
}

impl BatchCaps {
    /// Beside other sources that are at work: what they bring waits until a batch is applied,
    /// so batches are small.
    pub fn beside_others(self) -> BatchCaps {
        BatchCaps {
            changes: self.changes.min(25),
            most_changes: self.most_changes.min(25),
            bytes: self.bytes.min(64 << 10),
        }
    }

    /// Beside others, inside of a transaction that updates or deletes, which goes on for up to
    /// so many changes.
    fn taking(self, changes: usize) -> BatchCaps {
        BatchCaps {
            most_changes: self.most_changes.min(changes),
            ..self
        }
    }

    /// Whether a batch is full. At a transaction's end half of the cap is enough, so that a
    /// transaction which fits into the other half is never split; a batch that is waited for
    /// needs less.
    #[inline]
    pub fn are_reached(self, by: Gathered, small: Option<Small>) -> bool {
        let caps = match small {
            Some(small) if by.in_transaction && !by.only_inserts => self.taking(small.taking),
            Some(_) => self.beside_others(),
            None => self,
        };
        if by.in_transaction {
            return by.changes >= caps.most_changes || by.bytes >= caps.bytes;
        }
        (by.is_awaited && by.changes >= caps.changes)
            || by.changes >= caps.most_changes / 2
            || by.bytes >= caps.bytes / 2
    }
}

impl Default for BatchCaps {
    fn default() -> Self {
        BatchCaps {
            changes: 500,
            most_changes: 20_000,
            bytes: 8 << 20,
        }
    }
}

/// How batches are kept small ([`BatchCaps::beside_others`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Small {
    /// Changes in a batch that ends inside of a transaction which updates or deletes. How much a
    /// transaction takes from people is judged a batch at a time, so one of these has to be large
    /// enough to be too much.
    pub taking: usize,
}

/// Whether a reader keeps its batches small, as whoever acknowledges them says.
#[derive(Debug, Default)]
pub struct KeptSmall {
    /// [`Small::taking`]; zero while they are not.
    taking: AtomicUsize,
}

impl KeptSmall {
    /// How small they are from the next one on, if they are.
    pub fn set(&self, small: Option<Small>) {
        let taking = small.map_or(0, |s| s.taking.max(1));
        self.taking.store(taking, Ordering::Relaxed);
    }

    /// What was set last.
    pub fn get(&self) -> Option<Small> {
        match self.taking.load(Ordering::Relaxed) {
            0 => None,
            taking => Some(Small { taking }),
        }
    }
}
