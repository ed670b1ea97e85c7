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
}

/// The memory kept from one batch to the next.
const KEPT_BYTES: usize = 4 << 20;
/// Keys that one statement asks for.
const RUN: usize = 32;

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
        let mut rows: Vec<UserRow> = Vec::new();
        let mut one =
            connection.prepare_cached("SELECT user FROM link WHERE source = ?1 AND key = ?2")?;
        for key in keys {
            let target = link_target(&mut one, source, key)?;
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
        Some(row) => Some(match row.get::<_, Option<i64>>(0)? {
            Some(user) => LinkTarget::User(UserRow(user)),
            None => LinkTarget::Record,
        }),
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
