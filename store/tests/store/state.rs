//! A property: after any commits, the writer answers as a model in memory does, whether
//! preloaded or not, whether the last commit has ended or is under way, before and after a
//! restart, at any size of the values that wait.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rollcall_core::id::{MatchHash, SourceId, UserRow, ValueHash};
use rollcall_core::plan::{Columns, Plan, Referring, UserWrite};
use rollcall_core::state::{KeyBytes, LinkTarget, State};
use rollcall_store::{OpenOptions, UserFilter, Writer};
use smallvec::SmallVec;

use crate::people::*;

#[derive(Default)]
struct Model {
    users: BTreeMap<UserRow, (Vec<u8>, bool)>,
    links: BTreeMap<(SourceId, KeyBytes), LinkTarget>,
    records: BTreeMap<(SourceId, KeyBytes), Vec<u8>>,
    owners: BTreeSet<(ValueHash, UserRow)>,
    waiting: BTreeSet<(MatchHash, SourceId, KeyBytes)>,
    references: BTreeMap<(KeyBytes, UserRow), bool>,
    relinked: BTreeMap<(SourceId, KeyBytes), UserRow>,
}

impl Model {
    fn apply(&mut self, plan: &Plan) {
        for (row, w) in plan.users.iter() {
            let active = match self.users.get(&row) {
                Some((_, before)) if w.columns.is_none() => *before,
                _ => w.active,
            };
            self.users.insert(row, (w.document.to_vec(), active));
        }
        for (place, target) in &plan.links {
            match target {
                Some(target) => self.links.insert(place.clone(), *target),
                None => self.links.remove(place),
            };
        }
        for (place, document) in &plan.records {
            match document {
                Some(document) => self.records.insert(place.clone(), document.clone()),
                None => self.records.remove(place),
            };
        }
        for (&hash, users) in &plan.owners {
            for &(user, gained) in users {
                match gained {
                    true => self.owners.insert((hash, user)),
                    false => self.owners.remove(&(hash, user)),
                };
            }
        }
        for (&hash, waiters) in &plan.waiting {
            for w in waiters {
                let entry = (hash, w.source, w.key.clone());
                match w.waits {
                    true => self.waiting.insert(entry),
                    false => self.waiting.remove(&entry),
                };
            }
        }
        for ((_, key), users) in &plan.references {
            for &(user, is) in users {
                let place = (key.clone(), user);
                match is {
                    Referring::No => self.references.remove(&place),
                    is => self.references.insert(place, is == Referring::Waits),
                };
            }
        }
        for (key, told) in &plan.relinked {
            match told {
                Some(user) => self.relinked.insert(key.clone(), *user),
                None => self.relinked.remove(key),
            };
        }
    }
}

const KEYS: u8 = 12;
const HASHES: u8 = 10;

#[derive(Clone, Debug)]
enum Step {
    NewUser {
        active: bool,
    },
    User {
        which: u8,
        fill: u8,
        columns: Option<bool>,
    },
    Link {
        key: u8,
        target: Option<u8>,
    },
    Record {
        key: u8,
        fill: Option<u8>,
    },
    Match {
        hash: u8,
        user: u8,
        present: bool,
    },
    Wait {
        hash: u8,
        key: u8,
        waits: bool,
    },
    Refer {
        key: u8,
        user: u8,
        is: Referring,
    },
    Relink {
        key: u8,
        told: Option<u8>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(|active| Step::NewUser { active }),
        (any::<u8>(), any::<u8>(), any::<Option<bool>>()).prop_map(|(which, fill, columns)| {
            Step::User {
                which,
                fill,
                columns,
            }
        }),
        (0..KEYS, any::<Option<u8>>()).prop_map(|(key, target)| Step::Link { key, target }),
        (0..KEYS, any::<Option<u8>>()).prop_map(|(key, fill)| Step::Record { key, fill }),
        (0..HASHES, any::<u8>(), any::<bool>()).prop_map(|(hash, user, present)| Step::Match {
            hash,
            user,
            present
        }),
        (0..HASHES, 0..KEYS, any::<bool>()).prop_map(|(hash, key, waits)| Step::Wait {
            hash,
            key,
            waits
        }),
        (0..KEYS / 3, any::<u8>(), 0..3u8).prop_map(|(key, user, is)| Step::Refer {
            key,
            user,
            is: [Referring::No, Referring::Waits, Referring::Shows][usize::from(is)],
        }),
        (0..KEYS, any::<Option<u8>>()).prop_map(|(key, told)| Step::Relink { key, told }),
    ]
}

/// A batch of steps, what to do before it, and what after.
#[derive(Clone, Debug)]
struct Round {
    steps: Vec<Step>,
    preload: bool,
    behind: bool,
    reopen: bool,
}

fn round() -> impl Strategy<Value = Round> {
    (
        prop::collection::vec(step(), 0..14),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(steps, preload, behind, reopen)| Round {
            steps,
            preload,
            behind,
            reopen,
        })
}

