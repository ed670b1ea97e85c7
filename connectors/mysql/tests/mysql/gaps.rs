//! Whatever may have been lost is a gap, and nothing else is.

use std::sync::Arc;

use rollcall_contract::{GapReason, Source, TableNo};
use rollcall_mysql::MySqlSource;
use rollcall_testbed::{MySql, MySqlVersion};

use crate::bed::{Bed, PATIENCE, PEOPLE, Reader, account, config_of};

with_both!(
    a_purged_log_is_a_gap,
    a_reset_log_is_a_gap,
    a_server_restored_to_an_earlier_point_is_a_gap,
    another_server_is_a_gap,
    a_replica_with_everything_goes_on_without_one,
    a_replica_that_is_late_is_waited_for,
    a_replica_that_lost_what_was_applied_is_a_gap,
    statements_in_place_of_rows_are_a_gap,
    ddl_that_replaces_the_table_is_a_gap,
    ddl_of_other_tables_is_none,
    a_page_behind_a_gap_is_closed_on_an_idle_log,
);

async fn a_page_behind_a_gap_is_closed_on_an_idle_log(version: MySqlVersion) {
    let bed = Bed::new(version, "gap_idle");
    let mut reader = bed.begin(1).await;
    bed.sql("CREATE TABLE newer LIKE people; DROP TABLE people; RENAME TABLE newer TO people");
    for _ in 0..2 {
        assert_eq!(reader.until_gap().await.reason, GapReason::TableRecreated);
    }
    let page = bed.source().reread(TableNo::MAIN, &[]).await.unwrap();
    reader.opened.acknowledge.hurry();
    while !page.window.is_closed_by(&reader.cursor) {
        reader.step().await;
    }
}

async fn a_purged_log_is_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let stored = bed.begin(1).await.close().await;
    // Purging what was read loses nothing.
    bed.server.purge_binlogs().unwrap();
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    let stored = reader.close().await;
    bed.sql("INSERT INTO people (id) VALUES (2)");
    bed.server.purge_binlogs().unwrap();
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PositionLost]);
    bed.sql("INSERT INTO people (id) VALUES (3)");
    reader.until_key("3").await;
    assert_eq!(reader.keys(), ["3"]);
}

async fn a_reset_log_is_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let stored = bed.begin(1).await.close().await;
    // Files are told apart by the second in which they were begun.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    bed.server
        .sql(match version.is_mariadb() {
            true => "RESET MASTER",
            false => "RESET BINARY LOGS AND GTIDS",
        })
        .unwrap();
    bed.sql("INSERT INTO people (id) VALUES (2)");
    let reader = Reader::open(&bed.source(), Some(stored.clone())).await;
    assert_eq!(reader.reasons(), [GapReason::Restored]);
    reader.close().await;
    // Also when the new log has numbered as many transactions, and when it has come to a
    // file of the same name.
    for id in 3..40 {
        bed.sql(&format!("INSERT INTO people (id) VALUES ({id})"));
    }
    for _ in 0..3 {
        let reader = Reader::open(&bed.source(), Some(stored.clone())).await;
        assert_eq!(reader.reasons(), [GapReason::Restored]);
        reader.close().await;
        bed.server.rotate_binlog().unwrap();
    }
}

/// As loading a dump with GTIDs does: what it brings is not in the log, of which the log
/// itself says nothing. It is found at the next connect.
#[tokio::test]
async fn transactions_that_were_never_in_the_log_are_a_gap() {
    let bed = Bed::alone(MySqlVersion::MySql9, &[]);
    let stored = bed.begin(1).await.close().await;
    bed.server
        .sql("SET GLOBAL gtid_purged = '+11111111-2222-3333-4444-555555555555:1-7'")
        .unwrap();
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PositionLost]);
    let detail = &reader.opened.gaps[0].detail;
    assert!(detail.contains("7 transactions"), "{detail}");
    bed.sql("INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    // It is told once.
    let stored = reader.close().await;
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
}

async fn a_server_restored_to_an_earlier_point_is_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let reader = bed.begin(1).await;
    let copy = bed.server.copy_data_dir().unwrap();
    reader.close().await;
    let mut reader = Reader::open(&bed.source(), None).await;
    bed.sql("INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let stored = reader.close().await;
    bed.server.restore_from(&copy).unwrap();
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::Restored]);
    reader.close().await;
}

async fn another_server_is_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let stored = bed.begin(1).await.close().await;
    let other = Bed::alone(
        version,
        &[("gtid_domain_id", "7")].map(|s| match version.is_mariadb() {
            true => s,
            false => ("max_connections", "50"),
        }),
    );
    let reader = Reader::open(&other.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::OtherServer]);
    reader.close().await;
}

/// A primary with its replica, and what the store holds after one row.
async fn group(
    version: MySqlVersion,
) -> (
    Bed,
    MySql,
    (rollcall_contract::Cursor, rollcall_contract::Lineage),
) {
    let bed = Bed::alone(version, &[]);
    let stored = bed.begin(1).await.close().await;
    let replica = bed.server.replica().unwrap();
    replica.wait_for_primary(&bed.server, PATIENCE).unwrap();
    (bed, replica, stored)
}

fn pause(replica: &MySql) {
    let stop = if replica.version().is_mariadb() {
        "STOP SLAVE"
    } else {
        "STOP REPLICA"
    };
    replica.sql(stop).unwrap();
}

fn at(replica: &MySql) -> MySqlSource {
    MySqlSource::new(config_of(replica, "hr"))
}

