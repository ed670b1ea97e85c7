//! Fields that are another user: a manager.
//!
//! A record names another one of its source by key ([`crate::document::Reference`]); whom the
//! key leads to is asked of the links. Neither need be there first. Why every field ends as
//! if it had been asked for last:
//!
//! * **Whoever names a key stands in an index under it**, whether the key leads to somebody
//!   or not: those who wait are looked for when somebody comes, and those who do not when the
//!   user behind the key goes or becomes another one. An index of those who wait alone would
//!   leave ids behind of users that are deleted. Every change of a document goes through
//!   [`Resolver::settle`] or the end of its user, and these bring the index along
//!   ([`Resolver::bring_referring`]).
//! * **Whatever changes where a key leads is remembered** ([`Resolver::relinked`]): a link that
//!   is made, moved, renamed or broken, a user that is deleted or comes back. When the batch
//!   ends, each such key is asked once and all who name it are told, in the same commit. A
//!   link of somebody who left still leads to that user; a deleted user is nobody.
//! * **Telling changes no link**, so it is never the reason for more of it, and ends, however
//!   managers are arranged in circles.
//! * **It is bounded.** With one commit so many are told ([`AT_ONCE`]); how far is stored with
//!   it ([`crate::plan::Plan::relinked`]) and the rest goes on behind it. Each step asks anew
//!   where the key leads, so it does not matter what else changed in between, and a key that
//!   changes again begins anew.
//!
//! A user that the identity side wrote, or an undo has put back, is named by its place, in the
//! same index, so an id is not left there either when that user is deleted.
//!
//! What still leads to nobody when the whole source was read is a conflict for each missing
//! record ([`Resolver::tell_unresolved`]), closed when the record has a user or nobody names
//! it any more.

use smallvec::SmallVec;

use super::{Cause, Origin, Resolver, fold};
use crate::attribute::AttrId;
use crate::conflict::{ConflictKind, Fingerprint};
use crate::document::{Document, Put, UserState, own_key, own_target};
use crate::id::{SourceId, UserId, UserRow};
use crate::mapped::{Assigned, MappedRow};
use crate::plan::Referring;
use crate::state::{KeyBytes, LinkTarget, StateError};

/// So many users are told with one commit that a key leads to somebody else.
const AT_ONCE: usize = 5_000;

/// So many of those who wait are named by the conflict of a missing record.
const NAMED: usize = 20;

/// Before every user.
const START: UserRow = UserRow(i64::MIN);

/// The id of a user, as fields have it.
pub(super) type IdText = [u8; 36];

/// The users behind the keys that a row names.
pub(super) type Named = SmallVec<[(AttrId, IdText); 1]>;

pub(super) fn id_text(id: UserId) -> IdText {
    let mut text = [0; 36];
    uuid::Uuid::from_bytes(id.0)
        .hyphenated()
        .encode_lower(&mut text);
    text
}

/// Names the conflict of a record that is missing.
fn unresolved(source: SourceId, key: &[u8]) -> Fingerprint {
    let mut made_of: SmallVec<[u8; 64]> = SmallVec::new();
    made_of.extend_from_slice(&source.0.to_le_bytes());
    made_of.push(ConflictKind::UnresolvedReference as u8);
    made_of.extend_from_slice(key);
    Fingerprint(xxhash_rust::xxh3::xxh3_64(&made_of))
}

