//! Changes that wait for a person's word.
//!
//! A deletion that waits ([`super::erase`]) is told of there. Any other
//! staged record is held like any other ([`super::hold`]): its user stays as it is, it is
//! present, and it counts with what it gave last. It waits for no match key, because nothing
//! but its own next row, or a person, decides what becomes of it. Records with an entry in
//! [`crate::plan::Plan::staged`] are exactly those that are held for
//! [`SkipReason::Staged`] and [`SkipReason::StagedLeaver`], or erasing: whoever changes such a state
//! says so through [`Resolver::was_staged`].

use super::hold::Holding;
use super::{Cause, ChangeRef, Origin, Resolver, fold};
use crate::document::{Document, Link, LinkState};
use crate::id::{SourceId, UserRow};
use crate::mapped::MappedRow;
use crate::reason::SkipReason;
use crate::staged::{Counted, Counting, Remapping, Staged, counted};
use crate::state::{KeyBytes, LinkTarget, StateError};

impl Resolver<'_> {
    /// What is taken away by a change that is not to be applied; counts one that is.
    fn stopped(
        &mut self,
        cause: &Cause<'_>,
        before: &Document<'_>,
        after: &Document<'_>,
    ) -> Option<Counted> {
        let kind = counted(before, after).or_else(|| self.remapped(cause, before, after))?;
        self.stops(cause).then_some(kind)
    }

    /// Whether a change that is counted is not to be applied; counts one that is.
    pub(super) fn stops(&mut self, cause: &Cause<'_>) -> bool {
        let applies = cause.rules.counting == Counting::Apply;
        if applies {
            self.plan.count(cause.source);
        }
        !applies
    }

    /// Whether others see a change that another mapping may have made.
    fn remapped(
        &self,
        cause: &Cause<'_>,
        before: &Document<'_>,
        after: &Document<'_>,
    ) -> Option<Counted> {
        let waits = || {
            let link = before.find_link(cause.source, cause.key);
            link.is_some_and(|at| before.links[at].state.is_staged())
        };
        let may_be = match cause.rules.remapping {
            Remapping::Nobody => false,
            Remapping::Waiting => waits(),
            Remapping::Everybody => true,
        };
        let is_seen = || before.is_active() && !fold::diff(self.rules, before, after).is_empty();
        (may_be && is_seen()).then_some(Counted::Mapping)
    }

    pub(super) fn set_staged(&mut self, cause: &Cause<'_>, kind: Counted, hash: u64) {
        let staged = Staged {
            kind,
            hash,
            run: self.run,
            staged_us: self.now_us,
            held_back: cause.rules.counting == Counting::HoldBack,
        };
        let record = (cause.source, KeyBytes::from_slice(cause.key));
        self.plan.staged.insert(record, Some(staged));
    }

    /// A record is no longer in this state: if something waited, nothing does now.
    pub(super) fn was_staged(&mut self, source: SourceId, key: &[u8], state: LinkState) {
        if state.is_staged() {
            let record = (source, KeyBytes::from_slice(key));
            self.plan.staged.insert(record, None);
        }
    }

    /// Holds a row that would take something away, if that is to wait.
    pub(super) fn stages(
        &mut self,
        cause: &Cause<'_>,
        shadow: &[u8],
        before: &Document<'_>,
        after: &Document<'_>,
    ) -> Result<bool, StateError> {
        let Some(kind) = self.stopped(cause, before, after) else {
            return Ok(false);
        };
        self.hold(cause, shadow, &Holding::new(SkipReason::Staged))?;
        self.set_staged(cause, kind, cause.hash);
        Ok(true)
    }

    /// Keeps the user of a record that is gone, or out of scope with this last row, if that
    /// is to wait. `after` is the user without it.
    pub(super) fn stages_leaver(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        has_row: bool,
        before: &Document<'_>,
        after: &Document<'_>,
        at: usize,
    ) -> bool {
        let Some(kind) = self.stopped(cause, before, after) else {
            return false;
        };
        let old = before.links[at].state;
        let reason = match has_row {
            true => SkipReason::Staged,
            false => SkipReason::StagedLeaver,
        };
        self.leave_out(cause, reason, None, None);
        let gone = LinkState::Held(SkipReason::StagedLeaver);
        if old == gone && !has_row && cause.origin == Origin::Scan {
            // What the log has said is said already.
            return true;
        }
        let mut kept = before.clone_with(self.ws.spare());
        let link = after.links[at];
        kept.links[at] = if has_row {
            Link {
                state: LinkState::Held(SkipReason::Staged),
                since_us: 0,
                ..link
            }
        } else {
            // Whatever row comes next, it is another one than none.
            Link {
                state: gone,
                since_us: 0,
                hash: 0,
                ..link
            }
        };
        self.set_staged(cause, kind, kept.links[at].hash);
        self.write_unseen(user, &kept);
        if old != kept.links[at].state {
            self.wake_user(&kept);
        }
        self.ws.keep(kept);
        true
    }

    /// Applies what waits of a record, which is no further record looked at. What is counted is to be applied
    /// ([`Counting::Apply`]); the rules may still hold the record for something else.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn approve(
        &mut self,
        source: SourceId,
        key: &[u8],
        staged: &Staged,
    ) -> Result<(), StateError> {
        if staged.kind == Counted::Erased {
            return self.still_gone(source, key);
        }
        let Some(reason) = staged.kind.gone() else {
            self.reconsider(source, key)?;
            return Ok(());
        };
        let change = ChangeRef {
            commit_us: staged.staged_us,
            ..self.seen_now(key)
        };
        self.remove_uncounted(source, &change, reason)
    }

    /// The same with the row that waits, for a record of which too little is stored.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn approve_row(
        &mut self,
        source: SourceId,
        key: &[u8],
        row: MappedRow<'_>,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        let rules = self.source_rules(source)?;
        if let Some(stored) = self.stored(source, key, &mut bytes)?
            && stored.present
        {
            self.consider(&Cause::stored(rules, key, &stored), &row)?;
        }
        self.ws.give_back(bytes);
        self.heal()
    }

    /// Gives up what waits of a record: the record stands to its user as before, and what
    /// comes next of it from the source is looked at anew, also when it is the same. Until
    /// then it is not considered again, since its stored row is the one that was discarded.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn discard(&mut self, source: SourceId, key: &[u8]) -> Result<(), StateError> {
        let rules = self.source_rules(source)?;
        match self.target(source, key)? {
            None => {}
            Some(LinkTarget::Record) => {
                let change = ChangeRef {
                    origin: Origin::Stored,
                    ..self.seen_now(key)
                };
                self.drop_record(&Cause::new(rules, &change, 0), key, true)?;
            }
            Some(LinkTarget::User(user)) => {
                let mut bytes = self.ws.buffer();
                self.load_user(user, &mut bytes)?;
                let mut document = self.decode(&bytes)?;
                let staged = document
                    .find_link(source, key)
                    .filter(|&at| document.links[at].state.is_staged());
                if let Some(at) = staged {
                    let link = &mut document.links[at];
                    let state = link.state;
                    if let LinkState::Erasing(reason) = state {
                        // It is asked again when the source has waited once more.
                        self.end_erasing(user, &mut document, at, reason);
                    } else {
                        (link.state, link.hash) = (LinkState::Live, 0);
                        self.was_staged(source, key, state);
                    }
                    self.write_unseen(user, &document);
                    self.wake_user(&document);
                }
                self.ws.keep(document);
                self.ws.give_back(bytes);
            }
        }
        self.heal()
    }
}
