//! Bytes of documents.
//!
//! Every read is checked against what is left, so no input can make it panic or allocate
//! more than the input's own size allows: counts are only trusted as far as elements follow.

use super::{
    Contribution, Document, Evidence, FORMAT, Link, LinkState, Moment, Own, Reference, Spare,
    UserState, own, recycle, reference, undo,
};
use crate::attribute::AttrId;
use crate::id::{RunId, SourceId, UserId};
use crate::mapped::Strength;
use crate::mapping::{ShadowValues, shadow_values};
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

fn put_reason(out: &mut Vec<u8>, kind: u8, reason: Option<u8>) {
    out.push(kind);
    out.extend(reason);
}

pub(super) fn user_state(r: &mut Reader<'_>) -> Option<UserState> {
    Some(match r.u8()? {
        1 => UserState::Active,
        2 => UserState::Deactivated(LeaverReason::from_u8(r.u8()?)?),
        3 => UserState::Suspended,
        4 => UserState::Tombstone,
        _ => return None,
    })
}

pub(super) fn put_user_state(out: &mut Vec<u8>, state: UserState) {
    match state {
        UserState::Active => put_reason(out, 1, None),
        UserState::Deactivated(reason) => put_reason(out, 2, Some(reason as u8)),
        UserState::Suspended => put_reason(out, 3, None),
        UserState::Tombstone => put_reason(out, 4, None),
    }
}

/// A link's state, and since when its record is gone (0: not known, or it is not gone).
fn link_state(r: &mut Reader<'_>) -> Option<(LinkState, i64)> {
    let kind = r.u8()?;
    Some(match kind {
        1 => (LinkState::Live, 0),
        2 => (LinkState::Held(SkipReason::from_u8(r.u8()?)?), 0),
        3 => (LinkState::Gone(LeaverReason::from_u8(r.u8()?)?), 0),
        4..=6 => {
            let reason = LeaverReason::from_u8(r.u8()?)?;
            let state = match kind {
                4 => LinkState::Gone(reason),
                5 => LinkState::Suspected(reason),
                _ => LinkState::Erasing(reason),
            };
            (state, r.i64()?)
        }
        _ => return None,
    })
}

fn put_link_state(out: &mut Vec<u8>, state: LinkState, since_us: i64) {
    let (kind, reason) = match state {
        LinkState::Live => return put_reason(out, 1, None),
        LinkState::Held(reason) => return put_reason(out, 2, Some(reason as u8)),
        LinkState::Gone(reason) if since_us == 0 => {
            return put_reason(out, 3, Some(reason as u8));
        }
        LinkState::Gone(reason) => (4, reason),
        LinkState::Suspected(reason) => (5, reason),
        LinkState::Erasing(reason) => (6, reason),
    };
    put_reason(out, kind, Some(reason as u8));
    out.extend_from_slice(&since_us.to_le_bytes());
}

fn strength(n: u8) -> Strength {
    match n {
        1 => Strength::OnCreate,
        2 => Strength::IfEmpty,
        _ => Strength::Always,
    }
}

/// Evidence that is its link's last change.
const OF_LINK: u8 = 1;
/// Evidence with a position and a time of its own.
const OWN: u8 = 0;
/// As [`OWN`], with the moment at which the source changed the value.
const CHANGED: u8 = 2;

// The first byte of a contribution: strength, and what is as usual.
const STRENGTH: u8 = 0b0000_0011;
/// The value is the cell of its link's shadow whose number follows.
const IN_SHADOW: u8 = 0b0000_0100;
/// Link and evidence are those of the contribution before (of the first: 0 and 0).
const AS_BEFORE: u8 = 0b0000_1000;
const FRESH: u8 = 0b0001_0000;
const SOLE: u8 = 0b0010_0000;
const KNOWN: u8 = STRENGTH | IN_SHADOW | AS_BEFORE | FRESH | SOLE;

/// What stands before the links.
struct Head {
    id: UserId,
    version: u64,
    state: UserState,
    created_us: i64,
    updated_us: i64,
    /// How many follow.
    links: u64,
}

#[inline]
fn read_head(r: &mut Reader<'_>) -> Option<Head> {
    if r.u8()? != FORMAT {
        return None;
    }
    let id = UserId(r.array()?);
    let version = r.int()?;
    let state = user_state(r)?;
    let created_us = r.i64()?;
    let updated_us = created_us.wrapping_add(r.int()? as i64);
    Some(Head {
        id,
        version,
        state,
        created_us,
        updated_us,
        links: r.int()?,
    })
}

