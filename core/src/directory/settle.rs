//! Writing: a user's new document, its events, its match keys.

use smallvec::SmallVec;

use super::correlate::Key;
use super::{Cause, Resolver, fold};
use crate::attribute::{AttrId, DISPLAY_NAME, USER_NAME};
use crate::document::{Document, UserState};
use crate::id::{MatchHash, UserRow};
use crate::plan::UserWrite;
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
        let Some(before) = before else {
            self.plan.counters.created += 1;
            self.gain_keys(user, None, after);
            self.wake_for(None, after);
            self.emit_created(cause, after);
            self.write(user, after, true, true);
            return Ok(());
        };
        self.wake_for(Some(before), after);
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

    /// Brings the index of match keys along. All contributions are in it, not only winners:
    /// a duplicate is looked for among what the source said, whoever won.
    fn gain_keys(&mut self, user: UserRow, before: Option<&Document<'_>>, after: &Document<'_>) {
        let values = |document: &Document<'_>, attribute: AttrId| -> SmallVec<[MatchHash; 2]> {
            document
                .group(attribute)
                .iter()
                .filter_map(|c| Key::of(attribute, c.value))
                .map(|k| k.hash)
                .collect()
        };
        let mut gained: SmallVec<[MatchHash; 4]> = SmallVec::new();
        let mut lost: SmallVec<[MatchHash; 4]> = SmallVec::new();
        for &attribute in self.rules.key_attributes() {
            let (old, new) = (
                before.map(|b| b.group(attribute)).unwrap_or_default(),
                after.group(attribute),
            );
            let unchanged =
                old.len() == new.len() && old.iter().zip(new).all(|(a, b)| a.value == b.value);
            if unchanged {
                continue;
            }
            let old = before.map(|b| values(b, attribute)).unwrap_or_default();
            let new = values(after, attribute);
            gained.extend(new.iter().copied().filter(|h| !old.contains(h)));
            lost.extend(old.iter().copied().filter(|h| !new.contains(h)));
        }
        for hash in lost {
            self.plan.match_keys.insert((hash, user), false);
        }
        for hash in gained {
            self.plan.match_keys.insert((hash, user), true);
            self.ws.owners.entry(hash).or_default().push(user);
        }
    }

    /// Puts a document whose evidence and contributions are as they were decoded into the
    /// plan.
    pub(super) fn write_values_kept(&mut self, user: UserRow, document: &Document<'_>) {
        let mut bytes = self.ws.buffer();
        document.encode_keeping_values(&mut bytes);
        self.put(user, document, bytes, false, false);
    }

    fn write(&mut self, user: UserRow, document: &Document<'_>, is_new: bool, columns: bool) {
        let mut bytes = self.ws.buffer();
        document.encode(&mut bytes);
        self.put(user, document, bytes, is_new, columns);
    }

    fn put(
        &mut self,
        user: UserRow,
        document: &Document<'_>,
        bytes: Vec<u8>,
        is_new: bool,
        columns: bool,
    ) {
        let write = self.plan.users.entry(user).or_insert_with(|| UserWrite {
            is_new,
            ..UserWrite::default()
        });
        write.document.clear();
        write.document.extend_from_slice(&bytes);
        write.active = document.is_active();
        write.updated_us = document.updated_us;
        if columns {
            let text = |attribute| {
                document
                    .value(attribute)
                    .map(|v| String::from_utf8_lossy(v).into_owned())
            };
            write.user_name = text(USER_NAME);
            write.display_name = text(DISPLAY_NAME);
            write.columns_changed = true;
        }
        self.ws.give_back(bytes);
    }

    /// Why a user is active again.
    pub(super) fn activation_reason(before: &Document<'_>) -> &'static str {
        use crate::reason::LeaverReason;
        match before.state {
            UserState::Deactivated(LeaverReason::Status) => "status",
            UserState::Deactivated(LeaverReason::OutOfScope) => "in_scope",
            _ => "rehired",
        }
    }
}
