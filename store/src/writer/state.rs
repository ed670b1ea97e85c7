//! The directory's questions, answered: the plan under way first, then what was read
//! beforehand, then the database.

use std::sync::Arc;

use rollcall_core::conflict::{ConflictRow, Fingerprint};
use rollcall_core::id::{MatchHash, SourceId, UserRow, ValueHash};
use rollcall_core::plan::Plan;
use rollcall_core::state::{KeyBytes, LinkTarget, State, StateError};
use smallvec::SmallVec;

use super::Writer;
use crate::error::StoreError;
use crate::preload;
use crate::query;
use crate::references;

impl State for Writer {
    fn link(&mut self, source: SourceId, key: &[u8]) -> Result<Option<LinkTarget>, StateError> {
        if let Some(plan) = &self.overlay
            && !plan.links.is_empty()
            && let Some(target) = plan.links.get(&(source, KeyBytes::from_slice(key)))
        {
            return Ok(*target);
        }
        if let Some(answer) = self.preloaded.link(source, key) {
            return Ok(answer);
        }
        let outcome = self
            .connection
            .prepare_cached("SELECT user FROM link WHERE source = ?1 AND key = ?2")
            .map_err(StoreError::from)
            .and_then(|mut s| preload::link_target(&mut s, source, key));
        Ok(self.guard(outcome)?)
    }

    fn user(&mut self, row: UserRow, into: &mut Vec<u8>) -> Result<bool, StateError> {
        if let Some(write) = self.overlay.as_ref().and_then(|plan| plan.users.get(row)) {
            into.extend_from_slice(write.document);
            return Ok(true);
        }
        if let Some(document) = self.preloaded.user(row) {
            into.extend_from_slice(document);
            return Ok(true);
        }
        let outcome = query::append_blob(
            &self.connection,
            "SELECT document FROM user WHERE id = ?1",
            [row.0],
            into,
        );
        Ok(self.guard(outcome)?)
    }

    fn record(
        &mut self,
        source: SourceId,
        key: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, StateError> {
        if let Some(plan) = &self.overlay
            && !plan.records.is_empty()
            && let Some(record) = plan.records.get(&(source, KeyBytes::from_slice(key)))
        {
            into.extend_from_slice(record.as_deref().unwrap_or_default());
            return Ok(record.is_some());
        }
        let outcome = query::append_blob(
            &self.connection,
            "SELECT document FROM record WHERE source = ?1 AND key = ?2",
            (source.0, key),
            into,
        );
        Ok(self.guard(outcome)?)
    }

    fn owners(
        &mut self,
        hash: ValueHash,
        into: &mut SmallVec<[UserRow; 4]>,
    ) -> Result<(), StateError> {
        if self.filter.may_have(hash) {
            if let Some(owners) = self.preloaded.owners(hash) {
                into.extend_from_slice(owners);
            } else {
                let outcome = preload::owners(&self.connection, &self.delta, hash, into);
                self.guard(outcome)?;
            }
        }
        if let Some(plan) = &self.overlay {
            plan.overlay_owners(hash, into);
        }
        Ok(())
    }

    fn anything_waits(&mut self) -> bool {
        let begins = |plan: &Arc<Plan>| !plan.waiting.is_empty();
        self.counts.waiting > 0 || self.overlay.as_ref().is_some_and(begins)
    }

    fn waiting(
        &mut self,
        hash: MatchHash,
        into: &mut Vec<(SourceId, KeyBytes)>,
    ) -> Result<(), StateError> {
        let outcome = query::waiting(&self.connection, hash, into);
        self.guard(outcome)?;
        if let Some(plan) = &self.overlay {
            plan.overlay_waiting(hash, into);
        }
        Ok(())
    }

    fn anything_refers(&mut self) -> bool {
        let begins = |plan: &Arc<Plan>| !plan.references.is_empty();
        self.counts.references > 0 || self.overlay.as_ref().is_some_and(begins)
    }

    fn referrers(
        &mut self,
        source: SourceId,
        key: &[u8],
        after: UserRow,
        limit: usize,
        into: &mut Vec<UserRow>,
    ) -> Result<(), StateError> {
        let known = self
            .overlay
            .as_ref()
            .map_or(0, |p| p.referring(source, key));
        let more = limit.saturating_add(known);
        let outcome = references::referrers(&self.connection, source, key, after, more, into);
        self.guard(outcome)?;
        if let Some(plan) = &self.overlay {
            plan.overlay_referrers((source, key), after, limit, into);
        }
        Ok(())
    }

    fn conflict(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        let laid_over = self
            .overlay
            .as_ref()
            .and_then(|p| p.conflicts.get(&fingerprint));
        if let Some(conflict) = laid_over {
            return Ok(Some(conflict.clone()).filter(|c| c.closed_us.is_none()));
        }
        if !self.open.contains(&fingerprint) {
            return Ok(None);
        }
        let outcome = query::open_conflict(&self.connection, fingerprint);
        Ok(self.guard(outcome)?)
    }

    fn decided(&mut self, fingerprint: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        let laid_over = self
            .overlay
            .as_ref()
            .and_then(|p| p.conflicts.get(&fingerprint));
        let row = match laid_over {
            Some(conflict) => Some(conflict.clone()),
            None => {
                let outcome = query::conflict(&self.connection, fingerprint);
                self.guard(outcome)?
            }
        };
        Ok(row.filter(|c| c.closed_us.is_some() && c.decision.is_some()))
    }

    fn allocate_user(&mut self) -> UserRow {
        let row = self.next_user;
        self.next_user += 1;
        UserRow(row)
    }
}
