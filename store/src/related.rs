//! Rows of related tables, which records they are joined to, and what is still to be told of
//! a change of them.
//!
//! A related row lies beside those of the same join value, since that is how it is asked for;
//! by its key it is found through an index. Which records have a join value is a *hint*: an
//! entry is made when a record gets the value and not taken away when it gets another one, so
//! that a change of a record costs no reading. Whoever goes through the entries looks at each
//! record, and forgets those that have another value by now.
//!
//! A change of a related row concerns all records of its join value, which may be a million.
//! So with the row nothing is stored but a [`Fanout`]: how far these records are done. It is
//! written in the same commit, so no crash comes between the two, and each piece of it is a
//! commit that holds the piece's effects and the new place. A further change of the same join
//! value begins it anew.
//!
//! A row that was deleted leaves a trace for a while, with its transaction: an older reading
//! must not bring it back.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_core::id::SourceId;
use rollcall_core::state::KeyBytes;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::StoreError;
use crate::readers::Readers;
use crate::writer::Writer;

/// Names a related table as long as its definition is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelatedId(pub u16);

/// How a related table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelatedState {
    /// Not every row of it has been read yet.
    Loading,
    /// Its rows are known.
    Loaded,
    /// It is not asked for any more: its rows are being forgotten.
    Dropped,
}

/// A related table, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedTableRow {
    /// Of which source.
    pub source: SourceId,
    /// Its number among all that the source ever had.
    pub id: RelatedId,
    /// What the configuration calls it.
    pub name: String,
    /// What is kept of its rows and how they are joined: rows that were stored under another
    /// definition mean nothing.
    pub definition: String,
    /// How it stands.
    pub state: RelatedState,
}

/// A row of a related table: the whole of it as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedRow {
    /// Its join value; none when that is null.
    pub joined: Option<KeyBytes>,
    /// Its kept cells; none when it is gone.
    pub cells: Option<Vec<u8>>,
    /// The transaction that it was last changed in; empty when only scans have seen it.
    pub tx: KeyBytes,
    /// When it was stored, microseconds since the Unix epoch.
    pub at_us: i64,
}

/// What is to be told to the records of a join value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Records up to this key are done.
    pub after: Option<KeyBytes>,
    /// Whether a reading of the whole source found it, which tells the records itself.
    pub of_scan: bool,
    /// Readable position of the change.
    pub position: String,
    /// Its number in its transaction.
    pub ordinal: u32,
    /// Its commit time, microseconds since the Unix epoch.
    pub commit_us: i64,
}

/// A place among related rows: the table and the row's key, or a join value.
pub type RelatedPlace = (SourceId, RelatedId, KeyBytes);

/// What a commit does to related tables.
#[derive(Clone, Debug, Default)]
pub struct RelatedWrites {
    /// Tables: the whole row as it is now.
    pub tables: Vec<RelatedTableRow>,
    /// Rows by their keys.
    pub rows: BTreeMap<RelatedPlace, RelatedRow>,
    /// Records that have a join value: the value, and the record's key.
    pub records: BTreeSet<(RelatedPlace, KeyBytes)>,
    /// Records that do not have it any more.
    pub forgotten: Vec<(RelatedPlace, KeyBytes)>,
    /// What is to be told, by join value; none when everybody was told.
    pub fanouts: BTreeMap<RelatedPlace, Option<Fanout>>,
}

impl RelatedWrites {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.rows.is_empty()
            && self.records.is_empty()
            && self.forgotten.is_empty()
            && self.fanouts.is_empty()
    }

    /// Adds what comes behind.
    pub fn add(&mut self, later: &RelatedWrites) {
        self.tables.extend(later.tables.iter().cloned());
        let rows = later.rows.iter();
        self.rows
            .extend(rows.map(|(at, row)| (at.clone(), row.clone())));
        self.records.extend(later.records.iter().cloned());
        self.forgotten.extend(later.forgotten.iter().cloned());
        let fanouts = later.fanouts.iter();
        self.fanouts
            .extend(fanouts.map(|(at, fanout)| (at.clone(), fanout.clone())));
    }

    pub(crate) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        for table in &self.tables {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO related(source, id, name, definition, state) \
                     VALUES(?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((
                    table.source.0,
                    table.id.0,
                    &table.name,
                    &table.definition,
                    state_name(table.state),
                ))?;
        }
        self.write_rows(connection)?;
        if !self.forgotten.is_empty() {
            let mut forget = connection.prepare_cached(
                "DELETE FROM related_record WHERE source = ?1 AND id = ?2 AND joined = ?3 \
                 AND key = ?4",
            )?;
            for ((source, id, joined), key) in &self.forgotten {
                forget.execute((source.0, id.0, joined.as_slice(), key.as_slice()))?;
            }
        }
        if !self.records.is_empty() {
            let mut add = connection.prepare_cached(
                "INSERT OR IGNORE INTO related_record(source, id, joined, key) \
                 VALUES(?1, ?2, ?3, ?4)",
            )?;
            for ((source, id, joined), key) in &self.records {
                add.execute((source.0, id.0, joined.as_slice(), key.as_slice()))?;
            }
        }
        self.write_fanouts(connection)
    }

    fn write_rows(&self, connection: &Connection) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // A row of the same key with another join value gives way, by the index of keys.
        let mut write = connection.prepare_cached(
            "INSERT OR REPLACE INTO related_row(source, id, joined, key, tx, cells, at_us) \
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for ((source, id, key), row) in &self.rows {
            write.execute((
                source.0,
                id.0,
                row.joined.as_deref().unwrap_or_default(),
                key.as_slice(),
                row.tx.as_slice(),
                row.cells.as_deref(),
                row.at_us,
            ))?;
        }
        Ok(())
    }

    fn write_fanouts(&self, connection: &Connection) -> Result<(), StoreError> {
        for ((source, id, joined), fanout) in &self.fanouts {
            let place = (source.0, id.0, joined.as_slice());
            match fanout {
                Some(fanout) => connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO fanout(source, id, joined, after, of_scan, \
                         position, ordinal, commit_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute((
                        place.0,
                        place.1,
                        place.2,
                        fanout.after.as_deref(),
                        fanout.of_scan,
                        &fanout.position,
                        fanout.ordinal,
                        fanout.commit_us,
                    ))?,
                None => connection
                    .prepare_cached(
                        "DELETE FROM fanout WHERE source = ?1 AND id = ?2 AND joined = ?3",
                    )?
                    .execute(place)?,
            };
        }
        Ok(())
    }
}

