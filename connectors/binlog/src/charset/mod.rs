//! Character sets, and text in them as UTF-8.
//!
//! The log carries text in the character set of its column. A scan that asks for results
//! as they are (`character_set_results = NULL`) carries the same bytes, so both pass
//! through the same tables and equal values come out equal, whatever the server's own
//! conversion would have made of a byte that has no character.
//!
//! Names mean what the server means by them: its `latin1` is Windows code page 1252 with
//! the five holes filled, its `gbk` and `sjis` have their own rows. The single-byte tables
//! are the server's (`tables`).
//!
//! A byte that is no character becomes U+FFFD and its two hexadecimal digits: visible, and
//! different for different bytes, so that two keys do not become one.

mod tables;
mod wide;

use encoding_rs::{DecoderResult, Encoding};

/// A character set of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Bytes, not text.
    Binary,
    /// `utf8mb3` and `utf8mb4`.
    Utf8,
    /// `ascii`.
    Ascii,
    /// One byte a character, the lower half being ASCII.
    Single(Table),
    /// `swe7`: seven bits, with letters in place of brackets.
    Swe7,
    /// Up to four bytes a character, the lower half being ASCII.
    Multi(Multi),
    /// `ucs2`: two bytes a character, most significant first.
    Ucs2,
    /// `utf16`, most significant byte first.
    Utf16,
    /// `utf16le`.
    Utf16Le,
    /// `utf32`, most significant byte first.
    Utf32,
}

/// The upper half of a single-byte character set.
#[derive(Clone, Copy)]
pub struct Table {
    name: &'static str,
    upper: &'static [u16; 128],
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        self.name == other.name
    }
}

impl Eq for Table {}

/// A multi-byte character set of East Asia.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multi {
    /// `big5`
    Big5,
    /// `cp932`
    Cp932,
    /// `sjis`
    Sjis,
    /// `ujis`
    Ujis,
    /// `eucjpms`
    Eucjpms,
    /// `euckr`
    Euckr,
    /// `gb2312`
    Gb2312,
    /// `gbk`
    Gbk,
    /// `gb18030`
    Gb18030,
}

impl Multi {
    fn encoding(self) -> &'static Encoding {
        match self {
            Multi::Big5 => encoding_rs::BIG5,
            Multi::Cp932 | Multi::Sjis => encoding_rs::SHIFT_JIS,
            Multi::Ujis | Multi::Eucjpms => encoding_rs::EUC_JP,
            Multi::Euckr => encoding_rs::EUC_KR,
            Multi::Gb2312 | Multi::Gbk => encoding_rs::GBK,
            Multi::Gb18030 => encoding_rs::GB18030,
        }
    }
}

impl Charset {
    /// By the name in `information_schema` (`CHARACTER_SET_NAME`).
    pub fn by_name(name: &str) -> Option<Charset> {
        let single = |name, upper| Charset::Single(Table { name, upper });
        Some(match name {
            "binary" => Charset::Binary,
            "utf8" | "utf8mb3" | "utf8mb4" => Charset::Utf8,
            "ascii" => Charset::Ascii,
            "swe7" => Charset::Swe7,
            "ucs2" => Charset::Ucs2,
            "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16Le,
            "utf32" => Charset::Utf32,
            "big5" => Charset::Multi(Multi::Big5),
            "cp932" => Charset::Multi(Multi::Cp932),
            "sjis" => Charset::Multi(Multi::Sjis),
            "ujis" => Charset::Multi(Multi::Ujis),
            "eucjpms" => Charset::Multi(Multi::Eucjpms),
            "euckr" => Charset::Multi(Multi::Euckr),
            "gb2312" => Charset::Multi(Multi::Gb2312),
            "gbk" => Charset::Multi(Multi::Gbk),
            "gb18030" => Charset::Multi(Multi::Gb18030),
            "armscii8" => single("armscii8", &tables::ARMSCII8),
            "cp1250" => single("cp1250", &tables::CP1250),
            "cp1251" => single("cp1251", &tables::CP1251),
            "cp1256" => single("cp1256", &tables::CP1256),
            "cp1257" => single("cp1257", &tables::CP1257),
            "cp850" => single("cp850", &tables::CP850),
            "cp852" => single("cp852", &tables::CP852),
            "cp866" => single("cp866", &tables::CP866),
            "dec8" => single("dec8", &tables::DEC8),
            "geostd8" => single("geostd8", &tables::GEOSTD8),
            "greek" => single("greek", &tables::GREEK),
            "hebrew" => single("hebrew", &tables::HEBREW),
            "hp8" => single("hp8", &tables::HP8),
            "keybcs2" => single("keybcs2", &tables::KEYBCS2),
            "koi8r" => single("koi8r", &tables::KOI8R),
            "koi8u" => single("koi8u", &tables::KOI8U),
            "latin1" => single("latin1", &tables::LATIN1),
            "latin2" => single("latin2", &tables::LATIN2),
            "latin5" => single("latin5", &tables::LATIN5),
            "latin7" => single("latin7", &tables::LATIN7),
            "macce" => single("macce", &tables::MACCE),
            "macroman" => single("macroman", &tables::MACROMAN),
            "tis620" => single("tis620", &tables::TIS620),
            _ => return None,
        })
    }

