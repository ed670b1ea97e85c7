//! What drivers and the rest of the daemon ask of the engine.

use std::collections::HashSet;
use std::sync::Arc;

use rollcall_contract::{
    Acknowledge, Batch, ConnectorError, Cursor, Gap, Key, Lineage, Pooled, TableNo, TableSchema,
};
use rollcall_core::id::{MatchHash, RunId, SourceId};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Join, RelatedSpec};
use rollcall_core::plan::Counters;
use rollcall_core::staged::PlanHash;
use rollcall_core::state::KeyBytes;
use rollcall_store::{DriftPlace, DriftRow, ProofRow, RelatedWrites};
use tokio::sync::oneshot;

use super::fanout::Piece;
use super::fields::{EditWork, ResolveWork};
use super::joined::Tables;
use super::planned::{Answered, Planned, PlannedWork};
use super::polling::PollTrack;
use super::related::{RelatedPage, Unjoined};
use super::staging::{PlanAnswer, Word};
use super::undoing::UndoWork;
use super::window::HeldPage;

/// What somebody wants of a source's driver. A session obeys it as soon as there is one.
#[derive(Debug)]
pub enum Order {
    /// Read everything, and make the directory equal to it. It joins a reconciliation that
    /// is under way: two never run beside each other.
    Reconcile {
        /// Who wants it.
        cause: Cause,
        /// Is told which run does it, once it has begun.
        began: Option<oneshot::Sender<RunId>>,
    },
    /// Apply a plan exactly as it is, or refuse it.
    Apply {
        /// The plan.
        plan: Planned,
        /// Told what became of it; dropped when the source's connection ends before.
        reply: oneshot::Sender<Answered>,
    },
    /// Read some records by key.
    Keys(KeysOrder),
}

/// See [`Order::Keys`].
#[derive(Debug)]
pub struct KeysOrder {
    /// The records: for each the keys that it may have, as a text can be read as several. What
    /// the table's key cannot be is left out.
    pub keys: Vec<Vec<Key>>,
    /// Who wants it.
    pub cause: Cause,
    /// Is told the run when it has ended, or why the records cannot be read.
    pub ended: oneshot::Sender<Result<RunId, ConnectorError>>,
}

/// Why a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An operator asked for it.
    Manual,
    /// Its time had come.
    Schedule,
    /// A gap is open.
    Gap,
    /// The mapping in the configuration is another one than the one that was applied.
    MappingChanged,
    /// A program asked for it.
    Api,
    /// The log cannot be read.
    Poll,
    /// Its time came while nothing could run.
    CaughtUp,
    /// A rolling proof found that it differs.
    Proof,
}

impl Cause {
    /// All of them.
    const ALL: [Cause; 8] = [
        Cause::Manual,
        Cause::Schedule,
        Cause::Gap,
        Cause::MappingChanged,
        Cause::Api,
        Cause::Poll,
        Cause::CaughtUp,
        Cause::Proof,
    ];

    /// The cause of that name.
    pub fn named(name: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// The stable name, as runs carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Manual => "manual",
            Cause::Schedule => "schedule",
            Cause::Gap => "gap",
            Cause::MappingChanged => "mapping_changed",
            Cause::Api => "api",
            Cause::Poll => "poll",
            Cause::CaughtUp => "caught_up",
            Cause::Proof => "proof",
        }
    }
}

