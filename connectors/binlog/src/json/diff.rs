//! Partial updates (`binlog_row_value_options = PARTIAL_JSON`): a list of operations on
//! paths, applied to the text of the old document.
//!
//! The old document is the canonical text that the log or a scan gave before. Its scalars
//! are kept as they are spelled and new values are printed as whole documents are, so what
//! comes out is the text that the server would print for the new document. Members of an
//! object are in the server's order: by the length of the key, then by its bytes.

use std::borrow::Cow;

use super::{MAX_DEPTH, WHAT, malformed, print, quote};
use crate::error::DecodeError;
use crate::fields::Fields;

/// A document as a tree over its text.
enum Node<'t> {
    /// As it is spelled.
    Scalar(Cow<'t, [u8]>),
    Array(Vec<Node<'t>>),
    /// Keys without quotes and escapes.
    Object(Vec<(Cow<'t, [u8]>, Node<'t>)>),
}

/// Appends the document that the operations make of the old one (`Json_diff_vector` of
/// `sql/json_diff.cc`: an operation, a path, and a value unless it is a removal).
pub(crate) fn apply(old: &[u8], diffs: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut f = Fields::new("a JSON difference", diffs);
    let mut values = Vec::new();
    let mut steps = Vec::new();
    while !f.is_empty() {
        let operation = f.u8()?;
        let path = f.lenenc_bytes()?;
        let value = match operation {
            REPLACE | INSERT => {
                let begin = values.len();
                print(f.lenenc_bytes()?, &mut values)?;
                begin..values.len()
            }
            REMOVE => 0..0,
            _ => return Err(f.bad("an unknown operation")),
        };
        steps.push((operation, path, value));
    }
    let mut root = Text { rest: old }.document()?;
    for (operation, path, value) in steps {
        let value = match operation {
            REMOVE => None,
            _ => Some(
                Text {
                    rest: &values[value],
                }
                .document()?,
            ),
        };
        step(&mut root, operation, path, value)?;
    }
    write(&root, out);
    Ok(())
}

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

fn no_place() -> DecodeError {
    DecodeError::malformed(
        "a JSON difference",
        "a path that the old document does not have",
    )
}

fn step<'t>(
    root: &mut Node<'t>,
    operation: u8,
    path: &'t [u8],
    value: Option<Node<'t>>,
) -> Result<(), DecodeError> {
    let mut legs = Path::new(path)?;
    let Some(mut leg) = legs.next_leg()? else {
        return match (operation, value) {
            (REPLACE, Some(value)) => {
                *root = value;
                Ok(())
            }
            _ => Err(no_place()),
        };
    };
    let mut at = root;
    while let Some(next) = legs.next_leg()? {
        at = child(at, &leg).ok_or_else(no_place)?;
        leg = next;
    }
    match (operation, value) {
        (REPLACE, Some(value)) => *child(at, &leg).ok_or_else(no_place)? = value,
        (INSERT, Some(value)) => match (at, leg) {
            (Node::Array(items), Leg::Cell(index)) => {
                let index = index.min(items.len());
                items.insert(index, value);
            }
            (Node::Object(members), Leg::Member(key)) => {
                let order = |k: &[u8]| (k.len(), k.to_vec());
                let place = members.binary_search_by_key(&order(&key), |(k, _)| order(k));
                match place {
                    Ok(_) => return Err(no_place()),
                    Err(place) => members.insert(place, (key, value)),
                }
            }
            _ => return Err(no_place()),
        },
        _ => match (at, leg) {
            (Node::Array(items), Leg::Cell(index)) if index < items.len() => {
                items.remove(index);
            }
            (Node::Object(members), Leg::Member(key)) => {
                let place = members.iter().position(|(k, _)| *k == key);
                members.remove(place.ok_or_else(no_place)?);
            }
            _ => return Err(no_place()),
        },
    }
    Ok(())
}

fn child<'n, 't>(node: &'n mut Node<'t>, leg: &Leg<'t>) -> Option<&'n mut Node<'t>> {
    match (node, leg) {
        (Node::Array(items), Leg::Cell(index)) => items.get_mut(*index),
        (Node::Object(members), Leg::Member(key)) => members
            .iter_mut()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value),
        _ => None,
    }
}

