//! Something that a person must decide, or that heals when the source is corrected.

use crate::id::SourceId;
use crate::state::KeyBytes;

/// The closed list of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ConflictKind {
    /// Two live records of one source have the same match key.
    DuplicateInSource = 1,
    /// A record matches several users.
    DisputedMatch = 2,
    /// A record's userName or email belongs to another user.
    Uniqueness = 3,
    /// A deleted key came back with somebody else's data.
    KeyReuse = 4,
}

impl ConflictKind {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::DuplicateInSource => "duplicate_in_source",
            ConflictKind::DisputedMatch => "disputed_match",
            ConflictKind::Uniqueness => "uniqueness",
            ConflictKind::KeyReuse => "key_reuse",
        }
    }

    /// The kind of a stored number.
    pub fn from_u8(n: u8) -> Option<ConflictKind> {
        match n {
            1 => Some(ConflictKind::DuplicateInSource),
            2 => Some(ConflictKind::DisputedMatch),
            3 => Some(ConflictKind::Uniqueness),
            4 => Some(ConflictKind::KeyReuse),
            _ => None,
        }
    }
}

/// Names a conflict for ever: the same conflict is never opened twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// A conflict as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRow {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// What kind.
    pub kind: ConflictKind,
    /// The source whose records are concerned.
    pub source: SourceId,
    /// The records concerned, in key order.
    pub records: Vec<KeyBytes>,
    /// The users concerned, by id.
    pub users: Vec<crate::id::UserId>,
    /// The attribute concerned (its name), if one is.
    pub attribute: Option<String>,
    /// When it was opened, microseconds since the Unix epoch.
    pub opened_us: i64,
    /// When it was closed, if it is.
    pub closed_us: Option<i64>,
}
