//! Kinds of sources: what a test needs of a server, whatever speaks behind it.

use rollcall_testbed::{PgVersion, Postgres, PostgresBuilder};
use serde_json::Value;

/// A kind of source.
pub(crate) struct SourceKind {
    /// Starts a server with the empty table of people, ready to be followed.
    pub(crate) start: fn() -> Box<dyn Server>,
}

/// A running server with the table `people` and the smaller table `badges`.
pub(crate) trait Server: Send + Sync {
    /// The lines of `[source.<name>]` that say where it is, without the table.
    fn connection(&self) -> String;
    /// The table's name in the configuration.
    fn table(&self, name: &str) -> String;
    /// Runs the application's SQL, statement by statement.
    fn sql(&self, sql: &str) -> String;
    /// `SELECT *` of the table of people as JSON objects.
    fn people(&self) -> Vec<Value>;
}

/// PostgreSQL of the system.
pub(crate) const POSTGRES: SourceKind = SourceKind {
    start: || Box::new(prepared(Postgres::builder())),
};

/// Makes one `#[test]` of each function for each kind of source.
macro_rules! every_source {
    ($($promise:ident),+ $(,)?) => {
        mod postgres {
            $(
                #[test]
                fn $promise() {
                    super::$promise(&crate::sources::POSTGRES);
                }
            )+
        }
    };
}
pub(crate) use every_source;

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

/// PostgreSQL 18 with the same tables.
pub(crate) fn prepared_18() -> Postgres {
    prepared(Postgres::builder().version(PgVersion::V18))
}

impl Server for Postgres {
    fn connection(&self) -> String {
        format!(
            "type = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"hr\"\nuser = \"rollcall\"",
            self.port()
        )
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
}
