//! Plans about made-up people, shared by the tests of this crate.

use rollcall_contract::{Cursor, Lineage};
use rollcall_core::document::Document;
use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::{RunId, SourceId, UserId, UserRow, ValueHash};
use rollcall_core::plan::{Columns, Plan, UserWrite};
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

pub(crate) fn email(n: u64) -> ValueHash {
    ValueHash::of(format!("user{n}@example.org").as_bytes())
}

pub(crate) fn document(n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Document::new(id(n), n as i64).encode(&mut bytes);
    bytes
}

/// Writes the n-th user whole.
pub(crate) fn put(plan: &mut Plan, row: UserRow, n: u64, is_new: bool, active: bool) {
    let write = UserWrite {
        document: &document(n),
        columns: Some(Columns {
            user_name: Some(&format!("user{n}")),
            display_name: Some(&format!("Person {n}")),
        }),
        active,
        updated_us: 1,
        is_new,
    };
    plan.users.put(row, &write);
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
        put(&mut plan, row, n, true, true);
        plan.links
            .insert((SOURCE, key(n)), Some(LinkTarget::User(row)));
        plan.set_owner(email(n), row, true);
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

/// The n-th commit, of a plan.
pub(crate) fn of_plan(plan: Plan, n: u64) -> Commit {
    Commit {
        now_us: n as i64,
        plan,
        progress: Some(progress(n)),
        ..Commit::default()
    }
}

/// Stores a plan; one that was refused is as it was.
pub(crate) fn commit(
    writer: &mut Writer,
    plan: &mut Plan,
    n: u64,
) -> Result<Committed, StoreError> {
    let mut whole = of_plan(std::mem::take(plan), n);
    let outcome = writer.commit(&mut whole);
    if outcome.is_err() {
        *plan = whole.plan;
    }
    outcome
}

pub(crate) fn cursor(readers: &Readers) -> u64 {
    let source = readers.source("people").unwrap().unwrap();
    source.resume.map_or(0, |(cursor, _)| {
        u64::from_be_bytes(cursor.as_bytes().try_into().unwrap())
    })
}
