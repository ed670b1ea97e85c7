//! Why a record is held, and what it waits for.
//!
//! The match keys of a held record's last image are kept beside it, folded. They are what
//! the waiting index points at, so that an entry of the index can be verified here, and
//! they say which match keys the record has *now*, while its user still shows the old ones.

use smallvec::SmallVec;

use super::codec::{Reader, put_bytes, put_index, put_int};
use crate::attribute::AttrId;
use crate::conflict::Fingerprint;

/// What is known of a record that was not applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold<'a> {
    /// The mapping rule that failed, if one did.
    pub rule: Option<u16>,
    /// The conflicts that name the record.
    pub conflicts: SmallVec<[Fingerprint; 2]>,
    /// The folded match keys that the record has; it waits for them.
    pub pending: SmallVec<[(AttrId, &'a [u8]); 3]>,
    /// Folded values that its user would have or had, of which one is in the way; it waits
    /// for them too.
    pub blocked: SmallVec<[(AttrId, &'a [u8]); 2]>,
}

impl<'a> Hold<'a> {
    /// Reads it. Empty (or damaged) bytes hold nothing.
    pub fn decode(bytes: &'a [u8]) -> Hold<'a> {
        if bytes.is_empty() {
            return Hold::default();
        }
        Self::read(bytes).unwrap_or_default()
    }

    fn read(bytes: &'a [u8]) -> Option<Hold<'a>> {
        let mut r = Reader(bytes);
        let mut hold = Hold {
            rule: r.index()?,
            ..Hold::default()
        };
        for _ in 0..r.int()? {
            hold.conflicts.push(Fingerprint(r.u64()?));
        }
        for _ in 0..r.int()? {
            hold.pending.push((AttrId(r.u16()?), r.bytes()?));
        }
        for _ in 0..r.int()? {
            hold.blocked.push((AttrId(r.u16()?), r.bytes()?));
        }
        Some(hold)
    }

    /// Everything that the record waits for.
    pub fn waits_for(&self) -> impl Iterator<Item = (AttrId, &'a [u8])> + '_ {
        self.pending.iter().chain(&self.blocked).copied()
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_index(out, self.rule);
        put_int(out, self.conflicts.len() as u64);
        for f in &self.conflicts {
            out.extend_from_slice(&f.0.to_le_bytes());
        }
        put_int(out, self.pending.len() as u64);
        for (attribute, value) in &self.pending {
            put_int(out, u64::from(attribute.0));
            put_bytes(out, value);
        }
        put_int(out, self.blocked.len() as u64);
        for (attribute, value) in &self.blocked {
            put_int(out, u64::from(attribute.0));
            put_bytes(out, value);
        }
    }
}
