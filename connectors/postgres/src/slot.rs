//! The life of the replication slot, and what its state proves.
//!
//! A slot is trusted only together with a cursor of ours. One that exists while the store
//! knows no position was left by a start that died in between, or made by somebody else:
//! where it stands says nothing about what we have read, so it is dropped and made anew,
//! never adopted. One that the server has given up, or that somebody moved past our
//! cursor, no longer has what comes next. One that is behind our cursor is normal: the
//! server persists confirmations late, and what it sends twice is left out by position.
//!
//! Rows are read as JSON, because each major version has other columns; a column that a
//! version does not have reads as absent.

use std::time::Duration;

use rollcall_contract::{ConnectorError, GapReason};
use serde::Deserialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use crate::lsn::Lsn;
use crate::query;

/// How long a session that holds our slot may go on before it is ended: as long as a
/// server needs to notice that its client has died.
const TAKE_OVER_GRACE: Duration = Duration::from_secs(5);
/// How long to wait for a session that was told to end.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

/// One row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct SlotRow {
    pub(crate) plugin: Option<String>,
    pub(crate) slot_type: String,
    pub(crate) database: Option<String>,
    pub(crate) active: bool,
    pub(crate) active_pid: Option<i32>,
    pub(crate) restart_lsn: Option<String>,
    pub(crate) confirmed_flush_lsn: Option<String>,
    pub(crate) wal_status: Option<String>,
    pub(crate) safe_wal_size: Option<i64>,
    /// 16 and above.
    pub(crate) conflicting: Option<bool>,
    /// 17 and above.
    pub(crate) invalidation_reason: Option<String>,
    /// 17 and above.
    pub(crate) failover: Option<bool>,
}

impl SlotRow {
    pub(crate) fn restart(&self) -> Option<Lsn> {
        self.restart_lsn.as_deref()?.parse().ok()
    }

    pub(crate) fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn.as_deref()?.parse().ok()
    }

    /// Why the server gave the slot up; `None` while it can still be read.
    pub(crate) fn invalidated(&self) -> Option<String> {
        if let Some(reason) = &self.invalidation_reason {
            return Some(reason.clone());
        }
        if self.conflicting == Some(true) {
            return Some("it conflicted with recovery".to_owned());
        }
        if self.wal_status.as_deref() == Some("lost") {
            return Some("the log that it needs was removed (max_slot_wal_keep_size)".to_owned());
        }
        // A slot that is just being created has no position either, but it is active.
        if self.restart_lsn.is_none() && !self.active {
            return Some("it has no position".to_owned());
        }
        None
    }
}

