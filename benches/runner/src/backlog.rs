//! The same 800,000 changes for the reader, the whole way and the limit.
//!
//! A daemon is started on the empty table until it streams, and stopped in order: its store
//! then knows a position, and its slot stands there. Only after that the changes are made.
//! Each run gets a copy of the slot (and of that store), so every run begins at the same
//! place, none has a gap, and none sees what another has confirmed. One more change stands
//! behind the end position, because `pg_recvlogical` ends when it sees something behind it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rollcall_testbed::Postgres;

use crate::daemon::Daemon;
use crate::employees::{self, DATABASE, KafkaTarget, write_config};
use crate::limit::{Pace, recvlogical};
use crate::reader;
use crate::report::median;
use crate::world::World;
use crate::{Result, note};

const SLOT: &str = "waiting";
const ROUNDS: usize = 3;
const RUN_LIMIT: Duration = Duration::from_secs(300);

struct Backlog {
    server: Postgres,
    folder: PathBuf,
    store: PathBuf,
    /// Where the slot stands.
    from: String,
    /// The end of the changes.
    end: String,
    inserts: u64,
    changes: u64,
    deletes: u64,
}

impl Backlog {
    fn prepare(world: &World) -> Result<Backlog> {
        note("backlog: a server, and 800,000 changes behind a waiting slot (fsync is off there)");
        let server = employees::server().start()?;
        employees::create(&server)?;
        let folder = world.folder("backlog")?;
        let store = folder.join("store");
        let config = write_config(&folder, &server, &store, SLOT, None)?;
        let daemon = Daemon::start(&world.rollcall, &config, &store)?;
        daemon.until_streaming(Duration::from_secs(60))?;
        daemon.stop()?;
        let from = server.psql(
            DATABASE,
            &format!(
                "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
            ),
        )?;
        let inserts = world.scaled(500_000);
        let (updates, deletes) = (inserts / 2, inserts / 10);
        employees::insert(&server, 1, inserts)?;
        employees::update(&server, inserts, 0, updates)?;
        // Half of those who leave had been promoted.
        employees::delete(&server, inserts, updates - deletes / 2, deletes)?;
        let end = employees::head(&server)?;
        employees::insert(&server, inserts + 1, 1)?;
        Ok(Backlog {
            server,
            folder,
            store,
            from,
            end,
            inserts: inserts + 1,
            changes: inserts + updates + deletes + 1,
            deletes,
        })
    }

    fn with_slot<T>(&self, slot: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.server.psql(
            DATABASE,
            &format!("SELECT pg_copy_logical_replication_slot('{SLOT}', '{slot}')"),
        )?;
        let outcome = run()?;
        // The server notices the end of a connection in its own time.
        rollcall_testbed::wait_for(
            Duration::from_secs(20),
            format!("slot {slot} to go"),
            || {
                self.server
                    .psql(
                        DATABASE,
                        &format!("SELECT pg_drop_replication_slot('{slot}')"),
                    )
                    .map(drop)
                    .map_err(|e| e.to_string())
            },
        )?;
        Ok(outcome)
    }

    fn limit(&self, round: usize) -> Result<Pace> {
        let slot = format!("limit_{round}");
        self.with_slot(&slot, || {
            recvlogical(&self.server, &slot, &self.end, self.changes, RUN_LIMIT)
        })
    }

    fn reader(&self, round: usize) -> Result<reader::Outcome> {
        let slot = format!("reader_{round}");
        self.with_slot(&slot, || {
            let way = (self.from.as_str(), self.end.as_str());
            reader::measure(&self.server, &slot, way, self.changes, RUN_LIMIT)
        })
    }

