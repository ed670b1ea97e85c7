//! Tables and files that nobody would make on purpose: each works, or is refused with the
//! place and the fix, and nothing else suffers.

use std::sync::Arc;

use rollcall_testbed::{Postgres, Process};

use crate::company::{hire, hire_all, hire_with};
use crate::fold::{assert_same, expected};
use crate::sources::{Server as _, prepared, prepared_in};
use crate::world::{Options, PATIENCE, World};

/// A configuration of the world's server for another table: the lines of the source beside
/// the connection, and the lines of its map.
fn configure(world: &World, server: &Postgres, source: &str, map: &str) {
    let folder = world.store().parent().unwrap().display().to_string();
    world.write_config(&format!(
        "organization = \"acme\"\n[store]\npath = \"{folder}/store\"\n\
         [source.hr]\n{}\nretry_max = \"1s\"\nlimit = {{ action = \"off\" }}\n{source}\n[source.hr.map]\n{map}\n\
         [sink.file]\ntype = \"ndjson\"\npath = \"{folder}/events.ndjson\"\n",
        server.connection(),
    ));
}

fn is_there(world: &World, user: &str) -> bool {
    world.rollcall(&["users", "show", user]).status.success()
}

/// What the program calls a user's record finds the user again.
fn assert_found_by_its_record(world: &World, email: &str) {
    let user = world.json(&["users", "show", email]);
    let record = user["links"][0]["record"].as_str().unwrap();
    assert!(is_there(world, &format!("hr:{record}")), "{record}");
}

#[test]
fn text_in_no_encoding_fails_its_record_alone_from_pages_and_from_the_log() {
    let no_encoding = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let server = Arc::new(prepared_in(Postgres::builder(), no_encoding));
    let badges = format!(
        "[source.badges]\n{}\ntable = \"public.badges\"\nbatch = {{ page_rows = 1 }}\n\
         [source.badges.map]\nemail = \"mail\"\ntitle = \"title\"\n",
        server.connection()
    );
    // Pages of one row: each begins behind the key of the one before.
    let options = Options::pages_of(1).and(&badges);
    let world = World::on(Arc::clone(&server) as _, &options);
    world.db.sql(&hire_all(5));
    world.db.sql(
        r"UPDATE people SET job_title = E'Andr\xe9' WHERE id = 2;
          INSERT INTO badges VALUES (E'\xe9t\xe9', 'a@example.com', 'x', 'y'),
            ('z', 'b@example.com', 'x', 'y');",
    );
    let daemon = world.streaming();
    daemon.settle();
    assert!(is_there(&world, "hr:1") && is_there(&world, "hr:5"));
    assert!(!is_there(&world, "hr:2"), "its title is no text");
    assert_eq!(daemon.status()["held"]["bad_value"], 1);
    assert!(is_there(&world, "a@example.com") && is_there(&world, "b@example.com"));

    world.db.sql(
        r"UPDATE people SET job_title = E'Ren\xe9e' WHERE id = 4;
          UPDATE people SET job_title = 'Andre' WHERE id = 2;
          UPDATE badges SET title = 'later' WHERE mail = 'a@example.com';",
    );
    daemon.settle();
    assert!(is_there(&world, "hr:2"));
    let fields = |user: &str| world.json(&["users", "show", user])["fields"].to_string();
    assert!(
        fields("hr:4").contains("\"Employee\""),
        "it stays as it was: {}",
        fields("hr:4")
    );
    daemon.until("the record with that key to follow", |_| {
        fields("a@example.com").contains("later")
    });
    assert_eq!(daemon.status()["sources"][0]["state"], "streaming");
}

