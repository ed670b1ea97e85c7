//! Records that end, leave the scope, or change their key.
//!
//! Every leaver has evidence: these are the only places where a link ceases to be present,
//! and each is given its reason by the caller. What comes later (the end of a grace, the
//! deletion of a user, [`super::erase`]) comes here too, with evidence of its own: when it is
//! due the record is read once more, and only its repeated absence moves it on. So nothing is
//! taken from anybody because a clock has run, and a source that cannot be asked makes
//! everything wait.

use rollcall_contract::Key as RecordKey;

use super::correlate::{Key, fingerprint};
use super::hold::Holding;
use super::rules::LeaverAction;
use super::{Cause, Resolver, fold};
use crate::conflict::ConflictKind;
use crate::document::{Document, Link, LinkState, UserState};
use crate::id::{UserId, UserRow};
use crate::mapped::MappedRow;
use crate::plan::DueKind;
use crate::reason::{LeaverReason, SkipReason};
use crate::staged::Counted;
use crate::state::{LinkTarget, StateError};

/// What evidence that a record is gone does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The record was there: it leaves.
    Leaves,
    /// The grace of a suspected record is over.
    Ends,
    /// Its user is deleted.
    Erases,
    /// What is left of its user is forgotten.
    Purges,
    /// Nothing: all of this was known.
    Stays,
}

/// A link whose value may not take over, because it is somebody else's.
pub(super) struct Loser {
    at: usize,
    key: Key,
    owner: UserId,
}

