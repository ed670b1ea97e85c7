//! Rows to attributes.
