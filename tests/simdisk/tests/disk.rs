//! What the disk does to SQLite.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::path::Path;

use rollcall_simdisk::{Disk, Loss, Refusal};
use rusqlite::{Connection, ErrorCode};

fn open(folder: &Path) -> Connection {
    let c = Connection::open(folder.join("a.db")).unwrap();
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    c.pragma_update(None, "synchronous", "FULL").unwrap();
    c.execute_batch("CREATE TABLE IF NOT EXISTS t(x)").unwrap();
    c
}

fn insert(c: &Connection) -> rusqlite::Result<usize> {
    c.execute("INSERT INTO t VALUES(randomblob(3000))", [])
}

fn rows(c: &Connection) -> u64 {
    let rows = c.query_row("SELECT COUNT(*) FROM t", [], |r| r.get::<_, i64>(0));
    rows.unwrap().unsigned_abs()
}

#[test]
fn what_was_flushed_survives_and_what_was_not_is_lost_now_and_then() {
    let mut lost = 0;
    for seed in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::under(folder.path(), seed).unwrap();
        let c = open(folder.path());
        for _ in 0..5 {
            insert(&c).unwrap();
        }
        c.pragma_update(None, "synchronous", "OFF").unwrap();
        for _ in 0..5 {
            insert(&c).unwrap();
        }
        disk.die();
        drop(c);
        disk.start_again(Loss::Power).unwrap();
        let c = open(folder.path());
        assert!((5..=10).contains(&rows(&c)), "seed {seed}: {}", rows(&c));
        lost += 10 - rows(&c);
        let found: String = c
            .query_row("PRAGMA integrity_check", [], |r| r.get(0))
            .unwrap();
        assert_eq!(found, "ok");
    }
    assert!(
        lost > 20,
        "the power went, and only {lost} of 200 rows are lost"
    );
}

#[test]
fn a_process_that_dies_loses_nothing_that_it_has_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::under(folder.path(), 1).unwrap();
    let c = open(folder.path());
    c.pragma_update(None, "synchronous", "OFF").unwrap();
    for _ in 0..5 {
        insert(&c).unwrap();
    }
    disk.die();
    assert!(insert(&c).is_err(), "nothing is done behind its death");
    drop(c);
    disk.start_again(Loss::Process).unwrap();
    assert_eq!(rows(&open(folder.path())), 5);
}

#[test]
fn death_comes_within_any_call_and_a_whole_number_of_commits_is_left() {
    for seed in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::under(folder.path(), seed).unwrap();
        let c = open(folder.path());
        disk.refuse(Refusal::Death, seed);
        let done = (0..30).take_while(|_| insert(&c).is_ok()).count() as u64;
        assert!(disk.is_dead());
        drop(c);
        disk.start_again(Loss::Power).unwrap();
        let left = rows(&open(folder.path()));
        // The one under way may be there.
        assert!(
            left == done || left == done + 1,
            "seed {seed}: {left} of {done}"
        );
    }
}

#[test]
fn a_disk_is_full_and_has_space_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::under(folder.path(), 1).unwrap();
    let c = open(folder.path());
    disk.set_capacity(Some(disk.used() + 20_000));
    let done = (0..30).take_while(|_| insert(&c).is_ok()).count() as u64;
    assert!((1..30).contains(&done));
    let error = insert(&c).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    disk.set_capacity(None);
    insert(&c).unwrap();
    assert_eq!(rows(&c), done + 1);
}

#[test]
fn a_flush_that_fails_is_told_and_what_it_was_for_is_lost_when_the_power_goes() {
    let mut lost = 0;
    for seed in 0..30 {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::under(folder.path(), seed).unwrap();
        let c = open(folder.path());
        disk.refuse(Refusal::Flush, 0);
        let error = insert(&c).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
        assert!(disk.has_lost());
        disk.die();
        drop(c);
        disk.start_again(Loss::Power).unwrap();
        lost += 1 - rows(&open(folder.path()));
    }
    assert!((1..30).contains(&lost), "{lost} of 30 are lost");
}
