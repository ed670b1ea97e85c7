//! Our own small client of the MySQL protocol: connecting, queries, and the commands that
//! start the log. Both servers speak it; where they differ, the handshake says which it is.

mod auth;
mod client;
mod fields;
mod handshake;
mod packets;
mod rows;
mod socket;

pub(crate) use client::{Client, DumpFrom};
pub(crate) use fields::Fields;
pub(crate) use handshake::server_error;
pub(crate) use packets::{HEADER, MAX_PAYLOAD, MAX_WHOLE};
pub(crate) use rows::{ColumnDef, Row};
pub use socket::ByteStream;
