//! Positions in the log, and transaction ids. All of their arithmetic is here.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything; the server's "invalid" position.
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes from `earlier` to here; 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a log position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log position: expected two hexadecimal numbers, as in 16/B374D848")]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(s: &str) -> Result<Lsn, NotAnLsn> {
        let (high, low) = s.split_once('/').ok_or(NotAnLsn)?;
        let part = |t: &str| {
            if t.is_empty() || t.len() > 8 || !t.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(NotAnLsn);
            }
            u64::from_str_radix(t, 16).map_err(|_| NotAnLsn)
        };
        Ok(Lsn(part(high)? << 32 | part(low)?))
    }
}

/// A transaction id that never wraps: 32 bits of epoch above the 32 bits of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xid(pub u64);

impl Xid {
    /// Extends the 32 bits that the log carries. All transactions that can be seen at one
    /// time lie within 2^31 of each other (the server itself depends on it), so the nearest
    /// extension to a known id is the right one.
    pub fn extend(self, low: u32) -> Xid {
        let distance = low.wrapping_sub(self.0 as u32) as i32;
        Xid(self.0.saturating_add_signed(i64::from(distance)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn positions_print_and_parse_as_the_server_spells_them() {
        for (text, value) in [
            ("0/0", 0),
            ("0/16B3748", 0x16B_3748),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(value));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in [
            "",
            "/",
            "0",
            "1/",
            "/1",
            "1/123456789",
            "+1/0",
            "1/2/3",
            "g/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
        assert!(Lsn(0x1_0000_0000) > Lsn(0xFFFF_FFFF));
        assert_eq!(Lsn(7).bytes_since(Lsn(9)), 0);
    }

    #[test]
    fn a_transaction_id_is_extended_to_the_nearest_epoch() {
        let reference = Xid(5 << 32 | 10);
        assert_eq!(reference.extend(11), Xid(5 << 32 | 11));
        assert_eq!(reference.extend(9), Xid(5 << 32 | 9));
        assert_eq!(reference.extend(u32::MAX), Xid(4 << 32 | 0xFFFF_FFFF));
        assert_eq!(Xid(5 << 32 | 0xFFFF_FFF0).extend(3), Xid(6 << 32 | 3));
        assert_eq!(Xid(800).extend(750), Xid(750));
        assert_eq!(Xid(3).extend(u32::MAX), Xid(0), "before the first of all");
    }
}