#[inline]
fn read_link<'a>(r: &mut Reader<'a>) -> Option<Link<'a>> {
    let source = SourceId(r.u16()?);
    let key = r.bytes()?;
    let (state, since_us) = link_state(r)?;
    Some(Link {
        source,
        key,
        state,
        since_us,
        incarnation: u32::try_from(r.int()?).ok()?,
        tx: r.bytes()?,
        position: r.text()?,
        commit_us: r.i64()?,
        hash: r.u64()?,
        hold: r.bytes()?,
        shadow: r.bytes()?,
    })
}

/// Whose document this is, and whether the user may work.
pub(super) fn who(bytes: &[u8]) -> Option<(UserId, UserState)> {
    read_head(&mut Reader(bytes)).map(|head| (head.id, head.state))
}

/// The live link of a record. Reads no further than to it.
pub(super) fn live_link<'a>(bytes: &'a [u8], source: SourceId, key: &[u8]) -> Option<Link<'a>> {
    let mut r = Reader(bytes);
    let head = read_head(&mut r)?;
    for _ in 0..head.links {
        let link = read_link(&mut r)?;
        if link.source == source && link.key == key && link.state == LinkState::Live {
            return Some(link);
        }
    }
    None
}

pub(super) fn decode<'a>(bytes: &'a [u8], spare: Spare) -> Option<Document<'a>> {
    let mut links: Vec<Link<'a>> = recycle(spare.links);
    let mut evidence: Vec<Evidence<'a>> = recycle(spare.evidence);
    let mut contributions: Vec<Contribution<'a>> = recycle(spare.contributions);
    let mut r = Reader(bytes);
    let Head {
        id,
        version,
        state,
        created_us,
        updated_us,
        links: n,
    } = read_head(&mut r)?;
    for _ in 0..n {
        links.push(read_link(&mut r)?);
    }
    let n = r.int()?;
    for _ in 0..n {
        let kind = r.u8()?;
        let link = r.index()?;
        let run = RunId(r.int()?);
        let of_link = match link {
            Some(l) => Some(links.get(usize::from(l))?),
            None => None,
        };
        evidence.push(match (kind, of_link) {
            (OF_LINK, Some(l)) => Evidence {
                link,
                position: l.position,
                commit_us: l.commit_us,
                run,
                changed: None,
            },
            (OWN | CHANGED, _) => Evidence {
                link,
                position: r.text()?,
                commit_us: r.i64()?,
                run,
                changed: match kind {
                    CHANGED => Some(Moment {
                        at_us: r.i64()?,
                        span_us: r.int()?,
                    }),
                    _ => None,
                },
            },
            _ => return None,
        });
    }
    let n = r.int()?;
    let (mut attribute, mut link, mut at) = (0u16, Some(0u16), 0u16);
    let mut cells: Option<(u16, ShadowValues<'a>)> = None;
    for _ in 0..n {
        let shape = r.u8()?;
        if shape & !KNOWN != 0 || shape & STRENGTH == STRENGTH {
            return None;
        }
        attribute = attribute.wrapping_add(r.u16()?);
        let rule = r.u16()?;
        if shape & AS_BEFORE == 0 {
            link = r.index()?;
            at = r.u16()?;
        }
        if usize::from(at) >= evidence.len() || link.is_some_and(|l| usize::from(l) >= links.len())
        {
            return None;
        }
        let value = if shape & IN_SHADOW == 0 {
            r.bytes()?
        } else {
            let of = link?;
            if cells.as_ref().is_none_or(|(l, _)| *l != of) {
                cells = Some((of, shadow_values(links[usize::from(of)].shadow)));
            }
            let number = usize::try_from(r.int()?).ok()?;
            cells.as_ref()?.1.get(number).copied()?
        };
        contributions.push(Contribution {
            attribute: AttrId(attribute),
            link,
            rule,
            strength: strength(shape & STRENGTH),
            evidence: at,
            fresh: shape & FRESH != 0,
            sole: shape & SOLE != 0,
            value,
        });
    }
    let remains = match state {
        UserState::Tombstone if !r.0.is_empty() => r.bytes()?,
        _ => &[],
    };
    let mut owns: Vec<Own<'a>> = recycle(spare.owns);
    let mut references: Vec<Reference<'a>> = recycle(spare.references);
    let mut undos = Vec::new();
    while !r.0.is_empty() {
        if undo::is_next(r.0) {
            undos.push(undo::decode(&mut r)?);
        } else if reference::is_next(r.0) {
            references.push(reference::decode(&mut r, links.len(), evidence.len())?);
        } else {
            owns.push(own::decode(&mut r)?);
        }
    }
    Some(Document {
        id,
        version,
        state,
        created_us,
        updated_us,
        links,
        evidence,
        contributions,
        remains,
        owns,
        undos,
        references,
    })
}

