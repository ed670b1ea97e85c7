//! Bytes of documents.
//!
//! Every read is checked against what is left, so no input can make it panic or allocate
//! more than the input's own size allows: counts are only trusted as far as elements follow.

use super::{Contribution, Document, Evidence, FORMAT, Link, LinkState, Spare, UserState, recycle};
use crate::attribute::AttrId;
use crate::id::{RunId, SourceId, UserId};
use crate::mapped::Strength;
use crate::reason::{LeaverReason, SkipReason};

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    #[inline]
    pub(super) fn int(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first & 0x80 == 0 {
            return Some(u64::from(first));
        }
        let mut n = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let b = self.u8()?;
            n |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        u16::try_from(self.int()?).ok()
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.int()?).ok()?;
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// An index plus one; 0 is none.
    #[inline]
    pub(super) fn index(&mut self) -> Option<Option<u16>> {
        match self.int()? {
            0 => Some(None),
            n => u16::try_from(n - 1).ok().map(Some),
        }
    }
}

#[inline]
pub(super) fn put_int(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_int(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
pub(super) fn put_index(out: &mut Vec<u8>, index: Option<u16>) {
    put_int(out, index.map_or(0, |i| u64::from(i) + 1));
}

fn user_state(kind: u8, reason: u8) -> Option<UserState> {
    Some(match kind {
        1 => UserState::Active,
        2 => UserState::Deactivated(LeaverReason::from_u8(reason)?),
        3 => UserState::Suspended,
        4 => UserState::Tombstone,
        _ => return None,
    })
}

fn link_state(kind: u8, reason: u8) -> Option<LinkState> {
    Some(match kind {
        1 => LinkState::Live,
        2 => LinkState::Held(SkipReason::from_u8(reason)?),
        3 => LinkState::Gone(LeaverReason::from_u8(reason)?),
        _ => return None,
    })
}

fn strength(n: u8) -> Option<Strength> {
    match n {
        0 => Some(Strength::Always),
        1 => Some(Strength::OnCreate),
        2 => Some(Strength::IfEmpty),
        _ => None,
    }
}

pub(super) fn decode<'a>(bytes: &'a [u8], spare: Spare) -> Option<Document<'a>> {
    let mut links: Vec<Link<'a>> = recycle(spare.links);
    let mut evidence: Vec<Evidence<'a>> = recycle(spare.evidence);
    let mut contributions: Vec<Contribution<'a>> = recycle(spare.contributions);
    let mut r = Reader(bytes);
    if r.u8()? != FORMAT {
        return None;
    }
    let id = UserId(r.array()?);
    let version = r.int()?;
    let state = user_state(r.u8()?, r.u8()?)?;
    let created_us = r.i64()?;
    let updated_us = r.i64()?;
    let n = r.int()?;
    for _ in 0..n {
        links.push(Link {
            source: SourceId(r.u16()?),
            key: r.bytes()?,
            state: link_state(r.u8()?, r.u8()?)?,
            incarnation: u32::try_from(r.int()?).ok()?,
            tx: r.bytes()?,
            position: r.text()?,
            commit_us: r.i64()?,
            hash: r.u64()?,
            hold: r.bytes()?,
            shadow: r.bytes()?,
        });
    }
    let tail = r.0;
    let has_link = |link: Option<u16>| link.is_none_or(|l| usize::from(l) < links.len());
    let n = r.int()?;
    for _ in 0..n {
        let link = r.index()?;
        if !has_link(link) {
            return None;
        }
        evidence.push(Evidence {
            link,
            position: r.text()?,
            commit_us: r.i64()?,
            run: RunId(r.int()?),
        });
    }
    let n = r.int()?;
    for _ in 0..n {
        let c = Contribution {
            attribute: AttrId(r.u16()?),
            link: r.index()?,
            rule: r.u16()?,
            strength: strength(r.u8()?)?,
            evidence: r.u16()?,
            value: r.bytes()?,
        };
        if !has_link(c.link) || usize::from(c.evidence) >= evidence.len() {
            return None;
        }
        contributions.push(c);
    }
    r.0.is_empty().then_some(Document {
        id,
        version,
        state,
        created_us,
        updated_us,
        links,
        evidence,
        contributions,
        tail,
    })
}

pub(super) fn encode_head(d: &Document<'_>, out: &mut Vec<u8>) {
    out.push(FORMAT);
    out.extend_from_slice(&d.id.0);
    put_int(out, d.version);
    let (kind, reason) = match d.state {
        UserState::Active => (1, 0),
        UserState::Deactivated(reason) => (2, reason as u8),
        UserState::Suspended => (3, 0),
        UserState::Tombstone => (4, 0),
    };
    out.extend_from_slice(&[kind, reason]);
    out.extend_from_slice(&d.created_us.to_le_bytes());
    out.extend_from_slice(&d.updated_us.to_le_bytes());
    put_int(out, d.links.len() as u64);
    for l in &d.links {
        put_int(out, u64::from(l.source.0));
        put_bytes(out, l.key);
        let (kind, reason) = match l.state {
            LinkState::Live => (1, 0),
            LinkState::Held(reason) => (2, reason as u8),
            LinkState::Gone(reason) => (3, reason as u8),
        };
        out.extend_from_slice(&[kind, reason]);
        put_int(out, u64::from(l.incarnation));
        put_bytes(out, l.tx);
        put_bytes(out, l.position.as_bytes());
        out.extend_from_slice(&l.commit_us.to_le_bytes());
        out.extend_from_slice(&l.hash.to_le_bytes());
        put_bytes(out, l.hold);
        put_bytes(out, l.shadow);
    }
}

pub(super) fn encode_tail(d: &Document<'_>, out: &mut Vec<u8>) {
    const UNUSED: u16 = u16::MAX;
    let mut place: smallvec::SmallVec<[u16; 16]> = smallvec::smallvec![UNUSED; d.evidence.len()];
    for c in &d.contributions {
        place[usize::from(c.evidence)] = 0;
    }
    let mut kept = 0;
    for p in place.iter_mut().filter(|p| **p != UNUSED) {
        *p = kept;
        kept += 1;
    }
    put_int(out, u64::from(kept));
    for (e, _) in d.evidence.iter().zip(&place).filter(|(_, p)| **p != UNUSED) {
        put_index(out, e.link);
        put_bytes(out, e.position.as_bytes());
        out.extend_from_slice(&e.commit_us.to_le_bytes());
        put_int(out, e.run.0);
    }
    put_int(out, d.contributions.len() as u64);
    for c in &d.contributions {
        put_int(out, u64::from(c.attribute.0));
        put_index(out, c.link);
        put_int(out, u64::from(c.rule));
        out.push(c.strength as u8);
        put_int(out, u64::from(place[usize::from(c.evidence)]));
        put_bytes(out, c.value);
    }
}
