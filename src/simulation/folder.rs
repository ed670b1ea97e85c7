//! The private folder that a copy of the store lies in.
//!
//! It is made with mode 0700 and removed with everything in it when the value goes, also
//! after an interruption. Only SIGKILL can leave one behind: its name holds the process, so
//! the next simulation, and every daemon at its start, removes those whose process is gone.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};

const NAME: &str = "rollcall-plan-";

/// What the engine writes into the copy, at least, beside what was copied.
const SPARE_BYTES: u64 = 16 << 20;

/// A folder that goes with its value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one where temporary files go.
    ///
    /// # Errors
    /// When none can be made there.
    pub fn make() -> Result<Folder, Failure> {
        let parent = std::env::temp_dir();
        remove_left(&parent);
        let random = getrandom::u64().unwrap_or_default();
        let path = parent.join(format!("{NAME}{}-{random:016x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            let sentence = format!(
                "a private folder for the copy of the store cannot be made in {}: {e}. Fix: name another place in TMPDIR",
                parent.display()
            );
            Failure::new(Exit::Failed, sentence)
        })?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Refuses what would not fit: a copy of so many bytes, and as much again for what is
    /// written to it.
    ///
    /// # Errors
    /// When there is less room.
    pub fn has_room_for(&self, bytes: u64) -> Result<(), Failure> {
        let needed = bytes.saturating_mul(2).saturating_add(SPARE_BYTES);
        // A place that does not say how much room it has is tried.
        let free = rustix::fs::statvfs(&self.0).map_or(u64::MAX, |s| s.f_bavail * s.f_frsize);
        if free >= needed {
            return Ok(());
        }
        let sentence = format!(
            "the copy of the store needs {} MiB and {} has {} MiB left. Fix: make room, or name another place in TMPDIR",
            needed >> 20,
            self.0.display(),
            free >> 20
        );
        Err(Failure::new(Exit::Failed, sentence))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), "the copy of the store stays behind: {e}");
        }
    }
}

/// Removes our own folders of processes that are gone, from where temporary files go.
pub fn remove_left_here() {
    remove_left(&std::env::temp_dir());
}

fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let ours = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(NAME)) else {
            continue;
        };
        let Some(process) = rest.split('-').next().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let is_ours = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == ours);
        if is_ours && !Path::new("/proc").join(process.to_string()).exists() {
            // Somebody else may be removing it just now.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_is_private_and_goes_and_so_do_those_that_were_left() -> Result<(), String> {
        let parent = std::env::temp_dir();
        // No process has this number: it is larger than Linux gives out.
        let left = parent.join(format!("{NAME}4294967295-left"));
        fs::create_dir_all(&left).map_err(|e| e.to_string())?;
        let folder = Folder::make().map_err(|e| e.sentence)?;
        assert!(!left.exists());
        let mode = fs::metadata(folder.path()).map_err(|e| e.to_string())?;
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
        fs::write(folder.path().join("file"), "x").map_err(|e| e.to_string())?;
        assert!(folder.has_room_for(1).is_ok());
        assert!(folder.has_room_for(u64::MAX).is_err());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
        Ok(())
    }
}
