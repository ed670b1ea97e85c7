//! What may have been lost is a gap, and a gap is closed by reading everything again.
//!
//! Each test changes the table while nobody can tell from the log, and finds the directory
//! equal to the source afterwards, leavers included.

use std::sync::Arc;

use rollcall_testbed::{Postgres, wait_for};

use crate::company::{hire, hire_all};
use crate::fold::Events;
use crate::sources::{Replica, Server, Setup, SourceKind, every_source, prepared};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_log_that_was_lost_is_a_gap_and_never_a_silent_restart,
    an_outage_with_a_purged_log_ends_equal_to_the_source_with_leavers,
    a_restored_database_is_a_gap,
    another_server_behind_the_address_is_a_gap,
    a_table_made_anew_is_a_gap,
    a_replica_promoted_with_none_lost_goes_on,
    a_replica_promoted_with_lost_transactions_is_a_gap,
);

const PEOPLE: u64 = 150;

/// Changes of every sort; the leavers are few enough to be believed.
const UNSEEN: &str = "
UPDATE people SET job_title = 'Unseen' WHERE id = 1;
DELETE FROM people WHERE id IN (2, 149);
UPDATE people SET id = 20000 WHERE id = 4;
UPDATE people SET kind = 'contractor' WHERE id = 5;
";

fn world(server: Arc<dyn Server>) -> World {
    let world = World::on(server, &Options::pages_of(5));
    world.db.sql(&hire_all(PEOPLE));
    world
}

fn world_of(kind: &SourceKind) -> World {
    world((kind.start)(&Setup::default()))
}

/// Loads everybody and stops.
fn loaded(world: &World) {
    let daemon = world.streaming();
    daemon.settle();
    daemon.stop();
}

/// Waits until the gap was seen in the status, closed again, and everything is equal.
fn until_closed(world: &World, daemon: &Daemon<'_>, reason: &str) -> Events {
    daemon.until("the gap in the status", |status| {
        let gaps = status["sources"][0]["gaps"].as_array().unwrap();
        gaps.iter()
            .any(|gap| gap["reason"] == reason && gap["detail"].as_str().unwrap().len() > 20)
    });
    daemon.until_streaming();
    daemon.settle();
    let events = world.assert_equal();
    assert!(
        events.gaps().iter().any(|r| r == reason),
        "{:?}",
        events.gaps()
    );
    world.assert_verified();
    events
}

fn a_log_that_was_lost_is_a_gap_and_never_a_silent_restart(kind: &SourceKind) {
    let world = world_of(kind);
    loaded(&world);
    let fourth = world.events(0).user_id(4);
    world.db.sql(UNSEEN);
    world.db.lose_log();
    let daemon = world.start();
    let events = until_closed(&world, &daemon, "position_lost");
    // Nobody saw the key change, and still it is the same person.
    assert_eq!(events.user_id(20_000), fourth);
}

/// How many people left for good.
fn left(events: &Events) -> usize {
    let count = |kind: &str| events.of_type(kind).len();
    count("user.deactivated") - count("user.activated")
}

fn an_outage_with_a_purged_log_ends_equal_to_the_source_with_leavers(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let limited = Options {
        limit: Some("{ max_changes = 20, max_percent = 100 }".to_owned()),
        ..Options::pages_of(5)
    };
    let (options, proxy) = limited.slowed(&*db);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(PEOPLE));
    let daemon = world.streaming();
    daemon.settle();
    // The daemon lives, and its server is out of reach for as long as its log is kept.
    proxy.refuse(true);
    proxy.cut();
    daemon.until("the source to be away", |s| {
        s["sources"][0]["state"] == "waiting"
    });
    world.db.sql(UNSEEN);
    world
        .db
        .sql("DELETE FROM people WHERE id BETWEEN 100 AND 109");
    world.db.lose_log();
    proxy.refuse(false);
    let events = until_closed(&world, &daemon, "position_lost");
    // Who got another key left with the old one, and is back with the new one.
    assert_eq!(left(&events), 13);
    // The same with more leavers than are believed.
    proxy.refuse(true);
    proxy.cut();
    daemon.until("the source to be away", |s| {
        s["sources"][0]["state"] == "waiting"
    });
    world
        .db
        .sql("DELETE FROM people WHERE id BETWEEN 10 AND 90");
    world.db.sql(&hire(500));
    world.db.lose_log();
    proxy.refuse(false);
    let status = daemon.until("the leavers to wait", |s| {
        s["sources"][0]["plan"]["records"] == 81 && s["sources"][0]["state"] == "streaming"
    });
    daemon.settle();
    let events = world.events(0);
    assert_eq!(left(&events), 13);
    assert!(events.user_id(500).is_some(), "joiners do not wait");
    let hash = status["sources"][0]["plan"]["hash"].as_str().unwrap();
    let said = world.rollcall(&["plan", "approve", hash]);
    assert!(said.status.success(), "{said:?}");
    daemon.until_delivered();
    let events = world.assert_equal();
    assert_eq!(left(&events), 13 + 81);
    world.assert_verified();
}

