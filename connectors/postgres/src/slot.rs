//! The life of the replication slot, and what its state proves.
