//! From a [`Commit`] to statements.
//!
//! Runs inside of a transaction and touches no memory that outlives it: what must be
//! remembered is returned and taken over only once the transaction is durable. Everything is written in the order of its key, so that
//! neighbours meet their page while it is in the cache and a spilled page is not needed
//! again.

use std::sync::Arc;

use rollcall_core::event::EventBlock;
use rollcall_core::id::{MatchHash, SourceId, UserRow};
use rollcall_core::plan::{Plan, UserWrite, Waiter};
use rollcall_core::state::{KeyBytes, LinkTarget};
use rusqlite::{Connection, OptionalExtension};

use crate::commit::{Commit, GapId, Walk};
use crate::counts::Counts;
use crate::due;
use crate::error::StoreError;
use crate::match_delta::{Entry, Step};
use crate::outbox;
use crate::parties;
use crate::references;
use crate::related::RelatedId;
use crate::shape;
use crate::staged;

/// Rows that one statement writes.
const RUN: usize = 32;

/// `prefix (?,?),(?,?),…` for so many rows of so many columns.
pub(crate) fn insert_sql(prefix: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("{prefix} {}", vec![row; rows].join(","))
}

/// The values that a plan's users gain and lose.
pub(crate) fn match_changes(plan: &Plan) -> Vec<(Entry, bool)> {
    let each = plan.owners.iter().flat_map(|(hash, users)| {
        let hash = hash.0 as i64;
        users
            .iter()
            .map(move |&(user, gained)| ((hash, user.0), gained))
    });
    each.collect()
}

/// A commit, taken apart for the thread that writes it.
pub(crate) struct Writing {
    /// All but the plan.
    pub(crate) commit: Commit,
    /// The plan without its events; shared with who reads for the next commit.
    pub(crate) plan: Arc<Plan>,
    pub(crate) events: EventBlock,
    pub(crate) values: Arc<Step>,
}

impl Writing {
    /// The commit as it was.
    pub(crate) fn into_commit(self) -> Commit {
        let plan = Arc::into_inner(self.plan).unwrap_or_default();
        Commit {
            plan: Plan {
                events: self.events,
                ..plan
            },
            ..self.commit
        }
    }
}

/// Writes everything. `counts` are what they are in the store, and what they become; `memory`
/// is whatever was used before. Gives the names of the gaps that were opened.
pub(crate) fn apply(
    connection: &Connection,
    Writing {
        commit,
        plan,
        events,
        values,
    }: &Writing,
    stored: &Counts,
    counts: &mut Counts,
    memory: &mut Vec<u8>,
) -> Result<Vec<GapId>, StoreError> {
    users(connection, plan, counts)?;
    due::write(connection, plan)?;
    links(connection, plan)?;
    records(connection, plan, counts)?;
    counts.waiting = counts
        .waiting
        .saturating_add_signed(waiting(connection, plan)?);
    counts.references = counts
        .references
        .saturating_add_signed(references::write(connection, plan)?);
    conflicts(connection, plan)?;
    values.write(connection)?;
    staged::write(connection, commit, plan)?;
    for &(source, more) in &plan.linked {
        counts.link(source, more);
    }
    if !events.is_empty() {
        let bytes = outbox::insert(
            connection,
            counts.next_position,
            counts.next_sequence,
            commit.now_us,
            events,
            memory,
        )?;
        counts.next_position = counts.next_position.plus(events.len() as u64);
        counts.next_sequence = counts.next_sequence.plus(u64::from(events.sequenced()));
        counts.outbox_blocks += 1;
        counts.outbox_bytes += bytes;
    }
    sources(connection, commit)?;
    let gaps = gaps(connection, commit)?;
    runs(connection, commit)?;
    scans(connection, commit)?;
    repairs(connection, commit, plan)?;
    sinks(connection, commit)?;
    for source in &commit.served {
        connection
            .prepare_cached("INSERT OR REPLACE INTO schedule(source, served_us) VALUES(?1, ?2)")?
            .execute((source.0, commit.now_us))?;
    }
    for (source, cause) in &commit.ordered {
        match cause {
            Some(cause) => connection
                .prepare_cached("INSERT OR IGNORE INTO ordered(source, cause) VALUES(?1, ?2)")?
                .execute((source.0, cause))?,
            None => connection
                .prepare_cached("DELETE FROM ordered WHERE source = ?1")?
                .execute([source.0])?,
        };
    }
    for s in &commit.schemas {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO schema(source, version, columns) VALUES(?1, ?2, ?3)",
            )?
            .execute((s.source.0, s.version, &s.columns))?;
    }
    proofs(connection, commit)?;
    commit.related.write(connection)?;
    counts.save(connection, stored)?;
    Ok(gaps)
}

