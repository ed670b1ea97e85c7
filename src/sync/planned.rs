//! Applying a plan that a simulation made: exactly that, or nothing.
//!
//! The driver has read every record of the plan again, in the page window like any other
//! page, so what is compared here is the source as of the log that is applied. Then:
//!
//! 1. Every record is compared with what the plan saw: its row, the user that it leads to,
//!    and that user's version. A record that already is what the plan makes of it (the plan
//!    was applied before, or a reconciliation came first) is left out.
//! 2. The rules run over the rest as they did in the simulation, page by page in its order,
//!    into one plan that is not stored yet. Who of several may have a value that they share
//!    hangs on all of them, so a plan holds every record of which the simulation wrote
//!    anything that others can be decided by, and what it knew beforehand: the match keys
//!    that several rows of a page, or of the whole table, have.
//! 3. The events of that plan are compared with those that the simulation made.
//!
//! Anything that differs is a refusal that names the records, and nothing was stored. Only
//! when all is equal it is stored, in one commit, so a crash leaves all of it or nothing.
//! Limits are not asked: whoever applies a plan has seen it.

mod digests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rollcall_contract::{Key, Pooled};
use rollcall_core::document::{Document, LinkState, Record};
use rollcall_core::event::EventBlock;
use rollcall_core::id::{MatchHash, RunId, SourceId, UserId};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::Join;
use rollcall_core::reason::LeaverReason;
use rollcall_core::staged::{Counting, Staged};
use rollcall_core::state::{KeyBytes, LinkTarget, State as _};
use rollcall_store::{StagedRow, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

pub use digests::{Digest, KeyText, conflict_of, digest, held_for, name_of_new};

use super::apply::{apply_row, change_ref, failed};
use super::clock::now_us;
use super::engine::Engine;
use super::pages::{alive_steps, is_newer};
use super::pending::Pending;
use super::track::TrackedRun;
use super::window::HeldPage;

/// A plan holds at most so many records; of each there are a few hundred bytes in memory.
pub const MAX_RECORDS: usize = 1_000_000;

/// A plan of at most so many records is applied: their rows, and what becomes of them, are in
/// memory until they are stored in one commit.
pub const MAX_APPLIED: usize = 50_000;

/// A refusal names at most so many records.
const MAX_NAMED: usize = 1_000;

/// Records that wait for approval are read so many at once.
const AT_ONCE: usize = 2_000;

/// What is to be applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Names the configuration of the source under which it was made.
    pub configuration: String,
    /// The store that it was made for.
    pub store: Uuid,
    /// Records of the source, in the order in which the simulation applied them.
    pub records: Vec<PlannedRecord>,
    /// Users that change because of these records without having one of them.
    pub others: Vec<SeenUser>,
    /// Digests of the events that belong to none of the records.
    pub other_events: Vec<Digest>,
    /// Match keys that several rows of a page have, for the pages that have some.
    pub shared: BTreeMap<u32, Vec<Digest>>,
    /// Match keys of which a first load knew beforehand that several rows have them.
    pub duplicates: Vec<Digest>,
}

/// A record of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedRecord {
    /// Its key.
    pub key: KeyText,
    /// The page on which the simulation found it.
    pub page: u32,
    /// Hash of its row; none when it is absent.
    pub row: Option<Digest>,
    /// The user that it led to.
    pub user: Option<SeenUser>,
    /// The version of its user when the plan is applied; none when it leads to no user.
    pub after: Option<u64>,
    /// How it is held when the plan is applied ([`held_for`]); none when it is not.
    pub held: Option<Digest>,
    /// Digests of its events.
    pub events: Vec<Digest>,
}

/// A user as the plan saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenUser {
    /// Its id.
    pub id: Uuid,
    /// Its version.
    pub version: u64,
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Answered {
    /// All of it is applied.
    Applied {
        /// The run that did it; none when nothing was left to do.
        run: Option<u64>,
        /// Records that were applied.
        records: u64,
        /// Records that were as the plan wants them already.
        already: u64,
    },
    /// Nothing was applied.
    Refused {
        /// Why.
        reason: String,
        /// What is not as the plan saw it.
        changed: Vec<Changed>,
        /// How many more there are.
        more: u64,
    },
}

