//! The receiving side. All waiting is here; all decoding is in [`crate::decode`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_contract::{ConnectorError, StreamItem};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, Permit};
use tokio_util::sync::CancellationToken;

use super::{Shared, StreamOptions};
use crate::decode::{Decoder, Event};
use crate::position::Point;
use crate::wire::ByteStream;

type Item = Result<StreamItem, ConnectorError>;

/// The server sends each event by itself, and a reader that is as fast would wake for each.
/// In a flood (so many changes in the open batch, and nothing to be handed over before
/// more has come) it lets the socket fill for a moment instead …
const FLOOD_CHANGES: usize = 100;
const FILL: Duration = Duration::from_millis(1);
/// … unless its last read brought as much as this: then there is more already.
const LARGE_READ: usize = 32 << 10;

pub(super) struct Reader {
    stream: Box<dyn ByteStream>,
    address: String,
    decoder: Decoder,
    shared: Arc<Shared>,
    options: StreamOptions,
    closing: CancellationToken,
    /// The whole position of the last item that was given.
    given: Option<Point>,
    given_at: Instant,
    is_progress_due: bool,
    /// Bytes of the last read.
    last_read: usize,
}

/// Why the loop ends.
enum End {
    /// The stream closes, or nobody listens any more.
    Closing,
    Failed(ConnectorError),
}

impl From<ConnectorError> for End {
    fn from(error: ConnectorError) -> Self {
        End::Failed(error)
    }
}

impl Reader {
    pub(super) fn new(
        stream: Box<dyn ByteStream>,
        address: String,
        decoder: Decoder,
        shared: Arc<Shared>,
        options: StreamOptions,
        closing: CancellationToken,
    ) -> Self {
        Reader {
            stream,
            address,
            given: decoder.whole_position().map(|p| p.whole),
            decoder,
            shared,
            options,
            closing,
            given_at: Instant::now(),
            is_progress_due: false,
            last_read: 0,
        }
    }

    pub(super) async fn run(mut self, give: mpsc::Sender<Item>) {
        if let End::Failed(error) = self.work(&give).await {
            if error.code() == "replica_clash" {
                self.shared.note_clash();
            }
            // What was decoded before the failure is whole, and need not be sent twice.
            if !self.decoder.is_empty()
                && let Ok(permit) = give.reserve().await
            {
                let batch = self.decoder.take_batch();
                permit.send(Ok(StreamItem::Batch(batch)));
            }
            let _ = give.send(Err(error)).await;
        }
    }

    async fn work(&mut self, give: &mpsc::Sender<Item>) -> End {
        loop {
            if let Err(end) = self.take_in(give).await {
                return end;
            }
            if self.is_flooded(give) {
                tokio::select! {
                    () = self.closing.cancelled() => return End::Closing,
                    () = tokio::time::sleep(FILL) => {}
                }
            }
            if let Err(end) = self.read(give).await {
                return end;
            }
        }
    }

    /// Whether nobody loses anything by a short pause: the transaction goes on, or the
    /// consumer is busy.
    fn is_flooded(&self, give: &mpsc::Sender<Item>) -> bool {
        self.last_read < LARGE_READ
            && self.decoder.len() >= FLOOD_CHANGES
            && (!self.decoder.has_whole_batch() || give.capacity() == 0)
    }

    /// Takes every complete packet out of the buffer.
    async fn take_in(&mut self, give: &mpsc::Sender<Item>) -> Result<(), End> {
        loop {
            self.decoder.set_awaited(give.capacity() > 0);
            self.decoder.keep_small(self.shared.small.get());
            match self.decoder.advance()? {
                Event::NeedsMore => return Ok(()),
                Event::Full => {
                    let permit = self.room(give).await?;
                    let batch = self.decoder.take_batch();
                    permit.send(Ok(StreamItem::Batch(batch)));
                    self.note_given();
                }
                Event::Items => {
                    while let Some(item) = self.decoder.next_item() {
                        self.room(give).await?.send(Ok(item));
                    }
                    // A gap and a new schema carry no position: the one behind them is
                    // still to be given.
                    self.given = None;
                }
                Event::Ended => {
                    return Err(ConnectorError::transient(
                        "connection_lost",
                        format!("{} ended the log.", self.address),
                    )
                    .into());
                }
            }
        }
    }

    /// One read of the socket; hands over meanwhile what is ready.
    async fn read(&mut self, give: &mpsc::Sender<Item>) -> Result<(), End> {
        let silence = tokio::time::sleep(self.options.silence_limit);
        let mut silence = std::pin::pin!(silence);
        loop {
            self.consider_progress();
            let ready = self.decoder.has_whole_batch() || self.is_progress_due;
            let next_progress = self.given_at + self.options.progress_interval;
            let has_moved = !ready && self.decoder.has_moved();
            let count = tokio::select! {
                // The socket first: as long as it has more, the batch grows.
                biased;
                () = self.closing.cancelled() => return Err(End::Closing),
                read = self.stream.read_buf(self.decoder.buffer()) => read,
                permit = give.reserve(), if ready => {
                    let permit = permit.map_err(|_| End::Closing)?;
                    self.hand_over(permit);
                    continue;
                }
                () = give.closed() => return Err(End::Closing),
                () = self.shared.hurry.notified() => continue,
                () = tokio::time::sleep_until(next_progress.into()), if has_moved => continue,
                () = &mut silence => {
                    return Err(self.lost("has been silent for too long").into());
                }
            };
            return match count {
                Ok(0) => Err(self.lost("closed the connection").into()),
                Ok(bytes) => {
                    self.last_read = bytes;
                    Ok(())
                }
                Err(e) => Err(self
                    .lost(&format!("left the connection broken: {e}"))
                    .into()),
            };
        }
    }

    fn lost(&self, what: &str) -> ConnectorError {
        ConnectorError::transient("connection_lost", format!("{} {what}.", self.address))
    }

    /// Waits for room in the channel, or for the end.
    async fn room<'a>(&self, give: &'a mpsc::Sender<Item>) -> Result<Permit<'a, Item>, End> {
        tokio::select! {
            () = self.closing.cancelled() => Err(End::Closing),
            permit = give.reserve() => permit.map_err(|_| End::Closing),
        }
    }

    fn hand_over(&mut self, permit: Permit<'_, Item>) {
        if self.decoder.has_whole_batch() {
            let batch = self.decoder.take_batch();
            permit.send(Ok(StreamItem::Batch(batch)));
        } else if let (Some(position), true) =
            (self.decoder.whole_position(), self.decoder.is_empty())
        {
            permit.send(Ok(StreamItem::Progress(position.encode())));
        }
        self.note_given();
    }

    fn note_given(&mut self) {
        // A batch that ends inside of a transaction names the whole position before it.
        if let Some(position) = self.decoder.whole_position() {
            self.given = Some(position.whole);
        }
        self.decoder.note_given();
        self.given_at = Instant::now();
        self.is_progress_due = false;
    }

    fn consider_progress(&mut self) {
        if !self.decoder.has_moved()
            || !(self.shared.is_eager()
                || self.given_at.elapsed() >= self.options.progress_interval)
        {
            return;
        }
        self.is_progress_due = self
            .decoder
            .whole_position()
            .is_some_and(|p| self.given.as_ref() != Some(&p.whole));
    }
}
