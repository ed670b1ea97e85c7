//! Sinks: one that is down holds back nothing, one daemon at a time, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use rollcall_testbed::{Kafka, Process, wait_until};

use crate::company::{Company, hire_all, hire_with, long_note};
use crate::fold::{Events, assert_same, expected};
use crate::sources::{Setup, SourceKind, every_source};
use crate::topic::{broker, read, sink};
use crate::world::{Options, PATIENCE, World};

every_source!(
    a_broker_that_is_down_loses_nothing_and_holds_back_no_source,
    a_second_instance_fences_the_first,
    a_second_daemon_on_the_same_store_is_refused_with_the_pid,
    a_stop_commits_and_delivers_what_was_read,
    a_file_of_events_is_rotated_and_stays_whole,
    a_sink_that_cannot_be_written_holds_back_nothing,
    a_daemon_that_starts_again_emits_nothing_twice,
);

fn a_broker_that_is_down_loses_nothing_and_holds_back_no_source(kind: &SourceKind) {
    let kafka = Kafka::start().unwrap();
    let world = World::new(kind, &Options::default().and(&sink(&kafka, "away")));
    world.db.sql(&hire_all(50));
    let daemon = world.streaming();
    daemon.settle();
    // What the server knows of it, or how many changes were taken in.
    let taken_in = || {
        assert_eq!(
            world.db.acknowledged().is_some(),
            kind.keeps_log_for_readers
        );
        world
            .db
            .acknowledged()
            .or_else(|| daemon.status()["outbox_head"].as_u64())
            .unwrap()
    };
    kafka.stop().unwrap();
    let writer = Company::new(3, 50).write(Arc::clone(&world.db), Duration::from_millis(50));
    for _ in 0..4 {
        let before = taken_in();
        wait_until(PATIENCE, "the source to move on", || taken_in() > before).unwrap();
    }
    let changes = writer.end();
    daemon.until(
        &format!("the file to have the {changes} changes without the broker"),
        |status| {
            let sinks = status["sinks"].as_array().unwrap();
            let position = |name: &str| {
                let sink = sinks.iter().find(|s| s["name"] == name).unwrap();
                sink["position"].as_u64().unwrap()
            };
            position("file") > position("kafka") && status["outbox_head"] == position("file")
        },
    );
    kafka.start_again().unwrap();
    daemon.settle();
    let events = read(&kafka, "away");
    events.assert_whole();
    events.assert_once();
    assert_same(&events.fold(), &expected(&world.db.people()));
    world.assert_equal();
}

fn a_second_instance_fences_the_first(kind: &SourceKind) {
    let server = (kind.start)(&Setup::default());
    let sink = sink(broker(), &format!("fenced-{}", kind.name));
    let first = World::on(Arc::clone(&server), &Options::default().and(&sink));
    first.db.sql(&hire_all(5));
    let one = first.streaming();
    one.settle();
    let mut options = Options::default().and(&sink);
    options.source = server.second_reader().to_owned();
    let second = World::on(Arc::clone(&server), &options);
    let two = second.streaming();
    two.until("the second to deliver", |status| {
        status["sinks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["state"] == "delivering")
    });
    // The first finds out when it has something to say.
    server.sql("UPDATE people SET job_title = 'Who is told?'");
    let status = one.process.wait_timeout(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(8), "{}", one.process.log());
    let said = one.process.stderr();
    assert!(said.contains("kafka") && said.contains("fenced"), "{said}");
    assert!(two.process.is_running(), "{}", two.process.log());
}

fn a_second_daemon_on_the_same_store_is_refused_with_the_pid(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    let first = world.streaming();
    let second = Process::spawn(world.command(&["run"])).unwrap();
    let status = second.wait_timeout(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(5), "{}", second.log());
    let said = second.stderr();
    assert!(said.contains(&first.process.pid().to_string()), "{said}");
    // The first goes on, and its socket is still its own.
    first.settle();
    world.assert_equal();
}

fn a_stop_commits_and_delivers_what_was_read(kind: &SourceKind) {
    // Time enough for everything, so that nothing is left behind because it ran out.
    let patient = "[shutdown]\ngrace = \"120s\"\n";
    let world = World::new(kind, &Options::default().and(patient));
    world.db.sql(&hire_all(100));
    let mut company = Company::new(5, 100);
    for _ in 0..3 {
        let daemon = world.streaming();
        let changes: String = (0..300).map(|_| company.transaction()).collect();
        world.db.sql(&changes);
        daemon.stop();
        let stored = world.rollcall(&["events"]);
        let stored = String::from_utf8(stored.stdout).unwrap();
        let delivered = world.events(0);
        assert_eq!(
            stored.lines().count(),
            delivered.ids.len(),
            "the outbox is not delivered"
        );
        delivered.assert_once();
    }
    let daemon = world.streaming();
    daemon.settle();
    world.assert_equal().assert_once();
}

fn a_file_of_events_is_rotated_and_stays_whole(kind: &SourceKind) {
    let mut options = Options::pages_of(20);
    options.file_sink = Some("rotate_size = \"32KiB\"\nrotate_keep = 200".to_owned());
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(200));
    let daemon = world.streaming();
    for id in 300..320 {
        world.db.sql(&hire_with(id, &[("note", &long_note(id))]));
    }
    daemon.settle();
    let events = world.assert_equal();
    events.assert_once();
    let mut rotated = world.file().into_os_string();
    rotated.push(".3");
    assert!(
        std::path::Path::new(&rotated).exists(),
        "fewer than three files are full"
    );
    daemon.stop();

    // With few to keep, the oldest go.
    options.file_sink = Some("rotate_size = \"32KiB\"\nrotate_keep = 2".to_owned());
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(200));
    let daemon = world.streaming();
    daemon.settle();
    let files = std::fs::read_dir(world.file().parent().unwrap()).unwrap();
    let files = files.filter(|f| {
        let name = f.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("events.ndjson")
    });
    assert_eq!(files.count(), 3, "one to write and two to keep");
    let events = Events::of_files(&world.file(), 0);
    let last = *events.by_sequence.last_key_value().unwrap().0;
    let first = *events.by_sequence.first_key_value().unwrap().0;
    assert!(
        first > 1 && (last - first + 1) as usize == events.ids.len(),
        "{first} to {last}"
    );
}

fn a_sink_that_cannot_be_written_holds_back_nothing(kind: &SourceKind) {
    let rest = "[sink.nowhere]\ntype = \"ndjson\"\npath = \"/proc/no/such/folder\"\n\
                [sink.away]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n";
    let world = World::new(kind, &Options::default().and(rest));
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    let status = daemon.until("the file to have everything", |status| {
        let sinks = status["sinks"].as_array().unwrap();
        sinks
            .iter()
            .any(|s| s["name"] == "file" && s["position"] == status["outbox_head"])
            && status["users"] == 20
    });
    for name in ["nowhere", "away"] {
        let sink = status["sinks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["name"] == name)
            .unwrap();
        assert_ne!(sink["state"], "delivering", "{status}");
    }
    world.assert_equal();
}

fn a_daemon_that_starts_again_emits_nothing_twice(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    world.db.sql(&hire_all(30));
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
    let before = world.events(0);
    for _ in 0..2 {
        world.streaming().stop();
    }
    let after = world.events(0);
    after.assert_once();
    let users = |events: &Events| {
        events.of_type("user.created").len() + events.of_type("user.updated").len()
    };
    assert_eq!(users(&before), users(&after));
}
