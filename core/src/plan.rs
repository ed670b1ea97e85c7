//! What should be stored: the whole effect of one batch.
//!
//! A plan is applied in one transaction together with the cursor. It holds final states
//! only (a user that changed three times in a batch is written once), while its events
//! hold every change in order.
//!
//! All bytes of users lie in two arenas, so a user costs no allocation of its own, and a plan
//! that is emptied keeps its memory for the next batch.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::attribute::AttrId;
use crate::conflict::{ConflictRow, Fingerprint};
use crate::event::EventBlock;
use crate::id::{MatchHash, SourceId, UserRow, ValueHash};
use crate::reason::SkipReason;
use crate::staged::Staged;
use crate::state::{KeyBytes, LinkTarget};

/// A user to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserWrite<'a> {
    /// The whole document; see [`crate::document`].
    pub document: &'a [u8],
    /// The columns beside the document, where they changed.
    pub columns: Option<Columns<'a>>,
    /// Whether it may work.
    pub active: bool,
    /// Microseconds since the Unix epoch.
    pub updated_us: i64,
    /// Whether the user is new in this plan (an insert, ascending).
    pub is_new: bool,
}

/// What lists and search read of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns<'a> {
    /// `userName`.
    pub user_name: Option<&'a str>,
    /// `displayName`.
    pub display_name: Option<&'a str>,
}

/// A piece of the arena.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// The last bytes of an arena.
    fn last(len: usize, arena_len: usize) -> Span {
        assert!(
            u32::try_from(arena_len).is_ok(),
            "more than 4 GiB of users in one plan"
        );
        Span {
            start: (arena_len - len) as u32,
            len: len as u32,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct StoredWrite {
    document: Span,
    columns: Option<[Option<Span>; 2]>,
    updated_us: i64,
    active: bool,
    is_new: bool,
}

/// The users of a plan.
#[derive(Debug, Default)]
pub struct UserWrites {
    documents: Vec<u8>,
    texts: String,
    rows: HashMap<UserRow, StoredWrite>,
}

impl UserWrites {
    /// Writes a user; what was written of it before is replaced. A user that is new stays
    /// new, and columns that changed before stay changed.
    ///
    /// # Panics
    /// Beyond 4 GiB of users in one plan: batches are closed long before.
    pub fn put(&mut self, row: UserRow, write: &UserWrite<'_>) {
        self.documents.extend_from_slice(write.document);
        let document = Span::last(write.document.len(), self.documents.len());
        let columns = write.columns.map(|c| {
            [c.user_name, c.display_name].map(|text| {
                let text = text?;
                self.texts.push_str(text);
                Some(Span::last(text.len(), self.texts.len()))
            })
        });
        let before = self.rows.get(&row);
        let write = StoredWrite {
            document,
            columns: columns.or_else(|| before.and_then(|b| b.columns)),
            updated_us: write.updated_us,
            active: write.active,
            is_new: write.is_new || before.is_some_and(|b| b.is_new),
        };
        self.rows.insert(row, write);
    }

    /// A user that is to be written.
    pub fn get(&self, row: UserRow) -> Option<UserWrite<'_>> {
        self.rows.get(&row).map(|write| self.view(write))
    }

    /// All of them, by their places.
    pub fn iter(&self) -> impl Iterator<Item = (UserRow, UserWrite<'_>)> {
        let mut rows: Vec<(UserRow, &StoredWrite)> =
            self.rows.iter().map(|(row, write)| (*row, write)).collect();
        rows.sort_unstable_by_key(|(row, _)| *row);
        rows.into_iter().map(|(row, write)| (row, self.view(write)))
    }

    /// Takes one out again.
    pub fn remove(&mut self, row: UserRow) {
        self.rows.remove(&row);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn view<'a>(&'a self, write: &StoredWrite) -> UserWrite<'a> {
        let text = |span: Span| &self.texts[span.range()];
        UserWrite {
            document: &self.documents[write.document.range()],
            columns: write.columns.map(|[user_name, display_name]| Columns {
                user_name: user_name.map(text),
                display_name: display_name.map(text),
            }),
            active: write.active,
            updated_us: write.updated_us,
            is_new: write.is_new,
        }
    }
}

/// How many records, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts([u64; SkipReason::ALL.len()]);

impl ReasonCounts {
    fn slot(&mut self, reason: SkipReason) -> &mut u64 {
        // Reasons are numbered from 1 without holes (`SkipReason::from_u8`).
        &mut self.0[reason as usize - 1]
    }

