//! From the configuration to connectors and to the core's own input types.
//!
//! The configuration is valid by construction, so nothing here can fail; what depends on a
//! server's answer is found out by the connectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use rollcall_contract::{RelatedTable, Report, Sink, Source, TableName};
use rollcall_core::attribute::AttrType;
use rollcall_core::mapped::Strength;
use rollcall_core::mapping::related::{RelatedSpec, used_columns};
use rollcall_core::mapping::{ConstValue, MappingSpec, OnNull, RuleKind, RuleSpec};
use rollcall_mysql::{MySqlConfig, MySqlSource};
use rollcall_postgres::PostgresSource;
use rollcall_postgres::config::PostgresConfig;
use rollcall_transport::{TlsMode, TlsSettings};
use secrecy::ExposeSecret;

use crate::config::{
    self, AttributeType, Config, Destination, ServerConfig, SinkConfig, SourceConfig, SourceKind,
    SourceType,
};
use crate::delivery::ndjson::{self, NdjsonSink, Target};

/// Who makes the connectors of a configuration.
pub trait Connectors {
    /// The connector of a source.
    fn source(&self, organization: &str, config: &SourceConfig) -> Arc<dyn Source>;
    /// The connector of a sink.
    fn sink(&self, organization: &str, config: &SinkConfig) -> Box<dyn Sink>;
}

/// The connectors of servers, as they are configured.
pub struct Servers;

impl Connectors for Servers {
    fn source(&self, organization: &str, config: &SourceConfig) -> Arc<dyn Source> {
        source(organization, config)
    }

    fn sink(&self, organization: &str, config: &SinkConfig) -> Box<dyn Sink> {
        sink(organization, config)
    }
}

/// The connector of a source. The organization's name is part of what it calls itself at
/// the server.
pub fn source(organization: &str, config: &SourceConfig) -> Arc<dyn Source> {
    match &config.kind {
        SourceKind::Postgres(postgres) => {
            Arc::new(PostgresSource::new(postgres_config(config, postgres)))
        }
        SourceKind::MySql(mysql) => {
            Arc::new(MySqlSource::new(mysql_config(organization, config, mysql)))
        }
    }
}

fn postgres_config(source: &SourceConfig, postgres: &config::PostgresConfig) -> PostgresConfig {
    let server = &source.server;
    let mut out = PostgresConfig::new(
        &server.host.to_string(),
        &postgres.database,
        &server.user,
        source.table.clone(),
    );
    out.port = server.port;
    out.password.clone_from(&server.password);
    out.tls = tls_settings(&server.tls);
    out.slot.clone_from(&postgres.slot);
    out.publication.clone_from(&postgres.publication);
    out.key.clone_from(&source.key);
    out.related = related_tables(source);
    out.watch_interval *= source.asked_rarer;
    out.ask_interval *= source.asked_rarer;
    out.application_name = format!("rollcall/{}", source.name);
    out.connect_timeout = source.connect_timeout;
    out.caps = rollcall_contract::BatchCaps {
        changes: source.batch.rows,
        most_changes: source.batch.most_rows,
        bytes: batch_bytes(source),
    };
    out
}

fn mysql_config(
    organization: &str,
    source: &SourceConfig,
    mysql: &config::MySqlConfig,
) -> MySqlConfig {
    let server = &source.server;
    let flavour = mysql_flavour(mysql.flavour);
    let mut out = MySqlConfig::new(
        flavour,
        &server.host.to_string(),
        &server.user,
        source.table.clone(),
    );
    out.port = server.port;
    out.password.clone_from(&server.password);
    out.tls = tls_settings(&server.tls);
    out.key.clone_from(&source.key);
    out.related = related_tables(source);
    out.name = format!("{organization}/{}", source.name);
    out.server_id = mysql.server_id;
    out.connect_timeout = source.connect_timeout;
    out.zero_dates = match mysql.zero_dates {
        config::ZeroDates::Null => rollcall_mysql::ZeroDates::Null,
        config::ZeroDates::Text => rollcall_mysql::ZeroDates::Text,
    };
    out.caps = rollcall_contract::BatchCaps {
        changes: source.batch.rows,
        most_changes: source.batch.most_rows,
        bytes: batch_bytes(source),
    };
    out
}

