//! What may have been lost is a gap, and a gap is closed by reading everything again.
//!
//! Each test changes the table while nobody can tell from the log, and finds the directory
//! equal to the source afterwards, leavers included.

use std::sync::Arc;

use rollcall_testbed::{Postgres, StandbyOptions, StopMode, wait_for};

use crate::company::{hire, hire_all};
use crate::fold::Events;
use crate::sources::{prepared, prepared_18};
use crate::world::{Daemon, Options, PATIENCE, World};

const PEOPLE: u64 = 150;
const SLOT: &str = "rollcall_hr";

/// Changes of every sort; the leavers are few enough to be believed.
const UNSEEN: &str = "
UPDATE people SET job_title = 'Unseen' WHERE id = 1;
DELETE FROM people WHERE id IN (2, 149);
UPDATE people SET id = 20000 WHERE id = 4;
UPDATE people SET kind = 'contractor' WHERE id = 5;
";

fn world(server: Postgres) -> (Arc<Postgres>, World) {
    let server = Arc::new(server);
    let world = World::on(Arc::clone(&server) as _, &Options::pages_of(5));
    server.psql("hr", &hire_all(PEOPLE)).unwrap();
    (server, world)
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

fn drop_slot(server: &Postgres) {
    let sql = format!("SELECT pg_drop_replication_slot('{SLOT}')");
    wait_for(PATIENCE, "the slot to be dropped", || {
        server.psql("hr", &sql).map_err(|e| e.to_string())
    })
    .unwrap();
}

#[test]
fn a_slot_that_was_dropped_is_a_gap_and_never_a_silent_restart() {
    let (server, world) = world(prepared(Postgres::builder()));
    loaded(&world);
    let fourth = world.events(0).user_id(4);
    drop_slot(&server);
    server.psql("hr", UNSEEN).unwrap();
    let daemon = world.start();
    let events = until_closed(&world, &daemon, "position_lost");
    // Nobody saw the key change, and still it is the same person.
    assert_eq!(events.user_id(20_000), fourth);
}

#[test]
fn a_slot_that_was_advanced_is_a_gap() {
    let (server, world) = world(prepared(Postgres::builder()));
    loaded(&world);
    server.psql("hr", UNSEEN).unwrap();
    let advance = format!("SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())");
    server.psql("hr", &advance).unwrap();
    let daemon = world.start();
    until_closed(&world, &daemon, "slot_advanced");
}

#[test]
fn a_slot_that_was_invalidated_is_a_gap() {
    let small = Postgres::builder()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let (server, world) = world(prepared(small));
    loaded(&world);
    server.psql("hr", UNSEEN).unwrap();
    server.psql("hr", "CREATE TABLE noise (t text)").unwrap();
    let state = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
    wait_for(PATIENCE, "the slot to be invalidated", || {
        let noise = "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000);
                     SELECT pg_switch_wal(); CHECKPOINT;";
        server.psql("hr", noise).map_err(|e| e.to_string())?;
        match server.psql("hr", &state).unwrap() {
            lost if lost == "lost" => Ok(()),
            other => Err(other),
        }
    })
    .unwrap();
    let daemon = world.start();
    until_closed(&world, &daemon, "slot_invalidated");
}

#[test]
fn a_restored_database_is_a_gap() {
    let (server, world) = world(prepared(Postgres::builder()));
    loaded(&world);
    let copy = server.copy_data_dir().unwrap();
    let daemon = world.streaming();
    server.psql("hr", UNSEEN).unwrap();
    // Enough that the restored server's log ends well before what we have seen.
    let many: String = (30_001..30_004).map(hire).collect();
    let fill = "UPDATE people SET department = repeat('x', 3000) WHERE id > 20000;";
    server
        .psql("hr", &format!("{many}{}", fill.repeat(30)))
        .unwrap();
    daemon.settle();
    daemon.stop();
    server.stop(StopMode::Immediate).unwrap();
    server.restore_from(&copy).unwrap();
    let daemon = world.start();
    until_closed(&world, &daemon, "restored");
}

#[test]
fn another_cluster_behind_the_address_is_a_gap() {
    let (_first, world) = world(prepared(Postgres::builder()));
    loaded(&world);
    let other = prepared(Postgres::builder());
    other.psql("hr", &hire_all(PEOPLE)).unwrap();
    other.psql("hr", UNSEEN).unwrap();
    let other: Arc<Postgres> = Arc::new(other);
    world.configure(&*other, &Options::pages_of(5));
    let daemon = world.start();
    daemon.until("the gap in the status", |status| {
        let gaps = status["sources"][0]["gaps"].as_array().unwrap();
        gaps.iter().any(|gap| gap["reason"] == "other_server")
    });
    daemon.until_streaming();
    world.assert_verified();
}

#[test]
fn a_table_made_anew_is_a_gap() {
    let (server, world) = world(prepared(Postgres::builder()));
    let daemon = world.streaming();
    daemon.settle();
    server
        .psql(
            "hr",
            "BEGIN;
             CREATE TABLE newer (LIKE people INCLUDING ALL);
             INSERT INTO newer SELECT * FROM people WHERE id <> 7;
             DROP TABLE people;
             ALTER TABLE newer RENAME TO people;
             GRANT SELECT ON people TO rollcall;
             ALTER PUBLICATION rollcall ADD TABLE people;
             COMMIT;",
        )
        .unwrap();
    until_closed(&world, &daemon, "table_recreated");
}

#[test]
fn a_standby_promoted_with_none_lost_goes_on() {
    let (primary, world) = world(prepared_18());
    let standby = standby_of(&primary);
    let daemon = world.streaming();
    sync_slot(&primary, &standby);
    daemon.settle();
    let head = primary.current_lsn().unwrap();
    standby.wait_for_replay(&head, PATIENCE).unwrap();
    daemon.stop();
    primary.kill9();
    standby.promote().unwrap();
    let standby = Arc::new(standby);
    let after = moved(world, Arc::clone(&standby));
    standby.psql("hr", UNSEEN).unwrap();
    let daemon = after.streaming();
    daemon.settle();
    let events = after.assert_equal();
    assert_eq!(events.gaps(), Vec::<String>::new());
    after.assert_verified();
}

#[test]
fn a_standby_promoted_with_lost_transactions_is_a_gap() {
    let (primary, world) = world(prepared_18());
    let standby = standby_of(&primary);
    let daemon = world.streaming();
    sync_slot(&primary, &standby);
    standby
        .psql("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
        .unwrap();
    standby.reload().unwrap();
    wait_for(PATIENCE, "the standby to be cut off", || {
        match standby
            .psql("postgres", "SELECT count(*) FROM pg_stat_wal_receiver")
            .unwrap()
        {
            n if n == "0" => Ok(()),
            n => Err(n),
        }
    })
    .unwrap();
    primary.psql("hr", UNSEEN).unwrap();
    daemon.settle();
    daemon.stop();
    primary.kill9();
    standby.promote().unwrap();
    let after = moved(world, Arc::new(standby));
    let daemon = after.start();
    until_closed(&after, &daemon, "timeline_diverged");
}

/// The same directory, with the source at another address.
fn moved(world: World, server: Arc<Postgres>) -> World {
    world.configure(&*server, &Options::pages_of(5));
    world.with_server(server)
}

fn standby_of(primary: &Postgres) -> Postgres {
    let options = StandbyOptions {
        slot: Some("standby".to_owned()),
        settings: vec![("hot_standby_feedback".to_owned(), "on".to_owned())],
    };
    primary.basebackup_standby_with(&options).unwrap()
}

/// Waits until the standby has the daemon's slot, ready for a fail-over. Nothing is written
/// meanwhile, or the standby would be ahead of the slot again.
fn sync_slot(primary: &Postgres, standby: &Postgres) {
    wait_for(3 * PATIENCE, "the standby to have the slot", || {
        primary.try_sync_slot(standby, SLOT)
    })
    .unwrap();
}

#[test]
fn a_rescan_that_would_deactivate_too_many_stops_that_part() {
    let (server, world) = world(prepared(Postgres::builder()));
    loaded(&world);
    drop_slot(&server);
    server
        .psql(
            "hr",
            "DELETE FROM people WHERE id BETWEEN 10 AND 60;
             UPDATE people SET job_title = 'Stays' WHERE id = 1;",
        )
        .unwrap();
    let daemon = world.streaming();
    daemon.settle();
    let people = world.events(0).fold();
    assert_eq!(people["1"]["title"], "Stays", "everything else is applied");
    assert!(
        people.contains_key("10") && people.contains_key("60"),
        "nobody was deactivated"
    );
    let status = daemon.status();
    let reason = status["sources"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("51 records are absent"), "{status}");
    assert!(world.events(0).of_type("user.deactivated").is_empty());
    let staged = world.json(&["runs"]);
    let staged = staged
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["outcome"] == "staged");
    let detail = staged.expect("a staged run")["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        detail.contains("too_many_leavers") && detail.contains("\"leavers\":51"),
        "{detail}"
    );
    assert_eq!(world.events(0).of_type("run.staged").len(), 1);
}

#[test]
fn a_truncated_table_deactivates_nobody_by_itself() {
    let (server, world) = world(prepared(Postgres::builder()));
    let daemon = world.streaming();
    daemon.settle();
    server.psql("hr", "TRUNCATE people").unwrap();
    server.psql("hr", &hire(1)).unwrap();
    daemon.until("the rescan to be staged", |status| {
        let reason = status["sources"][0]["reason"].as_str().unwrap_or_default();
        reason.contains("absent")
    });
    daemon.settle();
    let events = world.events(0);
    assert!(
        events.gaps().iter().any(|r| r == "truncated"),
        "{:?}",
        events.gaps()
    );
    assert!(events.of_type("user.deactivated").is_empty());
    assert!(events.fold().len() as u64 >= PEOPLE);
    // Those who come back are simply there again.
    server.psql("hr", "DELETE FROM people").unwrap();
    server.psql("hr", &hire_all(PEOPLE)).unwrap();
    daemon.settle();
    assert!(world.events(0).fold().len() as u64 >= PEOPLE);
}
