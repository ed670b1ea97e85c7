//! `rollcall users set`, `unset` and `unpin`: what the identity side writes.

use std::collections::BTreeMap;

use super::exit::{Exit, Failure};
use super::{Cli, output, socket};
use crate::api::fields::{EditQuery, EditView, StandingLine};
use crate::sync::clock::now_us;

/// Values to write.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// An id, a userName, an email, or SOURCE:KEY.
    user: String,
    /// Attributes and their values; the parts of a list are separated by commas.
    #[arg(required = true, value_name = "FIELD=VALUE", value_parser = assignment)]
    fields: Vec<(String, String)>,
    /// Keep the values whatever sources say.
    #[arg(long)]
    pin: bool,
    /// Pin them until then: a day (`2026-12-31`, that day included, in UTC), an instant of
    /// RFC 3339, or a duration (`30d`, `12h`, `90m`, `45s`).
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Why, for whoever reads of it.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Fields of a user.
#[derive(Debug, clap::Args)]
pub struct FieldArgs {
    /// An id, a userName, an email, or SOURCE:KEY.
    user: String,
    /// The attributes.
    #[arg(required = true, value_name = "FIELD")]
    fields: Vec<String>,
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (field, value) = text.split_once('=').ok_or("expected FIELD=VALUE")?;
    Ok((field.to_owned(), value.to_owned()))
}

pub(super) fn set(cli: &Cli, args: &SetArgs) -> Result<Exit, Failure> {
    let until_us = match &args.until {
        None => None,
        Some(text) => Some(until(text, now_us()).ok_or_else(|| {
            let sentence = format!(
                "{text:?} is no time to come: write a day (2026-12-31), an instant (2026-12-31T18:00:00Z) or a duration (30d, 12h, 90m, 45s)"
            );
            Failure::new(Exit::Usage, sentence)
        })?),
    };
    let mut values = BTreeMap::new();
    for (field, value) in &args.fields {
        if values.insert(field.clone(), value.clone()).is_some() {
            let sentence = format!("{field} is given twice");
            return Err(Failure::new(Exit::Usage, sentence));
        }
    }
    let query = EditQuery {
        reason: args.reason.clone(),
        set: values,
        pin: args.pin || until_us.is_some(),
        until_us,
        ..EditQuery::default()
    };
    edit(cli, &args.user, query)
}

pub(super) fn unset(cli: &Cli, args: &FieldArgs) -> Result<Exit, Failure> {
    let query = EditQuery {
        unset: args.fields.clone(),
        ..EditQuery::default()
    };
    edit(cli, &args.user, query)
}

pub(super) fn unpin(cli: &Cli, args: &FieldArgs) -> Result<Exit, Failure> {
    let query = EditQuery {
        unpin: args.fields.clone(),
        ..EditQuery::default()
    };
    edit(cli, &args.user, query)
}

fn edit(cli: &Cli, user: &str, query: EditQuery) -> Result<Exit, Failure> {
    let query = EditQuery {
        actor: actor(),
        ..query
    };
    let path = format!("/v1/users/{}/fields", socket::part(user));
    let told: EditView = socket::post_json(&cli.outline()?.store.socket(), &path, &query)?;
    match &told {
        EditView::Done { user, fields } => {
            if cli.json {
                output::json(&told)?;
                return Ok(Exit::Ok);
            }
            output::line(format_args!("user {user}"))?;
            for field in fields {
                output::line(format_args!("{}: {}", field.attribute, sentence(field)))?;
            }
            Ok(Exit::Ok)
        }
        EditView::Refused { reasons } => Err(Failure::new(Exit::Usage, reasons.join("; "))),
        EditView::Taken { attribute, owner } => Err(Failure::new(
            Exit::Failed,
            format!("this {attribute} is that of user {owner}; nothing was changed"),
        )),
    }
}

/// Who runs the command.
pub(super) fn actor() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut named = named.filter_map(|name| std::env::var(name).ok());
    named
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn sentence(field: &StandingLine) -> String {
    match (field.wins, field.rule.as_deref()) {
        (Some(wins), Some(rule)) => standing(wins, rule).to_owned(),
        _ => "taken back; what sources say counts".to_owned(),
    }
}

