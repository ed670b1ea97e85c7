//! A userName or email that goes back belongs to one user alone.
//!
//! All users that go back are looked at together, since what one gives up another may get. Who
//! would share an identifier with somebody keeps the one that it has, or stays as inactive as it
//! is; that in turn may be what a third one was to get, so it is asked again until nobody shares
//! one. Each time somebody leaves something out, so it ends.

use hashbrown::{HashMap, HashSet};

use super::{Decision, LeftOut, Wanted, Why};
use crate::attribute::{ACTIVE, AttrId, Attributes, EMAIL, USER_NAME};
use crate::document::Document;
use crate::id::{UserId, UserRow};
use crate::mapping::fold;

const IDENTIFIERS: [AttrId; 2] = [USER_NAME, EMAIL];

/// A user that goes back.
#[derive(Clone, Debug)]
pub struct Returning {
    /// Its place; none when nothing is left of it.
    pub row: Option<UserRow>,
    /// Its id.
    pub id: UserId,
    /// What is taken back of it.
    pub decision: Decision,
    is_active: bool,
    identifiers: [Option<String>; 2],
}

impl Returning {
    /// A user as it is now, and what is taken back of it.
    pub fn new(row: UserRow, user: &Document<'_>, decision: Decision) -> Returning {
        let text = |attribute| {
            let value = user.value(attribute)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Returning {
            row: Some(row),
            id: user.id,
            decision,
            is_active: user.is_active(),
            identifiers: IDENTIFIERS.map(text),
        }
    }

    /// A user of which nothing is left.
    pub fn gone(id: UserId, decision: Decision) -> Returning {
        Returning {
            row: None,
            id,
            decision,
            is_active: false,
            identifiers: [None, None],
        }
    }

    fn will_be_active(&self) -> bool {
        self.decision.active.unwrap_or(self.is_active)
    }

    /// What an identifier goes back to, if it does.
    fn goes_to(&self, attribute: AttrId) -> Option<Option<&str>> {
        let mut fields = self.decision.fields.iter();
        let field = fields.find(|(a, _)| *a == attribute)?;
        match &field.1 {
            Wanted::Value { after, .. } => Some(after.as_deref()),
            Wanted::User { .. } | Wanted::Parts { .. } => None,
        }
    }

    /// An identifier as others compare it, when the user goes back.
    fn will_have(&self, at: usize) -> Option<Vec<u8>> {
        let goes_to = self.goes_to(IDENTIFIERS[at]);
        let text = goes_to.unwrap_or(self.identifiers[at].as_deref())?;
        let mut folded = Vec::new();
        fold(text.as_bytes(), &mut folded);
        (!folded.is_empty()).then_some(folded)
    }

    /// Keeps an identifier, or stays inactive because of it.
    fn leave_out(&mut self, attribute: AttrId, owner: UserId, attributes: &Attributes) {
        let mut fields = self.decision.fields.iter();
        let (attribute, now, then) = match fields.position(|(a, _)| *a == attribute) {
            Some(at) => match self.decision.fields.remove(at).1 {
                Wanted::Value { before, after } => (attribute, before, after),
                Wanted::User { .. } | Wanted::Parts { .. } => (attribute, None, None),
            },
            None => {
                self.decision.active = None;
                let text = |active: bool| Some(active.to_string());
                (ACTIVE, text(false), text(true))
            }
        };
        self.decision.left.push(LeftOut {
            attribute: attributes.get(attribute).map(|a| a.name.clone()),
            now,
            then,
            why: Why::Taken(owner),
        });
    }
}

/// Leaves out fields that were another user who is no more. `is_there` says of an id whether
/// somebody has it who was not deleted.
///
/// # Errors
/// Those of `is_there`.
pub fn leave_erased<E>(
    users: &mut [Returning],
    attributes: &Attributes,
    mut is_there: impl FnMut(&str) -> Result<bool, E>,
) -> Result<(), E> {
    for user in users {
        let fields = std::mem::take(&mut user.decision.fields);
        for (attribute, wanted) in fields {
            match wanted {
                Wanted::User { before, after } if !is_there(&after)? => {
                    user.decision.left.push(LeftOut {
                        attribute: attributes.get(attribute).map(|a| a.name.clone()),
                        now: before,
                        then: Some(after),
                        why: Why::Erased,
                    });
                }
                wanted => user.decision.fields.push((attribute, wanted)),
            }
        }
    }
    Ok(())
}

/// Leaves out what would give two active users the same userName or email. `owners` names the
/// active users that have a folded value now.
///
/// # Errors
/// Those of `owners`.
pub fn leave_taken<E>(
    users: &mut [Returning],
    attributes: &Attributes,
    mut owners: impl FnMut(AttrId, &[u8]) -> Result<Vec<(UserRow, UserId)>, E>,
) -> Result<(), E> {
    let rows: HashSet<UserRow> = users.iter().filter_map(|user| user.row).collect();
    let mut outside: HashMap<(AttrId, Vec<u8>), Option<UserId>> = HashMap::new();
    loop {
        let mut taken = Vec::new();
        let mut inside: HashMap<(AttrId, Vec<u8>), usize> = HashMap::new();
        for (at, user) in users.iter().enumerate() {
            if !user.will_be_active() {
                continue;
            }
            let is_woken = !user.is_active;
            for (n, attribute) in IDENTIFIERS.into_iter().enumerate() {
                let Some(folded) = user.will_have(n) else {
                    continue;
                };
                let brings = is_woken || user.goes_to(attribute).is_some();
                let key = (attribute, folded);
                if let Some(&other) = inside.get(&key) {
                    // Whichever of the two brings it goes without.
                    let (loser, owner) = match brings {
                        true => (at, other),
                        false => (other, at),
                    };
                    taken.push((loser, attribute, users[owner].id));
                    continue;
                }
                if brings {
                    let owner = match outside.get(&key) {
                        Some(owner) => *owner,
                        None => {
                            let all = owners(attribute, &key.1)?;
                            let mut others = all.into_iter().filter(|(row, _)| !rows.contains(row));
                            let owner = others.next().map(|(_, id)| id);
                            outside.insert(key.clone(), owner);
                            owner
                        }
                    };
                    if let Some(owner) = owner {
                        taken.push((at, attribute, owner));
                        continue;
                    }
                }
                inside.insert(key, at);
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let mut once = HashSet::new();
        for (at, attribute, owner) in taken {
            if once.insert(at) {
                users[at].leave_out(attribute, owner, attributes);
            }
        }
    }
}