impl Resolver<'_> {
    /// The record of a link is gone, or out of scope with this last row.
    pub(super) fn leave(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        reason: LeaverReason,
        row: Option<&MappedRow<'_>>,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let document = self.decode(&bytes)?;
        let mut after = document.clone_with(self.ws.spare());
        let result = match document.find_link(cause.source, cause.key) {
            Some(at) => self.leave_in(cause, user, reason, row, &document, &mut after, at),
            None => {
                self.plan.counters.unchanged += 1;
                Ok(())
            }
        };
        self.ws.keep(after);
        self.ws.keep(document);
        self.ws.give_back(bytes);
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the two images of one document")]
    fn leave_in<'d>(
        &mut self,
        cause: &Cause<'d>,
        user: UserRow,
        reason: LeaverReason,
        row: Option<&MappedRow<'d>>,
        before: &Document<'d>,
        after: &mut Document<'d>,
        at: usize,
    ) -> Result<(), StateError> {
        let old = before.links[at];
        let step = self.next_step(cause, before, at);
        if step == Step::Stays && row.is_some() && cause.is_stored_already(old.hash) {
            self.plan.counters.unchanged += 1;
            return Ok(());
        }
        let link = &mut after.links[at];
        cause.stamp(link);
        if let Some(row) = row {
            link.hash = cause.hash;
            if before.state != UserState::Tombstone {
                link.shadow = row.shadow();
            }
        }
        // A key that was deleted stays deleted until the record has its user again: who has
        // it next may be somebody else.
        let reason = match old.state.gone() {
            Some(first) if row.is_some() || first != LeaverReason::OutOfScope => first,
            _ => reason,
        };
        link.hold = &[];
        match step {
            Step::Leaves if self.has_grace(cause) => {
                link.state = LinkState::Suspected(reason);
                link.since_us = self.now_us;
                self.release(cause, cause.key, old.hold, &[])?;
                if self.stages_leaver(cause, user, row.is_some(), before, after, at) {
                    return Ok(());
                }
                self.was_staged(cause.source, cause.key, old.state);
                self.suspect(cause, user, before, after);
                Ok(())
            }
            Step::Leaves | Step::Ends => {
                link.state = LinkState::Gone(reason);
                link.since_us = self.now_us;
                self.release(cause, cause.key, old.hold, &[])?;
                if cause.rules.leaver.action == LeaverAction::Deactivate {
                    fold::drop_former(self.rules, after);
                    after.state = fold::decide(after, Some(reason));
                    if step == Step::Leaves
                        && self.stages_leaver(cause, user, row.is_some(), before, after, at)
                    {
                        return Ok(());
                    }
                    self.was_staged(cause.source, cause.key, old.state);
                    self.remind(cause.source, DueKind::Deletion, user);
                    let losers = self.drop_taken(cause, user, before, after)?;
                    self.settle(cause, user, Some(before), after)?;
                    return self.hold_losers(cause, user, &losers);
                }
                self.was_staged(cause.source, cause.key, old.state);
                self.settle(cause, user, Some(before), after)
            }
            Step::Erases => {
                link.state = LinkState::Gone(reason);
                self.erase(cause, user, before, after, at)
            }
            Step::Purges => self.purge(user, before),
            Step::Stays => {
                link.state = match old.state {
                    LinkState::Suspected(_) => LinkState::Suspected(reason),
                    LinkState::Erasing(_) => LinkState::Erasing(reason),
                    LinkState::Gone(_) | LinkState::Live | LinkState::Held(_) => {
                        LinkState::Gone(reason)
                    }
                };
                if cause.counts() {
                    self.plan.counters.unchanged += 1;
                }
                self.write_unseen(user, after);
                Ok(())
            }
        }
    }

    /// What evidence that a record is gone does to its user now.
    fn next_step(&self, cause: &Cause<'_>, document: &Document<'_>, at: usize) -> Step {
        let rules = &cause.rules.leaver;
        let link = &document.links[at];
        let is_over = |kind, since_us| {
            let delay = rules.delay_us(kind);
            delay.is_some_and(|delay| self.now_us >= delay.saturating_add(since_us))
        };
        match (link.state, document.state) {
            (LinkState::Live | LinkState::Held(_), _) => Step::Leaves,
            (LinkState::Suspected(_), _) if is_over(DueKind::Grace, link.since_us) => Step::Ends,
            (LinkState::Suspected(_), _) => Step::Stays,
            (_, UserState::Tombstone) if is_over(DueKind::Purge, document.updated_us) => {
                Step::Purges
            }
            (_, UserState::Deactivated(_)) if self.may_be_erased(document) => Step::Erases,
            _ => Step::Stays,
        }
    }

    fn has_grace(&self, cause: &Cause<'_>) -> bool {
        let rules = &cause.rules.leaver;
        rules.action == LeaverAction::Deactivate && rules.grace_us > 0
    }

    /// The record is gone, and its user stays as it is for now.
    fn suspect(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: &Document<'_>,
        after: &Document<'_>,
    ) {
        self.plan.counters.suspected += 1;
        self.remind(cause.source, DueKind::Grace, user);
        self.count_links(Some(before), after);
        self.wake_for(Some(before), after);
        self.write_unseen(user, after);
    }

    /// What was a loser may now be the winner and belong to somebody else. The user then
    /// goes without; gives the links that this value came from.
    pub(super) fn drop_taken(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: &Document<'_>,
        after: &mut Document<'_>,
    ) -> Result<Vec<Loser>, StateError> {
        let mut losers = Vec::new();
        // Each round removes one contribution, or what an undo has put over them.
        while let Some((key, owner)) = self.collision(cause, Some(user), Some(before), after)? {
            if after.remove_undo(key.attribute).is_some() {
                continue;
            }
            let Some(lost) = after.group(key.attribute).first().copied() else {
                break;
            };
            after
                .contributions
                .retain(|c| (c.attribute, c.link) != (lost.attribute, lost.link));
            match lost.link.map(usize::from) {
                Some(at) => losers.push(Loser { at, key, owner }),
                None => after.owns.retain(|own| own.attribute != lost.attribute),
            }
            fold::order(self.rules, after);
        }
        Ok(losers)
    }

    /// Holds records whose value was dropped, as if they had come with it now.
    pub(super) fn hold_losers(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        losers: &[Loser],
    ) -> Result<(), StateError> {
        for loser in losers {
            let mut bytes = self.ws.buffer();
            self.load_user(user, &mut bytes)?;
            let document = self.decode(&bytes)?;
            let link = document.links[loser.at];
            if let Some(rules) = self.rules.source(link.source)
                && link.state == LinkState::Live
            {
                let holder = Cause {
                    rules,
                    source: link.source,
                    key: link.key,
                    ..*cause
                };
                let kind = ConflictKind::Uniqueness;
                let key = &loser.key;
                let attribute = Some(key.attribute);
                let fp = fingerprint(&holder, kind, attribute, &key.folded);
                self.join_kind(&holder, fp, kind, attribute, link.key, &[loser.owner])?;
                let reason = SkipReason::Uniqueness;
                self.hold_link(&holder, user, &document, loser.at, reason, fp, Some(key))?;
            }
            self.ws.keep(document);
            self.ws.give_back(bytes);
        }
        Ok(())
    }

    /// A link's new key is another present record's. The link is held, with its old key; if
    /// it was gone already, the row can only be the other record's, which is held if it is
    /// about somebody else. `true` when nothing was held.
    fn rename_onto(
        &mut self,
        old_cause: &Cause<'_>,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        user: UserRow,
        other: UserRow,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        self.load_user(user, bytes)?;
        let document = self.decode(bytes)?;
        let link = document.find_link(cause.source, old_cause.key);
        let present = link.is_some_and(|i| document.links[i].state.is_present());
        if present {
            self.hold_reused(old_cause, row.shadow(), &document)?;
            self.ws.keep(document);
            return Ok(false);
        }
        self.ws.keep(document);
        self.load_user(other, bytes)?;
        let document = self.decode(bytes)?;
        let is_else = self.is_somebody_else(cause.rules, &document, row);
        if is_else {
            self.hold_reused(cause, row.shadow(), &document)?;
        }
        self.ws.keep(document);
        Ok(!is_else)
    }

    /// A row that is out of scope: a leaver if it was in, otherwise only remembered.
    pub(super) fn out_of_scope(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
    ) -> Result<(), StateError> {
        match self.target(cause.source, cause.key)? {
            Some(LinkTarget::User(user)) => {
                self.leave(cause, user, LeaverReason::OutOfScope, Some(row))
            }
            Some(LinkTarget::Record) | None => {
                self.hold(cause, row.shadow(), &Holding::new(SkipReason::OutOfScope))
            }
        }
    }

    /// A record has another key from now on; its link goes with it. `false` when it was held
    /// instead, because the new key is another present record's.
    pub(super) fn rename(
        &mut self,
        cause: &Cause<'_>,
        old_key: &[u8],
        row: &MappedRow<'_>,
    ) -> Result<bool, StateError> {
        self.give_up(cause)?;
        match self.target(cause.source, old_key)? {
            None => Ok(true),
            Some(LinkTarget::Record) => {
                self.drop_record(cause, old_key, true)?;
                Ok(true)
            }
            Some(LinkTarget::User(user)) => {
                let mut bytes = self.ws.buffer();
                let result = self.rename_link(cause, old_key, row, user, &mut bytes);
                self.ws.give_back(bytes);
                result
            }
        }
    }

    /// Another record takes over a key. The link that has it may be one whose record is gone,
    /// and that still waits for a person's word: then it waits under a key of nobody, and the
    /// key is the other record's.
    fn give_up(&mut self, cause: &Cause<'_>) -> Result<(), StateError> {
        let Some(LinkTarget::User(user)) = self.target(cause.source, cause.key)? else {
            return Ok(());
        };
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let mut document = self.decode(&bytes)?;
        let waits = |link: &Link<'_>| link.state == LinkState::Held(SkipReason::StagedLeaver);
        // In one batch several users may give up the same key, but none of them twice.
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&user.0.to_be_bytes());
        mark[8..].copy_from_slice(&self.now_us.to_be_bytes());
        let nobodys = RecordKey::given_up(cause.key, mark);
        let waiting = document.find_link(cause.source, cause.key);
        if let Some(at) = waiting.filter(|&at| waits(&document.links[at])) {
            let link = &mut document.links[at];
            self.was_staged(cause.source, cause.key, link.state);
            link.key = nobodys.as_bytes();
            let of_link = Cause {
                key: link.key,
                ..*cause
            };
            self.set_staged(&of_link, Counted::Deleted, 0);
            self.write_unseen(user, &document);
            self.point(cause.source, cause.key, None);
            self.point(
                cause.source,
                nobodys.as_bytes(),
                Some(LinkTarget::User(user)),
            );
        }
        self.ws.keep(document);
        self.ws.give_back(bytes);
        Ok(())
    }

    fn rename_link(
        &mut self,
        cause: &Cause<'_>,
        old_key: &[u8],
        row: &MappedRow<'_>,
        user: UserRow,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        let old_cause = Cause {
            key: old_key,
            ..*cause
        };
        let in_the_way = match self.target(cause.source, cause.key)? {
            Some(LinkTarget::User(other)) => {
                let taken = self
                    .stored(cause.source, cause.key, bytes)?
                    .is_some_and(|s| s.present);
                if taken {
                    return self.rename_onto(&old_cause, cause, row, user, other, bytes);
                }
                self.load_user(other, bytes)?;
                let document = self.decode(bytes)?;
                self.cede(other, &document, cause.source, cause.key);
                self.ws.keep(document);
                false
            }
            Some(LinkTarget::Record) => true,
            None => false,
        };
        self.load_user(user, bytes)?;
        let mut document = self.decode(bytes)?;
        self.cede_all(user, &mut document);
        let Some(at) = document.find_link(cause.source, old_key) else {
            self.ws.keep(document);
            return Ok(true);
        };
        if in_the_way {
            self.drop_record(cause, cause.key, false)?;
        }
        let link = &mut document.links[at];
        let hold = std::mem::take(&mut link.hold);
        link.key = cause.key;
        let state = link.state;
        if state.is_present() && state.is_staged() {
            // The row that comes with the new key is looked at for itself.
            (link.state, link.hash) = (LinkState::Live, 0);
        }
        self.was_staged(cause.source, old_key, state);
        self.release(cause, old_key, hold, &[])?;
        self.write_unseen(user, &document);
        self.ws.keep(document);
        self.point(cause.source, old_key, None);
        self.point(cause.source, cause.key, Some(LinkTarget::User(user)));
        Ok(true)
    }
}
