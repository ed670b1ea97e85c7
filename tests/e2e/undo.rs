//! Taken back: what a run did to users goes back field by field, stays so until the source says
//! something new, and can be taken back itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use rollcall_testbed::wait_until;
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    undo_restores_exactly_and_undo_of_undo_is_the_run,
    a_manager_goes_back_until_the_source_names_another,
    what_changed_since_is_left_out_and_a_plan_that_no_longer_fits_is_refused,
    a_span_takes_back_what_all_its_runs_did,
    an_undo_is_whole_or_not_at_all_when_the_daemon_is_killed,
    what_is_no_longer_kept_is_not_undone_by_halves,
);

const PEOPLE: u64 = 12;

fn loaded(kind: &SourceKind) -> World {
    let world = World::new(kind, &Options::default());
    load(&world);
    world
}

fn load(world: &World) {
    world.db.sql(&hire_all(PEOPLE));
    world
        .db
        .sql("UPDATE people SET roles = 'dev,ops' WHERE id = 4");
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
}

/// A person: state, reason, and what it shows.
fn person(world: &World, id: u64) -> BTreeMap<String, Value> {
    let user = world.json(&["users", "show", &format!("hr:{id}")]);
    let mut all = BTreeMap::new();
    all.insert("state".to_owned(), user["state"].clone());
    for field in user["fields"].as_array().unwrap() {
        let value = &field["value"];
        if field["attribute"] != "active" && value != "" {
            all.insert(
                field["attribute"].as_str().unwrap().to_owned(),
                value.clone(),
            );
        }
    }
    all
}

fn people(world: &World) -> Vec<BTreeMap<String, Value>> {
    (1..=PEOPLE).map(|id| person(world, id)).collect()
}

/// The newest run of a kind.
fn newest(world: &World, kind: &str) -> u64 {
    let runs = world.json(&["runs", "--kind", kind, "--limit", "1"]);
    runs[0]["run"].as_u64().unwrap()
}

fn file(world: &World) -> PathBuf {
    world.config().with_file_name("undo.json")
}

