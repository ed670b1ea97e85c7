//! The user document: everything that a change of a user touches, in one piece of bytes.
//!
//! A document holds the user's state, its links (each with the shadow of its record), and
//! for every attribute *all* contributions, not only the winning one. Losers are kept so
//! that, when the winner leaves, the next one takes over without reading the source, and so
//! that a person can be shown why a value is what it is.
//!
//! # Layout
//! A version byte, the fixed head, the links, the evidence, the contributions, and behind
//! them, where the identity side has written values, what is known of these ([`Own`]), and
//! what undos have put back ([`Undo`]), and where a field is another user, how that user was
//! named ([`Reference`]).
//! Integers are LEB128 unless a width is given, texts and bytes are preceded by their
//! length. A document is rewritten whole with every change, and pages of documents are most
//! of what the store reads and writes, so nothing is said twice: evidence (position, commit
//! time, run) stands in a table of its own and refers to its link's last change where it is
//! that one, and a value that a column holds as it is refers to the column in its link's
//! shadow.
//!
//! Decoding borrows: the views point into the document, and the vectors that hold
//! them can be reused ([`Spare`]). Everything is bounds-checked; bytes that are not a
//! document are an error, never a panic. Encoding a decoded document yields the same bytes
//! (unreferenced evidence apart, which encoding drops).

mod codec;
mod hold;
mod own;
mod record;
mod reference;
mod remains;
mod undo;
mod view;

pub use hold::Hold;
pub use own::{Decided, Own, Pin, Rule, Standing};
pub use record::Record;
pub use reference::{Reference, own_key, own_target};
pub use remains::Remains;
pub use undo::{Parts, Put, Undo};
pub use view::{FieldView, Given, LinkView, OwnGiven, PendingView, View};

use smallvec::SmallVec;

use crate::attribute::AttrId;
use crate::id::{RunId, SourceId, UserId};
use crate::mapped::{ListValue, Strength};
use crate::reason::{LeaverReason, SkipReason};

/// The first byte of every document of this form.
pub const FORMAT: u8 = 2;

/// Stored bytes are not a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored document is damaged or of an unknown version")]
pub struct DocumentError;

/// Whether a user may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// Yes.
    Active,
    /// Rollcall deactivated it, and may activate it again.
    Deactivated(LeaverReason),
    /// A person deactivated it; no source activates it again.
    Suspended,
    /// It was deleted: its id is left, its links, and what tells whether a record that comes
    /// back is its own ([`Document::remains`]).
    Tombstone,
}

/// How a record stands to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The record feeds the user.
    Live,
    /// The record exists, its last image was not applied; what it gave before stays.
    Held(SkipReason),
    /// The record is gone.
    Gone(LeaverReason),
    /// The record is gone, and its user stays as it is until the source's grace is over.
    Suspected(LeaverReason),
    /// The record is gone, its user is to be deleted, and that waits for a person's word.
    Erasing(LeaverReason),
}

impl LinkState {
    /// Whether the record still exists in its source.
    pub fn is_present(self) -> bool {
        self.gone().is_none()
    }

    /// Why the record is gone, if it is.
    pub fn gone(self) -> Option<LeaverReason> {
        match self {
            LinkState::Gone(reason) | LinkState::Suspected(reason) | LinkState::Erasing(reason) => {
                Some(reason)
            }
            LinkState::Live | LinkState::Held(_) => None,
        }
    }

    /// Whether the record's values, and that it is there, still count for its user.
    pub fn feeds(self) -> bool {
        self.is_present() || matches!(self, LinkState::Suspected(_))
    }

    /// Whether what became of the record waits for a person's word.
    pub fn is_staged(self) -> bool {
        match self {
            LinkState::Held(reason) => reason.is_staged(),
            LinkState::Erasing(_) => true,
            LinkState::Live | LinkState::Gone(_) | LinkState::Suspected(_) => false,
        }
    }
}

/// A link from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The record's source.
    pub source: SourceId,
    /// The record's key ([`rollcall_contract::Key`] bytes).
    pub key: &'a [u8],
    /// How it stands.
    pub state: LinkState,
    /// Since when the record is suspected, or gone: microseconds since the Unix epoch; 0
    /// while it is neither.
    pub since_us: i64,
    /// 1, and one more each time the key came back after it was deleted.
    pub incarnation: u32,
    /// The last transaction of the log that was taken in ([`rollcall_contract::TxId`]
    /// bytes); empty when only scans have seen the record.
    pub tx: &'a [u8],
    /// Readable position of the last change that was taken in.
    pub position: &'a str,
    /// Its commit time, microseconds since the Unix epoch.
    pub commit_us: i64,
    /// Hash of the last raw row.
    pub hash: u64,
    /// Why it is held, encoded ([`Hold`]); empty unless it is.
    pub hold: &'a [u8],
    /// The last raw row (redacted columns left out).
    pub shadow: &'a [u8],
}

