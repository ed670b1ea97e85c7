//! One destination of events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use toml::de::{DeTable, DeValue};

use super::error::Place;
use super::reader::{Item, Section, child};
use super::secret::{Context, secret};
use super::server::is_loopback;
use super::tls::{TlsConfig, tls};
use super::values;
use crate::vault::Owner;

/// One destination.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its name: `[sink.<name>]`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub destination: Destination,
}

/// What a sink is.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A Kafka cluster.
    Kafka(Box<KafkaConfig>),
    /// Lines of JSON.
    Ndjson(NdjsonConfig),
}

/// A Kafka cluster and topics.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port`, at least one.
    pub brokers: Vec<String>,
    /// The topic of identity events.
    pub topic: String,
    /// The compacted topic with positions.
    pub cursors_topic: String,
    /// How events are delivered.
    pub delivery: Delivery,
    /// Whether missing topics are made.
    pub create_topics: bool,
    /// The partitions of a topic that is made; the broker's default when none.
    pub partitions: Option<u16>,
    /// The copies of a topic that is made; the broker's default when none.
    pub replication: Option<u16>,
    /// The producer's identity.
    pub transactional_id: String,
    /// When the broker gives up a transaction.
    pub transaction_timeout: Duration,
    /// How the connections are protected.
    pub tls: TlsConfig,
    /// How Rollcall logs in.
    pub sasl: Option<Sasl>,
    /// Properties of librdkafka, none of them one that Rollcall sets itself.
    pub properties: BTreeMap<String, PropertyValue>,
}

/// How events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// In transactions together with the position.
    ExactlyOnce,
    /// By an idempotent producer.
    AtLeastOnce,
}

/// How Rollcall logs in.
#[derive(Clone, Debug)]
pub enum Sasl {
    /// By user and password.
    Password {
        /// How the password is shown.
        mechanism: PasswordMechanism,
        /// The user.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// By a bearer token (RFC 7628) from a file that something else keeps fresh: it is read
    /// again each time a token is needed.
    OAuthBearer {
        /// The file.
        token_file: PathBuf,
    },
}

/// A SASL mechanism with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordMechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl PasswordMechanism {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            PasswordMechanism::Plain => "PLAIN",
            PasswordMechanism::ScramSha256 => "SCRAM-SHA-256",
            PasswordMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A property's value.
#[derive(Clone, Debug)]
pub enum PropertyValue {
    /// As it is written.
    Plain(String),
    /// A credential.
    Secret(SecretString),
}

/// Lines of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NdjsonConfig {
    /// On standard output.
    Stdout,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The size at which a new one is begun.
        rotate_size_bytes: u64,
        /// How many full ones are kept.
        rotate_keep: u32,
    },
}

pub(super) fn sink(
    name: String,
    section: Section<'_>,
    context: &Context<'_>,
) -> Option<SinkConfig> {
    #[derive(Clone, Copy)]
    enum Kind {
        Kafka,
        Ndjson,
    }
    let place = section.place();
    let kind = section.required(
        "type",
        values::choice(&[("kafka", Kind::Kafka), ("ndjson", Kind::Ndjson)]),
    );
    let destination = match kind {
        Some(Kind::Kafka) => {
            kafka(&name, &section, context).map(|kafka| Destination::Kafka(Box::new(kafka)))
        }
        Some(Kind::Ndjson) => ndjson(&section).map(Destination::Ndjson),
        None => {
            section.finish_of_any_type();
            return None;
        }
    };
    section.finish();
    Some(SinkConfig {
        name,
        place,
        destination: destination?,
    })
}

fn ndjson(section: &Section<'_>) -> Option<NdjsonConfig> {
    let stdout = match section.item("path") {
        Some(item) => matches!(item.value(), DeValue::String(text) if text == "-"),
        None => true,
    };
    let path = section.required("path", values::path);
    let size = section.optional("rotate_size", values::size_bytes);
    let keep = section.optional("rotate_keep", values::integer::<u32>);
    if !stdout {
        return Some(NdjsonConfig::File {
            path: path?,
            rotate_size_bytes: size?.unwrap_or(100 << 20),
            rotate_keep: keep?.unwrap_or(10),
        });
    }
    if let Some(key) = ["rotate_size", "rotate_keep"]
        .into_iter()
        .find(|key| section.item(key).is_some())
    {
        let place = section.item(key).map_or(section.place(), |i| i.place());
        section.document().reject(
            place,
            child(section.path(), key),
            format!("{key} for standard output, which cannot be rotated"),
            "a file to rotate",
            format!("write a file as path, or remove {key}"),
        );
        return None;
    }
    Some(NdjsonConfig::Stdout)
}

