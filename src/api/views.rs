//! What people and programs read, as plain data: the same from the API, from `--json`, and
//! behind the tables that commands print. Everything comes from the store; only
//! [`status_live`] adds what a running daemon knows besides.

use std::sync::atomic::Ordering;

use rollcall_contract::Key;
use rollcall_core::attribute::{Attributes, EMAIL, USER_NAME};
use rollcall_core::conflict::{ConflictKind, ConflictRow};
use rollcall_core::document::{
    Document, Given, LinkState, LinkView, OwnGiven, Pin, UserState, View,
};
use rollcall_core::event::Event;
use rollcall_core::id::{SourceId, UserId, UserRow, ValueHash};
use rollcall_core::mapping::fold;
use rollcall_core::plan::DueKind;
use rollcall_core::reason::LeaverReason;
use rollcall_store::{
    ConflictFilter, DriftRow, ProofRow, Readers, RunFilter, Sequence, StoreError, UserFilter,
    UserRowView,
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
    /// Records that differ for certain, the first of them.
    pub drifted: Vec<DriftView>,
}

/// A record that differs from its source, without a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriftView {
    /// Its key.
    pub record: String,
    /// In which way.
    pub what: String,
    /// The attributes concerned.
    pub fields: Vec<String>,
    /// Since when that is known, RFC 3339.
    pub since: String,
}

fn proof_view(row: &ProofRow, drifted: Vec<DriftRow>) -> ProofView {
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
                record: Key::from_bytes(&d.key).map_or_else(String::new, |key| key.display()),
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
        proofs.insert(row.source, proof_view(&row, drifted));
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

/// What to list of the users.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    /// Only those whose userName or displayName holds this text.
    pub search: Option<String>,
    /// Only active or only inactive ones.
    pub active: Option<bool>,
    /// Only those fed by this source.
    pub source: Option<String>,
    /// Behind this place.
    pub after: Option<i64>,
    /// At most so many (100).
    pub limit: Option<usize>,
}

/// A user in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserLine {
    /// Its id.
    pub id: String,
    /// Its place, for the next page.
    pub place: i64,
    /// Whether it is active.
    pub active: bool,
    /// Its userName.
    pub user_name: Option<String>,
    /// Its displayName.
    pub display_name: Option<String>,
    /// RFC 3339.
    pub updated: String,
}

/// Users in the order in which they were made.
///
/// # Errors
/// When the store cannot be read.
pub fn users(readers: &Readers, query: &UserQuery) -> Result<Vec<UserLine>, StoreError> {
    let mut filter = UserFilter {
        active: query.active,
        text: query.search.clone(),
        source: None,
    };
    if let Some(name) = &query.source {
        match readers.source(name)? {
            Some(row) => filter.source = Some(row.id),
            None => return Ok(Vec::new()),
        }
    }
    let rows = readers.users(
        &filter,
        query.after.map(UserRow),
        query.limit.unwrap_or(100).min(10_000),
    )?;
    Ok(rows
        .into_iter()
        .map(|row| UserLine {
            id: id_of(&row),
            place: row.row.0,
            active: row.active,
            user_name: row.user_name,
            display_name: row.display_name,
            updated: rfc3339(row.updated_us),
        })
        .collect())
}

fn id_of(row: &UserRowView) -> String {
    Document::decode(&row.document).map_or_else(|_| String::new(), |d| d.id.to_string())
}

/// A user with the reason of each value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserView {
    /// Its id.
    pub id: String,
    /// One more with each change that others can see.
    pub version: u64,
    /// `active`, `suspected` (active, and all its records are gone), `deactivated`,
    /// `suspended`, `tombstone`.
    pub state: String,
    /// Why it is not active, or suspected.
    pub reason: Option<String>,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub updated: String,
    /// The records that lead to it.
    pub links: Vec<LinkLine>,
    /// Its values.
    pub fields: Vec<FieldLine>,
    /// Fields that are another user, of whom no record is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingLine>,
}

/// A field that waits for another user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingLine {
    /// The attribute.
    pub attribute: String,
    /// The source whose record says so; none when it is Rollcall's own.
    pub source: Option<String>,
    /// The key of that record.
    pub record: Option<String>,
    /// The key that it names; none when a user was written who is deleted.
    pub names: Option<String>,
}

/// A record of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkLine {
    /// The source.
    pub source: String,
    /// The key.
    pub record: String,
    /// `live`, `held: …`, `suspected: …`, `gone: …`; `erasing: …` while it waits for approval
    /// that the user is deleted.
    pub state: String,
    /// Since when it is suspected or gone, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How often the key came into being.
    pub incarnation: u32,
    /// Position of its last change.
    pub position: String,
    /// Commit time of its last change, RFC 3339.
    pub committed: String,
}

