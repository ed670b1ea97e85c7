//! Changes of who has which value, waiting in memory until they can be written in sorted
//! runs.
//!
//! Hashes are spread evenly, so each entry written alone dirties a page of its own. The
//! newest changes are therefore kept here, made durable as one row of a journal in the
//! transaction that they belong to, and swept into the table in the order of their hashes,
//! so that neighbours share a page.
//!
//! Truth is the table with the journal laid over it, oldest row first. A sweep writes a
//! run of entries in each of several commits and deletes, in the commit that ends it, the
//! journal rows that existed when it began. Every entry of those rows was in memory at
//! that time, so it was either swept or overruled by a later row that is still in the
//! journal. Reading a swept entry from the journal again, after a crash in between,
//! changes nothing: entries are states, not differences. Memory is changed only after the
//! transaction was committed: [`MatchDelta::plan`] says what a commit writes, [`Step::write`]
//! writes it, wherever that may be, and [`MatchDelta::settle`] follows.

use std::collections::BTreeMap;
use std::ops::Bound;

use rollcall_core::id::{UserRow, ValueHash};
use rusqlite::Connection;
use smallvec::SmallVec;

use crate::error::StoreError;

/// One value of one user: the hash as the table orders it (signed), and the user's row.
pub(crate) type Entry = (i64, i64);

const ENTRY_BYTES: usize = 17;
/// A sweep writes at least so many entries a commit.
const SWEEP_MIN: usize = 400;
/// …and so many for each new one, so that it ends before the next is due.
const SWEEP_PER_NEW: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// Everything up to here is swept.
    after: Option<Entry>,
    /// The last journal row that existed when the sweep began.
    journal_until: i64,
}

#[derive(Debug)]
pub(crate) struct MatchDelta {
    entries: BTreeMap<Entry, bool>,
    sweep: Option<Sweep>,
    last_journal: i64,
    limit: usize,
}

/// What one commit writes, to be [`MatchDelta::settle`]d once it is durable.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The changes of the commit, sorted.
    changes: Vec<(Entry, bool)>,
    /// The journal row that takes them.
    journal: Option<i64>,
    /// Older changes that go into the table, sorted.
    swept: Vec<(Entry, bool)>,
    /// The sweep ends with these: journal rows up to here are done.
    done_until: Option<i64>,
    sweep: Option<Sweep>,
}

impl Step {
    /// Writes the changes of the commit to the journal, and older ones to the table.
    pub(crate) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        if let Some(id) = self.journal {
            connection
                .prepare_cached("INSERT INTO match_journal(id, entries) VALUES(?1, ?2)")?
                .execute((id, encode(&self.changes)))?;
        }
        let mut gained: Vec<Entry> = Vec::with_capacity(self.swept.len());
        let mut remove =
            connection.prepare_cached("DELETE FROM match_key WHERE hash = ?1 AND user = ?2")?;
        for &(entry, present) in &self.swept {
            if present {
                gained.push(entry);
            } else {
                remove.execute((entry.0, entry.1))?;
            }
        }
        insert_runs(connection, &gained)?;
        if let Some(until) = self.done_until {
            connection
                .prepare_cached("DELETE FROM match_journal WHERE id <= ?1")?
                .execute([until])?;
        }
        Ok(())
    }

    /// The values that somebody has with this commit.
    pub(crate) fn gained(&self) -> impl Iterator<Item = ValueHash> {
        let present = self.changes.iter().filter(|(_, present)| *present);
        present.map(|((hash, _), _)| ValueHash(*hash as u64))
    }
}

impl MatchDelta {
    pub(crate) fn load(connection: &Connection, limit: usize) -> Result<MatchDelta, StoreError> {
        let mut delta = MatchDelta {
            entries: BTreeMap::new(),
            sweep: None,
            last_journal: 0,
            limit,
        };
        let mut rows = connection.prepare("SELECT id, entries FROM match_journal ORDER BY id")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            delta.last_journal = row.get(0)?;
            let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            for (entry, present) in decode(bytes)? {
                delta.entries.insert(entry, present);
            }
        }
        Ok(delta)
    }

    /// The hashes of all changes that wait.
    pub(crate) fn hashes(&self) -> impl ExactSizeIterator<Item = i64> {
        self.entries.keys().map(|entry| entry.0)
    }

    /// Lays the waiting changes of a hash over the users that the table names.
    pub(crate) fn overlay(&self, hash: ValueHash, users: &mut SmallVec<[UserRow; 4]>) {
        let hash = hash.0 as i64;
        for (&(_, user), &present) in self.entries.range((hash, i64::MIN)..=(hash, i64::MAX)) {
            let at = users.iter().position(|u| u.0 == user);
            match (present, at) {
                (true, None) => users.push(UserRow(user)),
                (false, Some(i)) => {
                    users.remove(i);
                }
                _ => {}
            }
        }
    }

    /// What a commit with these changes writes: the changes to the journal, and a run of
    /// older ones to the table.
    pub(crate) fn plan(&self, mut changes: Vec<(Entry, bool)>) -> Step {
        changes.sort_unstable();
        let mut step = Step {
            journal: (!changes.is_empty()).then_some(self.last_journal + 1),
            ..Step::default()
        };
        let (after, journal_until) = match &self.sweep {
            Some(sweep) => (sweep.after, sweep.journal_until),
            None if self.entries.len() >= self.limit.max(1) => (None, self.last_journal),
            None => {
                step.changes = changes;
                return step;
            }
        };
        let limit = (changes.len() * SWEEP_PER_NEW).max(SWEEP_MIN);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let due = self.entries.range((from, Bound::Unbounded)).take(limit);
        step.swept
            .extend(due.map(|(&entry, &present)| (entry, present)));
        if step.swept.len() < limit {
            step.done_until = Some(journal_until);
        } else {
            step.sweep = Some(Sweep {
                after: step.swept.last().map(|(entry, _)| *entry),
                journal_until,
            });
        }
        step.changes = changes;
        step
    }

    /// Follows what was committed.
    pub(crate) fn settle(&mut self, step: &Step) {
        for (entry, _) in &step.swept {
            self.entries.remove(entry);
        }
        self.entries.extend(step.changes.iter().copied());
        self.sweep = step.sweep;
        if let Some(id) = step.journal {
            self.last_journal = id;
        }
    }
}

