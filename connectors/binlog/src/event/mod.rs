//! The frame of an event, and its kind.
//!
//! Every event begins with the same 19 bytes and, where FORMAT_DESCRIPTION says so, ends
//! with a CRC32 of everything before. [`Framing`] takes both away, and refuses an event
//! whose size or checksum is wrong, so that what is read afterwards is what the server
//! wrote. An event that came before any FORMAT_DESCRIPTION (the artificial ROTATE that
//! opens every dump) does not say whether it has a checksum: its last four bytes are taken
//! for one exactly when they are right. MariaDB sends them there and MySQL may; read as
//! part of the body they would lengthen the file's name.
//!
//! What is not known is not skipped: an unknown event becomes [`Event::Unknown`], with
//! whether the server marked it as ignorable.

mod control;
mod gtid;
mod query;

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::gtid::mysql::GtidSet;

pub use control::{FormatDescription, Heartbeat, Incident, Rotate, XaPrepare, Xid};
pub use gtid::{GtidEvent, MariadbGtid, MariadbGtidList};
pub use query::{Query, SqlMode};

/// Which server wrote the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL, Percona Server and what behaves like them.
    Mysql,
    /// MariaDB.
    Mariadb,
}

/// What an event is. Numbers are `Log_event_type` of both servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// 2: a statement.
    Query,
    /// 3: the server stopped.
    Stop,
    /// 4: the log goes on in another file.
    Rotate,
    /// 5: a value of `LAST_INSERT_ID` or `INSERT_ID` for the statement that follows.
    Intvar,
    /// 9, 17: a piece of a file for LOAD DATA in statement format.
    LoadBlock,
    /// 11: that file is not needed.
    DeleteFile,
    /// 13: seeds of `RAND` for the statement that follows.
    Rand,
    /// 14: a user variable for the statement that follows.
    UserVar,
    /// 15: how the events of this file are built.
    FormatDescription,
    /// 16: the transaction committed.
    Xid,
    /// 18: LOAD DATA in statement format.
    ExecuteLoadQuery,
    /// 19: the table of the rows that follow.
    TableMap,
    /// 23 and 166 (MariaDB, compressed): rows were inserted, version 1.
    WriteRowsV1,
    /// 24 and 167: rows were updated, version 1.
    UpdateRowsV1,
    /// 25 and 168: rows were deleted, version 1.
    DeleteRowsV1,
    /// 26: the server could not log something.
    Incident,
    /// 27: nothing happened, and where.
    Heartbeat,
    /// 28: nothing that matters, by definition.
    Ignorable,
    /// 29: the statement behind the rows that follow.
    RowsQuery,
    /// 30 and 169: rows were inserted.
    WriteRows,
    /// 31 and 170: rows were updated.
    UpdateRows,
    /// 32 and 171: rows were deleted.
    DeleteRows,
    /// 33: a transaction begins.
    Gtid,
    /// 34: a transaction without GTID begins.
    AnonymousGtid,
    /// 35: what was applied before this file.
    PreviousGtids,
    /// 36: certification of a group.
    TransactionContext,
    /// 37: a group has other members.
    ViewChange,
    /// 38: an XA transaction was prepared.
    XaPrepare,
    /// 39: rows were updated, JSON documents in part.
    PartialUpdateRows,
    /// 40: a compressed transaction.
    TransactionPayload,
    /// 41: nothing happened, and where, beyond 4 GiB.
    HeartbeatV2,
    /// 42: a transaction begins whose GTID may have a tag.
    GtidTagged,
    /// 160: MariaDB, the statement behind the rows that follow.
    AnnotateRows,
    /// 161: MariaDB, which files recovery needs.
    BinlogCheckpoint,
    /// 162: MariaDB, a transaction begins.
    MariadbGtid,
    /// 163: MariaDB, what was written before this file.
    MariadbGtidList,
    /// 164: MariaDB, the file is encrypted from here on (a dump is not).
    StartEncryption,
    /// 165: MariaDB, a compressed statement.
    QueryCompressed,
    /// Anything else.
    Unknown(u8),
}

