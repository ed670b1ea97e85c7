//! Finding users.
//!
//! Lists page along row ids (the order in which users were made). Ids of users ascend in the
//! same order ([`rollcall_core::id::NewIds`]), so a user is found by its id by halving the
//! rows. A question by userName or by email goes through the values that users have, and is
//! then verified against the document.
//! A search by part of a name reads the narrow columns of every user: no index could serve
//! it, and one kept only for sorting would cost each change more than all searches
//! together. It ends as soon as a page is full.

use rollcall_core::document::Document;
use rollcall_core::id::{SourceId, UserId, UserRow, ValueHash};
use rollcall_core::mapping::search_form;
use rusqlite::{Connection, OptionalExtension, Row};
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::match_delta;
use crate::readers::Readers;
use crate::shape;

/// Which users to list.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Only active or only inactive ones.
    pub active: Option<bool>,
    /// Only those whose userName or displayName holds this text (letters in
    /// any case, with or without their accents).
    pub text: Option<String>,
    /// Only those that a record of this source leads to.
    pub source: Option<SourceId>,
}

/// A user, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRowView {
    /// Its place.
    pub row: UserRow,
    /// Whether it is active.
    pub active: bool,
    /// Microseconds since the Unix epoch.
    pub updated_us: i64,
    /// For lists.
    pub user_name: Option<String>,
    /// For lists.
    pub display_name: Option<String>,
    /// Everything; see [`rollcall_core::document`].
    pub document: Vec<u8>,
}

/// A record that leads to no user, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// Its key ([`rollcall_contract::Key`] bytes).
    pub key: Vec<u8>,
    /// Everything; see [`rollcall_core::document::Record`].
    pub document: Vec<u8>,
}

const COLUMNS: &str = "id, active, updated_us, user_name, display_name, document";

fn view(row: &Row<'_>) -> rusqlite::Result<UserRowView> {
    Ok(UserRowView {
        row: UserRow(row.get(0)?),
        active: row.get(1)?,
        updated_us: row.get(2)?,
        user_name: row.get(3)?,
        display_name: row.get(4)?,
        document: row.get(5)?,
    })
}

impl Readers {
    /// Users behind a place, in the order in which they were made, at most `limit`.
    pub fn users(
        &self,
        filter: &UserFilter,
        after: Option<UserRow>,
        limit: usize,
    ) -> Result<Vec<UserRowView>, StoreError> {
        let wanted = filter.text.as_deref().map(search_form);
        self.with(|c| {
            // In a search the documents of those who are not meant stay unread.
            let columns = match wanted {
                Some(_) => "id, user_name, display_name",
                None => COLUMNS,
            };
            let mut statement = c.prepare_cached(&format!(
                "SELECT {columns} FROM user \
                 WHERE id > ?1 AND (?2 IS NULL OR active = ?2) ORDER BY id"
            ))?;
            let mut rows = statement.query((after.map_or(i64::MIN, |r| r.0), filter.active))?;
            let mut users = Vec::new();
            while users.len() < limit
                && let Some(row) = rows.next()?
            {
                let found = match &wanted {
                    None => Some(view(row)?),
                    Some(wanted) if has_name(row, wanted)? => user(c, UserRow(row.get(0)?))?,
                    Some(_) => None,
                };
                let Some(user) = found else {
                    continue;
                };
                if shape::is_tombstone(&user.document) {
                    continue;
                }
                if filter.source.is_none_or(|s| is_fed_by(&user.document, s)) {
                    users.push(user);
                }
            }
            Ok(users)
        })
    }

    /// A user by its place.
    pub fn user(&self, row: UserRow) -> Result<Option<UserRowView>, StoreError> {
        self.with(|c| user(c, row))
    }

    /// A user by its id.
    pub fn user_by_id(&self, id: UserId) -> Result<Option<UserRowView>, StoreError> {
        self.with(|c| match row_of(c, id)? {
            Some(row) => user(c, row),
            None => Ok(None),
        })
    }

    /// The users that may have a value ([`ValueHash::of`] a folded userName or email).
    /// Hashes can collide: verify against the document.
    pub fn users_by_value(&self, hash: ValueHash) -> Result<Vec<UserRowView>, StoreError> {
        self.with(|c| {
            let mut users = Vec::new();
            for row in candidates(c, hash.0 as i64)? {
                users.extend(user(c, row)?);
            }
            Ok(users)
        })
    }

