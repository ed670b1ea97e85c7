//! What following this source needs, looked at before anything is touched.
//!
//! Two rules decide what is an error here. A table whose publication would make the
//! application's own `UPDATE` or `DELETE` fail is refused, because we must not be the
//! reason for that. And whatever would let the log or a scan leave out rows without a word
//! (row security, an operation that is not published, a key that a delete does not carry)
//! is refused, because it could never be found out later. All else is a warning or a note.
//!
//! An error that concerns the log alone leaves it to the daemon to poll the table: it is
//! [`Severity::Unfollowable`].

mod server;
mod table;

use std::time::Duration;

use rollcall_contract::{ConnectorError, Definite, Finding, Report, Severity, Transient};
use tokio_postgres::Client;

pub(crate) use table::{obstacle_of_key, obstacle_of_kind};

use crate::config::PostgresConfig;
use crate::followed::{self, Identities, Publication};
use crate::schema::{self, Table};
use crate::script::{self, Unpublished};
use crate::slot;
use crate::type_map::TypeMap;
use crate::wire::{self, ReplicationClient};

/// Transactions that are open for longer hold back the log noticeably.
const LONG_TRANSACTION: Duration = Duration::from_secs(300);

/// One finding whose code is known to the program.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    severity: Severity,
    code: &'static str,
    found: String,
    fix: String,
}

/// What was read of the server, with everything that was found on the way.
pub(crate) struct Preflight {
    looks: Vec<Look>,
    /// For each followed table; none where there is none of that name.
    tables: Vec<Option<Table>>,
    followed: Identities,
    publication: Option<Publication>,
}

impl Preflight {
    fn add(&mut self, severity: Severity, code: &'static str, found: String, fix: &str) {
        self.looks.push(Look {
            severity,
            code,
            found,
            fix: fix.to_owned(),
        });
    }

    fn ok(&mut self, code: &'static str, found: String) {
        self.add(Severity::Ok, code, found, "");
    }

    fn unfollowable(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Unfollowable, code, found, fix);
    }

    fn error(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Error, code, found, fix);
    }

    /// The tables that the operator's script must not publish.
    fn unpublished(&self) -> Unpublished {
        let mut unpublished = Unpublished::default();
        for table in self.tables.iter().flatten() {
            let name = || table.schema.table.clone();
            if obstacle_of_kind(table.kind, table.logged).is_some() {
                unpublished.not_in_log.push(name());
            } else if table.identity_columns.is_empty() {
                unpublished.need_identity.push(name());
            }
        }
        unpublished
    }

    /// The followed tables, when nothing stands against following them.
    ///
    /// # Errors
    /// The first of the worst findings, with how many there are besides.
    pub(crate) fn usable(self) -> Result<(Vec<Table>, Identities), ConnectorError> {
        let stops = |l: &&Look| l.severity >= Severity::Unfollowable;
        let worst = self.looks.iter().filter(stops).map(|l| l.severity).max();
        let of_worst = |l: &&Look| Some(l.severity) == worst;
        if let Some(first) = self.looks.iter().find(of_worst) {
            let more = match self.looks.iter().filter(stops).count() - 1 {
                0 => String::new(),
                n => format!(" ({n} more: see `rollcall check`.)"),
            };
            let error = ConnectorError::definite(
                first.code,
                format!("{}{more}", first.found),
                first.fix.clone(),
            );
            return Err(match first.severity {
                Severity::Unfollowable => error.of_the_log(),
                _ => error,
            });
        }
        match self.tables.into_iter().collect() {
            Some(tables) => Ok((tables, self.followed)),
            None => Err(ConnectorError::definite(
                "no_such_table",
                "A table does not exist.",
                "Correct `table` in the configuration.",
            )),
        }
    }
}

