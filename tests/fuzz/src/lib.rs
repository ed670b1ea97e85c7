//! The decoders of both logs under damaged and hostile input.
//!
//! Whatever comes from a socket may be cut, damaged or made by somebody who wishes ill: no
//! input may end in a panic, in an allocation of a size that the input only claims, or in a
//! loop without end. [`TARGETS`] are the entries to the decoders. `cargo fuzz` searches
//! them for new inputs (README.md), and keeps those that reach something new in
//! `fuzz/corpus`; the test `corpus` reads all of these again, and many that are made from
//! them by a [`mutate::Mutator`], at every `make test`, without a nightly compiler.

pub mod allocation;
mod log;
pub mod mutate;
mod pgoutput;
mod result_row;
mod statement;

/// An entry to a decoder.
pub struct Target {
    /// The name of the fuzz target and of its corpus.
    pub name: &'static str,
    /// Decodes an input. Gives how many bytes came out of compressed parts of it, which are
    /// input as well: each was there before it was kept.
    pub run: fn(&[u8]) -> usize,
}

/// All entries.
pub const TARGETS: &[Target] = &[LOG, PGOUTPUT, RESULT_ROW, STATEMENT];

/// A binary log of MySQL and of MariaDB, without checksums: events, table maps, rows,
/// payloads.
pub const LOG: Target = Target {
    name: "log",
    run: log::run,
};

/// What PostgreSQL sends in the replication protocol: messages of pgoutput in CopyData.
pub const PGOUTPUT: Target = Target {
    name: "pgoutput",
    run: pgoutput::run,
};

/// Columns and a row of a prepared statement of MySQL.
pub const RESULT_ROW: Target = Target {
    name: "result_row",
    run: result_row::run,
};

/// A SQL mode, a collation and a statement of a binary log.
pub const STATEMENT: Target = Target {
    name: "statement",
    run: statement::run,
};
