//! One sink's way through the outbox.
//!
//! The lane's position is the last one that the destination certainly has. It starts from
//! the destination's word (or the store's, where the destination cannot tell), and after any
//! failure it starts again from there, so nothing is skipped; what is delivered twice to a
//! destination without transactions carries the same event id both times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rollcall_contract::{ConnectorError, Refused, Sink, SinkStart};
use rollcall_core::event::EventKind;
use rollcall_store::{OutboxBlock, Position, Readers};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::render::{Placed, Renderer};
use crate::observe::names;
use crate::sync::backoff::{self, Backoff};
use crate::sync::work::Work;
use crate::sync::worker;

/// At most so many events go into one delivery (one Kafka transaction) …
const EVENTS_PER_DELIVERY: usize = 5_000;

/// … and about so many bytes: a transaction of Kafka costs the same whatever is in it, and all
/// of a delivery is in memory.
const BYTES_PER_DELIVERY: usize = 1_900_000;

/// What the headers of a record take, about.
const HEADER_BYTES: usize = 500;

/// At most so many bytes of blocks are read from the store at once.
const READ_BYTES: usize = 1 << 20;

/// How long the store's copy of the position may lag behind.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the daemon shows of a sink.
#[derive(Default)]
pub struct SinkLive {
    /// The last position that is certain.
    pub position: AtomicU64,
    state: std::sync::Mutex<(String, String)>,
}

impl SinkLive {
    /// State (`starting`, `delivering`, `waiting`, `refused`, `stopped`) and reason.
    pub fn state(&self) -> (String, String) {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    fn set_state(&self, state: &str, reason: &str) {
        let mut held = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *held = (state.to_owned(), reason.to_owned());
    }
}

/// One sink and everything that its delivery needs.
pub struct Lane {
    /// The sink's name.
    pub name: String,
    /// The connector.
    pub sink: Box<dyn Sink>,
    /// Makes records of events.
    pub renderer: Renderer,
    /// The newest blocks.
    pub hub: Arc<Hub>,
    /// The older blocks.
    pub readers: Readers,
    /// Where positions and refused records are reported.
    pub engine: mpsc::Sender<Work>,
    /// What the daemon shows.
    pub live: Arc<SinkLive>,
    /// The position in the store when the daemon started.
    pub stored_position: u64,
    /// The last position of the outbox when the daemon started.
    pub stored_head: u64,
    /// Told when this instance was fenced by another one: the daemon stops.
    pub fatal: mpsc::Sender<String>,
    /// Ends the lane.
    pub cancel: CancellationToken,
}

/// What a delivery of several parts has reached.
struct Sent {
    end: u64,
    refused: Vec<Refused>,
}

enum Ended {
    Cancelled,
    Failed(ConnectorError),
}

impl From<ConnectorError> for Ended {
    fn from(e: ConnectorError) -> Self {
        Ended::Failed(e)
    }
}

impl Lane {
    /// Runs until cancelled; then everything that is in the outbox at that moment was either
    /// delivered or stays for the next start.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(backoff::LONGEST);
        self.live
            .position
            .store(self.stored_position, Ordering::Relaxed);
        loop {
            let ended = self.session(&mut backoff).await;
            let Ended::Failed(e) = ended else { break };
            if e.code() == "fenced" {
                self.live.set_state("stopped", &e.to_string());
                // The daemon is stopping already if nobody listens.
                let _ = self.fatal.send(format!("sink {}: {e}", self.name)).await;
                break;
            }
            let (state, wait) = if e.is_transient() {
                ("waiting", backoff.pause())
            } else {
                ("refused", backoff.longest())
            };
            tracing::warn!(
                sink = self.name,
                state,
                retry_in_ms = wait.as_millis() as u64,
                "{e}"
            );
            self.live.set_state(state, &e.to_string());
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.report(Vec::new()).await;
        self.sink.stop().await;
    }

    async fn session(&mut self, backoff: &mut Backoff) -> Ended {
        match self.deliver_on(backoff).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn deliver_on(
        &mut self,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Ended> {
        self.live.set_state("starting", "");
        let start = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Ended::Cancelled),
            start = self.sink.start() => start?,
        };
        let mut position = self.certain(start).await;
        self.live.position.store(position, Ordering::Relaxed);
        let recovered = self.sink.recovered();
        if !recovered.is_empty() {
            self.report(recovered).await;
        }
        self.live.set_state("delivering", "");
        let mut head = self.hub.head();
        let mut reported = Instant::now();
        let mut dirty = false;
        loop {
            // What is behind the position then goes on at the next start.
            if self.cancel.is_cancelled() {
                return Err(Ended::Cancelled);
            }
            if *head.borrow_and_update() <= position {
                if dirty && reported.elapsed() >= REPORT_EVERY {
                    self.report(Vec::new()).await;
                    (reported, dirty) = (Instant::now(), false);
                }
                self.wait(&mut head, dirty).await?;
                continue;
            }
            let blocks = self.blocks_behind(position).await?;
            let (end, refused) = self.deliver_blocks(&blocks, position).await?;
            backoff.reset();
            position = end;
            self.live.position.store(position, Ordering::Relaxed);
            dirty = true;
            if !refused.is_empty() || reported.elapsed() >= REPORT_EVERY {
                self.report(refused).await;
                (reported, dirty) = (Instant::now(), false);
            }
        }
    }

