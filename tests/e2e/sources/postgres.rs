//! PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollcall_testbed::{PgVersion, Postgres, PostgresBuilder, StandbyOptions, StopMode, wait_for};
use serde_json::Value;

use super::{Backup, Replica, Server, Setup, SourceKind};
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
GRANT CONNECT ON DATABASE hr TO rollcall;
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
    let server = builder.start().unwrap();
    server.psql("postgres", "CREATE DATABASE hr").unwrap();
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
        self.sql("SELECT to_jsonb(p) FROM people p")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn numbers(&self, from: u64, to: u64) -> String {
        format!("generate_series({from}, {to}) n")
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
}

struct Standby {
    primary: Arc<Postgres>,
    standby: Arc<Postgres>,
}

impl Replica for Standby {
    fn server(&self) -> Arc<dyn Server> {
        Arc::clone(&self.standby) as _
    }

    /// The standby has to have the daemon's slot: the slot has to move on behind what the
    /// standby already dropped, so the application goes on meanwhile. Not in every round:
    /// the slot is always a little behind the newest transaction, and comes even with the
    /// standby while there is none.
    fn until_ready(&self, world: &World) {
        let sql = format!(
            "SELECT FROM (SELECT pg_sync_replication_slots()) s;
             SELECT synced AND NOT temporary AND invalidation_reason IS NULL
             FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
        );
        let began = Instant::now();
        for round in 0.. {
            if round % 10 == 0 {
                world.db.sql("UPDATE people SET level = '1' WHERE id = 100");
            }
            self.primary.sql("SELECT pg_log_standby_snapshot()");
            std::thread::sleep(Duration::from_millis(200));
            self.catch_up();
            let answer = self.standby.psql("hr", &sql);
            if answer.as_deref().is_ok_and(|a| a.trim() == "t") {
                return;
            }
            assert!(began.elapsed() < 3 * PATIENCE, "{answer:?}");
        }
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
