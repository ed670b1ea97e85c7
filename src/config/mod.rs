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
mod keys;
mod mapping;
mod reader;
mod schema;
mod secret;
mod sink;
mod source;
mod tls;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, ConfigErrors, Place};
pub use explain::{explain, markdown};
pub use keys::{KEYS, Key, Kind, Presence};
pub use mapping::{Constant, MappingConfig, OnNull, RuleConfig, RuleKind, ScopeConfig, Strength};
pub use schema::json_schema;
pub use secret::{Environment, ProcessEnvironment, VaultConfig};
pub use sink::{
    Delivery, Destination, KafkaConfig, KafkaTls, NdjsonConfig, PasswordMechanism, PropertyValue,
    Sasl, SinkConfig,
};
pub use source::{
    BatchConfig, ChangeStreamConfig, Host, LeaverAction, PostgresConfig, PostgresTls, RescanConfig,
    SourceConfig, SourceConnection,
};
pub use tls::{ClientCertificate, Verification};

use reader::{Document, Section};
use secret::{Context, Resolver, split_fix};

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
    /// What is logged.
    pub log: LogConfig,
    /// How the daemon stops.
    pub shutdown: ShutdownConfig,
    /// Custom attributes by name, without `custom.`.
    pub attributes: BTreeMap<String, AttributeType>,
    /// For an attribute, the sources that decide it, the first one first; each exists.
    pub authority: BTreeMap<String, Vec<String>>,
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
            sources: config.sources.into_iter().map(|s| s.name).collect(),
            sinks: config.sinks.into_iter().map(|s| s.name).collect(),
        })
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
    let document = Document::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = document.place(error.span().unwrap_or(0..0));
        // Only the parser's own words: its display would repeat the line, and a line may
        // hold a credential.
        let words = error.message().lines().collect::<Vec<_>>().join(", ");
        let fix = "correct the line; texts stand in quotes, tables in [brackets]";
        document.reject(place, "", format!("no TOML: {words}"), "TOML 1.0", fix);
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(document.finish().0));
    }
    let config = top(&document.root(table.get_ref()), environment);
    let (errors, places) = document.finish();
    match config {
        Some(config) if errors.is_empty() => Ok(Config { places, ..config }),
        _ => Err(ConfigErrors::new(errors)),
    }
}

fn top(root: &Section<'_>, environment: Option<&dyn Environment>) -> Option<Config> {
    let organization = root.required("organization", values::text_where(values::is_organization));
    let store = root.section("store").and_then(store);
    let api = root.section("api").and_then(|section| {
        let listen = section.optional("listen", values::address);
        section.finish();
        Some(ApiConfig { listen: listen? })
    });
    let log = root.section("log").and_then(log);
    let vault = root.section("vault").and_then(vault);
    let shutdown = root.section("shutdown").and_then(|section| {
        let grace = section.required("grace", values::positive_duration);
        section.finish();
        Some(ShutdownConfig { grace: grace? })
    });
    let attributes = root.section("attributes").and_then(attributes);
    let resolver = match (environment, &vault) {
        (Some(environment), Some(vault)) => open_vault(root, vault, environment),
        _ => Some(Resolver::Skip),
    };
    let whole = resolver.is_some();
    let context = Context {
        organization: organization.clone(),
        resolver: resolver.unwrap_or(Resolver::Skip),
        attributes: attributes
            .iter()
            .flat_map(|known| known.keys().cloned())
            .collect(),
    };
    let sources = root.section("source").and_then(|section| {
        let sources = named(&section, |name, section| {
            source::source(name, section, &context)
        })?;
        if sources.is_empty() {
            root.missing("source");
            return None;
        }
        Some(sources)
    });
    let sinks = root.section("sink").and_then(|section| {
        named(&section, |name, section| {
            sink::sink(name, section, &context)
        })
    });
    let authority = root
        .section("authority")
        .and_then(|section| authority(&section, &names_in(root, "source")));
    root.finish();
    if let (Some(sources), Some(sinks)) = (&sources, &sinks) {
        crossings(root, sources, sinks);
    }
    whole.then_some(())?;
    Some(Config {
        file: root.document().file().to_path_buf(),
        organization: organization?,
        store: store?,
        api: api?,
        log: log?,
        shutdown: shutdown?,
        attributes: attributes?,
        authority: authority?,
        sources: sources?,
        sinks: sinks?,
        places: BTreeMap::new(),
    })
}

