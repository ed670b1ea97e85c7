//! What a change at the source means for people.

use serde_json::Value;

use crate::company::{hire, hire_all, hire_with, long_note};
use crate::fold::{assert_same, expected};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, World};

every_source!(
    an_unchanged_large_value_survives_an_update,
    duplicates_are_written_neither_and_heal,
    duplicates_found_by_a_load_are_written_neither_and_heal,
    a_changed_key_is_a_rename_and_keeps_the_user,
    a_leaver_is_deactivated_and_a_rehire_gets_the_same_user,
    a_record_that_leaves_the_scope_is_a_leaver,
    two_sources_feed_one_user_and_the_first_in_authority_decides,
    a_bad_record_is_skipped_alone_and_retried_when_it_changes,
    a_changed_mapping_is_applied_to_everybody,
);

fn an_unchanged_large_value_survives_an_update(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_with(1, &[("note", &long_note(1))]));
    let daemon = world.streaming();
    world.db.sql(&hire_with(2, &[("note", &long_note(2))]));
    world.db.sql("UPDATE people SET job_title = 'Clerk'");
    // The row is new and its note unknown: nothing but another read can tell.
    world.db.sql(
        "UPDATE people SET kind = 'contractor' WHERE id = 1;
         UPDATE people SET kind = 'employee' WHERE id = 1;
         UPDATE people SET id = 3 WHERE id = 2;",
    );
    daemon.settle();
    let events = world.assert_equal();
    let people = events.fold();
    for (id, note) in [("1", long_note(1)), ("3", long_note(2))] {
        assert_eq!(people[id]["custom"]["note"], note);
        assert_eq!(people[id]["title"], "Clerk");
    }
    world.assert_verified();
}

fn duplicates_are_written_neither_and_heal(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire(1));
    let daemon = world.streaming();
    // Two newcomers with one address, and one with the address of somebody who is there.
    let twin = [("email", " Twin@Example.com")];
    world.db.sql(&format!(
        "BEGIN;{}{}COMMIT;{}",
        hire_with(2, &[("email", "twin@example.com")]),
        hire_with(3, &twin),
        hire_with(4, &[("email", "PERSON.1@example.com")]),
    ));
    daemon.settle();
    let people = world.events(0).fold();
    assert!(people.contains_key("1"), "the owner stays");
    for id in ["2", "3", "4"] {
        assert!(!people.contains_key(id), "{id} was written");
    }
    let open = world.json(&["conflicts"]);
    assert_eq!(open.as_array().unwrap().len(), 2, "{open}");
    let named: Vec<String> = open
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["records"].as_array().unwrap())
        .map(|r| r.as_str().unwrap().to_owned())
        .collect();
    for id in ["2", "3", "4"] {
        assert!(
            named.iter().any(|r| r.contains(id)),
            "{id} is not named in {open}"
        );
    }
    assert_eq!(daemon.status()["held"]["duplicate_in_source"], 3);

    world.db.sql(
        "UPDATE people SET email = 'three@example.com' WHERE id = 3;
         UPDATE people SET email = 'four@example.com' WHERE id = 4;",
    );
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.of_type("conflict.opened").len(), 2);
    assert_eq!(events.of_type("conflict.resolved").len(), 2);
    assert_eq!(world.json(&["conflicts"]), Value::Array(Vec::new()));
    world.assert_verified();
}

fn duplicates_found_by_a_load_are_written_neither_and_heal(kind: &SourceKind) {
    let world = World::new(kind, &Options::pages_of(10));
    world.db.sql(&hire_all(50));
    world.db.sql(
        "UPDATE people SET email = 'twin@example.com' WHERE id = 4;
         UPDATE people SET email = 'Twin@example.com' WHERE id = 44;",
    );
    let daemon = world.streaming();
    daemon.settle();
    let people = world.events(0).fold();
    for id in ["4", "44"] {
        assert!(!people.contains_key(id), "{id} was written");
    }
    assert_eq!(world.json(&["conflicts"]).as_array().unwrap().len(), 1);
    world
        .db
        .sql("UPDATE people SET email = 'four@example.com' WHERE id = 4");
    daemon.settle();
    world.assert_equal();
    assert_eq!(world.json(&["conflicts"]), Value::Array(Vec::new()));
}

fn a_changed_key_is_a_rename_and_keeps_the_user(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    let before = world.events(0).user_id(10).unwrap();
    // Through a key that another had, as when numbers are given out anew.
    world.db.sql(
        "BEGIN;
         UPDATE people SET id = 1000 WHERE id = 10;
         UPDATE people SET id = 10 WHERE id = 11;
         COMMIT;
         UPDATE people SET id = 1001, job_title = 'Renumbered' WHERE id = 1000;",
    );
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.user_id(1001).unwrap(), before);
    assert_eq!(
        events.of_type("user.created").len(),
        21,
        "20 people and the marker"
    );
    assert!(events.of_type("user.deactivated").is_empty());
    world.assert_verified();
}

fn a_leaver_is_deactivated_and_a_rehire_gets_the_same_user(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(3));
    let daemon = world.streaming();
    let before = world.events(0).user_id(2).unwrap();
    world.db.sql("DELETE FROM people WHERE id = 2");
    daemon.settle();
    let events = world.assert_equal();
    let left = events.of_type("user.deactivated");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["subject"], before.as_str());
    assert_eq!(left[0]["data"]["reason"], "deleted");
    world.db.sql(&hire_with(2, &[("job_title", "Came back")]));
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.user_id(2).unwrap(), before);
    assert_eq!(events.of_type("user.activated").len(), 1);
    world.assert_verified();
}

