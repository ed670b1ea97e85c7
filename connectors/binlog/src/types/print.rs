//! The canonical text of scalars.

use std::net::Ipv6Addr;

use crate::error::DecodeError;

pub(super) const SHORT: DecodeError = DecodeError::Truncated { what: "a value" };

/// A little-endian number of 1 to 8 bytes.
#[inline]
pub(super) fn unsigned(value: &[u8]) -> Result<u64, DecodeError> {
    Ok(match *value {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => {
            let mut whole = [0; 8];
            let len = value.len();
            whole
                .get_mut(..len)
                .filter(|_| len > 0)
                .ok_or(SHORT)?
                .copy_from_slice(value);
            u64::from_le_bytes(whole)
        }
    })
}

#[inline]
pub(super) fn signed(value: &[u8]) -> Result<i64, DecodeError> {
    let shift = 64 - 8 * value.len().min(8) as u32;
    Ok(((unsigned(value)? << shift) as i64) >> shift)
}

/// A most-significant-first number of up to 8 bytes.
#[inline]
pub(super) fn big_endian(value: &[u8]) -> u64 {
    value.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The shortest digits that read back to the same number.
pub(crate) struct Digits {
    pub(crate) is_negative: bool,
    digits: [u8; 17],
    len: usize,
    /// Where the point is: 1 is behind the first digit.
    pub(crate) point: i32,
}

/// None for what is not finite; the servers cannot store such a number.
pub(crate) fn digits(value: impl zmij::Float + Copy) -> Option<Digits> {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let mut found = Digits {
        is_negative,
        digits: [0; 17],
        len: 0,
        point: exponent,
    };
    let mut is_behind = false;
    for b in mantissa.bytes() {
        match b {
            b'.' => is_behind = true,
            b'0' if found.len == 0 => found.point -= i32::from(is_behind),
            b'0'..=b'9' => {
                // Zeros behind the last digit may be more than fit.
                if let Some(slot) = found.digits.get_mut(found.len) {
                    *slot = b;
                    found.len += 1;
                } else if b != b'0' {
                    return None;
                }
                found.point += i32::from(!is_behind);
            }
            _ => return None,
        }
    }
    while found.len > 0 && found.digits[found.len - 1] == b'0' {
        found.len -= 1;
    }
    if found.len == 0 {
        found.point = 1;
    }
    Some(found)
}

impl Digits {
    /// The digits, without zeros at either end; `0` for zero.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        if self.len == 0 {
            b"0"
        } else {
            &self.digits[..self.len]
        }
    }

    /// Appends them with the point in its place: `120`, `1.5`, `0.001`.
    pub(crate) fn print_fixed(&self, out: &mut Vec<u8>) {
        if self.is_negative {
            out.push(b'-');
        }
        let digits = self.as_bytes();
        let zeros = |n: usize, out: &mut Vec<u8>| out.resize(out.len() + n, b'0');
        match usize::try_from(self.point) {
            Ok(point) if point >= digits.len() => {
                out.extend_from_slice(digits);
                zeros(point - digits.len(), out);
            }
            Ok(point) if point > 0 => {
                out.extend_from_slice(&digits[..point]);
                out.push(b'.');
                out.extend_from_slice(&digits[point..]);
            }
            _ => {
                out.extend_from_slice(b"0.");
                zeros(self.point.unsigned_abs() as usize, out);
                out.extend_from_slice(digits);
            }
        }
    }

    /// Appends the digits before an exponent: `1.5`.
    pub(crate) fn print_mantissa(&self, out: &mut Vec<u8>) {
        if self.is_negative {
            out.push(b'-');
        }
        let digits = self.as_bytes();
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
    }
}

/// Appends the shortest text of a number, in PostgreSQL's form, so that both sources agree:
/// an exponent of two digits at least where the point is far away.
pub(crate) fn short_float(
    value: impl zmij::Float + Copy,
    digits_before_exponent: i32,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let digits = digits(value).ok_or(DecodeError::malformed("a number", "not finite"))?;
    let exponent = digits.point - 1;
    if (-4..digits_before_exponent).contains(&exponent) {
        digits.print_fixed(out);
    } else {
        digits.print_mantissa(out);
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let exponent = exponent.unsigned_abs();
        if exponent < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
    }
    Ok(())
}

/// 65 digits, a sign, a point and a zero.
pub(crate) const DECIMAL_LEN: usize = 68;