    async fn wait(&mut self, head: &mut watch::Receiver<u64>, dirty: bool) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Ended::Cancelled),
            changed = head.changed() => changed.map_err(|_| Ended::Cancelled),
            () = tokio::time::sleep(REPORT_EVERY), if dirty => Ok(()),
        }
    }

    /// The position from which to go on.
    async fn certain(&mut self, start: SinkStart) -> u64 {
        let stored = self.live.position.load(Ordering::Relaxed);
        match start {
            SinkStart::Known(position) => {
                if position > self.stored_head.max(*self.hub.head().borrow()) {
                    let sink = self.name.clone();
                    // Without an engine the daemon is stopping.
                    let _ = self
                        .engine
                        .send(Work::StoreRestored { sink, position })
                        .await;
                }
                position
            }
            SinkStart::Empty | SinkStart::Unknown => stored,
        }
    }

    /// Blocks from the position on: what is in memory if it reaches back so far.
    async fn blocks_behind(&mut self, position: u64) -> Result<Vec<Arc<OutboxBlock>>, Ended> {
        let mut blocks = Vec::new();
        let mut next = position + 1;
        let mut events = 0;
        while events < EVENTS_PER_DELIVERY {
            let Some(block) = self.hub.block_with(next) else {
                break;
            };
            next = block.last_position().0 + 1;
            events += block.count as usize;
            blocks.push(block);
        }
        if !blocks.is_empty() {
            return Ok(blocks);
        }
        let readers = self.readers.clone();
        let read =
            worker::elsewhere(move || readers.outbox_from(Position(position + 1), READ_BYTES))
                .await;
        match read {
            Ok(Ok(blocks)) if !blocks.is_empty() => Ok(blocks),
            Ok(Ok(_)) => Err(ConnectorError::transient(
                "outbox_empty",
                format!("The outbox holds nothing behind position {position}."),
            )
            .into()),
            Ok(Err(e)) => Err(ConnectorError::transient("outbox_unreadable", e.to_string()).into()),
            Err(_) => Err(ConnectorError::transient(
                "outbox_unreadable",
                "Reading the outbox was aborted.",
            )
            .into()),
        }
    }

    /// Delivers what lies behind the position in these blocks. Gives the new position.
    async fn deliver_blocks(
        &mut self,
        blocks: &[Arc<OutboxBlock>],
        position: u64,
    ) -> Result<(u64, Vec<Refused>), Ended> {
        let mut sent = Sent {
            end: position,
            refused: Vec::new(),
        };
        let mut placed: Vec<Placed<'_>> = Vec::new();
        let mut bytes = 0;
        for block in blocks {
            let at_most = EVENTS_PER_DELIVERY - placed.len();
            placed.reserve(at_most.min(block.count as usize));
            for event in block.events() {
                let event = event.map_err(|e| {
                    ConnectorError::definite(
                        "outbox_damaged",
                        format!("{e}; it begins at position {}.", block.first_position),
                        "Restore the store from a backup; see docs/operations.md.",
                    )
                })?;
                if event.position.0 > position {
                    bytes += event.event.data.len() + HEADER_BYTES;
                    placed.push(Placed {
                        position: event.position.0,
                        sequence: event.sequence.map(|s| s.0),
                        event: event.event,
                        block: &block.bytes,
                    });
                }
                if placed.len() == EVENTS_PER_DELIVERY || bytes >= BYTES_PER_DELIVERY {
                    self.deliver_chunk(&placed, &mut sent).await?;
                    placed.clear();
                    bytes = 0;
                }
            }
        }
        self.deliver_chunk(&placed, &mut sent).await?;
        Ok((sent.end, sent.refused))
    }

    /// Delivers events at once, unless the lane is to end.
    async fn deliver_chunk(&mut self, chunk: &[Placed<'_>], sent: &mut Sent) -> Result<(), Ended> {
        let Some(last) = chunk.last().filter(|_| !self.cancel.is_cancelled()) else {
            return Ok(());
        };
        let records = self.renderer.render(chunk);
        let count = records.len() as u64;
        if !records.is_empty() {
            let refused = self.sink.deliver(records).await?;
            for r in &refused {
                tracing::warn!(
                    sink = self.name,
                    position = r.sequence,
                    reason = r.reason,
                    "parked: {}",
                    r.detail
                );
            }
            sent.refused.extend(refused);
        }
        sent.end = last.position;
        self.measure(chunk, count);
        Ok(())
    }

    fn measure(&self, chunk: &[Placed<'_>], records: u64) {
        metrics::counter!(names::DELIVERED, "sink" => self.name.clone()).increment(records);
        let now = crate::sync::clock::now_us();
        let oldest = chunk
            .iter()
            .filter(|p| p.event.kind != EventKind::RawChange && !p.event.position.is_empty())
            .map(|p| p.event.time_us)
            .min();
        if let Some(oldest) = oldest {
            let seconds = (now - oldest).max(0) as f64 / 1e6;
            metrics::histogram!(names::COMMIT_TO_DELIVERED, "sink" => self.name.clone())
                .record(seconds);
        }
    }

    async fn report(&mut self, refused: Vec<Refused>) {
        let position = self.live.position.load(Ordering::Relaxed);
        let sink = self.name.clone();
        // Without an engine the daemon is stopping; the destination or the next start knows.
        let _ = self
            .engine
            .send(Work::Delivered {
                sink,
                position,
                refused,
            })
            .await;
    }
}
