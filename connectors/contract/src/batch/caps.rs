//! How large a batch becomes.

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

impl BatchCaps {
    /// Beside another source that is at work: what it brings waits until a batch is applied,
    /// so batches are small, but for transactions that update or delete: how much one takes from
    /// people is judged a batch at a time.
    pub fn beside_others(self) -> BatchCaps {
        BatchCaps {
            changes: self.changes.min(25),
            most_changes: self.most_changes.min(25),
            bytes: self.bytes.min(64 << 10),
        }
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
