//! Topics: made, or missed with the command that makes them.

use std::sync::Arc;

use rollcall_contract::{Severity, Sink, SinkStart};
use rollcall_kafka::{KafkaConfig, KafkaSink, check};

use crate::stand::{broker, config, record, sequences};

#[tokio::test]
async fn a_missing_topic_is_an_error_with_its_command_when_none_may_be_made() {
    let mut config = config(broker(), "nomake");
    config.create_topics = false;
    let error = KafkaSink::new(config.clone()).start().await.unwrap_err();
    assert_eq!(error.code(), "topic_missing", "{error}");
    assert!(!error.is_transient());
    assert!(
        error
            .to_string()
            .contains("--create --topic nomake.events --partitions 3"),
        "{error}"
    );
    let report = check(&config).await;
    assert!(!report.is_usable());
    assert!(
        report.script.contains("cleanup.policy=compact"),
        "{}",
        report.script
    );
}

#[tokio::test]
async fn a_check_makes_nothing_and_says_what_a_start_will() {
    let config = config(broker(), "checked");
    for _ in 0..2 {
        let report = check(&config).await;
        assert!(report.is_usable(), "{report:?}");
        assert!(
            report
                .findings
                .iter()
                .all(|f| f.code == "topic_will_be_made"),
            "{report:?}"
        );
    }
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.stop().await;
    let codes: Vec<String> = check(&config)
        .await
        .findings
        .into_iter()
        .map(|f| f.code)
        .collect();
    assert_eq!(codes, ["topic", "cursors_topic"]);
}

#[tokio::test]
async fn a_cursors_topic_that_expires_is_refused_with_its_command() {
    let config = config(broker(), "expires");
    broker()
        .create_topic(&config.cursors_topic, 1, &[("cleanup.policy", "delete")])
        .unwrap();
    let error = KafkaSink::new(config.clone()).start().await.unwrap_err();
    assert_eq!(error.code(), "cursors_not_compacted", "{error}");
    assert!(error.to_string().contains("kafka-configs.sh"), "{error}");
    let report = check(&config).await;
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.code == "cursors_not_compacted" && f.severity == Severity::Error)
    );
}

#[tokio::test]
async fn a_cursors_topic_with_several_partitions_is_read_whole() {
    let config = config(broker(), "wide");
    broker()
        .create_topic(&config.cursors_topic, 4, &[("cleanup.policy", "compact")])
        .unwrap();
    let mut sink = KafkaSink::new(config);
    assert_eq!(sink.start().await.unwrap(), SinkStart::Empty);
    sink.deliver(vec![record(1)]).await.unwrap();
    assert_eq!(sink.start().await.unwrap(), SinkStart::Known(1));
    sink.stop().await;
}

#[tokio::test]
async fn a_record_with_a_destination_of_its_own_goes_there() {
    let config = config(broker(), "raw");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    let raw: Arc<str> = Arc::from("raw.changes");
    let block = (1..=10)
        .map(|sequence| {
            let mut one = record(sequence);
            if sequence % 2 == 0 {
                one.destination = Some(Arc::clone(&raw));
            }
            one
        })
        .collect();
    sink.deliver(block).await.unwrap();
    sink.stop().await;
    assert_eq!(sequences(broker(), &config.topic), [1, 3, 5, 7, 9]);
    assert_eq!(sequences(broker(), "raw.changes"), [2, 4, 6, 8, 10]);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_a_transient_error_with_its_address() {
    let port = rollcall_testbed::free_port().unwrap();
    let address = format!("127.0.0.1:{port}");
    let config = KafkaConfig::new("acme", "nobody", vec![address.clone()], "events");
    let error = KafkaSink::new(config.clone()).start().await.unwrap_err();
    assert_eq!(error.code(), "broker_unreachable", "{error}");
    assert!(error.is_transient());
    assert!(error.to_string().contains(&address), "{error}");
    assert!(!check(&config).await.is_usable());
}

#[tokio::test]
async fn a_property_that_would_break_a_promise_is_refused_with_the_reason() {
    let mut config = config(broker(), "props");
    config.properties.insert("acks".into(), "1".into());
    let error = KafkaSink::new(config.clone()).start().await.unwrap_err();
    assert_eq!(error.code(), "refused_property");
    assert!(error.to_string().contains("in-sync"), "{error}");
    config.properties.clear();
    config.properties.insert("no.such.thing".into(), "1".into());
    let error = KafkaSink::new(config.clone()).start().await.unwrap_err();
    assert_eq!(error.code(), "property_rejected", "{error}");
    config.properties.clear();
    config.properties.insert("linger.ms".into(), "2".into());
    let mut sink = KafkaSink::new(config);
    sink.start().await.unwrap();
    sink.deliver(vec![record(1)]).await.unwrap();
    sink.stop().await;
}
