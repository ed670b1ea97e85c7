//! The commands: one file for each, and what they share.
//!
//! Results go to standard output (one JSON document with `--json`), what went wrong goes to
//! standard error, and the exit code says how it ended ([`exit::Exit`]). Commands that only
//! read open the store beside a running daemon.

pub mod apply;
pub mod check;
pub mod config;
pub mod conflicts;
pub mod discover;
pub mod edit;
pub mod events;
pub mod exit;
pub mod follow;
pub mod mapping;
pub mod output;
pub mod plan;
pub mod preview;
pub mod reconcile;
pub mod run;
pub mod runs;
pub mod secret;
mod shown;
pub mod simulate;
pub mod socket;
pub mod status;
pub mod sync;
pub mod undo;
pub mod users;
pub mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{Config, Outline};
use exit::{Exit, Failure};

/// Keeps an identity directory in step with the databases you already have.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// The configuration.
    #[arg(
        short,
        long,
        global = true,
        default_value = "rollcall.toml",
        env = "ROLLCALL_CONFIG",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 configuration not valid · \
4 a check found an error · 5 the store cannot be used · 6 directory and source differ, a mapping test failed, or a plan was refused · \
7 no daemon runs · 8 another instance took over · 9 not found";

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    #[command(after_help = "Example:\n  rollcall -c /etc/rollcall/rollcall.toml run")]
    Run,
    /// Check the configuration and every source and sink; print what the operator has to run.
    #[command(
        after_help = "Examples:\n  rollcall check\n  rollcall check hr --script > setup.sql\n  rollcall check --json | jq '.[].findings'"
    )]
    Check(check::Args),
    /// List tables, columns, types, keys and row estimates of a source's database.
    #[command(
        after_help = "Examples:\n  rollcall discover hr\n  rollcall discover --url postgres://rollcall@db.example.com/hr --write-config rollcall.toml --table public.employees"
    )]
    Discover(discover::Args),
    /// Show real rows, the attributes that they become, and the rule that made each.
    #[command(after_help = "Example:\n  rollcall preview hr --limit 5")]
    Preview(preview::Args),
    /// Show sources with state, lag and position, sinks, users and conflicts.
    #[command(
        after_help = "Examples:\n  rollcall status\n  rollcall status --json | jq '.sources[].state'"
    )]
    Status,
    /// List, search and show users, with the reason of each value; write values.
    #[command(
        after_help = "Examples:\n  rollcall users list --active false\n  rollcall users search garcia\n  rollcall users show ana@example.com\n  rollcall users show hr:4711\n  rollcall users set ana@example.com title=\"Head of Sales\" --pin --until 2026-12-31 --reason \"acting head\"\n  rollcall users unset ana@example.com title"
    )]
    Users(users::Args),
    /// List, show and decide conflicts: what a person must correct at the source, or answer.
    #[command(
        after_help = "Examples:\n  rollcall conflicts --all\n  rollcall conflicts show 5f0c9a2b7d1e4c33\n  rollcall conflicts resolve 5f0c9a2b7d1e4c33 --take 2"
    )]
    Conflicts(conflicts::Args),
    /// Read events behind a sequence, and follow.
    #[command(
        after_help = "Examples:\n  rollcall events --after 0\n  rollcall events --after 1200 --follow"
    )]
    Events(events::Args),
    /// List runs with their counts, and show the records that one skipped or that failed.
    #[command(
        after_help = "Examples:\n  rollcall runs --source hr --kind load --limit 10\n  rollcall runs show 12\n  rollcall runs show 12 --json | jq '.records[]'"
    )]
    Runs(runs::Args),
    /// Show what a reconciliation would do, without doing it; list, show, approve and discard
    /// changes that are too many to be applied unseen.
    #[command(
        after_help = "Examples:\n  rollcall plan hr\n  rollcall plan hr --with new.toml --out plan.json\n  rollcall plan hr --format csv --out plan.csv\n  rollcall plan list\n  rollcall plan show hr\n  rollcall plan approve 6f1c0e6b0f7d4c1f9a7f1f0f2b8a4d35\n  rollcall plan discard 6f1c0e6b0f7d4c1f9a7f1f0f2b8a4d35"
    )]
    Plan(plan::Args),
    /// Have the running daemon read a source whole and make the directory equal to it.
    #[command(after_help = "Examples:\n  rollcall reconcile hr\n  rollcall reconcile hr --detach")]
    Reconcile(reconcile::Args),
    /// Bring a source in step now: one pass, as its schedule or its webhook would begin it.
    #[command(
        after_help = "Examples:\n  rollcall sync hr\n  rollcall sync hr --key 4711 --key 4712\n  rollcall sync hr --user ana@example.com"
    )]
    Sync(sync::Args),
    /// Show what taking back what a run did to users would mean, field by field, and what is left
    /// out because it changed since; `rollcall apply` does it.
    #[command(
        after_help = "Examples:\n  rollcall undo 12\n  rollcall undo 12 --out undo.json && rollcall apply undo.json\n  rollcall undo --since 2h --source hr\n  rollcall undo --since 2026-11-30T09:00:00Z --until 2026-11-30T09:30:00Z --user ana@example.com"
    )]
    Undo(undo::Args),
    /// Have the running daemon apply a plan, exactly as it is, or refuse it.
    #[command(after_help = "Examples:\n  rollcall apply plan.json\n  rollcall apply undo.json")]
    Apply(apply::Args),
    /// Prove that the directory equals its source, or name the records that differ.
    #[command(after_help = "Examples:\n  rollcall verify hr\n  rollcall verify hr --show-values")]
    Verify(verify::Args),
    /// Test a mapping against fixtures.
    #[command(after_help = "Example:\n  rollcall mapping test tests/hr.toml")]
    Mapping(mapping::Args),
    /// Make keys, and seal credentials for the configuration.
    Secret(secret::SecretArgs),
    /// Explain the configuration, or print its JSON Schema.
    Config(config::ConfigArgs),
}

