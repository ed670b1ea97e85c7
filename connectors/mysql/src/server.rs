//! What the server is: flavour, version, settings, and which of its positions count.
//!
//! Settings are read by name from `SHOW GLOBAL VARIABLES`, so one that a version does not
//! have reads as absent, and nothing is probed by failure. Statements that were renamed
//! are chosen by flavour and version.

use std::collections::HashMap;

use rollcall_binlog::gtid::mariadb::GtidState;
use rollcall_binlog::gtid::mysql::GtidSet;
use rollcall_contract::ConnectorError;

use crate::config::{Flavour, MySqlConfig};
use crate::errors::protocol_violation;
use crate::position::{Gtids, Place};
use crate::wire::{self, Client};

/// The settings that anything here asks for.
const SETTINGS: &[&str] = &[
    "aurora_version",
    "basedir",
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_transaction_compression",
    "enforce_gtid_consistency",
    "gtid_mode",
    "gtid_strict_mode",
    "hostname",
    "innodb_native_foreign_keys",
    "log_bin",
    "log_bin_compress",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "max_allowed_packet",
    "port",
    "replica_preserve_commit_order",
    "server_id",
    "server_uid",
    "server_uuid",
    "slave_preserve_commit_order",
    "sql_mode",
    "version_comment",
];

/// A version in three numbers.
pub(crate) type Version = (u32, u32, u32);

/// The server that answers.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) flavour: Flavour,
    pub(crate) version: Version,
    /// As it spells it.
    pub(crate) version_text: String,
    /// What no other server has: its UUID, or the best that there is.
    pub(crate) identity: String,
    settings: HashMap<String, String>,
}

/// What a position of this server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogMode {
    /// A set of GTIDs.
    MySqlGtid,
    /// A GTID for each domain, and a place.
    MariaDbGtid,
    /// A place only: GTIDs are switched off.
    Place,
}

impl Server {
    /// Asks the server.
    pub(crate) async fn read(client: &mut Client) -> Result<Server, ConnectorError> {
        let (flavour, text) = wire::flavour_of(client.version());
        let (version, version_text) = (parse_version(text), text.to_owned());
        let names: Vec<String> = SETTINGS.iter().map(|s| format!("'{s}'")).collect();
        let rows = client
            .rows(&format!(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})",
                names.join(", ")
            ))
            .await?;
        let settings: HashMap<String, String> = rows
            .iter()
            .filter_map(|row| Some((row.text(0)?.to_ascii_lowercase(), row.text(1)?.to_owned())))
            .collect();
        let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
        let identity = match flavour {
            Flavour::MySql => get("server_uuid").to_owned(),
            // A copied data directory has the same `server_uid`, so the place counts too.
            Flavour::MariaDb => format!(
                "{}/{}/{}:{}",
                get("server_uid"),
                get("server_id"),
                get("hostname"),
                get("port")
            ),
        };
        Ok(Server {
            flavour,
            version,
            version_text,
            identity,
            settings,
        })
    }

    /// A setting; empty when this version does not have it.
    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }

    /// Whether a setting is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        matches!(self.setting(name), "ON" | "1" | "on")
    }

    /// A setting that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.setting(name).parse().ok()
    }

    /// Which position counts.
    pub(crate) fn log_mode(&self) -> LogMode {
        match self.flavour {
            Flavour::MariaDb => LogMode::MariaDbGtid,
            Flavour::MySql if self.setting("gtid_mode") == "ON" => LogMode::MySqlGtid,
            Flavour::MySql => LogMode::Place,
        }
    }

    /// The statement that says where the log stands.
    pub(crate) fn log_status_statement(&self) -> &'static str {
        match self.flavour {
            Flavour::MariaDb => "SHOW BINLOG STATUS",
            Flavour::MySql if self.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            Flavour::MySql => "SHOW MASTER STATUS",
        }
    }

    /// The statement that lists the replicas.
    pub(crate) fn replicas_statement(&self) -> &'static str {
        match self.flavour {
            Flavour::MySql if self.version >= (8, 0, 22) => "SHOW REPLICAS",
            _ => "SHOW SLAVE HOSTS",
        }
    }

    /// The statement that says what this server itself replicates.
    pub(crate) fn replica_status_statement(&self) -> &'static str {
        match self.flavour {
            Flavour::MariaDb => "SHOW ALL SLAVES STATUS",
            Flavour::MySql if self.version >= (8, 0, 22) => "SHOW REPLICA STATUS",
            Flavour::MySql => "SHOW SLAVE STATUS",
        }
    }

    /// Refuses a server of the other flavour: its positions mean something else.
    pub(crate) fn expect(&self, config: &MySqlConfig) -> Result<(), ConnectorError> {
        if self.flavour == config.flavour {
            return Ok(());
        }
        Err(ConnectorError::definite(
            "wrong_flavour",
            format!(
                "{} is {} {}, and the configuration says {}.",
                config.address(),
                self.flavour.name(),
                self.version_text,
                config.flavour.name()
            ),
            format!("Set type = \"{}\" for this source.", self.flavour.as_str()),
        ))
    }
}

