//! Where the log cannot be read the table is polled, and the directory is the source all the
//! same.

use std::sync::Arc;
use std::time::Duration;

use rollcall_testbed::{Postgres, wait_for};
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::fold::{assert_same, expected};
use crate::sources::{Server, Setup, SourceKind, every_source, prepared};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_view_is_polled_and_ends_equal_to_its_source,
    a_key_that_several_rows_share_is_refused,
    a_change_column_narrows_a_poll_and_the_full_one_finds_what_it_missed,
    without_the_right_to_read_the_log_the_table_is_polled_until_it_is_given,
    a_server_that_writes_no_log_is_polled_until_it_does,
    a_poll_that_was_cut_deactivates_nobody,
    a_failed_row_is_never_a_leaver,
    while_a_row_has_no_key_nobody_is_absent,
    an_order_reads_every_row_at_once_whatever_the_interval,
    a_plan_is_applied_and_one_record_brought_in_step_where_the_table_is_polled,
    polls_that_a_crash_cuts_are_one_run,
    neither_a_wrong_password_nor_another_server_is_polled,
);

const PEOPLE: u64 = 120;

/// Leavers few enough to be believed, joiners, and changes.
const CHANGES: &str = "
UPDATE people SET job_title = 'Polled' WHERE id = 1;
DELETE FROM people WHERE id IN (2, 119);
UPDATE people SET id = 20000 WHERE id = 4;
UPDATE people SET kind = 'contractor' WHERE id = 5;
";

/// Polls quickly, in pages of some rows.
fn polled(mode: &str, more: &str) -> Options {
    Options {
        source: format!(
            "batch = {{ page_rows = 25 }}\n\
             poll = {{ mode = \"{mode}\", every = \"100ms\", overlap = \"0s\"{more} }}"
        ),
        ..Options::default()
    }
}

fn state(status: &Value) -> (&str, &str) {
    let source = &status["sources"][0];
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    (text("state"), text("reason"))
}

/// Waits until the table is polled; gives the reason.
fn until_polling(daemon: &Daemon<'_>) -> String {
    let status = daemon.until("the table to be polled", |s| state(s).0 == "polling");
    state(&status).1.to_owned()
}

fn until_refused(daemon: &Daemon<'_>) -> String {
    let status = daemon.until("the source to be refused", |s| state(s).0 == "refused");
    state(&status).1.to_owned()
}

/// Waits until the fold of the events is the table.
fn until_equal(world: &World, daemon: &Daemon<'_>) {
    wait_for(PATIENCE, "the directory to be the table", || {
        assert!(daemon.process.is_running(), "{}", daemon.process.log());
        let (have, want) = (world.events(9).fold(), expected(&world.db.people()));
        match have == want {
            true => Ok(()),
            false => Err(format!(
                "{} of {}\n{}",
                have.len(),
                want.len(),
                daemon.process.log()
            )),
        }
    })
    .unwrap();
    world.assert_verified();
}

/// Asks for every row to be read.
fn reconcile(world: &World) {
    let said = world.rollcall(&["reconcile", "hr"]);
    let why = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{why}");
}

/// A view of everybody, in place of the table.
fn follow_view(world: &World, view: &str) {
    world.db.sql(view);
    world.db.sql("GRANT SELECT ON staff TO rollcall");
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace(&world.db.table("people"), &world.db.table("staff")));
}

