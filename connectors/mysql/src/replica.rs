//! Asking for the log, as a replica does.
//!
//! A server knows its replicas by two names: the id, which it ends an older connection
//! for, and (MySQL) a UUID, for which it does the same. Both are made from the source's
//! name and table, so that after a restart or a cut network we end our own forgotten
//! connection and nobody else's; and when the list of replicas shows our id in other hands,
//! the next one in our own row of ids is taken.

use std::time::Duration;

use rollcall_binlog::event::{Header, Kind};
use rollcall_contract::ConnectorError;
use tokio::io::AsyncReadExt;

use crate::config::{Flavour, MySqlConfig};
use crate::errors::{MySqlError, protocol_violation};
use crate::position::{Gtids, Point};
use crate::query::literal;
use crate::server::Server;
use crate::wire::{ByteStream, Client, DumpFrom, HEADER, server_error};

/// How many ids are tried before the configuration has to name one.
const IDS: u32 = 16;

/// Our names among the replicas of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) server_id: u32,
    pub(crate) uuid: String,
    /// What `SHOW REPLICAS` calls our host.
    pub(crate) host: String,
}

impl Names {
    /// The names of a source; `attempt` counts ids that were in other hands.
    pub(crate) fn of(config: &MySqlConfig, attempt: u32) -> Names {
        let seed = format!("{}\0{}", config.name, config.table);
        let (high, low) = (hash(&seed, 1), hash(&seed, 2));
        let derived = hash(&seed, 3).wrapping_add(u64::from(attempt)) as u32;
        Names {
            // The upper half, where operators seldom number their servers.
            server_id: config.server_id.unwrap_or(derived | 1 << 31),
            // Version 8: made by a rule of our own.
            uuid: format!(
                "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xfff,
                0x8000 | (low >> 48 & 0x3fff),
                low & 0xffff_ffff_ffff
            ),
            host: format!("rollcall/{}", config.name),
        }
    }
}

