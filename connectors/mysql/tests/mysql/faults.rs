//! Cut connections, killed servers, and more data than a batch holds.

use std::collections::BTreeMap;

use rollcall_contract::{Batch, BatchCaps, Cursor, Lineage, Op, Source, StreamItem};
use rollcall_mysql::MySqlSource;
use rollcall_testbed::{MySqlVersion, Proxy};

use crate::bed::{Bed, PATIENCE, Reader, key_of, text_of};

with_both!(
    a_connection_cut_at_any_byte_loses_and_repeats_nothing,
    a_server_killed_while_it_is_written_to_loses_nothing,
    a_large_transaction_comes_in_batches_of_bounded_size,
);

/// What folding the changes gives: keys to names.
#[derive(Default)]
struct Fold {
    rows: BTreeMap<String, Option<String>>,
    /// Names of changes: none may come twice.
    seen: std::collections::HashSet<(String, u32)>,
}

impl Fold {
    fn apply(&mut self, batch: &Batch) {
        for change in batch.changes() {
            let name = (change.tx().position().to_owned(), change.ordinal());
            assert!(self.seen.insert(name.clone()), "{name:?} came twice");
            let key = key_of(&change);
            match change.op() {
                Op::Delete => {
                    self.rows.remove(&key).expect("it was there");
                }
                Op::Truncate => self.rows.clear(),
                _ => {
                    let row = change.after().unwrap();
                    self.rows.insert(key, text_of(row.cell(1)));
                }
            }
        }
    }
}

fn rows_of(bed: &Bed) -> BTreeMap<String, Option<String>> {
    bed.sql("SELECT id, name FROM people")
        .lines()
        .map(|line| {
            let (id, name) = line.split_once('\t').unwrap();
            let name = (name != "NULL").then(|| name.to_owned());
            (id.to_owned(), name)
        })
        .collect()
}

/// Reads until the mark has come or the connection ends. Whether the mark has come.
async fn read_on(
    source: &MySqlSource,
    stored: &mut (Cursor, Lineage),
    fold: &mut Fold,
    mark: &str,
    mut after_batch: impl FnMut(),
) -> bool {
    let opened = tokio::time::timeout(PATIENCE, source.open(Some(stored.clone())))
        .await
        .unwrap();
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            return false;
        }
    };
    assert_eq!(opened.gaps, []);
    stored.1 = opened.lineage.clone();
    loop {
        let item = tokio::time::timeout(PATIENCE, opened.stream.next()).await;
        match item.expect("the log goes on or ends") {
            Ok(StreamItem::Batch(batch)) => {
                fold.apply(&batch);
                stored.0 = batch.cursor().clone();
                after_batch();
                if fold.rows.contains_key(mark) {
                    opened.stream.close().await;
                    return true;
                }
            }
            Ok(StreamItem::Progress(cursor)) => stored.0 = cursor,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                return false;
            }
        }
    }
}

async fn a_connection_cut_at_any_byte_loses_and_repeats_nothing(version: MySqlVersion) {
    let bed = Bed::on(
        crate::bed::shared(version),
        "fault_cut",
        "CREATE TABLE people (id INT PRIMARY KEY, name TEXT);",
    );
    let mut config = bed.config();
    config.caps = BatchCaps {
        most_changes: 97,
        ..BatchCaps::default()
    };
    let direct = MySqlSource::new(config.clone());
    let mut stored = Reader::open(&direct, None).await.close().await;
    let mut sql = String::from("SET SESSION sql_mode = '';");
    for i in 1..=900 {
        sql.push_str(&format!(
            "INSERT INTO people (id, name) VALUES ({i}, 'n{i}'), ({i} + 1000, REPEAT('x', {i} % 90));"
        ));
        match i % 4 {
            0 => sql.push_str(&format!("UPDATE people SET name = CONCAT('u{i}', name) WHERE id % 7 = {i} % 7;")),
            1 => sql.push_str(&format!("DELETE FROM people WHERE id = {i};")),
            2 => sql.push_str(&format!(
                "BEGIN; UPDATE people SET name = NULL WHERE id = {i}; DELETE FROM people WHERE id = {i} + 1000; COMMIT;"
            )),
            _ => {}
        }
    }
    sql.push_str("INSERT INTO people (id, name) VALUES (9999, 'mark');");
    let server = std::sync::Arc::clone(&bed.server);
    // While it is read, so that little is on the way at any time.
    let writing = std::thread::spawn(move || server.sql(&format!("USE fault_cut; {sql}")).unwrap());
    let proxy = Proxy::start(&format!("127.0.0.1:{}", bed.server.port())).unwrap();
    config.port = proxy.port();
    let source = MySqlSource::new(config);
    let mut fold = Fold::default();
    let (mut cuts, mut batches) = (0u64, 0u64);
    while !read_on(&source, &mut stored, &mut fold, "9999", || {
        // Wherever the bytes on the way happen to be; often, since a cut behind the last byte
        // that is wanted is none.
        batches += 1;
        if batches % 3 == 0 {
            proxy.cut();
        }
    })
    .await
    {
        cuts += 1;
        assert!(cuts < 300, "no progress");
    }
    writing.join().unwrap();
    assert!(cuts > 3, "{cuts} cuts");
    assert_eq!(fold.rows, rows_of(&bed));
}

