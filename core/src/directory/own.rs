//! Values that the identity side writes, pins, and takes back.
//!
//! Such a value is a contribution of its own ([`super::fold`]), so a write never undoes what a
//! source has said, and what a source says later never undoes the write: which of them is
//! seen is computed from both. A write is refused only where it would give a user a userName
//! or email that another one has; what takes over when an own value goes is treated as what
//! takes over when a record goes.

use smallvec::SmallVec;

use super::refer::IdText;
use super::{Cause, Origin, Resolver, fold};
use crate::attribute::AttrId;
use crate::conflict::{ConflictKind, Fingerprint};
use crate::document::{
    Contribution, Decided, Document, Evidence, Own, Pin, Reference, Rule, Standing, UserState,
    own_key,
};
use crate::id::{SourceId, UserId, UserRow};
use crate::mapped::Strength;
use crate::plan::{Due, DueKind};
use crate::state::StateError;

/// What is to become of a user's own values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// It is written, in the attribute's canonical form.
    Set {
        /// Which field.
        attribute: AttrId,
        /// The value.
        value: &'a [u8],
        /// Whether it stays whatever sources say.
        pin: Option<Pin>,
    },
    /// The field is to be another user.
    Refer {
        /// Which field.
        attribute: AttrId,
        /// The user.
        user: UserRow,
        /// Whether it stays whatever sources say.
        pin: Option<Pin>,
    },
    /// It is taken back, and so is what an undo has put; the sources' value shows.
    Unset(AttrId),
    /// It is pinned no longer.
    Unpin(AttrId),
    /// A person has looked at a tie.
    Decide {
        /// Which field.
        attribute: AttrId,
        /// Whether the own value is taken.
        own: bool,
    },
}

impl Edit<'_> {
    fn attribute(&self) -> AttrId {
        match *self {
            Edit::Set { attribute, .. }
            | Edit::Refer { attribute, .. }
            | Edit::Decide { attribute, .. } => attribute,
            Edit::Unset(attribute) | Edit::Unpin(attribute) => attribute,
        }
    }
}

/// Who writes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author<'a> {
    /// Who.
    pub actor: &'a str,
    /// Why; may be empty.
    pub reason: &'a str,
}

/// What came of edits. They are made all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// They are made: how each field's own value stands now; none when it has none.
    Done(Vec<(AttrId, Option<Standing>)>),
    /// A userName or email is another user's.
    Taken {
        /// Which of the two.
        attribute: AttrId,
        /// Whose it is.
        owner: UserId,
    },
    /// There is no user, or no longer, that the field could be.
    NoUser(AttrId),
    /// The user has been purged.
    Gone,
    /// The field has nothing that could be taken back, unpinned or decided.
    Nothing(AttrId),
}

/// A field that is to be another user: how that is named, and its id.
pub(super) type Chosen = (AttrId, [u8; 8], IdText);

