//! `rollcall reconcile` and `rollcall sync`: have the daemon read a source from its first row
//! to its last and make the directory equal to it, and follow that to its end. The first says
//! what is done, the second what is wanted: that the source is in step now.

use super::exit::{Exit, Failure};
use super::follow::{self, Follower};
use super::{Cli, output, socket};
use crate::api::orders::Accepted;
use crate::config::Outline;

/// What to reconcile.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source.
    pub(super) source: String,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let outline = cli.outline()?;
    source_of(&outline, &args.source)?;
    let path = format!("/v1/sources/{}/reconcile", args.source);
    let accepted: Accepted = socket::post(&outline.store.socket(), &path)?;
    if args.detach {
        return detached(cli, &accepted);
    }
    let ended = Follower::new(&outline, &args.source, cli.json)?.until_ended(accepted.run)?;
    if cli.json {
        output::json(&ended)?;
    } else {
        output::line(follow::how_it_ended(&ended.run))?;
    }
    Ok(Exit::Ok)
}

/// Whether the configuration has the source.
pub(super) fn source_of(outline: &Outline, name: &str) -> Result<(), Failure> {
    if outline.sources.iter().any(|s| s == name) {
        return Ok(());
    }
    let sentence = format!("there is no source named {name:?}");
    Err(Failure::new(Exit::NotFound, sentence))
}

/// Says that an order was taken, and nothing more.
fn detached(cli: &Cli, accepted: &Accepted) -> Result<Exit, Failure> {
    if cli.json {
        output::json(accepted)?;
        return Ok(Exit::Ok);
    }
    match accepted.run {
        Some(run) => output::line(format_args!(
            "run {run} of {} is under way; see `rollcall status`",
            accepted.source
        ))?,
        None => output::line(format_args!(
            "{} is not connected; its run begins as soon as it is: see `rollcall status`",
            accepted.source
        ))?,
    }
    Ok(Exit::Ok)
}
