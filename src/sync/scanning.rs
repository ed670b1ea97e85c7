//! Scans, from the engine's side: what they have seen, what is missing, what follows.
//!
//! Absence is believed only of a record that (1) no page of a whole scan had, (2) does not
//! exist when it is asked for by key afterwards, and (3) was not touched by the log since.
//! And even then, more leavers than the source's guard allows are not applied: the run ends
//! *staged*, with the list, and the users stay as they are.

use std::collections::HashSet;

use rollcall_contract::Key;
use rollcall_core::id::{MatchHash, SourceId};
use rollcall_core::reason::LeaverReason;
use rollcall_store::{GapClosed, PageSeen, ScanRow, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::{ScanTrack, TrackedRun};
use super::work::{ScanPlace, ScanResult};

/// At most so many keys of held-back leavers are kept in the run's detail.
const KEEP_KEYS: usize = 10_000;

/// The hash under which a page remembers a key.
pub(super) fn seen_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl Engine {
    pub(super) fn scan_begin(
        &mut self,
        source: SourceId,
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
        let (row, run, place) = match interrupted {
            Some((row, run, closes)) if closes == gaps && !gaps.is_empty() => {
                let place = ScanPlace {
                    after: row.after.clone(),
                    next_page: row.pages,
                    rows: row.rows,
                    is_load: run.row.kind == "load",
                };
                (row, run, place)
            }
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
                let kind = if !self.readers.links_after(source, None, 1)?.is_empty() {
                    "reconcile"
                } else {
                    "load"
                };
                let run = self.new_run(source, kind, "gap", now)?;
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
                let place = ScanPlace {
                    is_load: run.kind == "load",
                    ..ScanPlace::default()
                };
                (row, TrackedRun::new(run), place)
            }
        };
        if let Some(track) = self.sources.get_mut(&source) {
            track.scan = Some(ScanTrack {
                row,
                run,
                closes: gaps,
                absent: HashSet::new(),
                duplicates: HashSet::new(),
            });
        }
        Ok(place)
    }

    /// What several rows of the table have in common.
    pub(super) fn scan_duplicates(&mut self, source: SourceId, keys: HashSet<MatchHash>) {
        if let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut()) {
            scan.duplicates = keys;
        }
        self.know_duplicates();
    }

    /// Tells the rules of the duplicates of all scans that are under way.
    fn know_duplicates(&mut self) {
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
        self.present_keys(source, is_unseen, |key, _| {
            missing.extend(Key::from_bytes(key))
        })?;
        Ok(missing)
    }

    pub(super) fn scan_end(
        &mut self,
        source: SourceId,
        pending: &mut Pending,
    ) -> Result<ScanResult, StoreError> {
        let now = now_us();
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(ScanResult::default());
        };
        let Some(scan) = track.scan.take() else {
            return Ok(ScanResult::default());
        };
        let guard = track.guard;
        let allowed = std::mem::take(&mut track.allowed_leavers);
        let mut tracked = scan.run;
        let run = &mut tracked.row;
        run.to = Some(track.position.clone()).filter(|p| !p.is_empty());
        let absent: Vec<Key> = scan.absent.into_iter().collect();
        let (leavers, linked) = self.count_leavers(source, &absent)?;
        let mut result = ScanResult::default();
        let mut outcome = ("completed", None);
        if guard.allows(leavers, linked) || leavers <= allowed {
            for key in &absent {
                self.remove_absent(source, key, LeaverReason::Absent, run.id, now, pending)?;
            }
        } else {
            result.leavers_held_back = leavers;
            let keys: Vec<String> = absent.iter().take(KEEP_KEYS).map(Key::display).collect();
            let detail = serde_json::json!({
                "reason": "too_many_leavers",
                "leavers": leavers,
                "linked": linked,
                "max_leavers": guard.max_leavers,
                "max_percent": guard.max_percent,
                "absent_records": keys,
            });
            outcome = ("staged", Some(detail.to_string()));
            tracing::warn!(
                source = self.sources.get(&source).map(|t| t.name.clone()),
                leavers,
                linked,
                "so many absent records are not believed: their users stay as they are"
            );
        }
        if !scan.duplicates.is_empty() {
            self.know_duplicates();
            self.retry(&scan.duplicates, run.id, now, pending)?;
        }
        let run_id = run.id;
        tracked.take_over(&self.directory, pending);
        for gap in &scan.closes {
            pending.commit.gaps_closed.push(GapClosed {
                gap: *gap,
                by: run_id,
            });
        }
        if let Some(track) = self.sources.get_mut(&source) {
            track.open_gaps.retain(|g| !scan.closes.contains(g));
        }
        pending.commit.scans_ended.push(source);
        self.end_run(tracked.row, outcome.0, outcome.1, pending, now);
        Ok(result)
    }
}
