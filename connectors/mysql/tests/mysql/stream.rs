//! The log: every change once, in order, over every way of ending and splitting.

use std::time::{Duration, Instant};

use rollcall_contract::{BatchCaps, GapReason, Op, Source, StreamItem, TableNo};
use rollcall_mysql::MySqlSource;
use rollcall_testbed::MySqlVersion;

use crate::bed::{Bed, PATIENCE, Reader, shared, text_of};

with_both!(
    each_kind_of_change_arrives_with_both_images,
    a_quiet_change_arrives_at_once,
    an_empty_log_is_a_beginning,
    the_log_goes_on_where_the_cursor_stands,
    a_large_transaction_is_split_and_goes_on_in_its_middle,
    savepoints_and_rollbacks_leave_what_was_committed,
    tables_without_transactions_are_followed,
    an_added_column_is_told_before_its_first_row,
    a_truncated_table_is_one_change,
    partial_images_say_what_they_do_not_carry,
    without_names_in_the_log_those_of_the_server_are_used,
    a_moved_column_without_names_stops_the_source,
    rows_beyond_one_packet_arrive_whole,
    a_cut_connection_is_transient,
    two_readers_with_one_name_are_noticed,
);

async fn each_kind_of_change_arrives_with_both_images(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_kinds");
    let mut reader = bed.begin(1).await;
    bed.sql(
        "INSERT INTO people VALUES (2, 'b', NULL), (3, 'c', 'x');
         UPDATE people SET mail = 'y' WHERE id = 2;
         UPDATE people SET id = 30 WHERE id = 3;
         DELETE FROM people WHERE id = 30",
    );
    while reader.changes.len() < 6 {
        reader.step().await;
    }
    let expected = [
        (Op::Insert, "1"),
        (Op::Insert, "2"),
        (Op::Insert, "3"),
        (Op::Update, "2"),
        (Op::Update, "30"),
        (Op::Delete, "30"),
    ];
    let found: Vec<(Op, &str)> = reader
        .changes
        .iter()
        .map(|(op, key)| (*op, key.as_str()))
        .collect();
    assert_eq!(found, expected);
    let row = |i: usize| -> Vec<Option<&str>> {
        reader.rows[i].iter().map(|cell| cell.as_deref()).collect()
    };
    assert_eq!(row(1), [Some("2"), Some("b"), None]);
    assert_eq!(row(3), [Some("2"), Some("b"), Some("y")]);
    reader.close().await;
}

async fn a_quiet_change_arrives_at_once(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_quiet");
    let mut reader = bed.begin(1).await;
    for id in 2..5 {
        bed.sql(&format!("INSERT INTO people (id) VALUES ({id})"));
        let committed = Instant::now();
        reader.until_key(&id.to_string()).await;
        assert!(committed.elapsed() < Duration::from_millis(500));
    }
}

async fn an_empty_log_is_a_beginning(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let reset = match version.is_mariadb() {
        true => "RESET MASTER",
        false => "RESET BINARY LOGS AND GTIDS",
    };
    bed.sql(reset);
    let reader = Reader::open(&bed.source(), None).await;
    let stored = reader.close().await;
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    bed.sql("INSERT INTO people (id) VALUES (1)");
    reader.until_key("1").await;
    assert_eq!(reader.keys(), ["1"]);
}

