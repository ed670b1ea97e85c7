//! TLS for every connector.
