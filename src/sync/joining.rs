//! The rows of a batch, joined one after the other: main rows with the related rows as they
//! are by then, and related rows to what is stored of them.
//!
//! A batch sees itself and the lot that it is in ([`Overlay`]) before the store. What it does to
//! related tables is gathered beside the joined changes ([`Left`]) and stored with them.

use std::sync::Arc;

use hashbrown::HashMap;
use rollcall_contract::{Batch, Change, Key, Op, Pooled, TableNo, TableSchema};
use rollcall_core::id::SourceId;
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Joiner, RelatedReader, RelatedRows, Shown};
use rollcall_core::state::KeyBytes;
use rollcall_store::{
    Fanout, RelatedId, RelatedRow, RelatedTableRow, RelatedWrites, StoreError, Writer,
};

use super::joined::loaded;
use super::related::{RelatedTrack, TableUse};
use super::track::TxMark;

/// Related rows of the lot that is being gathered.
#[derive(Default)]
pub(super) struct Overlay {
    rows: HashMap<(RelatedId, KeyBytes), RelatedRow>,
    by_join: HashMap<(RelatedId, KeyBytes), Vec<KeyBytes>>,
}

impl Overlay {
    fn put(&mut self, id: RelatedId, key: &KeyBytes, row: &RelatedRow) {
        if let Some(joined) = row.joined.clone().filter(|_| row.cells.is_some()) {
            let keys = self.by_join.entry((id, joined)).or_default();
            if let Err(at) = keys.binary_search(key) {
                keys.insert(at, key.clone());
            }
        }
        self.rows.insert((id, key.clone()), row.clone());
    }

    /// The rows of a join value, in the order of their keys.
    fn of(&self, id: RelatedId, joined: &[u8]) -> impl Iterator<Item = (&KeyBytes, &Vec<u8>)> {
        let keys = match self.rows.is_empty() {
            true => None,
            false => self.by_join.get(&(id, KeyBytes::from_slice(joined))),
        };
        keys.into_iter().flatten().filter_map(move |key| {
            let row = self.rows.get(&(id, key.clone()))?;
            let is_joined = row.joined.as_deref() == Some(joined);
            Some((key, row.cells.as_ref().filter(|_| is_joined)?))
        })
    }
}

/// Related rows as a join asks for them: the lot before the store.
pub(super) struct Lookup<'l> {
    writer: &'l mut Writer,
    overlay: &'l Overlay,
    tables: &'l [RelatedTableRow],
}

impl<'l> Lookup<'l> {
    pub(super) fn new(
        writer: &'l mut Writer,
        overlay: &'l Overlay,
        tables: &'l [RelatedTableRow],
    ) -> Lookup<'l> {
        Lookup {
            writer,
            overlay,
            tables,
        }
    }
}

impl RelatedRows for Lookup<'_> {
    type Error = StoreError;

    fn rows(
        &mut self,
        table: TableNo,
        joined: &[u8],
        show: &mut dyn FnMut(&[u8]) -> Shown,
    ) -> Result<bool, StoreError> {
        let Some(table) = loaded(self.tables, table) else {
            return Ok(false);
        };
        let overlay = self.overlay;
        let mut newer = overlay.of(table.id, joined).peekable();
        let mut is_enough = false;
        let place = (table.source, table.id, joined);
        self.writer.related_rows(place, |key, cells| {
            while let Some((newer_key, newer_cells)) = newer.peek() {
                if newer_key.as_slice() >= key {
                    break;
                }
                is_enough = show(newer_cells) == Shown::Enough;
                newer.next();
                if is_enough {
                    return false;
                }
            }
            let is_replaced = !overlay.rows.is_empty()
                && overlay
                    .rows
                    .contains_key(&(table.id, KeyBytes::from_slice(key)));
            if !is_replaced {
                is_enough = show(cells) == Shown::Enough;
            }
            !is_enough
        })?;
        for (_, cells) in newer {
            if is_enough || show(cells) == Shown::Enough {
                break;
            }
        }
        Ok(true)
    }
}

