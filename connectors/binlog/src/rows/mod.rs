//! Rows events: from the images of rows to changes of a batch.
//!
//! The bytes of an event lie in the batch's own buffer. A [`Layout`] has one decoder for
//! each column, chosen when its table was described; a row is then one pass over its bytes,
//! in which text that is UTF-8 already stays where it lies and everything else is written
//! into the batch once. Nothing is allocated for a row or a cell.
//!
//! What an image lacks keeps its meaning. `binlog_row_image = MINIMAL` writes the key before
//! and the changed columns after an update, so a column that is not in the new row is as it
//! was: it is taken from the old row where that has it, and is unchanged otherwise. A column
//! that is not in an insert has its default, which the log does not say: it is missing. An
//! old row without all of its columns is a key, never a whole row.

mod event;

use rollcall_contract::{BatchBuilder, Cells, Op};
use smallvec::SmallVec;

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::table_map::TableMap;
use crate::types::{ColumnFacts, Extent, LogColumn, Reading, Unreadable};

pub use event::RowsEvent;

const WHAT: &str = "a rows event";
/// Such rows would have no end.
const NO_BYTES: DecodeError = DecodeError::Malformed {
    what: WHAT,
    why: "a row of no bytes",
};

/// How much of old rows is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OldRows {
    /// The columns of the record key, which is all that correlation needs.
    #[default]
    Key,
    /// Everything that the log has.
    Whole,
}

/// A column whose values cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {} cannot be read: {why}", name.clone().unwrap_or_else(|| format!("@{}", index + 1)))]
pub struct UnreadableColumn {
    /// Its index.
    pub index: usize,
    /// Its name, if the log has it.
    pub name: Option<String>,
    /// Why not.
    pub why: Unreadable,
}

/// How the rows of one version of a table are decoded.
#[derive(Clone, Debug)]
pub struct Layout {
    columns: Vec<LogColumn>,
    is_key: Vec<bool>,
    json_columns: usize,
    old_rows: OldRows,
}

impl Layout {
    /// Chooses a decoder for each column. `facts` are those of the columns in their order,
    /// or empty; `key` are the indexes of the record key.
    ///
    /// # Errors
    /// The first column whose values cannot be read.
    pub fn new(
        map: &TableMap,
        facts: &[ColumnFacts],
        key: &[usize],
        old_rows: OldRows,
    ) -> Result<Layout, UnreadableColumn> {
        let nothing = ColumnFacts::default();
        let columns = map.columns.iter().enumerate().map(|(index, column)| {
            LogColumn::new(column, facts.get(index).unwrap_or(&nothing)).map_err(|why| {
                UnreadableColumn {
                    index,
                    name: column.name.clone(),
                    why,
                }
            })
        });
        Ok(Layout {
            columns: columns.collect::<Result<_, _>>()?,
            is_key: (0..map.columns.len()).map(|i| key.contains(&i)).collect(),
            json_columns: map.json_columns,
            old_rows,
        })
    }

    /// Its columns: as many, and in the same order, as the schema's that goes with it.
    pub fn columns(&self) -> &[LogColumn] {
        &self.columns
    }
}

/// Why a row was not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct RowError {
    /// The column in whose value the fault is, if it is in one.
    pub column: Option<usize>,
    /// The fault.
    pub error: DecodeError,
}

impl From<DecodeError> for RowError {
    fn from(error: DecodeError) -> Self {
        RowError {
            column: None,
            error,
        }
    }
}

/// What is to be known of a row that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RowOutcome {
    /// The new row has values that are not in the log: defaults of an insert, or a JSON
    /// document of which only a difference came, without the old one. Their cells are
    /// missing; the row has to be read again by its key.
    pub is_incomplete: bool,
}

/// Which columns an image has.
struct Present {
    bits: SmallVec<[u8; 16]>,
    count: usize,
    is_all: bool,
}

impl Present {
    fn new(bits: &[u8], columns: usize) -> Present {
        let bits = SmallVec::from_slice(bits);
        let has = |i: usize| bit(&bits, i);
        let count = (0..columns).filter(|i| has(*i)).count();
        Present {
            bits,
            count,
            is_all: count == columns,
        }
    }

    #[inline]
    fn has(&self, column: usize) -> bool {
        self.is_all || bit(&self.bits, column)
    }
}

#[inline]
fn bit(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|b| b & 1 << (at % 8) != 0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Image {
    Old {
        is_whole: bool,
    },
    Inserted,
    /// Behind the old row of the same change.
    Updated,
}

/// Decodes the rows of one event, one after another.
pub struct RowReader<'l> {
    layout: &'l Layout,
    op: Op,
    is_partial: bool,
    before: Present,
    after: Present,
    at: usize,
    end: usize,
}