async fn the_log_goes_on_where_the_cursor_stands(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_resume");
    let stored = bed.begin(1).await.close().await;
    bed.sql("INSERT INTO people (id) VALUES (2); INSERT INTO people (id) VALUES (3)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("3").await;
    assert_eq!(reader.keys(), ["2", "3"]);
    bed.server.rotate_binlog().unwrap();
    let stored = reader.close().await;
    bed.server.rotate_binlog().unwrap();
    bed.sql("INSERT INTO people (id) VALUES (4)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("4").await;
    assert_eq!(reader.keys(), ["4"]);
}

async fn a_large_transaction_is_split_and_goes_on_in_its_middle(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_large");
    let mut config = bed.config();
    config.caps = BatchCaps {
        most_changes: 1000,
        bytes: 1 << 20,
        ..BatchCaps::default()
    };
    let source = MySqlSource::new(config);
    let opened = Reader::open(&source, None).await;
    bed.sql(
        "INSERT INTO people (id, name) WITH RECURSIVE n AS \
         (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
         SELECT a.i * 1000 + b.i, 'x' FROM n a JOIN n b WHERE a.i <= 5 ORDER BY 1",
    );
    let mut expected: Vec<String> = (1..=5)
        .flat_map(|a| (1..=900).map(move |b| (a * 1000 + b).to_string()))
        .collect();
    // Each time the source is opened anew, where the last batch ended.
    let mut stored = opened.stored();
    let mut found = Vec::new();
    let mut openings = 0;
    opened.close().await;
    while found.len() < expected.len() {
        let mut reader = Reader::open(&source, Some(stored)).await;
        assert_eq!(reader.reasons(), []);
        openings += 1;
        while reader.changes.is_empty() {
            reader.step().await;
        }
        found.extend(reader.changes.iter().map(|(_, key)| key.clone()));
        stored = reader.close().await;
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(openings > 3, "{openings} openings");
}

async fn savepoints_and_rollbacks_leave_what_was_committed(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_savepoint");
    let mut reader = bed.begin(1).await;
    bed.sql(
        "BEGIN; INSERT INTO people (id) VALUES (2); SAVEPOINT a;
         INSERT INTO people (id) VALUES (3); ROLLBACK TO SAVEPOINT a;
         INSERT INTO people (id) VALUES (4); COMMIT;
         BEGIN; INSERT INTO people (id) VALUES (5); ROLLBACK;
         INSERT INTO people (id) VALUES (6)",
    );
    reader.until_key("6").await;
    assert_eq!(reader.keys(), ["1", "2", "4", "6"]);
    assert_eq!(reader.gaps, []);
}

async fn tables_without_transactions_are_followed(version: MySqlVersion) {
    let bed = Bed::on(
        shared(version),
        "stream_myisam",
        "CREATE TABLE people (id INT PRIMARY KEY, name TEXT) ENGINE = MyISAM;
         CREATE TABLE other (id INT PRIMARY KEY) ENGINE = InnoDB;",
    );
    let mut reader = bed.begin(1).await;
    bed.sql(
        "INSERT INTO people VALUES (2, 'b');
         INSERT INTO people VALUES (3, 'c')",
    );
    // MySQL with GTIDs does not allow a rollback over both kinds of tables.
    if version.is_mariadb() {
        bed.sql(
            "BEGIN; INSERT INTO other VALUES (1); DELETE FROM people WHERE id = 3;
             INSERT INTO people VALUES (3, 'C'); ROLLBACK",
        );
    }
    bed.sql("INSERT INTO people VALUES (4, 'd')");
    reader.until_key("4").await;
    let expected: &[&str] = match version.is_mariadb() {
        true => &["1", "2", "3", "3", "3", "4"],
        false => &["1", "2", "3", "4"],
    };
    assert_eq!(reader.keys(), expected);
    let stored = reader.close().await;
    bed.sql("DELETE FROM people WHERE id = 3");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("3").await;
    assert_eq!(reader.changes, [(Op::Delete, "3".to_owned())]);
}

async fn an_added_column_is_told_before_its_first_row(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_alter");
    let mut reader = bed.begin(1).await;
    bed.sql(
        "ALTER TABLE people ADD COLUMN age INT FIRST;
         INSERT INTO people VALUES (40, 2, 'n', 'm')",
    );
    reader.until_key("2").await;
    assert_eq!(reader.schemas, [TableNo::MAIN]);
    let row: Vec<Option<&str>> = reader.rows[1].iter().map(|c| c.as_deref()).collect();
    assert_eq!(row, [Some("40"), Some("2"), Some("n"), Some("m")]);
    // A widening rewrites rows without saying so.
    bed.sql("ALTER TABLE people MODIFY name TEXT; INSERT INTO people VALUES (1, 3, 'n', 'm')");
    assert_eq!(reader.until_gap().await.reason, GapReason::SchemaChanged);
    reader.until_key("3").await;
    assert_eq!(reader.schemas, [TableNo::MAIN]);
}

async fn a_truncated_table_is_one_change(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_truncate");
    let mut reader = bed.begin(1).await;
    bed.sql("/* now */ TRUNCATE `people`; INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let ops: Vec<Op> = reader.changes.iter().map(|(op, _)| *op).collect();
    assert_eq!(ops, [Op::Insert, Op::Truncate, Op::Insert]);
    assert_eq!(reader.gaps, []);
}

async fn partial_images_say_what_they_do_not_carry(version: MySqlVersion) {
    let bed = Bed::alone(version, &[("binlog_row_image", "MINIMAL")]);
    let mut reader = bed.begin(1).await;
    bed.sql(
        "UPDATE people SET mail = 'm' WHERE id = 1;
         DELETE FROM people WHERE id = 1",
    );
    while reader.changes.len() < 3 {
        reader.step().await;
    }
    assert_eq!(reader.keys()[2], "1");
    assert_eq!(reader.changes[1].0, Op::Update);
    let row: Vec<Option<&str>> = reader.rows[1].iter().map(|c| c.as_deref()).collect();
    assert_eq!(row[1..], [Some("(unchanged)"), Some("m")]);
    assert_eq!(
        reader.changes[1].1, "1",
        "the key of an update is in its new row"
    );
}

async fn without_names_in_the_log_those_of_the_server_are_used(version: MySqlVersion) {
    let bed = Bed::alone(version, &[("binlog_row_metadata", "MINIMAL")]);
    let mut reader = bed.begin(1).await;
    bed.sql("UPDATE people SET mail = 'Zoë' WHERE id = 1");
    while reader.changes.len() < 2 {
        reader.step().await;
    }
    let row: Vec<Option<&str>> = reader.rows[1].iter().map(|c| c.as_deref()).collect();
    assert_eq!(row, [Some("1"), Some("first"), Some("Zoë")]);
}

async fn a_moved_column_without_names_stops_the_source(version: MySqlVersion) {
    let bed = Bed::alone(version, &[("binlog_row_metadata", "MINIMAL")]);
    let mut reader = bed.begin(1).await;
    bed.sql(
        "ALTER TABLE people ADD COLUMN age INT FIRST; INSERT INTO people VALUES (40, 2, 'n', 'm')",
    );
    let error = loop {
        match tokio::time::timeout(PATIENCE, reader.opened.stream.next())
            .await
            .unwrap()
        {
            Ok(StreamItem::Batch(batch)) => panic!("{} rows by guess", batch.len()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(!error.is_transient());
    assert!(error.to_string().contains("binlog_row_metadata"), "{error}");
}

async fn rows_beyond_one_packet_arrive_whole(version: MySqlVersion) {
    let bed = Bed::on(
        std::sync::Arc::new({
            let server = rollcall_testbed::MySql::builder()
                .version(version)
                .setting("max_allowed_packet", "1G")
                .setting(
                    match version.is_mariadb() {
                        true => "innodb_log_file_size",
                        false => "innodb_redo_log_capacity",
                    },
                    "512M",
                )
                .start()
                .unwrap();
            crate::bed::account(&server);
            server
        }),
        "hr",
        "CREATE TABLE people (id INT PRIMARY KEY, name LONGTEXT);",
    );
    let mut reader = bed.begin(1).await;
    bed.sql("INSERT INTO people VALUES (2, CONCAT(REPEAT('x', 40000000), 'end')), (3, 'small')");
    reader.until_key("3").await;
    let long = reader.rows[1][1].as_deref().unwrap();
    assert_eq!((long.len(), &long[long.len() - 4..]), (40_000_003, "xend"));
    let mut key = rollcall_contract::Key::new();
    key.push(b"2");
    let page = bed.source().reread(TableNo::MAIN, &[key]).await.unwrap();
    let scanned = text_of(page.rows.change(0).after().unwrap().cell(1));
    assert!(
        scanned.as_deref() == Some(long),
        "the scan reads another text"
    );
}

async fn a_cut_connection_is_transient(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let mut reader = bed.begin(1).await;
    bed.server.kill9();
    let error = loop {
        match tokio::time::timeout(PATIENCE, reader.opened.stream.next())
            .await
            .unwrap()
        {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_transient(), "{error}");
    let stored = reader.stored();
    bed.server.start_again().unwrap();
    bed.sql("INSERT INTO people (id) VALUES (2)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("2").await;
    assert_eq!(reader.keys(), ["2"]);
}

async fn two_readers_with_one_name_are_noticed(version: MySqlVersion) {
    let bed = Bed::new(version, "stream_twice");
    let (one, two) = (bed.source(), bed.source());
    let mut first = Reader::open(&one, None).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let stored = first.stored();
        let second = Reader::open(&two, None).await;
        let error = loop {
            match tokio::time::timeout(PATIENCE, first.opened.stream.next())
                .await
                .unwrap()
            {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_transient(), "{error}");
        codes.push(error.code());
        if codes.len() < 3 {
            first = Reader::open(&one, Some(stored)).await;
        }
        drop(second);
    }
    assert_eq!(codes, ["replica_clash"; 3]);
    let error = match one.open(None).await {
        Ok(_) => panic!("the fight goes on"),
        Err(error) => error,
    };
    assert_eq!(error.code(), "replica_clash");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn compressed_transactions_are_read_like_others() {
    let bed = Bed::alone(
        MySqlVersion::MySql9,
        &[("binlog_transaction_compression", "ON")],
    );
    let mut config = bed.config();
    config.caps = BatchCaps {
        most_changes: 100,
        bytes: 1 << 20,
        ..BatchCaps::default()
    };
    let source = MySqlSource::new(config);
    let mut reader = Reader::open(&source, None).await;
    let many: Vec<String> = (1..=1000)
        .map(|id| format!("({id}, '{id:0100}', NULL)"))
        .collect();
    bed.sql(&format!(
        "BEGIN; INSERT INTO people VALUES {}; UPDATE people SET mail = 'z' WHERE id = 7; COMMIT;
         INSERT INTO people (id) VALUES (2000)",
        many.join(", ")
    ));
    while reader.batches < 3 {
        reader.step().await;
    }
    let mut found = reader.changes.len();
    assert!(found < 1000, "it was split");
    let stored = reader.close().await;
    let mut reader = Reader::open(&source, Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("2000").await;
    found += reader.changes.len();
    assert_eq!(found, 1002);
}

#[tokio::test]
async fn compressed_events_are_read_like_others() {
    let bed = Bed::alone(
        MySqlVersion::MariaDb10,
        &[
            ("log_bin_compress", "ON"),
            ("log_bin_compress_min_len", "10"),
        ],
    );
    let mut reader = bed.begin(1).await;
    bed.sql("INSERT INTO people VALUES (2, REPEAT('x', 99), 'm'); UPDATE people SET mail = REPEAT('y', 90) WHERE id = 2; DELETE FROM people");
    while reader.changes.len() < 5 {
        reader.step().await;
    }
    let (x, y) = ("x".repeat(99), "y".repeat(90));
    let row: Vec<Option<&str>> = reader.rows[2].iter().map(|c| c.as_deref()).collect();
    assert_eq!(row, [Some("2"), Some(x.as_str()), Some(y.as_str())]);
}

#[tokio::test]
async fn without_gtids_places_serve() {
    let bed = Bed::alone(
        MySqlVersion::MySql9,
        &[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")],
    );
    let stored = bed.begin(1).await.close().await;
    bed.server.rotate_binlog().unwrap();
    bed.sql("INSERT INTO people (id) VALUES (2)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("2").await;
    assert_eq!(reader.keys(), ["2"]);
}

#[tokio::test]
async fn every_domain_has_its_own_position() {
    let bed = Bed::alone(MySqlVersion::MariaDb10, &[]);
    let insert = |domain: u32, id: u32| {
        bed.sql(&format!(
            "SET gtid_domain_id = {domain}; INSERT INTO people (id) VALUES ({id})"
        ));
    };
    let stored = bed.begin(1).await.close().await;
    insert(7, 2);
    insert(0, 3);
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("3").await;
    let stored = reader.close().await;
    insert(9, 4);
    insert(7, 5);
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("5").await;
    assert_eq!(reader.keys(), ["4", "5"]);
}

#[tokio::test]
async fn tagged_transactions_are_transactions() {
    let bed = Bed::new(MySqlVersion::MySql9, "stream_tags");
    let mut reader = bed.begin(1).await;
    bed.sql("SET gtid_next = 'AUTOMATIC:hr'; INSERT INTO people (id) VALUES (2)");
    reader.until_key("2").await;
    let stored = reader.close().await;
    bed.sql("INSERT INTO people (id) VALUES (3); SET gtid_next = 'AUTOMATIC:hr'; INSERT INTO people (id) VALUES (4)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("4").await;
    assert_eq!(reader.keys(), ["3", "4"]);
}

#[tokio::test]
async fn cascades_of_mysql_9_are_in_its_log() {
    let bed = Bed::on(
        shared(MySqlVersion::MySql9),
        "stream_cascade",
        "CREATE TABLE unit (id INT PRIMARY KEY);
         CREATE TABLE people (id INT PRIMARY KEY, name TEXT, unit INT,
           FOREIGN KEY (unit) REFERENCES unit (id) ON DELETE CASCADE);",
    );
    let mut reader = bed.begin(1).await;
    bed.sql(
        "INSERT INTO unit VALUES (7); INSERT INTO people VALUES (2, 'b', 7);
         DELETE FROM unit; INSERT INTO people (id) VALUES (3)",
    );
    reader.until_key("3").await;
    assert!(
        reader.changes.contains(&(Op::Delete, "2".to_owned())),
        "{:?}",
        reader.changes
    );
}
