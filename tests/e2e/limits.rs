//! Never sudden: what takes something away from too many people waits until somebody has
//! looked, and nothing else does.

use rollcall_testbed::wait_until;
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_delete_without_where_stages_and_only_the_plan_that_was_seen_is_applied,
    a_staged_leaver_that_returns_leaves_the_plan_by_itself,
    thresholds_count_over_restarts_and_over_many_small_transactions,
    a_restored_older_source_deactivates_nobody_before_someone_approves,
    a_scan_that_finds_too_many_leavers_makes_a_plan_of_them,
    a_truncated_table_deactivates_nobody_by_itself,
    who_takes_over_the_key_of_one_whose_end_waits_stays_who_it_is,
    a_change_of_mapping_never_touches_many_people_unseen,
    while_a_plan_waits_other_sources_do_not_notice,
    beside_a_busy_source_a_delete_without_where_takes_nobody,
);

const PEOPLE: u64 = 60;

fn limited(limit: &str) -> Options {
    Options {
        limit: Some(limit.to_owned()),
        ..Options::pages_of(7)
    }
}

fn world(kind: &SourceKind, limit: &str) -> World {
    let world = World::new(kind, &limited(limit));
    world.db.sql(&hire_all(PEOPLE));
    world
}

/// The plan of the first source, when it has so many records.
fn planned(daemon: &Daemon<'_>, records: u64) -> String {
    let status = daemon.until("so many changes to wait", |status| {
        status["sources"][0]["plan"]["records"] == records
    });
    let hash = &status["sources"][0]["plan"]["hash"];
    hash.as_str().unwrap().to_owned()
}

fn until_nothing_waits(daemon: &Daemon<'_>) {
    daemon.until("nothing to wait", |status| {
        status["sources"][0]["plan"].is_null()
    });
}

fn count(world: &World, kind: &str) -> usize {
    world.events(0).of_type(kind).len()
}

