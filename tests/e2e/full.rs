//! A disk that is full, and has space again.
//!
//! The store lies on a file system of its own, of as many bytes as the test wants: a tmpfs that is
//! mounted in a mount namespace of a process of ours, where nobody else sees it, and that ends
//! with it. The daemon and its commands are run there by `nsenter`. Whoever is not root gets a
//! user namespace besides. A limit for file sizes would not do: it is another error, for another
//! file.

use std::path::Path;
use std::process::{Command, Output};

use rollcall_testbed::{Process, wait_for};

use crate::company::{Company, hire_all, hire_with, long_note};
use crate::fold::{assert_same, expected};
use crate::sources::{Setup, SourceKind, every_source};
use crate::topic::{broker, read, sink};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_full_disk_stops_a_load_cleanly_and_after_space_is_made_nothing_is_lost_or_doubled,
    a_full_disk_stops_a_stream_cleanly_and_after_space_is_made_nothing_is_lost_or_doubled,
);

const ROOMY: &str = "size=256m";

/// A file system of its own.
struct SmallDisk {
    keeper: Process,
    is_of_user: bool,
}

impl SmallDisk {
    /// Mounts one over a folder, for the processes that are run in it.
    fn over(folder: &Path, size: &str) -> SmallDisk {
        std::fs::create_dir_all(folder).unwrap();
        let script = format!(
            "mount -t tmpfs -o {size},mode=0700 none {} && echo mounted && exec sleep infinity",
            folder.display()
        );
        let mut said = String::new();
        for is_of_user in [false, true] {
            let mut command = Command::new("unshare");
            command.arg("--mount");
            if is_of_user {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["sh", "-c", &script]);
            let keeper = Process::spawn(command).unwrap();
            let outcome = wait_for(PATIENCE, "the file system", || {
                match (keeper.stdout().contains("mounted"), keeper.is_running()) {
                    (true, _) => Ok(Ok(())),
                    (false, false) => Ok(Err(keeper.stderr())),
                    (false, true) => Err(keeper.stderr()),
                }
            });
            match outcome.unwrap() {
                Ok(()) => return SmallDisk { keeper, is_of_user },
                Err(e) => said += &e,
            }
        }
        panic!(
            "no file system can be mounted in a namespace of its own: {said}. \
             Fix: run the tests where `unshare --mount` or `unshare --user --map-root-user --mount` \
             is allowed (docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined)"
        );
    }

    /// What runs a program where the file system is.
    fn within(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), "--mount".to_owned()];
        if self.is_of_user {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.extend(["--target".to_owned(), self.keeper.pid().to_string()]);
        words
    }

    fn run(&self, args: &[&str]) -> Output {
        let within = self.within();
        let output = Command::new(&within[0])
            .args(&within[1..])
            .args(args)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    fn resize(&self, folder: &Path, size: &str) {
        let folder = folder.display().to_string();
        self.run(&["mount", "-o", &format!("remount,{size}"), &folder]);
    }

    /// Leaves room for so many KiB more than what is used.
    fn leave(&self, folder: &Path, kib: u64) {
        let output = self.run(&["df", "--output=used", "-k", &folder.display().to_string()]);
        let said = String::from_utf8(output.stdout).unwrap();
        let used: u64 = said.lines().last().unwrap().trim().parse().unwrap();
        self.resize(folder, &format!("size={}k", used + kib));
    }
}

fn small(kind: &SourceKind, size: &str, topic: &str) -> (World, SmallDisk) {
    let options = Options::pages_of(50).and(&sink(broker(), topic));
    let mut world = World::on((kind.start)(&Setup::default()), &options);
    let disk = SmallDisk::over(&world.store(), size);
    world.within = disk.within();
    (world, disk)
}

/// It ends by itself, with the store's code and a sentence that says what to do.
fn assert_ends_full(daemon: &Daemon<'_>) {
    let status = daemon.process.wait_timeout(PATIENCE).unwrap();
    let said = daemon.process.stderr();
    assert_eq!(status.code(), Some(5), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("error: the disk of the store is full")
            && last.contains("nothing is lost")
            && last.contains("Fix: make space"),
        "{last}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

/// The events tell the table, and where deliveries are transactions each of them came once. To the
/// file some came again, with the same ids: where it was could not be stored any more.
fn assert_told_once(world: &World, topic: &str) {
    let wanted = expected(&world.db.people());
    let events = read(broker(), topic);
    events.assert_whole();
    events.assert_once();
    assert_same(&events.fold(), &wanted);
    assert_same(&world.events(0).fold(), &wanted);
}

fn a_full_disk_stops_a_load_cleanly_and_after_space_is_made_nothing_is_lost_or_doubled(
    kind: &SourceKind,
) {
    let topic = format!("full-load-{}", kind.name);
    let (world, disk) = small(kind, "size=1536k", &topic);
    world.db.sql(&hire_all(1_500));
    let long: String = (0..200)
        .map(|n| {
            let note = long_note(n);
            hire_with(10_000 + n, &[("note", note.as_str())])
        })
        .collect();
    world.db.sql(&long);
    let daemon = world.start();
    assert_ends_full(&daemon);
    // There is still no space: it says so again.
    let daemon = world.start();
    assert_ends_full(&daemon);
    disk.resize(&world.store(), ROOMY);
    let daemon = world.streaming();
    daemon.settle();
    world.assert_verified();
    daemon.stop();
    assert_told_once(&world, &topic);
    let runs = world.json(&["runs"]);
    let loads = runs
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["kind"] == "load");
    assert_eq!(
        loads.count(),
        1,
        "the load went on where it stopped: {runs}"
    );
}

fn a_full_disk_stops_a_stream_cleanly_and_after_space_is_made_nothing_is_lost_or_doubled(
    kind: &SourceKind,
) {
    let topic = format!("full-stream-{}", kind.name);
    let (world, disk) = small(kind, ROOMY, &topic);
    world.db.sql(&hire_all(100));
    let daemon = world.streaming();
    daemon.settle();
    disk.leave(&world.store(), 256);
    let mut company = Company::new(5, 100);
    for n in 0..400 {
        let note = long_note(n);
        let hired = hire_with(10_000 + n, &[("note", note.as_str())]);
        world.db.sql(&(company.transaction() + &hired));
    }
    assert_ends_full(&daemon);
    disk.resize(&world.store(), ROOMY);
    let daemon = world.streaming();
    daemon.settle();
    let said = daemon.process.log();
    assert!(!said.contains("gap:"), "it was followed on: {said}");
    world.assert_verified();
    daemon.stop();
    assert_told_once(&world, &topic);
}