fn a_view_is_polled_and_ends_equal_to_its_source(kind: &SourceKind) {
    let mut options = polled("when_needed", "");
    options.source += "\nkey = [\"id\"]";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    follow_view(&world, "CREATE VIEW staff AS SELECT * FROM people");
    let checked = world.rollcall(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(
        said.contains("not_followable") && said.contains("polling:"),
        "{said}"
    );
    let found = world.rollcall(&["discover", "--table", "staff"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains("It can be polled"), "{found}");

    let daemon = world.start();
    let reason = until_polling(&daemon);
    assert!(
        reason.contains("view") && reason.contains("every 100ms"),
        "{reason}"
    );
    until_equal(&world, &daemon);
    let fourth = world.events(9).user_id(4);
    world.db.sql(CHANGES);
    world.db.sql(&hire(500));
    until_equal(&world, &daemon);
    assert_eq!(
        world.events(9).user_id(20_000),
        fourth,
        "a new key is the same person"
    );
    world
        .db
        .sql(&hire_with(2, &[("email", "person.2@example.com")]));
    until_equal(&world, &daemon);
    daemon.stop();

    // Polls that bring nothing say nothing.
    let before = world.json(&["status"])["outbox_head"].as_u64();
    let daemon = world.start();
    until_polling(&daemon);
    let runs = || {
        let runs = world.json(&["runs", "--limit", "10000"]);
        let polls = |r: &&Value| r["kind"] == "poll" && r["outcome"] == "completed";
        runs.as_array().unwrap().iter().filter(polls).count()
    };
    let first = runs();
    wait_for(PATIENCE, "some polls", || match runs() {
        n if n > first + 3 => Ok(()),
        n => Err(format!("{n}")),
    })
    .unwrap();
    daemon.stop();
    let after = world.json(&["status"])["outbox_head"].as_u64();
    // The states of a start and a stop are told.
    assert!(
        after.unwrap() - before.unwrap() < 10,
        "{before:?} {after:?}"
    );
}

fn a_key_that_several_rows_share_is_refused(kind: &SourceKind) {
    let mut options = polled("when_needed", "");
    options.source = options.source.replace("page_rows = 25", "page_rows = 2");
    options.source += "\nkey = [\"id\"]";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(10));
    follow_view(
        &world,
        "CREATE VIEW staff AS SELECT * FROM people UNION ALL SELECT * FROM people WHERE id = 6",
    );
    let daemon = world.start();
    let reason = until_refused(&daemon);
    assert!(
        reason.contains("several rows with the same key"),
        "{reason}"
    );
}

fn a_change_column_narrows_a_poll_and_the_full_one_finds_what_it_missed(kind: &SourceKind) {
    let more = ", change_column = \"changed\", full_every = \"1h\"";
    let world = World::new(kind, &polled("always", more));
    world
        .db
        .sql("ALTER TABLE people ADD COLUMN changed int NOT NULL DEFAULT 0");
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    assert_eq!(until_polling(&daemon), "The table is polled every 100ms.");
    until_equal(&world, &daemon);
    let title = |id: u64| {
        world
            .events(9)
            .fold()
            .get(&id.to_string())
            .map(|p| p["title"].clone())
    };
    let until_title = |id: u64, wanted: &str| {
        wait_for(PATIENCE, "the change to be polled", || match title(id) {
            Some(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}\n{}", daemon.process.log())),
        })
        .unwrap();
    };
    // Behind the second one, polls read nothing below the first.
    for round in 0..2 {
        let (title, changed) = (format!("Marked {round}"), round + 1);
        world.db.sql(&format!(
            "UPDATE people SET job_title = '{title}', changed = {changed} WHERE id = 1"
        ));
        until_title(1, &title);
    }
    // Two do not raise the column, and one goes; the next one raises it.
    world.db.sql(
        "UPDATE people SET job_title = 'Unmarked' WHERE id IN (2, 3);
         DELETE FROM people WHERE id = 4;",
    );
    for round in 3..6 {
        world.db.sql(&format!(
            "UPDATE people SET job_title = 'Marked {round}', changed = {round} WHERE id = 1"
        ));
        until_title(1, &format!("Marked {round}"));
    }
    world
        .db
        .sql(&hire_with(600, &[("changed", "6"), ("job_title", "New")]));
    until_title(600, "New");
    assert_eq!(title(2).unwrap(), "Employee", "nothing told of it");
    assert!(
        title(4).is_some(),
        "a poll of changed rows proves no absence"
    );
    let unmarked = |status: &Value| status["sources"][0]["live"]["poll_unmarked"].as_u64();
    assert_eq!(unmarked(&daemon.status()), Some(0));

    reconcile(&world);
    until_equal(&world, &daemon);
    let status = daemon.until("the warning", |s| unmarked(s) == Some(2));
    let warned = |s: &Value| s.to_string().contains("2 rows have changed since");
    assert!(warned(&status) || warned(&daemon.until("the warning", warned)));
    daemon.stop();
}

fn without_the_right_to_read_the_log_the_table_is_polled_until_it_is_given(kind: &SourceKind) {
    let world = World::new(kind, &polled("when_needed", ""));
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    world.db.may_read_log(false);
    let daemon = world.start();
    let reason = until_polling(&daemon);
    assert!(reason.starts_with("The log is not read: "), "{reason}");
    assert!(
        reason.contains("privilege") || reason.contains("does not have"),
        "{reason}"
    );
    if kind.keeps_log_for_readers {
        says_how_much_log_the_server_keeps(&world, &daemon);
    }
    world.db.sql(CHANGES);
    until_equal(&world, &daemon);
    daemon.kill9();
    world
        .db
        .sql("DELETE FROM people WHERE id = 7; UPDATE people SET job_title = 'Away' WHERE id = 8;");
    let daemon = world.start();
    until_polling(&daemon);
    until_equal(&world, &daemon);
    let activated = |world: &World| world.events(9).of_type("user.activated").len();
    let before = activated(&world);
    world.db.sql("DELETE FROM people WHERE id = 9");
    world.db.may_read_log(true);
    daemon.until_streaming();
    daemon.settle();
    world.assert_verified();
    let events = world.events(1);
    assert_same(&events.fold(), &expected(&world.db.people()));
    assert_eq!(events.gaps(), ["not_followed"]);
    // What the log held of that time was not applied once more.
    assert_eq!(activated(&world), before);
    daemon.stop();
}

fn says_how_much_log_the_server_keeps(world: &World, daemon: &Daemon<'_>) {
    const KEPT: &str = " bytes of log for this source, although its log is not read.";
    daemon.until("the kept log to be told of", |status| {
        let server = &status["sources"][0]["live"]["server"];
        let warnings = server["warnings"].as_array().unwrap();
        let told = warnings.iter().any(|w| w.as_str().unwrap().contains(KEPT));
        told && server["retained_bytes"].is_u64()
    });
    let said = world.rollcall(&["status"]).stdout;
    assert!(String::from_utf8_lossy(&said).contains(KEPT));
    let checked = world.rollcall(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("log_kept: ") && said.contains(KEPT), "{said}");
}

fn a_server_that_writes_no_log_is_polled_until_it_does(kind: &SourceKind) {
    let world = World::new(kind, &polled("when_needed", ""));
    world.db.write_log(false);
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    until_polling(&daemon);
    until_equal(&world, &daemon);
    world.db.sql(CHANGES);
    until_equal(&world, &daemon);
    world.db.write_log(true);
    world.db.sql("DELETE FROM people WHERE id = 10");
    daemon.until_streaming();
    daemon.settle();
    world.assert_equal();
    world.assert_verified();
    let kinds = world.json(&["runs"]);
    let kinds: Vec<&str> = kinds
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|r| r["kind"].as_str())
        .collect();
    assert!(
        kinds.contains(&"poll") && kinds.contains(&"load"),
        "{kinds:?}"
    );
}