/// Runs a command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() && wants_json(std::env::args_os()) => {
            let failure = misused(&e);
            output::complain(true, &failure);
            return failure.exit.into();
        }
        // Help and version are texts.
        Err(e) => e.exit(),
    };
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(cli.json, &failure);
            failure.exit.into()
        }
    }
}

/// Whether a command line that cannot be understood asks for JSON.
fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    let mut options = args.skip(1).take_while(|arg| arg != "--");
    options.any(|arg| arg == "--json")
}

/// A command line that cannot be understood, as any other failure.
fn misused(e: &clap::Error) -> Failure {
    let sentence = match e.kind() {
        // The text is the whole help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "the command line is not complete. Fix: see `rollcall --help`".to_owned()
        }
        _ => {
            let text = e.render().to_string();
            text.trim().trim_start_matches("error: ").to_owned()
        }
    };
    Failure::new(Exit::Usage, sentence)
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Run => run::run(cli),
        Command::Check(args) => check::run(cli, args),
        Command::Discover(args) => discover::run(cli, args),
        Command::Preview(args) => preview::run(cli, args),
        Command::Status => status::run(cli),
        Command::Users(args) => users::run(cli, args),
        Command::Conflicts(args) => conflicts::run(cli, args),
        Command::Events(args) => events::run(cli, args),
        Command::Runs(args) => runs::run(cli, args),
        Command::Plan(args) => plan::run(cli, args),
        Command::Reconcile(args) => reconcile::run(cli, args),
        Command::Sync(args) => sync::run(cli, args),
        Command::Undo(args) => undo::run(cli, args),
        Command::Apply(args) => apply::run(cli, args),
        Command::Verify(args) => verify::run(cli, args),
        Command::Mapping(args) => mapping::run(cli, args),
        Command::Secret(args) => {
            secret::run(
                args,
                &cli.config,
                &crate::config::ProcessEnvironment,
                cli.json,
                &mut std::io::stdout().lock(),
            )?;
            Ok(Exit::Ok)
        }
        Command::Config(args) => {
            config::run(args, cli.json, &mut std::io::stdout().lock())?;
            Ok(Exit::Ok)
        }
    }
}

impl Cli {
    /// The configuration with its credentials.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.config).map_err(|e| Failure::new(Exit::Configuration, e.to_string()))
    }

    /// The configuration for commands that connect to nothing.
    pub(crate) fn outline(&self) -> Result<Outline, Failure> {
        Outline::load(&self.config).map_err(|e| Failure::new(Exit::Configuration, e.to_string()))
    }

    /// The store, to read beside a daemon that may be running.
    pub(crate) fn readers(&self) -> Result<rollcall_store::Readers, Failure> {
        let outline = self.outline()?;
        Ok(rollcall_store::Readers::open_readonly(
            &outline.store.path,
            &outline.organization,
        )?)
    }
}

/// A runtime for commands that talk to servers.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Two providers may be compiled in; the first one that is installed stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    #[test]
    fn a_command_line_that_is_not_understood_is_a_failure_like_any_other() {
        for line in [
            "--json bogus",
            "--json preview hr --limit x",
            "users show --json",
            "--json users",
            "--json",
        ] {
            let args = || ["rollcall"].into_iter().chain(line.split(' '));
            assert!(wants_json(args().map(OsString::from)), "{line}");
            let e = Cli::try_parse_from(args()).unwrap_err();
            assert!(e.use_stderr(), "{line}");
            let failure = misused(&e);
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            assert!(!failure.sentence.starts_with("error"), "{line}");
            assert!(!failure.sentence.contains('\u{1b}'), "{line}");
        }
        for line in ["--json --help", "--json users --help", "--json --version"] {
            let args = ["rollcall"].into_iter().chain(line.split(' '));
            assert!(
                !Cli::try_parse_from(args).unwrap_err().use_stderr(),
                "{line}"
            );
        }
        let plain = ["rollcall", "sync", "hr", "--key", "x", "--", "--json"];
        assert!(!wants_json(plain.into_iter().map(OsString::from)));
    }
}
