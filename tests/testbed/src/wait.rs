//! Waiting for something that another process does.
//!
//! Polling with a deadline, never a bare sleep: a test is as fast as the thing
//! it waits for, and when the thing does not come the failure names it.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Result, TestbedError};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `done` every 20 ms until it says yes.
///
/// # Errors
/// [`TestbedError::TimedOut`] with the sentence `what` after `timeout`.
pub fn wait_until(
    timeout: Duration,
    what: impl Display,
    mut done: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(timeout, what, || {
        if done() { Ok(()) } else { Err(String::new()) }
    })
}

/// Asks `probe` every 20 ms until it gives a value; the last `Err` text it gave
/// is part of the failure, so that one sees how far it came.
///
/// # Errors
/// [`TestbedError::TimedOut`] with `what` and the last text after `timeout`.
pub fn wait_for<T>(
    timeout: Duration,
    what: impl Display,
    mut probe: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= timeout => {
                return Err(TestbedError::TimedOut {
                    what: what.to_string(),
                    seconds: start.elapsed().as_secs_f64(),
                    last: if last.is_empty() {
                        last
                    } else {
                        format!(": {last}")
                    },
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
