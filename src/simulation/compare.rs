//! What changed between two states of a store: users and records, walked side by side.
//!
//! Documents that are the same bytes are passed over. Of the others, what matters is what a
//! person would see, or what becomes of a record; that a link merely took in another row or
//! another mapping is no change, and no part of a plan. A record that stays as it is for
//! everybody to see, and by which others are decided differently now, is applied with the rest
//! and not listed.

use std::collections::{BTreeMap, HashMap};

use rollcall_contract::Key;
use rollcall_core::attribute::{ACTIVE, AttrId, AttrType, Attributes, EMAIL, USER_NAME};
use rollcall_core::document::{Document, Link, LinkState, Record, UserState};
use rollcall_core::id::{SourceId, UserId, UserRow};
use rollcall_core::mapped::key_text;
use rollcall_core::mapping::Mapper;
use rollcall_core::reason::SkipReason;
use rollcall_core::staged::{Counted, counted};
use rollcall_store::{HeldRecord, Readers, StoreError, UserFilter, UserRowView};

use uuid::Uuid;

use super::changes::Place;
use super::plan::{Change, Field, Plan};
use super::still::Seen;
use crate::cli::exit::Failure;
use crate::sync::planned::{
    Digest, KeyText, MAX_RECORDS, PlannedRecord, SeenUser, conflict_of, digest, held_for,
    name_of_new,
};

/// Rows that are read at once.
const AT_ONCE: usize = 2_000;

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 8 << 20;

/// Everything that comparing needs.
pub(super) struct Comparing<'a> {
    /// The store as it was.
    pub(super) before: &'a Readers,
    /// The store as the simulation left it.
    pub(super) after: &'a Readers,
    pub(super) source: SourceId,
    pub(super) attributes: &'a Attributes,
    pub(super) mapper: &'a Mapper,
    pub(super) names: &'a HashMap<SourceId, String>,
    pub(super) seen: &'a Seen,
    /// Match keys that several rows of a page have.
    pub(super) shared: BTreeMap<u32, Vec<Digest>>,
    /// Whether the mapping is another one than the one that was applied.
    pub(super) remapped: bool,
}

/// The place of records that are absent: behind those that were read.
const ABSENT: Place = (u32::MAX, u32::MAX);

#[derive(Default)]
struct Found {
    records: Vec<(Place, PlannedRecord)>,
    others: Vec<SeenUser>,
    /// By user, which of its records is in the plan.
    of_user: HashMap<UserId, Key>,
    /// How those are named who are new.
    new_users: HashMap<UserId, u64>,
}

