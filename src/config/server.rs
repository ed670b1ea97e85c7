//! The server of a source: what it is, where it is, and who logs in there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use secrecy::SecretString;

use super::reader::{Item, Section};
use super::secret::{Context, secret};
use super::table::Naming;
use super::tls::{TlsConfig, tls};
use super::values;
use crate::vault::Owner;

/// What kind of database a source is, with what only that kind has.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// PostgreSQL.
    Postgres(PostgresConfig),
    /// MySQL or MariaDB.
    MySql(MySqlConfig),
}

impl SourceKind {
    /// Its `type`.
    pub fn source_type(&self) -> SourceType {
        match self {
            SourceKind::Postgres(_) => SourceType::Postgres,
            SourceKind::MySql(mysql) => SourceType::MySql(mysql.flavour),
        }
    }
}

/// A server, and who logs in there.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The role or account.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// How the connection is protected.
    pub tls: TlsConfig,
}

/// A server's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A host name or IP address.
    Tcp(String),
    /// A Unix socket: its folder for PostgreSQL, itself for MySQL and MariaDB.
    Socket(PathBuf),
}

impl Host {
    /// Whether traffic to it stays on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Host::Tcp(name) => is_loopback(name),
            Host::Socket(_) => true,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp(name) => f.write_str(name),
            Host::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What only PostgreSQL has.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The database.
    pub database: String,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
}

/// What only MySQL and MariaDB have.
#[derive(Clone, Debug)]
pub struct MySqlConfig {
    /// Which of the two.
    pub flavour: Flavour,
    /// The id as a replica; one made from the names of organization and source when none.
    pub server_id: Option<u32>,
    /// What becomes of dates that no calendar has.
    pub zero_dates: ZeroDates,
}

/// Two servers with one origin, and with logs that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL and what descends from it without having left its GTIDs.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// What becomes of dates that no calendar has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroDates {
    /// They read as null.
    Null,
    /// They read as the server prints them.
    Text,
}

/// The `type` of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    MySql(Flavour),
}

impl SourceType {
    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceType::Postgres => "postgres",
            SourceType::MySql(Flavour::MySql) => "mysql",
            SourceType::MySql(Flavour::MariaDb) => "mariadb",
        }
    }

    /// The port when none is said.
    pub fn default_port(self) -> u16 {
        match self {
            SourceType::Postgres => 5432,
            SourceType::MySql(_) => 3306,
        }
    }

    /// How its tables are named.
    pub fn naming(self) -> Naming {
        match self {
            SourceType::Postgres => Naming::Postgres,
            SourceType::MySql(_) => Naming::MySql,
        }
    }
}

/// Whether a host name or address is this machine's own.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) const TYPES: &[(&str, SourceType)] = &[
    ("postgres", SourceType::Postgres),
    ("mysql", SourceType::MySql(Flavour::MySql)),
    ("mariadb", SourceType::MySql(Flavour::MariaDb)),
];

/// The keys of a server that every kind has.
pub(super) fn server(
    name: &str,
    kind: SourceType,
    section: &Section<'_>,
    context: &Context<'_>,
) -> Option<ServerConfig> {
    let host = section.required("host", host);
    let port = section.optional("port", values::integer::<u16>);
    let user = section.required("user", plain_name);
    let password = section.optional("password", |item| {
        secret(item, context, Owner::Source(name), "password")
    });
    let is_local = host.as_ref().is_some_and(Host::is_local);
    let tls = section
        .section("tls")
        .and_then(|section| tls(section, context, Owner::Source(name), is_local));
    Some(ServerConfig {
        host: host?,
        port: port?.unwrap_or_else(|| kind.default_port()),
        user: user?,
        password: password?,
        tls: tls?,
    })
}

pub(super) fn postgres(name: &str, section: &Section<'_>) -> Option<PostgresConfig> {
    let database = section.required("database", plain_name);
    let slot = section.optional("slot", values::text_where(values::is_slot));
    let publication = section.required("publication", values::text);
    Some(PostgresConfig {
        database: database?,
        slot: slot?.unwrap_or_else(|| format!("rollcall_{}", name.replace('-', "_"))),
        publication: publication?,
    })
}

pub(super) fn mysql(flavour: Flavour, section: &Section<'_>) -> Option<MySqlConfig> {
    let server_id = section.optional("server_id", values::integer::<u32>);
    let zero_dates = section.required(
        "zero_dates",
        values::choice(&[("null", ZeroDates::Null), ("text", ZeroDates::Text)]),
    );
    Some(MySqlConfig {
        flavour,
        server_id: server_id?,
        zero_dates: zero_dates?,
    })
}

fn host(item: &Item<'_>) -> Option<Host> {
    let text = values::text(item)?;
    if text.starts_with('/') {
        return Some(Host::Socket(PathBuf::from(text)));
    }
    let named = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if named || text.parse::<IpAddr>().is_ok() {
        return Some(Host::Tcp(text));
    }
    if text.contains(['@', '=']) || text.contains("://") {
        return item.reject(
            "an address with more in it (not shown)",
            item.kind().expected(),
            "write the host alone; port, user, password and database have keys of their own",
        );
    }
    item.wrong()
}

/// A name, and not a whole connection string with a password in it.
fn plain_name(item: &Item<'_>) -> Option<String> {
    let text = values::text(item)?;
    if text.contains("://") || text.contains("password=") {
        return item.reject(
            "an address with more in it (not shown)",
            "the name alone",
            item.example(),
        );
    }
    Some(text)
}
