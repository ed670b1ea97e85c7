//! The open log: one task reads and decodes.
//!
//! It takes every complete packet out of its buffer before it reads again, and hands a
//! batch over when the socket has nothing more, the log stands at a transaction's end and
//! there is room in the channel; while the consumer is busy the batch grows, and at its cap
//! the task stops reading, so that TCP slows the server down. Memory is bounded by three
//! batches: one with the consumer, one in the channel, one being filled.
//!
//! A server needs no answer from its replicas, so acknowledging only remembers how far the
//! store is, for the status. What shows that the server is alive are its heartbeats: when
//! nothing at all comes for long, while we were ready to take it, the connection is given
//! up. On an idle log the cursor itself moves, by [`StreamItem::Progress`], at most about
//! once a second unless asked for.

mod reader;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rollcall_contract::{
    Acknowledge, ChangeStream, ConnectorError, Cursor, KeptSmall, Small, StreamItem,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::decode::Decoder;
use crate::position::{Point, Position};
use crate::wire::ByteStream;

/// How the log is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamOptions {
    /// How often an idle log moves the cursor.
    pub(crate) progress_interval: Duration,
    /// How long the server may be silent.
    pub(crate) silence_limit: Duration,
}

/// A server that is busy may be late with its heartbeats.
const PATIENCE: Duration = Duration::from_secs(30);

impl StreamOptions {
    /// For a server that sends a heartbeat this often.
    pub(crate) fn for_heartbeat(heartbeat: Duration) -> StreamOptions {
        StreamOptions {
            progress_interval: Duration::from_secs(1),
            silence_limit: (heartbeat * 3).max(PATIENCE),
        }
    }
}

/// How long a call for hurry is in force: what is waited for may not be committed yet.
const EAGER: Duration = Duration::from_secs(1);
/// Limit for closing.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Being replaced this often within [`CLASH_WINDOW`] is no accident.
const CLASHES: usize = 3;
const CLASH_WINDOW: Duration = Duration::from_secs(60);

/// What outlives one opening of the log.
#[derive(Default)]
pub(crate) struct Shared {
    durable: Mutex<Option<Point>>,
    /// When another reader with our id took the log over.
    clashes: Mutex<Vec<Instant>>,
    /// Until when every move of the position is worth an item: somebody waits for it.
    eager_until: Mutex<Option<Instant>>,
    hurry: Notify,
    small: KeptSmall,
}

impl Shared {
    /// How far the store is.
    pub(crate) fn durable(&self) -> Option<Point> {
        self.durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_durable(&self, point: Point) {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(point);
    }

    /// Remembers that another reader took the log over.
    pub(crate) fn note_clash(&self) {
        let mut clashes = self.clashes.lock().unwrap_or_else(PoisonError::into_inner);
        clashes.retain(|at| at.elapsed() < CLASH_WINDOW);
        clashes.push(Instant::now());
    }

    /// Whether another reader takes the log over again and again.
    pub(crate) fn is_contested(&self) -> bool {
        let clashes = self.clashes.lock().unwrap_or_else(PoisonError::into_inner);
        clashes
            .iter()
            .filter(|at| at.elapsed() < CLASH_WINDOW)
            .count()
            >= CLASHES
    }

    fn is_eager(&self) -> bool {
        let until = self.eager_until.lock();
        until
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    fn hurry(&self) {
        let until = Instant::now() + EAGER;
        *self
            .eager_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.hurry.notify_one();
    }
}

/// The log from a position on.
pub(crate) struct MySqlStream {
    items: mpsc::Receiver<Result<StreamItem, ConnectorError>>,
    closing: CancellationToken,
    task: JoinHandle<()>,
    /// Ends the task when the stream is dropped without being closed.
    _ends: DropGuard,
}

impl MySqlStream {
    /// Serves a log that was asked for on this byte stream.
    pub(crate) fn spawn(
        stream: Box<dyn ByteStream>,
        address: String,
        decoder: Decoder,
        shared: Arc<Shared>,
        options: StreamOptions,
    ) -> MySqlStream {
        let (give, items) = mpsc::channel(1);
        let closing = CancellationToken::new();
        let reader =
            reader::Reader::new(stream, address, decoder, shared, options, closing.clone());
        MySqlStream {
            items,
            closing: closing.clone(),
            task: tokio::spawn(reader.run(give)),
            _ends: closing.drop_guard(),
        }
    }
}

#[async_trait]
impl ChangeStream for MySqlStream {
    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        self.items.recv().await.unwrap_or_else(|| {
            Err(ConnectorError::transient(
                "stream_ended",
                "The log has ended; it has to be opened again.",
            ))
        })
    }

    async fn close(mut self: Box<Self>) {
        self.closing.cancel();
        self.items.close();
        while self.items.recv().await.is_some() {}
        if tokio::time::timeout(CLOSE_LIMIT, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

/// Remembers what is durable.
pub(crate) struct MySqlAcknowledge {
    pub(crate) shared: Arc<Shared>,
}

impl Acknowledge for MySqlAcknowledge {
    fn acknowledge(&self, cursor: &Cursor) {
        // A cursor of another connector's version cannot come from this stream.
        if let Ok(position) = Position::decode(cursor) {
            self.shared.set_durable(position.whole);
        }
    }

    fn hurry(&self) {
        self.shared.hurry();
    }

    fn keep_small(&self, small: Option<Small>) {
        self.shared.small.set(small);
    }
}

#[cfg(test)]
mod tests;
