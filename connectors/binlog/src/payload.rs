//! TRANSACTION_PAYLOAD: a compressed transaction, taken apart one event at a time.
//!
//! Any session may switch `binlog_transaction_compression` on, so this is not optional. The
//! transaction may be far larger than memory: it is decompressed as a stream, and only the
//! event that comes next is held. Every size is checked against what really comes out, and
//! the whole against the size that the payload states, so a payload that was cut, or that
//! holds another number of bytes than it says, is an error and never a shorter transaction.
//!
//! The events within have no checksum, their positions mean nothing, and no cursor may point
//! to them.

use std::ops::Range;

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use crate::error::DecodeError;
use crate::event::Header;
use crate::fields::Fields;

const WHAT: &str = "a TRANSACTION_PAYLOAD event";
/// `max_allowed_packet` of the server ends at 1 GiB; an event is a little larger.
const MAX_EVENT: usize = (1 << 30) + (1 << 20);
/// How much is made room for at a time.
const STEP: usize = 256 << 10;

fn malformed(why: &'static str) -> DecodeError {
    DecodeError::malformed(WHAT, why)
}

/// The head of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Where the compressed bytes lie in the body.
    pub packed: Range<usize>,
    /// Bytes of all events within.
    pub plain_size: Option<u64>,
    is_compressed: bool,
}

impl Payload {
    /// Reads the head from the body of the event: fields of a type, a length and a value
    /// each, up to a type 0.
    ///
    /// # Errors
    /// When it is none, or compressed in an unknown way.
    pub fn parse(body: &[u8]) -> Result<Payload, DecodeError> {
        const ZSTD: u64 = 0;
        const NONE: u64 = 255;
        let mut f = Fields::new(WHAT, body);
        let (mut size, mut compression, mut plain_size) = (None, None, None);
        loop {
            let field = f.lenenc()?;
            if field == 0 {
                break;
            }
            let mut value = Fields::new(WHAT, f.lenenc_bytes()?);
            match field {
                1 => size = Some(value.lenenc()?),
                2 => compression = Some(value.lenenc()?),
                3 => plain_size = Some(value.lenenc()?),
                _ => {}
            }
        }
        let packed = body.len() - f.len()..body.len();
        if size.is_some_and(|size| size != packed.len() as u64) {
            return Err(malformed("another size than it says"));
        }
        let is_compressed = match compression {
            Some(ZSTD) => true,
            Some(NONE) => false,
            Some(_) => {
                return Err(DecodeError::Unsupported {
                    what: WHAT,
                    why: "an unknown compression",
                });
            }
            None => return Err(malformed("no compression")),
        };
        Ok(Payload {
            packed,
            plain_size,
            is_compressed,
        })
    }

    /// Begins to take the events out.
    ///
    /// # Errors
    /// When there is no memory for the decompression.
    pub fn events(&self) -> Result<PayloadEvents, DecodeError> {
        let decoder = if self.is_compressed {
            Some(Decoder::new().map_err(|_| malformed("the decompression does not begin"))?)
        } else {
            None
        };
        Ok(PayloadEvents {
            decoder,
            packed: self.packed.clone(),
            plain_size: self.plain_size,
            plain_done: 0,
            is_frame_whole: true,
        })
    }
}

/// Takes the events out of a payload.
pub struct PayloadEvents {
    decoder: Option<Decoder<'static>>,
    /// What was not read yet of the body.
    packed: Range<usize>,
    plain_size: Option<u64>,
    plain_done: u64,
    /// Whether what was read ends with a whole frame of zstd.
    is_frame_whole: bool,
}

