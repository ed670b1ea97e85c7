//! The PostgreSQL source: logical replication, pages, checks.
//!
//! Two halves. The wire half ([`wire`], [`decode`], [`stream`]) speaks the replication
//! protocol and turns its messages into batches without a copy; the query half
//! ([`source`] and what it uses) asks the server over ordinary connections. They share the
//! positions ([`lsn`], [`position`]), the canonical text of values ([`types`]) and one
//! table of errors ([`errors`]).

pub mod config;
pub mod decode;
pub mod errors;
pub mod lsn;
pub mod position;
pub mod stream;
pub mod types;
pub mod wire;

mod check;
mod copy_text;
mod discover;
mod followed;
mod keyset;
mod lineage;
mod page;
mod query;
mod schema;
mod script;
mod slot;
mod snapshot;
mod source;
mod status;
mod type_map;
mod watch;

pub use source::PostgresSource;
pub use type_map::TypeMap;
