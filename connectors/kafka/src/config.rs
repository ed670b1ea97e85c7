//! What an operator says about a Kafka sink, and what librdkafka is told.
//!
//! A client is configured in one place, so that producer, administration and read-back
//! can't differ in how they reach the brokers. Secrets stay in [`SecretString`] until they
//! are handed to librdkafka, and the librdkafka configuration is never printed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use rollcall_contract::ConnectorError;
use secrecy::{ExposeSecret, SecretString};

use crate::OauthToken;
use crate::properties;

/// How sure a delivery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Transactions: a `read_committed` consumer sees each record once.
    #[default]
    ExactlyOnce,
    /// An idempotent producer: lower latency; records may come twice after a failure.
    AtLeastOnce,
}

/// How record batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4: the least CPU.
    #[default]
    Lz4,
    /// Zstandard: the smallest.
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// How far the broker's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS with any certificate: no protection against a false broker.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// … and be made out to the broker's name.
    #[default]
    VerifyFull,
}

/// A certificate or key.
#[derive(Clone, Debug)]
pub enum Material {
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Pem(SecretString),
}

/// TLS towards the brokers.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// How far to check.
    pub mode: TlsMode,
    /// The trusted authorities; none means those of the system.
    pub ca: Option<Material>,
    /// The client's certificate.
    pub cert: Option<Material>,
    /// The key of the client's certificate.
    pub key: Option<Material>,
    /// The password of an encrypted key.
    pub key_password: Option<SecretString>,
}

/// The hash of a SCRAM log-in (RFC 5802, RFC 7677).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// How the sink logs in.
#[derive(Clone, Debug)]
pub enum Sasl {
    /// User and password as they are; only sensible inside TLS.
    Plain {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// User and password, never sent.
    Scram {
        /// Which hash.
        hash: ScramHash,
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A bearer token (RFC 7628).
    OauthBearer(OauthToken),
}

/// A Kafka sink.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// The organization whose events these are; part of the position's key.
    pub organization: String,
    /// The sink's name; part of the position's key.
    pub sink: String,
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// The topic of the events.
    pub topic: String,
    /// The compacted topic of the positions.
    pub cursors_topic: String,
    /// How sure a delivery is.
    pub delivery: Delivery,
    /// The same for every instance of this sink and for no other sink of the cluster.
    pub transactional_id: String,
    /// Whether missing topics are made.
    pub create_topics: bool,
    /// Partitions of a topic that is made; none means the broker's default.
    pub partitions: Option<u16>,
    /// Replicas of a topic that is made; none means the broker's default.
    pub replication: Option<u16>,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record may wait for others of its batch, in milliseconds.
    pub linger_ms: u32,
    /// TLS.
    pub tls: Tls,
    /// The log-in; none for brokers that ask for none.
    pub sasl: Option<Sasl>,
    /// librdkafka properties, passed through.
    pub properties: BTreeMap<String, String>,
}

/// Bytes of records that may wait in librdkafka, in KiB. The producer waits when it is full.
const QUEUE_KIB: u32 = 8 * 1024;
/// Time for one request, in milliseconds.
const REQUEST_TIMEOUT_MS: u32 = 10_000;
/// Time for one record from produce to acknowledgement, in milliseconds.
const MESSAGE_TIMEOUT_MS: u32 = 30_000;
/// After this the broker aborts an open transaction, in milliseconds. Consumers of the
/// topic wait for the open transaction of a dead instance that long, if it is not restarted.
const TRANSACTION_TIMEOUT_MS: u32 = 60_000;

impl KafkaConfig {
    /// A sink with defaults: exactly once, topics made, TLS off for brokers on the
    /// loopback and `verify-full` for all others.
    #[must_use]
    pub fn new(
        organization: impl Into<String>,
        sink: impl Into<String>,
        brokers: Vec<String>,
        topic: impl Into<String>,
    ) -> Self {
        let (organization, sink) = (organization.into(), sink.into());
        let mode = if brokers.iter().all(|broker| is_loopback(broker)) {
            TlsMode::Disable
        } else {
            TlsMode::VerifyFull
        };
        KafkaConfig {
            transactional_id: format!("rollcall.{organization}.{sink}"),
            organization,
            sink,
            brokers,
            topic: topic.into(),
            cursors_topic: "rollcall.cursors".to_owned(),
            delivery: Delivery::default(),
            create_topics: true,
            partitions: None,
            replication: None,
            compression: Compression::default(),
            linger_ms: 0,
            tls: Tls {
                mode,
                ..Tls::default()
            },
            sasl: None,
            properties: BTreeMap::new(),
        }
    }

    /// Why a librdkafka property may not be passed through, or `None` if it may.
    #[must_use]
    pub fn refused_property(name: &str) -> Option<&'static str> {
        properties::refusal(name)
    }

    /// The key of this sink's position in the cursors topic.
    #[must_use]
    pub fn position_key(&self) -> String {
        format!("{}/{}", self.organization, self.sink)
    }

    pub(crate) fn brokers_text(&self) -> String {
        self.brokers.join(",")
    }

    /// `properties`' own value or the default.
    pub(crate) fn transaction_timeout_ms(&self) -> u64 {
        self.properties
            .get("transaction.timeout.ms")
            .and_then(|text| text.parse().ok())
            .unwrap_or(u64::from(TRANSACTION_TIMEOUT_MS))
    }