    /// How many for a reason.
    pub fn get(&self, reason: SkipReason) -> u64 {
        self.0[reason as usize - 1]
    }

    /// Reasons that have any, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        let all = SkipReason::ALL.into_iter().zip(self.0);
        all.filter(|(_, n)| *n > 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }
}

impl serde::Serialize for ReasonCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(reason, n)| (reason.as_str(), n)))
    }
}

impl<'de> serde::Deserialize<'de> for ReasonCounts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut counts = ReasonCounts::default();
        for (name, n) in named {
            let reason = SkipReason::from_name(&name)
                .ok_or_else(|| serde::de::Error::custom("a reason that is not known"))?;
            *counts.slot(reason) += n;
        }
        Ok(counts)
    }
}

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Records looked at.
    pub processed: u64,
    /// Users created.
    pub created: u64,
    /// Users whose attributes changed.
    pub updated: u64,
    /// Records gone whose users have a grace.
    #[serde(default)]
    pub suspected: u64,
    /// Users deactivated.
    pub deactivated: u64,
    /// Users deleted.
    #[serde(default)]
    pub deleted: u64,
    /// Users activated again.
    pub activated: u64,
    /// Records that changed nothing about their user.
    pub unchanged: u64,
    /// Records left out on purpose, or held for a person.
    pub skipped: u64,
    /// Records that failed.
    pub errored: u64,
    /// Records that had failed or were held, and are applied now.
    #[serde(default)]
    pub healed: u64,
    /// Why records were skipped or failed; adds up to both.
    #[serde(default)]
    pub reasons: ReasonCounts,
}

impl Counters {
    /// Counts a record that is not applied.
    pub fn leave_out(&mut self, reason: SkipReason) {
        if reason.is_error() {
            self.errored += 1;
        } else {
            self.skipped += 1;
        }
        *self.reasons.slot(reason) += 1;
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Counters) {
        self.processed += other.processed;
        self.created += other.created;
        self.updated += other.updated;
        self.suspected += other.suspected;
        self.deactivated += other.deactivated;
        self.deleted += other.deleted;
        self.activated += other.activated;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.errored += other.errored;
        self.healed += other.healed;
        for (reason, n) in other.reasons.iter() {
            *self.reasons.slot(reason) += n;
        }
    }
}

/// A record that begins or ceases to wait.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    /// Its source.
    pub source: SourceId,
    /// Its key.
    pub key: KeyBytes,
    /// Whether it begins.
    pub waits: bool,
}

/// How a user stands to a key that its records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Referring {
    /// None of them names it any more.
    No,
    /// The key leads to nobody: the user waits.
    Waits,
    /// The key leads to a user, which the field shows.
    Shows,
}

/// How users stand to a key, each user once.
pub type Referrers = SmallVec<[(UserRow, Referring); 1]>;

/// What becomes of a user later, if nothing comes in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DueKind {
    /// The grace of a suspected record ends.
    Grace = 1,
    /// A user whose records are gone is deleted.
    Deletion = 2,
    /// What is left of a deleted user is forgotten.
    Purge = 3,
    /// A pin ends: then, and of no source ([`SourceId::OWN`]).
    Pin = 4,
}

impl DueKind {
    /// The kinds that a source's rules have a time for.
    pub const OF_SOURCES: [DueKind; 3] = [DueKind::Grace, DueKind::Deletion, DueKind::Purge];
}

/// A reminder to look at a user. How long after `since_us` is for the rules of the source to
/// say, so that another rule holds for those who left already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Whose rules say when.
    pub source: SourceId,
    /// What for.
    pub kind: DueKind,
    /// Since when it is waited, microseconds since the Unix epoch.
    pub since_us: i64,
    /// The user.
    pub user: UserRow,
}

/// A record that its run names: it was skipped, it failed, or it is applied again. Holds no
/// value of it but the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its source.
    pub source: SourceId,
    /// Its key; empty when it has none that can be read.
    pub key: KeyBytes,
    /// Why it is, or was, not applied.
    pub reason: SkipReason,
    /// Whether it is applied again.
    pub healed: bool,
    /// The attribute concerned, where a rule of the directory names one.
    pub attribute: Option<AttrId>,
    /// The number of the mapping rule concerned, where one is.
    pub rule: Option<u16>,
}

