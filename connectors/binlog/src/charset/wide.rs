//! Character sets with more than one byte a character.

use super::{DecoderResult, Multi, push, push_invalid};

/// Characters for which the servers' tables are not those of the WHATWG's encodings: first
/// and last code, and the first character (`CONVERT(CONVERT(X'8160' USING sjis) USING
/// utf32)` for every code, against MariaDB 10.11).
type Own = &'static [(u16, u16, u16)];

const SJIS: Own = &[
    (0x815F, 0x815F, 0x5C),
    (0x8160, 0x8160, 0x301C),
    (0x8161, 0x8161, 0x2016),
    (0x817C, 0x817C, 0x2212),
    (0x8191, 0x8192, 0xA2),
    (0x81CA, 0x81CA, 0xAC),
];
const UJIS: Own = &[
    (0xA1C0, 0xA1C0, 0x5C),
    (0xA1C1, 0xA1C1, 0x301C),
    (0xA1C2, 0xA1C2, 0x2016),
    (0xA1DD, 0xA1DD, 0x2212),
    (0xA1F1, 0xA1F2, 0xA2),
    (0xA2CC, 0xA2CC, 0xAC),
];
const GB2312: Own = &[(0xA1A4, 0xA1A4, 0x30FB), (0xA1AA, 0xA1AA, 0x2015)];
const BIG5: Own = &[
    (0xA145, 0xA145, 0x2022),
    (0xA14E, 0xA14E, 0xFF64),
    (0xA1C2, 0xA1C2, 0x203E),
    (0xA1E3, 0xA1E3, 0x223C),
    (0xA1F2, 0xA1F2, 0x2641),
    (0xA1F3, 0xA1F3, 0x2609),
    (0xA241, 0xA241, 0xFF0F),
    (0xA242, 0xA242, 0xFF3C),
    (0xA244, 0xA244, 0xA5),
    (0xA246, 0xA247, 0xA2),
    (0xC6A1, 0xC6A1, 0x30FE),
    (0xC6A2, 0xC6A3, 0x309D),
    (0xC6A4, 0xC6A4, 0x3005),
    (0xC6A5, 0xC6F7, 0x3041),
    (0xC6F8, 0xC6FE, 0x30A1),
    (0xC740, 0xC77E, 0x30A8),
    (0xC7A1, 0xC7B0, 0x30E7),
    (0xC7B1, 0xC7B2, 0x414),
    (0xC7B3, 0xC7B3, 0x401),
    (0xC7B4, 0xC7BA, 0x416),
    (0xC7BB, 0xC7CD, 0x423),
    (0xC7CE, 0xC7CE, 0x451),
    (0xC7CF, 0xC7E8, 0x436),
    (0xC7E9, 0xC7F2, 0x2460),
    (0xC7F3, 0xC7FC, 0x2474),
];

/// East Asian character sets.
pub(super) fn east_asian(multi: Multi, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let own = match multi {
        Multi::Sjis => SJIS,
        Multi::Ujis => UJIS,
        Multi::Eucjpms => &[],
        Multi::Gb2312 => GB2312,
        Multi::Big5 => BIG5,
        Multi::Cp932 | Multi::Euckr | Multi::Gbk | Multi::Gb18030 => {
            return by_encoding(multi, bytes, out);
        }
    };
    let (mut invalid, mut done, mut at) = (0, 0, 0);
    while let Some(len) = character_len(multi, &bytes[at..]) {
        if let Some(c) = own_character(multi, own, &bytes[at..at + len]) {
            invalid += by_encoding(multi, &bytes[done..at], out);
            push(c, out);
            done = at + len;
        }
        at += len;
    }
    invalid + by_encoding(multi, &bytes[done..], out)
}

/// The length of the character that begins here; none at the end.
fn character_len(multi: Multi, bytes: &[u8]) -> Option<usize> {
    let is_euc = matches!(multi, Multi::Ujis | Multi::Eucjpms);
    let len = match *bytes.first()? {
        0..=0x80 | 0xFF => 1,
        0x8F if is_euc => 3,
        0xA0..=0xDF if multi == Multi::Sjis => 1,
        _ => 2,
    };
    Some(len.min(bytes.len()))
}

fn own_character(multi: Multi, own: Own, bytes: &[u8]) -> Option<char> {
    // The rows of the user: 940 characters of two bytes, then 940 of three.
    let is_euc = matches!(multi, Multi::Ujis | Multi::Eucjpms);
    let user = match *bytes {
        [row @ 0xF5..=0xFE, cell @ 0xA1..=0xFE] if is_euc => Some((0xE000, row, cell)),
        [0x8F, row @ 0xF5..=0xFE, cell @ 0xA1..=0xFE] if is_euc => Some((0xE3AC, row, cell)),
        _ => None,
    };
    if let Some((first, row, cell)) = user {
        let at = u32::from(row - 0xF5) * 94 + u32::from(cell - 0xA1);
        return char::from_u32(first + at);
    }
    let code = u16::from_be_bytes(bytes.try_into().ok()?);
    let &(first, _, c) = own.iter().find(|(a, b, _)| (*a..=*b).contains(&code))?;
    char::from_u32(u32::from(c + (code - first)))
}

fn by_encoding(multi: Multi, bytes: &[u8], out: &mut Vec<u8>) -> usize {
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