fn mysql_flavour(flavour: config::Flavour) -> rollcall_mysql::Flavour {
    match flavour {
        config::Flavour::MySql => rollcall_mysql::Flavour::MySql,
        config::Flavour::MariaDb => rollcall_mysql::Flavour::MariaDb,
    }
}

fn batch_bytes(source: &SourceConfig) -> usize {
    usize::try_from(source.batch.size_bytes).unwrap_or(usize::MAX)
}

/// A connector that follows no table: for looking around on a server.
pub fn server(kind: SourceType, server: &ServerConfig, database: Option<&str>) -> Arc<dyn Source> {
    let host = server.host.to_string();
    match kind {
        SourceType::Postgres => {
            let none = TableName::new("public", "");
            let database = database.unwrap_or(&server.user);
            let mut out = PostgresConfig::new(&host, database, &server.user, none);
            out.port = server.port;
            out.password.clone_from(&server.password);
            out.tls = tls_settings(&server.tls);
            Arc::new(PostgresSource::new(out))
        }
        SourceType::MySql(flavour) => {
            let none = TableName::new(database.unwrap_or_default(), "");
            let flavour = mysql_flavour(flavour);
            let mut out = MySqlConfig::new(flavour, &host, &server.user, none);
            out.port = server.port;
            out.password.clone_from(&server.password);
            out.tls = tls_settings(&server.tls);
            Arc::new(MySqlSource::new(out))
        }
    }
}

fn tls_settings(tls: &config::TlsConfig) -> TlsSettings {
    let config::TlsConfig::Enable { verify, client } = tls else {
        return TlsSettings::new(TlsMode::Disable);
    };
    let mode = match verify {
        None => TlsMode::Require,
        Some(v) if v.host_name => TlsMode::VerifyFull,
        Some(_) => TlsMode::VerifyCa,
    };
    let mut out = TlsSettings::new(mode);
    out.ca_file = verify.as_ref().and_then(|v| v.ca.clone());
    out.cert_file = client.as_ref().map(|c| c.cert.clone());
    out.key_file = client.as_ref().map(|c| c.key.clone());
    out
}

/// The connector of a sink.
pub fn sink(organization: &str, config: &SinkConfig) -> Box<dyn Sink> {
    match &config.destination {
        Destination::Kafka(kafka) => Box::new(rollcall_kafka::KafkaSink::new(kafka_config(
            organization,
            &config.name,
            kafka,
        ))),
        Destination::Ndjson(ndjson) => Box::new(NdjsonSink::new(target(ndjson))),
    }
}

fn target(config: &config::NdjsonConfig) -> Target {
    match config {
        config::NdjsonConfig::Stdout => Target::Stdout,
        config::NdjsonConfig::File {
            path,
            rotate_size_bytes,
            rotate_keep,
        } => Target::File {
            path: path.clone(),
            rotate_bytes: *rotate_size_bytes,
            keep: *rotate_keep,
        },
    }
}

/// Looks at a sink without writing to it.
pub async fn check_sink(organization: &str, config: &SinkConfig) -> Report {
    match &config.destination {
        Destination::Kafka(kafka) => {
            rollcall_kafka::check(&kafka_config(organization, &config.name, kafka)).await
        }
        Destination::Ndjson(ndjson) => ndjson::check(&target(ndjson)),
    }
}