/// Where contributed values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// Index of the link; none when the value is Rollcall's own.
    pub link: Option<u16>,
    /// Readable position of the change that brought the value.
    pub position: &'a str,
    /// Its commit time, microseconds since the Unix epoch; of Rollcall's own value, when it
    /// was written.
    pub commit_us: i64,
    /// The run that applied it.
    pub run: RunId,
    /// When the source changed the value, where a rule asks for it and the source says it.
    pub changed: Option<Moment>,
}

/// A stretch of time in which something happened: as exact as the clock that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When it begins, microseconds since the Unix epoch.
    pub at_us: i64,
    /// How long it is; at least 1.
    pub span_us: u64,
}

impl Moment {
    /// When it is over: the first microsecond behind it.
    pub fn end_us(self) -> i64 {
        self.at_us.saturating_add_unsigned(self.span_us.max(1))
    }
}

/// One value that one link gives to one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution<'a> {
    /// Which attribute.
    pub attribute: AttrId,
    /// Index of the link; none when the value is Rollcall's own.
    pub link: Option<u16>,
    /// The number of the rule in the source's mapping.
    pub rule: u16,
    /// How the rule's value is used.
    pub strength: Strength,
    /// Index into the evidence.
    pub evidence: u16,
    /// Whether the source has changed it since the field's own value was written.
    pub fresh: bool,
    /// Of a list: whether the parts behind this one do not count.
    pub sole: bool,
    /// The value in the attribute's canonical form.
    pub value: &'a [u8],
}

/// Those of a field's contributions whose parts a list shows.
pub fn shown<'c, 'a>(group: &'c [Contribution<'a>]) -> &'c [Contribution<'a>] {
    match group {
        [first, ..] if first.sole => &group[..1],
        _ => group,
    }
}

/// A decoded document, borrowing its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// The user's immutable id.
    pub id: UserId,
    /// 1 for a new user, and one more with each change that others can see.
    pub version: u64,
    /// Whether the user may work.
    pub state: UserState,
    /// Microseconds since the Unix epoch.
    pub created_us: i64,
    /// Microseconds since the Unix epoch: the last change that others can see.
    pub updated_us: i64,
    /// Links in the order in which they were made.
    pub links: Vec<Link<'a>>,
    /// What contributions refer to.
    pub evidence: Vec<Evidence<'a>>,
    /// Contributions by attribute, and within one attribute the winner first.
    pub contributions: Vec<Contribution<'a>>,
    /// Of a tombstone, hashes of what tells people apart ([`Remains`]); otherwise empty.
    pub remains: &'a [u8],
    /// What is known of the contributions without a link, in the order of attributes.
    pub owns: Vec<Own<'a>>,
    /// What undos have put over what is said, in the order of attributes.
    pub undos: Vec<Undo<'a>>,
    /// The fields that name another user, in the order of links and attributes, Rollcall's
    /// own first. One whose user is known has a contribution of its link.
    pub references: Vec<Reference<'a>>,
}

/// Vectors of a document that is no longer needed.
#[derive(Debug, Default)]
pub struct Spare {
    links: Vec<Link<'static>>,
    evidence: Vec<Evidence<'static>>,
    contributions: Vec<Contribution<'static>>,
    owns: Vec<Own<'static>>,
    references: Vec<Reference<'static>>,
}

/// The empty vector, with the memory of another one. Collecting an iterator of a vector
/// into a vector of the same layout reuses the allocation.
fn recycle<A, B>(mut v: Vec<A>) -> Vec<B> {
    v.clear();
    v.into_iter().filter_map(|_| None).collect()
}