/// What a batch leaves beside its joined changes.
#[derive(Default)]
pub(super) struct Left {
    pub(super) writes: RelatedWrites,
    /// Records that have to be read again.
    pub(super) reread: Vec<KeyBytes>,
    /// Related rows that were taken in.
    pub(super) rows: usize,
}

impl Left {
    /// Notes which join values a record has.
    pub(super) fn note_records(
        &mut self,
        tables: &[RelatedTableRow],
        source: SourceId,
        change: &Change<'_>,
        values: impl IntoIterator<Item = (TableNo, KeyBytes)>,
    ) {
        let key = change
            .after()
            .and_then(|row| Key::of_row(change.table(), &row));
        let Some(key) = key else { return };
        for (table, joined) in values {
            let table = table.index().checked_sub(1).and_then(|at| tables.get(at));
            if let Some(table) = table {
                let place = (source, table.id, joined);
                let key = KeyBytes::from_slice(key.as_bytes());
                self.writes.records.insert((place, key));
            }
        }
    }

    /// Stores a related row in the place of the one that is stored, and notes whom to tell.
    /// `pending` is what the lot has noted before.
    pub(super) fn put(
        &mut self,
        writer: &mut Writer,
        pending: Option<&RelatedWrites>,
        (source, id, key): (SourceId, RelatedId, KeyBytes),
        stored: Option<&RelatedRow>,
        new: RelatedRow,
        origin: &Fanout,
    ) -> Result<(), StoreError> {
        let is_same = |s: &&RelatedRow| s.joined == new.joined && s.cells == new.cells;
        if stored.filter(is_same).is_some() {
            return Ok(());
        }
        let before = stored.and_then(|s| s.joined.clone().filter(|_| s.cells.is_some()));
        let after = new.joined.clone().filter(|_| new.cells.is_some());
        let moved = before.clone().filter(|_| before != after);
        for joined in moved.into_iter().chain(after) {
            let place = (source, id, joined);
            let noted = |writes: &RelatedWrites| {
                let from = (place.clone(), KeyBytes::new());
                let mut behind = writes.records.range(from..);
                behind.next().is_some_and(|(at, _)| *at == place)
            };
            let is_joined = noted(&self.writes)
                || pending.is_some_and(noted)
                || !writer
                    .related_records_after((source, id, &place.2), &[], 1)?
                    .is_empty();
            if is_joined {
                self.writes.fanouts.insert(place, Some(origin.clone()));
            }
        }
        self.writes.rows.insert((source, id, key), new);
        Ok(())
    }
}

/// A batch that is being joined.
pub(super) struct Joining<'j> {
    pub(super) writer: &'j mut Writer,
    pub(super) related: &'j mut RelatedTrack,
    pub(super) overlay: &'j mut Overlay,
    /// What the lot has noted before.
    pub(super) pending: &'j RelatedWrites,
    pub(super) left: Left,
    pub(super) source: SourceId,
    pub(super) history: u8,
    pub(super) now: i64,
}

