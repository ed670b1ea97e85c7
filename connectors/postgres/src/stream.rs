//! The open log: one task reads and decodes, another one answers the server.