fn a_poll_that_was_cut_deactivates_nobody(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let mut options = polled("always", "");
    options.source = options.source.replace("page_rows = 25", "page_rows = 5");
    let (options, proxy) = options.slowed(&*db);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(PEOPLE));
    let mut daemon = world.start();
    until_polling(&daemon);
    let mut crashes = 0;
    for round in 0..8 {
        world.db.sql(&format!(
            "UPDATE people SET job_title = 'Title {round}' WHERE id = 100"
        ));
        daemon.until("a poll to be under way", |s| {
            let rows = s["sources"][0]["live"]["scan_rows"].as_u64();
            (1..PEOPLE).contains(&rows.unwrap_or(0))
        });
        if round % 2 == 0 {
            proxy.cut();
        } else {
            daemon.kill9();
            crashes += 1;
            daemon = world.start();
        }
    }
    world.db.sql("DELETE FROM people WHERE id = 7");
    proxy.latency(Duration::ZERO);
    wait_for(PATIENCE, "the directory to be the table", || {
        match world.events(crashes).fold() == expected(&world.db.people()) {
            true => Ok(()),
            false => Err(daemon.process.log()),
        }
    })
    .unwrap();
    let events = world.events(crashes);
    assert_eq!(
        events.of_type("user.deactivated").len(),
        1,
        "nobody else left"
    );
}

