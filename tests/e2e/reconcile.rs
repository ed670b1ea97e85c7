//! The directory is made equal to its source on demand, whatever the log has said.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::company::{hire_all, hire_with};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, World};

every_source!(
    what_the_log_never_had_is_found_by_verify_and_mended_by_reconcile,
    an_order_to_a_source_that_is_away_outlives_a_restart,
    a_sync_of_one_user_brings_just_that_record,
    a_sync_of_a_record_whose_key_has_several_columns_brings_just_that_record,
    a_program_with_a_token_starts_a_sync_and_one_without_is_refused,
    a_schedule_runs_without_overlap_and_what_was_missed_is_caught_up_once,
    a_reconciliation_that_was_killed_goes_on_behind_its_last_page_and_deactivates_nobody_before,
);

/// The runs of a kind, the newest first.
fn runs(world: &World, kind: &str) -> Vec<Value> {
    let runs = world.json(&["runs", "--limit", "1000"]);
    let runs = runs.as_array().unwrap().iter();
    runs.filter(|r| r["kind"] == kind).cloned().collect()
}

fn what_the_log_never_had_is_found_by_verify_and_mended_by_reconcile(kind: &SourceKind) {
    let world = World::new(kind, &Options::pages_of(10));
    world.db.sql(&hire_all(60));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(7, 8);
    daemon.settle();
    let proof = world.json(&["verify", "hr", "--patience", "0"]);
    assert_eq!(proof["equal"], false);
    let mut drifted: Vec<_> = proof["drifted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["record"].as_str().unwrap())
        .collect();
    drifted.sort_unstable();
    assert_eq!(drifted, ["7", "8"], "{proof}");
    let output = world.rollcall(&["reconcile", "hr"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(" completed: 62 processed, 0 created, 1 updated, 1 deactivated"),
        "{said}"
    );
    world.assert_verified();
    world.assert_equal();
    let reconciled = runs(&world, "reconcile");
    assert_eq!(reconciled.len(), 1);
    assert_eq!(reconciled[0]["cause"], "manual");
}

fn an_order_to_a_source_that_is_away_outlives_a_restart(kind: &SourceKind) {
    let world = World::new(kind, &Options::pages_of(10));
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(7, 8);
    world.db.stop();
    daemon.until("the source to be away", |s| {
        s["sources"][0]["state"] == "waiting"
    });
    let accepted = world.json(&["reconcile", "hr", "--detach"]);
    assert!(accepted["run"].is_null(), "{accepted}");
    daemon.kill9();
    world.db.start_again();
    let mut daemon = world.start();
    daemon.until("the order to be obeyed", |_| {
        let done = runs(&world, "reconcile");
        done.len() == 1 && done[0]["outcome"] == "completed" && done[0]["cause"] == "manual"
    });
    daemon.settle();
    world.assert_equal();
    // It is obeyed once.
    daemon.kill9();
    daemon = world.streaming();
    daemon.settle();
    assert_eq!(runs(&world, "reconcile").len(), 1);
}

fn a_reconciliation_that_was_killed_goes_on_behind_its_last_page_and_deactivates_nobody_before(
    kind: &SourceKind,
) {
    let db = (kind.start)(&Setup::default());
    let (options, _proxy) = Options::pages_of(5).slowed(&*db);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(300));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(299, 3);
    let detached = world.json(&["reconcile", "hr", "--detach"]);
    let run = detached["run"].as_u64().expect("the run is known");
    let status = daemon.until("some pages to be read", |s| {
        s["sources"][0]["live"]["scan"]["rows"].as_u64() > Some(40)
    });
    let scan = &status["sources"][0]["live"]["scan"];
    assert_eq!(
        (scan["run"].as_u64(), &scan["cause"]),
        (Some(run), &"manual".into())
    );
    assert!(scan["rows_per_second"].as_f64() > Some(0.0), "{scan}");
    // An order that comes meanwhile joins it.
    assert_eq!(world.json(&["reconcile", "hr", "--detach"])["run"], run);
    daemon.kill9();
    assert!(world.events(1).of_type("user.deactivated").is_empty());
    let daemon = world.start();
    daemon.until("the reconciliation to end", |_| {
        runs(&world, "reconcile")[0]["outcome"] == "completed"
    });
    daemon.settle();
    let reconciled = runs(&world, "reconcile");
    assert_eq!(reconciled.len(), 1, "it is one run: {reconciled:?}");
    let counters = &reconciled[0]["counters"];
    let processed = counters["processed"].as_u64().unwrap();
    assert!(
        (300..=302).contains(&processed),
        "no page was read twice: {counters}"
    );
    assert_eq!(counters["deactivated"], 1, "{reconciled:?}");
    world.assert_verified();
    daemon.stop();
}

fn a_sync_of_one_user_brings_just_that_record(kind: &SourceKind) {
    let options = Options {
        limit: Some("{ max_changes = 1, floor = 0, max_percent = 100 }".to_owned()),
        ..Options::default()
    };
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(7, 8);
    let sync = |args: &[&str]| {
        let all: Vec<&str> = ["sync", "hr"].iter().chain(args).copied().collect();
        let output = world.rollcall(&all);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let drifted = || -> Vec<String> {
        let proof = world.json(&["verify", "hr", "--patience", "0"]);
        let drifted = proof["drifted"].as_array().unwrap().iter();
        let mut drifted: Vec<String> = drifted
            .map(|d| d["record"].as_str().unwrap().to_owned())
            .collect();
        drifted.sort_unstable();
        drifted
    };
    let (code, said) = sync(&["--key", "7", "--key", "9"]);
    let wanted = " completed: 2 processed, 0 created, 1 updated, 0 deactivated";
    assert!(code == Some(0) && said.contains(wanted), "{said}");
    daemon.settle();
    assert_eq!(drifted(), ["8"], "just that record");
    // What no table of such a key can have is refused, and the source does not notice.
    for wrong in ["7,7", "seven"] {
        let (code, said) = sync(&["--key", wrong]);
        assert_eq!(code, Some(2), "{wrong}: {said}");
    }
    assert_eq!(sync(&["--user", "nobody@example.com"]).0, Some(9));
    assert_eq!(daemon.status()["sources"][0]["state"], "streaming");
    let (code, said) = sync(&["--user", "person.8@example.com"]);
    let wanted = " completed: 1 processed, 0 created, 0 updated, 1 deactivated";
    assert!(code == Some(0) && said.contains(wanted), "{said}");
    assert_eq!(runs(&world, "sync").len(), 2);
    assert_eq!(runs(&world, "sync")[0]["cause"], "manual");
    world.assert_verified();

    // Who is gone is a leaver within the limit, and that is used up.
    world.db.behind_the_log(9, 10);
    daemon.settle();
    let (code, said) = sync(&["--key", "10"]);
    assert!(code == Some(0) && said.contains(" staged: "), "{said}");
    daemon.until("the leaver to wait", |s| {
        s["sources"][0]["plan"]["records"] == 1
    });
    assert_eq!(world.events(0).of_type("user.deactivated").len(), 1);
    let (_, said) = sync(&["--key", "9"]);
    assert!(
        said.contains(" completed: 1 processed, 0 created, 1 updated"),
        "{said}"
    );
    daemon.stop();
}

fn a_sync_of_a_record_whose_key_has_several_columns_brings_just_that_record(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    let old = match kind.name {
        "postgres" => "DROP CONSTRAINT people_pkey",
        _ => "DROP PRIMARY KEY",
    };
    world.db.sql(&format!(
        "ALTER TABLE people {old}, ADD PRIMARY KEY (kind, id)"
    ));
    world.db.sql(&hire_all(20));
    world.db.sql(&hire_with(50, &[("kind", "on, leave")]));
    let daemon = world.streaming();
    daemon.until_delivered();
    world.assert_equal();
    world.db.behind_the_log(7, 8);
    world.db.behind_the_log(50, 9);
    let sync = |key: &str| {
        let output = world.rollcall(&["sync", "hr", "--key", key]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    };
    let (updated, gone) = (
        " completed: 1 processed, 0 created, 1 updated, 0 deactivated",
        " completed: 1 processed, 0 created, 0 updated, 1 deactivated",
    );
    for (key, wanted) in [
        ("employee,7", updated),
        ("employee,8", gone),
        ("on, leave,50", updated),
    ] {
        let (code, said) = sync(key);
        assert!(code == Some(0) && said.contains(wanted), "{key}: {said}");
    }
    let (code, said) = sync("7");
    assert!(code == Some(2) && said.contains("has 2 columns"), "{said}");
    daemon.until_delivered();
    let people = world.events(0).fold();
    assert!(!people.contains_key("8") && people["50"]["title"] == "Hidden");
    assert!(people.contains_key("9"), "just those records");
    assert!(sync("employee,9").1.contains(gone));
    daemon.until_delivered();
    world.assert_equal();
    world.assert_verified();
    daemon.stop();
}

fn scheduled(text: &str) -> Options {
    Options {
        source: format!("schedule = {{ reconcile = \"{text}\" }}"),
        ..Options::default()
    }
}

fn a_schedule_runs_without_overlap_and_what_was_missed_is_caught_up_once(kind: &SourceKind) {
    let world = World::new(kind, &scheduled("continuous"));
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    world.db.behind_the_log(7, 8);
    daemon.until("three reconciliations", |_| {
        let ended = runs(&world, "reconcile");
        ended.iter().filter(|r| r["outcome"] == "completed").count() >= 3
    });
    world.assert_verified();
    daemon.stop();
    let all = runs(&world, "reconcile");
    for pair in all.windows(2) {
        // The newest stands first; all times have the same form.
        let (later, earlier) = (&pair[0]["started"], &pair[1]["ended"]);
        assert!(later.as_str() > earlier.as_str(), "{pair:?}");
        assert_eq!(pair[1]["cause"], "schedule");
    }

    world.configure(&*world.db, &scheduled("daily 03:00"));
    let path = world.store().join("rollcall.db");
    let store = rusqlite::Connection::open(path).unwrap();
    let days = 3_i64 * 86_400_000_000;
    let passed = "UPDATE schedule SET served_us = served_us - ?1";
    assert_eq!(store.execute(passed, [days]).unwrap(), 1);
    drop(store);
    let daemon = world.streaming();
    daemon.until("what was missed to be caught up", |_| {
        let newest = &runs(&world, "reconcile")[0];
        newest["cause"] == "caught_up" && newest["outcome"] == "completed"
    });
    let due = daemon.until("the next time to be shown", |status| {
        let due = &status["sources"][0]["live"]["next_due_us"];
        due.as_i64()
            .is_some_and(|due| due % 86_400_000_000 == 3 * 3_600_000_000)
    });
    assert!(due["running"] == true);
    daemon.settle();
    daemon.stop();
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(
        runs(&world, "reconcile").len(),
        all.len() + 1,
        "caught up once"
    );
}

/// Asks for a sync; gives the whole answer.
fn post(port: u16, path: &str, token: Option<&str>) -> String {
    post_body(port, path, token, "")
}

/// The same of what a body names.
fn post_body(port: u16, path: &str, token: Option<&str>, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let header = token.map(|t| format!("Authorization: Bearer {t}\r\n"));
    let header = header.unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: rollcall\r\nConnection: close\r\nContent-Length: {}\r\n{header}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn a_program_with_a_token_starts_a_sync_and_one_without_is_refused(kind: &SourceKind) {
    const TOKEN: &str = "a-token-that-nobody-guesses";
    let port = rollcall_testbed::free_port().unwrap();
    let db = (kind.start)(&Setup::default());
    let listening = Options::default().and(&format!("[api]\nlisten = \"127.0.0.1:{port}\"\n"));
    let world = World::on(db, &listening);
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    let path = "/v1/sources/hr/sync";
    assert!(
        post(port, path, Some(TOKEN)).starts_with("HTTP/1.1 404 "),
        "nobody may ask"
    );
    daemon.stop();

    let file = world.store().with_file_name("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let token = format!(
        "[token.ci]\nsecret = {{ file = \"{}\" }}\nper_minute = 4\n",
        file.display()
    );
    world.configure(&*world.db, &listening.and(&token));
    let daemon = world.streaming();
    daemon.settle();
    world.db.behind_the_log(7, 8);
    for wrong in [
        None,
        Some(""),
        Some("a-token-that-nobody-guesse"),
        Some("another"),
    ] {
        let answer = post(port, path, wrong);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "no hint: {answer}");
    }
    assert!(runs(&world, "reconcile").is_empty());
    let answer = post(port, path, Some(TOKEN));
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    daemon.until("the run to end", |_| {
        let runs = runs(&world, "reconcile");
        runs[0]["run"] == body["run"] && runs[0]["outcome"] == "completed"
    });
    assert_eq!(runs(&world, "reconcile")[0]["cause"], "api");
    world.assert_verified();
    assert!(post(port, "/v1/sources/nobody/sync", Some(TOKEN)).starts_with("HTTP/1.1 404 "));
    world.db.behind_the_log(9, 10);
    let answer = post_body(port, path, Some(TOKEN), "{\"keys\": [\"9\"]}");
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let synced = runs(&world, "sync");
    assert_eq!(synced.len(), 1, "{synced:?}");
    let brought = (&synced[0]["cause"], &synced[0]["counters"]["updated"]);
    assert_eq!(brought, (&"api".into(), &1.into()), "{synced:?}");
    let answer = post_body(port, path, Some(TOKEN), "{\"key\": \"9\"}");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let often = post(port, path, Some(TOKEN));
    assert!(often.starts_with("HTTP/1.1 429 "), "{often}");
    assert!(
        often.to_ascii_lowercase().contains("retry-after: "),
        "{often}"
    );
    assert!(!daemon.process.log().contains(TOKEN));
}
