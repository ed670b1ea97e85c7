//! The source as the daemon sees it: opening the log so that nothing is missed silently.
//!
//! Opening goes through the same gates every time, in this order, because each one gives
//! meaning to the next:
//!
//! 1. The preflight ([`check`]): what cannot be followed safely is refused.
//! 2. Does the server still have everything that was taken in, and everything behind it
//!    ([`lineage`])?
//! 3. Ask for the log. The server has the last word: it refuses what it cannot send.
//! 4. Gate 2 once more. A server removes files of its log also while it is asked for them,
//!    and MariaDB does not say so.
//!
//! A gap from 2 or 3 begins anew where the server stands now. Nothing is left behind on
//! the server by any of this, so a crash between any two steps costs nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rollcall_contract::{
    ChangeStream, ConnectorError, Cursor, DiscoveredTable, FollowedTable, Gap, GapReason, Key,
    Lineage, Opened, Page, PageRequest, Report, Source, SourceStatus, TableNo, TableSchema,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::config::MySqlConfig;
use crate::decode::{Decoder, DecoderOptions};
use crate::errors::protocol_violation;
use crate::keyset::ChangeColumn;
use crate::lineage::{self, Origin};
use crate::page::{Pages, Session};
use crate::position::{Gtids, Point, Position};
use crate::query::literal;
use crate::schema::{self, Table};
use crate::server::{self, LogMode, Server};
use crate::stream::{MySqlAcknowledge, MySqlStream, Shared, StreamOptions};
use crate::wire::Client;
use crate::{check, discover, replica, status};

/// How often the gates are gone through when something changes between look and start.
const OPEN_TRIES: usize = 3;

/// The followed tables of one MySQL or MariaDB server.
pub struct MySqlSource {
    config: MySqlConfig,
    pages: Pages,
    /// Pages have a session of their own, so that a long page delays no question.
    scanning: Mutex<Option<Session>>,
    asking: Mutex<Option<Client>>,
    shared: Arc<Shared>,
}

impl MySqlSource {
    /// A source from its configuration; nothing is connected yet.
    pub fn new(config: MySqlConfig) -> MySqlSource {
        MySqlSource {
            pages: Pages::new(&config),
            config,
            scanning: Mutex::new(None),
            asking: Mutex::new(None),
            shared: Arc::new(Shared::default()),
        }
    }

    /// The session for questions, alone for the caller. It stays only when it is given back.
    async fn ask(&self) -> Result<(MutexGuard<'_, Option<Client>>, Client), ConnectorError> {
        let mut kept = self.asking.lock().await;
        let client = match kept.take_if(|client| client.is_usable()) {
            Some(client) => client,
            None => Client::connect(&self.config).await?,
        };
        Ok((kept, client))
    }

