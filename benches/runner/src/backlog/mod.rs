//! The same 800,000 changes for the readers, the whole way and the limits.
//!
//! A daemon is started on the empty table until it streams, and stopped in order: its store
//! then knows a position. Only after that the changes are made. Each run of the whole way
//! gets a copy of that store, so every run begins at the same place, none has a gap, and
//! none sees what another has done.

mod binlog;
mod postgres;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use binlog::{Wanted, run as run_binlog};
pub(crate) use postgres::run as run_postgres;

use crate::Result;
use crate::configuration::{KafkaTarget, write_config};
use crate::daemon::Daemon;
use crate::database::Database;
use crate::employees::{self, Workload};
use crate::limit::Pace;
use crate::report::median;
use crate::world::World;

const ROUNDS: usize = 3;
const RUN_LIMIT: Duration = Duration::from_secs(300);
const INSERTS: u64 = 500_000;
/// The daemon that stands before the changes; its slot, on PostgreSQL.
const WAITING: &str = "waiting";

/// A server with the changes.
struct Backlog<S> {
    server: S,
    folder: PathBuf,
    store: PathBuf,
    /// Where a reader begins.
    from: String,
    /// The end of the changes.
    end: String,
    /// Users at the end, and how many of them are active.
    users: u64,
    active: u64,
    changes: u64,
}

impl<S: Database> Backlog<S> {
    fn prepare(world: &World, server: S) -> Result<Backlog<S>> {
        employees::create(&server)?;
        let folder = world.folder(&format!("backlog-{}", server.kind()))?;
        let store = folder.join("store");
        let config = write_config(&folder, &server, &store, WAITING, None)?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        daemon.until_streaming(Duration::from_secs(60))?;
        daemon.stop()?;
        let from = server.here(WAITING)?;
        let work = Workload::of(world.scaled(INSERTS));
        work.run(&server)?;
        let end = server.last_change(work.inserts + 1)?;
        let users = work.inserts + 1;
        Ok(Backlog {
            server,
            folder,
            store,
            from,
            end,
            users,
            active: users - work.deletes,
            changes: work.changes() + 1,
        })
    }

    /// The whole way to Kafka, once, by a daemon of a name that no other run has.
    fn stream(&self, world: &World, name: &str) -> Result<Pace> {
        let kafka = KafkaTarget {
            bootstrap: world.kafka()?.bootstrap(),
            name: name.to_owned(),
            delivery: "exactly_once",
        };
        let store = self.folder.join(name);
        copy_store(&self.store, &store)?;
        let config = write_config(&self.folder, &self.server, &store, name, Some(&kafka))?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        let status = daemon.until_delivered(&self.end, RUN_LIMIT)?;
        let took = daemon.started.elapsed();
        let used = daemon.stat()?;
        if status.sources.iter().any(|s| !s.gaps.is_empty())
            || status.users != self.users
            || status.active != self.active
            || status.outbox_head < self.changes
        {
            return Err(format!(
                "after {} changes, which leave {} users and {} active ones, the daemon says {}",
                self.changes,
                self.users,
                self.active,
                status.describe()
            )
            .into());
        }
        daemon.stop()?;
        std::fs::remove_dir_all(&store)?;
        Ok(Pace::new(self.changes, took, used))
    }
}

/// Copies a store that no daemon has open.
fn copy_store(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the store {} could not be copied", from.display()).into())
    }
}

fn middle<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(of).collect())
}

fn whole_way(pace: &Pace) -> String {
    format!(
        "{:.0} ({:.1} us, {:.0} MiB)",
        pace.rows_per_s, pace.cpu_us, pace.rss_mib
    )
}