impl Kind {
    /// The kind of a type byte, and whether MariaDB compressed the event's rows.
    pub fn of(byte: u8) -> (Kind, bool) {
        let kind = match byte {
            2 => Kind::Query,
            3 => Kind::Stop,
            4 => Kind::Rotate,
            5 => Kind::Intvar,
            9 | 17 => Kind::LoadBlock,
            11 => Kind::DeleteFile,
            13 => Kind::Rand,
            14 => Kind::UserVar,
            15 => Kind::FormatDescription,
            16 => Kind::Xid,
            18 => Kind::ExecuteLoadQuery,
            19 => Kind::TableMap,
            23 | 166 => Kind::WriteRowsV1,
            24 | 167 => Kind::UpdateRowsV1,
            25 | 168 => Kind::DeleteRowsV1,
            26 => Kind::Incident,
            27 => Kind::Heartbeat,
            28 => Kind::Ignorable,
            29 => Kind::RowsQuery,
            30 | 169 => Kind::WriteRows,
            31 | 170 => Kind::UpdateRows,
            32 | 171 => Kind::DeleteRows,
            33 => Kind::Gtid,
            34 => Kind::AnonymousGtid,
            35 => Kind::PreviousGtids,
            36 => Kind::TransactionContext,
            37 => Kind::ViewChange,
            38 => Kind::XaPrepare,
            39 => Kind::PartialUpdateRows,
            40 => Kind::TransactionPayload,
            41 => Kind::HeartbeatV2,
            42 => Kind::GtidTagged,
            160 => Kind::AnnotateRows,
            161 => Kind::BinlogCheckpoint,
            162 => Kind::MariadbGtid,
            163 => Kind::MariadbGtidList,
            164 => Kind::StartEncryption,
            165 => Kind::QueryCompressed,
            other => Kind::Unknown(other),
        };
        (kind, (166..=171).contains(&byte))
    }

    /// Whether the event holds rows.
    pub fn is_rows(self) -> bool {
        matches!(
            self,
            Kind::WriteRowsV1
                | Kind::UpdateRowsV1
                | Kind::DeleteRowsV1
                | Kind::WriteRows
                | Kind::UpdateRows
                | Kind::DeleteRows
                | Kind::PartialUpdateRows
        )
    }
}

/// The 19 bytes before every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seconds since the Unix epoch, when the statement began.
    pub timestamp: u32,
    /// What it is.
    pub kind: Kind,
    /// Whether its rows are compressed (MariaDB, 166 to 171).
    pub is_compressed: bool,
    /// The server on which it was written first.
    pub server_id: u32,
    /// Bytes of the whole event, this header and the checksum included.
    pub size: u32,
    /// The position behind it in its file, modulo 2^32; 0 in an artificial event and
    /// inside of a payload.
    pub log_pos: u32,
    /// See the flags of this type.
    pub flags: u16,
}

impl Header {
    /// Its length.
    pub const LEN: usize = 19;
    /// `LOG_EVENT_ARTIFICIAL_F`: made for this dump, not read from the file.
    pub const ARTIFICIAL: u16 = 0x20;
    /// `LOG_EVENT_IGNORABLE_F`: who does not know the event may leave it out.
    pub const IGNORABLE: u16 = 0x80;

    /// Reads the header of the event that begins here.
    ///
    /// # Errors
    /// When there are fewer than 19 bytes, or the size is less.
    pub fn parse(bytes: &[u8]) -> Result<Header, DecodeError> {
        let mut f = Fields::new("an event's header", bytes);
        let timestamp = f.u32()?;
        let (kind, is_compressed) = Kind::of(f.u8()?);
        let header = Header {
            timestamp,
            kind,
            is_compressed,
            server_id: f.u32()?,
            size: f.u32()?,
            log_pos: f.u32()?,
            flags: f.u16()?,
        };
        if (header.size as usize) < Header::LEN {
            return Err(f.bad("a size below that of the header"));
        }
        Ok(header)
    }

