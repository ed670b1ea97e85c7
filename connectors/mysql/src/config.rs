//! What the daemon says about one MySQL or MariaDB source.
//!
//! A plain value: it exists only after the configuration file has been read and checked,
//! so everything below takes it as it is.

use std::time::Duration;

use rollcall_contract::{
    BatchCaps, ConnectorError, FollowedTable, RelatedTable, TableName, TableNo,
};
use rollcall_transport::TlsSettings;
use secrecy::SecretString;

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// MySQL, Percona Server, Aurora and other descendants with MySQL's GTIDs.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavour {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::MySql => "MySQL",
            Flavour::MariaDb => "MariaDB",
        }
    }

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Flavour::MySql => "mysql",
            Flavour::MariaDb => "mariadb",
        }
    }
}

/// The server, the table, and how to follow it.
#[derive(Clone, Debug)]
pub struct MySqlConfig {
    /// Which server is expected there.
    pub flavour: Flavour,
    /// A host name, an IP address, or the path of a Unix socket (begins with `/`).
    pub host: String,
    /// The port; without meaning for a Unix socket.
    pub port: u16,
    /// The account.
    pub user: String,
    /// Its password; none for an account without one, or with a client certificate.
    pub password: Option<SecretString>,
    /// What is encrypted and verified.
    pub tls: TlsSettings,
    /// The followed table; its schema is the database.
    pub table: TableName,
    /// The columns that identify a record; none means the primary key.
    pub key: Option<Vec<String>>,
    /// The tables that are followed beside it, each another one, in the order of their numbers
    /// (from 1).
    pub related: Vec<RelatedTable>,
    /// A name that no other reader of this server has. The replica's id and UUID are made
    /// from it, so the same name after a restart is the same replica.
    pub name: String,
    /// The replica's id; none means one that is made from the name.
    pub server_id: Option<u32>,
    /// For the whole of connecting: name, socket, TLS, authentication.
    pub connect_timeout: Duration,
    /// For a single query.
    pub query_timeout: Duration,
    /// How often the server says where an idle log stands. A server that says nothing for
    /// three of these, and for half a minute, is given up.
    pub heartbeat: Duration,
    /// What a date becomes that no calendar has (`0000-00-00`, `2024-00-10`).
    pub zero_dates: ZeroDates,
    /// When a batch is handed over at the latest.
    pub caps: BatchCaps,
}

impl MySqlConfig {
    /// Everything at its default except for what has none. The TLS mode follows from the
    /// host.
    pub fn new(flavour: Flavour, host: &str, user: &str, table: TableName) -> Self {
        MySqlConfig {
            flavour,
            host: host.to_owned(),
            port: 3306,
            user: user.to_owned(),
            password: None,
            tls: TlsSettings::default_for(host),
            table,
            key: None,
            related: Vec::new(),
            name: "rollcall".to_owned(),
            server_id: None,
            connect_timeout: Duration::from_secs(10),
            query_timeout: Duration::from_secs(60),
            heartbeat: Duration::from_secs(1),
            zero_dates: ZeroDates::default(),
            caps: BatchCaps::default(),
        }
    }

    /// Whether the host is the path of a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
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
        if self.is_unix_socket() {
            self.host.clone()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What becomes of dates that no calendar has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroDates {
    /// They read as null.
    #[default]
    Null,
    /// They read as the server prints them.
    Text,
}
