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
use super::work::{Cause, ScanPlace};

/// Absent records that are taken in with one commit.
const AT_ONCE: usize = 2_000;

/// Of so many open gaps the reasons are looked at.
const GAPS_LOOKED_AT: usize = 1_000;

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

    /// Records that no page had.
    pub(super) fn scan_missing(&mut self, source: SourceId) -> Result<Vec<Key>, StoreError> {
        let mut seen: HashSet<u64> = HashSet::new();
        let mut page = 0;
        loop {
            let pages = self.readers.scan_seen(source, page, 64)?;
            let Some((last, _)) = pages.last() else { break };
            page = last + 1;
            seen.extend(pages.into_iter().flat_map(|(_, hashes)| hashes));
        }
        let mut missing = Vec::new();
        let is_unseen = |key: &[u8]| !seen.contains(&seen_hash(key));
        self.present_keys(source, is_unseen, |key| {
            missing.extend(Key::from_bytes(key));
        })?;
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
        let staged = self.end_holding_back(source, &scan.closes, &mut run, pending, now)?;
        if !scan.duplicates.is_empty() {
            self.know_duplicates();
            self.retry(&scan.duplicates, run.row.id, now, pending)?;
        }
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
        self.end_remapping(source);
        pending.commit.scans_ended.push(source);
        let told = |reason: &str, n: u64| {
            let detail = match reason {
                "limit" => serde_json::json!({ "reason": reason, "changes": n }),
                _ => serde_json::json!({ "reason": reason, "rows": n }),
            };
            Some(detail.to_string())
        };
        let (outcome, detail) = match (staged, keyless) {
            (0, 0) => ("completed", None),
            (0, n) => ("unproved", told(SkipReason::NoKey.as_str(), n)),
            (n, _) => ("staged", told("limit", n)),
        };
        self.end_run(run.row, outcome, detail, pending, now);
        Ok(())
    }
}
