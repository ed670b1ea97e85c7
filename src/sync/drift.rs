//! The table changed under the mapping: fields are paused, said to be, and mapped again.
//!
//! A paused field is a conflict of the kind `schema_drift` from the moment in which its rule
//! does not fit the table any more. When the rule fits again (the column is back, or the
//! mapping in the file is another one) the field is behind: that is a gap like any other, and
//! the scan that closes it has looked at every record. Only its end closes the conflict.

use rollcall_contract::{Gap, GapReason};
use rollcall_core::attribute::AttrId;
use rollcall_core::conflict::ConflictKind;
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::mapping::Mapper;
use rollcall_store::{ConflictFilter, StoreError};

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;

/// A source has no more attributes than this.
const MOST: usize = 10_000;

impl Engine {
    /// Tells of fields that are paused by a mapping and were not. Gives whether a scan is due,
    /// for fields that were paused and are not.
    pub(super) fn drift_found(
        &mut self,
        source: SourceId,
        mapper: &Mapper,
        pending: &mut Pending,
    ) -> Result<bool, StoreError> {
        let open = self.drifted(source)?;
        if let Some(track) = self.sources.get(&source) {
            let paused = mapper.paused().iter();
            let why =
                paused.map(|p| format!("{} is paused and keeps what it has: {}.", p.name, p.why));
            track.live.set_paused(why.collect());
        }
        let new: Vec<_> = mapper
            .paused()
            .iter()
            .filter(|p| !open.contains(&p.attribute))
            .collect();
        if !new.is_empty() {
            let now = now_us();
            let run = self.stream_run(source, now)?;
            let name = self.sources.get(&source).map_or("", |t| t.name.as_str());
            for paused in &new {
                tracing::warn!(source = name, field = paused.name, "paused: {}", paused.why);
            }
            let directory = &mut self.directory;
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            for paused in new {
                resolver
                    .set_drift(source, paused.attribute, true)
                    .map_err(failed)?;
            }
            resolver.finish().map_err(failed)?;
        }
        let was = self.directory.paused(source);
        let is_paused = |a: &AttrId| mapper.paused().iter().any(|p| p.attribute == *a);
        let healed: Vec<AttrId> = open.into_iter().filter(|a| !is_paused(a)).collect();
        let track = self.sources.get(&source);
        let is_read_already = track.is_some_and(|t| !t.open_gaps.is_empty());
        let heals_now = healed.iter().any(|a| was.contains(a)) || !is_read_already;
        if healed.is_empty() || !heals_now {
            return Ok(false);
        }
        let names = healed.iter();
        let healed: Vec<String> = names
            .filter_map(|a| self.directory.attribute_name(*a))
            .collect();
        let gap = Gap {
            tables: Vec::new(),
            reason: GapReason::SchemaChanged,
            from: None,
            to: None,
            detail: format!(
                "{} can be mapped again. What changed meanwhile is read from the table.",
                healed.join(", ")
            ),
        };
        self.gap_found(source, gap, pending)?;
        Ok(true)
    }

    /// Every record has been looked at: fields that are mapped again are no longer behind.
    pub(super) fn end_drift(
        &mut self,
        source: SourceId,
        run: RunId,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let track = self.sources.get(&source);
        if track.is_none_or(|t| !t.open_gaps.is_empty()) {
            // A scan that began before the field was mapped again has not seen all of it.
            return Ok(());
        }
        let paused = self.directory.paused(source);
        let mut open = self.drifted(source)?;
        open.retain(|a| !paused.contains(a));
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now_us(), run);
        for attribute in open {
            resolver
                .set_drift(source, attribute, false)
                .map_err(failed)?;
        }
        resolver.finish().map_err(failed)
    }

    /// The attributes of a source of which a drift is open.
    fn drifted(&self, source: SourceId) -> Result<Vec<AttrId>, StoreError> {
        let filter = ConflictFilter {
            source: Some(source),
            kind: Some(ConflictKind::SchemaDrift),
            ..ConflictFilter::default()
        };
        let open = self.readers.conflicts(filter, MOST)?.into_iter();
        Ok(open
            .filter_map(|c| self.directory.attribute_id(&c.attribute?))
            .collect())
    }
}
