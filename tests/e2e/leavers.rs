//! What becomes of people who are gone, and when.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rollcall_testbed::Postgres;
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::sources::{SourceKind, every_source, prepared};
use crate::topic::{broker, records, sink};
use crate::world::{Daemon, Options, World};

every_source!(
    a_leaver_goes_through_every_state_over_restarts,
    a_leaver_who_came_back_while_the_daemon_was_away_loses_nothing,
    a_leaver_of_a_polled_table_has_the_same_grace,
    too_many_deletions_wait_for_somebody_to_look,
);

fn patient(leaver: &str) -> Options {
    Options {
        source: format!("batch = {{ page_rows = 7 }}\nleaver = {{ {leaver} }}"),
        ..Options::default()
    }
}

fn world(kind: &SourceKind, leaver: &str) -> World {
    let world = World::new(kind, &patient(leaver));
    world.db.sql(&hire_all(10));
    world
}

/// A user of the directory by its record; none when there is none.
fn user(world: &World, id: u64) -> Option<Value> {
    let output = world.rollcall(&["users", "show", &format!("hr:{id}"), "--json"]);
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn state(world: &World, id: u64) -> String {
    user(world, id).map_or_else(String::new, |u| u["state"].as_str().unwrap().to_owned())
}

fn until_state(world: &World, daemon: &Daemon<'_>, id: u64, wanted: &str) {
    daemon.until(&format!("person {id} to be {wanted:?}"), |_| {
        state(world, id) == wanted
    });
}

fn a_leaver_goes_through_every_state_over_restarts(kind: &SourceKind) {
    let world = world(
        kind,
        "deactivate_after = \"5s\", delete_after = \"5s\", purge_after = \"6s\"",
    );
    let daemon = world.streaming();
    let email = "person.3@example.com";
    world.db.sql("DELETE FROM people WHERE id IN (3, 4)");
    until_state(&world, &daemon, 3, "suspected");
    world.db.sql(&hire(4));
    until_state(&world, &daemon, 4, "active");
    let shown = user(&world, 3).unwrap();
    assert_eq!(shown["reason"], "deleted");
    assert_eq!(shown["links"][0]["state"], "suspected: deleted");
    assert!(shown["links"][0]["since"].is_string());
    daemon.kill9();

    let daemon = world.start();
    until_state(&world, &daemon, 3, "deactivated");
    daemon.kill9();
    let daemon = world.start();
    until_state(&world, &daemon, 3, "tombstone");
    assert_eq!(user(&world, 3).unwrap()["fields"], serde_json::json!([]));
    assert!(world.rollcall(&["users", "show", email]).status.code() != Some(0));
    let listed = world.json(&["users", "list", "--limit", "100"]);
    assert!(!listed.to_string().contains("Kovács 3\""), "{listed}");
    assert_eq!(daemon.status()["users"], 9);
    daemon.kill9();

    let daemon = world.start();
    until_state(&world, &daemon, 3, "");
    daemon.settle();
    let events = world.events(3);
    for (kind, reason) in [("deactivated", "deleted"), ("deleted", "deleted")] {
        let told = events.of_type(&format!("user.{kind}"));
        assert_eq!(told.len(), 1, "{kind}");
        assert_eq!(told[0]["data"]["reason"], reason);
    }
    assert!(
        events.of_type("user.activated").is_empty(),
        "4 was never away"
    );
    assert!(
        !events.of_type("user.deleted")[0]
            .to_string()
            .contains(email)
    );
    // Whoever comes now is new.
    let before = events.user_id(3);
    world.db.sql(&hire(3));
    until_state(&world, &daemon, 3, "active");
    daemon.settle();
    assert_ne!(world.events(3).user_id(3), before);
    world.assert_verified();
    daemon.stop();
}

fn a_leaver_who_came_back_while_the_daemon_was_away_loses_nothing(kind: &SourceKind) {
    let world = world(
        kind,
        "deactivate_after = \"2s\", delete_after = \"2s\", purge_after = \"1h\"",
    );
    let daemon = world.streaming();
    world.db.sql("DELETE FROM people WHERE id = 3");
    daemon.settle();
    daemon.kill9();
    let is_suspected = state(&world, 3) == "suspected";
    world.db.sql(&hire(3));
    sleep(Duration::from_secs(3));
    let daemon = world.start();
    until_state(&world, &daemon, 3, "active");
    daemon.settle();
    // Slow machines may have passed the grace before the kill.
    let left = world.events(1).of_type("user.deactivated").len();
    assert_eq!(left, usize::from(!is_suspected));

    // Another one stays away until only a tombstone is left, and comes back as who it was.
    let id = world.events(1).user_id(5);
    world.db.sql("DELETE FROM people WHERE id = 5");
    until_state(&world, &daemon, 5, "tombstone");
    world.db.sql(&hire_with(5, &[("job_title", "Back")]));
    until_state(&world, &daemon, 5, "active");
    daemon.settle();
    let events = world.assert_equal();
    let mut created = events.of_type("user.created");
    created.retain(|e| e["data"]["user"]["employeeNumber"] == "5");
    let last = &created.last().unwrap()["data"]["user"];
    assert_eq!(created.len(), 2);
    assert_eq!(last["id"].as_str().map(str::to_owned), id);
    assert_eq!(last["title"], "Back");
    world.assert_verified();
    daemon.stop();
}

fn a_leaver_of_a_polled_table_has_the_same_grace(kind: &SourceKind) {
    let mut options = patient("deactivate_after = \"3s\", delete_after = \"2s\"");
    options.source += "\npoll = { mode = \"always\", every = \"1s\" }";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(10));
    let daemon = world.start();
    until_state(&world, &daemon, 3, "active");
    world.db.sql("DELETE FROM people WHERE id IN (3, 4)");
    until_state(&world, &daemon, 3, "suspected");
    until_state(&world, &daemon, 4, "suspected");
    world.db.sql(&hire(4));
    until_state(&world, &daemon, 4, "active");
    until_state(&world, &daemon, 3, "tombstone");
    until_state(&world, &daemon, 4, "active");
    let left = world.events(0).of_type("user.deactivated").len();
    assert_eq!(left, 1);
    daemon.stop();
}

