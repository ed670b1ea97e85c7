//! A small world for tests: rows are maps of attributes, a shadow is their text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod counting;
mod decisions;
mod fields;
mod leavers;
mod promises;
mod properties;
mod references;
mod sharing;
mod staging;
mod undo;

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde_json::Value as Json;

use super::*;
use crate::attribute::{AttrType, Attributes, EMAIL, USER_NAME};
use crate::conflict::ConflictRow;
use crate::document::{Document, Put, UserState};
use crate::event::{EventBlock, EventKind};
use crate::id::{UserId, ValueHash};
use crate::mapped::{ListValue, MappedRows, Strength};
use crate::plan::Counters;
use crate::staged::{Counted, Counting, Remapping, Staged};

pub(super) const A: SourceId = SourceId(1);
pub(super) const B: SourceId = SourceId(2);
pub(super) const TITLE: AttrId = AttrId(10);
pub(super) const ROLES: AttrId = AttrId(26);
pub(super) const NUMBER: AttrId = AttrId(28);

/// Reads `16=a@x;26=r1,r2`. `!scope` is out of scope, `!fail` fails, `10~` keeps, `10^v` is
/// on create, `10?v` is if empty; `33>2`, `33>^2` and `33>?2` name the record 2. A missing attribute is cleared. `@5/2` says that all of it
/// was changed at 5 or 6, and `@` that nobody knows when.
pub(super) fn map(shadow: &str, out: &mut MappedRows) {
    let shadow_start = out.mark();
    out.bytes().extend_from_slice(shadow.as_bytes());
    let shadow_range = shadow_start..out.mark();
    let mark = out.field_mark();
    let mut outcome = Outcome::Mapped;
    let mut fields: Vec<(u16, char, &str)> = Vec::new();
    for part in shadow.split(';').filter(|p| !p.is_empty()) {
        match part {
            "!scope" => outcome = Outcome::OutOfScope,
            "!fail" => {
                outcome = Outcome::Failed {
                    reason: SkipReason::TypeMismatch,
                    rule: Some(7),
                }
            }
            _ if part.starts_with('@') => {}
            _ => {
                let at = part.find(['=', '~', '^', '?', '>']).unwrap();
                let (id, rest) = part.split_at(at);
                let kind = rest.chars().next().unwrap();
                fields.push((id.parse().unwrap(), kind, &rest[1..]));
            }
        }
    }
    fields.sort();
    if outcome == Outcome::Mapped {
        for (id, kind, value) in fields {
            let attribute = AttrId(id);
            let is_reference = kind == '>';
            let (kind, value) = match value.chars().next() {
                Some(weak @ ('^' | '?')) if is_reference => (weak, &value[1..]),
                _ => (kind, value),
            };
            let strength = match kind {
                '^' => Strength::OnCreate,
                '?' => Strength::IfEmpty,
                _ => Strength::Always,
            };
            if kind == '~' {
                out.keep_field(attribute, id, strength);
                continue;
            }
            let start = out.mark();
            if attribute == ROLES {
                let mut texts: Vec<&str> = value.split(',').filter(|t| !t.is_empty()).collect();
                ListValue::encode(&mut texts, out.bytes());
            } else {
                out.bytes().extend_from_slice(value.as_bytes());
            }
            match is_reference {
                true => out.reference_since(start, attribute, id, strength),
                false => out.value_since(start, attribute, id, strength),
            }
        }
    }
    let hash = xxhash_rust::xxh3::xxh3_64(shadow.as_bytes());
    out.finish_row(outcome, mark, shadow_range, hash);
}

struct TestMapper;

impl Remap for TestMapper {
    fn remap(&self, _: SourceId, shadow: &[u8], out: &mut MappedRows) {
        map(std::str::from_utf8(shadow).unwrap(), out);
    }

    fn changed(&self, _: SourceId, _: AttrId, shadow: &[u8]) -> Option<Option<Moment>> {
        let shadow = std::str::from_utf8(shadow).unwrap();
        let said = shadow.split(';').find_map(|part| part.strip_prefix('@'))?;
        let moment = said.split_once('/').map(|(at, span)| Moment {
            at_us: at.parse().unwrap(),
            span_us: span.parse().unwrap(),
        });
        Some(moment)
    }
}

