//! The source as the daemon sees it: opening the log so that nothing is missed silently.
//!
//! Opening goes through the same gates every time, in this order, because each one gives
//! meaning to the next:
//!
//! 1. The preflight ([`check`]): what cannot be followed safely is refused before a slot
//!    exists or an application is hurt.
//! 2. Is it the history that the cursor belongs to ([`lineage`])?
//! 3. Are the publication, the tables and their partitions those that were followed
//!    ([`followed`])?
//! 4. Does the slot still hold what comes behind the cursor ([`slot`])?
//! 5. Start; then 3 and 4 once more. The server takes a start position as a hint and goes
//!    on from wherever the slot stands, so what changed between the look and the start
//!    would otherwise pass unseen. If it did change, the stream is closed and all gates
//!    are gone through again.
//!
//! A gap from 2 or 4, and a publication that was replaced (the log before it was made
//! cannot be read with it), end the use of this slot: it is dropped, a new one is made, and
//! the log begins at its consistent point. So do related tables that the configuration did not
//! name before: only the creation of a slot waits for the transactions that may have written to
//! them while the publication did not list them yet. A crash after that leaves a slot that the store
//! does not know; the next opening finds either no cursor (first start) or the old one, and
//! in both cases makes the slot anew, since the new slot stands behind the old cursor.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rollcall_contract::{
    ChangeStream, ConnectorError, Cursor, DiscoveredTable, FollowedTable, Gap, GapReason, Key,
    Lineage, Opened, Page, PageRequest, Report, Source, SourceStatus, TableName, TableNo,
    TableSchema,
};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Client;

use crate::config::PostgresConfig;
use crate::decode::{self, DecoderOptions};
use crate::followed::{self, Identities};
use crate::keyset::ChangeColumn;
use crate::lineage::{self, Origin, Present};
use crate::lsn::{Lsn, Xid};
use crate::page::{Pages, Reading, Session};
use crate::position::PgCursor;
use crate::schema::{self, Table};
use crate::stream::StreamOptions;
use crate::type_map::TypeMap;
use crate::watch::WatchedStream;
use crate::wire::{self, ReplicationClient, SlotOptions, SlotSnapshot, SystemIdentity};
use crate::{check, discover, query, slot, status};

/// How often the gates are gone through when something changes between look and start.
const OPEN_TRIES: usize = 3;
/// How long a slot's creation may wait for transactions to end before the attempt is
/// given up (and made again by the daemon, which meanwhile says why).
const CREATE_LIMIT: Duration = Duration::from_secs(600);
/// How often it is said what the creation waits for.
const CREATE_REPORT: Duration = Duration::from_secs(5);

/// The followed tables of one PostgreSQL database.
pub struct PostgresSource {
    config: PostgresConfig,
    types: TypeMap,
    /// For each followed table.
    pages: Vec<Pages>,
    /// Pages have a connection of their own, so that a long page delays no question.
    scanning: Mutex<Option<Session>>,
    asking: Connection,
}

/// What the store holds.
enum Resume {
    /// Nothing.
    Beginning,
    /// A position.
    At(PgCursor, Origin),
    /// The table was polled.
    Polled(Origin),
}

/// A connection that is made when it is needed and kept until it breaks.
#[derive(Default)]
struct Connection(Mutex<Option<Client>>);

impl Connection {
    /// The connection, alone for the caller. It stays only when it is given back.
    async fn take(
        &self,
        config: &PostgresConfig,
    ) -> Result<(MutexGuard<'_, Option<Client>>, Client), ConnectorError> {
        let mut kept = self.0.lock().await;
        let client = match kept.take() {
            Some(client) if !client.is_closed() => client,
            _ => wire::connect_queries(config).await?,
        };
        Ok((kept, client))
    }
}

impl PostgresSource {
    /// A source from its configuration; nothing is connected yet.
    pub fn new(config: PostgresConfig) -> PostgresSource {
        PostgresSource {
            types: TypeMap::default(),
            pages: config.tables().map(|_| Pages::default()).collect(),
            config,
            scanning: Mutex::new(None),
            asking: Connection::default(),
        }
    }

