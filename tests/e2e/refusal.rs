//! Whatever cannot work is said: each with its sentence and its exit code.

use std::sync::Arc;

use rollcall_testbed::{Postgres, Tls};
use serde_json::Value;

use crate::sources::{Server, Setup, SourceKind, every_source, prepared};
use crate::world::{Options, World};

every_source!(
    a_wrong_password_and_a_missing_grant_each_have_their_sentence,
    tls_refuses_a_wrong_certificate_and_a_wrong_name,
    a_view_is_refused_without_a_key_and_where_polling_is_not_allowed,
    a_configuration_that_is_not_valid_ends_with_its_own_code_and_names_the_line,
    a_question_that_has_no_answer_has_its_own_code,
);

/// `rollcall check` of a configuration: exit code, and the codes of errors.
fn check(world: &World) -> (i32, Vec<String>, Value) {
    let output = world.rollcall(&["check", "--json"]);
    let checked: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let errors = checked
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["findings"].as_array().unwrap())
        .filter(|f| f["severity"] == "error")
        .map(|f| {
            assert!(f["found"].as_str().unwrap().len() > 15, "{f}");
            f["code"].as_str().unwrap().to_owned()
        })
        .collect();
    (output.status.code().unwrap(), errors, checked)
}

fn assert_refused(world: &World, code: &str) {
    let (exit, errors, checked) = check(world);
    assert_eq!(exit, 4, "{checked}");
    assert!(
        errors.iter().any(|e| e == code),
        "{code} is not in {checked}"
    );
}

/// What cannot be followed is refused.
fn never_polled() -> Options {
    Options {
        source: "poll = { mode = \"never\" }".to_owned(),
        ..Options::default()
    }
}

/// A world on a server with other lines for the connection.
fn with(server: &Arc<dyn Server>, lines: &str) -> World {
    let options = Options {
        connection: Some(format!("{}\n{lines}", server.connection())),
        ..never_polled()
    };
    World::on(Arc::clone(server), &options)
}

fn a_wrong_password_and_a_missing_grant_each_have_their_sentence(kind: &SourceKind) {
    let server = (kind.start)(&Setup {
        password: Some("right"),
        ..Setup::default()
    });
    let with_password = |password: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), password).unwrap();
        let line = format!("password = {{ file = \"{}\" }}", file.path().display());
        (with(&server, &line), file)
    };
    let (world, _right) = with_password("right");
    let (exit, errors, checked) = check(&world);
    assert_eq!((exit, errors.len()), (0, 0), "{checked}");
    let (other, _wrong) = with_password("wrong");
    assert_refused(&other, "password_rejected");

    // Some servers say that the right is missing, others that there is no such table.
    server.may_read_people(false);
    let (exit, errors, checked) = check(&world);
    assert_eq!((exit, errors.len()), (4, 1), "{checked}");
    assert!(checked.to_string().contains("GRANT SELECT"), "{checked}");
    let script = world.rollcall(&["check", "--script"]);
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(script.contains("GRANT SELECT ON"), "{script}");
    server.may_read_people(true);
    server.may_read_log(false);
    let (exit, errors, checked) = check(&world);
    assert_eq!(exit, 4, "{checked}");
    assert!(!errors.is_empty(), "{checked}");
    server.may_read_log(true);
    assert_eq!(check(&world).0, 0);
}

#[test]
fn a_wrong_database_a_missing_publication_and_full_slots_each_have_their_sentence() {
    let settings = Postgres::builder().setting("max_replication_slots", "1");
    let server: Arc<dyn Server> = Arc::new(prepared(settings));
    let world = World::on(Arc::clone(&server), &never_polled());
    let options = Options {
        connection: Some(
            server
                .connection()
                .replace("database = \"hr\"", "database = \"nowhere\""),
        ),
        ..Options::default()
    };
    let nowhere = World::on(Arc::clone(&server), &options);
    assert_refused(&nowhere, "no_such_database");

    server.sql("DROP PUBLICATION rollcall");
    assert_refused(&world, "publication_missing");
    server.sql("CREATE PUBLICATION rollcall FOR TABLE people WITH (publish_via_partition_root)");

    server.sql("SELECT pg_create_physical_replication_slot('taken')");
    assert_refused(&world, "slots_full");
    let script = world.rollcall(&["check", "--script"]);
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(script.contains("CREATE PUBLICATION"), "{script}");
    server.sql("SELECT pg_drop_replication_slot('taken')");
    assert_eq!(check(&world).0, 0);
}

