//! Reads little-endian fields. Every length is checked against what is there.

use crate::error::DecodeError;

type Result<T> = std::result::Result<T, DecodeError>;

/// What is left of a part of the log.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// For the error: which part.
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { rest: bytes, what }
    }

    #[cold]
    pub(crate) fn short(&self) -> DecodeError {
        DecodeError::Truncated { what: self.what }
    }

    #[cold]
    pub(crate) fn bad(&self, why: &'static str) -> DecodeError {
        DecodeError::malformed(self.what, why)
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.short())?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.short())?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u24(&mut self) -> Result<u32> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u48(&mut self) -> Result<u64> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned number of 1 to 8 bytes.
    #[inline]
    pub(crate) fn uint(&mut self, len: usize) -> Result<u64> {
        let bytes = self.bytes(len)?;
        let mut whole = [0; 8];
        let slot = whole
            .get_mut(..len)
            .ok_or_else(|| self.bad("a number of over 64 bits"))?;
        slot.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(whole))
    }

    /// A length-encoded integer of the client protocol.
    pub(crate) fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            n @ 0..=0xFA => Ok(u64::from(n)),
            0xFC => Ok(u64::from(self.u16()?)),
            0xFD => Ok(u64::from(self.u24()?)),
            0xFE => self.u64(),
            _ => Err(self.bad("a length that is none")),
        }
    }

    /// As [`Fields::lenenc`], for a count of things that follow.
    pub(crate) fn lenenc_len(&mut self) -> Result<usize> {
        let n = self.lenenc()?;
        usize::try_from(n).map_err(|_| self.short())
    }

    /// Bytes behind their length-encoded length.
    pub(crate) fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.lenenc_len()?;
        self.bytes(len)
    }

    /// An integer of MySQL's serialization library (`libs/mysql/serialization/readme.md`):
    /// as many trailing ones in the first byte as bytes follow it.
    pub(crate) fn varlen(&mut self) -> Result<u64> {
        let first = self.u8()?;
        let more = first.trailing_ones();
        if more >= 8 {
            return self.u64();
        }
        let low = u64::from(first) >> (more + 1);
        let high = self.uint(more as usize)?;
        Ok(low | high << (7 - more))
    }

    /// The signed form of [`Fields::varlen`].
    pub(crate) fn varlen_signed(&mut self) -> Result<i64> {
        let n = self.varlen()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// Bytes up to a zero byte, which is taken too.
    pub(crate) fn until_zero(&mut self) -> Result<&'a [u8]> {
        let len = memchr::memchr(0, self.rest).ok_or_else(|| self.short())?;
        let text = self.bytes(len)?;
        self.rest = &self.rest[1..];
        Ok(text)
    }

    /// A name, which the server keeps as UTF-8.
    pub(crate) fn name(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.bad("a name that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn varlen_integers_read_as_the_library_documents_them() {
        let read = |bytes: &[u8]| Fields::new("test", bytes).varlen().unwrap();
        let signed = |bytes: &[u8]| Fields::new("test", bytes).varlen_signed().unwrap();
        // The examples of the library's readme, which shows them most significant first.
        assert_eq!(read(&[0b1111_1011, 0b1111_1111, 0b0000_0111]), 65_535);
        assert_eq!(signed(&[0b1111_0011, 0b1111_1111, 0b0000_1111]), 65_535);
        assert_eq!(signed(&[0b1111_1011, 0b1111_1111, 0b0000_1111]), -65_536);
        assert_eq!(read(&[0]), 0);
        assert_eq!(read(&[0xFF, 1, 0, 0, 0, 0, 0, 0, 0x80]), 1 << 63 | 1);
        assert!(Fields::new("test", &[1]).varlen().is_err());
    }
}
