//! Questions to the store, each answered from one connection.
//!
//! The writer asks its own connection, everybody else one of the pool; the statements are
//! the same, so both see the same thing.

mod history;
mod sources;
mod users;

pub use history::{ConflictFilter, GapRow, RunFilter};
pub use sources::SourceRow;
pub(crate) use users::last_user_id;
pub use users::{HeldRecord, UserFilter, UserRowView};

use hashbrown::HashSet;
use rollcall_contract::Key;
use rollcall_core::attribute::AttrType;
use rollcall_core::conflict::{ConflictRow, Fingerprint};
use rollcall_core::id::{MatchHash, SourceId};
use rollcall_core::state::{KeyBytes, LinkTarget};
use rusqlite::{Connection, OptionalExtension, Params};
use smallvec::SmallVec;

use crate::counts::Counts;
use crate::error::StoreError;
use crate::outbox::{self, OutboxBlock};
use crate::position::{Position, Sequence};
use crate::preload::target_of;
use crate::readers::Readers;
use crate::writer::Identity;

impl Readers {
    /// Which store this is.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        self.with(|c| {
            identity(c)?.ok_or_else(|| StoreError::Damaged {
                detail: "the store does not say which one it is".to_owned(),
            })
        })
    }

    /// What is counted, as of the last commit.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.with(Counts::load)
    }

    /// Blocks from the one that holds `from` on, until `max_bytes` of events are read; at
    /// least one if there is one. The first block may begin before `from`; one that begins
    /// behind it says that what was before has been trimmed.
    pub fn outbox_from(
        &self,
        from: Position,
        max_bytes: usize,
    ) -> Result<Vec<std::sync::Arc<OutboxBlock>>, StoreError> {
        self.with(|c| outbox::blocks_from(c, from, max_bytes, self.memory()))
    }

    /// Blocks that hold the events behind a sequence, as in [`Readers::outbox_from`].
    pub fn outbox_after(
        &self,
        after: Sequence,
        max_bytes: usize,
    ) -> Result<Vec<std::sync::Arc<OutboxBlock>>, StoreError> {
        self.with(|c| {
            let from = outbox::position_behind(c, after)?;
            outbox::blocks_from(c, from, max_bytes, self.memory())
        })
    }

    /// The first position that is kept and the one behind the last; none when nothing is.
    pub fn outbox_kept(&self) -> Result<Option<(Position, Position)>, StoreError> {
        self.with(outbox::kept)
    }

    /// The position of the first events that were committed at a time (microseconds since the
    /// Unix epoch) or later, and when they were; none when there are none.
    pub fn outbox_since(&self, since_us: i64) -> Result<Option<(Position, i64)>, StoreError> {
        self.with(|c| outbox::first_since(c, since_us))
    }

    /// Streams the links of a source in the order of their keys, from behind a key on, at
    /// most `limit` of them.
    pub fn links_after(
        &self,
        source: SourceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(KeyBytes, LinkTarget)>, StoreError> {
        self.with(|c| links_after(c, source, after, limit))
    }

    /// Reads the whole file and gives what is wrong with it; nothing when all is well.
    /// Takes as long as reading the file does.
    pub fn check(&self) -> Result<Vec<String>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare("PRAGMA quick_check")?;
            let found: Vec<String> = statement
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(found.into_iter().filter(|line| line != "ok").collect())
        })
    }
}

/// Who the store says it is; none before its first start.
pub(crate) fn identity(connection: &Connection) -> Result<Option<Identity>, StoreError> {
    let get = |name: &str| {
        connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |r| {
                r.get::<_, String>(0)
            })
            .optional()
    };
    let Some(store) = get("store")? else {
        return Ok(None);
    };
    let damaged = || StoreError::Damaged {
        detail: "the store does not say which one it is".to_owned(),
    };
    Ok(Some(Identity {
        store: store.parse().map_err(|_| damaged())?,
        organization: get("organization")?.ok_or_else(damaged)?,
        generation: match get("generation")? {
            Some(n) => n.parse().map_err(|_| damaged())?,
            None => 0,
        },
    }))
}

/// Appends the one blob that a statement gives; `false` when it gives none.
pub(crate) fn append_blob(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    into: &mut Vec<u8>,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let Some(row) = rows.next()? else {
        return Ok(false);
    };
    into.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    Ok(true)
}

pub(crate) fn waiting(
    connection: &Connection,
    hash: MatchHash,
    into: &mut Vec<(SourceId, KeyBytes)>,
) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT source, key FROM waiting WHERE hash = ?1 ORDER BY source, key")?;
    let mut rows = statement.query([hash.0 as i64])?;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        into.push((SourceId(row.get(0)?), SmallVec::from_slice(key)));
    }
    Ok(())
}

/// A conflict, open or closed.
pub(crate) fn conflict(
    connection: &Connection,
    fingerprint: Fingerprint,
) -> Result<Option<ConflictRow>, StoreError> {
    history::conflict(connection, fingerprint)
}

pub(crate) fn open_conflict(
    connection: &Connection,
    fingerprint: Fingerprint,
) -> Result<Option<ConflictRow>, StoreError> {
    Ok(history::conflict(connection, fingerprint)?.filter(|c| c.closed_us.is_none()))
}

/// The names of all conflicts that are open.
pub(crate) fn open_conflicts(connection: &Connection) -> Result<HashSet<Fingerprint>, StoreError> {
    let mut statement =
        connection.prepare("SELECT fingerprint FROM conflict WHERE closed_us IS NULL")?;
    let names = statement.query_map([], |r| Ok(Fingerprint(r.get::<_, i64>(0)? as u64)))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn links_after(
    connection: &Connection,
    source: SourceId,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<(KeyBytes, LinkTarget)>, StoreError> {
    let mut links = Vec::new();
    show_links_after(connection, source, after, limit, |key, target| {
        links.push((SmallVec::from_slice(key), target));
    })?;
    Ok(links)
}

/// Shows at most `limit` links behind a key; gives the last key when there may be more.
pub(crate) fn show_links_after(
    connection: &Connection,
    source: SourceId,
    after: Option<&Key>,
    limit: usize,
    mut show: impl FnMut(&[u8], LinkTarget),
) -> Result<Option<Key>, StoreError> {
    // The empty key is before all others and is nobody's.
    let after = after.map(Key::as_bytes).unwrap_or_default();
    let mut statement = connection.prepare_cached(
        "SELECT key, user FROM link WHERE source = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut rows = statement.query((source.0, after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut shown = 0;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        show(key, target_of(row.get(1)?));
        shown += 1;
        if shown == limit {
            return Ok(Key::from_bytes(key));
        }
    }
    Ok(None)
}

/// The stored name of an attribute's type: as it is serialized.
pub(crate) fn attribute_kind_name(kind: AttrType) -> Result<String, StoreError> {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(StoreError::Refused(
            "an attribute type has no name".to_owned(),
        )),
    }
}
