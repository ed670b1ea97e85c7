//! SQLite's write-ahead log, written with few calls to the system.
//!
//! SQLite writes each frame of its log with two calls, one of 24 bytes for its header and one
//! for its page (<https://www.sqlite.org/fileformat2.html#walformat>). Under a flood these calls
//! cost more than anything else that a commit does. A connection that was opened with the VFS
//! [`register`] names gathers what it appends to its log and hands it to the system in pieces of
//! 64 KiB.
//!
//! What this keeps, whatever happens:
//!
//! * Writes reach the system in the order in which SQLite made them, and all of them before a
//!   flush of the log begins. With `synchronous = FULL` SQLite flushes its log before it shows
//!   a commit to other connections, which read the same file on their own: so nothing that
//!   they may see is ever waiting here. **With less than that they would read what is not there
//!   yet**, so it is for connections that commit with `FULL` alone.
//! * What the system does not take (a full disk) stays and is tried again first by whatever
//!   comes next; the call that met the failure, and each that finds it still there, says so.
//!
//! The database itself and all other files go past it.

mod gather;
mod vfs;

pub use vfs::register;