impl Joining<'_> {
    pub(super) fn batch(
        mut self,
        batch: &Batch,
        tables: &[TableUse],
    ) -> Result<(Batch, Left), StoreError> {
        let mut joiner = Joiner::default();
        for change in batch.changes() {
            match &tables[change.table_index()] {
                TableUse::Main(join, _) => {
                    let tables = &self.related.tables;
                    let mut lookup = Lookup::new(self.writer, self.overlay, tables);
                    let said = joiner.push(join, &change, &mut lookup)?;
                    if said.is_unknown
                        && let Some(row) = change.after()
                        && let Some(key) = Key::of_row(change.table(), &row)
                    {
                        let key = KeyBytes::from_slice(key.as_bytes());
                        self.left.reread.push(key);
                    }
                    self.left
                        .note_records(tables, self.source, &change, said.values);
                }
                TableUse::Related(reader) => {
                    joiner.forget();
                    self.related_change(reader, &change)?;
                }
            }
        }
        if joiner.is_ambiguous() {
            self.related.warn_ambiguous();
        }
        Ok((joiner.finish(batch.cursor().clone()), self.left))
    }

    /// Takes in a change of a related row. That all rows are gone at once is not believed of
    /// the log alone: the driver opens a gap, and a scan finds out.
    fn related_change(
        &mut self,
        reader: &RelatedReader,
        change: &Change<'_>,
    ) -> Result<(), StoreError> {
        let Some(id) = self.related.id(change.table_no()) else {
            return Ok(());
        };
        self.left.rows += 1;
        let table = change.table();
        let key = change.after().and_then(|row| Key::of_row(table, &row));
        let old = change
            .before()
            .row()
            .and_then(|row| Key::of_row(table, &row));
        let tx = change.tx();
        let mark = TxMark::new(&tx.id, self.history);
        let origin = Fanout {
            after: None,
            of_scan: false,
            position: tx.position().to_owned(),
            ordinal: change.ordinal(),
            commit_us: tx.commit_us,
        };
        let bytes = |key: &Key| KeyBytes::from_slice(key.as_bytes());
        let gone = old
            .as_ref()
            .filter(|old| change.op() == Op::Delete || key.as_ref().is_some_and(|k| k != *old));
        let mut before = None;
        if let Some(old) = gone {
            let stored = self.stored(id, &bytes(old))?;
            let trace = RelatedRow {
                joined: None,
                cells: None,
                tx: KeyBytes::from_slice(mark.as_bytes()),
                at_us: self.now,
            };
            self.put(id, bytes(old), stored.as_ref(), trace, &origin)?;
            before = stored;
        }
        let (Some(row), Some(key)) = (change.after(), &key) else {
            return Ok(());
        };
        let stored = self.stored(id, &bytes(key))?;
        let base = before.as_ref().or(stored.as_ref());
        let image = reader.image(&row, base.and_then(|base| base.cells.as_deref()));
        let new = RelatedRow {
            joined: image.joined,
            cells: Some(image.cells),
            tx: KeyBytes::from_slice(mark.as_bytes()),
            at_us: self.now,
        };
        self.put(id, bytes(key), stored.as_ref(), new, &origin)
    }

    fn stored(&mut self, id: RelatedId, key: &KeyBytes) -> Result<Option<RelatedRow>, StoreError> {
        match self.overlay.rows.get(&(id, key.clone())) {
            Some(row) => Ok(Some(row.clone())),
            None => self.writer.related_row((self.source, id, key)),
        }
    }

    fn put(
        &mut self,
        id: RelatedId,
        key: KeyBytes,
        stored: Option<&RelatedRow>,
        new: RelatedRow,
        origin: &Fanout,
    ) -> Result<(), StoreError> {
        let place = (self.source, id, key.clone());
        let pending = Some(self.pending);
        self.left
            .put(self.writer, pending, place.clone(), stored, new, origin)?;
        if let Some(row) = self.left.writes.rows.get(&place) {
            self.overlay.put(id, &key, row);
        }
        Ok(())
    }
}

/// A batch without changes at the place of another one.
pub(super) fn empty(batch: &Batch) -> Batch {
    Joiner::default().finish(batch.cursor().clone())
}

/// The mapper of each table of a joined batch.
pub(super) fn mappers_of(joined: &Batch, tables: &[TableUse]) -> Vec<Arc<Mapper>> {
    let of = |schema: &Arc<TableSchema>| {
        tables.iter().find_map(|table| match table {
            TableUse::Main(join, mapper) if Arc::ptr_eq(join.schema(), schema) => {
                Some(Arc::clone(mapper))
            }
            _ => None,
        })
    };
    let tables = joined.tables().iter();
    tables.filter_map(|table| of(&table.schema)).collect()
}

pub(super) fn mapped(joined: &Batch, mappers: &[Arc<Mapper>]) -> Pooled<MappedRows> {
    let mut mapped = Pooled::<MappedRows>::default();
    for change in joined.changes() {
        if let Some(row) = change.after() {
            mappers[change.table_index()].map(&row, None, &mut mapped);
        }
    }
    mapped
}

pub(super) fn hashes(joined: &Batch, mappers: &[Arc<Mapper>]) -> Vec<Option<u64>> {
    let mut scratch = Vec::new();
    let rows = joined.changes().map(|change| {
        let mapper = &mappers[change.table_index()];
        mapper.hash(&change.after()?, &mut scratch)
    });
    rows.collect()
}
