//! A person's word on a conflict, through the real program.

use serde_json::Value;

use crate::company::{hire, hire_with};
use crate::sources::{SourceKind, every_source};
use crate::world::{Options, World};

every_source!(
    a_tie_keeps_the_present_value_and_asks_and_the_word_is_sticky,
    of_two_duplicates_the_one_that_a_person_takes_is_written,
    a_key_that_came_back_is_whose_a_person_says_it_is,
);

fn title(world: &World, record: &str) -> Value {
    let user = world.json(&["users", "show", record]);
    let fields = user["fields"].as_array().unwrap();
    let found = fields.iter().find(|f| f["attribute"] == "title");
    found.map_or(Value::Null, |f| f["value"].clone())
}

/// The only open conflict.
fn conflict(world: &World) -> Value {
    let open = world.json(&["conflicts", "list"]);
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    let name = open[0]["fingerprint"].as_str().unwrap().to_owned();
    world.json(&["conflicts", "show", &name])
}

fn resolve(world: &World, conflict: &Value, word: &[&str]) {
    let name = conflict["fingerprint"].as_str().unwrap();
    let args = [&["conflicts", "resolve", name][..], word].concat();
    let output = world.rollcall(&args);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {why}");
    assert_eq!(world.json(&["conflicts"]), serde_json::json!([]));
    let again = world.rollcall(&args);
    assert_eq!(again.status.code(), Some(9), "it is closed");
}

fn a_tie_keeps_the_present_value_and_asks_and_the_word_is_sticky(kind: &SourceKind) {
    let rules = "[field.title]\nmode = \"most_recent\"\nchanged = { hr = \"touched\" }\n";
    let db = (kind.start)(&crate::sources::Setup::default());
    db.sql("ALTER TABLE people ADD COLUMN touched date");
    let world = World::on(db, &Options::default().and(rules));
    let old = [("job_title", "Clerk"), ("touched", "2020-01-01")];
    world.db.sql(&hire_with(1, &old));
    let daemon = world.streaming();
    let set = ["users", "set", "hr:1", "title=Chief"];
    assert!(world.rollcall(&set).status.success());
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let today = today.date();
    let change = |title: &str, more: &str| {
        world.db.sql(&format!(
            "UPDATE people SET job_title = '{title}', touched = '{today}'{more} WHERE id = 1"
        ));
        daemon.settle();
    };
    // The source says of the day alone: nobody can tell which was first.
    change("Boss", "");
    assert_eq!(title(&world, "hr:1"), "Chief");
    let asked = conflict(&world);
    assert_eq!(
        (&asked["kind"], &asked["attribute"]),
        (&"value".into(), &"title".into())
    );
    let candidates = asked["candidates"].as_array().unwrap();
    assert!(
        candidates[1]["what"].as_str().unwrap().contains("Boss"),
        "{asked}"
    );
    assert_eq!(candidates[0]["present"], true);
    resolve(
        &world,
        &asked,
        &["--take", "source", "--reason", "HR knows"],
    );
    assert_eq!(title(&world, "hr:1"), "Boss");
    change("Boss", ", department = 'Sales'");
    assert_eq!(title(&world, "hr:1"), "Boss");
    assert_eq!(world.json(&["conflicts"]), serde_json::json!([]));
    // Another value is another question.
    change("Head", "");
    let again = conflict(&world);
    assert_eq!(again["fingerprint"], asked["fingerprint"]);
    resolve(&world, &again, &["--keep"]);
    let closed = world.json(&["conflicts", "list", "--all"]);
    assert!(closed[0]["decision"]["by"].is_string(), "{closed}");
    daemon.until_delivered();
    let events = world.events(0);
    let opened = events.of_type("conflict.opened");
    let resolved = events.of_type("conflict.resolved");
    assert_eq!((opened.len(), resolved.len()), (2, 2));
    assert_eq!(resolved[0]["data"]["decision"]["took"], "source");
    assert_eq!(resolved[0]["data"]["decision"]["reason"], "HR knows");
}

fn of_two_duplicates_the_one_that_a_person_takes_is_written(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    let daemon = world.streaming();
    let twin = |title| [("email", "twin@example.com"), ("job_title", title)];
    let (one, two) = (hire_with(1, &twin("One")), hire_with(2, &twin("Two")));
    world.db.sql(&format!("BEGIN;{one}{two}COMMIT;"));
    daemon.settle();
    let asked = conflict(&world);
    assert_eq!(asked["kind"], "duplicate_in_source");
    let name = asked["fingerprint"].as_str().unwrap();
    let keep = world.rollcall(&["conflicts", "resolve", name, "--keep"]);
    assert_eq!(keep.status.code(), Some(1), "nothing counts at present");
    resolve(&world, &asked, &["--take", "2"]);
    assert_eq!(title(&world, "hr:2"), "Two");
    // Also for a scan, for a change of either, and after a restart.
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    world
        .db
        .sql("UPDATE people SET job_title = 'Again' WHERE id IN (1, 2)");
    daemon.settle();
    daemon.stop();
    let daemon = world.streaming();
    world
        .db
        .sql("UPDATE people SET department = 'Sales' WHERE id IN (1, 2)");
    daemon.settle();
    assert_eq!(title(&world, "hr:2"), "Again");
    assert_eq!(world.json(&["conflicts"]), serde_json::json!([]));
    assert_eq!(daemon.status()["held"]["duplicate_in_source"], 1);
    world.assert_verified();
    // Corrected at the source, the other one is written too.
    world
        .db
        .sql("UPDATE people SET email = 'one@example.com' WHERE id = 1");
    daemon.settle();
    world.assert_equal();
}

fn a_key_that_came_back_is_whose_a_person_says_it_is(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&(hire(1) + &hire(2)));
    let daemon = world.streaming();
    let former = world.json(&["users", "show", "hr:1"])["id"].clone();
    for id in [1, 2] {
        world.db.sql(&format!("DELETE FROM people WHERE id = {id}"));
        let other = [
            ("first_name", "Ada"),
            ("last_name", &*format!("Other {id}")),
            ("email", &*format!("other.{id}@example.com")),
        ];
        world.db.sql(&hire_with(id, &other));
        daemon.settle();
        let asked = conflict(&world);
        assert_eq!(asked["kind"], "key_reuse");
        resolve(
            &world,
            &asked,
            &["--take", if id == 1 { "new" } else { "1" }],
        );
    }
    daemon.settle();
    let now = world.json(&["users", "show", "hr:1"]);
    assert_ne!(now["id"], former, "another person");
    let left = world.json(&["users", "show", former.as_str().unwrap()]);
    assert_eq!(left["state"], "deactivated");
    let same = world.json(&["users", "show", "hr:2"]);
    assert_eq!(same["links"][0]["incarnation"], 2);
    assert_eq!(same["state"], "active");
    world.assert_verified();
}
