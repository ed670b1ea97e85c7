//! Which values nobody has, told without asking the database.
//!
//! Nearly every new record has values that no user has, and to find that out in the
//! database costs as much as all else that is decided about it. A bit stands here for
//! each hash that was ever added; a bit that is not set says "nobody" for certain, one that
//! is set says nothing. Sixteen bits are kept for a hash, so that one question in sixteen at
//! most is asked in vain; bits of values that were lost stay until the filter is built anew.

use rollcall_core::id::ValueHash;
use rusqlite::Connection;

use crate::error::StoreError;

const BITS_PER_HASH: usize = 16;
const MIN_BITS: usize = 1 << 16;
/// 64 MiB: a directory of more than thirty million values is asked in vain more often.
const MAX_BITS: usize = 1 << 29;

/// See the module.
pub(crate) struct ValueFilter {
    words: Vec<u64>,
    hashes: usize,
}

impl ValueFilter {
    /// The values of the table, and `also` those that wait for it.
    pub(crate) fn load(
        connection: &Connection,
        also: impl ExactSizeIterator<Item = i64>,
    ) -> Result<ValueFilter, StoreError> {
        let stored: i64 =
            connection.query_row("SELECT COUNT(*) FROM match_key", [], |r| r.get(0))?;
        let expected = usize::try_from(stored).unwrap_or(0);
        let mut filter = ValueFilter::for_hashes(expected.saturating_add(also.len()));
        let mut statement = connection.prepare("SELECT hash FROM match_key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            filter.add(ValueHash(row.get::<_, i64>(0)? as u64));
        }
        for hash in also {
            filter.add(ValueHash(hash as u64));
        }
        Ok(filter)
    }

    fn for_hashes(hashes: usize) -> ValueFilter {
        // Room to double before it has to be built anew.
        let bits = hashes
            .saturating_mul(2 * BITS_PER_HASH)
            .clamp(MIN_BITS, MAX_BITS)
            .next_power_of_two();
        ValueFilter {
            words: vec![0; bits / 64],
            hashes: 0,
        }
    }

    /// Whether so many hashes were added that it answers badly.
    pub(crate) fn is_crowded(&self) -> bool {
        let bits = self.words.len() * 64;
        self.hashes * BITS_PER_HASH > bits && bits < MAX_BITS
    }

    pub(crate) fn add(&mut self, hash: ValueHash) {
        let (word, bit) = self.place(hash);
        self.words[word] |= bit;
        self.hashes += 1;
    }

    /// `false`: nobody has the value.
    pub(crate) fn may_have(&self, hash: ValueHash) -> bool {
        let (word, bit) = self.place(hash);
        self.words[word] & bit != 0
    }

    fn place(&self, hash: ValueHash) -> (usize, u64) {
        let at = hash.0 as usize & (self.words.len() * 64 - 1);
        (at / 64, 1 << (at % 64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied_and_strangers_mostly_are() {
        let mut filter = ValueFilter::for_hashes(2_000);
        let hash = |n: u64| ValueHash::of(&n.to_le_bytes());
        for n in 0..2_000 {
            filter.add(hash(n));
        }
        assert!((0..2_000).all(|n| filter.may_have(hash(n))));
        let in_vain = (2_000..22_000)
            .filter(|n| filter.may_have(hash(*n)))
            .count();
        assert!(in_vain < 20_000 / 16, "{in_vain}");
        assert!(!filter.is_crowded());
        for n in 2_000..80_000 {
            filter.add(hash(n));
        }
        assert!(filter.is_crowded());
    }

    #[test]
    fn built_anew_it_has_room_for_what_waits_too() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE match_key(hash, user); INSERT INTO match_key VALUES(1, 1)")
            .unwrap();
        let waiting = (0..MIN_BITS as i64).map(|n| ValueHash::of(&n.to_le_bytes()).0 as i64);
        let waiting: Vec<i64> = waiting.collect();
        let filter = ValueFilter::load(&connection, waiting.iter().copied()).unwrap();
        assert!(!filter.is_crowded());
        assert!(filter.may_have(ValueHash(1)));
        assert!(
            waiting
                .iter()
                .all(|h| filter.may_have(ValueHash(*h as u64)))
        );
    }
}
