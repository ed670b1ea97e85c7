//! The connectors' readers alone, each in a process of its own: socket to batches, dropped.
//!
//! The child takes the way that the daemon takes: the client, the decoder and the stream
//! with its acknowledgements, on a runtime of the same size. It counts changes and its own
//! allocations and prints what it has used as one line of JSON. What happens before the log
//! is asked for (connecting, reading the table's definition) counts in time and CPU, as it
//! does for the servers' own tools; for allocations, counting begins with the log.

pub(crate) mod file;
pub(crate) mod mysql;
pub(crate) mod postgres;

use std::process::Command;
use std::time::{Duration, Instant};

use rollcall_contract::{Acknowledge, ChangeStream, ConnectorError, Cursor, StreamItem};
use rollcall_testbed::{ProcStat, Process};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::allocator::allocations;
use crate::limit::Pace;

/// The log is silent for longer than this: it will not come to its end.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What the runner starts as a child.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Child {
    /// The reader of PostgreSQL.
    Postgres(postgres::Args),
    /// The reader of MySQL and MariaDB.
    Mysql(mysql::Args),
    /// The decoder of binary logs, over a file.
    File(file::Args),
}

/// What the child prints.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Reading {
    changes: u64,
    cpu_seconds: f64,
    peak_rss_kib: u64,
    allocations: u64,
}

/// What a reader reached.
pub(crate) struct Outcome {
    pub(crate) pace: Pace,
    pub(crate) allocations_per_change: f64,
}

/// Runs a reader as a child, which must bring as many changes as were made.
fn measure(args: &[&str], rows: u64, limit: Duration) -> Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("reader").args(args);
    let began = Instant::now();
    let process = Process::spawn(command)?;
    let status = process.wait_timeout(limit)?;
    let took = began.elapsed();
    if !status.success() {
        return Err(format!("the reader ended with {status}:\n{}", process.log()).into());
    }
    let reading: Reading = serde_json::from_str(&process.stdout())?;
    if reading.changes != rows {
        return Err(format!("the reader saw {} of {rows} changes", reading.changes).into());
    }
    let used = ProcStat {
        cpu_seconds: reading.cpu_seconds,
        peak_rss_kib: reading.peak_rss_kib,
        rss_kib: 0,
    };
    Ok(Outcome {
        pace: Pace::new(rows, took, used),
        allocations_per_change: reading.allocations as f64 / rows as f64,
    })
}

/// The child.
pub(crate) fn run(child: &Child) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut reading = match child {
        Child::Postgres(args) => runtime.block_on(postgres::read(args))?,
        Child::Mysql(args) => runtime.block_on(mysql::read(args))?,
        Child::File(args) => file::read(args)?,
    };
    let stat = ProcStat::of(std::process::id())?;
    reading.cpu_seconds = stat.cpu_seconds;
    reading.peak_rss_kib = stat.peak_rss_kib;
    println!("{}", serde_json::to_string(&reading)?);
    Ok(())
}

/// Takes in a log, and drops it, until a cursor is the last one.
async fn drain(
    mut stream: Box<dyn ChangeStream>,
    acknowledge: &dyn Acknowledge,
    is_last: impl Fn(&Cursor) -> Result<bool, ConnectorError>,
) -> Result<Reading> {
    let before = allocations();
    let mut changes = 0;
    loop {
        let item = tokio::time::timeout(SILENCE_LIMIT, stream.next())
            .await
            .map_err(|_| format!("no more of the log after {changes} changes"))??;
        let cursor = match item {
            StreamItem::Batch(batch) => {
                changes += batch.len() as u64;
                batch.cursor().clone()
            }
            StreamItem::Progress(cursor) => cursor,
            StreamItem::SchemaChanged(..) => continue,
            StreamItem::Gap(gap) => return Err(format!("a gap: {}", gap.detail).into()),
        };
        acknowledge.acknowledge(&cursor);
        if is_last(&cursor)? {
            break;
        }
    }
    let allocations = allocations() - before;
    stream.close().await;
    Ok(Reading {
        changes,
        allocations,
        ..Reading::default()
    })
}
