//! The binlog of a private server, as the server lists it and as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MySql;
use crate::error::{Result, TestbedError};
use crate::wait::wait_for;

/// One file of the binlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogFile {
    /// Its name, `binlog.000001`.
    pub name: String,
    /// How long it is, in bytes.
    pub size_bytes: u64,
}

impl MySql {
    /// The files that the server still has, oldest first; the last is being written.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn binlogs(&self) -> Result<Vec<BinlogFile>> {
        let listed = self.sql("SHOW BINARY LOGS")?;
        listed
            .lines()
            .map(|line| {
                let mut fields = line.split('\t');
                let file = fields.next().zip(fields.next()).and_then(|(name, size)| {
                    Some(BinlogFile {
                        name: name.to_owned(),
                        size_bytes: size.parse().ok()?,
                    })
                });
                file.ok_or_else(|| self.state("lists its binlog in a form that is not known"))
            })
            .collect()
    }

    /// The file that is being written.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn current_binlog(&self) -> Result<BinlogFile> {
        self.binlogs()?
            .pop()
            .ok_or_else(|| self.state("has no binlog"))
    }

    /// Begins a new file (`FLUSH BINARY LOGS`).
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn rotate_binlog(&self) -> Result<()> {
        self.sql("FLUSH BINARY LOGS").map(drop)
    }

    /// Begins a new file and removes all others, as an expiry or an operator does.
    /// MariaDB keeps, without a word, a file that its engines may still need after
    /// a crash, until they have written their own logs; so it is asked until it is
    /// done.
    ///
    /// # Errors
    /// As [`MySql::sql`], and when older files are left after 20 s.
    pub fn purge_binlogs(&self) -> Result<()> {
        self.rotate_binlog()?;
        let current = self.current_binlog()?.name;
        wait_for(
            Duration::from_secs(20),
            format_args!("the binlog before {current} to be purged"),
            || {
                let left = self
                    .sql(&format!("PURGE BINARY LOGS TO '{current}'"))
                    .and_then(|_| self.binlogs())
                    .map_err(|error| error.to_string())?;
                match left.first() {
                    Some(first) if first.name == current => Ok(()),
                    _ => Err(format!("{} files are left", left.len())),
                }
            },
        )
    }

    /// Where a file of the binlog lies.
    pub fn binlog_path(&self, name: &str) -> PathBuf {
        self.data_dir().join(name)
    }

    /// Begins a new file and copies all earlier ones, which do not change any more,
    /// into a folder that is there; gives the paths of the copies, oldest first.
    ///
    /// # Errors
    /// As [`MySql::sql`], and when a file cannot be copied.
    pub fn copy_binlogs(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        self.rotate_binlog()?;
        let mut files = self.binlogs()?;
        files.pop();
        files
            .into_iter()
            .map(|file| {
                let copy = folder.join(&file.name);
                fs::copy(self.binlog_path(&file.name), &copy)
                    .map_err(TestbedError::io(format!("copying {}", file.name)))?;
                Ok(copy)
            })
            .collect()
    }
}
