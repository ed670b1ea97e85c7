//! A private server with the table on it, and what differs between the kinds.

use rollcall_testbed::{MySql, MySqlVersion, Postgres, PostgresBuilder};

use crate::Result;
use crate::employees::{self, Dialect};
use crate::reader;

/// The database of every bench.
pub(crate) const DATABASE: &str = "bench";
/// The account of everything that is measured.
pub(crate) const ROLE: &str = "rollcall";
/// The publication.
pub(crate) const PUBLICATION: &str = "rollcall";

/// A server.
pub(crate) trait Database {
    /// As the configuration calls its kind; figures begin with it.
    fn kind(&self) -> &'static str;

    fn dialect(&self) -> Dialect;

    /// Makes the database, and the account without rights.
    fn make_database(&self) -> Result<()>;

    /// Lets the account follow the table.
    fn grant(&self) -> Result<()>;

    /// Runs SQL in the database as an administrator; each statement commits by itself.
    fn run(&self, sql: &str) -> Result<String>;

    /// Has the server look at what is in the table.
    fn analyze(&self) -> Result<()>;

    /// What only this kind has in the configuration of its source. `name` is that of the
    /// daemon among all that follow the server.
    fn connection(&self, name: &str) -> String;

    /// The head of its log, as the daemon prints positions.
    fn head(&self) -> Result<String>;

    /// What a reader that is to begin here has to be told; `slot` is a waiting one, on
    /// PostgreSQL.
    fn here(&self, slot: &str) -> Result<String>;

    /// Makes one change more, and gives a position that is reached with it or just before.
    fn last_change(&self, id: u64) -> Result<String>;
}

/// Whether the daemon stands at a position of the log or behind it. Positions of PostgreSQL
/// are numbers; sets of GTIDs are equal when all is taken in, as nobody else writes.
pub(crate) fn is_reached(position: &str, wanted: &str) -> bool {
    match (lsn(position), lsn(wanted)) {
        (Some(position), Some(wanted)) => position >= wanted,
        _ => position == wanted,
    }
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u64::from_str_radix(high, 16).ok()?;
    Some(high << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// A PostgreSQL as an operator would run it, except that `fsync` is off: the disk under the
/// source is not what is measured. Checkpoints and vacuum are kept out of the runs.
pub(crate) fn postgres() -> PostgresBuilder {
    Postgres::builder()
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "32GB")
        .setting("checkpoint_timeout", "1h")
        .setting("autovacuum", "off")
}

/// A MySQL or MariaDB in the same way; it does not force commits to the disk either.
pub(crate) fn mysql(version: MySqlVersion) -> rollcall_testbed::MySqlBuilder {
    MySql::builder()
        .version(version)
        .setting("innodb_buffer_pool_size", "256M")
        .setting("max_binlog_size", "1G")
}

impl Database for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn make_database(&self) -> Result<()> {
        self.psql(
            "postgres",
            &format!("CREATE ROLE {ROLE} LOGIN REPLICATION; CREATE DATABASE {DATABASE};"),
        )?;
        Ok(())
    }

    fn grant(&self) -> Result<()> {
        self.run(&format!(
            "GRANT SELECT ON employees TO {ROLE};
             CREATE PUBLICATION {PUBLICATION} FOR TABLE employees
                 WITH (publish_via_partition_root = true);"
        ))?;
        Ok(())
    }

    fn run(&self, sql: &str) -> Result<String> {
        Ok(self.psql(DATABASE, sql)?)
    }

    fn analyze(&self) -> Result<()> {
        self.run("VACUUM ANALYZE employees").map(drop)
    }

    fn connection(&self, name: &str) -> String {
        format!(
            "host = \"127.0.0.1\"\nport = {}\nuser = \"{ROLE}\"\ndatabase = \"{DATABASE}\"\n\
             table = \"public.employees\"\nslot = \"{name}\"\npublication = \"{PUBLICATION}\"\n",
            self.port()
        )
    }

    fn head(&self) -> Result<String> {
        self.run("SELECT pg_current_wal_insert_lsn()")
    }

    fn here(&self, slot: &str) -> Result<String> {
        self.run(&format!(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ))
    }

    /// `pg_recvlogical` ends when it sees something behind the position.
    fn last_change(&self, id: u64) -> Result<String> {
        let end = self.head()?;
        employees::insert(self, id, 1)?;
        Ok(end)
    }
}

impl Database for MySql {
    fn kind(&self) -> &'static str {
        match self.version().is_mariadb() {
            true => "mariadb",
            false => "mysql",
        }
    }

    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    fn make_database(&self) -> Result<()> {
        self.sql(&format!(
            "CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4; CREATE USER {ROLE}@'%';"
        ))?;
        Ok(())
    }

    fn grant(&self) -> Result<()> {
        let client = match self.version().is_mariadb() {
            true => "BINLOG MONITOR",
            false => "REPLICATION CLIENT",
        };
        self.run(&format!(
            "GRANT REPLICATION SLAVE, {client} ON *.* TO {ROLE}@'%';
             GRANT SELECT ON employees TO {ROLE}@'%';"
        ))?;
        Ok(())
    }

    fn run(&self, sql: &str) -> Result<String> {
        Ok(self.sql(&format!("USE {DATABASE};\n{sql}"))?)
    }

    fn analyze(&self) -> Result<()> {
        self.run("ANALYZE TABLE employees").map(drop)
    }

    fn connection(&self, _: &str) -> String {
        format!(
            "host = \"127.0.0.1\"\nport = {}\nuser = \"{ROLE}\"\ntable = \"{DATABASE}.employees\"\n",
            self.port()
        )
    }

    fn head(&self) -> Result<String> {
        self.run(match self.version().is_mariadb() {
            true => "SELECT @@gtid_binlog_pos",
            false => "SELECT REPLACE(@@gtid_executed, '\\n', '')",
        })
    }

    fn here(&self, _: &str) -> Result<String> {
        reader::mysql::here(self)
    }

    fn last_change(&self, id: u64) -> Result<String> {
        employees::insert(self, id, 1)?;
        self.head()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_compared_as_their_servers_mean_them() {
        assert!(is_reached("1/0", "0/FF000000") && !is_reached("0/A0", "0/B0"));
        assert!(is_reached("0-1-42", "0-1-42") && !is_reached("0-1-42+0-1-43#7", "0-1-43"));
    }
}