    fn stream(&self, world: &World, round: usize) -> Result<Pace> {
        let slot = format!("stream_{round}");
        let kafka = KafkaTarget {
            bootstrap: world.kafka()?.bootstrap(),
            name: slot.clone(),
            delivery: "exactly_once",
        };
        let store = self.folder.join(&slot);
        copy_store(&self.store, &store)?;
        let config = write_config(&self.folder, &self.server, &store, &slot, Some(&kafka))?;
        self.with_slot(&slot, || {
            let daemon = Daemon::start(&world.rollcall, &config, &store)?;
            let status = daemon.until_delivered(&self.end, RUN_LIMIT)?;
            let took = daemon.started.elapsed();
            let used = daemon.stat()?;
            if status.sources.iter().any(|s| !s.gaps.is_empty())
                || status.users != self.inserts
                || status.active != self.inserts - self.deletes
                || status.outbox_head < self.changes
            {
                return Err(format!(
                    "after {} inserts and {} deletes the daemon says {}",
                    self.inserts,
                    self.deletes,
                    status.describe()
                )
                .into());
            }
            daemon.stop()?;
            std::fs::remove_dir_all(&store)?;
            Ok(Pace::new(self.changes, took, used))
        })
    }
}

/// Copies a store that no daemon has open.
fn copy_store(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the store {} could not be copied", from.display()).into())
    }
}

fn middle<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(of).collect())
}

/// Measures the reader alone, the whole way, or both, beside the limit.
pub(crate) fn run(world: &mut World, with_reader: bool, with_stream: bool) -> Result<()> {
    if with_stream {
        // Before the rounds, so that its start is in none of them.
        world.kafka()?;
    }
    let backlog = Backlog::prepare(world)?;
    let (mut limits, mut readers, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let limit = backlog.limit(round)?;
        let mut line = format!(
            "round {round}: pg_recvlogical {:.0} rows/s",
            limit.rows_per_s
        );
        if with_reader {
            let outcome = backlog.reader(round)?;
            line += &format!(", reader {:.0}", outcome.pace.rows_per_s);
            readers.push((outcome.pace.rows_per_s / limit.rows_per_s, outcome));
        }
        if with_stream {
            let pace = backlog.stream(world, round)?;
            line += &format!(
                ", whole way {:.0} ({:.1} us, {:.0} MiB)",
                pace.rows_per_s, pace.cpu_us, pace.rss_mib
            );
            streams.push((pace.rows_per_s / limit.rows_per_s, pace));
        }
        limits.push(limit);
        note(&format!("{line}; {:.0} s", began.elapsed().as_secs_f64()));
    }

    let report = &mut world.report;
    let of_limits = |of: fn(&Pace) -> f64| middle(&limits, of);
    report.figure(
        "recvlogical_rows_per_s",
        of_limits(|p| p.rows_per_s),
        "rows/s",
    )?;
    report.figure("recvlogical_cpu_us", of_limits(|p| p.cpu_us), "us")?;
    report.figure("recvlogical_rss_mib", of_limits(|p| p.rss_mib), "MiB")?;
    if with_reader {
        let of = |of: fn(&reader::Outcome) -> f64| middle(&readers, |(_, o)| of(o));
        report.figure("pg_reader_rows_per_s", of(|o| o.pace.rows_per_s), "rows/s")?;
        report.figure("pg_reader_ratio", middle(&readers, |(r, _)| *r), "ratio")?;
        report.figure("pg_reader_cpu_us", of(|o| o.pace.cpu_us), "us")?;
        report.figure(
            "pg_reader_allocs",
            of(|o| o.allocations_per_change),
            "allocations",
        )?;
        report.figure("pg_reader_rss_mib", of(|o| o.pace.rss_mib), "MiB")?;
    }
    if with_stream {
        let of = |of: fn(&Pace) -> f64| middle(&streams, |(_, p)| of(p));
        report.figure("pg_stream_rows_per_s", of(|p| p.rows_per_s), "rows/s")?;
        report.figure("pg_stream_ratio", middle(&streams, |(r, _)| *r), "ratio")?;
        report.figure("pg_stream_cpu_us", of(|p| p.cpu_us), "us")?;
        report.figure("pg_stream_rss_mib", of(|p| p.rss_mib), "MiB")?;
    }
    Ok(())
}
