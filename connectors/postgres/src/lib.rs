//! The PostgreSQL source: logical replication, pages, checks.
