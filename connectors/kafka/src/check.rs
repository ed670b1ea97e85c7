//! What stands in the way of a sink, before it starts.
//!
//! Nothing is written: topics that are missing are only asked for (`validate_only`), and
//! the transactional id is left alone, because taking it would shut out a running daemon.

use rollcall_contract::{ConnectorError, Finding, Report, Severity};

use crate::config::{Delivery, KafkaConfig, Sasl, TlsMode, is_loopback};
use crate::topics::{Role, Topics};

/// Looks at brokers and topics. Takes some tens of seconds at most, when no broker answers.
pub async fn check(config: &KafkaConfig) -> Report {
    let mut report = Report::default();
    let exposed =
        config.tls.mode == TlsMode::Disable && !config.brokers.iter().all(|b| is_loopback(b));
    if exposed {
        report.findings.push(Finding::new(
            Severity::Warning,
            "no_tls",
            format!(
                "The Kafka sink {} sends personal data without TLS.",
                config.sink
            ),
            "Use a TLS listener and set tls.mode = \"verify-full\".",
        ));
    }
    if exposed && matches!(config.sasl, Some(Sasl::Plain { .. })) {
        report.findings.push(Finding::new(
            Severity::Warning,
            "plain_without_tls",
            format!(
                "The Kafka sink {} sends its password as it is.",
                config.sink
            ),
            "Use TLS, or SCRAM instead of PLAIN.",
        ));
    }
    let topics = match Topics::new(config) {
        Ok(topics) => topics,
        Err(error) => {
            report.findings.push(finding(&error));
            return report;
        }
    };
    let mut wanted = vec![(config.topic.as_str(), Role::Events)];
    if config.delivery == Delivery::ExactlyOnce {
        wanted.push((config.cursors_topic.as_str(), Role::Cursors));
    }
    for (name, role) in wanted {
        let (found, statement) = look(config, &topics, name, role).await;
        let lost = found.code == "broker_unreachable" || found.code == "timed_out";
        report.findings.push(found);
        if let Some(statement) = statement {
            report.script.push_str(&statement);
            report.script.push('\n');
        }
        if lost {
            break;
        }
    }
    report
}

async fn look(
    config: &KafkaConfig,
    topics: &Topics<'_>,
    name: &str,
    role: Role,
) -> (Finding, Option<String>) {
    let command = topics.create_command(name, role);
    match topics.find(name).await {
        Err(error) => (finding(&error), None),
        Ok(None) if config.create_topics => match topics.create(name, role, true).await {
            Ok(()) => (
                Finding::new(
                    Severity::Ok,
                    "topic_will_be_made",
                    format!("The topic {name} does not exist yet and will be made at the start."),
                    "",
                ),
                None,
            ),
            Err(error) => (finding(&error), Some(command)),
        },
        Ok(None) => (
            Finding::new(
                Severity::Error,
                "topic_missing",
                format!("The topic {name} does not exist, and topics are not to be made."),
                format!("Run: {command}"),
            ),
            Some(command),
        ),
        Ok(Some(topic)) if role == Role::Cursors => match topic.compacted {
            Some(true) => (
                Finding::new(
                    Severity::Ok,
                    "cursors_topic",
                    format!("The topic {name} is there and compacted."),
                    "",
                ),
                None,
            ),
            Some(false) => {
                let command = topics.compact_command(name);
                (
                    Finding::new(
                        Severity::Error,
                        "cursors_not_compacted",
                        format!(
                            "The topic {name} is not compacted: the position of a quiet sink \
                             would expire."
                        ),
                        format!("Run: {command}"),
                    ),
                    Some(command),
                )
            }
            None => (
                Finding::new(
                    Severity::Note,
                    "cursors_unknown",
                    format!("Whether the topic {name} is compacted may not be read."),
                    "Allow DescribeConfigs on it, or make sure of cleanup.policy=compact.",
                ),
                None,
            ),
        },
        Ok(Some(topic)) => (
            Finding::new(
                Severity::Ok,
                "topic",
                match topic.max_message_bytes {
                    Some(bytes) => format!(
                        "The topic {name} is there with {} partition(s) and takes records up to \
                         {bytes} bytes.",
                        topic.partitions
                    ),
                    None => format!(
                        "The topic {name} is there with {} partition(s).",
                        topic.partitions
                    ),
                },
                "",
            ),
            None,
        ),
    }
}

fn finding(error: &ConnectorError) -> Finding {
    match error {
        ConnectorError::Definite(error) | ConnectorError::Unfollowable(error) => {
            Finding::new(Severity::Error, error.code, &error.sentence, &error.fix)
        }
        ConnectorError::Transient(error) => Finding::new(
            Severity::Error,
            error.code,
            &error.sentence,
            "Check that the brokers run and can be reached from here.",
        ),
    }
}
