//! `rollcall apply`: has the daemon apply a plan, exactly as it is, or refuse it.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::{Cli, output, socket};
use crate::api::orders::UndoOrder;
use crate::config::Outline;
use crate::simulation::plan::{AnyPlan, Plan};
use crate::sync::planned::{Answered, MAX_APPLIED};
use crate::sync::undoing::Undoing;

/// What to apply.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file that `rollcall plan SOURCE --out FILE` or `rollcall undo RUN --out FILE` wrote.
    plan: PathBuf,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let outline = cli.outline()?;
    let plan = AnyPlan::read(&args.plan)?;
    let organization = match &plan {
        AnyPlan::Reconciliation(plan) => &plan.organization,
        AnyPlan::Undo(plan) => &plan.organization,
    };
    if *organization != outline.organization {
        let sentence = format!(
            "the plan is the organization {organization:?}'s, the configuration says {:?}",
            outline.organization
        );
        return Err(Failure::new(Exit::Usage, sentence));
    }
    match plan {
        AnyPlan::Reconciliation(plan) => reconciliation(cli, &outline, &plan),
        AnyPlan::Undo(plan) => undo(cli, &outline, plan.apply),
    }
}

fn undo(cli: &Cli, outline: &Outline, plan: Undoing) -> Result<Exit, Failure> {
    if plan.users.len() > MAX_APPLIED {
        let sentence = format!(
            "the plan changes more than {MAX_APPLIED} users, which is more than can be applied in one commit. Fix: undo a shorter time, or one source, and then the next"
        );
        return Err(Failure::new(Exit::Failed, sentence));
    }
    let order = UndoOrder {
        actor: super::edit::actor(),
        plan,
    };
    let answer: Answered = socket::post_json(&outline.store.socket(), "/v1/undo", &order)?;
    tell(cli, &answer, "users")
}

fn reconciliation(cli: &Cli, outline: &Outline, plan: &Plan) -> Result<Exit, Failure> {
    if !outline.sources.contains(&plan.source) {
        let sentence = format!("there is no source named {:?}", plan.source);
        return Err(Failure::new(Exit::NotFound, sentence));
    }
    if plan.unlisted > 0 || plan.apply.records.len() > MAX_APPLIED {
        let sentence = format!(
            "the plan changes more than {MAX_APPLIED} records, which is more than can be applied in one commit. Fix: have the daemon find them with `rollcall reconcile {}`, and approve what it holds back",
            plan.source
        );
        return Err(Failure::new(Exit::Failed, sentence));
    }
    let path = format!("/v1/sources/{}/apply", plan.source);
    let answer: Answered = socket::post_json(&outline.store.socket(), &path, &plan.apply)?;
    tell(cli, &answer, "records")
}

/// Says what became of a plan of these things.
fn tell(cli: &Cli, answer: &Answered, things: &str) -> Result<Exit, Failure> {
    if cli.json {
        output::json(answer)?;
    }
    match answer {
        Answered::Applied {
            run,
            records,
            already,
        } => {
            if !cli.json {
                let run = run.map_or_else(String::new, |run| format!(" in run {run}"));
                let already = match already {
                    0 => String::new(),
                    n => format!(", {n} were so already"),
                };
                output::line(format_args!("applied {records} {things}{run}{already}"))?;
            }
            Ok(Exit::Ok)
        }
        Answered::Refused {
            reason,
            changed,
            more,
        } => {
            if cli.json {
                return Ok(Exit::Differs);
            }
            for changed in changed {
                output::line(format_args!("  {}: {}", changed.record, changed.what))?;
            }
            if *more > 0 {
                output::line(format_args!("  … and {more} more"))?;
            }
            Err(Failure::new(Exit::Differs, reason.clone()))
        }
    }
}
