//! What the server must be set to.

use std::collections::BTreeSet;

use rollcall_contract::ConnectorError;

use super::Preflight;
use crate::config::{Flavour, MySqlConfig};
use crate::server::{Head, LogMode};
use crate::wire::Client;

/// A log that is kept for less is gone after an ordinary weekend.
const SHORT_RETENTION_S: u64 = 3 * 24 * 3600;

/// Settings that one query has brought.
pub(super) fn settings(found: &mut Preflight) {
    let server = found.server.clone();
    let name = server.flavour.name();
    let oldest = match server.flavour {
        Flavour::MySql => (8, 0, 0),
        Flavour::MariaDb => (10, 6, 0),
    };
    if server.version < oldest {
        found.error(
            "server_version",
            format!("The server is {name} {}.", server.version_text),
            "Upgrade it: MySQL 8.0 and MariaDB 10.6 are the oldest versions that are supported.",
        );
    } else {
        found.ok("server_version", format!("{name} {}.", server.version_text));
    }
    if server.is_on("log_bin") {
        found.ok("log_bin", "The server writes a binary log.".to_owned());
    } else {
        found.unfollowable(
            "log_bin",
            "The server writes no binary log.".to_owned(),
            "Set log_bin and restart the server (on Amazon RDS: switch automatic backups on).",
        );
    }
    match server.setting("binlog_format") {
        "ROW" | "" => found.ok("binlog_format", "binlog_format is ROW.".to_owned()),
        other => found.unfollowable(
            "binlog_format",
            format!("binlog_format is {other}: the log carries statements in place of rows."),
            "Set binlog_format = ROW and reconnect the application's sessions.",
        ),
    }
    match server.setting("binlog_row_image") {
        "FULL" | "" => found.ok("binlog_row_image", "binlog_row_image is FULL.".to_owned()),
        other => found.warn(
            "binlog_row_image",
            format!(
                "binlog_row_image is {other}: a change carries some columns only, and rows have \
                 to be read again to be complete."
            ),
            "Set binlog_row_image = FULL.",
        ),
    }
    match server.setting("binlog_row_metadata") {
        "FULL" => found.ok(
            "binlog_row_metadata",
            "binlog_row_metadata is FULL.".to_owned(),
        ),
        other => found.warn(
            "binlog_row_metadata",
            format!(
                "binlog_row_metadata is {}: the log does not name its columns, so an ALTER TABLE \
                 that moves them stops the source.",
                if other.is_empty() { "missing" } else { other }
            ),
            "Set binlog_row_metadata = FULL; it holds for what is written from then on.",
        ),
    }
    gtids(found);
    if server.number("server_id") == Some(0) {
        found.unfollowable(
            "server_id",
            "server_id is 0: the server refuses to send its log.".to_owned(),
            "Set server_id to a number that no other server of the group has.",
        );
    }
    for (setting, says) in [
        (
            "binlog_transaction_compression",
            "Transactions are compressed in the log.",
        ),
        ("log_bin_compress", "Events are compressed in the log."),
    ] {
        if server.is_on(setting) {
            found.note(setting, says.to_owned(), "");
        }
    }
    if !server.setting("binlog_row_value_options").is_empty() {
        found.note(
            "binlog_row_value_options",
            "The log carries updates of JSON documents in part.".to_owned(),
            "",
        );
    }
}

fn gtids(found: &mut Preflight) {
    let server = found.server.clone();
    match server.log_mode() {
        LogMode::MySqlGtid => {
            found.ok("gtid_mode", "gtid_mode is ON.".to_owned());
        }
        LogMode::Place => found.warn(
            "gtid_mode",
            format!(
                "gtid_mode is {}: positions are places in this server's files, so a fail-over \
                 costs reading the whole table again.",
                server.setting("gtid_mode")
            ),
            "Set gtid_mode = ON and enforce_gtid_consistency = ON, by the steps of the manual.",
        ),
        LogMode::MariaDbGtid if server.is_on("gtid_strict_mode") => {
            found.ok("gtid_strict_mode", "gtid_strict_mode is ON.".to_owned());
        }
        LogMode::MariaDbGtid => found.warn(
            "gtid_strict_mode",
            "gtid_strict_mode is OFF: the numbers of a domain may be out of order, and then a \
             fail-over may lose changes unnoticed."
                .to_owned(),
            "Set gtid_strict_mode = ON on every server of the group.",
        ),
    }
}