struct Ids(u32);

impl NewIds for Ids {
    fn user_id(&mut self, _: i64) -> UserId {
        self.0 += 1;
        let mut id = [self.0 as u8; 16];
        id[..3].copy_from_slice(&self.0.to_be_bytes()[..3]);
        if self.0 < 256 {
            id = [self.0 as u8; 16];
        }
        UserId(id)
    }
}

pub(super) fn attributes() -> Attributes {
    Attributes::new([(AttrId(1000), "badge".to_owned(), AttrType::Integer)])
}

pub(super) fn two_sources() -> Rules {
    ruled_by([B, A])
}

/// Two sources, and whose titles count first.
pub(super) fn ruled_by(order: [SourceId; 2]) -> Rules {
    let a = SourceRules::new(A, "hr");
    let b = SourceRules::new(B, "crm");
    let titles = FieldRules::of_authority(order.to_vec());
    Rules::new(
        "acme",
        attributes(),
        vec![a, b],
        HashMap::from([(TITLE, titles)]),
        Box::new(TestMapper),
    )
}

/// One change for a test.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Source, key, row.
    Put(SourceId, &'static str, String),
    /// Source, key.
    Delete(SourceId, &'static str),
    /// Source, old key, new key, row.
    Rename(SourceId, &'static str, &'static str, String),
    /// Source, key, row: read by a scan.
    Scan(SourceId, &'static str, String),
}

pub(super) fn put(source: SourceId, key: &'static str, row: &str) -> Step {
    Step::Put(source, key, row.to_owned())
}

pub(super) fn scan(source: SourceId, key: &'static str, row: &str) -> Step {
    Step::Scan(source, key, row.to_owned())
}

/// An event, decoded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) kind: EventKind,
    pub(super) id: [u8; 16],
    pub(super) user: Option<UserId>,
    pub(super) data: Json,
}

pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) state: MemoryState,
    pub(super) told: Vec<Told>,
    pub(super) counters: Counters,
    pub(super) last: Plan,
    /// The events of each plan, encoded.
    pub(super) blocks: Vec<Vec<u8>>,
    workspace: Workspace,
    ids: Ids,
    pub(super) clock: i64,
    /// All that happens is a part of this run; else of one each time.
    pub(super) run: Option<RunId>,
}

impl World {
    pub(super) fn new(rules: Rules) -> World {
        World {
            rules,
            state: MemoryState::default(),
            told: Vec::new(),
            counters: Counters::default(),
            last: Plan::default(),
            blocks: Vec::new(),
            workspace: Workspace::default(),
            ids: Ids(0),
            clock: 1_000,
            run: None,
        }
    }

    pub(super) fn with(&mut self, run: impl FnOnce(&mut Resolver<'_>)) -> Vec<Told> {
        let id = self.run.unwrap_or(RunId(self.clock as u64 + 1));
        self.with_run(id, run)
    }

    /// The same as a part of this run.
    pub(super) fn with_run(&mut self, id: RunId, run: impl FnOnce(&mut Resolver<'_>)) -> Vec<Told> {
        let mut plan = Plan::default();
        self.clock += 1;
        let mut resolver = Resolver::new(
            &self.rules,
            &mut self.state,
            &mut plan,
            &mut self.ids,
            &mut self.workspace,
            self.clock,
            id,
        );
        run(&mut resolver);
        resolver.finish().unwrap();
        self.state.apply(&plan);
        self.counters.add(&plan.counters);
        self.blocks.push(plan.events.as_bytes().to_vec());
        let told = events(&plan.events);
        self.told.extend(told.iter().cloned());
        self.last = plan;
        told
    }

    /// Applies steps as one batch and gives its events.
    pub(super) fn batch(&mut self, steps: &[Step]) -> Vec<Told> {
        let clock = self.clock * 1000;
        let mut last: BTreeMap<(SourceId, &str), Vec<MatchHash>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(s, key, row) | Step::Scan(s, key, row) | Step::Rename(s, _, key, row) => {
                    let mut rows = MappedRows::default();
                    map(row, &mut rows);
                    let mut keys = RowKeys::default();
                    self.rules.keys_of(*s, &rows.row(0), &mut keys);
                    last.insert((*s, *key), keys.matches.to_vec());
                    if let Step::Rename(s, old, ..) = step {
                        last.remove(&(*s, *old));
                    }
                }
                Step::Delete(s, key) => {
                    last.remove(&(*s, *key));
                }
            }
        }
        self.with(|r| {
            let mut seen: HashSet<(SourceId, MatchHash)> = HashSet::new();
            let mut duplicates = Vec::new();
            for ((source, _), hashes) in &last {
                let again = hashes.iter().filter(|h| !seen.insert((*source, **h)));
                duplicates.extend(again.copied());
            }
            r.begin_batch(&duplicates);
            for (i, step) in steps.iter().enumerate() {
                let position = format!("0/{:X}", clock + i as i64);
                take(r, step, &position, clock + i as i64);
            }
        })
    }

