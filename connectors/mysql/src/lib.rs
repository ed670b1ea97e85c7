//! The MySQL and MariaDB source: binlog, pages, checks.
//!
//! Two halves. The log half reads the binlog as a replica does and turns its events into
//! batches; the query half asks the server and reads pages over ordinary sessions of the
//! same small client ([`wire`]). They share the positions, the canonical text of values
//! and one table of errors ([`errors`]).

pub mod config;

mod errors;
mod wire;

pub use config::{BatchCaps, Flavour, MySqlConfig, ZeroDates};
