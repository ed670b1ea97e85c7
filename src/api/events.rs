//! Events as they are read from the store: each is the line that a sink of type `ndjson` writes,
//! because the same two functions write it. A consumer takes both for one.

use rollcall_core::id::SourceId;
use rollcall_store::{Readers, Sequence, StoreError};
use serde::{Deserialize, Serialize};

use crate::delivery::ndjson::write_line;
use crate::delivery::render::{Placed, Renderer};

/// Which events to read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Behind this sequence.
    #[serde(default)]
    pub after: u64,
    /// At most so many (1000).
    pub limit: Option<usize>,
}

/// An event in the structured mode of CloudEvents 1.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// Gap-free within the organization.
    pub sequence: u64,
    /// One line of JSON, its end included.
    pub line: Vec<u8>,
}

/// Events behind a sequence, in order.
///
/// # Errors
/// When the store cannot be read.
pub fn events(readers: &Readers, query: &EventQuery) -> Result<Vec<EventLine>, StoreError> {
    let organization = readers.identity()?.organization;
    let sources: Vec<(SourceId, String)> = readers
        .sources()?
        .into_iter()
        .map(|s| (s.id, s.name))
        .collect();
    // Raw changes have no sequence and are no CloudEvents.
    let mut renderer = Renderer::new(&organization, sources, []);
    let limit = query.limit.unwrap_or(1000).min(10_000);
    let mut out: Vec<EventLine> = Vec::new();
    let mut after = query.after;
    while out.len() < limit {
        let blocks = readers.outbox_after(Sequence(after), 1 << 20)?;
        let before = after;
        for block in &blocks {
            let mut wanted = Vec::new();
            for placed in block.events() {
                let placed = placed.map_err(|e| StoreError::Damaged {
                    detail: e.to_string(),
                })?;
                let Some(sequence) = placed.sequence.filter(|s| s.0 > after) else {
                    continue;
                };
                if out.len() + wanted.len() < limit {
                    after = sequence.0;
                    wanted.push(Placed {
                        // What is rendered is found again by its sequence.
                        position: sequence.0,
                        sequence: Some(sequence.0),
                        event: placed.event,
                        block: &block.bytes,
                    });
                }
            }
            // A tombstone is for topics that are compacted.
            let rendered = renderer.render(&wanted).into_iter();
            out.extend(rendered.filter(|r| r.value.is_some()).map(|record| {
                let mut line = Vec::new();
                write_line(&record, &mut line);
                EventLine {
                    sequence: record.sequence,
                    line,
                }
            }));
        }
        if after == before {
            break;
        }
    }
    Ok(out)
}

/// Events as one JSON array.
pub fn array(events: &[EventLine]) -> Vec<u8> {
    let mut out = vec![b'['];
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event.line.trim_ascii_end());
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use rollcall_core::event::{Event, EventKind};
    use rollcall_core::id::{RunId, UserId};
    use rollcall_store::{Commit, OpenOptions, Store};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_is_the_line_that_the_sink_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, readers) = Store::open(folder.path(), OpenOptions::new("acme")).unwrap();
        let mut commit = Commit::default();
        for (n, kind) in [(1, EventKind::UserUpdated), (2, EventKind::UserDeleted)] {
            commit.plan.events.push(&Event {
                kind,
                id: [n; 16],
                user: Some(UserId([7; 16])),
                source: None,
                time_us: 1_709_210_096_542_720,
                run: RunId(0),
                position: if n == 1 { "" } else { "0/16B" },
                key: b"",
                data: br#"{"version":1,"changed":{}}"#,
            });
        }
        writer.commit(&mut commit).unwrap();
        let found = events(&readers, &EventQuery::default()).unwrap();
        assert_eq!(found.len(), 2);
        let first: Value = serde_json::from_slice(&found[0].line).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "01010101010101010101010101010101",
            "source": "/rollcall/acme",
            "type": "io.rollcall.user.updated.v1",
            "time": "2024-02-29T12:34:56.542720Z",
            "datacontenttype": "application/json",
            "orgid": "acme",
            "sequence": "1",
            "runid": "0",
            "subject": "07070707-0707-0707-0707-070707070707",
            "data": {"version": 1, "changed": {}},
        });
        assert_eq!(first.to_string(), expected.to_string());
        assert_eq!(found[1].sequence, 2);
        let all: Vec<Value> = serde_json::from_slice(&array(&found)).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1]["position"], "0/16B");
        let query = EventQuery {
            after: 1,
            limit: Some(1),
        };
        assert_eq!(events(&readers, &query).unwrap(), found[1..]);
    }
}
