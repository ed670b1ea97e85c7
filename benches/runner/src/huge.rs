//! One transaction of 10 GB through the whole way to Kafka: peak memory.
//!
//! Rows of about 8 kB (a column that nothing maps, stored in the row as it is), so
//! that it is the bytes that would fill the memory of a reader that kept a transaction whole.

use std::time::Duration;

use rollcall_testbed::wait_for;

use crate::daemon::Daemon;
use crate::employees::{self, DATABASE, KafkaTarget, write_config};
use crate::world::World;
use crate::{Result, note};

const ROW_BYTES: u64 = 7_900;
const LIMIT: Duration = Duration::from_secs(1800);

pub(crate) fn run(world: &mut World, gib: f64) -> Result<()> {
    let bytes = (gib * f64::from(1 << 30)) as u64 / world.divisor();
    let rows = bytes / ROW_BYTES;
    note(&format!(
        "huge: one transaction of {} MiB; the server needs about three times that on disk",
        bytes >> 20
    ));
    let kafka = KafkaTarget {
        bootstrap: world.kafka()?.bootstrap(),
        name: "huge".to_owned(),
        delivery: "exactly_once",
    };
    let server = employees::server().start()?;
    employees::create(&server)?;
    server.psql(
        DATABASE,
        "ALTER TABLE employees ADD notes text; ALTER TABLE employees ALTER notes SET STORAGE PLAIN",
    )?;
    let folder = world.folder("huge")?;
    let store = folder.join("store");
    let config = write_config(&folder, &server, &store, "huge", Some(&kafka))?;
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(Duration::from_secs(60))?;
    server.psql(
        DATABASE,
        &format!(
            "INSERT INTO employees (id, email, first_name, last_name, status, notes)
             SELECT g, 'user.' || g || '@example.com', 'Anna', 'Bakker', 'active',
                    repeat(md5(g::text), {ROW_BYTES} / 32)
             FROM generate_series(1, {rows}) AS n(g)"
        ),
    )?;
    let end = employees::head(&server)?;
    let status = daemon.until_delivered(&end, LIMIT)?;
    let used = daemon.stat()?;
    if status.users != rows {
        return Err(format!("{} of {rows} rows are users", status.users).into());
    }
    // The slot must follow, or the server would keep the log of it.
    wait_for(Duration::from_secs(30), "the slot to be confirmed", || {
        let is_behind = server
            .psql(
                DATABASE,
                &format!(
                    "SELECT confirmed_flush_lsn < '{end}' FROM pg_replication_slots \
                     WHERE slot_name = 'huge'"
                ),
            )
            .map_err(|e| e.to_string())?;
        if is_behind == "f" {
            Ok(())
        } else {
            Err("it is behind".to_owned())
        }
    })?;
    daemon.stop()?;
    let report = &mut world.report;
    report.figure("pg_huge_tx_gib", bytes as f64 / f64::from(1 << 30), "GiB")?;
    report.figure(
        "pg_huge_tx_rss_mib",
        used.peak_rss_kib as f64 / 1024.0,
        "MiB",
    )
}
