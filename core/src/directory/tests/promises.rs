//! Each promise about one source, by its sentence.

use super::*;
use EventKind::*;

fn world() -> World {
    World::new(two_sources())
}

#[test]
fn a_new_record_is_a_new_user() {
    let mut w = world();
    let told = w.one(put(
        A,
        "1",
        "1=ada;3=Ada;5=Lovelace;16=Ada@X.org;26=dev,admin;1000=42",
    ));
    assert_eq!(kinds(&told), [UserCreated]);
    let expected = serde_json::json!({"version": 1, "user": {
        "id": "01010101-0101-0101-0101-010101010101",
        "userName": "ada",
        "name": {"givenName": "Ada", "familyName": "Lovelace"},
        "active": true,
        "email": "Ada@X.org",
        "roles": ["admin", "dev"],
        "custom": {"badge": 42}
    }});
    assert_eq!(told[0].data.to_string(), expected.to_string());
    assert_eq!(w.counters.created, 1);
    w.check();
}

#[test]
fn a_changed_attribute_is_told_before_and_after() {
    let mut w = world();
    w.one(put(A, "1", "10=Engineer;16=a@x"));
    let told = w.one(put(A, "1", "10=Manager;16=a@x"));
    assert_eq!(kinds(&told), [UserUpdated]);
    let changed = &told[0].data["changed"];
    assert_eq!(changed["title"]["before"], "Engineer");
    assert_eq!(changed["title"]["after"], "Manager");
    assert_eq!(told[0].data["version"], 2);
    w.check();
}

#[test]
fn a_changed_email_is_told_as_an_identifier_too() {
    let mut w = world();
    w.one(put(A, "1", "10=Engineer;16=a@x"));
    let told = w.one(put(A, "1", "10=Manager;16=b@x"));
    assert_eq!(kinds(&told), [UserUpdated, IdentifierChanged]);
    let changed = told[1].data["changed"].as_object().unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed["email"]["before"], "a@x");
    w.check();
}

#[test]
fn a_change_that_leaves_the_user_as_it_was_emits_nothing() {
    let mut w = world();
    w.one(put(A, "1", "10=Engineer;16=a@x"));
    assert!(w.one(put(A, "1", "16=a@x;10=Engineer")).is_empty());
    assert_eq!(w.counters.unchanged, 1);
    let document = w.state.users.values().next().unwrap();
    let document = Document::decode(document).unwrap();
    assert_eq!(document.links[0].shadow, b"16=a@x;10=Engineer");
    assert_eq!(document.version, 1);
    w.check();
}

#[test]
fn a_scanned_row_that_is_stored_already_costs_no_write() {
    let mut w = world();
    w.batch(&[
        put(A, "1", "16=a@x"),
        put(A, "2", "16=b@x;!fail"),
        put(A, "3", "!scope"),
    ]);
    let told = w.batch(&[
        scan(A, "1", "16=a@x"),
        scan(A, "2", "16=b@x;!fail"),
        scan(A, "3", "!scope"),
    ]);
    assert!(told.is_empty());
    assert!(w.last.users.is_empty() && w.last.links.is_empty() && w.last.records.is_empty());
    w.check();
}

#[test]
fn a_deleted_record_deactivates_its_user_and_a_rehire_is_the_same_user() {
    let mut w = world();
    w.one(put(A, "1", "3=Ada;16=a@x;26=dev"));
    let told = w.one(Step::Delete(A, "1"));
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(told[0].data["reason"], "deleted");
    assert_eq!(told[0].data["user"]["roles"][0], "dev");
    assert!(w.one(Step::Delete(A, "1")).is_empty());
    // The same person under a new key.
    let told = w.one(put(A, "9", "3=Ada;16=a@x;26=dev"));
    assert_eq!(kinds(&told), [UserActivated]);
    assert_eq!(told[0].data["reason"], "rehired");
    // The same key again.
    w.one(Step::Delete(A, "9"));
    let told = w.one(put(A, "9", "3=Ada;16=other@x"));
    assert_eq!(
        kinds(&told),
        [UserUpdated, IdentifierChanged, UserActivated]
    );
    assert_eq!(w.users().len(), 1);
    let bytes = w.state.users.values().next().unwrap();
    let document = Document::decode(bytes).unwrap();
    let at = document.find_link(A, b"9").unwrap();
    assert_eq!(document.links[at].incarnation, 2);
    w.check();
}

