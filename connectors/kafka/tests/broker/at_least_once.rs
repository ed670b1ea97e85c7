//! Without transactions.

use rollcall_contract::{Sink, SinkStart};
use rollcall_kafka::{Delivery, KafkaSink};

use crate::stand::{broker, config, read, records, sequences};

#[tokio::test]
async fn records_are_acknowledged_in_order_and_the_store_keeps_the_position() {
    let mut config = config(broker(), "alo");
    config.delivery = Delivery::AtLeastOnce;
    let mut sink = KafkaSink::new(config.clone());
    assert_eq!(sink.start().await.unwrap(), SinkStart::Unknown);
    sink.deliver(records(1..=1_000)).await.unwrap();
    sink.deliver(records(1_001..=1_500)).await.unwrap();
    assert_eq!(sink.start().await.unwrap(), SinkStart::Unknown);
    sink.deliver(records(1_501..=1_600)).await.unwrap();
    sink.stop().await;
    assert_eq!(
        sequences(broker(), &config.topic),
        (1..=1_600).collect::<Vec<_>>()
    );
    for partition in 0..3 {
        let order: Vec<u64> = read(broker(), &config.topic)
            .into_iter()
            .filter(|seen| seen.partition == partition)
            .map(|seen| seen.value.unwrap().parse().unwrap())
            .collect();
        assert!(order.is_sorted(), "partition {partition}");
    }
}
