//! The search for match keys that several rows of a table share, before it is loaded.

use std::collections::HashSet;
use std::sync::Arc;

use rollcall_contract::{Batch, Key, PageRequest, TableNo};
use rollcall_core::attribute::AttrId;
use rollcall_core::id::MatchHash;
use rollcall_core::mapped::{Assigned, MappedRows, Outcome};
use rollcall_core::mapping::{Mapper, fold};
use tokio_util::task::AbortOnDropHandle;

use super::Ended;
use super::session::{Session, read_aborted};
use crate::sync::work::Work;
use crate::sync::worker::in_place;

/// Rows that one page of the search for duplicates reads.
const DUPLICATES_ROWS: usize = 50_000;

/// The search for duplicates remembers at most so many match keys (8 bytes each).
const DUPLICATES_KEYS: usize = 32 << 20;

impl Session<'_> {
    /// Looks for rows of the table that share a match key, before a first load: of such rows
    /// nobody is written, on whichever pages they are. Only the columns that decide it are
    /// read. Rows that come to share one meanwhile are found by the directory itself.
    pub(super) async fn find_duplicates(&mut self) -> Result<(), Ended> {
        let attributes = self.driver.match_attributes.clone();
        let (mapper, only) = match self.joined() {
            None => {
                let schema = self.driver.source.schema(TableNo::MAIN).await?;
                let mapper = self.mapper(&schema).await?;
                let only = mapper.columns_of(&attributes);
                (mapper, only)
            }
            Some((join, mapper)) => {
                let only = mapper.columns_of(&attributes);
                if only.iter().any(|column| join.is_virtual(*column)) {
                    // What is joined is not known here: they are found page by page.
                    return Ok(());
                }
                (mapper, only)
            }
        };
        let (source, limit_bytes) = (Arc::clone(&self.driver.source), self.driver.page_bytes);
        // The next page is read while this one is looked at.
        let read = move |after: Option<Key>| {
            let (source, only) = (Arc::clone(&source), Some(only.clone()));
            tokio::spawn(async move {
                let request = PageRequest {
                    after,
                    limit_rows: DUPLICATES_ROWS,
                    limit_bytes,
                    only,
                    since: None,
                };
                source.page(TableNo::MAIN, request).await
            })
        };
        let mut hashes = Vec::new();
        let mut next = Some(AbortOnDropHandle::new(read(None)));
        while let Some(reading) = next.take() {
            let page = tokio::select! {
                biased;
                () = self.driver.cancel.cancelled() => return Err(Ended::Cancelled),
                page = reading => page.map_err(|_| read_aborted())??,
            };
            next = page
                .last
                .map(|last| AbortOnDropHandle::new(read(Some(last))));
            in_place(|| {
                match_hashes(&page.rows, &mapper, &attributes, &mut hashes);
            });
            if hashes.len() > DUPLICATES_KEYS {
                tracing::warn!(
                    source = self.driver.name,
                    keys = hashes.len(),
                    "the table is too large to look for duplicates beforehand; they are found page by page"
                );
                return Ok(());
            }
        }
        hashes.sort_unstable();
        let repeated = hashes.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]);
        let keys: HashSet<MatchHash> = repeated.collect();
        if !keys.is_empty() {
            self.driver
                .engine
                .send(Work::Duplicates {
                    source: self.driver.id,
                    keys,
                })
                .await?;
        }
        Ok(())
    }
}

/// Appends the hashes of the match keys of every row that is in scope.
fn match_hashes(rows: &Batch, mapper: &Mapper, attributes: &[AttrId], hashes: &mut Vec<MatchHash>) {
    let (mut mapped, mut folded) = (MappedRows::default(), Vec::new());
    for row in rows.changes().filter_map(|change| change.after()) {
        mapped.clear();
        mapper.map(&row, Some(&[]), &mut mapped);
        let row = mapped.row(0);
        if row.outcome() != Outcome::Mapped {
            continue;
        }
        for field in row.fields().filter(|f| attributes.contains(&f.attribute)) {
            if let Assigned::Value(value) = field.assigned {
                folded.clear();
                fold(value, &mut folded);
                hashes.push(MatchHash::of(field.attribute, &folded));
            }
        }
    }
}