    /// One passage through the gates; `None` when something changed on the way.
    async fn try_open(&self, resume: &Resume) -> Result<Option<Opened>, ConnectorError> {
        let config = &self.config;
        let client = wire::connect_queries(config).await?;
        let (tables, identities) = check::preflight(&client, config, &self.types)
            .await?
            .usable()?;
        let mut replication = ReplicationClient::connect(config)
            .await
            .map_err(check::of_replication)?;
        let system = replication
            .identify_system()
            .await
            .map_err(check::refuse_pooler)?;

        let mut passage = Passage {
            source: self,
            client: &client,
            system: &system,
            gaps: Vec::new(),
        };
        let begin = match resume {
            Resume::Beginning => {
                passage.gaps.push(initial_load(config));
                passage.new_slot(&mut replication).await?
            }
            Resume::Polled(origin) => {
                let gap = lineage::not_followed(origin, &system, &config.database);
                passage.gaps.push(gap);
                passage.new_slot(&mut replication).await?
            }
            Resume::At(cursor, origin) => {
                passage
                    .resume(&mut replication, cursor, origin, &identities)
                    .await?
            }
        };
        let gaps = passage.gaps;

        slot::release(&client, &config.slot).await?;
        let decoder = DecoderOptions {
            start: begin,
            followed: config.tables().zip(&tables).map(followed_by_log).collect(),
            types: Arc::new(self.types.clone()),
            xid_reference: next_xid(&client).await?,
            caps: config.caps,
        };
        let options = StreamOptions {
            skip_replicated: config.skip_replicated,
            wal_sender_timeout: replication.wal_sender_timeout().await?,
            ask_interval: config.ask_interval,
            ..StreamOptions::default()
        };
        let (stream, acknowledge) = replication
            .start(&config.slot, &config.publication, decoder, options)
            .await
            .map_err(check::of_replication)?;
        let stream = Box::new(stream) as Box<dyn ChangeStream>;

        let row = slot::read(&client, &config.slot).await?;
        let moved = slot::judge(
            &config.slot,
            &config.database,
            row.as_ref(),
            begin.commit_end,
        )?;
        let (now, _) = followed::look(&client, config).await?;
        if moved.is_some() || now != identities {
            tracing::warn!("the slot or what it follows changed while the log was opened");
            stream.close().await;
            return Ok(None);
        }
        let origin = Origin {
            system: system.system_id,
            timeline: system.timeline,
            database: config.database.clone(),
            followed: identities.clone(),
        };
        let watched = WatchedStream::start(stream, config.clone(), self.types.clone(), identities);
        Ok(Some(Opened {
            start: begin.encode(),
            lineage: origin.encode(),
            gaps,
            stream: Box::new(watched),
            acknowledge,
        }))
    }

    /// What has to be known to read pages of a table.
    fn reading(&self, table: TableNo) -> Result<Reading<'_>, ConnectorError> {
        Ok(Reading {
            table: self.config.followed(table)?,
            config: &self.config,
            types: &self.types,
        })
    }

    /// The session that was kept, when it is still good, or a new one. After an error it is
    /// not kept.
    async fn session(&self, kept: Option<Session>) -> Result<Session, ConnectorError> {
        match kept {
            Some(session) if !session.is_closed() => Ok(session),
            _ => Session::connect(&self.config).await,
        }
    }

    async fn definition(&self, client: &Client, table: TableNo) -> Result<Table, ConnectorError> {
        let followed = self.config.followed(table)?;
        let publication = &self.config.publication;
        let found = schema::load(client, &followed, publication, &self.types).await?;
        found.ok_or_else(|| no_such_table(&followed))
    }
}

/// The table is not there.
pub(crate) fn no_such_table(followed: &FollowedTable<'_>) -> ConnectorError {
    ConnectorError::definite(
        "no_such_table",
        format!("There is no table {}.", followed.table),
        format!(
            "Correct {} in the configuration; names are case sensitive.",
            followed.place()
        ),
    )
}

fn initial_load(config: &PostgresConfig) -> Gap {
    Gap {
        tables: config.table_names(),
        reason: GapReason::InitialLoad,
        from: None,
        to: None,
        detail: format!("Nothing of {} has been read yet.", config.table),
    }
}