fn store(section: Section<'_>) -> Option<StoreConfig> {
    let path = section.required("path", values::path);
    let retention = section.required("outbox_retention", values::duration);
    let max = section.required("outbox_max", values::size_bytes);
    section.finish();
    Some(StoreConfig {
        path: path?,
        outbox_retention: retention?,
        outbox_max_bytes: max?,
    })
}

fn log(section: Section<'_>) -> Option<LogConfig> {
    let format = section.required(
        "format",
        values::choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    );
    let level = section.required("level", values::text_where(values::is_log_level));
    section.finish();
    Some(LogConfig {
        format: format?,
        level: level?,
    })
}

fn vault(section: Section<'_>) -> Option<VaultConfig> {
    let key_file = section.optional("key_file", values::path);
    let previous = section.optional("previous_key_files", values::paths);
    section.finish();
    Some(VaultConfig {
        key_file: key_file?,
        previous_key_files: previous?.unwrap_or_default(),
    })
}

fn open_vault<'a>(
    root: &Section<'_>,
    config: &VaultConfig,
    environment: &'a dyn Environment,
) -> Option<Resolver<'a>> {
    match config.open(environment) {
        Ok(vault) => Some(Resolver::Resolve { vault, environment }),
        Err(errors) => {
            for (name, error) in errors {
                let place = root.section("vault").and_then(|section| {
                    let key = ["key_file", "previous_key_files"]
                        .into_iter()
                        .find(|key| name == format!("vault.{key}"))?;
                    section.item(key).map(|item| item.place())
                });
                let (reason, fix) = split_fix(&error.to_string(), "");
                let fix = match fix.starts_with("seal it") {
                    true => "make a key with `rollcall secret generate-key`".to_owned(),
                    false => fix,
                };
                root.document().reject(
                    place.unwrap_or(Place::START),
                    name,
                    format!("a key that cannot be used: {reason}"),
                    "32 bytes in base64 that only the daemon can read",
                    fix,
                );
            }
            None
        }
    }
}

fn attributes(section: Section<'_>) -> Option<BTreeMap<String, AttributeType>> {
    let mut read = BTreeMap::new();
    let mut complete = true;
    for (name, item) in section.entries() {
        if !values::is_attribute_name(&name) {
            complete = false;
            reject_table_name(&section, &name, item.key_place(), keys::ATTRIBUTE_RULE);
        }
        let kind = item.section().and_then(|section| {
            let kind = section.required("type", values::choice(AttributeType::WORDS));
            section.finish();
            kind
        });
        match kind {
            Some(kind) => drop(read.insert(name, kind)),
            None => complete = false,
        }
    }
    complete.then_some(read)
}

fn reject_table_name(section: &Section<'_>, name: &str, place: Place, rule: &str) {
    section.document().reject(
        place,
        section.path(),
        format!("the name {name:?}"),
        rule,
        "choose another name",
    );
}

