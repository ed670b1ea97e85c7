//! What the tests of the wire share: a server with a table, and its log.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rollcall_contract::{
    Batch, BatchCaps, Before, Cell, Change, ChangeStream, Column, Cursor, Row, StreamItem,
    TableName, TableSchema,
};
use rollcall_postgres::config::PostgresConfig;
use rollcall_postgres::decode::{DecoderOptions, Followed};
use rollcall_postgres::errors::PgError;
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::stream::{PgAcknowledge, PgStream, StreamOptions};
use rollcall_postgres::types::{Form, ResolvedType};
use rollcall_postgres::wire::{ReplicationClient, SlotOptions, SlotSnapshot};
use rollcall_testbed::{PgVersion, Postgres};

pub(crate) const VERSIONS: [PgVersion; 2] = [PgVersion::Debian, PgVersion::V18];
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server with a table `public.people` in a publication.
pub(crate) fn with_table(version: PgVersion, columns: &str) -> Postgres {
    let db = Postgres::builder().version(version).start().unwrap();
    db.psql(
        "postgres",
        &format!(
            "CREATE TABLE people ({columns});
             CREATE PUBLICATION rollcall FOR TABLE people WITH (publish_via_partition_root = true);"
        ),
    )
    .unwrap();
    db
}

pub(crate) fn config(db: &Postgres) -> PostgresConfig {
    let table = TableName::new("public", "people");
    let mut config = PostgresConfig::new(
        &db.socket_dir().display().to_string(),
        "postgres",
        db.superuser(),
        table,
    );
    config.port = db.port();
    config
}

pub(crate) const SLOT: SlotOptions = SlotOptions {
    snapshot: SlotSnapshot::Nothing,
    failover: false,
    temporary: false,
};

/// Creates the slot, and gives the cursor from which everything is new.
pub(crate) async fn create_slot(config: &PostgresConfig) -> PgCursor {
    let mut client = ReplicationClient::connect(config).await.unwrap();
    let system = client.identify_system().await.unwrap();
    let slot = client.create_slot(&config.slot, SLOT).await.unwrap();
    PgCursor {
        system_id: system.system_id,
        timeline: system.timeline,
        commit_end: slot.consistent_point,
        inside: None,
    }
}

/// The table as the catalog describes it now.
pub(crate) fn followed(db: &Postgres) -> Followed {
    let rows = db
        .psql(
            "postgres",
            "SELECT a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attnotnull, c.oid,
                    coalesce(i.indisprimary, false)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY(i.indkey)
             WHERE c.oid = 'people'::regclass AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = ''
             ORDER BY a.attnum",
        )
        .unwrap();
    let (mut columns, mut type_oids, mut key, mut table_oid) = (vec![], vec![], vec![], None);
    for (i, line) in rows.lines().enumerate() {
        let f: Vec<&str> = line.split('|').collect();
        let type_oid = f[1].parse().unwrap();
        columns.push(Column {
            name: f[0].to_owned(),
            class: Form::of(type_oid, &no_types()).class(),
            type_name: f[2].to_owned(),
            nullable: f[3] == "f",
        });
        type_oids.push(type_oid);
        table_oid = f[4].parse().ok();
        if f[5] == "t" {
            key.push(i);
        }
    }
    if key.is_empty() {
        key.push(0);
    }
    Followed {
        schema: Arc::new(TableSchema {
            table: TableName::new("public", "people"),
            columns,
            key,
        }),
        type_oids,
        table_oid,
        key: None,
    }
}

pub(crate) fn no_types() -> HashMap<u32, ResolvedType> {
    HashMap::new()
}

pub(crate) struct Log {
    pub(crate) stream: PgStream,
    pub(crate) acknowledge: Arc<PgAcknowledge>,
}

pub(crate) async fn try_open(
    db: &Postgres,
    config: &PostgresConfig,
    start: PgCursor,
    caps: BatchCaps,
) -> Result<Log, PgError> {
    let mut client = ReplicationClient::connect(config).await?;
    let options = StreamOptions {
        wal_sender_timeout: client.wal_sender_timeout().await?,
        skip_replicated: config.skip_replicated,
        ..StreamOptions::default()
    };
    let xid = db
        .psql("postgres", "SELECT pg_snapshot_xmax(pg_current_snapshot())")
        .unwrap();
    let decoder = DecoderOptions {
        start,
        followed: vec![Followed {
            key: config.key.clone(),
            ..followed(db)
        }],
        types: Arc::new(no_types()),
        xid_reference: Xid(xid.parse().unwrap()),
        caps,
    };
    let (stream, acknowledge) = client
        .start(&config.slot, &config.publication, decoder, options)
        .await?;
    Ok(Log {
        stream,
        acknowledge,
    })
}

pub(crate) async fn open(db: &Postgres, config: &PostgresConfig, start: PgCursor) -> Log {
    try_open(db, config, start, BatchCaps::default())
        .await
        .unwrap()
}

impl Log {
    pub(crate) async fn next(&mut self) -> StreamItem {
        tokio::time::timeout(PATIENCE, self.stream.next())
            .await
            .expect("the log stays silent")
            .unwrap()
    }

    /// The next batch; progress on the way is passed over.
    pub(crate) async fn batch(&mut self) -> Batch {
        loop {
            match self.next().await {
                StreamItem::Batch(batch) => return batch,
                StreamItem::Progress(_) => {}
                other => panic!("{other:?} instead of a batch"),
            }
        }
    }

    /// So many changes, readable, and the cursor behind them.
    pub(crate) async fn changes(&mut self, count: usize) -> (Vec<String>, Cursor) {
        let mut seen = Vec::new();
        loop {
            let batch = self.batch().await;
            seen.extend(batch.changes().map(|c| show(&c)));
            if seen.len() >= count {
                return (seen, batch.cursor().clone());
            }
        }
    }

    pub(crate) async fn close(self) {
        Box::new(self.stream).close().await;
    }
}

pub(crate) fn show(change: &Change<'_>) -> String {
    let before = match change.before() {
        Before::None => String::new(),
        Before::Key(row) => format!(" key({})", show_row(row)),
        Before::Full(row) => format!(" old({})", show_row(row)),
    };
    let after = change
        .after()
        .map_or(String::new(), |row| format!(" new({})", show_row(row)));
    format!("{:?}#{}{before}{after}", change.op(), change.ordinal())
}

pub(crate) fn show_row(row: Row<'_>) -> String {
    row.cells()
        .map(|cell| match cell {
            Cell::Null => "null".to_owned(),
            Cell::Missing => "missing".to_owned(),
            Cell::Unchanged => "unchanged".to_owned(),
            Cell::Value(v) if v.len() > 100 => format!("<{}>", v.len()),
            Cell::Value(v) => String::from_utf8_lossy(v).into_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn slot_lsn(db: &Postgres, column: &str) -> Lsn {
    db.psql(
        "postgres",
        &format!("SELECT {column} FROM pg_replication_slots WHERE slot_name = 'rollcall'"),
    )
    .unwrap()
    .parse()
    .unwrap()
}
