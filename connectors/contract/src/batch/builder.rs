//! Filling a batch: the one place where ranges are made, and checked as they are added.

use std::sync::Arc;

use super::{
    Batch, BatchTable, BeforeKind, Buffers, EXTRA, Head, MISSING, NULL, Op, RawCell, Tx, UNCHANGED,
};
use crate::pool::{Pool, Pooled};
use crate::{Cursor, TableNo, TableSchema};

/// Fills a batch. A connector that reads text from a socket reads into [`BatchBuilder::data`]
/// itself and adds cells as ranges; others append with [`BatchBuilder::cell_bytes`].
///
/// The order of calls: `table` and `tx` whenever they change; then for each change
/// `begin`, the cells of the before image (if any), the cells of the after image (if any),
/// `finish`.
pub struct BatchBuilder {
    batch: Batch,
    open: Option<Head>,
    only_inserts: bool,
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
            only_inserts: true,
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

    /// Whether every change is an insert.
    #[inline]
    pub fn only_inserts(&self) -> bool {
        self.only_inserts
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
    pub fn table(&mut self, no: TableNo, schema: &Arc<TableSchema>) -> u16 {
        let tables = &mut self.batch.tables;
        let at = tables
            .iter()
            .rposition(|t| t.no == no && Arc::ptr_eq(&t.schema, schema))
            .unwrap_or_else(|| {
                tables.push(BatchTable {
                    no,
                    schema: Arc::clone(schema),
                });
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
        self.only_inserts &= op == Op::Insert;
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
            let columns = self.batch.tables[usize::from(head.table)]
                .schema
                .columns
                .len();
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