fn kafka(name: &str, section: &Section<'_>, context: &Context<'_>) -> Option<KafkaConfig> {
    let brokers = section.required("brokers", brokers);
    let topic = section.required("topic", values::text_where(values::is_topic));
    let cursors = section.required("cursors_topic", |item| {
        let cursors = values::text_where(values::is_topic)(item)?;
        if topic.as_ref() == Some(&cursors) {
            return item.reject(
                "the topic of the events",
                "a topic of its own",
                "write another topic, for example \"rollcall.cursors\"",
            );
        }
        Some(cursors)
    });
    let delivery = section.required(
        "delivery",
        values::choice(&[
            ("exactly_once", Delivery::ExactlyOnce),
            ("at_least_once", Delivery::AtLeastOnce),
        ]),
    );
    let create_topics = section.required("create_topics", values::boolean);
    let partitions = section.optional("partitions", values::integer::<u16>);
    let replication = section.optional("replication", values::integer::<u16>);
    let transactional_id = section.optional("transactional_id", values::text);
    let transaction_timeout = section.required("transaction_timeout", values::positive_duration);
    let is_local = brokers.as_ref().is_some_and(|brokers| {
        brokers
            .iter()
            .filter_map(|broker| broker.rsplit_once(':'))
            .all(|(host, _)| is_loopback(host))
    });
    let tls = section
        .section("tls")
        .and_then(|section| tls(section, context, Owner::Sink(name), is_local));
    let sasl = section.section("sasl").map(|section| {
        if section.is_present() {
            Some(sasl(name, section, context))
        } else {
            // The keys are known to the parser even when the table is not there.
            None
        }
    });
    let properties = section
        .section("properties")
        .and_then(|section| properties(name, &section, context));
    let sasl = match sasl? {
        Some(sasl) => Some(sasl?),
        None => None,
    };
    let organization = context.organization.as_deref();
    Some(KafkaConfig {
        brokers: brokers?,
        topic: topic?,
        cursors_topic: cursors?,
        delivery: delivery?,
        create_topics: create_topics?,
        partitions: partitions?,
        replication: replication?,
        transactional_id: match transactional_id? {
            Some(id) => id,
            None => format!("rollcall.{}.{name}", organization?),
        },
        transaction_timeout: transaction_timeout?,
        tls: tls?,
        sasl,
        properties: properties?,
    })
}

fn brokers(item: &Item<'_>) -> Option<Vec<String>> {
    if let DeValue::Array(items) = item.value() {
        let with_credentials =
            |value: &DeValue<'_>| value.as_str().is_some_and(|s| s.contains('@'));
        if items.iter().any(|value| with_credentials(value.get_ref())) {
            return item.reject(
                "an address with credentials in it (not shown)",
                item.kind().expected(),
                "write host:port alone, and the credentials in [sink.….sasl]",
            );
        }
    }
    values::texts_where(item, |text| {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', ' ', ','])
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    })
}

fn sasl(name: &str, section: Section<'_>, context: &Context<'_>) -> Option<Sasl> {
    const PASSWORD_KEYS: [&str; 2] = ["username", "password"];
    const TOKEN_KEYS: [&str; 1] = ["token_file"];
    let mechanism = section.required(
        "mechanism",
        values::choice(&[
            ("PLAIN", Some(PasswordMechanism::Plain)),
            ("SCRAM-SHA-256", Some(PasswordMechanism::ScramSha256)),
            ("SCRAM-SHA-512", Some(PasswordMechanism::ScramSha512)),
            ("OAUTHBEARER", None),
        ]),
    );
    let owner = Owner::Sink(name);
    let result = match mechanism {
        None => {
            section.finish_of_any_type();
            return None;
        }
        Some(Some(mechanism)) => {
            let username = section.required("username", values::text);
            let password = section.required("password", |item| {
                secret(item, context, owner, "sasl.password")
            });
            reject_others(&section, &TOKEN_KEYS, mechanism.name())?;
            password
                .zip(username)
                .map(|(password, username)| Sasl::Password {
                    mechanism,
                    username,
                    password,
                })
        }
        Some(None) => {
            let token_file = section.required("token_file", values::path);
            reject_others(&section, &PASSWORD_KEYS, "OAUTHBEARER")?;
            token_file.map(|token_file| Sasl::OAuthBearer { token_file })
        }
    };
    section.finish();
    result
}