/// One piece of work. The work of one source is applied in the order in which it was sent.
pub enum Work {
    /// What the store holds of a source.
    Resume {
        /// Which source.
        source: SourceId,
        /// Where to open its log, and which records wait to be read again.
        reply: oneshot::Sender<ResumePoint>,
    },
    /// The log was opened: the store takes over its start, and the gaps with it.
    Opened(Opened),
    /// A batch of the log.
    Changes(Changes),
    /// A batch of the log of a source with related tables.
    Unjoined(Unjoined),
    /// Records that are told of a related row.
    Told(Piece),
    /// The log moved on without anything for us.
    Progress {
        /// Whose log.
        source: SourceId,
        /// To where.
        cursor: Cursor,
    },
    /// Something may have been lost while the log was open.
    Gap {
        /// In whose log.
        source: SourceId,
        /// What.
        gap: Gap,
    },
    /// The number under which shadows of this schema are stored.
    Schema {
        /// Whose table.
        source: SourceId,
        /// Its columns.
        schema: Arc<TableSchema>,
        /// What is known of the table's columns.
        reply: oneshot::Sender<KnownSchemas>,
    },
    /// The source's rows are mapped by this from here on.
    Mapper {
        /// Whose.
        source: SourceId,
        /// The compiled mapping.
        mapper: Arc<Mapper>,
        /// How its tables are joined; none when it has no related ones.
        joining: Option<Joining>,
        /// Whether a scan is due because the mapping is another one than before.
        reply: oneshot::Sender<bool>,
    },
    /// Somebody wants a source to be read whole: it is remembered until a run has begun.
    Ordered {
        /// Which source.
        source: SourceId,
        /// Who.
        cause: Cause,
        /// Told when it is remembered.
        reply: oneshot::Sender<()>,
    },
    /// The run that is under way does what was ordered.
    Obeyed {
        /// Of which source.
        source: SourceId,
    },
    /// A scan begins, or goes on after a crash.
    ScanBegin {
        /// Of which source.
        source: SourceId,
        /// Why, when no gap is open.
        cause: Cause,
        /// Whether somebody has ordered it.
        obeys: bool,
        /// Where to go on.
        reply: oneshot::Sender<ScanPlace>,
    },
    /// Match keys that several rows of the table share: nobody who has one is written until
    /// the scan's end, on whichever page they are.
    Duplicates {
        /// Of which source.
        source: SourceId,
        /// The keys.
        keys: HashSet<MatchHash>,
    },
    /// The log is left, and the table polled: from here on there is no position in the log.
    Polling {
        /// Of which source.
        source: SourceId,
        /// The server that answers.
        lineage: Lineage,
        /// How.
        poll: PollTrack,
        /// Told when it is stored.
        reply: oneshot::Sender<()>,
    },
    /// The changed rows of a poll were all handed over.
    PollEnd {
        /// Told when they are stored.
        reply: oneshot::Sender<()>,
    },
    /// A page whose window is closed.
    Page(PageWork),
    /// A page of a related table whose window is closed.
    RelatedPage(RelatedPage),
    /// Every page of a related table was applied: which rows were not found? To be asked until
    /// the answer is the last one.
    RelatedMissing {
        /// Of which source.
        source: SourceId,
        /// Of which of its tables.
        table: TableNo,
        /// Told some of them.
        reply: oneshot::Sender<Missing>,
    },
    /// A related table was read whole.
    RelatedEnd {
        /// Of which source.
        source: SourceId,
        /// Which one.
        table: TableNo,
        /// Told when it is stored.
        reply: oneshot::Sender<()>,
    },
    /// Records that somebody wanted to be read, as a run of their own.
    Keys {
        /// What was read.
        page: PageWork,
        /// Who wanted it.
        cause: Cause,
        /// Told the run when it is stored.
        ended: oneshot::Sender<Result<RunId, ConnectorError>>,
    },
    /// Every page was applied: which records were not found? To be asked until the answer is
    /// the last one.
    ScanMissing {
        /// Of which source.
        source: SourceId,
        /// Told some of them.
        reply: oneshot::Sender<Missing>,
    },
    /// The scan ended; the gaps that were open when it began are closed.
    ScanEnd {
        /// Of which source.
        source: SourceId,
        /// Told when it is stored.
        reply: oneshot::Sender<()>,
    },
    /// A plan whose records were read again.
    Planned(PlannedWork),
    /// A rolling proof has looked at something.
    Proof(ProofWork),
    /// The source's state, for people.
    State {
        /// Which source.
        source: SourceId,
        /// `connecting`, `scanning`, `streaming`, `polling`, `waiting`, `refused`,
        /// `quarantined`, `stopped`.
        state: &'static str,
        /// Why, in one sentence; empty when there is nothing to say.
        reason: String,
    },
    /// A sink has everything up to this outbox position.
    Delivered {
        /// Which sink.
        sink: String,
        /// The last position that is certain.
        position: u64,
        /// Records that it refused.
        refused: Vec<rollcall_contract::Refused>,
    },
    /// A sink is ahead of the store: the store was restored from a backup.
    StoreRestored {
        /// Which sink.
        sink: String,
        /// What it has.
        position: u64,
    },
    /// The commit that was under way has ended.
    Written,
    /// Something is due.
    Due,
    /// Periodic upkeep of the outbox and the write-ahead log.
    Upkeep,
    /// Somebody has looked at a plan.
    Plan {
        /// The plan that was looked at.
        hash: PlanHash,
        /// What is to become of it.
        word: Word,
        /// What came of it.
        reply: oneshot::Sender<PlanAnswer>,
    },
    /// The identity side writes.
    Edit(EditWork),
    /// Somebody has decided a conflict.
    Resolve(ResolveWork),
    /// What runs did to users is taken back.
    Undo(UndoWork),
    /// The daemon stops: everything sent before is committed, and the runs of streams end,
    /// so that sinks can still be given all of it.
    Settle {
        /// Told behind the commit.
        reply: oneshot::Sender<()>,
    },
    /// Ends the engine after everything sent before.
    Stop,
}

/// See [`Work::Proof`].
pub struct ProofWork {
    /// How far it is; its run is the engine's to say.
    pub row: ProofRow,
    /// The records that were looked at.
    pub counters: Counters,
    /// Readable position of the reading.
    pub position: String,
    /// What differs.
    pub drifted: Vec<DriftRow>,
    /// What does not differ any more.
    pub undrifted: Vec<DriftPlace>,
    /// Whether a round is under way. If not, only what differed was looked at again.
    pub is_round: bool,
    /// Whether the round has ended, and then whether anything differs.
    pub ended: Option<bool>,
    /// Told when it is stored.
    pub reply: oneshot::Sender<()>,
}

