//! Reading beside the writer, and the outbox.

use std::sync::atomic::{AtomicBool, Ordering};

use rollcall_core::event::EventKind;
use rollcall_core::id::UserRow;
use rollcall_core::plan::Plan;
use rollcall_store::{OpenOptions, Position, Readers, Sequence, UserFilter};

use crate::people::*;

#[test]
fn a_reader_sees_committed_states_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _readers) = open(dir.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // As another process would: a pool of its own.
                let readers = Readers::open_readonly(dir.path(), "acme").unwrap();
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let counts = readers.counts().unwrap();
                    assert_eq!(counts.users % 40, 0, "half of a batch was seen");
                    assert_eq!(counts.next_sequence, Sequence(counts.users + 1));
                    assert!(counts.users >= last, "time went backwards");
                    last = counts.users;
                    // A batch is 40 users, and the cursor says which batch it was.
                    let cursor = cursor(&readers);
                    assert!(cursor * 40 >= last);
                    assert!(
                        readers
                            .users(&UserFilter::default(), None, 10_000)
                            .unwrap()
                            .len() as u64
                            >= last
                    );
                }
            });
        }
        for n in 1..=60 {
            let mut plan = creation(&mut writer, (n - 1) * 40, 40);
            commit(&mut writer, &mut plan, n).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    writer.close().unwrap();
    // And when no daemon runs.
    let readers = Readers::open_readonly(dir.path(), "acme").unwrap();
    assert_eq!(readers.counts().unwrap().users, 2_400);
    assert_eq!(readers.identity().unwrap().organization, "acme");
}

#[test]
fn a_reader_of_a_store_that_was_not_closed_sees_its_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 10);
    commit(&mut writer, &mut plan, 1).unwrap();
    drop(readers);
    // Copied as a crash would leave it: the log was not taken in.
    let copy = tempfile::tempdir().unwrap();
    for file in ["rollcall.db", "rollcall.db-wal"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let readers = Readers::open_readonly(copy.path(), "acme").unwrap();
    assert_eq!(readers.counts().unwrap().users, 10);
}

fn raw_and_identity(n: u64) -> Plan {
    let mut plan = Plan::default();
    push_event(&mut plan, EventKind::RawChange, n);
    push_event(&mut plan, EventKind::UserUpdated, n);
    push_event(&mut plan, EventKind::RawChange, n);
    plan
}

#[test]
fn raw_changes_take_positions_and_no_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    for n in 1..=10 {
        let committed = commit(&mut writer, &mut raw_and_identity(n), n).unwrap();
        let block = committed.block.unwrap();
        assert_eq!(block.first_position, Position(3 * n - 2));
        assert_eq!(block.last_position(), Position(3 * n));
        let placed: Vec<_> = block
            .events()
            .map(|e| e.map(|e| (e.position.0, e.sequence.map(|s| s.0))).unwrap())
            .collect();
        assert_eq!(
            placed,
            [(3 * n - 2, None), (3 * n - 1, Some(n)), (3 * n, None)]
        );
        let stored = readers.outbox_from(Position(3 * n - 1), 1).unwrap();
        assert_eq!(stored, [block], "what is read is what was handed out");
    }
    for after in 0..10 {
        let blocks = readers.outbox_after(Sequence(after), 1).unwrap();
        assert_eq!(blocks[0].first_sequence, Sequence(after + 1));
    }
    assert!(readers.outbox_after(Sequence(10), 1).unwrap().is_empty());
    assert!(readers.outbox_from(Position(31), 1).unwrap().is_empty());
    assert_eq!(
        readers.outbox_from(Position(1), usize::MAX).unwrap().len(),
        10
    );
    // A commit without events takes no number.
    let committed = commit(&mut writer, &mut Plan::default(), 11).unwrap();
    assert!(committed.block.is_none());
    assert_eq!(writer.counts().next_position, Position(31));
}

