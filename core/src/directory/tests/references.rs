//! Fields that are another user.

use proptest::prelude::*;

use super::properties::{KEYS, config, key};
use super::*;
use crate::attribute::MANAGER;
use crate::conflict::ConflictKind;

/// A person with an own key, and whom it names.
fn person(key: &'static str, manager: Option<&str>) -> Step {
    put(A, key, &row(key, manager))
}

fn row(key: &str, manager: Option<&str>) -> String {
    let manager = manager.map_or(String::new(), |m| format!(";33>{m}"));
    format!("3=N{key};16={key}@x{manager}")
}

fn manager_of(w: &World, key: &str) -> Option<String> {
    let user = w.user(&format!("{key}@x"));
    let id = user.get("manager")?.as_str()?.to_owned();
    Some(w.users()[&id]["email"].as_str()?.to_owned())
}

fn missing(w: &World) -> Vec<String> {
    let open = w.open().into_iter();
    let open = open.filter(|c| c.kind == ConflictKind::UnresolvedReference);
    open.map(|c| String::from_utf8_lossy(&c.records[0]).into_owned())
        .collect()
}

/// The whole source was read.
fn read_whole(w: &mut World) -> Vec<Told> {
    let waiting: Vec<KeyBytes> = w
        .state
        .references
        .iter()
        .filter(|(_, waits)| **waits)
        .map(|((_, key, _), _)| key.clone())
        .collect();
    w.with(|r| r.tell_unresolved(A, &waiting).unwrap())
}

#[test]
fn a_manager_hired_after_the_report_is_linked_when_hired_and_a_cycle_of_managers_harms_nobody() {
    let mut w = World::new(two_sources());
    let told = w.one(person("1", Some("2")));
    assert_eq!(kinds(&told), [EventKind::UserCreated]);
    assert_eq!(manager_of(&w, "1"), None);
    let told = w.one(person("2", Some("1")));
    assert_eq!(
        kinds(&told),
        [EventKind::UserCreated, EventKind::UserUpdated]
    );
    assert_eq!(told[1].data["version"], 2);
    assert_eq!(told[1].data["changed"]["manager"]["before"], Json::Null);
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    assert_eq!(manager_of(&w, "2").as_deref(), Some("1@x"));
    w.check();
    let told = w.one(person("3", Some("3")));
    assert_eq!(kinds(&told), [EventKind::UserCreated]);
    assert_eq!(manager_of(&w, "3").as_deref(), Some("3@x"));
    w.check();
    // What is known already is told once.
    assert!(w.one(person("1", Some("2"))).is_empty());
    w.check();
}

#[test]
fn a_report_follows_its_manager_through_renames_departure_and_return() {
    let mut w = World::new(two_sources());
    w.batch(&[person("1", Some("2")), person("2", None)]);
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    // Somebody who left is still whom the record names.
    w.one(Step::Delete(A, "2"));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    w.one(person("2", None));
    // The manager has another key, and its report says so in the same transaction.
    w.batch(&[
        Step::Rename(A, "2", "4", row("2", None)),
        person("1", Some("4")),
    ]);
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    w.check();
    // One that does not say so names nobody, and whoever has the old key next.
    w.one(Step::Rename(A, "4", "2", row("2", None)));
    assert_eq!(manager_of(&w, "1"), None);
    w.check();
    w.one(person("4", None));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("4@x"));
    w.check();
    w.one(person("1", None));
    assert_eq!(manager_of(&w, "1"), None);
    assert!(w.state.references.is_empty());
}

