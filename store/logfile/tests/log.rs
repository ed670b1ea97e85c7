//! Connections of SQLite that gather what they append to their log.

#![allow(clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::thread;

use rollcall_simdisk::{Disk, Loss, Refusal};
use rusqlite::{Connection, ErrorCode, OpenFlags};

const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_CREATE);

fn writer(path: &Path) -> Connection {
    let vfs = rollcall_logfile::register().expect("SQLite takes the VFS");
    let c = Connection::open_with_flags_and_vfs(path, FLAGS, vfs).expect("opened");
    let mode: String = c
        .pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))
        .expect("a mode");
    assert_eq!(mode, "wal");
    c.pragma_update(None, "synchronous", "FULL").expect("set");
    c.pragma_update(None, "wal_autocheckpoint", 0).expect("set");
    c
}

fn table(c: &Connection) {
    c.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        .expect("a table");
}

fn insert(c: &Connection, from: i64, to: i64) -> rusqlite::Result<()> {
    let mut s = c.prepare_cached("INSERT INTO t VALUES(?1, ?2)")?;
    for n in from..to {
        s.execute((n, format!("{n:0>900}")))?;
    }
    Ok(())
}

/// How many rows there are; each is as it was written, and none is missing in between.
fn rows(c: &Connection) -> i64 {
    let check: String = c
        .query_row("PRAGMA integrity_check", [], |r| r.get(0))
        .expect("checked");
    assert_eq!(check, "ok");
    c.query_row(
        "SELECT COUNT(*), COALESCE(MAX(n) + 1, 0), COALESCE(SUM(CAST(text AS INTEGER) <> n), 0) FROM t",
        [],
        |r| {
            let (count, next, wrong): (i64, i64, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
            assert_eq!((count, wrong), (next, 0));
            Ok(count)
        },
    )
    .expect("counted")
}

#[test]
fn a_commit_takes_few_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::under(folder.path(), 1).expect("a disk");
    let path = folder.path().join("a.db");
    let c = writer(&path);
    table(&c);
    let before = disk.usage();
    c.execute_batch("BEGIN").expect("begun");
    insert(&c, 0, 1_000).expect("inserted");
    c.execute_batch("COMMIT").expect("committed");
    let after = disk.usage();
    let log = std::fs::metadata(folder.path().join("a.db-wal")).expect("a log");
    assert!(log.len() > 900_000, "the log has {} bytes", log.len());
    let (writes, flushes) = (after.writes - before.writes, after.flushes - before.flushes);
    assert!((15..=25).contains(&writes), "{writes} writes");
    assert_eq!(flushes, 1);
    assert_eq!(rows(&c), 1_000);
}

/// A small cache makes SQLite write pages of an open transaction to the log, and read them back.
#[test]
fn a_transaction_reads_what_it_has_spilled_and_can_be_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let c = writer(&path);
    c.pragma_update(None, "cache_size", 10).expect("set");
    table(&c);
    let other = Connection::open(&path).expect("opened");
    for (round, ends) in ["ROLLBACK", "COMMIT", "ROLLBACK", "COMMIT"]
        .iter()
        .enumerate()
    {
        let before = rows(&other);
        c.execute_batch("BEGIN").expect("begun");
        insert(&c, before, before + 500).expect("inserted");
        c.execute("UPDATE t SET text = text || '' WHERE n % 7 = 3", [])
            .expect("updated");
        assert_eq!(rows(&c), before + 500);
        assert_eq!(rows(&other), before, "round {round}");
        c.execute_batch(ends).expect("ended");
        let expected = if *ends == "COMMIT" {
            before + 500
        } else {
            before
        };
        assert_eq!((rows(&c), rows(&other)), (expected, expected));
        if round == 2 {
            c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .expect("taken in");
        }
    }
}

#[test]
fn whoever_reads_beside_it_sees_every_commit_whole() {
    const COMMITS: i64 = 300;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let c = writer(&path);
    table(&c);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let other = Connection::open(&path).expect("opened");
            let mut seen = 0;
            while seen < COMMITS * 20 {
                let now = rows(&other);
                assert!(now >= seen && now % 20 == 0, "{now} rows behind {seen}");
                seen = now;
            }
        });
        for n in 0..COMMITS {
            c.execute_batch("BEGIN").expect("begun");
            insert(&c, n * 20, n * 20 + 20).expect("inserted");
            c.execute_batch("COMMIT").expect("committed");
            if n % 50 == 49 {
                c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                    .expect("taken in");
            }
        }
        reader.join().expect("it has seen all of them");
    });
}

/// Power goes within each of the writes of a commit in turn.
#[test]
fn power_that_goes_leaves_a_commit_whole_or_undone() {
    let mut fates = [0, 0];
    for behind in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::under(folder.path(), behind).expect("a disk");
        let path = folder.path().join("a.db");
        let c = writer(&path);
        table(&c);
        insert(&c, 0, 10).expect("inserted");
        disk.refuse(Refusal::Death, behind);
        c.execute_batch("BEGIN").expect("begun");
        let inserted = insert(&c, 10, 500);
        let committed = inserted.and_then(|()| c.execute_batch("COMMIT"));
        let is_dead = disk.is_dead();
        assert_eq!(committed.is_err(), is_dead);
        drop(c);
        if !is_dead {
            disk.die();
        }
        disk.start_again(Loss::Power).expect("power is back");
        let found = rows(&writer(&path));
        assert!(found == 10 || found == 500, "{found} rows");
        assert!(is_dead || found == 500, "a commit was lost");
        fates[usize::from(found == 500)] += 1;
    }
    assert!(fates[0] > 5 && fates[1] > 5, "{fates:?}");
}

#[test]
fn a_full_disk_undoes_the_commit_and_loses_nothing_once_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::under(folder.path(), 3).expect("a disk");
    let path = folder.path().join("a.db");
    let c = writer(&path);
    c.pragma_update(None, "cache_size", 10).expect("set");
    table(&c);
    insert(&c, 0, 100).expect("inserted");
    disk.set_capacity(Some(disk.used() + 300_000));
    for _ in 0..3 {
        c.execute_batch("BEGIN").expect("begun");
        let e = insert(&c, 100, 1_000)
            .and_then(|()| c.execute_batch("COMMIT"))
            .expect_err("there is no room");
        assert_eq!(e.sqlite_error_code(), Some(ErrorCode::DiskFull), "{e}");
        if !c.is_autocommit() {
            c.execute_batch("ROLLBACK").expect("undone");
        }
        assert_eq!(rows(&c), 100);
    }
    disk.set_capacity(None);
    c.execute_batch("BEGIN").expect("begun");
    insert(&c, 100, 1_000).expect("inserted");
    c.execute_batch("COMMIT").expect("committed");
    assert_eq!(
        (rows(&c), rows(&Connection::open(&path).expect("opened"))),
        (1_000, 1_000)
    );
}
