//! `rollcall discover`: what a database has, and a configuration to begin with.
//!
//! It works from a configuration, or from a URL before there is one. The configuration that
//! it writes is commented, and its mapping is a guess from the names of the columns, each
//! with the reason for it.

mod draft;
mod place;

use std::path::PathBuf;

use rollcall_contract::RelationKind;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::connect;
use place::Place;

/// Where to look.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A source of the configuration; may be left out when there is only one.
    source: Option<String>,
    /// Without a configuration: postgres://user@host:port/database, or mysql:// or
    /// mariadb://, where the database may be left out. The password is taken from the
    /// environment variable PGPASSWORD or MYSQL_PWD.
    #[arg(long, conflicts_with = "source")]
    url: Option<String>,
    /// Only this table (schema.name).
    #[arg(long)]
    table: Option<String>,
    /// Write a commented configuration to begin with; the file must not exist.
    #[arg(long, value_name = "FILE", requires = "table")]
    write_config: Option<PathBuf>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let place = match &args.url {
        Some(url) => Place::parse(url, |name| std::env::var(name).ok())?,
        None => {
            let config = cli.load()?;
            Place::of(super::verify::one_source(&config, args.source.as_deref())?)
        }
    };
    let connector = connect::server(place.kind, &place.server, place.database.as_deref());
    let mut tables = super::runtime()?.block_on(connector.discover())?;
    if let Some(schema) = place.only_schema() {
        tables.retain(|t| t.schema.table.schema == schema);
    }
    if let Some(wanted) = &args.table {
        tables.retain(|t| t.schema.table.to_string() == *wanted || t.schema.table.name == *wanted);
        if tables.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no table {wanted:?} that this role can see"),
            ));
        }
    }
    if let Some(file) = &args.write_config {
        let table = tables
            .first()
            .ok_or_else(|| Failure::new(Exit::NotFound, "no table"))?;
        let draft = draft::draft(table, &place);
        write_new(file, &draft.text)?;
        if cli.json {
            output::json(&serde_json::json!({ "file": file, "fill_in": draft.fill_in }))?;
            return Ok(Exit::Ok);
        }
        output::line(format_args!(
            "wrote {}; look at it, then run `rollcall check`",
            file.display()
        ))?;
        if let Some(sentence) = &draft.fill_in {
            output::line(sentence)?;
        }
        return Ok(Exit::Ok);
    }
    if cli.json {
        output::json(&tables)?;
        return Ok(Exit::Ok);
    }
    for table in &tables {
        let rows = table
            .estimated_rows
            .map_or("rows unknown".to_owned(), |n| format!("about {n} rows"));
        let kind = match table.kind {
            RelationKind::Table => "table",
            RelationKind::PartitionedTable => "partitioned table",
            RelationKind::View => "view",
            RelationKind::ForeignTable => "foreign table",
        };
        output::line(format_args!("{} ({kind}, {rows})", table.schema.table))?;
        if let Some(obstacle) = &table.obstacle {
            let key = match table.schema.key.is_empty() {
                true => ", with a `key` that identifies its rows",
                false => "",
            };
            output::line(format_args!(
                "  cannot be followed: {obstacle} It can be polled{key}."
            ))?;
        }
        for (i, column) in table.schema.columns.iter().enumerate() {
            let key = if table.schema.key.contains(&i) {
                " key"
            } else {
                ""
            };
            let null = if column.nullable { "" } else { " not null" };
            output::line(format_args!(
                "  {:<28} {}{null}{key}",
                column.name, column.type_name
            ))?;
        }
        for column in &table.generated {
            output::line(format_args!("  {column:<28} generated: not in the log"))?;
        }
    }
    Ok(Exit::Ok)
}

/// Makes the file, never over another one.
fn write_new(file: &std::path::Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let refused = |e: std::io::Error| {
        Failure::new(
            Exit::Failed,
            format!("{} cannot be written: {e}", file.display()),
        )
    };
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .map_err(refused)?;
    out.write_all(text.as_bytes()).map_err(refused)
}
