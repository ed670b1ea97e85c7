//! Plans about made-up people, shared by the tests of this crate.

use rollcall_contract::{Cursor, Lineage};
use rollcall_core::attribute::EMAIL;
use rollcall_core::document::Document;
use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::{MatchHash, RunId, SourceId, UserId, UserRow};
use rollcall_core::plan::{Plan, UserWrite};
use rollcall_core::state::{KeyBytes, LinkTarget, State};
use rollcall_store::{
    Commit, Committed, OpenOptions, Progress, Readers, Store, StoreError, Writer,
};

pub(crate) const SOURCE: SourceId = SourceId(1);

pub(crate) fn open(path: &std::path::Path) -> (Writer, Readers) {
    open_with(path, OpenOptions::new("acme")).unwrap()
}

pub(crate) fn open_with(
    path: &std::path::Path,
    options: OpenOptions,
) -> Result<(Writer, Readers), StoreError> {
    let (mut writer, readers) = Store::open(path, options)?;
    assert_eq!(writer.source("people", 1)?, SOURCE);
    Ok((writer, readers))
}

pub(crate) fn id(n: u64) -> UserId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    UserId(id)
}

pub(crate) fn key(n: u64) -> KeyBytes {
    let digits = n.to_string();
    let mut key = KeyBytes::new();
    key.push(digits.len() as u8);
    key.extend_from_slice(digits.as_bytes());
    key
}

pub(crate) fn email(n: u64) -> MatchHash {
    MatchHash::of(EMAIL, format!("user{n}@example.org").as_bytes())
}

pub(crate) fn document(n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Document::new(id(n), n as i64).encode(&mut bytes);
    bytes
}

pub(crate) fn write(n: u64, is_new: bool) -> UserWrite {
    UserWrite {
        document: document(n),
        user_name: Some(format!("user{n}")),
        display_name: Some(format!("Person {n}")),
        active: true,
        updated_us: 1,
        is_new,
        columns_changed: true,
    }
}

pub(crate) fn push_event(plan: &mut Plan, kind: EventKind, n: u64) {
    plan.events.push(&Event {
        kind,
        id: id(n).0,
        user: Some(id(n)),
        source: Some(SOURCE),
        time_us: 1,
        run: RunId(1),
        position: "0/1",
        key: &[],
        data: format!("{{\"n\":{n}}}").as_bytes(),
    });
}

/// Creates the users `from..from + count`, one event each.
pub(crate) fn creation(writer: &mut Writer, from: u64, count: u64) -> Plan {
    let mut plan = Plan::default();
    for n in from..from + count {
        let row: UserRow = writer.allocate_user();
        plan.users.insert(row, write(n, true));
        plan.links
            .insert((SOURCE, key(n)), Some(LinkTarget::User(row)));
        plan.match_keys.insert((email(n), row), true);
        push_event(&mut plan, EventKind::UserCreated, n);
    }
    plan
}

pub(crate) fn progress(n: u64) -> Progress {
    Progress {
        source: SOURCE,
        cursor: Cursor::new(&n.to_be_bytes(), &format!("0/{n:X}")),
        lineage: Some(Lineage("server".to_owned())),
    }
}

pub(crate) fn commit(
    writer: &mut Writer,
    plan: &mut Plan,
    n: u64,
) -> Result<Committed, StoreError> {
    writer.commit(Commit {
        now_us: n as i64,
        plan: Some(plan),
        progress: Some(progress(n)),
        ..Commit::default()
    })
}

pub(crate) fn cursor(readers: &Readers) -> u64 {
    let source = readers.source("people").unwrap().unwrap();
    source.resume.map_or(0, |(cursor, _)| {
        u64::from_be_bytes(cursor.as_bytes().try_into().unwrap())
    })
}
