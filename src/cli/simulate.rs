//! `rollcall plan`: what a reconciliation of a source would do, without doing it.

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::shown::{SHOWN, Shown, Wanted, give, rows};
use super::{Cli, output};
use crate::config::Config;
use crate::simulation::plan::{Change, Plan};
use crate::{connect, simulation};

/// What to simulate.
#[derive(Debug, clap::Args)]
#[group(id = "simulate")]
pub struct Args {
    /// The source; may be left out when there is only one.
    #[arg(conflicts_with = "named")]
    source: Option<String>,
    /// The source, when its name is that of a subcommand.
    #[arg(long = "source", value_name = "SOURCE")]
    named: Option<String>,
    /// Take the source and its mapping from another configuration file: what would this
    /// change do?
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let store = cli.outline()?.store.path;
    let config = match &args.with {
        Some(file) => {
            Config::load(file).map_err(|e| Failure::new(Exit::Configuration, e.to_string()))?
        }
        None => cli.load()?,
    };
    let name = args.named.as_ref().or(args.source.as_ref());
    let source = super::verify::one_source(&config, name.map(String::as_str))?;
    let connector = connect::source(&config.organization, source);
    let runtime = super::runtime()?;
    let plan = runtime.block_on(async {
        let stop = CancellationToken::new();
        let simulated = simulation::simulate(&config, source, connector, &store, stop.clone());
        tokio::pin!(simulated);
        tokio::select! {
            // Signals are listened to before there is anything to remove.
            biased;
            _ = crate::daemon::stop_signal() => stop.cancel(),
            plan = &mut simulated => return plan,
        }
        // It removes what it made before it ends.
        simulated.await
    });
    // Reads from servers that do not answer must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    give(cli, &args.wanted, &plan?)
}

impl Shown for Plan {
    fn summary(&self) -> Result<(), Failure> {
        summary(self)
    }

    fn table(&self) -> Result<(), Failure> {
        table(self)
    }

    fn lines(&self) -> impl Iterator<Item = io::Result<Change>> {
        self.changes.iter()
    }
}

fn summary(plan: &Plan) -> Result<(), Failure> {
    output::line(format_args!(
        "{}: {} rows read as of position {}",
        plan.source, plan.rows, plan.position
    ))?;
    if plan.counts.is_empty() {
        output::line("nothing would change")?;
    }
    for (action, reasons) in &plan.counts {
        for (reason, n) in reasons {
            output::line(format_args!("  {n:>8}  {action}: {reason}"))?;
        }
    }
    let limit = &plan.limit;
    if limit.changes == 0 {
        return Ok(());
    }
    let kinds: Vec<String> = limit
        .counted
        .iter()
        .map(|(k, n)| format!("{n} {k}"))
        .collect();
    output::line(format_args!(
        "{} of {} linked active users lose something ({}): {}",
        limit.changes,
        limit.linked,
        kinds.join(", "),
        match (limit.max_changes.zip(limit.max_percent), limit.trips) {
            (None, _) => "the source has no limit".to_owned(),
            (Some(_), false) => "within the limit".to_owned(),
            (Some(_), true) if limit.is_open => {
                "others wait for approval already, and these would join them".to_owned()
            }
            (Some(_), true) if limit.is_given_up => {
                "a plan was discarded, so a reconciliation would hold them back".to_owned()
            }
            (Some((changes, percent)), true) => format!(
                "more than the limit of {changes} or {percent} %; a reconciliation would hold them back"
            ),
        }
    ))
}

fn table(plan: &Plan) -> Result<(), Failure> {
    summary(plan)?;
    if plan.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let first = plan.changes.iter().take(SHOWN);
    let first = first.collect::<io::Result<Vec<Change>>>()?;
    let shown: Vec<Vec<String>> = first.iter().flat_map(rows).collect();
    output::table(
        &[
            "RECORD", "USER", "ACTION", "REASON", "FIELD", "BEFORE", "AFTER", "RULE",
        ],
        &shown,
    )?;
    let more = plan.changes.len().saturating_sub(SHOWN) as u64 + plan.unlisted;
    if more > 0 {
        output::line(format_args!(
            "… and {more} more: `--format json` and `--format csv` show them"
        ))?;
    }
    Ok(())
}
