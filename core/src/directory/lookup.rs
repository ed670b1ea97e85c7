//! Reading: the plan first, then the stored state.

use smallvec::SmallVec;

use super::Resolver;
use crate::document::{Document, LinkState, Record};
use crate::id::{MatchHash, SourceId, UserRow, ValueHash};
use crate::reason::SkipReason;
use crate::state::{KeyBytes, LinkTarget, StateError};

/// What is stored of a record, whether it has a user or not.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) tx: &'a [u8],
    pub(super) position: &'a str,
    pub(super) commit_us: i64,
    pub(super) hash: u64,
    pub(super) shadow: &'a [u8],
    /// Whether the record is held or failed; `false` when it feeds its user, is gone or is
    /// out of scope.
    pub(super) held: bool,
    pub(super) present: bool,
    /// Whether it has a user and its last row must not be applied: its key and another record's
    /// are mixed up, or it is gone and that waits, or the row was discarded (hash 0). What
    /// comes next from the source tells.
    pub(super) outdated: bool,
    pub(super) hold: &'a [u8],
    pub(super) user: Option<crate::id::UserId>,
}

impl Resolver<'_> {
    /// Where a record leads.
    pub(super) fn target(
        &mut self,
        source: SourceId,
        key: &[u8],
    ) -> Result<Option<LinkTarget>, StateError> {
        if !self.plan.links.is_empty()
            && let Some(target) = self.plan.links.get(&(source, KeyBytes::from_slice(key)))
        {
            return Ok(*target);
        }
        self.state.link(source, key)
    }

    /// Lets a record lead somewhere else.
    pub(super) fn point(&mut self, source: SourceId, key: &[u8], target: Option<LinkTarget>) {
        self.relinked(source, key);
        self.plan
            .links
            .insert((source, KeyBytes::from_slice(key)), target);
    }

    /// Replaces `into` by a user's document.
    pub(super) fn load_user(&mut self, row: UserRow, into: &mut Vec<u8>) -> Result<(), StateError> {
        if self.find_user(row, into)? {
            Ok(())
        } else {
            Err(StateError(format!("user {} has no document", row.0)))
        }
    }

    /// The same for a user that may have been purged; `false` when it was.
    pub(super) fn find_user(
        &mut self,
        row: UserRow,
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        into.clear();
        if let Some(write) = self.plan.users.get(row) {
            into.extend_from_slice(write.document);
            return Ok(true);
        }
        Ok(!self.plan.purged.contains(&row) && self.state.user(row, into)?)
    }

    /// Replaces `into` by a record's document.
    pub(super) fn load_record(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        into.clear();
        if let Some(written) = self.plan.records.get(&(source, KeyBytes::from_slice(key))) {
            into.extend_from_slice(written.as_deref().unwrap_or_default());
        } else {
            self.state.record(source, key, into)?;
        }
        if into.is_empty() {
            return Err(StateError("a record has no document".to_owned()));
        }
        Ok(())
    }

    pub(super) fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Document<'a>, StateError> {
        Document::decode_with(bytes, self.ws.spare()).map_err(|e| StateError(e.to_string()))
    }

    /// What is stored of a record. Views point into `bytes`.
    pub(super) fn stored<'a>(
        &mut self,
        source: SourceId,
        key: &[u8],
        bytes: &'a mut Vec<u8>,
    ) -> Result<Option<Stored<'a>>, StateError> {
        match self.target(source, key)? {
            None => Ok(None),
            Some(LinkTarget::Record) => {
                self.load_record(source, key, bytes)?;
                let r = Record::decode(bytes).map_err(|e| StateError(e.to_string()))?;
                Ok(Some(Stored {
                    tx: r.tx,
                    position: r.position,
                    commit_us: r.commit_us,
                    hash: r.hash,
                    shadow: r.shadow,
                    held: r.reason != SkipReason::OutOfScope,
                    present: true,
                    outdated: false,
                    hold: r.hold,
                    user: None,
                }))
            }
            Some(LinkTarget::User(user)) => {
                self.load_user(user, bytes)?;
                let document = self.decode(bytes)?;
                let found = document.find_link(source, key).map(|i| {
                    let l = document.links[i];
                    Stored {
                        tx: l.tx,
                        position: l.position,
                        commit_us: l.commit_us,
                        hash: l.hash,
                        shadow: l.shadow,
                        held: matches!(l.state, LinkState::Held(_)),
                        present: l.state.is_present(),
                        outdated: l.hash == 0
                            || [SkipReason::KeyReuse, SkipReason::StagedLeaver]
                                .map(LinkState::Held)
                                .contains(&l.state),
                        hold: l.hold,
                        user: Some(document.id),
                    }
                });
                self.ws.keep(document);
                Ok(found)
            }
        }
    }

    /// The users that may have a value.
    pub(super) fn owners(&mut self, hash: ValueHash) -> Result<SmallVec<[UserRow; 4]>, StateError> {
        let mut rows = SmallVec::new();
        self.state.owners(hash, &mut rows)?;
        self.plan.overlay_owners(hash, &mut rows);
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    /// The records that may wait for a match key, in their order.
    pub(super) fn waiting(
        &mut self,
        hash: MatchHash,
    ) -> Result<Vec<(SourceId, KeyBytes)>, StateError> {
        let mut records = Vec::new();
        if self.state.anything_waits() {
            self.state.waiting(hash, &mut records)?;
        }
        self.plan.overlay_waiting(hash, &mut records);
        records.sort_unstable();
        records.dedup();
        Ok(records)
    }
}
