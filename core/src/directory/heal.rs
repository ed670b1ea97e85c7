//! Records that are considered again.
//!
//! **The invariant.** After each change, considering any held record again from its shadow
//! would leave it held. It rests on two rules that meet in the index of waiting records:
//!
//! * *A held record waits for all that its decision read.* A decision reads by match keys
//!   (the record's own, and the userName and email that its user has or would have) and by
//!   user (its own, its former one, the one it would join). The keys are the `pending` and
//!   `blocked` of its [`crate::document::Hold`]; a user other than its own stands there as
//!   a key made of the user's id.
//! * *Whoever changes what a decision can read wakes those who wait for it.* There are two
//!   kinds of such things. A user: its state, the states of its links, its own values with
//!   their pins, and its contributions to the decisive attributes ([`super::Rules`]); when
//!   one of them changes
//!   ([`Resolver::wake_for`]), all match keys that it had or has, itself, and its own held
//!   links are woken. A held record: its match keys and the conflicts that name it; when
//!   they change ([`Resolver::release`]), the match keys that it had and has are woken.
//!
//! A record that was held by another's decision ([`Resolver::hold_other`],
//! [`Resolver::hold_link`]) did not read for itself; it is woken at once, so that what it
//! waits for becomes its own. Records that failed or are incomplete are held for what they
//! are and wait for no one; records out of scope are not held.
//!
//! **It ends.** A held record that is considered again is applied or stays held. Applying
//! never makes an applied record held (whoever shares its key was found when it was
//! applied), so there are at most as many such steps as held records; and one that stays
//! held with the same hold wakes nobody.

use super::correlate::{Key, heals};
use super::{Cause, Resolver};
use crate::document::{Document, LinkState};
use crate::id::{MatchHash, SourceId};
use crate::state::{KeyBytes, StateError};

/// One change leads to at most so many others. What is left waits for the next touch of its
/// match key; the bound keeps a broken rule from holding up a source.
const MAX_CONSIDERED: u32 = 100_000;

impl Resolver<'_> {
    /// Considers every record again that was woken.
    pub(super) fn heal(&mut self) -> Result<(), StateError> {
        let mut left = MAX_CONSIDERED;
        loop {
            while let Some((source, key)) = self.ws.woken.pop() {
                if left == 0 {
                    debug_assert!(false, "considering records again did not end");
                    self.ws.woken.clear();
                    self.ws.touched.clear();
                    return Ok(());
                }
                left -= 1;
                self.consider_stored(source, &key, true)?;
            }
            let Some(hash) = self.ws.touched.pop() else {
                return Ok(());
            };
            let woken = self.waiting(hash)?;
            self.ws.woken.extend(woken);
        }
    }

    /// Whether no record waits for anything, so that nobody has to be woken.
    fn nothing_waits(&mut self) -> bool {
        self.plan.waiting.is_empty() && !self.state.anything_waits()
    }

    /// Wakes who waits for a user that was (none: is new) and is, unless nothing changed on
    /// which a decision can rest.
    pub(super) fn wake_for(&mut self, before: Option<&Document<'_>>, after: &Document<'_>) {
        if self.nothing_waits() || before.is_some_and(|b| self.decides_the_same(b, after)) {
            return;
        }
        if let Some(before) = before {
            self.wake_user(before);
        }
        self.wake_user(after);
    }

    fn decides_the_same(&self, a: &Document<'_>, b: &Document<'_>) -> bool {
        a.state == b.state
            && a.undos == b.undos
            && a.owns == b.owns
            && a.links.len() == b.links.len()
            && a.links
                .iter()
                .zip(&b.links)
                .all(|(a, b)| a.state == b.state)
            && self.rules.decisive_attributes().iter().all(|&attribute| {
                let (a, b) = (a.group(attribute), b.group(attribute));
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .all(|(a, b)| a.link == b.link && a.value == b.value)
            })
    }

    /// Wakes who waits for a user or for anything that it was given.
    pub(super) fn wake_user(&mut self, user: &Document<'_>) {
        if self.nothing_waits() {
            return;
        }
        self.ws.touched.push(Key::of_user(user).hash());
        for &attribute in self.rules.key_attributes() {
            let keys = user.group(attribute).iter();
            let hashes = keys.filter_map(|c| Some(Key::of(attribute, c.value)?.hash()));
            self.ws.touched.extend(hashes);
            let put = user.undo(attribute).and_then(|_| user.value(attribute));
            let put = put.and_then(|value| Key::of(attribute, value));
            self.ws.touched.extend(put.map(|key| key.hash()));
        }
        for link in &user.links {
            if matches!(link.state, LinkState::Held(reason) if heals(reason)) {
                self.wake(link.source, link.key);
            }
        }
    }

    /// Lets a record be considered again.
    pub(super) fn wake(&mut self, source: SourceId, key: &[u8]) {
        let record = (source, KeyBytes::from_slice(key));
        if !self.ws.woken.contains(&record) {
            self.ws.woken.push(record);
        }
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
            if (stored.held || !only_held) && !stored.outdated {
                self.rules.remap.remap(source, stored.shadow, &mut rows);
            }
            if !rows.is_empty() {
                let cause = Cause::stored(rules, key, &stored);
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
