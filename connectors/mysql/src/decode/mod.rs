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
//! its end. In between, the cursor names the transaction and how many of its changes of the
//! followed table were handed over, and a stream that is opened there leaves exactly those
//! out. What was taken in as a whole is recognised by its name or place and left out too,
//! which is how a log is read again from further back when XA transactions are prepared
//! ([`parked`]).
//!
//! Three kinds of events have events inside: packets of a dump, compressed transactions and
//! transactions that were put by. While one of the latter two is read, what the socket has
//! brought meanwhile stands aside, and the events inside take its place in the buffer; so
//! there is one way to read an event, and a batch may end between any two of them.

mod layout;
mod parked;
mod statement;
mod transaction;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use rollcall_binlog::DecodeError;
use rollcall_binlog::event::{self, Framing, Header, Kind, RawEvent};
use rollcall_binlog::payload::{Payload, PayloadEvents};
use rollcall_binlog::rows::{RowReader, RowsEvent};
use rollcall_binlog::table_map::{TableMap, TableMaps};
use rollcall_contract::{Batch, BatchBuilder, ConnectorError, Cursor, Gap, GapReason, StreamItem};

use crate::config::{BatchCaps, ZeroDates};
use crate::errors::protocol_violation;
use crate::position::{Gtids, Inside, Place, Point, Position, TxName};
use crate::schema::Table;
use crate::server::LogMode;
use crate::values;
use crate::wire::{HEADER, MAX_PAYLOAD, MAX_WHOLE, server_error};
use layout::{Followed, Layout};
use parked::{Found, Parking};
use transaction::OpenTx;

/// Room made for a read of the socket.
const READ_SIZE: usize = 256 << 10;

/// What the decoder has to know before the first packet.
pub(crate) struct DecoderOptions {
    /// Where the stream begins.
    pub(crate) start: Position,
    /// What positions are.
    pub(crate) mode: LogMode,
    /// The server, for its places.
    pub(crate) identity: String,
    /// The followed table as the server describes it now.
    pub(crate) table: Table,
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

/// Events inside of an event.
enum Within {
    /// A compressed transaction.
    Payload {
        /// The body of its event.
        body: Vec<u8>,
        events: Box<PayloadEvents>,
    },
    /// A transaction that was put by, and ends now.
    Parked(std::vec::IntoIter<Vec<u8>>),
}

/// Turns packets into batches.
pub(crate) struct Decoder {
    builder: BatchBuilder,
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
    layout: Option<Layout>,
    followed: Followed,
    /// The followed table's index in the open batch.
    table_index: Option<u16>,
    caps: BatchCaps,
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
            layout: None,
            followed: Followed::new(options.table, options.zero_dates),
            table_index: None,
            caps: options.caps,
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

    /// How many changes the open batch has.
    pub(crate) fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether the open batch has any change.
    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Whether the whole position has moved since the last batch or since this was asked
    /// for as [`Decoder::whole_position`] and given.
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
        self.items.pop_front()
    }