    pub(super) fn one(&mut self, step: Step) -> Vec<Told> {
        self.batch(&[step])
    }

    /// The users as their events tell them: the last `user` of each.
    pub(super) fn folded(&self) -> BTreeMap<String, Json> {
        let mut users = BTreeMap::new();
        for told in &self.told {
            if told.kind == EventKind::UserDeleted {
                users.remove(told.data["id"].as_str().unwrap());
            }
            if let Some(user) = told.data.get("user") {
                let id = user["id"].as_str().unwrap().to_owned();
                users.insert(id, user.clone());
            }
        }
        users
    }

    /// The users as they are stored.
    pub(super) fn users(&self) -> BTreeMap<String, Json> {
        let mut users = BTreeMap::new();
        for bytes in self.state.users.values() {
            let document = Document::decode(bytes).unwrap();
            if document.state == UserState::Tombstone {
                continue;
            }
            let mut out = Vec::new();
            crate::event::body::created(&mut out, &self.rules.attributes, &document);
            let json: Json = serde_json::from_slice(&out).unwrap();
            users.insert(document.id.to_string(), json["user"].clone());
        }
        users
    }

    /// The users without their ids, sorted: to compare two worlds.
    pub(super) fn people(&self) -> Vec<String> {
        let users = self.users();
        let mut people: Vec<String> = users
            .values()
            .cloned()
            .map(|mut u| {
                u.as_object_mut().unwrap().shift_remove("id");
                if let Some(manager) = u.get("manager").and_then(Json::as_str) {
                    u["manager"] = users[manager]["email"].clone();
                }
                u.to_string()
            })
            .collect();
        people.sort();
        people
    }

    pub(super) fn open(&self) -> Vec<ConflictRow> {
        self.state.open_conflicts().into_iter().cloned().collect()
    }

    /// From here on this becomes of changes that are counted.
    pub(super) fn counting(&mut self, counting: Counting) {
        for source in [A, B] {
            self.rules.set_counting(source, counting);
        }
    }

    /// What waits, in the order of the keys.
    pub(super) fn staged(&self) -> Vec<(SourceId, KeyBytes, Staged)> {
        let all = self.state.staged.iter();
        let mut all: Vec<_> = all.map(|((s, k), v)| (*s, k.clone(), *v)).collect();
        all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        all
    }

    /// Approves everything that waits.
    pub(super) fn approve(&mut self) -> Vec<Told> {
        let staged = self.staged();
        self.counting(Counting::Apply);
        self.with(|r| {
            for (source, key, staged) in &staged {
                r.approve(*source, key, staged).unwrap();
            }
        })
    }

    /// Discards everything that waits.
    pub(super) fn discard(&mut self) -> Vec<Told> {
        let staged = self.staged();
        self.with(|r| {
            for (source, key, _) in &staged {
                r.discard(*source, key).unwrap();
            }
        })
    }

    /// The only user with this email.
    pub(super) fn user(&self, email: &str) -> Json {
        let mut found: Vec<Json> = self
            .users()
            .into_values()
            .filter(|u| u["email"] == email)
            .collect();
        assert_eq!(found.len(), 1, "users with {email}");
        found.remove(0)
    }

