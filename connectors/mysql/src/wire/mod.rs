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
pub(crate) use handshake::{flavour_of, server_error};
pub(crate) use packets::{HEADER, MAX_PAYLOAD, MAX_WHOLE};
pub(crate) use rows::{ColumnDef, Row};
pub(crate) use socket::ByteStream;
