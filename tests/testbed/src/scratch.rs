//! Folders that servers live in, and their removal after a test that was killed.
//!
//! A folder goes away when its [`Scratch`] is dropped. A test process that is
//! killed drops nothing, and a server that lives in a static is never dropped
//! either; so each folder holds a file that its owner keeps locked (`flock`,
//! which the kernel releases with the process), and the first folder that a
//! process makes removes those whose lock nobody holds. A lock younger than a
//! minute is left alone: its owner may be between making and locking it.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::error::{Result, TestbedError};

const PREFIX: &str = "rc-";
const LOCK: &str = "owner.lock";
const YOUNG: Duration = Duration::from_secs(60);
/// Longest base folder that leaves a socket path below the 107 bytes of
/// `sun_path` (unix(7)).
const LONGEST_BASE_BYTES: usize = 60;

static SWEPT: Once = Once::new();

/// A folder of one server, removed on drop.
#[derive(Debug)]
pub(crate) struct Scratch {
    // Dropped before the lock, so that the folder is gone when the lock is.
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a folder that other accounts may pass through (its content decides
    /// for itself who may read it).
    pub(crate) fn new() -> Result<Scratch> {
        let base = base();
        SWEPT.call_once(|| sweep(&base));
        let what = || format!("making a folder under {}", base.display());
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(8)
            .tempdir_in(&base)
            .map_err(TestbedError::io(what()))?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))
            .map_err(TestbedError::io(what()))?;
        let lock = File::create(dir.path().join(LOCK)).map_err(TestbedError::io(what()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| TestbedError::io(what())(errno.into()))?;
        Ok(Scratch { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn base() -> PathBuf {
    let wanted = env::temp_dir();
    if wanted.as_os_str().len() <= LONGEST_BASE_BYTES {
        wanted
    } else {
        PathBuf::from("/tmp")
    }
}

/// Removes what killed processes left. Failures are ignored: the folder of
/// another user is that user's to remove.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        let old = lock
            .metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age > YOUNG);
        if old && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as expected"
    )]

    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_old_folders_that_nobody_holds_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let folder = |name: &str, age: Duration| {
            let dir = base.path().join(name);
            fs::create_dir(&dir).unwrap();
            let lock = File::create(dir.join(LOCK)).unwrap();
            lock.set_modified(SystemTime::now() - age).unwrap();
            (dir, lock)
        };
        let old = Duration::from_secs(3_600);
        let (left, lock) = folder("rc-left", old);
        drop(lock);
        let (held, lock) = folder("rc-held", old);
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (young, _) = folder("rc-young", Duration::ZERO);
        let (strange, _) = folder("strange", old);
        let no_lock = base.path().join("rc-nolock");
        fs::create_dir(&no_lock).unwrap();

        sweep(base.path());
        assert!(!left.exists());
        for kept in [held, young, strange, no_lock] {
            assert!(kept.exists(), "{}", kept.display());
        }
    }

    #[test]
    fn a_dropped_folder_is_gone() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        assert!(path.as_os_str().len() < 80 && path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
