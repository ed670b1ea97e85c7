//! What a batch is going to ask, read beforehand in the order of the keys.
//!
//! Answers are copies of what was committed when they were read, "there is none" included.
//! They are thrown away when a commit is given to the thread that writes, so what may have
//! changed since is the one commit that is under way, and that is laid over them. Whatever
//! is not here is asked of the database. Being preloaded changes how fast an answer comes
//! and nothing else.

use hashbrown::HashMap;
use rollcall_core::id::{SourceId, UserRow, ValueHash};
use rollcall_core::state::{KeyBytes, LinkTarget};
use rusqlite::{Connection, Statement};
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::match_delta::MatchDelta;

#[derive(Clone, Copy, Debug)]
struct Loaded {
    start: usize,
    len: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Preloaded {
    source: Option<SourceId>,
    links: HashMap<KeyBytes, Option<LinkTarget>>,
    users: HashMap<UserRow, Loaded>,
    owners: HashMap<ValueHash, SmallVec<[UserRow; 4]>>,
    documents: Vec<u8>,
    /// Batches to come that ask for each key alone, because in the last one the keys lay too
    /// far apart.
    singly: u32,
}

/// The memory kept from one batch to the next.
const KEPT_BYTES: usize = 4 << 20;
/// Keys that one statement asks for.
const RUN: usize = 32;
/// After a batch whose keys lay far apart, so many others are taken to be like it.
const SINGLY: u32 = 15;

impl Preloaded {
    pub(crate) fn clear(&mut self) {
        self.source = None;
        self.links.clear();
        self.users.clear();
        self.owners.clear();
        self.documents.clear();
        self.documents.shrink_to(KEPT_BYTES);
    }

    /// Forgets everything when it is about another source.
    pub(crate) fn begin(&mut self, source: SourceId) {
        if self.source != Some(source) {
            self.clear();
            self.source = Some(source);
        }
    }

    pub(crate) fn link(&self, source: SourceId, key: &[u8]) -> Option<Option<LinkTarget>> {
        if self.source != Some(source) {
            return None;
        }
        self.links.get(key).copied()
    }

    pub(crate) fn user(&self, row: UserRow) -> Option<&[u8]> {
        let at = self.users.get(&row)?;
        self.documents.get(at.start..at.start + at.len)
    }

    pub(crate) fn owners(&self, hash: ValueHash) -> Option<&[UserRow]> {
        self.owners.get(&hash).map(SmallVec::as_slice)
    }

    /// Reads links, in the order of their keys, and the users that they lead to.
    pub(crate) fn load_links(
        &mut self,
        connection: &Connection,
        source: SourceId,
        mut keys: Vec<&[u8]>,
    ) -> Result<(), StoreError> {
        self.begin(source);
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !self.links.contains_key(*key));
        self.links.reserve(keys.len());
        let found = match self.singly.checked_sub(1) {
            Some(left) => {
                self.singly = left;
                None
            }
            None if keys.len() < RUN => None,
            None => {
                let found = links_between(connection, source, &keys)?;
                if found.is_none() {
                    self.singly = SINGLY;
                }
                found
            }
        };
        let mut rows: Vec<UserRow> = Vec::new();
        let mut one =
            connection.prepare_cached("SELECT user FROM link WHERE source = ?1 AND key = ?2")?;
        for key in keys {
            let target = match &found {
                Some(found) => found.get(key).copied(),
                None => link_target(&mut one, source, key)?,
            };
            if let Some(LinkTarget::User(row)) = target {
                rows.push(row);
            }
            self.links.insert(SmallVec::from_slice(key), target);
        }
        self.load_users(connection, rows)
    }

