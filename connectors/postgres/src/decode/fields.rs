//! Reads the fields of one message. Every length is checked against the message, so a
//! damaged one ends in an error and never in a panic or in an allocation of its size.

use rollcall_contract::ConnectorError;

use crate::errors::protocol_violation;
use crate::lsn::Lsn;

/// What is left of a message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// For the error: which message.
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { rest: bytes, what }
    }

    fn short(&self) -> ConnectorError {
        protocol_violation(format_args!("a {} message that is too short", self.what))
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ConnectorError> {
        if len > self.rest.len() {
            return Err(self.short());
        }
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConnectorError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(self.short()),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ConnectorError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ConnectorError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ConnectorError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ConnectorError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, ConnectorError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, ConnectorError> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    /// A string with a zero byte behind it.
    pub(crate) fn text(&mut self) -> Result<&'a str, ConnectorError> {
        let len = memchr::memchr(0, self.rest).ok_or_else(|| self.short())?;
        let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| {
            protocol_violation(format_args!(
                "a name that is not UTF-8 in a {} message",
                self.what
            ))
        })?;
        self.rest = &self.rest[1..];
        Ok(text)
    }

    /// As [`Fields::text`], whatever its encoding: before the session exists, the server
    /// may send messages in its own.
    pub(crate) fn lossy(&mut self) -> Result<std::borrow::Cow<'a, str>, ConnectorError> {
        let len = memchr::memchr(0, self.rest).ok_or_else(|| self.short())?;
        let text = String::from_utf8_lossy(self.bytes(len)?);
        self.rest = &self.rest[1..];
        Ok(text)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// SQLSTATE and message of an ErrorResponse.
pub(crate) fn error_fields(body: &[u8]) -> Result<(String, String), ConnectorError> {
    let mut f = Fields::new("ErrorResponse", body);
    let (mut state, mut message) = (String::new(), String::new());
    loop {
        match f.u8()? {
            0 => return Ok((state, message)),
            b'C' => state = f.lossy()?.into_owned(),
            b'M' => message = f.lossy()?.into_owned(),
            _ => {
                f.lossy()?;
            }
        }
    }
}
