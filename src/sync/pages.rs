//! Pages, applied: rows that were read from the table, and not from its log.
//!
//! Of a reconciliation nearly every row is as it is stored. Such a row is told by its hash
//! alone, which is looked up where the store has it, and costs nothing more; what is not
//! proved to be the same goes the way of any row. A row is never applied over something newer,
//! and one that is the same is not counted when something newer is stored.

use std::collections::HashSet;
use std::sync::Arc;

use rollcall_contract::{Key, TxId};
use rollcall_core::directory::{ChangeRef, Origin, Resolver, RowKeys, Rules};
use rollcall_core::document::Document;
use rollcall_core::id::{MatchHash, RunId, SourceId};
use rollcall_core::mapped::{MappedRows, Outcome};
use rollcall_core::mapping::Mapper;
use rollcall_core::reason::{LeaverReason, SkipReason};
use rollcall_core::state::{KeyBytes, LinkTarget, State as _};
use rollcall_store::StoreError;

use super::apply::{Step, apply_row, change_ref, duplicates, failed};
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::polling::Polled;
use super::scanning::seen_hash;
use super::track::TxMark;
use super::window::{HeldPage, Purpose};
use super::work::{PageRows, PageWork};

/// The rows of a page that the log has not taken out.
pub(super) fn alive_steps(page: &HeldPage) -> Vec<Step<'_>> {
    let mut steps = Vec::with_capacity(page.rows.len());
    let rows = page.rows.changes().enumerate();
    let alive = rows.filter(|(row, _)| page.is_alive(*row));
    steps.extend(alive.map(|(row, change)| Step {
        change,
        key: page.key(row).cloned(),
        old_key: None,
        mapped: Some(row),
    }));
    steps
}

/// How a row stands to what is stored of its record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It feeds its user, and is as it was.
    Same,
    /// It feeds its user, by something newer.
    Overtaken,
    /// Whatever else there is.
    Other,
}

