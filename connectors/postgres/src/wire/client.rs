//! The commands of a replication session (PostgreSQL documentation, "Streaming Replication
//! Protocol").

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rollcall_contract::ConnectorError;

use super::frames::Frames;
use super::queries::timed_out;
use super::socket::{self, ByteStream};
use super::startup::{self, server_error};
use crate::config::{NO_ENCODING, PostgresConfig};
use crate::decode::{Decoder, DecoderOptions, Fields};
use crate::errors::{PgError, from_io, protocol_violation};
use crate::lsn::Lsn;
use crate::stream::{PgAcknowledge, PgStream, StreamOptions};

/// A replication session that runs no log yet.
pub struct ReplicationClient {
    frames: Frames,
    version: u32,
}

/// The answer of `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster; a copy of it has the same one.
    pub system_id: u64,
    /// The timeline that the server writes (or replays).
    pub timeline: u32,
    /// The position up to which the log is flushed.
    pub flushed: Lsn,
    /// The database of this session.
    pub database: Option<String>,
}

/// The end of a timeline, from its successor's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that ended.
    pub timeline: u32,
    /// Where it ended.
    pub at: Lsn,
}

/// What happens to the snapshot of a slot that is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotSnapshot {
    /// None is made.
    Nothing,
    /// It is exported, and lives until the session's next command.
    Export,
}

/// How to create a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOptions {
    /// The snapshot.
    pub snapshot: SlotSnapshot,
    /// Synchronised to standbys; left out before server 17, which does not know it.
    pub failover: bool,
    /// Dropped with the session.
    pub temporary: bool,
}

/// A slot that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The log is whole from here on.
    pub consistent_point: Lsn,
    /// The exported snapshot.
    pub snapshot: Option<String>,
}

type Rows = Vec<Vec<Option<String>>>;

impl ReplicationClient {
    /// Connects to the server of the configuration, within its `connect_timeout`.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says; `connect_timeout` is transient.
    pub async fn connect(config: &PostgresConfig) -> Result<Self, PgError> {
        let connecting = async {
            let stream = socket::open(config)
                .await
                .map_err(|e| from_io(&config.address(), "Connecting to", &e))?;
            ReplicationClient::begin(stream, config).await
        };
        tokio::time::timeout(config.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(timed_out(config).into()))
    }

    /// As [`ReplicationClient::connect`], over a byte stream that is open already (a
    /// tunnel). Encryption and authentication take place on it.
    ///
    /// # Errors
    /// As [`ReplicationClient::connect`].
    pub async fn over(stream: impl ByteStream, config: &PostgresConfig) -> Result<Self, PgError> {
        let starting = ReplicationClient::begin(Box::new(stream), config);
        tokio::time::timeout(config.connect_timeout, starting)
            .await
            .unwrap_or_else(|_| Err(timed_out(config).into()))
    }

    async fn begin(stream: Box<dyn ByteStream>, config: &PostgresConfig) -> Result<Self, PgError> {
        let session = startup::start(stream, config).await?;
        let version = session
            .parameters
            .get("server_version")
            .and_then(|v| {
                let digits = v.find(|c: char| !c.is_ascii_digit()).unwrap_or(v.len());
                v[..digits].parse().ok()
            })
            .ok_or_else(|| protocol_violation("no server version"))?;
        let mut client = ReplicationClient {
            frames: session.frames,
            version,
        };
        let encoding = session.parameters.get("server_encoding");
        if encoding.is_some_and(|name| name == NO_ENCODING) {
            let command = format!("SET client_encoding TO '{NO_ENCODING}'");
            client.query(&command).await?;
        }
        Ok(client)
    }

    /// The server's major version.
    pub fn server_version(&self) -> u32 {
        self.version
    }

