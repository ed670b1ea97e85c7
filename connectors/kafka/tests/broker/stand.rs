//! What the tests stand on: a broker for all that leave it alone, records, and a consumer
//! of our own.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall_contract::Outgoing;
use rollcall_kafka::KafkaConfig;
use rollcall_testbed::{Kafka, wait_until};

static BROKER: LazyLock<Kafka> = LazyLock::new(|| Kafka::start().unwrap());
/// For everything that usually takes moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker that the tests share: each has its own topics.
pub(crate) fn broker() -> &'static Kafka {
    &BROKER
}

/// A sink with topics of its own.
pub(crate) fn config(broker: &Kafka, name: &str) -> KafkaConfig {
    let mut config = KafkaConfig::new(
        "acme",
        name,
        vec![broker.bootstrap()],
        format!("{name}.events"),
    );
    config.cursors_topic = format!("{name}.cursors");
    config.partitions = Some(3);
    config
}

/// A record whose key and body are made from its sequence.
pub(crate) fn record(sequence: u64) -> Outgoing {
    Outgoing {
        sequence,
        key: Some(Bytes::from(format!("user-{}", sequence % 7))),
        value: Some(Bytes::from(sequence.to_string())),
        headers: vec![
            ("id", Bytes::from(format!("event-{sequence}"))),
            ("specversion", Bytes::from_static(b"1.0")),
            ("content-type", Bytes::from_static(b"application/json")),
        ],
        destination: None,
    }
}

pub(crate) fn records(sequences: impl IntoIterator<Item = u64>) -> Vec<Outgoing> {
    sequences.into_iter().map(record).collect()
}

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

fn consumer(broker: &Kafka, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.plain_bootstrap())
        .set("group.id", "reader")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

/// All that a `read_committed` consumer can see of a topic. A commit is answered before its
/// markers are in every partition, so the reading begins when no transaction is open any
/// more.
pub(crate) fn read(broker: &Kafka, topic: &str) -> Vec<Seen> {
    const TURN: Duration = Duration::from_secs(20);
    let (committed, all) = (
        consumer(broker, "read_committed"),
        consumer(broker, "read_uncommitted"),
    );
    let metadata = committed.fetch_metadata(Some(topic), TURN).unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut open = HashSet::new();
    for partition in metadata.topics()[0].partitions() {
        let id = partition.id();
        wait_until(PATIENCE, "every transaction to be over", || {
            let (_, end) = all.fetch_watermarks(topic, id, TURN).unwrap();
            let (_, stable) = committed.fetch_watermarks(topic, id, TURN).unwrap();
            stable == end
        })
        .unwrap();
        assignment
            .add_partition_offset(topic, id, Offset::Beginning)
            .unwrap();
        open.insert(id);
    }
    committed.assign(&assignment).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut seen, began) = (Vec::new(), Instant::now());
    while !open.is_empty() {
        assert!(began.elapsed() < PATIENCE, "no end of {topic}");
        match committed.poll(Duration::from_millis(200)) {
            None => {}
            // It can come again when a partition grows.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => seen.push(Seen {
                partition: message.partition(),
                key: message.key().map(text),
                value: message.payload().map(text),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    headers
                        .iter()
                        .map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default())))
                        .collect()
                }),
            }),
        }
    }
    seen
}

/// The sequences in a topic, sorted; a double one stays double.
pub(crate) fn sequences(broker: &Kafka, topic: &str) -> Vec<u64> {
    let mut all: Vec<u64> = read(broker, topic)
        .into_iter()
        .filter_map(|seen| seen.value?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}
