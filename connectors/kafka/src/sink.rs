//! The sink of the contract.
//!
//! librdkafka's calls block, so each runs on a thread that may: the engine moves there with
//! its block and comes back with the answer. A call that is dropped half way takes the
//! engine with it, and so does an error; then there is none, and only `start` makes one.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use rollcall_contract::{ConnectorError, Outgoing, Refused, Sink, SinkStart};

use crate::attempt::Engine;
use crate::config::{Delivery, KafkaConfig};
use crate::readback::newest_position;
use crate::topics::{Role, Topics};

/// Delivers events to Kafka.
pub struct KafkaSink {
    config: Arc<KafkaConfig>,
    engine: Option<Engine>,
    /// Topics other than the sink's own that were found or made.
    known: HashSet<Arc<str>>,
    /// Refused records of the last block before the start.
    recovered: Vec<Refused>,
}

impl KafkaSink {
    /// A sink that is not connected yet.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        KafkaSink {
            config: Arc::new(config),
            engine: None,
            known: HashSet::new(),
            recovered: Vec::new(),
        }
    }

    /// Finds or makes the topics that records of this block name themselves.
    async fn meet_destinations(&mut self, block: &[Outgoing]) -> Result<(), ConnectorError> {
        let mut new: Vec<Arc<str>> = Vec::new();
        for topic in block
            .iter()
            .filter_map(|record| record.destination.as_ref())
        {
            if !self.known.contains(topic) && !new.contains(topic) {
                new.push(Arc::clone(topic));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let config = Arc::clone(&self.config);
        let topics = Topics::new(&config)?;
        for name in new {
            let topic = topics.ensure(&name, Role::Events).await?;
            if let (Some(engine), Some(bytes)) = (&mut self.engine, topic.max_message_bytes) {
                engine.learn_limit(Arc::clone(&name), bytes);
            }
            self.known.insert(name);
        }
        Ok(())
    }

    /// Drops the engine where blocking is allowed.
    async fn disconnect(&mut self) {
        self.known.clear();
        if let Some(engine) = self.engine.take() {
            let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
        }
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn start(&mut self) -> Result<SinkStart, ConnectorError> {
        self.disconnect().await;
        let config = Arc::clone(&self.config);
        let exactly_once = config.delivery == Delivery::ExactlyOnce;
        let (limit, cursor_partitions) = {
            let topics = Topics::new(&config)?;
            let events = topics.ensure(&config.topic, Role::Events).await?;
            let cursors = if exactly_once {
                topics
                    .ensure(&config.cursors_topic, Role::Cursors)
                    .await?
                    .partitions
            } else {
                0
            };
            (events.max_message_bytes, cursors)
        };
        let (engine, position) = blocking(move || {
            let engine = Engine::connect(Arc::clone(&config), limit)?;
            let position = if exactly_once {
                newest_position(&config, cursor_partitions)?
            } else {
                None
            };
            Ok((engine, position))
        })
        .await?;
        self.engine = Some(engine);
        let start = match &position {
            _ if !exactly_once => SinkStart::Unknown,
            None => SinkStart::Empty,
            Some(position) => SinkStart::Known(position.sequence),
        };
        self.recovered = position.map(|p| p.refused()).unwrap_or_default();
        tracing::info!(
            target: "rollcall_kafka",
            sink = self.config.sink,
            topic = self.config.topic,
            ?start,
            "connected"
        );
        Ok(start)
    }

    fn recovered(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.recovered)
    }

    async fn deliver(&mut self, block: Vec<Outgoing>) -> Result<Vec<Refused>, ConnectorError> {
        if self.engine.is_none() {
            return Err(ConnectorError::transient(
                "not_started",
                format!("The Kafka sink {} is not connected.", self.config.sink),
            ));
        }
        self.meet_destinations(&block).await?;
        let Some(mut engine) = self.engine.take() else {
            return Ok(Vec::new());
        };
        let (engine, refused) = blocking(move || {
            let refused = engine.deliver(&block)?;
            Ok((engine, refused))
        })
        .await?;
        self.engine = Some(engine);
        Ok(refused)
    }

    async fn stop(&mut self) {
        self.disconnect().await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(_) => Err(ConnectorError::transient(
            "stopped",
            "The Kafka sink was interrupted.",
        )),
    }
}