impl PayloadEvents {
    /// Appends the next event, header and body, to `out`, and gives where it lies there.
    /// None when all have come. `body` is the body of the payload's event, each time.
    ///
    /// # Errors
    /// When the bytes are not what the payload says, or an event is larger than the server
    /// can write.
    pub fn next(
        &mut self,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Range<usize>>, DecodeError> {
        let start = out.len();
        self.fill(body, out, start + Header::LEN)?;
        if out.len() == start {
            if self.plain_size.is_some_and(|size| size != self.plain_done) {
                return Err(malformed("fewer bytes than it says"));
            }
            if !self.is_frame_whole || !self.packed.is_empty() {
                return Err(malformed("it was cut"));
            }
            return Ok(None);
        }
        let header = Header::parse(&out[start..])?;
        let size = header.size as usize;
        let left = self.plain_size.map(|size| size - self.plain_done);
        if size > MAX_EVENT || left.is_some_and(|left| (size - Header::LEN) as u64 > left) {
            return Err(malformed("an event larger than what is left"));
        }
        self.fill(body, out, start + size)?;
        if out.len() < start + size {
            return Err(malformed("it was cut"));
        }
        Ok(Some(start..start + size))
    }

    /// Appends plain bytes until `out` has `len`, or all have come.
    fn fill(&mut self, body: &[u8], out: &mut Vec<u8>, len: usize) -> Result<(), DecodeError> {
        let begin = out.len();
        while out.len() < len {
            let packed = body.get(self.packed.clone());
            let packed = packed.ok_or(malformed("another body than before"))?;
            let at = out.len();
            let step = (len - at).min(STEP);
            let Some(decoder) = &mut self.decoder else {
                let taken = step.min(packed.len());
                out.extend_from_slice(&packed[..taken]);
                self.packed.start += taken;
                if taken == 0 {
                    break;
                }
                continue;
            };
            out.resize(at + step, 0);
            let mut input = InBuffer::around(packed);
            let mut output = OutBuffer::around(&mut out[at..]);
            let hint = decoder.run(&mut input, &mut output);
            let (taken, given) = (input.pos(), output.pos());
            out.truncate(at + given);
            let hint = hint.map_err(|_| malformed("not zstd"))?;
            self.packed.start += taken;
            if taken > 0 || given > 0 {
                self.is_frame_whole = hint == 0;
            } else {
                break;
            }
        }
        self.plain_done += (out.len() - begin) as u64;
        if self.plain_size.is_some_and(|size| self.plain_done > size) {
            return Err(malformed("more bytes than it says"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, kind, 1, 0, 0, 0];
        out.extend(((Header::LEN + body.len()) as u32).to_le_bytes());
        out.extend([0; 6]);
        out.extend(body);
        out
    }

    fn field(number: u8, value: u64) -> Vec<u8> {
        let mut out = vec![number, 9, 0xFE];
        out.extend(value.to_le_bytes());
        out
    }

    fn payload(plain: &[u8], stated: usize, compression: u64) -> Vec<u8> {
        let packed = if compression == 0 {
            zstd::bulk::compress(plain, 3).unwrap()
        } else {
            plain.to_vec()
        };
        let mut out = field(2, compression);
        out.extend(field(3, stated as u64));
        out.extend(field(1, packed.len() as u64));
        out.push(0);
        out.extend(packed);
        out
    }

    fn taken(body: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
        let mut events = Payload::parse(body)?.events()?;
        let mut out = b"before".to_vec();
        let mut all = Vec::new();
        while let Some(range) = events.next(body, &mut out)? {
            all.push(out[range].to_vec());
            out.truncate(6);
        }
        Ok(all)
    }

    fn sample() -> Vec<Vec<u8>> {
        vec![
            event(2, b"BEGIN"),
            event(19, &[7; 300]),
            event(30, &vec![9; 3 << 20]),
            event(16, &[0; 8]),
        ]
    }

    #[test]
    fn events_come_out_one_by_one() {
        let events = sample();
        let plain = events.concat();
        for compression in [0, 255] {
            let body = payload(&plain, plain.len(), compression);
            assert_eq!(taken(&body).unwrap(), events);
        }
        assert!(taken(&payload(&plain, plain.len(), 3)).is_err());
        assert!(taken(&payload(&[], 0, 0)).unwrap().is_empty());
    }

    #[test]
    fn a_transaction_that_is_not_whole_is_never_taken_for_a_shorter_one() {
        let plain = sample().concat();
        for stated in [plain.len() - 1, plain.len() + 1, 0] {
            for compression in [0, 255] {
                assert!(taken(&payload(&plain, stated, compression)).is_err());
            }
        }
        // Cut before, and in the middle of, the last event, with a true size.
        for len in [plain.len() - 27, plain.len() - 5, plain.len() - 20] {
            assert!(taken(&payload(&plain[..len], plain.len(), 0)).is_err());
        }
        let mut body = payload(&plain, plain.len(), 0);
        let at = body.len() - 1;
        body.truncate(at);
        assert!(taken(&body).is_err());
    }

    #[test]
    fn a_size_that_is_not_true_is_not_allocated() {
        let mut plain = event(2, b"x");
        plain[9..13].copy_from_slice(&0x3FFF_FFFFu32.to_le_bytes());
        let body = payload(&plain, 0x3FFF_FFFF, 0);
        let mut events = Payload::parse(&body).unwrap().events().unwrap();
        let mut out = Vec::new();
        assert!(events.next(&body, &mut out).is_err());
        assert!(out.capacity() < 2 << 20, "{}", out.capacity());
    }

    proptest! {
        #[test]
        fn damaged_payloads_are_read_or_refused(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let plain = [event(2, b"BEGIN"), event(30, &bytes), event(16, &[0; 8])].concat();
            let mut body = payload(&plain, plain.len(), 0);
            let at = at.index(body.len());
            body[at] = byte;
            let _ = taken(&body);
            let _ = taken(&bytes);
        }
    }
}
