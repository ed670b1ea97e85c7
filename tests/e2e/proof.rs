//! What differs from its source is found without anyone asking.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rollcall_testbed::wait_for;
use serde_json::Value;

use crate::company::{hire, hire_all};
use crate::health::get;
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    what_drifted_is_found_without_anyone_asking_and_a_table_without_drift_has_an_age,
    what_drifted_is_read_again_within_the_limit_when_the_configuration_says_so,
    a_proof_that_was_killed_goes_on_behind_its_slice_and_is_one_run,
    what_the_next_poll_brings_is_no_drift,
);

fn proved(period: &str, rows: usize, more: &str) -> Options {
    let mut options = Options::pages_of(rows);
    options.source += &format!("\nproof = {{ period = \"{period}\"{more} }}");
    options
}

fn proof(status: &Value) -> &Value {
    &status["sources"][0]["proof"]
}

/// Record, what and fields of each record that differs.
fn drifted(status: &Value) -> Vec<(&str, &str, Vec<&str>)> {
    let all = proof(status)["drifted"].as_array();
    let mut named: Vec<_> = all
        .into_iter()
        .flatten()
        .map(|d| {
            let fields = d["fields"].as_array().unwrap().iter();
            (
                d["record"].as_str().unwrap(),
                d["what"].as_str().unwrap(),
                fields.map(|f| f.as_str().unwrap()).collect(),
            )
        })
        .collect();
    named.sort_unstable();
    named
}

/// The runs of rounds that have ended, the newest first.
fn rounds(world: &World) -> Vec<Value> {
    let runs = world.json(&["runs", "--kind", "proof"]);
    let runs = runs.as_array().unwrap().iter();
    runs.filter(|r| r["outcome"] != "running")
        .cloned()
        .collect()
}

/// Waits for a round that begins from now on to end.
fn next_round(world: &World, daemon: &Daemon<'_>) -> Value {
    let before = world.json(&["runs", "--kind", "proof"])[0]["run"].as_u64();
    wait_for(PATIENCE, "the next round to end", || {
        let newest = rounds(world).into_iter().next().unwrap_or_default();
        match newest["run"].as_u64() > before {
            true => Ok(newest),
            false => Err(daemon.process.log()),
        }
    })
    .unwrap()
}

const NOT_IN_SOURCE: &str = "in the directory, not in the source";

fn what_drifted_is_found_without_anyone_asking_and_a_table_without_drift_has_an_age(
    kind: &SourceKind,
) {
    let port = rollcall_testbed::free_port().unwrap();
    let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n");
    let world = World::new(kind, &proved("2s", 30, "").and(&api));
    world.db.sql(&hire_all(60));
    let daemon = world.streaming();
    daemon.settle();
    let round = next_round(&world, &daemon);
    assert_eq!(round["outcome"], "completed", "{round}");
    assert_eq!(round["cause"], "schedule", "{round}");
    let counters = &round["counters"];
    assert_eq!(
        (&counters["processed"], &counters["unchanged"]),
        (&61.into(), &61.into()),
        "{round}"
    );
    let status = daemon.status();
    assert!(
        proof(&status)["age_seconds"].as_u64() < Some(30),
        "{status}"
    );
    assert!(proof(&status)["proved"].is_string(), "{status}");
    assert!(drifted(&status).is_empty(), "{status}");
    let said = world.rollcall(&["status"]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("  hr: proved "), "{said}");
    let metrics = get(port, "/metrics").1;
    assert!(metrics.contains("rollcall_proof_age_seconds{source=\"hr\"}"));
    assert!(metrics.contains("rollcall_drifted_records{source=\"hr\"} 0"));

    world.db.behind_the_log(7, 8);
    let found = |status: &Value| {
        drifted(status)
            == [
                ("7", "values differ", vec!["title"]),
                ("8", NOT_IN_SOURCE, Vec::new()),
            ]
    };
    daemon.until("both records to be found", found);
    let round = next_round(&world, &daemon);
    assert_eq!(round["outcome"], "drifted", "{round}");
    let said = world.rollcall(&["status"]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("2 records differ from the source"), "{said}");
    assert!(said.contains("    7: values differ (title)\n"), "{said}");
    let metrics = get(port, "/metrics").1;
    assert!(metrics.contains("rollcall_drifted_records{source=\"hr\"} 2"));
    assert!(
        daemon
            .process
            .log()
            .contains("records differ from the source")
    );
    for told in [daemon.status().to_string(), said, daemon.process.log()] {
        assert!(!told.contains("Hidden"), "no value is told: {told}");
    }
    let events = world.events(0);
    let told = events.of_type("run.completed");
    assert!(
        told.iter().any(|e| e["data"]["outcome"] == "drifted"),
        "{told:?}"
    );
    assert_eq!(
        world.json(&["verify", "hr"])["equal"],
        false,
        "it only reports"
    );

    // What is right again is no longer named.
    assert!(world.rollcall(&["reconcile", "hr"]).status.success());
    daemon.until("nothing to differ", |status| drifted(status).is_empty());
    assert_eq!(next_round(&world, &daemon)["outcome"], "completed");
    daemon.stop();
}

