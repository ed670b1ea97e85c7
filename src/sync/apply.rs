//! Changes, resolved: from mapped rows to a plan; and what pages ([`super::pages`]) share
//! with them.
//!
//! The records of a batch are read from the store beforehand with their keys sorted, the
//! rules run over what was read, and the plan gathers final states. A row whose image is
//! incomplete is completed from its stored shadow here, since only here the shadow is at
//! hand; what even the shadow does not have is read again from the source.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashMap;
use rollcall_contract::{Batch, Before, Change, Key, Op};
use rollcall_core::attribute::{AttrId, Attributes};
use rollcall_core::directory::{
    ChangeRef, FieldRules, LeaverAction, LeaverRules, Mode, Origin, Remap, Resolver, RowKeys,
    Rules, SourceRules, Workspace,
};
use rollcall_core::document::Moment;
use rollcall_core::event::EventKind;
use rollcall_core::id::{MatchHash, RunId, SourceId};
use rollcall_core::mapped::{Assigned, MappedRow, MappedRows, Outcome};
use rollcall_core::mapping::Mapper;
use rollcall_core::plan::Plan;
use rollcall_core::reason::LeaverReason;
use rollcall_core::state::StateError;
use rollcall_store::{StoreError, Writer};

use super::clock::now_us;
use super::engine::Engine;
use super::envelope::Stream;
use super::ids::Ids;
use super::pending::Pending;
use super::track::TxMark;
use super::work::Changes;
use crate::config::{self, Config};

/// The mappers in force, shared with the rules so that stored shadows can be mapped again.
#[derive(Clone, Default)]
pub struct Mappers(Arc<RwLock<HashMap<SourceId, Arc<Mapper>>>>);

impl Mappers {
    fn get(&self, source: SourceId) -> Option<Arc<Mapper>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&source)
            .cloned()
    }

    /// A source's mapping from here on.
    pub(crate) fn set(&self, source: SourceId, mapper: Arc<Mapper>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source, mapper);
    }
}

impl Remap for Mappers {
    fn remap(&self, source: SourceId, shadow: &[u8], out: &mut MappedRows) {
        if let Some(mapper) = self.get(source) {
            mapper.map_shadow_or_defer(shadow, out);
        }
    }

    fn changed(
        &self,
        source: SourceId,
        attribute: AttrId,
        shadow: &[u8],
    ) -> Option<Option<Moment>> {
        self.get(source)?.changed(attribute, shadow)
    }
}

/// The rules of the organization and what applying them needs between two batches.
pub struct Directory {
    pub(super) rules: Rules,
    mappers: Mappers,
    ids: Ids,
    workspace: Workspace,
    pub(super) scratch: MappedRows,
    /// Rows of a page that had not been mapped.
    pub(super) page_rows: MappedRows,
    keys: RowKeys,
}

/// The organization's rules, from its configuration.
pub fn rules(
    config: &Config,
    ids: &HashMap<String, SourceId>,
    attributes: &Attributes,
    mappers: Mappers,
) -> Rules {
    let attribute = |name: &String| attributes.by_name(name).map(|a| a.id);
    let sources = config
        .sources
        .iter()
        .filter_map(|source| {
            let mut rules = SourceRules::new(*ids.get(&source.name)?, source.name.clone());
            rules.match_attributes = source
                .match_attributes
                .iter()
                .filter_map(attribute)
                .collect();
            rules.fingerprint = source.fingerprint.iter().filter_map(attribute).collect();
            rules.leaver = leaver_rules(&source.leaver);
            Some(rules)
        })
        .collect();
    let fields = config.fields.iter().filter_map(|(name, field)| {
        let order = field.authority.iter();
        let rules = FieldRules {
            authority: order
                .filter_map(|source| ids.get(source).copied())
                .collect(),
            mode: field.mode.map(mode),
            skew_us: field
                .skew
                .map_or(FieldRules::SKEW_US, |skew| skew.as_micros() as u64),
        };
        Some((attribute(name)?, rules))
    });
    let fields = fields.collect();
    Rules::new(
        &config.organization,
        attributes.clone(),
        sources,
        fields,
        Box::new(mappers),
    )
}

fn leaver_rules(leaver: &config::LeaverConfig) -> LeaverRules {
    let us = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    LeaverRules {
        action: match leaver.action {
            config::LeaverAction::Deactivate => LeaverAction::Deactivate,
            config::LeaverAction::Ignore => LeaverAction::Ignore,
        },
        grace_us: us(leaver.deactivate_after),
        delete_after_us: leaver.delete_after.map(us),
        purge_after_us: us(leaver.purge_after),
    }
}

