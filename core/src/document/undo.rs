//! Values that an undo has put back.
//!
//! What sources and the identity side have said of a field stays as it is, and so do the rules
//! that decide between them. What an undo puts back stands over the outcome, for as long as that
//! is the one that it was made against: the same row, read again, changes nothing, and whatever
//! is new counts at once. A list is looked at part by part, so each part that was put back, or
//! taken away, is let go when its own time has come.
//!
//! They stand behind a document's own values, with a bit that those never have, so a document
//! without them is the same bytes as before there were any.

use smallvec::SmallVec;

use super::codec::{Reader, put_bytes, put_int, put_user_state, user_state};
use super::{Document, UserState};
use crate::attribute::{ACTIVE, AttrId};
use crate::id::RunId;

/// Parts of a list.
pub type Parts<'a> = Vec<&'a str>;

/// What an undo has put in the place of a field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo<'a> {
    /// Which field; [`ACTIVE`] for whether the user may work.
    pub attribute: AttrId,
    /// The run that did it.
    pub run: RunId,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Who wanted it.
    pub actor: &'a str,
    /// What was undone, in words.
    pub reason: &'a str,
    /// What is put.
    pub put: Put<'a>,
}

/// See [`Undo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put<'a> {
    /// A single value, or none.
    Value {
        /// The value, in the attribute's canonical form.
        value: Option<&'a [u8]>,
        /// Names what would count instead ([`Document::outcome`]).
        against: u64,
    },
    /// Another user, in a field that is one.
    User {
        /// Its id, as fields have it.
        id: &'a [u8],
        /// How it is named among those who name others ([`super::own_key`]).
        key: &'a [u8],
        /// Names what would count instead ([`Document::outcome`]).
        against: u64,
    },
    /// Of a list.
    Parts {
        /// Parts that others say and that do not count.
        without: Parts<'a>,
        /// Parts that nobody says and that count.
        with: Parts<'a>,
    },
    /// Whether the user may work.
    State {
        /// Whether it does.
        active: bool,
        /// What it was before.
        was: UserState,
        /// Names what sources say of it ([`Document::presence`]).
        against: u64,
    },
}

impl<'a> Document<'a> {
    /// What an undo has put in the place of a field's value, if one has.
    pub fn undo(&self, attribute: AttrId) -> Option<&Undo<'a>> {
        self.undos.iter().find(|undo| undo.attribute == attribute)
    }

    /// Takes off what an undo has put.
    pub fn remove_undo(&mut self, attribute: AttrId) -> Option<Undo<'a>> {
        let at = self.undos.iter().position(|u| u.attribute == attribute)?;
        Some(self.undos.remove(at))
    }

    /// Puts a value over what is said, at its place among the others; one of the same field is
    /// replaced.
    pub fn put_undo(&mut self, undo: Undo<'a>) {
        let of = |u: &Undo<'_>| u.attribute;
        match self.undos.binary_search_by_key(&undo.attribute, of) {
            Ok(at) => self.undos[at] = undo,
            Err(at) => self.undos.insert(at, undo),
        }
    }

    /// Names the single value that counts where no undo has put another one.
    pub fn outcome(&self, attribute: AttrId) -> u64 {
        match self.group(attribute).first() {
            Some(c) => xxhash_rust::xxh3::xxh3_64(c.value),
            // No hash of a value that there is.
            None => 0,
        }
    }

    /// Names what sources say of whether the user may work: which of its records are there, and
    /// the mapped value.
    pub fn presence(&self) -> u64 {
        let mut said: SmallVec<[u8; 32]> = SmallVec::new();
        said.extend(self.links.iter().map(|link| u8::from(link.state.feeds())));
        said.extend_from_slice(&self.outcome(ACTIVE).to_le_bytes());
        xxhash_rust::xxh3::xxh3_64(&said)
    }

    /// Lets go of what undos have put over something that is not as it was. Whether the user
    /// may work is not looked at: that is decided only when a record comes or goes.
    pub fn end_undos(&mut self) {
        if self.undos.is_empty() {
            return;
        }
        let mut undos = std::mem::take(&mut self.undos);
        undos.retain_mut(|undo| match &mut undo.put {
            Put::State { .. } => true,
            Put::Value { against, .. } | Put::User { against, .. } => {
                *against == self.outcome(undo.attribute)
            }
            Put::Parts { without, with } => {
                let said = self.said_parts(self.group(undo.attribute));
                without.retain(|part| said.contains(part));
                with.retain(|part| !said.contains(part));
                !(without.is_empty() && with.is_empty())
            }
        });
        self.undos = undos;
    }
}