fn too_many_deletions_wait_for_somebody_to_look(kind: &SourceKind) {
    let options = Options {
        limit: Some("{ max_changes = 50, max_percent = 100, floor = 2 }".to_owned()),
        ..patient("delete_after = \"1h\"")
    };
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(60));
    let daemon = world.streaming();
    world.db.sql("DELETE FROM people WHERE id <= 30");
    until_state(&world, &daemon, 30, "deactivated");
    daemon.settle();
    daemon.stop();

    // Thirty more than the twenty that the window leaves.
    world.configure(
        &*world.db,
        &Options {
            limit: Some("{ max_changes = 50, max_percent = 100, floor = 2 }".to_owned()),
            ..patient("delete_after = \"1s\"")
        },
    );
    let daemon = world.streaming();
    let status = daemon.until("the deletions to wait", |status| {
        status["sources"][0]["plan"]["records"] == 30
    });
    assert!(world.events(0).of_type("user.deleted").is_empty());
    let hash = status["sources"][0]["plan"]["hash"].as_str().unwrap();
    let shown = world.json(&["plan", "show", "hr"]);
    assert_eq!(shown["plan"]["kinds"]["erased"], 30);
    world.assert_verified();
    // Who comes back leaves the plan.
    world.db.sql(&hire(30));
    until_state(&world, &daemon, 30, "active");
    assert_ne!(
        world.rollcall(&["plan", "approve", hash]).status.code(),
        Some(0)
    );
    let status = daemon.until("one less to wait", |status| {
        status["sources"][0]["plan"]["records"] == 29
    });
    let hash = status["sources"][0]["plan"]["hash"].as_str().unwrap();
    assert!(world.rollcall(&["plan", "approve", hash]).status.success());
    until_state(&world, &daemon, 1, "tombstone");
    daemon.settle();
    assert_eq!(world.events(0).of_type("user.deleted").len(), 29);
    world.assert_verified();
    daemon.stop();
}

#[test]
fn a_deleted_user_is_followed_by_its_tombstone_on_the_topic() {
    let kafka = broker();
    let options = patient("delete_after = \"1s\"").and(&sink(kafka, "leavers"));
    let world = World::on(Arc::new(prepared(Postgres::builder())), &options);
    world.db.sql(&hire_all(4));
    let daemon = world.streaming();
    world.db.sql("DELETE FROM people WHERE id = 3");
    until_state(&world, &daemon, 3, "tombstone");
    daemon.settle();
    daemon.until_delivered();
    let id = world.events(0).user_id(3).unwrap();
    let records = records(kafka, "leavers");
    let of_user: Vec<_> = records
        .iter()
        .filter(|r| r.key.as_deref() == Some(id.as_bytes()))
        .collect();
    let last = of_user.len() - 1;
    assert!(
        of_user[last].body.is_none(),
        "the tombstone is the last one"
    );
    assert!(of_user[..last].iter().all(|r| r.body.is_some()));
    daemon.stop();
}
