//! What following this source needs, looked at before anything is touched.
//!
//! Whatever would let the log or a scan leave out rows without a word (statements in place
//! of rows, a filter, columns that this account may not see) is refused, because it could
//! never be found out later. All else is a warning or a note. An error that concerns the log
//! alone leaves it to the daemon to poll the table: it is [`Severity::Unfollowable`].

mod account;
mod server;
mod table;

use rollcall_contract::{ConnectorError, Definite, Finding, Report, Severity, Transient};

pub(crate) use table::{obstacle, obstacle_of_key};

use crate::config::MySqlConfig;
use crate::schema::{self, Table};
use crate::script;
use crate::server::{self as facts, Server};
use crate::wire::Client;

/// One finding whose code is known to the program.
#[derive(Clone, Debug)]
struct Look {
    severity: Severity,
    code: &'static str,
    found: String,
    fix: String,
}

/// Something that stands against following a table.
pub(crate) struct Obstacle {
    pub(crate) code: &'static str,
    pub(crate) sentence: String,
    pub(crate) fix: &'static str,
}

impl From<Obstacle> for ConnectorError {
    fn from(obstacle: Obstacle) -> ConnectorError {
        ConnectorError::definite(obstacle.code, obstacle.sentence, obstacle.fix)
    }
}

/// What was read of the server, with everything that was found on the way.
pub(crate) struct Preflight {
    looks: Vec<Look>,
    server: Server,
    /// For each followed table; none where there is none of that name.
    tables: Vec<Option<Table>>,
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

    fn note(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Note, code, found, fix);
    }

    fn warn(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Warning, code, found, fix);
    }

    fn unfollowable(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Unfollowable, code, found, fix);
    }

    fn error(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Error, code, found, fix);
    }

    /// The server and the followed tables, when nothing stands against following them.
    ///
    /// # Errors
    /// The first of the worst findings, with how many there are besides.
    pub(crate) fn usable(self) -> Result<(Server, Vec<Table>), ConnectorError> {
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
            Some(tables) => Ok((self.server, tables)),
            None => Err(ConnectorError::definite(
                "no_such_table",
                "A table does not exist.",
                "Correct `table` in the configuration.",
            )),
        }
    }
}

/// The whole report, with the operator's script.
pub(crate) async fn report(config: &MySqlConfig) -> Report {
    let mut findings = Vec::new();
    match Client::connect(config).await {
        Err(e) => findings.push(finding_of(&e.error)),
        Ok(mut client) => {
            findings.push(Finding::new(
                Severity::Ok,
                "connection",
                format!("{} answers account \"{}\".", config.address(), config.user),
                "",
            ));
            match preflight(&mut client, config).await {
                Err(e) => findings.push(finding_of(&e)),
                Ok(found) => findings.extend(
                    found
                        .looks
                        .iter()
                        .map(|l| Finding::new(l.severity, l.code, &l.found, &l.fix)),
                ),
            }
            client.close().await;
        }
    }
    Report {
        findings,
        script: script::setup(config),
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

/// Looks at everything that can be seen.
pub(crate) async fn preflight(
    client: &mut Client,
    config: &MySqlConfig,
) -> Result<Preflight, ConnectorError> {
    let server = Server::read(client).await?;
    server.expect(config)?;
    let mut found = Preflight {
        looks: Vec::new(),
        server,
        tables: Vec::new(),
    };
    server::settings(&mut found);
    account::grants(client, &mut found).await?;
    server::retention(client, &mut found).await?;
    server::upstream(client, &mut found).await?;
    match facts::head(client, &found.server).await {
        Ok(head) => {
            found.ok("log", format!("The log stands at {}.", head.place));
            server::filters(config, &head, &mut found);
        }
        Err(e) => {
            let finding = finding_of(&e);
            let said = format!("Where the log stands cannot be read. {}", finding.found);
            match e.is_transient() {
                true => found.error(e.code(), said, &finding.fix),
                false => found.unfollowable(e.code(), said, &finding.fix),
            }
        }
    }
    for followed in config.tables() {
        let table = schema::load(client, &followed).await?;
        table::table(client, &followed, table.as_ref(), &mut found).await?;
        found.tables.push(table);
    }
    Ok(found)
}
