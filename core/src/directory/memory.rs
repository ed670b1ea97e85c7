//! A directory in memory: for tests and simulations.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::conflict::{ConflictRow, Fingerprint};
use crate::id::{MatchHash, SourceId, UserRow, ValueHash};
use crate::plan::{Due, Plan, Referring};
use crate::staged::Staged;
use crate::state::{KeyBytes, LinkTarget, State, StateError};

/// Stored state that lives only here.
#[derive(Clone, Debug, Default)]
pub struct MemoryState {
    /// Documents of users.
    pub users: HashMap<UserRow, Vec<u8>>,
    /// Where records lead.
    pub links: HashMap<(SourceId, KeyBytes), LinkTarget>,
    /// Documents of records without a user.
    pub records: HashMap<(SourceId, KeyBytes), Vec<u8>>,
    /// Which users have a value.
    pub owners: HashMap<ValueHash, HashSet<UserRow>>,
    /// Which records wait for a match key.
    pub waiting: HashMap<MatchHash, HashSet<(SourceId, KeyBytes)>>,
    /// The users that name a key, and whether they wait.
    pub references: BTreeMap<(SourceId, KeyBytes, UserRow), bool>,
    /// Keys whose referrers are told only up to a user.
    pub relinked: BTreeMap<(SourceId, KeyBytes), UserRow>,
    /// Records of which a change waits for approval.
    pub staged: HashMap<(SourceId, KeyBytes), Staged>,
    /// How many links to active users each source has.
    pub linked: HashMap<SourceId, i64>,
    /// Reminders.
    pub due: BTreeSet<Due>,
    /// Conflicts, open and closed.
    pub conflicts: HashMap<Fingerprint, ConflictRow>,
    last_row: i64,
}

impl MemoryState {
    /// Takes a plan in.
    pub fn apply(&mut self, plan: &Plan) {
        for (row, write) in plan.users.iter() {
            self.users.insert(row, write.document.to_vec());
        }
        for row in &plan.purged {
            self.users.remove(row);
        }
        for (due, is_due) in &plan.due {
            match is_due {
                true => self.due.insert(*due),
                false => self.due.remove(due),
            };
        }
        for (key, target) in &plan.links {
            match target {
                Some(target) => self.links.insert(key.clone(), *target),
                None => self.links.remove(key),
            };
        }
        for (key, record) in &plan.records {
            match record {
                Some(record) => self.records.insert(key.clone(), record.clone()),
                None => self.records.remove(key),
            };
        }
        for (&hash, changes) in &plan.owners {
            let owners = self.owners.entry(hash).or_default();
            for &(user, gained) in changes {
                if gained {
                    owners.insert(user);
                } else {
                    owners.remove(&user);
                }
            }
            if owners.is_empty() {
                self.owners.remove(&hash);
            }
        }
        for (&hash, changes) in &plan.waiting {
            let records = self.waiting.entry(hash).or_default();
            for waiter in changes {
                let record = (waiter.source, waiter.key.clone());
                if waiter.waits {
                    records.insert(record);
                } else {
                    records.remove(&record);
                }
            }
            if records.is_empty() {
                self.waiting.remove(&hash);
            }
        }
        for ((source, key), changes) in &plan.references {
            for &(user, is) in changes {
                let place = (*source, key.clone(), user);
                match is {
                    Referring::No => self.references.remove(&place),
                    is => self.references.insert(place, is == Referring::Waits),
                };
            }
        }
        for (key, told) in &plan.relinked {
            match told {
                Some(last) => self.relinked.insert(key.clone(), *last),
                None => self.relinked.remove(key),
            };
        }
        for (key, staged) in &plan.staged {
            match staged {
                Some(staged) => self.staged.insert(key.clone(), *staged),
                None => self.staged.remove(key),
            };
        }
        for &(source, more) in &plan.linked {
            *self.linked.entry(source).or_default() += more;
        }
        for (fingerprint, row) in &plan.conflicts {
            self.conflicts.insert(*fingerprint, row.clone());
        }
    }

    /// The conflicts that are open, in the order of their fingerprints.
    pub fn open_conflicts(&self) -> Vec<&ConflictRow> {
        let mut open: Vec<&ConflictRow> = self
            .conflicts
            .values()
            .filter(|c| c.closed_us.is_none())
            .collect();
        open.sort_by_key(|c| c.fingerprint);
        open
    }
}

impl State for MemoryState {
    fn link(&mut self, source: SourceId, key: &[u8]) -> Result<Option<LinkTarget>, StateError> {
        Ok(self
            .links
            .get(&(source, KeyBytes::from_slice(key)))
            .copied())
    }

    fn user(&mut self, row: UserRow, into: &mut Vec<u8>) -> Result<bool, StateError> {
        Ok(self
            .users
            .get(&row)
            .map(|d| into.extend_from_slice(d))
            .is_some())
    }

    fn record(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        let record = self.records.get(&(source, KeyBytes::from_slice(key)));
        Ok(record.map(|d| into.extend_from_slice(d)).is_some())
    }

    fn owners(
        &mut self,
        hash: ValueHash,
        into: &mut SmallVec<[UserRow; 4]>,
    ) -> Result<(), StateError> {
        if let Some(owners) = self.owners.get(&hash) {
            into.extend(owners.iter().copied());
        }
        Ok(())
    }

    fn anything_waits(&mut self) -> bool {
        !self.waiting.is_empty()
    }

    fn waiting(
        &mut self,
        hash: MatchHash,
        into: &mut Vec<(SourceId, KeyBytes)>,
    ) -> Result<(), StateError> {
        if let Some(records) = self.waiting.get(&hash) {
            into.extend(records.iter().cloned());
        }
        Ok(())
    }

    fn anything_refers(&mut self) -> bool {
        !self.references.is_empty()
    }

    fn referrers(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
        limit: usize,
        into: &mut Vec<UserRow>,
    ) -> Result<(), StateError> {
        let key = KeyBytes::from_slice(key);
        let from = std::ops::Bound::Excluded((source, key.clone(), after));
        let behind = self.references.range((from, std::ops::Bound::Unbounded));
        let same = behind.take_while(|((s, k, _), _)| (*s, k) == (source, &key));
        into.extend(same.map(|((_, _, user), _)| *user).take(limit));
        Ok(())
    }

    fn conflict(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        Ok(self
            .conflicts
            .get(&fingerprint)
            .filter(|c| c.closed_us.is_none())
            .cloned())
    }

    fn decided(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        let row = self.conflicts.get(&fingerprint).cloned();
        Ok(row.filter(|c| c.closed_us.is_some() && c.decision.is_some()))
    }

    fn allocate_user(&mut self) -> UserRow {
        self.last_row += 1;
        UserRow(self.last_row)
    }
}
