//! The connector's reader alone, in a process of its own: socket to batches, dropped.
//!
//! The child takes the way that the daemon takes: the replication client, the decoder and
//! the stream with its acknowledgements, on a runtime of the same size. It counts changes and
//! its own allocations and prints what it has used as one line of JSON. What happens before
//! the log is asked for (connecting, reading the table's definition) counts in time and CPU,
//! as it does for `pg_recvlogical`; for allocations, counting begins with the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_contract::{Acknowledge, ChangeStream, Source, StreamItem, TableName};
use rollcall_postgres::config::PostgresConfig;
use rollcall_postgres::decode::{DecoderOptions, Followed};
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::stream::StreamOptions;
use rollcall_postgres::wire::{ReplicationClient, connect_queries};
use rollcall_postgres::{PostgresSource, TypeMap};
use rollcall_testbed::{Postgres, ProcStat, Process};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::allocator::allocations;
use crate::employees::{DATABASE, PUBLICATION, ROLE};
use crate::limit::Pace;

/// The log is silent for longer than this: it will not come to its end.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What the child is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's port on the loopback.
    #[arg(long)]
    port: u16,
    /// The slot to read.
    #[arg(long)]
    slot: String,
    /// Where the slot stands.
    #[arg(long)]
    from: String,
    /// Ends when this position is passed.
    #[arg(long)]
    until: String,
}

/// What the child prints.
#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    changes: u64,
    batches: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_kib: u64,
    allocations: u64,
}

/// What a reader reached.
pub(crate) struct Outcome {
    pub(crate) pace: Pace,
    pub(crate) allocations_per_change: f64,
}

/// Reads a slot to a position in a child, which must bring as many changes as were made.
pub(crate) fn measure(
    server: &Postgres,
    slot: &str,
    (from, until): (&str, &str),
    rows: u64,
    limit: Duration,
) -> Result<Outcome> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .args(["reader", "--port", &server.port().to_string()])
        .args(["--slot", slot, "--from", from, "--until", until]);
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
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let reading = runtime.block_on(read(args))?;
    println!("{}", serde_json::to_string(&reading)?);
    Ok(())
}

async fn read(args: &Args) -> Result<Reading> {
    let began = Instant::now();
    let table = TableName::new("public", "employees");
    let mut config = PostgresConfig::new("127.0.0.1", DATABASE, ROLE, table);
    config.port = args.port;
    config.slot.clone_from(&args.slot);
    config.publication = PUBLICATION.to_owned();
    let until: Lsn = args
        .until
        .parse()
        .map_err(|_| format!("{:?} is not a position", args.until))?;
    let from: Lsn = args
        .from
        .parse()
        .map_err(|_| format!("{:?} is not a position", args.from))?;

    let decoder = decoder(&config, from).await?;
    let mut client = ReplicationClient::connect(&config).await?;
    let options = StreamOptions {
        wal_sender_timeout: client.wal_sender_timeout().await?,
        ..StreamOptions::default()
    };
    let (mut stream, acknowledge) = client
        .start(&config.slot, &config.publication, decoder, options)
        .await?;

    let allocated = allocations();
    let (mut changes, mut batches) = (0, 0);
    loop {
        let item = tokio::time::timeout(SILENCE_LIMIT, stream.next())
            .await
            .map_err(|_| format!("no more of the log after {changes} changes"))??;
        let cursor = match item {
            StreamItem::Batch(batch) => {
                changes += batch.len() as u64;
                batches += 1;
                batch.cursor().clone()
            }
            StreamItem::Progress(cursor) => cursor,
            StreamItem::SchemaChanged(_) => continue,
            StreamItem::Gap(gap) => return Err(format!("a gap: {}", gap.detail).into()),
        };
        acknowledge.acknowledge(&cursor);
        if PgCursor::decode(&cursor)?.commit_end > until {
            break;
        }
    }
    let allocations = allocations() - allocated;
    let stat = ProcStat::of(std::process::id())?;
    let reading = Reading {
        changes,
        batches,
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: stat.cpu_seconds,
        peak_rss_kib: stat.peak_rss_kib,
        allocations,
    };
    Box::new(stream).close().await;
    Ok(reading)
}

/// What the decoder has to know of the table, asked of the server.
async fn decoder(config: &PostgresConfig, from: Lsn) -> Result<DecoderOptions> {
    let schema = PostgresSource::new(config.clone()).schema().await?;
    let client = connect_queries(config).await?;
    let columns = client
        .query(
            "SELECT a.atttypid, c.oid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.oid = 'public.employees'::regclass AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY a.attnum",
            &[],
        )
        .await?;
    let server = client
        .query_one(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, s.system_identifier,
                    c.timeline_id
             FROM pg_control_system() s, pg_control_checkpoint() c",
            &[],
        )
        .await?;
    let next_xid: &str = server.get(0);
    Ok(DecoderOptions {
        start: PgCursor {
            system_id: server.get::<_, i64>(1).cast_unsigned(),
            timeline: server.get::<_, i32>(2).cast_unsigned(),
            commit_end: from,
            inside: None,
        },
        followed: Followed {
            schema,
            type_oids: columns.iter().map(|row| row.get(0)).collect(),
            table_oid: columns.first().map(|row| row.get(1)),
        },
        key: None,
        types: Arc::new(TypeMap::default()),
        xid_reference: Xid(next_xid.parse()?),
        caps: config.caps,
    })
}
