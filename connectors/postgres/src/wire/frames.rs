//! Whole messages of the session before the log starts. Here a copy does not matter; the
//! log itself is read by [`crate::stream`].

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::ByteStream;
use crate::errors::{PgError, from_io, protocol_violation};
use rollcall_contract::ConnectorError;

/// Answers before the log are small: rows of a handful of commands.
const MAX_FRAME: usize = 16 << 20;

pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: BytesMut,
}

pub(crate) struct Frames {
    stream: Box<dyn ByteStream>,
    buffer: BytesMut,
    address: String,
}

impl Frames {
    pub(crate) fn new(stream: Box<dyn ByteStream>, address: String) -> Self {
        Frames {
            stream,
            buffer: BytesMut::with_capacity(8 << 10),
            address,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await
            .map_err(|e| from_io(&self.address, "The connection to", &e))
    }

    pub(crate) async fn next(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(&[tag, l0, l1, l2, l3]) = self.buffer.first_chunk::<5>() {
                let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
                if !(4..=MAX_FRAME).contains(&len) {
                    return Err(protocol_violation("a message of an impossible length").into());
                }
                if self.buffer.len() > len {
                    let mut body = self.buffer.split_to(1 + len);
                    let _ = body.split_to(5);
                    return Ok(Frame { tag, body });
                }
            }
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|e| from_io(&self.address, "The connection to", &e))?;
            if read == 0 {
                return Err(ConnectorError::transient(
                    "connection_lost",
                    format!("{} closed the connection.", self.address),
                )
                .into());
            }
        }
    }

    /// The stream, and what was read of it and not used yet.
    pub(crate) fn into_parts(self) -> (Box<dyn ByteStream>, BytesMut, String) {
        (self.stream, self.buffer, self.address)
    }
}
