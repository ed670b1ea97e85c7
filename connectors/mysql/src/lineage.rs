//! Whether a cursor still belongs to the history that the server goes on with, and whether
//! everything behind it is still there.
//!
//! A position alone proves nothing: a server that was restored, or whose log was begun
//! anew, has room for the same numbers. At every connect two questions are asked, before
//! the log is asked for and once more after it has answered:
//!
//! 1. Does the server have everything that was taken in here? A replica that was promoted
//!    may still be applying it, so this one is given time.
//! 2. Is everything else still in its log?
//!
//! For MySQL both are set arithmetic with `gtid_executed` and `gtid_purged`. MariaDB does
//! not say what it purged; the state at the beginning of its oldest file does. Places are
//! compared with the list of files, and a file counts as the same one only when it was
//! begun at the same time. Whatever is not proved is a gap.

use std::collections::BTreeSet;
use std::time::Duration;

use rollcall_binlog::gtid::mariadb::GtidState;
use rollcall_binlog::gtid::mysql::GtidSet;
use rollcall_contract::{ConnectorError, Gap, GapReason, Lineage, OTHER_SERVER, TableName};
use serde::{Deserialize, Serialize};

use crate::config::{Flavour, MySqlConfig};
use crate::errors::protocol_violation;
use crate::position::{Gtids, Place, Position, TxName};
use crate::query::literal;
use crate::replica;
use crate::server::{self, LogMode, Server};
use crate::wire::Client;

/// How long a server may lack what was taken in here: a replica that was just promoted may
/// still have it in its relay log.
const CATCH_UP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);

/// What the store keeps as the [`Lineage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) flavour: Flavour,
    /// [`Server::identity`] of the server that was read last.
    pub(crate) server: String,
    pub(crate) table: TableName,
    /// The tables that were followed beside it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) related: BTreeSet<TableName>,
}

impl Origin {
    /// A server, and what is read there.
    pub(crate) fn of(server: &Server, config: &MySqlConfig) -> Origin {
        Origin {
            flavour: server.flavour,
            server: server.identity.clone(),
            table: config.table.clone(),
            related: config.related.iter().map(|r| r.table.clone()).collect(),
        }
    }

    /// Whether it is the same table of the same server; what is related to it may change.
    fn is_of(&self, other: &Origin) -> bool {
        (self.flavour, &self.server, &self.table) == (other.flavour, &other.server, &other.table)
    }

    pub(crate) fn encode(&self) -> Lineage {
        // Cannot fail: plain strings.
        Lineage(serde_json::to_string(self).unwrap_or_default())
    }

    /// # Errors
    /// Definite, when the text was not written by [`Origin::encode`].
    pub(crate) fn decode(lineage: &Lineage) -> Result<Origin, ConnectorError> {
        serde_json::from_str(&lineage.0).map_err(|_| {
            ConnectorError::definite(
                "lineage_unreadable",
                "What the store holds about the server of this source was not written by this \
                 version of the MySQL source.",
                "Start the version of Rollcall that wrote the store, or a newer one.",
            )
        })
    }
}

/// Refuses another server than the one that is known.
pub(crate) fn expect(known: &Origin, found: &Origin) -> Result<(), ConnectorError> {
    if known.is_of(found) {
        return Ok(());
    }
    Err(ConnectorError::definite(
        OTHER_SERVER,
        format!(
            "This is {} of server {}, and what is known was read from {} of server {}.",
            found.table, found.server, known.table, known.server
        ),
        "Correct the source in the configuration. If this server has taken the other one's \
         place, make its log readable, or set mode = \"always\" in `poll`: then everything is \
         read again.",
    ))
}

/// The gap behind a time in which the table was polled.
pub(crate) fn not_followed(known: &Origin, found: &Origin, config: &MySqlConfig) -> Gap {
    let (reason, detail) = match known.is_of(found) {
        true => (
            GapReason::NotFollowed,
            "The log was not followed for a while, and the table polled; everything is read \
             again.",
        ),
        false => (
            GapReason::OtherServer,
            "The server is another one than the one that was polled; everything is read again.",
        ),
    };
    Gap {
        tables: config.table_names(),
        reason,
        from: None,
        to: None,
        detail: detail.to_owned(),
    }
}

/// A gap behind a cursor; `to` is filled in when it is known.
pub(crate) fn gap(
    reason: GapReason,
    config: &MySqlConfig,
    position: &Position,
    detail: String,
) -> Gap {
    Gap {
        tables: config.table_names(),
        reason,
        from: Some(position.to_string()),
        to: None,
        detail,
    }
}

