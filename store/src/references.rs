//! Who names whom: for each key that users' records name, the users, and whether they wait for
//! somebody behind it; and how far those who name a key are told that it leads to somebody
//! else.
//!
//! The users under a key stand beside each other in their order, so they can be told in pieces
//! however many they are, and those who wait have an index of their own, since nearly nobody
//! does.

use rollcall_core::id::{SourceId, UserRow};
use rollcall_core::plan::{Plan, Referring};
use rollcall_core::state::KeyBytes;
use rusqlite::Connection;
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::readers::Readers;
use crate::writer::Writer;

/// Of so many users who wait is counted which key is named most.
const COUNTED: i64 = 200_000;

/// A key that leads to somebody else, and the last of those who name it that were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relinked {
    /// In which source it is a key.
    pub source: SourceId,
    /// The key.
    pub key: KeyBytes,
    /// Everybody up to this one was told.
    pub told: UserRow,
}

/// Gives by how many the entries became more (or, negative, fewer).
pub(crate) fn write(connection: &Connection, plan: &Plan) -> Result<i64, StoreError> {
    if plan.references.is_empty() && plan.relinked.is_empty() {
        return Ok(0);
    }
    let mut sorted: Vec<(SourceId, &KeyBytes, UserRow, Referring)> = Vec::new();
    for ((source, key), users) in &plan.references {
        sorted.extend(users.iter().map(|&(user, is)| (*source, key, user, is)));
    }
    sorted.sort_unstable();
    let mut known = connection.prepare_cached(
        "UPDATE reference SET waits = ?4 WHERE source = ?1 AND key = ?2 AND user = ?3",
    )?;
    let mut begin = connection
        .prepare_cached("INSERT INTO reference(source, key, user, waits) VALUES(?1, ?2, ?3, ?4)")?;
    let mut cease = connection
        .prepare_cached("DELETE FROM reference WHERE source = ?1 AND key = ?2 AND user = ?3")?;
    let mut more = 0;
    for (source, key, user, is) in sorted {
        let key = key.as_slice();
        if is == Referring::No {
            more -= i64::try_from(cease.execute((source.0, key, user.0))?).unwrap_or(0);
            continue;
        }
        let row = (source.0, key, user.0, is == Referring::Waits);
        if known.execute(row)? == 0 {
            more += i64::try_from(begin.execute(row)?).unwrap_or(0);
        }
    }
    for ((source, key), told) in &plan.relinked {
        let place = (source.0, key.as_slice());
        match told {
            Some(told) => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO relinked(source, key, told) VALUES(?1, ?2, ?3)",
                )?
                .execute((place.0, place.1, told.0))?,
            None => connection
                .prepare_cached("DELETE FROM relinked WHERE source = ?1 AND key = ?2")?
                .execute(place)?,
        };
    }
    Ok(more)
}

pub(crate) fn count(connection: &Connection) -> Result<u64, StoreError> {
    let n: i64 = connection.query_row("SELECT COUNT(*) FROM reference", [], |row| row.get(0))?;
    Ok(n.unsigned_abs())
}

pub(crate) fn referrers(
    connection: &Connection,
    source: SourceId,
    key: &[u8],
    after: UserRow,
    limit: usize,
    into: &mut Vec<UserRow>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT user FROM reference WHERE source = ?1 AND key = ?2 AND user > ?3 \
         ORDER BY user LIMIT ?4",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((source.0, key, after.0, limit))?;
    while let Some(row) = rows.next()? {
        into.push(UserRow(row.get(0)?));
    }
    Ok(())
}

impl Writer {
    /// The first key of which not everybody who names it was told that it leads to somebody
    /// else. As of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn relinked(&mut self) -> Result<Option<Relinked>, StoreError> {
        self.asked(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT source, key, told FROM relinked ORDER BY source, key LIMIT 1",
            )?;
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let key = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            Ok(Some(Relinked {
                source: SourceId(row.get(0)?),
                key: SmallVec::from_slice(key),
                told: UserRow(row.get(2)?),
            }))
        })
    }

    /// The keys of a source that users wait for, those for which most do first. As of the last
    /// commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unresolved(
        &mut self,
        source: SourceId,
        limit: usize,
    ) -> Result<Vec<KeyBytes>, StoreError> {
        self.asked(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key FROM (SELECT key FROM reference WHERE source = ?1 AND waits LIMIT ?2) \
                 GROUP BY key ORDER BY COUNT(*) DESC, key LIMIT ?3",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query((source.0, COUNTED, limit))?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                keys.push(SmallVec::from_slice(key));
            }
            Ok(keys)
        })
    }
}

impl Readers {
    /// Whether anybody is still to be told that a key leads to somebody else.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_relinking(&self) -> Result<bool, StoreError> {
        self.with(|c| {
            Ok(c.prepare_cached("SELECT EXISTS(SELECT 1 FROM relinked)")?
                .query_row([], |r| r.get(0))?)
        })
    }

    /// How many users wait for somebody behind a key of a source, or (without one) behind any
    /// of its keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn references_waiting(
        &self,
        source: SourceId,
        key: Option<&[u8]>,
    ) -> Result<u64, StoreError> {
        self.with(|c| {
            let n: i64 = match key {
                Some(key) => c
                    .prepare_cached(
                        "SELECT COUNT(*) FROM reference \
                         WHERE source = ?1 AND key = ?2 AND waits",
                    )?
                    .query_row((source.0, key), |r| r.get(0))?,
                None => c
                    .prepare_cached("SELECT COUNT(*) FROM reference WHERE source = ?1 AND waits")?
                    .query_row([source.0], |r| r.get(0))?,
            };
            Ok(n.unsigned_abs())
        })
    }
}
