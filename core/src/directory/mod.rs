//! Users: correlation, conflicts, leavers.
//!
//! A [`Resolver`] takes the mapped rows of one batch and writes their whole effect into a
//! [`Plan`]; it does no I/O of its own. Why the result is right:
//!
//! * **A batch sees itself.** Everything is looked up in the plan first and in the stored
//!   state after that, so several changes of one user, in one batch or in several, end the
//!   same.
//! * **A link is sticky.** A record that has a user is never correlated again; only what it
//!   contributes changes. Each link owns its contributions, so sources cannot undo each
//!   other, and winners are computed from what each source said last.
//! * **A user that a record names is asked for last** ([`refer`]): neither need be there first.
//! * **A held record changes nothing.** What cannot be decided is stored with its shadow
//!   and its match keys, and the index of waiting records leads to it from each match key.
//!   Whenever a key is given up (a user loses a value or is deactivated, a duplicate
//!   leaves), the records that wait for it are considered again from their shadows. Each
//!   such step turns a held record into an applied one or changes nothing, so it ends.
//! * **Hashes are only a hint.** What an index by [`MatchHash`] names is checked against the
//!   document before anything rests on it.
//! * **A change that leaves a user as it was** costs a comparison, emits nothing, and
//!   rewrites only the link's shadow, hash and position. A scanned row whose hash is stored
//!   already costs no write at all.
//! * **Events carry final states**, in the order of versions, so the last `user` of a
//!   user's events is the user. Conflict events are emitted when the batch ends
//!   ([`Resolver::finish`]): what opened and closed within it is not told.

mod correlate;
mod decide;
mod drift;
mod emit;
mod erase;
mod fold;
mod heal;
mod hold;
mod leave;
mod lookup;
mod memory;
mod own;
mod refer;
mod rules;
mod settle;
mod staging;
mod undo;
mod workspace;

#[cfg(test)]
mod tests;

pub use decide::Word;
pub use memory::MemoryState;
pub use own::{Author, Edit, Edited};
pub use rules::{FieldRules, LeaverAction, LeaverRules, Mode, Remap, RowKeys, Rules, SourceRules};
pub use undo::{Back, Refused, TakeBack};
pub use workspace::Workspace;

use smallvec::SmallVec;

use crate::attribute::AttrId;
use crate::conflict::Choice;
use crate::document::{Document, Evidence, Link, LinkState, Moment, Record, Remains};
use crate::id::{MatchHash, NewIds, RunId, SourceId, UserRow};
use crate::mapped::{Assigned, MappedRow, Outcome};
use crate::mapping;
use crate::plan::Plan;
use crate::reason::{LeaverReason, SkipReason};
use crate::state::{KeyBytes, LinkTarget, State, StateError};
use correlate::{Correlated, Key, Taken};
use hold::Holding;
use lookup::Stored;

/// Where a mapped row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the log: position and ordinal name the change for ever.
    Log,
    /// From a scan: run, key and row hash name it.
    Scan,
    /// From the stored shadow.
    Stored,
    /// From the identity side; the key is the user's id.
    Own,
}

/// One change of a record.
#[derive(Clone, Copy, Debug)]
pub struct ChangeRef<'a> {
    /// The record's key after the change.
    pub key: &'a [u8],
    /// Its key before the change, when that is another one.
    pub old_key: Option<&'a [u8]>,
    /// The transaction ([`rollcall_contract::TxId`] bytes); empty for a scan.
    pub tx: &'a [u8],
    /// Readable position; for a scan the position of its snapshot, or empty.
    pub position: &'a str,
    /// The number of the change in its transaction.
    pub ordinal: u32,
    /// Commit time (or when the page was read), microseconds since the Unix epoch.
    pub commit_us: i64,
    /// Where the row comes from: [`Origin::Log`] or [`Origin::Scan`].
    pub origin: Origin,
}

/// A change with its source, as everything below needs it.
#[derive(Clone, Copy)]
struct Cause<'a> {
    rules: &'a SourceRules,
    source: SourceId,
    key: &'a [u8],
    tx: &'a [u8],
    position: &'a str,
    ordinal: u32,
    commit_us: i64,
    origin: Origin,
    hash: u64,
    /// Why the record leads to no user, while it has a row of its own that says so.
    recorded: Option<SkipReason>,
}

impl<'a> Cause<'a> {
    fn new(rules: &'a SourceRules, change: &ChangeRef<'a>, hash: u64) -> Self {
        Cause {
            rules,
            source: rules.id,
            key: change.key,
            tx: change.tx,
            position: change.position,
            ordinal: change.ordinal,
            commit_us: change.commit_us,
            origin: change.origin,
            hash,
            recorded: None,
        }
    }

