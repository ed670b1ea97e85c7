//! Reminders, and users of whom nothing is left.

use rollcall_core::document::{Document, UserState};
use rollcall_core::id::UserRow;
use rollcall_core::plan::{Columns, Due, DueKind, Plan, UserWrite};
use rollcall_store::{Commit, UserFilter};

use crate::people::{SOURCE, creation, email, id, key, of_plan, open};

const START: (i64, UserRow) = (i64::MIN, UserRow(i64::MIN));

fn due(kind: DueKind, since_us: i64, user: i64) -> Due {
    Due {
        source: SOURCE,
        kind,
        since_us,
        user: UserRow(user),
    }
}

#[test]
fn reminders_are_read_in_the_order_of_their_times_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(folder.path());
    let [late, early, other] = [
        due(DueKind::Grace, 30, 1),
        due(DueKind::Grace, 10, 2),
        due(DueKind::Purge, 20, 3),
    ];
    let plan = Plan {
        due: vec![(late, true), (early, true), (other, true), (late, true)],
        ..Plan::default()
    };
    writer.commit(&mut of_plan(plan, 1)).unwrap();
    writer.close().unwrap();

    let (mut writer, readers) = open(folder.path());
    let of = |after, limit| {
        readers
            .due_after(SOURCE, DueKind::Grace, after, limit)
            .unwrap()
    };
    assert_eq!(of(START, 9), [early, late]);
    assert_eq!(of(START, 1), [early]);
    assert_eq!(of((10, UserRow(2)), 9), [late]);
    assert_eq!(readers.due_count(SOURCE, DueKind::Grace).unwrap(), 2);
    let plan = Plan {
        due: vec![(early, false)],
        ..Plan::default()
    };
    writer.commit(&mut of_plan(plan, 2)).unwrap();
    assert_eq!(of(START, 9), [late]);
}

#[test]
fn a_tombstone_is_in_no_list_and_no_count_and_a_purged_user_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(folder.path());
    let plan = creation(&mut writer, 1, 3);
    writer.commit(&mut of_plan(plan, 1)).unwrap();
    let second = readers.user_by_id(id(2)).unwrap().unwrap().row;

    let mut tombstone = Document::new(id(2), 2);
    tombstone.state = UserState::Tombstone;
    let mut bytes = Vec::new();
    tombstone.encode(&mut bytes);
    let mut plan = Plan::default();
    let write = UserWrite {
        document: &bytes,
        columns: Some(Columns::default()),
        active: false,
        updated_us: 2,
        is_new: false,
    };
    plan.users.put(second, &write);
    plan.set_owner(email(2), second, false);
    plan.undeleted = -1;
    writer.commit(&mut of_plan(plan, 2)).unwrap();
    let listed = readers.users(&UserFilter::default(), None, 9).unwrap();
    assert_eq!(listed.len(), 2);
    let counts = readers.counts().unwrap();
    assert_eq!((counts.users, counts.active), (2, 2));
    assert!(readers.user_by_id(id(2)).unwrap().is_some());

    let mut plan = Plan::default();
    plan.purged.push(second);
    plan.links.insert((SOURCE, key(2)), None);
    writer
        .commit(&mut Commit {
            now_us: 3,
            plan,
            ..Commit::default()
        })
        .unwrap();
    assert!(readers.user_by_id(id(2)).unwrap().is_none());
    assert!(readers.user_by_record(SOURCE, &key(2)).unwrap().is_none());
    for n in [1, 3] {
        assert!(
            readers.user_by_id(id(n)).unwrap().is_some(),
            "{n} is found still"
        );
    }
    assert_eq!(readers.counts().unwrap().users, 2);
}