/// Says a word on a plan that does not fit; gives why it was refused.
fn refused(world: &World, word: &str, hash: &str) -> String {
    let output = world.rollcall(&["plan", word, hash]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

fn approve(world: &World, hash: &str) {
    let output = world.rollcall(&["plan", "approve", hash]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn a_delete_without_where_stages_and_only_the_plan_that_was_seen_is_applied(kind: &SourceKind) {
    let told = tempfile::NamedTempFile::new().unwrap();
    let notify = format!(
        "[notify]\ncommand = [\"sh\", \"-c\", \"cat >> {}\"]\n",
        told.path().display()
    );
    let world = World::new(kind, &limited("{}").and(&notify));
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.streaming();
    daemon.until_delivered();
    world.db.sql("DELETE FROM people");
    let all = planned(&daemon, PEOPLE);
    wait_until(PATIENCE, "the operator to be told", || {
        let event = std::fs::read_to_string(told.path()).unwrap();
        event.contains("io.rollcall.run.staged.v1") && event.contains("\"changes\":60")
    })
    .unwrap();
    // Joiners and ordinary updates go on.
    world.db.sql(&hire_with(700, &[("job_title", "New")]));
    world
        .db
        .sql("UPDATE people SET job_title = 'Newer' WHERE id = 700");
    daemon.settle();
    let people = world.events(0).fold();
    assert_eq!(people["700"]["title"], "Newer");
    assert_eq!(people.len() as u64, PEOPLE + 2, "nobody left");
    let shown = world.json(&["plan", "show", "hr"]);
    assert_eq!(shown["plan"]["kinds"]["deleted"], PEOPLE);
    assert_eq!(shown["planned"].as_array().unwrap().len() as u64, PEOPLE);
    assert!(!shown.to_string().contains("example.com"), "no values");

    let half: String = (1..=PEOPLE / 2).map(hire).collect();
    world.db.sql(&half);
    let rest = planned(&daemon, PEOPLE / 2);
    assert_ne!(all, rest);
    let said = refused(&world, "approve", &all);
    assert!(
        said.contains("0 records came, 30 went, 0 changed") && said.contains(&rest),
        "{said}"
    );
    assert!(refused(&world, "discard", &all).contains("30 went"));
    assert!(refused(&world, "approve", &all.replace(|_: char| true, "0")).contains("no open plan"));
    assert_eq!(count(&world, "user.deactivated"), 0);

    approve(&world, &rest);
    until_nothing_waits(&daemon);
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.of_type("user.deactivated").len() as u64, PEOPLE / 2);
    assert_eq!(events.of_type("run.staged").len(), 1, "told once");
    world.assert_verified();
}

fn a_staged_leaver_that_returns_leaves_the_plan_by_itself(kind: &SourceKind) {
    let world = world(kind, "{}");
    let daemon = world.streaming();
    daemon.until_delivered();
    world.db.sql("DELETE FROM people WHERE id <= 20");
    let hash = planned(&daemon, 20);
    daemon.stop();
    let daemon = world.streaming();
    assert_eq!(planned(&daemon, 20), hash, "as before the restart");
    let back: String = (1..=20).map(hire).collect();
    world.db.sql(&back);
    until_nothing_waits(&daemon);
    daemon.settle();
    let events = world.assert_equal();
    assert!(events.of_type("user.deactivated").is_empty());
    assert!(events.of_type("user.activated").is_empty());
    world.assert_verified();
    // The next change counts for itself again.
    world.db.sql("DELETE FROM people WHERE id = 1");
    daemon.settle();
    assert_eq!(count(&world, "user.deactivated"), 1);
}

fn thresholds_count_over_restarts_and_over_many_small_transactions(kind: &SourceKind) {
    let world = world(kind, "{ max_changes = 10, max_percent = 100, floor = 2 }");
    let delete = |id: u64| {
        world.db.sql(&format!("DELETE FROM people WHERE id = {id}"));
    };
    let daemon = world.streaming();
    daemon.until_delivered();
    (1..=8).for_each(delete);
    daemon.settle();
    assert_eq!(count(&world, "user.deactivated"), 8);
    daemon.kill9();
    let daemon = world.streaming();
    delete(9);
    world
        .db
        .sql("UPDATE people SET email = 'another@example.com' WHERE id = 10");
    daemon.settle();
    daemon.stop();
    let daemon = world.streaming();
    for id in 11..=14 {
        delete(id);
        daemon.settle();
    }
    planned(&daemon, 4);
    assert_eq!(count(&world, "user.deactivated"), 9);
    assert_eq!(count(&world, "user.identifier_changed"), 1);
    assert_eq!(count(&world, "run.staged"), 1);
}

fn a_restored_older_source_deactivates_nobody_before_someone_approves(kind: &SourceKind) {
    let world = world(kind, "{}");
    let daemon = world.streaming();
    daemon.until_delivered();
    daemon.stop();
    let backup = world.db.back_up();
    let daemon = world.streaming();
    // Few, and still they are not believed to have left.
    let joiners: String = (101..=103).map(hire).collect();
    world.db.sql(&joiners);
    // Enough that the restored server's log ends well before what we have seen.
    let fill = "UPDATE people SET department = repeat('x', 3000) WHERE id > 30;";
    world.db.sql(&fill.repeat(30));
    daemon.settle();
    daemon.stop();
    world.db.kill9();
    world.db.restore(&backup);
    let daemon = world.streaming();
    let hash = planned(&daemon, 4);
    assert_eq!(count(&world, "user.deactivated"), 0);
    approve(&world, &hash);
    until_nothing_waits(&daemon);
    daemon.settle();
    let events = world.assert_equal();
    assert_eq!(events.of_type("user.deactivated").len(), 4);
    world.assert_verified();
}

fn a_scan_that_finds_too_many_leavers_makes_a_plan_of_them(kind: &SourceKind) {
    let world = world(kind, "{}");
    let daemon = world.streaming();
    daemon.until_delivered();
    daemon.stop();
    world.db.sql(
        "DELETE FROM people WHERE id BETWEEN 10 AND 29;
         UPDATE people SET email = 'new.40@example.com' WHERE id = 40;
         UPDATE people SET kind = 'contractor' WHERE id = 41;
         UPDATE people SET job_title = 'Stays' WHERE id = 1;",
    );
    world.db.lose_log();
    let daemon = world.streaming();
    let hash = planned(&daemon, 22);
    daemon.settle();
    let people = world.events(0).fold();
    assert_eq!(people["1"]["title"], "Stays", "everything else is applied");
    assert!(people.contains_key("10") && people.contains_key("29"));
    assert_eq!(people["40"]["email"], "person.40@example.com");
    let staged = || {
        let runs = world.json(&["runs"]);
        let runs = runs.as_array().unwrap();
        runs.iter().filter(|r| r["outcome"] == "staged").count()
    };
    assert_eq!(staged(), 1);
    let again = world.rollcall(&["reconcile", "hr"]);
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(
        said.contains("plan"),
        "a plan waits on, and it says so: {said}"
    );
    assert_eq!(staged(), 2);
    assert_eq!(planned(&daemon, 22), hash);

    let discarded = world.rollcall(&["plan", "discard", &hash]);
    assert!(discarded.status.success(), "{discarded:?}");
    until_nothing_waits(&daemon);
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    wait_until(PATIENCE, "the differences to be found again", || {
        let status = daemon.status();
        status["sources"][0]["plan"]["records"] == 22
    })
    .unwrap();
    assert_eq!(count(&world, "user.deactivated"), 0);
}

fn a_truncated_table_deactivates_nobody_by_itself(kind: &SourceKind) {
    let world = World::new(kind, &limited("{}"));
    let three: String = (1..=3).map(hire).collect();
    world.db.sql(&three);
    let daemon = world.streaming();
    daemon.until_delivered();
    world.db.sql("TRUNCATE TABLE people");
    world.db.sql(&hire(1));
    let hash = planned(&daemon, 2);
    daemon.settle();
    let events = world.events(0);
    assert!(
        events.gaps().iter().any(|r| r == "truncated"),
        "{:?}",
        events.gaps()
    );
    assert!(events.of_type("user.deactivated").is_empty(), "so few too");
    // Nor by the next scan, when somebody has said no, whoever has started the daemon since.
    let discarded = world.rollcall(&["plan", "discard", &hash]);
    assert!(discarded.status.success(), "{discarded:?}");
    until_nothing_waits(&daemon);
    daemon.stop();
    let daemon = world.streaming();
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    let hash = planned(&daemon, 2);
    assert_eq!(count(&world, "user.deactivated"), 0);
    // Who comes back is simply there again.
    world.db.sql(&hire(2));
    let rest = planned(&daemon, 1);
    assert!(refused(&world, "approve", &hash).contains("1 went"));
    approve(&world, &rest);
    daemon.settle();
    world.assert_equal();
    world.assert_verified();
}

fn who_takes_over_the_key_of_one_whose_end_waits_stays_who_it_is(kind: &SourceKind) {
    let world = world(kind, "{}");
    let daemon = world.streaming();
    daemon.until_delivered();
    let heir = |world: &World| {
        let found = world.json(&["users", "show", "person.30@example.com"]);
        let fields = found["fields"].as_array().unwrap();
        let title = fields.iter().find(|f| f["attribute"] == "title");
        (found["id"].clone(), title.map(|f| f["value"].clone()))
    };
    let before = heir(&world).0;
    world.db.sql("DELETE FROM people WHERE id <= 20");
    planned(&daemon, 20);
    world
        .db
        .sql("UPDATE people SET id = 1, job_title = 'Heir' WHERE id = 30");
    daemon.settle();
    assert_eq!(heir(&world), (before.clone(), Some("Heir".into())));
    world
        .db
        .sql("UPDATE people SET job_title = 'Heiress' WHERE id = 1");
    daemon.settle();
    assert_eq!(heir(&world), (before.clone(), Some("Heiress".into())));
    let hash = planned(&daemon, 20);
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    assert_eq!(planned(&daemon, 20), hash, "and nothing else is missing");
    world.assert_verified();

    // What was discarded is found again, also where the key is another's now.
    let discarded = world.rollcall(&["plan", "discard", &hash]);
    assert!(discarded.status.success(), "{discarded:?}");
    until_nothing_waits(&daemon);
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    let hash = planned(&daemon, 20);
    approve(&world, &hash);
    until_nothing_waits(&daemon);
    daemon.settle();
    assert_eq!(heir(&world).0, before);
    let events = world.assert_equal();
    assert_eq!(events.of_type("user.deactivated").len(), 20);
    world.assert_verified();
}

fn a_change_of_mapping_never_touches_many_people_unseen(kind: &SourceKind) {
    let world = world(kind, "{}");
    let daemon = world.streaming();
    daemon.until_delivered();
    daemon.stop();
    let before = world.events(0).fold();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let rule = "\nemail = { expr = \"'x' + email\" }\n";
    world.write_config(&text.replace("\nemail = \"email\"\n", rule));
    let daemon = world.streaming();
    let hash = planned(&daemon, PEOPLE);
    assert_eq!(world.events(0).fold(), before);
    approve(&world, &hash);
    until_nothing_waits(&daemon);
    daemon.until_delivered();
    let after = world.events(0).fold();
    assert_eq!(after["7"]["email"], "xperson.7@example.com");
    assert_eq!(count(&world, "user.identifier_changed") as u64, PEOPLE);
}

fn while_a_plan_waits_other_sources_do_not_notice(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let badges = format!(
        "[source.badges]\n{}\ntable = \"{}\"\n\
         [source.badges.map]\nemail = \"mail\"\ntitle = \"title\"\n",
        db.connection(),
        db.table("badges"),
    );
    let world = World::on(db, &limited("{}").and(&badges));
    world.db.sql(&hire_all(20));
    world
        .db
        .sql("INSERT INTO badges VALUES ('b1', 'guest@example.com', 'Guest', 'R 1')");
    let daemon = world.streaming();
    daemon.until_delivered();
    world.db.sql("DELETE FROM people");
    planned(&daemon, 20);
    world.db.sql("DELETE FROM badges");
    let guest: Value = daemon.until("the guest to leave", |_| {
        world.json(&["users", "show", "guest@example.com"])["state"] == "deactivated"
    });
    assert_eq!(guest["sources"][0]["plan"]["records"], 20);
    assert!(guest["sources"][1]["plan"].is_null());
}

fn beside_a_busy_source_a_delete_without_where_takes_nobody(kind: &SourceKind) {
    const PEOPLE: u64 = 1_200;
    let db = (kind.start)(&Setup::default());
    let badges = format!(
        "[source.badges]\n{}\n{}\ntable = \"{}\"\n\
         [source.badges.map]\nemail = \"mail\"\ntitle = \"title\"\n",
        db.connection(),
        db.second_reader(),
        db.table("badges"),
    );
    let world = World::on(db, &limited("{}").and(&badges));
    world.db.sql(&format!(
        "INSERT INTO people (id, first_name, last_name, email)
         SELECT n, 'A', 'B', concat('person.', n, '@example.com') FROM {}",
        world.db.numbers(1, PEOPLE)
    ));
    let daemon = world.streaming();
    daemon.until_delivered();
    // Batches are small from a few changes of both on.
    for n in 0..10 {
        world.db.sql(&format!(
            "INSERT INTO badges VALUES ('b{n}', 'guest.{n}@example.com', 'Guest', 'R 1')"
        ));
        world.db.sql(&hire(PEOPLE + 1 + n));
    }
    daemon.until_delivered();
    world.db.sql("DELETE FROM people");
    planned(&daemon, PEOPLE + 10);
    daemon.until_delivered();
    assert_eq!(count(&world, "user.deactivated"), 0);
}
