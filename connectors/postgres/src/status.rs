//! How the source stands, from the server's side.
//!
//! The figures say how far the server believes us to be and what that costs it; the
//! warnings say what will go wrong if nothing is done, while something can still be done.

use std::time::Duration;

use rollcall_contract::{ConnectorError, SourceStatus};
use tokio_postgres::Client;

use crate::config::PostgresConfig;
use crate::lsn::Lsn;
use crate::{query, slot};

/// The restart position may trail the confirmed one by so much without anyone asking why:
/// the server moves it at checkpoints.
const PINNED_BYTES: u64 = 256 << 20;
/// Transactions younger than this do not explain a restart position that stays behind.
const PINNING: Duration = Duration::from_secs(60);

/// Reads the slot and the head of the log.
pub(crate) async fn look(
    client: &Client,
    config: &PostgresConfig,
) -> Result<SourceStatus, ConnectorError> {
    let row = client
        .query_typed_one(
            "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
                      THEN pg_catalog.pg_last_wal_replay_lsn() \
                      ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text, \
                    (SELECT setting::int8 FROM pg_catalog.pg_settings \
                      WHERE name = 'max_slot_wal_keep_size')",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the head of the log"))?;
    let head: Option<Lsn> = row.get::<_, Option<&str>>(0).and_then(|t| t.parse().ok());
    let keep_size_bytes = row
        .get::<_, Option<i64>>(1)
        .and_then(|mib| u64::try_from(mib).ok())
        .map(|mib| mib << 20);
    let mut status = SourceStatus {
        head: head.map(|h| h.to_string()),
        ..SourceStatus::default()
    };
    let Some(found) = slot::read(client, &config.slot).await? else {
        status.warnings.push(format!(
            "The replication slot \"{}\" does not exist.",
            config.slot
        ));
        return Ok(status);
    };
    let since = |at: Option<Lsn>| Some(head?.bytes_since(at?));
    status.lag_bytes = since(found.confirmed());
    status.retained_bytes = since(found.restart());
    status.safe_bytes = found.safe_wal_size.map(|n| u64::try_from(n).unwrap_or(0));
    if let Some(reason) = found.invalidated() {
        status.warnings.push(format!(
            "The server gave up the replication slot \"{}\" ({reason}); the table will be read \
             again.",
            config.slot
        ));
        return Ok(status);
    }
    if found.wal_status.as_deref() == Some("unreserved") {
        status.warnings.push(format!(
            "The log that the slot \"{}\" needs is no longer reserved and may be removed at the \
             next checkpoint: the daemon must catch up now, or max_slot_wal_keep_size be raised.",
            config.slot
        ));
    } else if let (Some(keep), Some(safe)) = (keep_size_bytes, status.safe_bytes)
        && safe < keep / 2
    {
        status.warnings.push(format!(
            "More than half of max_slot_wal_keep_size is used up: {safe} bytes may still be \
             written before the slot \"{}\" is lost.",
            config.slot
        ));
    }
    let pinned = match (found.confirmed(), found.restart()) {
        (Some(confirmed), Some(restart)) => confirmed.bytes_since(restart),
        _ => 0,
    };
    if pinned > PINNED_BYTES {
        for holder in slot::holders(client, PINNING).await? {
            status.warnings.push(format!(
                "A transaction that has been open for {} s ({}, xid {}) makes the server keep \
                 {pinned} bytes of log that were confirmed long ago.",
                holder.age_s, holder.who, holder.xid
            ));
        }
    }
    Ok(status)
}
