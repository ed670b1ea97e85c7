//! Physical standbys, for fail-over and restore.
//!
//! `pg_basebackup -R` writes `standby.signal` and `primary_conninfo`; the conninfo
//! names a database too, without which PostgreSQL 17 and newer cannot
//! synchronize fail-over slots. The standby inherits the primary's whole
//! configuration; its own address is appended and so overrides it.

use std::time::Duration;

use super::Postgres;
use crate::error::Result;
use crate::process::tail;
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

    /// One attempt to bring a fail-over slot of this primary to a standby, ready for a
    /// promotion (PostgreSQL 17 and newer; the standby needs `hot_standby_feedback`).
    ///
    /// A synchronized slot stays only if the standby can still decode from where the slot
    /// on the primary stands (`update_and_persist_local_synced_slot`, `slotsync.c`): its
    /// `catalog_xmin` must not precede the next transaction that the standby knows of, and
    /// what the client confirmed must have reached the standby. Anything else makes a
    /// temporary slot that is gone again when the call returns. So the horizon of the
    /// primary's slot is moved first, by a snapshot of running transactions in the log
    /// that the client then confirms, and **nothing may write meanwhile**: each new
    /// transaction puts the standby ahead again. Call it until it succeeds.
    ///
    /// # Errors
    /// What is still missing, with both servers' slots and the end of the standby's log.
    pub fn try_sync_slot(&self, standby: &Postgres, slot: &str) -> std::result::Result<(), String> {
        let missing = |what: &str| {
            const SLOTS: &str = "SELECT to_jsonb(s) FROM pg_replication_slots s";
            let slots = |server: &Postgres| match server.psql("postgres", SLOTS) {
                Ok(rows) => rows,
                Err(error) => error.to_string(),
            };
            format!(
                "{what}\nslots of the primary:\n{}\nslots of the standby:\n{}\nlog of the standby:\n{}",
                slots(self),
                slots(standby),
                tail(&standby.log())
            )
        };
        let horizon = format!(
            "SELECT catalog_xmin::text::bigint >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint \
             FROM pg_replication_slots WHERE slot_name = '{slot}'"
        );
        let moved = self
            .psql("postgres", "SELECT pg_log_standby_snapshot()")
            .and_then(|_| self.psql("postgres", &horizon));
        match moved.as_deref() {
            Ok("t") => {}
            Ok(_) => return Err(missing("the slot's horizon precedes the next transaction")),
            Err(error) => return Err(missing(&error.to_string())),
        }
        let sync = format!(
            "SELECT FROM (SELECT pg_sync_replication_slots()) s;
             SELECT pg_is_in_recovery() AND synced AND NOT temporary AND invalidation_reason IS NULL
             FROM pg_replication_slots WHERE slot_name = '{slot}'"
        );
        let synced = self
            .current_lsn()
            .and_then(|head| standby.wait_for_replay(&head, Duration::from_secs(10)))
            .and_then(|()| standby.psql("postgres", &sync));
        match synced.as_ref().map(|answer| answer.trim()) {
            Ok("t") => Ok(()),
            Ok(answer) => Err(missing(&format!("not synchronized: {answer:?}"))),
            Err(error) => Err(missing(&error.to_string())),
        }
    }
}
