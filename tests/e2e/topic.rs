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

/// All that a `read_committed` consumer can see of a topic.
pub(crate) fn read(broker: &Kafka, topic: &str) -> Events {
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
    let (mut events, mut open, began) = (Events::default(), assignment.count(), Instant::now());
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
                let mut event = Map::new();
                for header in message.headers().iter().flat_map(|h| h.iter()) {
                    let name = header.key.strip_prefix("ce_").unwrap_or(header.key);
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                    event.insert(name.to_owned(), Value::String(value.into_owned()));
                }
                let body = message.payload().unwrap_or(b"null");
                event.insert("data".to_owned(), serde_json::from_slice(body).unwrap());
                if let Some(user) = event.get("subject").and_then(Value::as_str) {
                    assert_eq!(message.key(), Some(user.as_bytes()), "the key is the user");
                }
                events.add(Value::Object(event));
            }
        }
    }
    events
}
