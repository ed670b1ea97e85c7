//! What a run tells: counts by reason, and each record that it skipped or that failed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use rollcall_testbed::wait_until;
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, PATIENCE, World};

every_source!(
    a_load_names_exactly_the_records_that_it_skipped_or_that_failed_and_never_a_value,
    a_record_that_heals_is_told_in_the_later_run_and_stays_failed_in_the_earlier_one,
    a_load_killed_half_way_is_one_run_that_counts_what_an_uninterrupted_one_counts,
    a_stream_killed_half_way_is_one_run_that_counts_every_change_once,
    runs_are_forgotten_when_their_time_is_over,
);

const MARKER: &str = "m4rker-of-a-cell";

/// The newest run of a kind, with its records.
fn newest(world: &World, kind: &str) -> Value {
    let runs = world.json(&["runs", "--source", "hr", "--kind", kind]);
    let run = runs[0]["run"].as_u64();
    let run = run.unwrap_or_else(|| panic!("no {kind} in {runs}"));
    world.json(&["runs", "show", &run.to_string()])
}

/// Record, outcome, reason and rule of each record that a run names.
fn named(run: &Value) -> Vec<[String; 4]> {
    let records = run["records"].as_array().unwrap();
    let text = |r: &Value, field: &str| r[field].as_str().unwrap_or_default().to_owned();
    records
        .iter()
        .map(|r| ["record", "outcome", "reason", "rule"].map(|field| text(r, field)))
        .collect()
}

/// What the daemon answers on its socket.
fn get(world: &World, path: &str) -> String {
    let mut socket = UnixStream::connect(world.store().join("rollcall.sock")).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: rollcall\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

const LEVEL: &str = "custom.level = column level";

fn a_load_names_exactly_the_records_that_it_skipped_or_that_failed_and_never_a_value(
    kind: &SourceKind,
) {
    let options = Options {
        log: Some("debug"),
        ..Options::pages_of(5)
    };
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(20));
    world.db.sql(&format!(
        "UPDATE people SET level = '{MARKER}' WHERE id IN (3, 17);
         UPDATE people SET email = '{MARKER}@example.com' WHERE id IN (4, 14);
         UPDATE people SET kind = 'contractor' WHERE id = 9;",
    ));
    let daemon = world.streaming();
    let run = newest(&world, "load");
    let scope = "scope = expression kind != 'contractor'";
    let is = |r: [&str; 4]| r.map(str::to_owned);
    let mut wanted = vec![
        is(["9", "skipped", "out_of_scope", ""]),
        is(["3", "errored", "type_mismatch", LEVEL]),
        is(["17", "errored", "type_mismatch", LEVEL]),
        is(["4", "skipped", "duplicate_in_source", ""]),
        is(["14", "skipped", "duplicate_in_source", ""]),
    ];
    let mut found = named(&run);
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted, "{scope}\n{run:#}");
    for record in run["records"].as_array().unwrap() {
        assert_eq!(record["source"], "hr");
        let attribute = match record["reason"].as_str().unwrap() {
            "type_mismatch" => "custom.level",
            "duplicate_in_source" => "email",
            _ => continue,
        };
        assert_eq!(record["attribute"], attribute, "{record}");
    }
    assert_eq!(run["outcome"], "completed");
    assert_eq!(run["unlisted"], 0);
    let c = &run["counters"];
    assert_eq!((&c["processed"], &c["created"]), (&20.into(), &15.into()));
    assert_eq!((&c["skipped"], &c["errored"]), (&3.into(), &2.into()));
    let reasons =
        serde_json::json!({"out_of_scope": 1, "type_mismatch": 2, "duplicate_in_source": 2});
    assert_eq!(c["reasons"], reasons);

    // The same over the API, in the event, and no value anywhere.
    let number = run["run"].to_string();
    let answer = get(&world, &format!("/v1/runs/{number}"));
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let over_api: Value = serde_json::from_str(body).unwrap();
    assert_eq!(over_api["records"], run["records"]);
    assert!(get(&world, "/v1/runs/999999").starts_with("HTTP/1.1 404"));
    assert!(get(&world, "/v1/runs?kind=load&outcome=completed").contains("type_mismatch"));
    assert_eq!(
        world.rollcall(&["runs", "show", "999999"]).status.code(),
        Some(9)
    );
    assert_eq!(daemon.status()["sources"][0]["last_run"]["source"], "hr");
    daemon.settle();
    let events = world.events(0);
    let told = events.of_type("run.completed");
    let told = told.iter().find(|e| e["data"]["kind"] == "load").unwrap();
    assert_eq!(told["data"]["counters"]["reasons"], reasons);
    let shown = world.rollcall(&["runs", "show", &number]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("errored 2: type_mismatch 2"), "{shown}");
    for text in [
        run.to_string(),
        answer,
        shown,
        told.to_string(),
        world.json(&["runs"]).to_string(),
        daemon.process.log(),
    ] {
        assert!(!text.contains(MARKER), "{text}");
    }
}

