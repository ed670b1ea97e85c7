//! The wall clock, in the one unit that is stored, and chance: what a run depends on besides
//! what it is given.
//!
//! A thread may be given a clock and a seed of its own ([`simulate`]). All that runs on it then
//! sees a wall clock that goes with the runtime's time, and draws the same numbers each time.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Simulated {
    /// What the wall clock showed, and when.
    shown_us: i64,
    at: Instant,
    /// The last answer. Time stands still while tasks work, and no two decisions of a daemon fall
    /// into one microsecond, since each is written to a disk.
    last_us: i64,
    seed: u64,
    drawn: u64,
}

/// From here on this thread's wall clock shows that time, and goes on with the runtime's; what is
/// left to chance follows from the seed.
pub fn simulate(shown_us: i64, seed: u64) {
    SIMULATED.set(Some(Simulated {
        shown_us,
        at: Instant::now(),
        last_us: shown_us,
        seed,
        drawn: 0,
    }));
}

/// Microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    let us = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match SIMULATED.get() {
        Some(mut clock) => {
            let shown = clock.shown_us + us(clock.at.elapsed());
            clock.last_us = shown.max(clock.last_us + 1);
            SIMULATED.set(Some(clock));
            clock.last_us
        }
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, us),
    }
}

/// A number by chance; none when the system has no random bytes.
pub fn chance() -> Option<u64> {
    match SIMULATED.get() {
        Some(mut clock) => {
            clock.drawn += 1;
            SIMULATED.set(Some(clock));
            Some(xxh3_64_with_seed(&clock.drawn.to_le_bytes(), clock.seed))
        }
        None => getrandom::u64().ok(),
    }
}
