//! Events about the log itself, and about XA.

use std::fmt;

use crate::error::DecodeError;
use crate::event::Flavour;
use crate::fields::Fields;

const VERSION_LEN: usize = 50;
const CHECKSUM_LEN: usize = 4;
const CRC32: u8 = 1;

/// The body of a FORMAT_DESCRIPTION always ends with the algorithm and four bytes, whether
/// they are used or not (`Log_event_footer::get_checksum_alg`).
pub(super) fn announces_checksum(body: &[u8]) -> Result<bool, DecodeError> {
    let algorithm = body.len().checked_sub(CHECKSUM_LEN + 1).map(|at| body[at]);
    match algorithm {
        Some(0) => Ok(false),
        Some(CRC32) => Ok(true),
        Some(_) => Err(DecodeError::Unsupported {
            what: "a FORMAT_DESCRIPTION event",
            why: "an unknown checksum algorithm",
        }),
        None => Err(DecodeError::Truncated {
            what: "a FORMAT_DESCRIPTION event",
        }),
    }
}

/// How the events of a file are built.
#[derive(Clone, Copy, Debug)]
pub struct FormatDescription<'a> {
    /// The server's version, for example `10.11.19-MariaDB-log`.
    pub server_version: &'a str,
    /// When the file was begun, in seconds since the Unix epoch, if the server was started
    /// then; 0 in one that is sent again in the middle of a file.
    pub created: u32,
}

impl<'a> FormatDescription<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a FORMAT_DESCRIPTION event", body);
        if f.u16()? != 4 {
            return Err(DecodeError::Unsupported {
                what: "a FORMAT_DESCRIPTION event",
                why: "a binary log of another version than 4",
            });
        }
        let version = f.bytes(VERSION_LEN)?;
        let created = f.u32()?;
        if usize::from(f.u8()?) != super::Header::LEN {
            return Err(f.bad("a header of another length than 19"));
        }
        let len = memchr::memchr(0, version).unwrap_or(VERSION_LEN);
        Ok(FormatDescription {
            server_version: f.name(&version[..len])?,
            created,
        })
    }

    /// Which server wrote it.
    pub fn flavour(&self) -> Flavour {
        if self.server_version.contains("MariaDB") {
            Flavour::Mariadb
        } else {
            Flavour::Mysql
        }
    }
}

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// The file.
    pub file: &'a str,
    /// The position in it.
    pub position: u64,
}

impl<'a> Rotate<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a ROTATE event", body);
        let position = f.u64()?;
        let file = f.rest();
        Ok(Rotate {
            file: file_name(&f, file)?,
            position,
        })
    }
}

fn file_name<'a>(f: &Fields<'a>, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(f.bad("a file name that is none"));
    }
    f.name(bytes)
}

/// The server has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// The file that it reads.
    pub file: &'a str,
    /// The position up to which everything was sent. The first form carries 32 bits only:
    /// it says nothing for a file beyond 4 GiB.
    pub position: u64,
}

impl<'a> Heartbeat<'a> {
    pub(super) fn parse(body: &'a [u8], log_pos: u32) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a HEARTBEAT event", body);
        let file = f.rest();
        Ok(Heartbeat {
            file: file_name(&f, file)?,
            position: u64::from(log_pos),
        })
    }

    /// Fields of a type, a length and a value each, up to a type 0
    /// (`binary_log::codecs::binary::Heartbeat`).
    pub(super) fn parse_v2(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a HEARTBEAT_V2 event", body);
        let (mut file, mut position) = (None, None);
        while !f.is_empty() {
            let field = f.lenenc()?;
            if field == 0 {
                break;
            }
            let value = f.lenenc_bytes()?;
            match field {
                1 => file = Some(file_name(&f, value)?),
                2 => position = Some(Fields::new("a HEARTBEAT_V2 event", value).lenenc()?),
                _ => {}
            }
        }
        match (file, position) {
            (Some(file), Some(position)) => Ok(Heartbeat { file, position }),
            _ => Err(f.bad("no file or no position")),
        }
    }
}

/// The server could not log something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident<'a> {
    /// The server's number for it; 1 is lost events.
    pub number: u16,
    /// Its sentence.
    pub message: &'a [u8],
}

impl<'a> Incident<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("an INCIDENT event", body);
        let number = f.u16()?;
        let len = usize::from(f.u8()?);
        Ok(Incident {
            number,
            message: f.bytes(len)?,
        })
    }
}

/// The name of an XA transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xid<'a> {
    /// The format, 1 unless the client said otherwise.
    pub format: u32,
    /// The global transaction id, up to 64 bytes.
    pub global: &'a [u8],
    /// The branch qualifier, up to 64 bytes.
    pub branch: &'a [u8],
}

impl<'a> Xid<'a> {
    /// The longest part.
    const MAX_PART: usize = 64;

    pub(super) fn parse(
        f: &mut Fields<'a>,
        format: u32,
        global_len: usize,
        branch_len: usize,
    ) -> Result<Xid<'a>, DecodeError> {
        if global_len > Xid::MAX_PART || branch_len > Xid::MAX_PART {
            return Err(f.bad("an XA name of over 64 bytes"));
        }
        Ok(Xid {
            format,
            global: f.bytes(global_len)?,
            branch: f.bytes(branch_len)?,
        })
    }
}

/// As it stands in the statements that the server logs: `X'6162',X'',1`.
impl fmt::Display for Xid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.global, self.branch] {
            f.write_str("X'")?;
            for byte in part {
                write!(f, "{byte:02x}")?;
            }
            f.write_str("',")?;
        }
        write!(f, "{}", self.format)
    }
}

impl fmt::Debug for Xid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The end of an XA transaction's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// It committed here (`XA COMMIT … ONE PHASE`); otherwise a later statement decides.
    pub is_one_phase: bool,
    /// Its name.
    pub xid: Xid<'a>,
}

impl<'a> XaPrepare<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut f = Fields::new("an XA_PREPARE event", body);
        let is_one_phase = f.u8()? != 0;
        let format = f.u32()?;
        let (global, branch) = (f.u32()? as usize, f.u32()? as usize);
        Ok(XaPrepare {
            is_one_phase,
            xid: Xid::parse(&mut f, format, global, branch)?,
        })
    }
}
