//! Related tables: the log and the pages bring them beside the main one.

use rollcall_contract::{
    GapReason, Key, Op, PageRequest, RelatedTable, Source, TableName, TableNo,
};
use rollcall_postgres::PostgresSource;
use rollcall_postgres::config::PostgresConfig;
use rollcall_testbed::PgVersion;

use crate::bed::{Bed, PEOPLE, Reader, cells, shared};
use crate::checks::refused;

const UNIT: TableNo = TableNo(1);
const GRANTED: TableNo = TableNo(2);

const TABLES: &str = "CREATE TABLE unit (no int PRIMARY KEY, title text);
    CREATE TABLE granted (person int, role text, PRIMARY KEY (person, role));";

fn related(name: &str) -> RelatedTable {
    RelatedTable {
        name: name.to_owned(),
        table: TableName::new("public", name),
        key: None,
    }
}

/// A database with both related tables, which the publication lists.
fn bed(version: PgVersion, db: &str) -> Bed {
    let bed = Bed::on(shared(version), db, &format!("{PEOPLE}{TABLES}"));
    bed.sql("ALTER PUBLICATION rollcall ADD TABLE unit, granted");
    bed
}

fn config(bed: &Bed) -> PostgresConfig {
    let mut config = bed.config();
    config.related = vec![related("unit"), related("granted")];
    config
}

fn source(bed: &Bed) -> PostgresSource {
    PostgresSource::new(config(bed))
}