impl Resolver<'_> {
    /// Writes, pins or takes back own values of a user.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn edit(
        &mut self,
        user: UserRow,
        edits: &[Edit<'_>],
        author: Author<'_>,
    ) -> Result<Edited, StateError> {
        let mut named: SmallVec<[Chosen; 1]> = SmallVec::new();
        for edit in edits {
            let found = match *edit {
                Edit::Refer { user, .. } => self.named_user(user)?.map(|id| (own_key(user), id)),
                Edit::Set { attribute, .. } if self.rules.is_reference(attribute) => None,
                Edit::Set { .. } | Edit::Unset(_) | Edit::Unpin(_) | Edit::Decide { .. } => {
                    continue;
                }
            };
            let Some((key, id)) = found else {
                return Ok(Edited::NoUser(edit.attribute()));
            };
            named.push((edit.attribute(), key, id));
        }
        let mut bytes = self.ws.buffer();
        self.load_user(user, &mut bytes)?;
        let document = self.decode(&bytes)?;
        let mut after = document.clone_with(self.ws.spare());
        let result = self.edit_in(user, edits, &named, author, &document, &mut after);
        self.ws.keep(after);
        self.ws.keep(document);
        self.ws.give_back(bytes);
        let edited = result?;
        self.heal()?;
        Ok(edited)
    }

    fn edit_in<'d>(
        &mut self,
        user: UserRow,
        edits: &[Edit<'d>],
        named: &'d [Chosen],
        author: Author<'d>,
        before: &Document<'d>,
        after: &mut Document<'d>,
    ) -> Result<Edited, StateError> {
        if before.state == UserState::Tombstone {
            return Ok(Edited::Gone);
        }
        let evidence = Evidence {
            link: None,
            position: "",
            commit_us: self.now_us,
            run: self.run,
            changed: None,
        };
        for edit in edits {
            if !make(after, edit, named, author, evidence) {
                return Ok(Edited::Nothing(edit.attribute()));
            }
        }
        if edits.is_empty() {
            fold::end_pins(after, self.now_us);
        }
        self.lift_state(user, before, after);
        fold::order(self.rules, after);
        let id = before.id.0;
        let cause = self.cause_of_own(&id, edits);
        let writes = |e: &Edit<'_>| matches!(e, Edit::Set { .. } | Edit::Refer { .. });
        let writes = edits.iter().any(writes);
        let losers = match writes {
            true => match self.collision(&cause, Some(user), Some(before), after)? {
                Some((key, owner)) => {
                    return Ok(Edited::Taken {
                        attribute: key.attribute,
                        owner,
                    });
                }
                None => Vec::new(),
            },
            false => self.drop_taken(&cause, user, before, after)?,
        };
        self.settle(&cause, user, Some(before), after)?;
        self.hold_losers(&cause, user, &losers)?;
        let stands = |edit: &Edit<'_>| {
            let attribute = edit.attribute();
            (attribute, after.own(attribute).map(|own| own.standing))
        };
        Ok(Edited::Done(edits.iter().map(stands).collect()))
    }

    /// Takes off the pins of a user that have ended. A reminder that means nothing any more is
    /// removed.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn end_pins(&mut self, due: &Due) -> Result<(), StateError> {
        let mut bytes = self.ws.buffer();
        let is_there = self.find_user(due.user, &mut bytes)?;
        self.ws.give_back(bytes);
        if is_there {
            self.edit(due.user, &[], Author::default())?;
        }
        // What ends later has a reminder of its own.
        self.plan.due.push((*due, false));
        Ok(())
    }

    pub(super) fn cause_of_own<'c>(&self, id: &'c [u8; 16], edits: &[Edit<'_>]) -> Cause<'c>
    where
        Self: 'c,
    {
        let mut made_of: SmallVec<[u8; 128]> = SmallVec::new();
        made_of.extend_from_slice(&self.now_us.to_le_bytes());
        for edit in edits {
            made_of.extend_from_slice(&edit.attribute().0.to_le_bytes());
            match edit {
                Edit::Set { value, .. } => made_of.extend_from_slice(value),
                Edit::Refer { user, .. } => made_of.extend_from_slice(&own_key(*user)),
                Edit::Unset(_) | Edit::Unpin(_) | Edit::Decide { .. } => {}
            }
        }
        self.own_cause(id, xxhash_rust::xxh3::xxh3_64(&made_of))
    }

    /// What a person did to a user, as the cause of events.
    pub(super) fn own_cause<'c>(&self, id: &'c [u8; 16], hash: u64) -> Cause<'c>
    where
        Self: 'c,
    {
        let rules = self.rules.own();
        Cause {
            rules,
            source: rules.id,
            key: id,
            tx: &[],
            position: "",
            ordinal: 0,
            commit_us: self.now_us,
            origin: Origin::Own,
            hash,
            recorded: None,
        }
    }

    /// Opens and closes the conflicts of fields in which an own value and a source's are of
    /// the same time.
    pub(super) fn tell_ties(
        &mut self,
        cause: &Cause<'_>,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) -> Result<(), StateError> {
        for own in before.iter().flat_map(|b| &b.owns) {
            let attribute = own.attribute;
            let is_over = after.own(attribute).is_none_or(|own| !is_tied(own));
            if is_tied(own) && is_over {
                self.close_conflict(cause, tie(after.id, attribute))?;
            }
        }
        for own in after.owns.iter().filter(|own| is_tied(own)) {
            let attribute = own.attribute;
            let rival = after.group(attribute).iter().find_map(|c| c.link);
            let Some(link) = rival.and_then(|at| after.links.get(usize::from(at))) else {
                continue;
            };
            let of_rival = Cause {
                source: link.source,
                ..*cause
            };
            let fp = tie(after.id, attribute);
            let kind = ConflictKind::Value;
            self.join_kind(&of_rival, fp, kind, Some(attribute), link.key, &[after.id])?;
        }
        Ok(())
    }

    /// Has a user looked at when the first of its pins ends, if that is another time now.
    pub(super) fn tell_pins(
        &mut self,
        user: UserRow,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
    ) {
        let next = |document: &Document<'_>| {
            let ends = document.owns.iter().filter_map(|own| own.pin?.until_us());
            ends.min()
        };
        let (was, is) = (before.and_then(next), next(after));
        if was == is {
            return;
        }
        for (since_us, begins) in [(was, false), (is, true)] {
            let due = since_us.map(|since_us| Due {
                source: SourceId::OWN,
                kind: DueKind::Pin,
                since_us,
                user,
            });
            self.plan.due.extend(due.map(|due| (due, begins)));
        }
    }
}

