//! What must not be opened or written, and that nothing is changed or lost by the refusal.
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::people::*;
use rollcall_core::state::State;
use rollcall_store::{OpenOptions, Readers, Store, StoreError};
use rusqlite::Connection;

fn refused(path: &Path, organization: &str) -> StoreError {
    match Store::open(path, OpenOptions::new(organization)) {
        Err(e) => e,
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn the_directory_and_its_files_are_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("store");
    let (mut writer, _readers) = open(&path);
    let mut plan = creation(&mut writer, 0, 10);
    commit(&mut writer, &mut plan, 1).unwrap();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(writer);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    open(&path);
    assert_eq!(mode(&path), 0o700);

    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(shared.join("other"), "").unwrap();
    open(&shared);
    assert_eq!(mode(&shared), 0o755, "a directory of others keeps its mode");
    assert_eq!(mode(&shared.join("rollcall.db")), 0o600);
}

#[test]
fn a_second_daemon_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _readers) = open(dir.path());
    let e = refused(dir.path(), "acme");
    assert_eq!(e.code(), "store_in_use");
    assert!(
        e.to_string()
            .contains(&format!("(process {})", std::process::id())),
        "{e}"
    );
    assert_eq!(
        Store::in_use(dir.path()).unwrap(),
        Some(Some(std::process::id()))
    );
    writer.close().unwrap();
    assert_eq!(Store::in_use(dir.path()).unwrap(), None);
    open(dir.path());
}

#[test]
fn another_organizations_store_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _readers) = open(dir.path());
    writer.close().unwrap();
    let file = dir.path().join("rollcall.db");
    let before = fs::read(&file).unwrap();
    let e = refused(dir.path(), "globex");
    assert_eq!(e.code(), "store_other_organization");
    assert!(e.to_string().contains("\"acme\"") && e.to_string().contains("\"globex\""));
    let e = Readers::open_readonly(dir.path(), "globex").unwrap_err();
    assert_eq!(e.code(), "store_other_organization");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_later_version_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _readers) = open(dir.path());
    writer.close().unwrap();
    let file = dir.path().join("rollcall.db");
    let c = Connection::open(&file).unwrap();
    c.pragma_update(None, "user_version", 9_999).unwrap();
    c.close().unwrap();
    let before = fs::read(&file).unwrap();
    let e = refused(dir.path(), "acme");
    assert!(matches!(e, StoreError::Newer { found: 9_999, .. }), "{e}");
    let e = Readers::open_readonly(dir.path(), "acme").unwrap_err();
    assert_eq!(e.code(), "store_newer");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_file_of_somebody_else_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.db");

    fs::write(&file, vec![b'x'; 5_000]).unwrap();
    assert_eq!(refused(dir.path(), "acme").code(), "store_not_ours");
    assert_eq!(fs::read(&file).unwrap(), vec![b'x'; 5_000]);

    fs::remove_file(&file).unwrap();
    let c = Connection::open(&file).unwrap();
    c.execute_batch("CREATE TABLE accounts(name)").unwrap();
    c.close().unwrap();
    let before = fs::read(&file).unwrap();
    assert_eq!(refused(dir.path(), "acme").code(), "store_not_ours");
    assert_eq!(fs::read(&file).unwrap(), before);

    let plain = dir.path().join("plain");
    fs::write(&plain, "text").unwrap();
    assert_eq!(refused(&plain, "acme").code(), "store_not_ours");
}

#[test]
fn an_empty_file_becomes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rollcall.db"), "").unwrap();
    assert_eq!(
        Readers::open_readonly(dir.path(), "acme")
            .unwrap_err()
            .code(),
        "store_missing"
    );
    let (writer, _readers) = open(dir.path());
    assert_eq!(writer.identity().generation, 1);
}

#[test]
fn a_directory_without_a_store_is_not_made_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    assert_eq!(
        Readers::open_readonly(&nowhere, "acme").unwrap_err().code(),
        "store_missing"
    );
    assert!(!nowhere.exists());
}

#[test]
fn a_file_that_was_cut_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 2_000);
    commit(&mut writer, &mut plan, 1).unwrap();
    drop(readers);
    writer.close().unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("rollcall.db"))
        .unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2).unwrap();
    assert_eq!(refused(dir.path(), "acme").code(), "store_damaged");
}

#[test]
fn a_damaged_page_poisons_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 5_000);
    commit(&mut writer, &mut plan, 1).unwrap();
    drop(readers);
    writer.close().unwrap();
    // Pages of users only, so that the store opens and the damage is met later.
    let path = dir.path().join("rollcall.db");
    let (size, pages): (usize, Vec<i64>) = {
        let c = Connection::open(&path).unwrap();
        let size: i64 = c
            .pragma_query_value(None, "page_size", |r| r.get(0))
            .unwrap();
        let mut statement = c
            .prepare("SELECT pageno FROM dbstat WHERE name = 'user' AND pagetype = 'leaf'")
            .unwrap();
        let pages = statement.query_map([], |r| r.get(0)).unwrap();
        let pages = pages.map(Result::unwrap).collect();
        (usize::try_from(size).unwrap(), pages)
    };
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in pages {
        file.seek(SeekFrom::Start((page.unsigned_abs() - 1) * size as u64))
            .unwrap();
        file.write_all(&vec![0xa5; size]).unwrap();
    }
    file.sync_all().unwrap();

    let (mut writer, readers) = open(dir.path());
    assert!(
        !readers
            .check()
            .unwrap_or(vec!["damaged".to_owned()])
            .is_empty()
    );
    let mut failed = None;
    for n in 0..5_000 {
        let mut document = Vec::new();
        if let Err(e) = writer
            .link(SOURCE, &key(n))
            .and_then(|_| writer.user(rollcall_core::id::UserRow(n as i64 + 1), &mut document))
        {
            failed = Some(e);
            break;
        }
    }
    assert!(failed.unwrap().to_string().contains("damaged"));
    assert!(writer.poisoned().is_some());
    let mut plan = creation(&mut writer, 90_000, 1);
    let e = commit(&mut writer, &mut plan, 2).unwrap_err();
    assert_eq!(e.code(), "store_poisoned");
    assert!(!e.is_transient());
    assert_eq!(plan.events.len(), 1, "the caller keeps its plan");
}

