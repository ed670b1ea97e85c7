//! `rollcall mapping test`: fixtures of rows and what they must become.
//!
//! The form of a fixture file is described in docs/mapping.md. The table's columns are
//! asked from the source, so a test also fails when the table has changed under it.

use std::path::PathBuf;

use rollcall_core::mapping::fixture::{self, FixtureFile};

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::sync::joined::{Bound, Tables};
use crate::{connect, sync};

/// What to do with mappings.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Map the rows of a file and compare.
    Test {
        /// The fixtures, TOML or JSON.
        file: PathBuf,
        /// The source; may be left out when there is only one.
        #[arg(long)]
        source: Option<String>,
    },
}

#[derive(serde::Serialize)]
struct Tested {
    name: String,
    passed: bool,
    differences: Vec<Difference>,
}

#[derive(serde::Serialize)]
struct Difference {
    field: String,
    expected: String,
    actual: String,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let What::Test { file, source } = &args.what;
    let config = cli.load()?;
    let source = super::verify::one_source(&config, source.as_deref())?;
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::new(
            Exit::Failed,
            format!("{} cannot be read: {e}", file.display()),
        )
    })?;
    let wrong = |e: String| Failure::new(Exit::Configuration, format!("{}: {e}", file.display()));
    let fixtures: FixtureFile = if file.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?
    } else {
        toml::from_str(&text).map_err(|e| wrong(e.to_string()))?
    };
    let attributes = super::check::declared_attributes(&config);
    let connector = connect::source(&config.organization, source);
    let spec = connect::mapping_spec(source);
    let tables = super::runtime()?.block_on(Tables::of(&*connector, &spec))?;
    let Bound { schema, .. } = tables.bound(&spec)?;
    let mapper = sync::mapper::compile(&spec, &[(1, (*schema).clone())], &attributes)?;
    let tested: Vec<Tested> = fixture::run(&fixtures, &mapper, &schema, &attributes)
        .into_iter()
        .map(|r| Tested {
            passed: r.passed(),
            name: r.name,
            differences: r
                .differences
                .into_iter()
                .map(|d| Difference {
                    field: d.field,
                    expected: d.expected,
                    actual: d.actual,
                })
                .collect(),
        })
        .collect();
    let failed = tested.iter().filter(|t| !t.passed).count();
    if cli.json {
        output::json(&tested)?;
    } else {
        for test in &tested {
            output::line(format_args!(
                "{} {}",
                if test.passed { "ok    " } else { "FAILED" },
                test.name
            ))?;
            for d in &test.differences {
                output::line(format_args!(
                    "    {}: expected {}, got {}",
                    d.field, d.expected, d.actual
                ))?;
            }
        }
        output::line(format_args!(
            "{} passed, {failed} failed",
            tested.len() - failed
        ))?;
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::Differs })
}