fn kafka_config(
    organization: &str,
    name: &str,
    kafka: &config::KafkaConfig,
) -> rollcall_kafka::KafkaConfig {
    let mut out = rollcall_kafka::KafkaConfig::new(
        organization,
        name,
        kafka.brokers.clone(),
        kafka.topic.clone(),
    );
    out.cursors_topic.clone_from(&kafka.cursors_topic);
    out.delivery = match kafka.delivery {
        config::Delivery::ExactlyOnce => rollcall_kafka::Delivery::ExactlyOnce,
        config::Delivery::AtLeastOnce => rollcall_kafka::Delivery::AtLeastOnce,
    };
    out.transactional_id.clone_from(&kafka.transactional_id);
    out.create_topics = kafka.create_topics;
    out.partitions = kafka.partitions;
    out.replication = kafka.replication;
    out.tls = kafka_tls(&kafka.tls);
    out.sasl = kafka.sasl.as_ref().map(kafka_sasl);
    out.properties = properties(&kafka.properties);
    out.properties.insert(
        "transaction.timeout.ms".to_owned(),
        kafka.transaction_timeout.as_millis().to_string(),
    );
    out
}

fn properties(from: &BTreeMap<String, config::PropertyValue>) -> BTreeMap<String, String> {
    from.iter()
        .map(|(name, value)| {
            let text = match value {
                config::PropertyValue::Plain(text) => text.clone(),
                config::PropertyValue::Secret(secret) => secret.expose_secret().to_owned(),
            };
            (name.clone(), text)
        })
        .collect()
}

fn kafka_tls(tls: &config::TlsConfig) -> rollcall_kafka::Tls {
    use rollcall_kafka::{Material, Tls, TlsMode};
    let config::TlsConfig::Enable { verify, client } = tls else {
        return Tls {
            mode: TlsMode::Disable,
            ..Tls::default()
        };
    };
    Tls {
        mode: match verify {
            None => TlsMode::Require,
            Some(v) if v.host_name => TlsMode::VerifyFull,
            Some(_) => TlsMode::VerifyCa,
        },
        ca: verify
            .as_ref()
            .and_then(|v| v.ca.clone())
            .map(Material::File),
        cert: client.as_ref().map(|c| Material::File(c.cert.clone())),
        key: client.as_ref().map(|c| Material::File(c.key.clone())),
        key_password: client.as_ref().and_then(|c| c.key_password.clone()),
    }
}

fn kafka_sasl(sasl: &config::Sasl) -> rollcall_kafka::Sasl {
    use config::PasswordMechanism as Mechanism;
    use rollcall_kafka::ScramHash;
    match sasl {
        config::Sasl::Password {
            mechanism,
            username,
            password,
        } => {
            let (user, password) = (username.clone(), password.clone());
            match mechanism {
                Mechanism::Plain => rollcall_kafka::Sasl::Plain { user, password },
                Mechanism::ScramSha256 => rollcall_kafka::Sasl::Scram {
                    hash: ScramHash::Sha256,
                    user,
                    password,
                },
                Mechanism::ScramSha512 => rollcall_kafka::Sasl::Scram {
                    hash: ScramHash::Sha512,
                    user,
                    password,
                },
            }
        }
        config::Sasl::OAuthBearer { token_file } => {
            rollcall_kafka::Sasl::OauthBearer(rollcall_kafka::OauthToken::File(token_file.clone()))
        }
    }
}

/// The core's type of a custom attribute.
pub fn attribute_type(kind: AttributeType) -> AttrType {
    match kind {
        AttributeType::Text => AttrType::Text,
        AttributeType::Boolean => AttrType::Boolean,
        AttributeType::Integer => AttrType::Integer,
        AttributeType::Decimal => AttrType::Decimal,
        AttributeType::Date => AttrType::Date,
        AttributeType::Timestamp => AttrType::Timestamp,
        AttributeType::List => AttrType::List,
    }
}

/// The mapping of a source as the core compiles it. Rule numbers are places in the file's
/// order.
pub fn mapping_spec(config: &SourceConfig) -> MappingSpec {
    mapping_spec_with(config, Vec::new())
}

