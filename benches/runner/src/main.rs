//! Measures the promises of speed beside their limits.
//!
//! A figure on a shared machine means little alone, so each one stands beside what the
//! server's own tools reach on the same data, in the same run, turn by turn, and the middle
//! one of three rounds counts. CPU time and memory are those of the whole process that is
//! measured, as the kernel counted them. Every run checks that the daemon has really done
//! what is timed (all users there, no gap, everything delivered) before its time counts.

mod allocator;
mod backlog;
mod configuration;
mod daemon;
mod database;
mod employees;
mod growth;
mod huge;
mod idle;
mod latency;
mod limit;
mod load;
mod neighbour;
mod reader;
mod reconcile;
mod related;
mod report;
mod sources;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use report::Report;
use world::World;

/// What can go wrong, in a sentence.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// A group is not begun when it could not end within 40 minutes of the start.
const LAST_START: Duration = Duration::from_secs(30 * 60);

/// Measures Rollcall beside its limits, and prints `bench <name> <value> <unit>`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only figures whose name begins with this.
    #[arg(long, default_value = "")]
    only: String,
    /// Also the transaction of 10 GB (pg_huge_tx_rss_mib).
    #[arg(long)]
    huge: bool,
    /// The size of that transaction.
    #[arg(long, default_value_t = 10.0)]
    huge_gib: f64,
    /// A try with a tenth of everything; its figures are not valid.
    #[arg(long)]
    quick: bool,
    /// The daemon; beside this program unless said.
    #[arg(long)]
    rollcall: Option<PathBuf>,
    /// Where the figures are written as JSON.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A reader alone: what the runner starts as a child.
    #[command(subcommand, hide = true)]
    Reader(reader::Child),
}

/// Says what goes on, on a line that is no figure.
pub(crate) fn note(text: &str) {
    println!("# {text}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Command::Reader(child)) => reader::run(child),
        None => run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A group: the beginnings of its figures' names, and what measures them.
type Group = (&'static [&'static str], fn(&mut World, &Cli) -> Result<()>);

const GROUPS: &[Group] = &[
    (&["pg_reader_", "pg_stream_"], |world, cli| {
        backlog::run_postgres(world, cli.wants("pg_reader_"), cli.wants("pg_stream_"))
    }),
    (&["pg_load_"], |world, _| load::postgres(world)),
    (
        &[
            "mysql_stream_",
            "mariadb_stream_",
            "mysql_reader_",
            "mysql_decode_",
        ],
        |world, cli| {
            let wanted = backlog::Wanted {
                stream: cli.wants("mysql_stream_") || cli.wants("mariadb_stream_"),
                reader: cli.wants("mysql_reader_"),
                decode: cli.wants("mysql_decode_"),
            };
            backlog::run_binlog(world, wanted)
        },
    ),
    (&["mysql_load_"], |world, _| load::mysql(world)),
    (&["mysql_compressed_"], |world, _| huge::compressed(world)),
    (&["latency_exactly_once_"], |world, _| {
        latency::run(world, "exactly_once")
    }),
    (&["latency_at_least_once_"], |world, _| {
        latency::run(world, "at_least_once")
    }),
    (
        &["reconcile_", "latency_during_reconcile_"],
        |world, cli| {
            let with_latency = cli.wants("reconcile_latency_") || cli.wants("latency_during_");
            reconcile::run(world, cli.wants("reconcile_"), with_latency)
        },
    ),
    (&["idle_"], |world, _| idle::run(world)),
    (&["sources_"], |world, _| sources::run(world)),
    (&["neighbour_"], |world, _| neighbour::run(world)),
    (&["related_"], |world, _| related::run(world)),
    (&["growth_"], |world, _| growth::run(world)),
    (&["pg_huge_"], |world, cli| match cli.huge {
        true => huge::postgres(world, cli.huge_gib),
        false => Ok(()),
    }),
];

impl Cli {
    /// Whether figures whose names begin so are asked for.
    fn wants(&self, names: &str) -> bool {
        names.starts_with(&self.only) || self.only.starts_with(names)
    }
}

fn run(cli: &Cli) -> Result<()> {
    let began = Instant::now();
    let rollcall = match &cli.rollcall {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("rollcall"),
    };
    if cli.quick {
        note("--quick: a tenth of everything; these figures are NOT VALID as measurements");
    }
    if cfg!(debug_assertions) {
        note("this is a debug build; these figures are NOT VALID as measurements");
    }
    let report = Report::new(cli.output.clone(), cli.quick);
    let mut world = World::new(rollcall, report, if cli.quick { 10 } else { 1 })?;
    let mut failed = Vec::new();
    for (names, measure) in GROUPS {
        if !names.iter().any(|n| cli.wants(n)) {
            continue;
        }
        let outcome = if began.elapsed() > LAST_START {
            Err("the time for all benches is over; run it alone with ONLY=".into())
        } else {
            measure(&mut world, cli)
        };
        world.clear();
        if let Err(error) = outcome {
            note(&format!("FAILED {}: {error}", names.join(", ")));
            failed.push(names.join(", "));
        }
    }
    world.report.conclude();
    note(&format!("{:.0} s in all", began.elapsed().as_secs_f64()));
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not measured: {}", failed.join(", ")).into())
    }
}
