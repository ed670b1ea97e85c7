//! What waits for a person's word, and the plans that name it.
//!
//! A plan is named by the hash of its records ([`PlanHash`]). It is brought along record by
//! record, in the transaction that stages or releases them, and each such transaction leaves
//! a row: so a plan that somebody has seen is found again by its hash, and it can be said
//! what came, went and changed since. A plan is not written to by hand anywhere; one without
//! records is gone, with its rows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rollcall_core::id::{RunId, SourceId};
use rollcall_core::plan::Plan;
use rollcall_core::staged::{Counted, PlanHash, Staged};
use rollcall_core::state::KeyBytes;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::commit::{Commit, PlanStep};
use crate::error::StoreError;
use crate::readers::Readers;
use crate::writer::Writer;

/// So many rows of a plan are kept: whoever has seen an older state is not told what changed
/// since.
const KEPT_STEPS: i64 = 10_000;

/// A record that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRow {
    /// Its key.
    pub key: KeyBytes,
    /// What waits.
    pub staged: Staged,
}

/// A plan as it is, or as it was after one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// Whose.
    pub source: SourceId,
    /// Names what it holds.
    pub hash: PlanHash,
    /// Records in it.
    pub records: u64,
    /// Records that joined it since it was opened …
    pub came: u64,
    /// … that left it …
    pub went: u64,
    /// … and that changed in it.
    pub changed: u64,
    /// When this step was stored, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Whether a person has approved it, and it is being applied.
    pub approved: bool,
}

/// What became of a plan since it had a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSince {
    /// The plan as it was.
    pub was: PlanRow,
    /// As it is; none when it is gone.
    pub is: Option<PlanRow>,
}

const COLUMNS: &str = "source, hash, records, came, went, changed, at_us, approved";

fn plan_row(row: &Row<'_>) -> rusqlite::Result<PlanRow> {
    let number = |at: usize| row.get::<_, i64>(at).map(|n| n.max(0) as u64);
    Ok(PlanRow {
        source: SourceId(row.get(0)?),
        hash: PlanHash::from_bytes(row.get(1)?),
        records: number(2)?,
        came: number(3)?,
        went: number(4)?,
        changed: number(5)?,
        at_us: row.get(6)?,
        approved: row.get(7)?,
    })
}

fn staged_row(row: &Row<'_>) -> Result<StagedRow, StoreError> {
    let kind = Counted::from_u8(row.get(1)?).ok_or_else(|| StoreError::Damaged {
        detail: "a staged record has no known kind".to_owned(),
    })?;
    Ok(StagedRow {
        key: KeyBytes::from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?),
        staged: Staged {
            kind,
            hash: row.get::<_, i64>(2)? as u64,
            run: RunId(row.get::<_, i64>(3)? as u64),
            staged_us: row.get(4)?,
            held_back: row.get(5)?,
        },
    })
}

/// What a commit does to the plan of a source.
struct Change {
    was: Option<PlanRow>,
    now: PlanRow,
}

impl Change {
    fn of(connection: &Connection, source: SourceId, at_us: i64) -> Result<Change, StoreError> {
        let was = latest(connection, source)?;
        let now = was.unwrap_or(PlanRow {
            source,
            hash: PlanHash::default(),
            records: 0,
            came: 0,
            went: 0,
            changed: 0,
            at_us,
            approved: false,
        });
        let now = PlanRow { at_us, ..now };
        Ok(Change { was, now })
    }

    fn add(&mut self, hash: PlanHash) {
        self.now.hash = self.now.hash.with(hash);
        self.now.records += 1;
        self.now.came += 1;
    }

    fn remove(&mut self, hash: PlanHash) {
        self.now.hash = self.now.hash.without(hash);
        self.now.records = self.now.records.saturating_sub(1);
        self.now.went += 1;
    }

    fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        let now = &self.now;
        if now.records == 0 {
            connection
                .prepare_cached("DELETE FROM plan WHERE source = ?1")?
                .execute([now.source.0])?;
            return Ok(());
        }
        let changes = |p: &PlanRow| (p.hash, p.came, p.went, p.changed, p.approved);
        if self.was.as_ref().map(changes) == Some(changes(now)) {
            return Ok(());
        }
        connection
            .prepare_cached(
                "INSERT INTO plan(source, step, hash, records, came, went, changed, at_us, approved) \
                 VALUES(?1, (SELECT COALESCE(MAX(step), 0) + 1 FROM plan WHERE source = ?1), \
                 ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                now.source.0,
                now.hash.to_bytes(),
                now.records as i64,
                now.came as i64,
                now.went as i64,
                now.changed as i64,
                now.at_us,
                now.approved,
            ))?;
        connection
            .prepare_cached(
                "DELETE FROM plan WHERE source = ?1 AND step <= \
                 (SELECT MAX(step) FROM plan WHERE source = ?1) - ?2",
            )?
            .execute((now.source.0, KEPT_STEPS))?;
        Ok(())
    }
}