#[test]
fn a_restored_store_goes_on_behind_what_was_seen_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    for n in 1..=4 {
        commit(&mut writer, &mut raw_and_identity(n), n).unwrap();
    }
    writer.skip_to(Position(1_000)).unwrap();
    writer.skip_to(Position(7)).unwrap();
    for n in 5..=9 {
        commit(&mut writer, &mut raw_and_identity(n), n).unwrap();
    }
    let first = readers.outbox_from(Position(13), 1).unwrap();
    assert_eq!(first[0].first_position, Position(1_001));
    let sequence = first[0].first_sequence;
    // The hole is passed from both of its sides and from within.
    for after in 0..4 {
        let blocks = readers.outbox_after(Sequence(after), 1).unwrap();
        assert_eq!(blocks[0].first_sequence, Sequence(after + 1));
    }
    for after in [Sequence(4), Sequence(500), sequence.before()] {
        let blocks = readers.outbox_after(after, 1).unwrap();
        assert_eq!(blocks[0].first_sequence, sequence, "behind {after}");
    }
    let last = readers.outbox_after(sequence.plus(3), usize::MAX).unwrap();
    assert_eq!(last.len(), 1);
    assert!(
        readers
            .outbox_after(sequence.plus(4), 1)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn trimming_keeps_what_is_not_delivered_and_what_is_young() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    for n in 1..=10 {
        commit(&mut writer, &mut raw_and_identity(n), n).unwrap();
    }
    let first = |readers: &Readers| readers.outbox_kept().unwrap().unwrap().0;
    // Delivered into the middle of the fourth block; nothing is younger than the end.
    let trimmed = writer.trim_outbox(Position(11), 1_000, u64::MAX).unwrap();
    assert_eq!((trimmed.blocks, trimmed.more), (3, false));
    assert_eq!(first(&readers), Position(10));
    // All delivered, but the blocks from the sixth on are young.
    writer.trim_outbox(Position(30), 6, u64::MAX).unwrap();
    assert_eq!(first(&readers), Position(16));
    // Size overrules youth, but never delivery.
    writer.trim_outbox(Position(27), 6, 0).unwrap();
    assert_eq!(first(&readers), Position(28));
    let counts = writer.counts().clone();
    assert_eq!(counts.outbox_blocks, 1);
    assert_eq!(counts, readers.counts().unwrap());
    // Asking for what is gone gives what is left, and it shows.
    let blocks = readers.outbox_from(Position(2), 1).unwrap();
    assert_eq!(blocks[0].first_position, Position(28));
    writer.trim_outbox(Position(30), 6, 0).unwrap();
    assert_eq!(readers.outbox_kept().unwrap(), None);
    assert_eq!(writer.counts().outbox_bytes, 0);
    // Numbers go on where they were.
    let block = commit(&mut writer, &mut raw_and_identity(11), 11)
        .unwrap()
        .block;
    assert_eq!(block.unwrap().first_position, Position(31));
}

#[test]
fn users_are_found_by_id_record_match_key_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        match_delta_entries: 40,
        ..OpenOptions::new("acme")
    };
    let (mut writer, readers) = open_with(dir.path(), options).unwrap();
    for n in 0..5 {
        let mut plan = creation(&mut writer, n * 30, 30);
        commit(&mut writer, &mut plan, n + 1).unwrap();
    }
    let mut plan = Plan::default();
    put(&mut plan, UserRow(8), 7, false, false);
    commit(&mut writer, &mut plan, 6).unwrap();
    assert_eq!(writer.counts().active, 149);

    for n in 0..150 {
        let user = readers.user_by_id(id(n)).unwrap().unwrap();
        assert_eq!(user.row, UserRow(n as i64 + 1));
        let by_value = readers.users_by_value(email(n)).unwrap();
        assert_eq!(by_value.first(), Some(&user));
        assert_eq!(by_value.len(), 1);
        let by_record = readers.user_by_record(SOURCE, &key(n)).unwrap();
        assert_eq!(by_record, Some(Some(user)));
    }
    assert_eq!(readers.user_by_id(id(150)).unwrap(), None);
    assert_eq!(readers.user_by_record(SOURCE, &key(150)).unwrap(), None);

    let search = |filter: &UserFilter, after| -> Vec<i64> {
        let found = readers.users(filter, after, 4).unwrap();
        found.iter().map(|u| u.row.0).collect()
    };
    let text = |t: &str| UserFilter {
        text: Some(t.to_owned()),
        ..UserFilter::default()
    };
    assert_eq!(search(&text("PERSON 14"), None), [15, 141, 142, 143]);
    assert_eq!(
        search(&text("PERSON 14"), Some(UserRow(143))),
        [144, 145, 146, 147]
    );
    // Typed with an accent, in its decomposed form.
    assert_eq!(search(&text("Pe\u{301}rson 149"), None), [150]);
    assert!(search(&text("100%"), None).is_empty());
    let inactive = UserFilter {
        active: Some(false),
        ..UserFilter::default()
    };
    assert_eq!(search(&inactive, None), [8]);
}

