//! PostgreSQL.

use std::sync::Arc;

use rollcall_testbed::{PgVersion, Postgres, PostgresBuilder, StandbyOptions, StopMode, wait_for};
use serde_json::Value;

use super::{Backup, Replica, Room, Server, Setup, SourceKind};
use crate::world::{PATIENCE, World};

/// The slot of the source `hr`.
const SLOT: &str = "rollcall_hr";

/// PostgreSQL of the system; 18 where a slot has to be on the standby too.
pub(crate) const POSTGRES: SourceKind = SourceKind {
    name: "postgres",
    start: |setup| Arc::new(start(setup)),
    keeps_log_for_readers: true,
};

/// The tables; notes are kept out of line without compression, so that an update which
/// leaves them alone does not carry them.
const TABLES: &str = "
CREATE TABLE people (
  id         bigint PRIMARY KEY,
  first_name text,
  last_name  text,
  email      text,
  job_title  text,
  department text,
  kind       text NOT NULL DEFAULT 'employee',
  roles      text,
  level      text,
  salary     text,
  note       text
);
ALTER TABLE people ALTER COLUMN note SET STORAGE EXTERNAL;
CREATE TABLE badges (badge text PRIMARY KEY, mail text, title text, room text);
";

/// What an operator grants.
const GRANTS: &str = "
CREATE ROLE rollcall LOGIN REPLICATION;
GRANT SELECT ON people, badges TO rollcall;
CREATE PUBLICATION rollcall FOR TABLE people, badges
  WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
";

fn start(setup: &Setup<'_>) -> Postgres {
    let mut builder = Postgres::builder();
    if setup.replicated {
        builder = builder.version(PgVersion::V18);
    }
    if let Some(tls) = setup.tls {
        builder = builder
            .tls_with(tls)
            .unwrap()
            .hba("hostssl all rollcall 127.0.0.1/32 cert")
            .hba("hostnossl all rollcall 127.0.0.1/32 reject");
    }
    if setup.password.is_some() {
        builder = builder.password_auth();
    }
    let server = prepared(builder);
    if let Some(password) = setup.password {
        server.sql(&format!("ALTER ROLE rollcall PASSWORD '{password}'"));
    }
    server
}

/// A server with the tables, the role and the publication.
pub(crate) fn prepared(builder: PostgresBuilder) -> Postgres {
    prepared_in(builder, "")
}

/// The same in a database made with options of its own.
pub(crate) fn prepared_in(builder: PostgresBuilder, options: &str) -> Postgres {
    let server = builder.start().unwrap();
    let database = format!("CREATE DATABASE hr {options}");
    server.psql("postgres", &database).unwrap();
    server.psql("hr", TABLES).unwrap();
    server.psql("hr", GRANTS).unwrap();
    server
}

impl Server for Postgres {
    fn connection(&self) -> String {
        format!(
            "type = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"hr\"\nuser = \"rollcall\"",
            self.port()
        )
    }

    fn url(&self) -> (String, &'static str) {
        let url = format!("postgres://rollcall@127.0.0.1:{}/hr", self.port());
        (url, "PGPASSWORD")
    }

