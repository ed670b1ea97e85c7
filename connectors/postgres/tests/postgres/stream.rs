//! The log of a real server.

use std::time::Duration;

use rollcall_contract::{Acknowledge, BatchCaps, ChangeStream, GapReason, StreamItem};
use rollcall_postgres::lsn::Lsn;
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::wire::ReplicationClient;
use rollcall_testbed::{PgVersion, Postgres};

use crate::server::*;

#[tokio::test]
async fn every_kind_of_change_arrives_in_order() {
    for version in VERSIONS {
        let db = with_table(version, "id int PRIMARY KEY, name text, note text");
        db.psql(
            "postgres",
            "ALTER TABLE people ALTER note SET STORAGE EXTERNAL",
        )
        .unwrap();
        let config = config(&db);
        let start = create_slot(&config).await;
        let mut log = open(&db, &config, start).await;
        db.psql(
            "postgres",
            "INSERT INTO people VALUES (1, 'Zoë', repeat('x', 10000)), (2, NULL, '');
             UPDATE people SET name = 'Ada' WHERE id = 1;
             UPDATE people SET id = 3 WHERE id = 2;
             DELETE FROM people WHERE id = 3;
             ALTER TABLE people REPLICA IDENTITY FULL;
             UPDATE people SET name = 'Bo' WHERE id = 1;
             TRUNCATE people;",
        )
        .unwrap();
        let (seen, _) = log.changes(7).await;
        assert_eq!(
            seen,
            [
                "Insert#0 new(1,Zoë,<10000>)",
                "Insert#1 new(2,null,)",
                "Update#0 new(1,Ada,unchanged)",
                "Update#0 key(2,missing,missing) new(3,null,)",
                "Delete#0 key(3,missing,missing)",
                "Update#0 old(1,Ada,<10000>) new(1,Bo,<10000>)",
                "Truncate#0",
            ],
            "{version:?}"
        );
        log.close().await;
    }
}

