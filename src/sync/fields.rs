//! What the identity side writes, and what people decide.
//!
//! It goes through the engine as everything else does, alone and behind what came before, so
//! no change of a source is lost to it and it is lost to none. It belongs to no run: its
//! evidence is who wrote, when and why.

use rollcall_core::attribute::AttrId;
use rollcall_core::conflict::{Choice, ConflictKind, Fingerprint};
use rollcall_core::directory::{Author, Edit, Edited, Word};
use rollcall_core::document::Pin;
use rollcall_core::id::{RunId, UserRow};
use rollcall_core::plan::Due;
use rollcall_store::StoreError;
use tokio::sync::oneshot;

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;

/// See [`super::work::Work::Edit`].
#[derive(Debug)]
pub struct EditWork {
    /// Whose fields.
    pub user: UserRow,
    /// What is to become of them: all of it, or nothing.
    pub edits: Vec<FieldEdit>,
    /// Who writes.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// What came of it, behind the commit.
    pub reply: oneshot::Sender<Edited>,
}

/// What is to become of an own value of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldEdit {
    /// It is written.
    Set {
        /// Which field.
        attribute: AttrId,
        /// The value in the attribute's canonical form.
        value: Vec<u8>,
        /// Whether it stays whatever sources say.
        pin: Option<Pin>,
    },
    /// The field is to be another user.
    Refer {
        /// Which field.
        attribute: AttrId,
        /// The user.
        user: UserRow,
        /// Whether it stays whatever sources say.
        pin: Option<Pin>,
    },
    /// It is taken back.
    Unset(AttrId),
    /// It is pinned no longer.
    Unpin(AttrId),
}

impl FieldEdit {
    /// As the directory takes it.
    pub fn as_edit(&self) -> Edit<'_> {
        match self {
            FieldEdit::Set {
                attribute,
                value,
                pin,
            } => Edit::Set {
                attribute: *attribute,
                value,
                pin: *pin,
            },
            FieldEdit::Refer {
                attribute,
                user,
                pin,
            } => Edit::Refer {
                attribute: *attribute,
                user: *user,
                pin: *pin,
            },
            FieldEdit::Unset(attribute) => Edit::Unset(*attribute),
            FieldEdit::Unpin(attribute) => Edit::Unpin(*attribute),
        }
    }
}

/// See [`super::work::Work::Resolve`].
#[derive(Debug)]
pub struct ResolveWork {
    /// Which conflict.
    pub fingerprint: Fingerprint,
    /// What is taken.
    pub choice: Choice,
    /// For a conflict of two values: whose.
    pub user: Option<UserRow>,
    /// Who decides.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// What came of it, behind the commit; none when what is stored of the source cannot be
    /// mapped yet.
    pub reply: oneshot::Sender<Option<Word>>,
}

/// The run of what no run did.
pub(super) const NO_RUN: RunId = RunId(0);

impl Engine {
    /// Makes edits of a user's own values, all or none.
    pub(super) fn edit(
        &mut self,
        work: &EditWork,
        pending: &mut Pending,
    ) -> Result<Edited, StoreError> {
        let directory = &mut self.directory;
        let mut resolver =
            directory.resolver(&mut self.writer, &mut pending.plan, now_us(), NO_RUN);
        let edits: Vec<_> = work.edits.iter().map(FieldEdit::as_edit).collect();
        let author = Author {
            actor: &work.actor,
            reason: &work.reason,
        };
        let edited = resolver.edit(work.user, &edits, author).map_err(failed)?;
        resolver.finish().map_err(failed)?;
        Ok(edited)
    }

    /// Ends the pins whose time has come.
    pub(super) fn end_pins(
        &mut self,
        due: &[Due],
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, NO_RUN);
        for due in due {
            resolver.end_pins(due).map_err(failed)?;
        }
        resolver.finish().map_err(failed)
    }

    /// Decides a conflict.
    pub(super) fn resolve(
        &mut self,
        work: &ResolveWork,
        pending: &mut Pending,
    ) -> Result<Option<Word>, StoreError> {
        let row = self.readers.conflict(work.fingerprint)?;
        let holds = row.filter(|row| row.kind != ConflictKind::Value);
        if let Some(row) = holds {
            if self.directory.mapper(row.source).is_none() {
                return Ok(None);
            }
            self.set_counting(row.source, false);
        }
        let directory = &mut self.directory;
        let mut resolver =
            directory.resolver(&mut self.writer, &mut pending.plan, now_us(), NO_RUN);
        let author = Author {
            actor: &work.actor,
            reason: &work.reason,
        };
        let word = resolver
            .decide(work.fingerprint, &work.choice, work.user, author)
            .map_err(failed)?;
        resolver.finish().map_err(failed)?;
        Ok(Some(word))
    }
}
