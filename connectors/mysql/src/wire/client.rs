//! One session: queries, and the commands that turn it into a stream of the log.

use std::time::Duration;

use rollcall_contract::ConnectorError;

use super::fields::Fields;
use super::handshake::{self, server_error};
use super::packets::Packets;
use super::rows::{ColumnDef, Row};
use super::socket::{self, ByteStream};
use crate::config::MySqlConfig;
use crate::errors::{MySqlError, from_io, protocol_violation};

mod command {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const BINLOG_DUMP: u8 = 0x12;
    pub(super) const REGISTER_REPLICA: u8 = 0x15;
    pub(super) const STMT_PREPARE: u8 = 0x16;
    pub(super) const STMT_EXECUTE: u8 = 0x17;
    pub(super) const STMT_CLOSE: u8 = 0x19;
    pub(super) const BINLOG_DUMP_GTID: u8 = 0x1e;
}

/// More columns than a table can have.
const MAX_COLUMNS: u64 = 65_535;
/// `BINLOG_THROUGH_GTID`: the request carries a set.
const THROUGH_GTID: u16 = 0x04;

/// Where the log is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DumpFrom {
    /// Everything that is not in this set, in the server's encoding of it.
    Gtids(Vec<u8>),
    /// A file and a position in it; an empty name where the session's variables say where.
    Place {
        /// The file's name.
        file: String,
        /// Bytes from its beginning.
        position: u32,
    },
}

/// Takes the payload of one row, with the columns of the result.
pub(crate) type EachRow<'a> =
    dyn FnMut(&[ColumnDef], &[u8]) -> Result<(), ConnectorError> + Send + 'a;

/// A session.
pub(crate) struct Client {
    packets: Packets,
    version: String,
    timeout: Duration,
    /// A command was given up in its middle: what comes next would be read wrongly.
    is_broken: bool,
}

impl Client {
    /// Connects to the server of the configuration, within its `connect_timeout`.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says; `connect_timeout` is transient.
    pub(crate) async fn connect(config: &MySqlConfig) -> Result<Client, MySqlError> {
        let connecting = async {
            let stream = socket::open(config)
                .await
                .map_err(|e| from_io(&config.address(), "Connecting to", &e))?;
            Client::begin(stream, config).await
        };
        tokio::time::timeout(config.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| {
                Err(timed_out("connect_timeout", config.address(), config.connect_timeout).into())
            })
    }

    async fn begin(
        stream: Box<dyn ByteStream>,
        config: &MySqlConfig,
    ) -> Result<Client, MySqlError> {
        let session = handshake::start(stream, config).await?;
        let mut client = Client {
            packets: session.packets,
            version: session.version,
            timeout: config.query_timeout,
            is_broken: false,
        };
        // One form of every value, whatever the server's defaults are; and no quotes of
        // ours are read in another way.
        // And no waiting on the server for a lock after we have given up.
        client
            .run(&format!(
                "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = '', lock_wait_timeout = {}",
                config.query_timeout.as_secs().max(1)
            ))
            .await?;
        Ok(client)
    }

    /// The version as the server spells it.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Whether the session is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether the session that was idle is of use: nothing went wrong, and the server has
    /// not closed it meanwhile.
    pub(crate) fn is_usable(&mut self) -> bool {
        !self.is_broken && !self.packets.has_ended()
    }