fn users(connection: &Connection, plan: &Plan, counts: &mut Counts) -> Result<(), StoreError> {
    let mut set_document =
        connection.prepare_cached("UPDATE user SET document = ?2 WHERE id = ?1")?;
    let mut set_all = connection.prepare_cached(
        "UPDATE user SET active = ?2, updated_us = ?3, user_name = ?4, display_name = ?5, \
         document = ?6 WHERE id = ?1",
    )?;
    let mut was_active = connection.prepare_cached("SELECT active FROM user WHERE id = ?1")?;
    let (old, new): (Vec<_>, Vec<_>) = plan.users.iter().partition(|(_, write)| !write.is_new);
    for (row, write) in old {
        let changed = if let Some(columns) = write.columns {
            let before = was_active
                .query_row([row.0], |r| r.get::<_, bool>(0))
                .optional()?;
            match (before, write.active) {
                (Some(true), false) => counts.active = counts.active.saturating_sub(1),
                (Some(false), true) => counts.active += 1,
                _ => {}
            }
            set_all.raw_bind_parameter(1, row.0)?;
            set_all.raw_bind_parameter(2, write.active)?;
            set_all.raw_bind_parameter(3, write.updated_us)?;
            set_all.raw_bind_parameter(4, columns.user_name)?;
            set_all.raw_bind_parameter(5, columns.display_name)?;
            set_all.raw_bind_parameter(6, write.document)?;
            set_all.raw_execute()?
        } else {
            set_document.raw_bind_parameter(1, row.0)?;
            set_document.raw_bind_parameter(2, write.document)?;
            set_document.raw_execute()?
        };
        if changed != 1 {
            return Err(StoreError::Refused(format!(
                "user row {} is to be changed and does not exist; nothing of the batch was stored",
                row.0
            )));
        }
    }
    for row in &plan.purged {
        connection
            .prepare_cached("DELETE FROM user WHERE id = ?1")?
            .execute([row.0])?;
    }
    counts.users = (counts.users + new.len() as u64).saturating_add_signed(plan.undeleted);
    counts.active += new.iter().filter(|(_, write)| write.active).count() as u64;
    insert_users(connection, &new)
}