impl Answered {
    /// A refusal that names no record.
    pub fn refused(reason: impl Into<String>) -> Answered {
        Answered::Refused {
            reason: reason.into(),
            changed: Vec::new(),
            more: 0,
        }
    }

    pub(super) fn changed(mut changed: Vec<Changed>) -> Answered {
        let more = changed.len().saturating_sub(MAX_NAMED) as u64;
        changed.truncate(MAX_NAMED);
        Answered::Refused {
            reason:
                "Something is not as the plan saw it. Nothing was applied. Fix: make a new plan"
                    .to_owned(),
            changed,
            more,
        }
    }
}

/// What is not as the plan saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The record's key, for people.
    pub record: String,
    /// What changed, in a few words.
    pub what: String,
}

/// The records of a plan, read again.
pub struct PlannedWork {
    /// Of which source.
    pub source: SourceId,
    /// The plan.
    pub plan: Planned,
    /// Everything that was read, in the order of the plan.
    pub pages: Vec<PlannedPage>,
    /// Told what became of it, behind the commit.
    pub reply: oneshot::Sender<Answered>,
}

/// Some records of a plan, read again. They stood on one page of the simulation.
pub struct PlannedPage {
    /// The number of that page.
    pub number: u32,
    /// The page, with what the log took out of it.
    pub page: HeldPage,
    /// One mapped row for each row of the page.
    pub mapped: Pooled<MappedRows>,
    /// The mapper of each table of the page.
    pub mappers: Vec<Arc<Mapper>>,
    /// How the rows of each table of the page are joined first; empty when they are not.
    pub joins: Vec<Arc<Join>>,
}

/// How a record stands to what a plan wants.
enum Standing {
    /// As the plan saw it.
    AsSeen,
    /// As the plan wants it.
    AsWanted,
    /// Otherwise.
    Changed(&'static str),
}

impl Engine {
    /// Applies a plan or refuses it. Nothing else is pending.
    pub(super) fn apply_planned(
        &mut self,
        work: PlannedWork,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let answer = self.planned(work.source, &work.plan, &work.pages, pending)?;
        let reply = work.reply;
        pending.then(move || {
            // Whoever asked may be gone; it is applied or refused all the same.
            let _ = reply.send(answer);
        });
        Ok(())
    }

    fn planned(
        &mut self,
        source: SourceId,
        plan: &Planned,
        pages: &[PlannedPage],
        pending: &mut Pending,
    ) -> Result<Answered, StoreError> {
        let mut changed = Vec::new();
        let mut wanted = Vec::new();
        let mut already = 0;
        let rows = rows_of(pages);
        for record in &plan.records {
            let key = &record.key.0;
            let now = rows.get(key).copied();
            match self.standing(source, record, now, pages)? {
                Standing::AsSeen => wanted.push(record),
                Standing::AsWanted => already += 1,
                Standing::Changed(what) => changed.push(Changed {
                    record: key.display(),
                    what: what.to_owned(),
                }),
            }
        }
        if !wanted.is_empty() {
            for seen in &plan.others {
                if self.readers_version(seen.id)? != Some(seen.version) {
                    changed.push(Changed {
                        record: format!("user {}", seen.id),
                        what: "the user changed".to_owned(),
                    });
                }
            }
        }
        if !changed.is_empty() {
            return Ok(Answered::changed(changed));
        }
        if wanted.is_empty() {
            return Ok(Answered::Applied {
                run: None,
                records: 0,
                already,
            });
        }
        let now = now_us();
        let mut run = TrackedRun::new(self.new_run(source, "apply", "manual", now)?);
        self.resolve_planned(source, plan, &wanted, pages, run.row.id, now, pending)?;
        let mut expected: Vec<Digest> = wanted.iter().flat_map(|r| r.events.clone()).collect();
        expected.extend(&plan.other_events);
        let changed = differences(expected, &wanted, &pending.plan);
        if !changed.is_empty() {
            // Decided, and never stored.
            pending.plan.clear();
            return Ok(Answered::changed(changed));
        }
        // Somebody has looked.
        pending.plan.counted.clear();
        run.take_over(&self.directory, pending);
        let (id, records) = (run.row.id, wanted.len() as u64);
        self.end_run(run.row, "completed", None, pending, now);
        Ok(Answered::Applied {
            run: Some(id.0),
            records,
            already,
        })
    }

