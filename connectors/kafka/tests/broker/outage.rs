//! Brokers that go away, and come back.

use std::time::{Duration, Instant};

use rollcall_contract::{Sink, SinkStart};
use rollcall_kafka::KafkaSink;
use rollcall_testbed::Kafka;

use crate::stand::{config, records, sequences};

async fn start(sink: &mut KafkaSink) -> SinkStart {
    let began = Instant::now();
    loop {
        match sink.start().await {
            Ok(start) => return start,
            Err(error) if error.is_transient() && began.elapsed() < Duration::from_secs(60) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_broker_that_was_down_loses_nothing_and_doubles_nothing() {
    let broker = Kafka::start().unwrap();
    let config = config(&broker, "outage");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=100)).await.unwrap();
    broker.kill9();
    let began = Instant::now();
    let error = sink.deliver(records(101..=200)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let error = sink.start().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.code(), "broker_unreachable", "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(45),
        "{:?}",
        began.elapsed()
    );
    let error = sink.deliver(records(101..=200)).await.unwrap_err();
    assert_eq!(error.code(), "not_started");
    broker.start_again().unwrap();
    let SinkStart::Known(position) = start(&mut sink).await else {
        panic!("the position is lost");
    };
    assert_eq!(position, 100);
    sink.deliver(records(101..=300)).await.unwrap();
    sink.stop().await;
    assert_eq!(
        sequences(&broker, &config.topic),
        (1..=300).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_read_back_and_not_guessed() {
    let broker = Kafka::start().unwrap();
    let config = config(&broker, "indoubt");
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await.unwrap();
    sink.deliver(records(1..=50)).await.unwrap();
    let mut position = 50_u64;
    for round in 0..3_u64 {
        // The broker stands still at some moment of some transaction and goes on later.
        let broker = &broker;
        let frozen = async {
            tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
            broker.freeze();
            tokio::time::sleep(Duration::from_secs(12)).await;
            broker.thaw();
        };
        let deliveries = async {
            loop {
                let block = records(position + 1..=position + 50);
                match sink.deliver(block).await {
                    Ok(_) => position += 50,
                    Err(error) => {
                        assert!(error.is_transient(), "{error}");
                        break;
                    }
                }
            }
            match start(&mut sink).await {
                SinkStart::Known(known) => {
                    assert!(
                        known == position || known == position + 50,
                        "{known} {position}"
                    );
                    position = known;
                }
                other => panic!("{other:?} at {position}"),
            }
        };
        tokio::join!(frozen, deliveries);
    }
    sink.stop().await;
    assert_eq!(
        sequences(&broker, &config.topic),
        (1..=position).collect::<Vec<_>>()
    );
}
