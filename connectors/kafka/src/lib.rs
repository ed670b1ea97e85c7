//! The Kafka sink: exactly once, or at least once.
