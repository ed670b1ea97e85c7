//! `rollcall undo`: what it would mean to take back what a run did, without doing it.

use std::io;

use rollcall_core::id::{RunId, UserId};
use rollcall_store::Readers;

use super::exit::{Exit, Failure};
use super::shown::{SHOWN, Shown, Wanted, give, rows};
use super::{Cli, edit, output};
use crate::api::named;
use crate::simulation::plan::{Change, LimitView};
use crate::sync::clock::now_us;
use crate::undo::plan::UndoPlan;
use crate::undo::{self, Whose};

/// What to undo.
#[derive(Debug, clap::Args)]
#[group(id = "undo")]
pub struct Args {
    /// The run, from `rollcall runs`.
    #[arg(required_unless_present = "since", conflicts_with_all = ["since", "until", "source"])]
    run: Option<u64>,
    /// All runs from then on: an instant of RFC 3339, a day (from its begin, in UTC), or how
    /// long ago (`2h`, `90m`, `3d`).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// … up to then; now, when it is left out.
    #[arg(long, value_name = "WHEN", requires = "since")]
    until: Option<String>,
    /// Only what runs of this source did.
    #[arg(long)]
    source: Option<String>,
    /// Only what was done to this user: an id, a userName, an email, or SOURCE:KEY.
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let outline = cli.outline()?;
    let readers = Readers::open_readonly(&outline.store.path, &outline.organization)?;
    let whose = whose(&readers, args)?;
    let only = only(&readers, args)?;
    let mut plan = undo::plan(&readers, &outline.organization, &whose, only)?;
    plan.judge(&readers, &outline.limits)?;
    give(cli, &args.wanted, &plan)
}

fn whose(readers: &Readers, args: &Args) -> Result<Whose, Failure> {
    if let Some(run) = args.run {
        let sentence =
            format!("there is no run {run}; it may have been forgotten (store.history_retention)");
        let row = readers.run(RunId(run))?;
        let row = row.ok_or_else(|| Failure::new(Exit::NotFound, sentence))?;
        return Ok(Whose::Run(Box::new(row)));
    }
    let now = now_us();
    let when = |text: &Option<String>| {
        match text {
        None => Ok(now),
        Some(text) => edit::ago(text, now).ok_or_else(|| {
            let sentence = format!(
                "{text:?} is no time that has been: write a day (2026-11-30), an instant (2026-11-30T18:00:00Z) or how long ago (2h, 90m, 3d)"
            );
            Failure::new(Exit::Usage, sentence)
        }),
    }
    };
    let (since_us, until_us) = (when(&args.since)?, when(&args.until)?);
    if since_us > until_us {
        let sentence = "--until is before --since: nothing lies between them";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let source = match &args.source {
        None => None,
        Some(name) => {
            let sentence = format!("there is no source named {name:?}");
            let row = readers.source(name)?;
            Some(
                row.ok_or_else(|| Failure::new(Exit::NotFound, sentence))?
                    .id,
            )
        }
    };
    Ok(Whose::Span {
        since_us,
        until_us,
        source,
    })
}

fn only(readers: &Readers, args: &Args) -> Result<Option<UserId>, Failure> {
    let Some(name) = &args.user else {
        return Ok(None);
    };
    let (_, id) = named::place_of(readers, name)??;
    Ok(Some(id))
}

impl Shown for UndoPlan {
    fn summary(&self) -> Result<(), Failure> {
        summary(self)
    }

    fn table(&self) -> Result<(), Failure> {
        table(self)
    }

    /// What changes, then what is left out.
    fn lines(&self) -> impl Iterator<Item = io::Result<Change>> {
        self.changes.iter().chain(self.left_out.iter())
    }
}

fn summary(plan: &UndoPlan) -> Result<(), Failure> {
    output::line(format_args!(
        "{}: {} users were changed",
        plan.of, plan.users
    ))?;
    if plan.counts.is_empty() {
        output::line("nothing would change")?;
    }
    for (action, reasons) in &plan.counts {
        for (reason, n) in reasons {
            output::line(format_args!("  {n:>8}  {action}: {reason}"))?;
        }
    }
    for (why, n) in &plan.left_counts {
        output::line(format_args!("  {n:>8}  left out: {why}"))?;
    }
    for (source, limit) in &plan.limits {
        limited(source, limit)?;
    }
    Ok(())
}

fn limited(source: &str, limit: &LimitView) -> Result<(), Failure> {
    let kinds = limit.counted.iter().map(|(k, n)| format!("{n} {k}"));
    let kinds: Vec<String> = kinds.collect();
    output::line(format_args!(
        "{} of {} linked active users of {source} lose something ({}): {}",
        limit.changes,
        limit.linked,
        kinds.join(", "),
        match (limit.max_changes.zip(limit.max_percent), limit.trips) {
            (None, _) => "the source has no limit".to_owned(),
            (Some(_), false) => "within its limit".to_owned(),
            (Some(_), true) if limit.is_open => "others wait for approval already".to_owned(),
            (Some((changes, percent)), true) => {
                format!(
                    "more than its limit of {changes} or {percent} %; `rollcall apply` does not ask it"
                )
            }
        }
    ))
}

fn table(plan: &UndoPlan) -> Result<(), Failure> {
    summary(plan)?;
    let mut shown = Vec::new();
    for line in plan.changes.iter().take(SHOWN) {
        shown.extend(rows(&line?));
    }
    for line in plan.left_out.iter().take(SHOWN) {
        shown.extend(rows(&line?));
    }
    if shown.is_empty() {
        return Ok(());
    }
    output::line("")?;
    // No record is asked: there is no column for one.
    shown.iter_mut().for_each(|row| drop(row.remove(0)));
    output::table(
        &[
            "USER", "ACTION", "REASON", "FIELD", "BEFORE", "AFTER", "BECAUSE",
        ],
        &shown,
    )?;
    let more = |n: usize| n.saturating_sub(SHOWN);
    let more = more(plan.changes.len()) + more(plan.left_out.len());
    if more > 0 {
        output::line(format_args!(
            "… and {more} more: `--format json` and `--format csv` show them"
        ))?;
    }
    Ok(())
}
