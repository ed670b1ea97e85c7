//! `rollcall conflicts`: what waits for a correction at the source.

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::api::views;

/// Which conflicts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Closed ones too.
    #[arg(long)]
    all: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let conflicts = views::conflicts(&cli.readers()?, args.all)?;
    if cli.json {
        output::json(&conflicts)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = conflicts
        .into_iter()
        .map(|c| {
            vec![
                c.fingerprint,
                c.kind,
                c.source,
                c.records.join(" "),
                c.attribute.unwrap_or_default(),
                c.opened,
                c.closed.unwrap_or_else(|| "open".to_owned()),
            ]
        })
        .collect();
    output::table(
        &[
            "CONFLICT",
            "KIND",
            "SOURCE",
            "RECORDS",
            "ATTRIBUTE",
            "OPENED",
            "CLOSED",
        ],
        &rows,
    )?;
    Ok(Exit::Ok)
}
