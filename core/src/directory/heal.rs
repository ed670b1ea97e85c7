//! Records that are considered again.
//!
//! A record is considered again when a match key that it waits for may have become free,
//! when its mapping changed, or when the batch ended without the duplicate that had been
//! announced. It is mapped from its shadow and goes the same way as any other row. Each
//! step applies a held record or changes nothing, and an applied record never becomes held
//! by another's healing (whoever shares its key was found when it was applied), so the loop
//! ends.

use super::{Cause, Origin, Resolver};
use crate::id::{MatchHash, SourceId};
use crate::state::StateError;

/// One change leads to at most so many others. What is left waits for the next touch of its
/// match key; the bound keeps a broken rule from holding up a source.
const MAX_CONSIDERED: u32 = 100_000;

impl Resolver<'_> {
    /// Considers every record again that waits for a match key which has become free.
    pub(super) fn heal(&mut self) -> Result<(), StateError> {
        let mut left = MAX_CONSIDERED;
        while let Some(hash) = self.ws.touched.pop() {
            for (source, key) in self.waiting(hash)? {
                if left == 0 {
                    self.ws.touched.clear();
                    return Ok(());
                }
                left -= 1;
                self.consider_stored(source, &key, true)?;
            }
        }
        Ok(())
    }

    /// Considers the records again that wait for these match keys: when a load is over and
    /// [`super::Rules::known_duplicates`] has been emptied.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn retry(&mut self, hashes: &[MatchHash]) -> Result<(), StateError> {
        self.ws.touched.extend_from_slice(hashes);
        self.heal()
    }

    /// Considers a record again from its stored shadow, because the mapping or the rules of
    /// its source changed. `false` when nothing is stored of it. A record that is gone stays
    /// gone.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn reconsider(&mut self, source: SourceId, key: &[u8]) -> Result<bool, StateError> {
        let found = self.consider_stored(source, key, false)?;
        self.heal()?;
        Ok(found)
    }

    fn consider_stored(
        &mut self,
        source: SourceId,
        key: &[u8],
        only_held: bool,
    ) -> Result<bool, StateError> {
        let mut bytes = self.ws.buffer();
        let mut rows = self.ws.rows();
        let mut found = false;
        if let Some(rules) = self.rules.source(source)
            && let Some(stored) = self.stored(source, key, &mut bytes)?
            && stored.present
        {
            found = true;
            if stored.held || !only_held {
                self.rules.remap.remap(source, stored.shadow, &mut rows);
            }
            if !rows.is_empty() {
                let cause = Cause {
                    rules,
                    source,
                    key,
                    tx: &[],
                    position: stored.position,
                    ordinal: 0,
                    commit_us: stored.commit_us,
                    origin: Origin::Stored,
                    hash: stored.hash,
                    recorded: false,
                };
                self.consider(&cause, &rows.row(0))?;
            }
        }
        self.ws.give_back_rows(rows);
        self.ws.give_back(bytes);
        Ok(found)
    }

    /// What had been announced has come or will not come.
    pub(super) fn end_announcements(&mut self) -> Result<(), StateError> {
        let mut announced: Vec<MatchHash> = self.ws.announced.drain().collect();
        announced.sort_unstable();
        self.retry(&announced)
    }
}
