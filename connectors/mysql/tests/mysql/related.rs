//! Related tables: the log and the pages bring them beside the main one.

use rollcall_contract::{
    BatchCaps, GapReason, Key, Op, PageRequest, RelatedTable, Severity, Source, TableName, TableNo,
};
use rollcall_mysql::{MySqlConfig, MySqlSource};
use rollcall_testbed::MySqlVersion;

use crate::bed::{Bed, PEOPLE, Reader, cells, shared};

with_both!(
    changes_of_all_tables_come_in_the_order_of_the_log,
    each_table_is_read_in_pages_and_by_key_under_its_own_number,
    what_happens_to_a_related_table_is_a_gap_that_names_it,
    an_altered_related_table_is_told_under_its_own_number,
    a_related_table_that_cannot_be_followed_is_refused,
    a_related_view_is_read_in_pages_with_a_key,
    a_split_transaction_goes_on_where_it_was_left_unless_the_tables_changed,
);

const UNIT: TableNo = TableNo(1);
const GRANTED: TableNo = TableNo(2);

const TABLES: &str = "CREATE TABLE unit (no INT PRIMARY KEY, title VARCHAR(50));
    CREATE TABLE granted (person INT, role VARCHAR(20), PRIMARY KEY (person, role));";

fn related(db: &str, name: &str) -> RelatedTable {
    RelatedTable {
        name: name.to_owned(),
        table: TableName::new(db, name),
        key: None,
    }
}

fn bed(version: MySqlVersion, db: &str) -> Bed {
    Bed::on(shared(version), db, &format!("{PEOPLE}{TABLES}"))
}

fn config(bed: &Bed) -> MySqlConfig {
    let mut config = bed.config();
    config.related = vec![related(&bed.db, "unit"), related(&bed.db, "granted")];
    config
}

fn source(bed: &Bed) -> MySqlSource {
    MySqlSource::new(config(bed))
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

async fn changes_of_all_tables_come_in_the_order_of_the_log(version: MySqlVersion) {
    let bed = bed(version, "related_order");
    let mut reader = Reader::open(&source(&bed), None).await;
    assert_eq!(reader.reasons(), [GapReason::InitialLoad]);
    assert_eq!(reader.opened.gaps[0].tables.len(), 3);
    bed.sql(
        "CREATE TABLE other (id INT PRIMARY KEY);
         BEGIN;
         INSERT INTO unit VALUES (7, 'Sales');
         INSERT INTO people (id) VALUES (1);
         INSERT INTO other VALUES (1);
         INSERT INTO granted VALUES (1, 'admin');
         UPDATE unit SET no = 8 WHERE no = 7;
         DELETE FROM granted;
         COMMIT;
         TRUNCATE unit;
         INSERT INTO people (id) VALUES (2);",
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
            (TableNo::MAIN, Op::Insert),
        ]
    );
    assert_eq!(reader.ordinals, [0, 1, 2, 3, 4, 0, 0]);
    assert_eq!(
        reader.changes[4].1, reader.changes[2].1,
        "the old row's key"
    );
}