/// What the log has to know of a table.
fn followed_by_log((followed, table): (FollowedTable<'_>, &Table)) -> decode::Followed {
    decode::Followed {
        schema: Arc::clone(&table.schema),
        type_oids: table.type_oids.clone(),
        table_oid: Some(table.oid),
        // In the order of the index, so that keys are the same from log and scan.
        key: followed.key.map(|_| table.key_names()),
    }
}

/// The gap of related tables that the configuration did not name before.
fn now_followed_too(tables: Vec<TableName>) -> Gap {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    Gap {
        detail: format!(
            "The configuration names {} beside the table that was followed; everything is read \
             again.",
            names.join(", ")
        ),
        tables,
        reason: GapReason::MappingChanged,
        from: None,
        to: None,
    }
}

/// Transaction ids of the log are completed by their distance from this one.
async fn next_xid(client: &Client) -> Result<Xid, ConnectorError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the next transaction id"))?;
    row.get::<_, &str>(0).parse().map(Xid).map_err(|_| {
        ConnectorError::definite(
            "snapshot_unreadable",
            "The server's transaction id is not a number.",
            "Report this with the server's version.",
        )
    })
}

/// What one passage through the gates has found so far.
struct Passage<'a> {
    source: &'a PostgresSource,
    client: &'a Client,
    system: &'a SystemIdentity,
    gaps: Vec<Gap>,
}

impl Passage<'_> {
    /// Gates 2 to 4 for a stored position: where the log begins.
    async fn resume(
        &mut self,
        replication: &mut ReplicationClient,
        cursor: &PgCursor,
        origin: &Origin,
        identities: &Identities,
    ) -> Result<PgCursor, ConnectorError> {
        let config = &self.source.config;
        let mut history = Vec::new();
        if self.system.system_id == origin.system && self.system.timeline != cursor.timeline {
            history = replication.timeline_history(self.system.timeline).await?;
        }
        let present = Present {
            system: self.system.system_id,
            timeline: self.system.timeline,
            database: &config.database,
            flushed: self.system.flushed,
            history: &history,
        };
        let mut needs_slot = false;
        if let Some(gap) = lineage::judge(origin, cursor, &present)? {
            // The identities belong to the other history: nothing to compare.
            self.gaps.push(gap);
            needs_slot = true;
        } else {
            let changed = followed::compare(&origin.followed, identities, config);
            needs_slot |= origin.followed.publication != identities.publication;
            self.gaps.extend(changed);
            let added = identities.added_since(&origin.followed);
            if !added.is_empty() {
                needs_slot = true;
                self.gaps.push(now_followed_too(added));
            }
            let row = slot::read(self.client, &config.slot).await?;
            let lost = slot::judge(
                &config.slot,
                &config.database,
                row.as_ref(),
                cursor.commit_end,
            )?;
            if let Some((reason, detail)) = lost {
                self.gaps.push(lineage::gap(reason, cursor, detail));
                needs_slot = true;
            }
        }
        let begin = if needs_slot {
            self.new_slot(replication).await?
        } else {
            PgCursor {
                timeline: self.system.timeline,
                ..*cursor
            }
        };
        for gap in &mut self.gaps {
            gap.from = Some(cursor.to_string());
            gap.to = Some(begin.to_string());
            tracing::warn!(reason = gap.reason.as_str(), "{}", gap.detail);
        }
        Ok(begin)
    }

    /// Makes the slot anew, whatever is there under its name, if that is ours to drop.
    async fn new_slot(
        &mut self,
        replication: &mut ReplicationClient,
    ) -> Result<PgCursor, ConnectorError> {
        let config = &self.source.config;
        if let Some(row) = slot::read(self.client, &config.slot).await? {
            slot::ours(&config.slot, &config.database, &row)?;
            slot::release(self.client, &config.slot).await?;
            slot::drop_if_exists(self.client, &config.slot).await?;
            tracing::warn!(
                slot = config.slot,
                "dropped the replication slot that no stored position belongs to"
            );
        }
        let consistent_point = create_slot(self.client, replication, &config.slot).await?;
        for gap in &mut self.gaps {
            gap.to = Some(consistent_point.to_string());
        }
        Ok(PgCursor {
            system_id: self.system.system_id,
            timeline: self.system.timeline,
            commit_end: consistent_point,
            inside: None,
        })
    }
}

