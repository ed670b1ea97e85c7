//! What mapping makes of rows: the input of the directory.
//!
//! As in a batch of the contract, many rows share one arena: values are ranges, a row is a
//! run of fields. A row whose image is incomplete (an unchanged TOAST value, a partial
//! image) cannot be mapped before the stored shadow is at hand; it is marked
//! [`Outcome::Deferred`] and mapped by the directory stage.

use crate::attribute::{AttrId, AttrType};
use crate::reason::SkipReason;

/// What a rule says of one attribute for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned<'a> {
    /// This value, in the canonical form of the attribute's type: NFC text; `true` or
    /// `false`; digits; ISO 8601; a list as length-prefixed texts (see [`ListValue`]).
    Value(&'a [u8]),
    /// The user that a record of the same source leads to: the key of that record
    /// ([`rollcall_contract::Key`] bytes), as links have it.
    Reference(&'a [u8]),
    /// The source says that there is no value.
    Clear,
    /// The source says nothing now; what it said before stays.
    Keep,
}

/// How a rule's value is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Strength {
    /// Follows the source always.
    #[default]
    Always = 0,
    /// Only when the user is created or the record is linked first.
    OnCreate = 1,
    /// Only while the user has no value.
    IfEmpty = 2,
}

/// One attribute of one mapped row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedField<'a> {
    /// Which attribute.
    pub attribute: AttrId,
    /// The number of the rule in the source's mapping, for provenance.
    pub rule: u16,
    /// How the value is used.
    pub strength: Strength,
    /// The value.
    pub assigned: Assigned<'a>,
}

/// How mapping one row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In scope; the fields are complete.
    Mapped,
    /// Out of scope: a leaver if it was in.
    OutOfScope,
    /// This record cannot be applied; the column or rule is named by number.
    Failed {
        /// Why.
        reason: SkipReason,
        /// The rule concerned, if one is.
        rule: Option<u16>,
    },
    /// The stored shadow is needed first.
    Deferred,
}

#[derive(Clone, Copy, Debug)]
struct FieldRecord {
    attribute: u16,
    rule: u16,
    strength: Strength,
    kind: u8,
    start: u32,
    len: u32,
}

const VALUE: u8 = 0;
const CLEAR: u8 = 1;
const KEEP: u8 = 2;
const REFERENCE: u8 = 3;

#[derive(Clone, Copy, Debug)]
struct RowRecord {
    outcome: Outcome,
    fields: u32,
    fields_end: u32,
    shadow: u32,
    shadow_len: u32,
    hash: u64,
    incomplete: bool,
}

/// Many mapped rows.
#[derive(Clone, Debug, Default)]
pub struct MappedRows {
    bytes: Vec<u8>,
    fields: Vec<FieldRecord>,
    rows: Vec<RowRecord>,
    has_references: bool,
}

impl MappedRows {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.rows.clear();
        self.has_references = false;
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at an index below [`MappedRows::len`].
    ///
    /// # Panics
    /// When the index is out of range.
    pub fn row(&self, index: usize) -> MappedRow<'_> {
        MappedRow {
            rows: self,
            record: self.rows[index],
        }
    }

    /// Whether any field may be a reference.
    pub fn has_references(&self) -> bool {
        self.has_references
    }

    /// Where the next value's bytes will begin; see [`MappedRows::value_since`].
    pub fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// The arena, to append one value's bytes to.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The bytes appended since a mark.
    pub fn since(&self, mark: usize) -> &[u8] {
        &self.bytes[mark..]
    }

    /// Adds a field whose value is everything appended since the mark.
    pub fn value_since(&mut self, mark: usize, attribute: AttrId, rule: u16, strength: Strength) {
        self.push_since(mark, attribute, rule, strength, VALUE);
    }

    /// Adds a field that refers to the record whose key is everything appended since the
    /// mark.
    pub fn reference_since(
        &mut self,
        mark: usize,
        attribute: AttrId,
        rule: u16,
        strength: Strength,
    ) {
        self.has_references = true;
        self.push_since(mark, attribute, rule, strength, REFERENCE);
    }

    fn push_since(
        &mut self,
        mark: usize,
        attribute: AttrId,
        rule: u16,
        strength: Strength,
        kind: u8,
    ) {
        self.fields.push(FieldRecord {
            attribute: attribute.0,
            rule,
            strength,
            kind,
            start: mark as u32,
            len: (self.bytes.len() - mark) as u32,
        });
    }

    /// Adds a field that is cleared.
    pub fn clear_field(&mut self, attribute: AttrId, rule: u16, strength: Strength) {
        self.push_empty(attribute, rule, strength, CLEAR);
    }

    /// Adds a field that is kept.
    pub fn keep_field(&mut self, attribute: AttrId, rule: u16, strength: Strength) {
        self.push_empty(attribute, rule, strength, KEEP);
    }

    fn push_empty(&mut self, attribute: AttrId, rule: u16, strength: Strength, kind: u8) {
        self.fields.push(FieldRecord {
            attribute: attribute.0,
            rule,
            strength,
            kind,
            start: 0,
            len: 0,
        });
    }

    /// How many fields there are in all: pass it to [`MappedRows::finish_row`] as it was
    /// before the row's first field.
    pub fn field_mark(&self) -> usize {
        self.fields.len()
    }

    /// Ends a row. Its fields (in ascending order of attributes) were added since
    /// `field_mark`, its shadow lies in the arena at the given range.
    pub fn finish_row(
        &mut self,
        outcome: Outcome,
        field_mark: usize,
        shadow: std::ops::Range<usize>,
        hash: u64,
    ) {
        self.rows.push(RowRecord {
            outcome,
            fields: field_mark as u32,
            fields_end: self.fields.len() as u32,
            shadow: shadow.start as u32,
            shadow_len: shadow.len() as u32,
            hash,
            incomplete: false,
        });
    }

    /// Says of the row that was finished last that a value which its rules need was
    /// nowhere to be found; see [`MappedRow::incomplete`].
    pub fn mark_incomplete(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.incomplete = true;
        }
    }

    /// Forgets the fields added since a mark (a row that failed half-way).
    pub fn truncate_fields(&mut self, field_mark: usize) {
        self.fields.truncate(field_mark);
    }
}

