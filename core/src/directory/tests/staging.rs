//! What is counted against the limit, and what becomes of it while it waits.

use proptest::prelude::*;

use super::properties::{config, history};
use super::*;
use EventKind::*;

/// Ada by her record 1 of the first source.
fn ada() -> World {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "1=ada;3=Ada;10=Engineer;16=a@x;26=dev,ops"));
    w
}

/// What one step would take away.
fn takes(step: Step) -> Option<Counted> {
    let mut w = ada();
    w.counting(Counting::Stage);
    let told = w.one(step);
    w.check();
    let staged = w.staged();
    assert!(staged.is_empty() || told.is_empty(), "{told:?}");
    staged.first().map(|(_, _, s)| s.kind)
}

#[test]
fn what_takes_something_away_is_counted_and_nothing_else() {
    let row = "1=ada;3=Ada;10=Engineer;16=a@x;26=dev,ops";
    let with = |more: &str| put(A, "1", &format!("{row};{more}"));
    let without = |less: &str, more: &str| put(A, "1", &row.replace(less, more));
    let cases = [
        (Step::Delete(A, "1"), Some(Counted::Deleted)),
        (with("!scope"), Some(Counted::OutOfScope)),
        (with("15=false"), Some(Counted::Status)),
        (without("a@x", "b@x"), Some(Counted::Identifier)),
        (without("1=ada;", "1=eve;"), Some(Counted::Identifier)),
        (without(";16=a@x", ""), Some(Counted::Identifier)),
        (without("dev,ops", "dev"), Some(Counted::Roles)),
        (without(";26=dev,ops", ""), Some(Counted::Roles)),
        (without("dev,ops", "ops,dev,admin"), None),
        (without("Engineer", "Manager"), None),
        (without(";10=Engineer", ""), None),
        (with("!fail"), None),
        (put(A, "2", "3=Eve;16=e@x"), None),
        (Step::Rename(A, "1", "9", row.to_owned()), None),
    ];
    for (step, kind) in cases {
        assert_eq!(takes(step.clone()), kind, "{step:?}");
    }
}

#[test]
fn while_the_mapping_is_another_one_whatever_others_see_is_counted() {
    let row = "1=ada;3=Ada;10=Engineer;16=a@x;26=dev,ops";
    let other = row.replace("Engineer", "Manager");
    let mut w = ada();
    w.counting(Counting::Stage);
    w.rules.set_remapping(A, Remapping::Everybody);
    assert!(w.one(put(A, "1", &other)).is_empty());
    assert_eq!(w.staged()[0].2.kind, Counted::Mapping);
    // Joiners go on, and a row that says what the user shows leaves the plan by itself.
    assert!(!w.one(put(A, "2", "3=Eve;16=e@x")).is_empty());
    assert!(w.one(put(A, "1", row)).is_empty());
    assert!(w.staged().is_empty());
    // Behind the scan only what waits still waits.
    w.one(put(A, "1", &other));
    w.rules.set_remapping(A, Remapping::Waiting);
    assert!(
        w.one(put(A, "1", &row.replace("Engineer", "Chief")))
            .is_empty()
    );
    assert_eq!(w.staged().len(), 1);
    assert!(!w.one(put(A, "2", "3=Eva;16=e@x")).is_empty());
    w.check();
    assert!(!w.approve().is_empty());
    w.check();
}

#[test]
fn nothing_is_taken_from_somebody_who_is_not_active() {
    let mut w = ada();
    w.one(Step::Delete(A, "1"));
    w.counting(Counting::Stage);
    w.one(put(A, "1", "3=Ada;16=a@x;15=false"));
    w.one(put(A, "1", "3=Ada;16=other@x;15=false"));
    w.one(Step::Delete(A, "1"));
    assert!(w.staged().is_empty());
    w.check();
}

#[test]
fn applied_changes_are_counted_for_their_source() {
    let mut w = ada();
    w.one(put(A, "2", "3=Eve;16=e@x;26=dev"));
    assert_eq!(w.last.counted_of(A), 0, "a joiner");
    w.batch(&[
        Step::Delete(A, "1"),
        put(A, "2", "3=Eve;16=eve@x"),
        put(A, "3", "3=New;16=n@x"),
    ]);
    assert_eq!((w.last.counted_of(A), w.last.counted_of(B)), (2, 0));
}

