//! Connections to the server: replication over our own client, queries over tokio-postgres.

mod queries;

pub use queries::connect_queries;