fn a_record_that_heals_is_told_in_the_later_run_and_stays_failed_in_the_earlier_one(
    kind: &SourceKind,
) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(10));
    world
        .db
        .sql("UPDATE people SET level = 'none' WHERE id IN (3, 7)");
    let daemon = world.streaming();
    world.db.sql("UPDATE people SET level = '5' WHERE id = 3");
    daemon.settle();
    let failed = |record: &str| [record, "errored", "type_mismatch", LEVEL].map(str::to_owned);
    let healed = |record: &str| [record, "healed", "type_mismatch", ""].map(str::to_owned);
    let load = newest(&world, "load");
    assert_eq!(named(&load), [failed("3"), failed("7")]);
    let stream = newest(&world, "stream");
    assert_eq!(named(&stream), [healed("3")]);
    assert_eq!(stream["counters"]["healed"], 1);
    daemon.stop();
    // Another mapping, under which the value is one.
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace("custom.level = \"level\"\n", ""));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(named(&newest(&world, "reconcile")), [healed("7")]);
    assert_eq!(named(&newest(&world, "load")), [failed("3"), failed("7")]);
}

fn a_load_killed_half_way_is_one_run_that_counts_what_an_uninterrupted_one_counts(
    kind: &SourceKind,
) {
    let db = (kind.start)(&Setup::default());
    let (options, proxy) = Options::pages_of(5).slowed(&*db);
    let people = 300;
    db.sql(&hire_all(people));
    db.sql("UPDATE people SET level = 'none' WHERE id % 7 = 0");
    db.sql("UPDATE people SET kind = 'contractor' WHERE id % 11 = 0");
    let killed = World::on(db.clone(), &options);
    let daemon = killed.start();
    daemon.until("some pages to be read", |s| {
        s["sources"][0]["live"]["scan_rows"].as_u64() > Some(40)
    });
    daemon.kill9();
    let cut = newest(&killed, "load");
    assert_eq!(cut["outcome"], "running");
    let got = cut["counters"]["processed"].as_u64().unwrap();
    assert!(0 < got && got < people, "it was not cut half-way: {cut}");
    killed.streaming().stop();

    let second = db.second_reader();
    proxy.latency(std::time::Duration::ZERO);
    let whole = World::on(
        db,
        &Options {
            source: format!("{}\n{second}", options.source),
            ..options.clone()
        },
    );
    whole.streaming().stop();
    let (cut, whole) = (newest(&killed, "load"), newest(&whole, "load"));
    assert_eq!(cut["outcome"], "completed");
    assert_eq!(cut["counters"], whole["counters"]);
    assert_eq!(named(&cut), named(&whole));
    assert_eq!(cut["counters"]["processed"], people);
    let loads = killed.json(&["runs", "--kind", "load"]);
    assert_eq!(loads.as_array().unwrap().len(), 1, "{loads}");
}

fn a_stream_killed_half_way_is_one_run_that_counts_every_change_once(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire(1));
    for part in 0..3 {
        let daemon = world.streaming();
        for n in 0..20 {
            world.db.sql(&hire(100 + part * 20 + n));
        }
        let bad = 900 + part;
        world.db.sql(&hire_with(bad, &[("level", "none")]));
        daemon.settle();
        daemon.kill9();
    }
    let streams = world.json(&["runs", "--kind", "stream"]);
    assert_eq!(streams.as_array().unwrap().len(), 1, "{streams}");
    let stream = newest(&world, "stream");
    assert_eq!(stream["outcome"], "running");
    // Each part: 20 people, one that fails, and the marker of `settle`.
    let c = &stream["counters"];
    assert_eq!((&c["processed"], &c["created"]), (&66.into(), &63.into()));
    assert_eq!(c["errored"], 3);
    assert_eq!(named(&stream).len(), 3);
    let daemon = world.streaming();
    daemon.stop();
    let stream = newest(&world, "stream");
    assert_eq!(stream["outcome"], "completed", "a stop ends it: {stream}");
    assert_eq!(stream["counters"]["processed"], 66);
}

fn runs_are_forgotten_when_their_time_is_over(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(5));
    world
        .db
        .sql("UPDATE people SET level = 'none' WHERE id = 3");
    world.streaming().stop();
    assert_eq!(named(&newest(&world, "load")).len(), 1);
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace("[store]\n", "[store]\nhistory_retention = \"1s\"\n"));
    let daemon = world.streaming();
    wait_until(PATIENCE, "the load to be forgotten", || {
        let loads = world.json(&["runs", "--kind", "load"]);
        loads.as_array().unwrap().is_empty()
    })
    .unwrap();
    daemon.settle();
    let status = daemon.status();
    assert_eq!(
        status["sources"][0]["last_run"]["kind"], "stream",
        "{status}"
    );
}
