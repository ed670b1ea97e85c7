//! Events, and the block in which a batch's events are stored and delivered.
//!
//! A block is encoded once, by the directory, and travels as bytes from there to the
//! sinks. Sequences are not in it: the store knows the first one, so a plan can be made
//! before its place in the outbox is known. Raw change records (the uniform stream before
//! mapping) share the block, so that they are delivered exactly as surely, but take no
//! sequence number of the identity events.

pub mod body;

use crate::id::{RunId, SourceId, UserId};

/// The closed list of types, `io.rollcall.<…>.v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// First link of a new user.
    UserCreated = 1,
    /// Attributes changed.
    UserUpdated = 2,
    /// The user was deactivated.
    UserDeactivated = 3,
    /// The user was activated again.
    UserActivated = 4,
    /// The user was deleted; a tombstone follows.
    UserDeleted = 5,
    /// The email or userName changed.
    IdentifierChanged = 6,
    /// A conflict was opened.
    ConflictOpened = 7,
    /// A conflict was closed.
    ConflictResolved = 8,
    /// A run ended.
    RunCompleted = 9,
    /// A part of a run waits for approval.
    RunStaged = 10,
    /// Something may have been lost.
    SourceGap = 11,
    /// A source changed its state.
    SourceStateChanged = 12,
    /// A raw row change in the Debezium envelope; not an identity event.
    RawChange = 13,
}

impl EventKind {
    /// The CloudEvents `type`.
    pub fn type_name(self) -> &'static str {
        match self {
            EventKind::UserCreated => "io.rollcall.user.created.v1",
            EventKind::UserUpdated => "io.rollcall.user.updated.v1",
            EventKind::UserDeactivated => "io.rollcall.user.deactivated.v1",
            EventKind::UserActivated => "io.rollcall.user.activated.v1",
            EventKind::UserDeleted => "io.rollcall.user.deleted.v1",
            EventKind::IdentifierChanged => "io.rollcall.user.identifier_changed.v1",
            EventKind::ConflictOpened => "io.rollcall.conflict.opened.v1",
            EventKind::ConflictResolved => "io.rollcall.conflict.resolved.v1",
            EventKind::RunCompleted => "io.rollcall.run.completed.v1",
            EventKind::RunStaged => "io.rollcall.run.staged.v1",
            EventKind::SourceGap => "io.rollcall.source.gap.v1",
            EventKind::SourceStateChanged => "io.rollcall.source.state_changed.v1",
            EventKind::RawChange => "io.rollcall.source.change.v1",
        }
    }

    /// The kind of a stored number.
    pub fn from_u8(n: u8) -> Option<EventKind> {
        use EventKind::*;
        Some(match n {
            1 => UserCreated,
            2 => UserUpdated,
            3 => UserDeactivated,
            4 => UserActivated,
            5 => UserDeleted,
            6 => IdentifierChanged,
            7 => ConflictOpened,
            8 => ConflictResolved,
            9 => RunCompleted,
            10 => RunStaged,
            11 => SourceGap,
            12 => SourceStateChanged,
            13 => RawChange,
            _ => return None,
        })
    }
}

/// One event, borrowed from its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The deterministic id: the same change yields the same id after any crash.
    pub id: [u8; 16],
    /// The user concerned; none for operational events.
    pub user: Option<UserId>,
    /// The source concerned.
    pub source: Option<SourceId>,
    /// Commit time of the change at the source (or now, for what no source said),
    /// microseconds since the Unix epoch.
    pub time_us: i64,
    /// The run that made it.
    pub run: RunId,
    /// Readable position of the change in its source's log; empty when it has none.
    pub position: &'a str,
    /// For raw changes: the record's key. Otherwise empty.
    pub key: &'a [u8],
    /// The JSON body; of raw changes also nothing, for a tombstone.
    pub data: &'a [u8],
}

/// Many events, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBlock {
    bytes: Vec<u8>,
    /// Events that take a sequence number.
    sequenced: u32,
    /// All of them.
    total: u32,
}

impl EventBlock {
    /// How many records, raw changes included.
    pub fn len(&self) -> usize {
        self.total as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many take a sequence number.
    pub fn sequenced(&self) -> u32 {
        self.sequenced
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded bytes, to be shared without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An empty block, in memory that held something else before.
    pub fn in_memory(mut bytes: Vec<u8>) -> EventBlock {
        bytes.clear();
        EventBlock {
            bytes,
            ..EventBlock::default()
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sequenced = 0;
        self.total = 0;
    }

    /// Makes room at once for what is to come, so that a large block does not grow through
    /// ever larger copies of itself.
    pub fn reserve(&mut self, additional_bytes: usize) {
        self.bytes.reserve(additional_bytes);
    }

    /// Appends an event.
    pub fn push(&mut self, event: &Event<'_>) {
        let out = &mut self.bytes;
        out.push(event.kind as u8);
        out.push(u8::from(event.user.is_some()) | u8::from(event.source.is_some()) << 1);
        out.extend_from_slice(&event.id);
        if let Some(user) = event.user {
            out.extend_from_slice(&user.0);
        }
        if let Some(source) = event.source {
            out.extend_from_slice(&source.0.to_le_bytes());
        }
        out.extend_from_slice(&event.time_us.to_le_bytes());
        out.extend_from_slice(&event.run.0.to_le_bytes());
        for part in [event.position.as_bytes(), event.key, event.data] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part);
        }
        self.total += 1;
        if event.kind != EventKind::RawChange {
            self.sequenced += 1;
        }
    }

    /// The events of encoded bytes, in order; ends early (and says so by an error) at the
    /// first fault.
    pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Result<Event<'_>, BlockError>> {
        let mut rest = bytes;
        let mut failed = false;
        std::iter::from_fn(move || {
            if rest.is_empty() || failed {
                return None;
            }
            let event = read_event(&mut rest).ok_or(BlockError);
            failed = event.is_err();
            Some(event)
        })
    }
}

/// A block is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an outbox block is damaged")]
pub struct BlockError;

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = u32::from_le_bytes(array(rest)?);
    take(rest, n as usize)
}

fn read_event<'a>(rest: &mut &'a [u8]) -> Option<Event<'a>> {
    let [kind, flags] = array::<2>(rest)?;
    let kind = EventKind::from_u8(kind)?;
    let id = array(rest)?;
    let user = if flags & 1 != 0 {
        Some(UserId(array(rest)?))
    } else {
        None
    };
    let source = if flags & 2 != 0 {
        Some(SourceId(u16::from_le_bytes(array(rest)?)))
    } else {
        None
    };
    let time_us = i64::from_le_bytes(array(rest)?);
    let run = RunId(u64::from_le_bytes(array(rest)?));
    let position = std::str::from_utf8(part(rest)?).ok()?;
    let key = part(rest)?;
    let data = part(rest)?;
    Some(Event {
        kind,
        id,
        user,
        source,
        time_us,
        run,
        position,
        key,
        data,
    })
}
