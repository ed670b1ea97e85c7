//! Scans, from the engine's side: what they have seen, what is missing, what follows.
//!
//! Absence is believed only of a record that (1) no page of a whole scan had, (2) does not
//! exist when it is asked for by key afterwards, and (3) was not touched by the log since;
//! and of nobody while there are rows whose key cannot be read, since each may be anybody's. They
//! are looked for with (2) as well, in the same snapshot, since a row may lose its key meanwhile.
//! Such a run ends *unproved*, and the gaps that it was to close stay open.
//! And even then it is held back with everything else that takes something away, and applied
//! only if the source's limit allows it ([`super::staging`]); else the run ends *staged*.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use rollcall_contract::{GapReason, Key};
use rollcall_core::id::{MatchHash, SourceId};
use rollcall_core::reason::{LeaverReason, SkipReason};
use rollcall_store::{GapClosed, GapId, PageSeen, ScanRow, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::{ScanTrack, TrackedRun};
use super::work::{Cause, Missing, ScanPlace};

/// Absent records that are taken in with one commit.
const AT_ONCE: usize = 2_000;

/// Pages whose keys are taken in at once before records are looked for that none of them had.
const PAGES_AT_ONCE: usize = 16;

/// So many of those keys are put into a set at once.
const IN_SET_AT_ONCE: usize = 200_000;

/// Among so many keys that pages had next a record is looked for before the set is.
const NEAR: usize = 16;

/// Of so many open gaps the reasons are looked at.
const GAPS_LOOKED_AT: usize = 1_000;

/// The search for records that no page of a scan had. What the pages had is taken in, and
/// then the records are gone through in the order of their keys. Pages nearly always come in
/// that order too, so mostly each record is the next one that a page had; where it is not,
/// and only then, a set is made of all that they had.
#[derive(Default)]
pub(super) struct Search {
    /// Hashes of the keys that pages had, in their order.
    seen: Vec<u64>,
    next_page: u64,
    knows_pages: bool,
    /// Behind the one of them that was found last.
    at: usize,
    set: hashbrown::HashSet<u64>,
    /// So many of them are in the set.
    in_set: usize,
    /// Whether the set is needed.
    needs_set: bool,
    /// The record that was looked at last.
    after: Option<Key>,
}

impl Search {
    /// Whether a page had a record; in doubt it had, and the set is needed.
    fn has_seen(&mut self, hash: u64) -> bool {
        let ahead = self.seen.iter().skip(self.at).take(NEAR);
        if let Some(n) = ahead.into_iter().position(|seen| *seen == hash) {
            self.at += n + 1;
            return true;
        }
        if self.in_set < self.seen.len() {
            self.needs_set = true;
            return true;
        }
        self.set.contains(&hash)
    }

    /// Whether there is nothing in doubt.
    fn is_certain(&self) -> bool {
        !self.needs_set || self.in_set == self.seen.len()
    }

    /// Makes the set, or some more of it.
    fn make_set(&mut self) {
        self.set.reserve(self.seen.len() - self.set.len());
        let more = self.seen.iter().skip(self.in_set).take(IN_SET_AT_ONCE);
        self.in_set += more.len();
        self.set.extend(more);
    }
}

/// The hash under which a page remembers a key.
pub(super) fn seen_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl Engine {
    pub(super) fn scan_begin(
        &mut self,
        source: SourceId,
        cause: Cause,
        pending: &mut Pending,
    ) -> Result<ScanPlace, StoreError> {
        let now = now_us();
        let gaps = self
            .sources
            .get(&source)
            .map(|t| t.open_gaps.clone())
            .unwrap_or_default();
        // A scan that a crash cut goes on; one during which a gap opened starts again, since
        // what it has read proves nothing about the time behind the gap.
        let interrupted = match self.sources.get_mut(&source).and_then(|t| t.scan.take()) {
            Some(scan) => Some((scan.row, scan.run, scan.closes)),
            None => match self.readers.scan(source)? {
                Some(row) => {
                    let closes = serde_json::from_str(&row.detail).unwrap_or_default();
                    match self.readers.run(row.run)? {
                        Some(run) => Some((row, self.resumed_run(run)?, closes)),
                        None => None,
                    }
                }
                None => None,
            },
        };
        let (row, run) = match interrupted {
            Some((row, run, closes)) if closes == gaps => (row, run),
            other => {
                if let Some((_, run, _)) = other {
                    self.end_run(
                        run.row,
                        "superseded",
                        Some("Another gap opened.".to_owned()),
                        pending,
                        now,
                    );
                    pending.commit.scans_ended.push(source);
                    // What the old scan has seen is gone before the new one sees anything.
                    self.commit(pending)?;
                }
                let is_polled = self.sources.get(&source).is_some_and(|t| t.poll.is_some());
                let kind = match self.readers.links_after(source, None, 1)?.is_empty() {
                    true => "load",
                    false if is_polled => "poll",
                    false => "reconcile",
                };
                let cause = self.cause_of(source, &gaps)?.unwrap_or(cause);
                let run = self.new_run(source, kind, cause.as_str(), now)?;
                let row = ScanRow {
                    source,
                    run: run.id,
                    phase: "pages".to_owned(),
                    after: None,
                    pages: 0,
                    rows: 0,
                    started_us: now,
                    detail: serde_json::to_string(&gaps).unwrap_or_default(),
                };
                pending.commit.scans.push(row.clone());
                pending.commit.served.push(source);
                (row, TrackedRun::new(run))
            }
        };
        let place = ScanPlace {
            run: run.row.id,
            cause: run.row.cause.clone(),
            after: row.after.clone(),
            next_page: row.pages,
            rows: row.rows,
            is_load: run.row.kind == "load",
        };
        if let Some(track) = self.sources.get_mut(&source) {
            track.scan = Some(ScanTrack {
                row,
                run,
                closes: gaps,
                absent: BTreeSet::new(),
                duplicates: HashSet::new(),
                search: Search::default(),
            });
        }
        Ok(place)
    }

    /// What open gaps say of the reason for a scan; nothing when there are none.
    fn cause_of(&self, source: SourceId, gaps: &[GapId]) -> Result<Option<Cause>, StoreError> {
        if gaps.is_empty() {
            return Ok(None);
        }
        let open = self.readers.gaps(false, GAPS_LOOKED_AT)?;
        let mut of_source = open.iter().filter(|g| g.source == source);
        let is_mapping = of_source.all(|g| g.gap.reason == GapReason::MappingChanged);
        Ok(Some(if is_mapping {
            Cause::MappingChanged
        } else {
            Cause::Gap
        }))
    }

    /// Ends a scan that is under way, without an end to what it was to prove.
    pub(super) fn give_up_scan(
        &mut self,
        source: SourceId,
        why: &str,
        pending: &mut Pending,
        now: i64,
    ) -> Result<(), StoreError> {
        let run = match self.sources.get_mut(&source).and_then(|t| t.scan.take()) {
            Some(scan) => Some(scan.run.row),
            None => match self.readers.scan(source)? {
                Some(row) => self.readers.run(row.run)?,
                None => None,
            },
        };
        if let Some(run) = run {
            self.end_run(run, "superseded", Some(why.to_owned()), pending, now);
            pending.commit.scans_ended.push(source);
        }
        Ok(())
    }

    /// What several rows of the table have in common.
    pub(super) fn scan_duplicates(&mut self, source: SourceId, keys: HashSet<MatchHash>) {
        if let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut()) {
            scan.duplicates = keys;
        }
        self.know_duplicates();
    }

    /// Tells the rules of the duplicates of all scans that are under way.
    pub(super) fn know_duplicates(&mut self) {
        let scans = self.sources.values().filter_map(|t| t.scan.as_ref());
        let all = scans.flat_map(|s| s.duplicates.iter().copied()).collect();
        self.directory.set_known_duplicates(&all);
    }

    /// A page of the scan was applied with this commit.
    pub(super) fn scan_page(
        &mut self,
        source: SourceId,
        number: u64,
        last: Option<Key>,
        keys: Vec<u64>,
        pending: &mut Pending,
    ) {
        let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut()) else {
            return;
        };
        scan.row.pages = number + 1;
        scan.row.rows += keys.len() as u64;
        if last.is_some() {
            scan.row.after = last;
        }
        pending.commit.scans.retain(|row| row.source != source);
        pending.commit.scans.push(scan.row.clone());
        pending.commit.seen.push(PageSeen {
            source,
            page: number,
            hashes: keys,
        });
    }

    /// Some of the records that no page had. What else there is to do comes between two calls,
    /// so each takes little time.
    pub(super) fn scan_missing(&mut self, source: SourceId) -> Result<Missing, StoreError> {
        let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut()) else {
            return Ok(Missing {
                is_last: true,
                ..Missing::default()
            });
        };
        let mut search = std::mem::take(&mut scan.search);
        let mut missing = Missing::default();
        if !search.knows_pages {
            if search.next_page == 0 {
                search.seen.reserve(scan.row.rows as usize);
            }
            let from = search.next_page;
            let pages = self.readers.scan_seen(source, from, PAGES_AT_ONCE)?;
            match pages.last() {
                Some((last, _)) => search.next_page = last + 1,
                None => search.knows_pages = true,
            }
            let hashes = pages.iter().flat_map(|(_, hashes)| hashes);
            search.seen.extend(hashes);
        } else if !search.is_certain() {
            search.make_set();
        } else {
            let (after, at) = (search.after.clone(), search.at);
            let is_unseen = |key: &[u8]| !search.has_seen(seen_hash(key));
            let next = self.present_keys(source, after.as_ref(), is_unseen, &mut missing.keys)?;
            if search.is_certain() {
                missing.is_last = next.is_none();
                search.after = next;
            } else {
                // The same records once more, when it is known what pages had.
                missing.keys.clear();
                search.at = at;
            }
        }
        if let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut())
            && !missing.is_last
        {
            scan.search = search;
        }
        Ok(missing)
    }

    pub(super) fn scan_end(
        &mut self,
        source: SourceId,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let now = now_us();
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        let Some(scan) = track.scan.take() else {
            return Ok(());
        };
        let mut run = scan.run;
        run.row.to = Some(track.position.clone()).filter(|p| !p.is_empty());
        // A row without a key may be any record that was not found. The count is the run's, so
        // it holds over crashes.
        let keyless = run.row.counters.reasons.get(SkipReason::NoKey);
        track.live.keyless.store(keyless, Ordering::Relaxed);
        let absent: Vec<Key> = match keyless {
            0 => scan.absent.into_iter().collect(),
            _ => Vec::new(),
        };
        self.set_counting(source, true);
        for some in absent.chunks(AT_ONCE) {
            for key in some {
                self.remove_absent(source, key, LeaverReason::Absent, run.row.id, now, pending)?;
            }
            run.take_over(&self.directory, pending);
            if absent.len() > AT_ONCE {
                // After a crash they are found absent again.
                pending.commit.runs.push(run.row.clone());
                self.commit(pending)?;
            }
        }
        self.end_holding_back(source, &scan.closes, &mut run, pending, now)?;
        if !scan.duplicates.is_empty() {
            self.know_duplicates();
            self.retry(&scan.duplicates, run.row.id, now, pending)?;
        }
        self.tell_unresolved(source, run.row.id, now, pending)?;
        let run_id = run.row.id;
        run.take_over(&self.directory, pending);
        // What may still be missing somebody closes no gap.
        let closes = match keyless {
            0 => scan.closes,
            _ => Vec::new(),
        };
        for gap in &closes {
            pending.commit.gaps_closed.push(GapClosed {
                gap: *gap,
                by: run_id,
            });
        }
        if let Some(track) = self.sources.get_mut(&source) {
            track.open_gaps.retain(|g| !closes.contains(g));
        }
        if let Some(related) = self
            .sources
            .get_mut(&source)
            .and_then(|t| t.related.as_mut())
        {
            // What it found and has not told itself.
            related.tells = true;
        }
        self.end_remapping(source);
        self.end_drift(source, run_id, pending)?;
        pending.commit.scans_ended.push(source);
        let told = |reason: &str, n: u64| {
            let detail = match reason {
                "limit" => serde_json::json!({ "reason": reason, "changes": n }),
                _ => serde_json::json!({ "reason": reason, "rows": n }),
            };
            Some(detail.to_string())
        };
        // Those that waited before it and still do among them.
        let reasons = &run.row.counters.reasons;
        let staged = reasons.get(SkipReason::Staged) + reasons.get(SkipReason::StagedLeaver);
        let (outcome, detail) = match (staged, keyless) {
            (0, 0) => ("completed", None),
            (0, n) => ("unproved", told(SkipReason::NoKey.as_str(), n)),
            (n, _) => ("staged", told("limit", n)),
        };
        self.end_run(run.row, outcome, detail, pending, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of some records that no page had, as [`Engine::scan_missing`] asks.
    fn unseen(search: &mut Search, records: std::ops::Range<u64>) -> Vec<u64> {
        loop {
            let at = search.at;
            let found = records.clone().filter(|record| !search.has_seen(*record));
            let found = found.collect();
            if search.is_certain() {
                return found;
            }
            search.at = at;
            search.make_set();
        }
    }

    #[test]
    fn what_no_page_had_is_found_in_whatever_order_pages_came() {
        let of = |seen: Vec<u64>| Search {
            seen,
            ..Search::default()
        };
        let even = |n: u64| n * 2;
        let mut in_order = of((0..1_000).map(even).collect());
        assert!((0..1_000).map(even).all(|n| in_order.has_seen(n)));
        assert!(
            in_order.is_certain() && in_order.set.is_empty(),
            "no set is needed"
        );

        let odd: Vec<u64> = (0..2_000).filter(|n| n % 2 == 1).collect();
        let mut in_order = of((0..1_000).map(even).collect());
        let mut reversed = of((0..1_000).rev().map(even).collect());
        for search in [&mut in_order, &mut reversed] {
            let found = [unseen(search, 0..900), unseen(search, 900..2_000)].concat();
            assert_eq!(found, odd);
        }
    }
}
