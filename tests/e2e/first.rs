//! The first steps: from a server's address to a configuration that works.

use serde_json::Value;

use crate::company::hire_all;
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, World};

every_source!(what_discover_writes_is_a_configuration_that_checks_and_previews);

fn what_discover_writes_is_a_configuration_that_checks_and_previews(kind: &SourceKind) {
    let server = (kind.start)(&Setup {
        password: Some("first steps"),
        ..Setup::default()
    });
    server.sql(&hire_all(12));
    let world = World::on(server, &Options::default());
    std::fs::remove_file(world.config()).unwrap();
    let (url, variable) = world.db.url();
    let run = |args: &[&str]| {
        let output = world
            .command(args)
            .env(variable, "first steps")
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {why}");
        String::from_utf8(output.stdout).unwrap()
    };

    let found: Value = serde_json::from_str(&run(&["discover", "--url", &url, "--json"])).unwrap();
    let tables = found.as_array().unwrap();
    let people = tables
        .iter()
        .find(|t| t["schema"]["table"]["name"] == "people")
        .unwrap();
    assert_eq!(people["schema"]["columns"].as_array().unwrap().len(), 11);
    assert_eq!(people["schema"]["key"], serde_json::json!([0]));
    assert_eq!(people["obstacle"], Value::Null, "{people}");
    assert!(
        tables
            .iter()
            .any(|t| t["schema"]["table"]["name"] == "badges"),
        "{found}"
    );

    let config = world.config().display().to_string();
    let write = [
        "discover",
        "--url",
        &url,
        "--table",
        "people",
        "--write-config",
    ];
    run(&[&write[..], &[&config]].concat());
    let twice = world.rollcall(&[&write[..], &[&config]].concat());
    assert!(!twice.status.success(), "a file is never written over");

    let text = std::fs::read_to_string(world.config()).unwrap();
    let store = world.store().display().to_string();
    world.write_config(&text.replace("/var/lib/rollcall", &store));
    run(&["check"]);
    let rows: Value = serde_json::from_str(&run(&["preview", "--limit", "2", "--json"])).unwrap();
    assert!(rows.to_string().contains("person.1@example.com"), "{rows}");
    assert!(run(&["discover", "hr", "--table", "people"]).contains("email"));
}