    async fn send_query(&mut self, command: &str) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|_| {
            ConnectorError::definite(
                "configuration",
                "A name in the configuration holds a zero byte.",
                "Correct it.",
            )
        })?;
        self.frames.send(&out).await
    }

    /// Runs one command to its end.
    async fn query(&mut self, command: &str) -> Result<Rows, PgError> {
        self.send_query(command).await?;
        let mut rows = Rows::new();
        let mut failed = None;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'D' => {
                    let mut f = Fields::new("DataRow", &frame.body);
                    let mut row = Vec::new();
                    for _ in 0..f.u16()? {
                        row.push(match f.i32()? {
                            -1 => None,
                            len => {
                                let len = usize::try_from(len)
                                    .map_err(|_| protocol_violation("a negative length"))?;
                                Some(String::from_utf8_lossy(f.bytes(len)?).into_owned())
                            }
                        });
                    }
                    rows.push(row);
                }
                b'E' => failed = Some(server_error(&frame.body)?),
                b'Z' => return failed.map_or(Ok(rows), Err),
                b'T' | b'C' | b'I' | b'N' | b'S' => {}
                _ => return Err(protocol_violation("an unknown answer to a command").into()),
            }
        }
    }

    async fn one_row(&mut self, command: &str) -> Result<Vec<Option<String>>, PgError> {
        let mut rows = self.query(command).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(protocol_violation("not exactly one row for a command").into()),
        }
    }

    /// Which cluster this is, and where it stands.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        let row = self.one_row("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: field(&row, 0)?,
            timeline: field(&row, 1)?,
            flushed: field(&row, 2)?,
            database: row.get(3).cloned().flatten(),
        })
    }

    /// Creates a logical slot for pgoutput. Waits for every transaction of the whole server
    /// that runs now, so the caller should say so after a while.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says (SQLSTATE 42710: it exists).
    pub async fn create_slot(
        &mut self,
        slot: &str,
        options: SlotOptions,
    ) -> Result<CreatedSlot, PgError> {
        let temporary = if options.temporary { " TEMPORARY" } else { "" };
        let mut command = format!(
            "CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput ",
            identifier(slot)
        );
        command += match (self.version >= 15, options.snapshot) {
            (false, SlotSnapshot::Nothing) => "NOEXPORT_SNAPSHOT",
            (false, SlotSnapshot::Export) => "EXPORT_SNAPSHOT",
            (true, SlotSnapshot::Nothing) => "(SNAPSHOT 'nothing'",
            (true, SlotSnapshot::Export) => "(SNAPSHOT 'export'",
        };
        if self.version >= 15 {
            if self.version >= 17 && options.failover {
                command += ", FAILOVER true";
            }
            command += ")";
        }
        let row = self.one_row(&command).await?;
        Ok(CreatedSlot {
            consistent_point: field(&row, 1)?,
            snapshot: row.get(2).cloned().flatten(),
        })
    }

    /// Drops a slot that nobody uses.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says (55006: in use, 42704: there is none).
    pub async fn drop_slot(&mut self, slot: &str) -> Result<(), PgError> {
        self.query(&format!("DROP_REPLICATION_SLOT {}", identifier(slot)))
            .await
            .map(|_| ())
    }

    /// Where each earlier timeline of this history ended, oldest first. The first timeline
    /// has no history.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says.
    pub async fn timeline_history(
        &mut self,
        timeline: u32,
    ) -> Result<Vec<TimelineSwitch>, PgError> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let row = self
            .one_row(&format!("TIMELINE_HISTORY {timeline}"))
            .await?;
        let content: String = field(&row, 1)?;
        history(&content)
    }

    /// Shows a setting.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says.
    pub async fn show(&mut self, setting: &str) -> Result<String, PgError> {
        let row = self
            .one_row(&format!("SHOW {}", identifier(setting)))
            .await?;
        field(&row, 0)
    }

    /// Starts the log of a slot at the decoder's position, and the two tasks that serve it.
    ///
    /// # Errors
    /// As the table in [`crate::errors`] says (55006: in use; 42704: no such slot).
    pub async fn start(
        mut self,
        slot: &str,
        publication: &str,
        decoder: DecoderOptions,
        options: StreamOptions,
    ) -> Result<(PgStream, Arc<PgAcknowledge>), PgError> {
        let mut command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}",
            identifier(slot),
            decoder.start.commit_end,
            literal(&identifier(publication)),
        );
        if self.version >= 14 {
            command += ", messages 'true'";
        }
        if self.version >= 16 && options.skip_replicated {
            command += ", origin 'none'";
        }
        command += ")";
        self.send_query(&command).await?;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'W' => break,
                b'N' | b'S' => {}
                b'E' => return Err(server_error(&frame.body)?),
                _ => return Err(protocol_violation("no log after the command to start it").into()),
            }
        }
        let (stream, early, address) = self.frames.into_parts();
        let mut decoder = Decoder::new(decoder);
        decoder.buffer().extend_from_slice(&early);
        Ok(PgStream::spawn(stream, address, decoder, options))
    }

    /// Reads `wal_sender_timeout` of this session; none when it is switched off.
    ///
    /// # Errors
    /// As [`ReplicationClient::show`].
    pub async fn wal_sender_timeout(&mut self) -> Result<Option<Duration>, PgError> {
        Ok(duration(&self.show("wal_sender_timeout").await?).filter(|d| !d.is_zero()))
    }
}

fn field<T: std::str::FromStr>(row: &[Option<String>], index: usize) -> Result<T, PgError> {
    row.get(index)
        .and_then(Option::as_deref)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| protocol_violation("an answer without a field that it must have").into())
}

fn history(content: &str) -> Result<Vec<TimelineSwitch>, PgError> {
    content
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut parts = line.split_ascii_whitespace();
            let timeline = parts.next().and_then(|p| p.parse().ok());
            let at = parts.next().and_then(|p| p.parse().ok());
            match (timeline, at) {
                (Some(timeline), Some(at)) => Ok(TimelineSwitch { timeline, at }),
                _ => Err(protocol_violation("a timeline history that cannot be read").into()),
            }
        })
        .collect()
}

/// A setting with a unit, as `SHOW` prints it: `1min`, `30s`, `500ms`, `0`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    Some(Duration::from_millis(number.saturating_mul(
        match &text[digits..] {
            "" | "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        },
    )))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_history_names_where_each_timeline_ended() {
        let text = "1\t0/3000000\tno recovery target specified\n\n# note\n2\t0/5000060\tbefore x\n";
        let switch = |timeline, at: &str| TimelineSwitch {
            timeline,
            at: at.parse().unwrap(),
        };
        assert_eq!(
            history(text).unwrap(),
            [switch(1, "0/3000000"), switch(2, "0/5000060")]
        );
        assert!(history("1 nonsense").is_err());
    }

    #[test]
    fn settings_have_units() {
        for (text, ms) in [("1min", 60_000), ("30s", 30_000), ("500ms", 500), ("0", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)));
        }
        assert_eq!(duration("soon"), None);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal(&identifier("it's")), "'\"it''s\"'");
    }
}