    /// A record that is considered once more.
    fn stored(rules: &'a SourceRules, key: &'a [u8], stored: &Stored<'a>) -> Self {
        Cause {
            rules,
            source: rules.id,
            key,
            tx: &[],
            position: stored.position,
            ordinal: 0,
            commit_us: stored.commit_us,
            origin: Origin::Stored,
            hash: stored.hash,
            recorded: None,
        }
    }

    /// Whether the change came from outside, and counts.
    fn counts(&self) -> bool {
        self.origin != Origin::Stored
    }

    /// When the log says that the row was changed; a scan does not know.
    fn changed(&self) -> Option<Moment> {
        (self.origin == Origin::Log).then_some(Moment {
            at_us: self.commit_us,
            span_us: 1,
        })
    }

    /// Whether this is a scanned row that is stored with this hash: it brings nothing.
    fn is_stored_already(&self, hash: u64) -> bool {
        self.origin == Origin::Scan && self.hash == hash
    }

    /// Brings a link up to this change. A scan knows no transaction; the last one stays.
    fn stamp<'d>(&self, link: &mut Link<'d>)
    where
        'a: 'd,
    {
        if !self.tx.is_empty() {
            link.tx = self.tx;
        }
        link.position = self.position;
        link.commit_us = self.commit_us;
    }
}

/// Applies the rules of an organization to one batch. See the module.
pub struct Resolver<'r> {
    rules: &'r Rules,
    state: &'r mut dyn State,
    plan: &'r mut Plan,
    ids: &'r mut dyn NewIds,
    ws: &'r mut Workspace,
    now_us: i64,
    run: RunId,
}

/// What is known of a record before it is evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    /// No user.
    None,
    /// A user, by a present link.
    Linked(usize),
    /// A user, by a former link; the key came back.
    Returning(usize),
}

impl<'r> Resolver<'r> {
    /// Starts on a plan, which is empty unless another resolver has worked on it.
    pub fn new(
        rules: &'r Rules,
        state: &'r mut dyn State,
        plan: &'r mut Plan,
        ids: &'r mut dyn NewIds,
        workspace: &'r mut Workspace,
        now_us: i64,
        run: RunId,
    ) -> Self {
        workspace.start();
        Resolver {
            rules,
            state,
            plan,
            ids,
            ws: workspace,
            now_us,
            run,
        }
    }

    /// Tells beforehand which match keys several records of a source will have when the batch
    /// has been applied ([`Rules::keys_of`] their last images). They are held from the start.
    pub fn begin_batch(&mut self, duplicates: &[MatchHash]) {
        self.ws.announced.extend(duplicates);
    }

    /// Applies one row that exists: read, inserted or updated.
    ///
    /// # Errors
    /// When the state cannot be read, or the source has no rules. The plan is then to be
    /// thrown away.
    pub fn apply(
        &mut self,
        source: SourceId,
        change: &ChangeRef<'_>,
        row: MappedRow<'_>,
    ) -> Result<(), StateError> {
        self.plan.counters.processed += 1;
        self.ws.at_us = change.commit_us;
        let rules = self.source_rules(source)?;
        let cause = Cause::new(rules, change, row.hash());
        if let Some(old) = change.old_key.filter(|old| *old != change.key)
            && !self.rename(&cause, old, &row)?
        {
            return self.heal();
        }
        self.consider(&cause, &row)?;
        self.heal()
    }

