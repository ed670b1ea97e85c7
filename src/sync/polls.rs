//! When a table that is polled is read again, and how much of it.
//!
//! Without a change column each poll reads every row. With one, a poll reads the rows whose
//! column is not below a value that was its greatest at some earlier moment, the *mark*. Why
//! nothing is left out: let a change get its column's value at one moment and be committed at
//! most the overlap later. The first poll behind the commit is the first that can see it, and
//! the poll before that one began before the commit. So the value was given less than the
//! overlap before that earlier poll began, and a mark that was taken at least the overlap
//! before it is not above the value. Such a mark is the only one that is used; while there is
//! none, which is so for the first polls, every row is read.
//!
//! A poll counts only when it was applied to its end. A column that some changes do not raise
//! breaks the argument, so every row is read from time to time all the same.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use rollcall_contract::Since;

use crate::config::PollConfig;

/// What a poll reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Every row.
    Full,
    /// The rows that have changed since.
    Changed(Since),
}

/// How far a change column had come, and when.
type Mark = (Instant, String);

struct UnderWay {
    began: Instant,
    mark: Option<Mark>,
    is_full: bool,
}

/// The polls of one source.
pub struct Polls {
    config: PollConfig,
    /// Of polls that were applied, oldest first.
    marks: VecDeque<Mark>,
    /// When the last poll that was applied began.
    last: Option<Instant>,
    /// The same of those that read every row.
    last_full: Option<Instant>,
    under_way: Option<UnderWay>,
}

impl Polls {
    /// Nothing was polled yet.
    pub fn new(config: PollConfig) -> Polls {
        Polls {
            config,
            marks: VecDeque::new(),
            last: None,
            last_full: None,
            under_way: None,
        }
    }

    /// What was configured.
    pub fn config(&self) -> &PollConfig {
        &self.config
    }

    /// The log was followed meanwhile: what is known of earlier polls says nothing now.
    pub fn forget(&mut self) {
        *self = Polls::new(self.config.clone());
    }

    /// How long until the next poll is due, at `now`.
    pub fn pause(&self, now: Instant) -> Duration {
        let due = self.last.map_or(now, |last| last + self.config.every);
        due.saturating_duration_since(now)
    }

    /// Whether every row was read at least once.
    pub fn has_read_all(&self) -> bool {
        self.last_full.is_some()
    }

    /// When the last poll that read every row, and was applied, began.
    pub fn whole_began(&self) -> Option<Instant> {
        self.last_full
    }

    /// A poll begins; `mark` was read just before. Every row is read when somebody asks for
    /// it, or when it is due.
    pub fn begin(&mut self, now: Instant, mark: Option<String>, wants_full: bool) -> Poll {
        let since = self
            .since()
            .filter(|_| !wants_full && !self.is_full_due(now));
        self.under_way = Some(UnderWay {
            began: now,
            mark: mark.map(|mark| (now, mark)),
            is_full: since.is_none(),
        });
        since.map_or(Poll::Full, Poll::Changed)
    }

    /// The poll that is under way was applied to its end.
    pub fn end(&mut self) {
        let Some(done) = self.under_way.take() else {
            return;
        };
        self.last = Some(done.began);
        if done.is_full {
            self.last_full = Some(done.began);
        }
        self.marks.extend(done.mark);
        // What lies before the mark that is used next is never used again.
        while self
            .marks
            .get(1)
            .is_some_and(|next| self.is_old_enough(next))
        {
            self.marks.pop_front();
        }
    }

    fn is_full_due(&self, now: Instant) -> bool {
        self.last_full
            .is_none_or(|last| now.saturating_duration_since(last) >= self.config.full_every)
    }

    fn since(&self) -> Option<Since> {
        let column = self.config.change_column.clone()?;
        let mark = self
            .marks
            .iter()
            .rev()
            .find(|mark| self.is_old_enough(mark));
        mark.map(|(_, value)| Since {
            column,
            value: value.clone(),
        })
    }

    fn is_old_enough(&self, mark: &Mark) -> bool {
        self.last.is_some_and(|last| {
            last.saturating_duration_since(mark.0) >= self.config.overlap && last >= mark.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PollMode;

    fn polls(column: Option<&str>, overlap_s: u64) -> Polls {
        Polls::new(PollConfig {
            mode: PollMode::Always,
            every: Duration::from_secs(60),
            change_column: column.map(str::to_owned),
            full_every: Duration::from_secs(3600),
            overlap: Duration::from_secs(overlap_s),
        })
    }

    fn changed(value: &str) -> Poll {
        Poll::Changed(Since {
            column: "updated_at".to_owned(),
            value: value.to_owned(),
        })
    }

    #[test]
    fn without_a_change_column_every_poll_reads_every_row() {
        let (mut polls, start) = (polls(None, 0), Instant::now());
        assert_eq!(polls.pause(start), Duration::ZERO);
        for minute in 0..3 {
            let now = start + Duration::from_secs(60 * minute);
            assert_eq!(polls.begin(now, None, false), Poll::Full);
            polls.end();
            assert_eq!(polls.pause(now), Duration::from_secs(60));
        }
    }

    #[test]
    fn a_mark_counts_when_it_is_older_than_the_poll_before_by_the_overlap() {
        let (mut polls, start) = (polls(Some("updated_at"), 90), Instant::now());
        let mut poll = |minute: u64, mark: &str| {
            let now = start + Duration::from_secs(60 * minute);
            let poll = polls.begin(now, Some(mark.to_owned()), false);
            polls.end();
            poll
        };
        // The poll before the third one began 60 s behind the first mark.
        for (minute, mark) in [(0, "a"), (1, "b"), (2, "c")] {
            assert_eq!(poll(minute, mark), Poll::Full, "{minute}");
        }
        assert_eq!(poll(3, "d"), changed("a"));
        assert_eq!(poll(4, "e"), changed("b"));
        assert_eq!(poll(5, "f"), changed("c"));
        assert_eq!(poll(60, "g"), changed("d"));
        assert_eq!(poll(62, "h"), Poll::Full, "an hour is over");
        assert_eq!(poll(63, "i"), changed("g"));
    }

    #[test]
    fn a_poll_that_was_cut_does_not_count() {
        let (mut polls, start) = (polls(Some("updated_at"), 0), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(polls.begin(at(0), Some("a".to_owned()), false), Poll::Full);
        assert_eq!(polls.begin(at(1), Some("b".to_owned()), false), Poll::Full);
        polls.end();
        assert_eq!(
            polls.begin(at(2), Some("c".to_owned()), false),
            changed("b")
        );
        // Cut: the next one reads what it would have read.
        assert_eq!(
            polls.begin(at(3), Some("d".to_owned()), false),
            changed("b")
        );
        polls.end();
        assert_eq!(polls.begin(at(4), None, true), Poll::Full, "asked for");
        polls.forget();
        assert!(!polls.has_read_all());
        assert_eq!(polls.begin(at(5), None, false), Poll::Full);
    }
}
