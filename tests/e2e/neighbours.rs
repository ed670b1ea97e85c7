//! A source that fails, or brings more than anybody can take in at once, is its own affair.

use std::time::{Duration, Instant};

use rollcall_testbed::{Proxy, wait_until};
use serde_json::Value;

use crate::company::{hire, hire_all};
use crate::health::get;
use crate::sources::{Server, Setup, SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_source_that_fails_or_floods_does_not_slow_its_neighbours,
    what_fails_for_long_is_quarantined_and_leaves_by_itself_or_by_an_order,
);

/// Rows of a flood: some seconds of work.
const FLOOD: u64 = 40_000;

/// A second source, of badges or of people.
fn beside(name: &str, connection: &str, table: &str, more: &str) -> String {
    let map = match table.ends_with("badges") {
        true => "email = \"mail\"\ntitle = \"title\"\n",
        false => "email = \"email\"\ntitle = \"job_title\"\n",
    };
    format!(
        "[source.{name}]\n{connection}\ntable = \"{table}\"\nlimit = {{ action = \"off\" }}\n\
         {more}\n[source.{name}.map]\n{map}"
    )
}

/// The badges of a server behind a proxy.
fn behind_proxy(db: &dyn Server, more: &str) -> (String, Proxy) {
    let direct = db.connection();
    let port = direct.lines().find_map(|l| l.strip_prefix("port = "));
    let port = port.expect("a connection has a port");
    let proxy = Proxy::start(&format!("127.0.0.1:{port}")).unwrap();
    let through = format!("port = {}", proxy.port());
    let connection = direct.replace(&format!("port = {port}"), &through);
    (
        beside("gone", &connection, &db.table("badges"), more),
        proxy,
    )
}

fn state<'s>(status: &'s Value, name: &str) -> (&'s str, &'s str) {
    let sources = status["sources"].as_array().unwrap();
    let source = sources.iter().find(|s| s["name"] == name);
    let source = source.expect("the source is there");
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    (text("state"), text("reason"))
}

fn until(daemon: &Daemon<'_>, name: &str, wanted: &str) -> Value {
    let what = format!("{name} to be {wanted}");
    daemon.until(&what, |status| state(status, name).0 == wanted)
}

/// The states that the events told of a source, in order.
fn told(world: &World, name: &str) -> Vec<String> {
    let events = world.events(9);
    let changes = events.of_type("source.state_changed");
    let of_source = changes.iter().filter(|e| e["data"]["source"] == name);
    of_source
        .map(|e| e["data"]["state"].as_str().unwrap().to_owned())
        .collect()
}

fn a_source_that_fails_or_floods_does_not_slow_its_neighbours(kind: &SourceKind) {
    let (db, flooded) = (
        (kind.start)(&Setup::default()),
        (kind.start)(&Setup::default()),
    );
    let (gone, proxy) = behind_proxy(&*db, "retry_max = \"200ms\"\nquarantine_after = \"1d\"");
    let flood = beside("flood", &flooded.connection(), &flooded.table("people"), "");
    let options = Options::default().and(&gone).and(&flood);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    daemon.stop();
    let numbers = flooded.numbers(1_000_001, 1_000_000 + FLOOD);
    flooded.sql(&format!(
        "INSERT INTO people (id, first_name, last_name, email) \
         SELECT n, 'Flo', 'Od', CONCAT('flood.', n, '@example.com') FROM {numbers}"
    ));
    proxy.refuse(true);

    let daemon = world.start();
    until(&daemon, "hr", "streaming");
    let is_over = |status: &Value| status["users"].as_u64() > Some(FLOOD);
    let (mut meanwhile, mut slowest) = (0, Duration::ZERO);
    for id in 100.. {
        world.db.sql(&hire(id));
        let (began, record) = (Instant::now(), format!("hr:{id}"));
        wait_until(PATIENCE, "a change beside the flood to arrive", || {
            let shown = world.rollcall(&["users", "show", &record]);
            shown.status.success()
        })
        .unwrap();
        slowest = slowest.max(began.elapsed());
        let status = daemon.status();
        assert_eq!(state(&status, "hr").0, "streaming", "{status}");
        if is_over(&status) {
            break;
        }
        meanwhile += 1;
    }
    assert!(meanwhile >= 3, "{meanwhile} changes came beside the flood");
    assert!(
        slowest < Duration::from_secs(5),
        "a change took {slowest:?} beside the flood"
    );
    let status = daemon.status();
    let (failing, _) = state(&status, "gone");
    assert!(["waiting", "connecting"].contains(&failing), "{failing}");
    // Its attempts are no news to anybody.
    assert!(
        daemon
            .process
            .log()
            .matches("source=\"gone\" state=\"waiting\"")
            .count()
            > 3
    );
    assert_eq!(
        told(&world, "gone")
            .iter()
            .filter(|s| *s == "waiting")
            .count(),
        1
    );
    daemon.stop();
}

fn what_fails_for_long_is_quarantined_and_leaves_by_itself_or_by_an_order(kind: &SourceKind) {
    let port = rollcall_testbed::free_port().unwrap();
    let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n");
    let db = (kind.start)(&Setup::default());
    let more = "retry_max = \"3s\"\nquarantine_after = \"3s\"";
    let (gone, proxy) = behind_proxy(&*db, more);
    let world = World::on(db, &Options::default().and(&api).and(&gone));
    world.db.sql(&hire_all(5));
    let daemon = world.streaming();
    let break_it = || {
        proxy.refuse(true);
        proxy.cut();
        until(&daemon, "gone", "waiting");
        until(&daemon, "gone", "quarantined")
    };
    let status = break_it();
    let (_, reason) = state(&status, "gone");
    assert!(
        reason.starts_with("It has failed ") && reason.contains("rollcall sync gone"),
        "{reason}"
    );
    assert_eq!(state(&status, "hr").0, "streaming");
    let metrics = get(port, "/metrics").1;
    assert!(
        metrics.contains("rollcall_source_state{source=\"gone\",state=\"quarantined\"} 1"),
        "{metrics}"
    );
    let (code, why) = get(port, "/readyz");
    assert!(code == 503 && why.contains("quarantined"), "{code} {why}");
    // What it has is in the events, once, and its neighbour goes on.
    daemon.settle();
    let states = told(&world, "gone");
    assert_eq!(
        states[states.len() - 2..],
        ["waiting", "quarantined"],
        "{states:?}"
    );

    // By itself …
    proxy.refuse(false);
    until(&daemon, "gone", "streaming");
    // … once the connection has held for a while, and an order tries at once.
    std::thread::sleep(Duration::from_secs(4));
    break_it();
    proxy.refuse(false);
    let began = Instant::now();
    let ordered = world.rollcall(&["sync", "gone", "--detach"]);
    let why = String::from_utf8_lossy(&ordered.stderr);
    assert!(ordered.status.success(), "{why}");
    daemon.until("an attempt at once", |status| {
        ["scanning", "streaming"].contains(&state(status, "gone").0)
    });
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(12),
        "{took:?}\n{}",
        daemon.process.log()
    );
    until(&daemon, "gone", "streaming");
    assert_eq!(get(port, "/readyz").0, 200);
    daemon.stop();
}
