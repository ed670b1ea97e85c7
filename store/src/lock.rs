//! One daemon for one store.
//!
//! The lock is an advisory lock of the operating system on a file of its own, so it ends
//! with the process that holds it however that process dies; there is nothing to clean up
//! after a crash and no stale lock. The process id written into the file is for people
//! only and decides nothing. The lock file is never removed: removing it would let two
//! processes lock two files of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::StoreError;
use crate::open::private_file;

/// The file's name in the store's directory.
pub(crate) const LOCK_FILE: &str = "rollcall.lock";

/// Held as long as the writer lives.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    pub(crate) fn take(directory: &Path) -> Result<InstanceLock, StoreError> {
        let path = directory.join(LOCK_FILE);
        let io = |action| {
            let path = path.clone();
            move |source| StoreError::Io {
                action,
                path,
                source,
            }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = private_file(&mut options)
            .open(&path)
            .map_err(io("opening the lock file"))?;
        match try_lock_for_a_moment(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: directory.to_owned(),
                    pid: holder(&mut file),
                });
            }
            Err(TryLockError::Error(e)) => return Err(io("locking")(e)),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(io("writing the lock file"))?;
        Ok(InstanceLock { _file: file })
    }
}

/// The process that says it holds the lock.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that has the store of a directory open for writing, if one has.
pub(crate) fn held_by(directory: &Path) -> Result<Option<Option<u32>>, StoreError> {
    let path = directory.join(LOCK_FILE);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoreError::Io {
                action: "opening the lock file",
                path,
                source,
            });
        }
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(holder(&mut file))),
        Err(TryLockError::Error(source)) => Err(StoreError::Io {
            action: "asking for the lock",
            path,
            source,
        }),
    }
}

/// Asks a few times, because somebody may just be looking ([`held_by`]).
fn try_lock_for_a_moment(file: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            done => return done,
        }
    }
    file.try_lock()
}
