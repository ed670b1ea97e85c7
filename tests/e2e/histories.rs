//! Polling, streaming and reconciliation end in the same directory, whatever happened before:
//! random histories of a table, while the daemon is killed, the right to read the log comes and
//! goes, and reconciliations are ordered, at random moments. And never more than the limit allows is
//! taken away, whatever the sizes of transactions, over any restarts.
//!
//! All histories of a kind share one server, each with a database, an account and a daemon of its
//! own, several at a time. `ROLLCALL_SEEDS` says how many there are for all kinds together; the
//! seeds of those that fail are printed, and `ROLLCALL_SEED` runs one alone, on every kind.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use rollcall_testbed::wait_for;

use crate::company::{Company, Dice, hire_all};
use crate::fold::{assert_same, expected};
use crate::sources::{MARIADB, MYSQL, POSTGRES, Room, Server, Setup, SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    polling_streaming_and_reconciliation_end_in_the_same_directory,
    never_more_than_the_limit_is_applied_whatever_the_sizes_and_restarts,
);

/// Histories of all kinds together.
const USUAL: u64 = 200;

/// … and of those that are about the limit.
const LIMITED: u64 = 24;

/// Histories of a kind that run at a time. They mostly wait.
const AT_ONCE: usize = 5;

/// Rooms of the one property begin behind those of the other.
const LIMITED_ROOMS: u64 = 1_000_000;

const ASKED_EVERY: Duration = Duration::from_millis(80);

const PEOPLE: u64 = 30;
const ROUNDS: u64 = 6;

/// This kind's share of so many seeds.
fn seeds(kind: &SourceKind, usual: u64) -> VecDeque<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    if let Some(seed) = number("ROLLCALL_SEED") {
        return VecDeque::from([seed]);
    }
    let kinds = [POSTGRES, MYSQL, MARIADB].map(|kind| kind.name);
    let own = kinds.iter().position(|name| *name == kind.name).unwrap();
    let all = 0..number("ROLLCALL_SEEDS").unwrap_or(usual);
    all.skip(own).step_by(kinds.len()).collect()
}

/// Tries a history with each seed, several at a time, in rooms of one server.
fn every_seed(kind: &SourceKind, usual: u64, history: fn(&Arc<dyn Server>, u64)) {
    let server = (kind.start)(&Setup::default());
    let (seeds, failed) = (Mutex::new(seeds(kind, usual)), Mutex::new(Vec::new()));
    let next = || seeds.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    if catch_unwind(AssertUnwindSafe(|| history(&server, seed))).is_err() {
                        println!("failed: ROLLCALL_SEED={seed} on {}", kind.name);
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "ROLLCALL_SEED={failed:?}");
}

fn polling_streaming_and_reconciliation_end_in_the_same_directory(kind: &SourceKind) {
    every_seed(kind, USUAL, history);
}

fn never_more_than_the_limit_is_applied_whatever_the_sizes_and_restarts(kind: &SourceKind) {
    every_seed(kind, LIMITED, limited_history);
}

/// One history, from an empty room to an empty room.
fn history(server: &Arc<dyn Server>, seed: u64) {
    let room = Arc::clone(server).room(seed);
    let world = World::on(
        Arc::clone(server),
        &Options {
            source: "batch = { page_rows = 8 }\n\
                     poll = { mode = \"when_needed\", every = \"100ms\", overlap = \"0s\" }"
                .to_owned(),
            connection: Some(room.connection()),
            table: Some(room.table("people")),
            ..Options::default()
        },
    );
    room.sql(&hire_all(PEOPLE));
    let mut past = Past {
        room: &*room,
        world: &world,
        dice: Dice(seed),
        company: Company::new(seed, PEOPLE),
        crashes: 0,
    };
    let daemon = past.go_on();
    past.end(daemon);
    room.remove();
}

/// Waits until the source is in a state, and no gap is open.
fn until(daemon: &Daemon<'_>, state: &str) {
    daemon.until(state, |status| {
        // Whoever asks too often takes the others' time.
        sleep(ASKED_EVERY);
        let source = &status["sources"][0];
        source["state"] == state && source["gaps"].as_array().is_some_and(Vec::is_empty)
    });
}

/// A history that is under way.
struct Past<'a> {
    room: &'a dyn Room,
    world: &'a World,
    dice: Dice,
    company: Company,
    crashes: usize,
}

impl<'a> Past<'a> {
    fn transactions(&mut self, n: u64) -> String {
        (0..n).map(|_| self.company.transaction()).collect()
    }