    /// Reads users in the order of their rows.
    pub(crate) fn load_users(
        &mut self,
        connection: &Connection,
        mut rows: Vec<UserRow>,
    ) -> Result<(), StoreError> {
        rows.sort_unstable();
        rows.dedup();
        rows.retain(|row| !self.users.contains_key(row));
        self.users.reserve(rows.len());
        let (whole, rest) = rows.split_at(rows.len() / RUN * RUN);
        if !whole.is_empty() {
            let mut many = connection.prepare_cached(&format!(
                "SELECT id, document FROM user WHERE id IN ({})",
                vec!["?"; RUN].join(",")
            ))?;
            for run in whole.chunks(RUN) {
                self.take_users(&mut many, run)?;
            }
        }
        let mut one = connection.prepare_cached("SELECT id, document FROM user WHERE id = ?1")?;
        for row in rest {
            self.take_users(&mut one, std::slice::from_ref(row))?;
        }
        Ok(())
    }

    fn take_users(
        &mut self,
        statement: &mut Statement<'_>,
        rows: &[UserRow],
    ) -> Result<(), StoreError> {
        for (i, row) in rows.iter().enumerate() {
            statement.raw_bind_parameter(i + 1, row.0)?;
        }
        let mut found = statement.raw_query();
        while let Some(row) = found.next()? {
            let document = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let start = self.documents.len();
            self.documents.extend_from_slice(document);
            self.users.insert(
                UserRow(row.get(0)?),
                Loaded {
                    start,
                    len: document.len(),
                },
            );
        }
        Ok(())
    }

    /// Reads who has which value, in the order of the hashes.
    pub(crate) fn load_owners(
        &mut self,
        connection: &Connection,
        delta: &MatchDelta,
        mut hashes: Vec<ValueHash>,
    ) -> Result<(), StoreError> {
        hashes.sort_unstable_by_key(|h| h.0 as i64);
        hashes.dedup();
        hashes.retain(|hash| !self.owners.contains_key(hash));
        self.owners.reserve(hashes.len());
        for hash in hashes {
            let mut found = SmallVec::new();
            owners(connection, delta, hash, &mut found)?;
            self.owners.insert(hash, found);
        }
        Ok(())
    }
}

/// All links from the first to the last of sorted keys, if they are not many more than the
/// keys: a load, and people who are hired, come in the order of their keys, and one
/// statement then says that none of them is known.
fn links_between(
    connection: &Connection,
    source: SourceId,
    keys: &[&[u8]],
) -> Result<Option<HashMap<KeyBytes, LinkTarget>>, StoreError> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Ok(None);
    };
    let at_most = keys.len() + keys.len() / 2;
    let mut statement = connection.prepare_cached(
        "SELECT key, user FROM link WHERE source = ?1 AND key BETWEEN ?2 AND ?3 LIMIT ?4",
    )?;
    let limit = i64::try_from(at_most + 1).unwrap_or(i64::MAX);
    let mut rows = statement.query((source.0, first, last, limit))?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        found.insert(KeyBytes::from_slice(key), target_of(row.get(1)?));
    }
    Ok((found.len() <= at_most).then_some(found))
}

pub(crate) fn target_of(user: Option<i64>) -> LinkTarget {
    match user {
        Some(user) => LinkTarget::User(UserRow(user)),
        None => LinkTarget::Record,
    }
}

/// Where a record leads, by a statement over `(source, key)` that gives the user.
pub(crate) fn link_target(
    statement: &mut Statement<'_>,
    source: SourceId,
    key: &[u8],
) -> Result<Option<LinkTarget>, StoreError> {
    statement.raw_bind_parameter(1, source.0)?;
    statement.raw_bind_parameter(2, key)?;
    let mut rows = statement.raw_query();
    Ok(match rows.next()? {
        Some(row) => Some(target_of(row.get(0)?)),
        None => None,
    })
}

/// The users that may have a value: those in the table with the waiting changes laid over them.
pub(crate) fn owners(
    connection: &Connection,
    delta: &MatchDelta,
    hash: ValueHash,
    into: &mut SmallVec<[UserRow; 4]>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT user FROM match_key WHERE hash = ?1")?;
    let mut found: SmallVec<[UserRow; 4]> = SmallVec::new();
    statement.raw_bind_parameter(1, hash.0 as i64)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        found.push(UserRow(row.get(0)?));
    }
    delta.overlay(hash, &mut found);
    into.extend(found);
    Ok(())
}
