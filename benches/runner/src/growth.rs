//! What a change costs in a large directory, beside a small one.
//!
//! Two daemons, one with 2,000,000 users and one with 50,000, no sinks. In each round the
//! daemon is held still while 100,000 changes are made (nine updates of scattered people to
//! one new person), then let go; its CPU time until all of it is stored is the figure. So the
//! lots are as large as under load, and neither starting nor loading is in it.

use std::path::PathBuf;
use std::time::Duration;

use rollcall_testbed::Postgres;

use crate::configuration::write_config;
use crate::daemon::Daemon;
use crate::database::{self, Database};
use crate::employees;
use crate::report::median;
use crate::world::World;
use crate::{Result, note};

const ROUNDS: u64 = 3;
const LOAD_LIMIT: Duration = Duration::from_secs(600);
const RUN_LIMIT: Duration = Duration::from_secs(180);

struct Directory {
    server: Postgres,
    daemon: Daemon,
    users: u64,
    /// Changes of one round.
    changes: u64,
    costs_us: Vec<f64>,
}

impl Directory {
    fn load(world: &World, name: &str, users: u64, changes: u64) -> Result<Directory> {
        let server = database::postgres()
            .setting("wal_sender_timeout", "0")
            .start()?;
        employees::create(&server)?;
        employees::insert(&server, 1, users)?;
        server.analyze()?;
        let folder: PathBuf = world.folder(name)?;
        let store = folder.join("store");
        let config = write_config(&folder, &server, &store, name, None)?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        let status = daemon.until_streaming(LOAD_LIMIT)?;
        if status.users != users {
            return Err(format!("{} of {users} rows are users", status.users).into());
        }
        Ok(Directory {
            server,
            daemon,
            users,
            changes,
            costs_us: Vec::new(),
        })
    }

    fn round(&mut self, round: u64) -> Result<f64> {
        let new = self.changes / 10;
        let updates = self.changes - new;
        self.daemon.freeze(true);
        employees::update(&self.server, self.users, round * updates, updates)?;
        employees::insert(&self.server, self.users + 1 + round * new, new)?;
        let end = self.server.head()?;
        let before = self.daemon.stat()?;
        self.daemon.freeze(false);
        self.daemon.until_delivered(&end, RUN_LIMIT)?;
        let used = self.daemon.stat()?.cpu_seconds - before.cpu_seconds;
        let cost_us = used * 1e6 / self.changes as f64;
        self.costs_us.push(cost_us);
        Ok(cost_us)
    }
}

pub(crate) fn run(world: &mut World) -> Result<()> {
    let changes = world.scaled(100_000);
    note("growth: loading 50,000 and 2,000,000 users");
    let mut small = Directory::load(world, "small", world.scaled(50_000), changes)?;
    let mut large = Directory::load(world, "large", world.scaled(2_000_000), changes)?;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (cheap, dear) = (small.round(round)?, large.round(round)?);
        note(&format!(
            "round {}: {cheap:.1} us with {} users, {dear:.1} us with {}",
            round + 1,
            small.users,
            large.users
        ));
        ratios.push(dear / cheap);
    }
    let rss = large.daemon.stat()?.peak_rss_kib;
    small.daemon.stop()?;
    large.daemon.stop()?;
    let report = &mut world.report;
    report.figure("growth_small_cpu_us", median(small.costs_us), "us")?;
    report.figure("growth_large_cpu_us", median(large.costs_us), "us")?;
    report.figure("growth_large_peak_rss_mib", rss as f64 / 1024.0, "MiB")?;
    report.figure("growth_ratio", median(ratios), "ratio")
}
