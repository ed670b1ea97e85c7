//! Pages of a scan, and the window that orders them against the log.
