//! Types of the server and the canonical text of their values.
