//! What is left of a deleted user to tell whether a record is its own.
//!
//! A record whose key comes back gets its former user id again only if it is about the same
//! person. A tombstone holds no value, so it keeps a hash of each folded value that its
//! sources' fingerprints name. The hash depends on the user's id: hashes of two tombstones
//! say nothing about each other. It finds equality and nothing else; whoever knows the
//! tombstone and guesses a name can check the guess, which is why tombstones are purged.

use crate::attribute::AttrId;
use crate::id::UserId;

/// The hashes of a tombstone: pairs of attribute and hash, ten bytes each.
#[derive(Clone, Copy, Debug)]
pub struct Remains<'a>(&'a [u8]);

const PAIR: usize = 10;

impl<'a> Remains<'a> {
    /// Reads [`super::Document::remains`].
    pub fn of(bytes: &'a [u8]) -> Self {
        Remains(bytes)
    }

    /// Appends the hash of a folded value.
    pub fn append(user: UserId, attribute: AttrId, folded: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&attribute.0.to_le_bytes());
        out.extend_from_slice(&hash(user, folded).to_le_bytes());
    }

    /// Whether the user had this folded value; none when it had none of the attribute.
    pub fn had(self, user: UserId, attribute: AttrId, folded: &[u8]) -> Option<bool> {
        let hash = hash(user, folded).to_le_bytes();
        let mut of = self
            .0
            .chunks_exact(PAIR)
            .filter(|pair| pair[..2] == attribute.0.to_le_bytes())
            .peekable();
        of.peek()?;
        Some(of.any(|pair| pair[2..] == hash))
    }
}

fn hash(user: UserId, folded: &[u8]) -> u64 {
    let (seed, rest) = user.0.split_at(8);
    let seed = seed.iter().chain(rest).fold(0u64, |seed, byte| {
        seed.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(*byte)
    });
    xxhash_rust::xxh3::xxh3_64_with_seed(folded, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_had_is_told_from_what_it_had_not_and_from_what_is_not_known() {
        let (ada, eve) = (UserId([1; 16]), UserId([2; 16]));
        let mut bytes = Vec::new();
        Remains::append(ada, AttrId(3), b"ada", &mut bytes);
        Remains::append(ada, AttrId(16), b"a@x", &mut bytes);
        Remains::append(ada, AttrId(16), b"ada@x", &mut bytes);
        let kept = Remains::of(&bytes);
        assert_eq!(kept.had(ada, AttrId(3), b"ada"), Some(true));
        assert_eq!(kept.had(ada, AttrId(16), b"ada@x"), Some(true));
        assert_eq!(kept.had(ada, AttrId(3), b"eve"), Some(false));
        assert_eq!(kept.had(ada, AttrId(4), b"ada"), None);
        assert_eq!(kept.had(eve, AttrId(3), b"ada"), Some(false));
    }
}
