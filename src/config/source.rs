//! One followed table: where it is, who its users are, what happens when one leaves.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rollcall_contract::TableName;
use secrecy::SecretString;
use toml::de::DeValue;

use super::error::Place;
use super::mapping::{self, MappingConfig, ScopeConfig};
use super::reader::{Item, Section, child, suggest};
use super::secret::{Context, secret};
use super::tls::{TlsConfig, tls};
use super::values;
use crate::vault::Owner;

/// One followed table.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name: `[source.<name>]`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The database.
    pub connection: SourceConnection,
    /// Columns that are never stored.
    pub redact: Vec<String>,
    /// Columns to attributes.
    pub mapping: MappingConfig,
    /// The attributes by which a new record finds an existing user, in order; each has a
    /// rule.
    pub match_attributes: Vec<String>,
    /// The attributes that tell a rehired person from another one; each has a rule.
    pub fingerprint: Vec<String>,
    /// What happens to a user whose record is gone.
    pub leaver: LeaverAction,
    /// The limit for leavers found by absence.
    pub rescan: RescanConfig,
    /// Where raw changes go.
    pub change_stream: Option<ChangeStreamConfig>,
    /// How much is taken at once.
    pub batch: BatchConfig,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
}

/// The database of a source.
#[derive(Clone, Debug)]
pub enum SourceConnection {
    /// PostgreSQL.
    Postgres(PostgresConfig),
}

/// A server's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A host name or IP address.
    Tcp(String),
    /// The folder of a Unix socket.
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

/// A PostgreSQL server and table.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The server.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// The role's password.
    pub password: Option<SecretString>,
    /// How the connection is protected.
    pub tls: TlsConfig,
    /// The table; of a partitioned one, the root.
    pub table: TableName,
    /// The columns that name a record; the table's primary key when none.
    pub key: Option<Vec<String>>,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
}

/// What happens to a user whose record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaverAction {
    /// The user becomes inactive.
    Deactivate,
    /// The user stays.
    Ignore,
}

/// A re-scan that finds more leavers than both limits keeps them back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RescanConfig {
    /// The share of the source's users, 0 to 100.
    pub max_leavers_percent: f64,
    /// The number of users.
    pub max_leavers: u64,
}

/// Where raw changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeStreamConfig {
    /// The name of a sink that exists.
    pub sink: String,
    /// The topic; always there for a Kafka sink.
    pub topic: Option<String>,
    /// Where it stands.
    pub place: Place,
}

/// How much is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// The most changes in one batch.
    pub rows: usize,
    /// The most bytes in one batch.
    pub size_bytes: u64,
    /// The most rows in one page of a scan.
    pub page_rows: usize,
    /// The most bytes in one page of a scan.
    pub page_size_bytes: u64,
}

/// Whether a host name or address is this machine's own.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn source(
    name: String,
    section: Section<'_>,
    context: &Context<'_>,
) -> Option<SourceConfig> {
    let place = section.place();
    let kind = section.required("type", values::choice(&[("postgres", ())]));
    if kind.is_none() {
        section.finish_of_any_type();
        return None;
    }
    let connection = postgres(&name, &section, context);
    let redact = section.optional("redact", values::texts);
    let scope = section.optional("scope", |item| {
        Some(ScopeConfig {
            expr: values::text(item)?,
            place: item.key_place(),
        })
    });
    let rules = match section.item("map") {
        Some(item) => item.section().and_then(|map| mapping::rules(map, context)),
        None => {
            section.missing("map");
            None
        }
    };
    let mapped = |attribute: &str| {
        rules
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| rule.attribute == attribute))
    };
    let match_attributes = section.required("match", |item| {
        let attributes = values::texts(item)?;
        all_mapped(item, &attributes, &mapped)?;
        Some(attributes)
    });
    let chosen = section.item("fingerprint").is_some();
    let fingerprint = section.required("fingerprint", |item| {
        let mut attributes = values::texts(item)?;
        match chosen {
            true => all_mapped(item, &attributes, &mapped)?,
            false => attributes.retain(|attribute| mapped(attribute)),
        }
        Some(attributes)
    });
    let leaver = section.section("leaver").and_then(|leaver| {
        let action = leaver.required(
            "action",
            values::choice(&[
                ("deactivate", LeaverAction::Deactivate),
                ("ignore", LeaverAction::Ignore),
            ]),
        );
        leaver.finish();
        action
    });
    let rescan = section.section("rescan").and_then(rescan);
    let change_stream = section.item("change_stream").map(change_stream);
    let batch = section.section("batch").and_then(batch);
    let connect_timeout = section.required("connect_timeout", values::positive_duration);
    let retry_max = section.required("retry_max", values::positive_duration);
    section.finish();

    let change_stream = match change_stream {
        Some(stream) => Some(stream?),
        None => None,
    };
    Some(SourceConfig {
        name,
        place,
        connection: SourceConnection::Postgres(connection?),
        redact: redact?.unwrap_or_default(),
        mapping: MappingConfig {
            scope: scope?,
            rules: rules?,
        },
        match_attributes: match_attributes?,
        fingerprint: fingerprint?,
        leaver: leaver?,
        rescan: rescan?,
        change_stream,
        batch: batch?,
        connect_timeout: connect_timeout?,
        retry_max: retry_max?,
    })
}