#[test]
fn a_staged_leaver_keeps_its_user_until_it_is_approved() {
    let mut w = ada();
    w.counting(Counting::Stage);
    assert!(w.one(Step::Delete(A, "1")).is_empty());
    assert!(is_active(&w.user("a@x")));
    w.check();
    let told = w.approve();
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(told[0].data["reason"], "deleted");
    assert!(w.staged().is_empty());
    w.check();
}

#[test]
fn a_staged_leaver_that_returns_leaves_the_plan_by_itself() {
    let row = "1=ada;3=Ada;10=Engineer;16=a@x;26=dev,ops";
    for back in [put(A, "1", row), scan(A, "1", row)] {
        let mut w = ada();
        w.counting(Counting::Stage);
        w.one(Step::Delete(A, "1"));
        assert!(w.one(back).is_empty(), "nobody noticed");
        assert!(w.staged().is_empty());
        w.check();
        assert!(w.one(scan(A, "1", row)).is_empty());
        assert!(w.last.users.is_empty(), "it is live and stored as it is");
    }
}

#[test]
fn a_staged_row_is_applied_as_a_whole_when_approved() {
    let mut w = ada();
    w.counting(Counting::Stage);
    assert!(
        w.one(put(A, "1", "1=ada;3=Ada;10=Boss;16=b@x;26=dev,ops"))
            .is_empty()
    );
    assert_eq!(w.user("a@x")["title"], "Engineer");
    w.check();
    let told = w.approve();
    assert_eq!(kinds(&told), [UserUpdated, IdentifierChanged]);
    assert_eq!(w.user("b@x")["title"], "Boss");
    w.check();
}

#[test]
fn what_was_discarded_is_found_again_by_the_next_scan() {
    let mut w = ada();
    w.counting(Counting::Stage);
    let row = "1=ada;3=Ada;10=Engineer;16=b@x;26=dev,ops";
    w.one(put(A, "1", row));
    assert!(w.discard().is_empty());
    assert!(w.staged().is_empty());
    assert_eq!(w.user("a@x")["title"], "Engineer");
    w.check();
    w.one(scan(A, "1", row));
    assert_eq!(w.staged().len(), 1);
    w.check();
    w.discard();
    w.one(Step::Delete(A, "1"));
    w.discard();
    w.check();
    w.one(Step::Delete(A, "1"));
    assert_eq!(w.staged().len(), 1);
    w.approve();
    assert!(!is_active(&w.user("a@x")));
}

#[test]
fn a_record_that_would_take_something_from_another_sources_user_waits_too() {
    let mut w = ada();
    w.counting(Counting::Stage);
    assert!(w.one(put(B, "7", "3=Ada;16=a@x;15=false")).is_empty());
    assert_eq!(w.staged()[0].2.kind, Counted::Status);
    assert!(is_active(&w.user("a@x")));
    w.check();
    w.discard();
    w.check();
    w.one(scan(B, "7", "3=Ada;16=a@x;15=false"));
    assert_eq!(w.staged().len(), 1);
    let told = w.approve();
    assert!(kinds(&told).contains(&UserDeactivated), "{told:?}");
    w.check();
}

#[test]
fn a_key_that_comes_back_with_somebody_else_while_its_leaver_waits_is_held() {
    let mut w = ada();
    w.counting(Counting::Stage);
    w.one(Step::Delete(A, "1"));
    w.one(put(A, "1", "3=Bob;16=bob@x"));
    assert_eq!(w.open()[0].kind.as_str(), "key_reuse");
    assert!(w.staged().is_empty());
    assert_eq!(w.user("a@x")["name"]["givenName"], "Ada");
    w.check();
}

/// Ada's record is gone and waits; Bob's, which was 2, is 1 now.
fn bob_has_adas_key() -> World {
    let mut w = ada();
    w.one(put(A, "2", "3=Bob;16=bob@x;10=Clerk"));
    w.counting(Counting::Stage);
    w.one(Step::Delete(A, "1"));
    let told = w.one(Step::Rename(
        A,
        "2",
        "1",
        "3=Bob;16=bob@x;10=Boss".to_owned(),
    ));
    assert_eq!(kinds(&told), [UserUpdated]);
    assert!(w.open().is_empty());
    assert_eq!(w.staged().len(), 1);
    assert!(is_active(&w.user("a@x")));
    w.check();
    w
}

#[test]
fn a_record_keeps_its_user_when_it_takes_the_key_of_one_whose_end_waits() {
    let mut w = bob_has_adas_key();
    w.one(put(A, "1", "3=Bob;16=bob@x;10=Chief"));
    assert_eq!(w.user("bob@x")["title"], "Chief");
    // Somebody new has the key that Bob's record had.
    w.one(put(A, "2", "3=Eve;16=eve@x"));
    assert_eq!(w.users().len(), 3);
    w.check();
    let told = w.approve();
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert!(!is_active(&w.user("a@x")) && is_active(&w.user("bob@x")));
    w.check();
}

