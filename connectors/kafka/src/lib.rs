//! The Kafka sink: exactly once, or at least once.
//!
//! **Exactly once.** Every block is one Kafka transaction that holds the block's records
//! and one record of the position in the compacted topic `rollcall.cursors`. Both become
//! visible together or not at all, so the newest committed position *is* what the topic
//! holds, whatever happened to this process or to its store. [`KafkaSink::start`] fences
//! older instances first (`init_transactions` with a stable `transactional.id`) and reads
//! the position after that: nothing that an older instance still had under way can become
//! visible any more. A commit whose answer was lost needs no guess either: the producer is
//! thrown away, and the next start reads what really happened.
//!
//! **At least once.** An idempotent producer without transactions; a block is delivered
//! when every record of it was acknowledged by all in-sync replicas. A block that failed is
//! sent again whole and in order, so the last record of each key is always the newest.
//!
//! **Refused records.** A record that the broker will never take (too large, invalid) is
//! found, left out, and named to the caller; the others of its block are delivered.

mod attempt;
mod check;
mod client;
mod config;
mod failure;
mod headers;
mod oauth;
mod position;
mod properties;
mod readback;
mod reports;
mod served;
mod sink;
mod topics;

pub use check::check;
pub use config::{Compression, Delivery, KafkaConfig, Material, Sasl, ScramHash, Tls, TlsMode};
pub use oauth::OauthToken;
pub use sink::KafkaSink;
