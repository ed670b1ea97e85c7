//! Fields that are paused, because the table changed under the mapping.
//!
//! The mapping keeps what such a field has ([`crate::mapping::PausedRule`]). Here it is said,
//! as a conflict that names no record: it is opened when the field is paused, and closed when
//! it is mapped again and every record has been looked at.

use super::correlate::fingerprint;
use super::{Cause, Resolver};
use crate::attribute::AttrId;
use crate::conflict::ConflictKind;
use crate::id::SourceId;
use crate::state::StateError;

impl Resolver<'_> {
    /// Tells that an attribute of a source is paused, or mapped again.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn set_drift(
        &mut self,
        source: SourceId,
        attribute: AttrId,
        is_paused: bool,
    ) -> Result<(), StateError> {
        let rules = self.source_rules(source)?;
        let change = self.seen_now(&[]);
        let cause = Cause::new(rules, &change, 0);
        let kind = ConflictKind::SchemaDrift;
        let fp = fingerprint(&cause, kind, Some(attribute), &[]);
        if is_paused {
            self.opened(&cause, fp, kind, Some(attribute))?;
            return Ok(());
        }
        self.touch_conflict(&cause, fp)?;
        let now_us = self.now_us;
        if let Some(row) = self.plan.conflicts.get_mut(&fp) {
            row.closed_us.get_or_insert(now_us);
        }
        Ok(())
    }
}