fn parse_version(text: &str) -> Version {
    let mut parts = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|p| p.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Where the log of a server stands.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Everything that was committed.
    pub(crate) gtids: Gtids,
    /// The end of the log.
    pub(crate) place: Place,
    /// Databases that are alone in the log, or not in it; empty when there are no filters.
    pub(crate) filters: [String; 2],
}

/// Reads where the log stands. The GTIDs are read before the place, so a transaction that
/// commits in between is behind the former and before the latter.
pub(crate) async fn head(client: &mut Client, server: &Server) -> Result<Head, ConnectorError> {
    let gtids = executed(client, server).await?;
    let rows = client.rows(server.log_status_statement()).await?;
    let Some(row) = rows.first() else {
        return Err(ConnectorError::definite(
            "log_bin",
            "The server writes no binary log.",
            "Set log_bin and restart the server.",
        ));
    };
    let position = row
        .number(1)
        .ok_or_else(|| protocol_violation("a position that is no number"))?;
    let place = Place::new(&server.identity, row.need(0)?, position);
    let filter = |column| row.text(column).unwrap_or_default().to_owned();
    Ok(Head {
        gtids,
        place,
        filters: [filter(2), filter(3)],
    })
}

/// The transactions that were committed.
pub(crate) async fn executed(
    client: &mut Client,
    server: &Server,
) -> Result<Gtids, ConnectorError> {
    Ok(match server.log_mode() {
        LogMode::Place => Gtids::None,
        LogMode::MySqlGtid => {
            Gtids::MySql(gtid_set(client, "SELECT @@global.gtid_executed").await?)
        }
        LogMode::MariaDbGtid => {
            Gtids::MariaDb(gtid_state(client, "SELECT @@global.gtid_binlog_pos").await?)
        }
    })
}

/// Prepares a session for snapshots.
pub(crate) const SNAPSHOTS: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
/// Takes one.
pub(crate) const SNAPSHOT: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// MariaDB: where in the log the open snapshot was taken.
pub(crate) async fn snapshot_place(
    client: &mut Client,
    server: &Server,
) -> Result<Place, ConnectorError> {
    let rows = client
        .rows("SHOW SESSION STATUS LIKE 'binlog_snapshot_%'")
        .await?;
    let get = |name: &str| {
        rows.iter()
            .find(|row| row.text(0).is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .and_then(|row| row.text(1))
    };
    let file = get("binlog_snapshot_file").filter(|file| !file.is_empty());
    let position = get("binlog_snapshot_position").and_then(|p| p.parse().ok());
    match (file, position) {
        (Some(file), Some(position)) => Ok(Place::new(&server.identity, file, position)),
        _ => Err(ConnectorError::definite(
            "snapshot_unreadable",
            "The server does not say at which place of its log a snapshot was taken.",
            "Set log_bin and restart the server.",
        )),
    }
}

/// The server's clock, for people.
pub(crate) async fn clock(client: &mut Client) -> Result<String, ConnectorError> {
    let row = client
        .row("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')")
        .await?;
    Ok(row.need(0)?.to_owned())
}

/// Reads a set of MySQL's GTIDs.
pub(crate) async fn gtid_set(client: &mut Client, sql: &str) -> Result<GtidSet, ConnectorError> {
    let row = client.row(sql).await?;
    row.text(0)
        .unwrap_or_default()
        .parse()
        .map_err(|e| protocol_violation(format_args!("a GTID set that cannot be read ({e})")))
}

/// Reads a state of MariaDB's GTIDs.
pub(crate) async fn gtid_state(
    client: &mut Client,
    sql: &str,
) -> Result<GtidState, ConnectorError> {
    let row = client.row(sql).await?;
    row.text(0)
        .unwrap_or_default()
        .parse()
        .map_err(|e| protocol_violation(format_args!("a GTID state that cannot be read ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("8.0.36-28-Percona"), (8, 0, 36));
        assert_eq!(parse_version("10.11.19-MariaDB-0+deb12u1"), (10, 11, 19));
        assert!(parse_version("9.7.0") > parse_version("8.4.3"));
    }
}