fn named<T>(
    section: &Section<'_>,
    parse: impl Fn(String, Section<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut read = Vec::new();
    let mut complete = true;
    for (name, item) in section.entries() {
        if !values::is_name(&name) {
            complete = false;
            reject_table_name(section, &name, item.key_place(), keys::NAME_RULE);
        }
        match item.section().and_then(|inner| parse(name, inner)) {
            Some(value) => read.push(value),
            None => complete = false,
        }
    }
    complete.then_some(read)
}

fn names_in(root: &Section<'_>, key: &'static str) -> Vec<String> {
    let section = root.section(key);
    let entries = section.map(|section| section.entries()).unwrap_or_default();
    entries.into_iter().map(|(name, _)| name).collect()
}

/// `name.givenName = [...]` is a table in a table for TOML and one attribute for us.
fn authority(section: &Section<'_>, sources: &[String]) -> Option<BTreeMap<String, Vec<String>>> {
    let mut read = BTreeMap::new();
    let mut complete = true;
    let mut items = Vec::new();
    for (name, item) in section.entries() {
        match item.value() {
            DeValue::Table(_) if mapping::GROUPS.contains(&name.as_str()) => {
                let inner = item.section()?.entries_of(section.pattern());
                items.extend(
                    inner
                        .into_iter()
                        .map(|(part, item)| (reader::child(&name, &part), item)),
                );
            }
            _ => items.push((name, item)),
        }
    }
    for (attribute, item) in items {
        let Some(order) = values::texts(&item) else {
            complete = false;
            continue;
        };
        for name in order.iter().filter(|name| !sources.contains(name)) {
            complete = false;
            source::reject_name(
                section,
                &attribute,
                item.place(),
                "source",
                name,
                sources.iter().map(String::as_str),
            );
        }
        read.insert(attribute, order);
    }
    complete.then_some(read)
}

/// What only shows when sources and sinks are seen together.
fn crossings(root: &Section<'_>, sources: &[SourceConfig], sinks: &[SinkConfig]) {
    let document = root.document();
    let mut slots = BTreeMap::new();
    for source in sources {
        let SourceConnection::Postgres(postgres) = &source.connection;
        let server = (
            format!("{:?}", postgres.host),
            postgres.port,
            &postgres.slot,
        );
        if let Some(first) = slots.insert(server, &source.name) {
            document.reject(
                source.place,
                format!("source.{}.slot", source.name),
                format!(
                    "the slot {:?}, which source {first:?} has too",
                    postgres.slot
                ),
                "a slot of its own for each source",
                "write another slot",
            );
        }
        let Some(stream) = &source.change_stream else {
            continue;
        };
        let key = format!("source.{}.change_stream", source.name);
        match sinks.iter().find(|sink| sink.name == stream.sink) {
            None => {
                let known = sinks.iter().map(|sink| sink.name.as_str());
                if let Some(section) = root.section("sink") {
                    let fix = reader::suggest(&stream.sink, known).map_or_else(
                        || format!("add [{}.{}]", section.path(), stream.sink),
                        |near| format!("write \"{near}\""),
                    );
                    document.reject(
                        stream.place,
                        format!("{key}.sink"),
                        format!("the sink {:?}, which does not exist", stream.sink),
                        "the name of a sink",
                        fix,
                    );
                }
            }
            Some(sink) => {
                let kafka = matches!(sink.destination, Destination::Kafka(_));
                if kafka && stream.topic.is_none() {
                    document.reject(
                        stream.place,
                        format!("{key}.topic"),
                        "nothing",
                        keys::TOPIC_RULE,
                        format!("add `topic = \"{}.changes\"`", source.name),
                    );
                }
            }
        }
    }
    let mut places = BTreeSet::new();
    for sink in sinks {
        let (key, place) = match &sink.destination {
            Destination::Kafka(kafka) => (
                "transactional_id",
                format!("the transactional id {:?}", kafka.transactional_id),
            ),
            Destination::Ndjson(NdjsonConfig::Stdout) => ("path", "standard output".to_owned()),
            Destination::Ndjson(NdjsonConfig::File { path, .. }) => {
                ("path", format!("the file {}", path.display()))
            }
        };
        if places.contains(&place) {
            document.reject(
                sink.place,
                format!("sink.{}.{key}", sink.name),
                format!("{place}, which another sink has too"),
                "one of its own for each sink",
                "write another one",
            );
        }
        places.insert(place);
    }
}

#[cfg(test)]
mod tests;
