//! Events as CloudEvents 1.0 attributes and bodies.
//!
//! All header texts of a delivery are written into one buffer and shared from there, and
//! bodies are shared with the outbox block, so a record costs no allocation but its list
//! of headers.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use rollcall_contract::Outgoing;
use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::SourceId;

/// About as much as the texts of one record take.
const TEXT_BYTES: usize = 160;

/// What the events of an organization have in common.
pub struct Renderer {
    /// `/rollcall/<organization>`.
    origin: Bytes,
    organization: Bytes,
    sources: HashMap<SourceId, Bytes>,
    /// Topic of each source whose raw changes this sink carries.
    raw_topics: HashMap<SourceId, Arc<str>>,
    /// The texts of a delivery, in the memory of the one before when that is done.
    text: BytesMut,
}

/// One record's variable texts, as ranges into the shared buffer.
struct Texts {
    id: std::ops::Range<usize>,
    subject: std::ops::Range<usize>,
    time: std::ops::Range<usize>,
    sequence: std::ops::Range<usize>,
    run: std::ops::Range<usize>,
    position: std::ops::Range<usize>,
}

/// An event with its place in the outbox, and the bytes that its body lies in.
pub struct Placed<'a> {
    /// Position in the outbox.
    pub position: u64,
    /// Sequence of the organization; none for raw changes.
    pub sequence: Option<u64>,
    /// The event.
    pub event: Event<'a>,
    /// The block's bytes, of which the event's parts are slices.
    pub block: &'a Bytes,
}

impl Renderer {
    /// A renderer for one sink.
    pub fn new(
        organization: &str,
        sources: impl IntoIterator<Item = (SourceId, String)>,
        raw_topics: impl IntoIterator<Item = (SourceId, String)>,
    ) -> Renderer {
        Renderer {
            origin: Bytes::from(format!("/rollcall/{organization}")),
            organization: Bytes::copy_from_slice(organization.as_bytes()),
            sources: sources
                .into_iter()
                .map(|(id, name)| (id, Bytes::from(name)))
                .collect(),
            raw_topics: raw_topics
                .into_iter()
                .map(|(id, topic)| (id, Arc::from(topic)))
                .collect(),
            text: BytesMut::new(),
        }
    }

    /// Renders events in order. Raw changes that this sink does not carry are left out; a
    /// deleted user's event is followed by its tombstone under the same position.
    pub fn render(&mut self, events: &[Placed<'_>]) -> Vec<Outgoing> {
        self.text.reserve(events.len() * TEXT_BYTES);
        let texts: Vec<Texts> = events
            .iter()
            .map(|placed| write_texts(placed, &mut self.text))
            .collect();
        let text = self.text.split().freeze();
        let mut out = Vec::with_capacity(events.len());
        for (placed, at) in events.iter().zip(texts) {
            let event = &placed.event;
            if event.kind == EventKind::RawChange {
                if let Some(topic) = event.source.and_then(|s| self.raw_topics.get(&s)) {
                    out.push(Outgoing {
                        sequence: placed.position,
                        // A change of the whole table has no key, a tombstone no body.
                        key: some(placed.block, event.key),
                        value: some(placed.block, event.data),
                        headers: Vec::new(),
                        destination: Some(Arc::clone(topic)),
                    });
                }
                continue;
            }
            let mut headers = Vec::with_capacity(13);
            headers.push(("specversion", Bytes::from_static(b"1.0")));
            headers.push(("id", text.slice(at.id)));
            headers.push(("source", self.origin.clone()));
            headers.push((
                "type",
                Bytes::from_static(event.kind.type_name().as_bytes()),
            ));
            headers.push(("time", text.slice(at.time)));
            headers.push(("content-type", Bytes::from_static(b"application/json")));
            headers.push(("orgid", self.organization.clone()));
            headers.push(("sequence", text.slice(at.sequence)));
            headers.push(("runid", text.slice(at.run)));
            let key = event.user.map(|_| text.slice(at.subject));
            if let Some(user) = &key {
                headers.push(("subject", user.clone()));
            }
            if let Some(name) = event.source.and_then(|s| self.sources.get(&s)) {
                headers.push(("sourceid", name.clone()));
            }
            if !at.position.is_empty() {
                headers.push(("position", text.slice(at.position)));
            }
            out.push(Outgoing {
                sequence: placed.position,
                key: key.clone(),
                value: Some(placed.block.slice_ref(event.data)),
                headers,
                destination: None,
            });
            if event.kind == EventKind::UserDeleted {
                out.push(Outgoing {
                    sequence: placed.position,
                    key,
                    value: None,
                    headers: Vec::new(),
                    destination: None,
                });
            }
        }
        out
    }
}

/// A part of a block, unless it is empty.
fn some(block: &Bytes, part: &[u8]) -> Option<Bytes> {
    (!part.is_empty()).then(|| block.slice_ref(part))
}

fn write_texts(placed: &Placed<'_>, text: &mut BytesMut) -> Texts {
    let event = &placed.event;
    let id = append(text, |t| {
        for byte in event.id {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            t.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    });
    let subject = append(text, |t| {
        if let Some(user) = event.user {
            let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
            let uuid = uuid::Uuid::from_bytes(user.0);
            t.extend_from_slice(uuid.hyphenated().encode_lower(&mut buffer).as_bytes());
        }
    });
    let time = append(text, |t| write_time(event.time_us, t));
    let mut number = itoa::Buffer::new();
    let sequence = append(text, |t| {
        t.extend_from_slice(number.format(placed.sequence.unwrap_or(0)).as_bytes())
    });
    let run = append(text, |t| {
        t.extend_from_slice(number.format(event.run.0).as_bytes())
    });
    let position = append(text, |t| t.extend_from_slice(event.position.as_bytes()));
    Texts {
        id,
        subject,
        time,
        sequence,
        run,
        position,
    }
}

fn append(text: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> std::ops::Range<usize> {
    let start = text.len();
    write(text);
    start..text.len()
}

/// Writes microseconds since the Unix epoch as RFC 3339 in UTC.
fn write_time(us: i64, out: &mut BytesMut) {
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // Writing to a `BytesMut` cannot fail.
    let _ = write!(out, "{time:.6}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(us: i64) -> String {
        let mut out = BytesMut::new();
        write_time(us, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_time_is_rfc_3339_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(1_709_210_096_123_456), "2024-02-29T12:34:56.123456Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(time(4_102_444_799_000_000), "2099-12-31T23:59:59.000000Z");
    }
}