    /// Whether the event was made for this dump.
    pub fn is_artificial(&self) -> bool {
        self.flags & Header::ARTIFICIAL != 0
    }

    /// Whether the event may be left out.
    pub fn is_ignorable(&self) -> bool {
        self.flags & Header::IGNORABLE != 0
    }
}

const CHECKSUM_LEN: usize = 4;

/// Takes the frame from events: header and checksum.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// None before the first FORMAT_DESCRIPTION.
    has_checksum: Option<bool>,
}

impl Framing {
    /// For the beginning of a dump or of a file.
    pub fn new() -> Self {
        Framing::default()
    }

    /// Whether the last FORMAT_DESCRIPTION announced checksums.
    pub fn has_checksum(&self) -> bool {
        self.has_checksum == Some(true)
    }

    /// The header and the body of one whole event. `bytes` are exactly the event.
    ///
    /// # Errors
    /// When the size in the header is another than that of the bytes, or when the checksum
    /// is wrong.
    #[inline]
    pub fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<RawEvent<'a>, DecodeError> {
        let (header, body) = whole(bytes)?;
        let has_checksum = match (header.kind, self.has_checksum) {
            (Kind::FormatDescription, _) => {
                let has_checksum = control::announces_checksum(body)?;
                self.has_checksum = Some(has_checksum);
                if !has_checksum {
                    // The four bytes are there even so.
                    let (body, _) = cut(bytes, body)?;
                    return Ok(RawEvent { header, body });
                }
                true
            }
            (_, Some(known)) => known,
            (_, None) => cut(bytes, body).is_ok_and(|(_, is_right)| is_right),
        };
        if !has_checksum {
            return Ok(RawEvent { header, body });
        }
        match cut(bytes, body)? {
            (body, true) => Ok(RawEvent { header, body }),
            (_, false) => Err(DecodeError::Checksum),
        }
    }
}

fn whole(bytes: &[u8]) -> Result<(Header, &[u8]), DecodeError> {
    let header = Header::parse(bytes)?;
    if header.size as usize != bytes.len() {
        return Err(DecodeError::malformed(
            "an event",
            "its size is another than its header says",
        ));
    }
    Ok((header, &bytes[Header::LEN..]))
}

/// The body without its checksum, and whether that is right.
fn cut<'a>(bytes: &[u8], body: &'a [u8]) -> Result<(&'a [u8], bool), DecodeError> {
    let (Some((body, sum)), Some((covered, _))) = (
        body.split_last_chunk::<CHECKSUM_LEN>(),
        bytes.split_last_chunk::<CHECKSUM_LEN>(),
    ) else {
        return Err(DecodeError::Truncated { what: "an event" });
    };
    Ok((body, crc32fast::hash(covered) == u32::from_le_bytes(*sum)))
}

/// An event whose frame was taken away.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    /// Its header.
    pub header: Header,
    /// What is between header and checksum.
    pub body: &'a [u8],
}

