//! `rollcall verify`: proves that the directory is its source, or names what differs, by key
//! and field, without values unless they are asked for. How it is proved: [`crate::proof`].

use std::time::Duration;

use rollcall_core::attribute::Attributes;
use rollcall_store::Readers;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::config::{Config, SourceConfig};
use crate::proof::{Pace, Proof, ProofError, Prover, schema_versions};
use crate::sync::joined::{Bound, Tables};
use crate::{connect, sync};

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source; may be left out when there is only one.
    source: Option<String>,
    /// Show the differing values too.
    #[arg(long)]
    show_values: bool,
    /// How long a difference may be on its way, in seconds.
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

impl From<ProofError> for Failure {
    fn from(e: ProofError) -> Failure {
        match e {
            ProofError::Source(e) => e.into(),
            ProofError::Store(e) => e.into(),
        }
    }
}

/// The named source, or the only one.
pub(super) fn one_source<'c>(
    config: &'c Config,
    name: Option<&str>,
) -> Result<&'c SourceConfig, Failure> {
    match (name, config.sources.as_slice()) {
        (Some(name), _) => config.source(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no source named {name:?}"))
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(
            Exit::Usage,
            "there are several sources: name one of them",
        )),
    }
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let config = cli.load()?;
    let source = one_source(&config, args.source.as_deref())?;
    let readers = Readers::open_readonly(&config.store.path, &config.organization)?;
    let proof = super::runtime()?.block_on(prove(&config, source, &readers, args))?;
    if cli.json {
        output::json(&proof)?;
    } else {
        print(&proof)?;
    }
    Ok(if proof.equal { Exit::Ok } else { Exit::Differs })
}

async fn prove(
    config: &Config,
    source: &SourceConfig,
    readers: &Readers,
    args: &Args,
) -> Result<Proof, Failure> {
    let Some(row) = readers.source(&source.name)? else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("the store knows nothing of {:?} yet", source.name),
        ));
    };
    let connector = connect::source(&config.organization, source);
    let attributes = Attributes::new(readers.custom_attributes()?);
    let spec = connect::mapping_spec(source);
    let Bound { schema, join } = Tables::of(&*connector, &spec).await?.bound(&spec)?;
    let mapper = sync::mapper::compile(
        &spec,
        &schema_versions(readers, row.id, &schema)?,
        &attributes,
    )?;
    let of = (row.id, source.name.as_str());
    let prover = Prover::new(readers, of, mapper, attributes, args.show_values)?
        .with_related(&spec.related, join);
    let pace = Pace {
        page_rows: source.batch.page_rows,
        page_bytes: usize::try_from(source.batch.page_size_bytes).unwrap_or(usize::MAX),
        patience: Duration::from_secs(args.patience),
    };
    Ok(prover.prove(&*connector, pace).await?)
}

fn print(proof: &Proof) -> Result<(), Failure> {
    let counts = format!(
        "{} records: {} applied, {} out of scope, {} held, {} failed",
        proof.records, proof.applied, proof.out_of_scope, proof.held, proof.failed
    );
    let position = &proof.position;
    if proof.equal {
        output::line(format_args!(
            "directory = source as of position {position} ({counts})"
        ))?;
    } else {
        output::line(format_args!(
            "{} records differ as of position {position} ({counts})",
            proof.differing
        ))?;
    }
    for drift in &proof.drifted {
        let on_its_way = match drift.proved {
            true => "",
            false => " (the log is not taken in that far: it may be on its way)",
        };
        output::line(format_args!(
            "  {}: {}{on_its_way}",
            drift.record, drift.what
        ))?;
        for field in &drift.fields {
            let values = match (&field.source, &field.directory) {
                (None, None) => String::new(),
                (source, directory) => format!(
                    ": source {:?}, directory {:?}",
                    source.as_deref().unwrap_or("–"),
                    directory.as_deref().unwrap_or("–")
                ),
            };
            output::line(format_args!("    {}{values}", field.attribute))?;
        }
    }
    let unnamed = proof.differing - proof.drifted.len() as u64;
    if unnamed > 0 {
        output::line(format_args!("  and {unnamed} more"))?;
    }
    few(
        proof.staged,
        "have a change that waits in a plan (rollcall plan list)",
        &proof.staged_records,
    )?;
    few(
        proof.moving,
        "were changed whenever they were looked at, and are not proved",
        &proof.moving_records,
    )
}

/// Says how many records are so, and names the first.
fn few(all: u64, are: &str, named: &[String]) -> Result<(), Failure> {
    const SHOWN: usize = 100;
    if all == 0 {
        return Ok(());
    }
    output::line(format_args!("{all} records {are}:"))?;
    for record in named.iter().take(SHOWN) {
        output::line(format_args!("  {record}"))?;
    }
    let unnamed = all - named.len().min(SHOWN) as u64;
    if unnamed > 0 {
        output::line(format_args!("  and {unnamed} more"))?;
    }
    Ok(())
}
