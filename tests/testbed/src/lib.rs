//! Private servers on free ports for the tests, the demo and the benches.
//!
//! A promise about a real server is tested against a real server. Each value of
//! this crate that stands for one owns it whole: its process, its data and its
//! port; when the value goes, by return, by panic or by `kill -9` of the test
//! process, so does the server. Tests can therefore run side by side, in any
//! order, and leave nothing behind. All calls block; under an async runtime call
//! them from `spawn_blocking` or before the runtime's work begins.
//!
//! ```no_run
//! use rollcall_testbed::{PgVersion, Postgres, Proxy, StopMode};
//!
//! # fn main() -> rollcall_testbed::Result<()> {
//! let db = Postgres::builder()
//!     .version(PgVersion::V18)
//!     .setting("wal_sender_timeout", "5s")
//!     .start()?;
//! db.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY)")?;
//! let proxy = Proxy::start(&format!("127.0.0.1:{}", db.port()))?;
//! // … a client follows the database at proxy.port() …
//! proxy.cut();
//! db.stop(StopMode::Immediate)?;
//! db.start_again()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`MySql`] is the same for MySQL and MariaDB, [`Kafka`] for a broker.
//!
//! What is not installed is an error that says so and names the command
//! (`make testbed`); no test is skipped for it.

mod account;
mod error;
mod files;
mod kafka;
mod locate;
mod mysql;
mod ports;
mod postgres;
mod process;
mod procstat;
mod proxy;
mod scratch;
mod tls;
mod wait;

pub use error::{Result, TestbedError};
pub use kafka::{Kafka, KafkaBuilder, SaslMechanism};
pub use locate::{MySqlVersion, PgVersion};
pub use mysql::{BinlogFile, MySql, MySqlBuilder, MySqlCopy};
pub use ports::free_port;
pub use postgres::{DataCopy, Postgres, PostgresBuilder, StandbyOptions, StopMode};
pub use process::{Process, Signal};
pub use procstat::ProcStat;
pub use proxy::Proxy;
pub use tls::Tls;
pub use wait::{wait_for, wait_until};