/// A value and why it is so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldLine {
    /// The attribute.
    pub attribute: String,
    /// The value.
    pub value: String,
    /// Who gave it.
    pub winner: GivenLine,
    /// Who would take over.
    pub others: Vec<GivenLine>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenLine {
    /// The value.
    pub value: String,
    /// The source; none when it is Rollcall's own.
    pub source: Option<String>,
    /// The record's key.
    pub record: Option<String>,
    /// Of another user: the key that the record names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// Number of the rule in the source's mapping, from 0.
    pub rule: u16,
    /// Position of the change.
    pub position: String,
    /// Commit time of the change, RFC 3339.
    pub committed: String,
    /// The run that applied it.
    pub run: u64,
    /// What is known of a value that is Rollcall's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnLine>,
}

/// Beside a value that the identity side wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnLine {
    /// Who wrote it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Until when, RFC 3339; none when for good.
    pub until: Option<String>,
    /// Whether it counts before the sources' values.
    pub wins: bool,
    /// The rule that says so.
    pub decided_by: String,
}

impl From<OwnGiven> for OwnLine {
    fn from(own: OwnGiven) -> OwnLine {
        OwnLine {
            actor: own.actor,
            reason: own.reason,
            pinned: own.pin.is_some(),
            until: own.pin.and_then(Pin::until_us).map(rfc3339),
            wins: own.standing.wins,
            decided_by: own.standing.by.as_str().to_owned(),
        }
    }
}

impl From<Given> for GivenLine {
    fn from(g: Given) -> GivenLine {
        GivenLine {
            value: g.value,
            source: g.source,
            record: g.record,
            names: g.names,
            rule: g.rule,
            position: g.position,
            committed: rfc3339(g.commit_us),
            run: g.run.0,
            own: g.own.map(OwnLine::from),
        }
    }
}

/// A user by its id, userName, email, or `source:key`.
///
/// # Errors
/// When the store cannot be read.
pub fn user(readers: &Readers, name: &str) -> Result<Option<UserView>, StoreError> {
    let attributes = Attributes::new(readers.custom_attributes()?);
    let Some(row) = find(readers, name)? else {
        return Ok(None);
    };
    let sources: Vec<(SourceId, String)> = readers
        .sources()?
        .into_iter()
        .map(|s| (s.id, s.name))
        .collect();
    let source_name = |id: SourceId| {
        sources
            .iter()
            .find(|(s, _)| *s == id)
            .map_or_else(|| format!("#{}", id.0), |(_, n)| n.clone())
    };
    let view =
        View::of(&row.document, &attributes, source_name).map_err(|e| StoreError::Damaged {
            detail: e.to_string(),
        })?;
    let (state, reason) = match view.state {
        UserState::Active => match suspected(&view.links) {
            Some(reason) => ("suspected", Some(reason.as_str().to_owned())),
            None => ("active", None),
        },
        UserState::Deactivated(reason) => ("deactivated", Some(reason.as_str().to_owned())),
        UserState::Suspended => ("suspended", None),
        UserState::Tombstone => ("tombstone", None),
    };
    Ok(Some(UserView {
        id: view.id.to_string(),
        version: view.version,
        state: state.to_owned(),
        reason,
        created: rfc3339(view.created_us),
        updated: rfc3339(view.updated_us),
        links: view
            .links
            .into_iter()
            .map(|l| LinkLine {
                source: l.source,
                record: l.record,
                state: match l.state {
                    LinkState::Live => "live".to_owned(),
                    LinkState::Held(reason) => format!("held: {}", reason.as_str()),
                    LinkState::Gone(reason) => format!("gone: {}", reason.as_str()),
                    LinkState::Suspected(reason) => format!("suspected: {}", reason.as_str()),
                    LinkState::Erasing(reason) => format!("erasing: {}", reason.as_str()),
                },
                since: (l.since_us != 0).then(|| rfc3339(l.since_us)),
                incarnation: l.incarnation,
                position: l.position,
                committed: rfc3339(l.commit_us),
            })
            .collect(),
        fields: view
            .fields
            .into_iter()
            .map(|f| FieldLine {
                attribute: f.attribute,
                value: f.value,
                winner: f.winner.into(),
                others: f.others.into_iter().map(GivenLine::from).collect(),
            })
            .collect(),
        pending: view
            .pending
            .into_iter()
            .map(|p| PendingLine {
                attribute: p.attribute,
                source: p.source,
                record: p.record,
                names: p.names,
            })
            .collect(),
    }))
}

/// Why a user is about to become inactive: a record of it is gone, and none is there.
fn suspected(links: &[LinkView]) -> Option<LeaverReason> {
    let is_there = links.iter().any(|l| l.state.is_present());
    let gone = links.iter().filter(|l| l.state.feeds());
    gone.filter(|_| !is_there).find_map(|l| l.state.gone())
}

/// The place and the id of a user by its id, userName, email, or `source:key`.
///
/// # Errors
/// When the store cannot be read.
pub fn place_of(readers: &Readers, name: &str) -> Result<Option<(UserRow, UserId)>, StoreError> {
    let Some(row) = find(readers, name)? else {
        return Ok(None);
    };
    let document = Document::decode(&row.document).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })?;
    Ok(Some((row.row, document.id)))
}

