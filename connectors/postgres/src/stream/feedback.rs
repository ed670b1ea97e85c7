//! What the server hears from us, and when.
//!
//! A status goes out at every interval, at once when the server asks for one, and in quick
//! succession for a moment when somebody here waits for the server's position. Each one
//! that goes out by time asks for an answer, since only the answer tells where an idle
//! server stands. The confirmed position is the acknowledged one and never moves back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rollcall_contract::{KeptSmall, Small};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{CLOSE_LIMIT, StreamOptions};
use crate::decode::EPOCH_2000_US;
use crate::lsn::Lsn;
use crate::wire::ByteStream;

/// Two questions to the server are never closer than this.
const ASK_AT_MOST_EVERY: Duration = Duration::from_millis(5);
/// After a call for hurry the server is asked at growing distances, as long as this: what
/// is waited for may not be flushed yet.
const HURRY_UP_TO: Duration = Duration::from_millis(640);

/// What the tasks and the acknowledging side share.
pub(crate) struct Shared {
    received: AtomicU64,
    durable: AtomicU64,
    wake: Notify,
    answer: AtomicBool,
    hurry: AtomicBool,
    /// Every answer that moves the position is worth an item now.
    eager: AtomicBool,
    /// Counts reads of the socket.
    reads: AtomicU64,
    /// The reader waits for its consumer and not for the server.
    held: AtomicBool,
    /// Another source is at work.
    small: KeptSmall,
    /// In order, or because the stream was dropped.
    pub(crate) closing: CancellationToken,
    /// The connection is of no use any more.
    pub(crate) broken: CancellationToken,
    /// The reader has seen the end.
    pub(crate) drained: CancellationToken,
}

impl Shared {
    pub(crate) fn new(start: Lsn, closing: CancellationToken) -> Self {
        Shared {
            received: AtomicU64::new(start.0),
            durable: AtomicU64::new(start.0),
            wake: Notify::new(),
            answer: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            eager: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            held: AtomicBool::new(false),
            small: KeptSmall::default(),
            closing,
            broken: CancellationToken::new(),
            drained: CancellationToken::new(),
        }
    }

    pub(crate) fn acknowledge(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn.0, Relaxed);
    }

    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn keep_small(&self, small: Option<Small>) {
        self.small.set(small);
    }

    pub(crate) fn small(&self) -> Option<Small> {
        self.small.get()
    }

    pub(crate) fn set_received(&self, lsn: Lsn) {
        self.received.store(lsn.0, Relaxed);
        self.reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn answer_now(&self) {
        self.answer.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn set_held(&self, held: bool) {
        self.held.store(held, Relaxed);
    }

    pub(crate) fn is_eager(&self) -> bool {
        self.eager.load(Relaxed)
    }

    /// A status update in CopyData (PostgreSQL documentation, "Standby status update").
    pub(crate) fn status(&self, ask: bool) -> [u8; 39] {
        let durable = self.durable.load(Relaxed);
        // Written is never less than flushed: an acknowledged position was received.
        let received = self.received.load(Relaxed).max(durable);
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as i64);
        let mut out = [0; 39];
        out[0] = b'd';
        out[1..5].copy_from_slice(&38u32.to_be_bytes());
        out[5] = b'r';
        out[6..14].copy_from_slice(&received.to_be_bytes());
        out[14..22].copy_from_slice(&durable.to_be_bytes());
        out[22..30].copy_from_slice(&durable.to_be_bytes());
        out[30..38].copy_from_slice(&(since_1970 - EPOCH_2000_US).to_be_bytes());
        out[38] = u8::from(ask);
        out
    }
}

/// Serves the sending half until the stream closes or breaks.
pub(crate) async fn run(
    mut out: WriteHalf<Box<dyn ByteStream>>,
    shared: Arc<Shared>,
    options: StreamOptions,
) {
    let interval = options.status_interval();
    let silence_limit = options.silence_limit();
    let mut next_status = Instant::now() + interval;
    let mut last_ask = Instant::now();
    // When to ask again in a hurry, and the distance after that.
    let mut hurry: Option<(Instant, Duration)> = None;
    let mut heard = (shared.reads.load(Relaxed), Instant::now());
    loop {
        let wake_at = hurry.map_or(next_status, |(at, _)| at.min(next_status));
        tokio::select! {
            () = shared.closing.cancelled() => break,
            () = shared.broken.cancelled() => return,
            () = shared.wake.notified() => {}
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
        let now = Instant::now();
        if shared.hurry.swap(false, Relaxed) {
            shared.eager.store(true, Relaxed);
            hurry = Some(((last_ask + ASK_AT_MOST_EVERY).max(now), ASK_AT_MOST_EVERY));
        }
        let mut ask = false;
        if let Some((at, distance)) = hurry
            && now >= at
        {
            ask = distance <= HURRY_UP_TO;
            hurry = ask.then(|| (now + distance, distance * 2));
            shared.eager.store(ask, Relaxed);
        }
        ask |= now >= next_status;
        if ask || shared.answer.swap(false, Relaxed) {
            if send(&mut out, &shared.status(ask)).await.is_err() {
                shared.broken.cancel();
                return;
            }
            if ask {
                last_ask = now;
            }
            next_status = now + interval;
        }
        let reads = shared.reads.load(Relaxed);
        if reads != heard.0 || shared.held.load(Relaxed) {
            heard = (reads, now);
        } else if now.duration_since(heard.1) > silence_limit {
            shared.broken.cancel();
            return;
        }
    }
    // In order: what is durable, then the end; the server ends its side, then we leave.
    let farewell = async {
        send(&mut out, &shared.status(false)).await?;
        send(&mut out, &[b'c', 0, 0, 0, 4]).await?;
        shared.drained.cancelled().await;
        send(&mut out, &[b'X', 0, 0, 0, 4]).await?;
        out.shutdown().await
    };
    // Whether the server takes leave too makes no difference to what is confirmed.
    let _ = tokio::time::timeout(CLOSE_LIMIT, farewell).await;
}

async fn send(out: &mut WriteHalf<Box<dyn ByteStream>>, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}
