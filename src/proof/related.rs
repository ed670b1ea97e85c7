//! The rows of related tables, beside those of the source.
//!
//! What a record has is proved by joining its row with the related rows that are stored; so
//! these are proved as well. It goes as for records: a row that differs may be on its way, and
//! counts only when it still differs by a reading that the log is taken in past, of which
//! nothing newer is stored, and that twice.

use hashbrown::{HashMap, HashSet};
use rollcall_contract::{Change, Key, Page, PageRequest, Source, TableNo, TxId};
use rollcall_core::mapping::related::{RelatedImage, RelatedReader};
use rollcall_core::state::KeyBytes;
use rollcall_store::{RelatedId, RelatedRow, StoreError};
use tokio::time::Instant;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Drift, KEYS_PER_READ, LOOK_AGAIN, Pace, ProofError, Prover, Rows};
use crate::sync::joined::StoredRows;
use crate::sync::track::TxMark;
use crate::sync::window::NoLog;

/// Stored rows that are looked at in one step.
const LOOKED_AT: usize = 5_000;

/// One related table that is proved.
struct Table<'t> {
    no: TableNo,
    id: RelatedId,
    name: &'t str,
    reader: &'t RelatedReader,
}

impl Prover<'_> {
    /// Compares rows of the related tables; gives what differs.
    pub(super) async fn prove_related(
        &self,
        connector: &dyn Source,
        pace: Pace,
        rows: &Rows,
    ) -> Result<Vec<Drift>, ProofError> {
        let mut drifted = Vec::new();
        let Some(join) = &self.join else {
            return Ok(drifted);
        };
        let stored = StoredRows::of(self.readers, self.id, &self.specs)?;
        for (no, spec) in join.tables().zip(&self.specs) {
            let (Some(row), Some(reader)) = (stored.table(no), join.reader(no)) else {
                continue;
            };
            let table = Table {
                no,
                id: row.id,
                name: &spec.name,
                reader,
            };
            let doubtful = match rows {
                Rows::All => self.doubtful(connector, pace, &table).await?,
                Rows::These(rows) => {
                    let rows = rows.iter().filter(|(id, _)| *id == table.id);
                    rows.map(|(_, key)| (key.clone(), 0)).collect()
                }
            };
            self.settle_related(connector, pace, &table, doubtful, &mut drifted)
                .await?;
        }
        Ok(drifted)
    }

    /// The keys of rows that differ at first sight.
    async fn doubtful(
        &self,
        connector: &dyn Source,
        pace: Pace,
        table: &Table<'_>,
    ) -> Result<HashMap<Key, u32>, ProofError> {
        let (mut doubtful, mut seen) = (HashMap::new(), HashSet::new());
        let mut after = None;
        loop {
            let request = PageRequest {
                after,
                limit_rows: pace.page_rows,
                limit_bytes: pace.page_bytes,
                only: None,
                since: None,
            };
            let page = connector.page(table.no, request).await?;
            for (key, image) in images(&page, table.reader) {
                seen.insert(xxh3_64(key.as_bytes()));
                if difference(Some(&image), self.stored_related(table, &key)?.as_ref()).is_some() {
                    doubtful.insert(key, 0);
                }
            }
            match page.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let mut behind = KeyBytes::new();
        loop {
            let of = (self.id, table.id);
            let keys = self.readers.related_keys_after(of, &behind, LOOKED_AT)?;
            for key in keys.iter().filter(|key| !seen.contains(&xxh3_64(key))) {
                doubtful.extend(Key::from_bytes(key).map(|key| (key, 0)));
            }
            match keys.last() {
                Some(last) => behind.clone_from(last),
                None => return Ok(doubtful),
            }
        }
    }

    fn stored_related(
        &self,
        table: &Table<'_>,
        key: &Key,
    ) -> Result<Option<RelatedRow>, StoreError> {
        let row = self
            .readers
            .related_row((self.id, table.id, key.as_bytes()))?;
        Ok(row.filter(|row| row.cells.is_some()))
    }

    async fn settle_related(
        &self,
        connector: &dyn Source,
        pace: Pace,
        table: &Table<'_>,
        mut doubtful: HashMap<Key, u32>,
        drifted: &mut Vec<Drift>,
    ) -> Result<(), ProofError> {
        let deadline = Instant::now() + pace.patience;
        let name = |key: &Key, what, proved, image: Option<&RelatedImage>| Drift {
            record: format!("{}: {}", table.name, key.display()),
            what,
            proved,
            fields: Vec::new(),
            related: Some(table.id),
            key: key.clone(),
            hash: image.map(hash),
        };
        while !doubtful.is_empty() {
            let is_over = Instant::now() >= deadline;
            let keys: Vec<Key> = doubtful.keys().cloned().collect();
            for keys in keys.chunks(KEYS_PER_READ) {
                let mut page = connector.reread(table.no, keys).await?;
                if !self.has_log {
                    page.window = Box::new(NoLog);
                }
                let there: HashMap<Key, RelatedImage> = images(&page, table.reader).collect();
                // Read before the rows: what they show then holds all of the log up to it.
                let is_closed = self.cursor()?.is_some_and(|c| page.window.is_closed_by(&c));
                for key in keys {
                    let stored = self.stored_related(table, key)?;
                    let Some(what) = difference(there.get(key), stored.as_ref()) else {
                        doubtful.remove(key);
                        continue;
                    };
                    let tx = stored.map(|row| TxId(row.tx.into_iter().collect()));
                    let tx = tx.and_then(|tx| TxMark::of_history(tx, self.history));
                    let is_newer = tx.is_some_and(|tx| page.window.may_be_newer(&tx));
                    let proved = doubtful.entry(key.clone()).or_default();
                    match is_closed && !is_newer {
                        true => *proved += 1,
                        false if is_newer => *proved = 0,
                        false => {}
                    }
                    if *proved >= 2 || is_over {
                        drifted.push(name(key, what, *proved > 0, there.get(key)));
                        doubtful.remove(key);
                    }
                }
            }
            if !doubtful.is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}

fn images<'p>(
    page: &'p Page,
    reader: &'p RelatedReader,
) -> impl Iterator<Item = (Key, RelatedImage)> + 'p {
    let image = move |change: Change<'p>| {
        let row = change.after()?;
        let key = Key::of_row(change.table(), &row)?;
        Some((key, reader.image(&row, None)))
    };
    page.rows.changes().filter_map(image)
}

fn hash(image: &RelatedImage) -> u64 {
    let mut hasher = Xxh3::new();
    let joined = image.joined.as_deref().unwrap_or_default();
    hasher.update(&(joined.len() as u64).to_le_bytes());
    hasher.update(joined);
    hasher.update(&image.cells);
    hasher.digest()
}

/// In which way a related row differs from what is stored of it.
fn difference(row: Option<&RelatedImage>, stored: Option<&RelatedRow>) -> Option<&'static str> {
    match (row, stored) {
        (None, None) => None,
        (Some(_), None) => Some("a related row is not known"),
        (None, Some(_)) => Some("a related row is known that is not in the source"),
        (Some(row), Some(stored)) => {
            let is_same = row.joined == stored.joined && Some(&row.cells) == stored.cells.as_ref();
            (!is_same).then_some("a related row differs")
        }
    }
}
