//! Each record once, whoever dies when.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rollcall_contract::{Outgoing, Sink, SinkStart};
use rollcall_kafka::KafkaSink;

use crate::stand::{broker, config, read, record, records, sequences};

#[tokio::test]
async fn a_new_sink_is_empty_and_a_restarted_one_knows_its_position() {
    let config = config(broker(), "restart");
    let mut sink = KafkaSink::new(config.clone());
    assert_eq!(sink.start().await.unwrap(), SinkStart::Empty);
    assert_eq!(sink.deliver(records(1..=100)).await.unwrap(), vec![]);
    assert_eq!(sink.deliver(records(101..=250)).await.unwrap(), vec![]);
    assert_eq!(sink.deliver(vec![]).await.unwrap(), vec![]);
    sink.stop().await;
    let mut next = KafkaSink::new(config.clone());
    assert_eq!(next.start().await.unwrap(), SinkStart::Known(250));
    next.stop().await;
    assert_eq!(
        sequences(broker(), &config.topic),
        (1..=250).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_a_dead_instance_had_not_committed_is_never_seen() {
    let config = config(broker(), "dead");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=10)).await.unwrap();
    sink.stop().await;

    // An instance that wrote its block and its position, and died before the commit.
    let dead: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .set("transactional.id", &config.transactional_id)
        .create()
        .unwrap();
    dead.init_transactions(Duration::from_secs(10)).unwrap();
    dead.begin_transaction().unwrap();
    for sequence in 11..=20_u64 {
        let value = sequence.to_string();
        dead.send(BaseRecord::to(&config.topic).key("k").payload(&value))
            .map_err(|(e, _)| e)
            .unwrap();
    }
    dead.send(
        BaseRecord::to(&config.cursors_topic)
            .key(&config.position_key())
            .payload(r#"{"version":1,"sequence":20}"#),
    )
    .map_err(|(e, _)| e)
    .unwrap();
    dead.flush(Duration::from_secs(10)).unwrap();
    drop(dead);

    let mut next = KafkaSink::new(config.clone());
    assert_eq!(next.start().await.unwrap(), SinkStart::Known(10));
    next.deliver(records(11..=30)).await.unwrap();
    next.stop().await;
    assert_eq!(
        sequences(broker(), &config.topic),
        (1..=30).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_open_transaction_of_another_sink_never_hides_our_position() {
    let config = config(broker(), "shared");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=5)).await.unwrap();
    // Another sink's transaction is open in the same partition of the cursors topic …
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .set("transactional.id", "another.sink")
        .create()
        .unwrap();
    other.init_transactions(Duration::from_secs(10)).unwrap();
    other.begin_transaction().unwrap();
    other
        .send(
            BaseRecord::to(&config.cursors_topic)
                .key("acme/other")
                .payload(r#"{"version":1,"sequence":9}"#),
        )
        .map_err(|(e, _)| e)
        .unwrap();
    other.flush(Duration::from_secs(10)).unwrap();
    // … while ours moves on, behind it.
    sink.deliver(records(6..=9)).await.unwrap();
    sink.stop().await;
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        other.commit_transaction(Duration::from_secs(10)).unwrap();
    });
    let mut next = KafkaSink::new(config.clone());
    assert_eq!(next.start().await.unwrap(), SinkStart::Known(9));
    ends.join().unwrap();
    next.stop().await;
}

#[tokio::test]
async fn a_position_is_found_far_behind_those_of_busier_sinks() {
    let config = config(broker(), "quiet");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=3)).await.unwrap();
    sink.stop().await;
    let busy: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .create()
        .unwrap();
    for sequence in 0..40_000_u64 {
        let value = format!(r#"{{"version":1,"sequence":{sequence}}}"#);
        busy.send(
            BaseRecord::to(&config.cursors_topic)
                .key("acme/busy")
                .payload(&value),
        )
        .map_err(|(e, _)| e)
        .unwrap();
        if sequence % 10_000 == 0 {
            busy.poll(Duration::ZERO);
        }
    }
    busy.flush(Duration::from_secs(30)).unwrap();
    let mut next = KafkaSink::new(config);
    assert_eq!(next.start().await.unwrap(), SinkStart::Known(3));
    next.stop().await;
}