/// How long the log is kept.
pub(super) async fn retention(
    client: &mut Client,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let is_rds = found.server.setting("basedir").contains("/rdsdbbin")
        || !found.server.setting("aurora_version").is_empty();
    if is_rds {
        return rds_retention(client, found).await;
    }
    match found.server.number("binlog_expire_logs_seconds") {
        Some(0) => found.note(
            "binlog_expire_logs_seconds",
            "The log is kept for ever: it can fill the server's disk.".to_owned(),
            "Set binlog_expire_logs_seconds to longer than any outage expected, 604800 (a week) \
             for example.",
        ),
        Some(seconds) if seconds < SHORT_RETENTION_S => found.warn(
            "binlog_expire_logs_seconds",
            format!(
                "The log is kept for {} hours: after a longer outage of this daemon the whole \
                 table is read again.",
                seconds / 3600
            ),
            "Set binlog_expire_logs_seconds to longer than any outage expected, 604800 (a week) \
             for example.",
        ),
        Some(seconds) => found.ok(
            "binlog_expire_logs_seconds",
            format!("The log is kept for {} hours.", seconds / 3600),
        ),
        None => {}
    }
    Ok(())
}

/// Amazon removes a file of the log as soon as its own backup has it, unless told otherwise.
async fn rds_retention(client: &mut Client, found: &mut Preflight) -> Result<(), ConnectorError> {
    let rows = client
        .rows(
            "SELECT value FROM mysql.rds_configuration \
             WHERE name = 'binlog retention hours'",
        )
        .await;
    const FIX: &str = "CALL mysql.rds_set_configuration('binlog retention hours', 168);";
    match rows {
        Ok(rows) => match rows.first().and_then(|row| row.number::<u64>(0)) {
            None => found.unfollowable(
                "binlog_retention_hours",
                "\"binlog retention hours\" is not set: Amazon removes the log at once.".to_owned(),
                FIX,
            ),
            Some(hours) if hours * 3600 < SHORT_RETENTION_S => found.warn(
                "binlog_retention_hours",
                format!("The log is kept for {hours} hours."),
                FIX,
            ),
            Some(hours) => found.ok(
                "binlog_retention_hours",
                format!("The log is kept for {hours} hours."),
            ),
        },
        Err(e) if e.code.is_some() => found.warn(
            "binlog_retention_hours",
            "This is a managed server of Amazon, and how long it keeps the log cannot be seen."
                .to_owned(),
            FIX,
        ),
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

/// What matters when the server is itself a replica.
pub(super) async fn upstream(
    client: &mut Client,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let rows = match client.rows(found.server.replica_status_statement()).await {
        Ok(rows) => rows,
        // Whoever may not see this does not need to; the log has the same in it.
        Err(e) if e.code.is_some() => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if rows.is_empty() {
        return Ok(());
    }
    let server = found.server.clone();
    let is_on = |a: &str, b: &str| server.is_on(a) || server.is_on(b);
    if !is_on("log_replica_updates", "log_slave_updates") {
        found.unfollowable(
            "log_replica_updates",
            "The server is a replica that does not write what it replicates to its own log."
                .to_owned(),
            "Set log_replica_updates = ON (log_slave_updates on MariaDB) and restart it, or give \
             the address of its source.",
        );
    }
    if server.flavour == Flavour::MySql
        && !is_on(
            "replica_preserve_commit_order",
            "slave_preserve_commit_order",
        )
    {
        found.warn(
            "replica_preserve_commit_order",
            "The server is a replica that commits in another order than its source.".to_owned(),
            "Set replica_preserve_commit_order = ON.",
        );
    }
    Ok(())
}

/// Filters that keep databases out of the log.
pub(super) fn filters(config: &MySqlConfig, head: &Head, found: &mut Preflight) {
    let lists = |list: &str, database: &str| {
        list.split(',')
            .any(|name| name.trim().eq_ignore_ascii_case(database))
    };
    let [only, ignored] = &head.filters;
    let databases: BTreeSet<&String> = config.tables().map(|f| &f.table.schema).collect();
    let kept_out: Vec<&String> = databases
        .into_iter()
        .filter(|database| (!only.is_empty() && !lists(only, database)) || lists(ignored, database))
        .collect();
    for database in &kept_out {
        found.unfollowable(
            "binlog_filter",
            format!("The server's filters keep database \"{database}\" out of its log."),
            "Take the database out of binlog-ignore-db, or add it to binlog-do-db, and restart \
             the server.",
        );
    }
    if kept_out.is_empty() && !(only.is_empty() && ignored.is_empty()) {
        found.warn(
            "binlog_filter",
            "The server filters its log by the session's current database: a change that is made \
             out of another one may be missing."
                .to_owned(),
            "Remove binlog-do-db and binlog-ignore-db.",
        );
    }
}
