//! Users whose field is another user, from the engine's side.
//!
//! When a key leads to somebody else, those who name it are told with the commit that says so,
//! as far as they fit into it; the store remembers who is left, and they are told here, some
//! at a time between other work, also after a crash. What is still not resolved when a source
//! was read whole becomes conflicts, for the keys that most people wait for.

use rollcall_core::conflict::ConflictKind;
use rollcall_core::id::{RunId, SourceId, UserRow};
use rollcall_core::plan::Referring;
use rollcall_core::state::State as _;
use rollcall_store::{ConflictFilter, StoreError};

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::fields::NO_RUN;
use super::pending::Pending;

/// So many missing records of a source are open conflicts at most; how many people wait is
/// counted whatever there is.
const MISSING_MAX: usize = 100;

impl Engine {
    /// Tells some of those who have not been told yet.
    pub(super) fn tell_some_relinked(&mut self) -> Result<(), StoreError> {
        if !self.relinks {
            return Ok(());
        }
        let Some(next) = self.writer.relinked()? else {
            self.relinks = false;
            return Ok(());
        };
        let now = now_us();
        let mut pending = Pending::in_plan(self.writer.plan());
        let source = self.sources.get(&next.source).map(|_| next.source);
        let run = match source {
            Some(source) => self.stream_run(source, now)?,
            None => NO_RUN,
        };
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        resolver
            .go_on_telling(next.source, &next.key, next.told)
            .map_err(failed)?;
        resolver.finish().map_err(failed)?;
        if let Some(source) = source {
            let track = self.sources.get(&source);
            let position = track.map(|t| t.position.clone()).unwrap_or_default();
            self.count(source, false, &position, &mut pending);
        }
        self.commit(&mut pending)
    }

    /// Tells everybody with this plan.
    pub(super) fn tell_all_relinked(
        &mut self,
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        loop {
            pending.plan.told = 0;
            let mut left = pending.plan.relinked.iter();
            let next =
                left.find_map(|((source, key), told)| Some((*source, key.clone(), (*told)?)));
            let Some((source, key, told)) = next else {
                return Ok(());
            };
            let directory = &mut self.directory;
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            resolver.go_on_telling(source, &key, told).map_err(failed)?;
            resolver.finish().map_err(failed)?;
        }
    }

    /// A source was read whole: what its records name and is not there is a conflict.
    pub(super) fn tell_unresolved(
        &mut self,
        source: SourceId,
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        if !self.writer.anything_refers() && pending.plan.references.is_empty() {
            return Ok(());
        }
        let filter = ConflictFilter {
            source: Some(source),
            kind: Some(ConflictKind::UnresolvedReference),
            ..ConflictFilter::default()
        };
        let open = self.readers.conflicts(filter, MISSING_MAX)?;
        let mut keys = self.writer.unresolved(source, 2 * MISSING_MAX)?;
        // With what is stored along with the end of the scan.
        let waits =
            |users: &[(UserRow, Referring)]| users.iter().any(|(_, is)| *is == Referring::Waits);
        let planned = pending.plan.references.iter();
        let planned = planned.filter(|((of, _), users)| *of == source && waits(users));
        let mut planned: Vec<_> = planned.map(|((_, key), _)| key.clone()).collect();
        planned.sort_unstable();
        planned.retain(|key| !keys.contains(key));
        keys.extend(planned);
        keys.retain(|key| !open.iter().any(|conflict| conflict.records.contains(key)));
        keys.truncate(MISSING_MAX - open.len());
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        resolver.tell_unresolved(source, &keys).map_err(failed)?;
        resolver.finish().map_err(failed)
    }
}
