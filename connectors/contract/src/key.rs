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

    /// A key of nobody, in place of one that another record has taken while what it led to
    /// still waits for its end. No table has it: it has one part more than columns, which is
    /// `mark`, and the same key is given up under several marks.
    pub fn given_up(bytes: &[u8], mark: [u8; MARK]) -> Key {
        let mut key = Key(SmallVec::from_slice(bytes));
        let mut part = [0; GIVEN_UP.len() + MARK];
        part[..GIVEN_UP.len()].copy_from_slice(GIVEN_UP);
        part[GIVEN_UP.len()..].copy_from_slice(&mark);
        key.push(&part);
        key
    }

    /// Whether no table has this key any more: see [`Key::given_up`].
    pub fn is_given_up(&self) -> bool {
        self.parts().last().is_some_and(is_mark)
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

    /// The canonical texts of the key columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &[u8]> {
        self.parts().filter(|part| !is_mark(part))
    }

    /// The parts in order: [`Key::columns`], and the mark of a key that was given up.
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

    /// For people: the columns joined by commas. Where a comma in a column of several would make
    /// another key read the same, it is a JSON array of the columns.
    pub fn display(&self) -> String {
        let texts = self.texts();
        if texts.len() > 1 && texts.iter().any(|t| t.contains(',')) {
            return self.spelled();
        }
        texts.join(",")
    }

    /// As a JSON array of the columns: no other key of texts is spelled so.
    pub fn spelled(&self) -> String {
        serde_json::json!(self.texts()).to_string()
    }

    /// The columns as texts.
    pub fn texts(&self) -> Vec<String> {
        let text = |column| String::from_utf8_lossy(column).into_owned();
        self.columns().map(text).collect()
    }
}

/// Keys name people's records; only their size is shown in debug output.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// What the last part of a key begins with that was given up.
const GIVEN_UP: &[u8] = b"\0given up\0";

/// Bytes by which keys that were given up differ.
const MARK: usize = 16;

fn is_mark(part: &[u8]) -> bool {
    part.len() == GIVEN_UP.len() + MARK && part.starts_with(GIVEN_UP)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_never_read_the_same() {
        let key = |columns: &[&str]| {
            let mut key = Key::new();
            for column in columns {
                key.push(column.as_bytes());
            }
            key.display()
        };
        assert_eq!(key(&["eu", "17"]), "eu,17");
        assert_eq!(key(&["Doe, Jane"]), "Doe, Jane");
        assert_eq!(key(&["a,b", "c"]), r#"["a,b","c"]"#);
        assert_eq!(key(&["a", "b,c"]), r#"["a","b,c"]"#);
    }

    #[test]
    fn a_key_that_was_given_up_is_another_one_and_reads_as_it_was() {
        let mut key = Key::new();
        key.push(b"eu");
        key.push(b"17");
        let nobodys = Key::given_up(key.as_bytes(), [7; 16]);
        assert!(!key.is_given_up() && nobodys.is_given_up());
        assert_ne!(nobodys, key);
        assert_ne!(nobodys, Key::given_up(key.as_bytes(), [8; 16]));
        assert_eq!(nobodys.display(), "eu,17");
        assert_eq!(nobodys.columns().count(), 2);
        assert_eq!(Key::from_bytes(nobodys.as_bytes()), Some(nobodys));
    }
}
