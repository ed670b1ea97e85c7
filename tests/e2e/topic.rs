//! Kafka as a `read_committed` consumer sees it, and a broker that tests share.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall_testbed::Kafka;
use serde_json::{Map, Value};

use crate::fold::Events;

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

/// All that a `read_committed` consumer can see of a topic, partition by partition in order.
pub(crate) fn records(broker: &Kafka, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.plain_bootstrap())
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(20))
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut found, mut open, began) = (Vec::new(), assignment.count(), Instant::now());
    while open > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no end of {topic}"
        );
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
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
