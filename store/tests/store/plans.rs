//! Plans: what waits, its hash after each step, and what was counted.

use rollcall_core::id::{RunId, SourceId};
use rollcall_core::plan::Plan;
use rollcall_core::staged::{Counted, PlanHash, Staged};
use rollcall_core::state::KeyBytes;
use rollcall_store::{Commit, CountedChanges, PlanStep, Writer};

use crate::people::*;

fn staged(kind: Counted, hash: u64, held_back: bool) -> Option<Staged> {
    Some(Staged {
        kind,
        hash,
        run: RunId(1),
        staged_us: 5,
        held_back,
    })
}

fn commit(writer: &mut Writer, records: &[(&[u8], Option<Staged>)], steps: &[PlanStep]) {
    let mut plan = Plan::default();
    for (key, staged) in records {
        let place = (SOURCE, KeyBytes::from_slice(key));
        plan.staged.insert(place, *staged);
    }
    let mut commit = Commit {
        plan,
        plans: steps.iter().map(|step| (SOURCE, *step)).collect(),
        ..Commit::default()
    };
    writer.commit(&mut commit).unwrap();
}

fn hash(records: &[(&[u8], Counted, u64)]) -> PlanHash {
    let each = records.iter().map(|(k, c, h)| PlanHash::of(k, *c, *h));
    each.fold(PlanHash::default(), PlanHash::with)
}

#[test]
fn a_plan_that_changed_is_found_by_its_old_hash_with_what_came_and_went() {
    let home = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(home.path());
    let gone = Counted::Deleted;
    let two = [
        (&b"1"[..], staged(gone, 0, false)),
        (&b"2"[..], staged(gone, 0, false)),
    ];
    commit(&mut writer, &two, &[]);
    let first = hash(&[(b"1", gone, 0), (b"2", gone, 0)]);
    assert_eq!(readers.plans().unwrap()[0].hash, first);
    // What is staged as it was is no step.
    commit(&mut writer, &two[..1], &[]);
    let next = [
        (&b"1"[..], None),
        (&b"2"[..], staged(Counted::Roles, 9, false)),
        (&b"3"[..], staged(gone, 0, false)),
    ];
    commit(&mut writer, &next, &[]);
    let since = readers.plan_since(first).unwrap().unwrap();
    let (was, is) = (since.was, since.is.unwrap());
    let changes = (
        is.came - was.came,
        is.went - was.went,
        is.changed - was.changed,
    );
    assert_eq!(changes, (1, 1, 1));
    let second = hash(&[(b"2", Counted::Roles, 9), (b"3", gone, 0)]);
    assert_eq!((is.hash, is.records), (second, 2));
    assert_eq!(
        readers.plan_kinds(SOURCE).unwrap(),
        [(gone, 1), (Counted::Roles, 1)]
    );
    writer.close().unwrap();

    let (mut writer, readers) = open(home.path());
    assert_eq!(writer.open_plan(SOURCE).unwrap().unwrap().hash, second);
    commit(&mut writer, &[], &[PlanStep::Approved]);
    assert!(writer.open_plan(SOURCE).unwrap().unwrap().approved);
    commit(&mut writer, &[], &[PlanStep::Ended]);
    assert!(!writer.open_plan(SOURCE).unwrap().unwrap().approved);
    commit(
        &mut writer,
        &[(b"2", None), (b"3", None)],
        &[PlanStep::Ended],
    );
    assert_eq!(writer.open_plan(SOURCE).unwrap(), None);
    assert!(readers.plans().unwrap().is_empty());
    assert_eq!(readers.plan_since(second).unwrap(), None, "it is gone");
}

#[test]
fn what_a_scan_holds_back_is_in_no_plan_until_it_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(home.path());
    let absent = Counted::Absent;
    let held = [
        (&b"1"[..], staged(absent, 0, true)),
        (&b"2"[..], staged(absent, 0, true)),
    ];
    commit(&mut writer, &held, &[]);
    assert_eq!(writer.held_back(SOURCE).unwrap(), 2);
    assert!(readers.plans().unwrap().is_empty());
    commit(&mut writer, &[(b"1", None)], &[]);
    assert_eq!(writer.staged_after(SOURCE, true, &[], 9).unwrap().len(), 1);
    commit(&mut writer, &[], &[PlanStep::Open]);
    assert_eq!(writer.held_back(SOURCE).unwrap(), 0);
    let plan = writer.open_plan(SOURCE).unwrap().unwrap();
    assert_eq!((plan.hash, plan.records), (hash(&[(b"2", absent, 0)]), 1));
}

#[test]
fn counted_changes_add_up_by_the_minute_and_old_ones_are_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(home.path());
    for (minute, changes, since) in [(10, 2, 0), (10, 1, 0), (70, 4, 0), (80, 1, 20)] {
        let mut commit = Commit {
            counted: vec![CountedChanges {
                source: SOURCE,
                minute,
                changes,
                since,
            }],
            ..Commit::default()
        };
        writer.commit(&mut commit).unwrap();
        if minute == 70 {
            assert_eq!(
                readers.counted_since(SOURCE, 0).unwrap(),
                [(10, 3), (70, 4)]
            );
        }
    }
    assert_eq!(
        readers.counted_since(SOURCE, 0).unwrap(),
        [(70, 4), (80, 1)]
    );
    assert_eq!(readers.counted_since(SourceId(999), 0).unwrap(), []);
}

#[test]
fn links_to_active_users_are_counted_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(home.path());
    for more in [3, -1] {
        let mut plan = Plan::default();
        plan.set_linked(SOURCE, more);
        let mut commit = Commit {
            plan,
            ..Commit::default()
        };
        writer.commit(&mut commit).unwrap();
    }
    assert_eq!(writer.counts().linked_of(SOURCE), 2);
    writer.close().unwrap();
    let (writer, _) = open(home.path());
    assert_eq!(writer.counts().linked_of(SOURCE), 2);
}
