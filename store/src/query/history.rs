//! Conflicts, gaps and runs.

use rollcall_contract::Gap;
use rollcall_core::conflict::{ConflictKind, ConflictRow, Fingerprint};
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::reason::SkipReason;
use rollcall_core::state::KeyBytes;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::commit::{GapId, RunRecord, RunRow};
use crate::error::StoreError;
use crate::parties;
use crate::readers::Readers;

/// Which conflicts to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConflictFilter {
    /// Closed ones too.
    pub with_closed: bool,
    /// Only those of a source.
    pub source: Option<SourceId>,
    /// Only those of a kind.
    pub kind: Option<ConflictKind>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only those of a source.
    pub source: Option<SourceId>,
    /// Only those of a kind, by its stable name.
    pub kind: Option<String>,
    /// Only those that ended so, by the stable name.
    pub outcome: Option<String>,
    /// Only those before this one.
    pub before: Option<RunId>,
}

/// A gap, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// Its name.
    pub id: GapId,
    /// Of which source.
    pub source: SourceId,
    /// What was found.
    pub gap: Gap,
    /// Microseconds since the Unix epoch.
    pub detected_us: i64,
    /// Microseconds since the Unix epoch; none while it is open.
    pub closed_us: Option<i64>,
    /// The run that closed it.
    pub closed_by: Option<RunId>,
}

const CONFLICT: &str = "SELECT fingerprint, kind, source, attribute, opened_us, closed_us, parties, decision \
     FROM conflict";
const RUN: &str = "SELECT id, source, kind, cause, outcome, detail, started_us, ended_us, \
                   from_position, to_position, counters, unlisted FROM run";

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged {
        detail: format!("{what} is stored in no known form"),
    }
}

fn read_conflict(row: &Row<'_>) -> Result<ConflictRow, StoreError> {
    let kind = ConflictKind::from_u8(row.get(1)?).ok_or_else(|| damaged("a conflict"))?;
    let (records, users) =
        parties::decode(row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?)?;
    Ok(ConflictRow {
        fingerprint: Fingerprint(row.get::<_, i64>(0)? as u64),
        kind,
        source: SourceId(row.get(2)?),
        attribute: row.get(3)?,
        opened_us: row.get(4)?,
        closed_us: row.get(5)?,
        records,
        users,
        decision: match row.get::<_, Option<String>>(7)? {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|_| damaged("a decision"))?),
        },
    })
}

pub(super) fn conflict(
    connection: &Connection,
    fingerprint: Fingerprint,
) -> Result<Option<ConflictRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{CONFLICT} WHERE fingerprint = ?1"))?;
    let mut rows = statement.query([fingerprint.0 as i64])?;
    rows.next()?.map(read_conflict).transpose()
}

fn read_run(row: &Row<'_>) -> Result<RunRow, StoreError> {
    let counters: String = row.get(10)?;
    Ok(RunRow {
        id: RunId(row.get::<_, i64>(0)? as u64),
        source: SourceId(row.get(1)?),
        kind: row.get(2)?,
        cause: row.get(3)?,
        outcome: row.get(4)?,
        detail: row.get(5)?,
        started_us: row.get(6)?,
        ended_us: row.get(7)?,
        from: row.get(8)?,
        to: row.get(9)?,
        counters: serde_json::from_str(&counters).map_err(|_| damaged("a run"))?,
        unlisted: row.get::<_, i64>(11)?.max(0) as u64,
    })
}

impl Readers {
    /// A conflict, open or closed.
    pub fn conflict(&self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StoreError> {
        self.with(|c| conflict(c, fingerprint))
    }

    /// Conflicts, the newest first, at most `limit`.
    pub fn conflicts(
        &self,
        filter: ConflictFilter,
        limit: usize,
    ) -> Result<Vec<ConflictRow>, StoreError> {
        self.with(|c| {
            let open = if filter.with_closed {
                ""
            } else {
                "closed_us IS NULL AND"
            };
            let mut statement = c.prepare_cached(&format!(
                "{CONFLICT} WHERE {open} (?1 IS NULL OR source = ?1) \
                 AND (?2 IS NULL OR kind = ?2) ORDER BY opened_us DESC, fingerprint LIMIT ?3"
            ))?;
            let mut rows = statement.query((
                filter.source.map(|s| s.0),
                filter.kind.map(|k| k as u8),
                i64::try_from(limit).unwrap_or(i64::MAX),
            ))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.push(read_conflict(row)?);
            }
            Ok(all)
        })
    }

