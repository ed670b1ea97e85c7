//! PostgreSQL's backlog, behind a slot.
//!
//! Each run gets a copy of the slot in which the changes wait, so none sees what another has
//! confirmed.

use std::time::{Duration, Instant};

use rollcall_testbed::Postgres;

use super::{Backlog, ROUNDS, RUN_LIMIT, WAITING, middle, whole_way};
use crate::database::{self, Database};
use crate::limit::{Pace, recvlogical};
use crate::reader;
use crate::world::World;
use crate::{Result, note};

impl Backlog<Postgres> {
    pub(super) fn postgres(world: &World) -> Result<Backlog<Postgres>> {
        note("backlog: a PostgreSQL, and 800,000 changes behind a slot (fsync is off there)");
        Backlog::prepare(world, database::postgres().start()?)
    }

    fn with_slot<T>(&self, slot: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.server.run(&format!(
            "SELECT pg_copy_logical_replication_slot('{WAITING}', '{slot}')"
        ))?;
        let outcome = run()?;
        // The server notices the end of a connection in its own time.
        rollcall_testbed::wait_for(
            Duration::from_secs(20),
            format!("slot {slot} to go"),
            || {
                let sql = format!("SELECT pg_drop_replication_slot('{slot}')");
                let dropped = self.server.run(&sql);
                dropped.map(drop).map_err(|e| e.to_string())
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
            reader::postgres::measure(&self.server, &slot, way, self.changes, RUN_LIMIT)
        })
    }

    /// The whole way from a slot of its own; `name` is that of the slot too.
    pub(super) fn stream_from_slot(&self, world: &World, name: &str) -> Result<Pace> {
        self.with_slot(name, || self.stream(world, name))
    }
}

/// Measures the reader alone, the whole way, or both, beside the limit.
pub(crate) fn run(world: &mut World, with_reader: bool, with_stream: bool) -> Result<()> {
    if with_stream {
        // Before the rounds, so that its start is in none of them.
        world.kafka()?;
    }
    let backlog = Backlog::postgres(world)?;
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
            let pace = backlog.stream_from_slot(world, &format!("stream_{round}"))?;
            line += &format!(", whole way {}", whole_way(&pace));
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
