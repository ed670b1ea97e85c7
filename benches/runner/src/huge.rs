//! One huge transaction through the whole way to Kafka: peak memory.
//!
//! Rows of about 8 kB (a column that nothing maps), so that it is the bytes that would fill
//! the memory of a reader that kept a transaction whole: 10 GB in PostgreSQL's log, 1 GB in
//! MySQL's, which compresses it into a single event.

use std::time::Duration;

use rollcall_testbed::{MySqlVersion, ProcStat, wait_for};

use crate::configuration::{KafkaTarget, write_config};
use crate::daemon::Daemon;
use crate::database::{self, Database};
use crate::employees;
use crate::world::World;
use crate::{Result, note};

const ROW_BYTES: u64 = 7_900;
const LIMIT: Duration = Duration::from_secs(1800);

/// What a daemon has used that took in the transaction which `insert` makes: as many people
/// as `rows`. What else must follow once its end is stored, `is_over` waits for.
fn take_in(
    world: &World,
    server: &dyn Database,
    name: &str,
    rows: u64,
    insert: impl FnOnce() -> Result<()>,
    is_over: impl FnOnce(&str) -> Result<()>,
) -> Result<ProcStat> {
    let kafka = KafkaTarget {
        bootstrap: world.kafka()?.bootstrap(),
        name: name.to_owned(),
        delivery: "exactly_once",
    };
    let folder = world.folder(name)?;
    let store = folder.join("store");
    let config = write_config(&folder, server, &store, name, Some(&kafka))?;
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(Duration::from_secs(60))?;
    insert()?;
    let end = server.head()?;
    let status = daemon.until_delivered(&end, LIMIT)?;
    let used = daemon.stat()?;
    if status.users != rows {
        return Err(format!("{} of {rows} rows are users", status.users).into());
    }
    is_over(&end)?;
    daemon.stop()?;
    Ok(used)
}

/// Of PostgreSQL.
pub(crate) fn postgres(world: &mut World, gib: f64) -> Result<()> {
    let bytes = (gib * f64::from(1 << 30)) as u64 / world.divisor();
    let rows = bytes / ROW_BYTES;
    note(&format!(
        "huge: one transaction of {} MiB; the server needs about three times that on disk",
        bytes >> 20
    ));
    let server = database::postgres().start()?;
    employees::create(&server)?;
    server.run(
        "ALTER TABLE employees ADD notes text; ALTER TABLE employees ALTER notes SET STORAGE PLAIN",
    )?;
    let insert = || {
        server.run(&format!(
            "INSERT INTO employees (id, email, first_name, last_name, status, notes)
             SELECT g, 'user.' || g || '@example.com', 'Anna', 'Bakker', 'active',
                    repeat(md5(g::text), {ROW_BYTES} / 32)
             FROM generate_series(1, {rows}) AS n(g)"
        ))?;
        Ok(())
    };
    // The slot must follow, or the server would keep the log of it.
    let is_confirmed = |end: &str| {
        wait_for(Duration::from_secs(30), "the slot to be confirmed", || {
            let sql = format!(
                "SELECT confirmed_flush_lsn < '{end}' FROM pg_replication_slots \
                 WHERE slot_name = 'huge'"
            );
            match server.run(&sql).map_err(|e| e.to_string())?.as_str() {
                "f" => Ok(()),
                _ => Err("it is behind".to_owned()),
            }
        })?;
        Ok(())
    };
    let used = take_in(world, &server, "huge", rows, insert, is_confirmed)?;
    let report = &mut world.report;
    report.figure("pg_huge_tx_gib", bytes as f64 / f64::from(1 << 30), "GiB")?;
    report.figure(
        "pg_huge_tx_rss_mib",
        used.peak_rss_kib as f64 / 1024.0,
        "MiB",
    )
}

/// Of MySQL: 1 GB that compresses to a tenth or less, as text with a good deal of
/// repetition does. The server sends it as one event.
pub(crate) fn compressed(world: &mut World) -> Result<()> {
    const PIECES: u64 = 8;
    /// Hexadecimal digits of SHA-512.
    const PIECE_BYTES: u64 = 128;
    const REPEATED: u64 = 8;
    let rows = (1 << 30) / (PIECES * PIECE_BYTES * REPEATED) / world.divisor();
    note("compressed: one transaction of 1 GB, compressed by MySQL");
    let server = database::mysql(MySqlVersion::MySql9)
        .setting("binlog_transaction_compression", "ON")
        .start()?;
    employees::create(&server)?;
    server.run("ALTER TABLE employees ADD notes text")?;
    let pieces: Vec<String> = (0..PIECES)
        .map(|piece| format!("sha2(concat(g, '.', {piece}), 512)"))
        .collect();
    let logged = || -> Result<u64> { Ok(server.current_binlog()?.size_bytes) };
    let before = logged()?;
    let insert = || {
        server.run(&format!(
            "SET cte_max_recursion_depth = {rows};
             INSERT INTO employees (id, email, first_name, last_name, status, notes)
             WITH RECURSIVE n (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < {rows})
             SELECT g, concat('user.', g, '@example.com'), 'Anna', 'Bakker', 'active',
                    repeat(concat({}), {REPEATED})
             FROM n",
            pieces.join(", ")
        ))?;
        Ok(())
    };
    let used = take_in(world, &server, "compressed", rows, insert, |_| Ok(()))?;
    let event = logged()? - before;
    let report = &mut world.report;
    report.figure(
        "mysql_compressed_1gb_event_mib",
        event as f64 / f64::from(1 << 20),
        "MiB",
    )?;
    report.figure(
        "mysql_compressed_1gb_rss_mib",
        used.peak_rss_kib as f64 / 1024.0,
        "MiB",
    )
}