#[tokio::test]
async fn a_second_instance_shuts_out_the_first() {
    let config = config(broker(), "fenced");
    let mut first = KafkaSink::new(config.clone());
    first.start().await.unwrap();
    first.deliver(records(1..=5)).await.unwrap();
    let mut second = KafkaSink::new(config.clone());
    assert_eq!(second.start().await.unwrap(), SinkStart::Known(5));
    let error = first.deliver(records(6..=8)).await.unwrap_err();
    assert_eq!(error.code(), "fenced", "{error}");
    assert!(!error.is_transient());
    assert!(error.to_string().contains("second instance"), "{error}");
    second.deliver(records(6..=9)).await.unwrap();
    first.stop().await;
    second.stop().await;
    assert_eq!(
        sequences(broker(), &config.topic),
        (1..=9).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_record_arrives_in_the_binary_mode_of_cloudevents() {
    let config = config(broker(), "envelope");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let mut tombstone = record(2);
    tombstone.value = None;
    let operational = Outgoing {
        sequence: 3,
        key: None,
        value: Some(Bytes::from_static(b"{}")),
        headers: vec![("datacontenttype", Bytes::from_static(b"application/json"))],
        destination: None,
    };
    sink.deliver(vec![record(1), tombstone, operational])
        .await
        .unwrap();
    sink.stop().await;
    let mut seen = read(broker(), &config.topic);
    seen.sort_by_key(|s| s.key.clone());
    let headers: Vec<(&str, &str)> = seen[1]
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        headers,
        [
            ("ce_id", "event-1"),
            ("ce_specversion", "1.0"),
            ("content-type", "application/json")
        ]
    );
    assert_eq!(seen[1].key.as_deref(), Some("user-1"));
    assert_eq!(seen[1].value.as_deref(), Some("1"));
    assert_eq!(seen[2].key.as_deref(), Some("user-2"));
    assert_eq!(seen[2].value, None, "a deletion is a tombstone");
    assert_eq!(seen[0].key, None);
    assert_eq!(seen[0].headers[0].0, "content-type");
}

/// From `org.apache.kafka.common.utils.Utils`, version 4.1.1:
/// `toPositive(murmur2(key)) % 12`.
const JAVA_PARTITIONS: &[(&str, i32)] = &[
    ("", 9),
    ("21", 0),
    ("foobar", 6),
    ("a-little-bit-long-string", 8),
    ("a-little-bit-longer-string", 11),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 5),
    ("abc", 3),
    ("0190b2a4-7c31-7d2e-9f00-000000000001", 0),
    ("0190b2a4-7c31-7d2e-9f00-000000000002", 4),
    ("0190b2a4-7c31-7d2e-9f00-0000000000a3", 10),
    ("user-\u{e9}\u{fc}", 2),
];

#[tokio::test]
async fn a_key_lies_in_the_partition_where_a_java_client_would_put_it() {
    let mut config = config(broker(), "murmur");
    config.partitions = Some(12);
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let block = JAVA_PARTITIONS
        .iter()
        .zip(1..)
        .map(|((key, _), sequence)| Outgoing {
            key: Some(Bytes::from_static(key.as_bytes())),
            ..record(sequence)
        })
        .collect();
    sink.deliver(block).await.unwrap();
    sink.stop().await;
    let found: BTreeMap<String, i32> = read(broker(), &config.topic)
        .into_iter()
        .map(|seen| (seen.key.unwrap(), seen.partition))
        .collect();
    for (key, partition) in JAVA_PARTITIONS {
        assert_eq!(found[*key], *partition, "{key:?}");
    }
}

#[tokio::test]
async fn a_block_larger_than_the_queue_is_one_transaction() {
    let config = config(broker(), "large");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let body = Bytes::from(vec![b'x'; 10_000]);
    let block: Vec<Outgoing> = (1..=5_000)
        .map(|sequence| Outgoing {
            value: Some(body.clone()),
            ..record(sequence)
        })
        .collect();
    assert_eq!(sink.deliver(block).await.unwrap(), vec![]);
    assert_eq!(sink.start().await.unwrap(), SinkStart::Known(5_000));
    sink.stop().await;
    assert_eq!(read(broker(), &config.topic).len(), 5_000);
}
