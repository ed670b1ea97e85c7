//! Seen before it is done: a plan says what would happen, changes nothing, and is applied
//! exactly or not at all.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use rollcall_testbed::{Process, Signal, wait_until};
use serde_json::Value;

use crate::company::{hire, hire_all};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    applying_a_simulation_gives_exactly_what_it_said,
    a_simulation_changes_nothing_and_leaves_nothing_behind,
    a_simulation_that_is_killed_changes_nothing_and_leaves_nothing_behind,
    a_plan_that_no_longer_fits_is_refused_and_names_the_record,
    a_simulation_shows_what_a_change_of_mapping_would_do,
    a_change_of_mapping_waits_whatever_it_changes_and_its_plan_is_applied,
);

const PEOPLE: u64 = 60;

const TITLE: &str = "title = { column = \"job_title\", default = \"Employee\" }";

fn world(kind: &SourceKind) -> World {
    let options = Options {
        limit: Some("{}".to_owned()),
        ..Options::pages_of(7)
    };
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    world
}

/// Changes that nobody sees, of which too many take something away.
fn change_unseen(world: &World) {
    world
        .db
        .sql("DELETE FROM people WHERE id BETWEEN 31 AND 60");
    world.db.sql(
        "UPDATE people SET job_title = 'Chief' WHERE id = 1;
         UPDATE people SET kind = 'contractor' WHERE id = 5;",
    );
    world.db.sql(&hire(700));
    world.db.lose_log();
}

/// Loads everybody, stops, and lets things change meanwhile.
fn changed_meanwhile(kind: &SourceKind) -> World {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    change_unseen(&world);
    world
}

fn plan_file(world: &World) -> PathBuf {
    world.config().with_file_name("plan.json")
}

