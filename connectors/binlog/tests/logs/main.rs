//! Logs of real servers, read whole.
//!
//! How the files were made stands in `README.md` beside them. What is expected of each was
//! compared by hand with what the server itself answers for the same rows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod reading;
mod servers;
