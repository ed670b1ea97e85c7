//! From the server's text to canonical text: within its own bytes where it fits, as a JSON
//! list where it is an array.

use std::ops::Range;

use smallvec::SmallVec;

use super::NotCanonical;

const LIMIT: usize = 1 << 30;

/// How a text that is not a list becomes canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    AsIs,
    Bytes,
    Timestamp,
    TimestampTz,
}

/// Rewrites a scalar within its own bytes; gives where the canonical text lies.
pub(super) fn in_place(scalar: Scalar, text: &mut [u8]) -> Result<Range<usize>, NotCanonical> {
    match scalar {
        Scalar::AsIs => Ok(0..text.len()),
        Scalar::Bytes => text
            .starts_with(b"\\x")
            .then_some(2..text.len())
            .ok_or(NotCanonical::Shape),
        Scalar::Timestamp => {
            if !matches!(&*text, b"infinity" | b"-infinity") {
                separate(text)?;
            }
            Ok(0..text.len())
        }
        Scalar::TimestampTz => {
            if matches!(&*text, b"infinity" | b"-infinity") {
                return Ok(0..text.len());
            }
            let at = separate(text)?;
            let zone = text[at..]
                .iter()
                .position(|b| matches!(b, b'+' | b'-'))
                .ok_or(NotCanonical::Shape)?
                + at;
            if !matches!(&text[zone..], b"+00" | b"+00 BC") {
                return Err(NotCanonical::Shape);
            }
            text[zone] = b'Z';
            text.copy_within(zone + 3.., zone + 1);
            Ok(0..text.len() - 2)
        }
    }
}

/// Puts the `T` between an ISO date and its time; gives where.
fn separate(text: &mut [u8]) -> Result<usize, NotCanonical> {
    // The year has four digits or more; a space that is not where an ISO date ends would
    // be another date style.
    let at = text
        .iter()
        .position(|&b| b == b' ')
        .filter(|&at| at >= 10 && text[at - 3] == b'-' && text[at - 6] == b'-')
        .ok_or(NotCanonical::Shape)?;
    text[at] = b'T';
    Ok(at)
}

/// Writes an array as a JSON list of strings and nulls. The elements of an array with
/// several dimensions are its sub-arrays, as the server prints them.
pub(super) fn list(
    element: Scalar,
    delimiter: u8,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), NotCanonical> {
    let mut rest = text;
    if rest.first() == Some(&b'[') {
        // Bounds other than from 1: `[0:2]={…}`
        let equals = memchr::memchr(b'=', rest).ok_or(NotCanonical::Shape)?;
        rest = &rest[equals + 1..];
    }
    let mut rest = rest.strip_prefix(b"{").ok_or(NotCanonical::Shape)?;
    out.push(b'[');
    if rest == b"}" {
        out.push(b']');
        return Ok(());
    }
    let mut value = SmallVec::<[u8; 64]>::new();
    loop {
        value.clear();
        let (&first, tail) = rest.split_first().ok_or(NotCanonical::Shape)?;
        let mut is_null = false;
        match first {
            b'"' => {
                rest = quoted(tail, &mut value)?;
                let range = in_place(element, &mut value)?;
                json_string(&value[range], out);
            }
            b'{' => {
                let len = nested(rest)?;
                json_string(&rest[..len], out);
                rest = &rest[len..];
            }
            _ => {
                let len = rest
                    .iter()
                    .position(|&b| b == delimiter || b == b'}')
                    .ok_or(NotCanonical::Shape)?;
                is_null = rest[..len].eq_ignore_ascii_case(b"null");
                if !is_null {
                    value.extend_from_slice(&rest[..len]);
                    let range = in_place(element, &mut value)?;
                    json_string(&value[range], out);
                }
                rest = &rest[len..];
            }
        }
        if is_null {
            out.extend_from_slice(b"null");
        }
        if out.len() > LIMIT {
            return Err(NotCanonical::TooLong);
        }
        let (&next, tail) = rest.split_first().ok_or(NotCanonical::Shape)?;
        rest = tail;
        if next == delimiter {
            out.push(b',');
        } else if next == b'}' && rest.is_empty() {
            out.push(b']');
            return Ok(());
        } else {
            return Err(NotCanonical::Shape);
        }
    }
}

/// Takes a quoted element behind its opening quote; gives what follows the closing one.
fn quoted<'a>(
    mut rest: &'a [u8],
    value: &mut SmallVec<[u8; 64]>,
) -> Result<&'a [u8], NotCanonical> {
    loop {
        let stop = memchr::memchr2(b'"', b'\\', rest).ok_or(NotCanonical::Shape)?;
        value.extend_from_slice(&rest[..stop]);
        if rest[stop] == b'"' {
            return Ok(&rest[stop + 1..]);
        }
        value.push(*rest.get(stop + 1).ok_or(NotCanonical::Shape)?);
        rest = &rest[stop + 2..];
    }
}

/// The length of a sub-array that begins here.
fn nested(text: &[u8]) -> Result<usize, NotCanonical> {
    let (mut depth, mut in_quotes, mut at) = (0usize, false, 0);
    while let Some(&b) = text.get(at) {
        match b {
            b'\\' => at += 1,
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(NotCanonical::Shape)
}

fn json_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(b >> 4)],
                HEX[usize::from(b & 15)],
            ]),
            _ => out.push(b),
        }
    }
    out.push(b'"');
}