fn what_drifted_is_read_again_within_the_limit_when_the_configuration_says_so(kind: &SourceKind) {
    let mut options = proved("2s", 30, ", on_drift = \"repair\"");
    options.limit = Some("{ max_changes = 0, floor = 0, max_percent = 0 }".to_owned());
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(60));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(7, 8);
    let status = daemon.until("the leaver to wait for somebody", |status| {
        status["sources"][0]["plan"]["records"] == 1
    });
    assert!(status["sources"][0]["gaps"].as_array().unwrap().is_empty());
    wait_for(PATIENCE, "the proof to tell of it", || {
        let told = rounds(&world).into_iter().find_map(|round| {
            let detail = round["detail"].as_str()?.to_owned();
            Some((round, serde_json::from_str::<Value>(&detail).unwrap()))
        });
        let Some((round, detail)) = told else {
            return Err(daemon.process.log());
        };
        let wanted = serde_json::json!({"reason": "drift", "records": 2, "repaired": 2});
        assert_eq!(detail, wanted, "{round}");
        assert_eq!(round["outcome"], "completed", "{round}");
        Ok(())
    })
    .unwrap();
    assert!(drifted(&daemon.status()).is_empty());
    let verified = world.json(&["verify", "hr"]);
    assert_eq!(verified["equal"], true, "{verified}");
    assert_eq!(verified["staged"], 1, "{verified}");
    let syncs = world.json(&["runs", "--kind", "sync"]);
    let syncs = syncs.as_array().unwrap();
    assert!(
        !syncs.is_empty() && syncs.iter().all(|r| r["cause"] == "proof"),
        "{syncs:?}"
    );
}

fn a_proof_that_was_killed_goes_on_behind_its_slice_and_is_one_run(kind: &SourceKind) {
    let world = World::new(kind, &proved("12s", 10, ""));
    world.db.sql(&hire_all(120));
    let daemon = world.streaming();
    let some = |status: &Value| (30..100).contains(&proof(status)["rows"].as_u64().unwrap_or(0));
    let status = daemon.until("some slices to be compared", some);
    let (run, rows) = (proof(&status)["run"].clone(), &proof(&status)["rows"]);
    daemon.kill9();
    let daemon = world.streaming();
    let status = daemon.status();
    assert!(proof(&status)["rows"].as_u64() >= rows.as_u64(), "{status}");
    daemon.until("the round to end", |s| proof(s)["proved"].is_string());
    let rounds = rounds(&world);
    assert_eq!(rounds.len(), 1, "{rounds:?}");
    assert_eq!(rounds[0]["run"], run, "{rounds:?}");
    assert_eq!(rounds[0]["outcome"], "completed", "{rounds:?}");
    assert_eq!(
        rounds[0]["counters"]["processed"], 120,
        "no slice counts twice: {rounds:?}"
    );
    daemon.stop();

    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace("proof = { ", "proof = { mode = \"off\", "));
    let daemon = world.streaming();
    let status = daemon.until("the proof to be forgotten", |s| proof(s).is_null());
    assert_eq!(status["sources"][0]["state"], "streaming");
}

fn what_the_next_poll_brings_is_no_drift(kind: &SourceKind) {
    let mut options = proved("1s", 30, "");
    options.source += "\npoll = { mode = \"always\", every = \"3s\" }";
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(50));
    let daemon = world.start();
    daemon.until("the first round to end", |s| proof(s)["proved"].is_string());
    let (began, mut id) = (Instant::now(), 100);
    let goes_on = |began: Instant| match began.elapsed() {
        elapsed if elapsed < Duration::from_secs(12) => true,
        elapsed => elapsed < PATIENCE && rounds(&world).len() < 2,
    };
    while goes_on(began) {
        id += 1;
        world.db.sql(&format!(
            "{} UPDATE people SET job_title = 'Moved {id}' WHERE id = {}; \
             DELETE FROM people WHERE id = {};",
            hire(id),
            id - 100,
            id - 60,
        ));
        assert!(drifted(&daemon.status()).is_empty(), "{}", daemon.status());
        sleep(Duration::from_millis(300));
    }
    let rounds = rounds(&world);
    assert!(rounds.len() > 1, "{rounds:?}");
    assert!(
        rounds.iter().all(|r| r["outcome"] == "completed"),
        "{rounds:?}"
    );
    daemon.stop();
}
