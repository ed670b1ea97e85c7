//! What the server's errors mean here: one table, from SQLSTATE to what follows.
//!
//! Messages of the server are quoted only for the classes in which they name objects and
//! settings (connection, authorization, missing objects, limits, state). The texts of all
//! other classes may quote a value of a row, so these errors carry their code alone.

use std::fmt;

use rollcall_contract::{ConnectorError, GapReason};

/// A failed command, with what it means for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgError {
    /// What the daemon is told.
    pub error: ConnectorError,
    /// When set, the position cannot be continued: opening again has to record this gap.
    pub gap: Option<GapReason>,
    /// The server's code; none when it was not the server that refused.
    pub sqlstate: Option<String>,
}

impl PgError {
    /// Whether the server answered with this code.
    pub fn is(&self, sqlstate: &str) -> bool {
        self.sqlstate.as_deref() == Some(sqlstate)
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for PgError {}

impl From<PgError> for ConnectorError {
    fn from(e: PgError) -> ConnectorError {
        e.error
    }
}

impl From<ConnectorError> for PgError {
    fn from(error: ConnectorError) -> PgError {
        PgError {
            error,
            gap: None,
            sqlstate: None,
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
    /// The whole SQLSTATE, or its class (the first two characters).
    state: &'static str,
    /// A part of the untranslated message that must be there too; empty for any.
    says: &'static str,
    code: &'static str,
    sentence: &'static str,
    then: Then,
}

const fn rule(
    state: &'static str,
    says: &'static str,
    code: &'static str,
    sentence: &'static str,
    then: Then,
) -> Rule {
    Rule {
        state,
        says,
        code,
        sentence,
        then,
    }
}

/// The first rule that fits counts. Codes: PostgreSQL documentation, appendix A.
const RULES: &[Rule] = &[
    rule(
        "28P01",
        "",
        "password_rejected",
        "The server rejected the password of the role.",
        Then::Definite(
            "Set the role's password, and the secret that the configuration refers to, to the same value.",
        ),
    ),
    rule(
        "28000",
        "channel binding",
        "channel_binding_failed",
        "The TLS connection does not end at the server that checks the password.",
        Then::Definite(
            "Connect to the server itself: something in between ends TLS with a certificate of its own.",
        ),
    ),
    rule(
        "28000",
        "",
        "not_authorized",
        "The server does not let this role in from here.",
        Then::Definite(
            "Add a line for this role, database and address to pg_hba.conf (hostssl for an encrypted connection) and reload, or give the role LOGIN.",
        ),
    ),
    rule(
        "3D000",
        "",
        "no_such_database",
        "The database does not exist.",
        Then::Definite("Correct `database` in the configuration."),
    ),
    rule(
        "3F000",
        "",
        "no_such_schema",
        "The schema does not exist.",
        Then::Definite("Correct `table` in the configuration."),
    ),
    rule(
        "42P01",
        "",
        "no_such_table",
        "The table does not exist.",
        Then::Definite("Correct `table` in the configuration, or grant USAGE on its schema."),
    ),
    rule(
        "42703",
        "",
        "no_such_column",
        "A column does not exist.",
        Then::Definite("Correct the column in the configuration."),
    ),
    rule(
        "42501",
        "",
        "missing_grant",
        "The role lacks a privilege.",
        Then::Definite(
            "Grant what `rollcall check` prints in its script: LOGIN and REPLICATION for the role, USAGE on the schema, SELECT on the table.",
        ),
    ),
    rule(
        "53400",
        "",
        "slots_full",
        "All replication slots of the server are in use.",
        Then::Definite(
            "Raise max_replication_slots and restart the server, or drop a slot that nobody uses.",
        ),
    ),
    rule(
        "53300",
        "",
        "connections_full",
        "The server has no free connection, or no free walsender.",
        Then::Transient,
    ),
    rule(
        "53100",
        "",
        "server_disk_full",
        "The server's disk is full.",
        Then::Transient,
    ),
    rule(
        "53",
        "",
        "server_resources",
        "The server lacks resources.",
        Then::Transient,
    ),
    rule(
        "55006",
        "",
        "slot_busy",
        "The replication slot is in use by another connection.",
        Then::Transient,
    ),
    rule(
        "55000",
        "wal_level",
        "wal_level",
        "The server does not write the log that logical replication needs.",
        Then::Definite("Set wal_level = logical and restart the server."),
    ),
    rule(
        "55000",
        "no longer get changes",
        "slot_invalidated",
        "The server invalidated the replication slot.",
        Then::Gap(GapReason::SlotInvalidated),
    ),
    rule(
        "55000",
        "no longer access",
        "slot_invalidated",
        "The server invalidated the replication slot.",
        Then::Gap(GapReason::SlotInvalidated),
    ),
    rule(
        "55000",
        "invalidated",
        "slot_invalidated",
        "The server invalidated the replication slot.",
        Then::Gap(GapReason::SlotInvalidated),
    ),
    rule(
        "58P01",
        "has already been removed",
        "log_removed",
        "The server has removed the log at our position.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        "55000",
        "",
        "wrong_state",
        "The server is not in a state that allows this.",
        Then::Definite(
            "See the server's own words; `rollcall check` looks at every setting that is needed.",
        ),
    ),
    rule(
        "42710",
        "",
        "already_exists",
        "The object exists already.",
        Then::Definite("Drop it when nobody uses it, or name another one in the configuration."),
    ),
    rule(
        "42704",
        "publication",
        "publication_missing",
        "The publication does not exist at this position of the log.",
        Then::Gap(GapReason::PublicationChanged),
    ),
    rule(
        "42704",
        "replication slot",
        "slot_missing",
        "The replication slot does not exist.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        "42704",
        "",
        "object_missing",
        "The slot, or the publication, does not exist at this position of the log.",
        Then::Gap(GapReason::PositionLost),
    ),
    rule(
        "42601",
        "",
        "command_refused",
        "The server does not know this command.",
        Then::Definite("Connect to PostgreSQL 13 or newer itself, not to a pooler."),
    ),
    rule(
        "08P01",
        "",
        "protocol_refused",
        "The peer does not accept a replication connection.",
        Then::Definite("Connect to the server itself: poolers do not pass replication on."),
    ),
    rule(
        "0A000",
        "",
        "not_supported",
        "The server does not support this.",
        Then::Definite("Connect to PostgreSQL 13 or newer itself, not to a pooler."),
    ),
    rule(
        "57014",
        "",
        "cancelled",
        "The server cancelled the command.",
        Then::Transient,
    ),
    rule(
        "57P01",
        "",
        "server_shutdown",
        "The server ended the connection: it is shutting down, or an administrator did.",
        Then::Transient,
    ),
    rule(
        "57P02",
        "",
        "server_crashed",
        "The server restarts after a crash.",
        Then::Transient,
    ),
    rule(
        "57P03",
        "",
        "server_starting",
        "The server does not accept connections yet.",
        Then::Transient,
    ),
    rule(
        "57P04",
        "",
        "database_dropped",
        "The database was dropped.",
        Then::Definite("Correct `database` in the configuration."),
    ),
    rule(
        "57",
        "",
        "server_intervened",
        "The server ended the command.",
        Then::Transient,
    ),
    rule(
        "08",
        "",
        "connection_lost",
        "The connection to the server broke.",
        Then::Transient,
    ),
    rule(
        "40",
        "",
        "conflict",
        "The command lost against another transaction.",
        Then::Transient,
    ),
    rule(
        "58",
        "",
        "server_system_error",
        "The server reports a fault of its system.",
        Then::Transient,
    ),
    rule(
        "XX",
        "",
        "server_internal_error",
        "The server reports an internal fault.",
        Then::Transient,
    ),
    rule(
        "28",
        "",
        "not_authorized",
        "The server does not let this role in.",
        Then::Definite("Check the role and pg_hba.conf."),
    ),
    rule(
        "42",
        "",
        "command_refused",
        "The server does not accept this command.",
        Then::Definite(
            "See the server's own words; `rollcall check` looks at everything that is needed.",
        ),
    ),
];

/// Classes whose messages name objects and settings, never values of rows.
const QUOTABLE: &[&str] = &["08", "0A", "28", "3D", "3F", "42", "53", "55", "57", "58"];

/// Says what an error of the server means.
pub fn from_sqlstate(sqlstate: &str, message: &str) -> PgError {
    let found = RULES.iter().find(|r| {
        (sqlstate == r.state || (r.state.len() == 2 && sqlstate.starts_with(r.state)))
            && message.contains(r.says)
    });
    let quotable = QUOTABLE.iter().any(|class| sqlstate.starts_with(class));
    let words = if quotable && !message.is_empty() {
        format!(
            " The server says: {} (SQLSTATE {sqlstate}).",
            message.trim_end_matches('.')
        )
    } else {
        format!(" (SQLSTATE {sqlstate})")
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
    PgError {
        error,
        gap,
        sqlstate: Some(sqlstate.to_owned()),
    }
}

/// Says what an error of the query client means. `host` is for the sentences of TLS.
pub fn from_client(host: &str, error: &tokio_postgres::Error) -> PgError {
    if let Some(db) = error.as_db_error() {
        return from_sqlstate(db.code().code(), db.message());
    }
    if let Some(tls) = rollcall_transport::explain(host, error) {
        return from_tls(tls).into();
    }
    if std::error::Error::source(error).is_some_and(|e| e.to_string() == "password missing") {
        return ConnectorError::definite(
            "password_missing",
            format!("{host} asks for a password, and the configuration has none."),
            "Set `password` to a reference to the role's password.",
        )
        .into();
    }
    let cause = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    ConnectorError::transient(
        "connection_lost",
        format!("The connection to {host} failed: {error}{cause}."),
    )
    .into()
}

/// The contract's form of a TLS failure.
pub fn from_tls(error: rollcall_transport::TlsError) -> ConnectorError {
    ConnectorError::definite(error.code, error.sentence, error.fix)
}

/// A failure of the socket or of TLS on it.
pub fn from_io(host: &str, what: &str, error: &std::io::Error) -> PgError {
    if let Some(tls) = rollcall_transport::explain(host, error) {
        return from_tls(tls).into();
    }
    ConnectorError::transient("connection_lost", format!("{what} {host} failed: {error}.")).into()
}

/// The peer does not speak the protocol as documented. Never quotes what it sent.
pub fn protocol_violation(what: impl fmt::Display) -> ConnectorError {
    ConnectorError::definite(
        "protocol_violation",
        format!("The server sent what the replication protocol does not allow: {what}."),
        "Connect to PostgreSQL 13 or newer itself; if it is one, report this with the server's version.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_an_operator_may_cause_has_its_own_sentence() {
        for (state, message, code, transient, gap) in [
            (
                "28P01",
                "password authentication failed for user \"r\"",
                "password_rejected",
                false,
                None,
            ),
            (
                "28000",
                "no pg_hba.conf entry",
                "not_authorized",
                false,
                None,
            ),
            (
                "3D000",
                "database \"x\" does not exist",
                "no_such_database",
                false,
                None,
            ),
            (
                "42501",
                "permission denied for table t",
                "missing_grant",
                false,
                None,
            ),
            (
                "53400",
                "all replication slots are in use",
                "slots_full",
                false,
                None,
            ),
            ("53300", "too many clients", "connections_full", true, None),
            (
                "55006",
                "replication slot \"s\" is active for PID 7",
                "slot_busy",
                true,
                None,
            ),
            (
                "55000",
                "can no longer get changes from replication slot \"s\"",
                "slot_invalidated",
                true,
                Some(GapReason::SlotInvalidated),
            ),
            (
                "55000",
                "logical decoding requires wal_level >= logical",
                "wal_level",
                false,
                None,
            ),
            (
                "42704",
                "publication \"p\" does not exist",
                "publication_missing",
                true,
                Some(GapReason::PublicationChanged),
            ),
            (
                "42704",
                "replication slot \"s\" does not exist",
                "slot_missing",
                true,
                Some(GapReason::PositionLost),
            ),
            (
                "57P01",
                "terminating connection",
                "server_shutdown",
                true,
                None,
            ),
            ("57P02", "", "server_crashed", true, None),
            (
                "57P03",
                "the database system is starting up",
                "server_starting",
                true,
                None,
            ),
            ("08006", "connection failure", "connection_lost", true, None),
            ("22P02", "", "server_error", false, None),
        ] {
            let found = from_sqlstate(state, message);
            assert_eq!(found.error.code(), code, "{state}");
            assert_eq!(found.error.is_transient(), transient, "{state}");
            assert_eq!(found.gap, gap, "{state}");
            assert!(found.is(state));
        }
    }

    #[test]
    fn a_message_that_may_hold_a_value_is_not_quoted() {
        for state in ["22P02", "23505", "XX000", "P0001"] {
            let text = from_sqlstate(state, "the value is marker-7").to_string();
            assert!(!text.contains("marker-7"), "{text}");
            assert!(text.contains(state));
        }
    }
}