impl<'l> RowReader<'l> {
    /// Begins at the first row. `body` is where the event's body lies in the builder's
    /// data; rows that MariaDB compressed are appended to the data first.
    ///
    /// # Errors
    /// When the event has another number of columns than the layout, or its rows cannot be
    /// taken apart.
    pub fn new(
        event: &RowsEvent,
        layout: &'l Layout,
        builder: &mut BatchBuilder,
        body: std::ops::Range<usize>,
    ) -> Result<RowReader<'l>, DecodeError> {
        let columns = layout.columns.len();
        if event.columns() != columns {
            return Err(DecodeError::malformed(
                WHAT,
                "another number of columns than its table map",
            ));
        }
        let bytes = builder.data().get(body.clone());
        let bytes = bytes.ok_or(DecodeError::Truncated { what: WHAT })?;
        let [before, after] = event
            .present(bytes)?
            .map(|bits| Present::new(bits, columns));
        let rows = event.rows(builder, body)?;
        crate::types::is_addressable(rows.end)?;
        Ok(RowReader {
            layout,
            op: event.op(),
            is_partial: event.is_partial(),
            before,
            after,
            at: rows.start,
            end: rows.end,
        })
    }

    /// Decodes the next row into a change of the builder. None when there is none left. On
    /// an error the change is abandoned, and the reader cannot go on.
    ///
    /// # Errors
    /// When the bytes are not a row of this layout, or a date is refused.
    #[inline]
    pub fn read(
        &mut self,
        builder: &mut BatchBuilder,
        table: u16,
        ordinal: u32,
        reading: &mut Reading,
    ) -> Result<Option<RowOutcome>, RowError> {
        if self.at >= self.end {
            return Ok(None);
        }
        builder.begin(table, self.op, ordinal);
        let from = self.at;
        let mut outcome = self.row(builder, reading);
        if self.at == from && outcome.is_ok() {
            outcome = Err(NO_BYTES.into());
        }
        if outcome.is_err() {
            builder.abandon();
            self.at = self.end;
        }
        outcome.map(Some)
    }

    fn row(
        &mut self,
        builder: &mut BatchBuilder,
        reading: &mut Reading,
    ) -> Result<RowOutcome, RowError> {
        let begin = self.at;
        let mut outcome = RowOutcome::default();
        if self.op != Op::Insert {
            let is_wanted = self.layout.old_rows == OldRows::Whole
                || self.op == Op::Update && (self.is_partial || !self.after.is_all);
            let is_whole = is_wanted && self.before.is_all;
            self.image(
                builder,
                Image::Old {
                    is_whole: is_wanted,
                },
                reading,
            )?;
            if is_whole {
                builder.before_is_full();
            } else {
                builder.before_is_key();
            }
        }
        let image = match self.op {
            Op::Insert => Some(Image::Inserted),
            Op::Update => Some(Image::Updated),
            _ => None,
        };
        if let Some(image) = image {
            outcome.is_incomplete = self.image(builder, image, reading)?;
        }
        builder.finish(image.is_some(), self.at - begin);
        Ok(outcome)
    }

    /// Passes over the next row. Whether there was one.
    ///
    /// # Errors
    /// When the bytes are not a row of this layout.
    pub fn skip(&mut self, builder: &mut BatchBuilder) -> Result<bool, RowError> {
        if self.at >= self.end {
            return Ok(false);
        }
        let data = builder.data();
        let data = data.get(..self.end).unwrap_or_default();
        let from = self.at;
        let extents = |i: usize| self.layout.columns[i].extent;
        let columns = self.layout.columns.len();
        if self.op != Op::Insert {
            self.at = pass(data, self.at, columns, &self.before, extents)?;
        }
        if self.op == Op::Update && self.is_partial {
            self.at = partial_columns(data, self.at, self.layout.json_columns)?.1;
        }
        if self.op != Op::Delete {
            self.at = pass(data, self.at, columns, &self.after, extents)?;
        }
        if self.at == from {
            return Err(NO_BYTES.into());
        }
        Ok(true)
    }

    /// Adds the cells of one image. Whether values are missing that the row has.
    #[inline]
    fn image(
        &mut self,
        builder: &mut BatchBuilder,
        image: Image,
        reading: &mut Reading,
    ) -> Result<bool, RowError> {
        let layout = self.layout;
        let (data, mut cells) = builder.parts();
        let data = data.get(..self.end).unwrap_or_default();
        let mut at = self.at;
        let mut partial = Partial::default();
        if image == Image::Updated && self.is_partial {
            (partial, at) = partial_columns(data, at, layout.json_columns)?;
        }
        let present = match image {
            Image::Old { .. } => &self.before,
            Image::Inserted | Image::Updated => &self.after,
        };
        let nulls = data
            .get(at..)
            .and_then(|rest| rest.get(..present.count.div_ceil(8)))
            .ok_or(DecodeError::Truncated { what: WHAT })?;
        at += nulls.len();
        let mut is_incomplete = false;
        let mut nth = 0;
        for (i, column) in layout.columns.iter().enumerate() {
            // A bit for each JSON column, whether the image has it or not.
            let is_partial = column.is_json && partial.next();
            if !present.has(i) {
                match image {
                    Image::Old { .. } => cells.missing(),
                    Image::Inserted => {
                        is_incomplete = true;
                        cells.missing();
                    }
                    Image::Updated => cells.from_before(layout.columns.len()),
                }
                continue;
            }
            let is_null = bit(nulls, nth);
            nth += 1;
            let is_wanted = match image {
                Image::Old { is_whole } => is_whole || layout.is_key[i],
                _ => true,
            };
            if is_null {
                if is_wanted {
                    cells.null();
                } else {
                    cells.missing();
                }
                continue;
            }
            let in_column = |error| RowError {
                column: Some(i),
                error,
            };
            let (start, len) = column.extent.value(data, at).map_err(in_column)?;
            at = start + len;
            if !is_wanted {
                cells.missing();
            } else if is_partial {
                let difference = &data[start..at];
                is_incomplete |= !patch(layout.columns.len(), difference, &mut cells, reading)
                    .map_err(in_column)?;
            } else {
                column
                    .put(data, start, len, &mut cells, reading)
                    .map_err(in_column)?;
            }
        }
        self.at = at;
        Ok(is_incomplete)
    }
}

