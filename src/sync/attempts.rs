//! How a source that fails is tried again.
//!
//! Failures form a series: it begins with the first one, and ends when a connection has held for
//! longer than the longest pause. A server that takes a connection and cuts it at once is
//! therefore failing all the while. Within a series pauses grow. What only an operator can mend is tried at the
//! longest pause. What time should have mended, and has not for `quarantine_after`, is
//! quarantined: it costs its neighbours next to nothing from then on, and leaves by itself when a
//! connection holds.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;

/// Between two attempts in quarantine lie up to so many of the longest pauses, and half of that
/// at least.
const QUARANTINE_PAUSES: u32 = 10;

/// So many failures make a series long: a single attempt may itself take its time.
const QUARANTINE_FAILURES: u32 = 3;

/// What becomes of a source that has failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Time mends it.
    Waiting,
    /// An operator mends it.
    Refused,
    /// Time has not mended it: so often, for so long.
    Quarantined(u32, Duration),
}

/// The attempts at one source.
pub struct Attempts {
    delay: Backoff,
    longest: Duration,
    quarantine_after: Duration,
    /// When the series of failures began.
    since: Option<Instant>,
    failures: u32,
    /// Since when it is connected.
    connected: Option<Instant>,
}

impl Attempts {
    /// With this longest pause.
    pub fn new(longest: Duration, quarantine_after: Duration) -> Attempts {
        Attempts {
            delay: Backoff::new(longest),
            longest,
            quarantine_after,
            since: None,
            failures: 0,
            connected: None,
        }
    }

    /// It is connected.
    pub fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// It has failed; gives what that means, and the pause before the next attempt.
    pub fn failed(&mut self, now: Instant, is_transient: bool) -> (Verdict, Duration) {
        let held = self.connected.take();
        if held.is_some_and(|since| now.saturating_duration_since(since) > self.longest) {
            self.delay.reset();
            (self.since, self.failures) = (None, 0);
        }
        self.failures += 1;
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(now));
        if !is_transient {
            return (Verdict::Refused, self.longest);
        }
        if lasts >= self.quarantine_after && self.failures >= QUARANTINE_FAILURES {
            let half = self.longest * QUARANTINE_PAUSES / 2;
            let pause = half + Backoff::jitter(half);
            return (Verdict::Quarantined(self.failures, lasts), pause);
        }
        (Verdict::Waiting, self.delay.pause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    fn attempts() -> Attempts {
        Attempts::new(LONGEST, Duration::from_secs(60))
    }

    #[test]
    fn what_time_does_not_mend_is_quarantined_and_a_connection_that_holds_ends_it() {
        let (mut attempts, start) = (attempts(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for s in [0, 20, 59] {
            let (verdict, pause) = attempts.failed(at(s), true);
            assert_eq!(verdict, Verdict::Waiting);
            assert!(pause <= LONGEST);
        }
        let (verdict, pause) = attempts.failed(at(60), true);
        let minute = Duration::from_secs(60);
        assert_eq!(verdict, Verdict::Quarantined(4, minute));
        assert!((5 * LONGEST..=10 * LONGEST).contains(&pause), "{pause:?}");
        // It is taken and cut at once: that is no success.
        attempts.connected(at(90));
        let (verdict, _) = attempts.failed(at(91), true);
        assert!(matches!(verdict, Verdict::Quarantined(5, _)));
        attempts.connected(at(100));
        assert_eq!(attempts.failed(at(111), true).0, Verdict::Waiting);
    }

    #[test]
    fn what_an_operator_has_to_mend_is_refused_however_long_it_lasts() {
        let (mut attempts, start) = (attempts(), Instant::now());
        for s in [0, 100, 10_000] {
            let failed = attempts.failed(start + Duration::from_secs(s), false);
            assert_eq!(failed, (Verdict::Refused, LONGEST));
        }
    }

    #[test]
    fn few_attempts_that_take_long_are_no_reason_for_a_quarantine() {
        let (mut attempts, start) = (attempts(), Instant::now());
        let day = Duration::from_secs(86_400);
        assert_eq!(attempts.failed(start, true).0, Verdict::Waiting);
        assert_eq!(attempts.failed(start + day, true).0, Verdict::Waiting);
        let third = attempts.failed(start + 2 * day, true).0;
        assert_eq!(third, Verdict::Quarantined(3, 2 * day));
    }
}
