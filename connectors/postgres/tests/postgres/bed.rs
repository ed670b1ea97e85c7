//! A database with a followed table, and a reader of its log.
//!
//! Tests that change nothing beyond their own database share one server; it ends with the
//! last of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rollcall_contract::{
    Batch, Cell, Change, Cursor, Gap, GapReason, Key, Lineage, Op, Opened, Page, PageRequest,
    Source, StreamItem, TableName, TableNo,
};
use rollcall_postgres::PostgresSource;
use rollcall_postgres::config::PostgresConfig;
use rollcall_testbed::{PgVersion, Postgres};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static SHARED: Mutex<[Weak<Postgres>; 2]> = Mutex::new([Weak::new(), Weak::new()]);

/// The shared server of a version.
pub(crate) fn shared(version: PgVersion) -> Arc<Postgres> {
    let mut servers = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    let slot = &mut servers[usize::from(version == PgVersion::V18)];
    if let Some(server) = slot.upgrade() {
        return server;
    }
    let server = Arc::new(Postgres::builder().version(version).start().unwrap());
    *slot = Arc::downgrade(&server);
    server
}

/// One test's database.
pub(crate) struct Bed {
    pub(crate) server: Arc<Postgres>,
    pub(crate) db: String,
}

pub(crate) const PEOPLE: &str = "CREATE TABLE people (id int PRIMARY KEY, name text, mail text);";

impl Bed {
    /// A database on the shared server of Debian's version, with the table `people` in a
    /// publication, and a role that may do just what is needed.
    pub(crate) fn new(db: &str) -> Bed {
        Bed::on(shared(PgVersion::Debian), db, PEOPLE)
    }

    pub(crate) fn on(server: Arc<Postgres>, db: &str, tables: &str) -> Bed {
        // Two tests may ask at once, and a role is of the whole cluster.
        server
            .psql(
                "postgres",
                &format!(
                    "SELECT pg_advisory_lock(1);
                     DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rollcall')
                       THEN CREATE ROLE rollcall LOGIN REPLICATION; END IF; END $$;
                     CREATE DATABASE {db};"
                ),
            )
            .unwrap();
        let bed = Bed {
            server,
            db: db.to_owned(),
        };
        bed.sql(&format!(
            "{tables} GRANT SELECT ON ALL TABLES IN SCHEMA public TO rollcall;
             CREATE PUBLICATION rollcall FOR TABLE people
               WITH (publish_via_partition_root = true);"
        ));
        bed
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.db, sql).unwrap()
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        let mut config = PostgresConfig::new(
            self.server.host(),
            &self.db,
            "rollcall",
            TableName::new("public", "people"),
        );
        config.port = self.server.port();
        config.slot = format!("slot_{}", self.db);
        config.watch_interval = Duration::from_millis(100);
        config
    }

    pub(crate) fn source(&self) -> PostgresSource {
        PostgresSource::new(self.config())
    }

    pub(crate) fn slot(&self) -> String {
        self.config().slot
    }

    /// The first start: opens, and proves that the log flows by a row with this id.
    pub(crate) async fn begin(&self, id: i32) -> Reader {
        let mut reader = Reader::open(&self.source(), None).await;
        assert_eq!(reader.reasons(), [GapReason::InitialLoad]);
        self.sql(&format!("INSERT INTO people VALUES ({id}, 'first')"));
        reader.until_key(&id.to_string()).await;
        reader
    }
}

/// Reads the log of an opened source.
pub(crate) struct Reader {
    pub(crate) opened: Opened,
    pub(crate) cursor: Cursor,
    pub(crate) changes: Vec<(Op, String)>,
    /// Of each change.
    pub(crate) tables: Vec<TableNo>,
    pub(crate) gaps: Vec<Gap>,
}

impl Reader {
    pub(crate) async fn open(source: &PostgresSource, resume: Option<(Cursor, Lineage)>) -> Reader {
        let opened = tokio::time::timeout(PATIENCE, source.open(resume))
            .await
            .unwrap()
            .unwrap();
        Reader {
            cursor: opened.start.clone(),
            gaps: Vec::new(),
            changes: Vec::new(),
            tables: Vec::new(),
            opened,
        }
    }

    pub(crate) fn reasons(&self) -> Vec<GapReason> {
        self.opened.gaps.iter().map(|g| g.reason).collect()
    }

    /// What the store would hold.
    pub(crate) fn stored(&self) -> (Cursor, Lineage) {
        (self.cursor.clone(), self.opened.lineage.clone())
    }

    async fn step(&mut self) {
        let item = tokio::time::timeout(PATIENCE, self.opened.stream.next())
            .await
            .expect("the log brings what is waited for")
            .unwrap();
        match item {
            StreamItem::Batch(batch) => {
                self.cursor = batch.cursor().clone();
                self.changes
                    .extend(batch.changes().map(|c| (c.op(), key_of(&c))));
                self.tables.extend(batch.changes().map(|c| c.table_no()));
                self.opened.acknowledge.acknowledge(&self.cursor);
            }
            StreamItem::Progress(cursor) => {
                self.cursor = cursor;
                self.opened.acknowledge.acknowledge(&self.cursor);
            }
            StreamItem::SchemaChanged(..) => {}
            StreamItem::Gap(gap) => self.gaps.push(gap),
        }
    }

    /// Reads until a change of this key has come.
    pub(crate) async fn until_key(&mut self, key: &str) {
        while !self.changes.iter().any(|(_, k)| k == key) {
            self.step().await;
        }
    }

    /// Reads until the cursor moves.
    pub(crate) async fn until_progress(&mut self) {
        let before = self.cursor.clone();
        while self.cursor == before {
            self.step().await;
        }
    }

    /// Reads until a gap has come.
    pub(crate) async fn until_gap(&mut self) -> Gap {
        while self.gaps.is_empty() {
            self.step().await;
        }
        self.gaps.remove(0)
    }

    /// Reads until the stream ends, and gives the code of the error that it ends with.
    pub(crate) async fn until_end(&mut self) -> &'static str {
        loop {
            let item = tokio::time::timeout(PATIENCE, self.opened.stream.next())
                .await
                .expect("the stream ends");
            if let Err(error) = item {
                return error.code();
            }
        }
    }

    /// Ends in order and gives what the store holds.
    pub(crate) async fn close(self) -> (Cursor, Lineage) {
        let stored = self.stored();
        self.opened.stream.close().await;
        stored
    }
}

/// The key of a change, from whichever image has it.
pub(crate) fn key_of(change: &Change<'_>) -> String {
    let row = change.after().or_else(|| change.before().row());
    row.and_then(|row| Key::of_row(change.table(), &row))
        .map(|key| key.display())
        .unwrap_or_default()
}

/// The cells of a batch's new rows by key.
pub(crate) fn cells(batch: &Batch) -> BTreeMap<String, Vec<Option<String>>> {
    batch
        .changes()
        .map(|change| {
            let row = change.after().unwrap();
            let cells = row
                .cells()
                .map(|cell| match cell {
                    Cell::Value(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
                    Cell::Null => None,
                    other => panic!("not a value: {other:?}"),
                })
                .collect();
            (key_of(&change), cells)
        })
        .collect()
}

/// All pages of a table.
pub(crate) async fn pages(
    source: &PostgresSource,
    limit_rows: usize,
    limit_bytes: usize,
) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = source
            .page(
                TableNo::MAIN,
                PageRequest {
                    after,
                    limit_rows,
                    limit_bytes,
                    only: None,
                    since: None,
                },
            )
            .await
            .unwrap();
        after = page.last.clone();
        pages.push(page);
        if after.is_none() {
            return pages;
        }
    }
}
