//! `rollcall plan`: what a source would change, and what waits for a person's word.

use super::exit::{Exit, Failure};
use super::{Cli, output, simulate, socket};
use crate::api::plans::{self, PlanView, WordView};

/// What to do with plans. Without a subcommand one is made.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    simulate: simulate::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the open plans with their hashes.
    #[command(after_help = "Example:\n  rollcall plan list")]
    List,
    /// Show what is in the plan of a source: keys and what would be taken away, no values.
    #[command(after_help = "Example:\n  rollcall plan show hr")]
    Show {
        /// The source.
        source: String,
    },
    /// Apply exactly the plan with this hash. One that has changed since is refused.
    #[command(after_help = "Example:\n  rollcall plan approve 6f1c0e6b0f7d4c1f9a7f1f0f2b8a4d35")]
    Approve {
        /// The hash, from `rollcall plan list` or `show`.
        hash: String,
    },
    /// Give up the plan with this hash: everybody stays as before. The next time the source
    /// is read, what still differs is found again.
    #[command(after_help = "Example:\n  rollcall plan discard 6f1c0e6b0f7d4c1f9a7f1f0f2b8a4d35")]
    Discard {
        /// The hash, from `rollcall plan list` or `show`.
        hash: String,
    },
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        None => simulate::run(cli, &args.simulate),
        Some(Command::List) => list(cli),
        Some(Command::Show { source }) => show(cli, source),
        Some(Command::Approve { hash }) => word(cli, hash, "approve"),
        Some(Command::Discard { hash }) => word(cli, hash, "discard"),
    }
}

fn kinds(plan: &PlanView) -> String {
    let each = plan.kinds.iter().map(|(kind, n)| format!("{n} {kind}"));
    each.collect::<Vec<_>>().join(", ")
}

fn list(cli: &Cli) -> Result<Exit, Failure> {
    let plans = plans::plans(&cli.readers()?)?;
    if cli.json {
        output::json(&plans)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = plans
        .iter()
        .map(|p| {
            vec![
                p.source.clone(),
                p.records.to_string(),
                kinds(p),
                p.changed.clone(),
                p.hash.clone(),
            ]
        })
        .collect();
    output::table(&["SOURCE", "RECORDS", "WHAT", "CHANGED", "HASH"], &rows)?;
    Ok(Exit::Ok)
}

fn show(cli: &Cli, name: &str) -> Result<Exit, Failure> {
    let readers = cli.readers()?;
    let plan = plans::plans(&readers)?
        .into_iter()
        .find(|p| p.source == name);
    let source = readers.source(name)?;
    let (Some(plan), Some(source)) = (plan, source) else {
        let sentence = format!("nothing of a source named {name:?} waits for approval");
        return Err(Failure::new(Exit::NotFound, sentence));
    };
    let mut rows = Vec::new();
    let keep = |row| {
        rows.push(row);
        Ok::<_, Failure>(())
    };
    plans::planned(&readers, source.id, keep)?;
    if cli.json {
        output::json(&serde_json::json!({ "plan": plan, "planned": rows }))?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|r| vec![r.record, r.kind, r.run.to_string(), r.staged])
        .collect();
    output::table(&["RECORD", "WHAT", "RUN", "STAGED"], &rows)?;
    output::line(format_args!(
        "\n{} records of {}: {}\napprove them: rollcall plan approve {}",
        plan.records,
        plan.source,
        kinds(&plan),
        plan.hash
    ))?;
    Ok(Exit::Ok)
}

fn word(cli: &Cli, hash: &str, word: &str) -> Result<Exit, Failure> {
    if rollcall_core::staged::PlanHash::parse(hash).is_none() {
        let sentence = format!(
            "{hash:?} is not the hash of a plan: 32 hexadecimal digits, from `rollcall plan list`"
        );
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let path = format!("/v1/plans/{hash}/{word}");
    let told: WordView = socket::post(&cli.outline()?.store.socket(), &path)?;
    let (exit, sentence) = match &told {
        WordView::Done {
            source,
            records,
            left,
            changed,
        } => {
            if cli.json {
                output::json(&told)?;
                return Ok(match changed.is_empty() {
                    true => Exit::Ok,
                    false => Exit::Differs,
                });
            }
            let done = match word {
                "approve" => "are applied",
                _ => "are given up; everybody stays as before",
            };
            let all = records.saturating_sub(*left);
            output::line(format_args!("{all} changes of {source} {done}"))?;
            if changed.is_empty() {
                if *left > 0 {
                    output::line(format_args!(
                        "{left} wait: they came meanwhile, or their records are read again first; see `rollcall plan show {source}`"
                    ))?;
                }
                return Ok(Exit::Ok);
            }
            for record in changed {
                output::line(format_args!(
                    "  {record}: its row is another one by now, or gone"
                ))?;
            }
            let sentence = "some records are not as they were approved, and stay as they are. Fix: see `rollcall plan list`";
            (Exit::Differs, sentence.to_owned())
        }
        WordView::Unknown => (
            Exit::NotFound,
            "no open plan has, or had, this hash; see `rollcall plan list`".to_owned(),
        ),
        WordView::NotReady { source } => (
            Exit::Failed,
            format!(
                "{source} has not been reached since the daemon started, so nothing of it can be applied; see `rollcall status`"
            ),
        ),
        WordView::Changed {
            source,
            came,
            went,
            changed,
            hash,
        } => (
            Exit::Failed,
            format!(
                "the plan of {source} is another one by now, and nothing was done: {came} records came, {went} went, {changed} changed; {}",
                match hash {
                    Some(hash) => format!(
                        "look at it again (`rollcall plan show {source}`); its hash is {hash}"
                    ),
                    None => "nothing waits any more".to_owned(),
                }
            ),
        ),
    };
    Err(Failure::new(exit, sentence))
}
