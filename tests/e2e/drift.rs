//! The table changes under its mapping.

use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::fold::People;
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, World};

every_source!(
    a_dropped_column_clears_nobodys_field_and_heals_when_it_is_back,
    a_renamed_column_pauses_its_fields_until_the_mapping_names_it,
    nobody_new_is_made_while_what_people_are_matched_by_is_gone,
);

fn world(kind: &SourceKind) -> World {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(10));
    world
        .db
        .sql("UPDATE people SET job_title = 'Engineer', department = 'R'");
    world
}

fn fields(status: &Value) -> Vec<String> {
    let paused = status["sources"][0]["paused"].as_array().unwrap();
    let name = |p: &Value| p["field"].as_str().unwrap().to_owned();
    let mut fields: Vec<String> = paused.iter().map(name).collect();
    fields.sort();
    fields
}

fn until_paused(daemon: &Daemon<'_>, wanted: &[&str]) -> Value {
    daemon.until(&format!("{wanted:?} to be paused"), |status| {
        fields(status) == wanted
    })
}

fn people(world: &World, crashes: usize) -> People {
    world.events(crashes).fold()
}

fn a_dropped_column_clears_nobodys_field_and_heals_when_it_is_back(kind: &SourceKind) {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.settle();
    world.db.sql("ALTER TABLE people DROP COLUMN job_title");
    world
        .db
        .sql("UPDATE people SET department = 'S' WHERE id = 3");
    let status = until_paused(&daemon, &["title"]);
    assert_eq!(status["sources"][0]["state"], "streaming");
    assert_eq!(status["conflicts"]["schema_drift"], 1);
    let said = status["sources"][0].to_string();
    assert!(said.contains("`job_title`"), "{said}");
    daemon.settle();
    assert_eq!(people(&world, 0)["3"]["department"], "S");
    assert_eq!(people(&world, 0)["3"]["title"], "Engineer");
    // A scan clears nothing either, nor does a restart.
    world
        .db
        .sql("UPDATE people SET department = 'T' WHERE id = 4");
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    daemon.kill9();
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(fields(&daemon.status()), ["title"]);
    let titles = people(&world, 1);
    assert!((1..=10).all(|id| titles[&id.to_string()]["title"] == "Engineer"));
    let opened = world.events(1);
    let opened = opened.of_type("conflict.opened");
    assert_eq!(opened.len(), 1, "told once");
    assert_eq!(opened[0]["data"]["attribute"], "title");

    world
        .db
        .sql("ALTER TABLE people ADD COLUMN job_title varchar(200)");
    world
        .db
        .sql("UPDATE people SET job_title = 'Back' WHERE id <= 5");
    until_paused(&daemon, &[]);
    daemon.settle();
    let events = world.assert_equal();
    let titles = events.fold();
    assert_eq!(titles["5"]["title"], "Back");
    assert_eq!(
        titles["6"]["title"], "Employee",
        "the new column has no value"
    );
    assert_eq!(events.of_type("conflict.resolved").len(), 1);
    world.assert_verified();
    daemon.stop();
}

fn a_renamed_column_pauses_its_fields_until_the_mapping_names_it(kind: &SourceKind) {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.settle();
    world
        .db
        .sql("ALTER TABLE people RENAME COLUMN department TO division");
    world
        .db
        .sql("UPDATE people SET division = 'Engineering', job_title = 'Chief' WHERE id = 3");
    until_paused(&daemon, &["department", "userType"]);
    daemon.settle();
    let ada = people(&world, 0)["3"].clone();
    assert_eq!(
        (&ada["department"], &ada["userType"]),
        (&Value::from("R"), &Value::from("user"))
    );
    assert_eq!(ada["title"], "Chief");
    daemon.stop();

    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace("department = \"department\"", "department = \"division\"");
    let text = text.replace("department == 'Engineering'", "division == 'Engineering'");
    world.write_config(&text);
    let daemon = world.streaming();
    until_paused(&daemon, &[]);
    daemon.settle();
    let ada = people(&world, 0)["3"].clone();
    assert_eq!(
        (&ada["department"], &ada["userType"]),
        (&Value::from("Engineering"), &Value::from("developer"))
    );
    assert_eq!(world.events(0).of_type("conflict.resolved").len(), 2);
    world.assert_verified();
    daemon.stop();
}

fn nobody_new_is_made_while_what_people_are_matched_by_is_gone(kind: &SourceKind) {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.settle();
    let before = people(&world, 0).len();
    world
        .db
        .sql("ALTER TABLE people RENAME COLUMN email TO mail");
    let newcomer = hire(77).replace("email", "mail");
    world.db.sql(&newcomer);
    world
        .db
        .sql("UPDATE people SET job_title = 'Chief' WHERE id = 3");
    until_paused(&daemon, &["email"]);
    daemon.until("the newcomer to be held", |status| {
        status["held"]["incomplete"] == 1
    });
    let now = people(&world, 0);
    assert_eq!(now.len(), before);
    assert_eq!(now["3"]["email"], "person.3@example.com");
    world
        .db
        .sql("ALTER TABLE people RENAME COLUMN mail TO email");
    world.db.sql(&hire_with(78, &[]));
    until_paused(&daemon, &[]);
    daemon.settle();
    let events = world.assert_equal();
    assert!(events.fold().contains_key("77"));
    world.assert_verified();
    daemon.stop();
}
