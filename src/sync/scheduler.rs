//! Has a source reconciled when its schedule says so.
//!
//! Only one order of a schedule is ever under way: the next one is thought of when the one
//! before has begun, and while anything is read from the first row to the last, whatever the
//! reason, none is given. What is served is stored with the beginning of each
//! reconciliation, in the same commit, so a time that passed while the daemon was down, or
//! while it was refused, is caught up once, and a crash neither forgets nor doubles it.

use std::sync::Arc;
use std::time::Duration;

use rollcall_core::id::SourceId;
use rollcall_store::Readers;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::clock::now_us;
use super::shared::SourceLive;
use super::work::{Cause, Order};
use crate::schedule::Schedule;

/// Looked at least this often, so that a clock that was set is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// While a reconciliation runs, its end is looked for this often.
const RUNNING_EVERY: Duration = Duration::from_millis(500);

/// What one source's schedule needs.
pub struct Scheduler {
    /// The source's number.
    pub id: SourceId,
    /// The source's name.
    pub name: String,
    /// When it is due.
    pub schedule: Schedule,
    /// What is stored of it.
    pub readers: Readers,
    /// What runs, and where the next time is shown.
    pub live: Arc<SourceLive>,
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
    /// Ends it.
    pub cancel: CancellationToken,
}

impl Scheduler {
    /// Runs until cancelled.
    pub async fn run(self) {
        let stop = self.cancel.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(self) {
        let started_us = now_us();
        loop {
            // Before the very first load nothing is due but that.
            let served_us = match self.readers.served_us(self.id) {
                Ok(served_us) => served_us.unwrap_or_else(now_us),
                Err(e) => {
                    tracing::warn!(source = self.name, "the schedule cannot be read: {e}");
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
            };
            let Some(due_us) = self.schedule.due_after(served_us, &self.name) else {
                return;
            };
            self.live.set_next_due(due_us);
            if self.live.snapshot().scan.is_some() {
                tokio::time::sleep(RUNNING_EVERY).await;
                continue;
            }
            let wait_us = u64::try_from(due_us - now_us()).unwrap_or(0);
            if wait_us > 0 {
                tokio::time::sleep(Duration::from_micros(wait_us).min(LOOK_EVERY)).await;
                continue;
            }
            let cause = if due_us < started_us && !self.schedule.is_continuous() {
                Cause::CaughtUp
            } else {
                Cause::Schedule
            };
            let (began, run) = oneshot::channel();
            let order = Order::Reconcile {
                cause,
                began: Some(began),
            };
            if self.orders.send(order).await.is_err() {
                return;
            }
            // A session that ended before it began is asked again.
            let _ = run.await;
        }
    }
}
