//! What a user's records say of other records.
//!
//! A reference is what a source said: the key of another record. Which user that is, now, is
//! a contribution like any other, beside it: there is one exactly while the key leads to a
//! user. So who reads a field's value reads an id and nothing else, and the reference stays
//! when the user behind it goes, with all that the value needs when there is one again.

use super::Document;
use super::codec::{Reader, put_bytes, put_index, put_int};
use crate::attribute::AttrId;
use crate::id::{SourceId, UserRow};
use crate::mapped::Strength;

/// A field that a link, or the identity side, gives by naming a record or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Which attribute.
    pub attribute: AttrId,
    /// Index of the link; none when it is Rollcall's own.
    pub link: Option<u16>,
    /// The number of the rule in the source's mapping.
    pub rule: u16,
    /// How the rule's value is used.
    pub strength: Strength,
    /// Index into the evidence: of when the key was named.
    pub evidence: u16,
    /// As [`super::Contribution::fresh`].
    pub fresh: bool,
    /// The key that is named, of a record of the link's source; of Rollcall's own the place of
    /// the user ([`own_key`]).
    pub key: &'a [u8],
}

/// How the identity side names a user.
pub fn own_key(user: UserRow) -> [u8; 8] {
    user.0.to_be_bytes()
}

/// The user that the identity side named.
pub fn own_target(key: &[u8]) -> Option<UserRow> {
    let bytes = key.try_into().ok()?;
    Some(UserRow(i64::from_be_bytes(bytes)))
}

impl<'a> Document<'a> {
    /// What a link says of an attribute by naming a record.
    pub fn reference(&self, attribute: AttrId, link: Option<u16>) -> Option<&Reference<'a>> {
        let mut all = self.references.iter();
        all.find(|r| (r.attribute, r.link) == (attribute, link))
    }

    /// In which source a reference's key is one.
    pub fn source_of(&self, reference: &Reference<'_>) -> SourceId {
        let link = reference
            .link
            .and_then(|at| self.links.get(usize::from(at)));
        link.map_or(SourceId::OWN, |link| link.source)
    }

    /// Whether nobody is known yet whom a reference names.
    pub fn is_pending(&self, reference: &Reference<'_>) -> bool {
        let group = self.group(reference.attribute).iter();
        !group.map(|c| c.link).any(|link| link == reference.link)
    }
}

/// The first byte: that it is a reference, which no own value and no undo is; the strength, and
/// what is as usual.
const REFERENCE: u8 = 0b0100_0000;
const STRENGTH: u8 = 0b0000_0011;
const FRESH: u8 = 0b0000_0100;
const KNOWN: u8 = REFERENCE | STRENGTH | FRESH;

/// Whether what follows is a reference, where it is no undo.
pub(super) fn is_next(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|shape| shape & REFERENCE != 0)
}

pub(super) fn decode<'a>(
    r: &mut Reader<'a>,
    links: usize,
    evidence: usize,
) -> Option<Reference<'a>> {
    let shape = r.u8()?;
    if shape & !KNOWN != 0 {
        return None;
    }
    let reference = Reference {
        attribute: AttrId(r.u16()?),
        link: r.index()?,
        rule: r.u16()?,
        strength: match shape & STRENGTH {
            0 => Strength::Always,
            1 => Strength::OnCreate,
            2 => Strength::IfEmpty,
            _ => return None,
        },
        evidence: r.u16()?,
        fresh: shape & FRESH != 0,
        key: r.bytes()?,
    };
    let is_whole = usize::from(reference.evidence) < evidence
        && reference.link.is_none_or(|l| usize::from(l) < links);
    is_whole.then_some(reference)
}

/// `place` says where each piece of evidence is written.
pub(super) fn encode(references: &[Reference<'_>], place: &[u16], out: &mut Vec<u8>) {
    for reference in references {
        let mut shape = REFERENCE | reference.strength as u8;
        if reference.fresh {
            shape |= FRESH;
        }
        out.push(shape);
        put_int(out, u64::from(reference.attribute.0));
        put_index(out, reference.link);
        put_int(out, u64::from(reference.rule));
        put_int(out, u64::from(place[usize::from(reference.evidence)]));
        put_bytes(out, reference.key);
    }
}
