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
    /// A field's own value and a source's are of the same time.
    Value = 5,
    /// The table changed under the mapping: a field is paused.
    SchemaDrift = 6,
    /// Users name a record that leads to nobody, and a whole scan has not brought it.
    UnresolvedReference = 7,
}

impl ConflictKind {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::DuplicateInSource => "duplicate_in_source",
            ConflictKind::DisputedMatch => "disputed_match",
            ConflictKind::Uniqueness => "uniqueness",
            ConflictKind::KeyReuse => "key_reuse",
            ConflictKind::Value => "value",
            ConflictKind::SchemaDrift => "schema_drift",
            ConflictKind::UnresolvedReference => "unresolved_reference",
        }
    }

    /// The kind of a stored number.
    pub fn from_u8(n: u8) -> Option<ConflictKind> {
        match n {
            1 => Some(ConflictKind::DuplicateInSource),
            2 => Some(ConflictKind::DisputedMatch),
            3 => Some(ConflictKind::Uniqueness),
            4 => Some(ConflictKind::KeyReuse),
            5 => Some(ConflictKind::Value),
            6 => Some(ConflictKind::SchemaDrift),
            7 => Some(ConflictKind::UnresolvedReference),
            _ => None,
        }
    }
}

/// Names a conflict for ever: the same conflict is never opened twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// What a person takes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Of several records with one match key: this one.
    Record(#[serde(with = "key_bytes")] KeyBytes),
    /// The record is this user's.
    User(crate::id::UserId),
    /// The record is somebody's who is not in the directory yet.
    New,
    /// Of two values: the one that the identity side wrote.
    Own,
    /// Of two values: the source's.
    Source,
}

/// A key as the list of its bytes.
mod key_bytes {
    use super::KeyBytes;

    pub(super) fn serialize<S: serde::Serializer>(
        key: &KeyBytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(key.iter())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<KeyBytes, D::Error> {
        <Vec<u8> as serde::Deserialize>::deserialize(deserializer).map(KeyBytes::from_vec)
    }
}

/// A person's word on a conflict.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// What was taken.
    pub choice: Choice,
    /// Names the competing value, where the conflict's name does not: of another one, nothing
    /// was decided.
    pub of: u64,
    /// Who decided.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
}

/// A conflict as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRow {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// What kind.
    pub kind: ConflictKind,
    /// The source whose records are concerned.
    pub source: SourceId,
    /// The records concerned, in key order; of an unresolved reference the one that is
    /// missing.
    pub records: Vec<KeyBytes>,
    /// The users concerned, by id; of an unresolved reference the first of those who wait.
    pub users: Vec<crate::id::UserId>,
    /// The attribute concerned (its name), if one is.
    pub attribute: Option<String>,
    /// When it was opened, microseconds since the Unix epoch.
    pub opened_us: i64,
    /// When it was closed, if it is.
    pub closed_us: Option<i64>,
    /// What a person decided. It stands until the competing value changes; then the conflict
    /// is opened again.
    pub decision: Option<Decision>,
}