fn insert_users(
    connection: &Connection,
    new: &[(UserRow, UserWrite<'_>)],
) -> Result<(), StoreError> {
    const INTO: &str =
        "INSERT INTO user(id, active, updated_us, user_name, display_name, document) VALUES";
    fn bind(
        statement: &mut rusqlite::Statement<'_>,
        at: usize,
        (row, write): &(UserRow, UserWrite<'_>),
    ) -> rusqlite::Result<()> {
        let columns = write.columns.unwrap_or_default();
        statement.raw_bind_parameter(at + 1, row.0)?;
        statement.raw_bind_parameter(at + 2, write.active)?;
        statement.raw_bind_parameter(at + 3, write.updated_us)?;
        statement.raw_bind_parameter(at + 4, columns.user_name)?;
        statement.raw_bind_parameter(at + 5, columns.display_name)?;
        statement.raw_bind_parameter(at + 6, write.document)
    }
    runs_of(connection, INTO, 6, new, bind)
}

/// Writes rows in statements of [`RUN`], the rest one by one.
fn runs_of<T>(
    connection: &Connection,
    into: &str,
    columns: usize,
    rows: &[T],
    bind: impl Fn(&mut rusqlite::Statement<'_>, usize, &T) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    let (whole, rest) = rows.split_at(rows.len() / RUN * RUN);
    if !whole.is_empty() {
        let mut many = connection.prepare_cached(&insert_sql(into, columns, RUN))?;
        for run in whole.chunks(RUN) {
            for (i, row) in run.iter().enumerate() {
                bind(&mut many, i * columns, row)?;
            }
            many.raw_execute()?;
        }
    }
    if !rest.is_empty() {
        let mut one = connection.prepare_cached(&insert_sql(into, columns, 1))?;
        for row in rest {
            bind(&mut one, 0, row)?;
            one.raw_execute()?;
        }
    }
    Ok(())
}

fn links(connection: &Connection, plan: &Plan) -> Result<(), StoreError> {
    let mut sorted: Vec<(SourceId, &KeyBytes, Option<LinkTarget>)> = plan
        .links
        .iter()
        .map(|((source, key), target)| (*source, key, *target))
        .collect();
    sorted.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut broken =
        connection.prepare_cached("DELETE FROM link WHERE source = ?1 AND key = ?2")?;
    let mut made: Vec<(SourceId, &KeyBytes, Option<i64>)> = Vec::with_capacity(sorted.len());
    for (source, key, target) in sorted {
        match target {
            Some(LinkTarget::User(row)) => made.push((source, key, Some(row.0))),
            Some(LinkTarget::Record) => made.push((source, key, None)),
            None => {
                broken.execute((source.0, key.as_slice()))?;
            }
        }
    }
    runs_of(
        connection,
        "INSERT OR REPLACE INTO link(source, key, user) VALUES",
        3,
        &made,
        |statement, at, (source, key, user)| {
            statement.raw_bind_parameter(at + 1, source.0)?;
            statement.raw_bind_parameter(at + 2, key.as_slice())?;
            statement.raw_bind_parameter(at + 3, user)
        },
    )
}

fn records(connection: &Connection, plan: &Plan, counts: &mut Counts) -> Result<(), StoreError> {
    let mut sorted: Vec<_> = plan.records.iter().collect();
    sorted.sort_unstable_by_key(|(place, _)| *place);
    let mut before =
        connection.prepare_cached("SELECT document FROM record WHERE source = ?1 AND key = ?2")?;
    let mut write = connection.prepare_cached(
        "INSERT OR REPLACE INTO record(source, key, document) VALUES(?1, ?2, ?3)",
    )?;
    let mut remove =
        connection.prepare_cached("DELETE FROM record WHERE source = ?1 AND key = ?2")?;
    for ((source, key), document) in sorted {
        let place = (source.0, key.as_slice());
        let old = before
            .query_row(place, |r| Ok(shape::held_reason(r.get_ref(0)?.as_blob()?)))
            .optional()?;
        counts.hold(old.flatten(), -1);
        match document {
            Some(document) => {
                counts.hold(shape::held_reason(document), 1);
                write.execute((place.0, place.1, document))?;
            }
            None => {
                remove.execute(place)?;
            }
        }
    }
    Ok(())
}

/// Gives by how many the entries became more (or, negative, fewer).
fn waiting(connection: &Connection, plan: &Plan) -> Result<i64, StoreError> {
    let mut sorted: Vec<(MatchHash, &Waiter)> = Vec::new();
    for (hash, waiters) in &plan.waiting {
        sorted.extend(waiters.iter().map(|w| (*hash, w)));
    }
    sorted.sort_unstable();
    let mut begin = connection
        .prepare_cached("INSERT OR IGNORE INTO waiting(hash, source, key) VALUES(?1, ?2, ?3)")?;
    let mut cease = connection
        .prepare_cached("DELETE FROM waiting WHERE hash = ?1 AND source = ?2 AND key = ?3")?;
    let mut more = 0;
    for (hash, Waiter { source, key, waits }) in sorted {
        let (statement, sign) = if *waits {
            (&mut begin, 1)
        } else {
            (&mut cease, -1)
        };
        // An entry that was there already, or was not, counts nothing.
        let changed = statement.execute((hash.0 as i64, source.0, key.as_slice()))?;
        more += sign * i64::try_from(changed).unwrap_or(0);
    }
    Ok(more)
}

fn conflicts(connection: &Connection, plan: &Plan) -> Result<(), StoreError> {
    let mut write = connection.prepare_cached(
        "INSERT OR REPLACE INTO conflict(fingerprint, kind, source, attribute, opened_us, \
         closed_us, parties, decision) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut sorted: Vec<_> = plan.conflicts.values().collect();
    sorted.sort_unstable_by_key(|c| c.fingerprint);
    for c in sorted {
        let decision = c.decision.as_ref().map(serde_json::to_string);
        let decision = decision
            .transpose()
            .map_err(|e| StoreError::Refused(format!("a decision cannot be encoded: {e}")))?;
        write.execute((
            c.fingerprint.0 as i64,
            c.kind as u8,
            c.source.0,
            &c.attribute,
            c.opened_us,
            c.closed_us,
            parties::encode(&c.records, &c.users),
            decision,
        ))?;
    }
    Ok(())
}

fn sources(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    let unknown = |source: SourceId| {
        StoreError::Refused(format!(
            "source number {} is not known to the store; nothing of the batch was stored",
            source.0
        ))
    };
    if let Some(p) = &commit.progress {
        let changed = connection
            .prepare_cached(
                "UPDATE source SET cursor = ?2, cursor_text = ?3, lineage = COALESCE(?4, lineage) \
                 WHERE id = ?1",
            )?
            .execute((
                p.source.0,
                p.cursor.as_bytes(),
                p.cursor.text(),
                p.lineage.as_ref().map(|l| &l.0),
            ))?;
        if changed != 1 {
            return Err(unknown(p.source));
        }
    }
    for s in &commit.states {
        let changed = connection
            .prepare_cached(
                "UPDATE source SET state = ?2, reason = ?3, mapping = COALESCE(?4, mapping), \
                 state_us = ?5 WHERE id = ?1",
            )?
            .execute((s.source.0, &s.state, &s.reason, &s.mapping, commit.now_us))?;
        if changed != 1 {
            return Err(unknown(s.source));
        }
    }
    Ok(())
}

fn gaps(connection: &Connection, commit: &Commit) -> Result<Vec<GapId>, StoreError> {
    let mut ids = Vec::new();
    for g in &commit.gaps_opened {
        let body = serde_json::to_string(&g.gap)
            .map_err(|e| StoreError::Refused(format!("a gap cannot be encoded: {e}")))?;
        connection
            .prepare_cached(
                "INSERT INTO gap(source, reason, body, detected_us) VALUES(?1, ?2, ?3, ?4)",
            )?
            .execute((g.source.0, g.gap.reason.as_str(), body, commit.now_us))?;
        ids.push(GapId(connection.last_insert_rowid()));
    }
    for g in &commit.gaps_closed {
        connection
            .prepare_cached(
                "UPDATE gap SET closed_us = ?2, closed_by = ?3 WHERE id = ?1 AND closed_us IS NULL",
            )?
            .execute((g.gap.0, commit.now_us, g.by.0 as i64))?;
    }
    Ok(ids)
}

fn runs(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    // A row is changed in its place: what never changes of it is not written again, nor is its
    // entry in the index of sources.
    for r in &commit.runs {
        let counters = serde_json::to_string(&r.counters)
            .map_err(|e| StoreError::Refused(format!("counters cannot be encoded: {e}")))?;
        connection
            .prepare_cached(
                "INSERT INTO run(id, source, kind, cause, outcome, detail, started_us, \
                 ended_us, from_position, to_position, counters, unlisted) \
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
                 ON CONFLICT(id) DO UPDATE SET outcome = excluded.outcome, \
                 detail = excluded.detail, ended_us = excluded.ended_us, \
                 from_position = excluded.from_position, to_position = excluded.to_position, \
                 counters = excluded.counters, unlisted = excluded.unlisted",
            )?
            .execute((
                r.id.0 as i64,
                r.source.0,
                &r.kind,
                &r.cause,
                &r.outcome,
                &r.detail,
                r.started_us,
                r.ended_us,
                &r.from,
                &r.to,
                counters,
                r.unlisted as i64,
            ))?;
    }
    let mut named = connection.prepare_cached(
        "INSERT OR REPLACE INTO run_record(run, reason, healed, source, key, attribute, rule, \
         noted_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for r in &commit.run_records {
        named.execute((
            r.run.0 as i64,
            r.reason as u8,
            r.healed,
            r.source.0,
            r.key.as_slice(),
            &r.attribute,
            &r.rule,
            r.noted_us,
        ))?;
    }
    Ok(())
}

fn scans(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    for s in &commit.scans {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO scan(source, run, phase, after, pages, rows, started_us, \
                 detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                s.source.0,
                s.run.0 as i64,
                &s.phase,
                s.after.as_ref().map(rollcall_contract::Key::as_bytes),
                s.pages as i64,
                s.rows as i64,
                s.started_us,
                &s.detail,
            ))?;
    }
    for p in &commit.seen {
        let mut bytes = Vec::with_capacity(p.hashes.len() * 8);
        for h in &p.hashes {
            bytes.extend_from_slice(&h.to_le_bytes());
        }
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO scan_seen(source, page, hashes) VALUES(?1, ?2, ?3)",
            )?
            .execute((p.source.0, p.page as i64, bytes))?;
    }
    for source in &commit.scans_ended {
        connection
            .prepare_cached("DELETE FROM scan WHERE source = ?1")?
            .execute([source.0])?;
        connection
            .prepare_cached("DELETE FROM scan_seen WHERE source = ?1")?
            .execute([source.0])?;
    }
    Ok(())
}

fn repairs(connection: &Connection, commit: &Commit, plan: &Plan) -> Result<(), StoreError> {
    for (source, key) in &commit.repaired {
        connection
            .prepare_cached("DELETE FROM repair WHERE source = ?1 AND key = ?2")?
            .execute((source.0, key.as_slice()))?;
    }
    for (source, key) in &plan.reread {
        connection
            .prepare_cached("INSERT OR IGNORE INTO repair(source, key) VALUES(?1, ?2)")?
            .execute((source.0, key.as_slice()))?;
    }
    Ok(())
}

fn proofs(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    for source in &commit.proofs_ended {
        connection
            .prepare_cached("DELETE FROM proof WHERE source = ?1")?
            .execute([source.0])?;
        connection
            .prepare_cached("DELETE FROM drift WHERE source = ?1")?
            .execute([source.0])?;
    }
    for p in &commit.proofs {
        let place = |walk: &Walk| match walk {
            Walk::Begins => (None, false),
            Walk::Behind(key) => (Some(key.as_bytes().to_vec()), false),
            Walk::Ended => (None, true),
        };
        let (read, known) = (place(&p.read), place(&p.known));
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO proof(source, since_us, proved_us, began_us, run, slices, \
                 read_after, read_ended, known_after, known_ended, rows, expected_rows, drifted, \
                 repaired) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute((
                p.source.0,
                p.since_us,
                p.proved_us,
                p.began_us,
                p.run.map(|run| run.0 as i64),
                p.slices as i64,
                read.0,
                read.1,
                known.0,
                known.1,
                p.rows as i64,
                p.expected_rows as i64,
                p.drifted as i64,
                p.repaired as i64,
            ))?;
    }
    for d in &commit.drifted {
        let fields = serde_json::to_string(&d.fields)
            .map_err(|e| StoreError::Refused(format!("a drift cannot be encoded: {e}")))?;
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO drift(source, related, key, what, fields, hash, proved, \
                 since_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                d.source.0,
                number_of(d.related),
                d.key.as_slice(),
                &d.what,
                fields,
                d.hash.map(|hash| hash as i64),
                d.proved,
                d.since_us,
            ))?;
    }
    for (source, (related, key)) in &commit.undrifted {
        connection
            .prepare_cached("DELETE FROM drift WHERE source = ?1 AND related = ?2 AND key = ?3")?
            .execute((source.0, number_of(*related), key.as_slice()))?;
    }
    Ok(())
}

/// A related table's number where others are of the source's own.
fn number_of(related: Option<RelatedId>) -> i64 {
    related.map_or(-1, |RelatedId(id)| i64::from(id))
}

fn sinks(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    for s in &commit.sinks {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO sink(name, delivered, state, reason, updated_us) \
                 VALUES(?1, ?2, ?3, ?4, ?5)",
            )?
            .execute((
                &s.name,
                s.delivered.to_sql(),
                &s.state,
                &s.reason,
                commit.now_us,
            ))?;
    }
    for p in &commit.parked {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO parked(sink, position, sequence, reason, detail, \
                 parked_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                &p.sink,
                p.position.to_sql(),
                p.sequence.map(crate::position::Sequence::to_sql),
                &p.reason,
                &p.detail,
                p.parked_us,
            ))?;
    }
    for (sink, position) in &commit.unparked {
        connection
            .prepare_cached("DELETE FROM parked WHERE sink = ?1 AND position = ?2")?
            .execute((sink, position.to_sql()))?;
    }
    Ok(())
}
