//! Writing: a user's new document, its events, its match keys.

use smallvec::SmallVec;

use super::correlate::Key;
use super::{Cause, Resolver, fold};
use crate::attribute::{AttrId, DISPLAY_NAME, USER_NAME};
use crate::document::{Document, UserState};
use crate::id::{UserRow, ValueHash};
use crate::plan::{Columns, UserWrite};
use crate::state::StateError;

impl Resolver<'_> {
    /// Compares a user before (none for a new one) and after, emits what others can see of
    /// it, and puts the result into the plan.
    pub(super) fn settle(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: Option<&Document<'_>>,
        after: &mut Document<'_>,
    ) -> Result<(), StateError> {
        self.count_links(before, after);
        let names = |d: &Document<'_>| !(d.references.is_empty() && d.undos.is_empty());
        if names(after) || before.is_some_and(names) {
            self.bring_referring(user, before, after);
        }
        if !after.owns.is_empty() || before.is_some_and(|b| !b.owns.is_empty()) {
            self.tell_ties(cause, before, after)?;
            self.tell_pins(user, before, after);
        }
        let Some(before) = before else {
            self.plan.counters.created += 1;
            self.gain_keys(user, None, after);
            self.wake_for(None, after);
            self.emit_created(cause, after);
            self.write(user, after, true, true);
            return Ok(());
        };
        self.wake_for(Some(before), after);
        if before.state == UserState::Tombstone {
            return self.undelete(cause, user, before, after);
        }
        let switched = before.is_active() != after.is_active();
        after.version = before.version + 1;
        after.updated_us = self.now_us;
        let differences = fold::diff(self.rules, before, after);
        let changed = !differences.is_empty();
        if !changed && !switched {
            drop(differences);
            after.version = before.version;
            after.updated_us = before.updated_us;
            if cause.counts() {
                self.plan.counters.unchanged += 1;
            }
            self.gain_keys(user, Some(before), after);
            self.write(user, after, false, false);
            return Ok(());
        }
        match (switched, after.is_active()) {
            (true, false) => self.plan.counters.deactivated += 1,
            (true, true) => self.plan.counters.activated += 1,
            (false, _) => self.plan.counters.updated += 1,
        }
        if changed {
            self.emit_updated(cause, after, &differences);
        }
        if switched {
            self.emit_status(cause, before, after);
        }
        self.gain_keys(user, Some(before), after);
        let columns = switched
            || differences
                .iter()
                .any(|d| d.attribute == USER_NAME || d.attribute == DISPLAY_NAME);
        drop(differences);
        self.write(user, after, false, columns);
        Ok(())
    }

    /// A deleted user is there again: for others it is a new one, with an id that they have seen.
    fn undelete(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        before: &Document<'_>,
        after: &mut Document<'_>,
    ) -> Result<(), StateError> {
        after.version = before.version + 1;
        after.updated_us = self.now_us;
        self.plan.counters.created += 1;
        self.plan.undeleted += 1;
        self.relinked_all(user, after);
        self.gain_keys(user, None, after);
        self.emit_created(cause, after);
        self.write(user, after, false, true);
        Ok(())
    }

    /// Counts links to active users, by source. Links are never removed, and settling is
    /// the only way for one to come, to go, or to have another user.
    pub(super) fn count_links(&mut self, before: Option<&Document<'_>>, after: &Document<'_>) {
        let counts = |document: &Document<'_>, at: usize| {
            let link = document.links.get(at);
            document.is_active() && link.is_some_and(|l| l.state.is_present())
        };
        for (at, link) in after.links.iter().enumerate() {
            let (was, is) = (before.is_some_and(|b| counts(b, at)), counts(after, at));
            if was != is {
                self.plan.set_linked(link.source, if is { 1 } else { -1 });
            }
        }
    }

    /// Brings the index of values along. All contributions are in it, not only winners: a
    /// duplicate is looked for among what the source said, whoever won.
    pub(super) fn gain_keys(
        &mut self,
        user: UserRow,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) {
        let unchanged = |before: &Document<'_>| {
            before.undos == after.undos
                && self.rules.key_attributes().iter().all(|&attribute| {
                    let (old, new) = (before.group(attribute), after.group(attribute));
                    old.len() == new.len() && old.iter().zip(new).all(|(a, b)| a.value == b.value)
                })
        };
        if before.is_some_and(unchanged) {
            return;
        }
        let old = before.map(|b| self.values(b)).unwrap_or_default();
        let new = self.values(after);
        for hash in old.iter().filter(|h| !new.contains(h)) {
            self.plan.set_owner(*hash, user, false);
        }
        for hash in new.iter().filter(|h| !old.contains(h)) {
            self.plan.set_owner(*hash, user, true);
        }
    }

    /// Everything under which a user is found, each once.
    fn values(&self, document: &Document<'_>) -> SmallVec<[ValueHash; 4]> {
        let mut values: SmallVec<[ValueHash; 4]> = SmallVec::new();
        let mut last: Option<&[u8]> = None;
        for &attribute in self.rules.key_attributes() {
            let put = document.undo(attribute);
            let put = put.and_then(|_| document.value(attribute));
            let said = document.group(attribute).iter().map(|c| c.value);
            for value in said.chain(put) {
                // Mostly userName and email are the same.
                if last == Some(value) {
                    continue;
                }
                last = Some(value);
                if let Some(key) = Key::of(attribute, value)
                    && !values.contains(&key.value)
                {
                    values.push(key.value);
                }
            }
        }
        values
    }

    /// Puts a document into the plan of which nothing changed that others can see.
    pub(super) fn write_unseen(&mut self, user: UserRow, document: &Document<'_>) {
        self.write(user, document, false, false);
    }

    pub(super) fn write(
        &mut self,
        user: UserRow,
        document: &Document<'_>,
        is_new: bool,
        columns: bool,
    ) {
        let mut bytes = self.ws.buffer();
        document.encode(&mut bytes);
        let text = |attribute: AttrId| {
            let value = document.value(attribute)?;
            std::str::from_utf8(value).ok()
        };
        let columns = columns.then(|| Columns {
            user_name: text(USER_NAME),
            display_name: text(DISPLAY_NAME),
        });
        let write = UserWrite {
            document: &bytes,
            columns,
            active: document.is_active(),
            updated_us: document.updated_us,
            is_new,
        };
        self.plan.users.put(user, &write);
        self.ws.give_back(bytes);
    }

    /// Why a user is active again.
    pub(super) fn activation_reason(before: &Document<'_>) -> &'static str {
        use crate::reason::LeaverReason;
        match before.state {
            UserState::Deactivated(LeaverReason::Status) => "status",
            UserState::Deactivated(LeaverReason::OutOfScope) => "in_scope",
            UserState::Deactivated(LeaverReason::Undone) => "undo_ended",
            _ => "rehired",
        }
    }
}