    /// The user that a record leads to. `Some(None)`: the record is known and leads to
    /// nobody.
    pub fn user_by_record(
        &self,
        source: SourceId,
        key: &[u8],
    ) -> Result<Option<Option<UserRowView>>, StoreError> {
        self.with(|c| {
            let found: Option<Option<i64>> = c
                .prepare_cached("SELECT user FROM link WHERE source = ?1 AND key = ?2")?
                .query_row((source.0, key), |r| r.get(0))
                .optional()?;
            match found {
                None => Ok(None),
                Some(None) => Ok(Some(None)),
                Some(Some(row)) => Ok(Some(user(c, UserRow(row))?)),
            }
        })
    }

    /// The document of a record that leads to no user
    /// ([`rollcall_core::document::Record`]).
    pub fn record(&self, source: SourceId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached("SELECT document FROM record WHERE source = ?1 AND key = ?2")?
                    .query_row((source.0, key), |r| r.get(0))
                    .optional()?,
            )
        })
    }

    /// Records of a source that lead to no user, in the order of their keys, from behind a
    /// key on.
    pub fn records_after(
        &self,
        source: SourceId,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<HeldRecord>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT key, document FROM record WHERE source = ?1 AND key > ?2 \
                 ORDER BY key LIMIT ?3",
            )?;
            let rows = statement.query_map(
                (source.0, after, i64::try_from(limit).unwrap_or(i64::MAX)),
                |r| {
                    Ok(HeldRecord {
                        key: r.get(0)?,
                        document: r.get(1)?,
                    })
                },
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn user(connection: &Connection, row: UserRow) -> Result<Option<UserRowView>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE id = ?1"))?
        .query_row([row.0], view)
        .optional()?)
}

/// The row of a user with this id.
fn row_of(connection: &Connection, id: UserId) -> Result<Option<UserRow>, StoreError> {
    let (mut low, mut high): (i64, i64) = connection.query_row(
        "SELECT COALESCE(MIN(id), 1), COALESCE(MAX(id), 0) FROM user",
        [],
        |r| Ok((r.get(0)?, r.get(1)?)),
    )?;
    let mut at = connection.prepare_cached(
        "SELECT id, substr(document, 1, 17) FROM user WHERE id >= ?1 ORDER BY id LIMIT 1",
    )?;
    while low <= high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, Vec<u8>)> = at
            .query_row([middle], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        // Rows of users that were purged are missing.
        let Some((row, head)) = found.filter(|(row, _)| *row <= high) else {
            high = middle - 1;
            continue;
        };
        let here = shape::user_id(&head).ok_or_else(|| StoreError::Damaged {
            detail: format!("the document of user row {row} has no id"),
        })?;
        match here.cmp(&id) {
            std::cmp::Ordering::Equal => return Ok(Some(UserRow(row))),
            std::cmp::Ordering::Less => low = row + 1,
            std::cmp::Ordering::Greater => high = middle - 1,
        }
    }
    Ok(None)
}

/// The id of the user that was made last.
pub(crate) fn last_user_id(connection: &Connection) -> Result<Option<UserId>, StoreError> {
    let head: Option<Vec<u8>> = connection
        .query_row(
            "SELECT substr(document, 1, 17) FROM user ORDER BY id DESC LIMIT 1",
            [],
            |r| r.get(0),
        )
        .optional()?;
    Ok(head.and_then(|head| shape::user_id(&head)))
}

/// The users under a hash: those of the table with the journal laid over them.
fn candidates(connection: &Connection, hash: i64) -> Result<SmallVec<[UserRow; 4]>, StoreError> {
    let mut users: SmallVec<[UserRow; 4]> = SmallVec::new();
    let mut table = connection.prepare_cached("SELECT user FROM match_key WHERE hash = ?1")?;
    let mut rows = table.query([hash])?;
    while let Some(row) = rows.next()? {
        users.push(UserRow(row.get(0)?));
    }
    let mut journal = connection.prepare_cached("SELECT entries FROM match_journal ORDER BY id")?;
    let mut rows = journal.query([])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        for ((h, user), present) in match_delta::decode(bytes)? {
            if h == hash {
                users.retain(|u| u.0 != user);
                if present {
                    users.push(UserRow(user));
                }
            }
        }
    }
    Ok(users)
}

fn is_fed_by(document: &[u8], source: SourceId) -> bool {
    Document::decode(document).is_ok_and(|d| {
        d.links
            .iter()
            .any(|l| l.source == source && l.state.is_present())
    })
}

/// Whether one of the two names in the row holds a text, given as it is searched for.
fn has_name(row: &Row<'_>, wanted: &str) -> Result<bool, StoreError> {
    for column in [1, 2] {
        let name = row.get_ref(column)?.as_str_or_null();
        if let Some(name) = name.map_err(rusqlite::Error::from)?
            && search_form(name).contains(wanted)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