#[test]
fn a_key_that_came_back_with_somebody_else_is_held() {
    let mut w = world();
    w.one(put(A, "1", "3=Ada;5=Lovelace;16=a@x;26=admin"));
    w.one(Step::Delete(A, "1"));
    let told = w.one(put(A, "1", "3=Bob;5=Builder;16=bob@x"));
    assert_eq!(kinds(&told), [ConflictOpened]);
    assert_eq!(told[0].data["kind"], "key_reuse");
    assert_eq!(told[0].data["users"].as_array().unwrap().len(), 1);
    assert!(!is_active(&w.user("a@x")));
    w.check();
    // It was a mistake: the same person after all.
    let told = w.one(put(A, "1", "3=Ada;5=Lovelace;16=new@x;26=admin"));
    assert_eq!(
        kinds(&told),
        [
            UserUpdated,
            IdentifierChanged,
            UserActivated,
            ConflictResolved
        ]
    );
    w.check();
}

#[test]
fn a_reused_key_that_is_deleted_again_closes_its_conflict() {
    let mut w = world();
    w.one(put(A, "1", "3=Ada;16=a@x"));
    w.one(Step::Delete(A, "1"));
    w.one(put(A, "1", "3=Bob;16=bob@x"));
    let told = w.one(Step::Delete(A, "1"));
    assert_eq!(kinds(&told), [ConflictResolved]);
    w.check();
    let told = w.one(put(A, "1", "3=Ada;16=a@x"));
    assert_eq!(kinds(&told), [UserActivated]);
    assert_eq!(w.users().len(), 1);
    w.check();
}

#[test]
fn a_key_change_is_one_rename() {
    let mut w = world();
    w.one(put(A, "1", "16=a@x"));
    let told = w.one(Step::Rename(A, "1", "2", "16=a@x".to_owned()));
    assert!(told.is_empty());
    let told = w.one(put(A, "2", "16=a@x;10=Boss"));
    assert_eq!(kinds(&told), [UserUpdated]);
    assert_eq!(w.users().len(), 1);
    w.check();
}

#[test]
fn a_key_change_onto_a_present_record_loses_no_link() {
    let mut w = world();
    w.batch(&[put(A, "1", "3=Ada;16=a@x"), put(A, "2", "3=Bob;16=b@x")]);
    let told = w.batch(&[
        Step::Rename(A, "1", "2", "3=Ada;16=a@x".to_owned()),
        Step::Rename(A, "2", "1", "3=Bob;16=b@x".to_owned()),
    ]);
    assert_eq!(kinds(&told), [ConflictOpened, ConflictOpened]);
    assert_eq!(w.user("a@x")["name"]["givenName"], "Ada");
    assert_eq!(w.user("b@x")["name"]["givenName"], "Bob");
    w.check();
}

#[test]
fn duplicates_are_written_neither_and_heal() {
    for split in [false, true] {
        let mut w = world();
        let steps = [put(A, "1", "3=Ada;16=a@x"), put(A, "2", "3=Bob;16= A@X ")];
        if split {
            // A scan of the whole table found it before.
            let mut keys = RowKeys::default();
            let mut rows = MappedRows::default();
            map("16=a@x", &mut rows);
            w.rules.keys_of(A, &rows.row(0), &mut keys);
            w.rules.known_duplicates.extend(keys.matches);
            assert!(w.one(steps[0].clone()).is_empty());
            assert_eq!(kinds(&w.one(steps[1].clone())), [ConflictOpened]);
            w.rules.known_duplicates.clear();
        } else {
            assert_eq!(kinds(&w.batch(&steps)), [ConflictOpened]);
        }
        assert_eq!(w.told[0].data["kind"], "duplicate_in_source");
        assert_eq!(w.told[0].data["records"].as_array().unwrap().len(), 2);
        assert!(w.users().is_empty());
        assert_eq!(w.counters.skipped, 2);
        w.check();
        // A third one joins; nothing new is told.
        assert!(w.one(put(A, "3", "16=a@x")).is_empty());
        assert_eq!(w.open()[0].records.len(), 3);
        w.check();
        assert_eq!(kinds(&w.one(put(A, "3", "16=c@x"))), [UserCreated]);
        w.check();
        let told = w.one(put(A, "2", "3=Bob;16=b@x"));
        assert_eq!(kinds(&told), [UserCreated, UserCreated, ConflictResolved]);
        assert_eq!(w.users().len(), 3);
        w.check();
    }
}

#[test]
fn a_duplicate_leaves_the_user_of_the_first_as_it_is() {
    let mut w = world();
    w.one(put(A, "1", "3=Ada;16=a@x"));
    assert_eq!(kinds(&w.one(put(A, "2", "3=Bob;16=a@x"))), [ConflictOpened]);
    w.check();
    // Its changes are kept for later, its end counts.
    assert!(w.one(put(A, "1", "3=Eve;16=a@x")).is_empty());
    assert_eq!(w.user("a@x")["name"]["givenName"], "Ada");
    w.check();
    let mut other = World::new(two_sources());
    other.state = w.state.clone();
    other.told = w.told.clone();
    let told = w.one(put(A, "2", "3=Bob;16=b@x"));
    assert_eq!(kinds(&told), [UserCreated, UserUpdated, ConflictResolved]);
    assert_eq!(w.user("a@x")["name"]["givenName"], "Eve");
    w.check();
    let told = other.one(Step::Delete(A, "1"));
    assert_eq!(kinds(&told)[0], UserDeactivated);
    other.check();
}