/// How many rows one INSERT writes; a multi-row statement saves the start and end of each.
const RUN: usize = 64;

fn insert_runs(connection: &Connection, entries: &[Entry]) -> Result<(), StoreError> {
    let mut one =
        connection.prepare_cached("INSERT OR IGNORE INTO match_key(hash, user) VALUES(?1, ?2)")?;
    let mut many = connection.prepare_cached(&crate::apply::insert_sql(
        "INSERT OR IGNORE INTO match_key(hash, user) VALUES",
        2,
        RUN,
    ))?;
    let mut runs = entries.chunks_exact(RUN);
    for run in &mut runs {
        for (i, entry) in run.iter().enumerate() {
            many.raw_bind_parameter(2 * i + 1, entry.0)?;
            many.raw_bind_parameter(2 * i + 2, entry.1)?;
        }
        many.raw_execute()?;
    }
    for entry in runs.remainder() {
        one.execute((entry.0, entry.1))?;
    }
    Ok(())
}

fn encode(changes: &[(Entry, bool)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes.len() * ENTRY_BYTES);
    for &((hash, user), present) in changes {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&user.to_le_bytes());
        out.push(u8::from(present));
    }
    out
}

/// The entries of a journal row.
pub(crate) fn decode(bytes: &[u8]) -> Result<impl Iterator<Item = (Entry, bool)> + '_, StoreError> {
    if !bytes.len().is_multiple_of(ENTRY_BYTES) {
        return Err(StoreError::Damaged {
            detail: "a row of the journal of values has an impossible length".to_owned(),
        });
    }
    Ok(bytes.chunks_exact(ENTRY_BYTES).map(|e| {
        let mut hash = [0; 8];
        let mut user = [0; 8];
        hash.copy_from_slice(&e[..8]);
        user.copy_from_slice(&e[8..16]);
        (
            (i64::from_le_bytes(hash), i64::from_le_bytes(user)),
            e[16] != 0,
        )
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every user that the table and the waiting changes name together.
    fn all(connection: &Connection, delta: &MatchDelta) -> BTreeSet<Entry> {
        let mut statement = connection
            .prepare("SELECT hash, user FROM match_key")
            .unwrap();
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)));
        let mut all: BTreeSet<Entry> = rows.unwrap().map(Result::unwrap).collect();
        for (&entry, &present) in &delta.entries {
            if present {
                all.insert(entry);
            } else {
                all.remove(&entry);
            }
        }
        all
    }

    #[test]
    fn a_sweep_over_several_commits_and_a_crash_at_each_lose_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&mut connection, crate::schema::MIGRATIONS).unwrap();
        let limit = 3 * SWEEP_MIN;
        let mut delta = MatchDelta::load(&connection, limit).unwrap();
        let mut model = BTreeSet::new();
        let mut n = 0i64;
        let mut sweeps = 0;
        let mut sliced = 0;
        for round in 0..120 {
            // Some are added, and some of those that were added long ago are removed.
            let mut changes: Vec<(Entry, bool)> = Vec::new();
            for _ in 0..60 {
                n += 1;
                changes.push(((n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64), n), true));
            }
            changes.extend(model.iter().step_by(37).map(|&e| (e, false)));
            for &(entry, present) in &changes {
                if present {
                    model.insert(entry);
                } else {
                    model.remove(&entry);
                }
            }
            let was_sweeping = delta.sweep.is_some();
            let step = delta.plan(changes);
            step.write(&connection).unwrap();
            delta.settle(&step);
            sliced += usize::from(was_sweeping && delta.sweep.is_some());
            sweeps += usize::from(was_sweeping && delta.sweep.is_none());
            assert_eq!(all(&connection, &delta), model, "round {round}");
            let again = MatchDelta::load(&connection, limit).unwrap();
            assert_eq!(all(&connection, &again), model, "round {round}, restarted");
            if round % 11 == 10 {
                delta = again;
            }
            assert!(delta.entries.len() < 3 * limit, "sweeps do not keep up");
        }
        assert!(sweeps > 2 && sliced > 2, "{sweeps} sweeps, {sliced} slices");
        let journal: i64 = connection
            .query_row("SELECT COUNT(*) FROM match_journal", [], |r| r.get(0))
            .unwrap();
        assert!(journal < 60, "the journal is {journal} rows long");
    }
}
