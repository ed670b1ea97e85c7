//! Pauses between attempts: ever longer, with jitter, so that many sources or sinks that lost
//! the same server do not knock together.

use std::time::Duration;

/// Ever longer pauses.
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            next: Backoff::FIRST,
        }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    /// The longest pause, also used where only an operator can mend things.
    pub const SLOWEST: Duration = Duration::from_secs(30);

    /// The next pause.
    #[allow(clippy::should_implement_trait, reason = "a pause is not an item")]
    pub fn next(&mut self) -> Duration {
        let mut random = [0u8; 1];
        let share = match getrandom::fill(&mut random) {
            Ok(()) => u32::from(random[0]),
            Err(_) => 128,
        };
        let wait = self.next / 2 + self.next / 512 * share;
        self.next = (self.next * 2).min(Backoff::SLOWEST);
        wait
    }

    /// It worked: begin with short pauses again.
    pub fn reset(&mut self) {
        self.next = Backoff::FIRST;
    }
}
