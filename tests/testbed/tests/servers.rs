//! The servers that all other tests stand on, each started for real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as expected"
)]

mod servers {
    mod kafka;
    mod mysql;
    mod ownership;
    mod postgres;
    mod proxy;
}