/// The same, with the columns that say when values of attributes were changed.
pub fn mapping_spec_with(config: &SourceConfig, changed: Vec<(String, String)>) -> MappingSpec {
    let mut spec = MappingSpec {
        rules: config.mapping.rules.iter().map(rule).collect(),
        scope: config.mapping.scope.as_ref().map(|s| s.expr.clone()),
        redact: config.redact.clone(),
        changed,
        ..MappingSpec::default()
    };
    let names: Vec<&str> = config.related.iter().map(|r| r.name.as_str()).collect();
    if !names.is_empty() {
        let used = used_columns(&spec, &names);
        let related = config.related.iter().zip(used);
        spec.related = related
            .map(|(table, used)| RelatedSpec {
                name: table.name.clone(),
                table: table.table.clone(),
                on: table.on.clone(),
                many: table.many,
                columns: table.columns.clone().unwrap_or(used),
            })
            .collect();
    }
    spec
}

/// The related tables of a source as a connector reads them.
fn related_tables(source: &SourceConfig) -> Vec<RelatedTable> {
    let tables = source.related.iter().map(|table| RelatedTable {
        name: table.name.clone(),
        table: table.table.clone(),
        key: table.key.clone(),
    });
    tables.collect()
}

/// What decides whose value wins; nothing where nothing has to be decided.
pub fn precedence(config: &Config) -> String {
    let order: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
    let authority = |(name, field): (&String, &config::FieldConfig)| {
        (!field.authority.is_empty()).then(|| (name.clone(), field.authority.clone()))
    };
    let authority: BTreeMap<_, _> = config.fields.iter().filter_map(authority).collect();
    let mut said = match order.len() {
        0 | 1 => String::new(),
        _ => format!("{order:?} {authority:?}"),
    };
    for (name, field) in &config.fields {
        if let Some(mode) = field.mode {
            said.push_str(&format!(" {name} {mode:?} {:?}", field.skew));
        }
    }
    said
}

/// For an attribute, the column of a source that says when its value was changed.
pub fn changed_columns(config: &Config, source: &SourceConfig) -> Vec<(String, String)> {
    let columns = config.fields.iter().filter_map(|(attribute, field)| {
        let column = field.changed.get(&source.name)?;
        Some((attribute.clone(), column.clone()))
    });
    columns.collect()
}

/// Names everything in the configuration that decides what becomes of a source's rows. Where
/// the server is and how it is read is no part of it.
pub fn configuration(config: &Config, source: &SourceConfig) -> String {
    let said = format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{}",
        mapping_spec(source),
        changed_columns(config, source),
        source.match_attributes,
        source.fingerprint,
        source.leaver,
        source.table,
        source.key,
        config.attributes,
        precedence(config),
    );
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(said.as_bytes()))
}

fn rule(rule: &config::RuleConfig) -> RuleSpec {
    let kind = match &rule.kind {
        config::RuleKind::Column(column) => RuleKind::Column(column.clone()),
        config::RuleKind::Columns(columns) => RuleKind::Columns(columns.clone()),
        config::RuleKind::Expr(expr) => RuleKind::Expr(expr.clone()),
        config::RuleKind::Constant(value) => RuleKind::Constant(constant(value)),
    };
    let (on_null, default) = match &rule.on_null {
        config::OnNull::Clear => (OnNull::Clear, None),
        config::OnNull::Keep => (OnNull::Keep, None),
        config::OnNull::Default(value) => (OnNull::Default, Some(constant(value))),
    };
    RuleSpec {
        attribute: rule.attribute.clone(),
        kind,
        split: rule.split.clone(),
        default,
        strength: match rule.strength {
            config::Strength::Always => Strength::Always,
            config::Strength::OnCreate => Strength::OnCreate,
            config::Strength::IfEmpty => Strength::IfEmpty,
        },
        on_null,
    }
}

fn constant(value: &config::Constant) -> ConstValue {
    match value {
        config::Constant::Text(text) => ConstValue::Text(text.clone()),
        config::Constant::Decimal(digits) => ConstValue::Decimal(digits.clone()),
        config::Constant::Boolean(b) => ConstValue::Boolean(*b),
        config::Constant::Integer(n) => ConstValue::Integer(*n),
        config::Constant::List(texts) => ConstValue::List(texts.clone()),
    }
}
