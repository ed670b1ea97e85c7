//! No credential and no cell value shows up where it does not belong.
//!
//! Values that occur nowhere else are put into the configuration and the table; whatever
//! the program writes is then searched for their bytes.

use std::path::Path;

use rollcall_testbed::Process;

use crate::company::{hire_all, hire_with};
use crate::health::get;
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, PATIENCE, World};

every_source!(
    no_credential_and_no_cell_value_appears_in_any_log_error_metric_or_in_the_store_file_for_redacted_columns,
);

const PASSWORD: &str = "p4ssw0rd-mArker";
const WRONG: &str = "wr0ng-mArker";
const CELL: &str = "c3ll-mArker";
const REDACTED: &str = "r3dacted-mArker";

fn assert_without(what: &str, bytes: &[u8], markers: &[&str]) {
    for marker in markers {
        let found = bytes.windows(marker.len()).any(|w| w == marker.as_bytes());
        assert!(!found, "{what} holds {marker}");
    }
}

fn assert_files_without(folder: &Path, markers: &[&str]) {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files += 1;
            assert_without(
                &path.display().to_string(),
                &std::fs::read(&path).unwrap(),
                markers,
            );
        }
    }
    assert!(files >= 2, "the store has files");
}

fn no_credential_and_no_cell_value_appears_in_any_log_error_metric_or_in_the_store_file_for_redacted_columns(
    kind: &SourceKind,
) {
    let server = (kind.start)(&Setup {
        password: Some(PASSWORD),
        ..Setup::default()
    });
    let port = rollcall_testbed::free_port().unwrap();
    let options = Options {
        connection: Some(format!(
            "{}\npassword = {{ env = \"HR_PASSWORD\" }}",
            server.connection()
        )),
        log: Some("trace"),
        rest: format!("[api]\nlisten = \"127.0.0.1:{port}\"\n"),
        ..Options::default()
    };
    let world = World::on(server, &options);
    world.db.sql(&hire_all(10));
    world.db.sql(&hire_with(
        50,
        &[
            ("last_name", CELL),
            ("note", CELL),
            ("salary", REDACTED),
            ("email", "c3ll-mArker@example.com"),
        ],
    ));
    // A value that cannot be mapped, and two people with one address.
    world
        .db
        .sql(&hire_with(51, &[("level", CELL), ("salary", REDACTED)]));
    let everywhere = [PASSWORD, WRONG, CELL, REDACTED];

    let run = |password: &str| {
        let mut command = world.command(&["run"]);
        command
            .env("HR_PASSWORD", password)
            .env("RUST_LOG", "trace");
        Process::spawn(command).unwrap()
    };
    let with = |args: &[&str], password: &str| {
        let output = world
            .command(args)
            .env("HR_PASSWORD", password)
            .output()
            .unwrap();
        [output.stdout, output.stderr].concat()
    };
    let refused = run(WRONG);
    rollcall_testbed::wait_until(PATIENCE, "the refusal", || {
        refused.stderr().contains("refused")
    })
    .unwrap();
    refused.kill9();
    assert_without(
        "the log of a refusal",
        refused.log().as_bytes(),
        &everywhere,
    );
    assert_without("check", &with(&["check"], WRONG), &everywhere);

    let running = run(PASSWORD);
    rollcall_testbed::wait_until(PATIENCE, "the daemon to stream", || {
        assert!(running.is_running(), "{}", running.log());
        let status = String::from_utf8_lossy(&with(&["status", "--json"], PASSWORD)).into_owned();
        status.contains("\"streaming\"") && status.contains("\"running\": true")
            || status.contains("\"running\":true") && status.contains("\"streaming\"")
    })
    .unwrap();
    world.db.sql(&format!(
        "UPDATE people SET last_name = '{CELL} again', salary = '{REDACTED} again' WHERE id = 50;
         UPDATE people SET level = '{CELL} again' WHERE id = 51;
         UPDATE people SET email = 'c3ll-mArker@example.com' WHERE id = 3;
         UPDATE people SET level = '99999999999999999999999' WHERE id = 4;
         DELETE FROM people WHERE id = 5;",
    ));
    let last = crate::company::hire(60);
    world.db.sql(&last);
    rollcall_testbed::wait_until(PATIENCE, "the last change", || {
        world
            .command(&["users", "show", "hr:60"])
            .env("HR_PASSWORD", PASSWORD)
            .output()
            .unwrap()
            .status
            .success()
    })
    .unwrap();
    let metrics = get(port, "/metrics").1;
    assert!(metrics.contains("rollcall_changes_total"), "{metrics}");
    assert_without("the metrics", metrics.as_bytes(), &everywhere);
    assert_without("readyz", get(port, "/readyz").1.as_bytes(), &everywhere);
    for args in [
        &["check"][..],
        &["status"],
        &["runs"],
        &["runs", "--json"],
        &["conflicts"],
        &["verify", "hr"],
    ] {
        assert_without(&args.join(" "), &with(args, PASSWORD), &everywhere);
    }
    running.terminate(PATIENCE).unwrap();
    let log = running.log();
    assert!(log.contains("streaming"), "{log}");
    assert_without("the log", log.as_bytes(), &everywhere);

    let never_stored = [PASSWORD, WRONG, REDACTED];
    assert_files_without(&world.store(), &never_stored);
    assert_without(
        "the events",
        &std::fs::read(world.file()).unwrap(),
        &never_stored,
    );
    let events = String::from_utf8(std::fs::read(world.file()).unwrap()).unwrap();
    assert!(events.contains(CELL), "the value itself is delivered");
}