/// Keys of the other kind of mechanism have no effect.
fn reject_others(section: &Section<'_>, others: &[&'static str], mechanism: &str) -> Option<()> {
    let mut none = Some(());
    for key in others {
        if let Some(item) = section.item(key) {
            none = item.reject(
                format!("a key that {mechanism} does not use"),
                format!("the keys of {mechanism}"),
                "remove it, or write another mechanism",
            );
        }
    }
    none
}

/// What Rollcall sets itself, and the key that does it.
const OWN_PROPERTIES: &[(&str, &str)] = &[
    ("acks", "nothing: every replica has to have an event"),
    ("bootstrap.servers", "brokers"),
    ("client.id", "nothing: it names the sink"),
    (
        "delivery.report.only.error",
        "nothing: every event is reported",
    ),
    (
        "enable.idempotence",
        "nothing: without it a retry could double events",
    ),
    ("enable.ssl.certificate.verification", "tls.mode"),
    ("group.id", "nothing: positions lie in the cursors topic"),
    ("isolation.level", "nothing: it is read_committed"),
    ("metadata.broker.list", "brokers"),
    (
        "partitioner",
        "nothing: partitions are chosen as the Java client does",
    ),
    (
        "plugin.library.paths",
        "nothing: it would load foreign code",
    ),
    (
        "request.required.acks",
        "nothing: every replica has to have an event",
    ),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.password", "sasl.password"),
    ("sasl.username", "sasl.username"),
    ("security.protocol", "tls.mode and sasl"),
    ("ssl.ca.location", "tls.ca"),
    ("ssl.certificate.location", "tls.cert"),
    ("ssl.certificate.pem", "tls.cert"),
    ("ssl.endpoint.identification.algorithm", "tls.mode"),
    ("ssl.key.location", "tls.key"),
    ("ssl.key.password", "tls.key_password"),
    ("ssl.key.pem", "tls.key"),
    ("transaction.timeout.ms", "transaction_timeout"),
    ("transactional.id", "transactional_id"),
];

/// Whether a property of librdkafka holds a credential.
pub(super) fn is_secret_property(name: &str) -> bool {
    name.contains("password") || name.contains("secret") || name == "sasl.oauthbearer.config"
}

fn properties(
    owner: &str,
    section: &Section<'_>,
    context: &Context<'_>,
) -> Option<BTreeMap<String, PropertyValue>> {
    let mut read = BTreeMap::new();
    let complete = gather(owner, "", section, context, &mut read, section.pattern());
    complete.then_some(read)
}

/// `linger.ms = 0` is a table in a table for TOML and one property for us.
fn gather(
    owner: &str,
    prefix: &str,
    section: &Section<'_>,
    context: &Context<'_>,
    read: &mut BTreeMap<String, PropertyValue>,
    pattern: &str,
) -> bool {
    let mut complete = true;
    for (part, item) in section.entries_of(pattern) {
        let name = child(prefix, &part);
        let value = match item.value() {
            DeValue::Table(table) if !is_reference(table) => {
                complete &= match item.section() {
                    Some(inner) => gather(owner, &name, &inner, context, read, pattern),
                    None => false,
                };
                continue;
            }
            _ => property(owner, &name, &item, context),
        };
        match value {
            Some(value) => drop(read.insert(name, value)),
            None => complete = false,
        }
    }
    complete
}

fn is_reference(table: &DeTable<'_>) -> bool {
    table
        .keys()
        .all(|key| matches!(key.get_ref().as_ref(), "sealed" | "env" | "file"))
}

fn property(
    owner: &str,
    name: &str,
    item: &Item<'_>,
    context: &Context<'_>,
) -> Option<PropertyValue> {
    if let Some((_, instead)) = OWN_PROPERTIES.iter().find(|(own, _)| *own == name) {
        let fix = match instead.strip_prefix("nothing: ") {
            Some(reason) => format!("remove it; {reason}"),
            None => format!("write {instead} of this sink instead"),
        };
        return item.reject(
            "a property that Rollcall sets itself",
            "any other property of librdkafka",
            fix,
        );
    }
    if is_secret_property(name) || matches!(item.value(), DeValue::Table(_)) {
        let field = format!("properties.{name}");
        return secret(item, context, Owner::Sink(owner), &field).map(PropertyValue::Secret);
    }
    let text = match item.value() {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        _ => return item.wrong(),
    };
    Some(PropertyValue::Plain(text))
}