    fn second_reader(&self) -> &'static str {
        "slot = \"another\""
    }

    fn table(&self, name: &str) -> String {
        format!("public.{name}")
    }

    fn sql(&self, sql: &str) -> String {
        self.psql("hr", sql).unwrap()
    }

    fn people(&self) -> Vec<Value> {
        people(self, "hr")
    }

    fn numbers(&self, from: u64, to: u64) -> String {
        format!("generate_series({from}, {to}) n")
    }

    fn relate(&self, table: &str) {
        self.sql(&format!(
            "GRANT SELECT ON {table} TO rollcall; ALTER PUBLICATION rollcall ADD TABLE {table};"
        ));
    }

    fn acknowledged(&self) -> Option<u64> {
        let sql = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots";
        self.sql(sql).parse().ok()
    }

    fn table_anew_without(&self, id: u64) -> String {
        format!(
            "BEGIN;
             CREATE TABLE newer (LIKE people INCLUDING ALL);
             INSERT INTO newer SELECT * FROM people WHERE id <> {id};
             DROP TABLE people;
             ALTER TABLE newer RENAME TO people;
             GRANT SELECT ON people TO rollcall;
             ALTER PUBLICATION rollcall ADD TABLE people;
             COMMIT;"
        )
    }

    fn rewrite_unseen(&self, table: &str, column: &str, value: &str) {
        // A table that is written anew is no change to the log.
        self.sql(&format!(
            "ALTER TABLE {table} ALTER COLUMN {column} TYPE text USING {value}"
        ));
    }

    fn behind_the_log(&self, promoted: u64, removed: u64) {
        let title = format!("CASE WHEN id = {promoted} THEN 'Hidden' ELSE job_title END");
        self.rewrite_unseen("people", "job_title", &title);
        // Neither is a row that is cut out.
        self.sql(&format!(
            "CREATE EXTENSION IF NOT EXISTS pg_surgery;
             SELECT heap_force_kill('people'::regclass,
               ARRAY(SELECT ctid FROM people WHERE id = {removed}));"
        ));
    }

    fn may_read_people(&self, may: bool) {
        self.sql(match may {
            true => "GRANT SELECT ON people TO rollcall",
            false => "REVOKE SELECT ON people FROM rollcall",
        });
    }

    fn may_read_log(&self, may: bool) {
        self.sql(match may {
            true => "ALTER ROLE rollcall REPLICATION",
            false => "ALTER ROLE rollcall NOREPLICATION",
        });
    }

    fn write_log(&self, does: bool) {
        let level = if does { "logical" } else { "replica" };
        self.sql(&format!("ALTER SYSTEM SET wal_level = '{level}'"));
        self.restart().unwrap();
    }

    fn lose_log(&self) {
        let sql = format!("SELECT pg_drop_replication_slot('{SLOT}')");
        wait_for(PATIENCE, "the slot to be dropped", || {
            self.psql("hr", &sql).map_err(|e| e.to_string())
        })
        .unwrap();
    }

    fn stop(&self) {
        Postgres::stop(self, StopMode::Fast).unwrap();
    }

    fn kill9(&self) {
        Postgres::kill9(self);
    }

    fn start_again(&self) {
        Postgres::start_again(self).unwrap();
    }

    fn back_up(&self) -> Backup {
        Backup::Postgres(self.copy_data_dir().unwrap())
    }

    fn restore(&self, backup: &Backup) {
        match backup {
            Backup::Postgres(copy) => self.restore_from(copy).unwrap(),
            Backup::MySql(_) => panic!("it is the copy of another kind of server"),
        }
    }

    fn replica(self: Arc<Self>) -> Box<dyn Replica> {
        let options = StandbyOptions {
            slot: Some("standby".to_owned()),
            settings: vec![("hot_standby_feedback".to_owned(), "on".to_owned())],
        };
        let standby = Arc::new(self.basebackup_standby_with(&options).unwrap());
        Box::new(Standby {
            primary: self,
            standby,
        })
    }

    fn room(self: Arc<Self>, number: u64) -> Box<dyn Room> {
        let (name, role) = (format!("hr_{number}"), format!("rollcall_{number}"));
        self.psql("postgres", &format!("CREATE DATABASE {name}"))
            .unwrap();
        let own = GRANTS
            .replace("ROLE rollcall", &format!("ROLE {role}"))
            .replace("TO rollcall", &format!("TO {role}"));
        self.psql(&name, &format!("{TABLES}{own}")).unwrap();
        Box::new(Database {
            server: self,
            name,
            role,
        })
    }
}

fn people(server: &Postgres, database: &str) -> Vec<Value> {
    let rows = server.psql(database, "SELECT to_jsonb(p) FROM people p");
    let rows = rows.unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

/// A database with a role and a slot of its own.
struct Database {
    server: Arc<Postgres>,
    name: String,
    role: String,
}

impl Room for Database {
    fn connection(&self) -> String {
        format!(
            "type = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{}\"\nuser = \"{}\"\nslot = \"{}\"",
            self.server.port(),
            self.name,
            self.role,
            self.role,
        )
    }

    fn table(&self, name: &str) -> String {
        Server::table(&*self.server, name)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).unwrap()
    }

    fn people(&self) -> Vec<Value> {
        people(&self.server, &self.name)
    }

    fn may_read_log(&self, may: bool) {
        let word = if may { "REPLICATION" } else { "NOREPLICATION" };
        self.sql(&format!("ALTER ROLE {} {word}", self.role));
    }

    fn remove(&self) {
        let slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
        let drop = format!("{slots} WHERE slot_name = '{}'", self.role);
        wait_for(PATIENCE, "the slot to be dropped", || {
            self.server
                .psql("postgres", &drop)
                .map_err(|e| e.to_string())
        })
        .unwrap();
        let drop = format!(
            "DROP DATABASE {} WITH (FORCE);\nDROP ROLE {}",
            self.name, self.role
        );
        self.server.psql("postgres", &drop).unwrap();
    }
}

struct Standby {
    primary: Arc<Postgres>,
    standby: Arc<Postgres>,
}

impl Replica for Standby {
    fn server(&self) -> Arc<dyn Server> {
        Arc::clone(&self.standby) as _
    }

    /// The standby has to have the daemon's slot. Nothing is written meanwhile, or the
    /// standby would be ahead of the slot again.
    fn until_ready(&self, _: &World) {
        wait_for(3 * PATIENCE, "the standby to have the slot", || {
            self.primary.try_sync_slot(&self.standby, SLOT)
        })
        .unwrap();
    }

    fn catch_up(&self) {
        let head = self.primary.current_lsn().unwrap();
        self.standby.wait_for_replay(&head, PATIENCE).unwrap();
    }

    fn cut_off(&self) {
        self.standby
            .psql("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
            .unwrap();
        self.standby.reload().unwrap();
        wait_for(PATIENCE, "the standby to be cut off", || {
            match self
                .standby
                .sql("SELECT count(*) FROM pg_stat_wal_receiver")
            {
                n if n == "0" => Ok(()),
                n => Err(n),
            }
        })
        .unwrap();
    }

    fn promote(&self) {
        self.standby.promote().unwrap();
    }
}