    /// Takes in that a record is gone.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn remove(
        &mut self,
        source: SourceId,
        change: &ChangeRef<'_>,
        reason: LeaverReason,
    ) -> Result<(), StateError> {
        self.plan.counters.processed += 1;
        self.remove_uncounted(source, change, reason)
    }

    fn remove_uncounted(
        &mut self,
        source: SourceId,
        change: &ChangeRef<'_>,
        reason: LeaverReason,
    ) -> Result<(), StateError> {
        self.ws.at_us = change.commit_us;
        let rules = self.source_rules(source)?;
        let cause = Cause::new(rules, change, 0);
        match self.target(source, change.key)? {
            None => self.plan.counters.unchanged += 1,
            Some(LinkTarget::Record) => {
                self.drop_record(&cause, change.key, true)?;
                self.plan.counters.unchanged += 1;
            }
            Some(LinkTarget::User(row)) => self.leave(&cause, row, reason, None)?,
        }
        self.heal()
    }

    /// Counts a row that has no readable key: it cannot be named, so nothing can follow.
    pub fn unreadable_key(&mut self, source: SourceId) {
        self.plan.counters.processed += 1;
        self.plan
            .leave_out(source, &[], SkipReason::NoKey, (None, None));
    }

    /// Tells those who name users that became others by the batch, and emits what it did to
    /// conflicts. Without this call the plan is not whole.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn finish(mut self) -> Result<(), StateError> {
        self.end_announcements()?;
        self.tell_relinked()?;
        self.emit_conflicts();
        Ok(())
    }

    fn source_rules(&self, source: SourceId) -> Result<&'r SourceRules, StateError> {
        self.rules
            .source(source)
            .ok_or_else(|| StateError(format!("source {} has no rules", source.0)))
    }

    fn consider(&mut self, cause: &Cause<'_>, row: &MappedRow<'_>) -> Result<(), StateError> {
        match row.outcome() {
            Outcome::Mapped => {
                if row.incomplete() {
                    self.ask_again(cause);
                }
                self.evaluate(cause, row)
            }
            Outcome::OutOfScope => self.out_of_scope(cause, row),
            Outcome::Failed { reason, rule } => {
                if row.incomplete() {
                    self.ask_again(cause);
                }
                let holding = Holding {
                    rule,
                    ..Holding::new(reason)
                };
                self.hold(cause, row.shadow(), &holding)
            }
            Outcome::Deferred => {
                self.ask_again(cause);
                self.leave_out(cause, SkipReason::Incomplete, None, None);
                Ok(())
            }
        }
    }

    /// The record must be read again from its source.
    fn ask_again(&mut self, cause: &Cause<'_>) {
        let record = (cause.source, KeyBytes::from_slice(cause.key));
        self.plan.reread.push(record);
    }

    fn evaluate(&mut self, cause: &Cause<'_>, row: &MappedRow<'_>) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        let result = self.evaluate_in(cause, row, &mut bytes);
        self.ws.give_back(bytes);
        result
    }

    fn evaluate_in(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        let (user, recorded) = match self.target(cause.source, cause.key)? {
            None => (None, None),
            Some(LinkTarget::User(user)) => (Some(user), None),
            Some(LinkTarget::Record) => {
                let mut stored = self.ws.buffer();
                self.load_record(cause.source, cause.key, &mut stored)?;
                let record = Record::decode(&stored).map_err(|e| StateError(e.to_string()))?;
                let (reason, former) = (record.reason, record.former);
                let known = cause.is_stored_already(record.hash);
                if known {
                    self.leave_out_again(cause, reason, record.hold)?;
                }
                self.ws.give_back(stored);
                if known {
                    return Ok(());
                }
                (former, Some(reason))
            }
        };
        let is_record = recorded.is_some();
        let cause = &Cause { recorded, ..*cause };
        let Some(user_row) = user else {
            return self.join_or_create(cause, row);
        };
        self.load_user(user_row, bytes)?;
        let document = self.decode(bytes)?;
        let home = match document.find_link(cause.source, cause.key) {
            Some(i) if document.links[i].state.is_present() && !is_record => Home::Linked(i),
            Some(i) if document.present_link_of(cause.source).is_none() => Home::Returning(i),
            _ => Home::None,
        };
        let result = match home {
            Home::None => {
                self.cede(user_row, &document, cause.source, cause.key);
                self.join_or_create(cause, row)
            }
            Home::Linked(i) => self.update(cause, row, user_row, &document, i),
            Home::Returning(i) => self.come_back(cause, row, user_row, &document, i),
        };
        self.ws.keep(document);
        result
    }

    /// A record that has its user.
    fn update(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        user: UserRow,
        document: &Document<'_>,
        at: usize,
    ) -> Result<(), StateError> {
        let link = document.links[at];
        if cause.is_stored_already(link.hash) {
            if let LinkState::Held(reason) = link.state {
                return self.leave_out_again(cause, reason, link.hold);
            }
            self.plan.counters.unchanged += 1;
            return Ok(());
        }
        let live = link.state == LinkState::Live;
        if live
            && fold::says_the_same(self.rules, document, at as u16, row)
            && fold::is_in_order(self.rules, document)
        {
            if cause.counts() {
                self.plan.counters.unchanged += 1;
            }
            let mut after = document.clone_with(self.ws.spare());
            let link = &mut after.links[at];
            cause.stamp(link);
            link.hash = cause.hash;
            link.shadow = row.shadow();
            self.write_unseen(user, &after);
            self.ws.keep(after);
            return Ok(());
        }
        let keys = self.match_keys(cause.rules, row, Some((document, at)));
        // Who has a key behind a leaver may be somebody else, also while the leaver waits.
        let may_be_else = [SkipReason::KeyReuse, SkipReason::StagedLeaver];
        if may_be_else.map(LinkState::Held).contains(&link.state)
            && self.is_somebody_else(cause.rules, document, row)
        {
            return self.hold_reused(cause, row.shadow(), document);
        }
        if (!live || self.match_values_changed(cause.rules, row, document, at))
            && let Some(holding) = self.duplicate(cause, &keys)?
        {
            return self.hold(cause, row.shadow(), &holding);
        }
        self.apply_to(cause, row, &keys, user, Some(document), at)
    }

    /// A record whose key was deleted and is there again.
    fn come_back(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        user: UserRow,
        document: &Document<'_>,
        at: usize,
    ) -> Result<(), StateError> {
        let was_deleted = document.links[at].state.gone() != Some(LeaverReason::OutOfScope);
        if was_deleted && self.is_somebody_else(cause.rules, document, row) {
            match self.answer_for(cause, hold::reuse(cause), row)? {
                Some(Choice::New) => return self.join_or_create(cause, row),
                Some(Choice::User(user)) if user == document.id => {}
                _ => return self.hold_reused(cause, row.shadow(), document),
            }
        }
        let keys = self.match_keys(cause.rules, row, None);
        if let Some(holding) = self.duplicate(cause, &keys)? {
            return self.hold(cause, row.shadow(), &holding);
        }
        self.apply_to(cause, row, &keys, user, Some(document), at)
    }

    /// A record without a user: finds one or makes one.
    fn join_or_create(&mut self, cause: &Cause<'_>, row: &MappedRow<'_>) -> Result<(), StateError> {
        if row.incomplete() || cause.rules.cannot_match() {
            // What is missing may be what tells who this is.
            let holding = Holding::new(SkipReason::Incomplete);
            return self.hold(cause, row.shadow(), &holding);
        }
        let keys = self.match_keys(cause.rules, row, None);
        if let Some(holding) = self.duplicate(cause, &keys)? {
            return self.hold(cause, row.shadow(), &holding);
        }
        match self.correlate(cause, &keys)? {
            Correlated::Hold(holding) => self.hold(cause, row.shadow(), &holding),
            Correlated::Owner(user) => self.join_user(cause, row, &keys, user),
            Correlated::Nobody => self.apply_to(cause, row, &keys, UserRow(0), None, 0),
        }
    }

    /// Links a record to a user that there is.
    fn join_user(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        keys: &[Key],
        user: UserRow,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let document = self.decode(&bytes)?;
        let at = document.links.len();
        let result = self.apply_to(cause, row, keys, user, Some(&document), at);
        self.ws.keep(document);
        self.ws.give_back(bytes);
        result
    }

    /// Applies a row to its user: `document` is none for a new one, `at` is the index of the
    /// link or one more than there are.
    fn apply_to(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        keys: &[Key],
        user: UserRow,
        document: Option<&Document<'_>>,
        at: usize,
    ) -> Result<(), StateError> {
        let named = self.named(cause, row, document, at)?;
        let own_id: refer::IdText;
        let mut after = match document {
            Some(d) => d.clone_with(self.ws.spare()),
            None => self.ws.new_document(self.now_us),
        };
        let old_link = after.links.get(at).copied();
        let first = old_link.is_none_or(|l| !l.state.is_present());
        let mut link = old_link.unwrap_or(Link {
            source: cause.source,
            key: cause.key,
            state: LinkState::Live,
            since_us: 0,
            incarnation: 1,
            tx: &[],
            position: "",
            commit_us: 0,
            hash: 0,
            hold: &[],
            shadow: &[],
        });
        if link
            .state
            .gone()
            .is_some_and(|r| r != LeaverReason::OutOfScope)
        {
            link.incarnation += 1;
        }
        link.state = LinkState::Live;
        link.since_us = 0;
        link.hold = &[];
        cause.stamp(&mut link);
        link.hash = cause.hash;
        link.shadow = row.shadow();
        match after.links.get_mut(at) {
            Some(l) => *l = link,
            None => after.links.push(link),
        }
        let evidence = Evidence {
            link: Some(at as u16),
            position: cause.position,
            commit_us: cause.commit_us,
            run: self.run,
            changed: None,
        };
        let said = fold::Said {
            source: cause.source,
            row,
            named: &named,
            evidence,
            changed: cause.changed(),
            first,
        };
        fold::contribute(self.rules, &mut after, at as u16, &said);
        fold::drop_former(self.rules, &mut after);
        after.state = fold::decide(&mut after, None);
        after.remains = &[];
        let known = document.map(|_| user);
        match self.taken(cause, keys, known, document, &after)? {
            None => {}
            Some(Taken::Hold(holding)) => {
                self.ws.keep(after);
                return self.hold(cause, row.shadow(), &holding);
            }
            Some(Taken::ByThemselves(owner)) => {
                self.ws.keep(after);
                return self.join_user(cause, row, keys, owner);
            }
        }
        if let Some(before) = document
            && self.stages(cause, row.shadow(), before, &after)?
        {
            self.ws.keep(after);
            return Ok(());
        }
        let user = match known {
            Some(user) => user,
            None => {
                after.id = self.ids.user_id(self.now_us);
                self.state.allocate_user()
            }
        };
        if document.is_none() && !after.references.is_empty() {
            own_id = refer::id_text(after.id);
            self.names_itself(cause, &mut after, &own_id);
        }
        if let Some(reason) = cause.recorded {
            self.drop_record(cause, cause.key, false)?;
            self.healed(cause, reason);
        } else if let Some(old) = old_link {
            self.release(cause, cause.key, old.hold, &[])?;
            if let LinkState::Held(reason) = old.state {
                self.healed(cause, reason);
            }
        }
        if let Some(old) = old_link {
            self.was_staged(cause.source, cause.key, old.state);
        }
        self.cede_all(user, &mut after);
        if first {
            self.point(cause.source, cause.key, Some(LinkTarget::User(user)));
        }
        let result = self.settle(cause, user, document, &mut after);
        self.ws.keep(after);
        result
    }

    /// Whether a row changes one of its link's match values.
    fn match_values_changed(
        &self,
        rules: &SourceRules,
        row: &MappedRow<'_>,
        document: &Document<'_>,
        at: usize,
    ) -> bool {
        let of_link = |attribute: AttrId| {
            document
                .group(attribute)
                .iter()
                .find(|c| c.link == Some(at as u16))
                .map(|c| c.value)
        };
        row.fields().any(|f| {
            rules.match_attributes.contains(&f.attribute)
                && match f.assigned {
                    Assigned::Value(v) => of_link(f.attribute) != Some(v),
                    _ => false,
                }
        })
    }

    /// Whether a row is about another person than the user: every attribute of the
    /// source's fingerprint that both have is different.
    fn is_somebody_else(
        &self,
        rules: &SourceRules,
        document: &Document<'_>,
        row: &MappedRow<'_>,
    ) -> bool {
        let mut compared = false;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for field in row.fields() {
            let Assigned::Value(value) = field.assigned else {
                continue;
            };
            if !rules.fingerprint.contains(&field.attribute) {
                continue;
            }
            a.clear();
            mapping::fold(value, &mut a);
            match Remains::of(document.remains).had(document.id, field.attribute, &a) {
                Some(true) => return false,
                Some(false) => compared = true,
                None => {}
            }
            for c in document.group(field.attribute) {
                compared = true;
                b.clear();
                mapping::fold(c.value, &mut b);
                if a == b {
                    return false;
                }
            }
        }
        compared
    }

    /// The last transaction of the log that was taken in for a record; none when it was
    /// never seen, or only by scans. A deleted record that led to no user is forgotten.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn link_tx(
        &mut self,
        source: SourceId,
        key: &[u8],
    ) -> Result<Option<rollcall_contract::TxId>, StateError> {
        let mut bytes = self.ws.buffer();
        let stored = self.stored(source, key, &mut bytes)?;
        let tx = stored
            .filter(|s| !s.tx.is_empty())
            .map(|s| rollcall_contract::TxId(SmallVec::from_slice(s.tx)));
        self.ws.give_back(bytes);
        Ok(tx)
    }

    /// Appends the stored shadow of a record, as the plan will leave it; `false` when there
    /// is none. For rows whose mapping was [`Outcome::Deferred`]: map again with it, then
    /// [`Resolver::apply`].
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn stored_shadow(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        let mut bytes = self.ws.buffer();
        let found = match self.stored(source, key, &mut bytes)? {
            Some(stored) => {
                into.extend_from_slice(stored.shadow);
                true
            }
            None => false,
        };
        self.ws.give_back(bytes);
        Ok(found)
    }
}
