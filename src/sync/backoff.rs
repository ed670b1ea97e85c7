//! Pauses between attempts: ever longer, with jitter, so that many sources or sinks that lost
//! the same server do not knock together.

use std::time::Duration;

/// The longest pause where the configuration says nothing else.
pub const LONGEST: Duration = Duration::from_secs(30);

const FIRST: Duration = Duration::from_millis(200);

/// Ever longer pauses.
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses up to the longest one.
    pub fn new(longest: Duration) -> Backoff {
        Backoff {
            next: FIRST.min(longest),
            longest,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let mut random = [0u8; 1];
        let share = match getrandom::fill(&mut random) {
            Ok(()) => u32::from(random[0]),
            Err(_) => 128,
        };
        let wait = self.next / 2 + self.next / 512 * share;
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// The longest pause: for what only an operator can mend.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// It worked: begin with short pauses again.
    pub fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }
}
