//! A plan that is to be applied, from the driver's side: its records are read again by key,
//! in the page window, and handed to the engine all at once.
//!
//! A reconciliation and a plan exclude each other: what one of them has compared would be
//! changed by the other. Whichever comes second gives way, a plan by being refused.

use std::collections::VecDeque;

use rollcall_contract::Key;
use rollcall_core::id::SourceId;
use tokio::sync::oneshot;

use super::planned::{Answered, Planned, PlannedPage, PlannedWork};

/// At most so many keys are read again in one request.
const KEYS_PER_READ: usize = 1000;

/// At most so many pages wait for their windows.
const PAGES_AHEAD: usize = 3;

/// Records of one page of the simulation.
type Lot = (u32, Vec<Key>);

/// The plan that a driver is reading for.
pub struct Planning {
    plan: Planned,
    todo: VecDeque<Lot>,
    pages: Vec<PlannedPage>,
    in_flight: usize,
    reply: oneshot::Sender<Answered>,
}

impl Planning {
    /// Begins with nothing read.
    pub fn new(plan: Planned, reply: oneshot::Sender<Answered>) -> Planning {
        let mut todo = VecDeque::new();
        for same in plan.records.chunk_by(|a, b| a.page == b.page) {
            for some in same.chunks(KEYS_PER_READ) {
                let keys = some.iter().map(|record| record.key.0.clone()).collect();
                todo.push_back((some[0].page, keys));
            }
        }
        Planning {
            plan,
            todo,
            pages: Vec::new(),
            in_flight: 0,
            reply,
        }
    }

    /// What to read next, and of which page of the simulation it was.
    pub fn to_read(&mut self) -> Option<Lot> {
        if self.in_flight >= PAGES_AHEAD {
            return None;
        }
        let next = self.todo.pop_front()?;
        self.in_flight += 1;
        Some(next)
    }

    /// A page whose window is closed.
    pub fn read(&mut self, page: PlannedPage) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.pages.push(page);
    }

    /// Whether everything is read.
    pub fn is_whole(&self) -> bool {
        self.todo.is_empty() && self.in_flight == 0
    }

    /// What the engine is given.
    pub fn work(self, source: SourceId) -> PlannedWork {
        PlannedWork {
            source,
            plan: self.plan,
            pages: self.pages,
            reply: self.reply,
        }
    }

    /// Gives up: nothing of it is applied.
    pub fn refuse(self, reason: &str) {
        // Whoever asked may be gone.
        let _ = self.reply.send(Answered::refused(reason));
    }
}
