//! JSON documents: from MySQL's binary form to the text that the server prints, and partial
//! updates applied to that text.
//!
//! The text has to be the server's own, byte by byte, because a scan receives it from the
//! server. It is `Json_wrapper::to_string` of MySQL: members in the stored order, a space
//! behind each comma and colon, numbers as `my_gcvt` prints them, and values of other types
//! (decimals, dates, opaque bytes) as numbers or strings.
//!
//! A document's parts are found by offsets, and a hostile one could refer to one part many
//! times and so grow without bound. The text of a part is never longer than a small
//! multiple of its bytes ([`longest_text`]), so what grows beyond that is refused.

mod diff;
mod number;
mod text;

use base64::Engine;

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::table_map::TypeCode;
use crate::types::{decimal_text, moment_from_packed};

pub(crate) use diff::apply;
pub(crate) use text::quote;

const WHAT: &str = "a JSON document";
/// `JSON_DOCUMENT_MAX_DEPTH`.
const MAX_DEPTH: usize = 100;

/// The longest text that a document of so many bytes can have: a control character is one
/// byte and prints as six.
pub(crate) fn longest_text(len: usize) -> usize {
    len.saturating_mul(6).saturating_add(64)
}

/// Appends the text of a document in binary form, its type byte first. A document of no
/// bytes is the null that the server puts where it could not put a value.
pub(crate) fn print(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let Some((&kind, body)) = bytes.split_first() else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let limit = out.len().saturating_add(longest_text(bytes.len()));
    let mut printer = Printer { out, limit };
    printer.value(kind, body, 0)
}

struct Printer<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
}

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

fn malformed(why: &'static str) -> DecodeError {
    DecodeError::malformed(WHAT, why)
}

impl Printer<'_> {
    /// Values are encoded as `json_binary.h` of the server says.
    fn value(&mut self, kind: u8, body: &[u8], depth: usize) -> Result<(), DecodeError> {
        if self.out.len() > self.limit {
            return Err(malformed("parts that overlap"));
        }
        let mut f = Fields::new(WHAT, body);
        match kind {
            SMALL_OBJECT | LARGE_OBJECT | SMALL_ARRAY | LARGE_ARRAY => {
                return self.container(kind, body, depth + 1);
            }
            LITERAL => self.literal(f.u8()?)?,
            INT16 => self.signed(i64::from(f.u16()? as i16)),
            UINT16 => self.unsigned(u64::from(f.u16()?)),
            INT32 => self.signed(i64::from(f.u32()? as i32)),
            UINT32 => self.unsigned(u64::from(f.u32()?)),
            INT64 => self.signed(f.u64()? as i64),
            UINT64 => self.unsigned(f.u64()?),
            DOUBLE => number::print(f64::from_bits(f.u64()?), self.out)?,
            STRING => {
                let len = length(&mut f)?;
                quote(f.bytes(len)?, self.out);
            }
            OPAQUE => {
                let code = TypeCode(f.u8()?);
                let len = length(&mut f)?;
                self.opaque(code, f.bytes(len)?)?;
            }
            _ => return Err(malformed("a value of an unknown type")),
        }
        Ok(())
    }

    fn signed(&mut self, n: i64) {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }

    fn unsigned(&mut self, n: u64) {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }

    fn literal(&mut self, literal: u8) -> Result<(), DecodeError> {
        self.out.extend_from_slice(match literal {
            0 => b"null",
            1 => b"true",
            2 => b"false",
            _ => return Err(malformed("an unknown literal")),
        });
        Ok(())
    }

    fn opaque(&mut self, code: TypeCode, bytes: &[u8]) -> Result<(), DecodeError> {
        match code {
            TypeCode::NEWDECIMAL => decimal_text(bytes, self.out),
            TypeCode::DATE | TypeCode::TIME | TypeCode::DATETIME | TypeCode::TIMESTAMP => {
                self.out.push(b'"');
                moment_from_packed(code, bytes, self.out)?;
                self.out.push(b'"');
                Ok(())
            }
            TypeCode::VAR_STRING => {
                quote(bytes, self.out);
                Ok(())
            }
            TypeCode(code) => {
                self.out.extend_from_slice(b"\"base64:type");
                self.unsigned(u64::from(code));
                self.out.push(b':');
                // The server breaks the line behind 76 characters, and escapes the break.
                for (i, line) in bytes.chunks(57).enumerate() {
                    if i > 0 {
                        self.out.extend_from_slice(b"\\n");
                    }
                    let line = base64::engine::general_purpose::STANDARD.encode(line);
                    self.out.extend_from_slice(line.as_bytes());
                }
                self.out.push(b'"');
                Ok(())
            }
        }
    }

    fn container(&mut self, kind: u8, body: &[u8], depth: usize) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(malformed("too many levels"));
        }
        let is_large = matches!(kind, LARGE_OBJECT | LARGE_ARRAY);
        let is_object = matches!(kind, SMALL_OBJECT | LARGE_OBJECT);
        let width = if is_large { 4 } else { 2 };
        let mut f = Fields::new(WHAT, body);
        let count = f.uint(width)? as usize;
        let size = f.uint(width)? as usize;
        let body = body
            .get(..size)
            .ok_or_else(|| malformed("a part that reaches beyond its end"))?;
        let mut f = Fields::new(WHAT, body);
        f.bytes(2 * width)?;
        let keys = if is_object {
            let len = count.checked_mul(width + 2);
            f.bytes(len.ok_or_else(|| f.short())?)?
        } else {
            &[]
        };
        let mut keys = Fields::new(WHAT, keys);
        let part = |at: u64| {
            let part = usize::try_from(at).ok().and_then(|at| body.get(at..));
            part.ok_or_else(|| malformed("a part that is not there"))
        };
        self.out.push(if is_object { b'{' } else { b'[' });
        for i in 0..count {
            if i > 0 {
                self.out.extend_from_slice(b", ");
            }
            if is_object {
                let at = keys.uint(width)?;
                let len = usize::from(keys.u16()?);
                let key = part(at)?
                    .get(..len)
                    .ok_or_else(|| malformed("a key that is not there"))?;
                quote(key, self.out);
                self.out.extend_from_slice(b": ");
            }
            let kind = f.u8()?;
            let entry = f.bytes(width)?;
            let is_inline = match kind {
                LITERAL | INT16 | UINT16 => true,
                INT32 | UINT32 => is_large,
                _ => false,
            };
            let value = if is_inline {
                entry
            } else {
                part(Fields::new(WHAT, entry).uint(width)?)?
            };
            self.value(kind, value, depth)?;
        }
        self.out.push(if is_object { b'}' } else { b']' });
        Ok(())
    }
}

/// Seven bits a byte, the lowest first, at most five bytes.
fn length(f: &mut Fields<'_>) -> Result<usize, DecodeError> {
    let mut len = 0usize;
    for i in 0..5 {
        let b = f.u8()?;
        len |= usize::from(b & 0x7F) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(len);
        }
    }
    Err(f.bad("a length of more than 32 bits"))
}

#[cfg(test)]
mod tests;
