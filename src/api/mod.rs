//! The HTTP interface: one router for people and programs.
//!
//! It is served on a Unix socket beside the store (mode 0600: whoever may write the store
//! may ask everything) and, where configured, on TCP, where anybody may ask for health and
//! metrics, and nobody without a bearer token for anything else.

pub mod conflicts;
pub mod events;
pub mod fields;
mod listen;
pub mod named;
pub mod orders;
pub mod plans;
mod routes;
pub mod runs;
pub mod tokens;
pub mod users;
pub mod views;

pub use listen::{serve_tcp, serve_unix};
pub use routes::{public, router};
