//! Reads the fields of one packet. Every length is checked against the packet, so a damaged
//! one ends in an error and never in a panic or in an allocation of its size.

use rollcall_contract::ConnectorError;

use crate::errors::protocol_violation;

/// What is left of a packet.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// For the error: which packet.
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { rest: bytes, what }
    }

    fn short(&self) -> ConnectorError {
        protocol_violation(format_args!("a {} packet that is too short", self.what))
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ConnectorError> {
        if len > self.rest.len() {
            return Err(self.short());
        }
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        Ok(head)
    }

    fn number(&mut self, len: usize) -> Result<u64, ConnectorError> {
        let bytes = self.bytes(len)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ConnectorError> {
        Ok(self.number(1)? as u8)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ConnectorError> {
        Ok(self.number(2)? as u16)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ConnectorError> {
        Ok(self.number(4)? as u32)
    }

    /// A length-encoded integer; `None` is the byte that stands for null.
    fn lenenc(&mut self) -> Result<Option<u64>, ConnectorError> {
        Ok(Some(match self.u8()? {
            0xfb => return Ok(None),
            0xfc => self.number(2)?,
            0xfd => self.number(3)?,
            0xfe => self.number(8)?,
            0xff => return Err(self.short()),
            small => u64::from(small),
        }))
    }

    /// A length-encoded integer that cannot be null.
    pub(crate) fn lenenc_int(&mut self) -> Result<u64, ConnectorError> {
        self.lenenc()?.ok_or_else(|| self.short())
    }

    /// A length-encoded string; `None` when it is null.
    pub(crate) fn lenenc_bytes(&mut self) -> Result<Option<&'a [u8]>, ConnectorError> {
        match self.lenenc()? {
            None => Ok(None),
            Some(len) => {
                let len = usize::try_from(len).map_err(|_| self.short())?;
                self.bytes(len).map(Some)
            }
        }
    }

    /// Bytes up to a zero byte, or to the end when there is none.
    pub(crate) fn until_zero(&mut self) -> &'a [u8] {
        let rest = self.rest;
        match rest.iter().position(|&b| b == 0) {
            Some(at) => {
                self.rest = &rest[at + 1..];
                &rest[..at]
            }
            None => self.rest(),
        }
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Appends a length-encoded integer.
pub(crate) fn put_lenenc(out: &mut Vec<u8>, n: u64) {
    match n {
        0..=0xfa => out.push(n as u8),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(n as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&(n as u32).to_le_bytes()[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// Appends a length-encoded string.
pub(crate) fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(n: u64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_lenenc(&mut out, n);
            put_lenenc_bytes(&mut out, &text);
            let mut f = Fields::new("test", &out);
            prop_assert_eq!(f.lenenc_int().unwrap(), n);
            prop_assert_eq!(f.lenenc_bytes().unwrap(), Some(&text[..]));
            prop_assert_eq!(f.rest(), b"");
        }

        #[test]
        fn damaged_packets_end_in_an_error(bytes: Vec<u8>) {
            let mut f = Fields::new("test", &bytes);
            while f.lenenc_bytes().is_ok_and(|b| b.is_some_and(|b| !b.is_empty())) {}
            let _ = f.until_zero();
        }
    }
}
