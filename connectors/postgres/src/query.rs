//! Queries over ordinary connections.
