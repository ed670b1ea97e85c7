//! `rollcall rescan`: has the daemon read a source again.

use super::exit::{Exit, Failure};
use super::{Cli, output, socket};

/// What to read again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source.
    source: String,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let outline = cli.outline()?;
    if !outline.sources.contains(&args.source) {
        let sentence = format!("there is no source named {:?}", args.source);
        return Err(Failure::new(Exit::NotFound, sentence));
    }
    let path = format!("/v1/sources/{}/rescan", args.source);
    let answer: serde_json::Value = socket::post(&outline.store.socket(), &path)?;
    if cli.json {
        output::json(&answer)?;
    } else {
        output::line(format_args!(
            "{} is read again; follow it with `rollcall status`",
            args.source
        ))?;
    }
    Ok(Exit::Ok)
}
