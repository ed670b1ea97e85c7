//! The receiving half. All waiting is here; all decoding is in [`crate::decode`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_contract::{ConnectorError, StreamItem};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::mpsc::{self, Permit};

use super::feedback::Shared;
use super::{CLOSE_LIMIT, StreamOptions};
use crate::decode::{Decoder, Event};
use crate::lsn::Lsn;
use crate::wire::ByteStream;

type Item = Result<StreamItem, ConnectorError>;

/// After our own sending has failed: time for the server's last words to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The server sends each row by itself, and a reader that is as fast would wake for each.
/// In a flood (so many changes in the open batch, and nothing to be handed over before
/// more has come) it lets the socket fill for a moment instead …
const FLOOD_CHANGES: usize = 100;
const FILL: Duration = Duration::from_millis(1);
/// … unless its last read brought as much as this: then there is more already.
const LARGE_READ: usize = 32 << 10;

pub(crate) struct Reader {
    receiving: ReadHalf<Box<dyn ByteStream>>,
    address: String,
    decoder: Decoder,
    shared: Arc<Shared>,
    progress_interval: Duration,
    /// The whole position of the last item that was given.
    given: Lsn,
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
    pub(crate) fn new(
        receiving: ReadHalf<Box<dyn ByteStream>>,
        address: String,
        decoder: Decoder,
        shared: Arc<Shared>,
        options: StreamOptions,
    ) -> Self {
        Reader {
            receiving,
            address,
            given: decoder.received(),
            decoder,
            shared,
            progress_interval: options.progress_interval,
            given_at: Instant::now(),
            is_progress_due: false,
            last_read: 0,
        }
    }

    pub(crate) async fn run(mut self, give: mpsc::Sender<Item>) {
        match self.work(&give).await {
            End::Closing => {
                // The server may still send what it has begun; it is not for us any more.
                let _ = tokio::time::timeout(CLOSE_LIMIT, self.drain()).await;
            }
            End::Failed(error) => {
                // What was decoded before the failure is whole, and need not be sent twice.
                if !self.decoder.is_empty()
                    && let Ok(permit) = give.reserve().await
                {
                    let batch = self.decoder.take_batch();
                    permit.send(Ok(StreamItem::Batch(batch)));
                }
                let _ = give.send(Err(error)).await;
                self.shared.broken.cancel();
            }
        }
        self.shared.drained.cancel();
    }

    async fn work(&mut self, give: &mpsc::Sender<Item>) -> End {
        loop {
            if let Err(end) = self.take_in(give).await {
                return end;
            }
            if self.is_flooded(give) {
                tokio::select! {
                    () = self.shared.closing.cancelled() => return End::Closing,
                    () = self.shared.broken.cancelled() => {}
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

    /// Takes every complete message out of the buffer.
    async fn take_in(&mut self, give: &mpsc::Sender<Item>) -> Result<(), End> {
        loop {
            self.decoder.set_awaited(give.capacity() > 0);
            self.decoder.keep_small(self.shared.small());
            let event = self.decoder.advance()?;
            match event {
                Event::NeedsMore => {
                    self.shared.set_received(self.decoder.received());
                    return Ok(());
                }
                Event::Full => {
                    self.shared.set_received(self.decoder.received());
                    self.shared.set_held(true);
                    let permit = room(give, &self.shared).await?;
                    self.shared.set_held(false);
                    let batch = self.decoder.take_batch();
                    permit.send(Ok(StreamItem::Batch(batch)));
                    self.note_given();
                }
                Event::Items => {
                    self.shared.set_held(true);
                    while let Some(item) = self.decoder.next_item() {
                        room(give, &self.shared).await?.send(Ok(item));
                    }
                    // A gap or a schema names no position: whoever waits behind it for one
                    // would wait for ever on an idle log, were it taken for given.
                    self.shared.set_held(false);
                }
                Event::Keepalive { reply } => {
                    if reply {
                        self.shared.answer_now();
                    }
                    self.consider_progress();
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
        loop {
            let ready = self.decoder.has_whole_batch() || self.is_progress_due;
            let shared = &self.shared;
            let count = tokio::select! {
                // The socket first: as long as it has more, the batch grows.
                biased;
                () = shared.closing.cancelled() => return Err(End::Closing),
                read = self.receiving.read_buf(self.decoder.buffer()) => read,
                permit = give.reserve(), if ready => {
                    let permit = permit.map_err(|_| End::Closing)?;
                    self.hand_over(permit);
                    continue;
                }
                () = give.closed() => return Err(End::Closing),
                () = shared.broken.cancelled() => self.last_words().await,
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

    /// The answering side gave up; often the server has said why.
    async fn last_words(&mut self) -> std::io::Result<usize> {
        let read = self.receiving.read_buf(self.decoder.buffer());
        match tokio::time::timeout(LAST_WORDS, read).await {
            Ok(read) => read,
            Err(_) => Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer for too long",
            )),
        }
    }

    fn lost(&self, what: &str) -> ConnectorError {
        ConnectorError::transient("connection_lost", format!("{} {what}.", self.address))
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
        self.given = self
            .decoder
            .whole_position()
            .map_or(self.given, |p| p.commit_end);
        self.given_at = Instant::now();
        self.is_progress_due = false;
    }

    fn note_given(&mut self) {
        // A batch that ends inside of a transaction names the whole position before it.
        if let Some(position) = self.decoder.whole_position() {
            self.given = position.commit_end;
        }
        self.given_at = Instant::now();
        self.is_progress_due = false;
    }

    fn consider_progress(&mut self) {
        let Some(position) = self.decoder.whole_position() else {
            return;
        };
        if position.commit_end > self.given
            && (self.shared.is_eager() || self.given_at.elapsed() >= self.progress_interval)
        {
            self.is_progress_due = true;
        }
    }

    /// Reads on to the end of the log, and keeps nothing.
    async fn drain(&mut self) {
        while !self.decoder.discard() {
            self.decoder.forget();
            match self.receiving.read_buf(self.decoder.buffer()).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// Waits for room in the channel, or for the end.
async fn room<'a>(give: &'a mpsc::Sender<Item>, shared: &Shared) -> Result<Permit<'a, Item>, End> {
    tokio::select! {
        () = shared.closing.cancelled() => Err(End::Closing),
        permit = give.reserve() => permit.map_err(|_| End::Closing),
    }
}
