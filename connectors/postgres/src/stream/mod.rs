//! The open log: one task reads and decodes, another one answers the server.
//!
//! The reader owns the receiving half. It takes every complete message out of its buffer
//! before it reads again, and hands a batch over when the socket has nothing more, the log
//! stands at a transaction's end and there is room in the channel; while the consumer is
//! busy the batch grows, and at its cap the reader stops reading, so that TCP slows the
//! server down. Memory is bounded by three batches: one with the consumer, one in the
//! channel, one being filled.
//!
//! The other task ([`feedback`]) owns the sending half and shares nothing with the reader
//! but a few atomic numbers, so neither a busy decoder nor a waiting consumer ever delays
//! an answer to the server.
//!
//! What is confirmed never passes what was acknowledged, and what is acknowledged is
//! durable in the store. So the slot is never ahead of the stored cursor, and finding it
//! ahead at the next start is proof that someone else moved it. On an idle log the cursor
//! itself moves, by [`StreamItem::Progress`], at most about once a second unless asked for.

mod feedback;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rollcall_contract::{Acknowledge, ChangeStream, ConnectorError, Cursor, Small, StreamItem};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::decode::Decoder;
use crate::position::PgCursor;
use crate::wire::ByteStream;
use feedback::Shared;

/// How the log is served.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Leave out rows that themselves arrived by replication (server 16 and above).
    pub skip_replicated: bool,
    /// The server's own time-out; none when it is switched off.
    pub wal_sender_timeout: Option<Duration>,
    /// How often the server is asked where it stands, unless its own time-out wants it oftener.
    pub ask_interval: Duration,
    /// How often an idle log moves the cursor.
    pub progress_interval: Duration,
    /// How much longer than its own time-out a server may be silent.
    pub patience: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            skip_replicated: false,
            wal_sender_timeout: Some(Duration::from_secs(60)),
            ask_interval: Duration::from_secs(1),
            progress_interval: Duration::from_secs(1),
            patience: Duration::from_secs(5),
        }
    }
}

impl StreamOptions {
    /// How often the server hears from us: well within its patience.
    pub fn status_interval(&self) -> Duration {
        let half = self.wal_sender_timeout.map(|t| t / 2);
        half.unwrap_or(Duration::MAX)
            .min(self.ask_interval)
            .max(Duration::from_millis(10))
    }

    /// How long the server may be silent although it is asked for an answer at every
    /// interval. A walsender that skips a large transaction answers only every half of its
    /// own time-out, so this is never less than the whole of that; a machine that is gone is
    /// noticed by the socket long before.
    pub fn silence_limit(&self) -> Duration {
        let server = self.wal_sender_timeout.unwrap_or(Duration::from_secs(60));
        (self.status_interval() * 3).max(server + self.patience)
    }
}

/// Limits for closing: what the server has not answered by then is left.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The log from a position on.
pub struct PgStream {
    items: mpsc::Receiver<Result<StreamItem, ConnectorError>>,
    closing: CancellationToken,
    tasks: [JoinHandle<()>; 2],
    /// Ends both tasks when the stream is dropped without being closed.
    _ends: DropGuard,
}

impl PgStream {
    /// Serves a log that was started on this byte stream.
    pub(crate) fn spawn(
        stream: Box<dyn ByteStream>,
        address: String,
        decoder: Decoder,
        options: StreamOptions,
    ) -> (PgStream, Arc<PgAcknowledge>) {
        let (receiving, sending) = tokio::io::split(stream);
        let (give, items) = mpsc::channel(1);
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared::new(decoder.received(), closing.clone()));
        let feedback = tokio::spawn(feedback::run(sending, Arc::clone(&shared), options));
        let reader = reader::Reader::new(receiving, address, decoder, Arc::clone(&shared), options);
        let reader = tokio::spawn(reader.run(give));
        let stream = PgStream {
            items,
            closing: closing.clone(),
            tasks: [reader, feedback],
            _ends: closing.drop_guard(),
        };
        (stream, Arc::new(PgAcknowledge { shared }))
    }
}

#[async_trait]
impl ChangeStream for PgStream {
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
        // The reader may wait for room that nobody makes any more.
        self.items.close();
        while self.items.recv().await.is_some() {}
        for task in &mut self.tasks {
            if tokio::time::timeout(CLOSE_LIMIT, &mut *task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Acknowledges what is durable.
pub struct PgAcknowledge {
    shared: Arc<Shared>,
}

impl Acknowledge for PgAcknowledge {
    fn acknowledge(&self, cursor: &Cursor) {
        // A cursor of another connector's version cannot come from this stream; were it to,
        // not moving is the safe side.
        if let Ok(position) = PgCursor::decode(cursor) {
            self.shared.acknowledge(position.commit_end);
        }
    }

    fn hurry(&self) {
        self.shared.hurry();
    }

    fn keep_small(&self, small: Option<Small>) {
        self.shared.keep_small(small);
    }
}

#[cfg(test)]
mod tests;