/// Maps the rows of steps, in the place of what was made of them before.
fn map_steps(steps: &mut [Step<'_>], mappers: &[Arc<Mapper>], out: &mut MappedRows) {
    out.clear();
    for step in steps {
        step.mapped = step.change.after().map(|row| {
            mappers[step.change.table_index()].map(&row, None, out);
            out.len() - 1
        });
    }
}

/// Match keys that several of the rows of a page have, in order: of such rows nobody is
/// written.
pub(crate) fn shared_keys(rules: &Rules, work: &PageWork) -> Vec<MatchHash> {
    let mut steps = alive_steps(&work.page);
    let mut own_rows = MappedRows::default();
    let mapped = match &work.mapped {
        PageRows::Mapped(mapped) => mapped,
        PageRows::Hashed(_) => {
            map_steps(&mut steps, &work.mappers, &mut own_rows);
            &own_rows
        }
        // What is joined takes no part in it.
        PageRows::Unjoined { .. } => {
            own_rows.clear();
            for step in &mut steps {
                step.mapped = step.change.after().map(|row| {
                    work.mappers[step.change.table_index()].map(&row, Some(&[]), &mut own_rows);
                    own_rows.len() - 1
                });
            }
            &own_rows
        }
    };
    let (mut keys, mut matches) = (RowKeys::default(), Vec::new());
    for (at, step) in steps.iter().enumerate() {
        let row = step.mapped.map(|index| mapped.row(index));
        if let Some(row) = row.filter(|row| row.outcome() == Outcome::Mapped) {
            rules.keys_of(work.source, &row, &mut keys);
            matches.extend(keys.matches.iter().map(|hash| (*hash, at)));
        }
    }
    duplicates(&steps, matches)
}

impl Engine {
    pub(super) fn apply_page(
        &mut self,
        work: &PageWork,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let PageWork {
            source,
            page,
            mapped,
            mappers,
            related,
        } = work;
        let source = *source;
        let now = now_us();
        let is_scan = page.is_of_scan();
        self.set_counting(source, is_scan);
        let run = match self.sources.get(&source).and_then(|t| t.scan.as_ref()) {
            Some(scan) if is_scan => scan.run.row.id,
            _ => {
                let run = self.stream_run(source, now)?;
                self.note_run(source, pending);
                run
            }
        };
        // Whatever read a row without a key first has counted it.
        let counted = match (&page.purpose, self.sources.get(&source)) {
            (Purpose::Absence, Some(track)) => track.scan.as_ref().map_or(0, |scan| {
                scan.run.row.counters.reasons.get(SkipReason::NoKey)
            }),
            _ => 0,
        };
        let counts_keyless = match page.purpose {
            Purpose::Repair => false,
            Purpose::Sync => !page.absent.is_empty(),
            _ => counted == 0,
        };
        let history = self.sources.get(&source).map_or(0, |t| t.history);
        let mut alive = alive_steps(page);
        let is_polled = self.sources.get(&source).is_some_and(|t| t.poll.is_some());
        let publishes = page.purpose != Purpose::Repair;
        if publishes && !is_polled {
            self.publish_raw(source, run, alive.iter(), pending);
        }
        let mut overtaken = Vec::new();
        let mut own_rows = std::mem::take(&mut self.directory.page_rows);
        let mapped = match mapped {
            PageRows::Mapped(mapped) => mapped,
            PageRows::Hashed(hashes) => {
                overtaken = self.leave_unchanged(source, &mut alive, hashes, page, pending)?;
                map_steps(&mut alive, mappers, &mut own_rows);
                &own_rows
            }
            // It was joined before.
            PageRows::Unjoined { .. } => &own_rows,
        };
        let shared = self.preload(source, &alive, mapped)?;
        if is_polled {
            let polled = self.compare_polled(source, &alive, mapped, pending)?;
            if matches!(page.purpose, Purpose::Scan { .. }) {
                self.count_unmarked(source, &polled);
            }
            if publishes {
                let compared = alive.iter().zip(&polled);
                let changed = compared.filter(|(_, polled)| **polled != Polled::Same);
                self.publish_raw(source, run, changed.map(|(step, _)| step), pending);
            }
        }
        let directory = &mut self.directory;
        let mut absent = Vec::new();
        {
            let mut scratch = std::mem::take(&mut directory.scratch);
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            resolver.begin_batch(&shared);
            for step in &alive {
                let (Some(key), Some(index)) = (&step.key, step.mapped) else {
                    if counts_keyless {
                        resolver.unreadable_key(source);
                    }
                    continue;
                };
                if is_newer(&mut resolver, source, key, page, history)? {
                    overtaken.push(key.clone());
                    continue;
                }
                pending.changes += 1;
                let tx = step.change.tx();
                let change_ref = change_ref(key, None, tx, None, step.change.ordinal());
                let mapper = mappers[step.change.table_index()].as_ref();
                let row = (mapped.row(index), mapper);
                apply_row(
                    &mut resolver,
                    source,
                    &change_ref,
                    &step.change,
                    row,
                    &mut scratch,
                )?;
            }
            for key in &page.absent {
                if is_newer(&mut resolver, source, key, page, history)? {
                    overtaken.push(key.clone());
                    continue;
                }
                if page.purpose == Purpose::Repair {
                    resolver
                        .still_gone(source, key.as_bytes())
                        .map_err(failed)?;
                }
                absent.push(key.clone());
            }
            resolver.finish().map_err(failed)?;
            directory.scratch = scratch;
            directory.page_rows = own_rows;
        }
        if page.purpose == Purpose::Sync && alive.iter().all(|step| step.key.is_some()) {
            for key in &absent {
                self.remove_absent(source, key, LeaverReason::Absent, run, now, pending)?;
            }
        }
        // What is not written fills no lot: pages that wait while the store is busy are stored
        // together.
        pending.bytes += page.rows.size_bytes() * alive.len() / page.rows.len().max(1);
        let position = page.rows.cursor().text().to_owned();
        self.count(source, is_scan, &position, pending);
        match page.purpose {
            Purpose::Scan { number } => {
                let seen = page.keys().map(|k| seen_hash(k.as_bytes())).collect();
                self.scan_page(source, number, page.last.clone(), seen, pending);
                if self
                    .sources
                    .get(&source)
                    .is_some_and(|t| t.related.is_some())
                {
                    // What is newer may have come before it was known what is joined to it.
                    let record = |k: &Key| (source, KeyBytes::from_slice(k.as_bytes()));
                    pending.plan.reread.extend(overtaken.iter().map(record));
                }
            }
            Purpose::Absence => {
                if let Some(scan) = self.sources.get_mut(&source).and_then(|t| t.scan.as_mut()) {
                    scan.absent.extend(absent);
                }
            }
            Purpose::Changed | Purpose::Sync => {}
            // A record that was to be completed and is gone: the log says so itself, unless it
            // was gone already and something is due of it. One of which something newer is
            // known is asked for again, since what is newer may be incomplete too.
            // The records of a plan are handed over all at once (`super::planned`).
            Purpose::Plan { .. } => {}
            Purpose::Repair => {
                let record = |k: &Key| (source, KeyBytes::from_slice(k.as_bytes()));
                if self
                    .sources
                    .get(&source)
                    .is_some_and(|t| t.related.is_some())
                {
                    // What is still missing is missing in a related row: it would come back
                    // with as little.
                    let read: HashSet<(SourceId, KeyBytes)> = page.keys().map(record).collect();
                    pending.plan.reread.retain(|record| !read.contains(record));
                }
                pending
                    .commit
                    .repaired
                    .extend(page.asked.iter().map(record));
                pending.plan.reread.extend(overtaken.iter().map(record));
            }
        }
        pending.commit.related.add(related);
        self.await_related(source, pending);
        Ok(())
    }

    /// Takes the rows out of a page's steps that are as they are stored, and counts them: of
    /// such a row nothing but its hash is wanted, and nothing is written. Gives the records of
    /// which something newer is stored.
    fn leave_unchanged(
        &mut self,
        source: SourceId,
        alive: &mut Vec<Step<'_>>,
        hashes: &[Option<u64>],
        page: &HeldPage,
        pending: &mut Pending,
    ) -> Result<Vec<Key>, StoreError> {
        let history = self.sources.get(&source).map_or(0, |t| t.history);
        // The empty key is nobody's.
        let key = |step: &'_ Step<'_>| step.key.clone().unwrap_or_default();
        let keys: Vec<Key> = alive.iter().map(key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        let mut standing = vec![Standing::Other; alive.len()];
        let plan = &mut pending.plan;
        self.writer.glance(source, &keys, |at, user, document| {
            let record = || (source, KeyBytes::from_slice(keys[at]));
            if plan.users.get(user).is_some()
                || !plan.links.is_empty() && plan.links.contains_key(&record())
            {
                return;
            }
            let Some(link) = Document::live_link(document, source, keys[at]) else {
                return;
            };
            let tx = TxMark::of_history(TxId(link.tx.into()), history);
            if tx.is_some_and(|tx| page.window.may_be_newer(&tx)) {
                standing[at] = Standing::Overtaken;
            } else if alive[at].mapped.and_then(|row| hashes[row]) == Some(link.hash) {
                standing[at] = Standing::Same;
            }
        })?;
        let same = standing.iter().filter(|s| **s == Standing::Same).count() as u64;
        plan.counters.processed += same;
        plan.counters.unchanged += same;
        let mut standing = standing.into_iter();
        let mut overtaken = Vec::new();
        alive.retain_mut(|step| {
            let standing = standing.next().unwrap_or(Standing::Other);
            if standing == Standing::Overtaken {
                overtaken.extend(step.key.take());
            }
            standing == Standing::Other
        });
        Ok(overtaken)
    }

    /// Removes a record that a scan proved absent.
    pub(super) fn remove_absent(
        &mut self,
        source: SourceId,
        key: &Key,
        reason: LeaverReason,
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        let change = ChangeRef {
            key: key.as_bytes(),
            old_key: None,
            tx: &[],
            position: "",
            ordinal: 0,
            commit_us: now,
            origin: Origin::Scan,
        };
        resolver.remove(source, &change, reason).map_err(failed)?;
        resolver.finish().map_err(failed)
    }

    /// Appends the records of a source behind a key that are wanted, and present as far as the
    /// directory knows; of others nothing is read. Looks at a bounded number, and gives the
    /// last of them when there are more.
    pub(super) fn present_keys(
        &mut self,
        source: SourceId,
        after: Option<&Key>,
        mut is_wanted: impl FnMut(&[u8]) -> bool,
        into: &mut Vec<Key>,
    ) -> Result<Option<Key>, StoreError> {
        const AT_ONCE: usize = 10_000;
        let mut wanted = Vec::new();
        let last = self
            .writer
            .links_after(source, after, AT_ONCE, |key, target| {
                if is_wanted(key) {
                    wanted.extend(Key::from_bytes(key).map(|key| (key, target)));
                }
            })?;
        let mut bytes = Vec::new();
        for (key, target) in wanted {
            if let LinkTarget::User(row) = target {
                bytes.clear();
                self.writer.user(row, &mut bytes).map_err(failed)?;
                let Ok(document) = Document::decode(&bytes) else {
                    continue;
                };
                let link = document.find_link(source, key.as_bytes());
                if !link.is_some_and(|at| document.links[at].state.is_present()) {
                    continue;
                }
            }
            into.push(key);
        }
        Ok(last)
    }
}

/// Whether the directory holds something newer of a record than a page has read.
pub(super) fn is_newer(
    resolver: &mut Resolver<'_>,
    source: SourceId,
    key: &Key,
    page: &HeldPage,
    history: u8,
) -> Result<bool, StoreError> {
    let stored: Option<TxId> = resolver.link_tx(source, key.as_bytes()).map_err(failed)?;
    let stored = stored.and_then(|tx| TxMark::of_history(tx, history));
    Ok(stored.is_some_and(|tx| page.window.may_be_newer(&tx)))
}
