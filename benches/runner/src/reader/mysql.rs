//! The reader of MySQL's and MariaDB's log.

use std::time::Duration;

use rollcall_contract::{Cursor, Lineage, Source, TableName};
use rollcall_mysql::{Flavour, MySqlConfig, MySqlSource};
use rollcall_testbed::MySql;
use serde::{Deserialize, Serialize};

use super::{Outcome, Reading, drain};
use crate::Result;
use crate::database::{DATABASE, ROLE};

/// What the child is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's port on the loopback.
    #[arg(long)]
    port: u16,
    /// A MariaDB, not a MySQL.
    #[arg(long)]
    mariadb: bool,
    /// Where to begin, as [`here`] gives it.
    #[arg(long)]
    from: String,
    /// Ends at this position.
    #[arg(long)]
    until: String,
}

/// What a daemon stores of a source.
#[derive(Serialize, Deserialize)]
struct Start {
    cursor: Vec<u8>,
    lineage: Lineage,
}

fn source(port: u16, is_mariadb: bool) -> MySqlSource {
    let flavour = match is_mariadb {
        true => Flavour::MariaDb,
        false => Flavour::MySql,
    };
    let table = TableName::new(DATABASE, "employees");
    let mut config = MySqlConfig::new(flavour, "127.0.0.1", ROLE, table);
    config.port = port;
    // None of the daemon's, so that neither takes the log from the other.
    config.name = "reader".to_owned();
    MySqlSource::new(config)
}

/// Where the log stands now, for `--from`.
pub(crate) fn here(server: &MySql) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let opened = source(server.port(), server.version().is_mariadb())
            .open(None)
            .await?;
        opened.stream.close().await;
        let start = Start {
            cursor: opened.start.as_bytes().to_vec(),
            lineage: opened.lineage,
        };
        Ok(serde_json::to_string(&start)?)
    })
}

/// Reads the log from a position to another.
pub(crate) fn measure(
    server: &MySql,
    (from, until): (&str, &str),
    rows: u64,
    limit: Duration,
) -> Result<Outcome> {
    let port = server.port().to_string();
    let mut args = vec!["mysql", "--port", &port, "--from", from, "--until", until];
    if server.version().is_mariadb() {
        args.push("--mariadb");
    }
    super::measure(&args, rows, limit)
}

pub(super) async fn read(args: &Args) -> Result<Reading> {
    let start: Start = serde_json::from_str(&args.from)?;
    let cursor = Cursor::new(&start.cursor, "");
    let opened = source(args.port, args.mariadb)
        .open(Some((cursor, start.lineage)))
        .await?;
    if let Some(gap) = opened.gaps.first() {
        return Err(format!("a gap: {}", gap.detail).into());
    }
    drain(opened.stream, opened.acknowledge.as_ref(), |cursor| {
        Ok(cursor.text() == args.until)
    })
    .await
}
