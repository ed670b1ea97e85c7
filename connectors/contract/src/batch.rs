//! Many changes in one arena.
//!
//! All bytes of a batch lie in two buffers: `data`, which a connector that receives text
//! fills straight from its socket, and `extra`, for the few values that had to be
//! rewritten into canonical form. Cells are ranges into them, changes are heads that point
//! at runs of cells. Nothing is allocated per row or per cell, and a batch is handed on
//! whole, so each stage after the connector borrows instead of copying.
//!
//! Ranges are made by [`BatchBuilder`] only, which checks them as they are added; reading
//! therefore cannot fail.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::pool::{Pool, Pooled};
use crate::{Class, Cursor, TableSchema, TxId, Value};

/// One value's state in one image of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// The value is null.
    Null,
    /// The value is not in this image, or cannot be read. It says nothing about the row.
    Missing,
    /// The value is what it was before this change (TOAST, partial image).
    Unchanged,
    /// Canonical text; see [`Class`].
    Value(&'a [u8]),
}

const NULL: u32 = u32::MAX;
const MISSING: u32 = u32::MAX - 1;
const UNCHANGED: u32 = u32::MAX - 2;
/// Set in `RawCell::start` when the range lies in `extra`.
const EXTRA: u32 = 1 << 31;

#[derive(Clone, Copy)]
struct RawCell {
    start: u32,
    /// A length, or one of the three states above.
    len: u32,
}

/// What happened to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The row was read by a scan.
    Read,
    /// The row was inserted.
    Insert,
    /// The row was updated.
    Update,
    /// The row was deleted.
    Delete,
    /// All rows of the table were removed; the change has no images.
    Truncate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BeforeKind {
    None,
    Key,
    Full,
}

#[derive(Clone, Copy)]
struct Head {
    table: u16,
    op: Op,
    before_kind: BeforeKind,
    has_after: bool,
    tx: u32,
    ordinal: u32,
    /// First cell: the before image (if any), then the after image (if any).
    cells: u32,
    /// Bytes of `data` from which this change was decoded, for size accounting.
    size: u32,
}

/// One transaction of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    /// For visibility questions.
    pub id: TxId,
    /// Readable position of the transaction, unique and ascending within a lineage: with
    /// the ordinal it names a change for ever.
    pub position: SmallVec<[u8; 32]>,
    /// Commit time, microseconds since the Unix epoch, by the source's clock.
    pub commit_us: i64,
}

impl Tx {
    /// The readable position.
    pub fn position(&self) -> &str {
        std::str::from_utf8(&self.position).unwrap_or("?")
    }
}

/// The memory of a batch.
#[derive(Default)]
pub struct Buffers {
    data: Vec<u8>,
    extra: Vec<u8>,
    cells: Vec<RawCell>,
    heads: Vec<Head>,
    txs: Vec<Tx>,
}

impl Buffers {
    /// Empties them; memory far beyond what is expected is given back.
    fn reset(&mut self, data_bytes: usize) {
        let is_too_large = self.data.capacity() > 4 * data_bytes;
        self.data.clear();
        self.extra.clear();
        self.cells.clear();
        self.heads.clear();
        self.txs.clear();
        if is_too_large {
            *self = Buffers::default();
        }
        self.data.reserve(data_bytes);
    }
}

/// Many changes, in the order of the log, and the cursor behind the last of them.
pub struct Batch {
    buffers: Pooled<Buffers>,
    tables: Vec<Arc<TableSchema>>,
    cursor: Cursor,
}

impl Batch {
    /// How many changes.
    pub fn len(&self) -> usize {
        self.buffers.heads.len()
    }

    /// Whether there is no change in it.
    pub fn is_empty(&self) -> bool {
        self.buffers.heads.is_empty()
    }

    /// The position behind the last change (and behind everything before it).
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Bytes held in memory.
    pub fn size_bytes(&self) -> usize {
        self.buffers.data.len()
            + self.buffers.extra.len()
            + self.buffers.cells.len() * size_of::<RawCell>()
            + self.buffers.heads.len() * size_of::<Head>()
    }

