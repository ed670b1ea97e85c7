//! Reconciling a million rows, beside what the server takes for the same table, and what it
//! does to the changes that come meanwhile.
//!
//! The daemon has the table in its directory and is started anew for each measurement, so
//! that its peak memory is that of a reconciliation and not of the load. The time runs from
//! the order to the end of the run: every page, the search for who is absent, and the end of
//! the run are in it.
//!
//! Rows that the log has not shown are made as it happens in the field: the table is written
//! anew by `ALTER TABLE … USING`, which changes values and is no change to the log. It is
//! vacuumed behind it, so that the server's own tools and the pages find the same.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rollcall_testbed::Postgres;

use crate::configuration::{KafkaTarget, write_config};
use crate::daemon::{Daemon, Run};
use crate::database::{self, Database};
use crate::employees;
use crate::latency::{Steady, Trickle, sorted_ms};
use crate::limit::{Pace, copy_in_server};
use crate::report::{median, percentile};
use crate::world::World;
use crate::{Result, note};

const ROUNDS: u64 = 3;
const ROWS: u64 = 1_000_000;
/// One row of so many is another one than the log has said.
const CHANGED_OF: u64 = 100;
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Changes are made for so long without a reconciliation, and for so long beside some.
const STEADY_SECONDS: u64 = 12;
/// Before anything counts: the broker's code is compiled while it runs.
const WARM_UP: Duration = Duration::from_secs(10);

/// A server, and the store of a daemon that has loaded it.
struct Loaded {
    server: Postgres,
    rows: u64,
    folder: PathBuf,
    store: PathBuf,
}

impl Loaded {
    fn new(world: &World) -> Result<Loaded> {
        let rows = world.scaled(ROWS);
        note("reconcile: a PostgreSQL with 1,000,000 rows, and a directory of them");
        let server = database::postgres().start()?;
        employees::create(&server)?;
        employees::insert(&server, 1, rows)?;
        server.analyze()?;
        let folder = world.folder("reconcile")?;
        let loaded = Loaded {
            store: folder.join("store"),
            server,
            rows,
            folder,
        };
        let daemon = loaded.start(&world.rollcall, None)?;
        let status = daemon.until_streaming(RUN_LIMIT)?;
        if status.users != rows {
            return Err(format!("{} of {rows} rows are users", status.users).into());
        }
        daemon.stop()?;
        Ok(loaded)
    }

    fn start(&self, rollcall: &Path, kafka: Option<&KafkaTarget>) -> Result<Daemon> {
        let config = write_config(&self.folder, &self.server, &self.store, "reconcile", kafka)?;
        Daemon::start(rollcall, &config, &self.store)
    }

    /// Gives one row of many another value, behind the back of the log.
    fn change_unseen(&self, round: u64) -> Result<()> {
        self.server.run(&format!(
            "ALTER TABLE employees ALTER COLUMN job TYPE text
               USING CASE WHEN id % {CHANGED_OF} = {round} THEN 'Unseen ' || job ELSE job END"
        ))?;
        self.server.analyze()?;
        self.server.checkpoint()?;
        Ok(())
    }

    /// Reconciles once, with a daemon of its own; so many rows are to be found changed. Gives
    /// the pace, and its share of the server's own.
    fn reconcile(&self, rollcall: &Path, changed: u64) -> Result<(Pace, f64)> {
        let limit = copy_in_server(&self.server, self.rows)?;
        let daemon = self.start(rollcall, None)?;
        daemon.until_streaming(RUN_LIMIT)?;
        // What the table's rewriting has put into the log is no part of a reconciliation.
        daemon.until_delivered(&self.server.head()?, RUN_LIMIT)?;
        let before = daemon.stat()?.cpu_seconds;
        let began = Instant::now();
        let run = daemon.reconcile(RUN_LIMIT)?;
        let took = began.elapsed();
        let mut used = daemon.stat()?;
        used.cpu_seconds -= before;
        daemon.stop()?;
        check(&run, self.rows, changed)?;
        let pace = Pace::new(self.rows, took, used);
        Ok((pace, pace.rows_per_s / limit))
    }
}

/// Whether a run has done what is timed.
fn check(run: &Run, rows: u64, changed: u64) -> Result<()> {
    let counted = &run.counters;
    let is_right = run.outcome == "completed"
        && counted.processed == rows
        && counted.updated == changed
        && counted.unchanged == rows - changed;
    match is_right {
        true => Ok(()),
        false => {
            Err(format!("of {rows} rows {changed} had changed, and the run is {run:?}").into())
        }
    }
}

/// Measures the pace, the latency meanwhile, or both.
pub(crate) fn run(world: &mut World, with_pace: bool, with_latency: bool) -> Result<()> {
    if with_latency {
        // Before anything is measured, so that its start is in nothing.
        world.kafka()?;
    }
    let loaded = Loaded::new(world)?;
    if with_pace {
        pace(world, &loaded)?;
    }
    if with_latency {
        latency(world, &loaded)?;
    }
    Ok(())
}

