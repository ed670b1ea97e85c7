//! Kafka as a `read_committed` consumer sees it, and a broker that tests share.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall_testbed::{Kafka, wait_for};
use serde_json::{Map, Value};

use crate::fold::Events;
use crate::world::PATIENCE;

static BROKER: LazyLock<Kafka> = LazyLock::new(|| Kafka::start().unwrap());

/// The broker of all tests that leave it alone; each has its own topics.
pub(crate) fn broker() -> &'static Kafka {
    &BROKER
}

/// The sink of a configuration: topic `<name>`, cursors in `<name>.cursors`.
pub(crate) fn sink(broker: &Kafka, name: &str) -> String {
    format!(
        "[sink.kafka]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{name}\"\n\
         cursors_topic = \"{name}.cursors\"\ntransactional_id = \"{name}\"\npartitions = 3\n",
        broker.bootstrap()
    )
}

/// One record as it lies in a topic.
pub(crate) struct Record {
    /// The key.
    pub(crate) key: Option<Vec<u8>>,
    /// Headers in their order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body; none is a tombstone.
    pub(crate) body: Option<Vec<u8>>,
}

/// All that a `read_committed` consumer can see of a topic, as events.
pub(crate) fn read(broker: &Kafka, topic: &str) -> Events {
    let mut events = Events::default();
    for record in records(broker, topic) {
        let mut event = Map::new();
        for (name, value) in record.headers {
            let name = name.strip_prefix("ce_").map_or(name.clone(), str::to_owned);
            event.insert(name, Value::String(value));
        }
        let body = record.body.as_deref().unwrap_or(b"null");
        event.insert("data".to_owned(), serde_json::from_slice(body).unwrap());
        if let Some(user) = event.get("subject").and_then(Value::as_str) {
            let key = record.key.as_deref();
            assert_eq!(key, Some(user.as_bytes()), "the key is the user");
        }
        events.add(Value::Object(event));
    }
    events
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

/// All that a `read_committed` consumer can see of a topic, partition by partition in order.
/// A commit is answered before its markers are in every partition, so the reading begins
/// when no transaction is open any more.
pub(crate) fn records(broker: &Kafka, topic: &str) -> Vec<Record> {
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
        wait_for(PATIENCE, "every transaction to be over", || {
            let (_, end) = all.fetch_watermarks(topic, id, TURN).unwrap();
            let (_, stable) = committed.fetch_watermarks(topic, id, TURN).unwrap();
            match stable == end {
                true => Ok(()),
                false => Err(format!("{stable} of {end} in partition {id} of {topic}")),
            }
        })
        .unwrap();
        assignment
            .add_partition_offset(topic, id, Offset::Beginning)
            .unwrap();
        open.insert(id);
    }
    committed.assign(&assignment).unwrap();
    let (mut found, began) = (Vec::new(), Instant::now());
    while !open.is_empty() {
        assert!(began.elapsed() < PATIENCE, "no end of {topic}");
        match committed.poll(Duration::from_millis(200)) {
            None => {}
            // It can come again when a partition grows.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => {
                let mut headers = Vec::new();
                for header in message.headers().iter().flat_map(|h| h.iter()) {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                    headers.push((header.key.to_owned(), value.into_owned()));
                }
                found.push(Record {
                    key: message.key().map(<[u8]>::to_vec),
                    headers,
                    body: message.payload().map(<[u8]>::to_vec),
                });
            }
        }
    }
    found
}