    fn crash(&mut self, daemon: Daemon<'a>) -> Daemon<'a> {
        daemon.kill9();
        self.crashes += 1;
        // Sometimes the table changes while nobody looks.
        sleep(Duration::from_millis([0, 100][self.dice.below(2) as usize]));
        self.world.start()
    }

    /// Rounds of changes; something happens in the middle of each.
    fn go_on(&mut self) -> Daemon<'a> {
        let (room, world) = (self.room, self.world);
        let mut daemon = world.start();
        let mut may = true;
        for _ in 0..ROUNDS {
            let n = 1 + self.dice.below(12);
            let some = self.transactions(n);
            daemon = std::thread::scope(|scope| {
                let writing = scope.spawn(move || room.sql(&some));
                sleep(Duration::from_millis(self.dice.below(80)));
                let daemon = match self.dice.below(6) {
                    0 | 1 => self.crash(daemon),
                    2 | 3 => {
                        may = !may;
                        room.may_read_log(may);
                        // Whether there is the right is asked when a connection is made.
                        match may {
                            true => daemon,
                            false => self.crash(daemon),
                        }
                    }
                    4 => {
                        // A daemon that was just started may not answer yet.
                        world.rollcall(&["reconcile", "hr", "--detach"]);
                        daemon
                    }
                    _ => {
                        sleep(Duration::from_millis(self.dice.below(400)));
                        daemon
                    }
                };
                writing.join().unwrap();
                daemon
            });
        }
        daemon
    }

    /// Polled to the end, then followed to the end, then read anew.
    fn end(&mut self, daemon: Daemon<'a>) {
        let (room, world) = (self.room, self.world);
        room.may_read_log(false);
        let daemon = self.crash(daemon);
        until(&daemon, "polling");
        self.same(&daemon, "the polled directory to be the table");
        room.may_read_log(true);
        until(&daemon, "streaming");
        let some = self.transactions(8);
        room.sql(&some);
        self.same(&daemon, "the followed directory to be the table");
        let read = world.rollcall(&["reconcile", "hr"]);
        assert!(
            read.status.success(),
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
        self.same(&daemon, "the directory that was read anew to be the table");
        world.assert_verified();
        daemon.stop();
    }

    fn same(&self, daemon: &Daemon<'_>, what: &str) {
        let people = expected(&self.room.people());
        let equal = wait_for(PATIENCE, what, || {
            if self.world.events(self.crashes).fold() == people {
                return Ok(());
            }
            sleep(ASKED_EVERY);
            Err(daemon.process.log())
        });
        if let Err(e) = equal {
            println!("{e}");
            assert_same(&self.world.events(self.crashes).fold(), &people);
            panic!("they became the same too late");
        }
    }
}

/// People leave and get other addresses, in transactions of any size, while the daemon is killed
/// and stopped: as many as the limit allows, and not one more, are taken for true.
fn limited_history(server: &Arc<dyn Server>, seed: u64) {
    let room = Arc::clone(server).room(LIMITED_ROOMS + seed);
    let mut dice = Dice(seed);
    let most = 3 + dice.below(10);
    let limit = format!("{{ max_changes = {most}, max_percent = 100, floor = 0 }}");
    let options = Options {
        limit: Some(limit),
        connection: Some(room.connection()),
        table: Some(room.table("people")),
        ..Options::pages_of(8)
    };
    let world = World::on(Arc::clone(server), &options);
    room.sql(&hire_all(3 * PEOPLE));
    let mut daemon = world.start();
    until(&daemon, "streaming");
    let (mut crashes, mut next, mut asked) = (0, 1, 0);
    while asked <= 2 * most && next < 3 * PEOPLE - 6 {
        let several = 1 + dice.below(5);
        asked += several;
        let changes: String = (next..next + several)
            .map(|id| match dice.below(3) {
                0 => format!("UPDATE people SET email = 'new.{id}@example.com' WHERE id = {id};\n"),
                1 => format!("UPDATE people SET kind = 'contractor' WHERE id = {id};\n"),
                _ => format!("DELETE FROM people WHERE id = {id};\n"),
            })
            .collect();
        next += several;
        match dice.below(2) {
            0 => room.sql(&changes),
            _ => room.sql(&format!("BEGIN;\n{changes}COMMIT;\n")),
        };
        sleep(Duration::from_millis(dice.below(60)));
        match dice.below(5) {
            0 | 1 => {
                daemon.kill9();
                crashes += 1;
                daemon = world.start();
            }
            2 => {
                until(&daemon, "streaming");
                daemon.stop();
                daemon = world.start();
            }
            _ => {}
        }
        let told = taken(&world, crashes);
        assert!(told <= most, "{told} of {most} at ROLLCALL_SEED={seed}");
    }
    // A plan is known from the store, and approved once its source is reached again.
    until(&daemon, "streaming");
    let status = daemon.until("everything to be applied or to wait", |status| {
        sleep(ASKED_EVERY);
        let waiting = status["sources"][0]["plan"]["records"].as_u64();
        waiting.unwrap_or(0) + taken(&world, crashes) == asked
    });
    assert!(taken(&world, crashes) <= most, "ROLLCALL_SEED={seed}");
    let hash = status["sources"][0]["plan"]["hash"].as_str().unwrap();
    let said = world.rollcall(&["plan", "approve", hash]);
    assert!(said.status.success(), "{said:?}");
    daemon.until_delivered();
    let people = expected(&room.people());
    assert_same(&world.events(crashes).fold(), &people);
    daemon.stop();
    room.remove();
}

/// How many people something was taken away from, and everybody was told.
fn taken(world: &World, crashes: usize) -> u64 {
    let events = world.events(crashes);
    let kinds = ["user.deactivated", "user.identifier_changed"];
    kinds
        .iter()
        .map(|kind| events.of_type(kind).len() as u64)
        .sum()
}
