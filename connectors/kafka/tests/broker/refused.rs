//! Records that a broker will never take, and their neighbours.

use bytes::Bytes;
use rollcall_contract::{Outgoing, Sink, SinkStart};
use rollcall_kafka::{Delivery, KafkaConfig, KafkaSink};

use crate::stand::{broker, config, read, record, records, sequences};

fn oversized(sequence: u64, bytes: usize) -> Outgoing {
    // Does not compress: the broker judges what arrives.
    let mut state = sequence;
    let noise = (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect::<Vec<u8>>();
    Outgoing {
        value: Some(Bytes::from(noise)),
        ..record(sequence)
    }
}

fn with_oversized(sequences: std::ops::RangeInclusive<u64>, large: &[u64]) -> Vec<Outgoing> {
    sequences
        .map(|sequence| {
            if large.contains(&sequence) {
                oversized(sequence, 60_000)
            } else {
                record(sequence)
            }
        })
        .collect()
}

fn small_topic(config: &KafkaConfig) {
    broker()
        .create_topic(&config.topic, 3, &[("max.message.bytes", "40000")])
        .unwrap();
}

#[tokio::test]
async fn a_record_too_large_for_its_topic_is_named_and_its_neighbours_are_delivered() {
    let config = config(broker(), "toolarge");
    small_topic(&config);
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let refused = sink
        .deliver(with_oversized(1..=50, &[7, 50]))
        .await
        .unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r.sequence, r.reason)).collect();
    assert_eq!(named, [(7, "too_large"), (50, "too_large")]);
    assert!(refused[0].detail.contains("40000"), "{}", refused[0].detail);
    // The caller may have died before it took note: the next start still knows.
    let mut next = KafkaSink::new(config.clone());
    assert_eq!(next.start().await.unwrap(), SinkStart::Known(50));
    let named: Vec<_> = next.recovered().iter().map(|r| r.sequence).collect();
    assert_eq!(named, [7, 50]);
    next.deliver(records(51..=60)).await.unwrap();
    next.start().await.unwrap();
    assert_eq!(next.recovered(), vec![]);
    next.stop().await;
    let expected: Vec<u64> = (1..=60).filter(|n| ![7, 50].contains(n)).collect();
    assert_eq!(sequences(broker(), &config.topic), expected);
}

/// The limit shrinks while the sink runs, so only the broker can know.
async fn refused_by_the_broker(name: &str, delivery: Delivery) {
    let mut config = config(broker(), name);
    config.delivery = delivery;
    broker().create_topic(&config.topic, 1, &[]).unwrap();
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=10)).await.unwrap();
    broker()
        .tool(
            "kafka.admin.ConfigCommand",
            &[
                "--bootstrap-server",
                &broker().bootstrap(),
                "--alter",
                "--entity-type",
                "topics",
                "--entity-name",
                &config.topic,
                "--add-config",
                "max.message.bytes=40000",
            ],
        )
        .unwrap();
    let refused = sink
        .deliver(with_oversized(11..=60, &[20, 21, 45]))
        .await
        .unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r.sequence, r.reason)).collect();
    assert_eq!(
        named,
        [(20, "too_large"), (21, "too_large"), (45, "too_large")]
    );
    sink.deliver(records(61..=70)).await.unwrap();
    sink.stop().await;
    let mut found = sequences(broker(), &config.topic);
    if delivery == Delivery::AtLeastOnce {
        found.dedup();
    }
    let expected: Vec<u64> = (1..=70).filter(|n| ![20, 21, 45].contains(n)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_guilty_one_of_a_refused_batch_is_found_in_transactions() {
    refused_by_the_broker("guilty", Delivery::ExactlyOnce).await;
}

#[tokio::test]
async fn the_guilty_one_of_a_refused_batch_is_found_without_transactions() {
    refused_by_the_broker("guilty-alo", Delivery::AtLeastOnce).await;
}

#[tokio::test]
async fn a_record_that_the_topic_calls_invalid_is_named() {
    let config = config(broker(), "invalid");
    // A compacted topic takes no record without a key.
    broker()
        .create_topic(&config.topic, 1, &[("cleanup.policy", "compact")])
        .unwrap();
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let mut block = records(1..=20);
    block[10].key = None;
    let refused = sink.deliver(block).await.unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r.sequence, r.reason)).collect();
    assert_eq!(named, [(11, "invalid_record")]);
    sink.stop().await;
    let expected: Vec<u64> = (1..=20).filter(|n| *n != 11).collect();
    assert_eq!(sequences(broker(), &config.topic), expected);
}

#[tokio::test]
async fn of_a_block_of_several_batches_nothing_is_seen_twice_when_the_last_is_refused() {
    let config = config(broker(), "several");
    broker()
        .create_topic(&config.topic, 1, &[("cleanup.policy", "compact")])
        .unwrap();
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    // About 4 MB that do not compress: five batches.
    let mut block: Vec<_> = (1..=70).map(|n| oversized(n, 60_000)).collect();
    block[69].key = None;
    let refused = sink.deliver(block).await.unwrap();
    let named: Vec<_> = refused.iter().map(|r| (r.sequence, r.reason)).collect();
    assert_eq!(named, [(70, "invalid_record")]);
    sink.deliver(records(71..=80)).await.unwrap();
    sink.stop().await;
    let mut found: Vec<u64> = read(broker(), &config.topic)
        .iter()
        .flat_map(|seen| &seen.headers)
        .filter_map(|(_, value)| value.strip_prefix("event-")?.parse().ok())
        .collect();
    found.sort_unstable();
    let expected: Vec<u64> = (1..=80).filter(|n| *n != 70).collect();
    assert_eq!(found, expected);
}
