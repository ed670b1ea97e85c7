//! Reading the position back from the cursors topic.
//!
//! Called after `init_transactions`, so none of our own transactions is open any more, and
//! every committed position lies below the high watermark taken then. Other sinks write to
//! the same partition, and an open transaction of theirs hides everything behind it from a
//! `read_committed` reader: stopping at the last *stable* offset could miss our newest
//! position and double records. So the reader begins only when the last stable offset has
//! passed that high watermark; a transaction that stays open for too long is a transient
//! error, never a position that is too old.
//!
//! The topic is compacted lazily, so it may hold millions of records; ours is near its end.
//! The reader looks at a window at the end first and widens it until it has found one: the
//! newest in a window that reaches to the end is the newest of all.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use rollcall_contract::ConnectorError;

use crate::client::Context;
use crate::config::KafkaConfig;
use crate::failure::Doing;
use crate::position::Position;

/// Offsets looked at first.
const FIRST_WINDOW: i64 = 1_000;
/// How much wider each next window is.
const WIDEN: i64 = 32;
/// For the whole read.
const PATIENCE: Duration = Duration::from_secs(10);
/// For one question.
const TURN: Duration = Duration::from_secs(1);
/// For what a client has to be polled for.
const SERVE: Duration = Duration::from_millis(50);

/// The newest committed position of this sink, if there is one. Blocks for at most about
/// ten seconds without progress.
pub(crate) fn newest_position(
    config: &KafkaConfig,
    partitions: usize,
) -> Result<Option<Position>, ConnectorError> {
    let context = || Context::new(config);
    let doing = Doing {
        config,
        what: "reading the position",
        topic: &config.cursors_topic,
        trouble: None,
    };
    let watermarks = BaseConsumer::from_config_and_context(&config.reader(false)?, context())
        .map_err(|e| doing.failed(&e))?;
    let reader = BaseConsumer::from_config_and_context(&config.reader(true)?, context())
        .map_err(|e| doing.failed(&e))?;
    let key = config.position_key();
    let mut newest: Option<Position> = None;
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        let found = newest_in(&watermarks, &reader, config, &key, partition).map_err(
            |failure| match failure {
                Failure::Kafka(error) => Doing {
                    trouble: reader.context().trouble().as_ref(),
                    ..doing
                }
                .failed(&error),
                Failure::Stuck { at, end } => ConnectorError::transient(
                    "transaction_open",
                    format!(
                        "Kafka sink {}: reading the position waits at offset {at} of {end} in {} \
                         partition {partition}: the broker is slow, or another producer's \
                         transaction is open there.",
                        config.sink, config.cursors_topic
                    ),
                ),
                Failure::Unreadable { offset, why } => ConnectorError::definite(
                    "position_unreadable",
                    format!(
                        "Kafka sink {}: {why} (topic {}, partition {partition}, offset {offset}).",
                        config.sink, config.cursors_topic
                    ),
                    "Run the newer daemon again, or give the sink a cursors_topic of its own.",
                ),
            },
        )?;
        if found.as_ref().map(|p| p.sequence) > newest.as_ref().map(|p| p.sequence) {
            newest = found;
        }
    }
    Ok(newest)
}

enum Failure {
    Kafka(KafkaError),
    Stuck { at: i64, end: i64 },
    Unreadable { offset: i64, why: String },
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        Failure::Kafka(error)
    }
}

fn newest_in(
    watermarks: &BaseConsumer<Context>,
    reader: &BaseConsumer<Context>,
    config: &KafkaConfig,
    key: &str,
    partition: i32,
) -> Result<Option<Position>, Failure> {
    let topic = &config.cursors_topic;
    let (low, end) = fetch_watermarks(watermarks, topic, partition)?;
    wait_until_stable(reader, topic, partition, end)?;
    let mut window = FIRST_WINDOW;
    loop {
        let from = end.saturating_sub(window).max(low);
        let found = newest_between(reader, topic, partition, from, end, key)?;
        if found.is_some() || from <= low {
            return Ok(found);
        }
        window = window.saturating_mul(WIDEN);
    }
}

/// Waits until nothing below `end` belongs to an open transaction. For a `read_committed`
/// client the upper watermark is the last stable offset.
fn wait_until_stable(
    reader: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    end: i64,
) -> Result<(), Failure> {
    let (mut at, mut since) = (-1, Instant::now());
    loop {
        let (_, stable) = fetch_watermarks(reader, topic, partition)?;
        if stable >= end {
            return Ok(());
        }
        if stable > at {
            (at, since) = (stable, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(Failure::Stuck { at, end });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A topic that was only just made has no leader for a moment. Asks in short turns, between
/// which the client's own affairs are served: nobody else polls it, and a bearer token is
/// asked for in a poll only, so that without one it would never log in.
fn fetch_watermarks(
    client: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), KafkaError> {
    let began = Instant::now();
    loop {
        while client.poll(SERVE).is_some() {}
        let error = match client.fetch_watermarks(topic, partition, TURN) {
            Ok(watermarks) => return Ok(watermarks),
            Err(error) => error,
        };
        let hopeless = client.context().trouble().is_some_and(|t| t.is_hopeless());
        let passes = matches!(
            error.rdkafka_error_code(),
            Some(
                Code::LeaderNotAvailable
                    | Code::NotLeaderForPartition
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::OperationTimedOut
                    | Code::RequestTimedOut
                    | Code::BrokerTransportFailure
                    | Code::AllBrokersDown
            )
        );
        if hopeless || !passes || began.elapsed() >= PATIENCE {
            return Err(error);
        }
        std::thread::sleep(SERVE);
    }
}

fn newest_between(
    reader: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
    key: &str,
) -> Result<Option<Position>, Failure> {
    let mut newest = None;
    if from >= end {
        return Ok(newest);
    }
    let mut assignment = TopicPartitionList::with_capacity(1);
    assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
    reader.assign(&assignment)?;
    let (mut at, mut since) = (from, Instant::now());
    while at < end {
        if since.elapsed() > PATIENCE {
            return Err(Failure::Stuck { at, end });
        }
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                if message.key() == Some(key.as_bytes()) {
                    newest = match message.payload() {
                        // A tombstone by an operator: begin anew.
                        None => None,
                        Some(bytes) => {
                            Some(Position::decode(bytes).map_err(|why| Failure::Unreadable {
                                offset: message.offset(),
                                why,
                            })?)
                        }
                    };
                }
                (at, since) = (message.offset() + 1, Instant::now());
            }
            // Everything below the last stable offset was read, and that is not below `end`.
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => match error.rdkafka_error_code() {
                // The group is only a name, so no right on it is needed; a connection comes
                // back or the patience ends.
                Some(
                    Code::GroupAuthorizationFailed
                    | Code::BrokerTransportFailure
                    | Code::AllBrokersDown,
                ) => {}
                _ => return Err(error.into()),
            },
        }
    }
    Ok(newest)
}