    /// By the number of a collation, in which both servers agree where both have it
    /// (`information_schema.COLLATIONS`). None for a number that neither has.
    pub fn of_collation(id: u16) -> Option<Charset> {
        let name = match id {
            // MariaDB's collations without padding are the others plus 1,024.
            1025..=1270 => return Charset::of_collation(id - 1024),
            1 | 84 => "big5",
            2 | 9 | 21 | 27 | 77 => "latin2",
            3 | 69 => "dec8",
            4 | 80 => "cp850",
            5 | 8 | 15 | 31 | 47..=49 | 94 => "latin1",
            6 | 72 => "hp8",
            7 | 74 => "koi8r",
            10 | 82 => "swe7",
            11 | 65 => "ascii",
            12 | 91 => "ujis",
            13 | 88 => "sjis",
            14 | 23 | 50..=52 => "cp1251",
            16 | 71 => "hebrew",
            18 | 89 => "tis620",
            19 | 85 => "euckr",
            20 | 41 | 42 | 79 => "latin7",
            22 | 75 => "koi8u",
            24 | 86 => "gb2312",
            25 | 70 => "greek",
            26 | 34 | 44 | 66 | 99 => "cp1250",
            28 | 87 => "gbk",
            29 | 58 | 59 => "cp1257",
            30 | 78 => "latin5",
            32 | 64 => "armscii8",
            33 | 76 | 83 | 192..=223 | 576..=578 | 2048..=2303 => "utf8mb3",
            35 | 90 | 128..=159 | 640..=642 | 2560..=2815 => "ucs2",
            36 | 68 => "cp866",
            37 | 73 => "keybcs2",
            38 | 43 => "macce",
            39 | 53 => "macroman",
            40 | 81 => "cp852",
            45 | 46 | 224..=247 | 255..=323 | 608..=610 | 2304..=2559 => "utf8mb4",
            54 | 55 | 101..=124 | 672..=674 | 2816..=3071 => "utf16",
            56 | 62 => "utf16le",
            57 | 67 => "cp1256",
            60 | 61 | 160..=183 | 736..=738 | 3072..=3327 => "utf32",
            63 => "binary",
            92 | 93 => "geostd8",
            95 | 96 => "cp932",
            97 | 98 => "eucjpms",
            248..=250 => "gb18030",
            _ => return None,
        };
        Charset::by_name(name)
    }

    /// The most bytes that a character takes.
    pub fn max_bytes(self, is_utf8mb3: bool) -> usize {
        match self {
            Charset::Binary | Charset::Ascii | Charset::Single(_) | Charset::Swe7 => 1,
            Charset::Multi(Multi::Ujis | Multi::Eucjpms) => 3,
            Charset::Multi(Multi::Gb18030) => 4,
            Charset::Multi(_) | Charset::Ucs2 => 2,
            Charset::Utf8 if is_utf8mb3 => 3,
            Charset::Utf8 | Charset::Utf16 | Charset::Utf16Le | Charset::Utf32 => 4,
        }
    }

    /// Whether the bytes are the text's UTF-8 already.
    #[inline]
    pub fn is_utf8(self, bytes: &[u8]) -> bool {
        match self {
            Charset::Utf8 => std::str::from_utf8(bytes).is_ok(),
            Charset::Ascii | Charset::Single(_) | Charset::Multi(_) => bytes.is_ascii(),
            _ => bytes.is_empty(),
        }
    }

    /// Appends the text as UTF-8. Gives how many bytes were no character.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        match self {
            Charset::Utf8 | Charset::Binary => utf8(bytes, out),
            Charset::Ascii => each_byte(bytes, out, |b| b.is_ascii().then_some(u16::from(b))),
            Charset::Swe7 => each_byte(bytes, out, swe7),
            Charset::Single(table) => each_byte(bytes, out, |b| {
                let upper = usize::from(b).checked_sub(0x80);
                let c = upper.map_or(u16::from(b), |at| table.upper[at]);
                (c != 0 || b == 0).then_some(c)
            }),
            Charset::Multi(multi) => wide::east_asian(multi, bytes, out),
            Charset::Ucs2 => wide::ucs2(bytes, out),
            Charset::Utf16 => wide::utf16(bytes, out, u16::from_be_bytes),
            Charset::Utf16Le => wide::utf16(bytes, out, u16::from_le_bytes),
            Charset::Utf32 => wide::utf32(bytes, out),
        }
    }

    /// A short text as UTF-8.
    pub fn decode_string(self, bytes: &[u8]) -> String {
        let mut out = Vec::with_capacity(bytes.len());
        self.decode(bytes, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn push_invalid(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &b in bytes {
        push(char::REPLACEMENT_CHARACTER, out);
        out.extend([HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    }
    bytes.len()
}

fn utf8(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut invalid = 0;
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        invalid += push_invalid(chunk.invalid(), out);
    }
    invalid
}

fn each_byte(bytes: &[u8], out: &mut Vec<u8>, map: impl Fn(u8) -> Option<u16>) -> usize {
    let mut invalid = 0;
    out.reserve(bytes.len());
    for &b in bytes {
        match map(b).and_then(|c| char::from_u32(u32::from(c))) {
            Some(c) if c.is_ascii() => out.push(c as u8),
            Some(c) => push(c, out),
            None => invalid += push_invalid(&[b], out),
        }
    }
    invalid
}

fn swe7(b: u8) -> Option<u16> {
    Some(match b {
        0x40 => 0xC9,
        0x5B => 0xC4,
        0x5C => 0xD6,
        0x5D => 0xC5,
        0x5E => 0xDC,
        0x60 => 0xE9,
        0x7B => 0xE4,
        0x7C => 0xF6,
        0x7D => 0xE5,
        0x7E => 0xFC,
        0x7F.. => return None,
        _ => u16::from(b),
    })
}

#[cfg(test)]
mod tests;
