//! One file for each command.

pub mod config;
pub mod secret;
