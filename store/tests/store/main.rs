//! What the store promises, tested through its public interface.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking; a child process reports by its output"
)]

mod beside;
mod crash;
mod history;
mod leavers;
mod people;
mod plans;
mod related;
mod state;
mod stops;