impl Default for Author<'_> {
    /// Nobody: time has passed.
    fn default() -> Self {
        Author {
            actor: "",
            reason: "",
        }
    }
}

fn is_tied(own: &Own<'_>) -> bool {
    own.standing.by == Rule::Tie
}

/// Names the conflict of a field.
fn tie(user: UserId, attribute: AttrId) -> Fingerprint {
    let mut made_of: SmallVec<[u8; 24]> = SmallVec::new();
    made_of.push(ConflictKind::Value as u8);
    made_of.extend_from_slice(&attribute.0.to_le_bytes());
    made_of.extend_from_slice(&user.0);
    Fingerprint(xxhash_rust::xxh3::xxh3_64(&made_of))
}

/// Makes an edit, all but the order of contributions. `false` when there is nothing to edit.
fn make<'d>(
    document: &mut Document<'d>,
    edit: &Edit<'d>,
    named: &'d [Chosen],
    author: Author<'d>,
    evidence: Evidence<'d>,
) -> bool {
    let attribute = edit.attribute();
    // A person's word is newer than what an undo has put.
    let is_lifted = match edit {
        Edit::Set { .. } | Edit::Refer { .. } | Edit::Unset(_) => {
            document.remove_undo(attribute).is_some()
        }
        Edit::Unpin(_) | Edit::Decide { .. } => false,
    };
    let at = document
        .owns
        .binary_search_by_key(&attribute, |o| o.attribute);
    match (*edit, at) {
        (Edit::Set { pin, .. } | Edit::Refer { pin, .. }, at) => {
            let chosen = named.iter().find(|(a, ..)| *a == attribute);
            let value = match (*edit, chosen) {
                (Edit::Set { value, .. }, _) => value,
                (_, Some((_, _, id))) => id,
                (_, None) => return false,
            };
            forget(document, attribute);
            let own = Own {
                attribute,
                actor: author.actor,
                reason: author.reason,
                pin,
                decided: None,
                standing: Standing {
                    wins: true,
                    by: Rule::Alone,
                },
            };
            match at {
                Ok(at) => document.owns[at] = own,
                Err(at) => document.owns.insert(at, own),
            }
            document.evidence.push(evidence);
            let evidence = (document.evidence.len() - 1) as u16;
            document.contributions.push(Contribution {
                attribute,
                link: None,
                rule: 0,
                strength: Strength::Always,
                evidence,
                fresh: false,
                sole: false,
                value,
            });
            if let Some((_, key, _)) = chosen {
                document.references.push(Reference {
                    attribute,
                    link: None,
                    rule: 0,
                    strength: Strength::Always,
                    evidence,
                    fresh: false,
                    key,
                });
                document.references.sort_by_key(|r| (r.link, r.attribute));
            }
        }
        (Edit::Unset(_), Ok(at)) => {
            forget(document, attribute);
            document.owns.remove(at);
        }
        (Edit::Unset(_), Err(_)) if is_lifted => {}
        (Edit::Unpin(_), Ok(at)) if document.owns[at].pin.is_some() => {
            document.owns[at].pin = None;
        }
        (Edit::Decide { own, .. }, Ok(at)) if is_tied(&document.owns[at]) => {
            let mut group = document.group(attribute).iter();
            let Some(rival) = group.find(|c| c.link.is_some()) else {
                return false;
            };
            document.owns[at].decided = Some(Decided {
                own,
                against: fold::value_hash(rival.value),
            });
        }
        _ => return false,
    }
    true
}

/// Drops a field's own value, and what sources' values are marked with beside it.
fn forget(document: &mut Document<'_>, attribute: AttrId) {
    let is_own = |c: &Contribution<'_>| c.attribute == attribute && c.link.is_none();
    document.contributions.retain(|c| !is_own(c));
    for c in &mut document.contributions {
        if c.attribute == attribute {
            c.fresh = false;
        }
    }
    document
        .references
        .retain(|r| (r.attribute, r.link) != (attribute, None));
    for r in &mut document.references {
        if r.attribute == attribute {
            r.fresh = false;
        }
    }
}
