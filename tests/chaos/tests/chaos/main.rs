//! The whole core over a simulated clock, disk, sources and sinks, from one seed.
//!
//! The daemon's own drivers, engine, rules, store and lanes run on one thread over simulated time
//! ([`life`]). The databases ([`server`]) and the destinations ([`destination`]) are ours and fail
//! in every way that the contract knows, and SQLite writes to a disk that tears, refuses and loses
//! (`rollcall-simdisk`). What happens is decided by one seed ([`history`]); after each step
//! everything that must hold is looked at ([`look`]), and at the end everything works again and
//! the directory is the table.
//!
//! `ROLLCALL_SEEDS` says how many histories there are. The seed of one that fails is printed, and
//! `ROLLCALL_SEED` runs it alone and tells everything that happens in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod broken;
mod destination;
mod dice;
mod history;
mod life;
mod look;
mod people;
mod server;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use history::History;

/// Histories that every change must pass.
const USUAL: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives a history through; gives what names everything that happened.
fn try_seed(seed: u64, is_talkative: bool) -> Result<u64, String> {
    let mut history = History::new(seed, is_talkative);
    let outcome = catch_unwind(AssertUnwindSafe(|| history.run()));
    outcome.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

#[test]
fn whatever_fails_the_directory_is_the_table_and_the_events_tell_it() {
    let alone = number("ROLLCALL_SEED");
    let seeds = match alone {
        Some(seed) => seed..seed + 1,
        None => 0..number("ROLLCALL_SEEDS").unwrap_or(USUAL),
    };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    if let Err(why) = try_seed(seed, alone.is_some()) {
                        println!("failed: ROLLCALL_SEED={seed}: {why}");
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "ROLLCALL_SEED={failed:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 7, 23] {
        let once = try_seed(seed, false);
        let again = try_seed(seed, false);
        assert_eq!(once, again, "ROLLCALL_SEED={seed}");
    }
}