    fn readers_version(&self, id: Uuid) -> Result<Option<u64>, StoreError> {
        let user = self.readers.user_by_id(UserId(*id.as_bytes()))?;
        Ok(user.and_then(|u| Document::decode(&u.document).ok().map(|d| d.version)))
    }

    /// Compares a record with what the plan saw and with what it wants.
    fn standing(
        &mut self,
        source: SourceId,
        record: &PlannedRecord,
        row: Option<Place>,
        pages: &[PlannedPage],
    ) -> Result<Standing, StoreError> {
        let key = &record.key.0;
        let row = match row {
            Some(place) => {
                let page = &pages[place.page];
                if !place.is_alive {
                    return Ok(Standing::Changed("the record changed just now"));
                }
                Some(Digest(page.mapped.row(place.mapped).hash()))
            }
            None => None,
        };
        if row != record.row {
            return Ok(Standing::Changed(match (row, record.row) {
                (None, _) => "the record is gone",
                (_, None) => "the record is there again",
                _ => "the record has another row",
            }));
        }
        let hash = row.map(|digest| digest.0);
        let mut bytes = Vec::new();
        Ok(
            match self.writer.link(source, key.as_bytes()).map_err(failed)? {
                None if record.user.is_some() => Standing::Changed("the record leads to nobody"),
                None if row.is_none() => Standing::AsWanted,
                None => Standing::AsSeen,
                Some(LinkTarget::Record) => {
                    self.writer
                        .record(source, key.as_bytes(), &mut bytes)
                        .map_err(failed)?;
                    let stored = Record::decode(&bytes).ok();
                    let is_so = stored.is_some_and(|stored| {
                        Some(stored.hash) == hash
                            && Some(held_for(stored.reason, stored.hold)) == record.held
                    });
                    match record.user {
                        Some(_) => Standing::Changed("the record leads to nobody"),
                        None if record.after.is_none() && is_so => Standing::AsWanted,
                        None => Standing::AsSeen,
                    }
                }
                Some(LinkTarget::User(user)) => {
                    self.writer.user(user, &mut bytes).map_err(failed)?;
                    let document =
                        Document::decode(&bytes).map_err(|e| StoreError::Refused(e.to_string()))?;
                    let link = document
                        .find_link(source, key.as_bytes())
                        .map(|at| document.links[at]);
                    let is_so = link.is_some_and(|link| match (link.state, hash) {
                        (state, None) => {
                            let gone = state.gone();
                            gone.is_some_and(|reason| reason != LeaverReason::OutOfScope)
                        }
                        (LinkState::Held(reason), Some(hash)) => {
                            link.hash == hash && Some(held_for(reason, link.hold)) == record.held
                        }
                        (_, Some(hash)) => link.hash == hash && record.held.is_none(),
                    });
                    let seen = SeenUser {
                        id: Uuid::from_bytes(document.id.0),
                        version: document.version,
                    };
                    if is_so && record.after == Some(document.version) {
                        Standing::AsWanted
                    } else if record.user == Some(seen) {
                        Standing::AsSeen
                    } else if record.user.is_some_and(|user| user.id == seen.id) {
                        Standing::Changed("its user changed")
                    } else {
                        Standing::Changed("the record leads to another user")
                    }
                }
            },
        )
    }

