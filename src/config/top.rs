//! The top of the file: its tables, and what only shows when they are seen together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::SOCKET_NAME;
use super::error::Place;
use super::reader::{Section, suggest};
use super::secret::{Context, Resolver, secret, split_fix};
use super::{
    ApiConfig, AttributeType, Config, Destination, Environment, LogConfig, LogFormat, NdjsonConfig,
    NotifyConfig, Sealing, ShutdownConfig, SinkConfig, SourceConfig, SourceKind, StoreConfig,
    TokenConfig, VaultConfig, field, keys, sink, source, values,
};
use crate::vault::Owner;

pub(super) fn config(root: &Section<'_>, environment: Option<&dyn Environment>) -> Option<Config> {
    let organization = organization(root);
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
    let notify = root.section("notify").and_then(|section| {
        let command = section.optional("command", values::command);
        let timeout = section.required("timeout", values::positive_duration);
        section.finish();
        let timeout = timeout?;
        Some(command?.map(|command| NotifyConfig { command, timeout }))
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
    let tokens = root
        .section("token")
        .and_then(|section| named(&section, |name, section| token(name, &section, &context)));
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
    let fields = root.section("field").and_then(|section| {
        let custom = attributes.as_ref()?;
        field::fields(&section, &names_in(root, "source"), custom)
    });
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
        tokens: tokens?,
        log: log?,
        shutdown: shutdown?,
        notify: notify?,
        attributes: attributes?,
        fields: fields?,
        sources: sources?,
        sinks: sinks?,
        places: BTreeMap::new(),
    })
}

/// What the system takes as the name of a socket (`sun_path` of unix(7), less its end).
const SOCKET_PATH_MAX_BYTES: usize = 107;

fn store(section: Section<'_>) -> Option<StoreConfig> {
    let path = section.required("path", |item| {
        let path = values::path(item)?;
        let bytes = path.join(SOCKET_NAME).as_os_str().len();
        match bytes.checked_sub(SOCKET_PATH_MAX_BYTES) {
            None | Some(0) => Some(path),
            Some(over) => item.reject(
                "a folder in which the path of the daemon's socket is too long",
                format!("a path that leaves room for /{SOCKET_NAME}: {SOCKET_PATH_MAX_BYTES} bytes with it"),
                format!("name a folder whose path is at least {over} bytes shorter"),
            ),
        }
    });
    let retention = section.required("outbox_retention", values::duration);
    let max = section.required("outbox_max", values::size_bytes);
    let history = section.required("history_retention", values::duration);
    section.finish();
    Some(StoreConfig {
        path: path?,
        outbox_retention: retention?,
        outbox_max_bytes: max?,
        history_retention: history?,
    })
}

/// A shorter token can be guessed.
pub(crate) const TOKEN_MIN_BYTES: usize = 20;

fn token(name: String, section: &Section<'_>, context: &Context<'_>) -> Option<TokenConfig> {
    let secret = section.required("secret", |item| {
        let secret = secret(item, context, Owner::Token(&name), "secret")?;
        let resolved = matches!(context.resolver, Resolver::Resolve { .. });
        if resolved && secret.expose_secret().len() < TOKEN_MIN_BYTES {
            return item.reject(
                format!("a token of fewer than {TOKEN_MIN_BYTES} characters (not shown)"),
                format!("at least {TOKEN_MIN_BYTES} characters that nobody can guess"),
                "make one with `openssl rand -hex 32`",
            );
        }
        Some(secret)
    });
    let per_minute = section.required("per_minute", values::integer::<u32>);
    section.finish();
    Some(TokenConfig {
        secret: secret?,
        per_minute: per_minute?,
        name,
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

/// What no two readers of one server's log may share: the key that says it, and which it is.
fn reader_of_its_own(source: &SourceConfig) -> Option<(&'static str, String)> {
    match &source.kind {
        SourceKind::Postgres(postgres) => Some(("slot", format!("slot {:?}", postgres.slot))),
        SourceKind::MySql(mysql) => mysql
            .server_id
            .map(|id| ("server_id", format!("server_id {id}"))),
    }
}

/// What only shows when sources and sinks are seen together.
fn crossings(root: &Section<'_>, sources: &[SourceConfig], sinks: &[SinkConfig]) {
    let document = root.document();
    let mut readers = BTreeMap::new();
    for source in sources {
        if let Some((key, what)) = reader_of_its_own(source) {
            let server = (&source.server.host, source.server.port);
            if let Some(first) = readers.insert((server, what.clone()), &source.name) {
                document.reject(
                    source.place,
                    format!("source.{}.{key}", source.name),
                    format!("the {what}, which source {first:?} has too"),
                    format!("a {key} of its own for each source"),
                    format!("write another {key}"),
                );
            }
        }
        let Some(stream) = &source.change_stream else {
            continue;
        };
        let key = format!("source.{}.change_stream", source.name);
        match sinks.iter().find(|sink| sink.name == stream.sink) {
            None => {
                let known = sinks.iter().map(|sink| sink.name.as_str());
                if let Some(section) = root.section("sink") {
                    let fix = suggest(&stream.sink, known).map_or_else(
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
                if !kafka {
                    document.reject(
                        stream.place,
                        format!("{key}.sink"),
                        format!("{:?}, which is not a Kafka sink", stream.sink),
                        "a Kafka sink, which has topics",
                        "name a Kafka sink, or remove change_stream",
                    );
                } else if stream.topic.is_none() {
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
            Destination::Ndjson(NdjsonConfig::File { path, .. }) => (
                "path",
                format!("the file {}", spelled_one_way(path).display()),
            ),
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
        if let Some(other) = sinks.iter().find(|other| rotates_onto(other, sink)) {
            document.reject(
                sink.place,
                format!("sink.{}.path", sink.name),
                format!("a file that sink {:?} rotates onto", other.name),
                "a file of its own for each sink",
                "write another one",
            );
        }
    }
}

/// A path without what changes nothing in it.
fn spelled_one_way(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

/// Whether a sink's full files get the name that another one writes to.
fn rotates_onto(sink: &SinkConfig, other: &SinkConfig) -> bool {
    let file = |sink: &SinkConfig| match &sink.destination {
        Destination::Ndjson(NdjsonConfig::File {
            path, rotate_keep, ..
        }) => Some((
            spelled_one_way(path).into_os_string().into_encoded_bytes(),
            *rotate_keep,
        )),
        _ => None,
    };
    let (Some((path, keep)), Some((theirs, _))) = (file(sink), file(other)) else {
        return false;
    };
    let rest = theirs.strip_prefix(path.as_slice());
    let number = rest.and_then(|rest| rest.strip_prefix(b"."));
    let number = number.and_then(|n| std::str::from_utf8(n).ok());
    let number = number.filter(|n| !n.starts_with(['0', '+']));
    let number = number.and_then(|n| n.parse::<u32>().ok());
    number.is_some_and(|n| n <= keep)
}

/// The parts that sealing needs; nothing is said about the others.
pub(super) fn sealing(root: &Section<'_>) -> Option<Sealing> {
    let organization = organization(root);
    let vault = root.section("vault").and_then(vault);
    Some(Sealing {
        organization: organization?,
        vault: vault?,
        sources: names_in(root, "source"),
        sinks: names_in(root, "sink"),
        tokens: names_in(root, "token"),
    })
}

fn organization(root: &Section<'_>) -> Option<String> {
    root.required("organization", values::text_where(values::is_organization))
}
