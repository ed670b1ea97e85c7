//! The stored form of a raw row.
//!
//! A shadow is what fills the gaps of later images, so its one duty is never to claim more
//! than was known: a column is a value, null or missing, and a redacted column is missing
//! always. It carries the number of the schema under which it was written, since columns
//! come, go and move; it is read back by column names (see
//! [`Mapper::learn_schema`](super::Mapper::learn_schema)), never by position alone.
//!
//! Layout: schema number, number of columns, then for each column a head and its bytes; all
//! numbers are LEB128. Head 0 is null, 1 is missing, n + 2 is a value of n bytes. Decoding
//! checks every length against what is there and refuses bytes behind the last column, so
//! damaged bytes are an error and never another row.
//!
//! The same encoding without the schema number, over all columns, is what the row's hash is
//! taken of: heads make it injective, so rows with equal hashes are equal but for the
//! chance of a 64-bit hash.

use rollcall_contract::Cell;
use smallvec::SmallVec;

/// Cells of one row on the stack; a wider table spills to the heap.
pub(crate) type Cells<'a> = SmallVec<[Cell<'a>; 48]>;

const NULL: usize = 0;
const MISSING: usize = 1;
const VALUE: usize = 2;

/// A stored row is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored row is damaged")]
pub struct ShadowError;

/// A stored row, borrowed.
#[derive(Clone, Debug)]
pub struct Shadow<'a> {
    version: u32,
    cells: Cells<'a>,
}

impl<'a> Shadow<'a> {
    /// Reads a stored row.
    pub fn decode(bytes: &'a [u8]) -> Result<Shadow<'a>, ShadowError> {
        let mut rest = bytes;
        let version = read_number(&mut rest)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or(ShadowError)?;
        let cells = decode_cells(rest)?;
        Ok(Shadow { version, cells })
    }

    /// The number of the schema under which it was written.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How many columns it has.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether it has no columns.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cell of a column by its index in the schema under which the shadow was written;
    /// [`Cell::Missing`] beyond the last. Never [`Cell::Unchanged`].
    pub fn cell(&self, column: usize) -> Cell<'a> {
        self.cells.get(column).copied().unwrap_or(Cell::Missing)
    }
}

/// Reads cells that [`encode_cells`] has written, and nothing behind them.
pub(crate) fn decode_cells(mut rest: &[u8]) -> Result<Cells<'_>, ShadowError> {
    let count = read_number(&mut rest).ok_or(ShadowError)?;
    // Each column takes at least a byte: a damaged count cannot ask for more memory
    // than the bytes that are there.
    if count > rest.len() {
        return Err(ShadowError);
    }
    let mut cells = Cells::with_capacity(count);
    for _ in 0..count {
        cells.push(match read_number(&mut rest).ok_or(ShadowError)? {
            NULL => Cell::Null,
            MISSING => Cell::Missing,
            head => {
                let (value, tail) = rest.split_at_checked(head - VALUE).ok_or(ShadowError)?;
                rest = tail;
                Cell::Value(value)
            }
        });
    }
    match rest.is_empty() {
        true => Ok(cells),
        false => Err(ShadowError),
    }
}

/// The values of a shadow's first cells; of a wide table no more.
pub(crate) type ShadowValues<'a> = SmallVec<[&'a [u8]; SHADOW_VALUES]>;

const SHADOW_VALUES: usize = 32;

/// The values of the first cells, an empty one for a cell without a value. Bytes that are no
/// shadow have no cells, and the same bytes have the same cells always.
pub(crate) fn shadow_values(bytes: &[u8]) -> ShadowValues<'_> {
    let mut values = ShadowValues::new();
    let mut rest = bytes;
    let (Some(_version), Some(count)) = (read_number(&mut rest), read_number(&mut rest)) else {
        return values;
    };
    for _ in 0..count.min(SHADOW_VALUES) {
        let value = match read_number(&mut rest) {
            None => return values,
            Some(NULL | MISSING) => &[][..],
            Some(head) => match rest.split_at_checked(head - VALUE) {
                None => return values,
                Some((value, tail)) => {
                    rest = tail;
                    value
                }
            },
        };
        values.push(value);
    }
    values
}