    /// Runs the rules over these records, as the simulation did.
    #[expect(clippy::too_many_arguments, reason = "a plan, and what is left of it")]
    fn resolve_planned(
        &mut self,
        source: SourceId,
        plan: &Planned,
        wanted: &[&PlannedRecord],
        pages: &[PlannedPage],
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        // As in a scan: what counts comes behind everything else.
        let has_limit = self.sources.get(&source).is_some_and(|t| t.limit.is_some());
        let counting = if has_limit {
            Counting::HoldBack
        } else {
            Counting::Apply
        };
        self.directory.rules.set_counting(source, counting);
        let history = self.sources.get(&source).map_or(0, |t| t.history);
        let wants: HashSet<&Key> = wanted.iter().map(|r| &r.key.0).collect();
        let known = hashes(&plan.duplicates);
        let mut groups: Vec<(u32, Vec<&PlannedPage>)> = Vec::new();
        for page in pages {
            match groups.last_mut() {
                Some((n, group)) if *n == page.number => group.push(page),
                _ => groups.push((page.number, vec![page])),
            }
        }
        self.directory.rules.known_duplicates.extend(&known);
        for (number, group) in &groups {
            let shared = plan.shared.get(number).map(|keys| hashes(keys));
            let directory = &mut self.directory;
            let mut scratch = std::mem::take(&mut directory.scratch);
            let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
            resolver.begin_batch(&shared.unwrap_or_default());
            for planned in group {
                let page = &planned.page;
                for step in alive_steps(page) {
                    let (Some(key), Some(index)) = (&step.key, step.mapped) else {
                        continue;
                    };
                    if !wants.contains(key) || is_newer(&mut resolver, source, key, page, history)?
                    {
                        continue;
                    }
                    pending.changes += 1;
                    let tx = step.change.tx();
                    let change = change_ref(key, None, tx, None, step.change.ordinal());
                    let mapper = planned.mappers[step.change.table_index()].as_ref();
                    let row = (planned.mapped.row(index), mapper);
                    apply_row(
                        &mut resolver,
                        source,
                        &change,
                        &step.change,
                        row,
                        &mut scratch,
                    )?;
                }
            }
            resolver.finish().map_err(failed)?;
            directory.scratch = scratch;
            self.tell_all_relinked(run, now, pending)?;
        }
        for record in wanted.iter().filter(|r| r.row.is_none()) {
            let key = &record.key.0;
            self.remove_absent(source, key, LeaverReason::Absent, run, now, pending)?;
        }
        self.tell_all_relinked(run, now, pending)?;
        let rows = self.waiting(source, &wants, pending)?;
        self.directory.rules.set_counting(source, Counting::Apply);
        self.approve_planned(source, &rows, pages, run, now, pending)?;
        self.know_duplicates();
        if !known.is_empty() {
            self.retry(&known.into_iter().collect(), run, now, pending)?;
        }
        self.tell_all_relinked(run, now, pending)
    }

    /// Applies what waits, with the rows that were read: what is stored may leave something out.
    fn approve_planned(
        &mut self,
        source: SourceId,
        rows: &[StagedRow],
        pages: &[PlannedPage],
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let places = rows_of(pages);
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        for StagedRow { key, staged } in rows {
            let place = Key::from_bytes(key).and_then(|key| places.get(&key));
            match place.filter(|_| staged.kind.gone().is_none()) {
                Some(place) => {
                    let row = pages[place.page].mapped.row(place.mapped);
                    resolver.approve_row(source, key, row)
                }
                None => resolver.approve(source, key, staged),
            }
            .map_err(failed)?;
        }
        resolver.finish().map_err(failed)
    }

