//! Counts that are too dear to take each time they are asked for.
//!
//! They live in memory beside the writer, are written in the transaction whose effects
//! they count, and replace the older ones in memory only after that transaction was
//! committed. So they are right after a crash and after a rollback alike.

use std::collections::BTreeMap;

use rollcall_core::document::Document;
use rollcall_core::id::SourceId;
use rollcall_core::reason::SkipReason;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::position::{Position, Sequence};

/// What the store counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Users, active or not.
    pub users: u64,
    /// Active users.
    pub active: u64,
    /// Records that lead to no user, by reason.
    pub held: BTreeMap<SkipReason, u64>,
    /// Links to active users, by source.
    pub linked: BTreeMap<SourceId, u64>,
    /// Blocks in the outbox.
    pub outbox_blocks: u64,
    /// Their size as stored.
    pub outbox_bytes: u64,
    /// The position that the next record will have.
    pub next_position: Position,
    /// The sequence that the next event will have.
    pub next_sequence: Sequence,
    pub(crate) next_user: i64,
    pub(crate) next_run: u64,
    /// Rows of `waiting`. Not stored: the writer counts them when it starts.
    pub(crate) waiting: u64,
    /// Rows of `reference`. Not stored either.
    pub(crate) references: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            users: 0,
            active: 0,
            held: BTreeMap::new(),
            linked: BTreeMap::new(),
            outbox_blocks: 0,
            outbox_bytes: 0,
            next_position: Position(1),
            next_sequence: Sequence(1),
            next_user: 1,
            next_run: 1,
            waiting: 0,
            references: 0,
        }
    }
}

const HELD: &str = "held.";
const LINKED: &str = "linked.";

impl Counts {
    pub(crate) fn load(connection: &Connection) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let mut statement = connection.prepare_cached("SELECT name, value FROM counter")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            let signed: i64 = row.get(1)?;
            let value = u64::try_from(signed).unwrap_or(0);
            match name {
                "users" => counts.users = value,
                "active" => counts.active = value,
                "outbox_blocks" => counts.outbox_blocks = value,
                "outbox_bytes" => counts.outbox_bytes = value,
                "next_position" => counts.next_position = Position(value),
                "next_sequence" => counts.next_sequence = Sequence(value),
                "next_user" => counts.next_user = signed,
                "next_run" => counts.next_run = value,
                other => {
                    if let Some(source) = other.strip_prefix(LINKED) {
                        let source = source.parse().map(SourceId).ok();
                        counts.linked.extend(source.map(|s| (s, value)));
                    }
                    let reason = other
                        .strip_prefix(HELD)
                        .and_then(|name| SkipReason::ALL.into_iter().find(|r| r.as_str() == name));
                    if let Some(reason) = reason {
                        counts.held.insert(reason, value);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Writes what differs from `stored`.
    pub(crate) fn save(&self, connection: &Connection, stored: &Counts) -> Result<(), StoreError> {
        let mut write = connection.prepare_cached(
            "INSERT INTO counter(name, value) VALUES(?1, ?2) \
             ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        )?;
        let pairs = [
            ("users", self.users, stored.users),
            ("active", self.active, stored.active),
            ("outbox_blocks", self.outbox_blocks, stored.outbox_blocks),
            ("outbox_bytes", self.outbox_bytes, stored.outbox_bytes),
            (
                "next_position",
                self.next_position.0,
                stored.next_position.0,
            ),
            (
                "next_sequence",
                self.next_sequence.0,
                stored.next_sequence.0,
            ),
            (
                "next_user",
                self.next_user.unsigned_abs(),
                stored.next_user.unsigned_abs(),
            ),
            ("next_run", self.next_run, stored.next_run),
        ];
        for (name, now, before) in pairs {
            if now != before {
                write.execute((name, now as i64))?;
            }
        }
        for (reason, &n) in &self.held {
            if stored.held.get(reason) != Some(&n) {
                write.execute((format!("{HELD}{}", reason.as_str()), n as i64))?;
            }
        }
        for (source, &n) in &self.linked {
            if stored.linked.get(source) != Some(&n) {
                write.execute((format!("{LINKED}{}", source.0), n as i64))?;
            }
        }
        Ok(())
    }

    /// Counts the links to active users once, for a store that was made before they were
    /// counted with each commit.
    pub(crate) fn count_links(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mark = "INSERT OR IGNORE INTO counter(name, value) VALUES('links_counted', 1)";
        if connection.execute(mark, [])? == 0 || self.users == 0 {
            return Ok(());
        }
        let stored = self.clone();
        let mut statement = connection.prepare("SELECT document FROM user WHERE active")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            if let Ok(document) = Document::decode(bytes) {
                for link in document.links.iter().filter(|l| l.state.is_present()) {
                    self.link(link.source, 1);
                }
            }
        }
        self.save(connection, &stored)
    }

    /// How many links to active users a source has.
    pub fn linked_of(&self, source: SourceId) -> u64 {
        self.linked.get(&source).copied().unwrap_or(0)
    }

    pub(crate) fn link(&mut self, source: SourceId, more: i64) {
        let n = self.linked.entry(source).or_default();
        *n = n.saturating_add_signed(more);
    }

    pub(crate) fn hold(&mut self, reason: Option<SkipReason>, delta: i64) {
        if let Some(reason) = reason {
            let n = self.held.entry(reason).or_default();
            *n = n.saturating_add_signed(delta);
        }
    }
}
