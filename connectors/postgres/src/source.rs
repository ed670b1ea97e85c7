//! The source as the daemon sees it.
