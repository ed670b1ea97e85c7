//! When a rolling proof looks at its next slice, and how large that is.
//!
//! A round is spread evenly over the period: the n-th of m slices is due at n/m of it, counted
//! from the round's beginning, so a slice that came late does not move those behind it. How many
//! there will be is told by the rows that are expected. Where these were too few, the slices
//! left share what is left of the period. A table that fits into one slice is looked at
//! at once, and again a period later. However late a proof is, slices keep their distance
//! ([`SHORTEST`]); they are made larger, up to a page, when the period is too short for small
//! ones.

use std::time::Duration;

use rollcall_store::ProofRow;

/// The shortest time between two slices.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// Rows of a slice, unless the period is too short for so few.
const SLICE_ROWS: u64 = 1_000;

/// A source is first looked at after a tenth of the period, and after so long at most.
const FIRST: Duration = Duration::from_secs(3600);

/// What differs is looked at again after a tenth of the period, and after so long at most.
const AGAIN: Duration = Duration::from_secs(60);

/// The pace of one source's proof.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// In so long a round is to be through.
    pub period: Duration,
    /// The most rows of a page.
    pub page_rows: u64,
}

impl Pacing {
    /// Rows of a slice, when a round is expected to have so many.
    pub fn slice_rows(&self, expected: u64) -> u64 {
        let slices = (self.period.as_micros() / SHORTEST.as_micros()).max(1);
        let needed = expected.div_ceil(u64::try_from(slices).unwrap_or(u64::MAX));
        needed.max(SLICE_ROWS).min(self.page_rows)
    }

    /// When the next slice is due, microseconds since the Unix epoch.
    pub fn due_us(&self, proof: &ProofRow, expected: u64) -> i64 {
        let period_us = i64::try_from(self.period.as_micros()).unwrap_or(i64::MAX);
        let passed_us = match (proof.run, proof.proved_us) {
            (None, None) => i64::try_from(self.first().as_micros()).unwrap_or(i64::MAX),
            (None, Some(_)) => period_us,
            (Some(_), _) => {
                let slices = expected / self.slice_rows(expected) + 1;
                let slices = slices.max(proof.slices.saturating_add(1));
                let passed = i128::from(period_us) * i128::from(proof.slices) / i128::from(slices);
                i64::try_from(passed).unwrap_or(i64::MAX)
            }
        };
        proof.began_us.saturating_add(passed_us)
    }

    /// How long after its first load a source is left alone: that has just read everything.
    fn first(&self) -> Duration {
        (self.period / 10).min(FIRST)
    }

    /// How long what differs is left alone before it is looked at again.
    pub fn again(&self) -> Duration {
        (self.period / 10).clamp(SHORTEST, AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use rollcall_core::id::{RunId, SourceId};
    use rollcall_store::Walk;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn pacing(period: Duration) -> Pacing {
        Pacing {
            period,
            page_rows: 10_000,
        }
    }

    /// A proof whose round began at 1 s.
    fn proof(run: Option<u64>, slices: u64) -> ProofRow {
        ProofRow {
            source: SourceId(1),
            since_us: 0,
            proved_us: None,
            began_us: 1_000_000,
            run: run.map(RunId),
            slices,
            read: Walk::Begins,
            known: Walk::Begins,
            rows: 0,
            expected_rows: 0,
            drifted: 0,
            repaired: 0,
        }
    }

    fn due_s(pacing: Pacing, proof: &ProofRow, expected: u64) -> i64 {
        pacing.due_us(proof, expected) / 1_000_000 - 1
    }

    #[test]
    fn a_small_table_is_one_slice_a_period_and_the_first_one_comes_soon() {
        assert_eq!(due_s(pacing(24 * 7 * HOUR), &proof(None, 0), 300), 3600);
        let pacing = pacing(HOUR);
        assert_eq!(due_s(pacing, &proof(None, 0), 300), 360);
        let proved = ProofRow {
            proved_us: Some(2_000_000),
            ..proof(None, 1)
        };
        assert_eq!(due_s(pacing, &proved, 300), 3600);
    }

    #[test]
    fn slices_are_spread_evenly_whatever_the_table_s_size() {
        let pacing = pacing(HOUR);
        for (rows, slices) in [(9_999, 10), (99_999, 100), (3_599_999, 3600)] {
            for n in [1, 2, slices / 2, slices - 1] {
                let due = due_s(pacing, &proof(Some(1), n), rows);
                assert_eq!(due, (3600 * n / slices) as i64, "{n} of {slices}");
            }
        }
    }

    #[test]
    fn slices_grow_up_to_a_page_when_the_period_is_short() {
        assert_eq!(pacing(HOUR).slice_rows(0), 1_000);
        assert_eq!(pacing(HOUR).slice_rows(3_600_000), 1_000);
        assert_eq!(pacing(HOUR).slice_rows(7_200_000), 2_000);
        assert_eq!(pacing(HOUR).slice_rows(u64::MAX), 10_000);
        assert_eq!(pacing(Duration::from_millis(5)).slice_rows(5_000), 5_000);
        let small = Pacing {
            page_rows: 20,
            ..pacing(HOUR)
        };
        assert_eq!(small.slice_rows(1_000_000), 20);
    }

    #[test]
    fn slices_that_nobody_expected_share_what_is_left_of_the_period() {
        let pacing = pacing(HOUR);
        let due: Vec<i64> = (9..200)
            .map(|n| due_s(pacing, &proof(Some(1), n), 9_999))
            .collect();
        assert!(due.is_sorted());
        assert!(due.iter().all(|s| (3240..3600).contains(s)), "{due:?}");
    }

    #[test]
    fn what_differs_is_looked_at_again_soon_and_not_all_the_time() {
        assert_eq!(pacing(HOUR).again(), AGAIN);
        assert_eq!(
            pacing(Duration::from_secs(100)).again(),
            Duration::from_secs(10)
        );
        assert_eq!(pacing(Duration::from_secs(2)).again(), SHORTEST);
    }
}
