//! Taking back what a run did to users.
//!
//! What is to be taken back has been decided before ([`crate::undo`]); here it is put over what
//! is said of each user ([`crate::document::Undo`]), so nothing that a source or a person has
//! said is lost, and the rules go on as ever:
//!
//! * Where the value to go back to is what would count without any undo, what is there of an
//!   earlier one is taken off instead of putting another one over it. So the undo of an undo
//!   leaves the user as the run had left it, and nothing holds against its sources any more.
//! * All users are written first, and only then is it asked whether a userName or email belongs
//!   to two of them: what the run passed on from one to another goes back the same way, whatever
//!   the order. If one does, the caller throws the plan away.

use smallvec::SmallVec;

use super::own::{Author, Chosen};
use super::{Cause, Resolver, fold};
use crate::attribute::{ACTIVE, AttrId, EMAIL, USER_NAME};
use crate::document::{Document, LinkState, Parts, Put, Undo, UserState, own_key};
use crate::id::{UserId, UserRow};
use crate::plan::DueKind;
use crate::reason::LeaverReason;
use crate::state::StateError;

/// What is taken back of a user.
#[derive(Clone, Debug)]
pub struct TakeBack<'a> {
    /// Of whom.
    pub user: UserRow,
    /// Its fields, each once.
    pub fields: Vec<(AttrId, Back<'a>)>,
    /// Whether it is to work; none when that stays.
    pub active: Option<bool>,
}

/// What a field goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back<'a> {
    /// This value, in the attribute's canonical form, or none.
    Value(Option<&'a [u8]>),
    /// This user, where the field is another user.
    User(UserRow),
    /// A list without some parts, and with others.
    Parts {
        /// Parts that go.
        without: Parts<'a>,
        /// Parts that come.
        with: Parts<'a>,
    },
}

/// Why a user cannot go back. The plan is then to be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was deleted.
    Gone(UserRow),
    /// A userName or email is another user's.
    Taken {
        /// Whose it was.
        user: UserRow,
        /// Which of the two.
        attribute: AttrId,
        /// Whose it is.
        owner: UserId,
    },
}

