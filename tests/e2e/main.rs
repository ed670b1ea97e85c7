//! The promises, end to end: the real program as a child process, against real servers.
//!
//! Each test is the sentence of one promise. What a test knows about a kind of source it
//! knows through [`sources::SourceKind`], so another kind is another fixture, and the tests
//! that [`every_source`](sources) lists run against it too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod approval;
mod bounds;
mod brokers;
mod changes;
mod commands;
mod company;
mod crash;
mod decisions;
mod delivery;
mod drift;
mod fields;
mod first;
mod fold;
mod full;
mod gaps;
mod health;
mod histories;
mod hostile;
mod images;
mod leavers;
mod limits;
mod load;
mod neighbours;
mod polling;
mod proof;
mod reconcile;
mod references;
mod refusal;
mod related;
mod rules;
mod runs;
mod secrets;
mod simulation;
mod sources;
mod topic;
mod undo;
mod verify;
mod world;
