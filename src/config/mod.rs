//! `rollcall.toml`: from the file that an operator writes to types that can only be valid.
//!
//! A [`Config`] is built in one pass that never stops at an error: every reader either
//! gives a value or puts an error down, so a whole configuration exists exactly when
//! nothing is wrong, and otherwise everything that is wrong is known at once. Nothing
//! after this looks at a text of the file again; what cannot be decided without a
//! database (columns, expressions) is handed on as data together with its place.
//!
//! Credentials are resolved while loading and exist afterwards as wiped, undisplayable
//! values only. Commands that need none read an [`Outline`], which asks for no key.

mod error;
mod explain;
mod field;
mod keys;
mod mapping;
mod reader;
mod related;
mod schema;
mod secret;
mod server;
mod sink;
mod source;
mod table;
mod tls;
mod top;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use toml::de::DeTable;

pub use error::{ConfigError, ConfigErrors, Place};
pub use explain::{explain, markdown};
pub use field::{FieldConfig, FieldMode};
pub use keys::{KEYS, Key, Kind, Presence};
pub use mapping::{Constant, MappingConfig, OnNull, RuleConfig, RuleKind, ScopeConfig, Strength};
pub use schema::json_schema;
pub use secret::{Environment, ProcessEnvironment, VaultConfig};
pub use server::{
    Flavour, Host, MySqlConfig, PostgresConfig, ServerConfig, SourceKind, SourceType, ZeroDates,
};
pub use sink::{
    Delivery, Destination, KafkaConfig, NdjsonConfig, PasswordMechanism, PropertyValue, Sasl,
    SinkConfig,
};
pub use source::{
    BatchConfig, ChangeStreamConfig, LeaverAction, LeaverConfig, LimitConfig, PollConfig, PollMode,
    ProofConfig, SourceConfig,
};
pub use table::Naming;
pub use tls::{ClientCertificate, TlsConfig, Verification};
pub(crate) use top::TOKEN_MIN_BYTES;

use reader::{Document, Section};

/// The name of the daemon's socket in the folder of the store.
pub const SOCKET_NAME: &str = "rollcall.sock";

/// A valid configuration with its credentials.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The organization that everything belongs to.
    pub organization: String,
    /// The durable directory.
    pub store: StoreConfig,
    /// What is served over TCP.
    pub api: ApiConfig,
    /// Who may ask for a sync over TCP.
    pub tokens: Vec<TokenConfig>,
    /// What is logged.
    pub log: LogConfig,
    /// How the daemon stops.
    pub shutdown: ShutdownConfig,
    /// Who is told when something needs a person.
    pub notify: Option<NotifyConfig>,
    /// Custom attributes by name, without `custom.`.
    pub attributes: BTreeMap<String, AttributeType>,
    /// Whose value counts, for attributes that say it.
    pub fields: BTreeMap<String, FieldConfig>,
    /// The followed tables, in the order of the file.
    pub sources: Vec<SourceConfig>,
    /// The destinations, in the order of the file.
    pub sinks: Vec<SinkConfig>,
    places: BTreeMap<String, Place>,
}

/// What commands need that never connect to anything.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The organization that everything belongs to.
    pub organization: String,
    /// The durable directory.
    pub store: StoreConfig,
    /// What is served over TCP.
    pub api: ApiConfig,
    /// What is logged.
    pub log: LogConfig,
    /// The names of the sources, in the order of the file.
    pub sources: Vec<String>,
    /// What each source may take away unseen; none when it has no limit.
    pub limits: BTreeMap<String, Option<LimitConfig>>,
    /// The names of the sinks, in the order of the file.
    pub sinks: Vec<String>,
}

/// The durable directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Its folder.
    pub path: PathBuf,
    /// How long delivered events stay readable.
    pub outbox_retention: Duration,
    /// The most bytes that events may occupy.
    pub outbox_max_bytes: u64,
    /// How long runs that ended, and gaps and conflicts that were closed, are kept.
    pub history_retention: Duration,
}

impl StoreConfig {
    /// The daemon's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }
}

/// What is served over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where `/metrics`, `/livez` and `/readyz` are served; nowhere when none.
    pub listen: Option<SocketAddr>,
}

/// A program that may ask for a sync over TCP.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Its name.
    pub name: String,
    /// Its bearer token.
    pub secret: SecretString,
    /// The most requests in a minute.
    pub per_minute: u32,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// A level, or `target=level` pairs, separated by commas.
    pub level: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long finishing may take.
    pub grace: Duration,
}

/// Who is told when something needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyConfig {
    /// A program and its arguments.
    pub command: Vec<String>,
    /// How long a call may take.
    pub timeout: Duration,
}

/// The type of a custom attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeType {
    /// A text.
    Text,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// An exact number.
    Decimal,
    /// A day.
    Date,
    /// An instant.
    Timestamp,
    /// Texts.
    List,
}