/// The effects of one batch on the directory.
#[derive(Debug, Default)]
pub struct Plan {
    /// Users by their place.
    pub users: UserWrites,
    /// Links made or moved (`Some`) and broken (`None`).
    pub links: HashMap<(SourceId, KeyBytes), Option<LinkTarget>>,
    /// Records without a user: written (`Some`) and removed (`None`).
    pub records: HashMap<(SourceId, KeyBytes), Option<Vec<u8>>>,
    /// For each value the users that gained it (`true`) or lost it (`false`), each user
    /// once; see [`Plan::set_owner`].
    pub owners: HashMap<ValueHash, SmallVec<[(UserRow, bool); 1]>>,
    /// For each match key the records that begin or cease to wait for it, each record once;
    /// see [`Plan::set_waiting`].
    pub waiting: HashMap<MatchHash, Vec<Waiter>>,
    /// For each key that is named the users of which that changed, each user once; see
    /// [`Plan::set_referring`]. Of [`SourceId::OWN`] a key is a user
    /// ([`crate::document::own_key`]).
    pub references: HashMap<(SourceId, KeyBytes), Referrers>,
    /// Keys that lead to another user than before, and whose referrers are told only up to
    /// this one (`Some`), or all (`None`).
    pub relinked: BTreeMap<(SourceId, KeyBytes), Option<UserRow>>,
    /// How many referrers were looked at.
    pub told: usize,
    /// Records of which a change waits for approval from here on (`Some`), and no longer.
    pub staged: HashMap<(SourceId, KeyBytes), Option<Staged>>,
    /// By how many each source's links to active users became more or fewer.
    pub linked: SmallVec<[(SourceId, i64); 2]>,
    /// How many changes of each source were applied that count against its limit.
    pub counted: SmallVec<[(SourceId, u64); 2]>,
    /// Reminders that begin (`true`) or are no longer needed, in the order in which that was found.
    pub due: Vec<(Due, bool)>,
    /// By how many users there are more, or fewer, because of deletions and returns from them.
    pub undeleted: i64,
    /// Users of whom nothing is left.
    pub purged: Vec<UserRow>,
    /// Conflicts opened, changed or closed.
    pub conflicts: HashMap<Fingerprint, ConflictRow>,
    /// Every event, in order.
    pub events: EventBlock,
    /// What happened.
    pub counters: Counters,
    /// Records that the run names, in the order in which they were met.
    pub noted: Vec<Noted>,
    /// Records to be read again, because a value was neither in the image nor in the store.
    /// One may be named several times.
    pub reread: Vec<(SourceId, KeyBytes)>,
}

impl Plan {
    /// Counts a record that is not applied, and lets the run name it.
    pub fn leave_out(
        &mut self,
        source: SourceId,
        key: &[u8],
        reason: SkipReason,
        (attribute, rule): (Option<AttrId>, Option<u16>),
    ) {
        self.counters.leave_out(reason);
        self.noted.push(Noted {
            source,
            key: KeyBytes::from_slice(key),
            reason,
            healed: false,
            attribute,
            rule,
        });
    }

    /// A user gained or lost a value; the last word counts.
    pub fn set_owner(&mut self, hash: ValueHash, user: UserRow, gained: bool) {
        let owners = self.owners.entry(hash).or_default();
        match owners.iter_mut().find(|(row, _)| *row == user) {
            Some((_, state)) => *state = gained,
            None => owners.push((user, gained)),
        }
    }

    /// A record begins or ceases to wait; the last word counts.
    pub fn set_waiting(&mut self, hash: MatchHash, source: SourceId, key: &[u8], waits: bool) {
        let waiters = self.waiting.entry(hash).or_default();
        match waiters
            .iter_mut()
            .find(|w| w.source == source && w.key[..] == *key)
        {
            Some(waiter) => waiter.waits = waits,
            None => waiters.push(Waiter {
                source,
                key: KeyBytes::from_slice(key),
                waits,
            }),
        }
    }

    /// How a user stands to a key that is named; the last word counts.
    pub fn set_referring(&mut self, source: SourceId, key: &[u8], user: UserRow, is: Referring) {
        let key = (source, KeyBytes::from_slice(key));
        let users = self.references.entry(key).or_default();
        match users.iter_mut().find(|(row, _)| *row == user) {
            Some((_, state)) => *state = is,
            None => users.push((user, is)),
        }
    }

    /// How many users this plan has something to say of that name a key, or did.
    pub fn referring(&self, source: SourceId, key: &[u8]) -> usize {
        if self.references.is_empty() {
            return 0;
        }
        let of = self.references.get(&(source, KeyBytes::from_slice(key)));
        of.map_or(0, SmallVec::len)
    }

