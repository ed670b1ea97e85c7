//! A producer whose events are served by a thread of its own.
//!
//! rdkafka's threaded producer asks in turns of 100 ms, and counts what is left of a turn
//! in whole milliseconds, so it spins through the last one of each: one percent of a core
//! for nothing. Here a turn is long. The thread may therefore outlive its producer by a
//! turn; what the producer still had is purged before, so nothing is sent behind its back.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use crate::client::Context;

const TURN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct ServedProducer {
    producer: Arc<BaseProducer<Context>>,
    stop: Arc<AtomicBool>,
}

impl ServedProducer {
    /// A producer with these settings, and its thread.
    pub(crate) fn start(settings: &ClientConfig, context: Context) -> Result<Self, KafkaError> {
        let producer = BaseProducer::from_config_and_context(settings, context)?;
        let served = ServedProducer {
            producer: Arc::new(producer),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (producer, stop) = (Arc::clone(&served.producer), Arc::clone(&served.stop));
        std::thread::Builder::new()
            .name("kafka events".to_owned())
            .spawn(move || {
                while !stop.load(Relaxed) {
                    producer.poll(TURN);
                }
            })
            .map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
        Ok(served)
    }
}

impl Deref for ServedProducer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &BaseProducer<Context> {
        &self.producer
    }
}

impl Drop for ServedProducer {
    fn drop(&mut self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
        self.stop.store(true, Relaxed);
    }
}
