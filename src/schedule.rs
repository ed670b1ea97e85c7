//! When a source is due to be reconciled: pure arithmetic over instants and a time zone.
//!
//! A schedule is a function from an instant to the next one behind it, so "what was missed"
//! is no list: whatever was due since the last reconciliation began is served by the next
//! one that begins, however many times that were. A daemon that was down over three nights
//! therefore catches up once.
//!
//! Where a clock is put forward, a fixed time that does not exist that day falls on the first
//! instant behind the hole; where it is put back, a fixed time that comes twice counts once.
//! Times that repeat within each hour follow the instants, so none of them is left out.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::xxh3_64;

/// Behind the end of a continuous reconciliation the next one begins after so long.
const CONTINUOUS_PAUSE_US: i64 = 1_000_000;

/// How often.
#[derive(Clone, Debug, PartialEq)]
enum Rhythm {
    Manual,
    Continuous,
    At(Box<Cron>),
}

/// When a source is reconciled without anyone asking.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    rhythm: Rhythm,
    zone: TimeZone,
    jitter: Duration,
}

impl Schedule {
    /// Reads `manual`, `hourly`, `daily HH:MM`, `continuous`, or a cron expression of five
    /// fields, in a time zone. A source is late by its own part of `jitter`, so that many do
    /// not begin at once. None when the text is none of these.
    pub fn parse(text: &str, zone: TimeZone, jitter: Duration) -> Option<Schedule> {
        let rhythm = match text {
            "manual" => Rhythm::Manual,
            "continuous" => Rhythm::Continuous,
            "hourly" => cron("0 * * * *")?,
            _ => match text.strip_prefix("daily ") {
                Some(time) => {
                    let (hour, minute) = time.split_once(':')?;
                    let number = |part: &str, below: u8| {
                        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
                        let number = part.parse::<u8>().ok();
                        number.filter(|n| digits && *n < below)
                    };
                    let (hour, minute) = (number(hour, 24)?, number(minute, 60)?);
                    cron(&format!("{minute} {hour} * * *"))?
                }
                None => cron(text)?,
            },
        };
        Some(Schedule {
            text: text.to_owned(),
            rhythm,
            zone,
            jitter,
        })
    }

    /// Whether one reconciliation follows the other.
    pub fn is_continuous(&self) -> bool {
        self.rhythm == Rhythm::Continuous
    }

    /// The first instant behind `served_us` at which `source` is due, in microseconds since
    /// the Unix epoch; none when nothing is ever due.
    pub fn due_after(&self, served_us: i64, source: &str) -> Option<i64> {
        let cron = match &self.rhythm {
            Rhythm::Manual => return None,
            Rhythm::Continuous => return served_us.checked_add(CONTINUOUS_PAUSE_US),
            Rhythm::At(cron) => cron,
        };
        let served = Timestamp::from_microsecond(served_us).ok()?;
        // What began late by its jitter has served the time that it was late for.
        let from = served.to_zoned(self.zone.clone());
        let next = cron.find_next_occurrence(&from, false).ok()?;
        let due_us = next.timestamp().as_microsecond();
        due_us.checked_add(self.late_by_us(due_us, source))
    }