    /// Lays what this plan says of the users behind a place that name a key over what was
    /// known before: these, in their order, and at most `limit`. What was known must be more
    /// than the limit by [`Plan::referring`], or all there is.
    pub fn overlay_referrers(
        &self,
        (source, key): (SourceId, &[u8]),
        after: UserRow,
        limit: usize,
        users: &mut Vec<UserRow>,
    ) {
        let of = match self.references.is_empty() {
            true => None,
            false => self.references.get(&(source, KeyBytes::from_slice(key))),
        };
        for &(user, is) in of.into_iter().flatten().filter(|(user, _)| *user > after) {
            match (is, users.binary_search(&user)) {
                (Referring::No, Ok(at)) => {
                    users.remove(at);
                }
                (Referring::Waits | Referring::Shows, Err(at)) => users.insert(at, user),
                _ => {}
            }
        }
        users.truncate(limit);
    }

    /// A source has a link to an active user more or less.
    pub fn set_linked(&mut self, source: SourceId, more: i64) {
        match self.linked.iter_mut().find(|(s, _)| *s == source) {
            Some((_, n)) => *n += more,
            None => self.linked.push((source, more)),
        }
    }

    /// One more change of a source that counts against its limit was applied.
    pub fn count(&mut self, source: SourceId) {
        match self.counted.iter_mut().find(|(s, _)| *s == source) {
            Some((_, n)) => *n += 1,
            None => self.counted.push((source, 1)),
        }
    }

    /// How many changes of a source were applied that count against its limit.
    pub fn counted_of(&self, source: SourceId) -> u64 {
        let of = self.counted.iter().find(|(s, _)| *s == source);
        of.map_or(0, |(_, n)| *n)
    }

    /// Lays what this plan says of a value's users over what was known before.
    pub fn overlay_owners(&self, hash: ValueHash, users: &mut SmallVec<[UserRow; 4]>) {
        for &(user, gained) in self.owners.get(&hash).into_iter().flatten() {
            let at = users.iter().position(|u| *u == user);
            match (gained, at) {
                (true, None) => users.push(user),
                (false, Some(at)) => {
                    users.remove(at);
                }
                _ => {}
            }
        }
    }

    /// Lays what this plan says of the records that wait for a match key over what was known
    /// before.
    pub fn overlay_waiting(&self, hash: MatchHash, records: &mut Vec<(SourceId, KeyBytes)>) {
        for waiter in self.waiting.get(&hash).into_iter().flatten() {
            let same = |(source, key): &(SourceId, KeyBytes)| {
                *source == waiter.source && *key == waiter.key
            };
            match (waiter.waits, records.iter().position(same)) {
                (true, None) => records.push((waiter.source, waiter.key.clone())),
                (false, Some(at)) => {
                    records.remove(at);
                }
                _ => {}
            }
        }
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.links.is_empty()
            && self.records.is_empty()
            && self.owners.is_empty()
            && self.waiting.is_empty()
            && self.references.is_empty()
            && self.relinked.is_empty()
            && self.staged.is_empty()
            && self.due.is_empty()
            && self.purged.is_empty()
            && self.conflicts.is_empty()
            && self.events.is_empty()
            && self.reread.is_empty()
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.users.documents.clear();
        self.users.texts.clear();
        self.users.rows.clear();
        self.links.clear();
        self.records.clear();
        self.owners.clear();
        self.waiting.clear();
        self.references.clear();
        self.relinked.clear();
        self.told = 0;
        self.staged.clear();
        self.linked.clear();
        self.counted.clear();
        self.due.clear();
        self.undeleted = 0;
        self.purged.clear();
        self.conflicts.clear();
        self.events.clear();
        self.counters = Counters::default();
        self.noted.clear();
        self.reread.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn reasons_add_up_and_are_read_back_by_name() {
        let mut a = Counters::default();
        a.leave_out(SkipReason::BadValue);
        a.leave_out(SkipReason::DuplicateInSource);
        let mut b = a;
        b.add(&a);
        assert_eq!((b.skipped, b.errored), (2, 2));
        assert_eq!(b.reasons.get(SkipReason::BadValue), 2);
        let text = serde_json::to_string(&b).unwrap();
        assert!(
            text.contains(r#""reasons":{"bad_value":2,"duplicate_in_source":2}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), b);
        // As they were stored before reasons were counted.
        let old = r#"{"processed":1,"created":0,"updated":0,"deactivated":0,"activated":0,
                      "unchanged":0,"skipped":1,"errored":0}"#;
        let old: Counters = serde_json::from_str(old).unwrap();
        assert!(old.reasons.is_empty());
    }
}
