//! Which user is this, and may it be written?
//!
//! Three questions, in this order. *Is the record one of several with the same match key?*
//! is asked of the records of its own source: of the links' contributions and of the match
//! keys of held records, not of users' winning values, so it has the same answer whatever
//! other sources say. *Which user has its match key?* and *is its userName or email taken?*
//! are asked of winning values.

use smallvec::SmallVec;

use super::hold::Holding;
use super::rules::SourceRules;
use super::{Cause, Resolver};
use crate::attribute::{AttrId, EMAIL, USER_NAME};
use crate::conflict::{Choice, ConflictKind, Fingerprint};
use crate::document::{Document, Hold, LinkState};
use crate::id::{MatchHash, UserId, UserRow, ValueHash};
use crate::mapped::{Assigned, MappedField, MappedRow, Strength};
use crate::mapping::fold;
use crate::reason::SkipReason;
use crate::state::{KeyBytes, StateError};

/// A match key, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) attribute: AttrId,
    pub(super) folded: SmallVec<[u8; 48]>,
    pub(super) value: ValueHash,
}

impl Key {
    /// The key of a value; none when nothing is left of it.
    pub(super) fn of(attribute: AttrId, value: &[u8]) -> Option<Key> {
        let mut folded = SmallVec::new();
        fold(value, &mut folded);
        (!folded.is_empty()).then(|| Key {
            attribute,
            value: ValueHash::of(&folded),
            folded,
        })
    }

    /// Under what decisions about this attribute are found.
    pub(super) fn hash(&self) -> MatchHash {
        self.value.under(self.attribute)
    }

    /// What stands for a user itself: see [`ITSELF`].
    pub(super) fn of_user(document: &Document<'_>) -> Key {
        let id = document.id.0;
        Key {
            attribute: ITSELF,
            value: ValueHash::of(&id),
            folded: SmallVec::from_slice(&id),
        }
    }

    /// Whether a value has this key.
    fn is(&self, value: &[u8]) -> bool {
        let mut folded: SmallVec<[u8; 48]> = SmallVec::new();
        fold(value, &mut folded);
        folded == self.folded
    }
}

/// Among what a held record waits for, a value of this attribute is the id of a user: the
/// decision rests on more of it than its match keys. No attribute has this number.
const ITSELF: AttrId = AttrId(0);

pub(super) type Keys = SmallVec<[Key; 2]>;

/// What correlation found.
pub(super) enum Correlated {
    /// No user has any of the match keys.
    Nobody,
    /// Exactly one.
    Owner(UserRow),
    /// A person must decide.
    Hold(Holding),
}

/// What becomes of a record whose userName or email another user has.
pub(super) enum Taken {
    /// It is held.
    Hold(Holding),
    /// A person has said that it is this user's.
    ByThemselves(UserRow),
}

/// Names a conflict: source, kind, attribute and value, and for all kinds but duplicates the
/// record.
pub(super) fn fingerprint(
    cause: &Cause<'_>,
    kind: ConflictKind,
    attribute: Option<AttrId>,
    folded: &[u8],
) -> Fingerprint {
    let mut made_of: SmallVec<[u8; 96]> = SmallVec::new();
    made_of.extend_from_slice(&cause.source.0.to_le_bytes());
    made_of.push(kind as u8);
    made_of.extend_from_slice(&attribute.map_or(0, |a| a.0).to_le_bytes());
    made_of.extend_from_slice(&(folded.len() as u64).to_le_bytes());
    made_of.extend_from_slice(folded);
    if kind != ConflictKind::DuplicateInSource {
        made_of.extend_from_slice(cause.key);
    }
    Fingerprint(xxhash_rust::xxh3::xxh3_64(&made_of))
}

/// Key, user, and whether it is to be held.
pub(super) type Other = (KeyBytes, Option<UserId>, bool);

struct Owner {
    row: UserRow,
    id: UserId,
    active: bool,
    linked: bool,
}

