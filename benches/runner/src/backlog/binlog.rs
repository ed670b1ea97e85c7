//! The backlogs of MySQL and MariaDB, beside PostgreSQL's.
//!
//! Their logs are kept whoever has read them, so they are written once, and each run begins
//! at the same place of them. The three whole ways take turns in each round; so do the
//! decoder alone and `mysqlbinlog`, over the same file.

use std::path::PathBuf;
use std::time::Instant;

use rollcall_testbed::{MySql, MySqlVersion};

use super::{Backlog, ROUNDS, RUN_LIMIT, middle, whole_way};
use crate::database;
use crate::limit::{Pace, mysqlbinlog};
use crate::reader::{self, Outcome};
use crate::world::World;
use crate::{Result, note};

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The whole way.
    pub(crate) stream: bool,
    /// The reader of MySQL's log alone.
    pub(crate) reader: bool,
    /// The decoder over MySQL's file.
    pub(crate) decode: bool,
}

impl Backlog<MySql> {
    fn of(world: &World, version: MySqlVersion) -> Result<Backlog<MySql>> {
        note(&format!(
            "backlog: a {version}, and the same changes in its log"
        ));
        Backlog::prepare(world, database::mysql(version).start()?)
    }

    /// The file of the log that has the changes; it is not written any more.
    fn file(&self) -> Result<PathBuf> {
        let name = self.server.current_binlog()?.name;
        self.server.rotate_binlog()?;
        Ok(self.server.binlog_path(&name))
    }

    fn reader(&self) -> Result<Outcome> {
        let way = (self.from.as_str(), self.end.as_str());
        reader::mysql::measure(&self.server, way, self.changes, RUN_LIMIT)
    }
}

/// What the rounds have brought.
#[derive(Default)]
struct Rounds {
    postgres: Vec<Pace>,
    mysql: Vec<Pace>,
    mariadb: Vec<Pace>,
    mysql_ratios: Vec<f64>,
    mariadb_ratios: Vec<f64>,
    readers: Vec<Outcome>,
    limits: Vec<Pace>,
    decoders: Vec<Outcome>,
    decode_ratios: Vec<f64>,
}

/// Measures what is asked for.
pub(crate) fn run(world: &mut World, wanted: Wanted) -> Result<()> {
    let others = match wanted.stream {
        true => {
            // Before the rounds, so that its start is in none of them.
            world.kafka()?;
            let mariadb = Backlog::of(world, MySqlVersion::MariaDb10)?;
            Some((Backlog::postgres(world)?, mariadb))
        }
        false => None,
    };
    let mysql = Backlog::of(world, MySqlVersion::MySql9)?;
    let file = mysql.file()?;
    let mut rounds = Rounds::default();
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let mut line = format!("round {round}:");
        if let Some((postgres, mariadb)) = &others {
            let reference = postgres.stream_from_slot(world, &format!("postgres_{round}"))?;
            let ours = mysql.stream(world, &format!("mysql_{round}"))?;
            let theirs = mariadb.stream(world, &format!("mariadb_{round}"))?;
            for (name, pace) in [
                ("PostgreSQL", &reference),
                ("MySQL", &ours),
                ("MariaDB", &theirs),
            ] {
                line += &format!(" whole way of {name} {},", whole_way(pace));
            }
            rounds
                .mysql_ratios
                .push(ours.rows_per_s / reference.rows_per_s);
            rounds
                .mariadb_ratios
                .push(theirs.rows_per_s / reference.rows_per_s);
            rounds.postgres.push(reference);
            rounds.mysql.push(ours);
            rounds.mariadb.push(theirs);
        }
        if wanted.reader {
            let outcome = mysql.reader()?;
            line += &format!(" reader {:.0} rows/s,", outcome.pace.rows_per_s);
            rounds.readers.push(outcome);
        }
        if wanted.decode {
            let limit = mysqlbinlog(&mysql.server, &file, mysql.changes, RUN_LIMIT)?;
            let outcome = reader::file::measure(&file, mysql.changes, RUN_LIMIT)?;
            let (ours, theirs) = (outcome.pace.rows_per_s, limit.rows_per_s);
            line += &format!(" decoder {ours:.0}, mysqlbinlog {theirs:.0},");
            rounds.decode_ratios.push(ours / theirs);
            rounds.decoders.push(outcome);
            rounds.limits.push(limit);
        }
        note(&format!("{line} {:.0} s", began.elapsed().as_secs_f64()));
    }
    rounds.report(world, wanted)
}

impl Rounds {
    fn report(&self, world: &mut World, wanted: Wanted) -> Result<()> {
        let report = &mut world.report;
        if wanted.stream {
            let reference = middle(&self.postgres, |p| p.rows_per_s);
            report.figure("mysql_reference_rows_per_s", reference, "rows/s")?;
            for (kind, paces, ratios) in [
                ("mysql", &self.mysql, &self.mysql_ratios),
                ("mariadb", &self.mariadb, &self.mariadb_ratios),
            ] {
                let of = |of: fn(&Pace) -> f64| middle(paces, of);
                let mut figure = |name: &str, value, unit| {
                    report.figure(&format!("{kind}_stream_{name}"), value, unit)
                };
                figure("rows_per_s", of(|p| p.rows_per_s), "rows/s")?;
                figure("ratio", middle(ratios, |r| *r), "ratio")?;
                figure("cpu_us", of(|p| p.cpu_us), "us")?;
                figure("rss_mib", of(|p| p.rss_mib), "MiB")?;
            }
        }
        if wanted.reader {
            let of = |of: fn(&Outcome) -> f64| middle(&self.readers, of);
            report.figure(
                "mysql_reader_rows_per_s",
                of(|o| o.pace.rows_per_s),
                "rows/s",
            )?;
            report.figure("mysql_reader_cpu_us", of(|o| o.pace.cpu_us), "us")?;
            report.figure(
                "mysql_reader_allocs",
                of(|o| o.allocations_per_change),
                "allocations",
            )?;
            report.figure("mysql_reader_rss_mib", of(|o| o.pace.rss_mib), "MiB")?;
        }
        if wanted.decode {
            let limit = middle(&self.limits, |p| p.rows_per_s);
            report.figure("mysqlbinlog_rows_per_s", limit, "rows/s")?;
            let cpu_us = middle(&self.limits, |p| p.cpu_us);
            report.figure("mysqlbinlog_cpu_us", cpu_us, "us")?;
            let of = |of: fn(&Outcome) -> f64| middle(&self.decoders, of);
            report.figure(
                "mysql_decode_rows_per_s",
                of(|o| o.pace.rows_per_s),
                "rows/s",
            )?;
            report.figure("mysql_decode_cpu_us", of(|o| o.pace.cpu_us), "us")?;
            let ratio = middle(&self.decode_ratios, |r| *r);
            report.figure("mysql_decode_ratio", ratio, "ratio")?;
        }
        Ok(())
    }
}
