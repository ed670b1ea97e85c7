//! What the MySQL source promises, against real servers of both kinds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as expected"
)]

#[macro_use]
mod bed;
mod checks;
mod connecting;
mod faults;
mod gaps;
mod pages;
mod related;
mod scan_and_log;
mod stream;
mod xa;
