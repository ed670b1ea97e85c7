//! What the store may end with.
//!
//! The kinds differ in what the caller must do, and in nothing else: a full disk leaves the
//! store as it was before the call and may be tried again; a damaged file or a failed
//! fsync may not, because after a failed fsync the kernel can report success for pages
//! that it has already dropped. Those two poison the store: every later commit is refused
//! until the process has been restarted and the file was opened afresh.
//!
//! SQLite's own messages are passed on. They name tables and columns, never values,
//! because every value is a bound parameter.

use std::path::PathBuf;

use rollcall_core::state::StateError;
use rusqlite::ffi;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open for writing.
    #[error(
        "the store {} is in use by another daemon{}; one daemon owns a store at a time. Fix: stop that one, or give this one a store of its own",
        path.display(),
        pid.map(|p| format!(" (process {p})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, as it wrote itself down.
        pid: Option<u32>,
    },
    /// There is no store, and the caller must not make one.
    #[error("there is no store at {}; it is made by the first `rollcall run`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a Rollcall store ({found}); nothing was changed in it. Fix: name another directory as the store", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The file was written by a later version of Rollcall.
    #[error(
        "the store {} has schema version {found}, this program knows versions up to {known}; nothing was changed in it. Fix: run the version that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The highest version known here.
        known: u32,
    },
    /// The store belongs to somebody else.
    #[error(
        "the store {} belongs to organization {found:?}, the configuration says {expected:?}; nothing was changed in it. Fix: correct `organization`, or name another directory as the store",
        path.display()
    )]
    OtherOrganization {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
    /// The file is damaged. Poisons the store.
    #[error(
        "the store is damaged: {detail}. Nothing more is written to it. Fix: restore the last backup (what changed since is found again by a scan), or move the directory away and load the sources anew"
    )]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// There is no space left, or a quota is used up. What was being written is undone.
    #[error(
        "the disk of the store is full ({detail}); the batch was undone and nothing is lost. Fix: make space; it is then taken up again where it stopped"
    )]
    DiskFull {
        /// SQLite's words.
        detail: String,
    },
    /// An earlier failure made the state of the disk unknown.
    #[error(
        "the store does not write any more since this happened: {reason}. Fix: look at the disk, then restart the daemon; it resumes at its last durable position"
    )]
    Poisoned {
        /// The failure.
        reason: String,
    },
    /// The operating system refused something around the database file.
    #[error("{}: {action} failed: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The request contradicts what is stored.
    #[error("{0}")]
    Refused(String),
    /// Anything else that SQLite reports.
    #[error("the store could not be used: {0}")]
    Sql(rusqlite::Error),
}

impl StoreError {
    /// A stable code for metrics and exit codes.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::InUse { .. } => "store_in_use",
            StoreError::Missing { .. } => "store_missing",
            StoreError::NotOurs { .. } => "store_not_ours",
            StoreError::Newer { .. } => "store_newer",
            StoreError::OtherOrganization { .. } => "store_other_organization",
            StoreError::Damaged { .. } => "store_damaged",
            StoreError::DiskFull { .. } => "store_disk_full",
            StoreError::Poisoned { .. } => "store_poisoned",
            StoreError::Io { .. } => "store_io",
            StoreError::Refused(_) => "store_refused",
            StoreError::Sql(_) => "store_sql",
        }
    }

    /// Whether the same call may succeed later without a restart.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::DiskFull { .. } => true,
            StoreError::Sql(e) => matches!(
                e.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            _ => false,
        }
    }

    /// Whether nothing may be written after this before the file was opened afresh.
    pub(crate) fn poisons(&self) -> bool {
        match self {
            StoreError::Damaged { .. } | StoreError::Poisoned { .. } => true,
            StoreError::Sql(e) => {
                e.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
            }
            _ => false,
        }
    }
}

/// SQLite's result codes (<https://www.sqlite.org/rescode.html>) sorted into ours.
impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        let Some(inner) = e.sqlite_error() else {
            return StoreError::Sql(e);
        };
        match inner.extended_code {
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => StoreError::Poisoned {
                reason: format!("a flush to disk failed ({e})"),
            },
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SHMSIZE => {
                StoreError::DiskFull {
                    detail: e.to_string(),
                }
            }
            ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS => {
                StoreError::Damaged {
                    detail: e.to_string(),
                }
            }
            code => match code & 0xff {
                ffi::SQLITE_FULL => StoreError::DiskFull {
                    detail: e.to_string(),
                },
                ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => StoreError::Damaged {
                    detail: e.to_string(),
                },
                _ => StoreError::Sql(e),
            },
        }
    }
}

impl From<StoreError> for StateError {
    fn from(e: StoreError) -> Self {
        StateError(e.to_string())
    }
}
