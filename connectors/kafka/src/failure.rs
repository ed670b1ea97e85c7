//! What each error of Kafka means for a sink: one table.
//!
//! Three kinds: the *record* is at fault (it is refused, its neighbours are delivered), an
//! *operator* is needed (definite), or *time* is (transient). Whatever the table does not
//! know is transient: a retry after `start` is always safe, because `start` reads back what
//! the topic holds.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rollcall_contract::ConnectorError;

use crate::client::Trouble;
use crate::config::KafkaConfig;

/// Why a record will never be taken, or `None` if the record is not at fault. The report
/// may stand for a whole batch: only a record that was alone in its batch is certainly meant.
pub(crate) fn record_at_fault(code: Code) -> Option<&'static str> {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Some("too_large")
        }
        Code::InvalidRecord => Some("invalid_record"),
        _ => None,
    }
}

/// Reports that only say that another record failed, or that we gave up ourselves.
pub(crate) fn is_echo(code: Code) -> bool {
    matches!(
        code,
        Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord
    )
}

/// Where an error came up, for the sentence.
#[derive(Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub(crate) config: &'a KafkaConfig,
    /// For example `sending records`.
    pub(crate) what: &'a str,
    /// The topic concerned.
    pub(crate) topic: &'a str,
    /// What librdkafka last complained about.
    pub(crate) trouble: Option<&'a Trouble>,
}