/// The whole report, with the operator's script.
pub(crate) async fn report(config: &PostgresConfig, types: &TypeMap) -> Report {
    let mut findings = Vec::new();
    let mut unpublished = Unpublished::default();
    match wire::connect_queries(config).await {
        Err(e) => findings.push(finding_of(&e.error)),
        Ok(client) => {
            findings.push(Finding::new(
                Severity::Ok,
                "connection",
                format!("{} answers role \"{}\".", config.address(), config.user),
                "",
            ));
            match preflight(&client, config, types).await {
                Err(e) => findings.push(finding_of(&e)),
                Ok(found) => {
                    unpublished = found.unpublished();
                    findings.extend(
                        found
                            .looks
                            .iter()
                            .map(|l| Finding::new(l.severity, l.code, &l.found, &l.fix)),
                    );
                }
            }
            findings.push(match identify(config).await {
                Err(e) => finding_of(&e),
                Ok(identity) => Finding::new(
                    Severity::Ok,
                    "replication_connection",
                    format!(
                        "The server accepts replication: cluster {}, timeline {}.",
                        identity.system_id, identity.timeline
                    ),
                    "",
                ),
            });
        }
    }
    Report {
        findings,
        script: script::setup(config, &unpublished),
    }
}

async fn identify(config: &PostgresConfig) -> Result<wire::SystemIdentity, ConnectorError> {
    let mut replication = ReplicationClient::connect(config)
        .await
        .map_err(of_replication)?;
    replication.identify_system().await.map_err(refuse_pooler)
}

/// What a refusal to replicate means once an ordinary connection was let in: a missing right,
/// a setting or a lack of slots concerns the log alone. Anything else stays what it is.
pub(crate) fn of_replication(error: crate::errors::PgError) -> ConnectorError {
    match error.error.code() {
        "missing_grant" | "slots_full" | "wal_level" => error.error.of_the_log(),
        _ => error.error,
    }
}

/// What does not know `IDENTIFY_SYSTEM` is not a server but a pooler in front of one.
pub(crate) fn refuse_pooler(error: crate::errors::PgError) -> ConnectorError {
    match &error.error {
        ConnectorError::Definite(_)
            if error
                .sqlstate
                .as_deref()
                .is_some_and(|s| matches!(s, "42601" | "08P01" | "0A000")) =>
        {
            ConnectorError::definite(
                "pooler",
                "What answers does not know IDENTIFY_SYSTEM: it is a connection pooler, not \
                 PostgreSQL itself.",
                "Give the address of the server itself; poolers do not pass replication on.",
            )
        }
        _ => of_replication(error),
    }
}

fn finding_of(error: &ConnectorError) -> Finding {
    match error {
        ConnectorError::Definite(Definite {
            code,
            sentence,
            fix,
        }) => Finding::new(Severity::Error, code, sentence, fix),
        ConnectorError::Unfollowable(Definite {
            code,
            sentence,
            fix,
        }) => Finding::new(Severity::Unfollowable, code, sentence, fix),
        ConnectorError::Transient(Transient { code, sentence }) => Finding::new(
            Severity::Error,
            code,
            sentence,
            "Try again; if it stays, look at the server and the network between.",
        ),
    }
}

/// Looks at everything that an ordinary connection can see.
pub(crate) async fn preflight(
    client: &Client,
    config: &PostgresConfig,
    types: &TypeMap,
) -> Result<Preflight, ConnectorError> {
    let mut found = Preflight {
        looks: Vec::new(),
        tables: Vec::new(),
        followed: Identities::default(),
        publication: None,
    };
    server::server(client, config, &mut found).await?;
    server::role(client, config, &mut found).await?;
    let (followed, publication) = followed::look(client, config).await?;
    found.followed = followed;
    found.publication = publication;
    for followed in config.tables() {
        let table = schema::load(client, &followed, &config.publication, types).await?;
        table::table(client, config, &followed, table.as_ref(), &mut found).await?;
        found.tables.push(table);
    }
    table::publication(config, &mut found);
    transactions(client, &mut found).await?;
    Ok(found)
}

async fn transactions(client: &Client, found: &mut Preflight) -> Result<(), ConnectorError> {
    for holder in slot::holders(client, LONG_TRANSACTION).await? {
        found.add(
            Severity::Warning,
            "long_transaction",
            format!(
                "A transaction has been open for {} s ({}, xid {}): the slot cannot be made, and \
                 the log not be removed, before it ends.",
                holder.age_s, holder.who, holder.xid
            ),
            "End it, or wait for it.",
        );
    }
    Ok(())
}
