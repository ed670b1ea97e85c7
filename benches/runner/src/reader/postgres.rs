//! The reader of PostgreSQL's log.

use std::sync::Arc;
use std::time::Duration;

use rollcall_contract::{Source, TableName, TableNo};
use rollcall_postgres::config::PostgresConfig;
use rollcall_postgres::decode::{DecoderOptions, Followed};
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::stream::StreamOptions;
use rollcall_postgres::wire::{ReplicationClient, connect_queries};
use rollcall_postgres::{PostgresSource, TypeMap};
use rollcall_testbed::Postgres;

use super::{Outcome, Reading, drain};
use crate::Result;
use crate::database::{DATABASE, PUBLICATION, ROLE};

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

/// Reads a slot to a position.
pub(crate) fn measure(
    server: &Postgres,
    slot: &str,
    (from, until): (&str, &str),
    rows: u64,
    limit: Duration,
) -> Result<Outcome> {
    let port = server.port().to_string();
    let args = [
        "postgres", "--port", &port, "--slot", slot, "--from", from, "--until", until,
    ];
    super::measure(&args, rows, limit)
}

pub(super) async fn read(args: &Args) -> Result<Reading> {
    let table = TableName::new("public", "employees");
    let mut config = PostgresConfig::new("127.0.0.1", DATABASE, ROLE, table);
    config.port = args.port;
    config.slot.clone_from(&args.slot);
    config.publication = PUBLICATION.to_owned();
    let position = |text: &str| -> Result<Lsn> {
        let parsed = text.parse();
        parsed.map_err(|_| format!("{text:?} is not a position").into())
    };
    let (from, until) = (position(&args.from)?, position(&args.until)?);

    let decoder = decoder(&config, from).await?;
    let mut client = ReplicationClient::connect(&config).await?;
    let options = StreamOptions {
        wal_sender_timeout: client.wal_sender_timeout().await?,
        ..StreamOptions::default()
    };
    let (stream, acknowledge) = client
        .start(&config.slot, &config.publication, decoder, options)
        .await?;
    drain(Box::new(stream), acknowledge.as_ref(), |cursor| {
        Ok(PgCursor::decode(cursor)?.commit_end > until)
    })
    .await
}

/// What the decoder has to know of the table, asked of the server.
async fn decoder(config: &PostgresConfig, from: Lsn) -> Result<DecoderOptions> {
    let schema = PostgresSource::new(config.clone())
        .schema(TableNo::MAIN)
        .await?;
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
        followed: vec![Followed {
            schema,
            type_oids: columns.iter().map(|row| row.get(0)).collect(),
            table_oid: columns.first().map(|row| row.get(1)),
            key: None,
        }],
        types: Arc::new(TypeMap::default()),
        xid_reference: Xid(next_xid.parse()?),
        caps: config.caps,
    })
}