    /// Runs a statement and gives its rows as text.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says; `query_timeout` is transient.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, MySqlError> {
        self.within(async |client| {
            client.packets.restart();
            let mut payload = vec![command::QUERY];
            payload.extend_from_slice(sql.as_bytes());
            client.packets.send(&payload).await?;
            let Some(columns) = client.columns().await? else {
                return Ok(Vec::new());
            };
            let mut rows = Vec::new();
            loop {
                let payload = client.packets.next().await?;
                if ends(payload)? {
                    return Ok(rows);
                }
                rows.push(Row::parse(payload, columns.len())?);
            }
        })
        .await
    }

    /// Runs a statement for its effect on the session.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), MySqlError> {
        self.rows(sql).await.map(drop)
    }

    /// Runs a statement that has one row.
    ///
    /// # Errors
    /// As [`Client::rows`]; an answer of no row or of several is a protocol violation.
    pub(crate) async fn row(&mut self, sql: &str) -> Result<Row, MySqlError> {
        let mut rows = self.rows(sql).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(protocol_violation("not exactly one row for a question").into()),
        }
    }

    /// Runs a query by the binary protocol, whose numbers are exact, and hands the payload
    /// of each row on as it is, with the columns.
    ///
    /// # Errors
    /// As [`Client::rows`], and what the callback returns.
    pub(crate) async fn select(
        &mut self,
        sql: &str,
        each: &mut EachRow<'_>,
    ) -> Result<(), MySqlError> {
        self.within(async |client| {
            let statement = client.prepare(sql).await?;
            client.packets.restart();
            let mut payload = vec![command::STMT_EXECUTE];
            payload.extend_from_slice(&statement.to_le_bytes());
            // No cursor; one iteration.
            payload.push(0);
            payload.extend_from_slice(&1u32.to_le_bytes());
            client.packets.send(&payload).await?;
            let Some(columns) = client.columns().await? else {
                return Err(protocol_violation("a query without rows").into());
            };
            loop {
                let payload = client.packets.next().await?;
                if ends(payload)? {
                    break;
                }
                each(&columns, payload)?;
            }
            client.packets.restart();
            let mut payload = vec![command::STMT_CLOSE];
            payload.extend_from_slice(&statement.to_le_bytes());
            // It has no answer.
            client.packets.send(&payload).await
        })
        .await
    }

    async fn prepare(&mut self, sql: &str) -> Result<u32, MySqlError> {
        self.packets.restart();
        let mut payload = vec![command::STMT_PREPARE];
        payload.extend_from_slice(sql.as_bytes());
        self.packets.send(&payload).await?;
        let payload = self.packets.next().await?;
        let mut f = Fields::new("prepared statement", payload);
        match f.u8()? {
            0 => {}
            0xff => return Err(server_error(f.rest())),
            _ => return Err(protocol_violation("an unknown answer to a statement").into()),
        }
        let statement = f.u32()?;
        let columns = f.u16()?;
        let parameters = f.u16()?;
        for count in [parameters, columns] {
            for _ in 0..count {
                self.packets.next().await?;
            }
            if count > 0 && !ends(self.packets.next().await?)? {
                return Err(protocol_violation("more columns than were announced").into());
            }
        }
        Ok(statement)
    }

    /// The head of an answer: its columns, or none when it has no rows.
    async fn columns(&mut self) -> Result<Option<Vec<ColumnDef>>, MySqlError> {
        let payload = self.packets.next().await?;
        let count = match payload {
            [0x00, ..] => return Ok(None),
            [0xff, body @ ..] => return Err(server_error(body)),
            _ => Fields::new("result", payload).lenenc_int()?,
        };
        if count > MAX_COLUMNS {
            return Err(protocol_violation("a result of too many columns").into());
        }
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(ColumnDef::parse(self.packets.next().await?)?);
        }
        if !ends(self.packets.next().await?)? {
            return Err(protocol_violation("more columns than were announced").into());
        }
        Ok(Some(columns))
    }

    /// One command with its deadline. When it is given up, or ends in anything but the
    /// server's own refusal, the session is not used again.
    async fn within<T>(
        &mut self,
        command: impl AsyncFnOnce(&mut Client) -> Result<T, MySqlError>,
    ) -> Result<T, MySqlError> {
        let (timeout, address) = (self.timeout, self.packets.address().to_owned());
        // Set while the command runs, so that it stays set when the future is dropped.
        self.is_broken = true;
        let result = tokio::time::timeout(timeout, command(self))
            .await
            .unwrap_or_else(|_| Err(timed_out("query_timeout", address, timeout).into()));
        self.is_broken = match &result {
            Ok(_) => false,
            Err(e) => e.code.is_none(),
        };
        result
    }

    /// Makes this session known as a replica (`SHOW REPLICAS` lists it).
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says.
    pub(crate) async fn register(&mut self, server_id: u32, name: &str) -> Result<(), MySqlError> {
        let mut payload = vec![command::REGISTER_REPLICA];
        payload.extend_from_slice(&server_id.to_le_bytes());
        let name: String = name.chars().take(60).collect();
        payload.push(name.len().min(255) as u8);
        payload.extend_from_slice(&name.as_bytes()[..name.len().min(255)]);
        // No user and no password are reported; no port; rank and source are not used.
        payload.extend_from_slice(&[0, 0, 0, 0]);
        payload.extend_from_slice(&[0; 8]);
        self.within(async |client| {
            client.packets.restart();
            client.packets.send(&payload).await?;
            match client.packets.next().await? {
                [0x00, ..] => Ok(()),
                [0xff, body @ ..] => Err(server_error(body)),
                _ => Err(protocol_violation("an unknown answer to a replica").into()),
            }
        })
        .await
    }

    /// Asks for the log. What follows on the byte stream are its packets, or an error.
    ///
    /// # Errors
    /// Only those of sending; the server's refusal comes as the first packet.
    pub(crate) async fn dump(
        mut self,
        server_id: u32,
        from: &DumpFrom,
    ) -> Result<(Box<dyn ByteStream>, Vec<u8>), MySqlError> {
        let mut payload = Vec::new();
        match from {
            DumpFrom::Gtids(set) => {
                payload.push(command::BINLOG_DUMP_GTID);
                payload.extend_from_slice(&THROUGH_GTID.to_le_bytes());
                payload.extend_from_slice(&server_id.to_le_bytes());
                // No file name; the first position of a file.
                payload.extend_from_slice(&0u32.to_le_bytes());
                payload.extend_from_slice(&4u64.to_le_bytes());
                payload.extend_from_slice(&(set.len() as u32).to_le_bytes());
                payload.extend_from_slice(set);
            }
            DumpFrom::Place { file, position } => {
                payload.push(command::BINLOG_DUMP);
                payload.extend_from_slice(&position.to_le_bytes());
                payload.extend_from_slice(&0u16.to_le_bytes());
                payload.extend_from_slice(&server_id.to_le_bytes());
                payload.extend_from_slice(file.as_bytes());
            }
        }
        self.packets.restart();
        self.packets.send(&payload).await?;
        let (stream, early, _) = self.packets.into_parts();
        Ok((stream, early))
    }

    /// Takes leave.
    pub(crate) async fn close(mut self) {
        self.packets.restart();
        // Whether the server hears it makes no difference.
        let leave = self.packets.send(&[command::QUIT]);
        let _ = tokio::time::timeout(Duration::from_secs(1), leave).await;
    }
}

/// Whether this payload ends a list of rows or columns.
fn ends(payload: &[u8]) -> Result<bool, MySqlError> {
    match payload {
        [0xff, body @ ..] => Err(server_error(body)),
        // A row may begin with the same byte (a cell of over 16 MiB), and is longer then.
        [0xfe, rest @ ..] => Ok(rest.len() < 8),
        _ => Ok(false),
    }
}

fn timed_out(code: &'static str, address: String, limit: Duration) -> ConnectorError {
    ConnectorError::transient(
        code,
        format!(
            "{address} did not answer within {} s.",
            limit.as_secs_f32().ceil()
        ),
    )
}