fn pace(world: &mut World, loaded: &Loaded) -> Result<()> {
    let (mut unchanged, mut changed) = (vec![], vec![]);
    for round in 1..=ROUNDS {
        let same = loaded.reconcile(&world.rollcall, 0)?;
        loaded.change_unseen(round)?;
        let other = loaded.reconcile(&world.rollcall, loaded.rows / CHANGED_OF)?;
        let shown = |(pace, ratio): &(Pace, f64)| {
            format!(
                "{:.0} ({ratio:.2}, {:.1} us, {:.0} MiB)",
                pace.rows_per_s, pace.cpu_us, pace.rss_mib
            )
        };
        note(&format!(
            "round {round}: unchanged {}, 1 % changed {}",
            shown(&same),
            shown(&other)
        ));
        unchanged.push(same);
        changed.push(other);
    }
    let report = &mut world.report;
    for (name, runs) in [("unchanged", unchanged), ("one_percent", changed)] {
        let of = |of: fn(&Pace) -> f64| median(runs.iter().map(|(p, _)| of(p)).collect());
        let mut figure =
            |end: &str, value, unit| report.figure(&format!("reconcile_{name}_{end}"), value, unit);
        figure("rows_per_s", of(|p| p.rows_per_s), "rows/s")?;
        let ratios = runs.iter().map(|(_, ratio)| *ratio);
        figure("ratio", median(ratios.collect()), "ratio")?;
        figure("cpu_us", of(|p| p.cpu_us), "us")?;
        figure("rss_mib", of(|p| p.rss_mib), "MiB")?;
    }
    Ok(())
}

/// The same daemon, turn by turn quiet and reconciling again and again.
fn latency(world: &mut World, loaded: &Loaded) -> Result<()> {
    note("latency: 200 changes a second, without a reconciliation and beside one");
    let kafka = KafkaTarget {
        bootstrap: world.kafka()?.bootstrap(),
        name: "latency_reconcile".to_owned(),
        delivery: "exactly_once",
    };
    let daemon = loaded.start(&world.rollcall, Some(&kafka))?;
    daemon.until_streaming(RUN_LIMIT)?;
    daemon.until_delivered(&loaded.server.head()?, RUN_LIMIT)?;
    let length = Duration::from_secs(world.scaled(STEADY_SECONDS));
    let everybody = Trickle {
        per_second: 200,
        first: 1,
        users: loaded.rows,
    };
    let mut changes = Steady::new(&loaded.server, &kafka, everybody)?;
    changes.run(WARM_UP)?;
    let (mut quiet, mut beside, mut ratios) = (vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        let alone = sorted_ms(&changes.run(length)?, |_| true);
        let is_over = AtomicBool::new(false);
        let (arrived, runs) = std::thread::scope(|scope| -> Result<_> {
            let reconciling = scope.spawn(|| reconcile_until(&daemon, &is_over));
            let arrived = changes.run(length);
            is_over.store(true, Ordering::Relaxed);
            let runs = reconciling.join().map_err(|_| "the thread panicked")??;
            Ok((arrived?, runs))
        })?;
        let with = sorted_ms(&arrived, |sent| {
            runs.iter().any(|(from, to)| (*from..*to).contains(&sent))
        });
        let (alone, with) = (percentile(&alone, 0.99), percentile(&with, 0.99));
        note(&format!(
            "round {round}: p99 {alone:.1} ms, and {with:.1} ms beside {} reconciliations",
            runs.len()
        ));
        quiet.push(alone);
        beside.push(with);
        ratios.push(with / alone);
    }
    let used = daemon.stat()?;
    daemon.stop()?;
    let report = &mut world.report;
    let mut figure = |end: &str, value, unit| report.figure(&format!("latency_{end}"), value, unit);
    figure("without_reconcile_p99_ms", median(quiet), "ms")?;
    figure("during_reconcile_p99_ms", median(beside), "ms")?;
    figure("during_reconcile_ratio", median(ratios), "ratio")?;
    figure("during_reconcile_cpu_s", used.cpu_seconds, "s")?;
    let rss_mib = used.peak_rss_kib as f64 / 1024.0;
    figure("during_reconcile_rss_mib", rss_mib, "MiB")
}

/// Reconciles again and again; gives from when to when each did.
fn reconcile_until(daemon: &Daemon, is_over: &AtomicBool) -> Result<Vec<(Instant, Instant)>> {
    let mut runs = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let run = daemon.reconcile(RUN_LIMIT)?;
        if run.outcome != "completed" {
            return Err(format!("a reconciliation ended: {}", run.outcome).into());
        }
        runs.push((began, Instant::now()));
    }
    Ok(runs)
}