impl Resolver<'_> {
    /// The record's own match keys in the order of the source's match attributes. What the
    /// row keeps, and what its rules leave as it was, is taken from its link.
    pub(super) fn match_keys(
        &self,
        rules: &SourceRules,
        row: &MappedRow<'_>,
        link: Option<(&Document<'_>, usize)>,
    ) -> Keys {
        let mut keys = Keys::new();
        for &attribute in &rules.match_attributes {
            if self.rules.is_list(attribute) {
                continue;
            }
            let given = || {
                let (document, at) = link?;
                let mut group = document.group(attribute).iter();
                group.find(|c| c.link == Some(at as u16)).map(|c| c.value)
            };
            let field = row.fields().find(|f| f.attribute == attribute);
            let strength = |f: &MappedField<'_>| self.rules.strength(attribute, f.strength);
            let value = field.and_then(|field| match (strength(&field), field.assigned) {
                (_, Assigned::Keep) => given(),
                (Strength::Always, Assigned::Value(value)) => Some(value),
                (Strength::Always, Assigned::Clear) => None,
                (_, Assigned::Value(value)) => given().or(Some(value)),
                (_, Assigned::Clear) => given(),
                // Nobody is found by the user that a record names.
                (_, Assigned::Reference(_)) => None,
            });
            keys.extend(value.and_then(|v| Key::of(attribute, v)));
        }
        keys
    }

    /// Whether another present record of the source has one of these match keys. If so,
    /// the others are held too, and the conflicts name them all.
    pub(super) fn duplicate(
        &mut self,
        cause: &Cause<'_>,
        keys: &[Key],
    ) -> Result<Option<Holding>, StateError> {
        let mut holding = Holding::new(SkipReason::DuplicateInSource);
        let mut held = false;
        for key in keys {
            let fp = fingerprint(
                cause,
                ConflictKind::DuplicateInSource,
                Some(key.attribute),
                &key.folded,
            );
            let open = self.open_conflict(fp)?;
            if open.is_some_and(|c| c.records.iter().any(|r| r[..] != *cause.key)) {
                self.join(cause, fp, Some(key.attribute), cause.key, &[])?;
                holding.conflicts.push(fp);
                holding.attribute.get_or_insert(key.attribute);
                held = true;
                continue;
            }
            let others = self.records_with(cause, key)?;
            let is_announced = self.ws.announced.contains(&key.hash())
                || self.rules.known_duplicates.contains(&key.hash());
            if is_announced || !others.is_empty() {
                match self.is_chosen(cause, fp, &others)? {
                    Some(true) => continue,
                    Some(false) => {
                        holding.conflicts.push(fp);
                        holding.attribute.get_or_insert(key.attribute);
                        held = true;
                        continue;
                    }
                    None => {}
                }
            }
            if others.is_empty() {
                if is_announced {
                    holding.attribute.get_or_insert(key.attribute);
                    held = true;
                }
                continue;
            }
            for (other, user, heals) in others {
                if !heals {
                    self.join(cause, fp, Some(key.attribute), cause.key, user.as_slice())?;
                    continue;
                }
                self.join(cause, fp, Some(key.attribute), &other, user.as_slice())?;
                self.hold_other(cause, &other, fp)?;
            }
            self.join(cause, fp, Some(key.attribute), cause.key, &[])?;
            holding.conflicts.push(fp);
            holding.attribute.get_or_insert(key.attribute);
            held = true;
        }
        holding.pending = keys.to_vec();
        Ok(held.then_some(holding))
    }

    /// Other present records of the source that have a match key, their users, and whether
    /// they are to be held for it: those that are held for what they are themselves stay so.
    fn records_with(&mut self, cause: &Cause<'_>, key: &Key) -> Result<Vec<Other>, StateError> {
        let mut found: Vec<Other> = Vec::new();
        let mut bytes = self.ws.buffer();
        for row in self.owners(key.value)? {
            self.load_user(row, &mut bytes)?;
            let document = self.decode(&bytes)?;
            for c in document.group(key.attribute) {
                let Some(link) = c.link.map(|i| document.links[usize::from(i)]) else {
                    continue;
                };
                // What a held record has now is among the waiting; one whose image says
                // nothing still counts with what it gave last.
                let counts = match link.state {
                    LinkState::Live => true,
                    LinkState::Held(reason) => keeps_its_reason(reason),
                    LinkState::Gone(_) | LinkState::Suspected(_) | LinkState::Erasing(_) => false,
                };
                if counts && link.source == cause.source && link.key != cause.key && key.is(c.value)
                {
                    let heals = link.state == LinkState::Live;
                    found.push((KeyBytes::from_slice(link.key), Some(document.id), heals));
                }
            }
            self.ws.keep(document);
        }
        for (source, other) in self.waiting(key.hash())? {
            if source != cause.source
                || other[..] == *cause.key
                || found.iter().any(|(k, ..)| *k == other)
            {
                continue;
            }
            if let Some(stored) = self.stored(source, &other, &mut bytes)?
                && stored.held
                && has_pending(&Hold::decode(stored.hold), key)
            {
                found.push((other, stored.user, true));
            }
        }
        self.ws.give_back(bytes);
        Ok(found)
    }

    /// Users whose winning value is this.
    fn users_with(
        &mut self,
        cause: &Cause<'_>,
        key: &Key,
    ) -> Result<SmallVec<[Owner; 2]>, StateError> {
        let mut found = SmallVec::new();
        let rows = self.owners(key.value)?;
        if rows.is_empty() {
            return Ok(found);
        }
        let mut bytes = self.ws.buffer();
        for row in rows {
            self.load_user(row, &mut bytes)?;
            let document = self.decode(&bytes)?;
            if let Some(value) = document.value(key.attribute)
                && document.state != crate::document::UserState::Tombstone
                && key.is(value)
            {
                found.push(Owner {
                    row,
                    id: document.id,
                    active: document.is_active(),
                    linked: document.present_link_of(cause.source).is_some(),
                });
            }
            self.ws.keep(document);
        }
        self.ws.give_back(bytes);
        Ok(found)
    }

    /// Finds the user of a record that has none: the first match key that anybody has
    /// decides. A user who works is preferred to those who no longer do.
    pub(super) fn correlate(
        &mut self,
        cause: &Cause<'_>,
        keys: &[Key],
    ) -> Result<Correlated, StateError> {
        for key in keys {
            let mut owners = self.users_with(cause, key)?;
            if owners.iter().any(|o| o.active) {
                owners.retain(|o| o.active);
            }
            let (kind, reason) = match &owners[..] {
                [] => continue,
                [owner] if !owner.linked => return Ok(Correlated::Owner(owner.row)),
                [_] => (
                    ConflictKind::DuplicateInSource,
                    SkipReason::DuplicateInSource,
                ),
                _ => (ConflictKind::DisputedMatch, SkipReason::DisputedMatch),
            };
            let users: SmallVec<[UserId; 2]> = owners.iter().map(|o| o.id).collect();
            let fp = fingerprint(cause, kind, Some(key.attribute), &key.folded);
            if kind == ConflictKind::DisputedMatch {
                match self.answer(fp)? {
                    Some(Choice::User(user)) => {
                        let mut owners = owners.iter();
                        if let Some(owner) = owners.find(|o| o.id == user && !o.linked) {
                            return Ok(Correlated::Owner(owner.row));
                        }
                    }
                    Some(Choice::New) => return Ok(Correlated::Nobody),
                    _ => {}
                }
            }
            self.join_kind(cause, fp, kind, Some(key.attribute), cause.key, &users)?;
            let mut holding = Holding::new(reason);
            holding.attribute = Some(key.attribute);
            holding.conflicts.push(fp);
            holding.pending = keys.to_vec();
            return Ok(Correlated::Hold(holding));
        }
        Ok(Correlated::Nobody)
    }

    /// Whether the userName or email that a user would have belongs to another one. Only
    /// what the change brings is looked at: a value, or that the user becomes active.
    pub(super) fn taken(
        &mut self,
        cause: &Cause<'_>,
        keys: &[Key],
        user: Option<UserRow>,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) -> Result<Option<Taken>, StateError> {
        let Some((key, owner)) = self.collision(cause, user, before, after)? else {
            return Ok(None);
        };
        let kind = ConflictKind::Uniqueness;
        let fp = fingerprint(cause, kind, Some(key.attribute), &key.folded);
        if before.is_none() && self.answer(fp)? == Some(Choice::User(owner)) {
            let owners = self.users_with(cause, &key)?;
            let mut owners = owners.into_iter().filter(|o| !o.linked);
            if let Some(owner) = owners.find(|o| o.id == owner) {
                return Ok(Some(Taken::ByThemselves(owner.row)));
            }
        }
        self.join_kind(cause, fp, kind, Some(key.attribute), cause.key, &[owner])?;
        let mut holding = Holding::new(SkipReason::Uniqueness);
        holding.attribute = Some(key.attribute);
        holding.conflicts.push(fp);
        holding.pending = keys.to_vec();
        holding.blocked.extend(before.map(Key::of_user));
        for document in [Some(after), before].into_iter().flatten() {
            for attribute in [USER_NAME, EMAIL] {
                let value = document.value(attribute);
                let key = value.and_then(|v| Key::of(attribute, v));
                let new = key.filter(|k| !holding.blocked.contains(k));
                holding.blocked.extend(new);
            }
        }
        Ok(Some(Taken::Hold(holding)))
    }

    /// The first unique value of `after` that another active user has.
    pub(super) fn collision(
        &mut self,
        cause: &Cause<'_>,
        user: Option<UserRow>,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) -> Result<Option<(Key, UserId)>, StateError> {
        if !after.is_active() {
            return Ok(None);
        }
        let before = before.filter(|b| b.is_active());
        for attribute in [USER_NAME, EMAIL] {
            let Some(value) = after.value(attribute) else {
                continue;
            };
            if before.is_some_and(|b| b.value(attribute) == Some(value)) {
                continue;
            }
            let Some(key) = Key::of(attribute, value) else {
                continue;
            };
            let owners = self.users_with(cause, &key)?;
            let other = owners.iter().find(|o| o.active && Some(o.row) != user);
            if let Some(other) = other {
                return Ok(Some((key, other.id)));
            }
        }
        Ok(None)
    }
}

fn has_pending(hold: &Hold<'_>, key: &Key) -> bool {
    hold.pending
        .iter()
        .any(|(a, v)| *a == key.attribute && **v == key.folded[..])
}

/// Whether others can heal a record that is held for this reason.
pub(super) fn heals(reason: SkipReason) -> bool {
    matches!(
        reason,
        SkipReason::DuplicateInSource
            | SkipReason::DisputedMatch
            | SkipReason::Uniqueness
            | SkipReason::KeyReuse
    )
}

/// Whether a record is held for what its own image is, which no other record can heal: it
/// waits for no match key, and a duplicate that names it does not take the reason's place.
pub(super) fn keeps_its_reason(reason: SkipReason) -> bool {
    reason.is_error()
        || reason.is_staged()
        || matches!(reason, SkipReason::KeyReuse | SkipReason::Incomplete)
}