/// In the first byte: this is no own value.
const UNDO: u8 = 128;
// Beside it: what is put.
const VALUE: u8 = 1;
const NOTHING: u8 = 2;
const PARTS: u8 = 3;
const WORKS: u8 = 4;
const RESTS: u8 = 5;
const USER: u8 = 6;

/// Whether what follows is an undo.
pub(super) fn is_next(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|shape| shape & UNDO != 0)
}

fn parts<'a>(r: &mut Reader<'a>) -> Option<Parts<'a>> {
    let n = r.int()?;
    let mut parts = Parts::new();
    for _ in 0..n {
        parts.push(r.text()?);
    }
    Some(parts)
}

fn put_parts(out: &mut Vec<u8>, parts: &Parts<'_>) {
    put_int(out, parts.len() as u64);
    for part in parts {
        put_bytes(out, part.as_bytes());
    }
}

/// Reads one.
pub(super) fn decode<'a>(r: &mut Reader<'a>) -> Option<Undo<'a>> {
    let shape = r.u8()? & !UNDO;
    Some(Undo {
        attribute: AttrId(r.u16()?),
        run: RunId(r.int()?),
        at_us: r.i64()?,
        actor: r.text()?,
        reason: r.text()?,
        put: match shape {
            VALUE => Put::Value {
                value: Some(r.bytes()?),
                against: r.u64()?,
            },
            NOTHING => Put::Value {
                value: None,
                against: r.u64()?,
            },
            USER => Put::User {
                id: r.bytes()?,
                key: r.bytes()?,
                against: r.u64()?,
            },
            PARTS => Put::Parts {
                without: parts(r)?,
                with: parts(r)?,
            },
            WORKS | RESTS => Put::State {
                active: shape == WORKS,
                was: user_state(r)?,
                against: r.u64()?,
            },
            _ => return None,
        },
    })
}

pub(super) fn encode(undos: &[Undo<'_>], out: &mut Vec<u8>) {
    for undo in undos {
        let shape = match &undo.put {
            Put::Value { value: Some(_), .. } => VALUE,
            Put::Value { value: None, .. } => NOTHING,
            Put::User { .. } => USER,
            Put::Parts { .. } => PARTS,
            Put::State { active: true, .. } => WORKS,
            Put::State { active: false, .. } => RESTS,
        };
        out.push(UNDO | shape);
        put_int(out, u64::from(undo.attribute.0));
        put_int(out, undo.run.0);
        out.extend_from_slice(&undo.at_us.to_le_bytes());
        put_bytes(out, undo.actor.as_bytes());
        put_bytes(out, undo.reason.as_bytes());
        match &undo.put {
            Put::Value { value, against } => {
                if let Some(value) = value {
                    put_bytes(out, value);
                }
                out.extend_from_slice(&against.to_le_bytes());
            }
            Put::User { id, key, against } => {
                put_bytes(out, id);
                put_bytes(out, key);
                out.extend_from_slice(&against.to_le_bytes());
            }
            Put::Parts { without, with } => {
                put_parts(out, without);
                put_parts(out, with);
            }
            Put::State { was, against, .. } => {
                put_user_state(out, *was);
                out.extend_from_slice(&against.to_le_bytes());
            }
        }
    }
}