impl AttributeType {
    const WORDS: &'static [(&'static str, AttributeType)] = &[
        ("text", AttributeType::Text),
        ("boolean", AttributeType::Boolean),
        ("integer", AttributeType::Integer),
        ("decimal", AttributeType::Decimal),
        ("date", AttributeType::Date),
        ("timestamp", AttributeType::Timestamp),
        ("list", AttributeType::List),
    ];
}

impl Config {
    /// Reads a file, with keys and credentials from this process's environment.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let text = read_file(path)?;
        Config::parse(path, &text, &ProcessEnvironment)
    }

    /// Reads the text of a file. Relative paths count from the folder of `file`.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: &dyn Environment,
    ) -> Result<Config, ConfigErrors> {
        parse(file, text, Some(environment))
    }

    /// Where a key stands, such as `source.hr.map.title`; for one that is not in the file,
    /// the nearest table above that is.
    pub fn locate(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rsplit_once('.') {
                Some((above, _)) => path = above,
                None => return Place::START,
            }
        }
    }

    /// An error at a key's place, in the form of the parser's own: for what is found out
    /// later, against a schema or a server.
    pub fn error_at(&self, path: &str, found: &str, expected: &str, fix: &str) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            place: Some(self.locate(path)),
            key: path.to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
            fix: fix.to_owned(),
        }
    }

    /// A source by its name.
    pub fn source(&self, name: &str) -> Option<&SourceConfig> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// A sink by its name.
    pub fn sink(&self, name: &str) -> Option<&SinkConfig> {
        self.sinks.iter().find(|sink| sink.name == name)
    }
}

impl Outline {
    /// Reads a file without any key or credential; it is checked as a whole all the same.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<Outline, ConfigErrors> {
        let text = read_file(path)?;
        let config = parse(path, &text, None)?;
        Ok(Outline {
            file: config.file,
            organization: config.organization,
            store: config.store,
            api: config.api,
            log: config.log,
            limits: config
                .sources
                .iter()
                .map(|s| (s.name.clone(), s.limit))
                .collect(),
            sources: config.sources.into_iter().map(|s| s.name).collect(),
            sinks: config.sinks.into_iter().map(|s| s.name).collect(),
        })
    }
}

/// What sealing a credential needs of a file whose other parts may still be wrong: the
/// file may hold the very password that is about to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The organization that values are bound to.
    pub organization: String,
    /// Where keys are looked for.
    pub vault: VaultConfig,
    /// The names of the sources.
    pub sources: Vec<String>,
    /// The names of the sinks.
    pub sinks: Vec<String>,
    /// The names of the bearer tokens.
    pub tokens: Vec<String>,
}

impl Sealing {
    /// Reads the parts of a file that sealing needs.
    ///
    /// # Errors
    /// What is wrong with these parts.
    pub fn load(path: &Path) -> Result<Sealing, ConfigErrors> {
        let text = read_file(path)?;
        read(path, &text, top::sealing).map(|(sealing, _)| sealing)
    }
}

fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| {
        ConfigErrors::new(vec![ConfigError {
            file: path.to_path_buf(),
            place: None,
            key: String::new(),
            found: format!("no readable file ({error})"),
            expected: "a configuration".to_owned(),
            fix:
                "name the file with --config, or write one with `rollcall discover --write-config`"
                    .to_owned(),
        }])
    })
}

fn parse(
    file: &Path,
    text: &str,
    environment: Option<&dyn Environment>,
) -> Result<Config, ConfigErrors> {
    let (config, places) = read(file, text, |root| top::config(root, environment))?;
    Ok(Config { places, ..config })
}

/// Reads a text with one of the readers of its top.
fn read<T>(
    file: &Path,
    text: &str,
    reader: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<(T, BTreeMap<String, Place>), ConfigErrors> {
    let document = Document::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = document.place(error.span().unwrap_or(0..0));
        // Only the parser's own words: its display would repeat the line, and a line may
        // hold a credential.
        let mut words = error.message().lines().collect::<Vec<_>>().join(", ");
        let key = error.span().and_then(|span| text.get(span));
        let is_name = |key: &&str| {
            key.chars()
                .all(|c| c.is_alphanumeric() || "-_.".contains(c))
        };
        if let Some(key) = key.filter(|_| words == "duplicate key").filter(is_name) {
            words.push_str(&format!(" `{key}`"));
        }
        let fix = "correct the line; texts stand in quotes, tables in [brackets]";
        document.reject(place, "", format!("no TOML: {words}"), "TOML 1.0", fix);
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(document.finish().0));
    }
    let value = reader(&document.root(table.get_ref()));
    let (errors, places) = document.finish();
    match value {
        Some(value) if errors.is_empty() => Ok((value, places)),
        _ => Err(ConfigErrors::new(errors)),
    }
}

#[cfg(test)]
mod tests;
