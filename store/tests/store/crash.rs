//! Kill -9 in the middle of commits: after each restart a batch is there whole or not at
//! all, whatever was acknowledged is there, and sequences have no holes.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::people::*;
use rollcall_core::state::State;
use rollcall_store::{OpenOptions, Position, Sequence, Store, StoreError};

const CHILD: &str = "ROLLCALL_STORE_CRASH_CHILD";

fn options() -> OpenOptions {
    OpenOptions {
        // Small, so that checkpoints and sweeps of match keys are hit as well.
        checkpoint_bytes: 400 << 10,
        match_delta_entries: 900,
        ..OpenOptions::new("acme")
    }
}

/// How many users the n-th commit creates.
fn size(n: u64) -> u64 {
    1 + (n * 7_919) % 400
}

/// Commits until it is killed, and says after each commit which one it was.
fn child(path: &Path) {
    let (mut writer, readers) = open_with(path, options()).unwrap();
    let mut n = cursor(&readers);
    let mut users = writer.counts().users;
    let mut out = std::io::stdout();
    loop {
        n += 1;
        let mut plan = creation(&mut writer, users, size(n));
        users += size(n);
        commit(&mut writer, &mut plan, n).unwrap();
        writeln!(out, "stored {n}").unwrap();
        out.flush().unwrap();
        if n.is_multiple_of(5) {
            let delivered = writer.counts().next_position.before();
            writer.trim_outbox(delivered, i64::MAX, 64 << 10).unwrap();
        }
    }
}

#[test]
fn a_batch_is_stored_whole_or_not_at_all_when_the_process_is_killed() {
    if let Some(path) = std::env::var_os(CHILD) {
        child(Path::new(&path));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..20 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::a_batch_is_stored_whole_or_not_at_all_when_the_process_is_killed",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        let wanted = 1 + seed % 12;
        let mut seen = 0;
        let stored = |line: std::io::Result<String>| -> Option<u64> {
            line.unwrap().strip_prefix("stored ")?.parse().ok()
        };
        for line in &mut lines {
            if let Some(n) = stored(line) {
                acknowledged = n;
                seen += 1;
                if seen == wanted {
                    break;
                }
            }
        }
        if round == 0 {
            let e = Store::open(dir.path(), options()).err().unwrap();
            assert!(
                matches!(e, StoreError::InUse { pid: Some(p), .. } if p == child.id()),
                "{e}"
            );
        }
        std::thread::sleep(Duration::from_micros(seed % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            acknowledged = stored(line).unwrap_or(acknowledged);
        }

        let (mut writer, readers) = open_with(dir.path(), options()).unwrap();
        let n = cursor(&readers);
        assert!(n >= acknowledged, "round {round}: {n} < {acknowledged}");
        let users: u64 = (1..=n).map(size).sum();
        let counts = readers.counts().unwrap();
        assert_eq!(counts.users, users, "round {round}");
        assert_eq!(counts.active, users);
        assert_eq!(counts.next_sequence, Sequence(users + 1));
        assert_eq!(counts.next_position, Position(users + 1));
        assert_eq!(&counts, writer.counts());
        let mut links = 0;
        let last = writer.links_after(SOURCE, None, usize::MAX, |_, _| links += 1);
        assert_eq!((last.unwrap(), links), (None, users));

        let mut blocks = 0;
        let mut bytes_known = None;
        if let Some((first, end)) = readers.outbox_kept().unwrap() {
            assert_eq!(end, counts.next_position);
            let mut next = first;
            for block in readers.outbox_from(first, usize::MAX).unwrap() {
                blocks += 1;
                for placed in block.events() {
                    let placed = placed.unwrap();
                    assert_eq!(placed.position, next);
                    assert_eq!(placed.sequence, Some(Sequence(next.0)));
                    let data = format!("{{\"n\":{}}}", next.0 - 1);
                    assert_eq!(placed.event.data, data.as_bytes());
                    next = next.next();
                }
            }
            assert_eq!(next, end);
            bytes_known = Some(counts.outbox_bytes);
        }
        assert_eq!(counts.outbox_blocks, blocks);
        assert_eq!(bytes_known.unwrap_or(0), counts.outbox_bytes);

        for n in (0..users).step_by(3) {
            let mut owners = smallvec::SmallVec::new();
            writer.owners(email(n), &mut owners).unwrap();
            assert_eq!(owners.len(), 1, "round {round}, user {n} of {users}");
            if n % 60 == 0 {
                let found = readers.user_by_id(id(n)).unwrap().unwrap();
                assert_eq!(found.row, owners[0]);
            }
        }
        assert!(readers.check().unwrap().is_empty());
    }
}