fn state_name(state: RelatedState) -> &'static str {
    match state {
        RelatedState::Loading => "loading",
        RelatedState::Loaded => "loaded",
        RelatedState::Dropped => "dropped",
    }
}

fn bytes(row: &Row<'_>, at: usize) -> rusqlite::Result<KeyBytes> {
    Ok(KeyBytes::from_slice(row.get_ref(at)?.as_blob()?))
}

fn tables(connection: &Connection, source: SourceId) -> Result<Vec<RelatedTableRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, definition, state FROM related WHERE source = ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([source.0], |r| {
        let state: String = r.get(3)?;
        Ok(RelatedTableRow {
            source,
            id: RelatedId(r.get(0)?),
            name: r.get(1)?,
            definition: r.get(2)?,
            state: match state.as_str() {
                "loaded" => RelatedState::Loaded,
                "dropped" => RelatedState::Dropped,
                _ => RelatedState::Loading,
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shows key and kept cells of rows in the order of their keys, until that says enough.
fn show_rows(
    connection: &Connection,
    (source, id, joined): (SourceId, RelatedId, &[u8]),
    mut show: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, cells FROM related_row WHERE source = ?1 AND id = ?2 AND joined = ?3 \
         AND cells IS NOT NULL ORDER BY key",
    )?;
    let mut rows = statement.query((source.0, id.0, joined))?;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        let cells = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if !show(key, cells) {
            break;
        }
    }
    Ok(())
}

fn row_of(
    connection: &Connection,
    (source, id, key): (SourceId, RelatedId, &[u8]),
) -> Result<Option<RelatedRow>, StoreError> {
    let row = connection
        .prepare_cached(
            "SELECT joined, cells, tx, at_us FROM related_row INDEXED BY related_key \
             WHERE source = ?1 AND id = ?2 AND key = ?3",
        )?
        .query_row((source.0, id.0, key), |r| {
            Ok(RelatedRow {
                joined: Some(bytes(r, 0)?).filter(|joined| !joined.is_empty()),
                cells: r.get(1)?,
                tx: bytes(r, 2)?,
                at_us: r.get(3)?,
            })
        })
        .optional()?;
    Ok(row)
}

fn keys_after(
    connection: &Connection,
    (source, id): (SourceId, RelatedId),
    after: &[u8],
    limit: usize,
) -> Result<Vec<KeyBytes>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM related_row INDEXED BY related_key WHERE source = ?1 AND id = ?2 \
         AND key > ?3 AND cells IS NOT NULL ORDER BY key LIMIT ?4",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map((source.0, id.0, after, limit), |r| bytes(r, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn records_after(
    connection: &Connection,
    (source, id, joined): (SourceId, RelatedId, &[u8]),
    after: &[u8],
    limit: usize,
) -> Result<Vec<KeyBytes>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM related_record WHERE source = ?1 AND id = ?2 AND joined = ?3 \
         AND key > ?4 ORDER BY key LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map((source.0, id.0, joined, after, limit), |r| bytes(r, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn fanouts(
    connection: &Connection,
    source: SourceId,
    of_scan: bool,
    limit: usize,
) -> Result<Vec<(RelatedPlace, Fanout)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, joined, after, of_scan, position, ordinal, commit_us FROM fanout \
         WHERE source = ?1 AND of_scan <= ?2 ORDER BY of_scan, id, commit_us, joined LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map((source.0, of_scan, limit), |r| {
        let after: Option<Vec<u8>> = r.get(2)?;
        let place = (source, RelatedId(r.get(0)?), bytes(r, 1)?);
        let fanout = Fanout {
            after: after.map(KeyBytes::from_vec),
            of_scan: r.get(3)?,
            position: r.get(4)?,
            ordinal: r.get(5)?,
            commit_us: r.get(6)?,
        };
        Ok((place, fanout))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Readers {
    /// The related tables of a source, also those that are being forgotten.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_tables(&self, source: SourceId) -> Result<Vec<RelatedTableRow>, StoreError> {
        self.with(|c| tables(c, source))
    }

    /// Shows key and kept cells of the rows of a join value in the order of their keys, until
    /// `show` wants no more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_rows(
        &self,
        place: (SourceId, RelatedId, &[u8]),
        show: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.with(|c| show_rows(c, place, show))
    }

    /// A related row by its key, or the trace that it left.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_row(
        &self,
        place: (SourceId, RelatedId, &[u8]),
    ) -> Result<Option<RelatedRow>, StoreError> {
        self.with(|c| row_of(c, place))
    }

    /// Keys of a related table's rows behind a key, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_keys_after(
        &self,
        table: (SourceId, RelatedId),
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<KeyBytes>, StoreError> {
        self.with(|c| keys_after(c, table, after, limit))
    }

    /// Of how many join values of a source the records are not told yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fanouts_open(&self, source: SourceId) -> Result<u64, StoreError> {
        self.with(|c| {
            let open: i64 = c
                .prepare_cached("SELECT COUNT(*) FROM fanout WHERE source = ?1")?
                .query_row([source.0], |r| r.get(0))?;
            Ok(open.unsigned_abs())
        })
    }
}

impl Writer {
    /// As [`Readers::related_tables`], as of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_tables(&mut self, source: SourceId) -> Result<Vec<RelatedTableRow>, StoreError> {
        self.asked(|c| tables(c, source))
    }

    /// As [`Readers::related_rows`]. What the commit under way has changed may be shown or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_rows(
        &mut self,
        place: (SourceId, RelatedId, &[u8]),
        show: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.glanced(|c| show_rows(c, place, show))
    }

    /// As [`Readers::related_row`]. What the commit under way has changed may be shown or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_row(
        &mut self,
        place: (SourceId, RelatedId, &[u8]),
    ) -> Result<Option<RelatedRow>, StoreError> {
        self.glanced(|c| row_of(c, place))
    }

    /// As [`Readers::related_keys_after`], as of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_keys_after(
        &mut self,
        table: (SourceId, RelatedId),
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<KeyBytes>, StoreError> {
        self.asked(|c| keys_after(c, table, after, limit))
    }

    /// Keys of records that may have a join value, behind a key and in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn related_records_after(
        &mut self,
        place: (SourceId, RelatedId, &[u8]),
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<KeyBytes>, StoreError> {
        self.glanced(|c| records_after(c, place, after, limit))
    }

    /// What is still to be told of a source's related rows, one table after the other, the oldest
    /// first; what scans found behind it, and only if that is asked for. As of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fanouts(
        &mut self,
        source: SourceId,
        of_scan: bool,
        limit: usize,
    ) -> Result<Vec<(RelatedPlace, Fanout)>, StoreError> {
        self.asked(|c| fanouts(c, source, of_scan, limit))
    }

    /// Forgets rows of tables that are not asked for any more, and what deleted rows left
    /// before a time: at most a thousand of each in one call. Gives how many went.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn forget_related(&mut self, before_us: i64) -> Result<u64, StoreError> {
        const OF_DROPPED: &str = "SELECT source, id FROM related WHERE state = 'dropped'";
        // Nearly always there is nothing, and then nothing is written.
        let any = self.asked(|c| {
            Ok(c.prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM related WHERE state = 'dropped') OR \
                 EXISTS(SELECT 1 FROM related_row WHERE cells IS NULL AND at_us < ?1)",
            )?
            .query_row([before_us], |r| r.get::<_, bool>(0))?)
        })?;
        if !any {
            return Ok(0);
        }
        self.transact(move |c| {
            let mut forgotten = c.execute(
                "DELETE FROM related_row WHERE (source, id, joined, key) IN (SELECT source, id, \
                 joined, key FROM related_row WHERE cells IS NULL AND at_us < ?1 LIMIT 1000)",
                [before_us],
            )?;
            let (rows, records) = (
                format!(
                    "DELETE FROM related_row WHERE (source, id, joined, key) IN (SELECT r.source, \
                     r.id, r.joined, r.key FROM ({OF_DROPPED}) d JOIN related_row r \
                     ON r.source = d.source AND r.id = d.id LIMIT 1000)"
                ),
                format!(
                    "DELETE FROM related_record WHERE (source, id, joined, key) IN (SELECT \
                     r.source, r.id, r.joined, r.key FROM ({OF_DROPPED}) d JOIN related_record r \
                     ON r.source = d.source AND r.id = d.id LIMIT 1000)"
                ),
            );
            let of_tables = c.execute(&rows, [])? + c.execute(&records, [])?;
            forgotten += of_tables;
            c.execute(
                &format!("DELETE FROM fanout WHERE (source, id) IN ({OF_DROPPED})"),
                [],
            )?;
            if of_tables == 0 {
                forgotten += c.execute("DELETE FROM related WHERE state = 'dropped'", [])?;
            }
            Ok(forgotten as u64)
        })
    }
}
