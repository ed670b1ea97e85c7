//! `rollcall plan`: what a reconciliation of a source would do, without doing it.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::config::Config;
use crate::simulation::plan::{Change, Plan};
use crate::{connect, simulation};

/// The table shows at most so many changes.
pub(super) const SHOWN: usize = 50;

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
    /// How to show the plan: a table of it, or all of it. JSON is what `rollcall apply` takes.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the plan to a file that only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How a plan is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// The counts, and the first changes.
    Table,
    /// Everything.
    Json,
    /// One line for each field that changes.
    Csv,
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
    let plan = plan?;
    let is_json = cli.json || args.out.is_some();
    let format = args
        .format
        .unwrap_or(if is_json { Format::Json } else { Format::Table });
    let Some(path) = &args.out else {
        match format {
            Format::Table => table(&plan)?,
            Format::Json => output::json(&plan)?,
            Format::Csv => csv(plan.changes.iter(), &mut io::stdout().lock())?,
        }
        return Ok(Exit::Ok);
    };
    let mut out = io::BufWriter::new(private(path)?);
    match format {
        Format::Table => {
            let sentence = "a table is for people to look at. Fix: `--format json` or `--format csv` with --out";
            return Err(Failure::new(Exit::Usage, sentence));
        }
        Format::Json => serde_json::to_writer_pretty(&mut out, &plan).map_err(io::Error::from)?,
        Format::Csv => csv(plan.changes.iter(), &mut out)?,
    }
    out.flush()?;
    summary(&plan)?;
    output::line(format_args!(
        "{} holds personal data; only you can read it (mode 0600){}",
        path.display(),
        match format {
            Format::Json => format!(". Apply it with `rollcall apply {}`", path.display()),
            _ => String::new(),
        }
    ))?;
    Ok(Exit::Ok)
}

/// A file that nobody else can read, emptied before it is given to us.
pub(super) fn private(path: &Path) -> Result<std::fs::File, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| {
            // One that was there keeps its mode otherwise.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        });
    file.map_err(|e| {
        let sentence = format!("{} cannot be written: {e}", path.display());
        Failure::new(Exit::Failed, sentence)
    })
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

/// The lines of a change in a table: one for each field, the first with what they share.
pub(super) fn rows(change: &Change) -> Vec<Vec<String>> {
    let shared = [
        change.records.join(" "),
        change.user_name.clone().unwrap_or_default(),
        change.action.clone(),
        change.reason.clone(),
    ];
    let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "–".to_owned());
    let mut lines: Vec<Vec<String>> = change
        .fields
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let mut line = if i == 0 {
                shared.to_vec()
            } else {
                vec![String::new(); shared.len()]
            };
            line.extend([
                field.attribute.clone(),
                value(&field.before),
                value(&field.after),
                field.rule.clone(),
            ]);
            line
        })
        .collect();
    if lines.is_empty() {
        let mut line = shared.to_vec();
        line.extend(vec![String::new(); 4]);
        lines.push(line);
    }
    lines
}

/// RFC 4180: one line for each field that changes, and one for a change without fields.
pub(super) fn csv(
    changes: impl Iterator<Item = io::Result<Change>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut line = |cells: [&str; 10]| {
        for (i, cell) in cells.iter().enumerate() {
            if i > 0 {
                out.write_all(b",")?;
            }
            if cell.contains(['"', ',', '\r', '\n']) {
                write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
            } else {
                out.write_all(cell.as_bytes())?;
            }
        }
        out.write_all(b"\r\n")
    };
    line([
        "records",
        "user",
        "user_name",
        "action",
        "reason",
        "counted",
        "attribute",
        "before",
        "after",
        "rule",
    ])?;
    for change in changes {
        let change = &change?;
        let records = change.records.join(" ");
        let text = |v: &'_ Option<String>| v.clone().unwrap_or_default();
        let (user, name, counted) = (
            text(&change.user),
            text(&change.user_name),
            text(&change.counted),
        );
        let mut shared = [""; 10];
        shared[..6].copy_from_slice(&[
            &records,
            &user,
            &name,
            &change.action,
            &change.reason,
            &counted,
        ]);
        if change.fields.is_empty() {
            line(shared)?;
        }
        for field in &change.fields {
            let (before, after) = (text(&field.before), text(&field.after));
            let mut cells = shared;
            cells[6..].copy_from_slice(&[&field.attribute, &before, &after, &field.rule]);
            line(cells)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::plan::Field;

    #[test]
    fn csv_quotes_what_would_end_a_cell_and_writes_one_line_for_each_field() {
        let mut plan = Plan::new("acme", "hr");
        let field = |attribute: &str, after: &str| Field {
            attribute: attribute.to_owned(),
            before: None,
            after: Some(after.to_owned()),
            rule: "title = column job".to_owned(),
        };
        let change = Change {
            records: vec!["7".to_owned()],
            user: None,
            user_name: Some("ana".to_owned()),
            action: "created".to_owned(),
            reason: "record_joined".to_owned(),
            counted: None,
            fields: vec![field("title", "Head, \"R&D\""), field("department", "x")],
        };
        assert!(plan.changes.push((0, 0), &change).is_ok());
        let mut out = Vec::new();
        assert!(csv(plan.changes.iter(), &mut out).is_ok());
        let text = String::from_utf8_lossy(&out).into_owned();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(
            lines[1],
            "7,,ana,created,record_joined,,title,,\"Head, \"\"R&D\"\"\",title = column job"
        );
        assert!(lines[2].contains(",department,,x,"), "{text}");
    }
}