fn a_record_that_leaves_the_scope_is_a_leaver(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(3));
    let daemon = world.streaming();
    world
        .db
        .sql("UPDATE people SET kind = 'contractor' WHERE id = 1");
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.of_type("user.deactivated").len(), 1);
    let id = events.user_id(1).unwrap();
    world
        .db
        .sql("UPDATE people SET kind = 'employee' WHERE id = 1");
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.user_id(1).unwrap(), id);
    world.assert_verified();
}

fn two_sources_feed_one_user_and_the_first_in_authority_decides(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let second = format!(
        "[field.title]\nauthority = [\"badges\", \"hr\"]\n\
         [source.badges]\n{}\ntable = \"{}\"\n\
         [source.badges.map]\nemail = \"mail\"\ntitle = \"title\"\naddress.locality = \"room\"\n",
        db.connection(),
        db.table("badges"),
    );
    let world = World::on(db, &Options::default().and(&second));
    world.db.sql(&hire_with(1, &[("job_title", "From HR")]));
    let daemon = world.streaming();
    world
        .db
        .sql("INSERT INTO badges VALUES ('b1', 'Person.1@example.com', 'From badges', 'R 1')");
    daemon.until("both sources to feed the user", |_| links(&world) == 2);
    let title = |wanted: &str| {
        daemon.until("the title to be decided", |_| {
            field(&world, "title") == wanted
        });
    };
    title("From badges");
    assert_eq!(field(&world, "address.locality"), "R 1");
    // Whoever has no authority changes nothing, but is there when the other has no value.
    world
        .db
        .sql("UPDATE people SET job_title = 'HR again' WHERE id = 1");
    daemon.settle();
    assert_eq!(field(&world, "title"), "From badges");
    world.db.sql("UPDATE badges SET title = NULL");
    title("HR again");
    world.db.sql("UPDATE badges SET title = 'Badges again'");
    title("Badges again");
    daemon.settle();
    daemon.stop();
    // Who decides is a part of the configuration: another order counts for everybody.
    let text = std::fs::read_to_string(world.config()).unwrap();
    let swapped = text.replace("[\"badges\", \"hr\"]", "[\"hr\", \"badges\"]");
    assert_ne!(text, swapped);
    world.write_config(&swapped);
    let daemon = world.streaming();
    daemon.until("the title to be decided anew", |_| {
        field(&world, "title") == "HR again"
    });
    daemon.settle();
    daemon.stop();
    world.write_config(&text);
    let daemon = world.streaming();
    let title = |wanted: &str| {
        daemon.until("the title to be decided", |_| {
            field(&world, "title") == wanted
        });
    };
    title("Badges again");
    // One record leaves, the other keeps the person here.
    world.db.sql("DELETE FROM badges");
    title("HR again");
    let user = world.json(&["users", "show", "hr:1"]);
    assert_eq!(user["state"], "active", "{user}");
    assert_eq!(field(&world, "address.locality"), "");
    daemon.settle();
    let events = world.events(0);
    assert_eq!(
        events.of_type("user.created").len() as u64,
        daemon.status()["users"].as_u64().unwrap()
    );
    assert!(events.of_type("user.deactivated").is_empty());
}

fn links(world: &World) -> usize {
    let user = world.json(&["users", "show", "hr:1"]);
    let links = user["links"].as_array().unwrap();
    links.iter().filter(|l| l["state"] == "live").count()
}

fn field(world: &World, name: &str) -> String {
    let user = world.json(&["users", "show", "hr:1"]);
    let fields = user["fields"].as_array().unwrap();
    let found = fields.iter().find(|f| f["attribute"] == name);
    found.map_or_else(String::new, |f| f["value"].as_str().unwrap().to_owned())
}

fn a_bad_record_is_skipped_alone_and_retried_when_it_changes(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(10));
    world
        .db
        .sql("UPDATE people SET level = 'not a number' WHERE id IN (3, 7)");
    let daemon = world.streaming();
    daemon.settle();
    let people = world.events(0).fold();
    let mut wanted = expected(&world.db.people());
    wanted.retain(|id, _| id != "3" && id != "7");
    assert_same(&people, &wanted);
    let held = || -> u64 {
        let held = daemon.status()["held"].clone();
        held.as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum()
    };
    assert_eq!(held(), 2);
    // Somebody who is there gets a bad value: the user stays as it was.
    world.db.sql(
        "UPDATE people SET level = '5' WHERE id = 3;
         UPDATE people SET level = 'bad', job_title = 'Unseen' WHERE id = 5;",
    );
    daemon.settle();
    let people = world.events(0).fold();
    assert_eq!(people["3"]["custom"]["level"], 5);
    assert_eq!(people["5"]["title"], "Employee");
    world
        .db
        .sql("UPDATE people SET level = NULL WHERE id IN (5, 7)");
    daemon.settle();
    world.assert_equal();
    assert_eq!(held(), 0);
    world.assert_verified();
}

fn a_changed_mapping_is_applied_to_everybody(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(30));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace("default = \"Employee\"", "default = \"Colleague\"");
    world.write_config(&text);
    let daemon = world.streaming();
    daemon.settle();
    let people = world.events(0).fold();
    assert_eq!(people.len(), 32);
    for (id, user) in &people {
        assert_eq!(user["title"], "Colleague", "{id}");
    }
    world.assert_verified();
}
