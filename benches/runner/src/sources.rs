//! What 200 sources cost that have nothing to do, in one daemon: ten people each.

use std::time::Duration;

use crate::configuration::{head, source};
use crate::daemon::Daemon;
use crate::database::{self, DATABASE, Database, PUBLICATION, ROLE};
use crate::world::World;
use crate::{Result, note};

const SOURCES: u64 = 200;
const LIMIT: Duration = Duration::from_secs(600);
/// After the loads: what was taken for them may be given back.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) fn run(world: &mut World) -> Result<()> {
    let sources = world.scaled(SOURCES);
    note(&format!("sources: {sources} of them, and 60 s of nothing"));
    let server = database::postgres()
        .setting("max_connections", "1000")
        .setting("max_wal_senders", "250")
        .setting("max_replication_slots", "250")
        .setting("shared_buffers", "64MB")
        .start()?;
    server.make_database()?;
    let text = "email text, first_name text, last_name text, department text, job text, \
                status text, phone text";
    for n in 1..=sources {
        server.run(&format!(
            "CREATE TABLE staff_{n} (id bigint PRIMARY KEY, {text});
             INSERT INTO staff_{n} SELECT g, concat('user.', g, '.', {n}, '@example.com'), 'Anna',
                 'Bakker', 'Sales', 'Agent', 'active', '+49 30 1' FROM generate_series(1, 10) g;
             GRANT SELECT ON staff_{n} TO {ROLE};"
        ))?;
    }
    server.run(&format!(
        "CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES WITH (publish_via_partition_root = true)"
    ))?;
    let folder = world.folder("sources")?;
    let store = folder.join("store");
    let mut config = head(&store);
    for n in 1..=sources {
        let connection = format!(
            "host = \"127.0.0.1\"\nport = {}\nuser = \"{ROLE}\"\ndatabase = \"{DATABASE}\"\n\
             table = \"public.staff_{n}\"\npublication = \"{PUBLICATION}\"\n",
            server.port()
        );
        config += &source(&format!("staff_{n}"), "postgres", &connection);
    }
    config += &format!(
        "[sink.file]\ntype = \"ndjson\"\npath = \"{}\"\n",
        folder.join("events.ndjson").display()
    );
    let path = folder.join("sources.toml");
    std::fs::write(&path, config)?;
    let daemon = Daemon::start(&world.rollcall, &path, &store)?;
    let status = daemon.until_streaming(LIMIT)?;
    if status.users != sources * 10 {
        return Err(format!("{} of {} rows are users", status.users, sources * 10).into());
    }
    std::thread::sleep(SETTLE);
    let before = daemon.stat()?;
    let length = Duration::from_secs(world.scaled(60));
    std::thread::sleep(length);
    let after = daemon.stat()?;
    daemon.stop()?;
    let used = after.cpu_seconds - before.cpu_seconds;
    let report = &mut world.report;
    report.figure("sources_200_rss_mib", after.rss_kib as f64 / 1024.0, "MiB")?;
    report.figure(
        "sources_200_cpu_percent",
        used / length.as_secs_f64() * 100.0,
        "percent",
    )
}
