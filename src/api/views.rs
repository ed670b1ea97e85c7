//! What people and programs read, as plain data: the same from the API, from `--json`, and
//! behind the tables that commands print. Everything comes from the store; only
//! [`status_live`] adds what a running daemon knows besides.

use std::sync::atomic::Ordering;

use rollcall_core::conflict::{ConflictKind, ConflictRow};
use rollcall_core::id::SourceId;
use rollcall_core::mapped::key_text;
use rollcall_core::plan::DueKind;
use rollcall_store::{
    ConflictFilter, DriftRow, ProofRow, Readers, RelatedTableRow, RunFilter, StoreError,
};
use serde::{Deserialize, Serialize};

use super::plans::PlanView;
use super::runs::{RunView, run_view};
use crate::daemon::Shared;
use crate::proof::rolling::LISTED_MAX;
use crate::sync::clock::now_us;
use crate::sync::shared::SourceSnapshot;

/// The whole state at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The organization.
    pub organization: String,
    /// Whether a daemon runs; without one, states are those of its last moments.
    pub running: bool,
    /// Users, active or not.
    pub users: u64,
    /// Active users.
    pub active: u64,
    /// Records that lead to no user, by reason.
    pub held: std::collections::BTreeMap<String, u64>,
    /// Open conflicts, by kind.
    pub conflicts: std::collections::BTreeMap<String, u64>,
    /// The last position of the outbox.
    pub outbox_head: u64,
    /// Sources.
    pub sources: Vec<SourceStatusView>,
    /// Sinks.
    pub sinks: Vec<SinkView>,
}

/// A source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatusView {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// Readable position up to which everything is stored.
    pub position: Option<String>,
    /// Gaps that no scan has closed: reason and sentence.
    pub gaps: Vec<GapView>,
    /// The newest run.
    pub last_run: Option<RunView>,
    /// Fields that are paused because the table changed under the mapping.
    pub paused: Vec<PausedView>,
    /// What waits for approval.
    pub plan: Option<PlanView>,
    /// Of how many values that related tables are joined by the records are still to be told of
    /// a change.
    pub telling: u64,
    /// How it is proved in the background; none when it is not, or was not yet.
    pub proof: Option<ProofView>,
    /// Whose time is running.
    pub leavers: LeaversView,
    /// Users with a field that is another user of whom no record is known yet.
    #[serde(default)]
    pub references_waiting: u64,
    /// Live figures; none without a daemon.
    pub live: Option<SourceSnapshot>,
}

/// A field that keeps what it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PausedView {
    /// The attribute.
    pub field: String,
    /// RFC 3339.
    pub since: String,
}

fn paused(readers: &Readers, source: SourceId) -> Result<Vec<PausedView>, StoreError> {
    let filter = ConflictFilter {
        source: Some(source),
        kind: Some(ConflictKind::SchemaDrift),
        ..ConflictFilter::default()
    };
    let open = readers.conflicts(filter, 1000)?.into_iter();
    let view = |c: ConflictRow| {
        let since = rfc3339(c.opened_us);
        let field = c.attribute?;
        Some(PausedView { field, since })
    };
    Ok(open.filter_map(view).collect())
}

/// Those who left a source, by what comes next. Reminders are counted, so people who came back
/// a moment ago may still be among them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LeaversView {
    /// Gone, and active until their grace is over.
    pub suspected: u64,
    /// Inactive, and to be deleted if the source's rules say so.
    pub gone: u64,
    /// Deleted, and to be forgotten.
    pub deleted: u64,
}

fn leavers(readers: &Readers, source: SourceId) -> Result<LeaversView, StoreError> {
    Ok(LeaversView {
        suspected: readers.due_count(source, DueKind::Grace)?,
        gone: readers.due_count(source, DueKind::Deletion)?,
        deleted: readers.due_count(source, DueKind::Purge)?,
    })
}

/// A gap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GapView {
    /// The stable reason.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// RFC 3339.
    pub detected: String,
}

/// How a source is proved in the background.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProofView {
    /// Since when, RFC 3339.
    pub since: String,
    /// When the last round that was whole ended, RFC 3339; none when there was none.
    pub proved: Option<String>,
    /// Seconds since then, or since the first round began.
    pub age_seconds: u64,
    /// The run of the round that is under way.
    pub run: Option<u64>,
    /// Rows that this round has read.
    pub rows: u64,
    /// Rows that the round before had read; 0 when there was none.
    pub expected_rows: u64,
    /// Records, and rows of related tables, that differ for certain, the first of them.
    pub drifted: Vec<DriftView>,
}

/// A record, or a row of a related table, that differs from its source, without a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriftView {
    /// Its key, behind the name of a related table.
    pub record: String,
    /// In which way.
    pub what: String,
    /// The attributes concerned.
    pub fields: Vec<String>,
    /// Since when that is known, RFC 3339.
    pub since: String,
}