#[test]
fn a_slot_that_was_advanced_is_a_gap() {
    let server = Arc::new(prepared(Postgres::builder()));
    let world = world(Arc::clone(&server) as _);
    loaded(&world);
    server.sql(UNSEEN);
    server.sql("SELECT pg_replication_slot_advance('rollcall_hr', pg_current_wal_lsn())");
    let daemon = world.start();
    until_closed(&world, &daemon, "slot_advanced");
}

#[test]
fn a_slot_that_was_invalidated_is_a_gap() {
    let small = Postgres::builder()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let server = Arc::new(prepared(small));
    let world = world(Arc::clone(&server) as _);
    loaded(&world);
    server.sql(UNSEEN);
    server.sql("CREATE TABLE noise (t text)");
    let state = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'rollcall_hr'";
    wait_for(PATIENCE, "the slot to be invalidated", || {
        let noise = "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000);
                     SELECT pg_switch_wal(); CHECKPOINT;";
        server.psql("hr", noise).map_err(|e| e.to_string())?;
        match server.sql(state) {
            lost if lost == "lost" => Ok(()),
            other => Err(other),
        }
    })
    .unwrap();
    let daemon = world.start();
    until_closed(&world, &daemon, "slot_invalidated");
}

fn a_restored_database_is_a_gap(kind: &SourceKind) {
    let world = world_of(kind);
    loaded(&world);
    let backup = world.db.back_up();
    let daemon = world.streaming();
    world.db.sql(UNSEEN);
    // Enough that the restored server's log ends well before what we have seen.
    let many: String = (30_001..30_004).map(hire).collect();
    let fill = "UPDATE people SET department = repeat('x', 3000) WHERE id > 20000;";
    world.db.sql(&format!("{many}{}", fill.repeat(30)));
    daemon.settle();
    daemon.stop();
    world.db.kill9();
    world.db.restore(&backup);
    let daemon = world.start();
    until_closed(&world, &daemon, "restored");
}

fn another_server_behind_the_address_is_a_gap(kind: &SourceKind) {
    let world = world_of(kind);
    loaded(&world);
    let other = (kind.start)(&Setup::default());
    other.sql(&hire_all(PEOPLE));
    other.sql(UNSEEN);
    world.configure(&*other, &Options::pages_of(5));
    let daemon = world.start();
    daemon.until("the gap in the status", |status| {
        let gaps = status["sources"][0]["gaps"].as_array().unwrap();
        // A server without an identity of its own has only other transactions.
        gaps.iter()
            .any(|gap| gap["reason"] == "other_server" || gap["reason"] == "timeline_diverged")
    });
    daemon.until_streaming();
    world.assert_verified();
}

fn a_table_made_anew_is_a_gap(kind: &SourceKind) {
    let world = world_of(kind);
    let daemon = world.streaming();
    daemon.settle();
    world.db.sql(&world.db.table_anew_without(7));
    until_closed(&world, &daemon, "table_recreated");
}

/// A world whose server has a replica.
fn replicated(kind: &SourceKind) -> (World, Box<dyn Replica>) {
    let setup = Setup {
        replicated: true,
        ..Setup::default()
    };
    let primary = (kind.start)(&setup);
    let world = world(Arc::clone(&primary));
    (world, primary.replica())
}

fn a_replica_promoted_with_none_lost_goes_on(kind: &SourceKind) {
    let (world, replica) = replicated(kind);
    let daemon = world.streaming();
    replica.until_ready(&world);
    daemon.settle();
    replica.catch_up();
    daemon.stop();
    world.db.kill9();
    replica.promote();
    let after = moved(world, replica.server());
    after.db.sql(UNSEEN);
    let daemon = after.streaming();
    daemon.settle();
    let events = after.assert_equal();
    assert_eq!(events.gaps(), Vec::<String>::new());
    after.assert_verified();
}

fn a_replica_promoted_with_lost_transactions_is_a_gap(kind: &SourceKind) {
    let (world, replica) = replicated(kind);
    let daemon = world.streaming();
    replica.until_ready(&world);
    replica.cut_off();
    world.db.sql(UNSEEN);
    daemon.settle();
    daemon.stop();
    world.db.kill9();
    replica.promote();
    let after = moved(world, replica.server());
    let daemon = after.start();
    until_closed(&after, &daemon, "timeline_diverged");
}

/// The same directory, with the source at another address.
fn moved(world: World, server: Arc<dyn Server>) -> World {
    world.configure(&*server, &Options::pages_of(5));
    world.with_server(server)
}
