//! The one durable place: SQLite, one writer, pooled readers.
