//! `rollcall conflicts`: what waits for a correction at the source, or for a person's word.

use super::exit::{Exit, Failure};
use super::{Cli, edit, output, socket};
use crate::api::conflicts::{self, ConflictView, ResolveQuery, ResolveView};

/// Which conflicts. Without a subcommand they are listed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Closed ones too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List conflicts, the newest first.
    List(ListArgs),
    /// Show one conflict, and among what a person can choose.
    Show {
        /// The conflict, from the list.
        conflict: String,
    },
    /// Decide a conflict. The word stands until the competing value changes.
    #[command(
        after_help = "Examples:\n  rollcall conflicts resolve 5f0c9a2b7d1e4c33 --take 2\n  rollcall conflicts resolve 5f0c9a2b7d1e4c33 --take new --reason \"two people, asked HR\"\n  rollcall conflicts resolve 5f0c9a2b7d1e4c33 --keep"
    )]
    Resolve(ResolveArgs),
}

#[derive(Debug, clap::Args)]
struct ResolveArgs {
    /// The conflict, from the list.
    conflict: String,
    #[command(flatten)]
    word: WordArgs,
    /// Why, for whoever reads of it.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct WordArgs {
    /// Take this candidate: its number or its name.
    #[arg(long, value_name = "CANDIDATE")]
    take: Option<String>,
    /// Keep the value that counts at present.
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        None => list(cli, &args.list),
        Some(Command::List(args)) => list(cli, args),
        Some(Command::Show { conflict }) => show(cli, conflict),
        Some(Command::Resolve(args)) => resolve(cli, args),
    }
}

fn state(conflict: &ConflictView) -> String {
    match (&conflict.closed, &conflict.decision) {
        (None, _) => "open".to_owned(),
        (Some(closed), None) => closed.clone(),
        (Some(closed), Some(decision)) => format!("{closed} by {}", decision.by),
    }
}

fn list(cli: &Cli, args: &ListArgs) -> Result<Exit, Failure> {
    let conflicts = conflicts::conflicts(&cli.readers()?, args.all)?;
    if cli.json {
        output::json(&conflicts)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = conflicts
        .into_iter()
        .map(|c| {
            let closed = state(&c);
            vec![
                c.fingerprint,
                c.kind,
                c.source,
                c.records.join(" "),
                c.attribute.unwrap_or_default(),
                c.opened,
                closed,
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

fn unknown(name: &str) -> Failure {
    let sentence =
        format!("no conflict is named {name:?}, or it is closed; see `rollcall conflicts`");
    Failure::new(Exit::NotFound, sentence)
}

fn show(cli: &Cli, name: &str) -> Result<Exit, Failure> {
    let Some(detail) = conflicts::conflict(&cli.readers()?, name)? else {
        return Err(unknown(name));
    };
    if cli.json {
        output::json(&detail)?;
        return Ok(Exit::Ok);
    }
    let conflict = &detail.conflict;
    let about = conflict.attribute.as_deref().unwrap_or("-");
    output::line(format_args!(
        "{} {} · source {} · attribute {about} · opened {} · {}",
        conflict.kind,
        conflict.fingerprint,
        conflict.source,
        conflict.opened,
        state(conflict)
    ))?;
    for record in &conflict.records {
        output::line(format_args!("record {}:{record}", conflict.source))?;
    }
    if let Some(missing) = &conflict.missing {
        output::line(format_args!(
            "{} users wait for it: {}",
            missing.waiting, missing.reason
        ))?;
    }
    for user in &conflict.users {
        output::line(format_args!("user {user}"))?;
    }
    if let Some(decision) = &conflict.decision {
        output::line(format_args!(
            "decided by {} at {}: {} {}",
            decision.by, decision.at, decision.took, decision.reason
        ))?;
    }
    if !detail.candidates.is_empty() {
        output::line("\ncandidates:")?;
    }
    for (at, candidate) in detail.candidates.iter().enumerate() {
        let present = match candidate.present {
            true => " (counts at present)",
            false => "",
        };
        output::line(format_args!(
            "  {} {}: {}{present}",
            at + 1,
            candidate.take,
            candidate.what
        ))?;
    }
    Ok(Exit::Ok)
}

fn resolve(cli: &Cli, args: &ResolveArgs) -> Result<Exit, Failure> {
    let query = ResolveQuery {
        take: args.word.take.clone(),
        actor: edit::actor(),
        reason: args.reason.clone(),
    };
    let path = format!("/v1/conflicts/{}/resolve", socket::part(&args.conflict));
    let told: ResolveView = socket::post_json(&cli.outline()?.store.socket(), &path, &query)?;
    match &told {
        ResolveView::Resolved { took, .. } => {
            if cli.json {
                output::json(&told)?;
            } else {
                output::line(format_args!("decided: {took}"))?;
            }
            Ok(Exit::Ok)
        }
        ResolveView::Unknown => Err(unknown(&args.conflict)),
        ResolveView::Refused { reason } => Err(Failure::new(Exit::Failed, reason.clone())),
    }
}
