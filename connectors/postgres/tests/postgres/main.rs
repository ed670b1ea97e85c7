//! What the PostgreSQL source promises, against real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as expected"
)]

mod bed;
mod checks;
mod connecting;
mod faults;
mod gaps;
mod pages;
mod related;
mod scan_and_log;
mod server;
mod startup;
mod stream;
mod values;
