//! The user document (written by the directory, read by everybody).