fn find(readers: &Readers, name: &str) -> Result<Option<UserRowView>, StoreError> {
    if let Ok(id) = uuid::Uuid::parse_str(name) {
        return readers.user_by_id(UserId(*id.as_bytes()));
    }
    for attribute in [USER_NAME, EMAIL] {
        let mut folded = Vec::new();
        fold(name.as_bytes(), &mut folded);
        for row in readers.users_by_value(ValueHash::of(&folded))? {
            let Ok(document) = Document::decode(&row.document) else {
                continue;
            };
            let mut own = Vec::new();
            fold(document.value(attribute).unwrap_or_default(), &mut own);
            if own == folded {
                return Ok(Some(row));
            }
        }
    }
    let Some((source, parts)) = name.split_once(':') else {
        return Ok(None);
    };
    let Some(source) = readers.source(source)? else {
        return Ok(None);
    };
    for key in keys_of(parts) {
        if let Some(row) = readers.user_by_record(source.id, key.as_bytes())?.flatten() {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// At most so many commas of a record's name are tried as parts of a value.
const COMMAS_TRIED: usize = 8;

/// The keys that are shown as this text. A comma stands between two parts, or it belongs to a
/// value: every way to read the first commas is tried, the usual one first.
pub(super) fn keys_of(text: &str) -> impl Iterator<Item = Key> {
    let pieces: Vec<&str> = text.split(',').collect();
    let tried = (pieces.len() - 1).min(COMMAS_TRIED);
    (0..1u32 << tried).map(move |joined| {
        let mut key = Key::new();
        let mut part = pieces[0].to_owned();
        for (i, piece) in pieces.iter().enumerate().skip(1) {
            if i <= tried && joined & (1 << (i - 1)) != 0 {
                part.push(',');
                part.push_str(piece);
            } else {
                key.push(part.as_bytes());
                part = (*piece).to_owned();
            }
        }
        key.push(part.as_bytes());
        key
    })
}

/// The names of sources by their numbers.
pub(super) fn source_names(readers: &Readers) -> Result<impl Fn(SourceId) -> String, StoreError> {
    let sources = readers.sources()?;
    Ok(move |id: SourceId| {
        let found = sources.iter().find(|s| s.id == id);
        found.map_or_else(String::new, |s| s.name.clone())
    })
}

/// Which events to read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Behind this sequence.
    #[serde(default)]
    pub after: u64,
    /// At most so many (1000).
    pub limit: Option<usize>,
}

/// An event in the structured mode of CloudEvents 1.0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Always `1.0`.
    pub specversion: String,
    /// Deterministic.
    pub id: String,
    /// `/rollcall/<organization>`.
    pub source: String,
    /// `io.rollcall.….v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339.
    pub time: String,
    /// The user's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The organization.
    pub orgid: String,
    /// The source's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sourceid: Option<String>,
    /// Gap-free within the organization.
    pub sequence: u64,
    /// The run.
    pub runid: u64,
    /// Position in the source's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The body.
    pub data: serde_json::Value,
}

/// Events behind a sequence, in order.
///
/// # Errors
/// When the store cannot be read.
pub fn events(readers: &Readers, query: &EventQuery) -> Result<Vec<EventView>, StoreError> {
    let organization = readers.identity()?.organization;
    let sources: Vec<(SourceId, String)> = readers
        .sources()?
        .into_iter()
        .map(|s| (s.id, s.name))
        .collect();
    let limit = query.limit.unwrap_or(1000).min(10_000);
    let mut out = Vec::new();
    let mut after = Sequence(query.after);
    while out.len() < limit {
        let blocks = readers.outbox_after(after, 1 << 20)?;
        let before = after;
        for block in &blocks {
            for placed in block.events() {
                let placed = placed.map_err(|e| StoreError::Damaged {
                    detail: e.to_string(),
                })?;
                let Some(sequence) = placed.sequence.filter(|s| *s > after) else {
                    continue;
                };
                if out.len() < limit {
                    after = sequence;
                    out.push(event_view(&placed.event, sequence, &organization, &sources));
                }
            }
        }
        if after == before {
            break;
        }
    }
    Ok(out)
}

fn event_view(
    event: &Event<'_>,
    sequence: Sequence,
    organization: &str,
    sources: &[(SourceId, String)],
) -> EventView {
    EventView {
        specversion: "1.0".to_owned(),
        id: event.id.iter().map(|b| format!("{b:02x}")).collect(),
        source: format!("/rollcall/{organization}"),
        kind: event.kind.type_name().to_owned(),
        time: rfc3339(event.time_us),
        subject: event.user.map(|u| u.to_string()),
        datacontenttype: "application/json".to_owned(),
        orgid: organization.to_owned(),
        sourceid: event
            .source
            .and_then(|id| sources.iter().find(|(s, _)| *s == id))
            .map(|(_, name)| name.clone()),
        sequence: sequence.0,
        runid: event.run.0,
        position: Some(event.position.to_owned()).filter(|p| !p.is_empty()),
        data: serde_json::from_slice(event.data).unwrap_or(serde_json::Value::Null),
    }
}
