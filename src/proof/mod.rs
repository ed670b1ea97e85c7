//! The directory against its source, record by record, while everything goes on.
//!
//! The source is read in pages, and what a row becomes by the mapping is compared with what
//! its record gives to its user. A record that is equal is proved at once. One that differs
//! may only be on its way, so it is read again by key, and the difference counts when
//!
//! - the log is taken in past everything that this reading saw
//!   ([`rollcall_contract::Window::is_closed_by`] the stored cursor), and
//! - what the directory holds of the record is not newer than the reading
//!   ([`rollcall_contract::Window::may_be_newer`] of the stored transaction), and
//! - both are so twice, because a record that is gone may leave nothing that tells when.
//!
//! So a difference that stays is proved, however fast the log flows, and a record that is
//! changed all the while is named as such and never as drift. Where the log is not taken in
//! in time (no daemon runs, or it is far behind) what differs is named too, and that it may
//! be on its way.
//!
//! Rows of related tables are stored, and a record's row is joined with them before it is
//! compared; they are compared as well ([`related`]). While a change of one is still to be told
//! to its records, nothing is proved by a difference.
//!
//! Records that failed, or are held for a person, differ by rule. They are counted apart, as
//! long as what is held is what the source has. Those whose change waits in a plan are named as
//! that. No value leaves this module unless it is asked for.
//!
//! `rollcall verify` proves a whole table at once. The daemon does it a slice at a time
//! ([`rolling`]): a slice is a page of the table, and as many records that the directory has,
//! which are asked for by key. So absence is found without remembering what was seen, and in
//! whichever order the source sorts its keys.

mod compare;
pub mod pacing;
mod related;
pub mod rolling;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use rollcall_contract::{
    ConnectorError, Cursor, Key, Page, PageRequest, Source, TableNo, TableSchema, TxId,
};
use rollcall_core::attribute::Attributes;
use rollcall_core::document::LinkState;
use rollcall_core::id::SourceId;
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Join, RelatedSpec};
use rollcall_core::plan::Counters;
use rollcall_core::reason::SkipReason;
use rollcall_store::{Readers, RelatedId, StoreError, Walk};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::sync::joined::{StoredRows, joined};
use crate::sync::track::history_of;
use crate::sync::window::NoLog;
use compare::Verdict;

/// At most so many records of each sort are named; all are counted.
const NAMED_MAX: usize = 10_000;
/// At most so many records are read again in one call.
const KEYS_PER_READ: usize = 1_000;
/// How long to wait before the store is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How the proof ended.
#[derive(Debug, Default, serde::Serialize)]
pub struct Proof {
    /// The source.
    pub source: String,
    /// Whether nothing drifted.
    pub equal: bool,
    /// Readable position of the last reading.
    pub position: String,
    /// Records that the source has.
    pub records: u64,
    /// Records whose values are in the directory.
    pub applied: u64,
    /// Records outside of the scope.
    pub out_of_scope: u64,
    /// Records that are held for a person.
    pub held: u64,
    /// Records that cannot be mapped.
    pub failed: u64,
    /// Records whose change waits in a plan, those that are gone included.
    pub staged: u64,
    /// Records that were changed whenever they were looked at.
    pub moving: u64,
    /// Records that differ.
    pub differing: u64,
    /// Keys of records whose change waits in a plan, the first of them.
    pub staged_records: Vec<String>,
    /// Keys of records that were changed whenever they were looked at, the first of them.
    pub moving_records: Vec<String>,
    /// What differs, the first of it.
    pub drifted: Vec<Drift>,
    /// The records once more, as a run counts them.
    #[serde(skip)]
    pub counters: Counters,
}

/// A record that differs, or a row of a related table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drift {
    /// Its key.
    pub record: String,
    /// In which way.
    pub what: &'static str,
    /// Whether the directory had taken in all that the reading saw. If not, it may be on its
    /// way.
    pub proved: bool,
    /// The attributes concerned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldDrift>,
    /// The related table; none for a record.
    #[serde(skip)]
    pub related: Option<RelatedId>,
    /// Its key.
    #[serde(skip)]
    pub key: Key,
    /// Hash of the row that differs; none when the source has none.
    #[serde(skip)]
    pub hash: Option<u64>,
}