impl<'a> RawEvent<'a> {
    /// An event from inside of a transaction payload: these have no checksum.
    ///
    /// # Errors
    /// When the size in the header is another than that of the bytes.
    pub fn inside(bytes: &'a [u8]) -> Result<RawEvent<'a>, DecodeError> {
        let (header, body) = whole(bytes)?;
        Ok(RawEvent { header, body })
    }

    /// Reads the body. Table maps and rows are left to [`crate::table_map`] and
    /// [`crate::rows`], payloads to [`crate::payload`].
    ///
    /// # Errors
    /// When the body is not what its kind says.
    pub fn parse(&self) -> Result<Event<'a>, DecodeError> {
        let body = self.body;
        Ok(match self.header.kind {
            Kind::Query => Event::Query(Query::parse(body, false)?),
            Kind::QueryCompressed => Event::Query(Query::parse(body, true)?),
            Kind::Xid => Event::Xid(Fields::new("an XID event", body).u64()?),
            Kind::XaPrepare => Event::XaPrepare(XaPrepare::parse(body)?),
            Kind::Gtid => Event::Gtid(GtidEvent::parse(body)?),
            Kind::AnonymousGtid => Event::AnonymousGtid(GtidEvent::parse_anonymous(body)?),
            Kind::GtidTagged => Event::Gtid(GtidEvent::parse_tagged(body)?),
            Kind::PreviousGtids => Event::PreviousGtids(GtidSet::decode(body)?),
            Kind::MariadbGtid => {
                Event::MariadbGtid(MariadbGtid::parse(body, self.header.server_id)?)
            }
            Kind::MariadbGtidList => Event::MariadbGtidList(MariadbGtidList::parse(body)?),
            Kind::TableMap => Event::TableMap,
            Kind::WriteRowsV1
            | Kind::UpdateRowsV1
            | Kind::DeleteRowsV1
            | Kind::WriteRows
            | Kind::UpdateRows
            | Kind::DeleteRows
            | Kind::PartialUpdateRows => Event::Rows,
            Kind::TransactionPayload => Event::TransactionPayload,
            Kind::FormatDescription => Event::FormatDescription(FormatDescription::parse(body)?),
            Kind::Rotate => Event::Rotate(Rotate::parse(body)?),
            Kind::Heartbeat => Event::Heartbeat(Heartbeat::parse(body, self.header.log_pos)?),
            Kind::HeartbeatV2 => Event::Heartbeat(Heartbeat::parse_v2(body)?),
            Kind::Incident => Event::Incident(Incident::parse(body)?),
            Kind::ExecuteLoadQuery => Event::LoadData,
            Kind::Stop
            | Kind::Intvar
            | Kind::LoadBlock
            | Kind::DeleteFile
            | Kind::Rand
            | Kind::UserVar
            | Kind::Ignorable
            | Kind::RowsQuery
            | Kind::TransactionContext
            | Kind::ViewChange
            | Kind::AnnotateRows
            | Kind::BinlogCheckpoint
            | Kind::StartEncryption => Event::Nothing,
            Kind::Unknown(kind) => Event::Unknown {
                kind,
                is_ignorable: self.header.is_ignorable(),
            },
        })
    }
}

/// One event, read.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// How the events that follow are built.
    FormatDescription(FormatDescription<'a>),
    /// The log goes on in another file, or (artificial) is read from this one.
    Rotate(Rotate<'a>),
    /// Nothing happened, and where.
    Heartbeat(Heartbeat<'a>),
    /// A statement: BEGIN, COMMIT, DDL, XA, or DML in statement format.
    Query(Query<'a>),
    /// The transaction committed.
    Xid(u64),
    /// An XA transaction was prepared, or committed in one phase.
    XaPrepare(XaPrepare<'a>),
    /// A transaction begins.
    Gtid(GtidEvent),
    /// A transaction without GTID begins; its `gtid` is none.
    AnonymousGtid(GtidEvent),
    /// What was applied before this file.
    PreviousGtids(GtidSet),
    /// MariaDB: a transaction begins.
    MariadbGtid(MariadbGtid<'a>),
    /// MariaDB: what was written before this file.
    MariadbGtidList(MariadbGtidList),
    /// The table of the rows that follow: see [`crate::table_map`].
    TableMap,
    /// Rows: see [`crate::rows`].
    Rows,
    /// A compressed transaction: see [`crate::payload`].
    TransactionPayload,
    /// The server could not log something: everything may have changed.
    Incident(Incident<'a>),
    /// LOAD DATA in statement format: the rows are not in the log.
    LoadData,
    /// An event that says nothing about rows or positions.
    Nothing,
    /// An event that this decoder does not know.
    Unknown {
        /// Its type byte.
        kind: u8,
        /// Whether the server says that it may be left out.
        is_ignorable: bool,
    },
}

#[cfg(test)]
mod tests;