#[test]
fn a_store_made_with_larger_pages_keeps_them_and_its_limit() {
    const LIMIT: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rollcall.db");
    open(dir.path()).0.close().unwrap();
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA page_size = 4096; VACUUM")
        .unwrap();
    drop(database);
    let small = OpenOptions {
        max_bytes: LIMIT,
        ..OpenOptions::new("acme")
    };
    let (mut writer, readers) = open_with(dir.path(), small).unwrap();
    let refused = (0..100).find_map(|n| {
        let mut plan = creation(&mut writer, n * 500, 500);
        commit(&mut writer, &mut plan, n + 1).err()
    });
    assert_eq!(refused.map(|e| e.code()), Some("store_disk_full"));
    drop(readers);
    writer.close().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!((LIMIT / 2..=LIMIT).contains(&size), "{size} bytes");
    let page: u32 = Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "page_size", |r| r.get(0))
        .unwrap();
    assert_eq!(page, 4096);
}

#[test]
fn a_full_disk_loses_nothing_and_the_same_batch_is_stored_after_space_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let small = OpenOptions {
        max_bytes: 600 << 10,
        ..OpenOptions::new("acme")
    };
    let (mut writer, readers) = open_with(dir.path(), small).unwrap();
    let mut stored = 0;
    let mut n = 0;
    let mut refused = loop {
        let mut plan = creation(&mut writer, stored, 500);
        n += 1;
        match commit(&mut writer, &mut plan, n) {
            Ok(_) => stored += 500,
            Err(e) => {
                assert_eq!(e.code(), "store_disk_full", "{e}");
                assert!(e.is_transient());
                break plan;
            }
        }
        assert!(n < 100, "the limit never came");
    };
    assert!(writer.poisoned().is_none());
    assert_eq!(writer.counts().users, stored);
    assert_eq!(readers.counts().unwrap().users, stored);
    assert_eq!(cursor(&readers), n - 1);
    assert_eq!(writer.link(SOURCE, &key(stored)).unwrap(), None);
    assert_eq!(refused.events.len(), 500);
    let mut owners = smallvec::SmallVec::new();
    writer.owners(email(stored), &mut owners).unwrap();
    assert!(owners.is_empty(), "nothing of it stayed in memory");
    // Room is made by what trimming gives back.
    let next = writer.counts().next_position;
    assert!(writer.trim_outbox(next, i64::MAX, 0).unwrap().blocks > 0);
    commit(&mut writer, &mut refused, n).unwrap();
    assert_eq!(writer.counts().users, stored + 500);
    assert_eq!(cursor(&readers), n);
    assert_eq!(writer.counts().next_sequence.0, stored + 501);
}

#[test]
fn a_plan_about_a_user_that_does_not_exist_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 3);
    let nobody = rollcall_core::id::UserRow(77);
    put(&mut plan, nobody, 77, false, true);
    let e = commit(&mut writer, &mut plan, 1).unwrap_err();
    assert_eq!(e.code(), "store_refused");
    assert_eq!(readers.counts().unwrap().users, 0);
    assert_eq!(writer.link(SOURCE, &key(0)).unwrap(), None);
    plan.users.remove(nobody);
    commit(&mut writer, &mut plan, 1).unwrap();
    assert_eq!(readers.counts().unwrap().users, 3);
}

#[test]
fn a_custom_attribute_keeps_its_number_and_its_type() {
    use rollcall_core::attribute::{AttrId, AttrType, FIRST_CUSTOM};
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let badge = ("badge".to_owned(), AttrType::Text);
    let floor = ("floor".to_owned(), AttrType::Integer);
    let first = writer
        .custom_attributes(std::slice::from_ref(&badge))
        .unwrap();
    assert_eq!(first[0].0, AttrId(FIRST_CUSTOM));
    let both = writer.custom_attributes(&[floor, badge]).unwrap();
    assert_eq!(both[0].0, AttrId(FIRST_CUSTOM + 1));
    assert_eq!(both[1].0, AttrId(FIRST_CUSTOM));
    assert_eq!(readers.custom_attributes().unwrap().len(), 2);
    let e = writer
        .custom_attributes(&[("badge".to_owned(), AttrType::Integer)])
        .unwrap_err();
    assert!(
        e.to_string().contains("custom.badge is stored as text"),
        "{e}"
    );
}
