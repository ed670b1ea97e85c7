//! A database with a followed table, and a reader of its log.
//!
//! Tests that change nothing beyond their own database share one server of each kind; it
//! ends with the last of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rollcall_contract::{
    Batch, Cell, Change, Cursor, Gap, GapReason, Key, Lineage, Op, Opened, Page, PageRequest,
    Source, StreamItem, TableName, TableNo,
};
use rollcall_mysql::{Flavour, MySqlConfig, MySqlSource};
use rollcall_testbed::{MySql, MySqlVersion};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One test for each kind of server: `mysql::name` and `mariadb::name`.
macro_rules! with_both {
    ($($name:ident),* $(,)?) => {
        mod mysql {
            $(#[tokio::test]
            async fn $name() {
                super::$name(rollcall_testbed::MySqlVersion::MySql9).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test]
            async fn $name() {
                super::$name(rollcall_testbed::MySqlVersion::MariaDb10).await;
            })*
        }
    };
}

static SHARED: Mutex<[Weak<MySql>; 2]> = Mutex::new([Weak::new(), Weak::new()]);

/// The shared server of a version.
pub(crate) fn shared(version: MySqlVersion) -> Arc<MySql> {
    let mut servers = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    let slot = &mut servers[usize::from(version.is_mariadb())];
    if let Some(server) = slot.upgrade() {
        return server;
    }
    let server = Arc::new(MySql::builder().version(version).start().unwrap());
    account(&server);
    *slot = Arc::downgrade(&server);
    server
}

/// Makes the account that may do just what is needed.
pub(crate) fn account(server: &MySql) {
    server.create_user("rollcall", "secret").unwrap();
    grant(server, "rollcall");
}

pub(crate) fn grant(server: &MySql, user: &str) {
    let monitor = match server.version().is_mariadb() {
        true => "BINLOG MONITOR",
        false => "REPLICATION CLIENT",
    };
    server
        .sql(&format!(
            "GRANT REPLICATION SLAVE, {monitor} ON *.* TO {user}@'%'"
        ))
        .unwrap();
}

/// One test's database.
pub(crate) struct Bed {
    pub(crate) server: Arc<MySql>,
    pub(crate) db: String,
}

pub(crate) const PEOPLE: &str =
    "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(100), mail VARCHAR(100));";

impl Bed {
    /// A database on the shared server, with the table `people`.
    pub(crate) fn new(version: MySqlVersion, db: &str) -> Bed {
        Bed::on(shared(version), db, PEOPLE)
    }

    /// As [`Bed::new`], on a server of its own.
    pub(crate) fn alone(version: MySqlVersion, settings: &[(&str, &str)]) -> Bed {
        let mut builder = MySql::builder().version(version);
        for (name, value) in settings {
            builder = builder.setting(name, value);
        }
        let server = Arc::new(builder.start().unwrap());
        account(&server);
        Bed::on(server, "hr", PEOPLE)
    }

    pub(crate) fn on(server: Arc<MySql>, db: &str, tables: &str) -> Bed {
        let bed = Bed {
            server,
            db: db.to_owned(),
        };
        bed.server
            .sql(&format!("CREATE DATABASE {db} CHARACTER SET utf8mb4"))
            .unwrap();
        bed.sql(tables);
        bed.sql(&format!("GRANT SELECT ON {db}.* TO rollcall@'%'"));
        bed
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.sql(&format!("USE {}; {sql}", self.db)).unwrap()
    }

    pub(crate) fn config(&self) -> MySqlConfig {
        config_of(&self.server, &self.db)
    }

    pub(crate) fn source(&self) -> MySqlSource {
        MySqlSource::new(self.config())
    }

    /// The first start: opens, and proves that the log flows by a row with this id.
    pub(crate) async fn begin(&self, id: i32) -> Reader {
        let mut reader = Reader::open(&self.source(), None).await;
        assert_eq!(reader.reasons(), [GapReason::InitialLoad]);
        self.sql(&format!(
            "INSERT INTO people (id, name) VALUES ({id}, 'first')"
        ));
        reader.until_key(&id.to_string()).await;
        reader
    }
}

pub(crate) fn config_of(server: &MySql, db: &str) -> MySqlConfig {
    let flavour = match server.version().is_mariadb() {
        true => Flavour::MariaDb,
        false => Flavour::MySql,
    };
    let table = TableName::new(db, "people");
    let mut config = MySqlConfig::new(flavour, server.host(), "rollcall", table);
    config.port = server.port();
    config.password = Some("secret".to_owned().into());
    config.name = format!("test-{db}");
    config
}

/// Reads the log of an opened source.
pub(crate) struct Reader {
    pub(crate) opened: Opened,
    pub(crate) cursor: Cursor,
    pub(crate) changes: Vec<(Op, String)>,
    /// Of each change.
    pub(crate) tables: Vec<TableNo>,
    pub(crate) ordinals: Vec<u32>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) gaps: Vec<Gap>,
    /// Whose columns became others.
    pub(crate) schemas: Vec<TableNo>,
    pub(crate) batches: usize,
}

impl Reader {
    pub(crate) async fn open(source: &MySqlSource, resume: Option<(Cursor, Lineage)>) -> Reader {
        let opened = tokio::time::timeout(PATIENCE * 2, source.open(resume))
            .await
            .unwrap()
            .unwrap();
        Reader {
            cursor: opened.start.clone(),
            gaps: Vec::new(),
            changes: Vec::new(),
            tables: Vec::new(),
            ordinals: Vec::new(),
            rows: Vec::new(),
            schemas: Vec::new(),
            batches: 0,
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

    pub(crate) async fn step(&mut self) {
        let item = tokio::time::timeout(PATIENCE, self.opened.stream.next())
            .await
            .expect("the log brings what is waited for")
            .unwrap();
        match item {
            StreamItem::Batch(batch) => {
                self.cursor = batch.cursor().clone();
                self.batches += 1;
                for change in batch.changes() {
                    self.changes.push((change.op(), key_of(&change)));
                    self.tables.push(change.table_no());
                    self.ordinals.push(change.ordinal());
                    self.rows.push(match change.after() {
                        Some(row) => row.cells().map(text_of).collect(),
                        None => Vec::new(),
                    });
                }
                self.opened.acknowledge.acknowledge(&self.cursor);
            }
            StreamItem::Progress(cursor) => {
                self.cursor = cursor;
                self.opened.acknowledge.acknowledge(&self.cursor);
            }
            StreamItem::SchemaChanged(no, _) => self.schemas.push(no),
            StreamItem::Gap(gap) => self.gaps.push(gap),
        }
    }

    /// Reads until a change of this key has come.
    pub(crate) async fn until_key(&mut self, key: &str) {
        while !self.changes.iter().any(|(_, k)| k == key) {
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

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.changes.iter().map(|(_, k)| k.as_str()).collect()
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

/// A cell as text; what is no value has a name that no test uses as one.
pub(crate) fn text_of(cell: Cell<'_>) -> Option<String> {
    match cell {
        Cell::Value(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Cell::Null => None,
        Cell::Missing => Some("(missing)".to_owned()),
        Cell::Unchanged => Some("(unchanged)".to_owned()),
    }
}

/// The cells of a batch's new rows by key.
pub(crate) fn cells(batch: &Batch) -> BTreeMap<String, Vec<Option<String>>> {
    batch
        .changes()
        .filter_map(|change| {
            let row = change.after()?;
            Some((key_of(&change), row.cells().map(text_of).collect()))
        })
        .collect()
}

/// All pages of a table.
pub(crate) async fn pages(
    source: &MySqlSource,
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
