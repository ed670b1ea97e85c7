//! Rows of the text protocol, for questions whose answers are few and small, and the column
//! definitions that come before rows of either protocol.

use rollcall_contract::ConnectorError;

use super::fields::Fields;
use crate::errors::protocol_violation;

/// One row as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    pub(crate) fn parse(payload: &[u8], columns: usize) -> Result<Row, ConnectorError> {
        let mut f = Fields::new("row", payload);
        let mut cells = Vec::new();
        for _ in 0..columns {
            cells.push(f.lenenc_bytes()?.map(<[u8]>::to_vec));
        }
        Ok(Row(cells))
    }

    /// The text of a column; none when it is null, is not there or is not UTF-8.
    pub(crate) fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.0.get(column)?.as_deref()?).ok()
    }

    /// The text of a column that is never null.
    pub(crate) fn need(&self, column: usize) -> Result<&str, ConnectorError> {
        self.text(column)
            .ok_or_else(|| protocol_violation("an answer without a field that it must have"))
    }

    /// The number in a column; none when there is none.
    pub(crate) fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }
}

/// One column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnDef {
    /// The collation's number; 63 is binary.
    pub(crate) charset: u16,
    /// The type's number in the protocol.
    pub(crate) kind: u8,
    /// `UNSIGNED_FLAG` and its siblings.
    pub(crate) flags: u16,
    /// Digits behind the point.
    pub(crate) decimals: u8,
    /// The width that the server shows.
    pub(crate) length: u32,
}

impl ColumnDef {
    pub(crate) fn parse(payload: &[u8]) -> Result<ColumnDef, ConnectorError> {
        let mut f = Fields::new("column definition", payload);
        // Catalog, schema, table, original table, name, original name.
        for _ in 0..6 {
            f.lenenc_bytes()?;
        }
        let _fixed = f.lenenc_int()?;
        let charset = f.u16()?;
        let length = f.u32()?;
        let kind = f.u8()?;
        let flags = f.u16()?;
        let decimals = f.u8()?;
        Ok(ColumnDef {
            charset,
            kind,
            flags,
            decimals,
            length,
        })
    }
}
