//! Character sets with more than one byte a character.

use super::{DecoderResult, Multi, push, push_invalid};

/// East Asian character sets, by the tables of the WHATWG's encodings except where the
/// server's differ.
pub(super) fn east_asian(multi: Multi, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut decoder = multi.encoding().new_decoder_without_bom_handling();
    let mut invalid = 0;
    let mut at = 0;
    let mut buffer = [0u8; 512];
    loop {
        let rest = &bytes[at..];
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(rest, &mut buffer, true);
        out.extend_from_slice(&buffer[..written]);
        at += read;
        match result {
            DecoderResult::InputEmpty => return invalid,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(bad, after) => {
                let end = at - usize::from(after);
                invalid += push_invalid(&bytes[end - usize::from(bad)..end], out);
            }
        }
    }
}

pub(super) fn ucs2(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut invalid = 0;
    for pair in pairs {
        match char::from_u32(u32::from(u16::from_be_bytes(*pair))) {
            Some(c) => push(c, out),
            None => invalid += push_invalid(pair, out),
        }
    }
    invalid + push_invalid(rest, out)
}

pub(super) fn utf16(bytes: &[u8], out: &mut Vec<u8>, unit: impl Fn([u8; 2]) -> u16) -> usize {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut invalid = 0;
    let mut at = 0;
    for c in char::decode_utf16(pairs.iter().map(|p| unit(*p))) {
        match c {
            Ok(c) => {
                at += c.len_utf16();
                push(c, out);
            }
            Err(_) => {
                invalid += push_invalid(&pairs[at], out);
                at += 1;
            }
        }
    }
    invalid + push_invalid(rest, out)
}

pub(super) fn utf32(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let (units, rest) = bytes.as_chunks::<4>();
    let mut invalid = 0;
    for unit in units {
        match char::from_u32(u32::from_be_bytes(*unit)) {
            Some(c) => push(c, out),
            None => invalid += push_invalid(unit, out),
        }
    }
    invalid + push_invalid(rest, out)
}
