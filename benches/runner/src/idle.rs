//! What a daemon costs that has nothing to do: one source, one Kafka sink, 1,000 users.

use std::time::Duration;

use crate::configuration::{KafkaTarget, write_config};
use crate::daemon::Daemon;
use crate::database::{self, Database};
use crate::employees;
use crate::world::World;
use crate::{Result, note};

/// After the load: what was taken for it may be given back.
const SETTLE: Duration = Duration::from_secs(10);

pub(crate) fn run(world: &mut World) -> Result<()> {
    note("idle: 30 s of nothing");
    let kafka = KafkaTarget {
        bootstrap: world.kafka()?.bootstrap(),
        name: "idle".to_owned(),
        delivery: "exactly_once",
    };
    let server = database::postgres().start()?;
    employees::create(&server)?;
    employees::insert(&server, 1, 1_000)?;
    let folder = world.folder("idle")?;
    let store = folder.join("store");
    let config = write_config(&folder, &server, &store, "idle", Some(&kafka))?;
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(Duration::from_secs(60))?;
    daemon.until_delivered(&server.head()?, Duration::from_secs(60))?;
    std::thread::sleep(SETTLE);
    let before = daemon.stat()?;
    let length = Duration::from_secs(world.scaled(30));
    std::thread::sleep(length);
    let after = daemon.stat()?;
    daemon.stop()?;
    let report = &mut world.report;
    report.figure("idle_rss_mib", after.rss_kib as f64 / 1024.0, "MiB")?;
    report.figure(
        "idle_peak_rss_mib",
        after.peak_rss_kib as f64 / 1024.0,
        "MiB",
    )?;
    let used = after.cpu_seconds - before.cpu_seconds;
    report.figure(
        "idle_cpu_percent",
        used / length.as_secs_f64() * 100.0,
        "percent",
    )
}
