//! Changes that are counted against a source's limit, and what waits for approval.
//!
//! What takes something away from somebody who works is counted: deactivation, a record that
//! ends or leaves the scope, another identifier, lost roles. All of this is
//! decided in [`counted`], from the user before and after; joiners never are. Of those who are
//! not active only their deletion is counted. A leaver with a grace counts when the record goes,
//! not once more when the grace is over. Where the limit stops a change, the record is held
//! ([`crate::reason::SkipReason::Staged`], or [`crate::reason::SkipReason::StagedLeaver`]
//! when it has no row any more), its user stays as it is, and a [`Staged`] says what waits.
//! The next row of the record is looked at as any other: if it takes nothing away, it is
//! applied and nothing waits any more.

use std::fmt;

use crate::attribute::{EMAIL, ROLES, USER_NAME};
use crate::document::{Document, UserState, shown};
use crate::id::RunId;
use crate::mapped::ListValue;
use crate::reason::LeaverReason;

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Counted {
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
    /// The email or userName becomes another one, or none.
    Identifier = 6,
    /// A role is lost.
    Roles = 7,
    /// Anything changes that others can see, while the mapping is another one than the one
    /// that was applied.
    Mapping = 8,
    /// The user, who is not active, is deleted.
    Erased = 9,
    /// An undo deactivates the user.
    Undone = 10,
}

impl Counted {
    /// All kinds.
    pub const ALL: [Counted; 10] = [
        Counted::Deleted,
        Counted::OutOfScope,
        Counted::Status,
        Counted::Absent,
        Counted::Truncated,
        Counted::Identifier,
        Counted::Roles,
        Counted::Mapping,
        Counted::Erased,
        Counted::Undone,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Counted::Identifier => "identifier",
            Counted::Roles => "roles",
            Counted::Mapping => "mapping",
            Counted::Erased => "erased",
            Counted::Deleted => LeaverReason::Deleted.as_str(),
            Counted::OutOfScope => LeaverReason::OutOfScope.as_str(),
            Counted::Status => LeaverReason::Status.as_str(),
            Counted::Absent => LeaverReason::Absent.as_str(),
            Counted::Truncated => LeaverReason::Truncated.as_str(),
            Counted::Undone => LeaverReason::Undone.as_str(),
        }
    }

    /// The kind of a stored number.
    pub fn from_u8(n: u8) -> Option<Counted> {
        Counted::ALL.get(usize::from(n).checked_sub(1)?).copied()
    }

    /// Why the record is gone, if it is: it has no row from which it could be mapped again.
    pub fn gone(self) -> Option<LeaverReason> {
        match self {
            Counted::Deleted => Some(LeaverReason::Deleted),
            Counted::Absent => Some(LeaverReason::Absent),
            Counted::Truncated => Some(LeaverReason::Truncated),
            Counted::OutOfScope
            | Counted::Status
            | Counted::Identifier
            | Counted::Roles
            | Counted::Mapping
            | Counted::Erased
            | Counted::Undone => None,
        }
    }
}

impl From<LeaverReason> for Counted {
    fn from(reason: LeaverReason) -> Counted {
        match reason {
            LeaverReason::Deleted => Counted::Deleted,
            LeaverReason::OutOfScope => Counted::OutOfScope,
            LeaverReason::Status => Counted::Status,
            LeaverReason::Absent => Counted::Absent,
            LeaverReason::Truncated => Counted::Truncated,
            LeaverReason::Undone => Counted::Undone,
        }
    }
}

/// What becomes of a source's changes that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Counting {
    /// They are applied, and counted in [`crate::plan::Plan::counted`].
    #[default]
    Apply,
    /// They are held back until it is known how many there are.
    HoldBack,
    /// They join the source's plan.
    Stage,
}

/// Of which changes it is assumed that another mapping made them. They count, whatever they
/// are: what the file says of everybody must not reach many people unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Remapping {
    /// Of none: the mapping is the one that was applied.
    #[default]
    Nobody,
    /// Of those of records that wait already: what is known of everybody else was mapped by
    /// it.
    Waiting,
    /// Of all: not every record was mapped by it yet.
    Everybody,
}

/// Whether a change takes something away from a user who is active, and what: of several
/// things the first in this order.
pub fn counted(before: &Document<'_>, after: &Document<'_>) -> Option<Counted> {
    if !before.is_active() {
        return None;
    }
    let ended = |(old, new): (&crate::document::Link<'_>, &crate::document::Link<'_>)| {
        new.state.gone().filter(|_| old.state.is_present())
    };
    if let Some(reason) = before.links.iter().zip(&after.links).find_map(ended) {
        return Some(reason.into());
    }
    if let UserState::Deactivated(reason) = after.state {
        return Some(reason.into());
    }
    let another = |attribute| {
        let old = before.value(attribute);
        old.is_some() && old != after.value(attribute)
    };
    if another(EMAIL) || another(USER_NAME) {
        return Some(Counted::Identifier);
    }
    loses_a_role(before, after).then_some(Counted::Roles)
}