fn a_failed_row_is_never_a_leaver(kind: &SourceKind) {
    let mut options = polled("always", "");
    options.source += "\nmatch = [\"employeeNumber\"]";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    until_equal(&world, &daemon);
    world
        .db
        .sql("UPDATE people SET level = 'none' WHERE id = 3; DELETE FROM people WHERE id = 6;");
    wait_for(PATIENCE, "the leaver to be found", || {
        match world.events(9).fold().contains_key("6") {
            false => Ok(()),
            true => Err(daemon.process.log()),
        }
    })
    .unwrap();
    let events = world.events(9);
    assert!(
        events.fold().contains_key("3"),
        "its row failed, and it is there"
    );
    assert_eq!(events.of_type("user.deactivated").len(), 1);
    world.db.sql("UPDATE people SET level = '7' WHERE id = 3");
    until_equal(&world, &daemon);
}

fn while_a_row_has_no_key_nobody_is_absent(kind: &SourceKind) {
    let mut options = polled("always", "");
    options.source += "\nkey = [\"id\"]";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    let mut columns: Vec<String> =
        vec!["CASE WHEN level = '13' THEN NULL ELSE id END AS id".into()];
    columns.extend(
        [
            "email",
            "first_name",
            "last_name",
            "job_title",
            "department",
            "kind",
            "roles",
            "note",
            "level",
            "salary",
        ]
        .map(str::to_owned),
    );
    follow_view(
        &world,
        &format!(
            "CREATE VIEW staff AS SELECT {} FROM people",
            columns.join(", ")
        ),
    );
    let daemon = world.start();
    until_equal(&world, &daemon);
    // One row in the midst of the pages loses its key, and somebody leaves.
    world
        .db
        .sql("UPDATE people SET level = '13' WHERE id = 60; DELETE FROM people WHERE id = 6;");
    let status = daemon.until("the warning", |s| {
        s.to_string()
            .contains("rows that have no value in a column of the key")
    });
    assert_eq!(state(&status).0, "polling");
    reconcile(&world);
    let run = world.json(&["runs", "--outcome", "unproved"])[0]["run"].to_string();
    let run = world.json(&["runs", "show", &run]);
    assert_eq!(run["counters"]["reasons"]["no_key"], 1, "{run}");
    assert!(run["detail"].to_string().contains("no_key"), "{run}");
    // What the rows themselves say goes on.
    world.db.sql(&hire(500));
    wait_for(PATIENCE, "the joiner", || {
        match world.events(9).fold().contains_key("500") {
            true => Ok(()),
            false => Err(daemon.process.log()),
        }
    })
    .unwrap();
    assert!(world.events(9).of_type("user.deactivated").is_empty());
    // With its key the row is that person again, and the one who left is absent.
    world.db.sql("UPDATE people SET level = '7' WHERE id = 60");
    until_equal(&world, &daemon);
    assert_eq!(world.events(9).of_type("user.deactivated").len(), 1);
    daemon.until("the warning to go", |s| {
        !s.to_string().contains("rows that have no value")
    });
}

