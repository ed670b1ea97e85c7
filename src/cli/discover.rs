//! `rollcall discover`: what a database has, and a configuration to begin with.
//!
//! It works from a configuration, or from a URL before there is one. The configuration that
//! it writes is commented, and its mapping is a guess from the names of the columns, each
//! with the reason for it.

use std::fmt::Write as _;
use std::path::PathBuf;

use rollcall_contract::{DiscoveredTable, RelationKind, Source, TableName};
use rollcall_core::mapping::RuleKind;
use rollcall_core::mapping::guess::guess;
use rollcall_postgres::PostgresSource;
use rollcall_postgres::config::PostgresConfig;
use secrecy::SecretString;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::connect;

/// Where to look.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A source of the configuration; may be left out when there is only one.
    source: Option<String>,
    /// Without a configuration: postgres://user@host:port/database. The password is taken
    /// from the environment variable PGPASSWORD.
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
    let (connector, place): (std::sync::Arc<dyn Source>, Option<Place>) = match &args.url {
        Some(url) => {
            let place = Place::parse(url)?;
            (
                std::sync::Arc::new(PostgresSource::new(place.config())),
                Some(place),
            )
        }
        None => {
            let config = cli.load()?;
            let source = super::verify::one_source(&config, args.source.as_deref())?;
            (connect::source(source), None)
        }
    };
    let mut tables = super::runtime()?.block_on(connector.discover())?;
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
        let text = starting_config(table, place.as_ref());
        write_new(file, &text)?;
        match cli.json {
            true => output::json(&serde_json::json!({ "file": file }))?,
            false => output::line(format_args!(
                "wrote {}; look at it, then run `rollcall check`",
                file.display()
            ))?,
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
            output::line(format_args!("  cannot be followed: {obstacle}"))?;
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

/// The parts of a URL.
struct Place {
    user: String,
    host: String,
    port: u16,
    database: String,
}

impl Place {
    fn parse(url: &str) -> Result<Place, Failure> {
        let parse = || {
            let rest = url
                .strip_prefix("postgres://")
                .or_else(|| url.strip_prefix("postgresql://"))?;
            let (user, rest) = rest.split_once('@')?;
            let (address, database) = rest.split_once('/')?;
            if user.contains(':') || database.is_empty() {
                return None;
            }
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (address, 5432),
            };
            let host = host.replace("%2F", "/").replace("%2f", "/");
            Some(Place {
                user: user.to_owned(),
                host,
                port,
                database: database.to_owned(),
            })
        };
        parse().ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "--url must read postgres://user@host:port/database, without a password (set PGPASSWORD instead)",
            )
        })
    }

    fn config(&self) -> PostgresConfig {
        let mut config = PostgresConfig::new(
            &self.host,
            &self.database,
            &self.user,
            TableName::new("public", ""),
        );
        config.port = self.port;
        config.password = std::env::var("PGPASSWORD").ok().map(SecretString::from);
        config
    }
}

/// A commented configuration with a guessed mapping.
fn starting_config(table: &DiscoveredTable, place: Option<&Place>) -> String {
    let guess = guess(&table.schema);
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = String::new();
    // Writing to a string cannot fail.
    // What a column is called must not end a comment.
    let remark = |text: &str| text.replace(char::is_control, " ");
    let _ = write!(
        out,
        "# A configuration to begin with. `rollcall config --explain` explains every key,\n\
         # `rollcall check` says what is missing, `rollcall preview` shows what rows become.\n\
         organization = \"acme\"                # change me: lower-case letters, digits, hyphens\n\n\
         [store]\npath = \"/var/lib/rollcall\"\n\n\
         [source.hr]\ntype = \"postgres\"\n"
    );
    let (host, port, database, user) = place.map_or(
        (
            "localhost".to_owned(),
            5432,
            "postgres".to_owned(),
            "rollcall".to_owned(),
        ),
        |p| (p.host.clone(), p.port, p.database.clone(), p.user.clone()),
    );
    let _ = writeln!(out, "host = {}\nport = {port}", quoted(&host));
    let _ = writeln!(
        out,
        "database = {}\nuser = {}",
        quoted(&database),
        quoted(&user)
    );
    let _ = writeln!(
        out,
        "password = {{ env = \"PGPASSWORD\" }}   # or {{ sealed = … }}: see `rollcall secret seal`"
    );
    let _ = writeln!(out, "table = {}", quoted(&table.schema.table.to_string()));
    let key: Vec<String> = table
        .schema
        .key
        .iter()
        .map(|&i| quoted(&table.schema.columns[i].name))
        .collect();
    if key.is_empty() {
        let _ = writeln!(
            out,
            "# key = [\"…\"]                      # this table has no primary key: name what identifies a record"
        );
    } else {
        let _ = writeln!(out, "key = [{}]", key.join(", "));
    }
    if let Some(obstacle) = &table.obstacle {
        let _ = writeln!(out, "# It cannot be followed yet: {}", remark(obstacle));
    }
    if !guess.redact.is_empty() {
        let columns: Vec<String> = guess.redact.iter().map(|c| quoted(c)).collect();
        let _ = writeln!(
            out,
            "redact = [{}]                 # never stored",
            columns.join(", ")
        );
    }
    let _ = writeln!(
        out,
        "# scope = \"status != 'contractor'\"     # which records are users; all by default"
    );
    let _ = writeln!(
        out,
        "\n[source.hr.map]                    # guessed from the names of the columns"
    );
    for guessed in &guess.rules {
        let rule = &guessed.rule;
        let name = if rule.attribute.starts_with("custom.") || !rule.attribute.contains('.') {
            rule.attribute.clone()
        } else {
            quoted(&rule.attribute)
        };
        let column = |c: &str| match &rule.split {
            Some(split) => format!("{{ column = {}, split = {} }}", quoted(c), quoted(split)),
            None => quoted(c),
        };
        let value = match &rule.kind {
            RuleKind::Column(c) => column(c),
            RuleKind::Expr(e) => format!("{{ expr = {} }}", quoted(e)),
            RuleKind::Constant(_) => continue,
        };
        let _ = writeln!(out, "{name} = {value}   # {}", remark(&guessed.because));
    }
    for (column, why) in &guess.unused {
        let _ = writeln!(out, "# {}: {}", remark(column), remark(why));
    }
    for text in &guess.remarks {
        let _ = writeln!(out, "# {}", remark(text));
    }
    let _ = writeln!(
        out,
        "\n[sink.log]                         # events as lines of JSON\ntype = \"ndjson\"\npath = \"-\""
    );
    out
}
