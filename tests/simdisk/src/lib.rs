//! A disk that loses, tears and refuses writes, under SQLite.
//!
//! [`Disk::under`] makes a folder a simulated disk: whatever SQLite writes to files in it goes
//! through [`vfs`], which does as it is told and keeps a second account of it ([`disk`]). The
//! files themselves are what a running program sees, the kernel's cache included; the account
//! knows what would still be there if the power went. Reading, locks and the shared memory of
//! the log are those of the system, so several connections work as they do otherwise.

mod disk;
mod vfs;

pub use disk::{Disk, Loss, Refusal, Usage};
