//! The event that begins a transaction.

use crate::error::DecodeError;
use crate::event::Xid;
use crate::fields::Fields;
use crate::gtid::mariadb::{self, DomainId, GtidState};
use crate::gtid::mysql::{Gtid, Origin, ServerUuid, Tag};

/// MySQL: a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidEvent {
    /// Its GTID; none when it is anonymous.
    pub gtid: Option<Gtid>,
    /// When it committed on the server whose log this is, in microseconds since the Unix
    /// epoch; none from servers before 8.0.1.
    pub commit_us: Option<u64>,
    /// The same on the server where it was committed first.
    pub original_commit_us: Option<u64>,
    /// Bytes of the whole transaction in the log, this event included.
    pub length: Option<u64>,
}

/// Set in the immediate commit time when the original one follows.
const HAS_ORIGINAL: u64 = 1 << 55;

impl GtidEvent {
    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a GTID event", body);
        let _flags = f.u8()?;
        let uuid = ServerUuid(f.array()?);
        let number = f.u64()?;
        let gtid = Gtid::new(uuid.into(), number)
            .map_err(|_| f.bad("a number that no transaction can have"))?;
        GtidEvent::times(f, Some(gtid))
    }

    pub(super) fn parse_anonymous(body: &[u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("an ANONYMOUS_GTID event", body);
        let _flags = f.u8()?;
        f.bytes(16 + 8)?;
        GtidEvent::times(f, None)
    }

    /// What servers have added behind the GTID; what an old server did not write is none.
    fn times(mut f: Fields<'_>, gtid: Option<Gtid>) -> Result<Self, DecodeError> {
        let mut event = GtidEvent {
            gtid,
            commit_us: None,
            original_commit_us: None,
            length: None,
        };
        const LOGICAL_CLOCK: u8 = 2;
        if f.is_empty() || f.u8()? != LOGICAL_CLOCK || f.bytes(16).is_err() || f.len() < 7 {
            return Ok(event);
        }
        let commit = f.uint(7)?;
        event.commit_us = Some(commit & (HAS_ORIGINAL - 1));
        event.original_commit_us = if commit & HAS_ORIGINAL != 0 {
            Some(f.uint(7)?)
        } else {
            event.commit_us
        };
        if !f.is_empty() {
            event.length = Some(f.lenenc()?);
        }
        Ok(event)
    }

    /// Written by MySQL's serialization library: numbered fields, in order, of which those
    /// with a default may be left out.
    pub(super) fn parse_tagged(body: &[u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a GTID_TAGGED event", body);
        if f.varlen()? != 1 {
            return Err(f.bad("another version of the serialization"));
        }
        let size = f.varlen()?;
        if size != body.len() as u64 {
            return Err(f.bad("its size is another than it says"));
        }
        const LAST_KNOWN: u64 = 11;
        // One more than the id, 0 for none.
        if f.varlen()? > LAST_KNOWN + 1 {
            return Err(f.bad("an unknown field that must not be ignored"));
        }
        let (mut uuid, mut number, mut tag) = (None, None, Tag::NONE);
        let mut event = GtidEvent {
            gtid: None,
            commit_us: None,
            original_commit_us: None,
            length: None,
        };
        let mut previous = None;
        while !f.is_empty() {
            let field = f.varlen()?;
            if previous.is_some_and(|p| field <= p) {
                return Err(f.bad("fields out of order"));
            }
            previous = Some(field);
            match field {
                0 => drop(f.u8()?),
                1 => {
                    let mut bytes = [0; 16];
                    for byte in &mut bytes {
                        *byte = u8::try_from(f.varlen()?).map_err(|_| f.bad("no UUID"))?;
                    }
                    uuid = Some(ServerUuid(bytes));
                }
                2 => number = u64::try_from(f.varlen_signed()?).ok(),
                3 => {
                    let len = f.varlen()?;
                    let len = usize::try_from(len).map_err(|_| f.short())?;
                    let text = f.bytes(len)?;
                    tag = f.name(text)?.parse().map_err(|_| f.bad("no tag"))?;
                }
                4 | 5 => drop(f.varlen_signed()?),
                6 => event.commit_us = Some(f.varlen()?),
                7 => event.original_commit_us = Some(f.varlen()?),
                8 => event.length = Some(f.varlen()?),
                9..=LAST_KNOWN => drop(f.varlen()?),
                // Fields of later versions are behind all that is known.
                _ => break,
            }
        }
        event.original_commit_us = event.original_commit_us.or(event.commit_us);
        let (Some(uuid), Some(number)) = (uuid, number) else {
            return Err(f.bad("no GTID"));
        };
        let gtid = Gtid::new(Origin { uuid, tag }, number)
            .map_err(|_| f.bad("a number that no transaction can have"))?;
        event.gtid = Some(gtid);
        Ok(event)
    }
}

/// MariaDB: a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariadbGtid<'a> {
    /// Its GTID.
    pub gtid: mariadb::Gtid,
    /// `FL_*` of `Gtid_log_event`.
    flags: u8,
    /// `FL_*_E1` of the same.
    more_flags: u8,
    /// The XA transaction that is prepared here, or ended here.
    pub xid: Option<Xid<'a>>,
}