impl Comparing<'_> {
    /// Writes everything that changed into a plan.
    pub(super) fn compare(&self, plan: &mut Plan) -> Result<(), Failure> {
        let mut found = Found::default();
        self.users(plan, &mut found)?;
        self.records(plan, &mut found)?;
        plan.changes.end()?;
        // Those that are absent come behind all others, in the order of their keys.
        found
            .records
            .sort_by(|(a, x), (b, y)| (a, &x.key.0).cmp(&(b, &y.key.0)));
        let mut at = HashMap::new();
        let mut records = Vec::with_capacity(found.records.len());
        for (_, record) in found.records {
            at.insert(record.key.0.clone(), records.len());
            records.push(record);
        }
        self.events(|event| {
            let Some(digest) = digest(&event, |user| found.new_users.get(&user).copied()) else {
                return;
            };
            let record = match event.user {
                Some(user) => found.of_user.get(&user).and_then(|key| at.get(key)),
                None => conflict_of(&event).1.iter().find_map(|key| at.get(key)),
            };
            match record.and_then(|&at| records.get_mut(at)) {
                Some(record) => record.events.push(digest),
                None => plan.apply.other_events.push(digest),
            }
        })?;
        plan.apply.shared = self.shared.clone();
        let has_some = |page: &u32| records.binary_search_by_key(page, |r| r.page).is_ok();
        plan.apply.shared.retain(|page, _| has_some(page));
        plan.apply.records = records;
        plan.apply.others = found.others;
        Ok(())
    }

    /// Every event that the simulation made.
    fn events(
        &self,
        mut each: impl FnMut(rollcall_core::event::Event<'_>),
    ) -> Result<(), StoreError> {
        let mut from = self.before.counts()?.next_position;
        loop {
            let blocks = self.after.outbox_from(from, EVENT_BYTES)?;
            let Some(last) = blocks.last() else {
                return Ok(());
            };
            from = last.last_position().next();
            for block in &blocks {
                for placed in block.events() {
                    let placed = placed.map_err(|e| StoreError::Damaged {
                        detail: e.to_string(),
                    })?;
                    each(placed.event);
                }
            }
        }
    }

    fn users(&self, plan: &mut Plan, found: &mut Found) -> Result<(), Failure> {
        let mut old = Rows::new(|after: Option<UserRow>| {
            self.before.users(&UserFilter::default(), after, AT_ONCE)
        });
        let mut new = Rows::new(|after: Option<UserRow>| {
            self.after.users(&UserFilter::default(), after, AT_ONCE)
        });
        let by = |user: &UserRowView| user.row;
        while let Some(after) = new.next(by)? {
            let before = old.until(after.row, by)?;
            if before
                .as_ref()
                .is_some_and(|b| b.document == after.document)
            {
                continue;
            }
            let decoded = before.as_ref().map(|b| decode(&b.document)).transpose()?;
            self.user(decoded.as_ref(), &decode(&after.document)?, plan, found)?;
        }
        Ok(())
    }

    fn user(
        &self,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
        plan: &mut Plan,
        found: &mut Found,
    ) -> Result<(), Failure> {
        if before.is_none() {
            let name = name_of_new(after);
            found.new_users.extend(name.map(|name| (after.id, name)));
        }
        let was = |at: usize| before.and_then(|b| b.links.get(at));
        let is_touched = |at: usize| {
            let link = &after.links[at];
            was(at).is_none_or(|old| (old.state, old.hash) != (link.state, link.hash))
        };
        let decides_else = |at: usize| before.is_none_or(|b| decides_else(b, after, at));
        let all = 0..after.links.len();
        let own = all.clone().filter(|&at| {
            after.links[at].source == self.source && (is_touched(at) || decides_else(at))
        });
        let own: Vec<usize> = own.collect();
        let is_visible = before.is_none_or(|b| b.version != after.version);
        if is_visible {
            let mut change =
                self.visible(before, after, all.into_iter().find(|&at| is_touched(at)));
            let kind = before.and_then(|before| self.counted(before, after));
            change.counted = kind.map(|kind| kind.as_str().to_owned());
            plan.count(&change.action, &change.reason);
            if let Some(kind) = &change.counted {
                *plan.limit.counted.entry(kind.clone()).or_default() += 1;
                plan.limit.changes += 1;
            }
            if self.is_full(plan, found) {
                return Ok(());
            }
            change.records = own
                .iter()
                .map(|&at| key_text(after.links[at].key))
                .collect();
            let place = own.iter().map(|&at| self.place(after.links[at].key)).min();
            plan.changes.push(place.unwrap_or(ABSENT), &change)?;
            for &at in &own {
                self.add(&after.links[at], Some(after), found)?;
            }
            if own.is_empty()
                && let Some(before) = before
            {
                found.others.push(seen(before));
            }
            return Ok(());
        }
        for at in own {
            let link = &after.links[at];
            let Some((action, reason)) = became(was(at).map(|l| l.state), link.state) else {
                if decides_else(at) && !self.is_full(plan, found) {
                    self.add(link, Some(after), found)?;
                }
                continue;
            };
            plan.count(action, reason);
            if self.is_full(plan, found) {
                continue;
            }
            let change = Change {
                records: vec![key_text(link.key)],
                user: Some(after.id.to_string()),
                user_name: self.text(after, USER_NAME),
                action: action.to_owned(),
                reason: reason.to_owned(),
                counted: None,
                fields: Vec::new(),
            };
            plan.changes.push(self.place(link.key), &change)?;
            self.add(link, Some(after), found)?;
        }
        Ok(())
    }

    /// What a change that others can see counts as against the source's limit.
    fn counted(&self, before: &Document<'_>, after: &Document<'_>) -> Option<Counted> {
        let of_mapping = self.remapped && before.is_active();
        counted(before, after).or(of_mapping.then_some(Counted::Mapping))
    }

    /// A change that others can see. `touched` is the first link that it comes from.
    fn visible(
        &self,
        before: Option<&Document<'_>>,
        after: &Document<'_>,
        touched: Option<usize>,
    ) -> Change {
        let mut fields = Vec::new();
        let mut all: Vec<AttrId> = before.into_iter().chain([after]).flat_map(ids).collect();
        all.sort_unstable();
        all.dedup();
        for attribute in all.into_iter().filter(|a| *a != ACTIVE) {
            let old = before.and_then(|b| self.text(b, attribute));
            let new = self.text(after, attribute);
            if old != new {
                fields.push(Field {
                    attribute: self.name(attribute),
                    before: old,
                    after: new,
                    rule: self.rule(after, attribute),
                });
            }
        }
        let is_switched = before.is_some_and(|b| b.is_active() != after.is_active());
        if is_switched {
            let active = |d: &Document<'_>| Some(d.is_active().to_string());
            fields.push(Field {
                attribute: "active".to_owned(),
                before: before.and_then(active),
                after: active(after),
                rule: self.rule(after, ACTIVE),
            });
        }
        let changes = |id| fields.iter().any(|f| f.attribute == self.name(id));
        let action = match (before, is_switched, after.is_active()) {
            (None, _, _) => "created",
            (_, true, true) => "activated",
            (_, true, false) => "deactivated",
            _ if changes(EMAIL) || changes(USER_NAME) => "identifier_changed",
            _ => "updated",
        };
        let link = touched.map(|at| (before.and_then(|b| b.links.get(at)), &after.links[at]));
        let reason = match (after.state, link) {
            (UserState::Deactivated(reason), _) if is_switched => reason.as_str(),
            (_, None) => "other_user_changed",
            (_, Some((_, link))) if link.source != self.source => "other_user_changed",
            (_, Some((None, _))) => "record_joined",
            (_, Some((Some(old), _))) if !old.state.is_present() => "record_came_back",
            (_, Some((Some(old), new))) => match (new.state.gone(), old.shadow == new.shadow) {
                (Some(reason), _) => reason.as_str(),
                (None, true) => "mapping_changed",
                (None, false) => "row_changed",
            },
        };
        Change {
            records: Vec::new(),
            user: before.map(|b| b.id.to_string()),
            user_name: self.text(before.unwrap_or(after), USER_NAME),
            action: action.to_owned(),
            reason: reason.to_owned(),
            counted: None,
            fields,
        }
    }

    fn records(&self, plan: &mut Plan, found: &mut Found) -> Result<(), Failure> {
        let read = |readers: &Readers, after: Option<Vec<u8>>| {
            readers.records_after(self.source, &after.unwrap_or_default(), AT_ONCE)
        };
        let mut old = Rows::new(|after| read(self.before, after));
        let mut new = Rows::new(|after| read(self.after, after));
        let by = |record: &HeldRecord| record.key.clone();
        loop {
            let after = new.next(by)?;
            // Those that are only in the old state lead to a user now, or are gone: then their key
            // leads to nobody, or to the user that it led to before.
            let limit = after.as_ref().map(|r| r.key.clone());
            while let Some(gone) = old.next_before(limit.as_ref(), by)? {
                let user = self.after.user_by_record(self.source, &gone.key)?.flatten();
                let user = user.as_ref().map(|u| decode(&u.document)).transpose()?;
                let link_of = |user: &Document<'_>| {
                    let at = user.find_link(self.source, &gone.key)?;
                    Some((user.links[at].state, user.links[at].hash))
                };
                let is = user.as_ref().and_then(link_of);
                let was = match &user {
                    Some(user) => self.before.user_by_id(user.id)?,
                    None => None,
                };
                let was = was.map(|was| decode(&was.document).map(|user| link_of(&user)));
                if is == was.transpose()?.flatten() {
                    let (what, after) = (("forgotten", "absent"), user.map(|u| u.version));
                    self.record(&gone.key, what, None, after, plan, found)?;
                }
            }
            let Some(after) = after else { return Ok(()) };
            let before = old.until(after.key.clone(), by)?;
            if before
                .as_ref()
                .is_some_and(|b| b.document == after.document)
            {
                continue;
            }
            let new = record(&after.document)?;
            let old = before.as_ref().map(|b| record(&b.document)).transpose()?;
            let reason = new.reason;
            if let Some(old) = old.filter(|old| old.reason == reason) {
                if old.hold != new.hold && !self.is_full(plan, found) {
                    self.add_record(&after.key, Some(&new), None, found)?;
                }
                continue;
            }
            let what = match SkipReason::OutOfScope == reason {
                true => ("left_out", reason.as_str()),
                false => ("held", reason.as_str()),
            };
            self.record(&after.key, what, Some(&new), None, plan, found)?;
        }
    }

    /// What becomes of a record that leads to no user.
    fn record(
        &self,
        key: &[u8],
        (action, reason): (&str, &str),
        record: Option<&Record<'_>>,
        after: Option<u64>,
        plan: &mut Plan,
        found: &mut Found,
    ) -> Result<(), Failure> {
        plan.count(action, reason);
        if self.is_full(plan, found) {
            return Ok(());
        }
        let change = Change {
            records: vec![key_text(key)],
            user: None,
            user_name: None,
            action: action.to_owned(),
            reason: reason.to_owned(),
            counted: None,
            fields: Vec::new(),
        };
        plan.changes.push(self.place(key), &change)?;
        Ok(self.add_record(key, record, after, found)?)
    }

    /// A record that leads to no user, as a part of what is applied.
    fn add_record(
        &self,
        key: &[u8],
        record: Option<&Record<'_>>,
        after: Option<u64>,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let Some(own) = Key::from_bytes(key) else {
            return Ok(());
        };
        let record = PlannedRecord {
            key: KeyText(own),
            page: self.place(key).0,
            row: record.map(|r| Digest(r.hash)),
            user: self.seen_user(key)?,
            after,
            held: record.map(|r| held_for(r.reason, r.hold)),
            events: Vec::new(),
        };
        found.records.push((self.place(key), record));
        Ok(())
    }

    fn add(
        &self,
        link: &Link<'_>,
        after: Option<&Document<'_>>,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let Some(key) = Key::from_bytes(link.key) else {
            return Ok(());
        };
        let place = self.place(link.key);
        if let Some(user) = after {
            found.of_user.entry(user.id).or_insert_with(|| key.clone());
        }
        found.records.push((
            place,
            PlannedRecord {
                key: KeyText(key),
                page: place.0,
                row: (place != ABSENT).then_some(Digest(link.hash)),
                user: self.seen_user(link.key)?,
                after: after.map(|user| user.version),
                held: match link.state {
                    LinkState::Held(reason) => Some(held_for(reason, link.hold)),
                    _ => None,
                },
                events: Vec::new(),
            },
        ));
        Ok(())
    }

    /// The user that a record led to.
    fn seen_user(&self, key: &[u8]) -> Result<Option<SeenUser>, StoreError> {
        let user = self.before.user_by_record(self.source, key)?.flatten();
        user.map(|user| Ok(seen(&decode(&user.document)?)))
            .transpose()
    }

    fn is_full(&self, plan: &mut Plan, found: &Found) -> bool {
        let is_full = found.records.len() >= MAX_RECORDS;
        plan.unlisted += u64::from(is_full);
        is_full
    }

    fn place(&self, key: &[u8]) -> Place {
        self.seen.place(key).unwrap_or(ABSENT)
    }

    fn name(&self, attribute: AttrId) -> String {
        let known = self.attributes.get(attribute);
        known.map_or_else(|| format!("[{}]", attribute.0), |a| a.name.clone())
    }

    /// The value that a user shows.
    fn text(&self, user: &Document<'_>, attribute: AttrId) -> Option<String> {
        let kind = self.attributes.get(attribute).map(|a| a.kind);
        if kind == Some(AttrType::List) {
            let parts = user.parts(attribute);
            return (!parts.is_empty()).then(|| parts.join(", "));
        }
        let value = user.value(attribute)?;
        let text = String::from_utf8_lossy(value).into_owned();
        match kind {
            Some(AttrType::Reference) => Some(self.new_user(&text).unwrap_or(text)),
            _ => Some(text),
        }
    }

    /// What a user that is not there yet is called: it gets another id when it is made.
    fn new_user(&self, id: &str) -> Option<String> {
        let id = UserId(*Uuid::try_parse(id).ok()?.as_bytes());
        if self.before.user_by_id(id).ok()?.is_some() {
            return None;
        }
        let user = self.after.user_by_id(id).ok()??;
        let document = decode(&user.document).ok()?;
        let link = document.links.first()?;
        let source = self.names.get(&link.source).map_or("?", String::as_str);
        Some(format!("the new user of {source}:{}", key_text(link.key)))
    }

    /// The rule that an attribute's value comes from, or would come from.
    fn rule(&self, after: &Document<'_>, attribute: AttrId) -> String {
        if let Some(undo) = after.undo(attribute) {
            return undo.reason.to_owned();
        }
        let own = |rule: u16| self.mapper.rule_text(rule).unwrap_or("?").to_owned();
        let Some(winner) = after.group(attribute).first() else {
            let rule = self.mapper.rule_of(attribute);
            return rule.map_or_else(|| "no rule".to_owned(), own);
        };
        match winner.link.and_then(|at| after.links.get(usize::from(at))) {
            Some(link) if link.source == self.source => own(winner.rule),
            Some(link) => {
                let name = self.names.get(&link.source);
                format!("source {}", name.map_or("?", String::as_str))
            }
            None => "rollcall".to_owned(),
        }
    }
}

