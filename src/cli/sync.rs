//! `rollcall sync`: bring a source in step now, or only some records of it, or those of one
//! user.

use super::exit::{Exit, Failure};
use super::follow::{self, Follower};
use super::reconcile::{self, source_of};
use super::{Cli, output, socket};
use crate::api::orders::{Accepted, Wanted};
use crate::api::users;

/// What to bring in step.
#[derive(Debug, clap::Args)]
#[group(id = "sync")]
pub struct Args {
    #[command(flatten)]
    whole: reconcile::Args,
    /// Read only the record with this key, as `rollcall users show` spells it; of several
    /// columns, with commas between, or a JSON array of them. May be given several times.
    #[arg(long = "key", value_name = "KEY", conflicts_with = "detach")]
    keys: Vec<String>,
    /// Read only the records that this user has in the source.
    #[arg(long, conflicts_with = "detach")]
    user: Option<String>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let mut keys = args.keys.clone();
    let source = &args.whole.source;
    if keys.is_empty() && args.user.is_none() {
        return reconcile::run(cli, &args.whole);
    }
    let outline = cli.outline()?;
    source_of(&outline, source)?;
    if let Some(name) = &args.user {
        let user = users::user(&cli.readers()?, name)??;
        let of_source = user.links.into_iter().filter(|l| l.source == *source);
        let before = keys.len();
        keys.extend(of_source.map(|l| l.record));
        if keys.len() == before {
            let sentence = format!("the user {name:?} has no record in {source}");
            return Err(Failure::new(Exit::NotFound, sentence));
        }
    }
    let path = format!("/v1/sources/{source}/sync");
    let accepted: Accepted = socket::post_json(&outline.store.socket(), &path, &Wanted { keys })?;
    if accepted.run.is_none() {
        let sentence = format!(
            "{source} is not connected, or its log is far behind; the records are read as soon as it is not: see `rollcall status`"
        );
        return Err(Failure::new(Exit::Failed, sentence));
    }
    let ended = Follower::new(&outline, source, cli.json)?.until_ended(accepted.run)?;
    if cli.json {
        output::json(&ended)?;
    } else {
        output::line(follow::how_it_ended(&ended.run))?;
    }
    Ok(Exit::Ok)
}