#[test]
fn an_announced_duplicate_that_never_comes_is_applied_at_the_end() {
    let mut w = world();
    let mut keys = RowKeys::default();
    let mut rows = MappedRows::default();
    map("16=a@x", &mut rows);
    w.rules.keys_of(A, &rows.row(0), &mut keys);
    let told = w.with(|r| {
        r.begin_batch(&keys.matches);
        take(r, &put(A, "1", "16=a@x"), "0/1", 1);
    });
    assert_eq!(kinds(&told), [UserCreated]);
    w.check();
}

#[test]
fn a_taken_identifier_holds_the_record_until_it_is_free() {
    let mut w = world();
    w.batch(&[put(A, "1", "1=ada;16=a@x"), put(A, "2", "1=bob;16=b@x")]);
    let told = w.one(put(A, "2", "1=ADA;16=b@x;10=Boss"));
    assert_eq!(kinds(&told), [ConflictOpened]);
    assert_eq!(told[0].data["kind"], "uniqueness");
    assert_eq!(told[0].data["attribute"], "userName");
    assert_eq!(w.user("b@x")["userName"], "bob");
    w.check();
    // A new record with a taken userName has no user.
    assert_eq!(kinds(&w.one(put(A, "3", "1=bob;16=c@x"))), [ConflictOpened]);
    w.check();
    let told = w.one(put(A, "1", "1=lovelace;16=a@x"));
    assert_eq!(
        kinds(&told),
        [
            UserUpdated,
            IdentifierChanged,
            UserUpdated,
            IdentifierChanged,
            UserCreated,
            ConflictResolved,
            ConflictResolved
        ]
    );
    assert_eq!(w.user("b@x")["userName"], "ADA");
    w.check();
}

#[test]
fn a_record_that_leaves_a_duplicate_for_another_reason_wakes_the_other() {
    let mut w = world();
    w.one(put(A, "2", "16=a@x;15=false"));
    w.one(put(A, "1", "16=d@x"));
    w.batch(&[put(A, "2", "16=a@x"), put(A, "1", "16=a@x;15=false")]);
    w.check();
    // The second now wants what the first's user has, and has what the first wants.
    w.one(put(A, "2", "16=d@x"));
    w.check();
    assert!(w.open().is_empty());
    assert!(!is_active(&w.user("a@x")));
    assert!(is_active(&w.user("d@x")));
}

#[test]
fn a_deactivated_user_does_not_keep_its_identifier_from_others() {
    let mut w = world();
    w.batch(&[put(A, "1", "1=ada;16=a@x"), put(A, "2", "1=bob;16=b@x")]);
    w.one(put(A, "2", "1=ada;16=b@x"));
    let told = w.one(Step::Delete(A, "1"));
    assert_eq!(
        kinds(&told),
        [
            UserDeactivated,
            UserUpdated,
            IdentifierChanged,
            ConflictResolved
        ]
    );
    w.check();
}

#[test]
fn a_record_that_failed_is_not_a_leaver() {
    let mut w = world();
    w.one(put(A, "1", "16=a@x;10=Boss"));
    assert!(w.one(put(A, "1", "16=a@x;!fail")).is_empty());
    assert_eq!(w.counters.errored, 1);
    assert!(is_active(&w.user("a@x")));
    let bytes = w.state.users.values().next().unwrap();
    let view = crate::document::View::of(bytes, &w.rules.attributes, |s| s.0.to_string()).unwrap();
    assert_eq!(view.links[0].failed_rule, Some(7));
    w.check();
    let told = w.one(put(A, "1", "16=a@x;10=Clerk"));
    assert_eq!(kinds(&told), [UserUpdated]);
    w.check();
}

#[test]
fn out_of_scope_is_a_leaver_if_it_was_in() {
    let mut w = world();
    assert!(w.one(put(A, "1", "!scope")).is_empty());
    assert!(w.users().is_empty());
    assert_eq!(kinds(&w.one(put(A, "1", "16=a@x"))), [UserCreated]);
    w.check();
    let told = w.one(put(A, "1", "!scope"));
    assert_eq!(told[0].data["reason"], "out_of_scope");
    let told = w.one(put(A, "1", "16=a@x"));
    assert_eq!(told[0].data["reason"], "in_scope");
    w.check();
}

