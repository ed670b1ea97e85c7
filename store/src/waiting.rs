//! Which match keys nobody waits for.
//!
//! Every change asks for each of its match keys whether a held record waits for it, and the
//! answer is almost always no. The filter gives that answer without the database: a bit
//! for each hash that was ever entered, set before the transaction that enters it. A bit
//! that is set says nothing (another hash may share it, its record may wait no more, its
//! transaction may have failed): then the table is asked. A bit that is not set is proof,
//! because bits are never taken away while the store is open. Its size is fixed; with very
//! many held records it only becomes less of a help.

use rollcall_core::id::MatchHash;
use rusqlite::Connection;

use crate::error::StoreError;

/// 1,048,576 bits, 128 KiB: with 50,000 waiting keys one question in twenty goes on to the
/// table.
const WORDS: usize = 1 << 14;

/// See the module.
pub(crate) struct WaitingFilter(Box<[u64]>);

impl WaitingFilter {
    /// Reads what waits now.
    pub(crate) fn load(connection: &Connection) -> Result<WaitingFilter, StoreError> {
        let mut filter = WaitingFilter(vec![0; WORDS].into_boxed_slice());
        let mut statement = connection.prepare("SELECT hash FROM waiting")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            filter.enter(MatchHash(row.get::<_, i64>(0)? as u64));
        }
        Ok(filter)
    }

    /// To be called before a record that waits for this key is stored.
    pub(crate) fn enter(&mut self, hash: MatchHash) {
        let (word, bit) = place(hash);
        self.0[word] |= bit;
    }

    /// `false` when certainly nobody waits for this key.
    pub(crate) fn may_have(&self, hash: MatchHash) -> bool {
        let (word, bit) = place(hash);
        self.0[word] & bit != 0
    }
}

fn place(hash: MatchHash) -> (usize, u64) {
    let word = (hash.0 >> 6) as usize % WORDS;
    (word, 1 << (hash.0 & 63))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

    use super::*;

    #[test]
    fn what_was_entered_is_never_denied() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE waiting(hash INTEGER, source INTEGER, key BLOB);
                 INSERT INTO waiting VALUES(-7, 1, x'00'), (9223372036854775807, 1, x'01');",
            )
            .unwrap();
        let mut filter = WaitingFilter::load(&connection).unwrap();
        let stored = [MatchHash(-7i64 as u64), MatchHash(i64::MAX as u64)];
        assert!(stored.iter().all(|h| filter.may_have(*h)));
        let mut denied = 0;
        for n in 0..1_000u64 {
            let hash = MatchHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            denied += usize::from(!filter.may_have(hash));
            filter.enter(hash);
            assert!(filter.may_have(hash));
        }
        assert!(
            denied > 950,
            "only {denied} of 1000 new keys were known as such"
        );
    }
}