/// How an own value stands, and why.
pub(super) fn standing(wins: bool, rule: &str) -> &'static str {
    match (wins, rule) {
        (_, "alone") => "counts; no source gives a value",
        (_, "pin") => "counts; it is pinned",
        (_, "authority") => "does not count: a source with authority over the field has a value",
        (_, "target_wins") => "counts; the field's mode leaves it to the identity side",
        (_, "merge") => "counts beside what sources give",
        (true, "source_wins") => "counts until a source changes its value",
        (false, "source_wins") => "does not count: a source has changed its value since",
        (true, "most_recent") => "counts; it is the newer one",
        (false, "most_recent") => "does not count: the source's value is newer",
        (true, "within_skew") => {
            "counts until a source changes its value: the two times are closer than clocks agree"
        }
        (false, "within_skew") => {
            "does not count: the two times are closer than clocks agree, and the source changed its value since"
        }
        (true, "no_evidence") => {
            "counts until a source changes its value: nothing says when the source's value was changed"
        }
        (false, "no_evidence") => {
            "does not count: a source has changed its value since, and nothing says when"
        }
        (true, "tie") => {
            "counts for now: a source's value is of the same time, see `rollcall conflicts`"
        }
        (false, "tie") => {
            "does not count for now: a source's value is of the same time, see `rollcall conflicts`"
        }
        (_, "undone") => "an undo has put it there; counts until what it was made against changes",
        (true, "decision") => "counts; somebody has decided so",
        (false, "decision") => "does not count; somebody has decided so",
        _ => "",
    }
}

/// The time that a text names, if it has been: an instant, the begin of a day in UTC, or how long
/// before now; microseconds since the Unix epoch.
pub(super) fn ago(text: &str, now_us: i64) -> Option<i64> {
    let us = if let Some((unit, seconds)) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
        let number: i64 = text.strip_suffix(*unit)?.parse().ok()?;
        let us = number.checked_mul(*seconds)?.checked_mul(1_000_000)?;
        now_us.checked_sub(us)?
    } else if let Ok(day) = text.parse::<jiff::civil::Date>()
        && text.len() == 10
    {
        let begin = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        begin.timestamp().as_microsecond()
    } else {
        text.parse::<jiff::Timestamp>().ok()?.as_microsecond()
    };
    (us <= now_us).then_some(us)
}

const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The time that a text names, if it is to come; microseconds since the Unix epoch.
fn until(text: &str, now_us: i64) -> Option<i64> {
    let us = if let Some((unit, seconds)) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
        let number: i64 = text.strip_suffix(*unit)?.parse().ok()?;
        let us = number.checked_mul(*seconds)?.checked_mul(1_000_000)?;
        now_us.checked_add(us)?
    } else if let Ok(day) = text.parse::<jiff::civil::Date>()
        && text.len() == 10
    {
        let behind = day.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC);
        behind.ok()?.timestamp().as_microsecond()
    } else {
        text.parse::<jiff::Timestamp>().ok()?.as_microsecond()
    };
    (us > now_us).then_some(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_ends_at_a_day_an_instant_or_after_a_while() {
        let second = 1_000_000;
        let cases = [
            ("1970-01-02", Some(2 * 86_400 * second)),
            ("1970-01-02T00:00:00Z", Some(86_400 * second)),
            ("30d", Some(30 * 86_400 * second + 5)),
            ("12h", Some(12 * 3_600 * second + 5)),
            ("90m", Some(5_400 * second + 5)),
            ("45s", Some(45 * second + 5)),
            ("0s", None),
            ("-1d", None),
            ("1969-12-31", None),
            ("9999999999999999d", None),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(until(text, 5), expected, "{text}");
        }
    }

    #[test]
    fn an_undo_begins_at_a_day_an_instant_or_a_while_ago() {
        let day = 86_400_000_000;
        let cases = [
            ("1970-01-02", Some(day)),
            ("1970-01-02T00:00:01Z", Some(day + 1_000_000)),
            ("1d", Some(day)),
            ("90m", Some(2 * day - 5_400_000_000)),
            ("0s", Some(2 * day)),
            ("1970-01-04", None),
            ("-1d", None),
            ("yesterday", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ago(text, 2 * day), expected, "{text}");
        }
    }
}