/// Reads the slot's row.
pub(crate) async fn read<C: GenericClient>(
    client: &C,
    slot: &str,
) -> Result<Option<SlotRow>, ConnectorError> {
    let row = client
        .query_typed_opt(
            "SELECT pg_catalog.to_jsonb(s)::text FROM pg_catalog.pg_replication_slots s \
             WHERE s.slot_name = $1",
            &[(&slot, Type::NAME)],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the replication slot"))?;
    row.map(|row| {
        serde_json::from_str(row.get(0)).map_err(|e| {
            ConnectorError::definite(
                "slot_unreadable",
                format!("The row of slot \"{slot}\" in pg_replication_slots cannot be read: {e}."),
                "This version of PostgreSQL is not supported; check with a newer Rollcall.",
            )
        })
    })
    .transpose()
}

/// What the slot's row proves about a position of ours. `None`: everything behind the
/// position is still to come. Otherwise why not, and the sentence.
///
/// # Errors
/// Definite, when the name is taken by a slot that is not ours to touch.
pub(crate) fn judge(
    name: &str,
    database: &str,
    row: Option<&SlotRow>,
    cursor: Lsn,
) -> Result<Option<(GapReason, String)>, ConnectorError> {
    let Some(row) = row else {
        return Ok(Some((
            GapReason::PositionLost,
            format!(
                "The replication slot \"{name}\" no longer exists; a new one is made and \
                 everything is read again."
            ),
        )));
    };
    ours(name, database, row)?;
    if let Some(reason) = row.invalidated() {
        return Ok(Some((
            GapReason::SlotInvalidated,
            format!(
                "The server gave up the replication slot \"{name}\" ({reason}); a new one is \
                 made and everything is read again."
            ),
        )));
    }
    match row.confirmed() {
        Some(confirmed) if confirmed <= cursor => Ok(None),
        Some(confirmed) => Ok(Some((
            GapReason::SlotAdvanced,
            format!(
                "The replication slot \"{name}\" stands at {confirmed}, behind the stored \
                 position {cursor}: something else read, moved or recreated it."
            ),
        ))),
        None => Ok(Some((
            GapReason::SlotInvalidated,
            format!("The replication slot \"{name}\" has no confirmed position."),
        ))),
    }
}

/// Refuses a slot of another kind or database.
pub(crate) fn ours(name: &str, database: &str, row: &SlotRow) -> Result<(), ConnectorError> {
    let plugin = row.plugin.as_deref().unwrap_or("none");
    if row.slot_type == "logical"
        && plugin == "pgoutput"
        && row.database.as_deref() == Some(database)
    {
        return Ok(());
    }
    Err(ConnectorError::definite(
        "slot_not_ours",
        format!(
            "The slot \"{name}\" is a {} slot with plugin {plugin} of database \"{}\"; a logical \
             slot with pgoutput of \"{database}\" is needed.",
            row.slot_type,
            row.database.as_deref().unwrap_or("none"),
        ),
        "Choose another slot name in the configuration.",
    ))
}

/// Waits until nobody reads the slot. A session of our own role that does not end by
/// itself (its client died without a word) is ended; one of another role never.
///
/// # Errors
/// Transient, when the slot is still in use after that.
pub(crate) async fn release(client: &Client, slot: &str) -> Result<(), ConnectorError> {
    if idle_within(client, slot, TAKE_OVER_GRACE).await? {
        return Ok(());
    }
    let ended = client
        .query(
            "SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid) \
             FROM pg_catalog.pg_replication_slots s \
             JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid \
             WHERE s.slot_name = $1 AND a.usename = current_user",
            &[&slot],
        )
        .await
        .map_err(|e| query::failed(&e, "ending the session that holds the slot"))?;
    for row in &ended {
        tracing::warn!(
            slot,
            pid = row.get::<_, i32>(0),
            "ended the session of this role that still held the replication slot"
        );
    }
    if idle_within(client, slot, TAKE_OVER_WAIT).await? {
        return Ok(());
    }
    Err(ConnectorError::transient(
        "slot_in_use",
        format!("The replication slot \"{slot}\" is being read by another session."),
    ))
}

async fn idle_within(client: &Client, slot: &str, limit: Duration) -> Result<bool, ConnectorError> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        match read(client, slot).await? {
            Some(row) if row.active => {}
            _ => return Ok(true),
        }
        if tokio::time::Instant::now() >= end {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Drops the slot, if there is one; it must be [`ours`] and idle.
pub(crate) async fn drop_if_exists(client: &Client, slot: &str) -> Result<(), ConnectorError> {
    client
        .query(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await
        .map(drop)
        .map_err(|e| query::failed(&e, "dropping the replication slot"))
}

/// Somebody's transaction that holds back the slot's creation or its restart position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// `pid 123` or `prepared transaction "x"`.
    pub(crate) who: String,
    /// Its transaction id.
    pub(crate) xid: String,
    pub(crate) age_s: i64,
}

/// Transactions that write and have been open for at least so long, oldest first.
pub(crate) async fn holders<C: GenericClient>(
    client: &C,
    older_than: Duration,
) -> Result<Vec<Holder>, ConnectorError> {
    let seconds = older_than.as_secs_f64();
    let rows = client
        .query(
            "SELECT who, xid, age::int8 FROM ( \
                 SELECT 'pid ' || pid AS who, backend_xid::text AS xid, \
                        extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8 AS age \
                 FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL \
                 UNION ALL \
                 SELECT 'prepared transaction ' || pg_catalog.quote_literal(gid), \
                        transaction::text, \
                        extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8 \
                 FROM pg_catalog.pg_prepared_xacts) t \
             WHERE age >= $1 ORDER BY age DESC LIMIT 5",
            &[&seconds],
        )
        .await
        .map_err(|e| query::failed(&e, "looking for long transactions"))?;
    Ok(rows
        .iter()
        .map(|row| Holder {
            who: row.get(0),
            xid: row.get(1),
            age_s: row.get(2),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use super::*;

    fn good() -> SlotRow {
        SlotRow {
            plugin: Some("pgoutput".to_owned()),
            slot_type: "logical".to_owned(),
            database: Some("hr".to_owned()),
            restart_lsn: Some("0/100".to_owned()),
            confirmed_flush_lsn: Some("0/200".to_owned()),
            wal_status: Some("reserved".to_owned()),
            ..SlotRow::default()
        }
    }

    fn reason(row: Option<&SlotRow>, cursor: u64) -> Option<GapReason> {
        judge("s", "hr", row, Lsn(cursor)).unwrap().map(|(r, _)| r)
    }

    #[test]
    fn only_a_living_slot_at_or_before_the_cursor_goes_on() {
        assert_eq!(reason(Some(&good()), 0x200), None);
        assert_eq!(reason(Some(&good()), 0x300), None);
        assert_eq!(reason(Some(&good()), 0x1FF), Some(GapReason::SlotAdvanced));
        assert_eq!(reason(None, 0x200), Some(GapReason::PositionLost));
        let broken: [fn(&mut SlotRow); 4] = [
            |s| s.wal_status = Some("lost".to_owned()),
            |s| s.restart_lsn = None,
            |s| s.conflicting = Some(true),
            |s| s.invalidation_reason = Some("idle_timeout".to_owned()),
        ];
        for change in broken {
            let mut row = good();
            change(&mut row);
            assert_eq!(reason(Some(&row), 0x200), Some(GapReason::SlotInvalidated));
        }
    }

    #[test]
    fn a_slot_of_somebody_else_is_refused_not_dropped() {
        let foreign: [fn(&mut SlotRow); 3] = [
            |s| s.plugin = Some("wal2json".to_owned()),
            |s| s.database = Some("crm".to_owned()),
            |s| {
                s.slot_type = "physical".to_owned();
                s.plugin = None;
            },
        ];
        for change in foreign {
            let mut row = good();
            change(&mut row);
            let error = judge("s", "hr", Some(&row), Lsn(0x200)).unwrap_err();
            assert_eq!(error.code(), "slot_not_ours");
        }
    }
}
