//! `rollcall runs`: loads, reconciliations, stream windows and polls, and the records that
//! one of them names.

use clap::builder::PossibleValuesParser;
use rollcall_core::plan::Counters;
use rollcall_core::reason::SkipReason;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::api::runs::{self, RunDetail, RunQuery};
use crate::sync::runs::{RUN_KINDS, RUN_OUTCOMES};

/// Which runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Only those of this source.
    #[arg(long)]
    source: Option<String>,
    /// Only those of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(RUN_KINDS))]
    kind: Option<String>,
    /// Only those that ended so, or run.
    #[arg(long, value_parser = PossibleValuesParser::new(RUN_OUTCOMES))]
    outcome: Option<String>,
    /// Only those before this run (the last line of the page before).
    #[arg(long)]
    before: Option<u64>,
    /// At most so many, the newest first.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show one run, and each record that was skipped or failed: key, attribute, rule, reason.
    Show {
        /// Its number.
        run: u64,
    },
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let readers = cli.readers()?;
    if let Some(What::Show { run }) = args.what {
        let Some(detail) = runs::run(&readers, run)? else {
            return Err(Failure::new(
                Exit::NotFound,
                format!(
                    "there is no run {run}; it may have been forgotten (store.history_retention)"
                ),
            ));
        };
        if cli.json {
            output::json(&detail)?;
        } else {
            show(&detail)?;
        }
        return Ok(Exit::Ok);
    }
    let query = RunQuery {
        source: args.source.clone(),
        kind: args.kind.clone(),
        outcome: args.outcome.clone(),
        before: args.before,
        limit: Some(args.limit),
    };
    let runs = runs::runs(&readers, &query)?;
    if cli.json {
        output::json(&runs)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = runs
        .into_iter()
        .map(|r| {
            let c = r.counters;
            let mut row = vec![r.run.to_string(), r.source, r.kind, r.cause, r.outcome];
            row.extend([r.started, duration(r.duration_ms)]);
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
        "CAUSE",
        "OUTCOME",
        "STARTED",
        "TOOK",
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

fn show(detail: &RunDetail) -> Result<(), Failure> {
    let run = &detail.run;
    output::line(format_args!(
        "run {} · {} · {} ({}) · {}",
        run.run, run.source, run.kind, run.cause, run.outcome
    ))?;
    let ended = run.ended.as_deref().unwrap_or("–");
    output::line(format_args!(
        "started {} · ended {ended} · took {}",
        run.started,
        duration(run.duration_ms)
    ))?;
    output::line(format_args!(
        "position {} to {}",
        run.from.as_deref().unwrap_or("–"),
        run.to.as_deref().unwrap_or("–")
    ))?;
    if let Some(detail) = &run.detail {
        output::line(detail)?;
    }
    let c = &run.counters;
    output::line(format_args!(
        "processed {} · created {} · updated {} · activated {} · unchanged {} · healed {}",
        c.processed, c.created, c.updated, c.activated, c.unchanged, c.healed
    ))?;
    output::line(format_args!(
        "suspected {} · deactivated {} · deleted {}",
        c.suspected, c.deactivated, c.deleted
    ))?;
    output::line(format_args!(
        "skipped {}{}",
        c.skipped,
        reasons(c, |r| !r.is_error())
    ))?;
    output::line(format_args!(
        "errored {}{}",
        c.errored,
        reasons(c, SkipReason::is_error)
    ))?;
    if !detail.records.is_empty() {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let rows: Vec<Vec<String>> = detail
            .records
            .iter()
            .map(|r| {
                let key = r.record.as_deref().unwrap_or("(no key)");
                vec![
                    format!("{}:{key}", r.source),
                    r.outcome.clone(),
                    r.reason.clone(),
                    text(&r.attribute),
                    text(&r.rule),
                ]
            })
            .collect();
        output::line("")?;
        output::table(&["RECORD", "OUTCOME", "REASON", "ATTRIBUTE", "RULE"], &rows)?;
    }
    if run.unlisted > 0 {
        output::line(format_args!(
            "{} more are counted above and not listed",
            run.unlisted
        ))?;
    }
    Ok(())
}

fn reasons(counters: &Counters, is_wanted: impl Fn(SkipReason) -> bool) -> String {
    let wanted = counters
        .reasons
        .iter()
        .filter(|(reason, _)| is_wanted(*reason));
    let named: Vec<String> = wanted
        .map(|(reason, n)| format!("{} {n}", reason.as_str()))
        .collect();
    if named.is_empty() {
        return String::new();
    }
    format!(": {}", named.join(", "))
}

/// A duration as people say it: `0.8s`, `2m 5s`, `1h 0m`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_two_units_at_most() {
        let said = [0, 850, 59_990, 125_000, 3_600_000, 90_000_000].map(duration);
        assert_eq!(said, ["0.0s", "0.8s", "59.9s", "2m 5s", "1h 0m", "25h 0m"]);
    }
}
