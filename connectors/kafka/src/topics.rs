//! The topics of a sink: there as they must be, or made.
//!
//! The cursors topic must be compacted: under a retention by time the position of a quiet
//! sink would be deleted, and the next start would take an old sink for a new one and send
//! everything again. A topic is never altered; what is wrong is said with its command.
//!
//! The brokers are reached with a consumer first: it never makes a broker create a topic by
//! asking for it, and unlike rdkafka's administration client it hands over what librdkafka
//! complains about, and fetches bearer tokens. With bearer tokens topics are therefore only
//! looked at, not made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rollcall_contract::ConnectorError;

use crate::client::Context;
use crate::config::{KafkaConfig, Sasl};
use crate::failure::Doing;

/// For one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// For one turn of asking.
const TURN: Duration = Duration::from_millis(500);
/// For log lines and complaints that are waiting.
const SERVE: Duration = Duration::from_millis(10);

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    /// The largest batch that the topic takes, in bytes; none if it may not be read.
    pub(crate) max_message_bytes: Option<usize>,
    /// Whether it is compacted; none if that may not be read.
    pub(crate) compacted: Option<bool>,
    /// How many partitions it has.
    pub(crate) partitions: usize,
}

/// Which topic is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Holds events.
    Events,
    /// Holds positions.
    Cursors,
}

/// Looks at topics and makes them.
pub(crate) struct Topics<'a> {
    config: &'a KafkaConfig,
    probe: Arc<BaseConsumer<Context>>,
    admin: Option<AdminClient<Context>>,
    options: AdminOptions,
}

impl<'a> Topics<'a> {
    pub(crate) fn new(config: &'a KafkaConfig) -> Result<Self, ConnectorError> {
        let doing = Doing {
            config,
            what: "starting",
            topic: &config.topic,
            trouble: None,
        };
        let probe =
            BaseConsumer::from_config_and_context(&config.reader(false)?, Context::new(config))
                .map_err(|e| doing.failed(&e))?;
        let admin = match config.sasl {
            Some(Sasl::OauthBearer(_)) => None,
            _ => Some(
                AdminClient::from_config_and_context(&config.client()?, Context::new(config))
                    .map_err(|e| doing.failed(&e))?,
            ),
        };
        Ok(Topics {
            config,
            probe: Arc::new(probe),
            admin,
            options: AdminOptions::new()
                .request_timeout(Some(PATIENCE))
                .operation_timeout(Some(PATIENCE)),
        })
    }

    /// The topic as it is, made if it is missing and may be made.
    pub(crate) async fn ensure(&self, name: &str, role: Role) -> Result<Topic, ConnectorError> {
        let topic = match self.find(name).await? {
            Some(topic) => topic,
            None if self.config.create_topics => {
                self.create(name, role, false).await?;
                tracing::info!(target: "rollcall_kafka", topic = name, "topic made");
                self.look(name, true).await?.ok_or_else(|| {
                    self.doing("looking for the topic", name)
                        .code(Code::UnknownTopicOrPartition, "")
                })?
            }
            None => {
                return Err(ConnectorError::definite(
                    "topic_missing",
                    format!(
                        "Kafka sink {}: the topic {name} does not exist, and topics are not to \
                         be made.",
                        self.config.sink
                    ),
                    format!("Run: {}", self.create_command(name, role)),
                ));
            }
        };
        if role == Role::Cursors && topic.compacted == Some(false) {
            return Err(ConnectorError::definite(
                "cursors_not_compacted",
                format!(
                    "Kafka sink {}: the topic {name} is not compacted, so the position of a \
                     quiet sink would expire.",
                    self.config.sink
                ),
                format!("Run: {}", self.compact_command(name)),
            ));
        }
        Ok(topic)
    }

