//! Names of things, each its own type so that none is taken for another.

use std::fmt;

/// A source within the store (the store hands the numbers out and keeps them for ever).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

/// The place of a user in the store: ascending, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserRow(pub i64);

/// A run. Ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// The immutable id of a user: a UUID of version 7 (RFC 9562 section 5.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A fresh id for a user that is created at this time.
    fn user_id(&mut self, now_us: i64) -> UserId;
}

/// Hash of (attribute, folded value). Always verified against the document before anything
/// rests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatchHash(pub u64);

impl MatchHash {
    /// The hash of a value that is already folded.
    pub fn of(attribute: crate::attribute::AttrId, folded: &[u8]) -> MatchHash {
        MatchHash(xxhash_rust::xxh3::xxh3_64_with_seed(
            folded,
            u64::from(attribute.0),
        ))
    }
}