/// Whether others can be decided differently by what a link has become: what it waits for, or
/// what it gave its user, whoever wins.
fn decides_else(before: &Document<'_>, after: &Document<'_>, at: usize) -> bool {
    let given = |document: &Document<'_>| -> Vec<(AttrId, Vec<u8>)> {
        let own = document.contributions.iter();
        let own = own.filter(|c| c.link.map(usize::from) == Some(at));
        own.map(|c| (c.attribute, c.value.to_vec())).collect()
    };
    let (old, new) = (before.links.get(at), &after.links[at]);
    let waits_else = || old.is_none_or(|old| old.hold != new.hold);
    // Its key may lead to somebody else behind one that is gone.
    new.state.is_present() && (waits_else() || given(before) != given(after))
}

fn record(bytes: &[u8]) -> Result<Record<'_>, StoreError> {
    Record::decode(bytes).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })
}

fn ids<'d>(document: &'d Document<'_>) -> impl Iterator<Item = AttrId> + 'd {
    document.fields().map(|(attribute, _)| attribute)
}

fn decode(bytes: &[u8]) -> Result<Document<'_>, StoreError> {
    Document::decode(bytes).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })
}

fn seen(document: &Document<'_>) -> SeenUser {
    SeenUser {
        id: Uuid::from_bytes(document.id.0),
        version: document.version,
    }
}

