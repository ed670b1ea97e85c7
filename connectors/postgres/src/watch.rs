//! What can change silently while the log flows.