/// FNV-1a: stable between releases.
fn hash(text: &str, salt: u8) -> u64 {
    text.bytes()
        .chain([0, salt])
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// Chooses names that nobody else uses at the moment.
pub(crate) async fn choose_names(
    client: &mut Client,
    server: &Server,
    config: &MySqlConfig,
) -> Result<Names, ConnectorError> {
    let rows = match client.rows(server.replicas_statement()).await {
        Ok(rows) => rows,
        // MariaDB shows its replicas to administrators only; then the first id has to do.
        Err(e) if e.code.is_some() => return Ok(Names::of(config, 0)),
        Err(e) => return Err(e.into()),
    };
    for attempt in 0..IDS {
        let names = Names::of(config, attempt);
        let other = rows
            .iter()
            .find(|row| row.number(0) == Some(names.server_id) && row.text(1) != Some(&names.host));
        match other {
            None => return Ok(names),
            Some(_) if config.server_id.is_some() => break,
            Some(_) => {}
        }
    }
    Err(ConnectorError::definite(
        "server_id_taken",
        "Another replica of the server has the id that this source would use.",
        "Set `server_id` for this source to a number that no server and no replica has.",
    ))
}

/// A log that was asked for and has begun to come.
pub(crate) struct Dump {
    pub(crate) stream: Box<dyn ByteStream>,
    /// What came with the answer.
    pub(crate) early: Vec<u8>,
}

/// Asks for the log from a point on, and waits for the first packet: a server that cannot
/// send the log says so in place of it.
///
/// # Errors
/// As the table in [`crate::errors`] says; with a gap when the log is not there.
pub(crate) async fn ask(
    config: &MySqlConfig,
    server: &Server,
    names: &Names,
    from: &Point,
) -> Result<Dump, MySqlError> {
    let mut client = Client::connect(config).await?;
    let heartbeat_ns = config.heartbeat.as_nanos();
    let mut settings = format!(
        "SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32', \
         @source_heartbeat_period = {heartbeat_ns}, @master_heartbeat_period = {heartbeat_ns}, \
         net_write_timeout = {}",
        Duration::from_secs(600).as_secs()
    );
    match server.flavour {
        Flavour::MySql => {
            let uuid = literal(&names.uuid);
            settings += &format!(", @replica_uuid = {uuid}, @slave_uuid = {uuid}");
        }
        // 4: the replica understands GTID events.
        Flavour::MariaDb => settings += ", @mariadb_slave_capability = 4",
    }
    client.run(&settings).await?;
    let dump = match &from.gtids {
        Gtids::MySql(set) => {
            let mut encoded = Vec::new();
            set.encode(&mut encoded);
            DumpFrom::Gtids(encoded)
        }
        Gtids::MariaDb(state) => {
            client
                .run(&format!(
                    "SET @slave_connect_state = {}, @slave_gtid_strict_mode = 1, \
                     @slave_gtid_ignore_duplicates = 0",
                    literal(&state.to_string())
                ))
                .await?;
            DumpFrom::Place {
                file: String::new(),
                position: 4,
            }
        }
        Gtids::None => {
            let place = from
                .place
                .as_ref()
                .ok_or_else(|| protocol_violation("a position without a place"))?;
            let position = u32::try_from(place.position).map_err(|_| {
                ConnectorError::definite(
                    "place_too_far",
                    format!(
                        "The position {place} lies beyond 4 GiB of its file, where the log \
                         cannot be asked for."
                    ),
                    "Set gtid_mode = ON, or run FLUSH BINARY LOGS and have the table read again.",
                )
            })?;
            DumpFrom::Place {
                file: place.file.to_string(),
                position,
            }
        }
    };
    client.register(names.server_id, &names.host).await?;
    let (mut stream, mut early) = client.dump(names.server_id, &dump).await?;
    let first = first_packet(&mut stream, &mut early);
    tokio::time::timeout(config.query_timeout, first)
        .await
        .unwrap_or_else(|_| {
            Err(ConnectorError::transient(
                "query_timeout",
                format!("{} did not begin to send its log.", config.address()),
            )
            .into())
        })?;
    Ok(Dump { stream, early })
}

/// When a file of the log was begun, in seconds since the Unix epoch: its name says nothing
/// after the log was reset. None when the server does not send it.
pub(crate) async fn created(
    config: &MySqlConfig,
    file: &str,
) -> Result<Option<u32>, ConnectorError> {
    let mut client = Client::connect(config).await?;
    client
        .run("SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'")
        .await?;
    let from = DumpFrom::Place {
        file: file.to_owned(),
        position: 4,
    };
    // As the log's own tool, which is no replica and ends nobody's connection.
    let (mut stream, mut early) = client.dump(0, &from).await?;
    let reading = async {
        let mut at = 0;
        // The name of the file comes first, then its description.
        for _ in 0..2 {
            let payload = packet(&mut stream, &mut early, &mut at).await?;
            let [0x00, event @ ..] = payload else {
                return Ok(None);
            };
            if let Ok(header) = Header::parse(event)
                && header.kind == Kind::FormatDescription
            {
                return Ok(Some(header.timestamp));
            }
        }
        Ok(None)
    };
    tokio::time::timeout(config.query_timeout, reading)
        .await
        .unwrap_or(Ok(None))
}

/// Reads until the first packet is there, and looks whether it is a refusal.
async fn first_packet(
    stream: &mut Box<dyn ByteStream>,
    early: &mut Vec<u8>,
) -> Result<(), MySqlError> {
    match packet(stream, early, &mut 0).await? {
        [0xff, body @ ..] => Err(server_error(body)),
        _ => Ok(()),
    }
}

/// The payload of the packet that begins at `at`, which moves behind it. Packets at the
/// beginning of a log are small.
async fn packet<'e>(
    stream: &mut Box<dyn ByteStream>,
    early: &'e mut Vec<u8>,
    at: &mut usize,
) -> Result<&'e [u8], ConnectorError> {
    loop {
        let rest = early.get(*at..).unwrap_or_default();
        if let Some(&[a, b, c, _]) = rest.first_chunk::<HEADER>() {
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            if rest.len() >= HEADER + len {
                let start = *at + HEADER;
                *at = start + len;
                return Ok(&early[start..start + len]);
            }
        }
        match stream.read_buf(early).await {
            Ok(0) | Err(_) => {
                return Err(ConnectorError::transient(
                    "connection_lost",
                    "The server closed the connection in place of sending its log.",
                ));
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rollcall_contract::TableName;

    use super::*;

    #[test]
    fn names_stay_and_differ_between_sources() {
        let config = |name: &str, table: &str| {
            let table = TableName::new("hr", table);
            let mut config = MySqlConfig::new(Flavour::MySql, "localhost", "r", table);
            config.name = name.to_owned();
            config
        };
        let names = Names::of(&config("hr", "people"), 0);
        assert_eq!(names, Names::of(&config("hr", "people"), 0));
        assert!(names.server_id >= 1 << 31);
        assert_eq!(names.uuid.len(), 36);
        for other in [config("hr2", "people"), config("hr", "jobs")] {
            let other = Names::of(&other, 0);
            assert_ne!(other.server_id, names.server_id);
            assert_ne!(other.uuid, names.uuid);
        }
        assert_ne!(
            Names::of(&config("hr", "people"), 1).server_id,
            names.server_id
        );
    }
}