    /// The change at an index below [`Batch::len`].
    ///
    /// # Panics
    /// When the index is out of range.
    pub fn change(&self, index: usize) -> Change<'_> {
        Change {
            batch: self,
            head: self.buffers.heads[index],
        }
    }

    /// All changes, in order.
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            batch: self,
            next: 0,
        }
    }

    /// The table schemas that changes of this batch refer to.
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("changes", &self.buffers.heads.len())
            .field("bytes", &self.size_bytes())
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// Iterates over the changes of a batch.
#[derive(Clone)]
pub struct Changes<'a> {
    batch: &'a Batch,
    next: usize,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let head = *self.batch.buffers.heads.get(self.next)?;
        self.next += 1;
        Some(Change {
            batch: self.batch,
            head,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.batch.buffers.heads.len() - self.next;
        (n, Some(n))
    }
}

/// One change.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    batch: &'a Batch,
    head: Head,
}

/// The row before the change, as far as the log carries it. A key-only image is another
/// thing than a full one: its other columns are unknown, not null.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// The log carries nothing (insert, or an update that left the key alone).
    None,
    /// The key columns. Every other cell is [`Cell::Missing`], or what else the log happened
    /// to carry; together they are not the whole row.
    Key(Row<'a>),
    /// The whole old row.
    Full(Row<'a>),
}

impl<'a> Before<'a> {
    /// The row in which the key columns can be read, if there is one.
    pub fn row(self) -> Option<Row<'a>> {
        match self {
            Before::None => None,
            Before::Key(row) | Before::Full(row) => Some(row),
        }
    }
}

impl<'a> Change<'a> {
    /// The table's schema as it was when this change was made.
    pub fn table(&self) -> &'a Arc<TableSchema> {
        &self.batch.tables[usize::from(self.head.table)]
    }

    /// The index of the table in [`Batch::tables`].
    pub fn table_index(&self) -> usize {
        usize::from(self.head.table)
    }

    /// What happened.
    pub fn op(&self) -> Op {
        self.head.op
    }

    /// The transaction that it happened in.
    pub fn tx(&self) -> &'a Tx {
        &self.batch.buffers.txs[self.head.tx as usize]
    }

    /// The number of this change among all row changes of its transaction, from 0. The
    /// same change has the same number each time it is read.
    pub fn ordinal(&self) -> u32 {
        self.head.ordinal
    }

    /// The old row.
    pub fn before(&self) -> Before<'a> {
        let row = Row {
            batch: self.batch,
            cells: self.head.cells,
            columns: self.columns(),
        };
        match self.head.before_kind {
            BeforeKind::None => Before::None,
            BeforeKind::Key => Before::Key(row),
            BeforeKind::Full => Before::Full(row),
        }
    }

    /// The new row; none for a delete or a truncate.
    pub fn after(&self) -> Option<Row<'a>> {
        let skip = match self.head.before_kind {
            BeforeKind::None => 0,
            BeforeKind::Key | BeforeKind::Full => self.columns(),
        };
        self.head.has_after.then_some(Row {
            batch: self.batch,
            cells: self.head.cells + skip,
            columns: self.columns(),
        })
    }

    /// Bytes of the log that this change took.
    pub fn size_bytes(&self) -> usize {
        self.head.size as usize
    }

    fn columns(&self) -> u32 {
        self.table().columns.len() as u32
    }
}

/// One image of a row: as many cells as its schema has columns.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    batch: &'a Batch,
    cells: u32,
    columns: u32,
}

impl<'a> Row<'a> {
    /// How many cells.
    pub fn len(&self) -> usize {
        self.columns as usize
    }

    /// Whether the table has no columns at all.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The cell of a column; [`Cell::Missing`] beyond the last column.
    #[inline]
    pub fn cell(&self, column: usize) -> Cell<'a> {
        if column >= self.columns as usize {
            return Cell::Missing;
        }
        let raw = self.batch.buffers.cells[self.cells as usize + column];
        match raw.len {
            NULL => Cell::Null,
            MISSING => Cell::Missing,
            UNCHANGED => Cell::Unchanged,
            len => {
                let (buffer, start) = if raw.start & EXTRA == 0 {
                    (&self.batch.buffers.data, raw.start as usize)
                } else {
                    (&self.batch.buffers.extra, (raw.start & !EXTRA) as usize)
                };
                Cell::Value(&buffer[start..start + len as usize])
            }
        }
    }

    /// The typed view of a cell that holds a value of the given class.
    pub fn value(&self, column: usize, class: Class) -> Option<Value<'a>> {
        match self.cell(column) {
            Cell::Value(text) => Value::parse(class, text),
            _ => None,
        }
    }

    /// All cells in column order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let row = *self;
        (0..row.len()).map(move |i| row.cell(i))
    }
}