/// An attribute that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldDrift {
    /// Its name.
    pub attribute: String,
    /// What the source says; only when values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the directory has of this record; only when values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// What to compare, and with what.
pub struct Prover<'a> {
    readers: &'a Readers,
    id: SourceId,
    mapper: Mapper,
    attributes: Attributes,
    show_values: bool,
    /// Whether the source's log is followed. If not, nothing can be told by a position in it.
    has_log: bool,
    /// See [`crate::sync::track`].
    history: u8,
    /// The related tables, and how they are joined; none where nothing is.
    specs: Vec<RelatedSpec>,
    join: Option<Arc<Join>>,
    proof: Proof,
    mapped: MappedRows,
    remapped: MappedRows,
}

/// How a source is read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rows of a page.
    pub page_rows: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// How long a difference may be on its way.
    pub patience: Duration,
}

/// What one slice looks at.
#[derive(Debug)]
pub struct Slice {
    /// How far the table is read.
    pub read: Walk,
    /// How far what the directory has of it is looked at.
    pub known: Walk,
    /// Records that are looked at besides.
    pub again: Vec<Key>,
    /// Which rows of related tables are looked at as well.
    pub related: Rows,
}

/// Rows of related tables.
#[derive(Debug)]
pub enum Rows {
    /// All of them.
    All,
    /// These.
    These(Vec<(RelatedId, Key)>),
}

impl Slice {
    /// These records and nothing else.
    pub fn of_keys(again: Vec<Key>) -> Slice {
        Slice {
            read: Walk::Ended,
            known: Walk::Ended,
            again,
            related: Rows::These(Vec::new()),
        }
    }
}

/// A row, judged.
struct Judged {
    key: Key,
    verdict: Verdict,
    /// Of the row; none when there is none.
    hash: Option<u64>,
}