#[tokio::test]
async fn rows_of_a_partitioned_table_are_rows_of_its_root() {
    let db = Postgres::builder().start().unwrap();
    db.psql(
        "postgres",
        "CREATE TABLE people (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         CREATE TABLE people_1 PARTITION OF people FOR VALUES FROM (0) TO (10);
         CREATE TABLE people_2 (name text, id int NOT NULL);
         ALTER TABLE people ATTACH PARTITION people_2 FOR VALUES FROM (10) TO (20);
         CREATE PUBLICATION rollcall FOR TABLE people WITH (publish_via_partition_root = true);",
    )
    .unwrap();
    let config = config(&db);
    let start = create_slot(&config).await;
    let mut log = open(&db, &config, start).await;
    db.psql(
        "postgres",
        "INSERT INTO people VALUES (1, 'a'), (11, 'b'); UPDATE people SET id = 12 WHERE id = 1;",
    )
    .unwrap();
    let (seen, _) = log.changes(4).await;
    assert_eq!(
        seen,
        [
            "Insert#0 new(1,a)",
            "Insert#1 new(11,b)",
            "Delete#0 key(1,missing)",
            "Insert#1 new(12,a)",
        ]
    );
    log.close().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_confirmed_and_nothing_else() {
    for version in VERSIONS {
        let db = with_table(version, "id int PRIMARY KEY");
        let config = config(&db);
        let start = create_slot(&config).await;
        let mut log = open(&db, &config, start).await;
        db.psql("postgres", "INSERT INTO people VALUES (1)")
            .unwrap();
        let (_, first) = log.changes(1).await;
        db.psql("postgres", "INSERT INTO people VALUES (2)")
            .unwrap();
        log.changes(1).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(slot_lsn(&db, "confirmed_flush_lsn"), start.commit_end);
        log.acknowledge.acknowledge(&first);
        log.close().await;
        let first = PgCursor::decode(&first).unwrap();
        assert_eq!(slot_lsn(&db, "confirmed_flush_lsn"), first.commit_end);
        assert_eq!(
            db.psql("postgres", "SELECT active FROM pg_replication_slots")
                .unwrap(),
            "f"
        );
        let mut log = open(&db, &config, first).await;
        let (seen, _) = log.changes(1).await;
        assert_eq!(seen, ["Insert#0 new(2)"]);
        log.close().await;
    }
}

#[tokio::test]
async fn a_split_transaction_goes_on_where_it_stopped() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY");
    let config = config(&db);
    let mut start = create_slot(&config).await;
    db.psql(
        "postgres",
        "CREATE TABLE other (id int); ALTER PUBLICATION rollcall ADD TABLE other;
         DO $$ BEGIN FOR i IN 1..50 LOOP
            INSERT INTO people VALUES (i); INSERT INTO other VALUES (i);
         END LOOP; END $$;
         INSERT INTO people VALUES (51);",
    )
    .unwrap();
    let caps = BatchCaps {
        most_changes: 7,
        ..BatchCaps::default()
    };
    let mut seen = Vec::new();
    while seen.len() < 51 {
        let mut log = try_open(&db, &config, start, caps).await.unwrap();
        let batch = log.batch().await;
        seen.extend(batch.changes().map(|c| show(&c)));
        start = PgCursor::decode(batch.cursor()).unwrap();
        log.acknowledge.acknowledge(batch.cursor());
        log.close().await;
    }
    let mut expected: Vec<String> = (1..=50)
        .map(|i| format!("Insert#{} new({i})", (i - 1) * 2))
        .collect();
    expected.push("Insert#0 new(51)".to_owned());
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_changed_table_and_a_table_made_anew_are_told_apart() {
    for version in VERSIONS {
        let db = with_table(version, "id int PRIMARY KEY, name text");
        let config = config(&db);
        let start = create_slot(&config).await;
        let mut log = open(&db, &config, start).await;
        db.psql(
            "postgres",
            "BEGIN; INSERT INTO people VALUES (1, 'a'); ALTER TABLE people ADD born date;
             INSERT INTO people VALUES (2, 'b', '2001-02-03'); COMMIT;
             DROP TABLE people; CREATE TABLE people (id int PRIMARY KEY, name text, born date);
             ALTER PUBLICATION rollcall ADD TABLE people; INSERT INTO people VALUES (3, 'c');",
        )
        .unwrap();
        assert_eq!(log.changes(1).await.0, ["Insert#0 new(1,a)"]);
        let StreamItem::SchemaChanged(_, schema) = log.next().await else {
            panic!("no schema change");
        };
        assert_eq!((schema.columns.len(), &schema.key[..]), (3, &[0][..]));
        assert_eq!(log.changes(1).await.0, ["Insert#1 new(2,b,2001-02-03)"]);
        let gap = loop {
            match log.next().await {
                StreamItem::Gap(gap) => break gap,
                StreamItem::Progress(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(gap.reason, GapReason::TableRecreated);
        assert_eq!(log.changes(1).await.0, ["Insert#0 new(3,c,null)"]);
        log.close().await;
    }
}

#[tokio::test]
async fn an_idle_log_follows_the_server_when_someone_hurries() {
    for version in VERSIONS {
        let db = with_table(version, "id int PRIMARY KEY");
        let config = config(&db);
        let start = create_slot(&config).await;
        let mut log = open(&db, &config, start).await;
        db.psql(
            "postgres",
            "CREATE TABLE unpublished AS SELECT generate_series(1, 1000)",
        )
        .unwrap();
        let head: Lsn = db
            .psql("postgres", "SELECT pg_current_wal_flush_lsn()")
            .unwrap()
            .parse()
            .unwrap();
        log.acknowledge.hurry();
        let asked = tokio::time::Instant::now();
        loop {
            let StreamItem::Progress(cursor) = log.next().await else {
                panic!("something else than progress");
            };
            if PgCursor::decode(&cursor).unwrap().commit_end >= head {
                log.acknowledge.acknowledge(&cursor);
                break;
            }
        }
        assert!(
            asked.elapsed() < Duration::from_millis(900),
            "{:?}",
            asked.elapsed()
        );
        log.close().await;
        assert!(slot_lsn(&db, "confirmed_flush_lsn") >= head);
    }
}

#[tokio::test]
async fn a_consumer_that_takes_its_time_does_not_lose_the_connection() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY, name text");
    db.psql("postgres", "ALTER SYSTEM SET wal_sender_timeout = '1s'")
        .unwrap();
    db.reload().unwrap();
    let config = config(&db);
    let start = create_slot(&config).await;
    let caps = BatchCaps {
        most_changes: 1_000,
        ..BatchCaps::default()
    };
    let mut log = try_open(&db, &config, start, caps).await.unwrap();
    db.psql(
        "postgres",
        "INSERT INTO people SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i",
    )
    .unwrap();
    let mut count = log.batch().await.len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    while count < 20_000 {
        count += log.batch().await.len();
    }
    assert_eq!(count, 20_000);
    log.close().await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_transient() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY");
    let config = config(&db);
    let start = create_slot(&config).await;
    let mut log = open(&db, &config, start).await;
    db.kill9();
    let error = loop {
        match log.stream.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_transient(), "{error}");
    db.start_again().unwrap();
    db.psql("postgres", "INSERT INTO people VALUES (7)")
        .unwrap();
    let mut log = open(&db, &config, start).await;
    assert_eq!(log.changes(1).await.0, ["Insert#0 new(7)"]);
    log.close().await;
}

#[tokio::test]
async fn starting_without_what_it_needs_says_so() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY");
    let mut config = config(&db);
    let start = create_slot(&config).await;
    let caps = BatchCaps::default();

    let log = open(&db, &config, start).await;
    let busy = try_open(&db, &config, start, caps).await.err().unwrap();
    assert!(busy.is("55006") && busy.error.is_transient(), "{busy}");
    log.close().await;

    config.publication = "missing".to_owned();
    let mut log = open(&db, &config, start).await;
    db.psql("postgres", "INSERT INTO people VALUES (1)")
        .unwrap();
    let error = log.stream.next().await.unwrap_err();
    assert_eq!(error.code(), "publication_missing");
    log.close().await;

    config.slot = "missing".to_owned();
    let none = try_open(&db, &config, start, caps).await.err().unwrap();
    assert_eq!(none.gap, Some(GapReason::PositionLost), "{none}");
}

#[tokio::test]
async fn the_commands_of_a_session_answer() {
    for version in VERSIONS {
        let db = with_table(version, "id int PRIMARY KEY");
        let config = config(&db);
        let mut client = ReplicationClient::connect(&config).await.unwrap();
        let major = if version == PgVersion::V18 { 18 } else { 15 };
        assert_eq!(client.server_version(), major);
        let system = client.identify_system().await.unwrap();
        assert_eq!(
            (system.timeline, system.database.as_deref()),
            (1, Some("postgres"))
        );
        assert_eq!(client.timeline_history(1).await.unwrap(), []);
        let mut exported = SLOT;
        exported.snapshot = rollcall_postgres::wire::SlotSnapshot::Export;
        exported.failover = true;
        let slot = client.create_slot("a slot", exported).await;
        assert_eq!(slot.unwrap_err().sqlstate.as_deref(), Some("42602"));
        let slot = client.create_slot("rollcall", exported).await.unwrap();
        assert!(slot.snapshot.is_some() && slot.consistent_point >= system.flushed);
        let again = client.create_slot("rollcall", SLOT).await.unwrap_err();
        assert_eq!(again.error.code(), "already_exists");
        client.drop_slot("rollcall").await.unwrap();
        assert!(client.drop_slot("rollcall").await.unwrap_err().is("42704"));
        assert!(client.wal_sender_timeout().await.unwrap().is_some());
    }
}
