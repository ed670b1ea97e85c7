//! The one door through which anything is stored.
//!
//! A [`Commit`] is everything that becomes true at the same moment: the effects of a
//! batch, the cursor behind it, its events, and whatever small state changed besides. What
//! belongs together therefore cannot be stored apart, and every change has the same
//! guarantees. All parts may be empty.

use std::sync::Arc;

use rollcall_contract::{Cursor, Gap, Key, Lineage};
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::plan::{Counters, Plan};
use rollcall_core::reason::SkipReason;
use rollcall_core::state::KeyBytes;

use crate::outbox::OutboxBlock;
use crate::position::{Position, Sequence};
use crate::related::{RelatedId, RelatedWrites};

/// What is to be stored, in one transaction.
#[derive(Debug, Default)]
pub struct Commit {
    /// The time of the commit, microseconds since the Unix epoch.
    pub now_us: i64,
    /// Effects on the directory, and events: these end in [`Committed::block`].
    pub plan: Plan,
    /// How far a source's log is taken in with this.
    pub progress: Option<Progress>,
    /// Sources that changed their state.
    pub states: Vec<StateChange>,
    /// What may have been lost.
    pub gaps_opened: Vec<GapOpened>,
    /// Gaps that a completed scan has closed.
    pub gaps_closed: Vec<GapClosed>,
    /// Runs that began, went on or ended: the whole row as it is now.
    pub runs: Vec<RunRow>,
    /// Records that runs name. One that its run names already is named once.
    pub run_records: Vec<RunRecord>,
    /// Scans that went on: the whole row as it is now.
    pub scans: Vec<ScanRow>,
    /// Hashes of the keys that a page of a scan has seen.
    pub seen: Vec<PageSeen>,
    /// Scans that ended: their row and what they have seen are forgotten.
    pub scans_ended: Vec<SourceId>,
    /// Records that were read again: nothing is asked of their source any more. (What a plan
    /// wants read again is in [`Plan::reread`].)
    pub repaired: Vec<(SourceId, KeyBytes)>,
    /// Sinks that advanced or changed their state.
    pub sinks: Vec<SinkRow>,
    /// Records that a sink refused for ever.
    pub parked: Vec<ParkedRow>,
    /// Parked records that an operator has dealt with.
    pub unparked: Vec<(String, Position)>,
    /// Applied changes that count against their source's limit.
    pub counted: Vec<CountedChanges>,
    /// Plans that are opened, approved, or closed.
    pub plans: Vec<(SourceId, PlanStep)>,
    /// Sources of which a reconciliation began: their schedules are served up to now.
    pub served: Vec<SourceId>,
    /// Sources that somebody wants to be read whole, and why; none when a run has begun with it.
    pub ordered: Vec<(SourceId, Option<String>)>,
    /// Versions of shadow schemas.
    pub schemas: Vec<SchemaVersion>,
    /// Rolling proofs that went on: the whole row as it is now.
    pub proofs: Vec<ProofRow>,
    /// What a rolling proof found to differ: the whole row as it is now.
    pub drifted: Vec<DriftRow>,
    /// Sources that are not proved any more: what is known of their proofs is forgotten.
    pub proofs_ended: Vec<SourceId>,
    /// What does not differ any more.
    pub undrifted: Vec<(SourceId, DriftPlace)>,
    /// What becomes of related tables.
    pub related: RelatedWrites,
}

/// Applied changes that count against a source's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedChanges {
    /// Which source.
    pub source: SourceId,
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// How many.
    pub changes: u64,
    /// Minutes before this one no longer count, and are forgotten.
    pub since: i64,
}

/// What becomes of a source's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// What its scan held back joins the plan.
    Open,
    /// A person has approved what is in it now: that is applied, also after a crash.
    Approved,
    /// It was applied as far as it could be; what is left is not approved any more.
    Ended,
    /// A person has given it up. What scans find waits until a plan is approved, or until one
    /// finds nothing.
    GivenUp,
    /// A scan has found nothing that would wait.
    Agreed,
}

/// How far a source's log is taken in.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Which source.
    pub source: SourceId,
    /// Everything up to here is stored.
    pub cursor: Cursor,
    /// The lineage of the cursor; none leaves what is stored.
    pub lineage: Option<Lineage>,
}

/// A source's state.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// Which source.
    pub source: SourceId,
    /// The state's stable name (`streaming`, `scanning`, `stopped`, …).
    pub state: String,
    /// Why, for the operator.
    pub reason: Option<String>,
    /// The fingerprint of the mapping that is applied from here on; none leaves it.
    pub mapping: Option<String>,
}

/// A gap was found.
#[derive(Clone, Debug)]
pub struct GapOpened {
    /// Of which source.
    pub source: SourceId,
    /// What was found.
    pub gap: Gap,
}

/// A gap was closed.
#[derive(Clone, Copy, Debug)]
pub struct GapClosed {
    /// Which one.
    pub gap: GapId,
    /// By which run.
    pub by: RunId,
}

/// Names a gap.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct GapId(pub i64);