fn request(after: Option<Key>) -> PageRequest {
    PageRequest {
        after,
        limit_rows: 2,
        limit_bytes: 1 << 20,
        only: None,
        since: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_all_tables_come_in_the_order_of_the_log() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let bed = bed(version, "related_order");
        let mut reader = Reader::open(&source(&bed), None).await;
        assert_eq!(reader.reasons(), [GapReason::InitialLoad]);
        assert_eq!(reader.opened.gaps[0].tables.len(), 3);
        bed.sql(
            "BEGIN;
             INSERT INTO unit VALUES (7, 'Sales');
             INSERT INTO people VALUES (1, 'Ada');
             INSERT INTO granted VALUES (1, 'admin');
             UPDATE unit SET no = 8 WHERE no = 7;
             DELETE FROM granted;
             COMMIT;
             TRUNCATE granted, unit;
             INSERT INTO people VALUES (2, 'Bob');",
        );
        reader.until_key("2").await;
        let seen: Vec<(TableNo, Op)> = reader
            .tables
            .iter()
            .zip(&reader.changes)
            .map(|(no, (op, _))| (*no, *op))
            .collect();
        assert_eq!(
            seen,
            [
                (UNIT, Op::Insert),
                (TableNo::MAIN, Op::Insert),
                (GRANTED, Op::Insert),
                (UNIT, Op::Update),
                (GRANTED, Op::Delete),
                (UNIT, Op::Truncate),
                (GRANTED, Op::Truncate),
                (TableNo::MAIN, Op::Insert),
            ]
        );
        assert_eq!(
            reader.changes[4].1, reader.changes[2].1,
            "the old row's key"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_is_read_in_pages_and_by_key_under_its_own_number() {
    let bed = bed(PgVersion::Debian, "related_pages");
    bed.sql(
        "INSERT INTO people VALUES (1, 'Ada');
         INSERT INTO unit SELECT g, 'u' || g FROM generate_series(1, 3) g;
         INSERT INTO granted VALUES (1, 'a'), (1, 'b'), (2, 'a');",
    );
    let source = source(&bed);
    for (no, names, rows) in [
        (TableNo::MAIN, &["id", "name", "mail"][..], 1),
        (UNIT, &["no", "title"], 3),
        (GRANTED, &["person", "role"], 3),
    ] {
        let schema = source.schema(no).await.unwrap();
        let columns: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(columns, names);
        let (mut after, mut keys, mut read) = (None, Vec::new(), 0);
        loop {
            let page = source.page(no, request(after)).await.unwrap();
            for change in page.rows.changes() {
                assert_eq!(change.table_no(), no);
                keys.push(Key::of_row(change.table(), &change.after().unwrap()).unwrap());
            }
            read += page.rows.len();
            after = page.last;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, rows);
        let again = source.reread(no, &keys).await.unwrap();
        assert_eq!(again.rows.len(), rows);
        assert_eq!(again.rows.change(0).table_no(), no);
    }
    let page = source.page(UNIT, request(None)).await.unwrap();
    assert_eq!(cells(&page.rows)["2"][1].as_deref(), Some("u2"));
    let error = source.schema(TableNo(3)).await.err().unwrap();
    assert_eq!(error.code(), "no_such_table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_related_table_that_cannot_be_followed_is_refused_before_the_application_is_hurt() {
    for (db, tables, code) in [
        ("related_none", "", "no_such_table"),
        (
            "related_unlisted",
            "CREATE TABLE unit (no int PRIMARY KEY);",
            "publication_lacks_table",
        ),
        ("related_keyless", "CREATE TABLE unit (no int);", "no_key"),
        (
            "related_nothing",
            "CREATE TABLE unit (no int PRIMARY KEY);
             ALTER TABLE unit REPLICA IDENTITY NOTHING;",
            "replica_identity",
        ),
        (
            "related_view",
            "CREATE TABLE base (no int PRIMARY KEY); CREATE VIEW unit AS SELECT * FROM base;",
            "no_key",
        ),
        (
            "related_unlogged",
            "CREATE UNLOGGED TABLE unit (no int PRIMARY KEY);",
            "not_followable",
        ),
    ] {
        let bed = Bed::on(shared(PgVersion::Debian), db, &format!("{PEOPLE}{tables}"));
        let mut config = bed.config();
        config.related = vec![related("unit")];
        assert_eq!(refused(&PostgresSource::new(config)).await, code, "{db}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_related_view_is_read_in_pages_with_a_key() {
    let tables = format!(
        "{PEOPLE} CREATE TABLE base (no int PRIMARY KEY); INSERT INTO base VALUES (3);
         CREATE VIEW unit AS SELECT * FROM base;"
    );
    let bed = Bed::on(shared(PgVersion::Debian), "related_polled", &tables);
    let mut config = bed.config();
    config.related = vec![RelatedTable {
        key: Some(vec!["no".to_owned()]),
        ..related("unit")
    }];
    let source = PostgresSource::new(config);
    assert_eq!(refused(&source).await, "not_followable");
    let page = source.page(UNIT, request(None)).await.unwrap();
    assert_eq!(page.rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_related_tables_that_is_set_up_by_the_script_is_usable() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "related_scripted",
        "CREATE TABLE people (id int PRIMARY KEY); CREATE SCHEMA org;
         CREATE TABLE org.unit (no int PRIMARY KEY);",
    );
    bed.sql("DROP PUBLICATION rollcall; REVOKE SELECT ON people FROM rollcall;");
    let mut config = bed.config();
    config.related = vec![RelatedTable {
        table: TableName::new("org", "unit"),
        ..related("unit")
    }];
    let source = PostgresSource::new(config);
    let before = source.check().await;
    assert!(!before.is_usable());
    bed.sql(&before.script);
    let after = source.check().await;
    assert!(after.is_followable(), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_related_table_is_a_gap_that_names_it() {
    let unit = [TableName::new("public", "unit")];
    for (db, sql, reason) in [
        (
            "related_removed",
            "ALTER PUBLICATION rollcall DROP TABLE unit",
            GapReason::PublicationChanged,
        ),
        (
            "related_again",
            "ALTER PUBLICATION rollcall DROP TABLE unit;
             ALTER PUBLICATION rollcall ADD TABLE unit",
            GapReason::PublicationChanged,
        ),
        (
            "related_recreated",
            "DROP TABLE unit; CREATE TABLE unit (no int PRIMARY KEY);
             GRANT SELECT ON unit TO rollcall; ALTER PUBLICATION rollcall ADD TABLE unit;",
            GapReason::TableRecreated,
        ),
        (
            "related_attached",
            "CREATE TABLE late (LIKE unit INCLUDING ALL); INSERT INTO late VALUES (200, 'x');
             ALTER TABLE unit ATTACH PARTITION late FOR VALUES FROM (100) TO (300);",
            GapReason::PartitionsChanged,
        ),
    ] {
        let tables = format!(
            "{PEOPLE} CREATE TABLE unit (no int PRIMARY KEY, title text) PARTITION BY RANGE (no);
             CREATE TABLE early PARTITION OF unit FOR VALUES FROM (1) TO (100);"
        );
        let bed = Bed::on(shared(PgVersion::Debian), db, &tables);
        bed.sql("ALTER PUBLICATION rollcall ADD TABLE unit");
        let mut config = bed.config();
        config.related = vec![related("unit")];
        let source = PostgresSource::new(config);
        let mut reader = Reader::open(&source, None).await;
        let stored = reader.stored();
        bed.sql(sql);
        let gap = reader.until_gap().await;
        assert_eq!(gap.reason, reason, "{db}");
        assert_eq!(gap.tables, unit, "{db}");
        reader.close().await;
        if db == "related_removed" {
            assert_eq!(refused(&source).await, "publication_lacks_table");
            continue;
        }
        let reader = Reader::open(&source, Some(stored)).await;
        assert!(reader.reasons().contains(&reason), "{db}");
        let names = |gap: &rollcall_contract::Gap| gap.tables == unit;
        assert!(reader.opened.gaps.iter().all(names), "{db}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_related_table_that_is_new_in_the_configuration_begins_anew() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "related_added",
        &format!("{PEOPLE}{TABLES}"),
    );
    let stored = bed.begin(1).await.close().await;
    // A transaction that wrote before the publication listed the table, and ends after.
    let server = std::sync::Arc::clone(&bed.server);
    let writing = std::thread::spawn(move || {
        server.psql(
            "related_added",
            "BEGIN; INSERT INTO unit VALUES (7, 'Sales'); SELECT pg_sleep(2); COMMIT;",
        )
    });
    rollcall_testbed::wait_for(crate::bed::PATIENCE, "the writer to begin", || {
        match bed
            .sql("SELECT count(*) FROM pg_locks WHERE relation = 'unit'::regclass")
            .as_str()
        {
            "0" => Err("no lock".to_owned()),
            _ => Ok(()),
        }
    })
    .unwrap();
    bed.sql("ALTER PUBLICATION rollcall ADD TABLE unit, granted");
    let source = source(&bed);
    let mut reader = Reader::open(&source, Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::MappingChanged]);
    assert_eq!(reader.opened.gaps[0].tables.len(), 2);
    writing.join().unwrap().unwrap();
    let page = source.page(UNIT, request(None)).await.unwrap();
    let in_page = page.rows.len() == 1;
    bed.sql("INSERT INTO people VALUES (2, 'Bob')");
    reader.until_key("2").await;
    let in_log = reader.tables.contains(&UNIT);
    assert!(in_page || in_log, "the row is in neither");
    let stored = reader.close().await;
    let reader = Reader::open(&source, Some(stored)).await;
    assert_eq!(reader.reasons(), [], "it is known by now");
}