/// Appends the stored form of a row; columns for which `redacted` holds are left out.
pub(crate) fn encode(
    version: u32,
    cells: &[Cell<'_>],
    redacted: impl Fn(usize) -> bool,
    out: &mut Vec<u8>,
) {
    encode_version(version, out);
    encode_cells(cells, redacted, out);
}

/// Appends what stands before the cells in the stored form.
pub(crate) fn encode_version(version: u32, out: &mut Vec<u8>) {
    push_number(version as usize, out);
}

/// Appends what a row's hash is taken of.
pub(crate) fn encode_cells(
    cells: &[Cell<'_>],
    redacted: impl Fn(usize) -> bool,
    out: &mut Vec<u8>,
) {
    push_number(cells.len(), out);
    for (i, cell) in cells.iter().enumerate() {
        match cell {
            _ if redacted(i) => push_number(MISSING, out),
            Cell::Null => push_number(NULL, out),
            Cell::Missing | Cell::Unchanged => push_number(MISSING, out),
            Cell::Value(v) => {
                push_number(v.len() + VALUE, out);
                out.extend_from_slice(v);
            }
        }
    }
}

#[inline]
fn push_number(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
fn read_number(rest: &mut &[u8]) -> Option<usize> {
    let mut n = 0usize;
    for i in 0..5 {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        n |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a failed test should stop at once"
    )]
    use super::*;
    use proptest::prelude::*;

    fn owned_cell() -> impl Strategy<Value = Option<Option<Vec<u8>>>> {
        // None: missing; Some(None): null.
        prop_oneof![
            Just(None),
            Just(Some(None)),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(|v| Some(Some(v))),
        ]
    }

    fn view(cells: &[Option<Option<Vec<u8>>>]) -> Vec<Cell<'_>> {
        cells
            .iter()
            .map(|c| match c {
                None => Cell::Missing,
                Some(None) => Cell::Null,
                Some(Some(v)) => Cell::Value(v),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_row_comes_back_as_it_was(
            version in any::<u32>(),
            cells in proptest::collection::vec(owned_cell(), 0..60),
        ) {
            let cells = view(&cells);
            let mut bytes = Vec::new();
            encode(version, &cells, |_| false, &mut bytes);
            let shadow = Shadow::decode(&bytes).unwrap();
            prop_assert_eq!(shadow.version(), version);
            prop_assert_eq!(shadow.len(), cells.len());
            for (i, cell) in cells.iter().enumerate() {
                prop_assert_eq!(shadow.cell(i), *cell);
            }
            prop_assert_eq!(shadow.cell(cells.len()), Cell::Missing);
            // No part of it is taken for a whole.
            for end in 0..bytes.len() {
                prop_assert!(Shadow::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(shadow) = Shadow::decode(&bytes) {
                prop_assert!(shadow.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_redacted_column_leaves_no_trace() {
        let cells = [Cell::Value(b"kept"), Cell::Value(b"marker-value")];
        let mut bytes = Vec::new();
        encode(7, &cells, |i| i == 1, &mut bytes);
        assert!(!bytes.windows(6).any(|w| w == b"marker"));
        let shadow = Shadow::decode(&bytes).unwrap();
        assert_eq!(shadow.cell(0), Cell::Value(b"kept"));
        assert_eq!(shadow.cell(1), Cell::Missing);
    }

    #[test]
    fn an_unchanged_cell_is_stored_as_unknown() {
        let mut bytes = Vec::new();
        encode(1, &[Cell::Unchanged], |_| false, &mut bytes);
        assert_eq!(Shadow::decode(&bytes).unwrap().cell(0), Cell::Missing);
    }
}