    /// How to reach the brokers: for every kind of client.
    pub(crate) fn client(&self) -> Result<ClientConfig, ConnectorError> {
        if self.brokers.is_empty() {
            return Err(ConnectorError::definite(
                "no_brokers",
                format!("The Kafka sink {} names no broker.", self.sink),
                "Set brokers = [\"host:9092\"].",
            ));
        }
        for name in self.properties.keys() {
            if let Some(reason) = properties::refusal(name) {
                return Err(ConnectorError::definite(
                    "refused_property",
                    format!(
                        "The property {name} of the Kafka sink {} is not passed through: {reason}.",
                        self.sink
                    ),
                    format!("Remove {name} from properties."),
                ));
            }
        }
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers_text())
            .set("client.id", format!("rollcall-{}", self.sink))
            .set("socket.timeout.ms", REQUEST_TIMEOUT_MS.to_string())
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            .set("log_level", "5");
        for (name, value) in &self.properties {
            if properties::is_about_the_connection(name) {
                config.set(name, value);
            }
        }
        let tls = self.tls.mode != TlsMode::Disable;
        config.set(
            "security.protocol",
            match (&self.sasl, tls) {
                (None, false) => "plaintext",
                (None, true) => "ssl",
                (Some(_), false) => "sasl_plaintext",
                (Some(_), true) => "sasl_ssl",
            },
        );
        if tls {
            self.set_tls(&mut config);
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Plain { user, password }) => {
                config
                    .set("sasl.mechanism", "PLAIN")
                    .set("sasl.username", user)
                    .set("sasl.password", password.expose_secret());
            }
            Some(Sasl::Scram {
                hash,
                user,
                password,
            }) => {
                config
                    .set(
                        "sasl.mechanism",
                        match hash {
                            ScramHash::Sha256 => "SCRAM-SHA-256",
                            ScramHash::Sha512 => "SCRAM-SHA-512",
                        },
                    )
                    .set("sasl.username", user)
                    .set("sasl.password", password.expose_secret());
            }
            Some(Sasl::OauthBearer(_)) => {
                config.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        Ok(config)
    }

    fn set_tls(&self, config: &mut ClientConfig) {
        let verify = |on: bool| if on { "true" } else { "false" };
        let mode = self.tls.mode;
        config.set(
            "enable.ssl.certificate.verification",
            verify(mode != TlsMode::Require),
        );
        config.set(
            "ssl.endpoint.identification.algorithm",
            if mode == TlsMode::VerifyFull {
                "https"
            } else {
                "none"
            },
        );
        // "probe" finds the system's authorities where a statically linked OpenSSL has
        // another idea of where they are.
        match &self.tls.ca {
            None => config.set("ssl.ca.location", "probe"),
            Some(ca) => set_material(config, "ssl.ca", ca),
        };
        if let Some(cert) = &self.tls.cert {
            set_material(config, "ssl.certificate", cert);
        }
        if let Some(key) = &self.tls.key {
            set_material(config, "ssl.key", key);
        }
        if let Some(password) = &self.tls.key_password {
            config.set("ssl.key.password", password.expose_secret());
        }
    }

    /// The producer of the records.
    pub(crate) fn producer(
        &self,
        batch_limit: Option<usize>,
    ) -> Result<ClientConfig, ConnectorError> {
        let mut config = self.client()?;
        config
            .set("partitioner", "murmur2_random")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", self.compression.name())
            .set("linger.ms", self.linger_ms.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB.to_string())
            .set("queue.buffering.max.messages", "0")
            .set("request.timeout.ms", REQUEST_TIMEOUT_MS.to_string())
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS.to_string())
            .set("retry.backoff.ms", "20");
        if let Some(limit) = batch_limit {
            // A batch must fit under the limit of the topic; records are measured before
            // they are sent, so librdkafka's own limit only has to be no lower.
            config
                .set(
                    "message.max.bytes",
                    limit.clamp(1_000, 1_000_000_000).to_string(),
                )
                .set(
                    "batch.size",
                    limit
                        .saturating_sub(1_024)
                        .clamp(512, 1_000_000)
                        .to_string(),
                );
        }
        if self.delivery == Delivery::ExactlyOnce {
            config
                .set("transactional.id", &self.transactional_id)
                .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string());
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        Ok(config)
    }

    /// A reader of the cursors topic.
    pub(crate) fn reader(&self, committed: bool) -> Result<ClientConfig, ConnectorError> {
        let mut config = self.client()?;
        config.set(
            "isolation.level",
            if committed {
                "read_committed"
            } else {
                "read_uncommitted"
            },
        );
        if committed {
            config
                // librdkafka wants a group for any assignment; nothing is ever stored in it.
                .set("group.id", &self.transactional_id)
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "earliest")
                .set("fetch.wait.max.ms", "50")
                .set("queued.max.messages.kbytes", "4096");
        }
        Ok(config)
    }
}

fn set_material<'a>(
    config: &'a mut ClientConfig,
    prefix: &str,
    material: &Material,
) -> &'a mut ClientConfig {
    match material {
        Material::File(path) => config.set(format!("{prefix}.location"), path.to_string_lossy()),
        Material::Pem(pem) => config.set(format!("{prefix}.pem"), pem.expose_secret()),
    }
}

/// Whether a broker is on this machine's loopback.
pub(crate) fn is_loopback(broker: &str) -> bool {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