#[test]
fn no_id_is_left_of_a_manager_who_is_deleted_and_one_who_comes_back_is_shown_again() {
    let mut rules = two_sources();
    let mut a = SourceRules::new(A, "hr");
    a.leaver.delete_after_us = Some(10);
    a.leaver.purge_after_us = 50;
    rules = Rules::new(
        "acme",
        rules.attributes.clone(),
        vec![a],
        HashMap::new(),
        Box::new(TestMapper),
    );
    let mut w = World::new(rules);
    w.batch(&[person("1", Some("2")), person("2", None), person("3", None)]);
    let two = w.user("2@x")["id"].as_str().unwrap().to_owned();
    let row_of = |w: &World, email: &str| {
        let id = w.user(email)["id"].as_str().unwrap().to_owned();
        let mut users = w.state.users.iter();
        let found = users.find(|(_, b)| Document::decode(b).unwrap().id.to_string() == id);
        *found.unwrap().0
    };
    let (third, second) = (row_of(&w, "3@x"), row_of(&w, "2@x"));
    let author = Author {
        actor: "ana",
        reason: "",
    };
    let edit = Edit::Refer {
        attribute: MANAGER,
        user: second,
        pin: None,
    };
    w.with(|r| {
        let edited = r.edit(third, &[edit], author).unwrap();
        assert!(matches!(edited, Edited::Done(_)));
    });
    assert_eq!(manager_of(&w, "3").as_deref(), Some("2@x"));
    w.check();
    w.one(Step::Delete(A, "2"));
    w.clock += 20;
    let told = w.with(|r| r.still_gone(A, b"2").unwrap());
    assert_eq!(
        kinds(&told),
        [
            EventKind::UserDeleted,
            EventKind::UserUpdated,
            EventKind::UserUpdated
        ]
    );
    assert_eq!(manager_of(&w, "1"), None);
    assert_eq!(manager_of(&w, "3"), None);
    w.check();
    let told = w.one(person("2", None));
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(w.user("1@x")["manager"].as_str(), Some(&two[..]));
    assert_eq!(w.user("3@x")["manager"].as_str(), Some(&two[..]));
    w.check();
    w.one(Step::Delete(A, "2"));
    w.clock += 20;
    w.with(|r| r.still_gone(A, b"2").unwrap());
    w.clock += 100;
    w.with(|r| r.still_gone(A, b"2").unwrap());
    assert_eq!(manager_of(&w, "1"), None);
    w.check();
    // Nobody can be written who is not there.
    w.with(|r| {
        let edited = r.edit(third, &[edit], author).unwrap();
        assert_eq!(edited, Edited::NoUser(MANAGER));
    });
    // The same key, and somebody else.
    w.one(person("2", None));
    assert_ne!(w.user("1@x")["manager"].as_str(), Some(&two[..]));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    assert_eq!(manager_of(&w, "3"), None);
    w.check();
}

#[test]
fn a_pin_and_another_source_count_as_in_any_field() {
    let mut w = World::new(two_sources());
    w.batch(&[person("1", Some("2")), person("2", None), person("3", None)]);
    w.one(put(B, "b1", "16=1@x;33>b3"));
    // Nobody is behind the key of the second source: the first one's counts.
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    w.check();
    w.one(put(B, "b3", "16=3@x"));
    assert_eq!(
        manager_of(&w, "1").as_deref(),
        Some("2@x"),
        "order of the file"
    );
    w.check();
    w.one(person("1", Some("4")));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("3@x"));
    w.check();
    w.one(Step::Delete(B, "b1"));
    assert_eq!(manager_of(&w, "1"), None);
    w.one(person("4", None));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("4@x"));
    w.check();
}

#[test]
fn what_is_only_said_once_waits_as_long_as_it_takes() {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "16=1@x;33>^2"));
    w.one(put(A, "1", "16=1@x;33>^3"));
    w.one(person("3", None));
    assert_eq!(manager_of(&w, "1"), None, "the first word counts");
    w.one(person("2", None));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("2@x"));
    w.check();
}

#[test]
fn a_reference_that_a_whole_scan_did_not_resolve_is_a_conflict_until_it_is() {
    let mut w = World::new(two_sources());
    w.batch(&[
        person("1", Some("9")),
        person("2", Some("9")),
        person("3", Some("8")),
    ]);
    assert!(w.open().is_empty(), "order of arrival is no conflict");
    let told = read_whole(&mut w);
    assert_eq!(kinds(&told), [EventKind::ConflictOpened; 2]);
    let of_nine = told.iter().find(|t| t.data["records"][0][0] == "");
    assert!(of_nine.is_none());
    assert_eq!(told[0].data["kind"], "unresolved_reference");
    assert_eq!(told[0].data["attribute"], "manager");
    let waiting: usize = told
        .iter()
        .map(|t| t.data["users"].as_array().unwrap().len())
        .sum();
    assert_eq!(waiting, 3);
    assert_eq!(missing(&w).len(), 2);
    assert!(read_whole(&mut w).is_empty(), "told once");
    w.check();
    // One of two names somebody else: the other waits still.
    assert!(
        w.one(person("2", Some("1")))
            .iter()
            .all(|t| t.user.is_some())
    );
    assert_eq!(missing(&w).len(), 2);
    w.check();
    let told = w.one(person("9", None));
    assert!(kinds(&told).contains(&EventKind::ConflictResolved));
    assert_eq!(missing(&w), ["8"]);
    // Nobody names it any more.
    let told = w.one(person("3", None));
    assert!(kinds(&told).contains(&EventKind::ConflictResolved));
    assert!(missing(&w).is_empty());
    w.check();
}

