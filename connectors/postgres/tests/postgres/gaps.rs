//! Whatever may have been lost is a gap, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use rollcall_contract::{GapReason, Op, Source};
use rollcall_postgres::PostgresSource;
use rollcall_testbed::{
    PgVersion, Postgres, Proxy, StandbyOptions, StopMode, wait_for, wait_until,
};

use crate::bed::{Bed, PATIENCE, PEOPLE, Reader, shared};

#[tokio::test(flavor = "multi_thread")]
async fn an_opened_log_goes_on_where_it_was_left() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let bed = Bed::on(shared(version), "goes_on", PEOPLE);
        let stored = bed.begin(1).await.close().await;
        bed.sql("INSERT INTO people VALUES (2, 'while away')");
        let mut reader = Reader::open(&bed.source(), Some(stored)).await;
        assert_eq!(reader.reasons(), []);
        reader.until_key("2").await;
        assert_eq!(reader.changes, [(Op::Insert, "2".to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_no_stored_position_belongs_to_is_made_anew() {
    let bed = Bed::new("not_adopted");
    bed.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        bed.slot()
    ));
    bed.sql("INSERT INTO people VALUES (1, 'before')");
    let mut reader = Reader::open(&bed.source(), None).await;
    assert_eq!(reader.reasons(), [GapReason::InitialLoad]);
    bed.sql("INSERT INTO people VALUES (2, 'after')");
    reader.until_key("2").await;
    assert_eq!(reader.changes, [(Op::Insert, "2".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_a_gap() {
    let bed = Bed::new("dropped");
    let stored = bed.begin(1).await.close().await;
    drop_slot(&bed);
    bed.sql("INSERT INTO people VALUES (2, 'lost')");
    let mut reader = Reader::open(&bed.source(), Some(stored.clone())).await;
    assert_eq!(reader.reasons(), [GapReason::PositionLost]);
    let gap = &reader.opened.gaps[0];
    assert_eq!(gap.from.as_deref(), Some(stored.0.text()));
    assert_eq!(gap.to.as_deref(), Some(reader.opened.start.text()));
    bed.sql("INSERT INTO people VALUES (3, 'seen')");
    reader.until_key("3").await;
    assert_eq!(reader.changes, [(Op::Insert, "3".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_invalidated_is_a_gap() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let server = Postgres::builder()
            .version(version)
            .setting("max_slot_wal_keep_size", "1MB")
            .setting("max_wal_size", "32MB")
            .setting("min_wal_size", "32MB")
            .start()
            .unwrap();
        let bed = Bed::on(Arc::new(server), "invalidated", PEOPLE);
        let stored = bed.begin(1).await.close().await;
        bed.sql("CREATE TABLE filler (x text)");
        wait_for(PATIENCE, "the slot to be given up", || {
            for _ in 0..3 {
                bed.sql(
                    "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 9000)",
                );
                bed.sql("SELECT pg_switch_wal()");
            }
            bed.server.checkpoint().unwrap();
            match bed.sql("SELECT wal_status FROM pg_replication_slots") {
                status if status == "lost" => Ok(()),
                status => Err(status),
            }
        })
        .unwrap();
        let mut reader = Reader::open(&bed.source(), Some(stored)).await;
        assert_eq!(reader.reasons(), [GapReason::SlotInvalidated]);
        bed.sql("INSERT INTO people VALUES (3, 'seen')");
        reader.until_key("3").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_advanced_by_someone_else_is_a_gap() {
    let bed = Bed::new("advanced");
    let stored = bed.begin(1).await.close().await;
    bed.sql("INSERT INTO people VALUES (2, 'skipped')");
    bed.sql(&format!(
        "SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())",
        bed.slot()
    ));
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::SlotAdvanced]);
}

/// The last look: what was right when it was checked may be wrong when the log starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_advanced_between_the_checks_and_the_start_is_a_gap() {
    let bed = Bed::new("between");
    let stored = bed.begin(1).await.close().await;
    bed.sql("INSERT INTO people VALUES (2, 'skipped')");
    // Slow enough that the moment can be caught: the slot was looked at, and the next
    // transaction is asked for before the log starts.
    let proxy = Proxy::start(&format!("127.0.0.1:{}", bed.server.port())).unwrap();
    proxy.latency(Duration::from_millis(100));
    let moment = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND usename = 'rollcall'
         AND query LIKE '%pg_snapshot_xmax%'",
        bed.db
    );
    let advance = format!(
        "SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())",
        bed.slot()
    );
    for _ in 0..10 {
        let mut config = bed.config();
        config.port = proxy.port();
        let (source, resume) = (PostgresSource::new(config), stored.clone());
        let opening = tokio::spawn(async move { Reader::open(&source, Some(resume)).await });
        wait_until(PATIENCE, "the moment before the start", || {
            bed.sql(&moment) != "0"
        })
        .unwrap();
        proxy.pause();
        // A slot that has been started cannot be moved: the moment was missed.
        let moved = bed.server.psql(&bed.db, &advance).is_ok();
        proxy.resume();
        let reader = opening.await.unwrap();
        if moved {
            assert_eq!(reader.reasons(), [GapReason::SlotAdvanced]);
            return;
        }
        reader.close().await;
    }
    panic!("the moment was missed ten times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_recreated_by_someone_else_is_a_gap() {
    let bed = Bed::new("recreated");
    let stored = bed.begin(1).await.close().await;
    drop_slot(&bed);
    bed.sql("INSERT INTO people VALUES (2, 'skipped')");
    bed.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        bed.slot()
    ));
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::SlotAdvanced]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_plugin_is_refused_and_left_alone() {
    let bed = Bed::new("foreign_slot");
    bed.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'test_decoding')",
        bed.slot()
    ));
    let error = bed.source().open(None).await.err().unwrap();
    assert_eq!(error.code(), "slot_not_ours");
    assert!(!error.is_transient());
    let left = bed.sql(&format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        bed.slot()
    ));
    assert_eq!(left, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_reader_died_without_a_word_is_taken_over() {
    let bed = Bed::new("taken_over");
    let first = bed.begin(1).await;
    let stored = first.stored();
    // Its session goes on; nobody closes it.
    let second = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(second.reasons(), []);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_a_gap() {
    let bed = own_server("restored");
    let stored = bed.begin(1).await.close().await;
    bed.server.stop(StopMode::Fast).unwrap();
    let copy = bed.server.copy_data_dir().unwrap();
    bed.server.start_again().unwrap();
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    bed.sql("INSERT INTO people SELECT g, repeat('x', 1000) FROM generate_series(10, 5000) g");
    reader.until_key("5000").await;
    let stored = reader.close().await;
    bed.server.stop(StopMode::Immediate).unwrap();
    bed.server.restore_from(&copy).unwrap();
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::Restored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_promoted_with_lost_transactions_is_a_gap() {
    let (bed, standby) = with_standby("diverged");
    let mut reader = bed.begin(1).await;
    sync_slot(&standby, &bed, &mut reader).await;
    // The standby receives nothing any more, and the primary goes on.
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
    bed.sql("INSERT INTO people VALUES (2, 'lost')");
    reader.until_key("2").await;
    let stored = reader.close().await;
    bed.server.kill9();
    standby.promote().unwrap();
    let after = Bed {
        server: Arc::new(standby),
        db: bed.db.clone(),
    };
    let reader = Reader::open(&after.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::TimelineDiverged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_promoted_with_none_lost_goes_on() {
    let (bed, standby) = with_standby("promoted");
    let mut reader = bed.begin(1).await;
    sync_slot(&standby, &bed, &mut reader).await;
    let stored = reader.close().await;
    let head = bed.server.current_lsn().unwrap();
    standby.wait_for_replay(&head, PATIENCE).unwrap();
    bed.server.kill9();
    standby.promote().unwrap();
    let after = Bed {
        server: Arc::new(standby),
        db: bed.db.clone(),
    };
    after.sql("INSERT INTO people VALUES (2, 'on the new primary')");
    let mut reader = Reader::open(&after.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("2").await;
    assert_eq!(reader.changes, [(Op::Insert, "2".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_a_gap() {
    let bed = Bed::new("cluster");
    let stored = bed.begin(1).await.close().await;
    let other = own_server("cluster");
    let mut reader = Reader::open(&other.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::OtherServer]);
    other.sql("INSERT INTO people VALUES (7, 'there')");
    reader.until_key("7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_refused() {
    let bed = Bed::new("database_a");
    let stored = bed.begin(1).await.close().await;
    let other = Bed::new("database_b");
    let error = other.source().open(Some(stored)).await.err().unwrap();
    assert_eq!(error.code(), "other_database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_and_recreated_table_is_a_gap() {
    let bed = Bed::new("table_again");
    let mut reader = bed.begin(1).await;
    bed.sql(&format!(
        "BEGIN; DROP TABLE people; {PEOPLE} GRANT SELECT ON people TO rollcall;
         ALTER PUBLICATION rollcall ADD TABLE people; COMMIT;"
    ));
    let gap = reader.until_gap().await;
    assert_eq!(gap.reason, GapReason::TableRecreated);
    assert_eq!(gap.tables.len(), 1);
    // Found at the next start as well, since the store may not have taken it in.
    let stored = reader.close().await;
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert!(reader.reasons().contains(&GapReason::TableRecreated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_publication_is_a_gap() {
    let bed = Bed::new("publication");
    let mut reader = bed.begin(1).await;
    bed.sql("ALTER PUBLICATION rollcall DROP TABLE people");
    let gap = reader.until_gap().await;
    assert_eq!(gap.reason, GapReason::PublicationChanged);
    let stored = reader.close().await;
    let error = bed.source().open(Some(stored.clone())).await.err().unwrap();
    assert_eq!(error.code(), "publication_lacks_table");

    bed.sql("INSERT INTO people VALUES (2, 'not published')");
    bed.sql("ALTER PUBLICATION rollcall ADD TABLE people");
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PublicationChanged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_weakened_is_a_gap_and_refused_at_once() {
    let bed = Bed::new("publication_weak");
    let mut reader = bed.begin(1).await;
    bed.sql("ALTER PUBLICATION rollcall SET (publish = 'insert')");
    let gap = reader.until_gap().await;
    assert_eq!(gap.reason, GapReason::PublicationChanged);
    assert_eq!(reader.until_end().await, "publication_altered");
    let stored = reader.close().await;
    let error = bed.source().open(Some(stored)).await.err().unwrap();
    assert_eq!(error.code(), "publication_operations");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_identity_without_the_key_is_a_gap_whenever_it_is_noticed() {
    let bed = Bed::new("identity_weak");
    let mut reader = bed.begin(1).await;
    bed.sql(
        "ALTER TABLE people ALTER name SET NOT NULL;
         CREATE UNIQUE INDEX by_name ON people (name);
         ALTER TABLE people REPLICA IDENTITY USING INDEX by_name",
    );
    let gap = reader.until_gap().await;
    assert_eq!(gap.reason, GapReason::NotInLog);
    assert_eq!(reader.until_end().await, "publication_altered");
    bed.sql("DELETE FROM people WHERE id = 1");
    let stored = reader.close().await;
    // Where no key is configured, records are named by the identity from here on.
    let reader = Reader::open(&bed.source(), Some(stored.clone())).await;
    assert_eq!(reader.reasons(), [GapReason::NotInLog]);
    drop(reader);
    // What was deleted meanwhile is behind a gap when it is mended.
    bed.sql("ALTER TABLE people REPLICA IDENTITY DEFAULT; INSERT INTO people VALUES (2, 'b')");
    let mut reader = Reader::open(&bed.source(), Some(stored.clone())).await;
    assert_eq!(reader.until_gap().await.reason, GapReason::NotInLog);
    reader.until_key("2").await;
    bed.sql("ALTER TABLE people REPLICA IDENTITY FULL");
    let stored = reader.close().await;
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::NotInLog]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_made_anew_is_a_gap_and_the_log_flows_again() {
    let bed = Bed::new("publication_again");
    let stored = bed.begin(1).await.close().await;
    bed.sql(
        "DROP PUBLICATION rollcall; INSERT INTO people VALUES (2, 'in between');
         CREATE PUBLICATION rollcall FOR TABLE people",
    );
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PublicationChanged]);
    bed.sql("INSERT INTO people VALUES (3, 'seen')");
    reader.until_key("3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_partition_is_a_gap() {
    let tables = "CREATE TABLE people (id int PRIMARY KEY, name text, mail text)
            PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF people FOR VALUES FROM (0) TO (100);
         CREATE TABLE p2 (id int PRIMARY KEY, name text, mail text);
         INSERT INTO p2 VALUES (150, 'came with the partition');";
    let bed = Bed::on(shared(PgVersion::Debian), "partition", tables);
    let mut reader = bed.begin(1).await;
    bed.sql("ALTER TABLE people ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)");
    let gap = reader.until_gap().await;
    assert_eq!(gap.reason, GapReason::PartitionsChanged);
    bed.sql("INSERT INTO people VALUES (160, 'through the root')");
    reader.until_key("160").await;
    let stored = reader.close().await;
    bed.sql(
        "BEGIN; ALTER TABLE people DETACH PARTITION p1; DELETE FROM p1;
         ALTER TABLE people ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100); COMMIT;",
    );
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PartitionsChanged], "mended");
    bed.sql("INSERT INTO people VALUES (161, 'behind it')");
    reader.until_key("161").await;
    let stored = reader.close().await;
    bed.sql("ALTER TABLE people DETACH PARTITION p1");
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PartitionsChanged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_where_the_slot_stands_and_what_is_wrong_with_it() {
    let bed = Bed::new("status");
    let reader = bed.begin(1).await;
    let status = bed.source().status().await.unwrap();
    assert!(status.head.is_some() && status.lag_bytes.is_some());
    assert!(status.retained_bytes.is_some());
    assert_eq!(status.warnings, Vec::<String>::new());
    reader.close().await;
    drop_slot(&bed);
    let status = bed.source().status().await.unwrap();
    assert!(status.warnings[0].contains("does not exist"), "{status:?}");
}

fn drop_slot(bed: &Bed) {
    let sql = format!("SELECT pg_drop_replication_slot('{}')", bed.slot());
    wait_for(PATIENCE, "the slot to be dropped", || {
        bed.server.psql(&bed.db, &sql).map_err(|e| e.to_string())
    })
    .unwrap();
}

fn own_server(db: &str) -> Bed {
    Bed::on(Arc::new(Postgres::builder().start().unwrap()), db, PEOPLE)
}

/// A primary of version 18 with a standby that synchronizes fail-over slots.
fn with_standby(db: &str) -> (Bed, Postgres) {
    let server = Postgres::builder().version(PgVersion::V18).start().unwrap();
    let bed = Bed::on(Arc::new(server), db, PEOPLE);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let standby = bed
        .server
        .basebackup_standby_with(&StandbyOptions {
            slot: Some("standby".to_owned()),
            settings: vec![pair("hot_standby_feedback", "on")],
        })
        .unwrap();
    (bed, standby)
}

/// Waits until the standby has the slot, ready for a fail-over; the reader confirms meanwhile.
async fn sync_slot(standby: &Postgres, bed: &Bed, reader: &mut Reader) {
    let start = std::time::Instant::now();
    while let Err(missing) = bed.server.try_sync_slot(standby, &bed.slot()) {
        assert!(start.elapsed() < 3 * PATIENCE, "{missing}");
        reader.opened.acknowledge.hurry();
        reader.until_progress().await;
    }
}
