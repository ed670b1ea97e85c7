//! The initial load of a million rows, beside what the server's own tools take for the same
//! table.
//!
//! The time runs from the start of the daemon's process until the source streams: connecting,
//! making the slot, every page and its window, and the end of the scan are all in it. There
//! is no sink, and nothing else happens on the server.

use std::time::Duration;

use rollcall_testbed::MySqlVersion;

use crate::configuration::write_config;
use crate::daemon::Daemon;
use crate::database::{self, Database};
use crate::employees;
use crate::limit::{Pace, copy_in_server, copy_to_client, select_to_client};
use crate::report::median;
use crate::world::World;
use crate::{Result, note};

const ROUNDS: usize = 3;
const ROWS: u64 = 1_000_000;
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// A tool that reads the table: the name of its figure, and its rows per second. The load is
/// set beside the first.
type Limit<'a> = (&'static str, &'a dyn Fn() -> Result<f64>);

pub(crate) fn postgres(world: &mut World) -> Result<()> {
    let rows = world.scaled(ROWS);
    note("load: a PostgreSQL with 1,000,000 rows");
    let server = database::postgres().start()?;
    fill(&server, rows)?;
    server.checkpoint()?;
    let copy = || copy_in_server(&server, rows);
    let client = || copy_to_client(&server, rows, RUN_LIMIT);
    let limits: [Limit<'_>; 2] = [
        ("copy_rows_per_s", &copy),
        ("copy_to_client_rows_per_s", &client),
    ];
    measure(world, &server, rows, "pg_load", &limits)
}

pub(crate) fn mysql(world: &mut World) -> Result<()> {
    let rows = world.scaled(ROWS);
    note("load: a MySQL with 1,000,000 rows");
    let server = database::mysql(MySqlVersion::MySql9).start()?;
    fill(&server, rows)?;
    let select = || select_to_client(&server, rows, RUN_LIMIT);
    let limits: [Limit<'_>; 1] = [("mysql_select_rows_per_s", &select)];
    measure(world, &server, rows, "mysql_load", &limits)
}

fn fill(server: &dyn Database, rows: u64) -> Result<()> {
    employees::create(server)?;
    employees::insert(server, 1, rows)?;
    server.analyze()
}

fn measure(
    world: &mut World,
    server: &dyn Database,
    rows: u64,
    name: &str,
    limits: &[Limit<'_>],
) -> Result<()> {
    let folder = world.folder(name)?;
    let (mut ratios, mut loads) = (vec![], vec![]);
    let mut reached = vec![vec![]; limits.len()];
    for round in 1..=ROUNDS {
        let mut line = format!("round {round}:");
        for ((name, limit), reached) in limits.iter().zip(&mut reached) {
            let rows_per_s = limit()?;
            line += &format!(" {name} {rows_per_s:.0},");
            reached.push(rows_per_s);
        }
        let run = format!("{name}_{round}");
        let store = folder.join(&run);
        let config = write_config(&folder, server, &store, &run, None)?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        let status = daemon.until_streaming(RUN_LIMIT)?;
        let pace = Pace::new(rows, daemon.started.elapsed(), daemon.stat()?);
        if status.users != rows {
            return Err(format!("{} of {rows} rows are users", status.users).into());
        }
        daemon.stop()?;
        std::fs::remove_dir_all(&store)?;
        note(&format!(
            "{line} load {:.0} ({:.1} us, {:.0} MiB)",
            pace.rows_per_s, pace.cpu_us, pace.rss_mib
        ));
        let limit = reached.first().and_then(|of| of.last());
        ratios.push(pace.rows_per_s / limit.copied().unwrap_or(f64::NAN));
        loads.push(pace);
    }
    let of = |of: fn(&Pace) -> f64| median(loads.iter().map(of).collect());
    let report = &mut world.report;
    for ((name, _), reached) in limits.iter().zip(reached) {
        report.figure(name, median(reached), "rows/s")?;
    }
    let mut figure = |end: &str, value, unit| report.figure(&format!("{name}_{end}"), value, unit);
    figure("rows_per_s", of(|p| p.rows_per_s), "rows/s")?;
    figure("ratio", median(ratios), "ratio")?;
    figure("cpu_us", of(|p| p.cpu_us), "us")?;
    figure("rss_mib", of(|p| p.rss_mib), "MiB")
}
