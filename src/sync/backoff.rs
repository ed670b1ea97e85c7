//! Pauses between attempts: ever longer, each by chance anything up to its length, so that many
//! sources or sinks that lost the same server do not knock together.

use std::time::Duration;

use super::clock;

/// The longest pause where the configuration says nothing else.
pub const LONGEST: Duration = Duration::from_secs(30);

const FIRST: Duration = Duration::from_millis(200);

/// No pause is shorter.
const SHORTEST: Duration = Duration::from_millis(10);

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
        let wait = Backoff::jitter(self.next);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Some part of a pause, by chance.
    pub fn jitter(pause: Duration) -> Duration {
        let share = clock::chance().map_or(u16::MAX / 2, |random| random as u16);
        let wait = pause.mul_f64(f64::from(share) / f64::from(u16::MAX));
        wait.max(SHORTEST).min(pause)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew() {
        let longest = Duration::from_secs(2);
        let mut backoff = Backoff::new(longest);
        let mut at_most = FIRST;
        for _ in 0..8 {
            let pause = backoff.pause();
            assert!(
                (SHORTEST..=at_most).contains(&pause),
                "{pause:?} of {at_most:?}"
            );
            at_most = (at_most * 2).min(longest);
        }
        let many: Vec<Duration> = (0..200).map(|_| backoff.pause()).collect();
        assert!(many.iter().any(|p| *p < longest / 4) && many.iter().any(|p| *p > longest / 2));
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
