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
//! Records that failed, or are held for a person, differ by rule. They are counted apart, as
//! long as what is held is what the source has. Those whose change waits in a plan are named as
//! that. No value leaves this module unless it is asked for.

mod compare;

use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use rollcall_contract::{ConnectorError, Cursor, Key, Page, PageRequest, Source, TxId};
use rollcall_core::attribute::Attributes;
use rollcall_core::document::LinkState;
use rollcall_core::id::SourceId;
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::reason::SkipReason;
use rollcall_store::{Readers, StoreError};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::sync::track::history_of;
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
}

/// A record that differs.
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
    /// See [`crate::sync::track`].
    history: u8,
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

/// A record that differed, and how it went on.
#[derive(Default)]
struct Doubt {
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
            history: history_of(gaps.iter().map(|g| &g.gap)),
            proof: Proof {
                source: name.to_owned(),
                ..Proof::default()
            },
            mapped: MappedRows::default(),
            remapped: MappedRows::default(),
        })
    }

    /// Reads everything and compares it.
    ///
    /// # Errors
    /// When the source or the store cannot be read.
    pub async fn prove(mut self, connector: &dyn Source, pace: Pace) -> Result<Proof, ProofError> {
        let (seen, mut doubtful) = self.read_all(connector, pace).await?;
        self.add_unseen(&seen, &mut doubtful)?;
        let deadline = Instant::now() + pace.patience;
        while !doubtful.is_empty() {
            let keys: Vec<Key> = doubtful.keys().cloned().collect();
            for chunk in keys.chunks(KEYS_PER_READ) {
                self.read_again(connector, chunk, &mut doubtful, deadline, &seen)
                    .await?;
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for (key, doubt) in doubtful {
            self.name(&key, doubt);
        }
        self.proof.drifted.sort_by(|a, b| a.record.cmp(&b.record));
        self.proof.equal = self.proof.differing == 0;
        Ok(self.proof)
    }

    /// Reads the whole table; gives the hashes of its keys and the records in doubt.
    async fn read_all(
        &mut self,
        connector: &dyn Source,
        pace: Pace,
    ) -> Result<(HashSet<u64>, HashMap<Key, Doubt>), ProofError> {
        let mut seen = HashSet::new();
        let mut doubtful = HashMap::new();
        let mut after = None;
        loop {
            let request = PageRequest {
                after: after.take(),
                limit_rows: pace.page_rows,
                limit_bytes: pace.page_bytes,
                only: None,
                since: None,
            };
            let page = connector.page(request).await?;
            for (key, verdict) in self.judge(&page)? {
                if seen.insert(xxh3_64(key.as_bytes())) {
                    self.proof.records += 1;
                }
                if !self.counted(&key, &verdict) {
                    doubtful.insert(key, Doubt::default());
                }
            }
            self.reached(&page);
            after = page.last;
            if after.is_none() {
                return Ok((seen, doubtful));
            }
        }
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
            Verdict::Applied => self.proof.applied += 1,
            Verdict::OutOfScope => self.proof.out_of_scope += 1,
            Verdict::Held => self.proof.held += 1,
            Verdict::Failed => self.proof.failed += 1,
            Verdict::Staged => {
                self.proof.staged += 1;
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
            });
        }
    }

    fn judge(&mut self, page: &Page) -> Result<Vec<(Key, Verdict)>, StoreError> {
        let mut verdicts = Vec::with_capacity(page.rows.len());
        for change in page.rows.changes() {
            let Some(row) = change.after() else { continue };
            let Some(key) = Key::of_row(change.table(), &row) else {
                continue;
            };
            let mut mapped = std::mem::take(&mut self.mapped);
            mapped.clear();
            self.mapper.map(&row, Some(&[]), &mut mapped);
            let verdict = self.compare(&key, &mapped.row(0));
            self.mapped = mapped;
            verdicts.push((key, verdict?));
        }
        Ok(verdicts)
    }

    /// Puts records in doubt that the directory takes for present and that the table did not
    /// show.
    fn add_unseen(
        &self,
        seen: &HashSet<u64>,
        doubtful: &mut HashMap<Key, Doubt>,
    ) -> Result<(), StoreError> {
        let mut after: Option<Key> = None;
        loop {
            let links = self.readers.links_after(self.id, after.as_ref(), 5_000)?;
            for (key, _) in &links {
                if !seen.contains(&xxh3_64(key))
                    && self.known(key)?.present.is_some()
                    && let Some(key) = Key::from_bytes(key)
                {
                    doubtful.insert(key, Doubt::default());
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
        doubtful: &mut HashMap<Key, Doubt>,
        deadline: Instant,
        seen: &HashSet<u64>,
    ) -> Result<(), ProofError> {
        let page = connector.reread(keys).await?;
        self.reached(&page);
        let mut open: HashSet<Key> = keys.iter().cloned().collect();
        loop {
            // Read before the records: what they show then holds all of the log up to it.
            let is_closed = self.cursor()?.is_some_and(|c| page.window.is_closed_by(&c));
            let found = self.judge(&page)?;
            let of_page: HashSet<Key> = found.iter().map(|(key, _)| key.clone()).collect();
            let mut verdicts = found;
            for key in keys.iter().filter(|k| !of_page.contains(*k)) {
                if let Some(verdict) = self.judge_absent(key)? {
                    verdicts.push((key.clone(), verdict));
                } else if open.remove(key) {
                    doubtful.remove(key);
                }
            }
            for (key, verdict) in verdicts {
                if !open.contains(&key) {
                    continue;
                }
                if let Verdict::Differs(what, fields) = verdict {
                    let Some(doubt) = doubtful.get_mut(&key) else {
                        continue;
                    };
                    doubt.drift = Some((what, fields));
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
                            && let Some(doubt) = doubtful.remove(&key)
                        {
                            self.name(&key, doubt);
                        }
                    }
                } else {
                    self.counted(&key, &verdict);
                    if of_page.contains(&key) && !seen.contains(&xxh3_64(key.as_bytes())) {
                        self.proof.records += 1;
                    }
                    open.remove(&key);
                    doubtful.remove(&key);
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
            LinkState::Held(SkipReason::StagedLeaver) => Verdict::Staged,
            _ => Verdict::Differs(what, Vec::new()),
        }))
    }

    /// How far the log is taken in.
    fn cursor(&self) -> Result<Option<Cursor>, StoreError> {
        let row = self.readers.source(&self.proof.source)?;
        Ok(row.and_then(|row| row.resume).map(|(cursor, _)| cursor))
    }
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