/// Makes a plan file of an undo, and gives what is in it.
fn planned(world: &World, what: &[&str]) -> Value {
    let file = file(world);
    let path = file.to_str().unwrap();
    let output = world.rollcall(&[&["undo"], what, &["--out", path]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
    assert!(said.contains("holds personal data"), "{said}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

fn apply(world: &World) -> Output {
    world.rollcall(&["apply", file(world).to_str().unwrap()])
}

fn applied(world: &World) -> String {
    let output = apply(world);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
    said
}

fn undone(world: &World, run: u64) -> Value {
    let plan = planned(world, &[&run.to_string()]);
    applied(world);
    plan
}

fn reconciled(world: &World, daemon: &Daemon<'_>) {
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    daemon.until_delivered();
}

fn undo_restores_exactly_and_undo_of_undo_is_the_run(kind: &SourceKind) {
    let world = loaded(kind);
    let before = people(&world);
    world.db.sql(&format!(
        "UPDATE people SET job_title = 'Wrong' WHERE id = 1;
         UPDATE people SET email = 'wrong@example.com' WHERE id = 2;
         DELETE FROM people WHERE id = 3;
         UPDATE people SET roles = 'dev,root' WHERE id = 4;
         UPDATE people SET department = 'Ops', level = 7, note = 'wrong' WHERE id = 5;
         UPDATE people SET kind = 'contractor' WHERE id = 6;
         UPDATE people SET note = NULL WHERE id = 10;
         {}",
        hire(20)
    ));
    let daemon = world.streaming();
    daemon.settle();
    let (run, after) = (newest(&world, "stream"), people(&world));
    assert_ne!(before, after);
    let plan = planned(&world, &[&run.to_string()]);
    assert_eq!(people(&world), after, "a plan changes nothing");
    assert_eq!(
        plan["counts"]["activated"]["undone"], 2,
        "{}",
        plan["counts"]
    );
    assert_eq!(plan["counts"]["deactivated"]["undone"], 2);
    assert_eq!(plan["left_out"], serde_json::json!([]));
    let counted = serde_json::json!({ "identifier": 1, "roles": 1, "undone": 2 });
    assert_eq!(
        plan["limits"]["hr"]["counted"], counted,
        "{}",
        plan["limits"]
    );
    let shown = world.rollcall(&["undo", &run.to_string()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("Wrong") && shown.contains("undo of run"),
        "{shown}"
    );
    let csv = world.rollcall(&["undo", &run.to_string(), "--format", "csv"]);
    assert!(String::from_utf8_lossy(&csv.stdout).contains(",identifier_changed,undone,"));

    applied(&world);
    assert_eq!(people(&world), before);
    assert_eq!(person(&world, 20)["state"], "deactivated");
    let undo = newest(&world, "undo");
    let detail = world.json(&["runs", "show", &undo.to_string()]);
    assert_eq!(
        (&detail["outcome"], &detail["cause"], &detail["detail"]),
        (
            &"completed".into(),
            &"manual".into(),
            &format!("undo of run {run}").into()
        )
    );
    assert_eq!(detail["counters"]["activated"], 2);
    let said = world.rollcall(&["users", "show", "hr:1"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(&format!("(undo of run {run})")), "{said}");
    // The same rows, read again, are nothing new; nor is a restart.
    reconciled(&world, &daemon);
    daemon.stop();
    let daemon = world.streaming();
    assert_eq!(people(&world), before);
    assert_eq!(person(&world, 20)["state"], "deactivated");
    world.assert_verified();
    let again = planned(&world, &[&run.to_string()]);
    assert_eq!(again["counts"], serde_json::json!({}));
    assert!(again["left_counts"]["nothing_to_do"].as_u64().unwrap() >= 8);
    assert!(applied(&world).starts_with("applied 0 users"));

    undone(&world, undo);
    assert_eq!(people(&world), after);
    assert_eq!(person(&world, 20)["state"], "active");
    reconciled(&world, &daemon);
    assert_eq!(people(&world), after);
    world.assert_equal();
    // And the source goes on as if nothing had been.
    world.db.sql(&format!(
        "UPDATE people SET job_title = 'Right', roles = 'dev' WHERE id IN (1, 4);
         UPDATE people SET kind = 'employee' WHERE id = 6;
         {}",
        hire(3)
    ));
    daemon.settle();
    world.assert_equal();
    world.assert_verified();
}

fn a_manager_goes_back_until_the_source_names_another(kind: &SourceKind) {
    let manager = "[source.hr.map.manager]\ncolumn = \"manager_id\"\n";
    let world = World::new(kind, &Options::default().and(manager));
    world
        .db
        .sql("ALTER TABLE people ADD COLUMN manager_id bigint");
    load(&world);
    let daemon = world.streaming();
    world
        .db
        .sql("UPDATE people SET manager_id = 8 WHERE id IN (7, 9)");
    daemon.settle();
    daemon.stop();
    let before = people(&world);
    let daemon = world.streaming();
    let manager_of = |id| person(&world, id).get("manager").cloned();
    let id_of = |id: u64| Some(world.json(&["users", "show", &format!("hr:{id}")])["id"].clone());
    assert_eq!(manager_of(7), id_of(8));
    world.db.sql(
        "UPDATE people SET manager_id = 10 WHERE id = 7;
         UPDATE people SET manager_id = NULL WHERE id = 9;
         UPDATE people SET manager_id = 7 WHERE id = 11",
    );
    daemon.settle();
    let (run, after) = (newest(&world, "stream"), people(&world));
    let plan = undone(&world, run);
    assert_eq!(plan["left_out"], serde_json::json!([]));
    assert_eq!(people(&world), before);
    reconciled(&world, &daemon);
    daemon.kill9();
    let daemon = world.streaming();
    assert_eq!(people(&world), before, "the same rows are nothing new");
    let undo = newest(&world, "undo");
    undone(&world, undo);
    assert_eq!(people(&world), after);
    undone(&world, newest(&world, "undo"));
    assert_eq!(people(&world), before);
    world
        .db
        .sql("UPDATE people SET manager_id = 12 WHERE id IN (7, 9)");
    daemon.settle();
    assert_eq!((manager_of(7), manager_of(9)), (id_of(12), id_of(12)));
    assert_eq!(manager_of(11), None, "as before the run");
    daemon.until_delivered();
    world.assert_verified();
}

fn what_changed_since_is_left_out_and_a_plan_that_no_longer_fits_is_refused(kind: &SourceKind) {
    let world = loaded(kind);
    world
        .db
        .sql("UPDATE people SET job_title = 'Wrong', department = 'Wrong' WHERE id <= 4");
    let daemon = world.streaming();
    daemon.settle();
    let run = newest(&world, "stream").to_string();
    daemon.stop();
    world
        .db
        .sql("UPDATE people SET job_title = 'Right' WHERE id = 1");
    let daemon = world.streaming();
    daemon.settle();
    let later = newest(&world, "stream");
    let set = |args: &[&str]| assert!(world.rollcall(args).status.success(), "{args:?}");
    set(&["users", "set", "hr:2", "title=Chief"]);
    set(&["users", "set", "hr:3", "title=Wrong", "--pin"]);
    let plan = planned(&world, &[&run]);
    let left = plan["left_out"].as_array().unwrap().iter();
    let left: Vec<(&str, &str)> = left
        .map(|l| {
            let field = &l["fields"][0];
            assert_eq!(field["attribute"], "title", "{l}");
            (
                l["reason"].as_str().unwrap(),
                field["rule"].as_str().unwrap(),
            )
        })
        .collect();
    let by_run = format!("changed since by run {later}");
    let expected = [
        ("changed_since", &*by_run),
        ("changed_since", "changed since by a person"),
        ("pinned", "pinned by a person"),
    ];
    for line in expected {
        assert!(left.contains(&line), "{line:?} in {left:?}");
    }
    assert_eq!(left.len(), expected.len());

    world
        .db
        .sql("UPDATE people SET note = 'meanwhile' WHERE id = 4");
    daemon.settle();
    let refused = apply(&world);
    assert_eq!(refused.status.code(), Some(6));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(said.matches("the user changed").count(), 1, "{said}");
    assert_eq!(
        person(&world, 1)["department"],
        "Wrong",
        "nothing was applied"
    );
    undone(&world, run.parse().unwrap());
    for (id, title) in [(1, "Right"), (2, "Chief"), (3, "Wrong"), (4, "Employee")] {
        let person = person(&world, id);
        assert_eq!(person["title"], title);
        assert!(!person.contains_key("department"), "{person:?}");
    }
    // A new word of the source counts, of each field for itself.
    world
        .db
        .sql("UPDATE people SET department = 'Sales' WHERE id = 4");
    daemon.settle();
    assert_eq!(person(&world, 4)["department"], "Sales");
    assert_eq!(person(&world, 4)["title"], "Employee");
    set(&["users", "unset", "hr:4", "title"]);
    assert_eq!(person(&world, 4)["title"], "Wrong");
    let user = world.json(&["undo", &run, "--user", "hr:1"]);
    assert_eq!(user["users"], 1, "{user}");

    let wrong = [
        (&["undo", "4711"][..], 9),
        (&["undo", &*run, "--user", "nobody@example.com"], 9),
        (&["undo", "--since", "1h", "--source", "nosuch"], 9),
        (&["undo", "--since", "tomorrow"], 2),
        (&["undo", "--since", "1h", "--until", "2h"], 2),
        (&["undo", &*run, "--since", "1h"], 2),
        (&["undo"], 2),
        (&["undo", &*run, "--out", "x", "--format", "table"], 2),
    ];
    for (args, code) in wrong {
        assert_eq!(world.rollcall(args).status.code(), Some(code), "{args:?}");
    }
    daemon.until_delivered();
    let log = daemon.process.log();
    assert!(!log.contains("Wrong"), "no value in the log");
    daemon.stop();
    planned(&world, &[&run]);
    assert_eq!(apply(&world).status.code(), Some(7), "nobody runs");
}

fn a_span_takes_back_what_all_its_runs_did(kind: &SourceKind) {
    let world = loaded(kind);
    let before = people(&world);
    let since = jiff::Timestamp::now().to_string();
    for title in ["Wrong", "Worse"] {
        world.db.sql(&format!(
            "UPDATE people SET job_title = '{title}', roles = '{title},dev' WHERE id IN (1, 4)"
        ));
        let daemon = world.streaming();
        daemon.settle();
        daemon.stop();
    }
    let daemon = world.streaming();
    let plan = planned(&world, &["--since", &since, "--source", "hr"]);
    assert_eq!(plan["counts"]["updated"]["undone"], 2, "{}", plan["counts"]);
    applied(&world);
    assert_eq!(people(&world), before);
    let until = jiff::Timestamp::now().to_string();
    // The undo is a run within the time as well: all of it together comes to nothing.
    let plan = planned(&world, &["--since", &since, "--until", &until]);
    assert_eq!(plan["counts"], serde_json::json!({}), "{plan}");
    daemon.until_delivered();
    world.events(0);
}

fn an_undo_is_whole_or_not_at_all_when_the_daemon_is_killed(kind: &SourceKind) {
    const MANY: u64 = 400;
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(MANY));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    world
        .db
        .sql("UPDATE people SET job_title = 'Wrong' WHERE id <= 400");
    let daemon = world.streaming();
    daemon.settle();
    let mut run = newest(&world, "stream");
    let mut daemon = Some(daemon);
    for (n, wait_ms) in [0, 15, 40, 80].into_iter().enumerate() {
        let expected = if n % 2 == 0 { "Employee" } else { "Wrong" };
        planned(&world, &[&run.to_string()]);
        let mut applying = world.command(&["apply", file(&world).to_str().unwrap()]);
        let mut applying = applying
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        daemon.take().unwrap().kill9();
        let _ = applying.wait();
        let users = world.json(&["undo", &run.to_string()]);
        let left = users["counts"]["updated"]["undone"].as_u64().unwrap_or(0);
        assert!(left == 0 || left == MANY, "by halves: {left}");
        let again = world.streaming();
        applied(&world);
        for id in [1, MANY / 2, MANY] {
            assert_eq!(person(&world, id)["title"], expected);
        }
        run = newest(&world, "undo");
        daemon = Some(again);
    }
    let daemon = daemon.unwrap();
    daemon.settle();
    world.assert_verified();
}

fn what_is_no_longer_kept_is_not_undone_by_halves(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    let text = std::fs::read_to_string(world.config()).unwrap();
    let short = text.replace("[store]\n", "[store]\noutbox_retention = \"1s\"\n");
    world.write_config(&short);
    world.db.sql(&hire_with(1, &[("job_title", "Clerk")]));
    let daemon = world.streaming();
    world
        .db
        .sql("UPDATE people SET job_title = 'Wrong' WHERE id = 1");
    daemon.settle();
    let run = newest(&world, "stream").to_string();
    let refusal = || {
        world.db.sql(&hire(
            jiff::Timestamp::now().as_microsecond().unsigned_abs(),
        ));
        let output = world.rollcall(&["undo", &run]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code() == Some(1)).then_some(why)
    };
    let mut why = String::new();
    wait_until(PATIENCE, "the first events to be trimmed", || {
        std::thread::sleep(Duration::from_millis(300));
        refusal().map(|refused| why = refused).is_some()
    })
    .unwrap();
    assert!(why.contains("store.outbox_retention"), "{why}");
    assert!(why.contains("nothing is undone by halves"), "{why}");
    let span = world.rollcall(&["undo", "--since", "1d"]);
    assert_eq!(span.status.code(), Some(1));
    assert_eq!(person(&world, 1)["title"], "Wrong");
}
