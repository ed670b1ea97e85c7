//! All that the daemon knows of a connector, and a connector of the daemon.
