//! The MySQL and MariaDB source: binlog, pages, checks.
//!
//! Two halves. The log half reads the binlog as a replica does and turns its events into
//! batches; the query half asks the server and reads pages over ordinary sessions of the
//! same small client ([`wire`]). They share the positions, the canonical text of values
//! and one table of errors ([`errors`]).

pub mod config;

mod check;
mod decode;
mod discover;
mod errors;
mod keyset;
mod lineage;
mod page;
mod position;
mod query;
mod replica;
mod schema;
mod script;
mod server;
mod source;
mod status;
mod stream;
mod types;
mod values;
mod window;
mod wire;

pub use config::{Flavour, MySqlConfig, ZeroDates};
pub use source::MySqlSource;