/// How many digits 0 to 9 leftover digits take in bytes.
const LEFTOVER_LEN: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const GROUP: usize = 9;

/// Bytes of a packed decimal.
pub(super) fn decimal_len(precision: u8, scale: u8) -> Option<usize> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let whole = precision.checked_sub(scale)?;
    let part = |digits: usize| digits / GROUP * 4 + LEFTOVER_LEN[digits % GROUP];
    (precision <= 81 && precision > 0).then(|| part(whole) + part(scale))
}

/// A packed decimal (`bin2decimal` of `strings/decimal.c`): groups of nine digits in four
/// bytes, most significant first, a shorter group at either end; the highest bit is set for
/// what is not negative, and all bits are inverted for what is.
pub(crate) fn decimal<'t>(
    value: &[u8],
    precision: u8,
    scale: u8,
    text: &'t mut [u8; DECIMAL_LEN],
) -> Result<&'t [u8], DecodeError> {
    const WHAT: &str = "a DECIMAL";
    let malformed = DecodeError::malformed;
    if decimal_len(precision, scale) != Some(value.len()) || usize::from(precision) > 65 {
        return Err(malformed(WHAT, "another length than its precision needs"));
    }
    let is_negative = value[0] & 0x80 == 0;
    let invert = if is_negative { 0xFF } else { 0 };
    let mut bytes = value.iter().enumerate().map(|(i, b)| {
        let b = if i == 0 { b ^ 0x80 } else { *b };
        b ^ invert
    });
    let mut len = 1;
    let mut any = false;
    let (whole, scale) = (usize::from(precision - scale), usize::from(scale));
    let groups = [
        (whole % GROUP, 1),
        (GROUP, whole / GROUP),
        (GROUP, scale / GROUP),
        (scale % GROUP, 1),
    ];
    text[0] = b'-';
    for (at, (digits, times)) in groups.into_iter().enumerate() {
        if at == 2 {
            if len == 1 {
                text[len] = b'0';
                len += 1;
            }
            if scale > 0 {
                text[len] = b'.';
                len += 1;
            }
        }
        for _ in 0..times {
            let mut group = (0..LEFTOVER_LEN[digits])
                .fold(0u32, |n, _| n << 8 | u32::from(bytes.next().unwrap_or(0)));
            let mut all = [b'0'; GROUP];
            for digit in all[..digits].iter_mut().rev() {
                *digit = b'0' + (group % 10) as u8;
                group /= 10;
            }
            if group != 0 {
                return Err(malformed(WHAT, "a group of too many digits"));
            }
            for &digit in &all[..digits] {
                any |= digit != b'0';
                // Zeros in front of the whole part are not printed.
                if at >= 2 || len > 1 || digit != b'0' {
                    text[len] = digit;
                    len += 1;
                }
            }
        }
    }
    let from = usize::from(!(is_negative && any));
    Ok(&text[from..len])
}

/// `-838:59:59.999999`, or a date, a `T`, a time and a `Z`.
pub(super) const MOMENT_LEN: usize = 32;

/// A date, a time, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Date {
        date: Date,
    },
    Time {
        is_negative: bool,
        clock: Clock,
    },
    /// `is_instant`: it is in UTC, and says so.
    Datetime {
        date: Date,
        clock: Clock,
        is_instant: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Date {
    pub(crate) year: u16,
    pub(crate) month: u8,
    pub(crate) day: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Clock {
    pub(crate) hour: u16,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    pub(crate) micros: u32,
}

impl Date {
    /// Whether a calendar has it.
    #[inline]
    fn is_real(self) -> bool {
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if self.year.is_multiple_of(4)
                && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            _ => 0,
        };
        (1..=days).contains(&self.day)
    }

    /// Days since 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant,
    /// "chrono-Compatible Low-Level Date Algorithms").
    pub(super) fn from_days(days: u32) -> Date {
        let days = days + 719_468;
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Date {
            year: (year + era * 400 + u32::from(month <= 2)) as u16,
            month: month as u8,
            day: day as u8,
        }
    }
}

impl Moment {
    #[inline]
    pub(super) fn is_real(&self) -> bool {
        match self {
            Moment::Time { .. } => true,
            Moment::Date { date } | Moment::Datetime { date, .. } => date.is_real(),
        }
    }

    /// The canonical text.
    #[inline]
    pub(super) fn print<'t>(&self, text: &'t mut [u8; MOMENT_LEN]) -> &'t [u8] {
        let mut out = Line { text, len: 0 };
        match *self {
            Moment::Date { date } => out.date(date),
            Moment::Time { is_negative, clock } => {
                if is_negative {
                    out.push(b'-');
                }
                out.clock(clock);
                out.fraction(clock.micros, true);
            }
            Moment::Datetime {
                date,
                clock,
                is_instant,
            } => {
                out.date(date);
                out.push(b'T');
                out.clock(clock);
                out.fraction(clock.micros, true);
                if is_instant {
                    out.push(b'Z');
                }
            }
        }
        let Line { text, len } = out;
        &text[..len]
    }

    /// As the server prints it within a JSON document: all six digits of the fraction, a
    /// space before the time.
    pub(crate) fn print_in_json(&self, out: &mut Vec<u8>) {
        let mut text = [0; MOMENT_LEN];
        let mut line = Line {
            text: &mut text,
            len: 0,
        };
        match *self {
            Moment::Date { date } => line.date(date),
            Moment::Time { is_negative, clock } => {
                if is_negative {
                    line.push(b'-');
                }
                line.clock(clock);
                line.fraction(clock.micros, false);
            }
            Moment::Datetime { date, clock, .. } => {
                line.date(date);
                line.push(b' ');
                line.clock(clock);
                line.fraction(clock.micros, false);
            }
        }
        let len = line.len;
        out.extend_from_slice(&text[..len]);
    }
}

