//! The PostgreSQL source against real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod faults;
mod server;
mod startup;
mod stream;
mod values;