fn loses_a_role(before: &Document<'_>, after: &Document<'_>) -> bool {
    if !(before.undos.is_empty() && after.undos.is_empty()) {
        let new = after.parts(ROLES);
        return before.parts(ROLES).iter().any(|role| !new.contains(role));
    }
    let (old, new) = (shown(before.group(ROLES)), shown(after.group(ROLES)));
    if old.len() <= new.len() && old.iter().zip(new).all(|(a, b)| a.value == b.value) {
        return false;
    }
    let has = |role| {
        new.iter()
            .any(|c| ListValue::texts(c.value).any(|r| r == role))
    };
    old.iter()
        .any(|c| ListValue::texts(c.value).any(|role| !has(role)))
}

/// A record of which a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// What the change takes away.
    pub kind: Counted,
    /// Hash of the row that waits; 0 when the record is gone.
    pub hash: u64,
    /// The run that found it.
    pub run: RunId,
    /// When, microseconds since the Unix epoch.
    pub staged_us: i64,
    /// Whether the scan that found it has not ended: it is in no plan yet.
    pub held_back: bool,
}

/// Names the content of a plan: the sum of a hash of each record with what waits, so that it
/// does not depend on an order and can be brought along record by record.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanHash(u128);

impl PlanHash {
    /// Of a plan with one record.
    pub fn of(key: &[u8], kind: Counted, hash: u64) -> PlanHash {
        let mut made_of: smallvec::SmallVec<[u8; 64]> = smallvec::SmallVec::new();
        made_of.extend_from_slice(&hash.to_le_bytes());
        made_of.push(kind as u8);
        made_of.extend_from_slice(key);
        PlanHash(xxhash_rust::xxh3::xxh3_128(&made_of))
    }

    /// With one more record.
    #[must_use]
    pub fn with(self, other: PlanHash) -> PlanHash {
        PlanHash(self.0.wrapping_add(other.0))
    }

    /// With one record less.
    #[must_use]
    pub fn without(self, other: PlanHash) -> PlanHash {
        PlanHash(self.0.wrapping_sub(other.0))
    }

    /// For the store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From the store.
    pub fn from_bytes(bytes: [u8; 16]) -> PlanHash {
        PlanHash(u128::from_be_bytes(bytes))
    }

    /// From its text: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<PlanHash> {
        let is_hash = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(PlanHash)
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many counted changes of a source may pass unseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// So many people.
    pub max_changes: u64,
    /// So large a share of the source's linked active users, in percent.
    pub max_percent: f64,
    /// So few never trip it.
    pub floor: u64,
}

impl Limit {
    /// Whether so many changes are too many for a source with so many linked active users.
    pub fn trips(&self, changes: u64, linked: u64) -> bool {
        changes > self.floor
            && (changes > self.max_changes
                || changes as f64 * 100.0 > self.max_percent * linked as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_changes_pass_and_many_or_a_large_share_trip() {
        let limit = Limit {
            max_changes: 50,
            max_percent: 5.0,
            floor: 5,
        };
        assert!(!limit.trips(5, 5), "the floor, whatever the share");
        assert!(limit.trips(6, 100), "six of a hundred are more than 5 %");
        assert!(!limit.trips(6, 120), "5 % exactly pass");
        assert!(!limit.trips(50, 100_000));
        assert!(limit.trips(51, 100_000), "more than fifty people");
        assert!(limit.trips(6, 0));
    }

    #[test]
    fn a_plan_hash_does_not_depend_on_an_order_and_knows_each_part() {
        let a = PlanHash::of(b"1", Counted::Deleted, 0);
        let b = PlanHash::of(b"2", Counted::Roles, 7);
        let both = PlanHash::default().with(a).with(b);
        assert_eq!(both, PlanHash::default().with(b).with(a));
        assert_eq!(both.without(a), b);
        assert_eq!(PlanHash::parse(&both.to_string()), Some(both));
        assert_eq!(PlanHash::from_bytes(both.to_bytes()), both);
        for other in [
            PlanHash::of(b"1", Counted::Absent, 0),
            PlanHash::of(b"1", Counted::Deleted, 1),
            PlanHash::of(b"3", Counted::Deleted, 0),
        ] {
            assert_ne!(a, other);
        }
        assert_eq!(PlanHash::parse("xyz"), None);
        for kind in Counted::ALL {
            assert_eq!(Counted::from_u8(kind as u8), Some(kind));
        }
    }
}