/// What becomes of a record whose user stays as it is; nothing when the record stands to it
/// as before.
fn became(old: Option<LinkState>, new: LinkState) -> Option<(&'static str, &'static str)> {
    if old == Some(new) {
        return None;
    }
    Some(match new {
        LinkState::Held(reason) => ("held", reason.as_str()),
        LinkState::Gone(reason) => ("unlinked", reason.as_str()),
        LinkState::Suspected(reason) => ("suspected", reason.as_str()),
        LinkState::Erasing(reason) => ("held", reason.as_str()),
        LinkState::Live => match old {
            Some(LinkState::Held(reason)) => ("applied_again", reason.as_str()),
            Some(old) if !old.is_present() => ("applied_again", "record_came_back"),
            _ => ("applied_again", "record_joined"),
        },
    })
}

/// Rows in the order of their keys, read in pieces.
struct Rows<T, K, F> {
    read: F,
    ahead: std::collections::VecDeque<T>,
    last: Option<K>,
    is_whole: bool,
}

impl<T, K: Ord + Clone, F: FnMut(Option<K>) -> Result<Vec<T>, StoreError>> Rows<T, K, F> {
    fn new(read: F) -> Self {
        Rows {
            read,
            ahead: std::collections::VecDeque::new(),
            last: None,
            is_whole: false,
        }
    }

