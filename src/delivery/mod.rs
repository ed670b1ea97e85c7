//! Outbox to sinks: each sink has a lane of its own with its own cursor, so a sink that is
//! slow or gone holds back neither a source nor another sink.
//!
//! A lane reads the outbox in order from the position behind the last one that is certain:
//! the destination's own word where it can give it (Kafka transactions), the store's
//! otherwise. It moves on only when the destination has taken a block, and what the
//! destination will never take is parked with its reason before the lane goes past it.
//! The newest blocks are shared in memory ([`hub`]); older ones are read from the store.

pub mod hub;
pub mod lane;
pub mod ndjson;
pub mod render;
