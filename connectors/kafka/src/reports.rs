//! Delivery reports, counted.
//!
//! A block is under way from its first record to the last report; no report of one block
//! can come after that, because the sender waits for all of them (or throws the producer
//! away). So a counter and the list of failures are enough: a delivered record costs one
//! atomic addition, and the sender is woken once, when the number it waits for is reached.
//! [`Reports::wait`] publishes its target before it looks at the counter, and a report adds to
//! the counter before it looks at the target; with sequential consistency one of them sees
//! the other, so the wake-up is never lost.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

/// The reports of one block.
#[derive(Default)]
pub(crate) struct Reports {
    reported: AtomicUsize,
    target: AtomicUsize,
    failed: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
    reached: Condvar,
}

impl Reports {
    /// Before the first record of a block.
    pub(crate) fn reset(&self) {
        self.failures().clear();
        self.target.store(usize::MAX, SeqCst);
        self.reported.store(0, SeqCst);
    }

    /// One report. `tag` is what the record was sent with.
    pub(crate) fn report(&self, tag: usize, failure: Option<RDKafkaErrorCode>) {
        if let Some(code) = failure {
            self.failures().push((tag, code));
        }
        let reported = self.reported.fetch_add(1, SeqCst) + 1;
        if reported >= self.target.load(SeqCst) {
            let _gate = self.failures();
            self.reached.notify_all();
        }
    }

    /// How many reports have come.
    pub(crate) fn reported(&self) -> usize {
        self.reported.load(SeqCst)
    }

    /// Waits until `count` reports have come, as long as at least one comes in every
    /// `patience`. False when none did.
    pub(crate) fn wait(&self, count: usize, patience: Duration) -> bool {
        self.target.store(count, SeqCst);
        let mut gate = self.failures();
        let (mut seen, mut since) = (self.reported(), Instant::now());
        while self.reported() < count {
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                return false;
            }
            // Progress below the target wakes nobody: look now and then.
            let nap = left.min(Duration::from_millis(500));
            gate = self
                .reached
                .wait_timeout(gate, nap)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if self.reported() != seen {
                (seen, since) = (self.reported(), Instant::now());
            }
        }
        true
    }

    /// Whether any record has failed so far.
    pub(crate) fn has_failed(&self) -> bool {
        !self.failures().is_empty()
    }

    /// Takes the failures of this block.
    pub(crate) fn take_failures(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        std::mem::take(&mut *self.failures())
    }

    fn failures(&self) -> MutexGuard<'_, Vec<(usize, RDKafkaErrorCode)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_waiter_is_woken_by_the_last_report_and_gives_up_without_any() {
        let reports = Arc::new(Reports::default());
        reports.reset();
        let reporter = {
            let reports = Arc::clone(&reports);
            std::thread::spawn(move || {
                for tag in 0..1_000 {
                    let failure = (tag == 7).then_some(RDKafkaErrorCode::MessageSizeTooLarge);
                    reports.report(tag, failure);
                }
            })
        };
        assert!(reports.wait(1_000, Duration::from_secs(5)));
        reporter.join().unwrap();
        assert_eq!(
            reports.take_failures(),
            vec![(7, RDKafkaErrorCode::MessageSizeTooLarge)]
        );
        assert!(!reports.wait(1_001, Duration::from_millis(5)));
    }
}