impl Resolver<'_> {
    /// Takes back what is said of these users, each of whom is there once.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn undo(
        &mut self,
        users: &[TakeBack<'_>],
        author: Author<'_>,
    ) -> Result<Vec<Refused>, StateError> {
        let mut refused = Vec::new();
        let mut identified = Vec::new();
        for back in users {
            let mut named: SmallVec<[Chosen; 1]> = SmallVec::new();
            for (attribute, to) in &back.fields {
                let Back::User(user) = to else { continue };
                match self.named_user(*user)? {
                    Some(id) => named.push((*attribute, own_key(*user), id)),
                    None => refused.push(Refused::Gone(*user)),
                }
            }
            let mut bytes = self.ws.buffer();
            if !self.find_user(back.user, &mut bytes)? {
                refused.push(Refused::Gone(back.user));
                continue;
            }
            let document = self.decode(&bytes)?;
            if document.state == UserState::Tombstone {
                refused.push(Refused::Gone(back.user));
            } else {
                let mut after = document.clone_with(self.ws.spare());
                self.undo_in(back, &named, author, &document, &mut after)?;
                let is_other = |attribute| document.value(attribute) != after.value(attribute);
                let is_woken = !document.is_active() && after.is_active();
                if is_woken || is_other(USER_NAME) || is_other(EMAIL) {
                    identified.push(back.user);
                }
                self.ws.keep(after);
            }
            self.ws.keep(document);
            self.ws.give_back(bytes);
        }
        for user in identified {
            let mut bytes = self.ws.buffer();
            self.load_user(user, &mut bytes)?;
            let document = self.decode(&bytes)?;
            let id = document.id.0;
            let cause = self.cause_of_undo(&id);
            if let Some((key, owner)) = self.collision(&cause, Some(user), None, &document)? {
                refused.push(Refused::Taken {
                    user,
                    attribute: key.attribute,
                    owner,
                });
            }
            self.ws.keep(document);
            self.ws.give_back(bytes);
        }
        if refused.is_empty() {
            self.heal()?;
        }
        Ok(refused)
    }

    fn undo_in<'d>(
        &mut self,
        back: &TakeBack<'d>,
        named: &'d [Chosen],
        author: Author<'d>,
        before: &Document<'d>,
        after: &mut Document<'d>,
    ) -> Result<(), StateError> {
        let put = |attribute, put| Undo {
            attribute,
            run: self.run,
            at_us: self.now_us,
            actor: author.actor,
            reason: author.reason,
            put,
        };
        for (attribute, back) in &back.fields {
            let attribute = *attribute;
            let former = after.remove_undo(attribute);
            match back {
                Back::Value(value) => {
                    if after.value(attribute) != *value {
                        let against = after.outcome(attribute);
                        let value = *value;
                        after.put_undo(put(attribute, Put::Value { value, against }));
                    }
                }
                Back::User(_) => {
                    let mut named = named.iter();
                    let Some((_, key, id)) = named.find(|(a, ..)| *a == attribute) else {
                        continue;
                    };
                    if after.value(attribute) != Some(id) {
                        let against = after.outcome(attribute);
                        after.put_undo(put(attribute, Put::User { id, key, against }));
                    }
                }
                Back::Parts { without, with } => {
                    let mut standing = match former.map(|former| former.put) {
                        Some(Put::Parts { without, with }) => (without, with),
                        _ => (Parts::new(), Parts::new()),
                    };
                    standing.0.retain(|part| !with.contains(part));
                    standing.1.retain(|part| !without.contains(part));
                    standing.0.extend_from_slice(without);
                    standing.1.extend_from_slice(with);
                    for parts in [&mut standing.0, &mut standing.1] {
                        parts.sort_unstable();
                        parts.dedup();
                    }
                    let (without, with) = standing;
                    after.put_undo(put(attribute, Put::Parts { without, with }));
                }
            }
        }
        if let Some(active) = back.active.filter(|active| *active != after.is_active()) {
            let former = after.remove_undo(ACTIVE);
            if former.is_some() {
                let was = after.state;
                after.state = lifted(after, former.as_ref());
                if after.is_active() != active {
                    after.state = was;
                }
            }
            if after.is_active() != active {
                let state = Put::State {
                    active,
                    was: after.state,
                    against: after.presence(),
                };
                after.put_undo(put(ACTIVE, state));
                after.state = match active {
                    true => UserState::Active,
                    false => UserState::Deactivated(LeaverReason::Undone),
                };
            }
        }
        // Parts that are what is said anyway are let go.
        fold::order(self.rules, after);
        self.remind_gone(back.user, before, after);
        let id = before.id.0;
        let cause = self.cause_of_undo(&id);
        self.settle(&cause, back.user, Some(before), after)
    }

    /// What an undo had put in the place of whether the user may work was taken off: that is
    /// again what sources say.
    pub(super) fn lift_state(
        &mut self,
        user: UserRow,
        before: &Document<'_>,
        after: &mut Document<'_>,
    ) {
        if before.undo(ACTIVE).is_some() && after.undo(ACTIVE).is_none() {
            after.state = lifted(after, before.undo(ACTIVE));
            self.remind_gone(user, before, after);
        }
    }

    /// A user that works no more is deleted when its sources have waited for that.
    fn remind_gone(&mut self, user: UserRow, before: &Document<'_>, after: &Document<'_>) {
        if !before.is_active() || after.is_active() {
            return;
        }
        let gone = |state| matches!(state, LinkState::Gone(_));
        for link in after.links.iter().filter(|link| gone(link.state)) {
            self.remind(link.source, DueKind::Deletion, user);
        }
    }

    fn cause_of_undo<'c>(&self, id: &'c [u8; 16]) -> Cause<'c>
    where
        Self: 'c,
    {
        let mut made_of: SmallVec<[u8; 24]> = SmallVec::new();
        made_of.extend_from_slice(&self.run.0.to_le_bytes());
        made_of.extend_from_slice(id);
        self.own_cause(id, xxhash_rust::xxh3::xxh3_64(&made_of))
    }
}

/// The state of a user without what an undo had put in its place.
fn lifted(document: &Document<'_>, former: Option<&Undo<'_>>) -> UserState {
    let was = match former.map(|former| &former.put) {
        Some(Put::State { was, .. }) => *was,
        _ => document.state,
    };
    fold::said_state(document).unwrap_or(was)
}
