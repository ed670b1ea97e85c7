//! What the benches share: the daemon's program, a broker, a folder, the report.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;

use rollcall_testbed::Kafka;

use crate::Result;
use crate::report::Report;

const PREFIX: &str = "rollcall-bench-";

pub(crate) struct World {
    /// The daemon.
    pub(crate) rollcall: PathBuf,
    pub(crate) report: Report,
    divisor: u64,
    kafka: OnceCell<Kafka>,
    folder: PathBuf,
}

impl World {
    /// # Errors
    /// When the daemon is not built, or no folder can be made.
    pub(crate) fn new(rollcall: PathBuf, report: Report, divisor: u64) -> Result<World> {
        if !rollcall.is_file() {
            return Err(format!(
                "there is no {}; build it with `cargo build --release -p rollcall`",
                rollcall.display()
            )
            .into());
        }
        sweep();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(World {
            rollcall,
            report,
            divisor,
            kafka: OnceCell::new(),
            folder,
        })
    }

    /// A number of rows or seconds, smaller for a mere try.
    pub(crate) fn scaled(&self, number: u64) -> u64 {
        number / self.divisor
    }

    /// By how much everything is smaller.
    pub(crate) fn divisor(&self) -> u64 {
        self.divisor
    }

    /// The broker; started for the first who asks. Its Java machine has the first compiler
    /// alone: one in production was compiled long ago, and here the second compiler would take
    /// a good part of a core, for longer than a round, from what is measured.
    pub(crate) fn kafka(&self) -> Result<&Kafka> {
        if let Some(kafka) = self.kafka.get() {
            return Ok(kafka);
        }
        let kafka = Kafka::start()?;
        Ok(self.kafka.get_or_init(|| kafka))
    }

    /// A new folder, removed with everything else at the end.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).map_err(|e| format!("{} cannot be made: {e}", path.display()))?;
        Ok(path)
    }

    /// Removes what a group has left.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            // What cannot be removed now goes with the folder, or with the next run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes folders of runs that were killed: of processes that are gone.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
