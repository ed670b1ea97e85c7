//! What the server's errors mean here: one table, from its number to what follows.
//!
//! The server's words are quoted only for numbers whose texts name objects, accounts,
//! settings and positions. All other texts may quote a value of a row, so these errors
//! carry their number alone.

use std::fmt;

use rollcall_contract::{ConnectorError, GapReason};

/// A failed command, with what it means for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MySqlError {
    /// What the daemon is told.
    pub(crate) error: ConnectorError,
    /// When set, the position cannot be continued: opening again has to record this gap.
    pub(crate) gap: Option<GapReason>,
    /// The server's number; none when it was not the server that refused.
    pub(crate) code: Option<u16>,
}

impl fmt::Display for MySqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for MySqlError {}

impl From<MySqlError> for ConnectorError {
    fn from(e: MySqlError) -> ConnectorError {
        e.error
    }
}

impl From<ConnectorError> for MySqlError {
    fn from(error: ConnectorError) -> MySqlError {
        MySqlError {
            error,
            gap: None,
            code: None,
        }
    }
}

enum Then {
    /// An operator has to do this.
    Definite(&'static str),
    /// Time mends it.
    Transient,
    /// Opening again finds out, and records this gap.
    Gap(GapReason),
}

struct Rule {
    numbers: &'static [u16],
    /// A part of the server's words that must be there too, whatever its case; empty for
    /// any.
    says: &'static str,
    code: &'static str,
    sentence: &'static str,
    then: Then,
}

const fn rule(
    numbers: &'static [u16],
    says: &'static str,
    code: &'static str,
    sentence: &'static str,
    then: Then,
) -> Rule {
    Rule {
        numbers,
        says,
        code,
        sentence,
        then,
    }
}

/// The server could not go on with the log: the reason is in its words only.
const LOG: &[u16] = &[1236];

/// The first rule that fits counts. Numbers: MySQL "Server Error Message Reference",
/// MariaDB "Error Codes".
const RULES: &[Rule] = &[
    rule(
        &[1045],
        "using password: no",
        "password_missing",
        "The server asks for the account's password, and the configuration has none.",
        Then::Definite("Set `password` in the configuration to a secret."),
    ),
    rule(
        &[1045, 1698],
        "",
        "password_rejected",
        "The server rejected the account or its password.",
        Then::Definite(
            "Set the account's password, and the secret that the configuration refers to, to the \
             same value; an account is a name together with the host that it may come from.",
        ),
    ),
    rule(
        &[3159, 3955, 1524],
        "",
        "not_authorized",
        "The server does not let this account in this way.",
        Then::Definite(
            "Set `tls` for this source as the server asks, or the account's plugin and state as \
             the script of `rollcall check` has them.",
        ),
    ),
    rule(
        &[1130, 1129, 1820, 1862, 3118, 4151],
        "",
        "not_authorized",
        "The server does not let this account in from here.",
        Then::Definite(
            "Create the account for this host, unlock it, and give it a password that has not \
             expired; after many failed attempts, FLUSH HOSTS.",
        ),
    ),
    rule(
        &[1044, 1142, 1143, 1227, 1370],
        "",
        "missing_grant",
        "The account lacks a privilege.",
        Then::Definite("Grant what `rollcall check` prints in its script."),
    ),
    rule(
        &[1049],
        "",
        "no_such_schema",
        "The database does not exist.",
        Then::Definite("Correct `table` in the configuration."),
    ),
    rule(
        &[1146],
        "",
        "no_such_table",
        "The table does not exist.",
        Then::Definite("Correct `table` in the configuration; names may be case sensitive."),
    ),
    rule(
        &[1054],
        "",
        "no_such_column",
        "A column does not exist.",
        Then::Transient,
    ),
    rule(
        &[1412],
        "",
        "table_changed",
        "The table's definition changed while it was read.",
        Then::Transient,
    ),
    rule(
        &[1040, 1203, 1226],
        "",
        "connections_full",
        "The server has no free connection for this account.",
        Then::Transient,
    ),
    rule(
        &[
            1053, 1927, 3169, 1317, 1077, 1152, 1158, 1159, 1160, 1161, 4031,
        ],
        "",
        "server_shutdown",
        "The server ended the connection: it is shutting down, or an administrator did.",
        Then::Transient,
    ),
    rule(
        &[1205, 1213, 3572],
        "",
        "conflict",
        "The command waited too long for a lock.",
        Then::Transient,
    ),
    rule(
        &[3024, 1969],
        "",
        "cancelled",
        "The server cancelled the command because of its run time.",
        Then::Transient,
    ),
    rule(
        &[1021, 1037, 1041, 1135],
        "",
        "server_resources",
        "The server lacks resources.",
        Then::Transient,
    ),
    rule(
        &[1373],
        "",
        "log_removed",
        "The server no longer has the log at our position.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        LOG,
        "could not find first log",
        "log_removed",
        "The server no longer has the log at our position.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        LOG,
        "purged",
        "log_removed",
        "The server has purged transactions that were not read yet.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        LOG,
        "has more gtids than",
        "diverged",
        "The server lacks transactions that were applied here.",
        Then::Gap(GapReason::TimelineDiverged),
    ),
    rule(
        LOG,
        "which is not in the",
        "diverged",
        "The server's log does not have the transaction that was applied last.",
        Then::Gap(GapReason::TimelineDiverged),
    ),
    rule(
        LOG,
        "since it was diverged",
        "diverged",
        "The server's log does not have the transaction that was applied last.",
        Then::Gap(GapReason::TimelineDiverged),
    ),
    rule(
        LOG,
        "position > file size",
        "position_beyond_end",
        "The server's log ends before our position.",
        Then::Gap(GapReason::Restored),
    ),
    rule(
        LOG,
        "from impossible position",
        "position_beyond_end",
        "The server's log ends before our position.",
        Then::Gap(GapReason::Restored),
    ),
    rule(
        LOG,
        "misconfigured master",
        "not_a_source",
        "The server does not write a log that can be read.",
        Then::Definite("Set log_bin and server_id, and restart the server."),
    ),
    rule(
        LOG,
        "binary log is not open",
        "not_a_source",
        "The server does not write a log.",
        Then::Definite("Set log_bin and server_id, and restart the server."),
    ),
    rule(
        &[4052],
        "",
        "replica_clash",
        "Another reader with the same id took the log over.",
        Then::Transient,
    ),
    rule(
        LOG,
        "same server_uuid/server_id",
        "replica_clash",
        "Another reader with the same id took the log over.",
        Then::Transient,
    ),
    rule(
        LOG,
        "same server_id",
        "replica_clash",
        "Another reader with the same id took the log over.",
        Then::Transient,
    ),
    rule(
        LOG,
        "max_allowed_packet",
        "event_too_large",
        "The log has an event that is larger than the server's max_allowed_packet.",
        Then::Definite("Raise max_allowed_packet on the server to 1G."),
    ),
    rule(
        LOG,
        "log event entry exceeded",
        "event_too_large",
        "The log has an event that is larger than the server's max_allowed_packet.",
        Then::Definite("Raise max_allowed_packet on the server to 1G."),
    ),
    rule(
        LOG,
        "checksum",
        "log_damaged",
        "The server found an event of its log damaged.",
        Then::Definite(
            "Look at the server's disk; begin again behind the damage with RESET BINARY LOGS, \
             or on another server of the group.",
        ),
    ),
    rule(
        LOG,
        "bogus data in log event",
        "log_damaged",
        "The server found an event of its log damaged.",
        Then::Definite("Look at the server's disk, or read from another server of the group."),
    ),
    rule(
        LOG,
        "",
        "log_unreadable",
        "The server cannot go on with the log.",
        Then::Transient,
    ),
    rule(
        &[1064, 1149, 1193, 1047, 1235, 1295],
        "",
        "command_refused",
        "The server does not know this command or setting.",
        Then::Definite(
            "Connect to MySQL 8.0 or MariaDB 10.6 or newer itself, not to a proxy; if it is one, \
             report this with the server's version.",
        ),
    ),
];

/// Numbers whose words name objects, accounts, settings and positions, never values of rows.
const QUOTABLE: &[u16] = &[
    1040, 1044, 1045, 1049, 1053, 1129, 1130, 1142, 1143, 1146, 1193, 1203, 1205, 1213, 1226, 1227,
    1236, 1373, 1412, 1524, 1698, 1820, 1862, 1927, 3118, 3159, 3955, 4151,
];

/// Says what an error of the server means.
pub(crate) fn from_server(number: u16, message: &str) -> MySqlError {
    let lower = message.to_ascii_lowercase();
    let found = RULES
        .iter()
        .find(|r| r.numbers.contains(&number) && lower.contains(r.says));
    let words = if QUOTABLE.contains(&number) && !message.is_empty() {
        format!(
            " The server says: {} (error {number}).",
            message.trim_end_matches('.')
        )
    } else {
        format!(" (error {number})")
    };
    let (error, gap) = match found {
        Some(r) => {
            let sentence = format!("{}{words}", r.sentence);
            match r.then {
                Then::Definite(fix) => (ConnectorError::definite(r.code, sentence, fix), None),
                Then::Transient => (ConnectorError::transient(r.code, sentence), None),
                Then::Gap(reason) => (ConnectorError::transient(r.code, sentence), Some(reason)),
            }
        }
        None => (
            ConnectorError::definite(
                "server_error",
                format!("The server refused the command.{words}"),
                "See the server's log for its reason.",
            ),
            None,
        ),
    };
    MySqlError {
        error,
        gap,
        code: Some(number),
    }
}

/// The contract's form of a TLS failure.
pub(crate) fn from_tls(error: rollcall_transport::TlsError) -> ConnectorError {
    ConnectorError::definite(error.code, error.sentence, error.fix)
}

/// A failure of the socket or of TLS on it.
pub(crate) fn from_io(host: &str, what: &str, error: &std::io::Error) -> MySqlError {
    if let Some(tls) = rollcall_transport::explain(host, error) {
        return from_tls(tls).into();
    }
    ConnectorError::transient("connection_lost", format!("{what} {host} failed: {error}.")).into()
}

/// The peer does not speak the protocol as documented. Never quotes what it sent.
pub(crate) fn protocol_violation(what: impl fmt::Display) -> ConnectorError {
    ConnectorError::definite(
        "protocol_violation",
        format!("The server sent what the protocol does not allow: {what}."),
        "Connect to MySQL 8.0 or MariaDB 10.6 or newer itself; if it is one, report this with \
         the server's version.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_an_operator_may_cause_has_its_own_sentence() {
        use GapReason::*;
        for (number, message, code, transient, gap) in [
            (
                1045,
                "Access denied for user 'r'@'h' (using password: NO)",
                "password_missing",
                false,
                None,
            ),
            (
                1045,
                "Access denied for user 'r'@'h' (using password: YES)",
                "password_rejected",
                false,
                None,
            ),
            (
                1227,
                "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s)",
                "missing_grant",
                false,
                None,
            ),
            (1040, "Too many connections", "connections_full", true, None),
            (
                1412,
                "Table definition has changed",
                "table_changed",
                true,
                None,
            ),
            (
                1236,
                "Could not find first log file name in binary log index file",
                "log_removed",
                true,
                Some(PositionLost),
            ),
            (
                1236,
                "Cannot replicate because the source purged required binary logs.",
                "log_removed",
                true,
                Some(PositionLost),
            ),
            (
                1236,
                "Slave has more GTIDs than the master has, using the master's SERVER_UUID.",
                "diverged",
                true,
                Some(TimelineDiverged),
            ),
            (
                1236,
                "Error: connecting slave requested to start from GTID 0-1-9, which is not in the \
                 master's binlog",
                "diverged",
                true,
                Some(TimelineDiverged),
            ),
            (
                1236,
                "Client requested master to start replication from position > file size",
                "position_beyond_end",
                true,
                Some(Restored),
            ),
            (
                1236,
                "A replica with the same server_uuid/server_id as this replica has connected to \
                 the source",
                "replica_clash",
                true,
                None,
            ),
            (
                1236,
                "log event entry exceeded max_allowed_packet; Increase max_allowed_packet",
                "event_too_large",
                false,
                None,
            ),
            (1236, "something new", "log_unreadable", true, None),
        ] {
            let e = from_server(number, message);
            assert_eq!(e.error.code(), code, "{message}");
            assert_eq!(e.error.is_transient(), transient, "{message}");
            assert_eq!(e.gap, gap, "{message}");
        }
    }

    #[test]
    fn texts_that_may_quote_a_value_are_not_repeated() {
        for number in [1062, 1064, 1292, 1366, 1406] {
            let error = from_server(number, "Duplicate entry 'secret' for key").error;
            assert!(!error.to_string().contains("secret"), "{number}");
        }
    }
}
