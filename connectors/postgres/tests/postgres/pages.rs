//! Pages cover each row exactly once, and their windows say what they have seen.

use std::time::Duration;

use rollcall_contract::{Cell, Key, Op, PageRequest, Source, StreamItem, TableName, TableNo, TxId};
use rollcall_postgres::PostgresSource;
use rollcall_testbed::PgVersion;

use crate::bed::{Bed, PATIENCE, PEOPLE, Reader, key_of, pages, shared};

async fn keys_of_all_pages(bed: &Bed, limit_rows: usize) -> Vec<String> {
    let pages = pages(&bed.source(), limit_rows, 1 << 20).await;
    assert!(pages.len() > 2, "the table takes several pages");
    for page in &pages {
        assert!(page.rows.len() <= limit_rows);
        assert!(page.rows.changes().all(|c| c.op() == Op::Read));
    }
    let keys = |page: &rollcall_contract::Page| page.rows.changes().map(|c| key_of(&c)).collect();
    pages
        .iter()
        .flat_map(|p| -> Vec<String> { keys(p) })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_keys_cover_each_row_exactly_once() {
    let tables = "CREATE TABLE people (org text COLLATE \"en-x-icu\", day timestamptz, raw bytea,
           n numeric, name text, PRIMARY KEY (org, day, raw, n));
         INSERT INTO people SELECT (ARRAY['a','B','b','A','é','e f','ef','''\\'])[1 + g % 8],
             '0044-03-15 12:00:00+00 BC'::timestamptz + (g % 5) * interval '300 years',
             decode(lpad(to_hex(g % 7), 4, '0'), 'hex'), g / 10.0, 'x'
           FROM generate_series(1, 500) g;";
    let bed = Bed::on(shared(PgVersion::Debian), "pages_composite", tables);
    let mut keys = keys_of_all_pages(&bed, 37).await;
    assert_eq!(keys.len(), 500);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_sortable_type_cover_each_row_exactly_once() {
    let bed = Bed::new("pages_types");
    // Text that a locale sorts by other rules than bytes, an enumeration that sorts by its
    // declaration, a domain, a type of an extension whose operators stand elsewhere, and
    // types whose canonical text is not the server's own.
    for (i, (setup, column, value)) in [
        ("", "text COLLATE \"de-x-icu\"", "chr(65 + (g * 7) % 50) || g"),
        ("", "varchar(20) COLLATE \"C\"", "chr(65 + (g * 7) % 50) || g"),
        ("", "char(12)", "chr(97 + (g * 7) % 20) || g"),
        (
            "DO $$ BEGIN EXECUTE 'CREATE TYPE mood AS ENUM (' || (SELECT string_agg(quote_literal('v' || \
             (g * 37) % 101), ',') FROM generate_series(1, 100) g) || ')'; END $$;",
            "mood",
            "('v' || (g * 37) % 101)::mood",
        ),
        ("CREATE DOMAIN k AS numeric CHECK (VALUE > -1000);", "k", "((g * 37) % 101) / 3.0 - 50"),
        ("CREATE EXTENSION citext;", "citext", "(CASE WHEN g % 2 = 0 THEN 'A' ELSE 'a' END || g)::citext"),
        ("", "bytea", "decode(lpad(to_hex((g * 37) % 256), 4, '0'), 'hex') || g::text::bytea"),
        ("", "boolean", "g % 2 = 0"),
        ("", "float8", "CASE WHEN g = 1 THEN 'NaN' WHEN g = 2 THEN '-Infinity' ELSE (g * 0.1 - 3)::text END::float8"),
        ("", "timestamp", "CASE WHEN g = 1 THEN 'infinity'::timestamp ELSE '0001-01-05 BC'::timestamp + g * interval '1.000001 day' END"),
        ("", "timestamptz", "CASE WHEN g = 1 THEN '-infinity'::timestamptz ELSE '0001-01-05 BC'::timestamptz + g * interval '1.000001 day' END"),
        ("", "date", "'0001-01-05 BC'::date + g"),
        ("", "timetz", "'00:00:00+02'::timetz + g * interval '1 minute'"),
        ("", "interval", "g * interval '1 month 3 hours'"),
        ("", "uuid", "md5(g::text)::uuid"),
        ("", "inet", "('10.0.' || g % 7 || '.' || g)::inet"),
        ("", "\"char\"", "chr(33 + g % 93)::\"char\""),
        ("", "bit(8)", "g::bit(8)"),
    ]
    .into_iter()
    .enumerate()
    {
        bed.sql(&format!(
            "{setup} CREATE TABLE t{i} (k {column} PRIMARY KEY, n int);
             INSERT INTO t{i} SELECT {value}, g FROM generate_series(1, 100) g
               ON CONFLICT DO NOTHING;
             GRANT SELECT ON t{i} TO rollcall; ALTER PUBLICATION rollcall ADD TABLE t{i}"
        ));
        let mut config = bed.config();
        config.table = TableName::new("public", format!("t{i}"));
        let source = PostgresSource::new(config);
        let rows: usize = bed
            .sql(&format!("SELECT count(*) FROM t{i}"))
            .parse()
            .unwrap();
        let limit = if rows < 10 { 1 } else { 9 };
        let all = pages(&source, limit, 1 << 20).await;
        let mut keys: Vec<String> = all
            .iter()
            .flat_map(|p| p.rows.changes().map(|c| key_of(&c)).collect::<Vec<_>>())
            .collect();
        assert_eq!(keys.len(), rows, "{column}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), rows, "{column}");

        // And each is found again by its key.
        let wanted: Vec<Key> = all
            .iter()
            .flat_map(|p| {
                p.rows
                    .changes()
                    .map(|c| Key::of_row(c.table(), &c.after().unwrap()).unwrap())
                    .collect::<Vec<_>>()
            })
            .collect();
        let again = source.reread(TableNo::MAIN, &wanted).await.unwrap();
        assert_eq!(again.rows.len(), rows, "{column}");
        assert!(again.last.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_bounded_in_bytes_and_has_one_row_at_least() {
    let bed = Bed::new("pages_bytes");
    bed.sql("INSERT INTO people SELECT g, repeat('x', 2000) FROM generate_series(1, 100) g");
    let all = pages(&bed.source(), 1000, 10_000).await;
    assert_eq!(all.iter().map(|p| p.rows.len()).sum::<usize>(), 100);
    assert!(all.iter().all(|p| p.rows.len() <= 5 + 1));
    let one = pages(&bed.source(), 1000, 1).await;
    assert_eq!(one.iter().filter(|p| p.rows.len() == 1).count(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_is_one_empty_page() {
    let bed = Bed::new("pages_empty");
    let all = pages(&bed.source(), 10, 1 << 20).await;
    assert_eq!(all.len(), 1);
    assert!(all[0].rows.is_empty() && all[0].last.is_none());
    let none = bed.source().reread(TableNo::MAIN, &[]).await.unwrap();
    assert!(none.rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_key_pages_a_table_without_a_primary_key() {
    let tables = "CREATE TABLE people (id int NOT NULL, name text, mail text);
         ALTER TABLE people REPLICA IDENTITY FULL;
         INSERT INTO people SELECT g, 'x' FROM generate_series(1, 30) g;";
    let bed = Bed::on(shared(PgVersion::Debian), "pages_keyless", tables);
    let request = || PageRequest {
        after: None,
        limit_rows: 10,
        limit_bytes: 1 << 20,
        only: None,
        since: None,
    };
    let error = bed
        .source()
        .page(TableNo::MAIN, request())
        .await
        .err()
        .unwrap();
    assert_eq!(error.code(), "no_key");

    let mut config = bed.config();
    config.key = Some(vec!["id".to_owned()]);
    let source = PostgresSource::new(config);
    // A table that is polled needs no more; one that has rows without a key says so.
    bed.sql("ALTER TABLE people ALTER COLUMN id DROP NOT NULL; INSERT INTO people (name) SELECT 'none' FROM generate_series(1, 3)");
    let all = pages(&source, 10, 1 << 20).await;
    let rows: Vec<usize> = all.iter().map(|p| p.rows.len()).collect();
    // Each page but the first begins with the last row of the one before.
    assert_eq!(rows, [13, 10, 10, 3]);
    bed.sql("DELETE FROM people WHERE id IS NULL; ALTER TABLE people ALTER COLUMN id SET NOT NULL");
    bed.sql("CREATE UNIQUE INDEX ON people (id)");
    assert_eq!(
        pages(&source, 10, 1 << 20)
            .await
            .iter()
            .map(|p| p.rows.len())
            .sum::<usize>(),
        30
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_may_be_newer_than_a_page_exactly_when_the_page_has_not_seen_it() {
    let bed = Bed::new("pages_window");
    let mut reader = bed.begin(1).await;
    bed.sql("INSERT INTO people VALUES (2, 'before the page')");
    // Open while the page is read, and committed after it.
    let (client, connection) = tokio_postgres::connect(
        &bed.server.conninfo("postgres", &bed.db),
        tokio_postgres::NoTls,
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("BEGIN; INSERT INTO people VALUES (3, 'open')")
        .await
        .unwrap();
    let page = bed
        .source()
        .page(
            TableNo::MAIN,
            PageRequest {
                after: None,
                limit_rows: 100,
                limit_bytes: 1 << 20,
                only: None,
                since: None,
            },
        )
        .await
        .unwrap();
    let seen: Vec<String> = page.rows.changes().map(|c| key_of(&c)).collect();
    assert_eq!(seen, ["1", "2"]);
    bed.sql("INSERT INTO people VALUES (4, 'after')");
    client.batch_execute("COMMIT").await.unwrap();

    let mut newer = Vec::new();
    let mut closed_at = None;
    while newer.len() < 3 {
        let item = tokio::time::timeout(PATIENCE, reader.opened.stream.next())
            .await
            .unwrap()
            .unwrap();
        let StreamItem::Batch(batch) = item else {
            continue;
        };
        for change in batch.changes() {
            newer.push((key_of(&change), page.window.may_be_newer(&change.tx().id)));
        }
        if page.window.is_closed_by(batch.cursor()) && closed_at.is_none() {
            closed_at = newer.last().cloned();
        }
    }
    newer.sort();
    let expected = [("2", false), ("3", true), ("4", true)];
    assert_eq!(newer, expected.map(|(k, n)| (k.to_owned(), n)));
    assert!(closed_at.is_some());
    assert!(page.window.may_be_newer(&TxId::default()), "in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_closes_on_an_idle_log() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let bed = Bed::on(shared(version), "pages_idle", PEOPLE);
        let Reader { mut opened, .. } = bed.begin(1).await;
        let page = bed
            .source()
            .page(
                TableNo::MAIN,
                PageRequest {
                    after: None,
                    limit_rows: 100,
                    limit_bytes: 1 << 20,
                    only: None,
                    since: None,
                },
            )
            .await
            .unwrap();
        opened.acknowledge.hurry();
        let closed = tokio::time::timeout(PATIENCE, async {
            loop {
                match opened.stream.next().await.unwrap() {
                    StreamItem::Batch(b) if page.window.is_closed_by(b.cursor()) => return,
                    StreamItem::Progress(c) if page.window.is_closed_by(&c) => return,
                    _ => {}
                }
            }
        });
        closed.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_never_looks_empty() {
    let bed = Bed::new("pages_rewrite");
    bed.sql("INSERT INTO people SELECT g, 'x' FROM generate_series(1, 50) g");
    let source = bed.source();
    let rewriting = {
        let server = std::sync::Arc::clone(&bed.server);
        let db = bed.db.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                server
                    .psql(
                        &db,
                        "ALTER TABLE people ALTER mail TYPE varchar(99); \
                                ALTER TABLE people ALTER mail TYPE char(50);",
                    )
                    .unwrap();
            }
        })
    };
    while !rewriting.is_finished() {
        let all = pages(&source, 20, 1 << 20).await;
        assert_eq!(all.iter().map(|p| p.rows.len()).sum::<usize>(), 50);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rewriting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_counts_for_the_scan_too() {
    let bed = Bed::new("pages_filter");
    bed.sql(
        "INSERT INTO people SELECT g, CASE WHEN g % 2 = 0 THEN 'in' ELSE 'out' END
           FROM generate_series(1, 10) g;
         ALTER PUBLICATION rollcall SET TABLE people (id, name) WHERE (id > 4)",
    );
    let all = pages(&bed.source(), 4, 1 << 20).await;
    assert_eq!(all.iter().map(|p| p.rows.len()).sum::<usize>(), 6);
    let first = all[0].rows.change(0);
    assert_eq!(first.table().columns.len(), 2, "the column list counts too");
    assert!(matches!(first.after().unwrap().cell(1), Cell::Value(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_the_columns_of_the_moment_at_which_it_is_read() {
    let bed = Bed::new("pages_altered");
    bed.sql("INSERT INTO people VALUES (1, 'x', 'y')");
    let source = bed.source();
    let mut columns = Vec::new();
    for alter in [
        "",
        "ALTER TABLE people ADD age int DEFAULT 7",
        "ALTER TABLE people RENAME mail TO email",
        "ALTER TABLE people ALTER age TYPE text",
        "ALTER PUBLICATION rollcall SET TABLE people (id, age)",
        "DROP TABLE people; CREATE TABLE people (no int PRIMARY KEY); INSERT INTO people VALUES (1);
         GRANT SELECT ON people TO rollcall; ALTER PUBLICATION rollcall ADD TABLE people",
    ] {
        bed.sql(alter);
        let page = pages(&source, 10, 1 << 20).await.remove(0);
        let schema = page.rows.change(0).table().clone();
        columns.push(
            schema
                .columns
                .iter()
                .map(|c| format!("{} {}", c.name, c.class.name()))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    assert_eq!(
        columns,
        [
            "id int, name text, mail text",
            "id int, name text, mail text, age int",
            "id int, name text, email text, age int",
            "id int, name text, email text, age text",
            "id int, age text",
            "no int",
        ]
    );
}