fn proof_view(row: &ProofRow, drifted: Vec<DriftRow>, related: &[RelatedTableRow]) -> ProofView {
    let record = |d: &DriftRow| {
        let key = key_text(&d.key);
        match related.iter().find(|t| Some(t.id) == d.related) {
            Some(table) => format!("{}: {key}", table.name),
            None => key,
        }
    };
    let age_us = now_us() - row.proved_us.unwrap_or(row.since_us);
    let drifted = drifted.into_iter().filter(|d| d.proved);
    ProofView {
        since: rfc3339(row.since_us),
        proved: row.proved_us.map(rfc3339),
        age_seconds: u64::try_from(age_us / 1_000_000).unwrap_or(0),
        run: row.run.map(|run| run.0),
        rows: row.rows,
        expected_rows: row.expected_rows,
        drifted: drifted
            .map(|d| DriftView {
                record: record(&d),
                what: d.what,
                fields: d.fields,
                since: rfc3339(d.since_us),
            })
            .collect(),
    }
}

/// A sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkView {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// The last position that is certain.
    pub position: u64,
    /// Records that it refused.
    pub parked: u64,
}

/// Microseconds since the Unix epoch as RFC 3339 in UTC.
pub fn rfc3339(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// The state as the store has it.
///
/// # Errors
/// When the store cannot be read.
pub fn status(readers: &Readers) -> Result<Status, StoreError> {
    let counts = readers.counts()?;
    let gaps = readers.gaps(false, 1000)?;
    let plans = super::plans::plans(readers)?;
    let parked: std::collections::BTreeMap<String, u64> =
        readers.parked_counts()?.into_iter().collect();
    let mut last_runs = Vec::new();
    for source in readers.sources()? {
        let of_source = RunFilter {
            source: Some(source.id),
            ..RunFilter::default()
        };
        last_runs.extend(readers.runs(&of_source, 1)?);
    }
    let mut proofs = std::collections::BTreeMap::new();
    for row in readers.proofs()? {
        let drifted = readers.drifted(row.source, LISTED_MAX)?;
        let related = readers.related_tables(row.source)?;
        proofs.insert(row.source, proof_view(&row, drifted, &related));
    }
    let sources = readers.sources()?.into_iter().map(|row| {
        Ok(SourceStatusView {
            leavers: leavers(readers, row.id)?,
            paused: paused(readers, row.id)?,
            references_waiting: readers.references_waiting(row.id, None)?,
            last_run: last_runs
                .iter()
                .find(|r| r.source == row.id)
                .map(|r| run_view(row.name.clone(), r.clone())),
            gaps: gaps
                .iter()
                .filter(|g| g.source == row.id)
                .map(|g| GapView {
                    reason: g.gap.reason.as_str().to_owned(),
                    detail: g.gap.detail.clone(),
                    detected: rfc3339(g.detected_us),
                })
                .collect(),
            state: row.state,
            reason: row.reason,
            position: row.resume.map(|(cursor, _)| cursor.text().to_owned()),
            proof: proofs.remove(&row.id),
            plan: plans.iter().find(|p| p.source == row.name).cloned(),
            telling: readers.fanouts_open(row.id)?,
            name: row.name,
            live: None,
        })
    });
    let sources = sources.collect::<Result<_, StoreError>>()?;
    let sinks = readers
        .sinks()?
        .into_iter()
        .map(|row| SinkView {
            parked: parked.get(&row.name).copied().unwrap_or(0),
            name: row.name,
            state: row.state,
            reason: row.reason,
            position: row.delivered.0,
        })
        .collect();
    Ok(Status {
        organization: readers.identity()?.organization,
        running: false,
        users: counts.users,
        active: counts.active,
        held: counts
            .held
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(r, n)| (r.as_str().to_owned(), *n))
            .collect(),
        conflicts: readers
            .open_conflict_counts()?
            .into_iter()
            .map(|(kind, n)| (kind.as_str().to_owned(), n))
            .collect(),
        outbox_head: counts.next_position.before().0,
        sources,
        sinks,
    })
}

/// The state with what the running daemon knows besides.
///
/// # Errors
/// When the store cannot be read.
pub fn status_live(shared: &Shared) -> Result<Status, StoreError> {
    let mut status = status(&shared.readers)?;
    status.running = true;
    status
        .sources
        .retain(|view| shared.sources.iter().any(|s| s.name == view.name));
    for view in &mut status.sources {
        if let Some(entry) = shared.sources.iter().find(|s| s.name == view.name) {
            let live = entry.live.snapshot();
            view.state.clone_from(&live.state);
            view.reason = Some(live.reason.clone()).filter(|r| !r.is_empty());
            view.live = Some(live);
        }
    }
    status
        .sinks
        .retain(|view| shared.sinks.iter().any(|s| s.name == view.name));
    for entry in &shared.sinks {
        let (state, reason) = entry.live.state();
        let position = entry.live.position.load(Ordering::Relaxed);
        let reason = Some(reason).filter(|r| !r.is_empty());
        match status.sinks.iter_mut().find(|v| v.name == entry.name) {
            Some(view) => (view.state, view.reason, view.position) = (state, reason, position),
            None => status.sinks.push(SinkView {
                name: entry.name.clone(),
                state,
                reason,
                position,
                parked: 0,
            }),
        }
    }
    Ok(status)
}

/// The names of sources by their numbers.
pub(super) fn source_names(readers: &Readers) -> Result<impl Fn(SourceId) -> String, StoreError> {
    let sources = readers.sources()?;
    Ok(move |id: SourceId| {
        let found = sources.iter().find(|s| s.id == id);
        found.map_or_else(String::new, |s| s.name.clone())
    })
}