async fn a_replica_with_everything_goes_on_without_one(version: MySqlVersion) {
    let (bed, replica, stored) = group(version).await;
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    bed.sql("INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let stored = reader.close().await;
    bed.sql("INSERT INTO people (id) VALUES (3)");
    replica.wait_for_primary(&bed.server, PATIENCE).unwrap();
    bed.server.kill9();
    replica.promote().unwrap();
    let mut reader = Reader::open(&at(&replica), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("3").await;
    replica
        .sql("INSERT INTO hr.people (id) VALUES (4)")
        .unwrap();
    reader.until_key("4").await;
    assert_eq!(reader.keys(), ["3", "4"]);
    // Pages on the new server know what the old one's log has brought.
    let page = at(&replica).reread(TableNo::MAIN, &[]).await.unwrap();
    reader.opened.acknowledge.hurry();
    while !page.window.is_closed_by(&reader.cursor) {
        reader.step().await;
    }
}

async fn a_replica_that_is_late_is_waited_for(version: MySqlVersion) {
    let (bed, replica, stored) = group(version).await;
    pause(&replica);
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    bed.sql("INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let stored = reader.close().await;
    let source = at(&replica);
    let opening = Reader::open(&source, Some(stored));
    let starting = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let start = if replica.version().is_mariadb() {
            "START SLAVE"
        } else {
            "START REPLICA"
        };
        replica.sql(start).unwrap();
    };
    let (reader, ()) = tokio::join!(opening, starting);
    assert_eq!(reader.reasons(), []);
}

async fn a_replica_that_lost_what_was_applied_is_a_gap(version: MySqlVersion) {
    let (bed, replica, stored) = group(version).await;
    pause(&replica);
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    bed.sql("INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let stored = reader.close().await;
    bed.server.kill9();
    replica.promote().unwrap();
    let reader = Reader::open(&at(&replica), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::TimelineDiverged]);
}

/// On a server of its own: MariaDB does not say which databases a statement changes, so it is
/// a gap to whoever follows any of them.
async fn statements_in_place_of_rows_are_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let mut reader = bed.begin(1).await;
    bed.sql(
        "SET SESSION binlog_format = 'STATEMENT'; UPDATE people SET name = 'x';
         SET SESSION binlog_format = 'ROW'; INSERT INTO people (id) VALUES (2)",
    );
    assert_eq!(reader.until_gap().await.reason, GapReason::NotInLog);
    reader.until_key("2").await;
    bed.sql(
        "CREATE DATABASE another; CREATE TABLE another.people (id INT PRIMARY KEY); USE another;
         SET SESSION binlog_format = 'STATEMENT'; INSERT INTO people VALUES (1);
         SET SESSION binlog_format = 'ROW'; INSERT INTO hr.people (id) VALUES (3)",
    );
    if version.is_mariadb() {
        assert_eq!(reader.until_gap().await.reason, GapReason::NotInLog);
    }
    reader.until_key("3").await;
    assert_eq!(reader.gaps, []);
}

async fn ddl_that_replaces_the_table_is_a_gap(version: MySqlVersion) {
    for (i, (ddl, reason)) in [
        (
            "DROP TABLE people; CREATE TABLE people (id INT PRIMARY KEY, name TEXT)",
            GapReason::TableRecreated,
        ),
        // As gh-ost and pt-online-schema-change swap.
        (
            "CREATE TABLE _people_new LIKE people; \
             RENAME TABLE people TO _people_old, _people_new TO people",
            GapReason::TableRecreated,
        ),
        (
            "CREATE TABLE _people_new LIKE people; ALTER TABLE people RENAME TO _people_old; \
             ALTER TABLE _people_new RENAME TO people",
            GapReason::TableRecreated,
        ),
        (
            "ALTER TABLE people PARTITION BY HASH (id) PARTITIONS 4; \
             ALTER TABLE people TRUNCATE PARTITION p1",
            GapReason::PartitionsChanged,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let bed = Bed::new(version, &format!("gap_ddl_{i}"));
        let mut reader = bed.begin(1).await;
        bed.sql(&format!("{ddl}; INSERT INTO people (id) VALUES (2)"));
        assert_eq!(reader.until_gap().await.reason, reason, "{ddl}");
        reader.until_key("2").await;
    }
}

async fn ddl_of_other_tables_is_none(version: MySqlVersion) {
    let bed = Bed::new(version, "gap_other");
    let mut reader = bed.begin(1).await;
    bed.sql(
        "CREATE TABLE other LIKE people; INSERT INTO other SELECT * FROM people;
         TRUNCATE other; RENAME TABLE other TO another; DROP TABLE another;
         CREATE VIEW v AS SELECT * FROM people; DROP VIEW v; ANALYZE TABLE people;
         CREATE TABLE copy AS SELECT * FROM people; CREATE DATABASE gap_other_2;
         DROP DATABASE gap_other_2; ALTER TABLE people COMMENT 'x';
         INSERT INTO people (id) VALUES (2)",
    );
    reader.until_key("2").await;
    assert_eq!(reader.gaps, []);
    assert_eq!(reader.keys(), ["1", "2"]);
}

#[tokio::test]
async fn without_gtids_another_server_and_a_purge_are_gaps() {
    let off = [("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")];
    let bed = Bed::alone(MySqlVersion::MySql9, &off);
    let stored = bed.begin(1).await.close().await;
    let server = MySql::builder()
        .setting("gtid_mode", "OFF")
        .setting("enforce_gtid_consistency", "OFF")
        .start()
        .unwrap();
    account(&server);
    let other = Bed::on(Arc::new(server), "hr", PEOPLE);
    let reader = Reader::open(&other.source(), Some(stored.clone())).await;
    assert_eq!(reader.reasons(), [GapReason::OtherServer]);
    bed.sql("INSERT INTO people (id) VALUES (2)");
    bed.server.purge_binlogs().unwrap();
    let reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::PositionLost]);
}
