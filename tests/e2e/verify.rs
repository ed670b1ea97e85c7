//! What `rollcall verify` proves, and what it names.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::company::{Company, hire, hire_all, hire_with, seed};
use crate::sources::{SourceKind, every_source};
use crate::world::{Options, World};

every_source!(
    the_directory_is_proved_while_the_log_flows,
    what_drifted_is_named_by_key_and_field_and_values_are_shown_only_when_asked_for,
    what_is_on_its_way_is_named_as_such,
    a_held_record_is_proved_to_be_the_row_that_the_source_has,
    what_waits_in_a_plan_is_named_as_staged_and_is_no_drift,
);

fn the_directory_is_proved_while_the_log_flows(kind: &SourceKind) {
    let seed = seed(31);
    let world = World::new(kind, &Options::pages_of(20));
    world.db.sql(&hire_all(200));
    let daemon = world.streaming();
    let writer = Company::new(seed, 200).write(Arc::clone(&world.db), Duration::ZERO);
    for _ in 0..3 {
        world.assert_verified();
    }
    let changes = writer.end();
    assert!(changes > 20, "{changes} changes are no flow");
    daemon.settle();
    let proof = world.json(&["verify", "hr"]);
    assert_eq!(proof["equal"], true, "{proof}");
    assert_eq!(proof["moving"], 0, "{proof}");
    let sum: u64 = ["applied", "out_of_scope", "held", "failed"]
        .iter()
        .map(|n| proof[*n].as_u64().unwrap())
        .sum();
    assert_eq!(
        proof["records"], sum,
        "each record is counted once: {proof}"
    );
    // Whoever was deleted and is there again without a right to be is gone as before.
    world.db.sql(&hire(9_001));
    daemon.settle();
    world.db.sql("DELETE FROM people WHERE id = 9001");
    world.db.sql(&hire_with(9_001, &[("kind", "contractor")]));
    daemon.settle();
    world.assert_verified();
}

fn drifted(proof: &Value) -> Vec<(&str, &str, bool)> {
    let all = proof["drifted"].as_array().unwrap();
    all.iter()
        .map(|d| {
            (
                d["record"].as_str().unwrap(),
                d["what"].as_str().unwrap(),
                d["proved"].as_bool().unwrap(),
            )
        })
        .collect()
}

fn what_drifted_is_named_by_key_and_field_and_values_are_shown_only_when_asked_for(
    kind: &SourceKind,
) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(3));
    world
        .db
        .sql("UPDATE people SET job_title = 'Clerk' WHERE id = 2");
    let daemon = world.streaming();
    daemon.settle();
    // The daemon follows the rules that it was started with; these are others.
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace("default = \"Employee\"", "default = \"Colleague\""));
    let proof = world.json(&["verify", "hr"]);
    let marker = "9000000";
    let differ = "values differ";
    assert_eq!(
        drifted(&proof),
        [
            ("1", differ, true),
            ("3", differ, true),
            (marker, differ, true)
        ],
        "{proof}"
    );
    assert_eq!(proof["applied"], 1);
    assert_eq!(
        proof["drifted"][0]["fields"],
        serde_json::json!([{"attribute": "title"}])
    );
    let output = world.rollcall(&["verify", "hr"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(6));
    assert!(
        said.starts_with("3 records differ as of position "),
        "{said}"
    );
    assert!(said.contains("    title\n"), "{said}");
    assert!(
        !said.contains("Colleague") && !said.contains("Employee"),
        "{said}"
    );
    let shown = world.rollcall(&["verify", "hr", "--show-values"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let values = "title: source \"Colleague\", directory \"Employee\"";
    assert!(shown.contains(values), "{shown}");
}

fn what_is_on_its_way_is_named_as_such(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(3));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    world.db.sql(&format!(
        "DELETE FROM people WHERE id = 1;
         UPDATE people SET job_title = 'Clerk' WHERE id = 2;
         {}",
        hire(7)
    ));
    let proof = world.json(&["verify", "hr", "--patience", "1"]);
    assert_eq!(
        drifted(&proof),
        [
            ("1", "in the directory, not in the source", false),
            ("2", "values differ", false),
            ("7", "not in the directory", false)
        ],
        "{proof}"
    );
    let daemon = world.streaming();
    daemon.settle();
    world.assert_verified();
}

fn a_held_record_is_proved_to_be_the_row_that_the_source_has(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(10));
    world.db.sql(
        "UPDATE people SET email = 'twin@example.com' WHERE id IN (3, 4);
         UPDATE people SET level = 'none' WHERE id IN (5, 6);",
    );
    let daemon = world.streaming();
    daemon.settle();
    let proof = world.json(&["verify", "hr"]);
    assert_eq!(proof["equal"], true, "{proof}");
    assert_eq!((&proof["held"], &proof["failed"]), (&2.into(), &2.into()));
    daemon.stop();
    world.db.sql(
        "UPDATE people SET email = 'three@example.com' WHERE id = 3;
         UPDATE people SET level = '5' WHERE id = 5;",
    );
    let proof = world.json(&["verify", "hr", "--patience", "1"]);
    assert_eq!(
        drifted(&proof),
        [
            ("3", "held with other values", false),
            ("5", "failed, and can be mapped now", false)
        ],
        "{proof}"
    );
}

fn what_waits_in_a_plan_is_named_as_staged_and_is_no_drift(kind: &SourceKind) {
    let options = Options {
        limit: Some("{}".to_owned()),
        ..Options::default()
    };
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(40));
    let daemon = world.streaming();
    world.db.sql(
        "BEGIN;
         DELETE FROM people WHERE id <= 10;
         UPDATE people SET kind = 'contractor' WHERE id BETWEEN 11 AND 20;
         COMMIT;",
    );
    daemon.settle();
    let proof = world.json(&["verify", "hr"]);
    assert_eq!(proof["equal"], true, "{proof}");
    assert_eq!(proof["staged"], 20, "{proof}");
    let mut named: Vec<u64> = proof["staged_records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_str().unwrap().parse().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, (1..=20).collect::<Vec<u64>>());
    let said = world.rollcall(&["verify", "hr"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.starts_with("directory = source as of position "),
        "{said}"
    );
    assert!(
        said.contains("20 records have a change that waits in a plan"),
        "{said}"
    );

    // The stream's run says the same, by reason.
    let runs = world.json(&["runs", "--kind", "stream"]);
    let reasons = &runs[0]["counters"]["reasons"];
    assert_eq!(
        (&reasons["staged"], &reasons["staged_leaver"]),
        (&10.into(), &10.into())
    );
    // One that comes back is no leaver.
    world.db.sql(&hire(3));
    daemon.settle();
    assert_eq!(world.json(&["verify", "hr"])["staged"], 19);
}
