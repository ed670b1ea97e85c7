//! Whose value of a field counts: the sources', or what the identity side writes.

use std::time::Duration;

use serde_json::Value;

use crate::company::{hire, hire_with};
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, World};

every_source!(
    what_the_identity_side_writes_stays_until_the_source_changes_it,
    a_pinned_value_survives_changes_and_a_restart_and_ends_when_its_pin_does,
    an_identifier_of_somebody_else_is_refused_and_its_owner_named,
);

fn show(world: &World, user: &str) -> Value {
    world.json(&["users", "show", user])
}

/// A field of a user, with where it comes from.
fn field(world: &World, user: &str, name: &str) -> Value {
    let user = show(world, user);
    let fields = user["fields"].as_array().unwrap();
    let found = fields.iter().find(|f| f["attribute"] == name);
    found.cloned().unwrap_or(Value::Null)
}

fn until_title(daemon: &Daemon<'_>, world: &World, title: &str) {
    daemon.until("the title to be decided", |_| {
        field(world, "hr:1", "title")["value"] == title
    });
}

fn succeeds(world: &World, args: &[&str]) -> String {
    let output = world.rollcall(args);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {why}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn what_the_identity_side_writes_stays_until_the_source_changes_it(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_with(1, &[("job_title", "Clerk")]));
    let set = ["users", "set", "hr:1", "title=Chef de cuisine\u{301}"];
    let daemon = world.streaming();
    let said = succeeds(
        &world,
        &[&set[..], &["roles=audit", "--reason", "acting"]].concat(),
    );
    assert!(said.contains("title: counts until a source"), "{said}");
    let title = field(&world, "hr:1", "title");
    assert_eq!(
        title["value"], "Chef de cuisin\u{e9}",
        "in NFC, as a column"
    );
    assert_eq!(title["winner"]["own"]["reason"], "acting");
    assert_eq!(title["winner"]["own"]["decided_by"], "source_wins");
    assert_eq!(title["others"][0]["value"], "Clerk");
    assert_eq!(field(&world, "hr:1", "roles")["value"], "audit");
    // Another field of the record, then this one; and roles, which everybody only adds to.
    world.db.sql("UPDATE people SET department = 'Sales'");
    daemon.settle();
    until_title(&daemon, &world, "Chef de cuisin\u{e9}");
    world
        .db
        .sql("UPDATE people SET job_title = 'Boss', roles = 'dev' WHERE id = 1");
    until_title(&daemon, &world, "Boss");
    assert_eq!(field(&world, "hr:1", "roles")["value"], "audit, dev");
    let text = succeeds(&world, &["users", "show", "hr:1"]);
    assert!(
        text.contains("a source has changed its value since"),
        "{text}"
    );
    succeeds(&world, &["users", "unset", "hr:1", "title", "roles"]);
    assert_eq!(field(&world, "hr:1", "roles")["value"], "dev");
    daemon.settle();
    world.assert_equal();
    world.assert_verified();

    let wrong = [
        (&["users", "set", "hr:1", "nosuch=1", "active=false"][..], 2),
        (&["users", "set", "hr:1", "custom.level=high"], 2),
        (
            &["users", "set", "hr:1", "title=x", "--until", "yesterday"],
            2,
        ),
        (&["users", "unset", "hr:1", "title"], 2),
        (&["users", "set", "nobody@example.com", "title=x"], 9),
    ];
    for (args, code) in wrong {
        assert_eq!(world.rollcall(args).status.code(), Some(code), "{args:?}");
    }
    daemon.stop();
    assert_eq!(world.rollcall(&set).status.code(), Some(7), "nobody runs");
}

fn a_pinned_value_survives_changes_and_a_restart_and_ends_when_its_pin_does(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_with(1, &[("job_title", "Clerk")]));
    let daemon = world.streaming();
    succeeds(&world, &["users", "set", "hr:1", "title=Head", "--pin"]);
    for title in ["Boss", "Chief"] {
        world.db.sql(&format!(
            "UPDATE people SET job_title = '{title}' WHERE id = 1"
        ));
        daemon.settle();
        assert_eq!(field(&world, "hr:1", "title")["value"], "Head");
    }
    daemon.stop();
    world
        .db
        .sql("UPDATE people SET job_title = 'King' WHERE id = 1");
    let daemon = world.streaming();
    daemon.settle();
    let title = field(&world, "hr:1", "title");
    assert_eq!(title["value"], "Head");
    assert_eq!(title["winner"]["own"]["pinned"], true);
    succeeds(&world, &["users", "unpin", "hr:1", "title"]);
    until_title(&daemon, &world, "King");
    // The end of a pin comes by itself, also while nothing changes and over a restart.
    succeeds(
        &world,
        &["users", "set", "hr:1", "title=Head", "--until", "15s"],
    );
    world
        .db
        .sql("UPDATE people SET job_title = 'Pawn' WHERE id = 1");
    daemon.settle();
    let title = field(&world, "hr:1", "title");
    assert_eq!(title["value"], "Head");
    assert!(title["winner"]["own"]["until"].is_string());
    daemon.stop();
    let daemon = world.streaming();
    let began = std::time::Instant::now();
    until_title(&daemon, &world, "Pawn");
    assert!(began.elapsed() < Duration::from_secs(45));
    daemon.until_delivered();
    world.assert_equal();
    world.assert_verified();
}

fn an_identifier_of_somebody_else_is_refused_and_its_owner_named(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&(hire(1) + &hire(2)));
    let daemon = world.streaming();
    let owner = show(&world, "hr:2")["id"].as_str().unwrap().to_owned();
    let taken = [
        "users",
        "set",
        "hr:1",
        "title=x",
        "email=Person.2@Example.com",
    ];
    let output = world.rollcall(&taken);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.contains(&owner) && !why.contains("erson.2"), "{why}");
    daemon.settle();
    world.assert_equal();
    let log = daemon.process.log();
    assert!(!log.contains("erson.2"), "no value in the log");
    succeeds(&world, &["users", "set", "hr:1", "email=first@example.com"]);
    daemon.until_delivered();
    let events = world.events(0);
    assert_eq!(events.fold()["1"]["email"], "first@example.com");
    let (one, two) = (events.user_id(1).unwrap(), events.user_id(2).unwrap());
    assert_ne!(one, two);
}
