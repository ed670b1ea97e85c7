//! Records that somebody wants to be read now: by key, whatever the log says, as a run of
//! their own.
//!
//! They come through a page's window like any other page, so nothing newer is overwritten. Who
//! does not exist when asked for by key, and was not touched by the log since, is absent, within
//! the limit for what the log takes away: it counts together with that.

use rollcall_core::id::RunId;
use rollcall_core::reason::SkipReason;
use rollcall_store::StoreError;

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::TrackedRun;
use super::work::{Cause, PageWork, Work};

impl Engine {
    /// Applies the records and ends their run.
    pub(super) fn sync_keys(
        &mut self,
        page: PageWork,
        cause: Cause,
        pending: &mut Pending,
    ) -> Result<RunId, StoreError> {
        let (source, now) = (page.source, now_us());
        self.look_at_plan(source)?;
        let run = TrackedRun::new(self.new_run(source, "sync", cause.as_str(), now)?);
        let id = run.row.id;
        pending.source = Some(source);
        // It is a lot of the log in all but the run that counts it.
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(id);
        };
        let rolling = track.stream_run.replace(run);
        self.apply_page(&page, pending)?;
        if self.may_trip(source) {
            pending.lot.push(Work::Page(page));
        }
        self.decide_lot(pending)?;
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(id);
        };
        let Some(run) = std::mem::replace(&mut track.stream_run, rolling) else {
            return Ok(id);
        };
        let reasons = &run.row.counters.reasons;
        let staged = reasons.get(SkipReason::Staged) + reasons.get(SkipReason::StagedLeaver);
        let outcome = match (staged, reasons.get(SkipReason::NoKey)) {
            (0, 0) => "completed",
            (0, _) => "unproved",
            _ => "staged",
        };
        self.end_run(run.row, outcome, None, pending, now_us());
        Ok(id)
    }
}