impl ProofWork {
    /// Nothing was looked at yet.
    pub fn first(row: ProofRow, reply: oneshot::Sender<()>) -> ProofWork {
        ProofWork {
            row,
            counters: Counters::default(),
            position: String::new(),
            drifted: Vec::new(),
            undrifted: Vec::new(),
            is_round: false,
            ended: None,
            reply,
        }
    }
}

/// See [`Work::Schema`].
#[derive(Debug)]
pub struct KnownSchemas {
    /// All schemas of this source that shadows may still refer to, the wanted one last.
    pub versions: Vec<(u32, TableSchema)>,
    /// Whether a scan is due because rows may have values that the log does not bring.
    pub scan_due: bool,
}

/// See [`Work::Resume`].
#[derive(Debug, Default)]
pub struct ResumePoint {
    /// The stored cursor and the history that it belongs to.
    pub cursor: Option<(Cursor, Lineage)>,
    /// Records whose values were neither in the log nor in the store.
    pub repairs: Vec<Key>,
}

/// See [`Work::Opened`].
pub struct Opened {
    /// Whose log.
    pub source: SourceId,
    /// Where it begins.
    pub start: Cursor,
    /// To which history it belongs.
    pub lineage: Lineage,
    /// What may have been lost before.
    pub gaps: Vec<Gap>,
    /// To be told what is durable.
    pub acknowledge: Arc<dyn Acknowledge>,
    /// Answers when it is stored: whether a scan is due.
    pub reply: oneshot::Sender<bool>,
}

/// See [`Work::Changes`].
pub struct Changes {
    /// Whose log.
    pub source: SourceId,
    /// The changes.
    pub batch: Batch,
    /// One mapped row for each change that has a new row, in order.
    pub mapped: Pooled<MappedRows>,
    /// The mapper of each table of the batch.
    pub mappers: Vec<Arc<Mapper>>,
    /// What becomes of related tables with it.
    pub related: RelatedWrites,
    /// Related rows that changed in it.
    pub related_rows: usize,
    /// Records that have to be read again.
    pub reread: Vec<KeyBytes>,
    /// Bytes that leave the queue with it.
    pub queued_bytes: u64,
    /// Held until its lot is given to the store.
    pub turn: Turn,
}

/// Beside other sources the next batch of a source is handed over only when the one before is
/// applied. So whatever another one brings meanwhile is next, and not behind a batch that
/// waits already. None where nobody else is at work.
pub type Turn = Option<tokio::sync::OwnedSemaphorePermit>;

/// See [`Work::Mapper`].
#[derive(Debug)]
pub struct Joining {
    /// What the configuration says of the related tables.
    pub specs: Vec<RelatedSpec>,
    /// The tables' columns.
    pub tables: Tables,
    /// How they are joined under these.
    pub join: Arc<Join>,
}

/// See [`Work::Page`].
pub struct PageWork {
    /// Of which source.
    pub source: SourceId,
    /// The page, with what the log took out of it.
    pub page: HeldPage,
    /// What was made of its rows.
    pub mapped: PageRows,
    /// The mapper of each table of the page.
    pub mappers: Vec<Arc<Mapper>>,
    /// What becomes of related tables with it.
    pub related: RelatedWrites,
}

/// What a driver has made of the rows of a page, in their order.
pub enum PageRows {
    /// Each was mapped.
    Mapped(Pooled<MappedRows>),
    /// Nearly all of them are taken to be as they are stored: of each there is the hash by
    /// which that is told ([`Mapper::hash`]), and only of the others more is wanted.
    Hashed(Vec<Option<u64>>),
    /// Nothing: they have to be joined first.
    Unjoined {
        /// How, for each table of the page.
        joins: Vec<Arc<Join>>,
        /// Whether nearly all of them are taken to be as they are stored.
        is_hashed: bool,
    },
}

/// See [`Work::ScanMissing`].
#[derive(Debug, Default)]
pub struct Missing {
    /// Keys of records that no page had.
    pub keys: Vec<Key>,
    /// Whether every record was looked at.
    pub is_last: bool,
}

/// Where a scan stands.
#[derive(Clone, Debug)]
pub struct ScanPlace {
    /// The run that it is.
    pub run: RunId,
    /// Why it began.
    pub cause: String,
    /// Read on behind this key.
    pub after: Option<Key>,
    /// The number of the next page.
    pub next_page: u64,
    /// Rows that were read before.
    pub rows: u64,
    /// Whether the source is read for the first time.
    pub is_load: bool,
}

impl Work {
    /// The source of work that joins a lot; none for work that stands alone.
    pub fn joins(&self) -> Option<SourceId> {
        match self {
            Work::Changes(c) => Some(c.source),
            Work::Unjoined(u) => Some(u.source),
            Work::Page(p) => Some(p.source),
            Work::Progress { source, .. } => Some(*source),
            _ => None,
        }
    }

    /// Whether what it takes away is held back until a scan has ended; none for work that
    /// takes nothing away. The two never share a lot, since only one of them is decided on
    /// with it.
    pub fn in_scan(&self) -> Option<bool> {
        match self {
            Work::Changes(_) | Work::Unjoined(_) => Some(false),
            Work::Page(p) => Some(p.page.is_of_scan()),
            _ => None,
        }
    }
}
