//! Names of things, each its own type so that none is taken for another.

use std::fmt;

/// A source within the store (the store hands the numbers out and keeps them for ever).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

impl SourceId {
    /// None of the sources: what the identity side itself writes. The store's numbers begin
    /// with 1.
    pub const OWN: SourceId = SourceId(0);

    /// The source, unless it is none.
    pub fn named(self) -> Option<SourceId> {
        (self != SourceId::OWN).then_some(self)
    }
}

/// The place of a user in the store: ascending, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserRow(pub i64);

/// A run. Ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// The immutable id of a user: a UUID of version 7 (RFC 9562 section 5.7).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct UserId(pub [u8; 16]);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes user ids. Passed in, so that tests and simulations are repeatable.
pub trait NewIds {
    /// A fresh id for a user that is created at this time. Each is greater than all before
    /// it, so that the order of ids is the order of [`UserRow`]s.
    fn user_id(&mut self, now_us: i64) -> UserId;
}

/// Hash of a folded value, whatever attribute has it: under this the store finds the users
/// that a value may belong to. One entry serves a user whose userName is its email.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueHash(pub u64);

impl ValueHash {
    /// The hash of a value that is already folded.
    #[inline]
    pub fn of(folded: &[u8]) -> ValueHash {
        ValueHash(xxhash_rust::xxh3::xxh3_64(folded))
    }

    /// The hash of the value as that of one attribute.
    #[inline]
    pub fn under(self, attribute: crate::attribute::AttrId) -> MatchHash {
        // Distinct for distinct attributes of one value.
        MatchHash(self.0 ^ u64::from(attribute.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Hash of (attribute, folded value). Always verified against the document before anything
/// rests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatchHash(pub u64);

impl MatchHash {
    /// The hash of a value that is already folded.
    #[inline]
    pub fn of(attribute: crate::attribute::AttrId, folded: &[u8]) -> MatchHash {
        ValueHash::of(folded).under(attribute)
    }
}