#[test]
fn a_key_is_given_up_by_one_after_the_other() {
    let mut w = bob_has_adas_key();
    w.counting(Counting::Apply);
    w.one(put(A, "3", "3=Eve;16=eve@x"));
    w.counting(Counting::Stage);
    w.batch(&[
        Step::Delete(A, "1"),
        Step::Rename(A, "3", "1", "3=Eve;16=eve@x;10=Boss".to_owned()),
        Step::Delete(A, "1"),
    ]);
    w.check();
    assert_eq!(w.staged().len(), 3);
    w.approve();
    assert!(w.users().values().all(|user| !is_active(user)));
    w.check();
}

#[test]
fn what_was_discarded_of_a_key_that_was_given_up_is_found_again() {
    let mut w = bob_has_adas_key();
    let nobodys = w.staged()[0].1.clone();
    w.discard();
    assert!(w.staged().is_empty());
    w.check();
    w.with(|r| {
        let change = r.seen_now(&nobodys);
        r.remove(A, &change, LeaverReason::Absent).unwrap();
    });
    assert_eq!(w.staged().len(), 1);
    w.approve();
    assert!(!is_active(&w.user("a@x")));
    w.check();
}

#[test]
fn somebody_who_takes_over_a_staged_identifier_waits_for_it() {
    let mut w = ada();
    w.counting(Counting::Stage);
    w.one(put(A, "1", "1=ada;3=Ada;10=Engineer;16=b@x;26=dev,ops"));
    w.one(put(A, "2", "3=Eve;16=a@x"));
    assert_eq!(w.open()[0].kind.as_str(), "duplicate_in_source");
    w.check();
    let told = w.approve();
    assert!(kinds(&told).contains(&UserCreated), "{told:?}");
    assert!(w.open().is_empty());
    assert_eq!(w.user("a@x")["name"]["givenName"], "Eve");
    w.check();
}

#[test]
fn a_discarded_row_is_not_applied_because_another_record_was_considered() {
    let mut w = ada();
    w.counting(Counting::Stage);
    w.one(put(A, "1", "3=Ada;16=b@x;15=false"));
    // Has the address that the first one still shows.
    w.one(put(A, "2", "3=Eve;16=a@x"));
    w.counting(Counting::Apply);
    assert!(w.discard().iter().all(|t| t.user.is_none()));
    assert!(is_active(&w.user("a@x")));
    w.check();
}

fn mode() -> impl Strategy<Value = Counting> {
    prop_oneof![
        Just(Counting::Apply),
        Just(Counting::Stage),
        Just(Counting::HoldBack)
    ]
}

/// Between two batches.
#[derive(Clone, Copy, Debug)]
enum Word {
    None,
    Approve,
    Discard,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![4 => Just(Word::None), 1 => Just(Word::Approve), 1 => Just(Word::Discard)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_invariant_holds_whatever_waits_is_approved_or_discarded(
        history in history(),
        modes in proptest::collection::vec((mode(), word()), 12),
    ) {
        let mut w = World::new(two_sources());
        for (batch, (mode, word)) in history.iter().zip(&modes) {
            w.counting(*mode);
            w.batch(batch);
            w.check();
            match word {
                Word::None => {}
                Word::Approve => {
                    w.approve();
                    w.check();
                }
                Word::Discard => {
                    let told = w.discard();
                    prop_assert!(told.iter().all(|t| t.kind != UserDeactivated), "{:?}", told);
                    w.check();
                }
            }
        }
    }

    #[test]
    fn while_changes_wait_nobody_loses_anything(history in history()) {
        let mut w = World::new(two_sources());
        w.counting(Counting::Stage);
        for batch in &history {
            let before = w.users();
            let told = w.batch(batch);
            prop_assert!(told.iter().all(|t| t.kind != UserDeactivated), "{:?}", told);
            // Who was not active has nothing to lose.
            let works = |t: &&Told| {
                let id = t.user.unwrap().to_string();
                before.get(&id).is_some_and(is_active)
            };
            let changed = told.iter().filter(|t| t.kind == IdentifierChanged);
            for t in changed.filter(works) {
                for (_, change) in t.data["changed"].as_object().unwrap() {
                    prop_assert!(change["before"].is_null(), "{:?}", told);
                }
            }
        }
    }
}