impl<'a> Document<'a> {
    /// A user without links.
    pub fn new(id: UserId, now_us: i64) -> Self {
        Document {
            id,
            version: 1,
            state: UserState::Active,
            created_us: now_us,
            updated_us: now_us,
            links: Vec::new(),
            evidence: Vec::new(),
            contributions: Vec::new(),
            remains: &[],
            owns: Vec::new(),
            undos: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Reads a document.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        Self::decode_with(bytes, Spare::default())
    }

    /// Reads a document into vectors that are reused.
    pub fn decode_with(bytes: &'a [u8], spare: Spare) -> Result<Self, DocumentError> {
        codec::decode(bytes, spare).ok_or(DocumentError)
    }

    /// The link of a record that feeds its user, read out of an encoded document without what
    /// stands behind it; none when there is none, or when the bytes up to it are damaged.
    pub fn live_link(bytes: &'a [u8], source: SourceId, key: &[u8]) -> Option<Link<'a>> {
        codec::live_link(bytes, source, key)
    }

    /// Whose encoded document this is, and whether the user may work; none when the bytes are
    /// damaged.
    pub fn who(bytes: &[u8]) -> Option<(UserId, UserState)> {
        codec::who(bytes)
    }

    /// A copy in vectors that are reused.
    pub fn clone_with(&self, spare: Spare) -> Self {
        let mut links: Vec<Link<'a>> = recycle(spare.links);
        let mut evidence: Vec<Evidence<'a>> = recycle(spare.evidence);
        let mut contributions: Vec<Contribution<'a>> = recycle(spare.contributions);
        let mut owns: Vec<Own<'a>> = recycle(spare.owns);
        let mut references: Vec<Reference<'a>> = recycle(spare.references);
        links.extend_from_slice(&self.links);
        evidence.extend_from_slice(&self.evidence);
        contributions.extend_from_slice(&self.contributions);
        owns.extend_from_slice(&self.owns);
        references.extend_from_slice(&self.references);
        Document {
            links,
            evidence,
            contributions,
            owns,
            undos: self.undos.clone(),
            references,
            ..*self
        }
    }

    /// Gives the vectors back.
    pub fn into_spare(self) -> Spare {
        Spare {
            links: recycle(self.links),
            evidence: recycle(self.evidence),
            contributions: recycle(self.contributions),
            owns: recycle(self.owns),
            references: recycle(self.references),
        }
    }

    /// Appends the encoded document. Evidence that nothing refers to is dropped.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(self, out);
    }

    /// Whether the user may work.
    pub fn is_active(&self) -> bool {
        self.state == UserState::Active
    }

    /// The link of a record; a present one is preferred to a suspected one of the same key,
    /// and that to one that is gone.
    pub fn find_link(&self, source: SourceId, key: &[u8]) -> Option<usize> {
        let mut found: Option<usize> = None;
        for (i, link) in self.links.iter().enumerate() {
            if link.source == source && link.key == key {
                if link.state.is_present() {
                    return Some(i);
                }
                if found.is_none_or(|at| !self.links[at].state.feeds()) {
                    found = Some(i);
                }
            }
        }
        found
    }

    /// A present link of a source.
    pub fn present_link_of(&self, source: SourceId) -> Option<usize> {
        self.links
            .iter()
            .position(|l| l.source == source && l.state.is_present())
    }

    /// All contributions to one attribute, the winner first; empty when there is none.
    pub fn group(&self, attribute: AttrId) -> &[Contribution<'a>] {
        let all = &self.contributions;
        let start = all.partition_point(|c| c.attribute < attribute);
        let len = all[start..].partition_point(|c| c.attribute == attribute);
        &all[start..start + len]
    }

    /// What is known of an attribute's own value, if it has one.
    pub fn own(&self, attribute: AttrId) -> Option<&Own<'a>> {
        self.owns.iter().find(|own| own.attribute == attribute)
    }

    /// The value that a single-valued attribute shows.
    pub fn value(&self, attribute: AttrId) -> Option<&'a [u8]> {
        self.value_in(attribute, self.group(attribute))
    }

    /// The same, given the contributions to the attribute.
    pub fn value_in(&self, attribute: AttrId, group: &[Contribution<'a>]) -> Option<&'a [u8]> {
        match self.undo(attribute).map(|undo| &undo.put) {
            Some(Put::Value { value, .. }) => *value,
            Some(Put::User { id, .. }) => Some(id),
            Some(Put::State { active: true, .. }) => Some(b"true"),
            Some(Put::State { active: false, .. }) => Some(b"false"),
            Some(Put::Parts { .. }) | None => group.first().map(|c| c.value),
        }
    }

    /// The parts that a list shows, sorted, each once.
    pub fn parts(&self, attribute: AttrId) -> SmallVec<[&'a str; 16]> {
        self.parts_in(attribute, self.group(attribute))
    }

    /// The same, given the contributions to the attribute.
    pub fn parts_in(
        &self,
        attribute: AttrId,
        group: &[Contribution<'a>],
    ) -> SmallVec<[&'a str; 16]> {
        let mut parts = self.said_parts(group);
        if let Some(Put::Parts { without, with }) = self.undo(attribute).map(|undo| &undo.put) {
            parts.retain(|part| !without.contains(part));
            parts.extend_from_slice(with);
            parts.sort_unstable();
            parts.dedup();
        }
        parts
    }

    /// The parts of a list that would count if no undo had been made.
    fn said_parts(&self, group: &[Contribution<'a>]) -> SmallVec<[&'a str; 16]> {
        let texts = shown(group).iter().flat_map(|c| ListValue::texts(c.value));
        let mut parts: SmallVec<[&str; 16]> = texts.collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Each attribute of which something is said, or put by an undo, with the contributions to
    /// it.
    pub fn fields(&self) -> impl Iterator<Item = (AttrId, &[Contribution<'a>])> {
        let mut groups = self.groups().peekable();
        let mut undos = self.undos.iter().peekable();
        std::iter::from_fn(move || {
            let said = groups.peek().map(|group| group[0].attribute);
            let put = undos.peek().map(|undo| undo.attribute);
            let next = match (said, put) {
                (Some(said), Some(put)) => said.min(put),
                (said, put) => said.or(put)?,
            };
            if put == Some(next) {
                undos.next();
            }
            match said == Some(next) {
                true => Some((next, groups.next()?)),
                false => Some((next, &[])),
            }
        })
    }

    /// The contributions, one slice for each attribute.
    pub fn groups(&self) -> impl Iterator<Item = &[Contribution<'a>]> {
        self.contributions
            .chunk_by(|a, b| a.attribute == b.attribute)
    }
}