fn postgres(name: &str, section: &Section<'_>, context: &Context<'_>) -> Option<PostgresConfig> {
    let host = section.required("host", host);
    let port = section.required("port", values::integer::<u16>);
    let database = section.required("database", plain_name);
    let user = section.required("user", plain_name);
    let password = section.optional("password", |item| {
        secret(item, context, Owner::Source(name), "password")
    });
    let is_local = host.as_ref().is_some_and(Host::is_local);
    let tls = section
        .section("tls")
        .and_then(|section| tls(section, context, Owner::Source(name), is_local));
    let table = section.required("table", table);
    let key = section.optional("key", values::texts);
    let slot = section.optional("slot", values::text_where(values::is_slot));
    let publication = section.required("publication", values::text);
    Some(PostgresConfig {
        host: host?,
        port: port?,
        database: database?,
        user: user?,
        password: password?,
        tls: tls?,
        table: table?,
        key: key?,
        slot: slot?.unwrap_or_else(|| format!("rollcall_{}", name.replace('-', "_"))),
        publication: publication?,
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

/// `schema.table`; a part in double quotes is taken as it is, with `""` for a quote.
fn table(item: &Item<'_>) -> Option<TableName> {
    let DeValue::String(text) = item.value() else {
        return item.wrong();
    };
    if text.contains('\0') {
        return item.wrong();
    }
    let parsed = identifier(text).and_then(|(schema, rest)| {
        let (name, end) = identifier(rest.strip_prefix('.')?)?;
        end.is_empty().then(|| TableName::new(schema, name))
    });
    match parsed {
        Some(table) => Some(table),
        None if identifier(text).is_some_and(|(_, rest)| rest.is_empty()) => item.reject(
            item.found(),
            item.kind().expected(),
            format!("write `table = \"public.{text}\"` if that is its schema"),
        ),
        None => item.wrong(),
    }
}

fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let plain = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
        // PostgreSQL folds what is not quoted.
        return plain.then(|| (name.to_ascii_lowercase(), rest));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('"')?;
        let (part, behind) = (rest.get(..end)?, rest.get(end + 1..)?);
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, behind)),
        }
    }
}

fn all_mapped(item: &Item<'_>, attributes: &[String], mapped: &dyn Fn(&str) -> bool) -> Option<()> {
    match attributes.iter().find(|attribute| !mapped(attribute)) {
        None => Some(()),
        Some(attribute) => item.reject(
            format!("the attribute {attribute:?}, which has no rule"),
            "attributes with a rule in the map of this source",
            format!("add a rule for {attribute}, or name other attributes"),
        ),
    }
}

fn rescan(section: Section<'_>) -> Option<RescanConfig> {
    let percent = section.required("max_leavers_percent", values::percent);
    let count = section.required("max_leavers", values::integer::<u64>);
    section.finish();
    Some(RescanConfig {
        max_leavers_percent: percent?,
        max_leavers: count?,
    })
}

fn change_stream(item: Item<'_>) -> Option<ChangeStreamConfig> {
    let section = item.section()?;
    let sink = section.required("sink", values::text);
    let topic = section.optional("topic", values::text_where(values::is_topic));
    let place = section.place();
    section.finish();
    Some(ChangeStreamConfig {
        sink: sink?,
        topic: topic?,
        place,
    })
}

fn batch(section: Section<'_>) -> Option<BatchConfig> {
    let rows = section.required("rows", values::integer::<usize>);
    let size = section.required("size", values::size_bytes);
    let page_rows = section.required("page_rows", values::integer::<usize>);
    let page_size = section.required("page_size", values::size_bytes);
    section.finish();
    Some(BatchConfig {
        rows: rows?,
        size_bytes: size?,
        page_rows: page_rows?,
        page_size_bytes: page_size?,
    })
}

/// Says that a name is none of those that exist.
pub(super) fn reject_name<'n>(
    section: &Section<'_>,
    key: &str,
    place: Place,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) {
    let fix = match suggest(name, known.clone()) {
        Some(near) => format!("write \"{near}\""),
        None => {
            let all: Vec<&str> = known.collect();
            match all.is_empty() {
                true => format!("add [{what}.{name}]"),
                false => format!("name one of {}, or add [{what}.{name}]", all.join(", ")),
            }
        }
    };
    section.document().reject(
        place,
        child(section.path(), key),
        format!("the {what} {name:?}, which does not exist"),
        format!("the name of a {what}"),
        fix,
    );
}