/// Makes a plan file, and gives what is in it.
fn planned(world: &World, more: &[&str]) -> Value {
    let file = plan_file(world);
    let path = file.to_str().unwrap();
    let output = world.rollcall(&[&["plan", "hr", "--out", path], more].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
    assert!(said.contains("holds personal data"), "{said}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

fn apply(world: &World) -> Output {
    world.rollcall(&["apply", plan_file(world).to_str().unwrap()])
}

/// Applies the plan and gives what was said.
fn applied(world: &World) -> String {
    let output = apply(world);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
    said
}

/// What a plan says, as the events that follow: type and user name.
fn foretold(plan: &Value) -> BTreeMap<(String, String), usize> {
    let mut events = BTreeMap::new();
    for change in plan["changes"].as_array().unwrap() {
        let types: &[&str] = match change["action"].as_str().unwrap() {
            "created" => &["created"],
            "updated" => &["updated"],
            "identifier_changed" => &["updated", "identifier_changed"],
            "deactivated" => &["deactivated"],
            _ => continue,
        };
        for kind in types {
            let key = (
                (*kind).to_owned(),
                change["records"][0].as_str().unwrap().to_owned(),
            );
            *events.entry(key).or_default() += 1;
        }
    }
    events
}

/// The events of users behind the first `known`, in the same form.
fn happened(world: &World, known: usize) -> BTreeMap<(String, String), usize> {
    let mut numbers = BTreeMap::new();
    let mut events = BTreeMap::new();
    for (i, event) in world.events(0).in_order().enumerate() {
        let data = &event["data"];
        let id = data["user"]["id"].as_str().or(data["id"].as_str());
        let Some(id) = id else { continue };
        if let Some(number) = data["user"]["employeeNumber"].as_str() {
            numbers.insert(id.to_owned(), number.to_owned());
        }
        let kind = event["type"].as_str().unwrap().split('.').nth(3).unwrap();
        if i >= known {
            let number = numbers[id].clone();
            *events.entry((kind.to_owned(), number)).or_default() += 1;
        }
    }
    events
}

fn applying_a_simulation_gives_exactly_what_it_said(kind: &SourceKind) {
    let world = changed_meanwhile(kind);
    let known = world.events(0).in_order().count();
    let plan = planned(&world, &[]);
    assert_eq!(plan["counts"]["deactivated"]["absent"], 30);
    assert_eq!(plan["counts"]["deactivated"]["out_of_scope"], 1);
    assert_eq!(
        plan["counts"]["created"]["record_joined"], 1,
        "{}",
        plan["counts"]
    );
    assert_eq!(plan["limit"]["trips"], true, "{}", plan["limit"]);
    let daemon = world.streaming();
    // The daemon holds back what is too much; the plan was seen, and is applied.
    assert!(world.events(0).of_type("user.deactivated").len() < 3);
    let said = applied(&world);
    assert!(
        said.starts_with("applied ") && !said.starts_with("applied 0"),
        "{said}"
    );
    daemon.until_delivered();
    assert_eq!(happened(&world, known), foretold(&plan));
    let again = applied(&world);
    assert!(again.starts_with("applied 0 records, "), "{again}");
    assert!(
        planned(&world, &[])["changes"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    daemon.settle();
    world.assert_verified();
}

fn a_simulation_changes_nothing_and_leaves_nothing_behind(kind: &SourceKind) {
    let world = changed_meanwhile(kind);
    let store = world.store().join("rollcall.db");
    let before = std::fs::read(&store).unwrap();
    let temporary = world.config().with_file_name("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let left = || std::fs::read_dir(&temporary).unwrap().count();
    let mut command = world.command(&["plan", "hr", "--format", "csv"]);
    let output = command.env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("records,user,user_name,action,reason,counted,"));
    assert!(
        text.lines().all(|line| line.split(',').count() >= 10),
        "{text}"
    );
    assert_eq!(left(), 0);
    let table = world.rollcall(&["plan", "hr"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("deactivated: absent"), "{table}");
    assert!(
        table.contains("a reconciliation would hold them back"),
        "{table}"
    );

    let mut command = world.command(&["plan", "hr"]);
    command.env("TMPDIR", &temporary);
    let simulation = Process::spawn(command).unwrap();
    // It may be faster than we are: then there is nothing either.
    let began = || left() > 0 || !simulation.is_running();
    wait_until(PATIENCE, "the copy to be made", began).unwrap();
    simulation.signal(Signal::INT);
    simulation.wait_timeout(PATIENCE).unwrap();
    assert_eq!(left(), 0);

    assert!(
        std::fs::read(&store).unwrap() == before,
        "the store is as it was"
    );
    let events = world.events(0);
    let deactivated = events.of_type("user.deactivated").len();
    assert_eq!(deactivated, 0);
}

fn a_simulation_that_is_killed_changes_nothing_and_leaves_nothing_behind(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let options = Options {
        limit: Some("{}".to_owned()),
        ..Options::pages_of(1)
    };
    let (options, _proxy) = options.slowed(&*db);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    change_unseen(&world);
    let store = world.store().join("rollcall.db");
    let before = std::fs::read(&store).unwrap();
    let temporary = world.config().with_file_name("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let left = || std::fs::read_dir(&temporary).unwrap().count();
    let killed = || {
        let mut command = world.command(&["plan", "hr"]);
        command.env("TMPDIR", &temporary);
        let simulation = Process::spawn(command).unwrap();
        wait_until(PATIENCE, "the copy to be made", || left() > 0).unwrap();
        assert!(simulation.is_running(), "{}", simulation.log());
        simulation.kill9();
        assert_eq!(left(), 1);
    };
    killed();
    let mut command = world.command(&["plan", "hr"]);
    let output = command.env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(left(), 0, "the next one removes it");
    killed();
    assert!(
        std::fs::read(&store).unwrap() == before,
        "the store is as it was"
    );
    let mut command = world.command(&["run"]);
    command.env("TMPDIR", &temporary);
    let daemon = Process::spawn(command).unwrap();
    wait_until(PATIENCE, "the daemon to remove it", || left() == 0).unwrap();
    daemon.terminate(PATIENCE).unwrap();
    let events = world.events(0);
    assert_eq!(events.of_type("user.deactivated").len(), 0);
}

fn a_plan_that_no_longer_fits_is_refused_and_names_the_record(kind: &SourceKind) {
    let world = changed_meanwhile(kind);
    planned(&world, &[]);
    let daemon = world.streaming();
    // One comes back, one is another one.
    world.db.sql(&hire(40));
    world
        .db
        .sql("UPDATE people SET department = 'Elsewhere' WHERE id = 700");
    daemon.settle();
    let deactivated = world.events(0).of_type("user.deactivated").len();
    let output = apply(&world);
    assert_eq!(output.status.code(), Some(6));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("  40: the record is there again"), "{said}");
    assert!(said.contains("  700: the record has another row"), "{said}");
    assert!(
        !said.contains("Elsewhere") && !said.contains("example.com"),
        "no values: {said}"
    );
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(why.contains("Nothing was applied"), "{why}");
    daemon.settle();
    assert_eq!(
        world.events(0).of_type("user.deactivated").len(),
        deactivated
    );
    drop(daemon);
    let none = apply(&world);
    assert_eq!(none.status.code(), Some(7), "no daemon runs");
}

/// Writes a configuration with another title for everybody beside the present one.
fn other_mapping(world: &World) -> (PathBuf, String) {
    let file = world.config().with_file_name("new.toml");
    let text = std::fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(TITLE));
    let other = text.replace(TITLE, "title = { expr = \"'Dr ' + last_name\" }");
    std::fs::write(&file, &other).unwrap();
    (file, other)
}

/// Waits until so many changes wait; gives the plan's hash.
fn waits(daemon: &Daemon<'_>, records: u64) -> String {
    let status = daemon.until("so many changes to wait", |status| {
        status["sources"][0]["plan"]["records"] == records
            && status["sources"][0]["state"] == "streaming"
    });
    let hash = &status["sources"][0]["plan"]["hash"];
    hash.as_str().unwrap().to_owned()
}

fn a_change_of_mapping_waits_whatever_it_changes_and_its_plan_is_applied(kind: &SourceKind) {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.until_delivered();
    let (file, other) = other_mapping(&world);
    let known = world.events(0).in_order().count();
    let plan = planned(&world, &["--with", file.to_str().unwrap()]);
    assert_eq!(plan["limit"]["counted"]["mapping"], PEOPLE);
    assert_eq!(plan["limit"]["trips"], true);
    daemon.stop();
    world.write_config(&other);
    let daemon = world.streaming();
    let hash = waits(&daemon, PEOPLE);
    // Nobody has agreed to it: the next one who looks finds it again, also after a restart.
    let discarded = world.rollcall(&["plan", "discard", &hash]);
    assert!(discarded.status.success());
    daemon.until("nothing to wait", |s| s["sources"][0]["plan"].is_null());
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    let again = waits(&daemon, PEOPLE);
    assert!(
        world
            .rollcall(&["plan", "discard", &again])
            .status
            .success()
    );
    daemon.stop();
    let daemon = world.streaming();
    waits(&daemon, PEOPLE);
    daemon.until_delivered();
    assert_eq!(
        happened(&world, known),
        BTreeMap::new(),
        "nobody was touched"
    );
    let said = applied(&world);
    assert!(
        said.starts_with(&format!("applied {PEOPLE} records")),
        "{said}"
    );
    daemon.until("nothing to wait", |s| s["sources"][0]["plan"].is_null());
    daemon.until_delivered();
    assert_eq!(happened(&world, known), foretold(&plan));
    world.assert_verified();
}

fn a_simulation_shows_what_a_change_of_mapping_would_do(kind: &SourceKind) {
    let world = world(kind);
    let daemon = world.streaming();
    daemon.settle();
    let known = world.events(0).in_order().count();
    let (file, _) = other_mapping(&world);
    let plan = planned(&world, &["--with", file.to_str().unwrap()]);
    assert_eq!(plan["counts"]["updated"]["mapping_changed"], PEOPLE + 1);
    let first = &plan["changes"][0];
    assert_eq!(first["records"][0], "1");
    let fields = first["fields"].as_array().unwrap();
    assert_eq!(fields.len(), 1, "{first}");
    assert_eq!(fields[0]["attribute"], "title");
    assert_eq!(fields[0]["before"], "Employee");
    assert!(
        fields[0]["after"].as_str().unwrap().starts_with("Dr "),
        "{first}"
    );
    assert!(
        fields[0]["rule"].as_str().unwrap().contains("last_name"),
        "{first}"
    );
    let output = apply(&world);
    assert_eq!(output.status.code(), Some(6));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        why.contains("change the daemon's configuration file to it, restart the daemon, and apply"),
        "{why}"
    );
    daemon.settle();
    assert_eq!(happened(&world, known).len(), 1, "the marker alone");
}