/// Both halves of the signed order.
fn number(n: u8) -> u64 {
    u64::from(n).wrapping_mul(0x4000_0000_0000_0001) + 0x0100_0000
}

fn value(n: u8) -> ValueHash {
    ValueHash(number(n))
}

fn hash(n: u8) -> MatchHash {
    MatchHash(number(n))
}

fn plan_of(writer: &mut Writer, model: &Model, steps: &[Step]) -> Plan {
    let mut plan = Plan::default();
    let mut rows: Vec<UserRow> = model.users.keys().copied().collect();
    for step in steps {
        let pick = |which: u8| rows.get(usize::from(which) % rows.len().max(1)).copied();
        match *step {
            Step::NewUser { active } => {
                let row = writer.allocate_user();
                put(&mut plan, row, row.0 as u64, true, active);
                rows.push(row);
            }
            Step::User {
                which,
                fill,
                columns,
            } => {
                let Some(row) = pick(which) else { continue };
                let mut document = document(row.0 as u64);
                document.extend(std::iter::repeat_n(fill, usize::from(fill) * 20));
                let before = plan.users.get(row).map(|w| w.active);
                let write = UserWrite {
                    document: &document,
                    active: before.or(columns).unwrap_or_default(),
                    columns: columns.map(|_| Columns::default()),
                    updated_us: 1,
                    is_new: false,
                };
                plan.users.put(row, &write);
            }
            Step::Link { key: k, target } => {
                let target = target.map(|t| match pick(t) {
                    Some(row) if t % 4 != 0 => LinkTarget::User(row),
                    _ => LinkTarget::Record,
                });
                plan.links.insert((SOURCE, key(u64::from(k))), target);
            }
            Step::Record { key: k, fill } => {
                plan.records.insert(
                    (SOURCE, key(u64::from(k))),
                    fill.map(|f| vec![f; usize::from(f) + 1]),
                );
            }
            Step::Match {
                hash: h,
                user,
                present,
            } => {
                if let Some(row) = pick(user) {
                    plan.set_owner(value(h), row, present);
                }
            }
            Step::Wait {
                hash: h,
                key: k,
                waits,
            } => {
                plan.set_waiting(hash(h), SOURCE, &key(u64::from(k)), waits);
            }
            Step::Refer { key: k, user, is } => {
                if let Some(row) = pick(user) {
                    plan.set_referring(SOURCE, &key(u64::from(k)), row, is);
                }
            }
            Step::Relink { key: k, told } => {
                let place = (SOURCE, key(u64::from(k)));
                plan.relinked.insert(place, told.map(|n| UserRow(n.into())));
            }
        }
    }
    plan
}

fn glance(
    writer: &mut Writer,
    model: &Model,
    keys: &[KeyBytes],
    is_settled: bool,
) -> Result<(), TestCaseError> {
    let slices: Vec<&[u8]> = keys.iter().map(|k| k.as_slice()).collect();
    let mut shown = Vec::new();
    let show = |at: usize, row, document: &[u8]| shown.push((at, row, document.to_vec()));
    writer.glance(SOURCE, &slices, show).unwrap();
    let leads_to = |key: &KeyBytes| match model.links.get(&(SOURCE, key.clone()))? {
        LinkTarget::User(row) => Some((*row, model.users.get(row)?.0.clone())),
        LinkTarget::Record => None,
    };
    let stored = keys.iter().enumerate();
    let stored: Vec<_> = stored
        .filter_map(|(at, key)| leads_to(key).map(|(row, document)| (at, row, document)))
        .collect();
    prop_assert!(
        shown.iter().all(|seen| stored.contains(seen)),
        "{:?}",
        shown
    );
    if is_settled {
        prop_assert_eq!(shown.len(), stored.len());
    }
    Ok(())
}