#[test]
fn names_with_quotes_dots_capitals_and_letters_of_the_world_are_followed() {
    const TABLE: &str = r#""H.R ""Süd"""."Mit.arbeiter ""Ä""""#;
    let server = Arc::new(prepared(Postgres::builder()));
    server.sql(&format!(
        r#"CREATE SCHEMA "H.R ""Süd""";
           CREATE TABLE {TABLE} (
             "Nr." int, "O'rt" text, "E-Mail ""privat""" text, "名前" text, "select" text,
             "a\b" text, "two
lines = 1" text, PRIMARY KEY ("Nr.", "O'rt"));
           GRANT USAGE ON SCHEMA "H.R ""Süd""" TO rollcall;
           GRANT SELECT ON {TABLE} TO rollcall;
           ALTER PUBLICATION rollcall ADD TABLE {TABLE};
           INSERT INTO {TABLE} VALUES (1, 'Köln, "Mitte"', 'a@example.com', '山田', 'x', 'y'),
             (1, 'Bonn:1', 'b@example.com', NULL, 'x', 'y');"#
    ));
    let world = World::on(Arc::clone(&server) as _, &Options::default());
    // A configuration to begin with can be read whatever the columns are called.
    let url = format!("postgres://rollcall@127.0.0.1:{}/hr", server.port());
    let first = world.store().with_file_name("first.toml");
    let written = world
        .command(&["discover", "--url", &url, "--table", TABLE])
        .arg("--write-config")
        .arg(&first)
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    let text = std::fs::read_to_string(&first).unwrap();
    let written: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(
        written["source"]["hr"]["table"].as_str(),
        Some(TABLE),
        "{text}"
    );

    configure(
        &world,
        &server,
        &format!("table = '{TABLE}'\nredact = ['a\\b']\nscope = \"row['select'] == 'x'\""),
        "email = 'E-Mail \"privat\"'\n\
         displayName = { expr = \"coalesce(row['名前'], '?')\" }\nname.familyName = \"two\\nlines = 1\"",
    );
    let checked = world.rollcall(&["check", "hr"]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    let daemon = world.streaming();
    server.sql(&format!(
        r#"UPDATE {TABLE} SET "E-Mail ""privat""" = 'c@example.com', "O'rt" = 'Bonn|2'
           WHERE "O'rt" = 'Bonn:1'"#
    ));
    daemon.until("the update", |_| is_there(&world, "c@example.com"));
    let user = world.json(&["users", "show", "a@example.com"]);
    assert!(user.to_string().contains("山田"), "{user}");
    assert_found_by_its_record(&world, "a@example.com");
    assert_found_by_its_record(&world, "c@example.com");
    world.assert_verified();
}

#[test]
fn keys_of_every_usual_type_order_pages_and_are_found_again() {
    let server = Arc::new(prepared(Postgres::builder()));
    server.sql(
        "CREATE EXTENSION citext;
         CREATE TABLE odd (
           u uuid, t timestamptz, n numeric, c citext, d date, b boolean, x bytea, mail text,
           PRIMARY KEY (u, t, n, c, d, b, x));
         INSERT INTO odd SELECT
           ('00000000-0000-0000-0000-00000000000' || (i % 3))::uuid,
           timestamptz '2024-03-31 00:30:00+00' + (i / 9) * interval '13 min 0.000001 s',
           CASE i % 4 WHEN 0 THEN 1.0 WHEN 1 THEN 1.000 + i WHEN 2 THEN -0.5 ELSE 'NaN' END,
           CASE i % 2 WHEN 0 THEN 'Straße' ELSE 'o''neil, \"x\"' END || i,
           date '1999-12-31' + i, i % 2 = 0, decode(lpad(to_hex(i), 4, '0'), 'hex'),
           'odd.' || i || '@example.com'
         FROM generate_series(1, 60) i;",
    );
    server.relate("odd");
    let world = World::on(Arc::clone(&server) as _, &Options::default());
    let source = "table = \"public.odd\"\nbatch = { page_rows = 7 }";
    configure(&world, &server, source, "email = \"mail\"");
    let daemon = world.streaming();
    assert_eq!(daemon.status()["users"], 60);
    world.assert_verified();
    // A change of any part of the key is a rename.
    server.sql(
        "UPDATE odd SET n = n + 0.10 WHERE n <> 'NaN';
         UPDATE odd SET t = t + interval '1 year', c = upper(c::text), b = NOT b;
         DELETE FROM odd WHERE mail LIKE 'odd.1_@%';",
    );
    daemon.until("the leavers", |status| status["active"] == 50);
    assert_eq!(daemon.status()["users"], 60);
    world.assert_verified();
    assert_found_by_its_record(&world, "odd.7@example.com");
}

#[test]
fn a_table_of_a_thousand_columns_is_followed() {
    let server = Arc::new(prepared(Postgres::builder()));
    let columns: Vec<String> = (0..990).map(|n| format!("ADD wide_{n} text")).collect();
    server.sql(&format!("ALTER TABLE people {}", columns.join(", ")));
    let world = World::on(Arc::clone(&server) as _, &Options::default());
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    world
        .db
        .sql("UPDATE people SET wide_989 = 'x', job_title = 'Wide' WHERE id = 7");
    world.db.sql(&hire_with(30, &[("wide_500", "y")]));
    daemon.settle();
    world.assert_equal();
    world.assert_verified();
}

/// A limit for the size of a file stands in for a disk that is full.
#[test]
fn a_store_that_cannot_be_written_ends_the_daemon_with_its_code_and_loses_nothing() {
    let world = World::on(
        Arc::new(prepared(Postgres::builder())),
        &Options::pages_of(100),
    );
    world.db.sql(
        "INSERT INTO people (id, first_name, job_title)
         SELECT i, 'Ann', repeat(md5(i::text), 60) FROM generate_series(1, 3000) i",
    );
    let run = format!(
        "trap '' XFSZ; ulimit -f 4096; exec {} -c {} run",
        env!("CARGO_BIN_EXE_rollcall"),
        world.config().display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &run]);
    let daemon = Process::spawn(command).unwrap();
    let status = daemon.wait_timeout(PATIENCE).unwrap();
    let said = daemon.stderr();
    assert_eq!(status.code(), Some(5), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains("store"),
        "{last}"
    );
    assert!(!said.contains("panicked"), "{said}");

    let daemon = world.streaming();
    daemon.settle();
    let events = world.events(1);
    events.assert_whole();
    assert_same(&events.fold(), &expected(&world.db.people()));
    world.assert_verified();
}

#[test]
fn a_configuration_of_another_organization_leaves_the_store_alone() {
    let world = World::on(Arc::new(prepared(Postgres::builder())), &Options::default());
    world.db.sql(&hire(1));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    let good = std::fs::read_to_string(world.config()).unwrap();
    world.write_config(&good.replace("organization = \"acme\"", "organization = \"other\""));
    for call in [&["run"][..], &["status"], &["users", "list"], &["runs"]] {
        let output = world.rollcall(call);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains("acme") && said.contains("other"), "{said}");
    }
    world.write_config(&good);
    let daemon = world.streaming();
    daemon.settle();
    world.assert_equal();
}
