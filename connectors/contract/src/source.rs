//! What a source can be asked.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Batch, ConnectorError, Cursor, Gap, Key, Lineage, Report, Small, TableNo, TableSchema, TxId,
};

/// A database with one followed table, and related ones beside it. The log brings the changes
/// of all of them in its own order; each is read in pages of its own.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Looks at everything that following this source needs; changes nothing. Problems of
    /// the connection itself are findings too.
    async fn check(&self) -> Report;

    /// Lists the tables that this role can see.
    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError>;

    /// The present schema of a followed table.
    async fn schema(&self, table: TableNo) -> Result<Arc<TableSchema>, ConnectorError>;

    /// Opens the log of all followed tables. `resume` is what the store holds of this source: nothing on the very
    /// first start. The answer's gaps say what could not be proved to be continuous; when
    /// there are any, the start cursor is a new beginning and the store must replace its
    /// cursor by it together with recording the gaps.
    ///
    /// A cursor that is [`Cursor::is_nowhere`] says that the table was polled: the log begins
    /// anew where it stands, with the gap [`crate::GapReason::NotFollowed`] or with the one
    /// of a server that the lineage does not belong to.
    ///
    /// # Errors
    /// [`ConnectorError::Unfollowable`] when the log cannot be read for a reason that an
    /// operator can mend, and the table can be read.
    async fn open(&self, resume: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError>;

    /// Reads one page of a followed table in key order in a short snapshot transaction of its own. Rows that have
    /// no value in a column of the key belong to no page. The first one of a whole reading
    /// has some of them all the same, since nobody is absent for certain while there are any.
    async fn page(&self, table: TableNo, request: PageRequest) -> Result<Page, ConnectorError>;

    /// Reads the named records of a followed table as they are now, as one page (rows that do
    /// not exist are simply not in it, as none has a key that was given up; `last` is none). At
    /// most 1,000 keys a call. If there are rows without a key, the page has one of them: in its
    /// snapshot, what it does not have is not absent for certain.
    async fn reread(&self, table: TableNo, keys: &[Key]) -> Result<Page, ConnectorError>;

    /// The server that answers, told without its log.
    ///
    /// # Errors
    /// Definite with the code [`OTHER_SERVER`] when it is not the one of a known lineage.
    async fn identify(&self, known: Option<&Lineage>) -> Result<Lineage, ConnectorError>;

    /// How far a change column of the main table has come: the value to ask for the next time
    /// ([`PageRequest::since`]). A time that lies ahead of the server's clock counts as its
    /// present one. None when no row has a value.
    ///
    /// # Errors
    /// Definite when there is no such column, or it is neither a number nor a date or time.
    async fn change_mark(&self, column: &str) -> Result<Option<String>, ConnectorError>;

    /// How far behind, and how much the server retains for us. For status and metrics.
    async fn status(&self) -> Result<SourceStatus, ConnectorError>;
}

/// A log that was opened.
pub struct Opened {
    /// Where the stream begins.
    pub start: Cursor,
    /// To be stored beside the cursor.
    pub lineage: Lineage,
    /// What may have been lost before `start`. On the very first start: one gap with
    /// [`crate::GapReason::InitialLoad`].
    pub gaps: Vec<Gap>,
    /// The log.
    pub stream: Box<dyn ChangeStream>,
    /// Acknowledgement, independent of the stream so that a slow stage never stops it.
    pub acknowledge: Arc<dyn Acknowledge>,
}

/// The log from a cursor on.
#[async_trait]
pub trait ChangeStream: Send {
    /// The next thing to take in. Waits when there is nothing. Cancel safe.
    ///
    /// Batches grow while the caller is busy, up to their caps, and are handed over at a
    /// transaction's end as soon as there is nothing more to read; only a transaction
    /// larger than the cap is split.
    async fn next(&mut self) -> Result<StreamItem, ConnectorError>;

