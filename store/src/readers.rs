//! Reading beside the writer.
//!
//! Each call takes a connection of the pool and sees one committed state of the whole
//! store: SQLite gives a reading transaction a snapshot of the log, and the writer never
//! waits for it. Connections cannot write (they are opened read-only and closing one never
//! touches the log), so a command beside a running daemon can do no harm. Calls are short,
//! because a long reader keeps the log from being taken in; what may be long is asked in
//! pages.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::error::StoreError;
use crate::memory::BlockMemory;
use crate::open::connect_reader;

/// Connections kept for the next call.
const KEPT: usize = 3;

/// A pool of connections that can read and nothing else. Cloning shares it.
#[derive(Clone)]
pub struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    memory: BlockMemory,
    idle: Mutex<Vec<Connection>>,
    /// The one connection of a pool that stands still; see [`Readers::standing_still`].
    still: Option<Mutex<Connection>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Readers {
    pub(crate) fn new(path: PathBuf, memory: BlockMemory) -> Readers {
        Readers {
            shared: Arc::new(Shared {
                path,
                memory,
                idle: Mutex::new(Vec::new()),
                still: None,
            }),
        }
    }

    /// Readers that go on seeing the store as it is now, whatever is committed later. As long
    /// as they live, the log of the store cannot be taken in: only for a store that nobody
    /// else works on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn standing_still(&self) -> Result<Readers, StoreError> {
        let connection = connect_reader(&self.shared.path)?;
        connection.execute_batch("BEGIN")?;
        // A reading transaction begins with its first question.
        connection.query_row("SELECT COUNT(*) FROM meta", [], |_| Ok(()))?;
        Ok(Readers {
            shared: Arc::new(Shared {
                path: self.shared.path.clone(),
                memory: self.memory().clone(),
                idle: Mutex::new(Vec::new()),
                still: Some(Mutex::new(connection)),
            }),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Where blocks of events are read to.
    pub(crate) fn memory(&self) -> &BlockMemory {
        &self.shared.memory
    }

    /// Opens one connection, so that a store that cannot be read is found out now.
    pub(crate) fn warm(&self) -> Result<(), StoreError> {
        self.with(|c| Ok(c.query_row("SELECT COUNT(*) FROM meta", [], |_| Ok(()))?))
    }

    /// Runs one reading against one committed state.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(still) = &self.shared.still {
            return read(&still.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let taken = self.idle().pop();
        let connection = match taken {
            Some(connection) => connection,
            None => connect_reader(&self.shared.path)?,
        };
        connection.execute_batch("BEGIN")?;
        let outcome = read(&connection);
        // A connection that cannot end its transaction is not used again.
        if connection.execute_batch("ROLLBACK").is_ok() {
            let mut idle = self.idle();
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
        outcome
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // The list is whole whatever panicked while it was held.
        self.shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