    /// Closes the open batch behind its last change.
    pub(crate) fn take_batch(&mut self) -> Batch {
        self.builder.abandon();
        let data = self.builder.data();
        let taken = self.parsed.min(data.len());
        let tail = &data[taken..];
        let mut next = Vec::with_capacity(self.buffer_hint.max(tail.len() + READ_SIZE / 4));
        next.extend_from_slice(tail);
        data.truncate(taken);
        // The next batch is probably like this one; after a large one the guess shrinks
        // by half each time.
        self.buffer_hint = (taken + READ_SIZE / 2)
            .max(self.buffer_hint / 2)
            .clamp(READ_SIZE, self.caps.bytes.max(READ_SIZE) + READ_SIZE);
        self.parsed = 0;
        self.table_index = None;
        if let Some(tx) = &mut self.tx {
            tx.is_announced = false;
        }
        let cursor = self.cursor();
        let full = std::mem::replace(&mut self.builder, BatchBuilder::with_buffer(next));
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
            let Some((start, end)) = self.packet()? else {
                return Ok(Event::NeedsMore);
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

    /// The next whole packet, with the headers inside of a long one taken out. `None`: not
    /// all of it has come.
    fn packet(&mut self) -> Result<Option<(usize, usize)>, ConnectorError> {
        let at = self.parsed;
        let data = self.builder.data();
        let mut next = at;
        let mut payload = 0;
        loop {
            let Some(&[a, b, c, _]) = data.get(next..).and_then(|rest| rest.first_chunk::<4>())
            else {
                return Ok(None);
            };
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            payload += len;
            if payload > MAX_WHOLE {
                return Err(protocol_violation("an event of over 1 GiB"));
            }
            next += HEADER + len;
            if data.len() < next {
                // A long event is not read into a buffer that doubles.
                let missing = next - data.len();
                if missing > READ_SIZE {
                    data.reserve_exact(missing + READ_SIZE / 4);
                }
                return Ok(None);
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
        Ok(Some((start, end)))
    }

    /// At a transaction's end half of the cap is enough, so that a transaction which fits
    /// into the other half is never split.
    #[inline]
    fn is_full(&mut self) -> bool {
        if self.builder.is_empty() {
            return false;
        }
        let share = if self.tx.is_none() { 2 } else { 1 };
        let unparsed = self.builder.data().len() - self.parsed;
        self.builder.len() >= self.caps.changes / share
            || self.builder.size_bytes() - unparsed >= self.caps.bytes / share
    }

    /// Begins to read events inside of an event.
    fn enter(&mut self, within: Within) {
        let parsed = self.parsed;
        let data = self.builder.data();
        self.aside = data.split_off(parsed.min(data.len()));
        self.within = Some(within);
    }

    /// The next event inside, or the end of them.
    fn event_within(&mut self) -> Result<(), ConnectorError> {
        // Nothing refers to what was read before, when there is no change yet.
        if self.builder.is_empty() {
            self.builder.data().clear();
        }
        let start = self.builder.data().len();
        let more = match &mut self.within {
            Some(Within::Payload { body, events }) => {
                events.next(body, self.builder.data())?.is_some()
            }
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
                let payload = Payload::parse(raw.body)?;
                let within = Within::Payload {
                    body: raw.body.to_vec(),
                    events: Box::new(payload.events()?),
                };
                self.enter(within);
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

    /// Where an event begins in the log. The server may have left others out before it.
    fn begin_of(&self, header: &Header) -> Option<Place> {
        let mut begins = self.here.clone()?;
        begins.position = begins.position.checked_sub(u64::from(header.size))?;
        Some(begins)
    }

    /// An event that holds no rows.
    fn control(&mut self, header: &Header, event: event::Event<'_>) -> Result<(), ConnectorError> {
        use event::Event as E;
        let begins = self.begin_of(header);
        match event {
            E::Gtid(gtid) | E::AnonymousGtid(gtid) => {
                let name = match (gtid.gtid, self.mode) {
                    (Some(gtid), LogMode::MySqlGtid) => TxName::MySql(gtid),
                    (None, LogMode::MySqlGtid) => {
                        return Err(ConnectorError::definite(
                            "gtid_mode",
                            "The log has a transaction without GTID although gtid_mode is ON.",
                            "Set gtid_mode = ON on every server of the group, and \
                             enforce_gtid_consistency.",
                        ));
                    }
                    _ => self.unnamed(begins.as_ref())?,
                };
                let commit_us = gtid
                    .commit_us
                    .and_then(|us| i64::try_from(us).ok())
                    .unwrap_or(i64::from(header.timestamp) * 1_000_000);
                self.begin_transaction(name, begins, commit_us);
            }
            E::MariadbGtid(gtid) => {
                let name = TxName::MariaDb(gtid.gtid);
                let commit_us = i64::from(header.timestamp) * 1_000_000;
                self.begin_transaction(name, begins, commit_us);
                let is_xa = gtid.is_prepared_xa();
                if let Some(tx) = &mut self.tx {
                    tx.is_standalone = gtid.is_standalone();
                    tx.is_begun = !gtid.is_standalone();
                    tx.is_xa = is_xa;
                }
                if is_xa {
                    self.parking.begin();
                }
            }
            E::Query(query) => {
                self.statement(header, &query, begins)?;
            }
            E::Xid(_) => self.end_transaction(),
            E::XaPrepare(prepare) => {
                if prepare.is_one_phase {
                    let found = self.parking.take_open();
                    if let Some(tx) = &mut self.tx {
                        tx.is_xa = false;
                    }
                    self.replay(found);
                } else {
                    self.prepare(prepare.xid.to_string().into_bytes());
                }
            }
            E::Rotate(rotate) => {
                self.here = Some(Place::new(&self.identity, rotate.file, rotate.position));
                self.maps.end_statement();
                self.idle(false);
            }
            E::Heartbeat(heartbeat) => {
                // The short form carries 32 bits; a smaller number than before has lost some.
                let place = Place::new(&self.identity, heartbeat.file, heartbeat.position);
                if self.tx.is_none()
                    && self
                        .here
                        .as_ref()
                        .is_none_or(|here| place.covers(here) == Some(true))
                {
                    self.here = Some(place);
                    self.idle(true);
                }
            }
            E::FormatDescription(_) => {
                self.maps.end_statement();
                if let Some(here) = &mut self.here {
                    here.created = header.timestamp;
                }
                self.idle(false);
            }
            E::Incident(_) => {
                self.gap(
                    GapReason::NotInLog,
                    "The server reports an incident: it could not write all changes to its log."
                        .to_owned(),
                );
                self.end_transaction();
            }
            E::LoadData => self.gap(
                GapReason::NotInLog,
                "The log has a LOAD DATA as a statement; the rows that it brought are not in it."
                    .to_owned(),
            ),
            E::PreviousGtids(_) | E::MariadbGtidList(_) | E::Nothing => self.idle(false),
            E::Unknown { kind, is_ignorable } => {
                if !is_ignorable {
                    return Err(ConnectorError::definite(
                        "unknown_event",
                        format!(
                            "The log has an event of type {kind} at {}, which this version of \
                             Rollcall does not know and may not leave out.",
                            self.cursor().text()
                        ),
                        "Upgrade Rollcall, or report this with the server's version.",
                    ));
                }
            }
            E::TableMap | E::Rows | E::TransactionPayload => {
                return Err(protocol_violation("an event inside of another one"));
            }
        }
        Ok(())
    }

    /// The name of a transaction that has no GTID: where it begins.
    fn unnamed(&self, begins: Option<&Place>) -> Result<TxName, ConnectorError> {
        begins
            .cloned()
            .map(TxName::Place)
            .ok_or_else(|| protocol_violation("a transaction before the name of the file"))
    }

    fn begin_transaction(&mut self, name: TxName, begins: Option<Place>, commit_us: i64) {
        // Groups that hold nothing to be ended by (a change of members) end here.
        if self.tx.is_some() {
            self.end_transaction();
        }
        let mut tx = OpenTx::new(name, begins, self.here.as_ref());
        tx.commit_us = commit_us;
        tx.is_known = self.known.covers(&tx.name, tx.begins.as_ref());
        if !tx.is_known
            && let Some(inside) = &self.position.inside
        {
            if inside.tx == tx.name {
                tx.skip_below = inside.changes;
            } else if follows(&tx.name, &inside.tx) {
                self.half_is_missing();
            }
        }
        self.tx = Some(tx);
    }

    /// The transaction in whose middle we were did not come again.
    fn half_is_missing(&mut self) {
        let Some(inside) = self.position.inside.take() else {
            return;
        };
        self.gap(
            GapReason::PositionLost,
            format!(
                "The transaction {} was handed over in part, and the server did not send it \
                 again; its other changes are unknown.",
                inside.tx
            ),
        );
    }

    /// The open transaction is taken in.
    fn end_transaction(&mut self) {
        let Some(tx) = self.tx.take() else {
            return;
        };
        if self
            .position
            .inside
            .as_ref()
            .is_some_and(|inside| inside.tx == tx.name)
        {
            self.position.inside = None;
        }
        if tx.is_known {
            if let Some(again) = &mut self.again {
                again.add(&tx.name);
            }
            return;
        }
        self.again = None;
        self.position.whole.gtids.add(&tx.name);
        self.position.whole.place.clone_from(&self.here);
        self.has_moved = true;
    }

    /// Outside of a transaction, everything before this place has been sent. On another
    /// server than before that is certain only at the log's end (`is_end`): what was taken
    /// in already is left out without a word.
    fn idle(&mut self, is_end: bool) {
        if self.tx.is_some() || self.position.inside.is_some() {
            return;
        }
        let Some(here) = &self.here else {
            return;
        };
        let is_ahead = match &self.position.whole.place {
            Some(place) => here.covers(place).unwrap_or(is_end),
            None => is_end,
        };
        if is_ahead && self.position.whole.place.as_ref() != Some(here) {
            self.position.whole.place = Some(here.clone());
            self.has_moved = true;
        }
    }

    /// The rows of the open transaction are put by until its XA name is heard again.
    fn prepare(&mut self, xid: Vec<u8>) {
        let Some(tx) = &self.tx else {
            return;
        };
        let before = Point {
            gtids: self
                .again
                .as_ref()
                .unwrap_or(&self.position.whole.gtids)
                .clone(),
            place: tx
                .begins
                .clone()
                .or_else(|| self.position.whole.place.clone()),
        };
        self.parking.prepare(xid, tx.name.clone(), before);
        self.end_transaction();
    }

    /// An XA transaction commits in the open one.
    fn replay(&mut self, found: Found) {
        match found {
            Found::Events(events) if !events.is_empty() => {
                self.enter(Within::Parked(events.into_iter()));
            }
            Found::Events(_) => self.end_transaction(),
            Found::Unknown => {
                if self.tx.as_ref().is_some_and(|tx| !tx.is_known) {
                    self.gap(
                        GapReason::NotInLog,
                        "An XA transaction committed whose rows are not known here: it was \
                         prepared before the log was read, or was too large to be kept."
                            .to_owned(),
                    );
                }
                self.end_transaction();
            }
        }
    }

    fn table_map(&mut self, header: &Header, body: Range<usize>) -> Result<(), ConnectorError> {
        let bytes = &self.builder.parts().0[body.clone()];
        let map = self.maps.learn(bytes)?;
        if !self.followed.is(map) {
            return Ok(());
        }
        let map = Arc::clone(map);
        if self.tx.as_ref().is_some_and(|tx| tx.is_xa) {
            self.put_by(header, body);
            return Ok(());
        }
        if self.layout.as_ref().is_some_and(|l| l.is_of(&map)) || self.is_left_out() {
            return Ok(());
        }
        let change = self.followed.take_on(&map)?;
        if let Some(schema) = change.schema {
            self.flush();
            self.items.push_back(StreamItem::SchemaChanged(schema));
        }
        if let Some(detail) = change.rewritten {
            self.gap(GapReason::SchemaChanged, detail);
        }
        self.table_index = None;
        self.layout = Some(change.layout);
        Ok(())
    }

    /// A rows event whose body lies at this range of the buffer.
    fn rows(&mut self, header: &Header, body: Range<usize>) -> Result<(), ConnectorError> {
        let raw = RawEvent {
            header: *header,
            body: &self.builder.parts().0[body.clone()],
        };
        let event = RowsEvent::parse(&raw)?;
        let is_empty = event.is_empty(raw.body);
        let map = match self.maps.get(event.table) {
            Some(map) if self.followed.is(map) => Some(Arc::clone(map)),
            Some(_) => None,
            None if is_empty => None,
            None => {
                return Err(protocol_violation("rows of a table that was not described"));
            }
        };
        if event.ends_statement() {
            self.maps.end_statement();
        }
        let Some(map) = map else {
            return Ok(());
        };
        let Some(tx) = &self.tx else {
            return Err(protocol_violation("rows outside of a transaction"));
        };
        if tx.is_xa {
            self.put_by(header, body);
            return Ok(());
        }
        if tx.is_known {
            return Ok(());
        }
        // Rows that are expanded are appended to the buffer: nothing may lie behind them.
        let aside = header.is_compressed.then(|| {
            let data = self.builder.data();
            data.split_off(self.parsed.min(data.len()))
        });
        self.take_rows(&event, &map, body)?;
        if let Some(aside) = aside {
            let data = self.builder.data();
            self.parsed = data.len();
            data.extend_from_slice(&aside);
        }
        Ok(())
    }

    fn take_rows(
        &mut self,
        event: &RowsEvent,
        map: &Arc<TableMap>,
        body: Range<usize>,
    ) -> Result<(), ConnectorError> {
        let (Some(tx), Some(layout)) = (&mut self.tx, &self.layout) else {
            return Ok(());
        };
        if !layout.is_of(map) {
            return Err(protocol_violation("rows of a table that was not described"));
        }
        let schema = &layout.schema;
        let unreadable = |column: Option<usize>, error: &DecodeError| {
            let column = column.and_then(|i| schema.columns.get(i));
            values::unreadable_value(column.map(|c| c.name.as_str()), error)
        };
        let builder = &mut self.builder;
        let mut reader =
            RowReader::new(event, &layout.rows, builder, body).map_err(|e| unreadable(None, &e))?;
        while tx.changes < tx.skip_below {
            if !reader
                .skip(builder)
                .map_err(|e| unreadable(e.column, &e.error))?
            {
                return Ok(());
            }
            tx.changes += 1;
        }
        let table = *self
            .table_index
            .get_or_insert_with(|| builder.table(schema));
        if !tx.is_announced {
            builder.tx(tx.announce());
        }
        while reader
            .read(builder, table, tx.changes, &mut self.followed.reading)
            .map_err(|e| unreadable(e.column, &e.error))?
            .is_some()
        {
            tx.changes += 1;
        }
        Ok(())
    }

    /// Whether changes of the open transaction were all taken in before.
    fn is_left_out(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.is_known)
    }

    /// Puts an event by, without its checksum.
    fn put_by(&mut self, header: &Header, body: Range<usize>) {
        let mut event = self.builder.data()[body.start - Header::LEN..body.end].to_vec();
        if header.size as usize != event.len() {
            // The size is told at byte 9.
            let size = (event.len() as u32).to_le_bytes();
            event[9..13].copy_from_slice(&size);
        }
        self.parking.add(&event);
    }

    fn gap(&mut self, reason: GapReason, detail: String) {
        self.flush();
        let here = self.now().to_string();
        let to = self.tx.as_ref().map(|tx| tx.name.to_string());
        self.items.push_back(StreamItem::Gap(Gap {
            tables: vec![self.followed.schema().table.clone()],
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

/// Whether the log has gone past a transaction, of which it has just sent another one. In a
/// set of GTIDs there is no order.
fn follows(now: &TxName, awaited: &TxName) -> bool {
    match (now, awaited) {
        (TxName::MariaDb(now), TxName::MariaDb(awaited)) => {
            now.domain == awaited.domain && now.sequence > awaited.sequence
        }
        (TxName::Place(now), TxName::Place(awaited)) => now.covers(awaited).unwrap_or(true),
        _ => false,
    }
}