#[test]
fn a_held_record_is_nobody_until_it_heals() {
    let mut w = World::new(two_sources());
    w.one(person("1", Some("2")));
    w.batch(&[put(A, "2", "16=d@x"), put(A, "3", "16=d@x")]);
    assert_eq!(manager_of(&w, "1"), None);
    w.check();
    w.one(put(A, "3", "16=3@x"));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("d@x"));
    w.check();
    w.one(person("1", Some("4")));
    w.one(put(A, "4", "16=4@x;!scope"));
    assert_eq!(manager_of(&w, "1"), None);
    w.one(person("4", None));
    assert_eq!(manager_of(&w, "1").as_deref(), Some("4@x"));
    w.check();
}

#[test]
fn any_number_of_reports_is_told_in_pieces_and_none_is_left_out() {
    const REPORTS: usize = 5_432;
    let mut w = World::new(two_sources());
    let keys: Vec<&'static str> = (0..REPORTS)
        .map(|n| -> &'static str { Box::leak(format!("r{n}").into_boxed_str()) })
        .collect();
    for some in keys.chunks(1_000) {
        let steps: Vec<Step> = some.iter().map(|key| person(key, Some("boss"))).collect();
        w.batch(&steps);
    }
    let mut told = w.one(person("boss", Some("boss"))).len() - 1;
    assert!(w.last.users.len() <= 5_001, "{}", w.last.users.len());
    let mut pieces = 0;
    while let Some(((source, key), after)) = w.state.relinked.clone().into_iter().next() {
        pieces += 1;
        // Whatever changes in between, and whoever goes on where after a crash.
        if pieces == 1 {
            w.one(person("r5431", Some("boss")));
        }
        told += w
            .with(|r| r.go_on_telling(source, &key, after).unwrap())
            .len();
        assert!(w.last.users.len() <= 5_000);
    }
    assert_eq!((pieces, told), (1, REPORTS));
    assert_eq!(manager_of(&w, "r5431").as_deref(), Some("boss@x"));
    w.check();
}

fn step() -> impl Strategy<Value = Step> {
    let manager = || proptest::option::of(key());
    prop_oneof![
        5 => (key(), manager()).prop_map(|(k, m)| person(k, m)),
        1 => (key(), manager()).prop_map(|(k, m)| Step::Scan(A, k, row(k, m))),
        2 => key().prop_map(|k| Step::Delete(A, k)),
        1 => (key(), key(), manager()).prop_map(|(o, n, m)| match o == n {
            true => person(n, m),
            false => Step::Rename(A, o, n, row(o, m)),
        }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn managers_are_whoever_a_fresh_load_would_give_whatever_came_first(
        history in proptest::collection::vec(proptest::collection::vec(step(), 1..5), 1..15),
        order in Just(KEYS.to_vec()).prop_shuffle(),
        at_once in any::<bool>(),
    ) {
        let mut w = World::new(two_sources());
        for batch in &history {
            w.batch(batch);
            w.check();
        }
        // What the source says in the end.
        let end: Vec<Step> = order
            .iter()
            .enumerate()
            .map(|(n, key)| person(key, Some(order[(n * 2 + 1) % order.len()])))
            .collect();
        let mut fresh = World::new(two_sources());
        // Keys that were changed go first, so that each person has its own again.
        for key in KEYS {
            w.one(Step::Delete(A, key));
        }
        match at_once {
            true => {
                w.batch(&end);
                fresh.batch(&end);
            }
            false => {
                for step in &end {
                    w.one(step.clone());
                    w.check();
                }
                for step in end.iter().rev() {
                    fresh.one(step.clone());
                    fresh.check();
                }
            }
        }
        w.check();
        fresh.check();
        let managers = |w: &World| -> Vec<Option<String>> {
            KEYS.iter()
                .map(|key| {
                    let target = w.state.links.get(&(A, KeyBytes::from_slice(key.as_bytes())));
                    let Some(LinkTarget::User(row)) = target else { return None };
                    let document = Document::decode(&w.state.users[row]).unwrap();
                    let shown = document.value(MANAGER)?;
                    let of = |target: &LinkTarget| match target {
                        LinkTarget::User(row) => {
                            let user = Document::decode(&w.state.users[row]).unwrap();
                            user.id.to_string().as_bytes() == shown
                        }
                        LinkTarget::Record => false,
                    };
                    let mut keys: Vec<String> = w
                        .state
                        .links
                        .iter()
                        .filter(|(_, target)| of(target))
                        .map(|((_, key), _)| String::from_utf8_lossy(key).into_owned())
                        .collect();
                    keys.sort();
                    Some(keys.join(","))
                })
                .collect()
        };
        if w.open().is_empty() {
            prop_assert_eq!(managers(&w), managers(&fresh));
        }
    }
}
