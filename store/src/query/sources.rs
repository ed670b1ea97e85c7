//! Sources, scans and sinks as they stand.

use rollcall_contract::{Cursor, Key, Lineage};
use rollcall_core::attribute::{AttrId, AttrType};
use rollcall_core::id::{RunId, SourceId};
use rusqlite::{OptionalExtension, Row};
use smallvec::SmallVec;

use crate::commit::{DriftRow, ParkedRow, ProofRow, ScanRow, SchemaVersion, SinkRow, Walk};
use crate::error::StoreError;
use crate::position::{Position, Sequence};
use crate::readers::Readers;
use crate::related::RelatedId;

/// A source, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// Its number.
    pub id: SourceId,
    /// Its name in the configuration.
    pub name: String,
    /// How far its log is taken in, and in which lineage; none before the first start.
    pub resume: Option<(Cursor, Lineage)>,
    /// The state's stable name; `new` before anything happened.
    pub state: String,
    /// Why, for the operator.
    pub reason: Option<String>,
    /// The fingerprint of the mapping that was applied.
    pub mapping: Option<String>,
    /// Since when it is in this state, microseconds since the Unix epoch.
    pub state_us: i64,
    /// Whether a plan of people who are gone was discarded, and nobody has agreed to a like one since.
    pub given_up: bool,
}

const COLUMNS: &str = "id, name, cursor, cursor_text, lineage, state, reason, mapping, state_us, \
    given_up";

fn source(row: &Row<'_>) -> rusqlite::Result<SourceRow> {
    let cursor: Option<Vec<u8>> = row.get(2)?;
    let text: Option<String> = row.get(3)?;
    let lineage: Option<String> = row.get(4)?;
    Ok(SourceRow {
        id: SourceId(row.get(0)?),
        name: row.get(1)?,
        resume: cursor.zip(lineage).map(|(bytes, lineage)| {
            (
                Cursor::new(&bytes, text.as_deref().unwrap_or_default()),
                Lineage(lineage),
            )
        }),
        state: row.get(5)?,
        reason: row.get(6)?,
        mapping: row.get(7)?,
        state_us: row.get(8)?,
        given_up: row.get(9)?,
    })
}

const PROOF: &str = "source, since_us, proved_us, began_us, run, slices, read_after, \
    read_ended, known_after, known_ended, rows, expected_rows, drifted, repaired";

fn proof(row: &Row<'_>) -> rusqlite::Result<ProofRow> {
    let walk = |after: usize, ended: usize| -> rusqlite::Result<Walk> {
        let key: Option<Vec<u8>> = row.get(after)?;
        Ok(match key.as_deref().and_then(Key::from_bytes) {
            _ if row.get(ended)? => Walk::Ended,
            Some(key) => Walk::Behind(key),
            None => Walk::Begins,
        })
    };
    let count = |at: usize| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(at)?.max(0) as u64) };
    Ok(ProofRow {
        source: SourceId(row.get(0)?),
        since_us: row.get(1)?,
        proved_us: row.get(2)?,
        began_us: row.get(3)?,
        run: row.get::<_, Option<i64>>(4)?.map(|run| RunId(run as u64)),
        slices: count(5)?,
        read: walk(6, 7)?,
        known: walk(8, 9)?,
        rows: count(10)?,
        expected_rows: count(11)?,
        drifted: count(12)?,
        repaired: count(13)?,
    })
}

