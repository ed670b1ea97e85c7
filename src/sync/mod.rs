//! What drives a source: its log, its scans, and the one thread that applies them.
//!
//! ```text
//! connector's reader ─► driver (map, page windows) ─► engine (directory + store) ─► outbox
//!        one task            one task a source           one thread for all
//! ```
//!
//! Why the directory equals the source:
//!
//! - The engine applies the work of a source in the order in which its driver hands it
//!   over, and commits the effects of a batch together with the batch's cursor. A crash
//!   therefore leaves the store exactly behind some batch; the connector is opened at that
//!   cursor and delivers what follows it, even in the middle of a transaction.
//! - The log is acknowledged by the engine after the commit, never before.
//! - A page of a scan is applied behind every log event that it has seen ([`window`]), and
//!   a row of it never overwrites a newer event.
//! - Whatever could not be proved to be continuous is a gap in the store, written in the
//!   same transaction as the new start cursor. While a gap is open a scan is due, and only
//!   the scan's end closes it ([`scan`]).
//! - What takes something away from people is counted, and what is too much waits until
//!   somebody has looked ([`staging`]).

pub mod apply;
mod approval;
pub mod attempts;
pub mod backoff;
pub mod clock;
pub mod drift;
pub mod driver;
pub mod due;
pub mod engine;
pub mod envelope;
pub mod fanout;
pub mod fields;
pub mod gaps;
pub mod ids;
pub mod joined;
mod joining;
pub mod keys;
pub mod mapper;
pub mod pages;
pub mod pending;
pub mod planned;
pub mod planning;
pub mod polling;
pub mod polls;
mod proving;
mod referring;
pub mod related;
pub mod runs;
pub mod scan;
pub mod scanning;
pub mod scheduler;
pub mod schemas;
pub mod shared;
pub mod staging;
pub mod track;
pub mod undoing;
pub mod window;
pub mod work;
pub mod worker;
