//! The tables, and how a file gets from one version of them to the next.
//!
//! Each migration runs in one transaction that also sets `user_version`, so a file is
//! always at exactly one version, whenever the process dies. A migration that was released
//! is never edited; the next change is a further entry. A file of a later version is
//! refused untouched, because a newer program may have stored what this one would misread.
//!
//! The layout follows from what a change costs: not the statement, but each page that is
//! dirtied by an entry standing alone on its leaf. Hence one row per user with everything
//! that a change touches in its document, few and narrow further tables, and keys chosen so
//! that a load appends: row ids ascend, and encoded record keys begin with their length, so
//! integer keys sort as numbers. There is no index on names: lists page along row ids,
//! exact questions go through match keys, and a search by substring could not use an index
//! anyway.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// Says in the file's header that it is ours: `RCL1`.
pub(crate) const APPLICATION_ID: i32 = 0x5243_4c31;

/// Every migration, in order; the version of a file is how many of them it has seen.
pub(crate) const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6];

const V1: &str = "
CREATE TABLE meta(
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Counts that every commit keeps: next position, sequence, user and run, users, held
-- records by reason, bytes in the outbox.
CREATE TABLE counter(
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

-- The document stands last, so that lists and searches read the columns before it alone.
CREATE TABLE user(
  id INTEGER PRIMARY KEY,
  active INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  user_name TEXT,
  display_name TEXT,
  document BLOB NOT NULL
);

-- user is null where the record leads to no user.
CREATE TABLE link(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  user INTEGER,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

CREATE TABLE record(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  document BLOB NOT NULL,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

-- Who has which value; hash of the folded value.
CREATE TABLE match_key(
  hash INTEGER NOT NULL,
  user INTEGER NOT NULL,
  PRIMARY KEY(hash, user)
) WITHOUT ROWID;

-- Changes of match_key that are durable here and not sorted into it yet.
CREATE TABLE match_journal(
  id INTEGER PRIMARY KEY,
  entries BLOB NOT NULL
);

CREATE TABLE waiting(
  hash INTEGER NOT NULL,
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  PRIMARY KEY(hash, source, key)
) WITHOUT ROWID;

CREATE TABLE conflict(
  fingerprint INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  source INTEGER NOT NULL,
  attribute TEXT,
  opened_us INTEGER NOT NULL,
  closed_us INTEGER,
  parties BLOB NOT NULL
);
CREATE INDEX conflict_open ON conflict(opened_us) WHERE closed_us IS NULL;

CREATE TABLE outbox(
  position INTEGER PRIMARY KEY,
  sequence INTEGER NOT NULL,
  count INTEGER NOT NULL,
  sequenced INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  block BLOB NOT NULL
);

CREATE TABLE source(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  lineage TEXT,
  cursor BLOB,
  cursor_text TEXT,
  state TEXT NOT NULL,
  reason TEXT,
  mapping TEXT,
  state_us INTEGER NOT NULL
);

CREATE TABLE schema(
  source INTEGER NOT NULL,
  version INTEGER NOT NULL,
  columns TEXT NOT NULL,
  PRIMARY KEY(source, version)
) WITHOUT ROWID;

CREATE TABLE attribute(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL
);

CREATE TABLE gap(
  id INTEGER PRIMARY KEY,
  source INTEGER NOT NULL,
  reason TEXT NOT NULL,
  body TEXT NOT NULL,
  detected_us INTEGER NOT NULL,
  closed_us INTEGER,
  closed_by INTEGER
);
CREATE INDEX gap_open ON gap(source) WHERE closed_us IS NULL;

CREATE TABLE run(
  id INTEGER PRIMARY KEY,
  source INTEGER NOT NULL,
  kind TEXT NOT NULL,
  cause TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT,
  started_us INTEGER NOT NULL,
  ended_us INTEGER,
  from_position TEXT,
  to_position TEXT,
  counters TEXT NOT NULL
);

CREATE TABLE scan(
  source INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  phase TEXT NOT NULL,
  after BLOB,
  pages INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  started_us INTEGER NOT NULL,
  detail TEXT NOT NULL
);

CREATE TABLE scan_seen(
  source INTEGER NOT NULL,
  page INTEGER NOT NULL,
  hashes BLOB NOT NULL,
  PRIMARY KEY(source, page)
) WITHOUT ROWID;

-- Records to be read again from their source, because a value was neither in the log nor
-- here.
CREATE TABLE repair(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

CREATE TABLE sink(
  name TEXT PRIMARY KEY,
  delivered INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  updated_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE parked(
  sink TEXT NOT NULL,
  position INTEGER NOT NULL,
  sequence INTEGER,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  parked_us INTEGER NOT NULL,
  PRIMARY KEY(sink, position)
) WITHOUT ROWID;
";

const V2: &str = "
-- Records that a run skipped, that failed in it, or that are applied again: healed is 1 for
-- the last. Bounded for each run; unlisted counts what the bound left out. No values.
CREATE TABLE run_record(
  run INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  healed INTEGER NOT NULL,
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  attribute TEXT,
  rule TEXT,
  noted_us INTEGER NOT NULL,
  PRIMARY KEY(run, reason, healed, source, key)
) WITHOUT ROWID;
ALTER TABLE run ADD COLUMN unlisted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX run_of_source ON run(source, id);
UPDATE run SET kind = 'reconcile' WHERE kind = 'scan';
-- Records of which a change waits for a person's word; kind, row hash and run of it.
-- held_back: its scan has not ended, and it is in no plan yet.
CREATE TABLE staged(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  kind INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  run INTEGER NOT NULL,
  staged_us INTEGER NOT NULL,
  held_back INTEGER NOT NULL,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

-- What each source's open plan was after each commit that changed it: the hash of its
-- records, how many there are, and how many came, went and changed since it was opened. The
-- last row is the plan; a plan without records has no rows.
CREATE TABLE plan(
  source INTEGER NOT NULL,
  step INTEGER NOT NULL,
  hash BLOB NOT NULL,
  records INTEGER NOT NULL,
  came INTEGER NOT NULL,
  went INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  approved INTEGER NOT NULL,
  PRIMARY KEY(source, step)
) WITHOUT ROWID;

-- Since when each source was last read from its first row on: its schedule is served up to
-- there.
CREATE TABLE schedule(
  source INTEGER PRIMARY KEY,
  served_us INTEGER NOT NULL
);
INSERT INTO schedule(source, served_us)
  SELECT source, MAX(started_us) FROM run WHERE kind IN ('load', 'reconcile') GROUP BY source;

-- Applied changes that count against a source's limit, by the minute.
CREATE TABLE counted(
  source INTEGER NOT NULL,
  minute INTEGER NOT NULL,
  changes INTEGER NOT NULL,
  PRIMARY KEY(source, minute)
) WITHOUT ROWID;
";

const V3: &str = "
-- How far each source's rolling proof is. began_us: its present round, or the last one; run:
-- only while there is one. read and known: the key behind which the table, and what is known
-- of it, is looked at next, none at the beginning, and whether that walk has ended.
CREATE TABLE proof(
  source INTEGER PRIMARY KEY,
  since_us INTEGER NOT NULL,
  proved_us INTEGER,
  began_us INTEGER NOT NULL,
  run INTEGER,
  slices INTEGER NOT NULL,
  read_after BLOB,
  read_ended INTEGER NOT NULL,
  known_after BLOB,
  known_ended INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  expected_rows INTEGER NOT NULL,
  drifted INTEGER NOT NULL,
  repaired INTEGER NOT NULL
);

-- Records that a rolling proof found to differ from their source. fields: names of
-- attributes as JSON. hash: of the row that was read, none when there was none. proved: it
-- is certain that it is not on its way.
CREATE TABLE drift(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  what TEXT NOT NULL,
  fields TEXT NOT NULL,
  hash INTEGER,
  proved INTEGER NOT NULL,
  since_us INTEGER NOT NULL,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

-- Whether a person has approved what waits. A record that changes meanwhile is staged anew,
-- and is not.
ALTER TABLE staged ADD COLUMN approved INTEGER NOT NULL DEFAULT 0;
UPDATE staged SET approved = 1 WHERE NOT held_back AND source IN (
  SELECT source FROM plan AS p WHERE approved AND step =
    (SELECT MAX(step) FROM plan WHERE source = p.source));

-- Sources that somebody wants to be read whole, and of which no run has begun with it.
CREATE TABLE ordered(
  source INTEGER PRIMARY KEY,
  cause TEXT NOT NULL
);

-- Users to be looked at when a time of their source is over; kind and since when. Those who
-- were inactive before this was kept went at their last change.
CREATE TABLE due(
  source INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  since_us INTEGER NOT NULL,
  user INTEGER NOT NULL,
  PRIMARY KEY(source, kind, since_us, user)
) WITHOUT ROWID;
INSERT OR IGNORE INTO due(source, kind, since_us, user)
  SELECT link.source, 2, user.updated_us, user.id
  FROM link JOIN user ON user.id = link.user WHERE NOT user.active;

-- What a person decided of a conflict, as JSON.
ALTER TABLE conflict ADD COLUMN decision TEXT;
";

const V4: &str = "
-- Users whose records name a key, or (of source 0) another user, and whether it leads to
-- nobody.
CREATE TABLE reference(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  user INTEGER NOT NULL,
  waits INTEGER NOT NULL,
  PRIMARY KEY(source, key, user)
) WITHOUT ROWID;
CREATE INDEX reference_waits ON reference(source, key) WHERE waits;

-- Keys that lead to another user than before, and the last of those who name it that knows.
CREATE TABLE relinked(
  source INTEGER NOT NULL,
  key BLOB NOT NULL,
  told INTEGER NOT NULL,
  PRIMARY KEY(source, key)
) WITHOUT ROWID;

-- Related tables of sources. definition: what is kept of their rows and how they are joined.
CREATE TABLE related(
  source INTEGER NOT NULL,
  id INTEGER NOT NULL,
  name TEXT NOT NULL,
  definition TEXT NOT NULL,
  state TEXT NOT NULL,
  PRIMARY KEY(source, id)
) WITHOUT ROWID;

-- Their rows, beside those of the same join value (empty where that is null); cells is null
-- where a row was deleted.
CREATE TABLE related_row(
  source INTEGER NOT NULL,
  id INTEGER NOT NULL,
  joined BLOB NOT NULL,
  key BLOB NOT NULL,
  tx BLOB NOT NULL,
  cells BLOB,
  at_us INTEGER NOT NULL,
  PRIMARY KEY(source, id, joined, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX related_key ON related_row(source, id, key);
CREATE INDEX related_gone ON related_row(at_us) WHERE cells IS NULL;

-- Which records may have a join value.
CREATE TABLE related_record(
  source INTEGER NOT NULL,
  id INTEGER NOT NULL,
  joined BLOB NOT NULL,
  key BLOB NOT NULL,
  PRIMARY KEY(source, id, joined, key)
) WITHOUT ROWID;

-- Join values whose records are still to be told of a change, and how far that is.
CREATE TABLE fanout(
  source INTEGER NOT NULL,
  id INTEGER NOT NULL,
  joined BLOB NOT NULL,
  after BLOB,
  of_scan INTEGER NOT NULL,
  position TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  commit_us INTEGER NOT NULL,
  PRIMARY KEY(source, id, joined)
) WITHOUT ROWID;
";

const V5: &str = "
-- Rows of related tables that differ, beside records. related: the table's number, -1 for the
-- source's own.
CREATE TABLE drift_of(
  source INTEGER NOT NULL,
  related INTEGER NOT NULL,
  key BLOB NOT NULL,
  what TEXT NOT NULL,
  fields TEXT NOT NULL,
  hash INTEGER,
  proved INTEGER NOT NULL,
  since_us INTEGER NOT NULL,
  PRIMARY KEY(source, related, key)
) WITHOUT ROWID;
INSERT INTO drift_of SELECT source, -1, key, what, fields, hash, proved, since_us FROM drift;
DROP TABLE drift;
ALTER TABLE drift_of RENAME TO drift;

-- What is told next: of a table with as many join values as it has rows, all may be open.
CREATE INDEX fanout_next ON fanout(source, of_scan, id, commit_us, joined);
";

const V6: &str = "
-- given_up: a plan of people who are gone was discarded, and nobody has agreed to a like one since.
ALTER TABLE source ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;
";

/// The version that this program writes.
pub(crate) fn latest() -> u32 {
    MIGRATIONS.len() as u32
}

/// Brings a file from its version to the last of `migrations`. A file of a later version
/// must have been refused before.
pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let mut version = version(connection)?;
    while let Some(step) = migrations.get(version as usize) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(step)?;
        if version == 0 {
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        version += 1;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

/// How many migrations a file has seen.
pub(crate) fn version(connection: &Connection) -> Result<u32, StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    Ok(u32::try_from(version).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_fails_leaves_the_version_before_it() {
        let mut c = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a(x)", "CREATE TABLE b(x); CREATE TABLE a(x)"];
        assert!(migrate(&mut c, &steps).is_err());
        assert_eq!(version(&c).unwrap(), 1);
        let tables: i64 = c
            .query_row("SELECT COUNT(*) FROM sqlite_master", [], |r| r.get(0))
            .unwrap();
        assert_eq!(tables, 1, "the half of the second step is undone");

        let mended = ["CREATE TABLE a(x)", "CREATE TABLE b(x)"];
        migrate(&mut c, &mended).unwrap();
        assert_eq!(version(&c).unwrap(), 2);
        migrate(&mut c, &mended).unwrap();
        assert_eq!(version(&c).unwrap(), 2, "nothing is done twice");
    }
}
