//! What can go wrong with a private server, each as a sentence a person can act on.
//!
//! A test that cannot start its server fails with this text, so it has to say
//! what was tried, what the server itself said (its log), and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a private server could not do what was asked.
///
/// `Debug` gives the same sentence as `Display`: it is what `unwrap` in a test
/// shows.
#[derive(thiserror::Error)]
pub enum TestbedError {
    /// A server, tool or account that the tests need is not installed.
    #[error("{what} is missing ({looked}); install it with `make testbed`")]
    Missing {
        /// What is missing, for example `PostgreSQL 18`.
        what: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A file or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A tool (`psql`, `initdb`, …) ended with an error.
    #[error("{tool} failed with {status}: {output}")]
    Tool {
        /// The program's name.
        tool: String,
        /// Its exit status, as the system words it.
        status: String,
        /// What it printed on stderr, else on stdout.
        output: String,
    },
    /// A server ended, or did not answer in time, when it was started.
    #[error("{server} did not start: {reason}\n--- its log ({}) ---\n{log}", log_path.display())]
    Start {
        /// The server, with its version and port.
        server: String,
        /// Ended early, or too slow.
        reason: String,
        /// The log file.
        log_path: PathBuf,
        /// The last part of the log.
        log: String,
    },
    /// Something was waited for and did not happen.
    #[error("waited {seconds:.1} s for {what}, and it did not happen{last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: f64,
        /// The last thing seen, worded as `: …`, or empty.
        last: String,
    },
    /// The call does not fit the server's state (stop a stopped one, and so on).
    #[error("{0}")]
    State(String),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl fmt::Debug for TestbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TestbedError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> TestbedError {
        let what = what.into();
        move |source| TestbedError::Io { what, source }
    }
}

/// What every fallible function of this crate gives.
pub type Result<T, E = TestbedError> = std::result::Result<T, E>;