/// Fills a batch. A connector that reads text from a socket reads into [`BatchBuilder::data`]
/// itself and adds cells as ranges; others append with [`BatchBuilder::cell_bytes`].
///
/// The order of calls: `table` and `tx` whenever they change; then for each change
/// `begin`, the cells of the before image (if any), the cells of the after image (if any),
/// `finish`.
pub struct BatchBuilder {
    batch: Batch,
    open: Option<Head>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::in_buffers(Pooled::default())
    }
}

impl BatchBuilder {
    /// A builder in the memory of a batch that is no longer needed, if there is one. `data`
    /// begins with the given bytes and has room for so many in all.
    pub fn in_pool(pool: &Pool<Buffers>, data: &[u8], data_bytes: usize) -> Self {
        let mut buffers = pool.take();
        buffers.reset(data_bytes.max(data.len()));
        buffers.data.extend_from_slice(data);
        BatchBuilder::in_buffers(buffers)
    }

    /// A builder whose `data` is the given buffer with its contents.
    pub fn with_buffer(data: Vec<u8>) -> Self {
        let mut builder = BatchBuilder::default();
        builder.batch.buffers.data = data;
        builder
    }

    fn in_buffers(buffers: Pooled<Buffers>) -> Self {
        BatchBuilder {
            batch: Batch {
                buffers,
                tables: Vec::new(),
                cursor: Cursor::new(&[], ""),
            },
            open: None,
        }
    }

    /// The raw buffer, to be read into and to be looked at. Bytes before the end of a cell
    /// that was added must not be removed.
    #[inline]
    pub fn data(&mut self) -> &mut Vec<u8> {
        &mut self.batch.buffers.data
    }

