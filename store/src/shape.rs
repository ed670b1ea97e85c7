//! The little that the store reads in documents.
//!
//! Documents belong to the directory; the store keeps them whole. Two facts in them are
//! wanted for counts and for finding users, and are taken out here and nowhere else.

use rollcall_core::id::UserId;
use rollcall_core::reason::SkipReason;

/// Why a record leads to no user.
pub(crate) fn held_reason(document: &[u8]) -> Option<SkipReason> {
    SkipReason::from_u8(*document.first()?)
}

/// The id of a user.
pub(crate) fn user_id(document: &[u8]) -> Option<UserId> {
    Some(UserId(document.get(1..17)?.try_into().ok()?))
}

/// Under what hash a user is found by its id: the first half of the id, which for ids of
/// version 7 begins with the time, so that new entries lie side by side.
pub(crate) fn id_hash(id: UserId) -> i64 {
    let mut half = [0; 8];
    half.copy_from_slice(&id.0[..8]);
    i64::from_be_bytes(half)
}