impl Resolver<'_> {
    /// The user that a key leads to now; of [`SourceId::OWN`] the user that it is.
    fn behind(&mut self, source: SourceId, key: &[u8]) -> Result<Option<UserId>, StateError> {
        let row = match source {
            SourceId::OWN => own_target(key),
            _ => match self.target(source, key)? {
                Some(LinkTarget::User(row)) => Some(row),
                Some(LinkTarget::Record) | None => None,
            },
        };
        let Some(row) = row else { return Ok(None) };
        let mut bytes = self.ws.buffer();
        let found = self.find_user(row, &mut bytes)?;
        let who = found.then(|| Document::who(&bytes)).flatten();
        self.ws.give_back(bytes);
        Ok(who
            .filter(|(_, state)| *state != UserState::Tombstone)
            .map(|(id, _)| id))
    }

    /// The users behind the keys that a row names and its link did not.
    pub(super) fn named(
        &mut self,
        cause: &Cause<'_>,
        row: &MappedRow<'_>,
        document: Option<&Document<'_>>,
        at: usize,
    ) -> Result<Named, StateError> {
        let mut named = Named::new();
        for field in row.fields() {
            let Assigned::Reference(key) = field.assigned else {
                continue;
            };
            let known = document.and_then(|d| d.reference(field.attribute, Some(at as u16)));
            if known.is_some_and(|r| r.key == key) {
                continue;
            }
            let id = match document.filter(|_| key == cause.key) {
                Some(own) => Some(own.id),
                None => self.behind(cause.source, key)?,
            };
            named.extend(id.map(|id| (field.attribute, id_text(id))));
        }
        Ok(named)
    }

    /// Lets a new user show itself where its record names itself.
    pub(super) fn names_itself<'a>(
        &self,
        cause: &Cause<'_>,
        after: &mut Document<'a>,
        id: &'a IdText,
    ) {
        for at in 0..after.references.len() {
            if after.references[at].key == cause.key {
                fold::refer(after, at, Some(id));
            }
        }
        fold::order(self.rules, after);
    }

    /// The id of a user that the identity side names, if there is such a user.
    pub(super) fn named_user(&mut self, user: UserRow) -> Result<Option<IdText>, StateError> {
        Ok(self.behind(SourceId::OWN, &own_key(user))?.map(id_text))
    }

    /// Whether anybody names anybody.
    fn anything_refers(&mut self) -> bool {
        !self.plan.references.is_empty() || self.state.anything_refers()
    }

    /// A key may lead to another user than before.
    pub(super) fn relinked(&mut self, source: SourceId, key: &[u8]) {
        if self.anything_refers() {
            self.ws.relinked.push((source, KeyBytes::from_slice(key)));
        }
    }

    /// A user is deleted, or is there again: so are all who are behind its keys.
    pub(super) fn relinked_all(&mut self, user: UserRow, document: &Document<'_>) {
        for link in &document.links {
            self.relinked(link.source, link.key);
        }
        self.relinked(SourceId::OWN, &own_key(user));
    }

    /// Brings the index of who names whom along.
    pub(super) fn bring_referring(
        &mut self,
        user: UserRow,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) {
        let old = before.map(referring).unwrap_or_default();
        let new = referring(after);
        for &(source, key, is) in &old {
            let now = new.iter().find(|n| (n.0, n.1) == (source, key));
            if now.is_none() {
                self.plan.set_referring(source, key, user, Referring::No);
            }
            if is == Referring::Waits && now.is_none_or(|n| n.2 == Referring::Shows) {
                self.ws.awaited.push((source, KeyBytes::from_slice(key)));
            }
        }
        for entry in new.iter().filter(|n| !old.contains(n)) {
            self.plan.set_referring(entry.0, entry.1, user, entry.2);
        }
    }

    /// The users behind a place that name a key, in their order.
    fn referrers(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
        limit: usize,
    ) -> Result<Vec<UserRow>, StateError> {
        let mut users = Vec::new();
        if self.state.anything_refers() {
            let more = limit.saturating_add(self.plan.referring(source, key));
            self.state.referrers(source, key, after, more, &mut users)?;
        }
        self.plan
            .overlay_referrers((source, key), after, limit, &mut users);
        Ok(users)
    }

    /// Tells everybody of the keys that lead to somebody else by now.
    pub(super) fn tell_relinked(&mut self) -> Result<(), StateError> {
        let mut relinked = std::mem::take(&mut self.ws.relinked);
        relinked.sort_unstable();
        relinked.dedup();
        for (source, key) in relinked.drain(..) {
            self.tell_referrers(source, &key, START)?;
        }
        self.ws.relinked = relinked;
        let mut awaited = std::mem::take(&mut self.ws.awaited);
        awaited.sort_unstable();
        awaited.dedup();
        for (source, key) in awaited.drain(..) {
            self.close_resolved(source, &key)?;
        }
        self.ws.awaited = awaited;
        Ok(())
    }

    /// Goes on telling those who name a key that it leads to somebody else, behind a user
    /// ([`crate::plan::Plan::relinked`]).
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn go_on_telling(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
    ) -> Result<(), StateError> {
        self.plan
            .relinked
            .insert((source, KeyBytes::from_slice(key)), None);
        self.tell_referrers(source, key, after)
    }

    fn tell_referrers(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
    ) -> Result<(), StateError> {
        let left = AT_ONCE.saturating_sub(self.plan.told);
        let mut users = self.referrers(source, key, after, left + 1)?;
        if users.len() > left {
            users.truncate(left);
            let last = users.last().copied().unwrap_or(after);
            let key = (source, KeyBytes::from_slice(key));
            self.plan.relinked.insert(key, Some(last));
        }
        if !users.is_empty() {
            let id = self.behind(source, key)?.map(id_text);
            self.plan.told += users.len();
            for user in users {
                self.tell_referrer(user, source, key, id.as_ref())?;
            }
        }
        self.close_resolved(source, key)
    }

    /// Lets a user that names a key show whom it leads to.
    fn tell_referrer(
        &mut self,
        user: UserRow,
        source: SourceId,
        key: &[u8],
        id: Option<&IdText>,
    ) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        if !self.find_user(user, &mut bytes)? {
            self.ws.give_back(bytes);
            return Ok(());
        }
        let before = self.decode(&bytes)?;
        let mut after = before.clone_with(self.ws.spare());
        let id = id.map(|id| &id[..]);
        let mut changed = None;
        for (at, reference) in before.references.iter().enumerate() {
            let mut group = before.group(reference.attribute).iter();
            let shown = group.find(|c| c.link == reference.link).map(|c| c.value);
            if reference.key == key && before.source_of(reference) == source && shown != id {
                fold::refer(&mut after, at, id);
                changed = Some(reference.link);
            }
        }
        if source == SourceId::OWN && id.is_none() {
            let names = |put: &Put<'_>| matches!(put, Put::User { key: put, .. } if *put == key);
            let all = after.undos.len();
            after.undos.retain(|undo| !names(&undo.put));
            if after.undos.len() < all {
                changed = changed.or(Some(None));
            }
        }
        if let Some(link) = changed {
            fold::order(self.rules, &mut after);
            let own = before.id.0;
            let cause = match link.map(|at| before.links[usize::from(at)]) {
                Some(link) => Cause {
                    rules: self.rules.source(link.source).unwrap_or(self.rules.own()),
                    source: link.source,
                    key: link.key,
                    tx: &[],
                    position: link.position,
                    ordinal: 0,
                    commit_us: self.when(),
                    origin: Origin::Stored,
                    hash: xxhash_rust::xxh3::xxh3_64(key),
                    recorded: None,
                },
                None => self.cause_of_own(&own, &[]),
            };
            self.settle(&cause, user, Some(&before), &mut after)?;
        }
        self.ws.keep(after);
        self.ws.keep(before);
        self.ws.give_back(bytes);
        Ok(())
    }

    /// When whatever is told of came about.
    fn when(&self) -> i64 {
        match self.ws.at_us {
            0 => self.now_us,
            at_us => at_us,
        }
    }

    /// Opens a conflict for each of these keys of a source that users name and that lead to
    /// nobody: the whole source was read.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn tell_unresolved(
        &mut self,
        source: SourceId,
        keys: &[KeyBytes],
    ) -> Result<(), StateError> {
        for key in keys {
            let users = self.referrers(source, key, START, NAMED)?;
            if users.is_empty() || self.behind(source, key)?.is_some() {
                continue;
            }
            let mut attribute = None;
            let mut ids = Vec::with_capacity(users.len());
            let mut bytes = self.ws.buffer();
            for user in users {
                self.load_user(user, &mut bytes)?;
                let document = self.decode(&bytes)?;
                let mut references = document.references.iter();
                let found = references.find(|r| r.key == &key[..]).map(|r| r.attribute);
                attribute = attribute.or(found);
                ids.push(document.id);
                self.ws.keep(document);
            }
            self.ws.give_back(bytes);
            ids.sort_unstable();
            let kind = ConflictKind::UnresolvedReference;
            let cause = self.cause_of_missing(source, key);
            let fp = unresolved(source, key);
            let row = self.opened(&cause, fp, kind, attribute)?;
            row.records = vec![key.clone()];
            row.users = ids;
        }
        Ok(())
    }

    /// Closes the conflict of a missing record if it has a user, or nobody waits for it.
    fn close_resolved(&mut self, source: SourceId, key: &[u8]) -> Result<(), StateError> {
        let fp = unresolved(source, key);
        if self.open_conflict(fp)?.is_none() {
            return Ok(());
        }
        let is_over = self.behind(source, key)?.is_some()
            || self.referrers(source, key, START, 1)?.is_empty();
        if is_over {
            let cause = self.cause_of_missing(source, key);
            self.close_conflict(&cause, fp)?;
        }
        Ok(())
    }

    fn cause_of_missing<'k>(&self, source: SourceId, key: &'k [u8]) -> Cause<'k>
    where
        Self: 'k,
    {
        Cause {
            rules: self.rules.source(source).unwrap_or(self.rules.own()),
            source,
            key,
            tx: &[],
            position: "",
            ordinal: 0,
            commit_us: self.when(),
            origin: Origin::Stored,
            hash: 0,
            recorded: None,
        }
    }
}

/// A key that a user names, and how it stands to it.
type NamedKey<'d> = (SourceId, &'d [u8], Referring);

/// Whom a user's records name, and undos have put there, each key once, in no order.
fn referring<'d>(document: &Document<'d>) -> SmallVec<[NamedKey<'d>; 2]> {
    let mut all: SmallVec<[NamedKey<'d>; 2]> = SmallVec::new();
    for reference in &document.references {
        let source = document.source_of(reference);
        let is = match document.is_pending(reference) {
            true => Referring::Waits,
            false => Referring::Shows,
        };
        let mut known = all.iter_mut();
        match known.find(|k| (k.0, k.1) == (source, reference.key)) {
            Some(known) => known.2 = known.2.min(is),
            None => all.push((source, reference.key, is)),
        }
    }
    for undo in &document.undos {
        let Put::User { key, .. } = undo.put else {
            continue;
        };
        if !all.iter().any(|k| (k.0, k.1) == (SourceId::OWN, key)) {
            all.push((SourceId::OWN, key, Referring::Shows));
        }
    }
    all
}