    /// The part of the jitter that a source has at one time: the same for the same two.
    fn late_by_us(&self, due_us: i64, source: &str) -> i64 {
        let jitter_us = u64::try_from(self.jitter.as_micros()).unwrap_or(0);
        let hash = xxh3_64(format!("{due_us} {source}").as_bytes());
        let late = hash.checked_rem(jitter_us).unwrap_or(0);
        i64::try_from(late).unwrap_or(0)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A cron expression of five fields that some instant fits.
fn cron(text: &str) -> Option<Rhythm> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(text).ok()?;
    let epoch = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    cron.find_next_occurrence(&epoch, false).ok()?;
    Some(Rhythm::At(Box::new(cron)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::parse(text, TimeZone::get(zone).unwrap(), Duration::ZERO).unwrap()
    }

    /// The times behind an instant, in local time.
    fn next(text: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
        let schedule = schedule(text, zone);
        let mut at = from.parse::<Timestamp>().unwrap().as_microsecond();
        let mut all = Vec::new();
        for _ in 0..n {
            at = schedule.due_after(at, "hr").unwrap();
            let at = Timestamp::from_microsecond(at).unwrap();
            let local = at.to_zoned(TimeZone::get(zone).unwrap());
            all.push(local.strftime("%m-%d %H:%M %:z").to_string());
        }
        all
    }

    #[test]
    fn every_rhythm_has_its_times() {
        let from = "2026-01-31T22:59:59Z";
        let table: &[(&str, [&str; 2])] = &[
            ("hourly", ["01-31 23:00 +00:00", "02-01 00:00 +00:00"]),
            ("daily 03:00", ["02-01 03:00 +00:00", "02-02 03:00 +00:00"]),
            ("*/20 * * * *", ["01-31 23:00 +00:00", "01-31 23:20 +00:00"]),
            ("30 6 * * MON", ["02-02 06:30 +00:00", "02-09 06:30 +00:00"]),
            ("0 0 1 * *", ["02-01 00:00 +00:00", "03-01 00:00 +00:00"]),
        ];
        for (text, times) in table {
            assert_eq!(next(text, "UTC", from, 2), times, "{text}");
        }
    }

    #[test]
    fn a_time_that_the_clock_leaves_out_comes_right_behind_the_hole() {
        // 29 March 2026, 02:00 to 03:00 does not exist in Berlin.
        assert_eq!(
            next("daily 02:30", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            [
                "03-28 02:30 +01:00",
                "03-29 03:00 +02:00",
                "03-30 02:30 +02:00"
            ]
        );
        assert_eq!(
            next("hourly", "Europe/Berlin", "2026-03-29T00:30:00Z", 2),
            ["03-29 03:00 +02:00", "03-29 04:00 +02:00"]
        );
    }

    #[test]
    fn a_time_that_the_clock_repeats_comes_once_and_hours_come_each() {
        // 25 October 2026, 02:00 to 03:00 comes twice in Berlin.
        assert_eq!(
            next("daily 02:30", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]
        );
        assert_eq!(
            next("hourly", "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
            [
                "10-25 02:00 +02:00",
                "10-25 02:00 +01:00",
                "10-25 03:00 +01:00"
            ]
        );
    }

    #[test]
    fn what_is_no_schedule_is_none() {
        for text in [
            "",
            "daily",
            "daily 3:00",
            "daily 24:00",
            "daily 03:60",
            "weekly",
            "* * * *",
            "0 0 30 2 *",
            "61 * * * *",
            "* * * * * *",
            "daily +3:00",
            "@daily x",
        ] {
            let parsed = Schedule::parse(text, TimeZone::UTC, Duration::ZERO);
            assert!(parsed.is_none(), "{text}");
        }
    }

    #[test]
    fn nothing_is_due_by_itself_when_it_is_manual_and_something_always_when_continuous() {
        assert_eq!(schedule("manual", "UTC").due_after(0, "hr"), None);
        assert_eq!(
            schedule("continuous", "UTC").due_after(5, "hr"),
            Some(1_000_005)
        );
    }

    proptest! {
        #[test]
        fn the_next_time_lies_ahead_and_however_much_was_missed_is_one_time(
            minute in 0i64..60 * 24 * 366 * 3,
            missed_hours in 1i64..24 * 30,
            at in 0usize..4,
            jitter in 0u64..600,
        ) {
            let text = ["hourly", "daily 02:30", "*/7 * * * *", "15 2 * * SUN"][at];
            let zone = TimeZone::get("America/New_York").unwrap();
            let jitter = Duration::from_secs(jitter);
            let schedule = Schedule::parse(text, zone, jitter).unwrap();
            let served = 1_735_689_600_000_000 + minute * 60_000_000;
            let due = schedule.due_after(served, "hr").unwrap();
            prop_assert!(due > served);
            prop_assert_eq!(schedule.due_after(served, "hr"), Some(due));
            // The daemon comes back later: what it does then serves everything before.
            let back = due + missed_hours * 3_600_000_000;
            prop_assert!(schedule.due_after(back, "hr").unwrap() > back);
        }
    }
}