    /// The topic, if it exists.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Topic>, ConnectorError> {
        self.look(name, false).await
    }

    /// `made`: it was only just made, so that brokers may not know it yet.
    async fn look(&self, name: &str, made: bool) -> Result<Option<Topic>, ConnectorError> {
        let Some(partitions) = self.partitions(name, made).await? else {
            return Ok(None);
        };
        let settings = match &self.admin {
            None => None,
            Some(admin) => {
                let answer = admin
                    .describe_configs([&ResourceSpecifier::Topic(name)], &self.options)
                    .await
                    .map_err(|e| self.doing("describing the topic", name).failed(&e))?;
                match answer.into_iter().next() {
                    Some(Ok(settings)) => Some(settings),
                    // Without the right to describe it, it is taken as it is.
                    Some(Err(
                        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed,
                    ))
                    | None => None,
                    Some(Err(code)) => {
                        return Err(self
                            .doing("describing the topic", name)
                            .code(code, &code.to_string()));
                    }
                }
            }
        };
        let setting = |key: &str| {
            settings
                .as_ref()
                .and_then(|settings: &ConfigResource| settings.get(key))
                .and_then(|entry| entry.value.as_deref())
        };
        Ok(Some(Topic {
            max_message_bytes: setting("max.message.bytes").and_then(|text| text.parse().ok()),
            compacted: setting("cleanup.policy").map(|policy| policy.contains("compact")),
            partitions,
        }))
    }

    /// How many partitions the topic has, if it exists.
    async fn partitions(&self, name: &str, made: bool) -> Result<Option<usize>, ConnectorError> {
        let probe = Arc::clone(&self.probe);
        let topic = name.to_owned();
        let answer = tokio::task::spawn_blocking(move || count_partitions(&probe, &topic, made))
            .await
            .map_err(|_| ConnectorError::transient("stopped", "The daemon is stopping."))?;
        answer.map_err(|(code, words)| {
            Doing {
                trouble: self.probe.context().trouble().as_ref(),
                ..self.doing("looking for the topic", name)
            }
            .code(code, &words)
        })
    }

    /// Makes a topic, or only asks whether it could be made.
    pub(crate) async fn create(
        &self,
        name: &str,
        role: Role,
        only_ask: bool,
    ) -> Result<(), ConnectorError> {
        let number = |count: Option<u16>| count.map_or(-1, i32::from);
        let replication = TopicReplication::Fixed(number(self.config.replication));
        let topic = match role {
            Role::Events => NewTopic::new(name, number(self.config.partitions), replication),
            Role::Cursors => {
                let mut topic = NewTopic::new(name, 1, replication);
                for (key, value) in CURSORS_SETTINGS {
                    topic = topic.set(key, value);
                }
                topic
            }
        };
        let options = AdminOptions::new()
            .request_timeout(Some(PATIENCE))
            .operation_timeout(Some(PATIENCE))
            .validate_only(only_ask);
        let doing = self.doing("making the topic", name);
        let Some(admin) = &self.admin else {
            return Err(ConnectorError::definite(
                "topic_missing",
                format!(
                    "Kafka sink {}: the topic {name} does not exist; with bearer tokens topics \
                     are not made by the daemon.",
                    self.config.sink
                ),
                format!("Run: {}", self.create_command(name, role)),
            ));
        };
        let answer = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|e| doing.failed(&e))?;
        match answer.into_iter().next() {
            None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code @ (Code::InvalidReplicationFactor | Code::InvalidPartitions)))) => {
                Err(ConnectorError::definite(
                    "topic_shape",
                    format!(
                        "Kafka sink {}: the brokers do not make the topic {name} with this \
                         number of partitions or replicas: {code}.",
                        self.config.sink
                    ),
                    "Set partitions and replication of the sink to what the cluster can hold.",
                ))
            }
            Some(Err((_, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))) => {
                Err(ConnectorError::definite(
                    "create_not_allowed",
                    format!(
                        "Kafka sink {}: the topic {name} does not exist, and the sink's user may \
                         not make it.",
                        self.config.sink
                    ),
                    format!("Run: {}", self.create_command(name, role)),
                ))
            }
            Some(Err((_, code))) => Err(doing.code(code, &code.to_string())),
        }
    }

    /// The command that makes a topic by hand.
    pub(crate) fn create_command(&self, name: &str, role: Role) -> String {
        let mut command = format!(
            "kafka-topics.sh --bootstrap-server {} --create --topic {name}",
            self.config.brokers_text()
        );
        let partitions = match role {
            Role::Events => self.config.partitions,
            Role::Cursors => Some(1),
        };
        if let Some(count) = partitions {
            command.push_str(&format!(" --partitions {count}"));
        }
        if let Some(count) = self.config.replication {
            command.push_str(&format!(" --replication-factor {count}"));
        }
        if role == Role::Cursors {
            for (key, value) in CURSORS_SETTINGS {
                command.push_str(&format!(" --config {key}={value}"));
            }
        }
        command
    }

    /// The command that makes a topic compacted.
    pub(crate) fn compact_command(&self, name: &str) -> String {
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name \
             {name} --add-config cleanup.policy=compact",
            self.config.brokers_text()
        )
    }

    fn doing<'b>(&'b self, what: &'b str, topic: &'b str) -> Doing<'b> {
        Doing {
            config: self.config,
            what,
            topic,
            trouble: None,
        }
    }
}

/// Asks in short turns, so that a rejected log-in is known as soon as the broker says so,
/// and not when the patience ends.
fn count_partitions(
    probe: &BaseConsumer<Context>,
    name: &str,
    made: bool,
) -> Result<Option<usize>, (Code, String)> {
    let began = Instant::now();
    let mut missing = 0;
    loop {
        // Serves log lines, complaints and token requests; there is nothing to consume.
        while probe.poll(SERVE).is_some() {}
        let problem = match probe.fetch_metadata(Some(name), TURN) {
            Ok(metadata) => match metadata.topics().iter().find(|topic| topic.name() == name) {
                Some(topic) => match topic.error().map(Code::from) {
                    None if !topic.partitions().is_empty() => {
                        return Ok(Some(topic.partitions().len()));
                    }
                    // A topic that was only just made has no leaders for a moment, and not
                    // every broker knows it.
                    Some(Code::UnknownTopicOrPartition) if !made && missing >= 3 => {
                        return Ok(None);
                    }
                    Some(Code::UnknownTopicOrPartition) => {
                        missing += 1;
                        Code::UnknownTopicOrPartition
                    }
                    None | Some(Code::LeaderNotAvailable) => Code::LeaderNotAvailable,
                    Some(code) => return Err((code, code.to_string())),
                },
                None => return Ok(None),
            },
            Err(error) => error
                .rdkafka_error_code()
                .unwrap_or(Code::OperationTimedOut),
        };
        while probe.poll(SERVE).is_some() {}
        let hopeless = probe
            .context()
            .trouble()
            .is_some_and(|trouble| trouble.is_hopeless());
        if hopeless || began.elapsed() > PATIENCE {
            return Err((problem, problem.to_string()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for Topics<'_> {
    /// rdkafka's administration client joins its thread when it is dropped, which takes up
    /// to 100 ms: not on a thread that runs futures.
    fn drop(&mut self) {
        if let (Some(admin), Ok(runtime)) =
            (self.admin.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(admin));
        }
    }
}

/// Small segments, so that compaction, which spares the newest segment, keeps the topic
/// small although each transaction adds a record.
const CURSORS_SETTINGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.1"),
];