    /// How many changes are finished.
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.buffers.heads.len()
    }

    /// Whether no change is finished.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batch.buffers.heads.is_empty()
    }

    /// Bytes held in memory.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.batch.size_bytes()
    }

    /// Makes a table known, and gives its index for [`BatchBuilder::begin`].
    ///
    /// # Panics
    /// Beyond 65,535 table versions in one batch: a caller closes the batch long before.
    pub fn table(&mut self, schema: &Arc<TableSchema>) -> u16 {
        let tables = &mut self.batch.tables;
        let at = tables
            .iter()
            .rposition(|t| Arc::ptr_eq(t, schema))
            .unwrap_or_else(|| {
                tables.push(Arc::clone(schema));
                tables.len() - 1
            });
        assert!(at <= usize::from(u16::MAX), "too many tables in one batch");
        at as u16
    }

    /// Starts a transaction; changes that follow belong to it.
    pub fn tx(&mut self, tx: Tx) {
        self.batch.buffers.txs.push(tx);
    }

    /// Whether a transaction was started in this batch.
    pub fn has_tx(&self) -> bool {
        !self.batch.buffers.txs.is_empty()
    }

    /// Starts a change with no images yet.
    ///
    /// # Panics
    /// When no transaction or no such table was made known: a broken invariant.
    #[inline]
    pub fn begin(&mut self, table: u16, op: Op, ordinal: u32) {
        assert!(self.has_tx(), "a change outside of a transaction");
        assert!(
            usize::from(table) < self.batch.tables.len(),
            "an unknown table index"
        );
        self.open = Some(Head {
            table,
            op,
            before_kind: BeforeKind::None,
            has_after: false,
            tx: (self.batch.buffers.txs.len() - 1) as u32,
            ordinal,
            cells: self.batch.buffers.cells.len() as u32,
            size: 0,
        });
    }

    /// Adds a null.
    #[inline]
    pub fn cell_null(&mut self) {
        self.batch.buffers.cells.push(RawCell {
            start: 0,
            len: NULL,
        });
    }

    /// Adds a cell that this image does not carry.
    #[inline]
    pub fn cell_missing(&mut self) {
        self.batch.buffers.cells.push(RawCell {
            start: 0,
            len: MISSING,
        });
    }

    /// Adds a cell that is as it was before.
    #[inline]
    pub fn cell_unchanged(&mut self) {
        self.batch.buffers.cells.push(RawCell {
            start: 0,
            len: UNCHANGED,
        });
    }

    /// Adds the value that the whole old row of this change has in the same column, for a
    /// cell that the log calls unchanged. Stays unchanged where the old row lacks it.
    /// `columns` is the length of a row; the old row was added just before the new one.
    #[inline]
    pub fn cell_from_before(&mut self, columns: usize) {
        let cells = &mut self.batch.buffers.cells;
        let before = cells.len().checked_sub(columns).map(|at| cells[at]);
        cells.push(match before {
            Some(cell) if cell.len != MISSING => cell,
            _ => RawCell {
                start: 0,
                len: UNCHANGED,
            },
        });
    }

    /// Adds canonical text that already lies in `data`.
    ///
    /// # Panics
    /// When the range is not inside of `data`, or beyond 2 GiB.
    #[inline]
    pub fn cell_range(&mut self, start: usize, len: usize) {
        assert!(
            start + len <= self.batch.buffers.data.len() && start + len < EXTRA as usize,
            "a cell outside of its batch"
        );
        self.batch.buffers.cells.push(RawCell {
            start: start as u32,
            len: len as u32,
        });
    }

    /// Adds canonical text by copying it.
    ///
    /// # Panics
    /// Beyond 2 GiB of rewritten text in one batch.
    pub fn cell_bytes(&mut self, text: &[u8]) {
        let start = self.batch.buffers.extra.len();
        assert!(start + text.len() < EXTRA as usize, "a batch of over 2 GiB");
        self.batch.buffers.extra.extend_from_slice(text);
        self.batch.buffers.cells.push(RawCell {
            start: start as u32 | EXTRA,
            len: text.len() as u32,
        });
    }

    /// The raw buffer to read from, and beside it the place where cells are added: for a
    /// connector that decodes binary values, so that it need not copy each one first.
    #[inline]
    pub fn parts(&mut self) -> (&[u8], Cells<'_>) {
        let Buffers {
            data, extra, cells, ..
        } = &mut *self.batch.buffers;
        let data_len = data.len();
        (
            data,
            Cells {
                cells,
                extra,
                data_len,
            },
        )
    }

    /// Says that the cells added since [`BatchBuilder::begin`] are the key-only old row.
    pub fn before_is_key(&mut self) {
        self.set_before(BeforeKind::Key);
    }

    /// Says that the cells added since [`BatchBuilder::begin`] are the whole old row.
    pub fn before_is_full(&mut self) {
        self.set_before(BeforeKind::Full);
    }

    fn set_before(&mut self, kind: BeforeKind) {
        if let Some(head) = &mut self.open {
            head.before_kind = kind;
        }
    }

    /// Ends the change. `has_after`: the last cells added are the new row. `size` is what
    /// the change took in the log, in bytes.
    ///
    /// # Panics
    /// When the cells are not as many as the images need: a broken invariant.
    #[inline]
    pub fn finish(&mut self, has_after: bool, size: usize) {
        if let Some(mut head) = self.open.take() {
            let columns = self.batch.tables[usize::from(head.table)].columns.len();
            let images = usize::from(head.before_kind != BeforeKind::None) + usize::from(has_after);
            assert_eq!(
                self.batch.buffers.cells.len() - head.cells as usize,
                columns * images,
                "a row with another number of cells than its table has columns"
            );
            head.has_after = has_after;
            head.size = u32::try_from(size).unwrap_or(u32::MAX);
            self.batch.buffers.heads.push(head);
        }
    }

    /// Throws the unfinished change away.
    pub fn abandon(&mut self) {
        if let Some(head) = self.open.take() {
            self.batch.buffers.cells.truncate(head.cells as usize);
        }
    }

    /// Closes the batch at a cursor.
    pub fn build(mut self, cursor: Cursor) -> Batch {
        self.abandon();
        self.batch.cursor = cursor;
        self.batch
    }
}

/// Adds cells to the open change while the raw buffer is read; see [`BatchBuilder::parts`].
pub struct Cells<'a> {
    cells: &'a mut Vec<RawCell>,
    extra: &'a mut Vec<u8>,
    data_len: usize,
}