    /// Of these records, those that wait for approval, with what is pending.
    fn waiting(
        &mut self,
        source: SourceId,
        wants: &HashSet<&Key>,
        pending: &Pending,
    ) -> Result<Vec<StagedRow>, StoreError> {
        let is_wanted = |key: &[u8]| Key::from_bytes(key).is_some_and(|key| wants.contains(&key));
        let mut rows: BTreeMap<KeyBytes, Staged> = BTreeMap::new();
        let mut after = KeyBytes::new();
        loop {
            let some = self.writer.staged_after(source, false, &after, AT_ONCE)?;
            let is_last = some.len() < AT_ONCE;
            for row in some {
                after.clone_from(&row.key);
                if is_wanted(&row.key) {
                    rows.insert(row.key, row.staged);
                }
            }
            if is_last {
                break;
            }
        }
        for ((_, key), staged) in pending.plan.staged.iter().filter(|(r, _)| r.0 == source) {
            match staged {
                Some(staged) => rows.insert(key.clone(), *staged),
                None => rows.remove(key),
            };
        }
        let row = |(key, staged)| StagedRow { key, staged };
        Ok(rows.into_iter().map(row).collect())
    }
}

fn hashes(digests: &[Digest]) -> Vec<MatchHash> {
    digests.iter().map(|digest| MatchHash(digest.0)).collect()
}

/// Where a record's row was read.
#[derive(Clone, Copy)]
struct Place {
    page: usize,
    mapped: usize,
    is_alive: bool,
}

fn rows_of(pages: &[PlannedPage]) -> HashMap<Key, Place> {
    let mut rows = HashMap::new();
    for (page, planned) in pages.iter().enumerate() {
        for row in 0..planned.page.rows.len() {
            if let Some(key) = planned.page.key(row) {
                let place = Place {
                    page,
                    mapped: row,
                    is_alive: planned.page.is_alive(row),
                };
                rows.insert(key.clone(), place);
            }
        }
    }
    rows
}

/// Where the events of a plan are not those that were foretold.
fn differences(
    mut expected: Vec<Digest>,
    wanted: &[&PlannedRecord],
    plan: &rollcall_core::plan::Plan,
) -> Vec<Changed> {
    let mut new = HashMap::new();
    let mut records = HashMap::new();
    for (_, write) in plan.users.iter() {
        let Ok(document) = Document::decode(write.document) else {
            continue;
        };
        if write.is_new {
            new.extend(name_of_new(&document).map(|name| (document.id, name)));
        }
        let links = document.links.iter().filter_map(|l| Key::from_bytes(l.key));
        let keys: Vec<String> = links.map(|key| key.display()).collect();
        records.insert(document.id, keys.join(" and "));
    }
    expected.sort_unstable();
    let mut left: HashMap<Digest, usize> = HashMap::new();
    for digest in expected {
        *left.entry(digest).or_default() += 1;
    }
    let mut changed = Vec::new();
    for event in EventBlock::decode(plan.events.as_bytes()).flatten() {
        let Some(digest) = digest(&event, |user| new.get(&user).copied()) else {
            continue;
        };
        match left.get_mut(&digest).filter(|n| **n > 0) {
            Some(n) => *n -= 1,
            None => {
                let record = match event.user {
                    Some(user) => records.get(&user).cloned().unwrap_or_default(),
                    None => {
                        let keys = conflict_of(&event).1;
                        let keys: Vec<String> = keys.iter().map(Key::display).collect();
                        keys.join(" and ")
                    }
                };
                changed.push(Changed {
                    record,
                    what: format!("{} does not follow from the plan", event.kind.type_name()),
                });
            }
        }
    }
    for record in wanted {
        if record
            .events
            .iter()
            .any(|digest| left.get(digest).is_some_and(|n| *n > 0))
        {
            changed.push(Changed {
                record: record.key.0.display(),
                what: "what the plan says does not follow any more".to_owned(),
            });
        }
    }
    if changed.is_empty() && left.values().any(|n| *n > 0) {
        changed.push(Changed {
            record: String::new(),
            what: "what the plan says does not follow any more".to_owned(),
        });
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hashes_pass_through_json_unchanged() {
        let mut key = Key::new();
        key.push(b"4711");
        key.push(&[0, 255]);
        let record = PlannedRecord {
            key: KeyText(key.clone()),
            page: 3,
            row: Some(Digest(u64::MAX)),
            user: None,
            after: Some(1),
            held: None,
            events: vec![Digest(7)],
        };
        let text = serde_json::to_string(&record).unwrap_or_default();
        let back: Result<PlannedRecord, _> = serde_json::from_str(&text);
        let back = back.ok();
        assert_eq!(back.as_ref().map(|r| &r.key.0), Some(&key));
        assert_eq!(back.and_then(|r| r.row), Some(Digest(u64::MAX)));
        for wrong in ["\"0\"", "\"zz\"", "\"05aa\"", "\"é\"", "1"] {
            assert!(serde_json::from_str::<KeyText>(wrong).is_err(), "{wrong}");
        }
    }
}