    /// One passage through the gates; `None` when something changed on the way. `refused`
    /// is why the server did not send the log the last time.
    async fn try_open(
        &self,
        resume: &Resume,
        refused: &mut Option<(GapReason, String)>,
    ) -> Result<Option<Opened>, ConnectorError> {
        let config = &self.config;
        let mut client = Client::connect(config).await?;
        let (server, tables) = check::preflight(&mut client, config).await?.usable()?;
        let mut gaps = Vec::new();
        let mut start = None;
        let origin_now = Origin::of(&server, config);
        match (resume, refused.take()) {
            (Resume::Beginning, _) => gaps.push(initial_load(config)),
            (Resume::Polled(origin), _) => {
                gaps.push(lineage::not_followed(origin, &origin_now, config))
            }
            (Resume::At(position, _), Some((reason, detail))) => {
                gaps.push(lineage::gap(reason, config, position, detail));
            }
            (Resume::At(position, origin), None) => {
                match lineage::judge(&mut client, &server, config, origin, position).await? {
                    Some(gap) => gaps.push(gap),
                    None => start = Some(position.clone()),
                }
            }
        }
        let is_resumed = start.is_some();
        let start = match start {
            Some(start) => start,
            None => Position::at(present(&mut client, &server).await?),
        };
        for gap in &mut gaps {
            gap.to = Some(start.to_string());
            if gap.reason != GapReason::InitialLoad {
                tracing::warn!(reason = gap.reason.as_str(), "{}", gap.detail);
            }
        }

        let names = replica::choose_names(&mut client, &server, config).await?;
        let dump = match replica::ask(config, &server, &names, start.read_from()).await {
            Ok(dump) => dump,
            Err(e) => {
                return match e.gap {
                    Some(reason) if is_resumed => {
                        *refused = Some((reason, e.error.to_string()));
                        Ok(None)
                    }
                    _ => Err(e.error),
                };
            }
        };
        let again = lineage::judge(&mut client, &server, config, &origin_now, &start).await?;
        client.close().await;
        if let Some(gap) = again {
            tracing::warn!("the log changed while it was opened");
            *refused = Some((gap.reason, gap.detail));
            return Ok(None);
        }
        self.shared.set_durable(start.whole.clone());
        let mut decoder = Decoder::new(DecoderOptions {
            start: start.clone(),
            mode: server.log_mode(),
            identity: server.identity,
            tables,
            zero_dates: config.zero_dates,
            caps: config.caps,
        });
        decoder.buffer().extend_from_slice(&dump.early);
        let stream = MySqlStream::spawn(
            dump.stream,
            config.address(),
            decoder,
            Arc::clone(&self.shared),
            StreamOptions::for_heartbeat(config.heartbeat),
        );
        Ok(Some(Opened {
            start: start.encode(),
            lineage: origin_now.encode(),
            gaps,
            stream: Box::new(stream) as Box<dyn ChangeStream>,
            acknowledge: Arc::new(MySqlAcknowledge {
                shared: Arc::clone(&self.shared),
            }),
        }))
    }

    async fn definition(
        &self,
        client: &mut Client,
        table: TableNo,
    ) -> Result<Table, ConnectorError> {
        let followed = self.config.followed(table)?;
        let found = schema::load(client, &followed).await?;
        found.ok_or_else(|| no_such_table(&followed))
    }

    /// The session that was kept, when it is still good, or a new one. After an error it is
    /// not kept.
    async fn session(&self, mut kept: Option<Session>) -> Result<Session, ConnectorError> {
        match kept.take_if(|session| session.is_usable()) {
            Some(session) => Ok(session),
            None => Session::connect(&self.config).await,
        }
    }
}

/// What the store holds.
enum Resume {
    /// Nothing.
    Beginning,
    /// A position.
    At(Position, Origin),
    /// The table was polled.
    Polled(Origin),
}

/// The table is not there.
pub(crate) fn no_such_table(followed: &FollowedTable<'_>) -> ConnectorError {
    ConnectorError::definite(
        "no_such_table",
        format!("There is no table {}.", followed.table),
        format!(
            "Correct {} in the configuration; names may be case sensitive.",
            followed.place()
        ),
    )
}

fn initial_load(config: &MySqlConfig) -> Gap {
    Gap {
        tables: config.table_names(),
        reason: GapReason::InitialLoad,
        from: None,
        to: None,
        detail: format!("Nothing of {} has been read yet.", config.table),
    }
}

/// Without GTIDs: how long a transaction that is in the log may take to get into its engine.
const SETTLE: Duration = Duration::from_secs(2);

/// Where the log can begin: at a point whose transactions every later page sees.
///
/// A transaction is in the log before its engine has committed it. MySQL adds it to
/// `gtid_executed` after that, so that set is such a point. MariaDB adds it to
/// `gtid_binlog_pos` before, so there it is the point of a snapshot. Without GTIDs there is
/// nothing to ask but the end of the log, and a moment has to do.
async fn present(client: &mut Client, server: &Server) -> Result<Point, ConnectorError> {
    match server.log_mode() {
        LogMode::MySqlGtid => Ok(Point {
            gtids: server::executed(client, server).await?,
            place: None,
        }),
        LogMode::MariaDbGtid => {
            client.run(server::SNAPSHOTS).await?;
            client.run(server::SNAPSHOT).await?;
            let place = server::snapshot_place(client, server).await?;
            client.run("ROLLBACK").await?;
            let sql = format!(
                "SELECT BINLOG_GTID_POS({}, {})",
                literal(&place.file),
                place.position
            );
            let row = client.row(&sql).await?;
            let state = row.need(0)?.parse().map_err(|e| {
                protocol_violation(format_args!("a GTID state that cannot be read ({e})"))
            })?;
            Ok(Point {
                gtids: Gtids::MariaDb(state),
                place: Some(place),
            })
        }
        LogMode::Place => {
            let place = server::head(client, server).await?.place;
            tokio::time::sleep(SETTLE).await;
            Ok(Point {
                gtids: Gtids::None,
                place: Some(place),
            })
        }
    }
}