impl<'a> MariadbGtid<'a> {
    const STANDALONE: u8 = 0x01;
    const GROUP_COMMIT_ID: u8 = 0x02;
    const TRANSACTIONAL: u8 = 0x04;
    const DDL: u8 = 0x20;
    const PREPARED_XA: u8 = 0x40;
    const COMPLETED_XA: u8 = 0x80;
    const START_ALTER: u8 = 0x02;
    const ROLLBACK_ALTER: u8 = 0x08;

    pub(super) fn parse(body: &'a [u8], server_id: u32) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a GTID event", body);
        let sequence = f.u64()?;
        let domain = DomainId(f.u32()?);
        let flags = f.u8()?;
        if flags & Self::GROUP_COMMIT_ID != 0 {
            f.u64()?;
        }
        let xid = if flags & (Self::PREPARED_XA | Self::COMPLETED_XA) != 0 {
            let format = f.u32()?;
            let (global, branch) = (usize::from(f.u8()?), usize::from(f.u8()?));
            Some(Xid::parse(&mut f, format, global, branch)?)
        } else {
            None
        };
        // What is not used of the 19 bytes that a GTID event has at least is zero.
        let more_flags = f.u8().unwrap_or(0);
        Ok(MariadbGtid {
            gtid: mariadb::Gtid {
                domain,
                server_id,
                sequence,
            },
            flags,
            more_flags,
            xid,
        })
    }

    /// One statement and no event that ends it (DDL).
    pub fn is_standalone(&self) -> bool {
        self.flags & Self::STANDALONE != 0
    }

    /// Its statements can be rolled back.
    pub fn is_transactional(&self) -> bool {
        self.flags & Self::TRANSACTIONAL != 0
    }

    /// It is DDL.
    pub fn is_ddl(&self) -> bool {
        self.flags & Self::DDL != 0
    }

    /// The statement that follows announces an ALTER TABLE that may still fail
    /// (`binlog_alter_two_phase`); another event, with the same statement, completes it.
    pub fn is_begun_alter(&self) -> bool {
        self.more_flags & Self::START_ALTER != 0
    }

    /// An ALTER TABLE that was announced has failed: the statement that follows was undone.
    pub fn is_undone_alter(&self) -> bool {
        self.more_flags & Self::ROLLBACK_ALTER != 0
    }

    /// The rows that follow belong to an XA transaction that is prepared, not committed.
    pub fn is_prepared_xa(&self) -> bool {
        self.flags & Self::PREPARED_XA != 0
    }

    /// The statement that follows ends an XA transaction that was prepared before.
    pub fn is_completed_xa(&self) -> bool {
        self.flags & Self::COMPLETED_XA != 0
    }
}

/// MariaDB: what was written before this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariadbGtidList {
    /// The last transaction of each domain.
    pub state: GtidState,
}

impl MariadbGtidList {
    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a GTID_LIST event", body);
        // The high four bits are flags.
        let count = f.u32()? & 0x0FFF_FFFF;
        let mut state = GtidState::new();
        // The list names each server of a domain; the last one of a domain is its newest
        // (`Gtid_list_log_event`, `rpl_binlog_state::get_gtid_list`).
        for _ in 0..count {
            state.observe(mariadb::Gtid {
                domain: DomainId(f.u32()?),
                server_id: f.u32()?,
                sequence: f.u64()?,
            });
        }
        Ok(MariadbGtidList { state })
    }
}
