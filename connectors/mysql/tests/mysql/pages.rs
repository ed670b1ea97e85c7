//! Pages: every row once, in the server's order, with the window that bounds them.

use rollcall_contract::{Cell, Key, Op, PageRequest, Source, TableNo};
use rollcall_testbed::MySqlVersion;

use crate::bed::{Bed, Reader, cells, key_of, pages, shared};

with_both!(
    pages_have_every_row_once_in_the_servers_own_order,
    a_page_ends_at_its_bounds,
    records_are_read_again_by_key,
    a_page_can_carry_some_columns_only,
    a_window_tells_what_is_newer_and_closes_on_an_idle_log,
    a_page_never_loses_against_what_it_has_seen,
    a_table_that_changes_between_pages_is_read_with_its_new_columns,
);

async fn pages_have_every_row_once_in_the_servers_own_order(version: MySqlVersion) {
    for (i, (column, values)) in [
        (
            "BIGINT UNSIGNED",
            &["0", "7", "18446744073709551615", "9007199254740993"][..],
        ),
        // The order of the collation is not that of the bytes.
        (
            "VARCHAR(20) COLLATE utf8mb4_unicode_ci",
            &["'b'", "'A'", "'a1'", "'ä2'", "'O''N\\\\x'"],
        ),
        (
            "VARCHAR(20) CHARACTER SET latin1",
            &["'z'", "'é'", "'ß'", "'a'"],
        ),
        ("CHAR(4) COLLATE utf8mb4_bin", &["'a'", "'B'", "'b'"]),
        ("VARBINARY(8)", &["X'00ff'", "X''", "X'5c27'"]),
        ("DECIMAL(30,2)", &["-1.5", "12345678901234567890.25", "0"]),
        ("DATE", &["'1000-01-01'", "'2024-02-29'"]),
        (
            "DATETIME(6)",
            &["'2024-02-29 01:02:03.000004'", "'1999-12-31 23:59:59'"],
        ),
        (
            "TIMESTAMP",
            &["'2024-07-01 12:00:00'", "'1970-01-02 00:00:01'"],
        ),
        ("TIME", &["'-838:59:59'", "'12:00:00'", "'00:00:01'"]),
        // These sort by number: of the member, of the bits.
        (
            "ENUM('z','a','it''s','é')",
            &["'a'", "'z'", "'é'", "'it''s'"],
        ),
        (
            "ENUM('z','ä') CHARACTER SET latin1 COLLATE latin1_german2_ci",
            &["'ä'", "'z'"],
        ),
        ("SET('z','a','m')", &["'a'", "'z,m'", "''", "'z'", "'a,m'"]),
        ("BIT(1)", &["b'1'", "b'0'"]),
        (
            "BIT(64)",
            &["b'1'", "18446744073709551615", "18446744073709551614", "0"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let db = format!("page_order_{i}");
        let bed = Bed::on(
            shared(version),
            &db,
            &format!("CREATE TABLE people (org {column}, no INT, PRIMARY KEY (org, no));"),
        );
        for value in values {
            bed.sql(&format!(
                "INSERT INTO people VALUES ({value}, 1), ({value}, 2)"
            ));
        }
        let source = bed.source();
        let one_by_one: Vec<String> = pages(&source, 1, usize::MAX)
            .await
            .iter()
            .flat_map(|page| page.rows.changes().map(|c| key_of(&c)).collect::<Vec<_>>())
            .collect();
        let at_once: Vec<String> = pages(&source, 1000, usize::MAX)
            .await
            .iter()
            .flat_map(|page| page.rows.changes().map(|c| key_of(&c)).collect::<Vec<_>>())
            .collect();
        assert_eq!(one_by_one, at_once, "{column}");
        assert_eq!(at_once.len(), values.len() * 2, "{column}");
        // Each is found again by its key.
        let keys: Vec<Key> = pages(&source, 1000, usize::MAX).await[0]
            .rows
            .changes()
            .filter_map(|c| Key::of_row(c.table(), &c.after()?))
            .collect();
        let again = source.reread(TableNo::MAIN, &keys).await.unwrap();
        assert_eq!(again.rows.len(), keys.len(), "{column}");
    }
}

async fn a_page_ends_at_its_bounds(version: MySqlVersion) {
    let bed = Bed::new(version, "page_bounds");
    bed.sql(
        "INSERT INTO people WITH RECURSIVE n AS \
         (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
         SELECT i, REPEAT('x', 90), NULL FROM n",
    );
    let source = bed.source();
    let sizes = |pages: &[rollcall_contract::Page]| -> Vec<usize> {
        pages.iter().map(|p| p.rows.len()).collect()
    };
    assert_eq!(
        sizes(&pages(&source, 400, usize::MAX).await),
        [400, 400, 100]
    );
    let by_bytes = sizes(&pages(&source, 1000, 10_000).await);
    assert!(
        by_bytes.len() > 5 && by_bytes.iter().all(|&n| n < 150),
        "{by_bytes:?}"
    );
    assert_eq!(by_bytes.iter().sum::<usize>(), 900);
    let tiny = source
        .page(
            TableNo::MAIN,
            PageRequest {
                after: None,
                limit_rows: 10,
                limit_bytes: 1,
                only: None,
                since: None,
            },
        )
        .await
        .unwrap();
    assert_eq!(tiny.rows.len(), 1, "at least one row");
}

async fn records_are_read_again_by_key(version: MySqlVersion) {
    let bed = Bed::on(
        shared(version),
        "page_reread",
        "CREATE TABLE people (org VARCHAR(10), no INT, x INT, PRIMARY KEY (org, no));",
    );
    bed.sql("INSERT INTO people VALUES ('a', 1, 10), ('a', 2, 20), ('b', 1, 30)");
    let key = |org: &str, no: &str| {
        let mut key = Key::new();
        key.push(org.as_bytes());
        key.push(no.as_bytes());
        key
    };
    let source = bed.source();
    let page = source
        .reread(
            TableNo::MAIN,
            &[key("b", "1"), key("a", "2"), key("z", "9")],
        )
        .await
        .unwrap();
    assert_eq!(page.last, None);
    let found: Vec<String> = page.rows.changes().map(|c| key_of(&c)).collect();
    assert_eq!(found, ["a,2", "b,1"]);
    assert!(
        source
            .reread(TableNo::MAIN, &[])
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

async fn a_page_can_carry_some_columns_only(version: MySqlVersion) {
    let bed = Bed::new(version, "page_only");
    bed.sql("INSERT INTO people VALUES (1, 'n', 'm')");
    let page = bed
        .source()
        .page(
            TableNo::MAIN,
            PageRequest {
                after: None,
                limit_rows: 10,
                limit_bytes: usize::MAX,
                only: Some(vec![2]),
                since: None,
            },
        )
        .await
        .unwrap();
    let row = page.rows.change(0).after().unwrap();
    assert_eq!(
        row.cells().collect::<Vec<_>>(),
        [Cell::Value(b"1"), Cell::Missing, Cell::Value(b"m")]
    );
}

async fn a_window_tells_what_is_newer_and_closes_on_an_idle_log(version: MySqlVersion) {
    let bed = Bed::new(version, "page_window");
    let source = bed.source();
    let mut reader = Reader::open(&source, None).await;
    bed.sql("INSERT INTO people VALUES (1, 'before', NULL)");
    let page = source
        .page(
            TableNo::MAIN,
            PageRequest {
                after: None,
                limit_rows: 10,
                limit_bytes: usize::MAX,
                only: None,
                since: None,
            },
        )
        .await
        .unwrap();
    assert_eq!(page.rows.change(0).op(), Op::Read);
    bed.sql("INSERT INTO people VALUES (2, 'after', NULL)");
    let mut newer = Vec::new();
    while newer.len() < 2 {
        let item = tokio::time::timeout(crate::bed::PATIENCE, reader.opened.stream.next())
            .await
            .unwrap()
            .unwrap();
        if let rollcall_contract::StreamItem::Batch(batch) = item {
            for change in batch.changes() {
                newer.push((key_of(&change), page.window.may_be_newer(&change.tx().id)));
            }
            reader.cursor = batch.cursor().clone();
        }
    }
    assert_eq!(newer, [("1".to_owned(), false), ("2".to_owned(), true)]);
    assert!(page.window.is_closed_by(&reader.cursor));
    assert!(!page.window.is_closed_by(&reader.opened.start));

    // Nothing is written any more: a page is closed by asking for progress, at once.
    let page = source.reread(TableNo::MAIN, &[]).await.unwrap();
    reader.opened.acknowledge.hurry();
    while !page.window.is_closed_by(&reader.cursor) {
        reader.step().await;
    }
    // Changes of other tables move the position as well.
    bed.sql("CREATE TABLE other (id INT PRIMARY KEY); INSERT INTO other VALUES (1)");
    let page = source.reread(TableNo::MAIN, &[]).await.unwrap();
    reader.opened.acknowledge.hurry();
    while !page.window.is_closed_by(&reader.cursor) {
        reader.step().await;
    }
}

/// While rows are changed as fast as the server can, what a page brings and the window
/// keeps is never older than what the log has brought. MySQL sends a transaction to its
/// replicas before its engine has committed it, so a change may be applied here before a
/// page can see it: hence the question about the version that is stored.
async fn a_page_never_loses_against_what_it_has_seen(version: MySqlVersion) {
    let bed = Bed::on(
        shared(version),
        "page_race",
        "CREATE TABLE people (id INT PRIMARY KEY, n BIGINT NOT NULL);
         INSERT INTO people VALUES (1, 0), (2, 0), (3, 0);",
    );
    let source = bed.source();
    let mut reader = Reader::open(&source, None).await;
    let mut writer = bed
        .server
        .client("root")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        use std::io::Write as _;
        for n in 1..=3000 {
            writeln!(
                stdin,
                "UPDATE page_race.people SET n = {n} WHERE id = {};",
                n % 3 + 1
            )
            .unwrap();
        }
        drop(stdin);
        writer.wait().unwrap();
    });
    let mut stored: std::collections::BTreeMap<String, (i64, rollcall_contract::TxId)> =
        std::collections::BTreeMap::new();
    let mut pages = 0;
    while stored.values().map(|(n, _)| *n).max() != Some(3000) {
        // A page is asked for, then the log is read up to its window's end.
        let page = source
            .page(
                TableNo::MAIN,
                PageRequest {
                    after: None,
                    limit_rows: 10,
                    limit_bytes: usize::MAX,
                    only: None,
                    since: None,
                },
            )
            .await
            .unwrap();
        let mut alive = cells(&page.rows);
        pages += 1;
        loop {
            let item = tokio::time::timeout(crate::bed::PATIENCE, reader.opened.stream.next())
                .await
                .unwrap()
                .unwrap();
            match item {
                rollcall_contract::StreamItem::Batch(batch) => {
                    for change in batch.changes() {
                        let key = key_of(&change);
                        let row = change.after().unwrap();
                        let n: i64 = crate::bed::text_of(row.cell(1)).unwrap().parse().unwrap();
                        stored.insert(key.clone(), (n, change.tx().id.clone()));
                        if page.window.may_be_newer(&change.tx().id) {
                            alive.remove(&key);
                        } else if let Some(row) = alive.get(&key) {
                            let seen: i64 = row[1].as_deref().unwrap().parse().unwrap();
                            assert!(seen >= n, "the page has not seen {n}, it has {seen}");
                        }
                    }
                    reader.cursor = batch.cursor().clone();
                }
                rollcall_contract::StreamItem::Progress(cursor) => reader.cursor = cursor,
                other => panic!("{other:?}"),
            }
            if page.window.is_closed_by(&reader.cursor) {
                break;
            }
        }
        for (key, row) in alive {
            let n: i64 = row[1].as_deref().unwrap().parse().unwrap();
            if let Some((applied, tx)) = stored.get(&key)
                && !page.window.may_be_newer(tx)
            {
                assert!(*applied <= n, "{key}: the page has {n}, the log {applied}");
            }
        }
    }
    writing.join().unwrap();
    assert!(pages > 3, "{pages} pages");
}

async fn a_table_that_changes_between_pages_is_read_with_its_new_columns(version: MySqlVersion) {
    let bed = Bed::new(version, "page_ddl");
    bed.sql("INSERT INTO people VALUES (1, 'n', 'm')");
    let source = bed.source();
    assert_eq!(
        pages(&source, 10, usize::MAX).await[0].rows.tables()[0]
            .schema
            .columns
            .len(),
        3
    );
    bed.sql("ALTER TABLE people DROP COLUMN name, ADD COLUMN age INT DEFAULT 7 FIRST");
    let page = &pages(&source, 10, usize::MAX).await[0];
    let names: Vec<&str> = page.rows.tables()[0]
        .schema
        .columns
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["age", "id", "mail"]);
    assert_eq!(cells(&page.rows)["1"][0].as_deref(), Some("7"));
}