impl Doing<'_> {
    /// The error of a call.
    pub(crate) fn failed(&self, error: &KafkaError) -> ConnectorError {
        match error {
            KafkaError::Transaction(inner) => self.code(inner.code(), &inner.string()),
            // This one does not hand out its code.
            KafkaError::AdminOp(code) => self.code(*code, &code.to_string()),
            KafkaError::ClientConfig(_, what, name, _) => ConnectorError::definite(
                "property_rejected",
                format!(
                    "librdkafka does not take the property {name} of the Kafka sink {}: {what}.",
                    self.config.sink
                ),
                "Correct or remove it.",
            ),
            KafkaError::ClientCreation(why) => ConnectorError::definite(
                "configuration_rejected",
                format!(
                    "librdkafka does not take the configuration of the Kafka sink {}: {why}.",
                    self.config.sink
                ),
                "Correct the tls, sasl or properties keys of the sink.",
            ),
            other => match other.rdkafka_error_code() {
                Some(code) => self.code(code, &code.to_string()),
                None => ConnectorError::transient(
                    "kafka",
                    format!("{} {} failed: {other}.", self.subject(), self.what),
                ),
            },
        }
    }

    fn subject(&self) -> String {
        format!("Kafka sink {}:", self.config.sink)
    }

    /// The error behind a code.
    pub(crate) fn code(&self, code: Code, words: &str) -> ConnectorError {
        let Doing {
            config,
            what,
            topic,
            trouble,
        } = *self;
        let sink = &config.sink;
        let words = words.trim_end_matches('.');
        match code {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
                ConnectorError::definite(
                    "fenced",
                    format!(
                        "A second instance of the Kafka sink {sink} has started with the \
                         transactional id {}, and this one has been shut out by the broker.",
                        config.transactional_id
                    ),
                    "Run one daemon for a store; give each sink its own transactional_id.",
                )
            }
            Code::TopicAuthorizationFailed => ConnectorError::definite(
                "topic_not_allowed",
                format!(
                    "Kafka sink {sink}: the broker does not allow {what} on the topic {topic}."
                ),
                format!(
                    "Allow the sink's user Read, Write, Describe and DescribeConfigs on the topic \
                     {topic} (kafka-acls.sh --add --allow-principal User:NAME --operation Read \
                     --operation Write --operation Describe --operation DescribeConfigs --topic \
                     {topic})."
                ),
            ),
            Code::ClusterAuthorizationFailed => ConnectorError::definite(
                "cluster_not_allowed",
                format!("Kafka sink {sink}: the broker does not allow {what}."),
                "Allow the sink's user IdempotentWrite on the cluster, and Create if topics are \
                 to be made (kafka-acls.sh --add --operation IdempotentWrite --cluster).",
            ),
            Code::TransactionalIdAuthorizationFailed => ConnectorError::definite(
                "transactional_id_not_allowed",
                format!(
                    "Kafka sink {sink}: the broker does not allow the transactional id {}.",
                    config.transactional_id
                ),
                format!(
                    "Allow the sink's user Write and Describe on it (kafka-acls.sh --add \
                     --operation Write --operation Describe --transactional-id {}).",
                    config.transactional_id
                ),
            ),
            Code::InvalidTransactionTimeout => ConnectorError::definite(
                "transaction_timeout",
                format!(
                    "Kafka sink {sink}: the broker allows no transaction as long as \
                     transaction.timeout.ms = {}.",
                    config.transaction_timeout_ms()
                ),
                "Raise transaction.max.timeout.ms of the brokers, or lower transaction.timeout.ms \
                 in properties.",
            ),
            Code::UnsupportedCompressionType
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidRequiredAcks => ConnectorError::definite(
                "not_supported",
                format!("Kafka sink {sink}: {what} is not supported by the broker: {words}."),
                "Brokers must be Apache Kafka 0.11 or newer (2.5 or newer is advised); for \
                 compression, choose another kind.",
            ),
            Code::Authentication | Code::SaslAuthenticationFailed => ConnectorError::definite(
                "authentication_rejected",
                format!("Kafka sink {sink}: the broker rejected the log-in: {words}."),
                "Check user, password or token, and the SASL mechanism of the listener.",
            ),
            Code::UnsupportedSASLMechanism => ConnectorError::definite(
                "sasl_mechanism",
                format!(
                    "Kafka sink {sink}: the broker does not offer this SASL mechanism: {words}."
                ),
                "Choose a mechanism that the listener has enabled.",
            ),
            Code::SSL => {
                let sentence = format!("Kafka sink {sink}: TLS with the broker failed: {words}.");
                let known = Trouble {
                    code,
                    reason: words.to_owned(),
                };
                if known.is_hopeless() {
                    ConnectorError::definite(
                        "tls",
                        sentence,
                        "Check the authority (ca), the client's certificate, and that the \
                         broker's certificate is made out to the name in brokers.",
                    )
                } else {
                    ConnectorError::transient("tls_broken_off", sentence)
                }
            }
            Code::PolicyViolation => ConnectorError::definite(
                "policy",
                format!("Kafka sink {sink}: {what} violates a policy of the brokers: {words}."),
                "Make the topic by hand as the policy wants it.",
            ),
            Code::InvalidTopic => ConnectorError::definite(
                "invalid_topic",
                format!("Kafka sink {sink}: {topic} is not a valid name of a topic."),
                "Use letters, digits, dots, dashes and underscores, at most 249.",
            ),
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                ConnectorError::transient(
                    "topic_missing",
                    format!("Kafka sink {sink}: the topic {topic} is not there (any more)."),
                )
            }
            Code::InvalidTimestamp => ConnectorError::transient(
                "clock",
                format!(
                    "Kafka sink {sink}: the broker refuses the time of records: the clocks of \
                     this machine and of the broker differ."
                ),
            ),
            // What librdkafka last complained about is the cause, if it complained.
            _ => match trouble {
                Some(known) if known.code != code && known.code != Code::Fatal => Doing {
                    trouble: None,
                    ..*self
                }
                .code(known.code, &known.reason),
                _ => ConnectorError::transient(
                    transient_code(code),
                    format!(
                        "Kafka sink {sink}: {what} failed at {}: {words}.",
                        config.brokers_text()
                    ),
                ),
            },
        }
    }

    /// No answer in time.
    pub(crate) fn timed_out(&self) -> ConnectorError {
        self.code(Code::OperationTimedOut, "no answer in time")
    }
}

fn transient_code(code: Code) -> &'static str {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::NetworkException
        | Code::BrokerNotAvailable => "broker_unreachable",
        Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue => "timed_out",
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => "not_enough_replicas",
        _ => "kafka",
    }
}
