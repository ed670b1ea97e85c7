//! The Rollcall daemon: keeps an identity directory in step with the databases an
//! organization already has.
//!
//! The rooms and the way of a change through them are described in ARCHITECTURE.md; each
//! module says why it is correct.

pub mod api;
pub mod cli;
pub mod config;
pub mod connect;
pub mod daemon;
pub mod delivery;
pub mod observe;
pub mod proof;
pub mod schedule;
pub mod simulation;
pub mod sync;
pub mod undo;
pub mod vault;
