//! Rows, read in place.
//!
//! The bytes of a row lie in the batch's own buffer already; a cell becomes a range of it.
//! The four states stay apart: in a key-only old row the columns outside of the replica
//! identity are sent as nulls and mean nothing, so they become missing; an unchanged TOAST
//! value is taken from the full old row when the message has one, and stays unchanged
//! otherwise.

use rollcall_contract::{BatchBuilder, ConnectorError};

use super::relation::Layout;
use crate::errors::protocol_violation;
use crate::types::NotCanonical;

/// Which image of the row a tuple is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    /// The old row, replica identity only.
    Key,
    /// The whole old row.
    Old,
    /// The new row, with no whole old row before it.
    New,
    /// The new row, behind the whole old row.
    NewBehindOld,
}

/// Reads one tuple at `at` as cells of the open change; gives the position behind it.
pub(crate) fn read(
    builder: &mut BatchBuilder,
    layout: &Layout,
    at: usize,
    end: usize,
    image: Image,
    scratch: &mut Vec<u8>,
) -> Result<usize, ConnectorError> {
    let short = || protocol_violation("a row that is too short");
    let data = &builder.data()[..end];
    let count = data
        .get(at..)
        .and_then(|d| d.first_chunk::<2>())
        .ok_or_else(short)?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count != layout.columns.len() {
        return Err(protocol_violation(format_args!(
            "a row of {count} columns for a table of {}",
            layout.columns.len()
        )));
    }
    let mut at = at + 2;
    for (index, column) in layout.columns.iter().enumerate() {
        let data = &builder.data()[..end];
        let kind = *data.get(at).ok_or_else(short)?;
        at += 1;
        match kind {
            b'n' if image == Image::Key && !column.in_identity => builder.cell_missing(),
            b'n' => builder.cell_null(),
            b'u' => match image {
                Image::Key | Image::Old => builder.cell_missing(),
                Image::New => builder.cell_unchanged(),
                Image::NewBehindOld => builder.cell_from_before(layout.columns.len()),
            },
            b't' => {
                let len = data
                    .get(at..)
                    .and_then(|d| d.first_chunk::<4>())
                    .ok_or_else(short)?;
                let len = u32::from_be_bytes(*len) as usize;
                at += 4;
                if len > end - at {
                    return Err(short());
                }
                if image == Image::Key && !column.in_identity {
                    builder.cell_missing();
                } else {
                    column
                        .form
                        .add_cell(builder, at..at + len, scratch)
                        .map_err(|e| not_canonical(layout, index, e))?;
                }
                at += len;
            }
            _ => return Err(protocol_violation("a column of an unknown kind")),
        }
    }
    Ok(at)
}

fn not_canonical(layout: &Layout, index: usize, error: NotCanonical) -> ConnectorError {
    let (code, fix) = match error {
        NotCanonical::Shape => (
            "unexpected_form",
            "Connect to the server itself: something between drops the session settings \
             (DateStyle, TimeZone, bytea_output).",
        ),
        NotCanonical::TooLong => (
            "value_too_long",
            "Leave the column out of the publication's column list.",
        ),
    };
    ConnectorError::definite(
        code,
        format!(
            "A value of {}.{} {error}.",
            layout.schema.table, layout.schema.columns[index].name
        ),
        fix,
    )
}
