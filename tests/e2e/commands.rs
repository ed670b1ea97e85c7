//! The commands, as people and programs use them.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::Arc;

use rollcall_testbed::Postgres;
use serde_json::Value;

use crate::company::{hire, hire_all, hire_with};
use crate::sources::{Server as _, prepared};
use crate::world::{Options, World};

fn world() -> World {
    World::on(Arc::new(prepared(Postgres::builder())), &Options::default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command with `--json`; every line of `events`, else the whole output, is a document.
fn json(world: &World, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = world.command(args).arg("--json").output().unwrap();
    let said = text(&output.stdout);
    let documents = match args[0] {
        "events" => said.lines().map(serde_json::from_str).collect(),
        _ => serde_json::from_str(&said).map(|one| vec![one]),
    };
    let documents: Result<Vec<Value>, _> = documents;
    let documents = documents.unwrap_or_else(|e| panic!("{args:?}: {e}: {said:?}, {output:?}"));
    (output.status.code(), documents)
}

#[test]
fn every_command_has_examples_and_answers_in_json() {
    let world = world();
    world.db.sql(&hire_all(5));
    let help = text(&world.rollcall(&["--help"]).stdout);
    let (_, listed) = help.split_once("Commands:").unwrap();
    let (listed, _) = listed.split_once("Options:").unwrap();
    let mut commands: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(help.contains("Exit codes: 0 done"), "{help}");
    commands.sort_unstable();
    for command in &commands {
        let help = text(&world.rollcall(&[command, "--help"]).stdout);
        assert!(help.contains("Example"), "{help}");
    }

    let fixture = world.store().with_file_name("tests.toml");
    std::fs::write(
        &fixture,
        "[[test]]\nname = \"a default\"\nrow = { id = 1, kind = \"employee\" }\nexpect = { title = \"Employee\" }\n",
    )
    .unwrap();
    let fixture = fixture.display().to_string();
    let plan = world.store().with_file_name("plan.json");
    let plan = plan.display().to_string();
    let daemon = world.streaming();
    daemon.settle();
    let written = world.rollcall(&["plan", "hr", "--out", &plan]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let calls: &[&[&str]] = &[
        &["check"],
        &["check", "hr", "--script"],
        &["discover", "hr"],
        &["preview", "hr", "--limit", "3"],
        &["status"],
        &["users", "list"],
        &["users", "search", "Kov"],
        &["users", "show", "hr:1"],
        &["conflicts", "--all"],
        &["events", "--after", "0"],
        &["runs"],
        &["verify", "hr"],
        &["mapping", "test", &fixture],
        &["plan", "list"],
        &["plan", "hr"],
        &["undo", "--since", "1h"],
        &["apply", &plan],
        &["reconcile", "hr"],
        &["sync", "hr"],
        &["sync", "hr", "--key", "1"],
        &["config", "--explain", "source.*.scope"],
        &["config", "schema"],
        &["secret", "generate-key"],
    ];
    for call in calls {
        let (code, documents) = json(&world, call);
        assert_eq!(code, Some(0), "{call:?}: {documents:?}");
        assert!(!documents.is_empty(), "{call:?} said nothing");
    }
    let mut called: Vec<&str> = calls.iter().map(|call| call[0]).chain(["run"]).collect();
    called.sort_unstable();
    called.dedup();
    assert_eq!(called, commands, "a command was not called");
    // What fails is a document too, on standard error.
    let output = world.rollcall(&["users", "show", "nobody", "--json"]);
    let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &failure["exit"]),
        (Some(9), &Value::from(9))
    );
    std::fs::write(
        fixture.as_str(),
        "[[test]]\nname = \"wrong\"\nrow = { id = 1 }\nexpect = { title = \"Boss\" }\n",
    )
    .unwrap();
    assert_eq!(json(&world, &["mapping", "test", &fixture]).0, Some(6));
}

#[test]
fn a_bad_record_is_retried_when_the_mapping_changes() {
    let world = world();
    world.db.sql(&hire_all(3));
    world.db.sql(&hire_with(4, &[("level", "high")]));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(daemon.status()["held"]["type_mismatch"], 1);
    assert!(!world.rollcall(&["users", "show", "hr:4"]).status.success());
    daemon.stop();
    let good = std::fs::read_to_string(world.config()).unwrap();
    let rule = "custom.level = { expr = \"level == 'high' ? 9 : 1\" }";
    world.write_config(&good.replace("custom.level = \"level\"", rule));
    let daemon = world.streaming();
    daemon.settle();
    let user = world.json(&["users", "show", "hr:4"]);
    let fields = user["fields"].as_array().unwrap();
    let level = fields.iter().find(|f| f["attribute"] == "custom.level");
    assert_eq!(level.unwrap()["value"], "9");
    assert_eq!(daemon.status()["held"], serde_json::json!({}));
}

/// Runs a command with a text on its standard input and keys in its environment.
fn with_keys(world: &World, args: &[&str], input: &str, keys: [Option<&str>; 2]) -> Output {
    let mut command = world.command(args);
    for (name, key) in ["ROLLCALL_KEY", "ROLLCALL_PREVIOUS_KEYS"].iter().zip(keys) {
        match key {
            Some(key) => command.env(name, key),
            None => command.env_remove(name),
        };
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_sealed_password_opens_its_source_alone_and_its_key_is_rotated_while_the_daemon_runs() {
    let server = Arc::new(prepared(Postgres::builder().password_auth()));
    server.sql("ALTER ROLE rollcall PASSWORD 'sealed-mArker'");
    let plain = format!("{}\npassword = {{ env = \"UNSET\" }}", server.connection());
    let options = Options {
        connection: Some(plain.clone()),
        ..Options::default()
    };
    let world = World::on(Arc::clone(&server) as _, &options);
    let key = || {
        text(&world.rollcall(&["secret", "generate-key"]).stdout)
            .trim()
            .to_owned()
    };
    let (old, new) = (key(), key());
    let seal = [
        "secret", "seal", "--source", "hr", "--field", "password", "--write",
    ];
    let sealed = with_keys(&world, &seal, "sealed-mArker\n", [Some(&old), None]);
    assert!(sealed.status.success(), "{sealed:?}");
    let file = || std::fs::read_to_string(world.config()).unwrap();
    assert!(file().contains("sealed = \"rc1.") && !file().contains("mArker"));
    let check = |keys| with_keys(&world, &["check", "hr"], "", keys).status.code();
    assert_eq!(check([Some(&old), None]), Some(0));
    assert_eq!(check([Some(&new), None]), Some(3), "another key");
    assert_eq!(check([None, None]), Some(3), "no key");

    let mut command = world.command(&["run"]);
    command.env("ROLLCALL_KEY", &old);
    let daemon = rollcall_testbed::Process::spawn(command).unwrap();
    let keys = [Some(new.as_str()), Some(old.as_str())];
    daemon
        .wait_for_output("state=\"streaming\"", crate::world::PATIENCE)
        .unwrap();
    let before = file();
    let rotated = with_keys(&world, &["secret", "rotate"], "", keys);
    assert!(rotated.status.success(), "{rotated:?}");
    assert_ne!(file(), before);
    assert_eq!(
        check([Some(&new), None]),
        Some(0),
        "the new key alone opens it"
    );
    assert_eq!(check([Some(&old), None]), Some(3), "the old one no longer");
    world.db.sql(&hire(77));
    rollcall_testbed::wait_until(
        crate::world::PATIENCE,
        "the running daemon to go on",
        || world.rollcall(&["users", "show", "hr:77"]).status.success(),
    )
    .unwrap();
    assert!(!daemon.log().contains("mArker"));

    // The same value does not open in another source.
    let value = file();
    let value = value.lines().find(|l| l.contains("rc1.")).unwrap();
    let second = format!(
        "\n[source.crm]\n{}\nslot = \"crm\"\ntable = \"public.badges\"\n[source.crm.map]\nemail = \"mail\"\n",
        plain.replace("password = { env = \"UNSET\" }", value)
    );
    std::fs::write(world.config(), file() + &second).unwrap();
    let moved = with_keys(&world, &["check", "crm"], "", [Some(&new), None]);
    assert_eq!(moved.status.code(), Some(3), "{moved:?}");
    assert!(
        text(&moved.stderr).contains("source.crm.password"),
        "{moved:?}"
    );
    let unknown = [
        "secret", "seal", "--source", "nowhere", "--field", "password",
    ];
    let unknown = with_keys(&world, &unknown, "x", [Some(&new), None]);
    assert_eq!(unknown.status.code(), Some(9), "{unknown:?}");
}
