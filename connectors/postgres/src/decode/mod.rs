//! From bytes of the log to batches.
