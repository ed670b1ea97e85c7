//! The closed lists of reasons that are stored, counted and shown.

/// Why a record was not applied. Stored as its number, shown as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SkipReason {
    /// The record is outside of the source's scope.
    OutOfScope = 1,
    /// A key column is null or unreadable.
    NoKey = 2,
    /// A cell is not a value of its column's class.
    BadValue = 3,
    /// An expression failed on this record.
    ExpressionFailed = 4,
    /// A value does not fit the attribute's type.
    TypeMismatch = 5,
    /// A value is longer than the limit.
    TooLong = 6,
    /// Another live record of the same source has the same match key.
    DuplicateInSource = 7,
    /// Several users match.
    DisputedMatch = 8,
    /// The userName or email belongs to another user.
    Uniqueness = 9,
    /// The key came back with somebody else's data.
    KeyReuse = 10,
    /// A needed value was not in the image and is not in the store: the record is read again.
    Incomplete = 11,
    /// Its change counts against the source's limit and waits for a person's word.
    Staged = 12,
    /// It is gone, and that waits for a person's word.
    StagedLeaver = 13,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: [SkipReason; 13] = [
        SkipReason::OutOfScope,
        SkipReason::NoKey,
        SkipReason::BadValue,
        SkipReason::ExpressionFailed,
        SkipReason::TypeMismatch,
        SkipReason::TooLong,
        SkipReason::DuplicateInSource,
        SkipReason::DisputedMatch,
        SkipReason::Uniqueness,
        SkipReason::KeyReuse,
        SkipReason::Incomplete,
        SkipReason::Staged,
        SkipReason::StagedLeaver,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::OutOfScope => "out_of_scope",
            SkipReason::NoKey => "no_key",
            SkipReason::BadValue => "bad_value",
            SkipReason::ExpressionFailed => "expression_failed",
            SkipReason::TypeMismatch => "type_mismatch",
            SkipReason::TooLong => "too_long",
            SkipReason::DuplicateInSource => "duplicate_in_source",
            SkipReason::DisputedMatch => "disputed_match",
            SkipReason::Uniqueness => "uniqueness",
            SkipReason::KeyReuse => "key_reuse",
            SkipReason::Incomplete => "incomplete",
            SkipReason::Staged => "staged",
            SkipReason::StagedLeaver => "staged_leaver",
        }
    }

    /// The reason of a stored number.
    pub fn from_u8(n: u8) -> Option<SkipReason> {
        SkipReason::ALL.get(usize::from(n).checked_sub(1)?).copied()
    }

    /// The reason of a stable name.
    pub fn from_name(name: &str) -> Option<SkipReason> {
        SkipReason::ALL.into_iter().find(|r| r.as_str() == name)
    }

    /// Whether the record stands in a plan, or will when its scan ends.
    pub fn is_staged(self) -> bool {
        matches!(self, SkipReason::Staged | SkipReason::StagedLeaver)
    }

    /// Whether the record failed (counted as errored) rather than being left out on purpose
    /// or held for a person (counted as skipped).
    pub fn is_error(self) -> bool {
        matches!(
            self,
            SkipReason::NoKey
                | SkipReason::BadValue
                | SkipReason::ExpressionFailed
                | SkipReason::TypeMismatch
                | SkipReason::TooLong
        )
    }
}

/// Why a user is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LeaverReason {
    /// The record was deleted, by the log.
    Deleted = 1,
    /// The record left the source's scope.
    OutOfScope = 2,
    /// The mapped `active` became false.
    Status = 3,
    /// A complete scan did not find the record.
    Absent = 4,
    /// The whole table was emptied.
    Truncated = 5,
    /// What had made the user, or had it work, was undone.
    Undone = 6,
}

impl LeaverReason {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaverReason::Deleted => "deleted",
            LeaverReason::OutOfScope => "out_of_scope",
            LeaverReason::Status => "status",
            LeaverReason::Absent => "absent",
            LeaverReason::Truncated => "truncated",
            LeaverReason::Undone => "undone",
        }
    }

    /// The reason of a stored number.
    pub fn from_u8(n: u8) -> Option<LeaverReason> {
        match n {
            1 => Some(LeaverReason::Deleted),
            2 => Some(LeaverReason::OutOfScope),
            3 => Some(LeaverReason::Status),
            4 => Some(LeaverReason::Absent),
            5 => Some(LeaverReason::Truncated),
            6 => Some(LeaverReason::Undone),
            _ => None,
        }
    }
}