/// A short line of text.
struct Line<'t> {
    text: &'t mut [u8; MOMENT_LEN],
    len: usize,
}

impl Line<'_> {
    #[inline]
    fn push(&mut self, b: u8) {
        if let Some(slot) = self.text.get_mut(self.len) {
            *slot = b;
            self.len += 1;
        }
    }

    #[inline]
    fn two(&mut self, n: u32) {
        self.push(b'0' + (n / 10 % 10) as u8);
        self.push(b'0' + (n % 10) as u8);
    }

    #[inline]
    fn date(&mut self, date: Date) {
        self.two(u32::from(date.year / 100));
        self.two(u32::from(date.year % 100));
        self.push(b'-');
        self.two(u32::from(date.month));
        self.push(b'-');
        self.two(u32::from(date.day));
    }

    #[inline]
    fn clock(&mut self, clock: Clock) {
        if clock.hour >= 100 {
            self.push(b'0' + (clock.hour / 100 % 10) as u8);
        }
        self.two(u32::from(clock.hour % 100));
        self.push(b':');
        self.two(u32::from(clock.minute));
        self.push(b':');
        self.two(u32::from(clock.second));
    }

    #[inline]
    fn fraction(&mut self, micros: u32, is_short: bool) {
        if micros == 0 && is_short {
            return;
        }
        self.push(b'.');
        self.two(micros / 10_000);
        self.two(micros / 100 % 100);
        self.two(micros % 100);
        while is_short && self.text[self.len - 1] == b'0' {
            self.len -= 1;
        }
    }
}

/// Bytes whose zeros at the end the log may have left out.
pub(super) fn padded(value: &[u8], whole: &mut [u8]) -> Result<(), DecodeError> {
    whole
        .get_mut(..value.len())
        .ok_or(DecodeError::malformed("a value", "longer than its type"))?
        .copy_from_slice(value);
    Ok(())
}

/// MariaDB keeps most UUIDs with their parts reversed, so that those of one clock sort by
/// time; the variant bits tell (`UUID::record_to_memory`).
pub(super) fn uuid(value: &[u8]) -> Result<[u8; 36], DecodeError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut record = [0; 16];
    padded(value, &mut record)?;
    let is_reversed = record[6] & 0x80 != 0 && (1..=0x80).contains(&record[8]);
    let mut bytes = record;
    if is_reversed {
        bytes[..4].copy_from_slice(&record[12..]);
        bytes[4..6].copy_from_slice(&record[10..12]);
        bytes[6..8].copy_from_slice(&record[8..10]);
        bytes[8..10].copy_from_slice(&record[6..8]);
        bytes[10..].copy_from_slice(&record[..6]);
    }
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, b) in bytes.iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        text[at] = HEX[usize::from(b >> 4)];
        text[at + 1] = HEX[usize::from(b & 15)];
        at += 2;
    }
    Ok(text)
}

/// As `inet_ntop` prints it: an address that ends in one of version 4 shows that.
pub(super) fn inet6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            format!("::{a}.{b}.{c}.{d}")
        }
        _ => address.to_string(),
    }
}
