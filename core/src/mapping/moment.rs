//! When a column says that something was changed.
//!
//! A time is as exact as it is written: a day is a whole day, a second without a fraction is
//! the whole second. A column that keeps more than it shows (zeros at the end of a fraction
//! are not written) is then taken for less exact than it is, which asks a person once more
//! than needed and never lets the older value win.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::document::Moment;

const DAY_US: u64 = 86_400_000_000;
const SECOND_US: u64 = 1_000_000;

/// From the canonical text of a day or a time stamp; without a time zone it is UTC.
pub(super) fn parse(text: &str) -> Option<Moment> {
    let local = text.strip_suffix('Z').unwrap_or(text);
    let (when, span_us) = match local.split_once('T') {
        None => (
            local
                .parse::<Date>()
                .ok()?
                .to_datetime(jiff::civil::Time::midnight()),
            DAY_US,
        ),
        Some((_, time)) => {
            let digits = time.split_once('.').map_or(0, |(_, f)| f.len());
            let tenths = 10u64.checked_pow(u32::try_from(digits).ok()?)?;
            (local.parse::<DateTime>().ok()?, (SECOND_US / tenths).max(1))
        }
    };
    let at = TimeZone::UTC.to_timestamp(when).ok()?;
    Some(Moment {
        at_us: at.as_microsecond(),
        span_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_as_exact_as_it_is_written() {
        let cases = [
            ("1970-01-02", Some((DAY_US as i64, DAY_US))),
            ("1970-01-01T00:00:01", Some((1_000_000, SECOND_US))),
            ("1970-01-01T00:00:01Z", Some((1_000_000, SECOND_US))),
            ("1970-01-01T00:00:01.25", Some((1_250_000, 10_000))),
            ("1970-01-01T00:00:01.000001Z", Some((1_000_001, 1))),
            ("1970-01-01T00:00:01.0000019Z", Some((1_000_001, 1))),
            ("1969-12-31T23:59:59Z", Some((-1_000_000, SECOND_US))),
            ("0000-00-00", None),
            ("infinity", None),
            ("", None),
            ("12:00:00", None),
        ];
        for (text, expected) in cases {
            let found = parse(text).map(|m| (m.at_us, m.span_us));
            assert_eq!(found, expected, "{text}");
        }
    }
}