    /// How many conflicts are open, by kind.
    pub fn open_conflict_counts(&self) -> Result<Vec<(ConflictKind, u64)>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT kind, COUNT(*) FROM conflict WHERE closed_us IS NULL \
                 GROUP BY kind ORDER BY kind",
            )?;
            let mut rows = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let kind =
                    ConflictKind::from_u8(row.get(0)?).ok_or_else(|| damaged("a conflict"))?;
                all.push((kind, row.get::<_, i64>(1)?.max(0) as u64));
            }
            Ok(all)
        })
    }

    /// Gaps, the newest first, at most `limit`; only open ones unless `with_closed`.
    pub fn gaps(&self, with_closed: bool, limit: usize) -> Result<Vec<GapRow>, StoreError> {
        self.with(|c| {
            let open = if with_closed {
                ""
            } else {
                "WHERE closed_us IS NULL"
            };
            let mut statement = c.prepare_cached(&format!(
                "SELECT id, source, body, detected_us, closed_us, closed_by FROM gap {open} \
                 ORDER BY id DESC LIMIT ?1"
            ))?;
            let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let body: String = row.get(2)?;
                all.push(GapRow {
                    id: GapId(row.get(0)?),
                    source: SourceId(row.get(1)?),
                    gap: serde_json::from_str(&body).map_err(|_| damaged("a gap"))?,
                    detected_us: row.get(3)?,
                    closed_us: row.get(4)?,
                    closed_by: row.get::<_, Option<i64>>(5)?.map(|n| RunId(n as u64)),
                });
            }
            Ok(all)
        })
    }

    /// Runs, the newest first, at most `limit`.
    pub fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunRow>, StoreError> {
        self.with(|c| {
            // Along the index of one source, or along all runs.
            let source = match filter.source {
                Some(_) => "source = ?2",
                None => "?2 IS NULL",
            };
            let mut statement = c.prepare_cached(&format!(
                "{RUN} WHERE id < ?1 AND {source} AND (?3 IS NULL OR kind = ?3) \
                 AND (?4 IS NULL OR outcome = ?4) ORDER BY id DESC LIMIT ?5"
            ))?;
            let mut rows = statement.query((
                filter
                    .before
                    .map_or(i64::MAX, |r| i64::try_from(r.0).unwrap_or(i64::MAX)),
                filter.source.map(|s| s.0),
                &filter.kind,
                &filter.outcome,
                i64::try_from(limit).unwrap_or(i64::MAX),
            ))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.push(read_run(row)?);
            }
            Ok(all)
        })
    }

    /// A run.
    pub fn run(&self, id: RunId) -> Result<Option<RunRow>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(&format!("{RUN} WHERE id = ?1"))?;
            let mut rows = statement.query([id.0 as i64])?;
            rows.next()?.map(read_run).transpose()
        })
    }

    /// The records that a run names, by reason, those that are applied again behind those
    /// that are not, at most `limit`.
    pub fn run_records(&self, run: RunId, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT reason, healed, source, key, attribute, rule, noted_us FROM run_record \
                 WHERE run = ?1 ORDER BY healed, reason, source, key LIMIT ?2",
            )?;
            let mut rows =
                statement.query((run.0 as i64, i64::try_from(limit).unwrap_or(i64::MAX)))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let key = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
                all.push(RunRecord {
                    run,
                    reason: SkipReason::from_u8(row.get(0)?)
                        .ok_or_else(|| damaged("a record of a run"))?,
                    healed: row.get(1)?,
                    source: SourceId(row.get(2)?),
                    key: KeyBytes::from_slice(key),
                    attribute: row.get(4)?,
                    rule: row.get(5)?,
                    noted_us: row.get(6)?,
                });
            }
            Ok(all)
        })
    }

    /// How many gaps are open.
    pub fn open_gap_count(&self) -> Result<u64, StoreError> {
        self.with(|c| {
            Ok(
                c.prepare_cached("SELECT COUNT(*) FROM gap WHERE closed_us IS NULL")?
                    .query_row([], |r| r.get::<_, i64>(0))
                    .optional()?
                    .unwrap_or(0)
                    .max(0) as u64,
            )
        })
    }
}