/// Compares a stored position with the server as it is. `None`: the log can be read on
/// from there.
///
/// # Errors
/// Definite, when the position belongs to another table or kind of server.
pub(crate) async fn judge(
    client: &mut Client,
    server: &Server,
    config: &MySqlConfig,
    stored: &Origin,
    position: &Position,
) -> Result<Option<Gap>, ConnectorError> {
    let table = &config.table;
    if stored.table != *table || stored.flavour != server.flavour {
        return Err(ConnectorError::definite(
            "other_table",
            format!(
                "The stored position belongs to {} of a {} server, and this is {table} of a {} \
                 server.",
                stored.table,
                stored.flavour.name(),
                server.flavour.name()
            ),
            "Correct the source in the configuration, or give the new table a source of its own.",
        ));
    }
    let gap = |reason, detail| Some(gap(reason, config, position, detail));
    if position.inside.is_some() && stored.related != Origin::of(server, config).related {
        // How much of the transaction was handed over was counted over other tables.
        return Ok(gap(
            GapReason::MappingChanged,
            "The configuration names other related tables than before, and the log was left in \
             the middle of a transaction; everything is read again."
                .to_owned(),
        ));
    }
    let is_same_server = stored.server == server.identity;
    if is_same_server
        && let Some(place) = &position.whole.place
        // After a fail-over the place is still one of the other server.
        && place.server == Place::new(&server.identity, &place.file, 0).server
        && let Some((reason, detail)) = begun_anew(client, config, place).await?
    {
        return Ok(gap(reason, detail));
    }
    Ok(match (&position.whole.gtids, server.log_mode()) {
        (Gtids::MySql(_), LogMode::MySqlGtid) => mysql(client, position, is_same_server).await?,
        (Gtids::MariaDb(_), LogMode::MariaDbGtid) => {
            mariadb(client, position, is_same_server).await?
        }
        (Gtids::None, LogMode::Place) if is_same_server => {
            let place = position.read_from().place.as_ref();
            match place {
                Some(place) => files(client, place).await?,
                None => Some((
                    GapReason::PositionLost,
                    "The stored position names no place in the log.".to_owned(),
                )),
            }
        }
        (Gtids::None, LogMode::Place) => Some((
            GapReason::OtherServer,
            "The server is another one than the one that was followed, and without GTIDs its log \
             has nothing in common with that one's."
                .to_owned(),
        )),
        _ => Some((
            GapReason::PositionLost,
            "gtid_mode was switched, so the stored position cannot be found in the log.".to_owned(),
        )),
    }
    .and_then(|(reason, detail)| gap(reason, detail)))
}

type Found = Option<(GapReason, String)>;

/// Why a server that lacks something lacks it.
fn lacking(is_same_server: bool, has_common: bool, what: &str) -> (GapReason, String) {
    if is_same_server {
        (
            GapReason::Restored,
            format!(
                "The server no longer has {what}, which was taken in here: it was restored to an \
                 earlier point, or its log was reset."
            ),
        )
    } else if has_common {
        (
            GapReason::TimelineDiverged,
            format!(
                "The server does not have {what}, which was taken in here from another server of \
                 the group: the fail-over lost it."
            ),
        )
    } else {
        (
            GapReason::OtherServer,
            "The server is another one than the one that was followed, and has none of its \
             transactions."
                .to_owned(),
        )
    }
}

async fn mysql(
    client: &mut Client,
    position: &Position,
    is_same_server: bool,
) -> Result<Found, ConnectorError> {
    let (Gtids::MySql(whole), Gtids::MySql(needed)) =
        (&position.whole.gtids, &position.read_from().gtids)
    else {
        return Ok(None);
    };
    let mut applied = whole.clone();
    if let Some(inside) = &position.inside
        && let TxName::MySql(gtid) = inside.tx
    {
        applied.add(gtid);
    }
    let executed = caught_up(client, &applied, is_same_server).await?;
    let missing = applied.minus(&executed);
    if !missing.is_empty() {
        let has_common = applied
            .origins()
            .any(|(origin, _)| executed.origins().any(|(other, _)| other == origin));
        return Ok(Some(lacking(
            is_same_server,
            has_common,
            &format!("{} transactions ({})", missing.count(), shortened(&missing)),
        )));
    }
    let purged = server::gtid_set(client, "SELECT @@global.gtid_purged").await?;
    let lost = purged.minus(needed);
    Ok((!lost.is_empty()).then(|| {
        (
            GapReason::PositionLost,
            format!(
                "The server has purged {} transactions that were not read yet ({}).",
                lost.count(),
                shortened(&lost)
            ),
        )
    }))
}

