//! Memory that is kept from batch to batch, and what a batch must remember beside its plan.

use hashbrown::HashSet;

use crate::conflict::Fingerprint;
use crate::document::{Document, Spare};
use crate::id::{MatchHash, SourceId, UserId};
use crate::mapped::MappedRows;
use crate::state::KeyBytes;

/// What changed a conflict last, for its event.
#[derive(Debug)]
pub(super) struct Touch {
    pub(super) fingerprint: Fingerprint,
    pub(super) was_open: bool,
    /// Whether the plan had it before this batch.
    pub(super) was_planned: bool,
    pub(super) source: SourceId,
    pub(super) position: String,
    pub(super) time_us: i64,
    pub(super) id: [u8; 16],
    /// Whether a change of the log touched it last.
    pub(super) is_of_log: bool,
}

/// Memory of a [`super::Resolver`], to be reused for each batch.
#[derive(Debug, Default)]
pub struct Workspace {
    buffers: Vec<Vec<u8>>,
    spares: Vec<Spare>,
    rows: Vec<MappedRows>,
    pub(super) body: Vec<u8>,
    /// Match keys that several records of this batch will have.
    pub(super) announced: HashSet<MatchHash>,
    /// What records wait for, and is not as it was.
    pub(super) touched: Vec<MatchHash>,
    /// Held records to be considered again.
    pub(super) woken: Vec<(SourceId, KeyBytes)>,
    /// Keys that may lead to another user than before.
    pub(super) relinked: Vec<(SourceId, KeyBytes)>,
    /// Keys for which somebody waits no longer.
    pub(super) awaited: Vec<(SourceId, KeyBytes)>,
    /// When the change was made that is applied, microseconds since the Unix epoch.
    pub(super) at_us: i64,
    /// Conflicts that this plan touched, in that order.
    pub(super) conflicts: Vec<Touch>,
}

impl Workspace {
    pub(super) fn start(&mut self) {
        self.announced.clear();
        self.touched.clear();
        self.woken.clear();
        self.relinked.clear();
        self.awaited.clear();
        self.at_us = 0;
        self.conflicts.clear();
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.buffers.push(buffer);
    }

    pub(super) fn rows(&mut self) -> MappedRows {
        self.rows.pop().unwrap_or_default()
    }

    pub(super) fn give_back_rows(&mut self, mut rows: MappedRows) {
        rows.clear();
        self.rows.push(rows);
    }

    pub(super) fn spare(&mut self) -> Spare {
        self.spares.pop().unwrap_or_default()
    }

    /// Keeps the vectors of a document that is no longer needed.
    pub(super) fn keep(&mut self, document: Document<'_>) {
        self.spares.push(document.into_spare());
    }

    /// A user without links and without an id yet.
    pub(super) fn new_document<'a>(&mut self, now_us: i64) -> Document<'a> {
        let spare = self.spare();
        Document::new(UserId([0; 16]), now_us).clone_with(spare)
    }
}