/// Compares the answers. Settled: nothing is under way.
fn compare(writer: &mut Writer, model: &Model, is_settled: bool) -> Result<(), TestCaseError> {
    for k in 0..KEYS {
        let place = (SOURCE, key(u64::from(k)));
        prop_assert_eq!(
            writer.link(SOURCE, &place.1).unwrap(),
            model.links.get(&place).copied()
        );
        let mut document = Vec::new();
        let found = writer.record(SOURCE, &place.1, &mut document).unwrap();
        prop_assert_eq!(found.then_some(&document), model.records.get(&place));
    }
    // All records are near each other in the store, and of some there are many between them.
    let all: Vec<KeyBytes> = (0..KEYS).rev().map(|k| key(u64::from(k))).collect();
    glance(writer, model, &all, is_settled)?;
    glance(writer, model, &[key(u64::from(KEYS)), key(0)], is_settled)?;
    for (&row, (document, _)) in &model.users {
        let mut found = b"before".to_vec();
        prop_assert!(writer.user(row, &mut found).unwrap());
        prop_assert_eq!(&found[6..], document.as_slice(), "it is appended");
    }
    for h in 0..HASHES {
        let mut owners: SmallVec<[UserRow; 4]> = SmallVec::new();
        writer.owners(value(h), &mut owners).unwrap();
        owners.sort_unstable();
        let expected: Vec<UserRow> = model
            .owners
            .iter()
            .filter(|(m, _)| *m == value(h))
            .map(|(_, row)| *row)
            .collect();
        prop_assert_eq!(owners.to_vec(), expected);
        let mut waiting = Vec::new();
        writer.waiting(hash(h), &mut waiting).unwrap();
        let expected: Vec<(SourceId, KeyBytes)> = model
            .waiting
            .iter()
            .filter(|(m, _, _)| *m == hash(h))
            .map(|(_, source, key)| (*source, key.clone()))
            .collect();
        waiting.sort_unstable();
        prop_assert_eq!(waiting, expected);
    }
    for k in 0..KEYS / 3 {
        let key = key(u64::from(k));
        let all = model.references.keys().filter(|(of, _)| *of == key);
        let all: Vec<UserRow> = all.map(|(_, user)| *user).collect();
        for (after, limit) in [(0, 1), (0, usize::MAX), (1, 2), (3, 1)] {
            let after = UserRow(after);
            let mut users = Vec::new();
            writer
                .referrers(SOURCE, &key, after, limit, &mut users)
                .unwrap();
            let behind = all.iter().filter(|user| **user > after);
            let expected: Vec<UserRow> = behind.copied().take(limit).collect();
            prop_assert_eq!(users, expected);
        }
    }
    prop_assert!(writer.anything_refers() || model.references.is_empty());
    // In doubt something waits.
    prop_assert!(writer.anything_waits() || model.waiting.is_empty());
    Ok(())
}

fn compare_counts(writer: &mut Writer, model: &Model) -> Result<(), TestCaseError> {
    writer.settle().unwrap();
    prop_assert_eq!(writer.anything_waits(), !model.waiting.is_empty());
    prop_assert_eq!(writer.anything_refers(), !model.references.is_empty());
    let next = writer
        .relinked()
        .unwrap()
        .map(|r| ((r.source, r.key), r.told));
    let first = model.relinked.first_key_value();
    prop_assert_eq!(next, first.map(|(key, told)| (key.clone(), *told)));
    let mut waits: BTreeMap<&KeyBytes, usize> = BTreeMap::new();
    for ((key, _), _) in model.references.iter().filter(|(_, waits)| **waits) {
        *waits.entry(key).or_default() += 1;
    }
    let mut most: Vec<&KeyBytes> = waits.keys().copied().collect();
    most.sort_by_key(|key| (std::cmp::Reverse(waits[key]), (*key).clone()));
    let unresolved = writer.unresolved(SOURCE, 2).unwrap();
    let expected: Vec<KeyBytes> = most.into_iter().take(2).cloned().collect();
    prop_assert_eq!(unresolved, expected);
    prop_assert_eq!(writer.counts().users, model.users.len() as u64);
    let active = model.users.values().filter(|(_, active)| *active).count();
    prop_assert_eq!(writer.counts().active, active as u64);
    Ok(())
}

fn preload(writer: &mut Writer) {
    let keys: Vec<KeyBytes> = (0..KEYS).rev().map(|k| key(u64::from(k))).collect();
    writer
        .preload(SOURCE, keys.iter().map(|k| k.as_slice()))
        .unwrap();
    writer.preload_owners((0..HASHES).rev().map(value)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_model_in_memory_does(
        rounds in prop::collection::vec(round(), 1..9),
        match_delta_entries in prop_oneof![Just(1usize), Just(6), Just(1_000)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { match_delta_entries, ..OpenOptions::new("acme") };
        let (mut writer, mut readers) = open_with(dir.path(), options.clone()).unwrap();
        let mut model = Model::default();
        for (n, round) in rounds.iter().enumerate() {
            if round.preload {
                preload(&mut writer);
                compare(&mut writer, &model, true)?;
            }
            let mut plan = plan_of(&mut writer, &model, &round.steps);
            model.apply(&plan);
            if round.behind {
                let (give, told) = std::sync::mpsc::channel();
                let next = of_plan(plan, n as u64 + 1);
                writer.commit_behind(next, move |c| give.send(c.unwrap()).unwrap()).unwrap();
                if round.preload {
                    preload(&mut writer);
                }
                compare(&mut writer, &model, false)?;
                // What was read before it ended is still right behind it.
                told.recv().unwrap();
                compare(&mut writer, &model, false)?;
            } else {
                commit(&mut writer, &mut plan, n as u64 + 1).unwrap();
            }
            compare_counts(&mut writer, &model)?;
            if round.reopen {
                drop((writer, readers));
                (writer, readers) = open_with(dir.path(), options.clone()).unwrap();
            }
            compare(&mut writer, &model, true)?;
            compare_counts(&mut writer, &model)?;
        }
        let listed = readers.users(&UserFilter::default(), None, usize::MAX).unwrap();
        prop_assert_eq!(listed.len(), model.users.len());
        for user in listed {
            let (document, active) = &model.users[&user.row];
            prop_assert_eq!(&user.document, document);
            prop_assert_eq!(user.active, *active);
        }
    }
}
