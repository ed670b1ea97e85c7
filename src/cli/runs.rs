//! `rollcall runs`: loads, scans and stream windows.

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::api::views;

/// How many runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At most so many, the newest first.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let runs = views::runs(&cli.readers()?, args.limit)?;
    if cli.json {
        output::json(&runs)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = runs
        .into_iter()
        .map(|r| {
            let c = r.counters;
            let mut row = vec![r.run.to_string(), r.source, r.kind, r.outcome, r.started];
            row.extend(
                [
                    c.processed,
                    c.created,
                    c.updated,
                    c.deactivated,
                    c.skipped,
                    c.errored,
                ]
                .map(|n| n.to_string()),
            );
            row
        })
        .collect();
    let head = [
        "RUN",
        "SOURCE",
        "KIND",
        "OUTCOME",
        "STARTED",
        "PROCESSED",
        "CREATED",
        "UPDATED",
        "LEFT",
        "SKIPPED",
        "ERRORED",
    ];
    output::table(&head, &rows)?;
    Ok(Exit::Ok)
}
