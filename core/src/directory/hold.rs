//! Records that are not applied: what they wait for, and the conflicts that name them.
//!
//! The invariant: a record waits for exactly what its stored [`Hold`] names, and is named by
//! exactly the conflicts of it. Every change of a hold goes through [`Resolver::release`]
//! with the old and the new form, which brings both indexes along and wakes whoever reads
//! what changed. A conflict is closed when it names no record any more.

use smallvec::SmallVec;

use super::correlate::{Key, Keys, fingerprint, heals};
use super::workspace::Touch;
use super::{Cause, Origin, Resolver};
use crate::attribute::AttrId;
use crate::conflict::{ConflictKind, ConflictRow, Fingerprint};
use crate::document::{Document, Hold, LinkState, Record};
use crate::id::{MatchHash, UserId, UserRow};
use crate::plan::Noted;
use crate::reason::SkipReason;
use crate::staged::Counting;
use crate::state::{KeyBytes, LinkTarget, StateError};

/// A decision not to apply a record.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) reason: SkipReason,
    pub(super) rule: Option<u16>,
    /// The attribute concerned, for whoever reads of it.
    pub(super) attribute: Option<AttrId>,
    pub(super) conflicts: SmallVec<[Fingerprint; 2]>,
    pub(super) pending: Vec<Key>,
    pub(super) blocked: Vec<Key>,
}

impl Holding {
    pub(super) fn new(reason: SkipReason) -> Self {
        Holding {
            reason,
            rule: None,
            attribute: None,
            conflicts: SmallVec::new(),
            pending: Vec::new(),
            blocked: Vec::new(),
        }
    }

    /// Appends the hold, with what else it waits for; nothing when there is nothing to say.
    fn encode(&self, also: Option<&Key>, out: &mut Vec<u8>) {
        if self.rule.is_none()
            && self.conflicts.is_empty()
            && self.pending.is_empty()
            && self.blocked.is_empty()
            && also.is_none()
        {
            return;
        }
        let hold = Hold {
            rule: self.rule,
            conflicts: self.conflicts.clone(),
            pending: self
                .pending
                .iter()
                .map(|k| (k.attribute, &k.folded[..]))
                .collect(),
            blocked: self
                .blocked
                .iter()
                .chain(also)
                .map(|k| (k.attribute, &k.folded[..]))
                .collect(),
        };
        hold.encode(out);
    }
}

/// Names the conflict of a key that came back with somebody else's data.
pub(super) fn reuse(cause: &Cause<'_>) -> Fingerprint {
    fingerprint(cause, ConflictKind::KeyReuse, None, &[])
}

