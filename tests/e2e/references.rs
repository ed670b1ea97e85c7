//! People who name others: managers.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_testbed::wait_for;
use serde_json::Value;

use crate::company::hire_with;
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_manager_hired_after_the_report_is_linked_when_hired_and_a_cycle_of_managers_harms_nobody,
    managers_follow_their_keys_and_end_with_their_users,
    everybody_under_one_manager_is_told_also_over_a_kill,
);

/// With managers, in the usual table.
fn world(kind: &SourceKind, options: Options) -> World {
    let rule = "[source.hr.map.manager]\ncolumn = \"manager_id\"\n";
    let world = World::new(kind, &options.and(rule));
    world
        .db
        .sql("ALTER TABLE people ADD COLUMN manager_id bigint");
    world
}

fn hire_under(id: u64, manager: u64) -> String {
    hire_with(id, &[("manager_id", &manager.to_string())])
}

fn show(world: &World, user: &str) -> Value {
    world.json(&["users", "show", user])
}

fn id_of(world: &World, user: &str) -> String {
    show(world, user)["id"].as_str().unwrap().to_owned()
}

fn manager_of(world: &World, user: &str) -> Option<String> {
    let user = show(world, user);
    let mut fields = user["fields"].as_array()?.iter();
    let field = fields.find(|f| f["attribute"] == "manager")?;
    Some(field["value"].as_str()?.to_owned())
}

/// Waits until a user's manager is who it should be.
fn until_manager(daemon: &Daemon<'_>, world: &World, user: &str, manager: Option<&str>) {
    let is_there = |user: &str| world.rollcall(&["users", "show", user]).status.success();
    daemon.until("the manager", |_| {
        if !manager.is_none_or(is_there) || !is_there(user) {
            return false;
        }
        let wanted = manager.map(|m| id_of(world, m));
        manager_of(world, user) == wanted
    });
}

fn missing(world: &World) -> Vec<Value> {
    let open = world.json(&["conflicts"]);
    let open = open.as_array().unwrap().iter();
    open.filter(|c| c["kind"] == "unresolved_reference")
        .cloned()
        .collect()
}

fn waiting(status: &Value) -> u64 {
    status["sources"][0]["references_waiting"].as_u64().unwrap()
}

/// Users after all events, by id.
fn users_told(world: &World, crashes: usize) -> BTreeMap<String, Value> {
    let mut users = BTreeMap::new();
    for event in world.events(crashes).in_order() {
        let data = &event["data"];
        if let Some(id) = data["user"]["id"].as_str() {
            users.insert(id.to_owned(), data["user"].clone());
        } else if event["type"] == "io.rollcall.user.deleted.v1" {
            users.remove(data["id"].as_str().unwrap());
        }
    }
    users
}

/// What the events say of each active user's manager, by employee number.
fn told(world: &World, crashes: usize) -> BTreeMap<String, Option<String>> {
    let users = users_told(world, crashes);
    let number = |id: &str| users[id]["employeeNumber"].as_str().unwrap().to_owned();
    let active = users.iter().filter(|(_, user)| user["active"] == true);
    active
        .map(|(id, user)| (number(id), user["manager"].as_str().map(number)))
        .collect()
}

/// What the table says of each person's manager, where that is somebody.
fn said(world: &World) -> BTreeMap<String, Option<String>> {
    let sql = "SELECT CONCAT(id, ':', COALESCE(manager_id, 0)) FROM people";
    let rows = world.db.sql(sql);
    let rows: Vec<(&str, &str)> = rows.lines().filter_map(|row| row.split_once(':')).collect();
    let ids: BTreeSet<&str> = rows.iter().map(|(id, _)| *id).collect();
    let manager = |m: &str| Some(m.to_owned()).filter(|_| ids.contains(m));
    let each = rows.iter();
    each.map(|(id, m)| ((*id).to_owned(), manager(m))).collect()
}

