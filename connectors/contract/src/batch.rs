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

mod builder;
mod caps;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::pool::Pooled;
use crate::{Class, Cursor, TableNo, TableSchema, TxId, Value};

pub use builder::{BatchBuilder, Cells};
pub use caps::{BatchCaps, Gathered, KeptSmall, Small};

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
    /// All rows of the table were removed; the change has no images. Tables that are emptied
    /// together have a change each, with the same ordinal.
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
    tables: Vec<BatchTable>,
    cursor: Cursor,
}

/// A table in one version, as changes of a batch refer to it.
#[derive(Clone, Debug)]
pub struct BatchTable {
    /// Which one of the source's tables.
    pub no: TableNo,
    /// Its columns.
    pub schema: Arc<TableSchema>,
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

    /// The tables that changes of this batch refer to.
    pub fn tables(&self) -> &[BatchTable] {
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
        &self.batch.tables[usize::from(self.head.table)].schema
    }

    /// Which one of the source's tables.
    pub fn table_no(&self) -> TableNo {
        self.batch.tables[usize::from(self.head.table)].no
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

    /// The number of this change among all row changes of its transaction, of whichever
    /// table, from 0. The same change has the same number each time it is read.
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
        let table = builder.table(TableNo::MAIN, &schema);
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