/// Writes what waits and no longer waits, and brings the plans along.
pub(crate) fn write(
    connection: &Connection,
    commit: &Commit,
    plan: &Plan,
) -> Result<(), StoreError> {
    for c in &commit.counted {
        connection
            .prepare_cached(
                "INSERT INTO counted(source, minute, changes) VALUES(?1, ?2, ?3) \
                 ON CONFLICT(source, minute) DO UPDATE SET changes = changes + excluded.changes",
            )?
            .execute((c.source.0, c.minute, c.changes as i64))?;
        connection
            .prepare_cached("DELETE FROM counted WHERE source = ?1 AND minute < ?2")?
            .execute((c.source.0, c.since))?;
    }
    if plan.staged.is_empty() && commit.plans.is_empty() {
        return Ok(());
    }
    let mut changes: BTreeMap<SourceId, Change> = BTreeMap::new();
    let sources = plan.staged.keys().map(|(source, _)| *source);
    for source in sources.chain(commit.plans.iter().map(|(source, _)| *source)) {
        if let Entry::Vacant(new) = changes.entry(source) {
            new.insert(Change::of(connection, source, commit.now_us)?);
        }
    }
    let mut sorted: Vec<_> = plan.staged.iter().collect();
    sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
    for ((source, key), staged) in sorted {
        if let Some(change) = changes.get_mut(source) {
            put(connection, change, key, staged.as_ref())?;
        }
    }
    for (source, step) in &commit.plans {
        let Some(change) = changes.get_mut(source) else {
            continue;
        };
        match step {
            PlanStep::Open => join(connection, change)?,
            PlanStep::Approved => {
                change.now.approved = true;
                approve(connection, *source, true)?;
                give_up(connection, *source, false)?;
            }
            PlanStep::Ended => {
                change.now.approved = false;
                approve(connection, *source, false)?;
            }
            PlanStep::GivenUp => give_up(connection, *source, true)?,
            PlanStep::Agreed => give_up(connection, *source, false)?,
        }
    }
    changes.values().try_for_each(|c| c.save(connection))
}

fn put(
    connection: &Connection,
    change: &mut Change,
    key: &KeyBytes,
    staged: Option<&Staged>,
) -> Result<(), StoreError> {
    let source = change.now.source;
    let before = connection
        .prepare_cached(
            "SELECT key, kind, hash, run, staged_us, held_back FROM staged \
             WHERE source = ?1 AND key = ?2",
        )?
        .query_row((source.0, key.as_slice()), |r| Ok(staged_row(r)))
        .optional()?
        .transpose()?;
    let hash_of = |s: &Staged| {
        let in_plan = !s.held_back;
        in_plan.then(|| PlanHash::of(key, s.kind, s.hash))
    };
    match (
        before.and_then(|b| hash_of(&b.staged)),
        staged.and_then(hash_of),
    ) {
        (Some(old), Some(new)) if old == new => return Ok(()),
        (Some(old), Some(new)) => {
            change.now.hash = change.now.hash.without(old).with(new);
            change.now.changed += 1;
        }
        (Some(old), None) => change.remove(old),
        (None, Some(new)) => change.add(new),
        (None, None) => {}
    }
    match staged {
        Some(s) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO staged(source, key, kind, hash, run, staged_us, held_back) \
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                source.0,
                key.as_slice(),
                s.kind as u8,
                s.hash as i64,
                s.run.0 as i64,
                s.staged_us,
                s.held_back,
            ))?,
        None => connection
            .prepare_cached("DELETE FROM staged WHERE source = ?1 AND key = ?2")?
            .execute((source.0, key.as_slice()))?,
    };
    Ok(())
}

/// Everything that was held back joins the plan.
fn join(connection: &Connection, change: &mut Change) -> Result<(), StoreError> {
    let source = change.now.source;
    let mut statement = connection.prepare_cached(
        "SELECT key, kind, hash, run, staged_us, held_back FROM staged \
         WHERE source = ?1 AND held_back",
    )?;
    let mut rows = statement.query([source.0])?;
    while let Some(row) = rows.next()? {
        let StagedRow { key, staged } = staged_row(row)?;
        change.add(PlanHash::of(&key, staged.kind, staged.hash));
    }
    connection
        .prepare_cached("UPDATE staged SET held_back = 0 WHERE source = ?1 AND held_back")?
        .execute([source.0])?;
    Ok(())
}

fn give_up(connection: &Connection, source: SourceId, is_given_up: bool) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE source SET given_up = ?2 WHERE id = ?1 AND given_up <> ?2")?
        .execute((source.0, is_given_up))?;
    Ok(())
}

/// Everything in a plan is approved, or nothing is any more.
fn approve(connection: &Connection, source: SourceId, is_approved: bool) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE staged SET approved = ?2 WHERE source = ?1 AND NOT held_back AND approved <> ?2",
        )?
        .execute((source.0, is_approved))?;
    Ok(())
}