fn write(node: &Node<'_>, out: &mut Vec<u8>) {
    match node {
        Node::Scalar(text) => out.extend_from_slice(text),
        Node::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                write(item, out);
            }
            out.push(b']');
        }
        Node::Object(members) => {
            out.push(b'{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                quote(key, out);
                out.extend_from_slice(b": ");
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

/// One step of a path.
enum Leg<'t> {
    Member(Cow<'t, [u8]>),
    Cell(usize),
}

/// A path as the server writes it: `$`, then `.name`, `."any name"` and `[index]`.
struct Path<'t> {
    text: Text<'t>,
}

impl<'t> Path<'t> {
    fn new(path: &'t [u8]) -> Result<Self, DecodeError> {
        let rest = path.strip_prefix(b"$").ok_or_else(no_place)?;
        Ok(Path {
            text: Text { rest },
        })
    }

    fn next_leg(&mut self) -> Result<Option<Leg<'t>>, DecodeError> {
        let text = &mut self.text;
        match text.next() {
            None => Ok(None),
            Some(b'[') => {
                let digits = text.until(|b| !b.is_ascii_digit());
                let index = std::str::from_utf8(digits).ok();
                let index = index.and_then(|d| d.parse().ok()).ok_or_else(no_place)?;
                text.expect(b']')?;
                Ok(Some(Leg::Cell(index)))
            }
            Some(b'.') if text.rest.first() == Some(&b'"') => {
                Ok(Some(Leg::Member(text.string()?.1)))
            }
            Some(b'.') => {
                let name = text.until(|b| matches!(b, b'.' | b'['));
                if name.is_empty() {
                    return Err(no_place());
                }
                Ok(Some(Leg::Member(Cow::Borrowed(name))))
            }
            Some(_) => Err(no_place()),
        }
    }
}

/// What is left of a document's text.
struct Text<'t> {
    rest: &'t [u8],
}

impl<'t> Text<'t> {
    fn document(mut self) -> Result<Node<'t>, DecodeError> {
        let node = self.node(0)?;
        self.space();
        if !self.rest.is_empty() {
            return Err(malformed("text behind its end"));
        }
        Ok(node)
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), DecodeError> {
        match self.next() {
            Some(b) if b == wanted => Ok(()),
            _ => Err(malformed("not the text of one")),
        }
    }

    fn space(&mut self) {
        self.until(|b| !b.is_ascii_whitespace());
    }

    /// Takes what comes before the first byte that is one of those.
    fn until(&mut self, is_end: impl Fn(u8) -> bool) -> &'t [u8] {
        let len = self.rest.iter().position(|b| is_end(*b));
        let (head, tail) = self.rest.split_at(len.unwrap_or(self.rest.len()));
        self.rest = tail;
        head
    }

    fn node(&mut self, depth: usize) -> Result<Node<'t>, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(malformed("too many levels"));
        }
        self.space();
        match self.rest.first() {
            Some(b'{') => {
                let mut members = Vec::new();
                self.items(b'}', |text| {
                    text.space();
                    let (_, key) = text.string()?;
                    text.space();
                    text.expect(b':')?;
                    members.push((key, text.node(depth + 1)?));
                    Ok(())
                })?;
                Ok(Node::Object(members))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.items(b']', |text| {
                    items.push(text.node(depth + 1)?);
                    Ok(())
                })?;
                Ok(Node::Array(items))
            }
            Some(b'"') => Ok(Node::Scalar(Cow::Borrowed(self.string()?.0))),
            _ => {
                let scalar = self.until(|b| matches!(b, b',' | b']' | b'}' | b' '));
                if scalar.is_empty() {
                    return Err(malformed("not the text of one"));
                }
                Ok(Node::Scalar(Cow::Borrowed(scalar)))
            }
        }
    }

    /// Items with commas between, from the opening bracket to the closing one.
    fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.next();
        self.space();
        if self.rest.first() == Some(&close) {
            self.next();
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.next() {
                Some(b',') => {}
                Some(b) if b == close => return Ok(()),
                _ => return Err(malformed("not the text of one")),
            }
        }
    }

    /// A string as it is spelled, and what it says.
    fn string(&mut self) -> Result<(&'t [u8], Cow<'t, [u8]>), DecodeError> {
        let whole = self.rest;
        self.expect(b'"')?;
        let mut said: Cow<'t, [u8]> = Cow::Borrowed(&[]);
        loop {
            let plain = self.until(|b| matches!(b, b'"' | b'\\'));
            if said.is_empty() {
                said = Cow::Borrowed(plain);
            } else {
                said.to_mut().extend_from_slice(plain);
            }
            match self.next() {
                Some(b'"') => {
                    let len = whole.len() - self.rest.len();
                    return Ok((&whole[..len], said));
                }
                Some(_) => self.escaped(said.to_mut())?,
                None => return Err(DecodeError::Truncated { what: WHAT }),
            }
        }
    }

    fn escaped(&mut self, said: &mut Vec<u8>) -> Result<(), DecodeError> {
        said.push(match self.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let c = self.unit()?;
                let c = if (0xD800..0xDC00).contains(&c) && self.rest.starts_with(b"\\u") {
                    self.rest = &self.rest[2..];
                    0x1_0000 + ((c - 0xD800) << 10) + (self.unit()?.wrapping_sub(0xDC00) & 0x3FF)
                } else {
                    c
                };
                let c = char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER);
                said.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(b) => b,
            None => return Err(DecodeError::Truncated { what: WHAT }),
        });
        Ok(())
    }

    fn unit(&mut self) -> Result<u32, DecodeError> {
        let digits = self.rest.get(..4);
        let unit = digits
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit))
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| malformed("an escape that is none"))?;
        self.rest = &self.rest[4..];
        Ok(unit)
    }
}
