//! Which server to look at: the one of a configured source, or one that a URL names before
//! there is a configuration.

use std::path::PathBuf;

use secrecy::SecretString;

use super::super::exit::{Exit, Failure};
use crate::config::{
    Flavour, Host, ServerConfig, SourceConfig, SourceKind, SourceType, TlsConfig, Verification,
};

/// A server, and where on it to look.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: SourceType,
    pub(super) server: ServerConfig,
    /// The database; PostgreSQL always has one, MySQL lists all without one.
    pub(super) database: Option<String>,
}

/// The variable that the server's own client takes the password from.
pub(super) fn password_variable(kind: SourceType) -> &'static str {
    match kind {
        SourceType::Postgres => "PGPASSWORD",
        SourceType::MySql(_) => "MYSQL_PWD",
    }
}

const KINDS: &[(&str, SourceType)] = &[
    ("postgres", SourceType::Postgres),
    ("postgresql", SourceType::Postgres),
    ("mysql", SourceType::MySql(Flavour::MySql)),
    ("mariadb", SourceType::MySql(Flavour::MariaDb)),
];

const FORM: &str = "--url must read postgres://user@host:port/database, mysql://user@host:port \
     or mariadb://user@host:port, without a password (set PGPASSWORD or MYSQL_PWD instead)";

impl Place {
    /// The server of a source.
    pub(super) fn of(source: &SourceConfig) -> Place {
        Place {
            kind: source.kind.source_type(),
            server: source.server.clone(),
            database: match &source.kind {
                SourceKind::Postgres(postgres) => Some(postgres.database.clone()),
                SourceKind::MySql(_) => None,
            },
        }
    }

    /// The server of a URL, with the password from the environment.
    pub(super) fn parse(
        url: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Place, Failure> {
        Place::read(url, environment).ok_or_else(|| Failure::new(Exit::Usage, FORM))
    }

    fn read(url: &str, environment: impl Fn(&str) -> Option<String>) -> Option<Place> {
        let (scheme, rest) = url.split_once("://")?;
        let (_, kind) = *KINDS.iter().find(|(name, _)| *name == scheme)?;
        let (user, rest) = rest.split_once('@')?;
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        if user.is_empty() || user.contains(':') || address.is_empty() {
            return None;
        }
        let database = (!database.is_empty()).then(|| database.to_owned());
        if kind == SourceType::Postgres && database.is_none() {
            return None;
        }
        let (host, port) = match address.rsplit_once(':') {
            // A colon inside brackets, or before one, belongs to an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (address, kind.default_port()),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.replace("%2F", "/").replace("%2f", "/");
        let host = match host.starts_with('/') {
            true => Host::Socket(PathBuf::from(host)),
            false => Host::Tcp(host),
        };
        let tls = match host.is_local() {
            true => TlsConfig::Disable,
            false => TlsConfig::Enable {
                verify: Some(Verification {
                    ca: None,
                    host_name: true,
                }),
                client: None,
            },
        };
        Some(Place {
            kind,
            server: ServerConfig {
                host,
                port,
                user: user.to_owned(),
                password: environment(password_variable(kind)).map(SecretString::from),
                tls,
            },
            database,
        })
    }

    /// The only database to show, where the server shows all of them.
    pub(super) fn only_schema(&self) -> Option<&str> {
        match self.kind {
            SourceType::Postgres => None,
            SourceType::MySql(_) => self.database.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn read(url: &str) -> Option<Place> {
        Place::read(url, |name| {
            (name == "MYSQL_PWD").then(|| "secret".to_owned())
        })
    }

    #[test]
    fn a_url_names_a_server_of_each_kind() {
        let place = read("postgresql://reader@db.example.com/hr").unwrap();
        assert_eq!(place.kind, SourceType::Postgres);
        assert_eq!(place.server.host, Host::Tcp("db.example.com".to_owned()));
        assert_eq!(
            (place.server.port, place.server.user.as_str()),
            (5432, "reader")
        );
        assert!(place.server.password.is_none() && place.only_schema().is_none());
        assert!(matches!(place.server.tls, TlsConfig::Enable { .. }));

        let place = read("mariadb://reader@[::1]:3307/hr").unwrap();
        assert_eq!(place.kind, SourceType::MySql(Flavour::MariaDb));
        assert_eq!(place.server.host, Host::Tcp("::1".to_owned()));
        assert_eq!(place.server.port, 3307);
        assert!(place.server.password.is_some());
        assert_eq!(place.only_schema(), Some("hr"));
        assert!(matches!(place.server.tls, TlsConfig::Disable));

        let place = read("mysql://reader@%2Frun%2Fmysqld%2Fmysqld.sock").unwrap();
        assert_eq!(
            place.server.host,
            Host::Socket(PathBuf::from("/run/mysqld/mysqld.sock"))
        );
        assert_eq!((place.server.port, place.database), (3306, None));
    }

    #[test]
    fn a_url_with_a_password_or_without_a_part_is_refused_and_not_repeated() {
        for url in [
            "postgres://reader@localhost",
            "postgres://reader:marker@localhost/hr",
            "mysql://localhost/hr",
            "mysql://reader@",
            "mysql://reader@localhost:port",
            "oracle://reader@localhost/hr",
            "reader@localhost/hr",
        ] {
            let failure = Place::parse(url, |_| None).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.sentence.starts_with("--url must read"), "{url}");
            assert!(!failure.sentence.contains("marker"));
        }
    }
}
