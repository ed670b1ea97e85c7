//! Records that end, leave the scope, or change their key.
//!
//! Every leaver has evidence: these are the only places where a link becomes
//! [`LinkState::Gone`], and each is given its reason by the caller.

use super::correlate::{Key, fingerprint};
use super::hold::Holding;
use super::rules::LeaverAction;
use super::{Cause, Resolver, fold};
use crate::conflict::ConflictKind;
use crate::document::{Document, LinkState};
use crate::id::{UserId, UserRow};
use crate::mapped::MappedRow;
use crate::reason::{LeaverReason, SkipReason};
use crate::state::{LinkTarget, StateError};

/// A link whose value may not take over, because it is somebody else's.
struct Loser {
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
        if row.is_some() && !old.state.is_present() && cause.is_stored_already(old.hash) {
            self.plan.counters.unchanged += 1;
            return Ok(());
        }
        let link = &mut after.links[at];
        cause.stamp(link);
        if let Some(row) = row {
            link.hash = cause.hash;
            link.shadow = row.shadow();
        }
        // A key that was deleted stays deleted until the record has its user again: who has
        // it next may be somebody else.
        link.state = match old.state {
            LinkState::Gone(first) if row.is_some() || first != LeaverReason::OutOfScope => {
                LinkState::Gone(first)
            }
            _ => LinkState::Gone(reason),
        };
        link.hold = &[];
        if !old.state.is_present() {
            if cause.counts() {
                self.plan.counters.unchanged += 1;
            }
            self.write_unseen(user, after);
            return Ok(());
        }
        self.release(cause, cause.key, old.hold, &[])?;
        if cause.rules.leaver == LeaverAction::Deactivate {
            fold::drop_former(self.rules, after);
            after.state = fold::decide(after, Some(reason));
            if self.stages_leaver(cause, user, row.is_some(), before, after, at) {
                return Ok(());
            }
            self.was_staged(cause.source, cause.key, old.state);
            let losers = self.drop_taken(cause, user, before, after)?;
            self.settle(cause, user, Some(before), after)?;
            return self.hold_losers(cause, user, &losers);
        }
        self.was_staged(cause.source, cause.key, old.state);
        self.settle(cause, user, Some(before), after)
    }

    /// What was a loser may now be the winner and belong to somebody else. The user then
    /// goes without; gives the links that this value came from.
    fn drop_taken(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: &Document<'_>,
        after: &mut Document<'_>,
    ) -> Result<Vec<Loser>, StateError> {
        let mut losers = Vec::new();
        // Each round removes one contribution.
        while let Some((key, owner)) = self.collision(cause, Some(user), Some(before), after)? {
            let Some(lost) = after.group(key.attribute).first().copied() else {
                break;
            };
            after
                .contributions
                .retain(|c| (c.attribute, c.link) != (lost.attribute, lost.link));
            if let Some(at) = lost.link.map(usize::from) {
                losers.push(Loser { at, key, owner });
            }
        }
        Ok(losers)
    }

    /// Holds records whose value was dropped, as if they had come with it now.
    fn hold_losers(
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
                false
            }
            Some(LinkTarget::Record) => true,
            None => false,
        };
        self.load_user(user, bytes)?;
        let mut document = self.decode(bytes)?;
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
        if state.is_staged() {
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
