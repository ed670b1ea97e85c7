//! `rollcall users`: who is in the directory, and why each value is what it is.

use super::exit::{Exit, Failure};
use super::{Cli, edit, output};
use crate::api::named::NoUser;
use crate::api::users::{self, GivenLine, OwnLine, UserQuery, UserView};

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List users in the order in which they were made.
    List(ListArgs),
    /// List users whose userName or displayName holds a text.
    Search {
        /// The text; letters in any case, with or without their accents.
        text: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show one user: its records, its values, and where each value comes from.
    Show {
        /// An id, a userName, an email, or SOURCE:KEY. The columns of a key have commas between, or
        /// are a JSON array: hr:["a,b","c"].
        user: String,
    },
    /// Write values of a user: they count as the rules of each field say
    /// (`rollcall config --explain field`).
    Set(edit::SetArgs),
    /// Take back values that were written, or that an undo has put: what sources say counts
    /// again. `active` is what an undo has made of whether the user may work.
    Unset(edit::FieldArgs),
    /// End a pin now; the value stays, and counts as the rules of its field say.
    Unpin(edit::FieldArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only active (`true`) or inactive (`false`) ones.
    #[arg(long)]
    active: Option<bool>,
    /// Only those fed by this source.
    #[arg(long)]
    source: Option<String>,
    /// Behind this place (the last line of the page before).
    #[arg(long)]
    after: Option<i64>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    match &args.what {
        What::Set(args) => edit::set(cli, args),
        What::Unset(args) => edit::unset(cli, args),
        What::Unpin(args) => edit::unpin(cli, args),
        What::Show { user } => show_one(cli, user),
        What::List(list) => show_list(cli, None, list),
        What::Search { text, list } => show_list(cli, Some(text.clone()), list),
    }
}

fn show_one(cli: &Cli, user: &str) -> Result<Exit, Failure> {
    let view = match users::user(&cli.readers()?, user)? {
        Ok(view) => view,
        // What is known of the record is the answer, and there is no user all the same.
        Err(NoUser::Record(record)) if cli.json => {
            output::json(&record)?;
            return Ok(Exit::NotFound);
        }
        Err(none) => return Err(none.into()),
    };
    if cli.json {
        output::json(&view)?;
    } else {
        show(&view)?;
    }
    Ok(Exit::Ok)
}

fn show_list(cli: &Cli, search: Option<String>, list: &ListArgs) -> Result<Exit, Failure> {
    let readers = cli.readers()?;
    let query = UserQuery {
        search,
        active: list.active,
        source: list.source.clone(),
        after: list.after,
        limit: Some(list.limit),
    };
    let users = users::users(&readers, &query)?;
    if cli.json {
        output::json(&users)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = users
        .into_iter()
        .map(|u| {
            let state = if u.active { "active" } else { "inactive" };
            let text = Option::unwrap_or_default;
            vec![
                u.place.to_string(),
                u.id,
                state.to_owned(),
                text(u.user_name),
                text(u.display_name),
                u.updated,
            ]
        })
        .collect();
    output::table(
        &[
            "PLACE",
            "ID",
            "STATE",
            "USERNAME",
            "DISPLAY NAME",
            "UPDATED",
        ],
        &rows,
    )?;
    Ok(Exit::Ok)
}

fn show(user: &UserView) -> Result<(), Failure> {
    let reason = user
        .reason
        .as_deref()
        .map_or_else(String::new, |r| format!(" ({r})"));
    output::line(format_args!(
        "user {} · {}{reason} · version {}",
        user.id, user.state, user.version
    ))?;
    output::line(format_args!(
        "created {} · updated {}",
        user.created, user.updated
    ))?;
    for link in &user.links {
        output::line(format_args!(
            "record {}:{} · {} · position {} · committed {}",
            link.source, link.record, link.state, link.position, link.committed
        ))?;
    }
    output::line("")?;
    for field in &user.fields {
        let is_taken = |own: &OwnLine| own.decided_by == "undone" && field.value.is_empty();
        let value = match field.winner.own.as_ref().is_some_and(is_taken) {
            true => "–",
            false => field.value.as_str(),
        };
        output::line(format_args!("{} = {value}", field.attribute))?;
        output::line(format_args!("    from {}", provenance(&field.winner)))?;
        for other in &field.others {
            output::line(format_args!(
                "    instead of {:?} from {}",
                other.value,
                provenance(other)
            ))?;
        }
    }
    for waits in &user.pending {
        let from = match (&waits.source, &waits.record) {
            (Some(source), Some(record)) => format!("{source}:{record}"),
            _ => "what was written".to_owned(),
        };
        let whom = match (&waits.source, &waits.names) {
            (Some(source), Some(key)) => format!("{source}:{key}, which leads to nobody yet"),
            _ => "a user that is deleted".to_owned(),
        };
        output::line(format_args!("{} waits", waits.attribute))?;
        output::line(format_args!("    from {from}, for {whom}"))?;
    }
    Ok(())
}

fn provenance(given: &GivenLine) -> String {
    if let Some(own) = &given.own {
        let pinned = match (own.pinned, &own.until) {
            (false, _) => String::new(),
            (true, None) => ", pinned".to_owned(),
            (true, Some(until)) => format!(", pinned until {until}"),
        };
        let reason = match own.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let standing = edit::standing(own.wins, &own.decided_by);
        return format!(
            "{}, written {}{pinned}{reason}: {standing}",
            own.actor, given.committed
        );
    }
    let origin = match (&given.source, &given.record) {
        (Some(source), Some(record)) => format!("{source}:{record}"),
        _ => "rollcall".to_owned(),
    };
    let origin = match (&given.source, &given.names) {
        (Some(source), Some(key)) => format!("{origin}, which names {source}:{key}"),
        _ => origin,
    };
    format!(
        "{origin}, rule {}, position {}, committed {}, run {}",
        given.rule, given.position, given.committed, given.run
    )
}