impl Resolver<'_> {
    /// Stores a record's new image without applying it. Its user, if it has one, stays as it
    /// is.
    pub(super) fn hold(
        &mut self,
        cause: &Cause<'_>,
        shadow: &[u8],
        holding: &Holding,
    ) -> Result<(), StateError> {
        self.leave_out(cause, holding.reason, holding.attribute, holding.rule);
        let mut hold = self.ws.buffer();
        let mut bytes = self.ws.buffer();
        let result = self.hold_in(cause, shadow, holding, &mut hold, &mut bytes);
        self.ws.give_back(bytes);
        self.ws.give_back(hold);
        result
    }

    /// Counts and names a record that is not applied, unless it is considered once more.
    pub(super) fn leave_out(
        &mut self,
        cause: &Cause<'_>,
        reason: SkipReason,
        attribute: Option<AttrId>,
        rule: Option<u16>,
    ) {
        // What a scan holds back is decided on when it ends, and counts then.
        let is_open = reason.is_staged() && cause.rules.counting == Counting::HoldBack;
        if cause.counts() && !is_open {
            let concerns = (attribute, rule);
            self.plan
                .leave_out(cause.source, cause.key, reason, concerns);
        }
    }

    /// The same for a scanned row that is stored already, and was not applied then.
    pub(super) fn leave_out_again(
        &mut self,
        cause: &Cause<'_>,
        reason: SkipReason,
        hold: &[u8],
    ) -> Result<(), StateError> {
        let hold = Hold::decode(hold);
        let conflict = match hold.conflicts.first() {
            Some(fp) => self.open_conflict(*fp)?,
            None => None,
        };
        let attribute = conflict.and_then(|c| c.attribute);
        let attribute = attribute.and_then(|name| self.rules.attributes.by_name(&name));
        self.leave_out(cause, reason, attribute.map(|a| a.id), hold.rule);
        Ok(())
    }

    /// Counts and names a record that is applied again.
    pub(super) fn healed(&mut self, cause: &Cause<'_>, reason: SkipReason) {
        if reason == SkipReason::OutOfScope || reason.is_staged() {
            return;
        }
        self.plan.counters.healed += 1;
        self.plan.noted.push(Noted {
            source: cause.source,
            key: KeyBytes::from_slice(cause.key),
            reason,
            healed: true,
            attribute: None,
            rule: None,
        });
    }

    fn hold_in(
        &mut self,
        cause: &Cause<'_>,
        shadow: &[u8],
        holding: &Holding,
        hold: &mut Vec<u8>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        let reason = holding.reason;
        let mut former = None;
        let mut old_hold: &[u8] = &[];
        let mut known_tx: &[u8] = &[];
        let mut is_new = true;
        match self.target(cause.source, cause.key)? {
            Some(LinkTarget::User(user)) => {
                self.load_user(user, bytes)?;
                let mut document = self.decode(bytes)?;
                let present = document
                    .find_link(cause.source, cause.key)
                    .filter(|&i| document.links[i].state.is_present());
                if let Some(i) = present {
                    let old = document.links[i];
                    if cause.is_stored_already(old.hash) {
                        self.ws.keep(document);
                        return Ok(());
                    }
                    holding.encode(None, hold);
                    let link = &mut document.links[i];
                    link.state = LinkState::Held(reason);
                    link.hold = hold;
                    link.hash = cause.hash;
                    link.shadow = shadow;
                    cause.stamp(link);
                    let link = *link;
                    if !reason.is_staged() {
                        self.was_staged(cause.source, cause.key, old.state);
                    }
                    if link != old {
                        self.release(cause, cause.key, old.hold, hold)?;
                        self.write_unseen(user, &document);
                    }
                    if link.state != old.state {
                        self.wake_user(&document);
                    }
                    self.ws.keep(document);
                    return Ok(());
                }
                self.cede(user, &document, cause.source, cause.key);
                let former_link = document.find_link(cause.source, cause.key);
                known_tx = former_link.map_or(known_tx, |i| document.links[i].tx);
                let moved_on = document.present_link_of(cause.source).is_some();
                former = former_link
                    .filter(|_| !moved_on)
                    .map(|_| (user, Key::of_user(&document)));
                self.ws.keep(document);
            }
            Some(LinkTarget::Record) => {
                self.load_record(cause.source, cause.key, bytes)?;
                let old = Record::decode(bytes).map_err(|e| StateError(e.to_string()))?;
                if cause.is_stored_already(old.hash) {
                    return Ok(());
                }
                if let Some(user) = old.former {
                    former = self.still_former(cause, user)?.map(|key| (user, key));
                }
                if !reason.is_staged() {
                    self.was_staged(cause.source, cause.key, LinkState::Held(old.reason));
                }
                known_tx = old.tx;
                is_new = false;
                old_hold = old.hold;
            }
            None => {}
        }
        let also = former.as_ref().map(|(_, key)| key);
        holding.encode(also.filter(|_| heals(reason)), hold);
        self.release(cause, cause.key, old_hold, hold)?;
        let record = Record {
            reason,
            former: former.map(|(user, _)| user),
            tx: if cause.tx.is_empty() {
                known_tx
            } else {
                cause.tx
            },
            position: cause.position,
            commit_us: cause.commit_us,
            hash: cause.hash,
            hold,
            shadow,
        };
        let mut written = Vec::new();
        record.encode(&mut written);
        if is_new {
            self.point(cause.source, cause.key, Some(LinkTarget::Record));
        }
        let key = (cause.source, KeyBytes::from_slice(cause.key));
        self.plan.records.insert(key, Some(written));
        Ok(())
    }

    /// A former user, unless it is linked by another record of the source: the key that once
    /// led to it has nothing to do with it any more.
    fn still_former(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
    ) -> Result<Option<Key>, StateError> {
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let document = self.decode(&bytes)?;
        let moved_on = document.present_link_of(cause.source).is_some();
        let key = (!moved_on).then(|| Key::of_user(&document));
        self.ws.keep(document);
        self.ws.give_back(bytes);
        Ok(key)
    }

    /// Holds a record because its key came back with somebody else's data.
    pub(super) fn hold_reused(
        &mut self,
        cause: &Cause<'_>,
        shadow: &[u8],
        document: &Document<'_>,
    ) -> Result<(), StateError> {
        let kind = ConflictKind::KeyReuse;
        let fp = reuse(cause);
        self.join_kind(cause, fp, kind, None, cause.key, &[document.id])?;
        let mut holding = Holding::new(SkipReason::KeyReuse);
        holding.conflicts.push(fp);
        self.hold(cause, shadow, &holding)
    }

    /// Makes another record of the source a part of a duplicate: if it was applied it is
    /// held from now on, if it was held for something else it is held for this.
    pub(super) fn hold_other(
        &mut self,
        cause: &Cause<'_>,
        key: &[u8],
        fp: Fingerprint,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        let mut new = self.ws.buffer();
        let result = self.hold_other_in(cause, key, fp, &mut bytes, &mut new);
        self.ws.give_back(bytes);
        self.ws.give_back(new);
        result
    }

    fn hold_other_in(
        &mut self,
        cause: &Cause<'_>,
        key: &[u8],
        fp: Fingerprint,
        bytes: &mut Vec<u8>,
        new: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        let duplicate = SkipReason::DuplicateInSource;
        let extend = |old: &Hold<'_>, was_duplicate: bool| {
            let mut conflicts = SmallVec::new();
            if was_duplicate {
                conflicts.extend(old.conflicts.iter().copied().filter(|c| *c != fp));
            }
            conflicts.push(fp);
            conflicts
        };
        match self.target(cause.source, key)? {
            None => Ok(()),
            Some(LinkTarget::Record) => {
                self.load_record(cause.source, key, bytes)?;
                let old = Record::decode(bytes).map_err(|e| StateError(e.to_string()))?;
                let mut hold = Hold::decode(old.hold);
                hold.conflicts = extend(&hold, old.reason == duplicate);
                hold.encode(new);
                self.release(cause, key, old.hold, new)?;
                self.wake(cause.source, key);
                let record = Record {
                    reason: duplicate,
                    hold: new,
                    ..old
                };
                let mut written = Vec::new();
                record.encode(&mut written);
                let key = (cause.source, KeyBytes::from_slice(key));
                self.plan.records.insert(key, Some(written));
                Ok(())
            }
            Some(LinkTarget::User(user)) => {
                self.load_user(user, bytes)?;
                let document = self.decode(bytes)?;
                let at = document.find_link(cause.source, key);
                let result = match at {
                    Some(at) => self.hold_link(cause, user, &document, at, duplicate, fp, None),
                    None => Ok(()),
                };
                self.ws.keep(document);
                result
            }
        }
    }

    /// Marks a present link as held without a new image. It waits for the match keys that it
    /// gave (or waited for already) and for what is `blocked`.
    #[expect(clippy::too_many_arguments, reason = "one link, and why it is held")]
    pub(super) fn hold_link(
        &mut self,
        cause: &Cause<'_>,
        user: UserRow,
        document: &Document<'_>,
        at: usize,
        reason: SkipReason,
        fp: Fingerprint,
        blocked: Option<&Key>,
    ) -> Result<(), StateError> {
        let old = document.links[at];
        let was = Hold::decode(old.hold);
        let given: Keys = self.given_keys(cause, document, at);
        let mut hold = Hold {
            rule: was.rule,
            ..Hold::default()
        };
        if old.state == LinkState::Held(reason) {
            hold.conflicts
                .extend(was.conflicts.iter().copied().filter(|c| *c != fp));
        }
        hold.conflicts.push(fp);
        if was.pending.is_empty() {
            let keys = given.iter().map(|k| (k.attribute, &k.folded[..]));
            hold.pending.extend(keys);
        } else {
            hold.pending.extend(was.pending.iter().copied());
        }
        hold.blocked
            .extend(blocked.map(|k| (k.attribute, &k.folded[..])));
        let mut new = self.ws.buffer();
        hold.encode(&mut new);
        self.release(cause, old.key, old.hold, &new)?;
        let mut after = document.clone_with(self.ws.spare());
        let link = &mut after.links[at];
        link.hold = &new;
        link.state = LinkState::Held(reason);
        self.write_unseen(user, &after);
        self.wake(cause.source, old.key);
        self.wake_user(&after);
        self.ws.keep(after);
        self.ws.give_back(new);
        Ok(())
    }

    /// The match keys that a link gave its user.
    fn given_keys(&self, cause: &Cause<'_>, document: &Document<'_>, at: usize) -> Keys {
        let mut keys = Keys::new();
        for &attribute in &cause.rules.match_attributes {
            let given = document
                .group(attribute)
                .iter()
                .find(|c| c.link == Some(at as u16));
            if !self.rules.is_list(attribute) {
                keys.extend(given.and_then(|c| Key::of(attribute, c.value)));
            }
        }
        keys
    }

    /// Brings the indexes from one form of a record's hold to another. Empty bytes: the
    /// record is not held.
    pub(super) fn release(
        &mut self,
        cause: &Cause<'_>,
        key: &[u8],
        old: &[u8],
        new: &[u8],
    ) -> Result<(), StateError> {
        if old == new {
            return Ok(());
        }
        let (old, new) = (Hold::decode(old), Hold::decode(new));
        let mut left = false;
        for fp in old.conflicts.iter().filter(|f| !new.conflicts.contains(f)) {
            self.leave_conflict(cause, *fp, key)?;
            left = true;
        }
        for pending in old
            .waits_for()
            .filter(|o| !new.waits_for().any(|n| n == *o))
        {
            let hash = MatchHash::of(pending.0, pending.1);
            self.plan.set_waiting(hash, cause.source, key, false);
        }
        for pending in new
            .waits_for()
            .filter(|n| !old.waits_for().any(|o| o == *n))
        {
            let hash = MatchHash::of(pending.0, pending.1);
            self.plan.set_waiting(hash, cause.source, key, true);
        }
        let gained = new.pending.iter().filter(|n| !old.pending.contains(n));
        for &(attribute, folded) in old.pending.iter().chain(gained) {
            let kept = new.pending.contains(&(attribute, folded))
                && old.pending.contains(&(attribute, folded));
            // Only records of this source that have the key too can read of this one, and
            // while a duplicate names several, none of them can be applied.
            if (left || !kept) && !self.is_contested(cause, attribute, folded)? {
                self.ws.touched.push(MatchHash::of(attribute, folded));
            }
        }
        Ok(())
    }

    /// Whether a duplicate names several records for a match key.
    fn is_contested(
        &mut self,
        cause: &Cause<'_>,
        attribute: AttrId,
        folded: &[u8],
    ) -> Result<bool, StateError> {
        let kind = ConflictKind::DuplicateInSource;
        let fp = fingerprint(cause, kind, Some(attribute), folded);
        let several = |c: &ConflictRow| c.closed_us.is_none() && c.records.len() > 1;
        Ok(match self.plan.conflicts.get(&fp) {
            Some(conflict) => several(conflict),
            None => self.state.conflict(fp)?.is_some_and(|c| several(&c)),
        })
    }

    /// Forgets the row of a record that has no user. `restore`: the key leads to its former
    /// user again, if it had one.
    pub(super) fn drop_record(
        &mut self,
        cause: &Cause<'_>,
        key: &[u8],
        restore: bool,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        self.load_record(cause.source, key, &mut bytes)?;
        let record = Record::decode(&bytes).map_err(|e| StateError(e.to_string()))?;
        self.release(cause, key, record.hold, &[])?;
        self.was_staged(cause.source, key, LinkState::Held(record.reason));
        if restore {
            self.point(cause.source, key, record.former.map(LinkTarget::User));
        }
        let key = (cause.source, KeyBytes::from_slice(key));
        self.plan.records.insert(key, None);
        self.ws.give_back(bytes);
        Ok(())
    }

    /// An open conflict, as the plan will leave it.
    pub(super) fn open_conflict(
        &mut self,
        fp: Fingerprint,
    ) -> Result<Option<ConflictRow>, StateError> {
        let conflict = match self.plan.conflicts.get(&fp) {
            Some(c) => Some(c.clone()),
            None => self.state.conflict(fp)?,
        };
        Ok(conflict.filter(|c| c.closed_us.is_none()))
    }

    pub(super) fn join(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        attribute: Option<AttrId>,
        key: &[u8],
        users: &[UserId],
    ) -> Result<(), StateError> {
        let kind = ConflictKind::DuplicateInSource;
        self.join_kind(cause, fp, kind, attribute, key, users)
    }

    /// Lets a conflict name a record and users; opens it if it is not.
    pub(super) fn join_kind(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        kind: ConflictKind,
        attribute: Option<AttrId>,
        key: &[u8],
        users: &[UserId],
    ) -> Result<(), StateError> {
        let row = self.opened(cause, fp, kind, attribute)?;
        if let Err(at) = row.records.binary_search_by(|r| r[..].cmp(key)) {
            row.records.insert(at, KeyBytes::from_slice(key));
        }
        for user in users {
            if let Err(at) = row.users.binary_search(user) {
                row.users.insert(at, *user);
            }
        }
        Ok(())
    }

    /// A conflict, which is open from here on if it was not.
    pub(super) fn opened(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        kind: ConflictKind,
        attribute: Option<AttrId>,
    ) -> Result<&mut ConflictRow, StateError> {
        self.touch_conflict(cause, fp)?;
        let attributes = &self.rules.attributes;
        let now_us = self.now_us;
        let row = self
            .plan
            .conflicts
            .entry(fp)
            .or_insert_with(|| ConflictRow {
                fingerprint: fp,
                kind,
                source: cause.source,
                records: Vec::new(),
                users: Vec::new(),
                attribute: attribute
                    .and_then(|a| attributes.get(a))
                    .map(|a| a.name.clone()),
                opened_us: now_us,
                closed_us: None,
                decision: None,
            });
        if row.closed_us.take().is_some() {
            row.users.clear();
            row.decision = None;
        }
        Ok(row)
    }

    /// A conflict no longer names a record.
    fn leave_conflict(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        key: &[u8],
    ) -> Result<(), StateError> {
        self.touch_conflict(cause, fp)?;
        let now_us = self.now_us;
        let Some(row) = self.plan.conflicts.get_mut(&fp) else {
            return Ok(());
        };
        row.records.retain(|r| r[..] != *key);
        if row.records.is_empty() && row.closed_us.is_none() {
            row.closed_us = Some(now_us);
        }
        Ok(())
    }

    /// A conflict names nothing any more.
    pub(super) fn close_conflict(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
    ) -> Result<(), StateError> {
        self.touch_conflict(cause, fp)?;
        let now_us = self.now_us;
        if let Some(row) = self.plan.conflicts.get_mut(&fp)
            && row.closed_us.is_none()
        {
            row.closed_us = Some(now_us);
        }
        Ok(())
    }

    /// Brings a conflict into the plan, if it is open, and remembers what it was.
    pub(super) fn touch_conflict(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
    ) -> Result<(), StateError> {
        let seen = self.ws.conflicts.iter().position(|t| t.fingerprint == fp);
        let id = self.conflict_event_id(cause, fp);
        let is_of_log = cause.origin == Origin::Log;
        if let Some(touch) = seen.and_then(|i| self.ws.conflicts.get_mut(i)) {
            touch.id = id;
            touch.is_of_log = is_of_log;
            touch.position.clear();
            touch.position.push_str(cause.position);
            // A record that heals is considered from its shadow, with its own old time.
            touch.time_us = touch.time_us.max(cause.commit_us);
            return Ok(());
        }
        let is_open = |c: &ConflictRow| c.closed_us.is_none();
        // Another batch of the same plan may have told of it already.
        let planned = self.plan.conflicts.get(&fp).map(is_open);
        let was_open = match planned {
            Some(was_open) => was_open,
            None => {
                let stored = self.state.conflict(fp)?;
                let was_open = stored.as_ref().is_some_and(is_open);
                if let Some(row) = stored {
                    self.plan.conflicts.insert(fp, row);
                }
                was_open
            }
        };
        self.ws.conflicts.push(Touch {
            fingerprint: fp,
            was_open,
            was_planned: planned.is_some(),
            source: cause.source,
            position: cause.position.to_owned(),
            time_us: cause.commit_us,
            id,
            is_of_log,
        });
        Ok(())
    }
}
