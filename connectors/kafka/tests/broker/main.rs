//! The promises of the Kafka sink, against a real Apache Kafka.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod access;
mod at_least_once;
mod exactly_once;
mod outage;
mod refused;
mod stand;
mod topics;
