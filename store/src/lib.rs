//! The one durable place: SQLite, one writer, pooled readers.
//!
//! [`Store::open`] gives one [`Writer`] and a pool of [`Readers`]. Whatever the daemon
//! learns or decides goes through [`Writer::commit`] as one [`Commit`]: the effects of a
//! batch, its events and the source's cursor become durable together or not at all, and
//! only after that is a source acknowledged or an event delivered. Everything the daemon
//! promises about crashes rests on this one transaction and on `synchronous = FULL`.
//!
//! The writer answers the directory's questions ([`rollcall_core::state::State`]) from its
//! last commit. A commit may be under way on a thread of its own meanwhile
//! ([`Writer::commit_behind`]); it is laid over what is read, so an answer is that of a store
//! in which it has ended. The writer is owned by one thread, so nothing changes between a
//! question and the commit of what was decided on the answer.

mod apply;
mod commit;
mod copy;
mod counts;
mod due;
mod error;
mod filter;
mod glance;
mod lock;
mod match_delta;
mod memory;
mod open;
mod outbox;
mod parties;
mod position;
mod preload;
mod query;
mod readers;
mod references;
mod related;
mod schema;
mod scribe;
mod shape;
mod staged;
mod writer;

pub use commit::{
    Commit, Committed, CountedChanges, DriftPlace, DriftRow, GapClosed, GapId, GapOpened, PageSeen,
    ParkedRow, PlanStep, Progress, ProofRow, RunRecord, RunRow, ScanRow, SchemaVersion, SinkRow,
    StateChange, Walk,
};
pub use counts::Counts;
pub use error::StoreError;
pub use open::{OpenOptions, Store};
pub use outbox::{OutboxBlock, Placed, Trimmed};
pub use position::{Position, Sequence};
pub use query::{
    ConflictFilter, GapRow, HeldRecord, RunFilter, SourceRow, UserFilter, UserRowView,
};
pub use readers::Readers;
pub use references::Relinked;
pub use related::{
    Fanout, RelatedId, RelatedPlace, RelatedRow, RelatedState, RelatedTableRow, RelatedWrites,
};
pub use scribe::{Desk, Flushing};
pub use staged::{PlanRow, PlanSince, StagedRow};
pub use writer::{Identity, Writer};