/// Creates the slot. That waits until every transaction that writes now has ended, and
/// meanwhile says for whom.
async fn create_slot(
    client: &Client,
    replication: &mut ReplicationClient,
    name: &str,
) -> Result<Lsn, ConnectorError> {
    let options = SlotOptions {
        snapshot: SlotSnapshot::Nothing,
        failover: true,
        temporary: false,
    };
    let created = tokio::time::timeout(CREATE_LIMIT, async {
        let creating = replication.create_slot(name, options);
        let mut creating = std::pin::pin!(creating);
        loop {
            match tokio::time::timeout(CREATE_REPORT, &mut creating).await {
                Ok(created) => return created.map_err(check::of_replication),
                Err(_) => {
                    for holder in slot::holders(client, CREATE_REPORT).await? {
                        tracing::warn!(
                            slot = name,
                            "creating the slot waits for the transaction of {} (xid {}), open \
                             for {} s",
                            holder.who,
                            holder.xid,
                            holder.age_s
                        );
                    }
                }
            }
        }
    })
    .await;
    match created {
        Ok(created) => Ok(created?.consistent_point),
        Err(_) => Err(ConnectorError::transient(
            "slot_waits",
            format!(
                "The replication slot \"{name}\" could not be made within {} s: transactions \
                 older than it are still open.",
                CREATE_LIMIT.as_secs()
            ),
        )),
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn check(&self) -> Report {
        check::report(&self.config, &self.types).await
    }

    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError> {
        let (mut kept, client) = self.asking.take(&self.config).await?;
        let tables = discover::tables(&client, &self.types).await?;
        *kept = Some(client);
        Ok(tables)
    }

    async fn schema(&self, table: TableNo) -> Result<Arc<TableSchema>, ConnectorError> {
        let (mut kept, client) = self.asking.take(&self.config).await?;
        let definition = self.definition(&client, table).await?;
        *kept = Some(client);
        if let Some((code, sentence, fix)) = check::obstacle_of_key(&definition) {
            return Err(ConnectorError::definite(code, sentence, fix));
        }
        Ok(definition.schema)
    }

    async fn open(&self, resume: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError> {
        let resume = match &resume {
            None => Resume::Beginning,
            Some((cursor, lineage)) if cursor.is_nowhere() => {
                Resume::Polled(Origin::decode(lineage)?)
            }
            Some((cursor, lineage)) => {
                Resume::At(PgCursor::decode(cursor)?, Origin::decode(lineage)?)
            }
        };
        for _ in 0..OPEN_TRIES {
            if let Some(opened) = self.try_open(&resume).await? {
                return Ok(opened);
            }
        }
        Err(ConnectorError::transient(
            "source_in_motion",
            format!(
                "The slot \"{}\", the publication or a table changed each time the log was \
                 opened.",
                self.config.slot
            ),
        ))
    }

    async fn page(&self, table: TableNo, request: PageRequest) -> Result<Page, ConnectorError> {
        let reading = self.reading(table)?;
        let mut kept = self.scanning.lock().await;
        let mut session = self.session(kept.take()).await?;
        let page = self.pages[table.index()]
            .page(&mut session, &reading, &request)
            .await?;
        *kept = Some(session);
        Ok(page)
    }

    async fn reread(&self, table: TableNo, keys: &[Key]) -> Result<Page, ConnectorError> {
        let reading = self.reading(table)?;
        let mut kept = self.scanning.lock().await;
        let mut session = self.session(kept.take()).await?;
        let page = self.pages[table.index()]
            .reread(&mut session, &reading, keys)
            .await?;
        *kept = Some(session);
        Ok(page)
    }

    async fn identify(&self, known: Option<&Lineage>) -> Result<Lineage, ConnectorError> {
        let (mut kept, client) = self.asking.take(&self.config).await?;
        let found = lineage::identify(&client, &self.config.database).await?;
        *kept = Some(client);
        if let Some(known) = known {
            lineage::expect(&Origin::decode(known)?, &found)?;
        }
        Ok(found.encode())
    }

    async fn change_mark(&self, column: &str) -> Result<Option<String>, ConnectorError> {
        let (mut kept, client) = self.asking.take(&self.config).await?;
        let definition = self.definition(&client, TableNo::MAIN).await?;
        let sql = ChangeColumn::of(&definition, column)?.mark(&definition);
        let row = client
            .query_opt(&sql, &[])
            .await
            .map_err(|e| query::failed(&e, "reading how far the change column has come"))?;
        *kept = Some(client);
        Ok(row.map(|row| row.get(0)))
    }

    async fn status(&self) -> Result<SourceStatus, ConnectorError> {
        let (mut kept, client) = self.asking.take(&self.config).await?;
        let found = status::look(&client, &self.config).await?;
        *kept = Some(client);
        Ok(found)
    }
}