    fn peek(&mut self, by: impl Fn(&T) -> K) -> Result<Option<K>, StoreError> {
        if self.ahead.is_empty() && !self.is_whole {
            let more = (self.read)(self.last.clone())?;
            self.is_whole = more.len() < AT_ONCE;
            self.last = more.last().map(&by).or(self.last.take());
            self.ahead.extend(more);
        }
        Ok(self.ahead.front().map(by))
    }

    fn next(&mut self, by: impl Fn(&T) -> K) -> Result<Option<T>, StoreError> {
        self.peek(by)?;
        Ok(self.ahead.pop_front())
    }

    /// The next row whose key is before a limit; any row without one.
    fn next_before(
        &mut self,
        limit: Option<&K>,
        by: impl Fn(&T) -> K,
    ) -> Result<Option<T>, StoreError> {
        let next = self.peek(by)?;
        let is_before = next.is_some_and(|key| limit.is_none_or(|limit| key < *limit));
        Ok(if is_before {
            self.ahead.pop_front()
        } else {
            None
        })
    }

    /// The row of a key, if there is one; those before it are passed over.
    fn until(&mut self, key: K, by: impl Fn(&T) -> K + Copy) -> Result<Option<T>, StoreError> {
        while self.next_before(Some(&key), by)?.is_some() {}
        if self.peek(by)? == Some(key) {
            return Ok(self.ahead.pop_front());
        }
        Ok(None)
    }
}