#[test]
fn a_copy_is_one_committed_state_while_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 4_000);
    commit(&mut writer, &mut plan, 1).unwrap();
    let mut n = 1;
    let copy = tempfile::tempdir().unwrap();
    let goes_on = || {
        n += 1;
        let mut plan = creation(&mut writer, n * 4_000, 40);
        commit(&mut writer, &mut plan, n).is_ok()
    };
    assert!(readers.copy_to(copy.path(), goes_on).unwrap());
    let (copied, in_copy) = open(copy.path());
    assert_eq!(in_copy.check().unwrap(), Vec::<String>::new());
    assert_eq!((in_copy.counts().unwrap().users - 4_000) % 40, 0);
    assert_eq!(
        in_copy.identity().unwrap().store,
        readers.identity().unwrap().store
    );
    assert!(in_copy.size_bytes().unwrap() > 100_000);
    drop(copied);
    let stopped = tempfile::tempdir().unwrap();
    assert!(!readers.copy_to(stopped.path(), || false).unwrap());
}

#[test]
fn readers_that_stand_still_see_nothing_of_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = creation(&mut writer, 0, 10);
    commit(&mut writer, &mut plan, 1).unwrap();
    let still = readers.standing_still().unwrap();
    let mut plan = creation(&mut writer, 10, 10);
    commit(&mut writer, &mut plan, 2).unwrap();
    assert_eq!(still.counts().unwrap().users, 10);
    assert_eq!(readers.counts().unwrap().users, 20);
}

/// Most of the log is taken in while commits go on; then it is begun anew, as its header counts
/// (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).
#[test]
fn the_log_is_begun_anew_again_and_again_under_a_stream_of_commits() {
    const LIMIT: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        checkpoint_bytes: LIMIT,
        ..OpenOptions::new("acme")
    };
    let (mut writer, _) = open_with(dir.path(), options).unwrap();
    let log = dir.path().join("rollcall.db-wal");
    let begun = || {
        let header = std::fs::read(&log).unwrap();
        u32::from_be_bytes(header[12..16].try_into().unwrap())
    };
    let (before, mut users) = (begun(), 0);
    while begun() < before + 3 {
        let mut plan = creation(&mut writer, users, 200);
        users += 200;
        commit(&mut writer, &mut plan, users).unwrap();
        assert!(users < 100_000, "the log only grows");
    }
    // A daemon that is killed leaves what is left to its next start.
    drop(writer);
    let (writer, _) = open_with(dir.path(), OpenOptions::new("acme")).unwrap();
    assert_eq!(writer.counts().users, users);
}

#[test]
fn the_log_is_taken_in_as_it_grows_where_small_pieces_are_wanted() {
    const LOG: u64 = 12 << 20;
    for in_pieces in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path());
        writer.flushing().keep_small(in_pieces);
        let size = |name: &str| dir.path().join(name).metadata().unwrap().len();
        let (before, mut users) = (size("rollcall.db"), 0);
        while size("rollcall.db-wal") < LOG && size("rollcall.db") == before {
            let mut plan = creation(&mut writer, users, 200);
            users += 200;
            commit(&mut writer, &mut plan, users).unwrap();
        }
        assert_eq!(size("rollcall.db") > before, in_pieces);
        // Whatever pass was under way ends, and nothing is lost.
        drop(writer);
        let (writer, _) = open(dir.path());
        assert_eq!(writer.counts().users, users);
    }
}