async fn each_table_is_read_in_pages_and_by_key_under_its_own_number(version: MySqlVersion) {
    let bed = bed(version, "related_pages");
    bed.sql(
        "INSERT INTO people (id) VALUES (1);
         INSERT INTO unit VALUES (1, 'u1'), (2, 'u2'), (3, 'u3');
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
        let (mut after, mut keys) = (None, Vec::new());
        loop {
            let page = source.page(no, request(after)).await.unwrap();
            for change in page.rows.changes() {
                assert_eq!(change.table_no(), no);
                keys.push(Key::of_row(change.table(), &change.after().unwrap()).unwrap());
            }
            after = page.last;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(keys.len(), rows);
        let again = source.reread(no, &keys).await.unwrap();
        assert_eq!(again.rows.len(), rows);
        assert_eq!(again.rows.change(0).table_no(), no);
    }
    let page = source.page(UNIT, request(None)).await.unwrap();
    assert_eq!(cells(&page.rows)["2"][1].as_deref(), Some("u2"));
    let error = source.schema(TableNo(3)).await.err().unwrap();
    assert_eq!(error.code(), "no_such_table");
}

async fn what_happens_to_a_related_table_is_a_gap_that_names_it(version: MySqlVersion) {
    let bed = bed(version, "related_gaps");
    let mut reader = Reader::open(&source(&bed), None).await;
    let unit = [TableName::new("related_gaps", "unit")];
    for (sql, reason) in [
        (
            "RENAME TABLE unit TO unit_old; CREATE TABLE unit LIKE unit_old",
            GapReason::TableRecreated,
        ),
        (
            "DROP TABLE unit; CREATE TABLE unit (no INT PRIMARY KEY, title VARCHAR(50))",
            GapReason::TableRecreated,
        ),
        (
            "CREATE TABLE part (no INT PRIMARY KEY, title VARCHAR(50));
             ALTER TABLE unit PARTITION BY RANGE (no) (PARTITION a VALUES LESS THAN (100));
             ALTER TABLE unit EXCHANGE PARTITION a WITH TABLE part",
            GapReason::PartitionsChanged,
        ),
        (
            "ALTER TABLE unit MODIFY title VARCHAR(60); INSERT INTO unit VALUES (1, 'x')",
            GapReason::SchemaChanged,
        ),
    ] {
        bed.sql(sql);
        let gap = reader.until_gap().await;
        assert_eq!((gap.reason, &gap.tables[..]), (reason, &unit[..]));
    }
    bed.sql("INSERT INTO unit VALUES (2, 'x'); INSERT INTO people (id) VALUES (9)");
    reader.until_key("9").await;
    assert_eq!(reader.gaps, []);
    assert!(reader.tables.ends_with(&[UNIT, TableNo::MAIN]));
}

async fn an_altered_related_table_is_told_under_its_own_number(version: MySqlVersion) {
    let bed = bed(version, "related_alter");
    let mut reader = Reader::open(&source(&bed), None).await;
    bed.sql(
        "ALTER TABLE unit ADD COLUMN head INT FIRST;
         INSERT INTO people (id) VALUES (1);
         INSERT INTO unit VALUES (5, 7, 'Sales');",
    );
    reader.until_key("7").await;
    assert_eq!(reader.schemas, [UNIT]);
    assert_eq!(reader.rows[1].len(), 3);
}

async fn a_related_table_that_cannot_be_followed_is_refused(version: MySqlVersion) {
    for (db, tables, code, severity) in [
        ("related_none", "", "no_such_table", Severity::Error),
        (
            "related_keyless",
            "CREATE TABLE unit (no INT);",
            "no_key",
            Severity::Error,
        ),
        (
            "related_view",
            "CREATE TABLE base (no INT PRIMARY KEY); CREATE VIEW unit AS SELECT * FROM base;",
            "not_followable",
            Severity::Unfollowable,
        ),
    ] {
        let bed = Bed::on(shared(version), db, &format!("{PEOPLE}{tables}"));
        let mut config = bed.config();
        config.related = vec![related(db, "unit")];
        let source = MySqlSource::new(config);
        let report = source.check().await;
        let found = report.findings.iter().find(|f| f.code == code).unwrap();
        assert_eq!(found.severity, severity);
        assert!(found.found.contains("unit") && !found.fix.is_empty());
        assert!(report.script.contains("`unit`"), "{}", report.script);
        assert!(source.open(None).await.is_err());
    }
}

async fn a_related_view_is_read_in_pages_with_a_key(version: MySqlVersion) {
    let tables = format!(
        "{PEOPLE} CREATE TABLE base (no INT PRIMARY KEY); INSERT INTO base VALUES (3);
         CREATE VIEW unit AS SELECT * FROM base;"
    );
    let bed = Bed::on(shared(version), "related_polled", &tables);
    let mut config = bed.config();
    config.related = vec![RelatedTable {
        key: Some(vec!["no".to_owned()]),
        ..related("related_polled", "unit")
    }];
    let page = MySqlSource::new(config).page(UNIT, request(None)).await;
    assert_eq!(page.unwrap().rows.len(), 1);
}

async fn a_split_transaction_goes_on_where_it_was_left_unless_the_tables_changed(
    version: MySqlVersion,
) {
    let bed = bed(version, "related_split");
    let mut config = config(&bed);
    config.caps = BatchCaps {
        changes: 1,
        most_changes: 1,
        bytes: 1 << 20,
    };
    let mut reader = Reader::open(&MySqlSource::new(config.clone()), None).await;
    bed.sql(
        "BEGIN;
         INSERT INTO people (id) VALUES (1);
         INSERT INTO unit VALUES (11, 'a');
         INSERT INTO people (id) VALUES (2);
         INSERT INTO unit VALUES (12, 'b');
         COMMIT;",
    );
    reader.until_key("11").await;
    assert_eq!(reader.keys(), ["1", "11"]);
    let stored = reader.close().await;
    // From here on no batch ends inside of a transaction.
    config.caps = BatchCaps::default();
    let mut reader = Reader::open(&MySqlSource::new(config.clone()), Some(stored.clone())).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("12").await;
    assert_eq!(reader.keys(), ["2", "12"]);
    assert_eq!(reader.ordinals, [2, 3]);
    let whole = reader.close().await;

    config.related.pop();
    let other = MySqlSource::new(config);
    let reader = Reader::open(&other, Some(stored)).await;
    assert_eq!(reader.reasons(), [GapReason::MappingChanged]);
    drop(reader);
    bed.sql("INSERT INTO people (id) VALUES (3)");
    let mut reader = Reader::open(&other, Some(whole)).await;
    reader.until_key("3").await;
    assert_eq!(reader.reasons(), []);
    assert_eq!(reader.keys().last(), Some(&"3"));
}
