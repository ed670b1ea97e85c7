//! Decodes the binary logs of MySQL 8.0 and later and of MariaDB 10.6 and later.
//!
//! Nothing here opens a socket, reads a clock or waits: bytes go in, typed events and cells
//! of the contract come out. Every length is checked against the bytes that are there
//! before it is used, so damaged or hostile input ends in a [`DecodeError`] and never in a
//! panic or in an allocation of a size that somebody else chose.
//!
//! - [`gtid`] holds the positions of both servers, with all of their arithmetic.
//! - [`event`] opens the frame of an event, verifies its checksum and reads its kind.

pub mod charset;
mod compressed;
pub mod ddl;
mod error;
pub mod event;
mod fields;
pub mod gtid;
mod json;
pub mod payload;
pub mod rows;
pub mod table_map;
pub mod types;

pub use error::DecodeError;
