//! What an operator sees without asking: metrics, logs, health and readiness.
//!
//! Nothing here ever carries a cell value: labels are names from the configuration and
//! codes from closed lists, logs carry positions and counts.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod notify;