#[async_trait]
impl Source for MySqlSource {
    async fn check(&self) -> Report {
        check::report(&self.config).await
    }

    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError> {
        let (mut kept, mut client) = self.ask().await?;
        let tables = discover::tables(&mut client).await?;
        *kept = Some(client);
        Ok(tables)
    }

    async fn schema(&self, table: TableNo) -> Result<Arc<TableSchema>, ConnectorError> {
        let (mut kept, mut client) = self.ask().await?;
        let definition = self.definition(&mut client, table).await?;
        *kept = Some(client);
        match check::obstacle_of_key(&definition) {
            Some(obstacle) => Err(obstacle.into()),
            None => Ok(definition.schema),
        }
    }

    async fn open(&self, resume: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError> {
        if self.shared.is_contested() {
            return Err(ConnectorError::definite(
                "replica_clash",
                "Another reader with the same id took the log over several times within a \
                 minute: most likely a second daemon runs with the same configuration.",
                "Stop the other daemon, or give one of the two sources another name (or \
                 `server_id`).",
            ));
        }
        let resume = match &resume {
            None => Resume::Beginning,
            Some((cursor, lineage)) if cursor.is_nowhere() => {
                Resume::Polled(Origin::decode(lineage)?)
            }
            Some((cursor, lineage)) => {
                Resume::At(Position::decode(cursor)?, Origin::decode(lineage)?)
            }
        };
        let mut refused = None;
        for _ in 0..OPEN_TRIES {
            if let Some(opened) = self.try_open(&resume, &mut refused).await? {
                return Ok(opened);
            }
        }
        Err(ConnectorError::transient(
            "source_in_motion",
            "The server's log changed each time it was opened.",
        ))
    }

    async fn page(&self, table: TableNo, request: PageRequest) -> Result<Page, ConnectorError> {
        let table = self.config.followed(table)?;
        let mut kept = self.scanning.lock().await;
        let mut session = self.session(kept.take()).await?;
        let page = self
            .pages
            .page(&mut session, &self.config, &table, &request)
            .await?;
        *kept = Some(session);
        Ok(page)
    }

    async fn reread(&self, table: TableNo, keys: &[Key]) -> Result<Page, ConnectorError> {
        let table = self.config.followed(table)?;
        let mut kept = self.scanning.lock().await;
        let mut session = self.session(kept.take()).await?;
        let page = self
            .pages
            .reread(&mut session, &self.config, &table, keys)
            .await?;
        *kept = Some(session);
        Ok(page)
    }

    async fn identify(&self, known: Option<&Lineage>) -> Result<Lineage, ConnectorError> {
        let (mut kept, mut client) = self.ask().await?;
        let server = Server::read(&mut client).await?;
        server.expect(&self.config)?;
        *kept = Some(client);
        let found = Origin::of(&server, &self.config);
        if let Some(known) = known {
            lineage::expect(&Origin::decode(known)?, &found)?;
        }
        Ok(found.encode())
    }

    async fn change_mark(&self, column: &str) -> Result<Option<String>, ConnectorError> {
        let (mut kept, mut client) = self.ask().await?;
        let definition = self.definition(&mut client, TableNo::MAIN).await?;
        let column = ChangeColumn::of(&definition.schema, column)?;
        let row = client.row(&column.mark(&self.config.table)).await?;
        *kept = Some(client);
        Ok(row.text(0).map(str::to_owned))
    }

    async fn status(&self) -> Result<SourceStatus, ConnectorError> {
        let (mut kept, mut client) = self.ask().await?;
        let server = Server::read(&mut client).await?;
        let durable = self.shared.durable();
        let found = status::look(&mut client, &server, durable.as_ref()).await?;
        *kept = Some(client);
        Ok(found)
    }
}