fn mode(mode: config::FieldMode) -> Mode {
    match mode {
        config::FieldMode::SourceWins => Mode::SourceWins,
        config::FieldMode::TargetWins => Mode::TargetWins,
        config::FieldMode::MostRecent => Mode::MostRecent,
        config::FieldMode::IfEmpty => Mode::IfEmpty,
        config::FieldMode::OnCreate => Mode::OnCreate,
        config::FieldMode::Merge => Mode::Merge,
    }
}

impl Directory {
    /// What the end of a record does, by source.
    pub(super) fn leavers(&self) -> HashMap<SourceId, LeaverRules> {
        let sources = self.rules.sources().iter();
        sources.map(|s| (s.id, s.leaver)).collect()
    }

    /// A directory under these rules, that makes these ids.
    pub fn new(rules: Rules, mappers: Mappers, ids: Ids) -> Directory {
        Directory {
            rules,
            mappers,
            ids,
            workspace: Workspace::default(),
            scratch: MappedRows::default(),
            page_rows: MappedRows::default(),
            keys: RowKeys::default(),
        }
    }

    /// The mapping that a source's rows and shadows have from here on.
    pub(super) fn set_mapper(&mut self, source: SourceId, mapper: Arc<Mapper>) {
        let paused = mapper.paused().iter().map(|p| p.attribute).collect();
        self.rules.set_paused(source, paused);
        self.mappers.set(source, mapper);
    }

    /// The mapping that a source's rows have.
    pub(super) fn mapper(&self, source: SourceId) -> Option<Arc<Mapper>> {
        self.mappers.get(source)
    }

    /// The attributes of a source of which nothing is said at present.
    pub(super) fn paused(&self, source: SourceId) -> Vec<AttrId> {
        let rules = self.rules.source(source);
        rules.map(|r| r.paused.clone()).unwrap_or_default()
    }

    /// An attribute by its name.
    pub(super) fn attribute_id(&self, name: &str) -> Option<AttrId> {
        self.rules.attributes.by_name(name).map(|a| a.id)
    }

    /// The name of an attribute.
    pub(super) fn attribute_name(&self, id: AttrId) -> Option<String> {
        self.rules.attributes.get(id).map(|a| a.name.clone())
    }

    /// Resolves into a plan, over what the store holds.
    pub(super) fn resolver<'r>(
        &'r mut self,
        store: &'r mut Writer,
        plan: &'r mut Plan,
        now: i64,
        run: RunId,
    ) -> Resolver<'r> {
        Resolver::new(
            &self.rules,
            store,
            plan,
            &mut self.ids,
            &mut self.workspace,
            now,
            run,
        )
    }

    pub(super) fn set_known_duplicates(&mut self, duplicates: &HashSet<MatchHash>) {
        self.rules.known_duplicates = duplicates.iter().copied().collect();
    }

    /// The deterministic id of an operational event.
    pub(super) fn operational_id(&self, kind: EventKind, source: &str, what: &str) -> [u8; 16] {
        let text = format!(
            "{}\n{}\n{source}\n{what}",
            self.rules.organization, kind as u8
        );
        xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_be_bytes()
    }
}

pub(super) fn failed(e: StateError) -> StoreError {
    StoreError::Refused(e.to_string())
}

/// The keys of a change: where it leads and where it comes from.
fn keys(change: &Change<'_>) -> (Option<Key>, Option<Key>) {
    let table = change.table();
    let after = change.after().and_then(|row| Key::of_row(table, &row));
    let before = Before::row(change.before()).and_then(|row| Key::of_row(table, &row));
    (after, before)
}

/// What happens to one record, with its keys at hand.
pub(super) struct Step<'a> {
    pub(super) change: Change<'a>,
    pub(super) key: Option<Key>,
    pub(super) old_key: Option<Key>,
    /// Index of what was made of its row.
    pub(super) mapped: Option<usize>,
}

/// Every change of a batch.
fn steps(batch: &Batch) -> Vec<Step<'_>> {
    let mut next = 0;
    let all = batch.changes().map(|change| {
        let mapped = change.after().is_some().then(|| {
            next += 1;
            next - 1
        });
        let (key, old_key) = keys(&change);
        Step {
            change,
            key,
            old_key,
            mapped,
        }
    });
    all.collect()
}

/// The keys that rows name which may be of new records. Others mostly name whom they named.
fn named_by_new<'m>(steps: &[Step<'_>], mapped: &'m MappedRows) -> impl Iterator<Item = &'m [u8]> {
    let is_new = |step: &&Step<'_>| matches!(step.change.op(), Op::Insert | Op::Read);
    let rows = steps.iter().filter(is_new).filter_map(|step| step.mapped);
    rows.flat_map(|index| mapped.row(index).fields())
        .filter_map(|field| match field.assigned {
            Assigned::Reference(key) => Some(key),
            Assigned::Value(_) | Assigned::Clear | Assigned::Keep => None,
        })
}