pub(super) fn encode(d: &Document<'_>, out: &mut Vec<u8>) {
    out.push(FORMAT);
    out.extend_from_slice(&d.id.0);
    put_int(out, d.version);
    put_user_state(out, d.state);
    out.extend_from_slice(&d.created_us.to_le_bytes());
    put_int(out, d.updated_us.wrapping_sub(d.created_us) as u64);
    put_int(out, d.links.len() as u64);
    for l in &d.links {
        put_int(out, u64::from(l.source.0));
        put_bytes(out, l.key);
        put_link_state(out, l.state, l.since_us);
        put_int(out, u64::from(l.incarnation));
        put_bytes(out, l.tx);
        put_bytes(out, l.position.as_bytes());
        out.extend_from_slice(&l.commit_us.to_le_bytes());
        out.extend_from_slice(&l.hash.to_le_bytes());
        put_bytes(out, l.hold);
        put_bytes(out, l.shadow);
    }
    let place = encode_evidence(d, out);
    put_int(out, d.contributions.len() as u64);
    let (mut attribute, mut before) = (0, (Some(0u16), 0u16));
    let mut cells: Option<(u16, ShadowValues<'_>)> = None;
    for c in &d.contributions {
        let at = place[usize::from(c.evidence)];
        let mut shape = c.strength as u8;
        if c.fresh {
            shape |= FRESH;
        }
        if c.sole {
            shape |= SOLE;
        }
        if (c.link, at) == before {
            shape |= AS_BEFORE;
        }
        let mut cell = None;
        if let Some(of) = c.link {
            if cells.as_ref().is_none_or(|(l, _)| *l != of) {
                cells = Some((of, shadow_values(d.links[usize::from(of)].shadow)));
            }
            // Nothing is shorter than the number of a cell but an empty value.
            cell = cells
                .as_ref()
                .filter(|_| !c.value.is_empty())
                .and_then(|(_, cells)| cells.iter().position(|v| *v == c.value));
        }
        if cell.is_some() {
            shape |= IN_SHADOW;
        }
        out.push(shape);
        put_int(out, u64::from(c.attribute.0.wrapping_sub(attribute)));
        attribute = c.attribute.0;
        put_int(out, u64::from(c.rule));
        if shape & AS_BEFORE == 0 {
            put_index(out, c.link);
            put_int(out, u64::from(at));
            before = (c.link, at);
        }
        match cell {
            Some(number) => put_int(out, number as u64),
            None => put_bytes(out, c.value),
        }
    }
    if d.state == UserState::Tombstone {
        put_bytes(out, d.remains);
    }
    own::encode(&d.owns, out);
    undo::encode(&d.undos, out);
    reference::encode(&d.references, &place, out);
}

/// Writes the evidence that contributions and references have; gives the new place of each.
fn encode_evidence(d: &Document<'_>, out: &mut Vec<u8>) -> smallvec::SmallVec<[u16; 16]> {
    const UNUSED: u16 = u16::MAX;
    let mut place: smallvec::SmallVec<[u16; 16]> = smallvec::smallvec![UNUSED; d.evidence.len()];
    let of_references = d.references.iter().map(|r| r.evidence);
    for at in d
        .contributions
        .iter()
        .map(|c| c.evidence)
        .chain(of_references)
    {
        place[usize::from(at)] = 0;
    }
    let mut kept = 0;
    for p in place.iter_mut().filter(|p| **p != UNUSED) {
        *p = kept;
        kept += 1;
    }
    put_int(out, u64::from(kept));
    for (e, _) in d.evidence.iter().zip(&place).filter(|(_, p)| **p != UNUSED) {
        let is_last = e.link.is_some_and(|l| {
            let link = &d.links[usize::from(l)];
            link.position == e.position && link.commit_us == e.commit_us
        });
        let kind = match (e.changed, is_last) {
            (Some(_), _) => CHANGED,
            (None, true) => OF_LINK,
            (None, false) => OWN,
        };
        out.push(kind);
        put_index(out, e.link);
        put_int(out, e.run.0);
        if kind != OF_LINK {
            put_bytes(out, e.position.as_bytes());
            out.extend_from_slice(&e.commit_us.to_le_bytes());
        }
        if let Some(changed) = e.changed {
            out.extend_from_slice(&changed.at_us.to_le_bytes());
            put_int(out, changed.span_us);
        }
    }
    place
}