fn a_manager_hired_after_the_report_is_linked_when_hired_and_a_cycle_of_managers_harms_nobody(
    kind: &SourceKind,
) {
    let world = world(kind, Options::default());
    world.db.sql(&hire_under(1, 2));
    world.db.sql(&hire_under(3, 3));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(manager_of(&world, "hr:1"), None);
    assert_eq!(manager_of(&world, "hr:3"), Some(id_of(&world, "hr:3")));
    let pending = &show(&world, "hr:1")["pending"][0];
    assert_eq!(pending["attribute"], "manager");
    assert_eq!(pending["names"], "2");
    assert_eq!(waiting(&daemon.status()), 1);
    let [missing_one] = &missing(&world)[..] else {
        panic!("{:?}", missing(&world))
    };
    assert_eq!(missing_one["records"][0], "2");
    assert_eq!(missing_one["attribute"], "manager");
    assert_eq!(missing_one["missing"]["waiting"], 1);
    let reason = missing_one["missing"]["reason"].as_str().unwrap();
    assert!(reason.contains("no record"), "{reason}");

    // The manager comes, and is managed by its report.
    world.db.sql(&hire_under(2, 1));
    until_manager(&daemon, &world, "hr:1", Some("hr:2"));
    until_manager(&daemon, &world, "hr:2", Some("hr:1"));
    daemon.until_delivered();
    assert!(missing(&world).is_empty());
    assert_eq!(waiting(&daemon.status()), 0);
    let events = world.events(0);
    let resolved = events
        .in_order()
        .filter(|e| e["type"] == "io.rollcall.conflict.resolved.v1");
    assert_eq!(resolved.count(), 1);
    let two = id_of(&world, "hr:2");
    let changed = events.in_order().find(|e| {
        e["type"] == "io.rollcall.user.updated.v1"
            && e["data"]["changed"]["manager"]["after"] == two.as_str()
    });
    let changed = changed.expect("the report's event");
    assert_eq!(changed["data"]["user"]["employeeNumber"], "1");
    assert_eq!(changed["data"]["changed"]["manager"]["before"], Value::Null);

    // A report and a manager in one transaction, the report first; a whole reading, a restart.
    let both = format!(
        "BEGIN;\n{}{}COMMIT;\n",
        hire_under(10, 11),
        hire_under(11, 10)
    );
    world.db.sql(&both);
    daemon.settle();
    let reconciled = world.rollcall(&["reconcile", "hr"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    daemon.settle();
    assert_eq!(told(&world, 0), said(&world));
    world.assert_verified();
    daemon.stop();
    world
        .db
        .sql("UPDATE people SET manager_id = 11 WHERE id IN (1, 2)");
    let daemon = world.streaming();
    daemon.settle();
    until_manager(&daemon, &world, "hr:2", Some("hr:11"));
    daemon.until_delivered();
    assert_eq!(told(&world, 0), said(&world));
    world.assert_verified();
    let text = world.rollcall(&["users", "show", "hr:2"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("from hr:2, which names hr:11, rule"),
        "{text}"
    );
}

fn managers_follow_their_keys_and_end_with_their_users(kind: &SourceKind) {
    let options = Options {
        source: "leaver = { delete_after = \"1s\" }".to_owned(),
        ..Options::default()
    };
    let world = world(kind, options);
    world.db.sql(&hire_under(1, 2));
    world.db.sql(&hire_under(2, 1));
    world.db.sql(&hire_with(4, &[]));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(manager_of(&world, "hr:1"), Some(id_of(&world, "hr:2")));
    world.db.sql(
        "BEGIN;\nUPDATE people SET id = 22 WHERE id = 2;\n\
         UPDATE people SET manager_id = 22 WHERE id = 1;\nCOMMIT;\n",
    );
    daemon.settle();
    until_manager(&daemon, &world, "hr:1", Some("hr:22"));
    // Somebody who writes names a user that there is.
    let wrong = world.rollcall(&["users", "set", "hr:4", "manager=hr:999"]);
    assert!(!wrong.status.success());
    let why = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(why.contains("names a user that there is not"), "{why}");
    let set = world.rollcall(&["users", "set", "hr:4", "manager=hr:22", "--pin"]);
    assert!(set.status.success(), "{set:?}");
    until_manager(&daemon, &world, "hr:4", Some("hr:22"));

    let gone = id_of(&world, "hr:22");
    world.db.sql("DELETE FROM people WHERE id = 22");
    until_manager(&daemon, &world, "hr:1", None);
    until_manager(&daemon, &world, "hr:4", None);
    daemon.until_delivered();
    let users = users_told(&world, 0);
    let shows = users.values().find(|u| u["manager"] == gone.as_str());
    assert_eq!(shows, None, "no id of a user that is deleted");
    // Out of scope is a reason, and a record in scope heals it.
    world.db.sql(&hire_with(30, &[("kind", "contractor")]));
    world
        .db
        .sql("UPDATE people SET manager_id = 30 WHERE id = 1");
    daemon.settle();
    assert!(missing(&world).is_empty(), "{:?}", missing(&world));
    let reconciled = world.rollcall(&["reconcile", "hr"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    let found = wait_for(PATIENCE, "the conflict", || {
        let found = missing(&world).into_iter().next();
        found.ok_or_else(|| daemon.status().to_string())
    });
    let reason = found.unwrap()["missing"]["reason"].clone();
    assert!(
        reason.as_str().unwrap().contains("out of scope"),
        "{reason}"
    );
    world
        .db
        .sql("UPDATE people SET kind = 'employee' WHERE id = 30");
    until_manager(&daemon, &world, "hr:1", Some("hr:30"));
    daemon.until_delivered();
    assert!(missing(&world).is_empty(), "{:?}", missing(&world));
    world.assert_verified();
}

fn everybody_under_one_manager_is_told_also_over_a_kill(kind: &SourceKind) {
    const REPORTS: u64 = 12_000;
    let world = world(kind, Options::default());
    let numbers = world.db.numbers(1, REPORTS);
    world.db.sql(&format!(
        "INSERT INTO people (id, first_name, last_name, email, manager_id) \
         SELECT n, 'A', 'B', CONCAT('p', n, '@example.com'), 50000 FROM {numbers}"
    ));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(waiting(&daemon.status()), REPORTS);
    let [one] = &missing(&world)[..] else {
        panic!("one conflict for all of them")
    };
    assert_eq!(one["missing"]["waiting"], REPORTS);
    assert_eq!(one["users"].as_array().unwrap().len(), 20);
    world.db.sql(&hire_under(50_000, 50_000));
    daemon.until("the first to be told", |status| waiting(status) < REPORTS);
    daemon.kill9();
    let daemon = world.streaming();
    daemon.until("everybody to be told", |status| waiting(status) == 0);
    daemon.settle();
    assert_eq!(told(&world, 1), said(&world));
    assert!(missing(&world).is_empty());
    world.assert_verified();
}
