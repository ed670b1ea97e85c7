//! Packets: three bytes of length, one of sequence, and the payload.
//!
//! A payload of 2^24-1 bytes or more travels in several packets; it is put together here,
//! so everything above sees whole payloads. The sequence starts at zero with each command
//! and is verified: a gap in it means that the two sides no longer talk of the same thing.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::socket::ByteStream;
use crate::errors::{MySqlError, from_io, protocol_violation};

/// Length of a packet's header.
pub(crate) const HEADER: usize = 4;
/// A payload of this length is continued in the next packet.
pub(crate) const MAX_PAYLOAD: usize = 0xff_ffff;
/// `max_allowed_packet` is at most 1 GiB; an event may be a little larger than a packet.
pub(crate) const MAX_WHOLE: usize = (1 << 30) + (1 << 20);
/// Room made for a read of the socket.
const READ_SIZE: usize = 64 << 10;
/// A buffer that one huge row has made larger than this is not kept.
const KEEP: usize = 4 << 20;

/// Both directions of a session.
pub(crate) struct Packets {
    stream: Box<dyn ByteStream>,
    buffer: Vec<u8>,
    /// Bytes of the buffer before this are done with.
    done: usize,
    sequence: u8,
    address: String,
}

impl Packets {
    pub(crate) fn new(stream: Box<dyn ByteStream>, address: String) -> Self {
        Packets {
            stream,
            buffer: Vec::new(),
            done: 0,
            sequence: 0,
            address,
        }
    }

    /// The server for people.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Begins a command: the sequence starts again.
    pub(crate) fn restart(&mut self) {
        self.sequence = 0;
    }

    /// Takes the byte stream out, to be encrypted or to be read by somebody else; with what
    /// was read ahead, and the sequence that comes next.
    pub(crate) fn into_parts(self) -> (Box<dyn ByteStream>, Vec<u8>, u8) {
        let early = self.buffer[self.done..].to_vec();
        (self.stream, early, self.sequence)
    }

    /// Goes on with a sequence, after encryption began in the middle of it.
    pub(crate) fn continue_at(mut self, sequence: u8) -> Self {
        self.sequence = sequence;
        self
    }

    /// Whether the stream has something to say although nothing was asked: its end, or words
    /// before it.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        let stream = Pin::new(&mut self.stream);
        self.done < self.buffer.len() || stream.poll_read(&mut context, &mut unasked).is_ready()
    }

    /// Sends a payload.
    pub(crate) async fn send(&mut self, payload: &[u8]) -> Result<(), MySqlError> {
        let mut rest = payload;
        let mut out = Vec::with_capacity(payload.len() + HEADER);
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            out.extend_from_slice(&(now.len() as u32).to_le_bytes()[..3]);
            out.push(self.sequence);
            out.extend_from_slice(now);
            self.sequence = self.sequence.wrapping_add(1);
            rest = later;
            if now.len() < MAX_PAYLOAD {
                break;
            }
        }
        let sent = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        sent.await
            .map_err(|e| from_io(&self.address, "The connection to", &e))
    }

    /// The next whole payload.
    pub(crate) async fn next(&mut self) -> Result<&[u8], MySqlError> {
        if self.done == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEEP);
            self.done = 0;
        } else if self.done > READ_SIZE.max(self.buffer.len() - self.done) {
            self.buffer.drain(..self.done);
            self.done = 0;
        }
        let mut whole: Option<Range<usize>> = None;
        loop {
            self.fill(HEADER).await?;
            let at = self.done;
            let len =
                u32::from_le_bytes([self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], 0])
                    as usize;
            if self.buffer[at + 3] != self.sequence {
                return Err(protocol_violation("packets out of order").into());
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.fill(HEADER + len).await?;
            let range = match whole.take() {
                None => {
                    self.done = at + HEADER + len;
                    at + HEADER..at + HEADER + len
                }
                Some(before) => {
                    // The payload goes on: take the header in between out.
                    self.buffer.drain(at..at + HEADER);
                    self.done = at + len;
                    before.start..before.end + len
                }
            };
            if range.len() > MAX_WHOLE {
                return Err(protocol_violation("a packet of over 1 GiB").into());
            }
            if len < MAX_PAYLOAD {
                return Ok(&self.buffer[range]);
            }
            whole = Some(range);
        }
    }

    /// Reads until so many bytes lie behind what is done with.
    async fn fill(&mut self, len: usize) -> Result<(), MySqlError> {
        while self.buffer.len() - self.done < len {
            let missing = len - (self.buffer.len() - self.done);
            // No more than what has come already is reserved on the word of a header.
            self.buffer
                .reserve(missing.clamp(READ_SIZE, READ_SIZE.max(self.buffer.len())));
            let read = self.stream.read_buf(&mut self.buffer).await;
            match read {
                Ok(0) => {
                    return Err(from_io(
                        &self.address,
                        "The connection to",
                        &std::io::Error::new(
                            std::io::ErrorKind::UnexpectedEof,
                            "the server closed it",
                        ),
                    ));
                }
                Ok(_) => {}
                Err(e) => return Err(from_io(&self.address, "The connection to", &e)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn pair() -> (Packets, Packets) {
        let (a, b) = tokio::io::duplex(1 << 16);
        (
            Packets::new(Box::new(a), "a".to_owned()),
            Packets::new(Box::new(b), "b".to_owned()),
        )
    }

    #[tokio::test]
    async fn payloads_of_any_size_arrive_whole() {
        let sizes = [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD, 2 * MAX_PAYLOAD + 7];
        let payload = |size: usize| (0..size).map(|i| i as u8).collect::<Vec<u8>>();
        let (mut ours, mut theirs) = pair();
        let sending = tokio::spawn(async move {
            for size in sizes {
                ours.send(&payload(size)).await.unwrap();
            }
        });
        for size in sizes {
            assert!(theirs.next().await.unwrap() == payload(size), "{size}");
        }
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_packet_out_of_order_is_refused() {
        let (mut ours, mut theirs) = pair();
        ours.send(b"x").await.unwrap();
        ours.restart();
        ours.send(b"y").await.unwrap();
        assert_eq!(theirs.next().await.unwrap(), b"x");
        let error = theirs.next().await.unwrap_err();
        assert_eq!(error.error.code(), "protocol_violation");
    }
}