/// One mapped row.
#[derive(Clone, Copy, Debug)]
pub struct MappedRow<'a> {
    rows: &'a MappedRows,
    record: RowRecord,
}

impl<'a> MappedRow<'a> {
    /// How mapping ended.
    pub fn outcome(&self) -> Outcome {
        self.record.outcome
    }

    /// The raw row as the store keeps it (redacted columns left out); empty when deferred.
    pub fn shadow(&self) -> &'a [u8] {
        let start = self.record.shadow as usize;
        &self.rows.bytes[start..start + self.record.shadow_len as usize]
    }

    /// Hash of the whole row, redacted columns included.
    pub fn hash(&self) -> u64 {
        self.record.hash
    }

    /// Whether a value that a rule or the scope needs was neither in the image nor in the
    /// stored shadow. The fields concerned are [`Assigned::Keep`]; the record should be
    /// read again from its source.
    pub fn incomplete(&self) -> bool {
        self.record.incomplete
    }

    /// The fields in ascending order of attributes.
    pub fn fields(&self) -> impl Iterator<Item = MappedField<'a>> + Clone + use<'a> {
        let rows = self.rows;
        let range = self.record.fields as usize..self.record.fields_end as usize;
        let bytes = |f: &FieldRecord| &rows.bytes[f.start as usize..(f.start + f.len) as usize];
        rows.fields[range].iter().map(move |f| MappedField {
            attribute: AttrId(f.attribute),
            rule: f.rule,
            strength: f.strength,
            assigned: match f.kind {
                VALUE => Assigned::Value(bytes(f)),
                REFERENCE => Assigned::Reference(bytes(f)),
                CLEAR => Assigned::Clear,
                _ => Assigned::Keep,
            },
        })
    }
}

/// A record's key as people read it.
pub fn key_text(key: &[u8]) -> String {
    rollcall_contract::Key::from_bytes(key).map_or_else(String::new, |key| key.display())
}

/// The columns of a key of several, for programs; nothing when it has one, which is its text.
pub fn key_columns(key: &[u8]) -> Vec<String> {
    let texts = rollcall_contract::Key::from_bytes(key).map(|key| key.texts());
    texts.filter(|t| t.len() > 1).unwrap_or_default()
}

/// A stored value as people read it.
pub fn value_text(bytes: &[u8], kind: AttrType) -> String {
    if kind == AttrType::List {
        return ListValue::texts(bytes).collect::<Vec<_>>().join(", ");
    }
    String::from_utf8_lossy(bytes).into_owned()
}

/// The stored form of a list: each text preceded by its length (LEB128), sorted bytewise
/// and without repeats, so that equal sets are equal bytes.
pub struct ListValue;

impl ListValue {
    /// Appends the form of the given texts.
    pub fn encode(texts: &mut Vec<&str>, out: &mut Vec<u8>) {
        ListValue::encode_slice(texts, out);
        texts.dedup();
    }

    /// As [`ListValue::encode`], of texts in any buffer. They are left sorted.
    pub fn encode_slice(texts: &mut [&str], out: &mut Vec<u8>) {
        texts.sort_unstable();
        for (i, t) in texts.iter().enumerate() {
            if i > 0 && texts[i - 1] == *t {
                continue;
            }
            let mut n = t.len();
            while n >= 0x80 {
                out.push((n as u8 & 0x7f) | 0x80);
                n >>= 7;
            }
            out.push(n as u8);
            out.extend_from_slice(t.as_bytes());
        }
    }

    /// The texts of a form; stops at the first fault.
    pub fn texts(mut bytes: &[u8]) -> impl Iterator<Item = &str> {
        std::iter::from_fn(move || {
            let mut n = 0usize;
            let mut i = 0;
            loop {
                let b = *bytes.get(i)?;
                n |= usize::from(b & 0x7f).checked_shl(7 * i as u32)?;
                i += 1;
                if b & 0x80 == 0 {
                    break;
                }
                if i > 4 {
                    return None;
                }
            }
            let text = bytes.get(i..i + n)?;
            bytes = &bytes[i + n..];
            std::str::from_utf8(text).ok()
        })
    }
}