/// What the server has executed, as soon as that includes what was applied here, or when
/// it was given enough time. The server that was read before has no excuse.
async fn caught_up(
    client: &mut Client,
    applied: &GtidSet,
    is_same_server: bool,
) -> Result<GtidSet, ConnectorError> {
    let end = tokio::time::Instant::now() + CATCH_UP;
    loop {
        let executed = server::gtid_set(client, "SELECT @@global.gtid_executed").await?;
        let is_late = is_same_server || tokio::time::Instant::now() >= end;
        // A server that knows nothing of ours is not a late replica.
        if is_late || executed.is_empty() || executed.contains_all(applied) {
            return Ok(executed);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn mariadb(
    client: &mut Client,
    position: &Position,
    is_same_server: bool,
) -> Result<Found, ConnectorError> {
    let (Gtids::MariaDb(whole), Gtids::MariaDb(needed)) =
        (&position.whole.gtids, &position.read_from().gtids)
    else {
        return Ok(None);
    };
    let mut applied = whole.clone();
    if let Some(inside) = &position.inside
        && let TxName::MariaDb(gtid) = inside.tx
    {
        applied.observe(gtid);
    }
    let end = tokio::time::Instant::now() + CATCH_UP;
    let now = loop {
        let now = server::gtid_state(client, "SELECT @@global.gtid_binlog_pos").await?;
        let is_late = is_same_server || tokio::time::Instant::now() >= end;
        if is_late || now.is_empty() || now.covers_all(&applied) {
            break now;
        }
        tokio::time::sleep(POLL).await;
    };
    let missing: GtidState = applied.beyond(&now).collect();
    if !missing.is_empty() {
        let has_common = applied.iter().any(|gtid| now.of(gtid.domain).is_some());
        return Ok(Some(lacking(
            is_same_server,
            has_common,
            &format!("everything up to {missing}"),
        )));
    }
    let logs = logs(client).await?;
    let Some(oldest) = logs.first() else {
        return Ok(None);
    };
    let start = server::gtid_state(
        client,
        &format!("SELECT BINLOG_GTID_POS({}, 4)", literal(&oldest.name)),
    )
    .await?;
    let lost: GtidState = start.beyond(needed).collect();
    Ok((!lost.is_empty()).then(|| {
        (
            GapReason::PositionLost,
            format!(
                "The server's oldest log file begins behind {lost}, and everything up to there \
                 was not read yet: it was purged."
            ),
        )
    }))
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
}

/// The files that the server still has, oldest first.
pub(crate) async fn logs(client: &mut Client) -> Result<Vec<LogFile>, ConnectorError> {
    let rows = client.rows("SHOW BINARY LOGS").await?;
    rows.iter()
        .map(|row| {
            Ok(LogFile {
                name: row.need(0)?.to_owned(),
                size_bytes: row
                    .number(1)
                    .ok_or_else(|| protocol_violation("a file size that is no number"))?,
            })
        })
        .collect()
}

/// Whether the log of this server was begun anew since it was at a place: it ends before,
/// or the place's file is another one of the same name.
async fn begun_anew(
    client: &mut Client,
    config: &MySqlConfig,
    place: &Place,
) -> Result<Found, ConnectorError> {
    let logs = logs(client).await?;
    let is_other = match (
        logs.iter().find(|log| *log.name == *place.file),
        logs.last(),
    ) {
        (Some(log), _) if log.size_bytes < place.position => true,
        (Some(_), _) if place.created == 0 => false,
        (Some(_), _) => replica::created(config, &place.file)
            .await?
            .is_some_and(|created| created != place.created),
        (None, Some(last)) => last.name.len() == place.file.len() && *last.name < *place.file,
        (None, None) => false,
    };
    Ok(is_other.then(|| {
        (
            GapReason::Restored,
            format!(
                "The log no longer has the stored position {place}, or another one in its place: \
                 it was reset, or the server restored to an earlier point."
            ),
        )
    }))
}

/// Whether the file of a place is still there.
async fn files(client: &mut Client, place: &Place) -> Result<Found, ConnectorError> {
    let logs = logs(client).await?;
    let is_there = logs.iter().any(|log| *log.name == *place.file);
    Ok((!is_there).then(|| {
        (
            GapReason::PositionLost,
            format!("The server no longer has the file {}.", place.file),
        )
    }))
}

/// The beginning of a set, for a sentence.
fn shortened(set: &GtidSet) -> String {
    const SHOWN: usize = 120;
    let text = set.to_string().replace('\n', "");
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