fn an_order_reads_every_row_at_once_whatever_the_interval(kind: &SourceKind) {
    let mut options = polled("always", ", change_column = \"changed\"");
    options.source = options.source.replace("100ms", "1h");
    let world = World::new(kind, &options);
    world
        .db
        .sql("ALTER TABLE people ADD COLUMN changed int NOT NULL DEFAULT 0");
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    until_polling(&daemon);
    until_equal(&world, &daemon);
    // Nothing of it raises the change column.
    world.db.sql(CHANGES);
    let said = world.rollcall(&["sync", "hr"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.starts_with("poll run ") && said.contains(" completed: "),
        "{said}"
    );
    daemon.until_delivered();
    assert_same(&world.events(9).fold(), &expected(&world.db.people()));
    let runs = world.json(&["runs", "--kind", "poll"]);
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    assert_eq!(runs[0]["cause"], "manual");
    let bodies = (0..3).map(|_| world.json(&["sync", "hr", "--detach"]));
    assert_eq!(bodies.count(), 3);
    daemon.until("each order to be obeyed", |_| {
        let runs = world.json(&["runs", "--kind", "poll"]);
        let runs = runs.as_array().unwrap();
        runs.len() > 1 && runs.iter().all(|r| r["outcome"] == "completed")
    });
}

fn a_plan_is_applied_and_one_record_brought_in_step_where_the_table_is_polled(kind: &SourceKind) {
    let mut options = polled("always", "");
    options.source = options.source.replace("100ms", "1h");
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    until_polling(&daemon);
    until_equal(&world, &daemon);
    world.db.sql(CHANGES);
    let run = |args: &[&str]| {
        let output = world.rollcall(args);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    // Only what it names, and whoever is away by its key.
    let (code, said) = run(&["sync", "hr", "--key", "1", "--key", "2"]);
    let wanted = " completed: 2 processed, 0 created, 1 updated, 1 deactivated";
    assert!(code == Some(0) && said.contains(wanted), "{said}");
    daemon.until_delivered();
    let people = world.events(9).fold();
    assert_eq!(people["1"]["title"], "Polled");
    assert!(!people.contains_key("2") && people.contains_key("119"));
    let file = world.config().with_file_name("plan.json");
    let path = file.to_str().unwrap();
    assert_eq!(run(&["plan", "hr", "--out", path]).0, Some(0));
    // One that changes behind the plan is named, and nothing is applied.
    world
        .db
        .sql("UPDATE people SET kind = 'employee' WHERE id = 5");
    let (code, said) = run(&["apply", path]);
    assert!(
        code == Some(6) && said.contains("  5: the record"),
        "{said}"
    );
    assert!(world.events(9).fold().contains_key("119"));
    world
        .db
        .sql("UPDATE people SET kind = 'contractor' WHERE id = 5");
    let (code, said) = run(&["apply", path]);
    assert!(
        code == Some(0) && said.starts_with("applied 4 records"),
        "{said}"
    );
    daemon.until_delivered();
    assert_same(&world.events(9).fold(), &expected(&world.db.people()));
    world.assert_verified();
    assert_eq!(state(&daemon.status()).0, "polling");
    let polls = world.json(&["runs", "--kind", "poll"]);
    assert_eq!(
        polls.as_array().unwrap().len(),
        0,
        "nothing was polled: {polls}"
    );
    daemon.stop();
}

fn polls_that_a_crash_cuts_are_one_run(kind: &SourceKind) {
    let more = ", change_column = \"changed\", full_every = \"1h\"";
    let world = World::new(kind, &polled("always", more));
    world
        .db
        .sql("ALTER TABLE people ADD COLUMN changed int NOT NULL DEFAULT 0");
    world.db.sql(&hire_all(20));
    let mut next = 1;
    // Hires until the polls' own run has counted so many more.
    let mut hire_until = |daemon: &Daemon<'_>, wanted: u64| loop {
        let (id, changed) = (1_000 + next, next.to_string());
        next += 1;
        assert!(next < 60, "{}", world.json(&["runs"]));
        world.db.sql(&hire_with(id, &[("changed", &changed)]));
        daemon.until("the hire", |_| {
            world
                .rollcall(&["users", "show", &format!("hr:{id}")])
                .status
                .success()
        });
        let runs = world.json(&["runs", "--outcome", "running", "--kind", "poll"]);
        let runs = runs.as_array().unwrap();
        let created = |r: &Value| r["counters"]["created"].as_u64().unwrap();
        if let Some(run) = runs.iter().find(|r| created(r) >= wanted) {
            break run["run"].as_u64().unwrap();
        }
    };
    let daemon = world.start();
    let first = hire_until(&daemon, 2);
    daemon.kill9();
    let daemon = world.start();
    assert_eq!(hire_until(&daemon, 4), first);
    daemon.stop();
    let run = world.json(&["runs", "show", &first.to_string()]);
    assert_eq!(run["outcome"], "completed", "a stop ends it: {run}");
    assert_same(&world.events(9).fold(), &expected(&world.db.people()));
    let runs = world.json(&["runs", "--outcome", "interrupted"]);
    assert_eq!(runs, Value::Array(Vec::new()));
}

fn neither_a_wrong_password_nor_another_server_is_polled(kind: &SourceKind) {
    let setup = Setup {
        password: Some("right"),
        ..Setup::default()
    };
    let db = (kind.start)(&setup);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "right").unwrap();
    let password = format!("password = {{ file = \"{}\" }}", file.path().display());
    let options = |db: &dyn Server| Options {
        connection: Some(format!("{}\n{password}", db.connection())),
        ..polled("when_needed", "")
    };
    let world = World::on(Arc::clone(&db), &options(&*db));
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    db.may_read_log(false);
    std::fs::write(file.path(), "wrong").unwrap();
    let daemon = world.start();
    let reason = until_refused(&daemon);
    assert!(reason.contains("password"), "{reason}");
    daemon.stop();

    // An empty server without a log that can be read, at another address.
    let other = (kind.start)(&setup);
    other.may_read_log(false);
    std::fs::write(file.path(), "right").unwrap();
    world.configure(&*other, &options(&*other));
    let daemon = world.start();
    let reason = until_refused(&daemon);
    assert!(reason.contains("what is known was read from"), "{reason}");
    assert_eq!(world.events(9).of_type("user.deactivated").len(), 0);
    daemon.stop();
    world.configure(&*db, &options(&*db));
    let daemon = world.start();
    until_polling(&daemon);
    until_equal(&world, &daemon);
}

#[test]
fn a_server_without_a_free_slot_and_a_materialized_view_are_polled() {
    let db = Arc::new(prepared(
        Postgres::builder().setting("max_replication_slots", "1"),
    ));
    db.sql("SELECT pg_create_physical_replication_slot('taken')");
    let world = World::on(Arc::clone(&db) as _, &polled("when_needed", ""));
    db.sql(&hire_all(PEOPLE));
    let daemon = world.start();
    let reason = until_polling(&daemon);
    assert!(reason.contains("slots"), "{reason}");
    until_equal(&world, &daemon);
    db.sql("SELECT pg_drop_replication_slot('taken')");
    daemon.until_streaming();
    daemon.settle();
    world.assert_verified();
    daemon.stop();

    let mut options = polled("always", "");
    options.source += "\nkey = [\"id\"]";
    let world = World::on(Arc::clone(&db) as _, &options);
    follow_view(
        &world,
        "CREATE MATERIALIZED VIEW staff AS SELECT * FROM people",
    );
    let daemon = world.start();
    until_equal(&world, &daemon);
    db.sql(CHANGES);
    db.sql("REFRESH MATERIALIZED VIEW staff");
    until_equal(&world, &daemon);
}
