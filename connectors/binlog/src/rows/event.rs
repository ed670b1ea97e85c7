//! What stands before the rows of an event.

use std::borrow::Cow;
use std::ops::Range;

use rollcall_contract::{BatchBuilder, Op};

use super::WHAT;
use crate::error::DecodeError;
use crate::event::{Kind, RawEvent};
use crate::fields::Fields;
use crate::table_map::TableId;

/// The head of a rows event. Positions are within its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsEvent {
    /// The table, as its map numbered it.
    pub table: TableId,
    flags: u16,
    op: Op,
    is_partial: bool,
    is_compressed: bool,
    columns: usize,
    /// The bits of the old row's columns, and of the new one's; the same for an insert or a
    /// delete, which has one image only.
    present: [usize; 2],
    rows_at: usize,
}

impl RowsEvent {
    const STATEMENT_END: u16 = 1;

    /// Reads the head.
    ///
    /// # Errors
    /// When the event is none of rows, or is too short.
    pub fn parse(raw: &RawEvent<'_>) -> Result<RowsEvent, DecodeError> {
        let mut f = Fields::new(WHAT, raw.body);
        let kind = raw.header.kind;
        let op = match kind {
            Kind::WriteRows | Kind::WriteRowsV1 => Op::Insert,
            Kind::UpdateRows | Kind::UpdateRowsV1 | Kind::PartialUpdateRows => Op::Update,
            Kind::DeleteRows | Kind::DeleteRowsV1 => Op::Delete,
            _ => return Err(f.bad("an event of another kind")),
        };
        let table = TableId(f.u48()?);
        let flags = f.u16()?;
        let is_first_version = matches!(
            kind,
            Kind::WriteRowsV1 | Kind::UpdateRowsV1 | Kind::DeleteRowsV1
        );
        if !is_first_version {
            // Partitions, and what NDB adds; the length counts itself.
            let extra = usize::from(f.u16()?).checked_sub(2);
            f.bytes(extra.ok_or_else(|| f.bad("a length that is none"))?)?;
        }
        let columns = f.lenenc_len()?;
        let mut present = [raw.body.len() - f.len(); 2];
        f.bytes(columns.div_ceil(8))?;
        if op == Op::Update {
            present[1] = raw.body.len() - f.len();
            f.bytes(columns.div_ceil(8))?;
        }
        Ok(RowsEvent {
            table,
            flags,
            op,
            is_partial: kind == Kind::PartialUpdateRows,
            is_compressed: raw.header.is_compressed,
            columns,
            present,
            rows_at: raw.body.len() - f.len(),
        })
    }

    /// Whether the statement ends with it: rows that follow have table maps of their own.
    pub fn ends_statement(&self) -> bool {
        self.flags & RowsEvent::STATEMENT_END != 0
    }

    /// What happened to the rows.
    pub fn op(&self) -> Op {
        self.op
    }

    /// How many columns the table has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether it has no row: such an event only ends a statement, and its table need not
    /// be known.
    pub fn is_empty(&self, body: &[u8]) -> bool {
        self.rows_at >= body.len()
    }

    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    pub(super) fn present<'b>(&self, body: &'b [u8]) -> Result<[&'b [u8]; 2], DecodeError> {
        let len = self.columns.div_ceil(8);
        let bits = |at: usize| {
            let bits = body.get(at..).and_then(|rest| rest.get(..len));
            bits.ok_or(DecodeError::Truncated { what: WHAT })
        };
        Ok([bits(self.present[0])?, bits(self.present[1])?])
    }

    /// Where the rows lie in the builder's data, which they are appended to if they were
    /// compressed.
    pub(super) fn rows(
        &self,
        builder: &mut BatchBuilder,
        body: Range<usize>,
    ) -> Result<Range<usize>, DecodeError> {
        let rows = body.start + self.rows_at..body.end;
        if !self.is_compressed {
            return Ok(rows);
        }
        let data = builder.data();
        let packed = data.get(rows).unwrap_or_default().to_vec();
        let start = data.len();
        crate::compressed::expand(&packed, data)?;
        Ok(start..data.len())
    }

    pub(super) fn plain_rows<'b>(&self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, DecodeError> {
        let rows = body.get(self.rows_at..).unwrap_or_default();
        if !self.is_compressed {
            return Ok(Cow::Borrowed(rows));
        }
        let mut out = Vec::new();
        crate::compressed::expand(rows, &mut out)?;
        Ok(Cow::Owned(out))
    }
}
