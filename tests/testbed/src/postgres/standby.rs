//! Physical standbys, for fail-over and restore.
//!
//! `pg_basebackup -R` writes `standby.signal` and `primary_conninfo`; the conninfo
//! names a database too, without which PostgreSQL 17 and newer cannot
//! synchronize fail-over slots. The standby inherits the primary's whole
//! configuration; its own address is appended and so overrides it.

use std::time::Duration;

use super::Postgres;
use crate::error::Result;
use crate::wait::wait_for;

/// How a standby differs from a plain one.
#[derive(Debug, Clone, Default)]
pub struct StandbyOptions {
    /// A physical slot made on the primary for it (`primary_slot_name`).
    pub slot: Option<String>,
    /// Lines of `postgresql.conf`, name and value; for fail-over slots
    /// `hot_standby_feedback` and `sync_replication_slots`.
    pub settings: Vec<(String, String)>,
}

impl Postgres {
    /// A hot standby of this server on a port of its own.
    ///
    /// # Errors
    /// When the base backup fails or the standby does not start.
    pub fn basebackup_standby(&self) -> Result<Postgres> {
        self.basebackup_standby_with(&StandbyOptions::default())
    }

    /// A hot standby with a slot or settings of its own.
    ///
    /// # Errors
    /// As [`Postgres::basebackup_standby`].
    pub fn basebackup_standby_with(&self, options: &StandbyOptions) -> Result<Postgres> {
        let (standby, _) = Postgres::prepare(self.version)?;
        let mut backup = self.tool("pg_basebackup");
        backup
            .args(["-d", &self.socket_conninfo(self.superuser(), "postgres")])
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-w"])
            .arg("-D")
            .arg(&standby.data);
        if let Some(slot) = &options.slot {
            backup.args(["-C", "-S", slot]);
        }
        self.run_as_owner(&backup)?;
        for (name, value) in &options.settings {
            standby.append_conf(&format!("{name} = '{}'", value.replace('\'', "''")))?;
        }
        standby.first_start()
    }

    /// Makes a standby the primary of a new timeline and waits until it accepts
    /// writes.
    ///
    /// # Errors
    /// When it is not a standby, or not promoted within 60 s.
    pub fn promote(&self) -> Result<()> {
        self.psql("postgres", "SELECT pg_promote(false)")?;
        wait_for(
            Duration::from_secs(60),
            format_args!("the standby on port {} to be promoted", self.port),
            || match self.psql("postgres", "SELECT pg_is_in_recovery()") {
                Ok(answer) if answer == "f" => Ok(()),
                Ok(_) => Err("still in recovery".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        )
    }

    /// The newest position this server has: written by a primary, replayed by a
    /// standby, as PostgreSQL words it (`0/16B3740`).
    ///
    /// # Errors
    /// As [`Postgres::psql`].
    pub fn current_lsn(&self) -> Result<String> {
        self.psql(
            "postgres",
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
             ELSE pg_current_wal_lsn() END",
        )
    }

    /// Waits until a standby has replayed at least up to `lsn`.
    ///
    /// # Errors
    /// When it has not within `timeout`; the text says where it is.
    pub fn wait_for_replay(&self, lsn: &str, timeout: Duration) -> Result<()> {
        wait_for(
            timeout,
            format_args!("the standby on port {} to replay {lsn}", self.port),
            || {
                let sql =
                    format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}', pg_last_wal_replay_lsn()");
                match self.psql("postgres", &sql) {
                    Ok(answer) if answer.starts_with("t|") => Ok(()),
                    Ok(answer) => Err(answer),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
    }
}
