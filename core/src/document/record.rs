//! The document of a record that leads to no user: held, out of scope or failed.
//!
//! It keeps the shadow, so that the record can be considered again when what it waits for
//! is free, or when the mapping changes, without asking the source.

use super::codec::{Reader, put_bytes, put_int};
use super::{DocumentError, FORMAT};
use crate::id::UserRow;
use crate::reason::SkipReason;

/// A record without a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Why it has none.
    pub reason: SkipReason,
    /// The user that the key led to before it was deleted, if it did.
    pub former: Option<UserRow>,
    /// As in [`super::Link`].
    pub tx: &'a [u8],
    /// As in [`super::Link`].
    pub position: &'a str,
    /// As in [`super::Link`].
    pub commit_us: i64,
    /// As in [`super::Link`].
    pub hash: u64,
    /// As in [`super::Link`].
    pub hold: &'a [u8],
    /// As in [`super::Link`].
    pub shadow: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads it.
    pub fn decode(bytes: &'a [u8]) -> Result<Record<'a>, DocumentError> {
        Self::read(bytes).ok_or(DocumentError)
    }

    fn read(bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut r = Reader(bytes);
        if r.u8()? != FORMAT {
            return None;
        }
        let record = Record {
            reason: SkipReason::from_u8(r.u8()?)?,
            former: match r.u8()? {
                0 => None,
                _ => Some(UserRow(r.i64()?)),
            },
            tx: r.bytes()?,
            position: r.text()?,
            commit_us: r.i64()?,
            hash: r.u64()?,
            hold: r.bytes()?,
            shadow: r.bytes()?,
        };
        r.0.is_empty().then_some(record)
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[FORMAT, self.reason as u8]);
        match self.former {
            None => put_int(out, 0),
            Some(row) => {
                put_int(out, 1);
                out.extend_from_slice(&row.0.to_le_bytes());
            }
        }
        put_bytes(out, self.tx);
        put_bytes(out, self.position.as_bytes());
        out.extend_from_slice(&self.commit_us.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        put_bytes(out, self.hold);
        put_bytes(out, self.shadow);
    }
}