/// A run, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its number, from [`crate::Writer::allocate_run`].
    pub id: RunId,
    /// Of which source.
    pub source: SourceId,
    /// The stable name of its kind (`stream`, `load`, `reconcile`, …).
    pub kind: String,
    /// Why it began (`start`, `gap:position_lost`, …).
    pub cause: String,
    /// The stable name of how it ended, `running` before.
    pub outcome: String,
    /// A sentence beside the outcome.
    pub detail: Option<String>,
    /// Microseconds since the Unix epoch.
    pub started_us: i64,
    /// Microseconds since the Unix epoch.
    pub ended_us: Option<i64>,
    /// Readable position in the source's log at which it began.
    pub from: Option<String>,
    /// Readable position that it has reached.
    pub to: Option<String>,
    /// What it did.
    pub counters: Counters,
    /// How often a record was to be named and the list was full.
    pub unlisted: u64,
}

/// A record that a run names: it was skipped, it failed, or it is applied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Which run.
    pub run: RunId,
    /// Why it is, or was, not applied.
    pub reason: SkipReason,
    /// Whether it is applied again.
    pub healed: bool,
    /// Of which source.
    pub source: SourceId,
    /// Its key ([`Key`] bytes); empty when it has none that can be read.
    pub key: KeyBytes,
    /// The attribute concerned, by name.
    pub attribute: Option<String>,
    /// The rule concerned, as it stands in the configuration.
    pub rule: Option<String>,
    /// When, microseconds since the Unix epoch.
    pub noted_us: i64,
}

/// How far a scan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// Of which source; one scan at a time.
    pub source: SourceId,
    /// The run that it belongs to.
    pub run: RunId,
    /// The stable name of its phase (`pages`, `absent`, …).
    pub phase: String,
    /// The key of the last row applied; none at the beginning.
    pub after: Option<Key>,
    /// Pages applied.
    pub pages: u64,
    /// Rows applied.
    pub rows: u64,
    /// Microseconds since the Unix epoch.
    pub started_us: i64,
    /// What else the scan must remember, as JSON.
    pub detail: String,
}

/// What one page of a scan has seen.
#[derive(Clone, Debug)]
pub struct PageSeen {
    /// Of which source.
    pub source: SourceId,
    /// The number of the page within the scan.
    pub page: u64,
    /// Hashes of the record keys.
    pub hashes: Vec<u64>,
}

/// How far a source's rolling proof is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRow {
    /// Of which source.
    pub source: SourceId,
    /// When it was first begun, microseconds since the Unix epoch.
    pub since_us: i64,
    /// When its last whole round ended, microseconds since the Unix epoch.
    pub proved_us: Option<i64>,
    /// When the present round began, or the last one when there is none.
    pub began_us: i64,
    /// The run of the present round; none between two.
    pub run: Option<RunId>,
    /// Slices of this round.
    pub slices: u64,
    /// How far the table is read.
    pub read: Walk,
    /// How far what is known of the table is looked at.
    pub known: Walk,
    /// Rows that this round has read.
    pub rows: u64,
    /// Rows that the round before had read.
    pub expected_rows: u64,
    /// Records that this round found to differ for certain.
    pub drifted: u64,
    /// How many of them were read again and are right.
    pub repaired: u64,
}

impl ProofRow {
    /// Whether this round has looked at everything.
    pub fn is_through(&self) -> bool {
        self.read == Walk::Ended && self.known == Walk::Ended
    }
}

/// How far a walk along keys is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Walk {
    /// Nothing is looked at.
    #[default]
    Begins,
    /// Everything up to and including this key is.
    Behind(Key),
    /// Everything is.
    Ended,
}

/// What differs: a row of a related table, or (none) a record, and its key.
pub type DriftPlace = (Option<RelatedId>, KeyBytes);

/// A record, or a row of a related table, that differs from its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftRow {
    /// Of which source.
    pub source: SourceId,
    /// The related table; none for a record.
    pub related: Option<RelatedId>,
    /// Its key ([`Key`] bytes).
    pub key: KeyBytes,
    /// In which way.
    pub what: String,
    /// The attributes concerned, by name.
    pub fields: Vec<String>,
    /// Hash of the row that was read; none when there was none.
    pub hash: Option<u64>,
    /// Whether it is certain that it is not on its way.
    pub proved: bool,
    /// Since when it is so, microseconds since the Unix epoch.
    pub since_us: i64,
}

impl DriftRow {
    /// What differs.
    pub fn place(&self) -> DriftPlace {
        (self.related, self.key.clone())
    }
}

/// A sink, as stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SinkRow {
    /// Its name in the configuration.
    pub name: String,
    /// Everything up to and including this is delivered or parked.
    pub delivered: Position,
    /// The state's stable name (`delivering`, `waiting`, `stopped`, …).
    pub state: String,
    /// Why, for the operator.
    pub reason: Option<String>,
}

/// A record that a sink refused for ever.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ParkedRow {
    /// Which sink.
    pub sink: String,
    /// Which record.
    pub position: Position,
    /// Its number, unless it is a raw change.
    pub sequence: Option<Sequence>,
    /// A stable reason.
    pub reason: String,
    /// The destination's words.
    pub detail: String,
    /// When, microseconds since the Unix epoch.
    pub parked_us: i64,
}

/// A version of the columns of a source's shadows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Of which source.
    pub source: SourceId,
    /// Its number, ascending for each source.
    pub version: u32,
    /// The columns, as JSON.
    pub columns: String,
}

/// What a commit has made true.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The events with their places, if there were any.
    pub block: Option<Arc<OutboxBlock>>,
    /// The names of the gaps that were opened, in their order.
    pub gaps: Vec<GapId>,
}
