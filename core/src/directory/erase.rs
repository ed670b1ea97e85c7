//! The end of a user: deleted, and later forgotten.
//!
//! A user is deleted when all its records are gone, it is not active, and every source that
//! one of them came from has waited for its `delete_after`. Others are told with
//! [`crate::event::EventKind::UserDeleted`], and everything that says who it was goes: values,
//! rows of records, match keys. A tombstone stays: the id, the links, and hashes
//! ([`Remains`]), so that a record that comes back with the same person gets the same id, and
//! one with another person does not. When `purge_after` is over, that goes too.
//!
//! A deletion takes something away from somebody, so it counts against the source's limit.
//! What waits for a person's word is [`LinkState::Erasing`]: the record's return ends it, as
//! it ends everything here.

use super::rules::LeaverAction;
use super::{Cause, ChangeRef, Origin, Resolver};
use crate::document::{Document, Link, LinkState, Record, Remains, UserState};
use crate::event::EventKind;
use crate::event::body;
use crate::id::{SourceId, UserRow};
use crate::mapping;
use crate::plan::{Due, DueKind};
use crate::reason::{LeaverReason, SkipReason};
use crate::staged::Counted;
use crate::state::{KeyBytes, LinkTarget, StateError};

impl Resolver<'_> {
    /// Lets a user be looked at again when the rules of the source say so.
    pub(super) fn remind(&mut self, source: SourceId, kind: DueKind, user: UserRow) {
        let due = Due {
            source,
            kind,
            since_us: self.now_us,
            user,
        };
        self.plan.due.push((due, true));
    }

    /// Whether all records of an inactive user are gone for as long as their sources wait. A
    /// source that ignores leavers, or is not configured any more, has no say; one that never
    /// deletes keeps the user.
    pub(super) fn may_be_erased(&self, document: &Document<'_>) -> bool {
        let mut asked = false;
        for link in &document.links {
            if link.state.feeds() {
                return false;
            }
            let Some(rules) = self.rules.source(link.source).map(|s| &s.leaver) else {
                continue;
            };
            if rules.action == LeaverAction::Ignore {
                continue;
            }
            let Some(delay) = rules.delete_after_us else {
                return false;
            };
            // Of those that went before this was kept only the user's last change is known.
            let since = match link.since_us {
                0 => document.updated_us,
                since => since,
            };
            if self.now_us < delay.saturating_add(since) {
                return false;
            }
            asked = true;
        }
        asked
    }

    /// Deletes a user, unless that is to wait. `after` is the user with what is known of the
    /// record now.
    pub(super) fn erase(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: &Document<'_>,
        after: &Document<'_>,
        at: usize,
    ) -> Result<(), StateError> {
        if self.stops(cause) {
            if !self.leads_to(cause.source, cause.key, user)? {
                // A plan names records, and this one is somebody else's: it is looked at again.
                return Ok(());
            }
            self.leave_out(cause, SkipReason::StagedLeaver, None, None);
            let mut waiting = after.clone_with(self.ws.spare());
            let link = &mut waiting.links[at];
            if let LinkState::Gone(reason) = link.state {
                link.state = LinkState::Erasing(reason);
            }
            self.set_staged(cause, Counted::Erased, 0);
            self.write_unseen(user, &waiting);
            self.ws.keep(waiting);
            return Ok(());
        }
        let mut remains = self.ws.buffer();
        self.remains(before, &mut remains);
        let mut erased = after.clone_with(self.ws.spare());
        erased.state = UserState::Tombstone;
        erased.remains = &remains;
        erased.version = before.version + 1;
        erased.updated_us = self.now_us;
        erased.contributions.clear();
        erased.evidence.clear();
        erased.owns.clear();
        erased.undos.clear();
        erased.references.clear();
        for link in &mut erased.links {
            if let LinkState::Erasing(reason) = link.state {
                link.state = LinkState::Gone(reason);
            }
            (link.shadow, link.position) = (&[], "");
        }
        for link in &before.links {
            self.was_staged(link.source, link.key, link.state);
        }
        self.plan.counters.deleted += 1;
        self.plan.undeleted -= 1;
        self.remind(cause.source, DueKind::Purge, user);
        self.wake_for(Some(before), &erased);
        self.bring_referring(user, Some(before), &erased);
        self.relinked_all(user, before);
        self.gain_keys(user, Some(before), &erased);
        self.tell_ties(cause, Some(before), &erased)?;
        self.tell_pins(user, Some(before), &erased);
        self.emit_deleted(cause, before, &erased);
        self.write(user, &erased, false, true);
        self.ws.keep(erased);
        self.ws.give_back(remains);
        Ok(())
    }

    /// The key of a record that is gone has a row again, or leads to somebody else: what waits
    /// of it waits no more.
    pub(super) fn cede(
        &mut self,
        user: UserRow,
        document: &Document<'_>,
        source: SourceId,
        key: &[u8],
    ) {
        let erasing =
            document
                .find_link(source, key)
                .and_then(|at| match document.links[at].state {
                    LinkState::Erasing(reason) => Some((at, reason)),
                    _ => None,
                });
        if let Some((at, reason)) = erasing {
            let mut after = document.clone_with(self.ws.spare());
            self.end_erasing(user, &mut after, at, reason);
            self.write_unseen(user, &after);
            self.ws.keep(after);
        }
    }

    /// A user has a record again: nothing of it waits to be deleted.
    pub(super) fn cede_all(&mut self, user: UserRow, document: &mut Document<'_>) {
        for at in 0..document.links.len() {
            if let LinkState::Erasing(reason) = document.links[at].state {
                self.end_erasing(user, document, at, reason);
            }
        }
    }

    pub(super) fn end_erasing(
        &mut self,
        user: UserRow,
        document: &mut Document<'_>,
        at: usize,
        reason: LeaverReason,
    ) {
        let link = &mut document.links[at];
        let (source, key, state) = (link.source, link.key, link.state);
        (link.state, link.since_us) = (LinkState::Gone(reason), self.now_us);
        self.was_staged(source, key, state);
        self.remind(source, DueKind::Deletion, user);
    }

    /// Hashes of what the user's sources tell people apart by.
    fn remains(&self, document: &Document<'_>, out: &mut Vec<u8>) {
        let mut attributes: Vec<_> = document
            .links
            .iter()
            .filter_map(|link| self.rules.source(link.source))
            .flat_map(|source| source.fingerprint.iter().copied())
            .collect();
        attributes.sort_unstable();
        attributes.dedup();
        let mut folded = Vec::new();
        for attribute in attributes {
            for c in document.group(attribute) {
                folded.clear();
                mapping::fold(c.value, &mut folded);
                Remains::append(document.id, attribute, &folded, out);
            }
        }
    }

    fn emit_deleted(&mut self, cause: &Cause<'_>, before: &Document<'_>, after: &Document<'_>) {
        let reason = match before.state {
            UserState::Deactivated(reason) => reason.as_str(),
            UserState::Active | UserState::Suspended | UserState::Tombstone => "",
        };
        let mut data = std::mem::take(&mut self.ws.body);
        data.clear();
        body::deleted(&mut data, after, reason);
        self.emit_user(
            cause,
            EventKind::UserDeleted,
            after.id,
            after.version,
            &data,
        );
        self.ws.body = data;
    }

    /// Forgets what is left of a deleted user.
    pub(super) fn purge(
        &mut self,
        user: UserRow,
        document: &Document<'_>,
    ) -> Result<(), StateError> {
        for link in &document.links {
            match self.target(link.source, link.key)? {
                Some(LinkTarget::User(owner)) if owner == user => {
                    self.point(link.source, link.key, None);
                }
                Some(LinkTarget::Record) => self.forget_former(link.source, link.key, user)?,
                Some(LinkTarget::User(_)) | None => {}
            }
        }
        self.relinked_all(user, document);
        self.plan.users.remove(user);
        self.plan.purged.push(user);
        Ok(())
    }

    /// A record that has no user had this one once.
    fn forget_former(
        &mut self,
        source: SourceId,
        key: &[u8],
        user: UserRow,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        self.load_record(source, key, &mut bytes)?;
        let record = Record::decode(&bytes).map_err(|e| StateError(e.to_string()))?;
        if record.former == Some(user) {
            let mut written = Vec::new();
            Record {
                former: None,
                ..record
            }
            .encode(&mut written);
            let record = (source, KeyBytes::from_slice(key));
            self.plan.records.insert(record, Some(written));
            self.wake(source, key);
        }
        self.ws.give_back(bytes);
        Ok(())
    }

    /// A record was read once more because something is due ([`crate::plan::Plan::due`]), and
    /// is gone still. Of a record that is known to be present this says nothing: the log will.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn still_gone(&mut self, source: SourceId, key: &[u8]) -> Result<(), StateError> {
        let Some(LinkTarget::User(user)) = self.target(source, key)? else {
            return Ok(());
        };
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let document = self.decode(&bytes)?;
        let link = document.find_link(source, key);
        let is_gone = link.is_some_and(|at| !document.links[at].state.is_present());
        self.ws.keep(document);
        self.ws.give_back(bytes);
        if !is_gone {
            return Ok(());
        }
        let change = self.seen_now(key);
        self.remove(source, &change, LeaverReason::Absent)
    }

    /// Looks at what is due of a user: its records are to be read once more
    /// ([`crate::plan::Plan::reread`]). A reminder that means nothing any more is removed. What
    /// a key led to that leads elsewhere by now comes to its end at once: no record is left
    /// that could come back to it.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn fall_due(&mut self, due: &Due) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        let result = self.fall_due_in(due, &mut bytes);
        self.ws.give_back(bytes);
        result?;
        self.heal()
    }

    fn fall_due_in(&mut self, due: &Due, bytes: &mut Vec<u8>) -> Result<(), StateError> {
        let rules = self.source_rules(due.source)?;
        if !self.find_user(due.user, bytes)? {
            self.plan.due.push((*due, false));
            return Ok(());
        }
        let document = self.decode(bytes)?;
        let waits = |link: &&Link<'_>| match (due.kind, document.state) {
            (DueKind::Grace, _) => matches!(link.state, LinkState::Suspected(_)),
            (DueKind::Deletion, UserState::Deactivated(_))
            | (DueKind::Purge, UserState::Tombstone) => matches!(link.state, LinkState::Gone(_)),
            (DueKind::Deletion | DueKind::Purge | DueKind::Pin, _) => false,
        };
        let of_source = document.links.iter().filter(|l| l.source == due.source);
        let mut is_due = false;
        for link in of_source.filter(waits) {
            is_due = true;
            if self.leads_to(due.source, link.key, due.user)? {
                let record = (due.source, KeyBytes::from_slice(link.key));
                self.plan.reread.push(record);
                continue;
            }
            let change = self.seen_now(link.key);
            let cause = Cause::new(rules, &change, 0);
            self.leave(&cause, due.user, LeaverReason::Absent, None)?;
            if self.plan.purged.contains(&due.user) {
                break;
            }
        }
        if !is_due {
            self.plan.due.push((*due, false));
        }
        self.ws.keep(document);
        Ok(())
    }

    /// Whether a key leads to a user, or would if its row could be applied.
    fn leads_to(
        &mut self,
        source: SourceId,
        key: &[u8],
        user: UserRow,
    ) -> Result<bool, StateError> {
        Ok(match self.target(source, key)? {
            Some(LinkTarget::User(owner)) => owner == user,
            Some(LinkTarget::Record) => {
                let mut bytes = self.ws.buffer();
                self.load_record(source, key, &mut bytes)?;
                let record = Record::decode(&bytes).map_err(|e| StateError(e.to_string()))?;
                let former = record.former;
                self.ws.give_back(bytes);
                former == Some(user)
            }
            None => false,
        })
    }

    /// A change that no source told of.
    pub(super) fn seen_now<'k>(&self, key: &'k [u8]) -> ChangeRef<'k> {
        ChangeRef {
            key,
            old_key: None,
            tx: &[],
            position: "",
            ordinal: 0,
            commit_us: self.now_us,
            origin: Origin::Scan,
        }
    }
}
