//! What a quiet source notices of one that floods: from the commit to the events' file.
//!
//! Two servers and two sources in one daemon. A few people of the quiet one are changed at a steady
//! pace, first while the other has nothing, then while it streams 800,000 changes that have
//! waited for it. What counts is the quiet one's latency before the flood is through. The clock
//! starts as in [`super::latency`], and stops when the event's line is in the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rollcall_testbed::Postgres;

use crate::configuration::{head, source};
use crate::daemon::Daemon;
use crate::database::{self, Database};
use crate::employees::{self, Workload};
use crate::latency::{Trickle, marker, write};
use crate::report::percentile;
use crate::world::World;
use crate::{Result, note};

const INSERTS: u64 = 500_000;
/// A flood of fewer is through before the measurement begins.
const INSERTS_AT_LEAST: u64 = 250_000;
const LIMIT: Duration = Duration::from_secs(300);
const WARM_UP: Duration = Duration::from_secs(3);
const TRICKLE: Trickle = Trickle {
    per_second: 50,
    first: 5_000_001,
    users: 5_000,
};

pub(crate) fn run(world: &mut World) -> Result<()> {
    note("neighbour: a quiet source alone, and beside a flood of 800,000 changes");
    let (quiet, flood) = (database::postgres().start()?, database::postgres().start()?);
    employees::create(&quiet)?;
    employees::insert(&quiet, TRICKLE.first, 2 * TRICKLE.users)?;
    employees::create(&flood)?;
    let folder = world.folder("neighbour")?;
    let (store, file) = (folder.join("store"), folder.join("events.ndjson"));
    let text = head(&store)
        + &source("quiet", quiet.kind(), &quiet.connection("quiet"))
        + &source("flood", flood.kind(), &flood.connection("flood"))
        + &format!(
            "[sink.file]\ntype = \"ndjson\"\npath = \"{}\"\nrotate_size = \"1024GiB\"\n",
            file.display()
        );
    let config = folder.join("neighbour.toml");
    std::fs::write(&config, text)?;

    let length = WARM_UP + Duration::from_secs(world.scaled(30));
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(LIMIT)?;
    let alone = measure(&quiet, TRICKLE, &file, length, || Ok(None))?;
    daemon.stop()?;
    let work = Workload::of(world.scaled(INSERTS).max(INSERTS_AT_LEAST));
    work.run(&flood)?;
    // What the flood's server keeps in memory would be written in the middle of it.
    flood.checkpoint()?;
    sync_disks()?;
    let users = 2 * TRICKLE.users + work.inserts;
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    let began = Instant::now();
    // An event has the value before, too: nobody is marked twice.
    let others = Trickle {
        first: TRICKLE.first + TRICKLE.users,
        ..TRICKLE
    };
    let beside = measure(&quiet, others, &file, length, || {
        daemon.until_users(users, work.deletes, LIMIT)?;
        Ok(Some(Instant::now()))
    })?;
    note(&format!(
        "{} changes beside the flood in {:.1} s",
        beside.len(),
        began.elapsed().as_secs_f64()
    ));
    daemon.stop()?;
    let (alone, beside) = (percentile(&alone, 0.99), percentile(&beside, 0.99));
    let report = &mut world.report;
    report.figure("neighbour_alone_p99_ms", alone, "ms")?;
    report.figure("neighbour_latency_p99_ms", beside, "ms")?;
    report.figure("neighbour_latency_ratio", beside / alone, "ratio")
}

fn sync_disks() -> Result<()> {
    match Command::new("sync").status()?.success() {
        true => Ok(()),
        false => Err("the disks could not be synced".into()),
    }
}

/// The latencies of the changes that were sent between the warm-up and the end that `until`
/// waits for, if it names one, in order, ms.
fn measure(
    server: &Postgres,
    trickle: Trickle,
    file: &Path,
    length: Duration,
    until: impl FnOnce() -> Result<Option<Instant>>,
) -> Result<Vec<f64>> {
    let changes = (length.as_millis() as u64 * u64::from(trickle.per_second) / 1000) as usize;
    let (from, is_over) = (file_bytes(file), AtomicBool::new(false));
    let (sent, seen, end) = std::thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(|| write(server, trickle, 0..changes as u64));
        let reader = scope.spawn(|| follow(file, from, changes, &is_over));
        let end = until();
        let sent = writer.join().map_err(|_| "the writer panicked")?;
        if end.is_err() || sent.is_err() {
            is_over.store(true, Ordering::Relaxed);
        }
        let seen = reader.join().map_err(|_| "the reader panicked")??;
        Ok((sent?, seen, end?))
    })?;
    let warm = sent.first().map(|first| *first + WARM_UP);
    let mut times = Vec::with_capacity(changes);
    for (number, at) in (0..).zip(&sent) {
        if warm.is_some_and(|warm| *at < warm) || end.is_some_and(|end| *at > end) {
            continue;
        }
        let arrived = seen
            .get(&number)
            .ok_or_else(|| format!("change {number} of {changes} never arrived"))?;
        times.push(arrived.duration_since(*at).as_secs_f64() * 1e3);
    }
    if times.is_empty() {
        return Err("no change came between the warm-up and the end".into());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn file_bytes(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |m| m.len())
}

/// When each marked change was first seen in the lines that are added to a file.
fn follow(
    file: &Path,
    from: u64,
    changes: usize,
    is_over: &AtomicBool,
) -> Result<HashMap<u64, Instant>> {
    use std::io::{Seek as _, SeekFrom};
    let began = Instant::now();
    let mut lines = File::open(file)?;
    lines.seek(SeekFrom::Start(from))?;
    let (mut seen, mut rest) = (HashMap::with_capacity(changes), Vec::new());
    let mut buffer = vec![0; 1 << 20];
    while seen.len() < changes && !is_over.load(Ordering::Relaxed) {
        let n = lines.read(&mut buffer)?;
        if n == 0 {
            if began.elapsed() > LIMIT {
                return Err(format!("{} of {changes} changes arrived", seen.len()).into());
            }
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        let now = Instant::now();
        rest.extend_from_slice(&buffer[..n]);
        let end = rest
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        for line in rest[..end].split(|b| *b == b'\n') {
            // Only updates are marked, and there are few of the quiet source.
            if let Some(number) = marker(line) {
                seen.entry(number).or_insert(now);
            }
        }
        rest.drain(..end);
    }
    Ok(seen)
}
