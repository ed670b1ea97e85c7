//! What is looked at while the log is read.
//!
//! Some losses leave no trace in the log: a table that is taken out of the publication
//! goes silent, a partition that is attached brings rows of which no insert is ever sent.
//! A task of its own looks at the identities of what is followed at intervals and puts a
//! gap into the stream when they are no longer those of the look before. It begins with
//! those that the opening read and stored, so nothing lies between the two; and when it
//! cannot look, it keeps what it saw last and compares with that as soon as it can.
//!
//! A publication that does something else than before may do too little, and so may the replica
//! identity of a table; what they leave out is never sent. Behind the gap the stream ends, so that
//! the opening looks at both and refuses them.
//!
//! The gaps travel in a bounded channel beside the stream. Both halves of
//! [`WatchedStream::next`] are cancel safe, so waiting for either loses nothing.

use async_trait::async_trait;
use rollcall_contract::{ChangeStream, ConnectorError, Gap, StreamItem};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::config::PostgresConfig;
use crate::followed::{self, Identities};
use crate::type_map::TypeMap;
use crate::{status, wire};

/// Gaps that wait to be taken; the watch waits when there are so many.
const QUEUE: usize = 16;

/// A stream with the watch beside it. The watch ends with the stream.
pub(crate) struct WatchedStream {
    stream: Box<dyn ChangeStream>,
    gaps: mpsc::Receiver<Result<Gap, ConnectorError>>,
    task: JoinHandle<()>,
}

impl WatchedStream {
    /// Starts the watch with the identities that are stored beside the cursor.
    pub(crate) fn start(
        stream: Box<dyn ChangeStream>,
        config: PostgresConfig,
        types: TypeMap,
        identities: Identities,
    ) -> WatchedStream {
        let (sender, gaps) = mpsc::channel(QUEUE);
        let watch = Watch {
            config,
            types,
            identities,
            gaps: sender,
            client: None,
            warned: Vec::new(),
        };
        WatchedStream {
            stream,
            gaps,
            task: tokio::spawn(watch.run()),
        }
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl ChangeStream for WatchedStream {
    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        tokio::select! {
            biased;
            Some(gap) = self.gaps.recv() => gap.map(StreamItem::Gap),
            item = self.stream.next() => item,
        }
    }

    async fn close(mut self: Box<Self>) {
        self.task.abort();
        let stream = std::mem::replace(&mut self.stream, Box::new(Closed));
        stream.close().await;
    }
}

/// Takes the place of a stream that was closed.
struct Closed;

#[async_trait]
impl ChangeStream for Closed {
    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        Err(ConnectorError::transient(
            "stream_closed",
            "The stream was closed.",
        ))
    }

    async fn close(self: Box<Self>) {}
}

struct Watch {
    config: PostgresConfig,
    types: TypeMap,
    identities: Identities,
    gaps: mpsc::Sender<Result<Gap, ConnectorError>>,
    client: Option<Client>,
    warned: Vec<String>,
}

impl Watch {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.config.watch_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = self.identities.clone();
            match self.look().await {
                Ok(found) => {
                    for gap in found {
                        tracing::warn!(reason = gap.reason.as_str(), "{}", gap.detail);
                        if self.gaps.send(Ok(gap)).await.is_err() {
                            return;
                        }
                    }
                    if !self.identities.logs_like(&before) {
                        let altered = ConnectorError::transient(
                            "publication_altered",
                            format!(
                                "The publication \"{}\", or what its tables log, was altered; it \
                                 is looked at anew.",
                                self.config.publication
                            ),
                        );
                        // The stream may be gone.
                        let _ = self.gaps.send(Err(altered)).await;
                        return;
                    }
                }
                Err(error) => {
                    // The stream itself reports a server that is away.
                    tracing::debug!(%error, "the watch could not look");
                    self.client = None;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Vec<Gap>, ConnectorError> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => wire::connect_queries(&self.config).await?,
        };
        let config = &self.config;
        let look = || followed::look(&client, config);
        let mut now = look().await?.0;
        // The catalogs are read by several statements; a change that falls between them is
        // taken for what it is only when two looks agree.
        while now != self.identities {
            let again = look().await?.0;
            if std::mem::replace(&mut now, again) == now {
                break;
            }
        }
        let gaps = if now == self.identities {
            Vec::new()
        } else {
            followed::compare(&self.identities, &now, config)
        };
        let warnings = status::look(&client, config).await?.warnings;
        for warning in warnings.iter().filter(|w| !self.warned.contains(w)) {
            tracing::warn!("{warning}");
        }
        self.types.refresh(&client).await?;
        self.warned = warnings;
        self.identities = now;
        self.client = Some(client);
        Ok(gaps)
    }
}