impl Cells<'_> {
    fn state(&mut self, len: u32) {
        self.cells.push(RawCell { start: 0, len });
    }

    /// As [`BatchBuilder::cell_null`].
    #[inline]
    pub fn null(&mut self) {
        self.state(NULL);
    }

    /// As [`BatchBuilder::cell_missing`].
    #[inline]
    pub fn missing(&mut self) {
        self.state(MISSING);
    }

    /// As [`BatchBuilder::cell_unchanged`].
    #[inline]
    pub fn unchanged(&mut self) {
        self.state(UNCHANGED);
    }

    /// As [`BatchBuilder::cell_from_before`].
    #[inline]
    pub fn from_before(&mut self, columns: usize) {
        match self.before(columns) {
            Some(cell) if cell.len != MISSING => self.cells.push(cell),
            _ => self.unchanged(),
        }
    }

    fn before(&self, columns: usize) -> Option<RawCell> {
        let at = self.cells.len().checked_sub(columns)?;
        self.cells.get(at).copied()
    }

    /// The rewritten text of the old row's cell in the same column, if it has one that was
    /// added with [`Cells::write`] or [`Cells::bytes`].
    pub fn before_text(&self, columns: usize) -> Option<&[u8]> {
        let cell = self.before(columns)?;
        if cell.len >= UNCHANGED || cell.start & EXTRA == 0 {
            return None;
        }
        let start = (cell.start & !EXTRA) as usize;
        self.extra.get(start..start + cell.len as usize)
    }

    /// As [`BatchBuilder::cell_range`].
    ///
    /// # Panics
    /// When the range is not inside of the raw buffer, or beyond 2 GiB.
    #[inline]
    pub fn range(&mut self, start: usize, len: usize) {
        assert!(
            start + len <= self.data_len && start + len < EXTRA as usize,
            "a cell outside of its batch"
        );
        self.cells.push(RawCell {
            start: start as u32,
            len: len as u32,
        });
    }

    /// Bytes that rewritten text may still take in this batch.
    #[inline]
    pub fn room(&self) -> usize {
        (EXTRA as usize - 1).saturating_sub(self.extra.len())
    }

    /// As [`BatchBuilder::cell_bytes`].
    ///
    /// # Panics
    /// When the text is longer than [`Cells::room`].
    #[inline]
    pub fn bytes(&mut self, text: &[u8]) {
        let start = self.extra.len();
        self.extra.extend_from_slice(text);
        self.close(start);
    }

    /// Adds the canonical text that the closure appends. When it fails, no cell is added.
    ///
    /// # Errors
    /// What the closure returns.
    ///
    /// # Panics
    /// When what was appended is longer than [`Cells::room`].
    #[inline]
    pub fn write<E>(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.extra.len();
        if let Err(error) = append(self.extra) {
            self.extra.truncate(start);
            return Err(error);
        }
        self.close(start);
        Ok(())
    }

    #[inline]
    fn close(&mut self, start: usize) {
        assert!(
            start <= self.extra.len() && self.extra.len() < EXTRA as usize,
            "a batch of over 2 GiB"
        );
        self.cells.push(RawCell {
            start: start as u32 | EXTRA,
            len: (self.extra.len() - start) as u32,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{Class, Column, TableName};

    #[test]
    fn cells_that_are_added_beside_the_buffer_read_as_those_of_the_builder() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            class: Class::Text,
            type_name: "text".to_owned(),
            nullable: true,
        };
        let schema = Arc::new(TableSchema {
            table: TableName::new("hr", "t"),
            columns: vec![column("a"), column("b"), column("c")],
            key: vec![0],
        });
        let mut builder = BatchBuilder::with_buffer(b"raw text".to_vec());
        let table = builder.table(&schema);
        builder.tx(Tx {
            id: TxId::default(),
            position: SmallVec::new(),
            commit_us: 0,
        });
        builder.begin(table, Op::Update, 0);
        let (data, mut cells) = builder.parts();
        assert_eq!(data, b"raw text");
        cells.range(4, 4);
        cells.bytes(b"old");
        cells.missing();
        builder.before_is_full();
        let (_, mut cells) = builder.parts();
        let before = cells.room();
        let failed: Result<(), u8> = cells.write(|out| {
            out.extend_from_slice(b"half");
            Err(1)
        });
        assert_eq!(
            (failed, cells.room()),
            (Err(1), before),
            "nothing was added"
        );
        assert_eq!(cells.before_text(3), None, "it lies in the raw buffer");
        cells.null();
        assert_eq!(cells.before_text(3), Some(&b"old"[..]));
        cells
            .write::<u8>(|out| {
                out.extend_from_slice(b"new");
                Ok(())
            })
            .unwrap();
        cells.from_before(3);
        builder.finish(true, 8);
        let batch = builder.build(Cursor::new(&[1], "1"));
        let change = batch.change(0);
        let read = |row: Row<'_>| format!("{:?}", row.cells().collect::<Vec<_>>());
        let text = |t: &str| format!("{:?}", Cell::Value(t.as_bytes()));
        assert_eq!(
            read(change.before().row().unwrap()),
            format!("[{}, {}, Missing]", text("text"), text("old"))
        );
        assert_eq!(
            read(change.after().unwrap()),
            format!("[Null, {}, Unchanged]", text("new"))
        );
    }
}
