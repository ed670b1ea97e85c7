//! From bytes of the log to batches.
//!
//! The socket is read into the tail of the open batch's own buffer; complete packets are
//! taken out of it in a loop without waiting, and a text cell is a range of that buffer.
//! When a batch is closed, the incomplete packet at the end moves to the next buffer.
//! Nothing is allocated for a row or a cell, and nothing here waits, reads a clock or takes
//! a lock.
//!
//! Why positions are right: a server sends only transactions that have committed, so rows
//! may be handed over while they arrive; but the position takes a transaction in only at
//! its end. In between, the cursor names the transaction and how many of its changes of
//! the followed tables were handed over, and a stream that is opened there leaves exactly those
//! out. What was taken in as a whole is recognised by its name or place and left out too,
//! which is how a log is read again from further back when XA transactions are prepared
//! ([`parked`]).
//!
//! Three kinds of events have events inside: packets of a dump, compressed transactions and
//! transactions that were put by. While one of the latter two is read, what the socket has
//! brought meanwhile stands aside, and the events inside take its place in the buffer; so
//! there is one way to read an event, and a batch may end between any two of them.

mod control;
mod layout;
mod parked;
mod rows;
mod statement;
mod transaction;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use rollcall_binlog::event::{self, Framing, Header, Kind, RawEvent};
use rollcall_binlog::payload::{Payload, PayloadEvents};
use rollcall_binlog::table_map::TableMaps;
use rollcall_contract::{
    Batch, BatchBuilder, BatchCaps, Buffers, ConnectorError, Cursor, Gap, GapReason, Gathered,
    Pool, Small, StreamItem, TableName, TableNo,
};

use crate::config::ZeroDates;
use crate::errors::protocol_violation;
use crate::position::{Gtids, Inside, Place, Point, Position};
use crate::schema::Table;
use crate::server::LogMode;
use crate::wire::{HEADER, MAX_PAYLOAD, MAX_WHOLE, server_error};
use layout::Followed;
use parked::Parking;
use transaction::OpenTx;

/// Room made for a read of the socket.
const READ_SIZE: usize = 256 << 10;

/// An event of this size is long.
const LONG: usize = 1 << 20;

/// What the decoder has to know before the first packet.
pub(crate) struct DecoderOptions {
    /// Where the stream begins.
    pub(crate) start: Position,
    /// What positions are.
    pub(crate) mode: LogMode,
    /// The server, for its places.
    pub(crate) identity: String,
    /// The followed tables as the server describes them now, in the order of their numbers.
    pub(crate) tables: Vec<Table>,
    /// What becomes of dates that no calendar has.
    pub(crate) zero_dates: ZeroDates,
    /// When a batch is full.
    pub(crate) caps: BatchCaps,
}

/// Why [`Decoder::advance`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// No complete packet is left in the buffer.
    NeedsMore,
    /// The batch has reached its cap: it has to be taken before the rest.
    Full,
    /// Items are waiting in [`Decoder::next_item`].
    Items,
    /// The server ended the log.
    Ended,
}

/// What lies at the beginning of the buffer.
enum Packet {
    /// All of a packet's payload, from here up to there.
    Whole(usize, usize),
    /// Not all of it; what is known of its size.
    Partial { size: usize },
}

/// How long the event is whose packet begins here, by its own header (at byte 9 of which
/// its size stands, behind the byte that opens the payload); 0 when the packet is not one
/// of several, so that nothing short is taken at its word, or the size has not come. A size
/// beyond what a packet may have is none.
fn announced(packet: &[u8]) -> usize {
    if !packet.starts_with(&(MAX_PAYLOAD as u32).to_le_bytes()[..3]) {
        return 0;
    }
    let size = packet
        .get(HEADER + 1 + 9..)
        .and_then(|rest| rest.first_chunk::<4>());
    match size.map(|size| u32::from_le_bytes(*size) as usize) {
        Some(size) if size <= MAX_WHOLE => size,
        _ => 0,
    }
}