    /// Every invariant of what is stored.
    pub(super) fn check(&self) {
        assert_eq!(self.folded(), self.users(), "events tell the directory");
        let mut links = HashSet::new();
        let mut owners: HashMap<ValueHash, HashSet<UserRow>> = HashMap::new();
        let mut waiting: HashMap<MatchHash, HashSet<(SourceId, KeyBytes)>> = HashMap::new();
        let mut named: HashSet<(crate::conflict::Fingerprint, KeyBytes)> = HashSet::new();
        let mut wait = |source: SourceId, key: &[u8], hold: &[u8]| {
            let hold = crate::document::Hold::decode(hold);
            for (a, v) in hold.waits_for() {
                let entry = waiting.entry(MatchHash::of(a, v)).or_default();
                entry.insert((source, KeyBytes::from_slice(key)));
            }
            for c in &hold.conflicts {
                named.insert((*c, KeyBytes::from_slice(key)));
            }
        };
        let mut taken: HashSet<(AttrId, Vec<u8>)> = HashSet::new();
        let mut staged: HashSet<(SourceId, KeyBytes)> = HashSet::new();
        let mut linked: HashMap<SourceId, i64> = HashMap::new();
        let mut tied = 0;
        for (row, bytes) in &self.state.users {
            let d = Document::decode(bytes).unwrap();
            let mut again = Vec::new();
            d.encode(&mut again);
            assert_eq!(&again, bytes, "a document encodes to itself");
            assert!(!d.links.is_empty(), "no user without evidence");
            let own = d.contributions.iter().filter(|c| c.link.is_none());
            let own: Vec<AttrId> = own.map(|c| c.attribute).collect();
            let is_pending = |o: &&crate::document::Own<'_>| {
                let named = d.reference(o.attribute, None);
                named.is_some_and(|r| d.is_pending(r))
            };
            let owns = d.owns.iter().filter(|o| !is_pending(o));
            let owns: Vec<AttrId> = owns.map(|o| o.attribute).collect();
            self.check_references(*row, &d);
            assert_eq!(own, owns, "what is known of each own value");
            let ends = d.owns.iter().filter_map(|o| o.pin?.until_us());
            let mut due = self.state.due.iter();
            let due = due.find(|d| d.user == *row && d.kind == crate::plan::DueKind::Pin);
            assert_eq!(
                due.map(|d| d.since_us),
                ends.min(),
                "the end of a pin comes due"
            );
            tied += d
                .owns
                .iter()
                .filter(|o| o.standing.by == crate::document::Rule::Tie)
                .count();
            for l in &d.links {
                let is_it = |o: &&crate::document::Link<'_>| {
                    (o.source, o.key) == (l.source, l.key) && o.state == LinkState::Live
                };
                assert_eq!(
                    Document::live_link(bytes, l.source, l.key),
                    d.links.iter().find(is_it).copied(),
                    "a link is read alone as it is read with its document"
                );
            }
            for l in d.links.iter().filter(|l| l.state.is_present()) {
                let key = (l.source, KeyBytes::from_slice(l.key));
                assert!(links.insert(key.clone()), "a link leads to one user");
                assert_eq!(self.state.links.get(&key), Some(&LinkTarget::User(*row)));
                wait(l.source, l.key, l.hold);
                *linked.entry(l.source).or_default() += i64::from(d.is_active());
                if l.state.is_staged() {
                    staged.insert(key);
                }
            }
            let erasing = d
                .links
                .iter()
                .filter(|l| matches!(l.state, LinkState::Erasing(_)));
            staged.extend(erasing.map(|l| (l.source, KeyBytes::from_slice(l.key))));
            if d.state == UserState::Tombstone {
                assert!(d.contributions.is_empty() && d.evidence.is_empty());
                assert!(
                    d.links
                        .iter()
                        .all(|l| l.shadow.is_empty() && !l.state.feeds())
                );
            }
            assert!(
                d.undos.is_sorted_by(|a, b| a.attribute < b.attribute),
                "one undo for each field, in order"
            );
            for undo in &d.undos {
                match &undo.put {
                    Put::State { active, .. } => assert_eq!(d.is_active(), *active),
                    Put::Value { against, .. } | Put::User { against, .. } => {
                        assert_eq!(*against, d.outcome(undo.attribute), "it stands over that");
                    }
                    Put::Parts { without, with } => {
                        assert!(!(without.is_empty() && with.is_empty()));
                    }
                }
            }
            let said = d.contributions.iter().map(|c| (c.attribute, c.value));
            let put = d.undos.iter().map(|u| u.attribute);
            let put = put.filter_map(|a| Some((a, d.value(a)?)));
            for (attribute, value) in said.chain(put) {
                if self.rules.key_attributes().contains(&attribute) {
                    let mut folded = Vec::new();
                    mapping::fold(value, &mut folded);
                    let hash = ValueHash::of(&folded);
                    owners.entry(hash).or_default().insert(*row);
                }
            }
            for attribute in [EMAIL, USER_NAME] {
                if let Some(v) = d.value(attribute).filter(|_| d.is_active()) {
                    let mut folded = Vec::new();
                    mapping::fold(v, &mut folded);
                    assert!(taken.insert((attribute, folded)), "identifiers are unique");
                }
            }
        }
        for ((source, key), bytes) in &self.state.records {
            let r = crate::document::Record::decode(bytes).unwrap();
            let target = self.state.links.get(&(*source, key.clone()));
            assert_eq!(target, Some(&LinkTarget::Record));
            wait(*source, key, r.hold);
            if let Some(former) = r.former {
                assert!(
                    self.state.users.contains_key(&former),
                    "a former user is there"
                );
            }
            if r.reason.is_staged() {
                staged.insert((*source, key.clone()));
            }
        }
        for (key, target) in &self.state.links {
            match target {
                LinkTarget::Record => {
                    assert!(self.state.records.contains_key(key), "a record has its row");
                }
                LinkTarget::User(row) => {
                    assert!(
                        self.state.users.contains_key(row),
                        "a link leads to somebody"
                    );
                }
            }
        }
        let known: HashSet<_> = self.state.staged.keys().cloned().collect();
        assert_eq!(staged, known, "what is staged is said to be");
        for (source, n) in &self.state.linked {
            assert_eq!(linked.get(source).unwrap_or(&0), n, "linked active users");
        }
        assert_eq!(owners, self.state.owners, "values");
        assert_eq!(waiting, self.state.waiting, "waiting records");
        let (ties, open): (Vec<_>, Vec<_>) = self
            .open()
            .into_iter()
            .partition(|c| c.kind == crate::conflict::ConflictKind::Value);
        assert_eq!(ties.len(), tied, "a conflict for each tie");
        let (missing, open): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|c| c.kind == crate::conflict::ConflictKind::UnresolvedReference);
        for missing in missing {
            let key = (missing.source, &missing.records[0]);
            let mut all = self.state.references.iter();
            let waits = all.any(|((s, k, _), waits)| (*s, k) == key && *waits);
            assert!(waits, "somebody waits for what is missing");
        }
        let open: HashSet<_> = open
            .iter()
            .flat_map(|c| {
                c.records
                    .iter()
                    .map(|r| (c.fingerprint, r.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        // What a person has decided names those who were not taken.
        named.retain(|(fp, _)| {
            let row = self.state.conflicts.get(fp);
            row.is_none_or(|c| c.closed_us.is_none() || c.decision.is_none())
        });
        assert_eq!(named, open, "conflicts name the records that are held");
        self.nothing_held_could_be_applied();
    }

    /// Whom a user names is whom it shows, and it is found by that.
    fn check_references(&self, row: UserRow, d: &Document<'_>) {
        let mut named = BTreeMap::new();
        for r in &d.references {
            let source = d.source_of(r);
            let key = KeyBytes::from_slice(r.key);
            let behind = match r.link {
                None => crate::document::own_target(r.key),
                Some(_) => match self.state.links.get(&(source, key.clone())) {
                    Some(LinkTarget::User(row)) => Some(*row),
                    _ => None,
                },
            };
            let behind = behind.and_then(|row| self.state.users.get(&row));
            let behind = behind.map(|bytes| Document::decode(bytes).unwrap());
            let behind = behind.filter(|b| b.state != UserState::Tombstone);
            let mut shown = d.group(r.attribute).iter().filter(|c| c.link == r.link);
            let shown = shown.next().map(|c| String::from_utf8_lossy(c.value));
            assert_eq!(
                shown,
                behind.map(|b| b.id.to_string().into()),
                "who is named"
            );
            named.insert((source, key, row), d.is_pending(r));
        }
        for undo in &d.undos {
            let Put::User { id, key, .. } = undo.put else {
                continue;
            };
            let user = crate::document::own_target(key).unwrap();
            let user = Document::decode(&self.state.users[&user]).unwrap();
            assert_ne!(user.state, UserState::Tombstone, "nobody who was deleted");
            assert_eq!(id, user.id.to_string().as_bytes(), "who is named");
            let at = (SourceId::OWN, KeyBytes::from_slice(key), row);
            named.entry(at).or_insert(false);
        }
        let known = self.state.references.iter();
        let known = known.filter(|((_, _, user), _)| *user == row);
        let known: BTreeMap<_, _> = known.map(|(k, v)| (k.clone(), *v)).collect();
        assert_eq!(named, known, "whoever names somebody is found by that");
        let texts = d.group(crate::attribute::MANAGER).iter();
        assert_eq!(
            texts.count(),
            d.references.iter().filter(|r| !d.is_pending(r)).count(),
            "an id is nowhere without the name of its record"
        );
    }

    /// Considers every held record again: it stays held, and nobody hears of it.
    fn nothing_held_could_be_applied(&self) {
        let mut held: Vec<(SourceId, KeyBytes)> = Vec::new();
        for bytes in self.state.users.values() {
            let d = Document::decode(bytes).unwrap();
            let of_user = d
                .links
                .iter()
                .filter(|l| matches!(l.state, LinkState::Held(r) if correlate::heals(r)));
            held.extend(of_user.map(|l| (l.source, KeyBytes::from_slice(l.key))));
        }
        for ((source, key), bytes) in &self.state.records {
            if correlate::heals(Record::decode(bytes).unwrap().reason) {
                held.push((*source, key.clone()));
            }
        }
        held.sort();
        for (source, key) in held {
            let mut state = self.state.clone();
            let mut plan = Plan::default();
            let (mut workspace, mut ids) = (Workspace::default(), Ids(200));
            let mut resolver = Resolver::new(
                &self.rules,
                &mut state,
                &mut plan,
                &mut ids,
                &mut workspace,
                self.clock,
                RunId(0),
            );
            assert!(resolver.reconsider(source, &key).unwrap());
            resolver.finish().unwrap();
            let name = || format!("{source:?} {}", String::from_utf8_lossy(&key));
            let told = events(&plan.events);
            assert!(told.iter().all(|t| t.user.is_none()), "{} heals", name());
            assert_eq!(plan.counters, Counters::default(), "{}", name());
            assert!(plan.links.is_empty(), "{} is applied", name());
        }
    }
}

fn take(r: &mut Resolver<'_>, step: &Step, position: &str, commit_us: i64) {
    let change = |key, old_key, origin| ChangeRef {
        key,
        old_key,
        tx: if origin == Origin::Log { b"tx1" } else { b"" },
        position,
        ordinal: 0,
        commit_us,
        origin,
    };
    let mut rows = MappedRows::default();
    match step {
        Step::Put(s, key, row) => {
            map(row, &mut rows);
            let change = change(key.as_bytes(), None, Origin::Log);
            r.apply(*s, &change, rows.row(0)).unwrap();
        }
        Step::Scan(s, key, row) => {
            map(row, &mut rows);
            let change = change(key.as_bytes(), None, Origin::Scan);
            r.apply(*s, &change, rows.row(0)).unwrap();
        }
        Step::Rename(s, old, key, row) => {
            map(row, &mut rows);
            let change = change(key.as_bytes(), Some(old.as_bytes()), Origin::Log);
            r.apply(*s, &change, rows.row(0)).unwrap();
        }
        Step::Delete(s, key) => {
            let change = change(key.as_bytes(), None, Origin::Log);
            r.remove(*s, &change, LeaverReason::Deleted).unwrap();
        }
    }
}

pub(super) fn events(block: &EventBlock) -> Vec<Told> {
    EventBlock::decode(block.as_bytes())
        .map(|e| {
            let e = e.unwrap();
            Told {
                kind: e.kind,
                id: e.id,
                user: e.user,
                data: serde_json::from_slice(e.data).unwrap(),
            }
        })
        .collect()
}

pub(super) fn kinds(told: &[Told]) -> Vec<EventKind> {
    told.iter().map(|t| t.kind).collect()
}

pub(super) fn is_active(user: &Json) -> bool {
    user["active"].as_bool().unwrap()
}
