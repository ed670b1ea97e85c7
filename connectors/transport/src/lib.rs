//! TLS for every connector.
//!
//! One place decides what is verified, so that no connector can be weaker than another:
//! the mode that a configuration names is the mode that is in force, and a file that is
//! missing or damaged is an error that names it, never a weaker connection. Without a mode
//! the strictest one holds, except where no network is in between.

mod binding;
mod tls;

pub use binding::server_end_point;
pub use tls::{TlsError, TlsMode, TlsSettings, explain};
