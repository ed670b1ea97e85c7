//! The initial load of a million rows, beside `COPY` of the same table.
//!
//! The time runs from the start of the daemon's process until the source streams: connecting,
//! making the slot, every page and its window, and the end of the scan are all in it. There
//! is no sink, and nothing else happens on the server.

use std::time::Duration;

use crate::daemon::Daemon;
use crate::employees::{self, DATABASE, write_config};
use crate::limit::{Pace, copy_in_server, copy_to_client};
use crate::report::median;
use crate::world::World;
use crate::{Result, note};

const ROUNDS: usize = 3;
const RUN_LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(world: &mut World) -> Result<()> {
    let rows = world.scaled(1_000_000);
    note("load: a server with 1,000,000 rows");
    let server = employees::server().start()?;
    employees::create(&server)?;
    employees::insert(&server, 1, rows)?;
    server.psql(DATABASE, "VACUUM ANALYZE employees")?;
    server.checkpoint()?;
    let folder = world.folder("load")?;
    let (mut ratios, mut loads, mut copies, mut clients) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        let copy = copy_in_server(&server, rows)?;
        let client = copy_to_client(&server, rows, RUN_LIMIT)?;
        let slot = format!("load_{round}");
        let store = folder.join(&slot);
        let config = write_config(&folder, &server, &store, &slot, None)?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        let status = daemon.until_streaming(RUN_LIMIT)?;
        let pace = Pace::new(rows, daemon.started.elapsed(), daemon.stat()?);
        if status.users != rows {
            return Err(format!("{} of {rows} rows are users", status.users).into());
        }
        daemon.stop()?;
        std::fs::remove_dir_all(&store)?;
        note(&format!(
            "round {round}: COPY {copy:.0} rows/s (to a client {client:.0}), load {:.0} ({:.1} us, {:.0} MiB)",
            pace.rows_per_s, pace.cpu_us, pace.rss_mib
        ));
        ratios.push(pace.rows_per_s / copy);
        loads.push(pace);
        copies.push(copy);
        clients.push(client);
    }
    let of = |of: fn(&Pace) -> f64| median(loads.iter().map(of).collect());
    let report = &mut world.report;
    report.figure("copy_rows_per_s", median(copies), "rows/s")?;
    report.figure("copy_to_client_rows_per_s", median(clients), "rows/s")?;
    report.figure("pg_load_rows_per_s", of(|p| p.rows_per_s), "rows/s")?;
    report.figure("pg_load_ratio", median(ratios), "ratio")?;
    report.figure("pg_load_cpu_us", of(|p| p.cpu_us), "us")?;
    report.figure("pg_load_rss_mib", of(|p| p.rss_mib), "MiB")?;
    Ok(())
}