fn tls_refuses_a_wrong_certificate_and_a_wrong_name(kind: &SourceKind) {
    let right = Tls::for_localhost("rollcall").unwrap();
    let stranger = Tls::for_localhost("rollcall").unwrap();
    let with_tls = |server: &Arc<dyn Server>, mode: &str, trusted: &Tls, own: &Tls| {
        let line = format!(
            "tls = {{ mode = \"{mode}\", ca = \"{}\", cert = \"{}\", key = \"{}\" }}",
            trusted.ca().display(),
            own.client_cert().display(),
            own.client_key().display()
        );
        with(server, &line)
    };
    let start = |tls: &Tls| {
        (kind.start)(&Setup {
            tls: Some(tls),
            ..Setup::default()
        })
    };
    let server = start(&right);
    let world = with_tls(&server, "verify-full", &right, &right);
    let daemon = world.streaming();
    daemon.settle();
    world.assert_equal();
    daemon.stop();
    assert_eq!(check(&world).0, 0);
    for mode in ["verify-full", "verify-ca"] {
        let world = with_tls(&server, mode, &stranger, &right);
        assert_refused(&world, "tls_unknown_authority");
    }

    let elsewhere = Tls::for_names(&["db.example.org"], "rollcall").unwrap();
    let server = start(&elsewhere);
    let world = with_tls(&server, "verify-full", &elsewhere, &elsewhere);
    assert_refused(&world, "tls_wrong_name");
    let world = with_tls(&server, "verify-ca", &elsewhere, &elsewhere);
    assert_eq!(check(&world).0, 0);
}

fn a_view_is_refused_without_a_key_and_where_polling_is_not_allowed(kind: &SourceKind) {
    let server = (kind.start)(&Setup::default());
    server.sql("CREATE VIEW staff AS SELECT * FROM people");
    server.sql("GRANT SELECT ON staff TO rollcall");
    let world = World::on(Arc::clone(&server), &Options::default());
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace(&server.table("people"), &server.table("staff"));
    world.write_config(&text);
    assert_refused(&world, "no_key");
    let poll = "poll = { mode = \"never\" }\nkey = [\"id\"]\n[source.hr.map]";
    world.write_config(&text.replace("[source.hr.map]", poll));
    assert_refused(&world, "not_followable");
    let daemon = world.start();
    let status = daemon.until("the view to be refused", |s| {
        s["sources"][0]["state"] == "refused"
    });
    let reason = status["sources"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("view"), "{reason}");
    assert_eq!(status["users"], 0);
    daemon.stop();
}

#[test]
fn a_table_without_a_key_is_refused_before_the_application_is_hurt() {
    let server = Arc::new(prepared(Postgres::builder()));
    server.sql(
        "CREATE TABLE keyless (LIKE people);
         GRANT SELECT ON keyless TO rollcall;",
    );
    let world = World::on(Arc::clone(&server) as _, &Options::default());
    // Published without a key, its own updates would fail: the script warns, nothing is made.
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&text.replace("public.people", "public.keyless"));
    let (exit, errors, checked) = check(&world);
    assert_eq!(exit, 4, "{checked}");
    assert!(!errors.is_empty(), "{checked}");
    let daemon = world.start();
    daemon.until("the table to be refused", |s| {
        s["sources"][0]["state"] == "refused"
    });
    daemon.stop();
    let slots = server.sql("SELECT count(*) FROM pg_replication_slots");
    assert_eq!(slots, "0", "a slot was left behind");
}

fn a_configuration_that_is_not_valid_ends_with_its_own_code_and_names_the_line(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    let good = std::fs::read_to_string(world.config()).unwrap();
    let bad = good
        .replace("[source.hr.map]", "tabel = \"x\"\n[source.hr.map]")
        .replace("type = \"ndjson\"", "type = \"ndjson\"\nrotate_keep = 0");
    world.write_config(&bad);
    for command in [&["run"][..], &["check"], &["status"]] {
        let output = world.rollcall(command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{command:?}: {said}");
        let line = bad.lines().position(|l| l.starts_with("tabel")).unwrap() + 1;
        assert!(said.contains(&format!("rollcall.toml:{line}")), "{said}");
        assert!(said.contains("tabel") && said.contains("table"), "{said}");
        assert!(said.contains("rotate_keep"), "all errors at once: {said}");
    }
    world.write_config(&good.replace(
        "\n[source.hr.map]",
        "\npassword = \"plain\"\n[source.hr.map]",
    ));
    let output = world.rollcall(&["run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("secret seal") && !said.contains("plain\""),
        "{said}"
    );
    // A mapping is checked against the table.
    world.write_config(&good.replace("department = \"department\"", "department = \"departmnt\""));
    let (exit, errors, checked) = check(&world);
    assert_eq!((exit, errors), (4, vec!["mapping".to_owned()]), "{checked}");
    assert_eq!(world.rollcall(&["nonsense"]).status.code(), Some(2));
    std::fs::remove_file(world.config()).unwrap();
    assert_eq!(world.rollcall(&["run"]).status.code(), Some(3));
}

fn a_question_that_has_no_answer_has_its_own_code(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    assert_eq!(
        world.rollcall(&["status"]).status.code(),
        Some(5),
        "there is no store yet"
    );
    let daemon = world.streaming();
    assert_eq!(
        world
            .rollcall(&["users", "show", "nobody@example.com"])
            .status
            .code(),
        Some(9)
    );
    assert_eq!(world.rollcall(&["verify", "crm"]).status.code(), Some(9));
    assert_eq!(world.rollcall(&["check", "crm"]).status.code(), Some(9));
    daemon.stop();
    let status = world.json(&["status"]);
    assert_eq!(status["running"], false);
    assert_eq!(status["sources"][0]["state"], "streaming", "what it left");
}
