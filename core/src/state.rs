//! What the directory asks of what is stored.
//!
//! The store answers from its last committed state; what the present plan has already
//! decided lies in the plan and is looked up there first.

use smallvec::SmallVec;

use crate::conflict::{ConflictRow, Fingerprint};
use crate::id::{MatchHash, SourceId, UserRow, ValueHash};

/// The bytes of a record key ([`rollcall_contract::Key`]).
pub type KeyBytes = SmallVec<[u8; 32]>;

/// Where a record leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// To a user.
    User(UserRow),
    /// To no user: the record is held, out of scope or failed and has a row of its own.
    Record,
}

/// The store could not answer: the batch is given up and nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[error("the store could not be read: {0}")]
pub struct StateError(pub String);

/// What the directory may ask.
pub trait State {
    /// Where a record of a source leads; none when it was never seen (or is forgotten).
    fn link(&mut self, source: SourceId, key: &[u8]) -> Result<Option<LinkTarget>, StateError>;

    /// Appends a user's document ([`crate::document`]) to `into`; `false` when there is
    /// none.
    fn user(&mut self, row: UserRow, into: &mut Vec<u8>) -> Result<bool, StateError>;

    /// Appends the document of a record that leads to no user.
    fn record(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError>;

    /// Appends the users that may have a value (verify against their documents).
    fn owners(
        &mut self,
        hash: ValueHash,
        into: &mut SmallVec<[UserRow; 4]>,
    ) -> Result<(), StateError>;

    /// Whether any record waits at all; `true` in doubt. Answered for every change, so it
    /// must cost nothing.
    fn anything_waits(&mut self) -> bool {
        true
    }

    /// The records that wait for a match key to be free or unambiguous.
    fn waiting(
        &mut self,
        hash: MatchHash,
        into: &mut Vec<(SourceId, KeyBytes)>,
    ) -> Result<(), StateError>;

    /// Whether any user names another one at all; `true` in doubt. Answered for every link
    /// that is made, so it must cost nothing.
    fn anything_refers(&mut self) -> bool {
        true
    }

    /// Appends the users behind a place that name a record of a source, or (of
    /// [`SourceId::OWN`]) a user, in their order and at most `limit`.
    fn referrers(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
        limit: usize,
        into: &mut Vec<UserRow>,
    ) -> Result<(), StateError>;

    /// An open conflict by its fingerprint.
    fn conflict(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError>;

    /// A conflict that a person has decided and that is closed. Asked only where there would
    /// be one.
    fn decided(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError>;

    /// A place for a new user. Handed out once, even when the plan is given up.
    fn allocate_user(&mut self) -> UserRow;
}