/// Which JSON columns of an updated row are differences.
#[derive(Default)]
struct Partial {
    bits: SmallVec<[u8; 8]>,
    next: usize,
}

impl Partial {
    #[inline]
    fn next(&mut self) -> bool {
        let at = self.next;
        self.next += 1;
        bit(&self.bits, at)
    }
}

/// What stands before the new row of a partial update: options, and a bit for each JSON
/// column of the table if the option for them is set.
fn partial_columns(
    data: &[u8],
    at: usize,
    json_columns: usize,
) -> Result<(Partial, usize), DecodeError> {
    const PARTIAL_JSON: u64 = 1;
    let mut f = Fields::new(WHAT, data.get(at..).unwrap_or_default());
    let options = f.lenenc()?;
    if options & !PARTIAL_JSON != 0 {
        return Err(DecodeError::Unsupported {
            what: WHAT,
            why: "an unknown kind of partial update",
        });
    }
    let bits = if options & PARTIAL_JSON != 0 {
        f.bytes(json_columns.div_ceil(8))?
    } else {
        &[]
    };
    let partial = Partial {
        bits: SmallVec::from_slice(bits),
        next: 0,
    };
    Ok((partial, data.len() - f.len()))
}

/// Applies a difference to the document of the old row. Whether there was one.
#[cold]
fn patch(
    columns: usize,
    difference: &[u8],
    cells: &mut Cells<'_>,
    reading: &mut Reading,
) -> Result<bool, DecodeError> {
    let Some(old) = cells.before_text(columns) else {
        cells.missing();
        return Ok(false);
    };
    reading.old_document.clear();
    reading.old_document.extend_from_slice(old);
    let longest = crate::json::longest_text(difference.len()).saturating_add(old.len());
    if longest > cells.room() {
        return Err(crate::types::TOO_LONG);
    }
    let old = &reading.old_document;
    cells.write(|out| crate::json::apply(old, difference, out))?;
    Ok(true)
}

/// Passes over one image; gives the position behind it.
fn pass(
    data: &[u8],
    at: usize,
    columns: usize,
    present: &Present,
    extents: impl Fn(usize) -> Extent,
) -> Result<usize, RowError> {
    let nulls = data
        .get(at..)
        .and_then(|rest| rest.get(..present.count.div_ceil(8)))
        .ok_or(DecodeError::Truncated { what: WHAT })?;
    let mut at = at + nulls.len();
    let columns = (0..columns).filter(|i| present.has(*i));
    for (nth, column) in columns.enumerate() {
        if !bit(nulls, nth) {
            let (start, len) = extents(column).value(data, at)?;
            at = start + len;
        }
    }
    Ok(at)
}

/// Counts the rows of an event of any table, which its map alone allows: for the ordinals
/// of rows that follow.
///
/// # Errors
/// When the rows are not of this table, or a type is not known.
pub fn count_rows(event: &RowsEvent, body: &[u8], map: &TableMap) -> Result<u32, DecodeError> {
    let extents = map.columns.iter().map(Extent::of);
    let extents: Vec<Extent> =
        extents
            .collect::<Result<_, _>>()
            .map_err(|_| DecodeError::Unsupported {
                what: WHAT,
                why: "a column of an unknown type",
            })?;
    if event.columns() != extents.len() {
        return Err(DecodeError::malformed(
            WHAT,
            "another number of columns than its table map",
        ));
    }
    let [before, after] = event
        .present(body)?
        .map(|bits| Present::new(bits, extents.len()));
    let rows = event.plain_rows(body)?;
    let (mut at, mut count) = (0, 0u32);
    let op = event.op();
    while at < rows.len() {
        let from = at;
        let walk = |at, present| {
            pass(&rows, at, extents.len(), present, |i| extents[i]).map_err(|e| e.error)
        };
        if op != Op::Insert {
            at = walk(at, &before)?;
        }
        if event.is_partial() {
            at = partial_columns(&rows, at, map.json_columns)?.1;
        }
        if op != Op::Delete {
            at = walk(at, &after)?;
        }
        if at == from {
            return Err(NO_BYTES);
        }
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
