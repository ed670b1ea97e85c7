//! `rollcall events`: the outbox as lines of JSON, from a sequence on. With `--json` it is the
//! same: what is followed has no end, so it cannot be one document.

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::api::events::{self, EventQuery};

/// Which events.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Begin behind this sequence.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Stop after so many.
    #[arg(long)]
    limit: Option<usize>,
    /// Wait for more.
    #[arg(long)]
    follow: bool,
}

/// How often the store is looked at while following.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let readers = cli.readers()?;
    let mut after = args.after;
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        let events = events::events(
            &readers,
            &EventQuery {
                after,
                limit: Some(left.min(1000)),
            },
        )?;
        for event in &events {
            output::bytes(&event.line)?;
            after = event.sequence;
        }
        left -= events.len();
        if left == 0 || (events.is_empty() && !args.follow) {
            return Ok(Exit::Ok);
        }
        if events.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