/// Events inside of an event.
enum Within {
    /// A compressed transaction.
    Payload {
        /// The buffer in which its event came.
        bytes: Vec<u8>,
        /// Where in it the event's body lies.
        body: Range<usize>,
        events: Box<PayloadEvents>,
    },
    /// A transaction that was put by, and ends now.
    Parked(std::vec::IntoIter<Vec<u8>>),
}

/// Turns packets into batches.
pub(crate) struct Decoder {
    builder: BatchBuilder,
    /// Memory of batches that are no longer needed.
    pool: Pool<Buffers>,
    /// Bytes of the builder's data before this are taken out.
    parsed: usize,
    items: VecDeque<StreamItem>,
    framing: Framing,
    maps: TableMaps,
    /// The last whole position; its `inside` is the place where the stream resumes, until
    /// that transaction has come.
    position: Position,
    /// What was taken in before this stream began.
    known: Point,
    /// While the log is read again from further back: what lies before the place that is
    /// read.
    again: Option<Gtids>,
    tx: Option<OpenTx>,
    within: Option<Within>,
    /// What the socket has brought while events inside of an event are read.
    aside: Vec<u8>,
    parking: Parking,
    mode: LogMode,
    identity: String,
    /// The place behind the last event; none before the first one that says it.
    here: Option<Place>,
    /// In the order of their numbers.
    followed: Vec<Followed>,
    caps: BatchCaps,
    is_awaited: bool,
    small: Option<Small>,
    buffer_hint: usize,
    /// Bodies of events that are not rows.
    scratch: Vec<u8>,
    has_moved: bool,
}

impl Decoder {
    /// A decoder for a log that was just asked for.
    pub(crate) fn new(options: DecoderOptions) -> Self {
        let start = options.start;
        Decoder {
            builder: BatchBuilder::default(),
            pool: Pool::default(),
            parsed: 0,
            items: VecDeque::new(),
            framing: Framing::new(),
            maps: TableMaps::new(match options.mode {
                LogMode::MariaDbGtid => event::Flavour::Mariadb,
                LogMode::MySqlGtid | LogMode::Place => event::Flavour::Mysql,
            }),
            known: start.whole.clone(),
            again: start.restart.as_ref().map(|point| point.gtids.clone()),
            here: start
                .read_from()
                .place
                .clone()
                .filter(|_| options.mode == LogMode::Place),
            position: Position {
                // Made anew from what is put by.
                restart: None,
                ..start
            },
            tx: None,
            within: None,
            aside: Vec::new(),
            parking: Parking::default(),
            mode: options.mode,
            identity: options.identity,
            followed: (options.tables.into_iter().enumerate())
                .map(|(at, table)| Followed::new(TableNo::at(at), table, options.zero_dates))
                .collect(),
            caps: options.caps,
            is_awaited: false,
            small: None,
            buffer_hint: READ_SIZE,
            scratch: Vec::new(),
            has_moved: false,
        }
    }

    /// Where bytes of the socket are appended; has room for a large read.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
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

    /// Whether a batch can be taken that ends with a transaction.
    pub(crate) fn has_whole_batch(&self) -> bool {
        self.tx.is_none() && !self.builder.is_empty()
    }

    /// Says whether the consumer waits for the open batch.
    pub(crate) fn set_awaited(&mut self, is_awaited: bool) {
        self.is_awaited = is_awaited;
    }

    /// Says how small batches are to be, if they are.
    pub(crate) fn keep_small(&mut self, small: Option<Small>) {
        self.small = small;
    }

    /// How many changes the open batch has.
    pub(crate) fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether the open batch has any change.
    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Whether the position has moved since it was given to the consumer.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// The position was given to the consumer.
    pub(crate) fn note_given(&mut self) {
        self.has_moved = false;
    }

    /// The position behind everything that was taken out of the buffer, when that is a
    /// whole one: no transaction is open, and none is waited for.
    pub(crate) fn whole_position(&self) -> Option<Position> {
        (self.tx.is_none() && self.position.inside.is_none()).then(|| self.now())
    }

    /// What waits to be handed over before anything else.
    pub(crate) fn next_item(&mut self) -> Option<StreamItem> {
        let item = self.items.pop_front();
        self.has_moved |= item.is_some();
        item
    }

