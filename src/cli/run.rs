//! `rollcall run`: the daemon.

use super::Cli;
use super::exit::{Exit, Failure};
use crate::config::LogFormat;
use crate::observe::{logs, metrics};

pub(super) fn run(cli: &Cli) -> Result<Exit, Failure> {
    // A daemon that is idle most of the time must not hold 2 MiB for each part of memory
    // that it once touched. Where the kernel cannot do it, it is only larger.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let config = cli.load()?;
    let format = match config.log.format {
        LogFormat::Text => logs::LogFormat::Text,
        LogFormat::Json => logs::LogFormat::Json,
    };
    let failed = |e: String| Failure::new(Exit::Failed, e);
    logs::start(format, &config.log.level).map_err(failed)?;
    let metrics = metrics::install().map_err(failed)?;
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(crate::daemon::run(config, metrics));
    // Reads from servers that do not answer must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome.map(|()| Exit::Ok)
}