/// Match keys that several records will have when these steps have been taken. `matches`
/// are the match keys of each step's row.
pub(super) fn duplicates(
    steps: &[Step<'_>],
    mut matches: Vec<(MatchHash, usize)>,
) -> Vec<MatchHash> {
    matches.sort_unstable();
    let key = |at: usize| steps.get(at).and_then(|s| s.key.as_ref());
    // Which step says what each record is in the end; rarely needed.
    let mut last: Option<HashMap<&Key, Option<usize>>> = None;
    let mut found = Vec::new();
    for same in matches.chunk_by(|a, b| a.0 == b.0) {
        let [(hash, first), rest @ ..] = same else {
            continue;
        };
        if rest.iter().all(|(_, at)| key(*at) == key(*first)) {
            continue;
        }
        let last = last.get_or_insert_with(|| {
            let mut last = HashMap::with_capacity(steps.len());
            for (at, step) in steps.iter().enumerate() {
                last.extend(step.old_key.iter().map(|old| (old, None)));
                last.extend(step.key.iter().map(|key| (key, Some(at))));
            }
            last
        });
        let stays = |at: usize| key(at).and_then(|k| last.get(k)) == Some(&Some(at));
        if same.iter().filter(|(_, at)| stays(*at)).count() > 1 {
            found.push(*hash);
        }
    }
    found
}

impl Engine {
    pub(super) fn apply_changes(
        &mut self,
        work: &Changes,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let Changes {
            source,
            batch,
            mapped,
            mappers,
            ..
        } = work;
        let source = *source;
        let now = now_us();
        self.set_counting(source, false);
        let run = self.stream_run(source, now)?;
        self.note_run(source, pending);
        let steps = steps(batch);
        let shared = self.preload(source, &steps, mapped)?;
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        if let Some(scan) = track.scan.as_mut().filter(|s| !s.absent.is_empty()) {
            for key in steps.iter().flat_map(|s| [&s.key, &s.old_key]).flatten() {
                scan.absent.remove(key);
            }
        }
        let history = track.history;
        pending.plan.events.reserve(self.event_bytes * steps.len());
        self.publish_raw(source, run, steps.iter(), pending);
        let directory = &mut self.directory;
        let mut scratch = std::mem::take(&mut directory.scratch);
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        resolver.begin_batch(&shared);
        for step in &steps {
            let change = &step.change;
            let tx = change.tx();
            let mark = TxMark::new(&tx.id, history);
            pending.changes += 1;
            match (change.op(), &step.key, &step.old_key) {
                (Op::Delete, _, Some(key)) => {
                    let change = change_ref(key, None, tx, Some(&mark), change.ordinal());
                    resolver
                        .remove(source, &change, LeaverReason::Deleted)
                        .map_err(failed)?;
                }
                (Op::Insert | Op::Update | Op::Read, Some(key), old_key) => {
                    let old_key = old_key.as_ref().filter(|old| *old != key);
                    let Some(index) = step.mapped else { continue };
                    let change_ref = change_ref(key, old_key, tx, Some(&mark), change.ordinal());
                    let row = (mapped.row(index), mappers[change.table_index()].as_ref());
                    apply_row(
                        &mut resolver,
                        source,
                        &change_ref,
                        change,
                        row,
                        &mut scratch,
                    )?;
                }
                // Everybody is absent at once: the driver opens a gap, and a scan finds out.
                (Op::Truncate, _, _) => {}
                // A record whose key cannot be read cannot be named; counted, never guessed.
                (_, None, _) | (Op::Delete, _, None) => resolver.unreadable_key(source),
            }
        }
        resolver.finish().map_err(failed)?;
        directory.scratch = scratch;
        for step in &steps {
            pending.committed_at(step.change.tx().commit_us);
        }
        pending.bytes += batch.size_bytes();
        pending.queued_bytes += work.queued_bytes;
        pending.changes += work.related_rows;
        pending.commit.related.add(&work.related);
        let again = work.reread.iter().map(|key| (source, key.clone()));
        pending.plan.reread.extend(again);
        self.await_related(source, pending);
        pending.progress(source, batch.cursor().clone());
        self.count(source, false, batch.cursor().text(), pending);
        Ok(())
    }

    /// Publishes raw changes, if the source does that.
    pub(super) fn publish_raw<'s, 'b: 's>(
        &self,
        source: SourceId,
        run: RunId,
        steps: impl Iterator<Item = &'s Step<'b>>,
        pending: &mut Pending,
    ) {
        if let Some(track) = self.sources.get(&source)
            && let Some(raw) = &track.raw_changes
        {
            let stream = Stream {
                source,
                name: &track.name,
                run,
                redact: &raw.redact,
            };
            for step in steps {
                stream.push(&step.change, &mut pending.plan.events);
            }
        }
    }

    /// Remembers what the stream's run had counted before the lot.
    pub(super) fn note_run(&self, source: SourceId, pending: &mut Pending) {
        let run = self
            .sources
            .get(&source)
            .and_then(|t| t.stream_run.as_ref());
        let counted = run.map(|r| (r.row.counters, r.row.unlisted));
        pending.run_before = pending.run_before.or(counted);
    }

    /// Adds what the plan counted since the last time to the run that did it.
    pub(super) fn count(
        &mut self,
        source: SourceId,
        scan: bool,
        position: &str,
        pending: &mut Pending,
    ) {
        let Some(track) = self.sources.get_mut(&source) else {
            return;
        };
        position.clone_into(&mut track.position);
        let run = if scan {
            track.scan.as_mut().map(|s| &mut s.run)
        } else {
            track.stream_run.as_mut()
        };
        if let Some(run) = run {
            run.take_over(&self.directory, pending);
            run.row.to = Some(position.to_owned());
        }
    }

    /// Reads what the steps are going to ask of the store, in the order of the keys. Gives
    /// the match keys that several records will have.
    pub(super) fn preload(
        &mut self,
        source: SourceId,
        steps: &[Step<'_>],
        mapped: &MappedRows,
    ) -> Result<Vec<MatchHash>, StoreError> {
        let keys = steps
            .iter()
            .flat_map(|s| [&s.key, &s.old_key])
            .flatten()
            .map(Key::as_bytes);
        match mapped.has_references() {
            false => self.writer.preload(source, keys)?,
            true => {
                let named = named_by_new(steps, mapped);
                self.writer.preload(source, keys.chain(named))?;
            }
        }
        let mut values = Vec::new();
        let mut matches = Vec::with_capacity(steps.len());
        let Directory { rules, keys, .. } = &mut self.directory;
        for (at, step) in steps.iter().enumerate() {
            let Some(row) = step.mapped.map(|index| mapped.row(index)) else {
                continue;
            };
            if row.outcome() != Outcome::Mapped {
                continue;
            }
            rules.keys_of(source, &row, keys);
            matches.extend(keys.matches.iter().map(|hash| (*hash, at)));
            if matches!(step.change.op(), Op::Insert | Op::Read) {
                values.extend_from_slice(&keys.values);
            }
        }
        self.writer.preload_owners(values)?;
        Ok(duplicates(steps, matches))
    }

    /// Considers records again that were held because of these match keys.
    pub(super) fn retry(
        &mut self,
        keys: &HashSet<MatchHash>,
        run: RunId,
        now: i64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        let keys: Vec<MatchHash> = keys.iter().copied().collect();
        resolver.retry(&keys).map_err(failed)?;
        resolver.finish().map_err(failed)
    }
}

pub(super) fn change_ref<'a>(
    key: &'a Key,
    old_key: Option<&'a Key>,
    tx: &'a rollcall_contract::Tx,
    mark: Option<&'a TxMark>,
    ordinal: u32,
) -> ChangeRef<'a> {
    ChangeRef {
        key: key.as_bytes(),
        old_key: old_key.map(Key::as_bytes),
        tx: mark.map_or(&[], TxMark::as_bytes),
        position: tx.position(),
        ordinal,
        commit_us: tx.commit_us,
        origin: if mark.is_some() {
            Origin::Log
        } else {
            Origin::Scan
        },
    }
}

/// Applies a row. One that is not complete is mapped again, with what is stored of its record.
pub(super) fn apply_row(
    resolver: &mut Resolver<'_>,
    source: SourceId,
    change_ref: &ChangeRef<'_>,
    change: &Change<'_>,
    (row, mapper): (MappedRow<'_>, &Mapper),
    scratch: &mut MappedRows,
) -> Result<(), StoreError> {
    if row.outcome() != Outcome::Deferred {
        return resolver.apply(source, change_ref, row).map_err(failed);
    }
    let Some(image) = change.after() else {
        return Ok(());
    };
    let mut shadow = Vec::new();
    let stored_under = change_ref.old_key.unwrap_or(change_ref.key);
    resolver
        .stored_shadow(source, stored_under, &mut shadow)
        .map_err(failed)?;
    scratch.clear();
    mapper.map(&image, Some(&shadow), scratch);
    resolver
        .apply(source, change_ref, scratch.row(0))
        .map_err(failed)
}