    /// Ends the stream in order: what was acknowledged reaches the server.
    async fn close(self: Box<Self>);
}

/// What the log brings.
#[derive(Debug)]
pub enum StreamItem {
    /// Changes.
    Batch(Batch),
    /// Nothing for us up to this position: the cursor may move there.
    Progress(Cursor),
    /// A followed table has other columns from here on.
    SchemaChanged(TableNo, Arc<TableSchema>),
    /// Something may have been lost, of whichever table; the stream goes on behind it.
    Gap(Gap),
}

/// Tells the server what is durable here.
pub trait Acknowledge: Send + Sync {
    /// Everything up to this cursor is durable. Never blocks.
    fn acknowledge(&self, cursor: &Cursor);

    /// Asks the server for its present position soon, because someone waits for a
    /// [`Window`] to close on an idle log.
    fn hurry(&self);

    /// How small batches are to be from now on, if they are ([`crate::BatchCaps::beside_others`]).
    /// Those that are under way stay as they are.
    fn keep_small(&self, small: Option<Small>);
}

/// Which page to read.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Read rows with keys behind this one, in the server's order; from the beginning when
    /// none.
    pub after: Option<Key>,
    /// At most so many rows.
    pub limit_rows: usize,
    /// Stop near this size even when there are fewer rows. At least one row is returned.
    pub limit_bytes: usize,
    /// Read these columns (indexes into the schema) and the key only; all other cells are
    /// [`crate::Cell::Missing`]. All columns when none.
    pub only: Option<Vec<usize>>,
    /// Read rows only that may have changed since; all rows when none.
    pub since: Option<Since>,
}

/// Rows whose change column is not below a value, by the server's own comparison, or has
/// none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The column that every change of a row raises.
    pub column: String,
    /// A value of it, as [`Source::change_mark`] gave it.
    pub value: String,
}

/// The code of the error that another server answers than the one that is known.
pub const OTHER_SERVER: &str = "other_server";

/// One page of a scan.
pub struct Page {
    /// The rows, as [`crate::Op::Read`] changes in key order.
    pub rows: Batch,
    /// The key of the last row; none when the page is the last one.
    pub last: Option<Key>,
    /// Tells which log events are newer than this page.
    pub window: Box<dyn Window>,
}

/// The page window: between reading a page and applying it.
pub trait Window: Send + Sync {
    /// Whether the change of this transaction may be newer than what the page read.
    /// `true` in doubt.
    fn may_be_newer(&self, tx: &TxId) -> bool;

    /// Whether the log, applied up to this cursor, holds everything that the page has seen.
    fn is_closed_by(&self, cursor: &Cursor) -> bool;

    /// Why the page has no place in the log. Such a page may be applied only while the log is
    /// not followed. None when it has one.
    fn obstacle(&self) -> Option<ConnectorError> {
        None
    }
}

/// What kind of relation was discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// The root of a partitioned table.
    PartitionedTable,
    /// A view, materialized or not: can be polled, not followed in the log.
    View,
    /// A foreign table: can be polled, not followed in the log.
    ForeignTable,
}

/// A relation that the role can see.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiscoveredTable {
    /// Its columns and key; the key is empty when there is none.
    pub schema: TableSchema,
    /// Generated columns that the log does not carry; they are not in `schema`.
    pub generated: Vec<String>,
    /// What it is.
    pub kind: RelationKind,
    /// The server's estimate of its rows; none when it has never been analysed.
    pub estimated_rows: Option<u64>,
    /// Why it cannot be followed in the log, though it can be polled with a key; none when
    /// it can be followed.
    pub obstacle: Option<String>,
}

/// A look from the server's side.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceStatus {
    /// Bytes of log between what we confirmed and the head.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the server retains because of us.
    pub retained_bytes: Option<u64>,
    /// Bytes that may still be written before the server gives up on us.
    pub safe_bytes: Option<u64>,
    /// The server's head position, readable.
    pub head: Option<String>,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}
