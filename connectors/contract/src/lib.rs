//! All that the daemon knows of a connector, and a connector of the daemon.
//!
//! The shapes are chosen for the hot path: a [`Batch`] carries many changes in one
//! arena, so a row or a cell costs no allocation, and a change is decoded once. The four
//! states of a [`Cell`] (null, missing, unchanged, a value) never collapse into one
//! another, because each of them means something else for somebody's account.
//!
//! Positions are opaque to the daemon. A [`Cursor`] is stored in the same transaction as
//! the effects of the changes that it covers and is handed back to the connector
//! unchanged; whatever the connector cannot prove to be continuous with it becomes a
//! [`Gap`], never a silent new start.

mod batch;
mod check;
mod cursor;
mod error;
mod gap;
mod key;
mod page;
mod pool;
mod schema;
mod sink;
mod source;
mod value;

pub use batch::{
    Batch, BatchBuilder, BatchCaps, BatchTable, Before, Buffers, Cell, Cells, Change, Changes,
    Gathered, KeptSmall, Op, Row, Small, Tx,
};
pub use check::{Finding, Report, Severity};
pub use cursor::{Cursor, Lineage, TxId};
pub use error::{ConnectorError, Definite, Transient};
pub use gap::{Gap, GapReason};
pub use key::Key;
pub use page::{KEYLESS_ROWS, RowWidth, check_change_column, check_key_count, check_keys_differ};
pub use pool::{Pool, Pooled};
pub use schema::{Column, FollowedTable, RelatedTable, TableName, TableNo, TableSchema};
pub use sink::{Outgoing, Refused, Sink, SinkStart};
pub use source::{
    Acknowledge, ChangeStream, DiscoveredTable, OTHER_SERVER, Opened, Page, PageRequest,
    RelationKind, Since, Source, SourceStatus, StreamItem, Window,
};
pub use value::{Class, Value};