#[test]
fn a_status_column_deactivates_and_activates() {
    let mut w = world();
    w.one(put(A, "1", "15=true;16=a@x"));
    let told = w.one(put(A, "1", "15=false;16=a@x"));
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(told[0].data["reason"], "status");
    let told = w.one(put(A, "1", "15=true;16=a@x"));
    assert_eq!(kinds(&told), [UserActivated]);
    assert_eq!(told[0].data["version"], 3);
    w.check();
}

#[test]
fn strengths_and_kept_values() {
    let mut w = world();
    w.one(put(A, "1", "1^ada;10?Boss;16=a@x;28=7"));
    assert!(w.one(put(A, "1", "1^eve;10?Clerk;16=a@x;28~")).is_empty());
    let user = w.user("a@x");
    assert_eq!(user["userName"], "ada");
    assert_eq!(user["title"], "Boss");
    assert_eq!(user["employeeNumber"], "7");
    w.check();
}

#[test]
fn several_changes_of_one_user_in_a_batch_see_one_another() {
    let mut w = world();
    let told = w.batch(&[
        put(A, "1", "16=a@x"),
        put(A, "1", "16=a@x;10=Boss"),
        Step::Rename(A, "1", "2", "16=b@x;10=Boss".to_owned()),
        Step::Delete(A, "2"),
        put(A, "2", "16=b@x;10=Boss"),
    ]);
    assert_eq!(
        kinds(&told),
        [
            UserCreated,
            UserUpdated,
            UserUpdated,
            IdentifierChanged,
            UserDeactivated,
            UserActivated
        ]
    );
    w.check();
}

#[test]
fn a_passing_duplicate_within_a_batch_is_not_told() {
    let mut w = world();
    w.batch(&[put(A, "1", "16=a@x"), put(A, "2", "16=b@x")]);
    let told = w.batch(&[put(A, "1", "16=b@x"), put(A, "2", "16=c@x")]);
    assert_eq!(
        kinds(&told),
        [
            UserUpdated,
            IdentifierChanged,
            UserUpdated,
            IdentifierChanged
        ]
    );
    w.check();
}

#[test]
fn the_same_change_has_the_same_event_ids() {
    let mut first = world();
    let mut second = world();
    let steps = [
        put(A, "1", "16=a@x"),
        put(A, "1", "16=b@x"),
        put(A, "2", "16=b@x"),
    ];
    first.batch(&steps);
    second.batch(&steps);
    let ids = |w: &World| w.told.iter().map(|t| t.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second));
    let unique: HashSet<_> = ids(&first).into_iter().collect();
    assert_eq!(unique.len(), first.told.len());
}

#[test]
fn a_row_with_values_that_are_nowhere_makes_no_user_and_is_read_again() {
    let mut w = world();
    let incomplete = |w: &mut World, row: &str| {
        let mut rows = MappedRows::default();
        map(row, &mut rows);
        rows.mark_incomplete();
        let change = ChangeRef {
            key: b"1",
            old_key: None,
            tx: b"tx2",
            position: "0/9",
            ordinal: 3,
            commit_us: 9,
            origin: Origin::Log,
        };
        w.with(|r| r.apply(A, &change, rows.row(0)).unwrap())
    };
    assert!(incomplete(&mut w, "16=a@x;10~").is_empty());
    assert_eq!(w.last.reread.len(), 1);
    assert_eq!(w.counters.skipped, 1);
    w.check();
    assert_eq!(kinds(&w.one(scan(A, "1", "16=a@x;10=Boss"))), [UserCreated]);
    w.check();
    // A user that is there keeps what the row does not say.
    let told = incomplete(&mut w, "16=a@x;10~;28=7");
    assert_eq!(kinds(&told), [UserUpdated]);
    assert_eq!(w.user("a@x")["title"], "Boss");
    assert_eq!(w.last.reread.len(), 1);
    let mut tx = None;
    w.with(|r| tx = r.link_tx(A, b"1").unwrap());
    assert_eq!(tx.unwrap().0[..], *b"tx2");
    w.check();
}

#[test]
fn a_mapping_that_changed_is_applied_from_the_shadow() {
    struct Louder;
    impl Remap for Louder {
        fn remap(&self, _: SourceId, shadow: &[u8], out: &mut MappedRows) {
            map(
                &std::str::from_utf8(shadow)
                    .unwrap()
                    .replace("10=", "28=9;10="),
                out,
            );
        }
    }
    let mut w = world();
    w.one(put(A, "1", "10=Boss;16=a@x"));
    w.rules.remap = Box::new(Louder);
    let told = w.with(|r| assert!(r.reconsider(A, b"1").unwrap()));
    assert_eq!(kinds(&told), [UserUpdated]);
    assert_eq!(w.user("a@x")["employeeNumber"], "9");
    let told = w.with(|r| assert!(!r.reconsider(A, b"2").unwrap()));
    assert!(told.is_empty());
}
