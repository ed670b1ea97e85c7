//! A copy of the store, made while others work on it.
//!
//! The copy is one committed state: all of it is read in one transaction of a connection that
//! can only read, so the writer goes on and the pages never begin anew
//! (<https://www.sqlite.org/backup.html>). Only the log cannot be taken in until the copy is
//! made.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::error::StoreError;
use crate::open::{DATABASE_FILE, private_directory, private_file};
use crate::readers::Readers;

/// Pages that are copied between two looks at whether to go on.
const PAGES_AT_ONCE: i32 = 2_000;

impl Readers {
    /// Copies the store into a directory of its own, where [`crate::Store::open`] opens it.
    /// `false`: it was told not to go on, and what is in the directory is no store.
    ///
    /// # Errors
    /// When the store cannot be read or the copy cannot be written.
    pub fn copy_to(
        &self,
        directory: &Path,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<bool, StoreError> {
        private_directory(directory)?;
        let path = directory.join(DATABASE_FILE);
        private_file(std::fs::OpenOptions::new().write(true).create_new(true))
            .open(&path)
            .map_err(|source| StoreError::Io {
                action: "making the copy",
                path: path.clone(),
                source,
            })?;
        let mut copy = Connection::open(&path)?;
        // A copy that dies with its process is thrown away: nothing is flushed for it.
        copy.pragma_update(None, "synchronous", "OFF")?;
        self.with(|c| {
            c.query_row("SELECT COUNT(*) FROM meta", [], |_| Ok(()))?;
            let backup = Backup::new(c, &mut copy)?;
            while goes_on() {
                match backup.step(PAGES_AT_ONCE)? {
                    StepResult::Done => return Ok(true),
                    StepResult::Busy | StepResult::Locked => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    _ => {}
                }
            }
            Ok(false)
        })
    }

    /// How large the database is, in bytes: what a copy of it takes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        self.with(|c| {
            let pages: i64 = c.pragma_query_value(None, "page_count", |r| r.get(0))?;
            let size: i64 = c.pragma_query_value(None, "page_size", |r| r.get(0))?;
            Ok(pages.unsigned_abs() * size.unsigned_abs())
        })
    }
}
