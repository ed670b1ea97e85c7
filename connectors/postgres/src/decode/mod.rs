//! From bytes of the log to batches.
//!
//! The socket is read into the tail of the open batch's own buffer; complete messages are
//! taken out of it in a loop without waiting, and a cell is a range of that buffer. When a
//! batch is closed, the incomplete message at the end moves to the next buffer. Nothing is
//! allocated for a row or a cell, and nothing here waits, reads a clock or takes a lock.
//!
//! Why positions are right: with protocol version 1 every transaction that begins has
//! committed already, so its rows may be handed over while they arrive; but the position
//! moves to a whole transaction's end only at its Commit. In between, the cursor names the
//! transaction and how many of its row messages (of all tables, since their number is the
//! same each time the server sends them) were handed over, and a stream that is opened
//! there leaves exactly those out. A transaction whose commit record lies before the
//! position was taken in before: commit records do not overlap, so its end is not behind
//! the position either. A keepalive outside of a transaction names a position up to which
//! the server has sent everything; the position moves there too, so an idle log advances.

mod fields;
mod relation;
mod transaction;
mod tuple;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;
use rollcall_contract::{
    Batch, BatchBuilder, BatchCaps, Buffers, ConnectorError, Cursor, Gap, GapReason, Gathered, Op,
    Pool, Small, StreamItem, TableName, TableNo,
};

pub(crate) use fields::{Fields, error_fields};
pub use relation::Followed;
pub use transaction::{tx_id, xid_of};

use crate::errors::{from_sqlstate, protocol_violation};
use crate::lsn::{Lsn, Xid};
use crate::position::{Inside, PgCursor};
use crate::types::TypeResolver;
use relation::{Layout, Relation, truncated};
use transaction::{OpenTx, open_change};
use tuple::Image;

/// The server builds a message in one allocation, of less than 1 GiB.
const MAX_FRAME: usize = (1 << 30) + (1 << 16);
/// Room made for a read of the socket.
const READ_SIZE: usize = 256 << 10;
/// Microseconds between 1970-01-01 and 2000-01-01.
pub(crate) const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// What the decoder has to know before the first message.
pub struct DecoderOptions {
    /// Where the stream begins.
    pub start: PgCursor,
    /// The followed tables in the order of their numbers; the main one first.
    pub followed: Vec<Followed>,
    /// Types that are not built in.
    pub types: Arc<dyn TypeResolver>,
    /// A transaction id of now, from which those of the log are extended.
    pub xid_reference: Xid,
    /// When a batch is full.
    pub caps: BatchCaps,
}

/// Why [`Decoder::advance`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// No complete message is left in the buffer.
    NeedsMore,
    /// The batch has reached its cap: it has to be taken before the rest.
    Full,
    /// Items are waiting in [`Decoder::next_item`].
    Items,
    /// The server said where it stands.
    Keepalive {
        /// It wants an answer at once.
        reply: bool,
    },
    /// The server ended the log.
    Ended,
}

/// Turns messages into batches.
pub struct Decoder {
    builder: BatchBuilder,
    /// Memory of batches that are no longer needed.
    pool: Pool<Buffers>,
    /// Bytes of the builder's data before this are taken out.
    parsed: usize,
    items: VecDeque<StreamItem>,
    /// The last whole position; its `inside` is the place where the stream resumes, until
    /// that transaction has come.
    position: PgCursor,
    received: Lsn,
    tx: Option<OpenTx>,
    /// The followed tables that were described, in the order of their numbers.
    layouts: Vec<Layout>,
    others: HashSet<u32>,
    followed: Vec<Followed>,
    types: Arc<dyn TypeResolver>,
    xid: Xid,
    caps: BatchCaps,
    is_awaited: bool,
    small: Option<Small>,
    buffer_hint: usize,
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decoder for a connection that was just started.
    pub fn new(options: DecoderOptions) -> Self {
        Decoder {
            builder: BatchBuilder::default(),
            pool: Pool::default(),
            parsed: 0,
            items: VecDeque::new(),
            position: options.start,
            received: options.start.commit_end,
            tx: None,
            layouts: Vec::new(),
            others: HashSet::new(),
            followed: options.followed,
            types: options.types,
            xid: options.xid_reference,
            caps: options.caps,
            is_awaited: false,
            small: None,
            buffer_hint: READ_SIZE,
            scratch: Vec::new(),
        }
    }

