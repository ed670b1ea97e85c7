//! Each promise about users that several sources feed, by its sentence.

use super::*;
use EventKind::*;

fn world() -> World {
    World::new(two_sources())
}

#[test]
fn a_match_links_a_second_source() {
    let mut w = world();
    w.one(put(A, "1", "10=Clerk;16=a@x;26=dev"));
    let told = w.one(put(B, "7", "10=Boss;16=A@x;26=ops"));
    assert_eq!(kinds(&told), [UserUpdated]);
    let user = w.user("a@x");
    // The second source has authority over titles only.
    assert_eq!(user["title"], "Boss");
    assert_eq!(user["roles"], serde_json::json!(["dev", "ops"]));
    w.check();
}

#[test]
fn another_authority_counts_from_the_next_time_a_record_is_applied() {
    let mut w = world();
    w.one(put(A, "1", "10=Clerk;16=a@x"));
    w.one(put(B, "7", "10=Boss;16=a@x"));
    assert_eq!(w.user("a@x")["title"], "Boss");
    w.rules = ruled_by([A, B]);
    let told = w.one(put(A, "1", "10=Clerk;16=a@x"));
    assert_eq!(kinds(&told), [UserUpdated]);
    assert_eq!(w.user("a@x")["title"], "Clerk");
    assert!(w.one(put(B, "7", "10=Boss;16=a@x")).is_empty());
    w.check();
}

#[test]
fn a_source_removes_only_what_it_contributed() {
    let mut w = world();
    w.one(put(A, "1", "16=a@x;26=dev,shared"));
    w.one(put(B, "7", "16=a@x;26=ops,shared"));
    let told = w.one(put(B, "7", "16=a@x"));
    assert_eq!(
        told[0].data["changed"]["roles"]["after"],
        serde_json::json!(["dev", "shared"])
    );
    w.check();
}

#[test]
fn when_a_source_leaves_the_next_takes_over() {
    let mut w = world();
    w.one(put(A, "1", "10=Clerk;16=a@x;26=dev"));
    w.one(put(B, "7", "10=Boss;16=a@x;26=ops"));
    let told = w.one(Step::Delete(B, "7"));
    assert_eq!(kinds(&told), [UserUpdated]);
    let user = w.user("a@x");
    assert_eq!(user["title"], "Clerk");
    assert_eq!(user["roles"], serde_json::json!(["dev"]));
    assert!(is_active(&user));
    let told = w.one(Step::Delete(A, "1"));
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(w.user("a@x")["title"], "Clerk");
    w.check();
}

#[test]
fn a_source_may_ignore_leavers() {
    let mut rules = two_sources();
    let mut a = SourceRules::new(A, "hr");
    a.leaver.action = LeaverAction::Ignore;
    let b = SourceRules::new(B, "crm");
    rules = Rules::new(
        "acme",
        attributes(),
        vec![a, b],
        HashMap::new(),
        rules.remap,
    );
    let mut w = World::new(rules);
    w.one(put(A, "1", "10=Clerk;16=a@x"));
    assert!(w.one(Step::Delete(A, "1")).is_empty());
    assert!(is_active(&w.user("a@x")));
    w.check();
}

#[test]
fn several_users_with_the_match_key_are_disputed() {
    let mut rules = two_sources();
    let a = SourceRules::new(A, "hr");
    let mut b = SourceRules::new(B, "crm");
    b.match_attributes = vec![NUMBER];
    rules = Rules::new(
        "acme",
        attributes(),
        vec![a, b],
        HashMap::new(),
        rules.remap,
    );
    let mut w = World::new(rules);
    w.batch(&[put(A, "1", "16=a@x;28=7"), put(A, "2", "16=b@x;28=7")]);
    let told = w.one(put(B, "9", "10=Boss;28=7"));
    assert_eq!(kinds(&told), [ConflictOpened]);
    assert_eq!(told[0].data["kind"], "disputed_match");
    assert_eq!(told[0].data["users"].as_array().unwrap().len(), 2);
    w.check();
    let told = w.one(put(A, "2", "16=b@x;28=8"));
    assert_eq!(kinds(&told), [UserUpdated, UserUpdated, ConflictResolved]);
    assert_eq!(w.user("a@x")["title"], "Boss");
    w.check();
}

#[test]
fn a_value_that_would_take_over_but_is_taken_holds_its_record() {
    let mut rules = two_sources();
    let mut a = SourceRules::new(A, "hr");
    a.match_attributes = vec![NUMBER];
    let mut b = SourceRules::new(B, "crm");
    b.match_attributes = vec![NUMBER];
    rules = Rules::new(
        "acme",
        attributes(),
        vec![a, b],
        HashMap::new(),
        rules.remap,
    );
    let mut w = World::new(rules);
    w.one(put(A, "1", "16=a@x;28=1"));
    w.one(put(B, "1", "16=loser@x;28=1"));
    w.one(put(A, "2", "16=loser@x;28=2"));
    w.check();
    let told = w.one(Step::Delete(A, "1"));
    assert_eq!(
        kinds(&told),
        [UserUpdated, IdentifierChanged, ConflictOpened]
    );
    w.check();
    let told = w.one(put(A, "2", "16=c@x;28=2"));
    assert_eq!(
        kinds(&told),
        [
            UserUpdated,
            IdentifierChanged,
            UserUpdated,
            IdentifierChanged,
            ConflictResolved
        ]
    );
    assert_eq!(w.user("loser@x")["employeeNumber"], "1");
    w.check();
}

#[test]
fn provenance_tells_who_gave_a_value_and_who_would_be_next() {
    let mut w = world();
    w.one(put(A, "1", "10=Clerk;16=a@x"));
    w.one(put(B, "7", "10=Boss;16=a@x"));
    let bytes = w.state.users.values().next().unwrap();
    let name = |s: SourceId| w.rules.source(s).unwrap().name.clone();
    let view = crate::document::View::of(bytes, &w.rules.attributes, name).unwrap();
    let title = view.fields.iter().find(|f| f.attribute == "title").unwrap();
    assert_eq!(title.value, "Boss");
    assert_eq!(title.winner.source.as_deref(), Some("crm"));
    assert_eq!(title.winner.rule, 10);
    assert!(title.winner.position.starts_with("0/"));
    assert_eq!(title.others[0].source.as_deref(), Some("hr"));
    assert_eq!(title.others[0].value, "Clerk");
}