async fn a_server_killed_while_it_is_written_to_loses_nothing(version: MySqlVersion) {
    let bed = Bed::alone(
        version,
        &[
            ("sync_binlog", "1"),
            ("innodb_flush_log_at_trx_commit", "1"),
        ],
    );
    let source = bed.source();
    let mut stored = Reader::open(&source, None).await.close().await;
    let mut fold = Fold::default();
    for round in 0..3 {
        let mut writer = bed
            .server
            .client("root")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = writer.stdin.take().unwrap();
        let writing = std::thread::spawn(move || {
            use std::io::Write as _;
            for i in 0..100_000 {
                let id = round * 1_000_000 + i;
                // It ends when the server does.
                if writeln!(
                    stdin,
                    "INSERT INTO hr.people (id, name) VALUES ({id}, 'n{id}'); \
                     UPDATE hr.people SET name = 'u' WHERE id = {id} - 3;"
                )
                .is_err()
                {
                    break;
                }
            }
            drop(stdin);
            let _ = writer.wait();
        });
        let killing = async {
            tokio::time::sleep(std::time::Duration::from_millis(400 + 300 * round)).await;
            bed.server.kill9();
        };
        let reading = read_on(&source, &mut stored, &mut fold, "none", || {});
        tokio::join!(reading, killing);
        writing.join().unwrap();
        bed.server.start_again().unwrap();
    }
    bed.sql("INSERT INTO people (id, name) VALUES (99999999, 'mark')");
    while !read_on(&source, &mut stored, &mut fold, "99999999", || {}).await {}
    assert!(fold.rows.len() > 50, "{} rows", fold.rows.len());
    assert_eq!(fold.rows, rows_of(&bed));
}

async fn a_large_transaction_comes_in_batches_of_bounded_size(version: MySqlVersion) {
    let bed = Bed::new(version, "fault_large");
    let mut config = bed.config();
    config.caps = BatchCaps {
        most_changes: 10_000,
        bytes: 1 << 20,
        ..BatchCaps::default()
    };
    let caps = config.caps;
    let mut opened = MySqlSource::new(config).open(None).await.unwrap();
    bed.sql(
        "INSERT INTO people (id, name) SELECT a.i * 100 + b.i, REPEAT('x', 100) FROM \
         (SELECT a.i * 20 + b.i AS i FROM (WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL \
          SELECT i + 1 FROM n WHERE i < 19) SELECT i FROM n) a, (WITH RECURSIVE n AS \
          (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 19) SELECT i FROM n) b) a, \
         (WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 99) \
          SELECT i FROM n) b",
    );
    let mut count = 0;
    while count < 40_000 {
        let item = tokio::time::timeout(PATIENCE, opened.stream.next()).await;
        match item.unwrap().unwrap() {
            StreamItem::Batch(batch) => {
                // One event of the log more than the cap, at most.
                assert!(batch.size_bytes() <= caps.bytes + 64_000, "{batch:?}");
                count += batch.len();
            }
            StreamItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count, 40_000);
}
