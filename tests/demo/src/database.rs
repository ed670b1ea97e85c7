//! The company's database: one of three, and what differs between them.

use std::process::Command;

use rollcall_testbed::{MySql, MySqlVersion, Postgres};
use serde_json::Value;

use crate::Result;

/// A private server with the HR table.
pub(crate) enum Database {
    Postgres(Postgres),
    MySql(MySql),
}

const POSTGRES_TABLE: &str = "
CREATE SCHEMA hr;
CREATE TABLE hr.employees (
  id              bigint PRIMARY KEY,
  first_name      text NOT NULL,
  last_name       text,
  email           text,
  phone           text,
  job_title       text,
  department      text,
  employment_type text NOT NULL DEFAULT 'employee',
  roles           text,
  hired_on        date,
  salary          numeric(10,2),
  notes           text,
  updated_at      timestamptz NOT NULL DEFAULT now()
);";

const MYSQL_TABLE: &str = "
CREATE DATABASE hr CHARACTER SET utf8mb4;
CREATE TABLE hr.employees (
  id              bigint PRIMARY KEY,
  first_name      varchar(100) NOT NULL,
  last_name       varchar(100),
  email           varchar(200),
  phone           varchar(40),
  job_title       varchar(100),
  department      varchar(100),
  employment_type varchar(20) NOT NULL DEFAULT 'employee',
  roles           varchar(200),
  hired_on        date,
  salary          decimal(10,2),
  notes           text,
  updated_at      timestamp NOT NULL DEFAULT now()
);";

const POSTGRES_GRANTS: &str = "CREATE ROLE rollcall LOGIN REPLICATION;
GRANT CONNECT ON DATABASE hr TO rollcall;
GRANT USAGE ON SCHEMA hr TO rollcall;
GRANT SELECT ON hr.employees TO rollcall;
CREATE PUBLICATION rollcall FOR TABLE hr.employees
  WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);";

const MYSQL_GRANTS: &str = "CREATE USER rollcall@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO rollcall@'%';
GRANT SELECT ON hr.employees TO rollcall@'%';";

const MARIADB_GRANTS: &str = "CREATE USER rollcall@'%';
GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO rollcall@'%';
GRANT SELECT ON hr.employees TO rollcall@'%';";

impl Database {
    /// Starts the kind of server that `SOURCE` names, with the empty table.
    pub(crate) fn start(source: &str) -> Result<Database> {
        let database = match source {
            "postgres" => {
                let server = Postgres::builder()
                    .setting("max_slot_wal_keep_size", "1GB")
                    .start()?;
                server.psql("postgres", "CREATE DATABASE hr")?;
                Database::Postgres(server)
            }
            "mysql" => Database::MySql(MySql::builder().start()?),
            "mariadb" => {
                let version = MySqlVersion::MariaDb10;
                Database::MySql(MySql::builder().version(version).start()?)
            }
            other => {
                let sentence =
                    format!("SOURCE={other} is not known; there are postgres, mysql and mariadb");
                return Err(sentence.into());
            }
        };
        database.sql(match database {
            Database::Postgres(_) => POSTGRES_TABLE,
            Database::MySql(_) => MYSQL_TABLE,
        })?;
        Ok(database)
    }

    /// Its name with the version.
    pub(crate) fn name(&self) -> Result<String> {
        Ok(match self {
            Database::Postgres(_) => {
                let version = self.sql("SHOW server_version")?;
                let number = version.split(' ').next().unwrap_or_default();
                format!("PostgreSQL {number}")
            }
            Database::MySql(server) => {
                let version = self.sql("SELECT @@version")?;
                let number = version.split('-').next().unwrap_or_default();
                let name = if server.version().is_mariadb() {
                    "MariaDB"
                } else {
                    "MySQL"
                };
                format!("{name} {number}")
            }
        })
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Database::Postgres(server) => server.port(),
            Database::MySql(server) => server.port(),
        }
    }

    /// Runs SQL as an administrator.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        Ok(match self {
            Database::Postgres(server) => server.psql("hr", sql)?,
            Database::MySql(server) => server.sql(sql)?,
        })
    }

    /// The lines of the configuration that only this kind has.
    pub(crate) fn config_lines(&self) -> &'static str {
        match self {
            Database::Postgres(_) => "type = \"postgres\"\ndatabase = \"hr\"",
            Database::MySql(server) if server.version().is_mariadb() => "type = \"mariadb\"",
            Database::MySql(_) => "type = \"mysql\"",
        }
    }

    /// What an operator runs once: what the script of `rollcall check --script` sets up.
    pub(crate) fn grants(&self) -> &'static str {
        match self {
            Database::Postgres(_) => POSTGRES_GRANTS,
            Database::MySql(server) if server.version().is_mariadb() => MARIADB_GRANTS,
            Database::MySql(_) => MYSQL_GRANTS,
        }
    }

    /// Has the server count what is in the table.
    pub(crate) fn analyze(&self) -> Result<()> {
        self.sql(match self {
            Database::Postgres(_) => "ANALYZE hr.employees",
            Database::MySql(_) => "ANALYZE TABLE hr.employees",
        })
        .map(drop)
    }

    /// The whole table, each row as JSON.
    pub(crate) fn rows(&self) -> Result<Vec<Value>> {
        let rows = self.sql(match self {
            Database::Postgres(_) => "SELECT to_jsonb(e) FROM hr.employees e",
            Database::MySql(_) => {
                "SELECT JSON_OBJECT('id', id, 'first_name', first_name, 'last_name', last_name, \
                 'email', email, 'phone', phone, 'job_title', job_title, \
                 'department', department, 'employment_type', employment_type, 'roles', roles, \
                 'hired_on', hired_on, 'notes', notes) FROM hr.employees"
            }
        })?;
        rows.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    /// The server's own client, which reads SQL from its standard input and commits
    /// statement by statement.
    pub(crate) fn client(&self) -> Command {
        match self {
            Database::Postgres(server) => {
                let mut command = Command::new(server.bin("psql"));
                command
                    .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-w", "-U"])
                    .args([server.superuser(), "-d", "hr", "-h"])
                    .arg(server.socket_dir())
                    .args(["-p", &server.port().to_string(), "-f", "-"]);
                command
            }
            Database::MySql(server) => server.client("root"),
        }
    }

    /// Whether the log says to the second only when a transaction was committed.
    pub(crate) fn has_coarse_times(&self) -> bool {
        matches!(self, Database::MySql(server) if server.version().is_mariadb())
    }
}
