//! What is approved is applied: all of it, whatever happens, while everything else goes on.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rollcall_testbed::wait_until;
use serde_json::Value;

use crate::company::{hire_all, hire_with};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_large_plan_is_applied_over_a_crash_while_other_sources_go_on,
    a_plan_of_rows_with_a_redacted_column_is_applied_as_it_was_approved,
);

/// Enough that a plan of them is applied in several commits.
const MANY: u64 = 24_000;

/// The plan of the first source, when it has so many records.
fn planned(daemon: &Daemon<'_>, records: u64) -> String {
    let status = daemon.until("so many changes to wait", |status| {
        status["sources"][0]["plan"]["records"] == records
    });
    let hash = &status["sources"][0]["plan"]["hash"];
    hash.as_str().unwrap().to_owned()
}

fn approve(world: &World, hash: &str) -> Output {
    world.rollcall(&["plan", "approve", hash])
}

/// Waits until somebody leaves and a guest is made after that, behind what the file of events has
/// had before.
fn until_a_guest_is_between(world: &World, before: u64) {
    wait_until(PATIENCE, "a guest to be made while people leave", || {
        let mut file = std::fs::File::open(world.file()).unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(before)).unwrap();
        file.read_to_string(&mut text).is_ok()
            && text
                .split_once("user.deactivated")
                .is_some_and(|(_, later)| later.contains("user.created"))
    })
    .unwrap();
}

/// Where events of a type, that hold a text, stand.
fn sequences(world: &World, kind: &str, text: &str) -> Vec<u64> {
    let events = world.events(1);
    let kind = format!("io.rollcall.{kind}.v1");
    let all = events.by_sequence.iter();
    let told = |event: &Value| event["type"] == kind && event.to_string().contains(text);
    all.filter(|(_, e)| told(e)).map(|(n, _)| *n).collect()
}

fn a_large_plan_is_applied_over_a_crash_while_other_sources_go_on(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let badges = format!(
        "[source.badges]\n{}\n{}\ntable = \"{}\"\nlimit = {{ action = \"off\" }}\n\
         [source.badges.map]\nemail = \"mail\"\ntitle = \"title\"\n",
        db.connection(),
        db.second_reader(),
        db.table("badges"),
    );
    let options = Options {
        limit: Some("{}".to_owned()),
        ..Options::default()
    };
    let world = World::on(db, &options.and(&badges));
    world.db.sql(&format!(
        "INSERT INTO people (id, first_name, last_name, email)
         SELECT n, 'A', 'B', concat('person.', n, '@example.com') FROM {}",
        world.db.numbers(1, MANY)
    ));
    let daemon = world.streaming();
    daemon.until_delivered();
    world.db.sql("DELETE FROM people");
    let hash = planned(&daemon, MANY);
    daemon.until_delivered();
    let before = std::fs::metadata(world.file()).unwrap().len();
    let is_over = AtomicBool::new(false);
    let mut approving = world.command(&["plan", "approve", &hash]);
    let mut approving = approving.stderr(Stdio::null()).spawn().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let guest = format!("'b{n}', 'guest.{n}@example.com', 'Guest', 'R 1'");
                world
                    .db
                    .sql(&format!("INSERT INTO badges VALUES ({guest})"));
            }
        });
        until_a_guest_is_between(&world, before);
        daemon.kill9();
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(!approving.wait().unwrap().success(), "it was not over");
    let left = world.json(&["plan", "list"]);
    assert_eq!(left[0]["approved"], true, "{left}");
    assert!(left[0]["records"].as_u64().unwrap() < MANY, "{left}");

    let daemon = world.streaming();
    daemon.until("nothing to wait", |s| s["sources"][0]["plan"].is_null());
    daemon.until_delivered();
    let guests = sequences(&world, "user.created", "guest.");
    let gone = sequences(&world, "user.deactivated", "");
    assert_eq!(gone.len() as u64, MANY, "each leaves once");
    let all = gone[0]..gone[gone.len() - 1];
    assert!(guests.iter().any(|n| all.contains(n)), "no guest waits");
    let runs = world.json(&["runs", "--kind", "plan"]);
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0]["counters"]["deactivated"], MANY);
}

fn a_plan_of_rows_with_a_redacted_column_is_applied_as_it_was_approved(kind: &SourceKind) {
    let options = Options {
        limit: Some("{}".to_owned()),
        ..Options::pages_of(7)
    };
    let world = World::new(kind, &options);
    let text = std::fs::read_to_string(world.config()).unwrap();
    let rule = "\nemail = \"email\"\nnickName = { expr = \"salary == 'S 1' ? 'low' : 'high'\" }\n";
    world.write_config(&text.replace("\nemail = \"email\"\n", rule));
    world.db.sql(&hire_all(60));
    world.db.sql("UPDATE people SET salary = 'S 1'");
    let daemon = world.streaming();
    daemon.settle();
    world
        .db
        .sql("UPDATE people SET email = concat('a', email) WHERE id <= 60");
    let hash = planned(&daemon, 60);
    let said = approve(&world, &hash);
    assert!(said.status.success(), "{said:?}");
    daemon.until("nothing to wait", |s| s["sources"][0]["plan"].is_null());
    daemon.until_delivered();
    let people = world.events(0).fold();
    for id in 1..=60 {
        let user = &people[&id.to_string()];
        assert_eq!(user["email"], format!("aperson.{id}@example.com"));
        assert_eq!(user["nickName"], "low");
    }

    // What is not as it was seen is named, and the rest is applied.
    world
        .db
        .sql("UPDATE people SET email = concat('b', email) WHERE id <= 60");
    let hash = planned(&daemon, 60);
    world.db.behind_the_log(30, 31);
    let said = approve(&world, &hash);
    assert_eq!(said.status.code(), Some(6), "{said:?}");
    let lines = String::from_utf8_lossy(&said.stdout).into_owned();
    let named: Vec<&str> = lines
        .lines()
        .filter_map(|l| l.split_once(": its row"))
        .map(|l| l.0.trim())
        .collect();
    assert_eq!(named, ["30", "31"], "{lines}");
    world.db.sql(&hire_with(700, &[("salary", "S 2")]));
    daemon.settle();
    let people = world.events(0).fold();
    let email = |id: u64| {
        people[&id.to_string()]["email"]
            .as_str()
            .unwrap_or_default()
    };
    assert!((1..=60).all(|id| email(id).starts_with('b') != [30, 31].contains(&id)));
    assert_eq!(people["700"]["nickName"], "high");

    // A scan that finds few such rows applies them without a word.
    let hash = planned(&daemon, 2);
    assert!(world.rollcall(&["plan", "discard", &hash]).status.success());
    daemon.stop();
    world
        .db
        .sql("UPDATE people SET email = 'few@example.com' WHERE id = 2");
    world.db.lose_log();
    let daemon = world.streaming();
    daemon.until("the scan to be applied", |_| {
        let people = world.events(0).fold();
        people["2"]["email"] == "few@example.com" && people["30"]["title"] == "Hidden"
    });
    daemon.until("nothing to wait", |s| s["sources"][0]["plan"].is_null());
    daemon.stop();
}
