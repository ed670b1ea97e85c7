//! The little that the store reads in documents.
//!
//! Documents belong to the directory; the store keeps them whole. Three facts in them are
//! wanted for counts, for lists, and for finding users by their id. They are taken from the fixed head without
//! decoding the rest, here and nowhere else; a test holds this together with the codec.

use rollcall_core::document::FORMAT;
use rollcall_core::id::UserId;
use rollcall_core::reason::SkipReason;

/// Why a record leads to no user.
pub(crate) fn held_reason(document: &[u8]) -> Option<SkipReason> {
    match document {
        [FORMAT, reason, ..] => SkipReason::from_u8(*reason),
        _ => None,
    }
}

/// The id of a user.
pub(crate) fn user_id(document: &[u8]) -> Option<UserId> {
    let (&format, rest) = document.split_first()?;
    let id = rest.first_chunk::<16>()?;
    (format == FORMAT).then_some(UserId(*id))
}

/// Whether a user was deleted.
pub(crate) fn is_tombstone(document: &[u8]) -> bool {
    const TOMBSTONE: u8 = 4;
    // Behind the id stands the version: an integer whose last byte alone has no high bit.
    let rest = document.get(17..).unwrap_or_default();
    let behind_version = rest.iter().position(|b| b & 0x80 == 0).map(|i| i + 1);
    behind_version.and_then(|at| rest.get(at)) == Some(&TOMBSTONE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use rollcall_core::document::{Document, Record, UserState};

    #[test]
    fn what_is_peeked_is_what_the_codec_wrote() {
        let id = UserId([7; 16]);
        let mut bytes = Vec::new();
        Document::new(id, 5).encode(&mut bytes);
        assert_eq!(user_id(&bytes), Some(id));
        assert!(!is_tombstone(&bytes));
        for version in [1, 127, 128, 1 << 40] {
            let mut bytes = Vec::new();
            let mut document = Document::new(id, 5);
            (document.version, document.state) = (version, UserState::Tombstone);
            document.encode(&mut bytes);
            assert!(is_tombstone(&bytes), "version {version}");
        }

        for reason in SkipReason::ALL {
            let mut bytes = Vec::new();
            Record {
                reason,
                former: None,
                tx: &[],
                position: "",
                commit_us: 1,
                hash: 2,
                hold: &[],
                shadow: &[],
            }
            .encode(&mut bytes);
            assert_eq!(held_reason(&bytes), Some(reason));
        }
        assert_eq!(held_reason(&[]), None);
        assert_eq!(user_id(&[FORMAT, 1]), None);
    }
}