/// A record that differed, and how it went on.
#[derive(Default)]
struct Doubt {
    /// Whether it is counted when it turns out to be equal.
    counts: bool,
    /// Hash of the row that was read last.
    hash: Option<u64>,
    /// The transaction that the directory knew when it was first in doubt.
    first_tx: Option<Option<TxId>>,
    /// Whether that changed since.
    moved: bool,
    /// How often a difference was proved, one after the other.
    proved: u32,
    drift: Option<(&'static str, Vec<FieldDrift>)>,
}

impl<'a> Prover<'a> {
    /// Of a source under a mapping.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(
        readers: &'a Readers,
        (id, name): (SourceId, &str),
        mapper: Mapper,
        attributes: Attributes,
        show_values: bool,
    ) -> Result<Prover<'a>, StoreError> {
        let mut gaps = readers.gaps(true, 100_000)?;
        gaps.retain(|g| g.source == id);
        Ok(Prover {
            readers,
            id,
            mapper,
            attributes,
            show_values,
            has_log: true,
            history: history_of(gaps.iter().map(|g| &g.gap)),
            specs: Vec::new(),
            join: None,
            proof: Proof {
                source: name.to_owned(),
                ..Proof::default()
            },
            mapped: MappedRows::default(),
            remapped: MappedRows::default(),
        })
    }

    /// Joins related tables to the rows that are compared, and compares these as well.
    pub fn with_related(self, specs: &[RelatedSpec], join: Option<Arc<Join>>) -> Prover<'a> {
        Prover {
            specs: specs.to_vec(),
            join,
            ..self
        }
    }

    /// Compares with a source of which no log is followed.
    pub fn without_log(self) -> Prover<'a> {
        Prover {
            has_log: false,
            ..self
        }
    }

    /// Reads everything and compares it.
    ///
    /// # Errors
    /// When the source or the store cannot be read.
    pub async fn prove(mut self, connector: &dyn Source, pace: Pace) -> Result<Proof, ProofError> {
        let related = self.prove_related(connector, pace, &Rows::All).await?;
        let mut looked = Looked::default();
        let mut after = None;
        loop {
            after = self.read_page(connector, after, pace, &mut looked).await?;
            if after.is_none() {
                break;
            }
        }
        self.add_unseen(&mut looked)?;
        let mut proof = self.settle(connector, pace, looked).await?;
        proof.differing += related.len() as u64;
        proof.equal &= related.is_empty();
        let room = NAMED_MAX.saturating_sub(proof.drifted.len());
        proof.drifted.extend(related.into_iter().take(room));
        Ok(proof)
    }

    /// Reads a slice and compares it; gives how far both walks are behind it.
    ///
    /// # Errors
    /// When the source or the store cannot be read.
    pub async fn slice(
        mut self,
        connector: &dyn Source,
        pace: Pace,
        slice: Slice,
    ) -> Result<(Proof, Walk, Walk), ProofError> {
        let mut looked = Looked::default();
        let related = self.prove_related(connector, pace, &slice.related).await?;
        let read = match slice.read {
            Walk::Ended => Walk::Ended,
            from => {
                let after = self.read_page(connector, behind(from), pace, &mut looked);
                after.await?.map_or(Walk::Ended, Walk::Behind)
            }
        };
        let known = match slice.known {
            Walk::Ended => Walk::Ended,
            from => {
                let after = self.look_up(connector, behind(from), pace, &mut looked);
                after.await?.map_or(Walk::Ended, Walk::Behind)
            }
        };
        for key in slice.again {
            looked.doubtful.entry(key).or_default();
        }
        let mut proof = self.settle(connector, pace, looked).await?;
        proof.drifted.extend(related);
        Ok((proof, read, known))
    }

    /// Looks at the records in doubt until each is settled, or time is up.
    async fn settle(
        mut self,
        connector: &dyn Source,
        pace: Pace,
        mut looked: Looked,
    ) -> Result<Proof, ProofError> {
        let deadline = Instant::now() + pace.patience;
        while !looked.doubtful.is_empty() {
            let keys: Vec<Key> = looked.doubtful.keys().cloned().collect();
            for chunk in keys.chunks(KEYS_PER_READ) {
                self.read_again(connector, chunk, &mut looked, deadline)
                    .await?;
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for (key, doubt) in looked.doubtful {
            self.name(&key, doubt);
        }
        self.proof.drifted.sort_by(|a, b| a.record.cmp(&b.record));
        self.proof.equal = self.proof.differing == 0;
        self.proof.counters.processed = self.proof.records;
        Ok(self.proof)
    }

    /// Reads a page of the table; gives the key of its last row, none when nothing follows.
    async fn read_page(
        &mut self,
        connector: &dyn Source,
        after: Option<Key>,
        pace: Pace,
        looked: &mut Looked,
    ) -> Result<Option<Key>, ProofError> {
        let request = PageRequest {
            after,
            limit_rows: pace.page_rows,
            limit_bytes: pace.page_bytes,
            only: None,
            since: None,
        };
        let page = connector.page(TableNo::MAIN, request).await?;
        for Judged { key, verdict, .. } in self.judge(&page)? {
            if looked.seen.insert(xxh3_64(key.as_bytes())) {
                self.proof.records += 1;
            }
            if !self.counted(&key, &verdict) {
                looked.doubtful.insert(key, Doubt::counted());
            }
        }
        self.reached(&page);
        Ok(page.last)
    }

    /// Asks for records by key that the directory takes for present; those that do not exist
    /// are in doubt. Gives the key of the last one, none when no more is known.
    async fn look_up(
        &self,
        connector: &dyn Source,
        after: Option<Key>,
        pace: Pace,
        looked: &mut Looked,
    ) -> Result<Option<Key>, ProofError> {
        let limit = pace.page_rows;
        let links = self.readers.links_after(self.id, after.as_ref(), limit)?;
        let mut unseen = Vec::new();
        for (key, _) in &links {
            if !looked.seen.contains(&xxh3_64(key)) && self.known(key)?.present.is_some() {
                unseen.extend(Key::from_bytes(key));
            }
        }
        for keys in unseen.chunks(KEYS_PER_READ) {
            let page = connector.reread(TableNo::MAIN, keys).await?;
            let there: HashSet<Key> = keys_of(&page).collect();
            for key in keys.iter().filter(|key| !there.contains(*key)) {
                looked.doubtful.insert(key.clone(), Doubt::default());
            }
        }
        let last = links.last().filter(|_| links.len() == limit);
        Ok(last.and_then(|(key, _)| Key::from_bytes(key)))
    }

    fn reached(&mut self, page: &Page) {
        page.rows
            .cursor()
            .text()
            .clone_into(&mut self.proof.position);
    }

    /// Counts a verdict; `false` when it is a difference.
    fn counted(&mut self, key: &Key, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Applied => {
                self.proof.applied += 1;
                self.proof.counters.unchanged += 1;
            }
            Verdict::OutOfScope => {
                self.proof.out_of_scope += 1;
                self.proof.counters.leave_out(SkipReason::OutOfScope);
            }
            Verdict::Held(reason) => {
                self.proof.held += 1;
                self.proof.counters.leave_out(*reason);
            }
            Verdict::Failed(reason) => {
                self.proof.failed += 1;
                self.proof.counters.leave_out(*reason);
            }
            Verdict::Staged(reason) => {
                self.proof.staged += 1;
                self.proof.counters.leave_out(*reason);
                if self.proof.staged_records.len() < NAMED_MAX {
                    self.proof.staged_records.push(key.display());
                }
            }
            Verdict::Differs(..) => return false,
        }
        true
    }

    /// A record that still differs when time is up.
    fn name(&mut self, key: &Key, doubt: Doubt) {
        if doubt.moved && doubt.proved == 0 {
            self.proof.moving += 1;
            if self.proof.moving_records.len() < NAMED_MAX {
                self.proof.moving_records.push(key.display());
            }
            return;
        }
        let Some((what, fields)) = doubt.drift else {
            return;
        };
        self.proof.differing += 1;
        if self.proof.drifted.len() < NAMED_MAX {
            self.proof.drifted.push(Drift {
                record: key.display(),
                what,
                proved: doubt.proved > 0,
                fields,
                related: None,
                key: key.clone(),
                hash: doubt.hash,
            });
        }
    }

    fn judge(&mut self, page: &Page) -> Result<Vec<Judged>, StoreError> {
        let mut verdicts = Vec::with_capacity(page.rows.len());
        let own_rows;
        let rows = match &self.join {
            None => &page.rows,
            Some(join) => {
                let mut related = StoredRows::of(self.readers, self.id, &self.specs)?;
                own_rows = joined(join, &page.rows, &mut related)?;
                &own_rows
            }
        };
        for change in rows.changes() {
            let Some(row) = change.after() else { continue };
            let Some(key) = Key::of_row(change.table(), &row) else {
                continue;
            };
            let mut mapped = std::mem::take(&mut self.mapped);
            mapped.clear();
            self.mapper.map(&row, Some(&[]), &mut mapped);
            let verdict = self.compare(&key, &mapped.row(0));
            let hash = Some(mapped.row(0).hash());
            self.mapped = mapped;
            verdicts.push(Judged {
                key,
                verdict: verdict?,
                hash,
            });
        }
        Ok(verdicts)
    }

    /// Puts records in doubt that the directory takes for present and that the table did not
    /// show.
    fn add_unseen(&self, looked: &mut Looked) -> Result<(), StoreError> {
        let mut after: Option<Key> = None;
        loop {
            let links = self.readers.links_after(self.id, after.as_ref(), 5_000)?;
            for (key, _) in &links {
                if !looked.seen.contains(&xxh3_64(key))
                    && self.known(key)?.present.is_some()
                    && let Some(key) = Key::from_bytes(key)
                {
                    looked.doubtful.insert(key, Doubt::counted());
                }
            }
            match links.last() {
                Some((key, _)) => after = Key::from_bytes(key),
                None => return Ok(()),
            }
        }
    }

    /// Reads some records of which there is doubt again, and settles what can be settled.
    async fn read_again(
        &mut self,
        connector: &dyn Source,
        keys: &[Key],
        looked: &mut Looked,
        deadline: Instant,
    ) -> Result<(), ProofError> {
        let mut page = connector.reread(TableNo::MAIN, keys).await?;
        if !self.has_log {
            page.window = Box::new(NoLog);
        }
        self.reached(&page);
        let mut open: HashSet<Key> = keys.iter().cloned().collect();
        loop {
            // Read before the records: what they show then holds all of the log up to it.
            let is_closed = self.cursor()?.is_some_and(|c| page.window.is_closed_by(&c))
                && (self.join.is_none() || self.readers.fanouts_open(self.id)? == 0);
            let mut verdicts = self.judge(&page)?;
            let of_page: HashSet<Key> = verdicts.iter().map(|j| j.key.clone()).collect();
            for key in keys.iter().filter(|k| !of_page.contains(*k)) {
                if let Some(verdict) = self.judge_absent(key)? {
                    verdicts.push(Judged {
                        key: key.clone(),
                        verdict,
                        hash: None,
                    });
                } else if open.remove(key) {
                    looked.doubtful.remove(key);
                }
            }
            for Judged { key, verdict, hash } in verdicts {
                if !open.contains(&key) {
                    continue;
                }
                if let Verdict::Differs(what, fields) = verdict {
                    let Some(doubt) = looked.doubtful.get_mut(&key) else {
                        continue;
                    };
                    doubt.drift = Some((what, fields));
                    doubt.hash = hash;
                    let tx = self.known(key.as_bytes())?.tx;
                    let is_newer = tx.as_ref().is_some_and(|tx| page.window.may_be_newer(tx));
                    doubt.moved |= is_newer && doubt.first_tx.get_or_insert(tx.clone()) != &tx;
                    if is_newer {
                        doubt.proved = 0;
                        open.remove(&key);
                    } else if is_closed {
                        doubt.proved += 1;
                        open.remove(&key);
                        if doubt.proved >= 2
                            && let Some(doubt) = looked.doubtful.remove(&key)
                        {
                            self.name(&key, doubt);
                        }
                    }
                } else {
                    open.remove(&key);
                    if looked.doubtful.remove(&key).is_some_and(|d| d.counts) {
                        self.counted(&key, &verdict);
                        let is_new = !looked.seen.contains(&xxh3_64(key.as_bytes()));
                        self.proof.records += u64::from(is_new && of_page.contains(&key));
                    }
                }
            }
            if open.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A record that the source does not have; none when the directory has it neither.
    fn judge_absent(&self, key: &Key) -> Result<Option<Verdict>, StoreError> {
        let present = self.known(key.as_bytes())?.present;
        let what = "in the directory, not in the source";
        Ok(present.map(|state| match state {
            LinkState::Held(reason @ SkipReason::StagedLeaver) => Verdict::Staged(reason),
            _ => Verdict::Differs(what, Vec::new()),
        }))
    }

    /// How far the log is taken in.
    fn cursor(&self) -> Result<Option<Cursor>, StoreError> {
        let row = self.readers.source(&self.proof.source)?;
        Ok(row.and_then(|row| row.resume).map(|(cursor, _)| cursor))
    }
}

/// What was looked at.
#[derive(Default)]
struct Looked {
    /// Hashes of the keys that pages had.
    seen: HashSet<u64>,
    /// Records that differed.
    doubtful: HashMap<Key, Doubt>,
}

impl Doubt {
    fn counted() -> Doubt {
        Doubt {
            counts: true,
            ..Doubt::default()
        }
    }
}

fn behind(walk: Walk) -> Option<Key> {
    match walk {
        Walk::Behind(key) => Some(key),
        Walk::Begins | Walk::Ended => None,
    }
}

fn keys_of(page: &Page) -> impl Iterator<Item = Key> {
    page.rows
        .changes()
        .filter_map(|change| Key::of_row(change.table(), &change.after()?))
}

/// The schemas under which rows are stored, the table's present one last.
///
/// # Errors
/// When the store cannot be read.
pub fn schema_versions(
    readers: &Readers,
    source: SourceId,
    present: &TableSchema,
) -> Result<Vec<(u32, TableSchema)>, StoreError> {
    let mut versions = Vec::new();
    let mut at = None;
    for stored in readers.schemas(source)? {
        let schema: TableSchema =
            serde_json::from_str(&stored.columns).map_err(|_| StoreError::Damaged {
                detail: "a stored schema cannot be read".to_owned(),
            })?;
        if schema == *present {
            at = Some(stored.version);
        } else {
            versions.push((stored.version, schema));
        }
    }
    let next = versions.iter().map(|(version, _)| version + 1).max();
    versions.push((at.or(next).unwrap_or(1), present.clone()));
    Ok(versions)
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] ConnectorError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
