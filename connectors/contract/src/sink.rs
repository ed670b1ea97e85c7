//! What a sink can be asked.

use async_trait::async_trait;
use bytes::Bytes;

use crate::ConnectorError;

/// One record for a sink. Bytes are shared with the outbox block that they come from.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The outbox sequence: ascending, never reused.
    pub sequence: u64,
    /// The ordering key (the user id); records of one key stay in order. None for
    /// operational events.
    pub key: Option<Bytes>,
    /// The body; none is a tombstone for a compacted topic.
    pub value: Option<Bytes>,
    /// Headers (CloudEvents attributes in binary mode), names without a prefix for the
    /// protocol. Shared names are static.
    pub headers: Vec<(&'static str, Bytes)>,
    /// Overrides the sink's destination (raw change streams have their own topic).
    pub destination: Option<std::sync::Arc<str>>,
}

/// Where a sink stands when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkStart {
    /// The destination itself knows: everything up to and including this sequence is there.
    Known(u64),
    /// The destination has never seen anything of ours.
    Empty,
    /// The destination cannot tell: the store's own cursor counts.
    Unknown,
}

/// A record that the destination will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which record.
    pub sequence: u64,
    /// A stable reason, for example `too_large`.
    pub reason: &'static str,
    /// The destination's own words; no value of a record.
    pub detail: String,
}

/// A destination for events.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Connects, fences older instances of itself, and finds the last position that is
    /// certain.
    async fn start(&mut self) -> Result<SinkStart, ConnectorError>;

    /// Delivers a block of records in order and returns when they are durable there. All
    /// or nothing where the sink has transactions. Refused records are returned, the others
    /// are delivered. After a transient error the caller calls `start` again.
    async fn deliver(&mut self, block: Vec<Outgoing>) -> Result<Vec<Refused>, ConnectorError>;

    /// Refused records whose answer may never have reached the caller, because one of the
    /// two died in between. Asked once after `start`; taking note of one twice must do no
    /// harm.
    fn recovered(&mut self) -> Vec<Refused> {
        Vec::new()
    }

    /// Ends in order.
    async fn stop(&mut self);
}