fn latest(connection: &Connection, source: SourceId) -> Result<Option<PlanRow>, StoreError> {
    let found = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM plan WHERE source = ?1 ORDER BY step DESC LIMIT 1"
        ))?
        .query_row([source.0], plan_row)
        .optional()?;
    Ok(found)
}

fn staged_after(
    connection: &Connection,
    source: SourceId,
    held_back: bool,
    after: &[u8],
    limit: usize,
) -> Result<Vec<StagedRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, kind, hash, run, staged_us, held_back FROM staged \
         WHERE source = ?1 AND held_back = ?2 AND key > ?3 ORDER BY key LIMIT ?4",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((source.0, held_back, after, limit))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(staged_row(row)?);
    }
    Ok(found)
}

impl Writer {
    /// The open plan of a source, as of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open_plan(&mut self, source: SourceId) -> Result<Option<PlanRow>, StoreError> {
        self.asked(|c| latest(c, source))
    }

    /// Records of a source that wait, in the order of their keys, from behind one on, at most
    /// `limit`: those in its plan, or those that its scan holds back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn staged_after(
        &mut self,
        source: SourceId,
        held_back: bool,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<StagedRow>, StoreError> {
        self.asked(|c| staged_after(c, source, held_back, after, limit))
    }

    /// Records of a source that are approved and still wait, in the order of their keys, from
    /// behind one on, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approved_after(
        &mut self,
        source: SourceId,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<StagedRow>, StoreError> {
        self.asked(|c| {
            let mut statement = c.prepare_cached(
                "SELECT key, kind, hash, run, staged_us, held_back FROM staged \
                 WHERE source = ?1 AND approved AND key > ?2 ORDER BY key LIMIT ?3",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query((source.0, after, limit))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(staged_row(row)?);
            }
            Ok(found)
        })
    }

    /// What of a record is approved and still waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approved(&mut self, source: SourceId, key: &[u8]) -> Result<Option<Staged>, StoreError> {
        self.asked(|c| {
            let found = c
                .prepare_cached(
                    "SELECT key, kind, hash, run, staged_us, held_back FROM staged \
                     WHERE source = ?1 AND key = ?2 AND approved",
                )?
                .query_row((source.0, key), |r| Ok(staged_row(r)))
                .optional()?;
            Ok(found.transpose()?.map(|row| row.staged))
        })
    }

    /// How many records the scan of a source holds back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn held_back(&mut self, source: SourceId) -> Result<u64, StoreError> {
        self.asked(|c| {
            let count: i64 = c
                .prepare_cached("SELECT COUNT(*) FROM staged WHERE source = ?1 AND held_back")?
                .query_row([source.0], |r| r.get(0))?;
            Ok(count.max(0) as u64)
        })
    }
}

impl Readers {
    /// The open plans, in the order of their sources.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plans(&self) -> Result<Vec<PlanRow>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM plan AS p WHERE step = \
                 (SELECT MAX(step) FROM plan WHERE source = p.source) ORDER BY source"
            ))?;
            let rows = statement.query_map([], plan_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The plan that has, or had, this hash.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan_since(&self, hash: PlanHash) -> Result<Option<PlanSince>, StoreError> {
        self.with(|c| {
            let was = c
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM plan WHERE hash = ?1 ORDER BY at_us DESC LIMIT 1"
                ))?
                .query_row([hash.to_bytes()], plan_row)
                .optional()?;
            let Some(was) = was else { return Ok(None) };
            let is = latest(c, was.source)?;
            Ok(Some(PlanSince { was, is }))
        })
    }

    /// How many records of a plan wait, by kind.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan_kinds(&self, source: SourceId) -> Result<Vec<(Counted, u64)>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT kind, COUNT(*) FROM staged WHERE source = ?1 AND NOT held_back \
                 GROUP BY kind ORDER BY kind",
            )?;
            let mut rows = statement.query([source.0])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                if let Some(kind) = Counted::from_u8(row.get(0)?) {
                    found.push((kind, row.get::<_, i64>(1)?.max(0) as u64));
                }
            }
            Ok(found)
        })
    }

    /// Records in a source's plan, in the order of their keys, from behind one on, at most
    /// `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn planned_after(
        &self,
        source: SourceId,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<StagedRow>, StoreError> {
        self.with(|c| staged_after(c, source, false, after, limit))
    }

    /// Applied changes of a source that count against its limit, by minutes since the Unix
    /// epoch, from a minute on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn counted_since(
        &self,
        source: SourceId,
        minute: i64,
    ) -> Result<Vec<(i64, u64)>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT minute, changes FROM counted WHERE source = ?1 AND minute >= ?2 \
                 ORDER BY minute",
            )?;
            let rows = statement.query_map((source.0, minute), |r| {
                Ok((r.get(0)?, r.get::<_, i64>(1)?.max(0) as u64))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
