//! Plans, as a terminal, a script or a file wants them.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::simulation::plan::Change;

/// The table shows at most so many changes.
pub(super) const SHOWN: usize = 50;

/// How somebody wants a plan.
#[derive(Debug, clap::Args)]
#[group(id = "wanted")]
pub(super) struct Wanted {
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

/// A plan that can be shown. As a whole it is what `rollcall apply` takes.
pub(super) trait Shown: Serialize {
    /// Prints its counts.
    fn summary(&self) -> Result<(), Failure>;

    /// Prints its counts and the first changes.
    fn table(&self) -> Result<(), Failure>;

    /// Everything that it says, change by change.
    fn lines(&self) -> impl Iterator<Item = io::Result<Change>>;
}

/// Shows a plan, or writes it to a file and shows its counts.
pub(super) fn give(cli: &Cli, wanted: &Wanted, plan: &impl Shown) -> Result<Exit, Failure> {
    let is_json = cli.json || wanted.out.is_some();
    let usual = if is_json { Format::Json } else { Format::Table };
    let format = wanted.format.unwrap_or(usual);
    let Some(path) = &wanted.out else {
        match format {
            Format::Table => plan.table()?,
            Format::Json => output::json(plan)?,
            Format::Csv => csv(plan.lines(), &mut io::stdout().lock())?,
        }
        return Ok(Exit::Ok);
    };
    // Before there is a file, or one that was there is emptied.
    if format == Format::Table {
        let sentence =
            "a table is for people to look at. Fix: `--format json` or `--format csv` with --out";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let mut out = io::BufWriter::new(private(path)?);
    match format {
        Format::Csv => csv(plan.lines(), &mut out)?,
        _ => serde_json::to_writer_pretty(&mut out, plan).map_err(io::Error::from)?,
    }
    out.flush()?;
    plan.summary()?;
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
fn private(path: &Path) -> Result<std::fs::File, Failure> {
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

/// What a spreadsheet would take for a formula
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// RFC 4180: one line for each field that changes, and one for a change without fields. A cell
/// that a spreadsheet would calculate with has an apostrophe in front, which makes it a text.
fn csv(changes: impl Iterator<Item = io::Result<Change>>, out: &mut impl Write) -> io::Result<()> {
    let mut line = |cells: [&str; 10]| {
        for (i, cell) in cells.iter().enumerate() {
            if i > 0 {
                out.write_all(b",")?;
            }
            let guard = if cell.starts_with(FORMULA) { "'" } else { "" };
            if cell.contains(['"', ',', '\r', '\n']) {
                write!(out, "\"{guard}{}\"", cell.replace('"', "\"\""))?;
            } else {
                write!(out, "{guard}{cell}")?;
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
    use crate::simulation::plan::{Field, Plan};

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
            fields: vec![
                field("title", "Head, \"R&D\""),
                field("department", "x"),
                field("nickName", "=HYPERLINK(\"x\",1)"),
                field("locale", "-1"),
            ],
        };
        assert!(plan.changes.push((0, 0), &change).is_ok());
        let mut out = Vec::new();
        assert!(csv(plan.changes.iter(), &mut out).is_ok());
        let text = String::from_utf8_lossy(&out).into_owned();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(
            lines[1],
            "7,,ana,created,record_joined,,title,,\"Head, \"\"R&D\"\"\",title = column job"
        );
        assert!(lines[2].contains(",department,,x,"), "{text}");
        assert!(
            lines[3].contains(",\"'=HYPERLINK(\"\"x\"\",1)\","),
            "{text}"
        );
        assert!(lines[4].contains(",locale,,'-1,"), "{text}");
    }
}