    /// Where bytes of the socket are appended; has room for a large read.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.builder.is_empty() && self.parsed > 0 {
            let data = self.builder.data();
            data.drain(..self.parsed);
            self.parsed = 0;
        }
        let data = self.builder.data();
        if data.capacity() - data.len() < READ_SIZE / 4 {
            data.reserve(READ_SIZE);
        }
        data
    }

    /// The last position that any message named.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// Whether a batch can be taken that ends with a transaction.
    pub fn has_whole_batch(&self) -> bool {
        self.tx.is_none() && !self.builder.is_empty()
    }

    /// Says whether the consumer waits for the open batch.
    pub fn set_awaited(&mut self, is_awaited: bool) {
        self.is_awaited = is_awaited;
    }

    /// Says how small batches are to be, if they are.
    pub fn keep_small(&mut self, small: Option<Small>) {
        self.small = small;
    }

    /// How many changes the open batch has.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether the open batch has any change.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The position behind everything that was taken out of the buffer, when that is a
    /// whole one: no transaction is open, and none is waited for.
    pub fn whole_position(&self) -> Option<PgCursor> {
        (self.tx.is_none() && self.position.inside.is_none()).then_some(self.position)
    }

    /// What waits to be handed over before anything else.
    pub fn next_item(&mut self) -> Option<StreamItem> {
        self.items.pop_front()
    }

    /// Closes the open batch behind its last change.
    pub fn take_batch(&mut self) -> Batch {
        self.builder.abandon();
        let data = self.builder.data();
        let taken = self.parsed.min(data.len());
        let tail = &data[taken..];
        let room = self.buffer_hint.max(tail.len() + READ_SIZE / 4);
        let next = BatchBuilder::in_pool(&self.pool, tail, room);
        data.truncate(taken);
        // The next batch is probably like this one; after a large one the guess shrinks
        // by half each time.
        self.buffer_hint = (taken + READ_SIZE / 2)
            .max(self.buffer_hint / 2)
            .clamp(READ_SIZE, self.caps.bytes.max(READ_SIZE) + READ_SIZE);
        self.parsed = 0;
        for layout in &mut self.layouts {
            layout.index = None;
        }
        if let Some(tx) = &mut self.tx {
            tx.is_announced = false;
        }
        let full = std::mem::replace(&mut self.builder, next);
        full.build(self.cursor())
    }

    /// The position behind the last row message.
    fn cursor(&self) -> Cursor {
        let inside = match &self.tx {
            Some(tx) if !tx.is_known && tx.rows.max(tx.skip_below) > 0 => Some(Inside {
                final_lsn: tx.final_lsn,
                rows: tx.rows.max(tx.skip_below),
            }),
            _ => self.position.inside,
        };
        PgCursor {
            inside,
            ..self.position
        }
        .encode()
    }

    /// Takes complete messages out of the buffer until something has to be done.
    ///
    /// # Errors
    /// A message that the protocol does not allow, a value in another form than the session
    /// asks for, and what the server itself reports. What was decoded before stays good.
    pub fn advance(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if !self.items.is_empty() {
                return Ok(Event::Items);
            }
            if self.is_full() {
                return Ok(Event::Full);
            }
            let at = self.parsed;
            let data = &self.builder.data()[at..];
            let Some(&[tag, l0, l1, l2, l3]) = data.first_chunk::<5>() else {
                return Ok(Event::NeedsMore);
            };
            let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if !(4..=MAX_FRAME).contains(&len) {
                return Err(protocol_violation("a message of an impossible length"));
            }
            if data.len() <= len {
                return Ok(Event::NeedsMore);
            }
            let (start, end) = (at + 5, at + 1 + len);
            self.parsed = end;
            match tag {
                b'd' => {
                    if let Some(event) = self.copy_data(start, end)? {
                        return Ok(event);
                    }
                }
                b'E' => {
                    let (state, message) = error_fields(&self.builder.data()[start..end])?;
                    return Err(from_sqlstate(&state, &message).into());
                }
                // Notices, parameter changes and notifications say nothing about the log.
                b'N' | b'S' | b'A' => {}
                b'c' | b'C' | b'Z' => return Ok(Event::Ended),
                _ => return Err(protocol_violation("an unknown message in the log")),
            }
        }
    }

    #[inline]
    fn is_full(&mut self) -> bool {
        if self.builder.is_empty() {
            return false;
        }
        let unparsed = self.builder.data().len() - self.parsed;
        let gathered = Gathered {
            changes: self.builder.len(),
            bytes: self.builder.size_bytes() - unparsed,
            only_inserts: self.builder.only_inserts(),
            in_transaction: self.tx.is_some(),
            is_awaited: self.is_awaited,
        };
        self.caps.are_reached(gathered, self.small)
    }

    /// Takes everything out of the buffer unread, up to the end of the log. For closing.
    pub(crate) fn discard(&mut self) -> bool {
        loop {
            let at = self.parsed;
            let data = &self.builder.data()[at..];
            let Some(&[tag, l0, l1, l2, l3]) = data.first_chunk::<5>() else {
                return false;
            };
            let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if !(4..=MAX_FRAME).contains(&len) || matches!(tag, b'C' | b'Z' | b'E') {
                return true;
            }
            if data.len() <= len {
                return false;
            }
            self.parsed = at + 1 + len;
        }
    }

    /// Throws the open batch away. For closing.
    pub(crate) fn forget(&mut self) {
        if !self.builder.is_empty() {
            let _ = self.take_batch();
        }
    }

    fn copy_data(&mut self, start: usize, end: usize) -> Result<Option<Event>, ConnectorError> {
        const XLOG_HEADER: usize = 1 + 8 + 8 + 8;
        let mut f = Fields::new("replication", &self.builder.data()[start..end]);
        match f.u8()? {
            b'w' => {
                let _start = f.lsn()?;
                let sent = f.lsn()?;
                let _time = f.i64()?;
                if f.is_empty() {
                    return Err(protocol_violation("an empty message of the log"));
                }
                self.received = self.received.max(sent);
                self.message(start + XLOG_HEADER, end)?;
                Ok(None)
            }
            b'k' => {
                let wal_end = f.lsn()?;
                let _time = f.i64()?;
                let reply = f.u8()? != 0;
                self.received = self.received.max(wal_end);
                if self.tx.is_none() {
                    self.idle_at(wal_end);
                }
                Ok(Some(Event::Keepalive { reply }))
            }
            _ => Err(protocol_violation("an unknown replication message")),
        }
    }

    /// Outside of a transaction, the server has sent everything before `wal_end`.
    fn idle_at(&mut self, wal_end: Lsn) {
        match self.position.inside {
            None => self.position.commit_end = self.position.commit_end.max(wal_end),
            Some(inside) if wal_end > inside.final_lsn => self.half_is_missing(inside, wal_end),
            Some(_) => {}
        }
    }

    /// The transaction in whose middle we were did not come again.
    fn half_is_missing(&mut self, inside: Inside, at: Lsn) {
        let from = self.cursor().text().to_owned();
        self.position.inside = None;
        self.position.commit_end = self.position.commit_end.max(inside.final_lsn);
        let tables = self.followed.iter().map(|f| f.schema.table.clone());
        self.gap(
            tables.collect(),
            GapReason::PositionLost,
            Some(from),
            Some(at.to_string()),
            format!(
                "The transaction at {} was handed over in part, and the server did not send it \
                 again; its other changes are unknown.",
                inside.final_lsn
            ),
        );
    }

    fn gap(
        &mut self,
        tables: Vec<TableName>,
        reason: GapReason,
        from: Option<String>,
        to: Option<String>,
        detail: String,
    ) {
        self.flush();
        self.items.push_back(StreamItem::Gap(Gap {
            tables,
            reason,
            from,
            to,
            detail,
        }));
    }

    /// A gap of one table, from where the log is taken in to a message.
    fn gap_here(&mut self, table: &TableName, reason: GapReason, here: Lsn, detail: String) {
        let from = self.cursor().text().to_owned();
        let to = here.to_string();
        self.gap(vec![table.clone()], reason, Some(from), Some(to), detail);
    }

    /// Puts the open batch before the items that follow.
    fn flush(&mut self) {
        if !self.builder.is_empty() {
            let batch = self.take_batch();
            self.items.push_back(StreamItem::Batch(batch));
        }
    }

    /// One message of pgoutput (PostgreSQL documentation, "Logical Replication Message
    /// Formats"), at `start` (its tag) up to `end`.
    fn message(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let body = start + 1;
        match self.builder.data()[start] {
            b'I' | b'U' | b'D' => self.row(start, end),
            b'B' => self.begin(body, end),
            b'C' => self.commit(body, end),
            b'R' => self.relation(body, end),
            b'T' => self.truncate(body, end),
            // Types are known by their OID, origins say nothing to us, and a logical
            // message is no row.
            b'Y' | b'O' | b'M' => Ok(()),
            _ => Err(protocol_violation("an unknown message of pgoutput")),
        }
    }

    fn begin(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let mut f = Fields::new("Begin", &self.builder.data()[start..end]);
        let final_lsn = f.lsn()?;
        let time = f.i64()?;
        let xid = f.u32()?;
        if self.tx.is_some() {
            return Err(protocol_violation("a Begin inside of a transaction"));
        }
        let is_known = final_lsn < self.position.commit_end;
        let mut skip_below = 0;
        if let (Some(inside), false) = (self.position.inside, is_known) {
            if final_lsn == inside.final_lsn {
                skip_below = inside.rows;
            } else if final_lsn > inside.final_lsn {
                self.half_is_missing(inside, final_lsn);
            }
        }
        self.xid = self.xid.extend(xid);
        self.tx = Some(OpenTx {
            final_lsn,
            commit_us: time.saturating_add(EPOCH_2000_US),
            xid: self.xid,
            rows: 0,
            skip_below,
            is_known,
            is_announced: false,
        });
        Ok(())
    }

    fn commit(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let mut f = Fields::new("Commit", &self.builder.data()[start..end]);
        let _flags = f.u8()?;
        let commit_lsn = f.lsn()?;
        let end_lsn = f.lsn()?;
        let _time = f.i64()?;
        let Some(tx) = self.tx.take() else {
            return Err(protocol_violation("a Commit outside of a transaction"));
        };
        if tx.final_lsn != commit_lsn || end_lsn < commit_lsn {
            return Err(protocol_violation("a Commit of another transaction"));
        }
        if !tx.is_known {
            if self
                .position
                .inside
                .is_some_and(|inside| inside.final_lsn <= commit_lsn)
            {
                self.position.inside = None;
            }
            self.position.commit_end = self.position.commit_end.max(end_lsn);
        }
        self.received = self.received.max(end_lsn);
        Ok(())
    }

    fn relation(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let relation = Relation::parse(&self.builder.data()[start..end])?;
        let here = self.tx.as_ref().map_or(self.received, |tx| tx.final_lsn);
        self.renamed_away(&relation, here);
        let known = |f: &Followed| f.schema.table == relation.table;
        let Some(at) = self.followed.iter().position(known) else {
            self.others.insert(relation.oid);
            return Ok(());
        };
        let known_oid = self.followed[at].table_oid;
        if known_oid.is_some_and(|oid| oid != relation.oid) {
            let detail = format!(
                "The table {} was dropped and created again; rows that the new one had before \
                 it was published are unknown.",
                relation.table
            );
            self.gap_here(&relation.table, GapReason::TableRecreated, here, detail);
        }
        let no = TableNo::at(at);
        self.forget_layout(no);
        self.others.remove(&relation.oid);
        let (layout, changed) = relation.layout(no, &mut self.followed[at], self.types.as_ref())?;
        if changed {
            self.flush();
            self.items
                .push_back(StreamItem::SchemaChanged(no, Arc::clone(&layout.schema)));
        }
        if !layout.names_records() {
            let detail = format!(
                "The replica identity of {} did not carry its key for a time, so the log does not \
                 say which records were deleted or renamed.",
                relation.table
            );
            self.gap_here(&relation.table, GapReason::NotInLog, here, detail);
        }
        let place = self.layouts.partition_point(|other| other.no < no);
        self.layouts.insert(place, layout);
        Ok(())
    }

    /// A followed table has another name now.
    fn renamed_away(&mut self, relation: &Relation, here: Lsn) {
        let was =
            |f: &Followed| f.table_oid == Some(relation.oid) && f.schema.table != relation.table;
        let Some(at) = self.followed.iter().position(was) else {
            return;
        };
        let table = self.followed[at].schema.table.clone();
        let detail = format!(
            "The table {table} was renamed to {}; changes under the new name are not those of \
             {table}.",
            relation.table
        );
        self.followed[at].table_oid = None;
        self.forget_layout(TableNo::at(at));
        self.gap_here(&table, GapReason::PublicationChanged, here, detail);
    }

    /// Rows of what a table was until now are those of another one.
    fn forget_layout(&mut self, no: TableNo) {
        if let Some(at) = self.layouts.iter().position(|layout| layout.no == no) {
            let old = self.layouts.remove(at);
            self.others.insert(old.oid);
        }
    }

    fn truncate(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let oids = truncated(&self.builder.data()[start..end])?;
        if let Some(ordinal) = self.next_row()? {
            for layout in &mut self.layouts {
                if oids.contains(&layout.oid) {
                    open_change(
                        &mut self.builder,
                        &mut self.tx,
                        layout,
                        Op::Truncate,
                        ordinal,
                    );
                    self.builder.finish(false, end - start);
                }
            }
        }
        self.count_row();
        Ok(())
    }

    /// The number of the row message that has come; none when it was handed over before.
    fn next_row(&self) -> Result<Option<u32>, ConnectorError> {
        let Some(tx) = &self.tx else {
            return Err(protocol_violation("a row outside of a transaction"));
        };
        Ok((!tx.is_known && tx.rows >= tx.skip_below).then_some(tx.rows))
    }

    fn count_row(&mut self) {
        if let Some(tx) = &mut self.tx {
            tx.rows = tx.rows.saturating_add(1);
        }
    }

    fn row(&mut self, start: usize, end: usize) -> Result<(), ConnectorError> {
        let data = &self.builder.data()[start..end];
        let Some(&[tag, o0, o1, o2, o3, first]) = data.first_chunk::<6>() else {
            return Err(protocol_violation("a row message that is too short"));
        };
        let oid = u32::from_be_bytes([o0, o1, o2, o3]);
        let wanted = self.next_row()?;
        let Some(layout) = self.layouts.iter_mut().find(|l| l.oid == oid) else {
            if !self.others.contains(&oid) {
                return Err(protocol_violation(
                    "a row of a relation that was not described",
                ));
            }
            self.count_row();
            return Ok(());
        };
        if let Some(ordinal) = wanted {
            let op = match tag {
                b'I' => Op::Insert,
                b'U' => Op::Update,
                _ => Op::Delete,
            };
            let builder = &mut self.builder;
            open_change(builder, &mut self.tx, layout, op, ordinal);
            let mut image = Image::New;
            let mut kind = first;
            let mut at = start + 6;
            if matches!(kind, b'K' | b'O') && op != Op::Insert {
                let old = if kind == b'K' { Image::Key } else { Image::Old };
                at = tuple::read(builder, layout, at, end, old, &mut self.scratch)?;
                if old == Image::Key {
                    builder.before_is_key();
                } else {
                    builder.before_is_full();
                    image = Image::NewBehindOld;
                }
                if op == Op::Delete {
                    builder.finish(false, end - start);
                    self.count_row();
                    return Ok(());
                }
                kind = *builder.data()[..end]
                    .get(at)
                    .ok_or_else(|| protocol_violation("an update without its new row"))?;
                at += 1;
            }
            if kind != b'N' || op == Op::Delete {
                return Err(protocol_violation("a row message of an unknown shape"));
            }
            tuple::read(builder, layout, at, end, image, &mut self.scratch)?;
            builder.finish(true, end - start);
        }
        self.count_row();
        Ok(())
    }
}
