//! What the daemon says about one PostgreSQL source.
//!
//! A plain value: it exists only after the configuration file has been read and checked,
//! so everything below takes it as it is.

use std::time::Duration;

use rollcall_contract::{
    BatchCaps, ConnectorError, FollowedTable, RelatedTable, TableName, TableNo,
};
use rollcall_transport::TlsSettings;
use secrecy::SecretString;

/// The server, the table, and how to follow it.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// A host name, an IP address, or the directory of a Unix socket (begins with `/`).
    pub host: String,
    /// The port; it is also part of a Unix socket's file name.
    pub port: u16,
    /// The database that holds the table.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password; none for `peer`, `trust` or a client certificate.
    pub password: Option<SecretString>,
    /// What is encrypted and verified.
    pub tls: TlsSettings,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The followed table; of a partitioned table, its root.
    pub table: TableName,
    /// The columns that identify a record; none means the primary key.
    pub key: Option<Vec<String>>,
    /// The tables that are followed beside it, each another one, in the order of their numbers
    /// (from 1).
    pub related: Vec<RelatedTable>,
    /// What the server shows in `pg_stat_activity`.
    pub application_name: String,
    /// For the whole of connecting: name, socket, TLS, authentication.
    pub connect_timeout: Duration,
    /// For a single query.
    pub query_timeout: Duration,
    /// Writes a transactional logical message this often; none (the default) writes nothing.
    pub heartbeat: Option<Duration>,
    /// Leave out rows that themselves arrived by replication (server 16 and above).
    pub skip_replicated: bool,
    /// When a batch is handed over at the latest.
    pub caps: BatchCaps,
    /// How often the slot, the publication and the table are looked at while the log is
    /// read.
    pub watch_interval: Duration,
    /// How often the server is asked where an idle log stands.
    pub ask_interval: Duration,
}

impl PostgresConfig {
    /// Everything at its default except for what has none. The TLS mode follows from the
    /// host.
    pub fn new(host: &str, database: &str, user: &str, table: TableName) -> Self {
        PostgresConfig {
            host: host.to_owned(),
            port: 5432,
            database: database.to_owned(),
            user: user.to_owned(),
            password: None,
            tls: TlsSettings::default_for(host),
            slot: "rollcall".to_owned(),
            publication: "rollcall".to_owned(),
            table,
            key: None,
            related: Vec::new(),
            application_name: "rollcall".to_owned(),
            connect_timeout: Duration::from_secs(10),
            query_timeout: Duration::from_secs(60),
            heartbeat: None,
            skip_replicated: false,
            caps: BatchCaps::default(),
            watch_interval: Duration::from_secs(15),
            ask_interval: Duration::from_secs(1),
        }
    }

    /// Whether the host is the directory of a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The path of the Unix socket, when the host is its directory.
    pub fn socket_path(&self) -> Option<std::path::PathBuf> {
        self.is_unix_socket()
            .then(|| std::path::Path::new(&self.host).join(format!(".s.PGSQL.{}", self.port)))
    }

    /// The followed tables in the order of their numbers.
    pub(crate) fn tables(&self) -> impl Iterator<Item = FollowedTable<'_>> + Clone {
        FollowedTable::all(&self.table, self.key.as_deref(), &self.related)
    }

    /// The names of the followed tables.
    pub(crate) fn table_names(&self) -> Vec<TableName> {
        self.tables()
            .map(|followed| followed.table.clone())
            .collect()
    }

    /// The followed table of a number.
    ///
    /// # Errors
    /// Definite, when the source has fewer tables.
    pub(crate) fn followed(&self, no: TableNo) -> Result<FollowedTable<'_>, ConnectorError> {
        FollowedTable::of_number(self.tables(), no)
    }

    /// The server for people: `host:port`, or the socket's path.
    pub fn address(&self) -> String {
        match self.socket_path() {
            Some(path) => path.display().to_string(),
            None if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

/// The encoding of a database that does not say which one it has. Such a database converts
/// nothing, but refuses to send what is not valid in the client's encoding: one wrong byte in
/// one row would end every page and the log itself. So its sessions take the bytes as they
/// are; text that is UTF-8 is text, and other text fails its own record.
pub(crate) const NO_ENCODING: &str = "SQL_ASCII";

/// What the server is told at the start of every session, so that the log and the scan
/// print values in the one form that [`crate::types`] reads.
pub const SESSION_OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=postgres \
     -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex";
