//! What following a table needs, looked at without changing anything.
