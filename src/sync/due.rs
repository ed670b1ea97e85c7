//! What comes when a time is over: the end of a grace, a deletion, a purge, the end of a pin.
//!
//! The engine only asks: each record concerned is read once more, as one that is to be
//! completed ([`rollcall_core::plan::Plan::reread`]), and its absence there is what moves it
//! on (`rollcall_core::directory`, `leave`). The question is stored, so it outlives a crash
//! and a source that is away. A reminder goes when its user shows that nothing is due; until
//! then it is looked at again from time to time, whatever became of the question.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hashbrown::HashMap;
use rollcall_core::directory::LeaverRules;
use rollcall_core::id::{SourceId, UserRow};
use rollcall_core::plan::{Due, DueKind};
use rollcall_store::{Readers, StoreError};

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;

/// So many reminders of a kind are looked at in one go.
const AT_ONCE: usize = 500;

/// Those that came to nothing are looked at again after so long.
const AGAIN_US: i64 = 600_000_000;

/// Before every reminder.
const START: (i64, UserRow) = (i64::MIN, UserRow(i64::MIN));

/// When the engine is to look at what is due: microseconds since the Unix epoch.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<AtomicI64>);

impl Alarm {
    /// Whether it is time; the engine sets it anew when it has looked.
    pub fn rings(&self) -> bool {
        let is_time = now_us() >= self.0.load(Ordering::Relaxed);
        if is_time {
            self.0.store(i64::MAX, Ordering::Relaxed);
        }
        is_time
    }

    fn no_later_than(&self, at_us: i64) {
        self.0.fetch_min(at_us, Ordering::Relaxed);
    }
}

/// How far the reminders of a source are looked at.
#[derive(Debug)]
struct Sweep {
    source: SourceId,
    kind: DueKind,
    delay_us: i64,
    behind: (i64, UserRow),
    again_us: i64,
}

/// Everything that is due, or will be.
#[derive(Debug)]
pub(super) struct DueBook {
    alarm: Alarm,
    sweeps: Vec<Sweep>,
}

impl Sweep {
    /// The next reminders whose time is over, and when to look again.
    fn fallen(&mut self, readers: &Readers, now: i64) -> Result<(Vec<Due>, i64), StoreError> {
        if now >= self.again_us {
            (self.behind, self.again_us) = (START, now + AGAIN_US);
        }
        let mut due = readers.due_after(self.source, self.kind, self.behind, AT_ONCE)?;
        let whole = due.len() < AT_ONCE;
        let at = |due: &Due| due.since_us.saturating_add(self.delay_us);
        let ahead = due.iter().map(at).find(|at| *at > now);
        due.retain(|due| at(due) <= now);
        if let Some(last) = due.last() {
            self.behind = (last.since_us, last.user);
        }
        let next = match ahead {
            Some(at) => at.min(self.again_us),
            None if whole => self.again_us,
            None => now,
        };
        Ok((due, next))
    }
}

impl DueBook {
    /// Of sources with these rules.
    pub(super) fn new(sources: &HashMap<SourceId, LeaverRules>) -> DueBook {
        let sweeps = sources.iter().flat_map(|(&source, rules)| {
            DueKind::OF_SOURCES.into_iter().filter_map(move |kind| {
                Some(Sweep {
                    source,
                    kind,
                    delay_us: rules.delay_us(kind)?,
                    behind: START,
                    again_us: 0,
                })
            })
        });
        let pins = Sweep {
            source: SourceId::OWN,
            kind: DueKind::Pin,
            delay_us: 0,
            behind: START,
            again_us: 0,
        };
        DueBook {
            alarm: Alarm::default(),
            sweeps: sweeps.chain([pins]).collect(),
        }
    }

    /// Rings when there is something to look at.
    pub(super) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Reminders were stored.
    pub(super) fn stored(&self, reminders: &[(Due, bool)]) {
        for (due, _) in reminders.iter().filter(|(_, is_due)| *is_due) {
            let of = |s: &&Sweep| s.source == due.source && s.kind == due.kind;
            if let Some(sweep) = self.sweeps.iter().find(of) {
                let at = due.since_us.saturating_add(sweep.delay_us);
                self.alarm.no_later_than(at);
            }
        }
    }
}

impl Engine {
    /// Asks for every record of which something is due.
    pub(super) fn fall_due(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let now = now_us();
        for at in 0..self.due.sweeps.len() {
            let (due, next) = self.due.sweeps[at].fallen(&self.readers, now)?;
            self.due.alarm.no_later_than(next);
            let Some(first) = due.first() else { continue };
            if first.kind == DueKind::Pin {
                self.end_pins(&due, now, pending)?;
                continue;
            }
            let run = self.stream_run(first.source, now)?;
            let directory = &mut self.directory;
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            for due in &due {
                resolver.fall_due(due).map_err(failed)?;
            }
            resolver.finish().map_err(failed)?;
            let track = self.sources.get(&first.source);
            let position = track.map(|t| t.position.clone()).unwrap_or_default();
            self.count(first.source, false, &position, pending);
        }
        Ok(())
    }
}