    /// Closes the open batch behind its last change.
    pub(crate) fn take_batch(&mut self) -> Batch {
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
        if let Some(tx) = &mut self.tx {
            tx.is_announced = false;
        }
        for followed in &mut self.followed {
            followed.index = None;
            followed.tell_oddities();
        }
        let cursor = self.cursor();
        let full = std::mem::replace(&mut self.builder, next);
        full.build(cursor)
    }

    /// The position behind the last change.
    fn now(&self) -> Position {
        let inside = match &self.tx {
            Some(tx) if !tx.is_known && tx.changes.max(tx.skip_below) > 0 => Some(Inside {
                tx: tx.name.clone(),
                changes: tx.changes.max(tx.skip_below),
            }),
            _ => self.position.inside.clone(),
        };
        Position {
            whole: self.position.whole.clone(),
            inside,
            restart: self.parking.restart(&self.position.whole),
        }
    }

    fn cursor(&self) -> Cursor {
        self.now().encode()
    }

    /// Takes complete packets out of the buffer until something has to be done.
    ///
    /// # Errors
    /// What the protocol does not allow, a value that cannot be read, and what the server
    /// itself reports. What was decoded before stays good.
    pub(crate) fn advance(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if !self.items.is_empty() {
                return Ok(Event::Items);
            }
            if self.is_full() {
                return Ok(Event::Full);
            }
            if self.within.is_some() {
                self.event_within()?;
                continue;
            }
            let (start, end) = match self.packet()? {
                Packet::Whole(start, end) => (start, end),
                // A long event begins in a buffer of its own: nobody holds it then but us.
                Packet::Partial { size } if size >= LONG && !self.builder.is_empty() => {
                    return Ok(Event::Full);
                }
                Packet::Partial { .. } => return Ok(Event::NeedsMore),
            };
            self.parsed = end;
            match self.builder.data()[start..end] {
                [0x00, ..] => self.event(start + 1, end, true)?,
                [0xff, ref body @ ..] => return Err(server_error(body).into()),
                [0xfe, ref rest @ ..] if rest.len() < 8 => return Ok(Event::Ended),
                _ => return Err(protocol_violation("an unknown packet in the log")),
            }
        }
    }

    /// The next packet, with the headers inside of a long one taken out.
    fn packet(&mut self) -> Result<Packet, ConnectorError> {
        let at = self.parsed;
        let data = self.builder.data();
        let mut next = at;
        let mut payload = 0;
        loop {
            let Some(&[a, b, c, _]) = data.get(next..).and_then(|rest| rest.first_chunk::<4>())
            else {
                return Ok(Packet::Partial { size: next - at });
            };
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            payload += len;
            if payload > MAX_WHOLE {
                return Err(protocol_violation("an event of over 1 GiB"));
            }
            next += HEADER + len;
            if data.len() < next {
                // A long event is not read into a buffer that grows by copying itself.
                let missing = at + HEADER + announced(&data[at..]).max(next - at) - data.len();
                if missing > READ_SIZE {
                    data.reserve_exact(missing + READ_SIZE);
                }
                return Ok(Packet::Partial { size: next - at });
            }
            if len < MAX_PAYLOAD {
                break;
            }
        }
        let start = at + HEADER;
        let end = start + payload;
        if end < next {
            // Each piece moves up by the headers before it; then the rest of the buffer.
            let mut from = start + MAX_PAYLOAD;
            let mut to = from;
            while from < next {
                let piece = (next - from - HEADER).min(MAX_PAYLOAD);
                data.copy_within(from + HEADER..from + HEADER + piece, to);
                from += HEADER + piece;
                to += piece;
            }
            data.drain(end..next);
        }
        Ok(Packet::Whole(start, end))
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

    /// Begins to read events inside of an event. Gives what was read so far.
    fn enter(&mut self) -> &mut Vec<u8> {
        let parsed = self.parsed;
        let data = self.builder.data();
        self.aside = data.split_off(parsed.min(data.len()));
        data
    }

    /// Begins to read a compressed transaction, whose event's body lies at this range. It
    /// is kept compressed, and not twice: the buffer is its own when nothing else is in it.
    fn enter_payload(&mut self, events: PayloadEvents, body: Range<usize>) {
        let is_alone = self.builder.is_empty();
        let data = self.enter();
        let (bytes, body) = if is_alone {
            (std::mem::take(data), body)
        } else {
            (data[body.clone()].to_vec(), 0..body.len())
        };
        self.within = Some(Within::Payload {
            bytes,
            body,
            events: Box::new(events),
        });
    }

    /// The next event inside, or the end of them.
    fn event_within(&mut self) -> Result<(), ConnectorError> {
        // Nothing refers to what was read before, when there is no change yet.
        if self.builder.is_empty() {
            self.builder.data().clear();
        }
        let start = self.builder.data().len();
        let more = match &mut self.within {
            Some(Within::Payload {
                bytes,
                body,
                events,
            }) => events
                .next(&bytes[body.clone()], self.builder.data())?
                .is_some(),
            Some(Within::Parked(events)) => match events.next() {
                Some(event) => {
                    self.builder.data().extend_from_slice(&event);
                    true
                }
                None => false,
            },
            None => false,
        };
        let end = self.builder.data().len();
        self.parsed = end;
        if more {
            return self.event(start, end, false);
        }
        let was_parked = matches!(self.within.take(), Some(Within::Parked(_)));
        let aside = std::mem::take(&mut self.aside);
        self.builder.data().extend_from_slice(&aside);
        if was_parked {
            // The statement (or the event) that ended the XA transaction is all of this one.
            self.end_transaction();
        }
        Ok(())
    }

    /// One event, at `start` up to `end` of the buffer. `framed`: it comes from the server
    /// itself, with a checksum when those are on.
    fn event(&mut self, start: usize, end: usize, framed: bool) -> Result<(), ConnectorError> {
        let bytes = &self.builder.parts().0[start..end];
        let raw = if framed {
            self.framing.open(bytes)?
        } else {
            RawEvent::inside(bytes)?
        };
        let header = raw.header;
        let body = start + Header::LEN;
        let body = body..body + raw.body.len();
        match header.kind {
            kind if kind.is_rows() => {}
            Kind::TableMap => {}
            Kind::TransactionPayload => {
                let events = Payload::parse(raw.body)?.events()?;
                self.enter_payload(events, body.clone());
            }
            _ => {
                // Few and small: a copy, so that the event can be read while we change.
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.clear();
                scratch.extend_from_slice(raw.body);
                if framed {
                    self.move_to(&header);
                }
                let copy = RawEvent {
                    header,
                    body: &scratch,
                };
                let done = match copy.parse() {
                    Ok(event) => self.control(&header, event),
                    Err(e) => Err(e.into()),
                };
                self.scratch = scratch;
                return done;
            }
        }
        if framed {
            self.move_to(&header);
        }
        match header.kind {
            Kind::TableMap => self.table_map(&header, body),
            Kind::TransactionPayload => Ok(()),
            _ => self.rows(&header, body),
        }
    }

    /// The header says where the event ends in its file, in 32 bits.
    fn move_to(&mut self, header: &Header) {
        if header.log_pos == 0 || header.is_artificial() {
            return;
        }
        if let Some(here) = &mut self.here {
            let mut position = here.position & !0xffff_ffff | u64::from(header.log_pos);
            if position < here.position {
                position += 1 << 32;
            }
            here.position = position;
        }
    }

    /// A gap that may concern any of the tables.
    fn gap(&mut self, reason: GapReason, detail: String) {
        let all = self.followed.iter().map(|f| f.name().clone());
        self.gap_of(all.collect(), reason, detail);
    }

    fn gap_of(&mut self, tables: Vec<TableName>, reason: GapReason, detail: String) {
        self.flush();
        let here = self.now().to_string();
        let to = self.tx.as_ref().map(|tx| tx.name.to_string());
        self.items.push_back(StreamItem::Gap(Gap {
            tables,
            reason,
            from: Some(here.clone()),
            to: Some(to.unwrap_or(here)),
            detail,
        }));
    }

    /// Puts the open batch before the items that follow.
    fn flush(&mut self) {
        if !self.builder.is_empty() {
            let batch = self.take_batch();
            self.items.push_back(StreamItem::Batch(batch));
        }
    }
}
