//! Connections to the server: replication over our own client, queries over tokio-postgres,
//! both with the same TLS and the same session settings.

mod client;
mod frames;
mod queries;
mod socket;
mod startup;

pub use client::{
    CreatedSlot, ReplicationClient, SlotOptions, SlotSnapshot, SystemIdentity, TimelineSwitch,
};
pub use queries::connect_queries;
pub use socket::ByteStream;
