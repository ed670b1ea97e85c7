//! Decodes the binary logs of MySQL 8.0 and later and of MariaDB 10.6 and later.
//!
//! Nothing here opens a socket, reads a clock or waits: bytes go in, typed events and cells
//! of the contract come out. Every length is checked against the bytes that are there
//! before it is used, so damaged or hostile input ends in a [`DecodeError`] and never in a
//! panic or in an allocation of a size that somebody else chose.
//!
//! - [`gtid`] holds the positions of both servers, with all of their arithmetic.
//! - [`event`] opens the frame of an event, verifies its checksum and reads its kind;
//!   [`payload`] takes compressed transactions apart.
//! - [`table_map`] reads what is known of a table; [`rows`] turns its rows into changes.
//! - [`types`] has the canonical text of every type, from the log and from the rows of
//!   prepared statements alike; [`charset`] the character sets.
//! - [`ddl`] reads what a statement does to tables.
//!
//! The order of calls for a dump: [`event::Framing::open`] for each event, then
//! [`event::RawEvent::parse`]. A table map goes to [`table_map::TableMaps::learn`], and a
//! [`rows::Layout`] is made when it gives another map than before. The body of a rows event
//! is copied behind what the batch's buffer holds, and a [`rows::RowReader`] makes changes
//! of it there; when the event ends its statement, [`table_map::TableMaps::end_statement`]
//! is called, as it is for a new file. The events of a payload go the same way through
//! [`event::RawEvent::inside`].

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
