//! The key of a record.
//!
//! The encoding is injective (each part is preceded by its length), so two keys are equal
//! exactly when their bytes are, and a composite key never collides with another.

use smallvec::SmallVec;

use crate::{Cell, Row, TableSchema};

/// The canonical text of the key columns, encoded as length-prefixed parts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key(SmallVec<[u8; 32]>);

impl Key {
    /// Starts from nothing; see [`Key::push`].
    pub fn new() -> Self {
        Key::default()
    }

    /// Appends one part.
    pub fn push(&mut self, part: &[u8]) {
        let mut n = part.len();
        while n >= 0x80 {
            self.0.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        self.0.extend_from_slice(part);
    }

    /// Makes the key of a row. `None` when a key column is null, missing or unchanged.
    pub fn of_row(schema: &TableSchema, row: &Row<'_>) -> Option<Key> {
        let mut key = Key::new();
        key.set_from_row(schema, row).then_some(key)
    }

    /// As [`Key::of_row`], into a key that is reused. `false` leaves the key undefined.
    pub fn set_from_row(&mut self, schema: &TableSchema, row: &Row<'_>) -> bool {
        self.0.clear();
        for &i in &schema.key {
            match row.cell(i) {
                Cell::Value(v) => self.push(v),
                _ => return false,
            }
        }
        true
    }

    /// The encoded bytes: what the store keeps and compares.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes encoded bytes back. `None` when they are not an encoding of parts.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        let key = Key(SmallVec::from_slice(bytes));
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_part(rest)?.1;
        }
        Some(key)
    }

    /// The parts in order: canonical texts of the key columns.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (part, tail) = split_part(rest)?;
            rest = tail;
            Some(part)
        })
    }

    /// For people: the parts joined by commas.
    pub fn display(&self) -> String {
        let mut out = String::new();
        for (i, p) in self.parts().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&String::from_utf8_lossy(p));
        }
        out
    }
}

/// Keys name people's records; only their size is shown in debug output.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut n = 0usize;
    for (i, &b) in bytes.iter().enumerate().take(5) {
        n |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            let rest = bytes.get(i + 1..)?;
            return (rest.len() >= n).then(|| rest.split_at(n));
        }
    }
    None
}