impl Readers {
    /// Every source that was ever configured, in the order of their numbers.
    pub fn sources(&self) -> Result<Vec<SourceRow>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached(&format!("SELECT {COLUMNS} FROM source ORDER BY id"))?;
            let rows = statement.query_map([], source)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A source by its name.
    pub fn source(&self, name: &str) -> Result<Option<SourceRow>, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached(&format!("SELECT {COLUMNS} FROM source WHERE name = ?1"))?
                    .query_row([name], source)
                    .optional()?,
            )
        })
    }

    /// The scan of a source that has not ended, if there is one.
    pub fn scan(&self, source: SourceId) -> Result<Option<ScanRow>, StoreError> {
        self.with(|c| {
            let found = c
                .prepare_cached(
                    "SELECT run, phase, after, pages, rows, started_us, detail FROM scan \
                     WHERE source = ?1",
                )?
                .query_row([source.0], |r| {
                    let after: Option<Vec<u8>> = r.get(2)?;
                    Ok((
                        after.clone(),
                        ScanRow {
                            source,
                            run: RunId(r.get::<_, i64>(0)? as u64),
                            phase: r.get(1)?,
                            after: after.as_deref().and_then(Key::from_bytes),
                            pages: r.get::<_, i64>(3)?.max(0) as u64,
                            rows: r.get::<_, i64>(4)?.max(0) as u64,
                            started_us: r.get(5)?,
                            detail: r.get(6)?,
                        },
                    ))
                })
                .optional()?;
            match found {
                Some((Some(_), row)) if row.after.is_none() => Err(StoreError::Damaged {
                    detail: "a scan stands behind a key that is none".to_owned(),
                }),
                found => Ok(found.map(|(_, row)| row)),
            }
        })
    }

    /// Up to when a source's schedule is served, microseconds since the Unix epoch; none
    /// before it was first read.
    pub fn served_us(&self, source: SourceId) -> Result<Option<i64>, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached("SELECT served_us FROM schedule WHERE source = ?1")?
                    .query_row([source.0], |r| r.get(0))
                    .optional()?,
            )
        })
    }

    /// Why somebody wants a source to be read whole, if no run has begun with it.
    pub fn ordered(&self, source: SourceId) -> Result<Option<String>, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached("SELECT cause FROM ordered WHERE source = ?1")?
                    .query_row([source.0], |r| r.get(0))
                    .optional()?,
            )
        })
    }

    /// How far each source's rolling proof is, where there is one.
    pub fn proofs(&self) -> Result<Vec<ProofRow>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached(&format!("SELECT {PROOF} FROM proof ORDER BY source"))?;
            let rows = statement.query_map([], proof)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How far a source's rolling proof is, if there is one.
    pub fn proof(&self, source: SourceId) -> Result<Option<ProofRow>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached(&format!("SELECT {PROOF} FROM proof WHERE source = ?1"))?;
            Ok(statement.query_row([source.0], proof).optional()?)
        })
    }

    /// What a rolling proof found to differ, records first, at most `limit`.
    pub fn drifted(&self, source: SourceId, limit: usize) -> Result<Vec<DriftRow>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT key, what, fields, hash, proved, since_us, related FROM drift \
                 WHERE source = ?1 ORDER BY related, key LIMIT ?2",
            )?;
            let mut rows = statement.query((source.0, i64::try_from(limit).unwrap_or(i64::MAX)))?;
            let mut drifted = Vec::new();
            while let Some(row) = rows.next()? {
                let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                let fields: String = row.get(2)?;
                drifted.push(DriftRow {
                    source,
                    related: u16::try_from(row.get::<_, i64>(6)?).ok().map(RelatedId),
                    key: SmallVec::from_slice(key),
                    what: row.get(1)?,
                    fields: serde_json::from_str(&fields).map_err(|_| StoreError::Damaged {
                        detail: "the fields of a drift cannot be read".to_owned(),
                    })?,
                    hash: row.get::<_, Option<i64>>(3)?.map(|hash| hash as u64),
                    proved: row.get(4)?,
                    since_us: row.get(5)?,
                });
            }
            Ok(drifted)
        })
    }

    /// How many records of each source, and rows of its related tables, differ for certain,
    /// where any do.
    pub fn drifted_counts(&self) -> Result<Vec<(SourceId, u64)>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT source, COUNT(*) FROM drift WHERE proved GROUP BY source",
            )?;
            let rows = statement.query_map([], |r| {
                Ok((SourceId(r.get(0)?), r.get::<_, i64>(1)?.max(0) as u64))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// What the pages of a source's scan have seen, from a page on: page numbers and the
    /// hashes of their keys, at most `limit` pages.
    pub fn scan_seen(
        &self,
        source: SourceId,
        from_page: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u64>)>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT page, hashes FROM scan_seen WHERE source = ?1 AND page >= ?2 \
                 ORDER BY page LIMIT ?3",
            )?;
            let mut rows = statement.query((
                source.0,
                from_page as i64,
                i64::try_from(limit).unwrap_or(i64::MAX),
            ))?;
            let mut pages = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
                let (hashes, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(StoreError::Damaged {
                        detail: "a page of a scan has an impossible length".to_owned(),
                    });
                }
                pages.push((
                    row.get::<_, i64>(0)?.max(0) as u64,
                    hashes.iter().map(|h| u64::from_le_bytes(*h)).collect(),
                ));
            }
            Ok(pages)
        })
    }

    /// Records of a source that are to be read again.
    pub fn repairs(&self, source: SourceId) -> Result<Vec<Key>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached("SELECT key FROM repair WHERE source = ?1 ORDER BY key")?;
            let mut rows = statement.query([source.0])?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                keys.extend(Key::from_bytes(bytes));
            }
            Ok(keys)
        })
    }

    /// Every version of a source's shadow schema, in the order of their numbers.
    pub fn schemas(&self, source: SourceId) -> Result<Vec<SchemaVersion>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT version, columns FROM schema WHERE source = ?1 ORDER BY version",
            )?;
            let rows = statement.query_map([source.0], |r| {
                Ok(SchemaVersion {
                    source,
                    version: r.get(0)?,
                    columns: r.get(1)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Every custom attribute that was ever declared.
    pub fn custom_attributes(&self) -> Result<Vec<(AttrId, String, AttrType)>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached("SELECT id, name, kind FROM attribute ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let kind: String = row.get(2)?;
                let kind =
                    serde_json::from_value(serde_json::Value::String(kind)).map_err(|_| {
                        StoreError::Damaged {
                            detail: "a custom attribute has no known type".to_owned(),
                        }
                    })?;
                all.push((AttrId(row.get(0)?), row.get(1)?, kind));
            }
            Ok(all)
        })
    }

    /// Every sink that was ever started, by name.
    pub fn sinks(&self) -> Result<Vec<SinkRow>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached("SELECT name, delivered, state, reason FROM sink ORDER BY name")?;
            let rows = statement.query_map([], |r| {
                Ok(SinkRow {
                    name: r.get(0)?,
                    delivered: Position::from_sql(r.get(1)?),
                    state: r.get(2)?,
                    reason: r.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Records that a sink refused, behind a position, at most `limit`.
    pub fn parked(
        &self,
        sink: &str,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT position, sequence, reason, detail, parked_us FROM parked \
                 WHERE sink = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
            )?;
            let rows = statement.query_map(
                (
                    sink,
                    after.to_sql(),
                    i64::try_from(limit).unwrap_or(i64::MAX),
                ),
                |r| {
                    Ok(ParkedRow {
                        sink: sink.to_owned(),
                        position: Position::from_sql(r.get(0)?),
                        sequence: r.get::<_, Option<i64>>(1)?.map(Sequence::from_sql),
                        reason: r.get(2)?,
                        detail: r.get(3)?,
                        parked_us: r.get(4)?,
                    })
                },
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many records each sink has parked, by sink name.
    pub fn parked_counts(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.with(|c| {
            let mut statement =
                c.prepare_cached("SELECT sink, COUNT(*) FROM parked GROUP BY sink ORDER BY sink")?;
            let rows =
                statement.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?.max(0) as u64)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
