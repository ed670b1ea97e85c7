//! `make demo`: an HR table of 10,000 people becomes a directory, follows its changes,
//! survives `kill -9`, and is proved equal to the table.
//!
//! `SOURCE` names the kind of database. The proof does not lean on the daemon: the demo
//! folds the events itself and compares them with what a mapping of its own makes of the
//! table ([`proof`]). Whatever fails ends the demo
//! with one sentence and status 1; the servers and the daemon end with their values.

mod daemon;
mod database;
mod people;
mod proof;
mod show;
mod steps;
mod tail;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use rollcall_testbed::Kafka;

use crate::daemon::Daemon;
use crate::database::Database;
use crate::show::Show;
use crate::tail::Tail;

/// Whatever ends the demo, as the sentence that a person reads.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// People in the table at the start, contractors included.
const PEOPLE: u64 = 10_000;
/// Changes that are under way when the daemon is killed.
const BURST: u64 = 3_000;
/// How long anything may take that usually takes moments.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let show = Show::new();
    match run(&show) {
        Ok(last_line) => {
            show.last(&last_line);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let mut err = std::io::stderr().lock();
            // When even standard error is gone, the status still tells.
            let _ = writeln!(err, "demo: failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(show: &Show) -> Result<String> {
    let with_kafka = std::env::var("KAFKA").is_ok_and(|v| !v.is_empty() && v != "0");

    let source = std::env::var("SOURCE").unwrap_or_default();

    show.chapter("A private database server with an HR table");
    let database = Database::start(match source.as_str() {
        "" => "postgres",
        named => named,
    })?;
    show.fact(&format!(
        "{} on port {}, for this demo alone",
        database.name()?,
        database.port()
    ));
    database.sql(&people::insert_all(PEOPLE))?;
    database.analyze()?;
    show.fact(&people::summary(&database.rows()?));

    let kafka = if with_kafka {
        let kafka = Kafka::start()?;
        show.fact(&format!("Apache Kafka on {}", kafka.bootstrap()));
        Some(kafka)
    } else {
        None
    };

    show.chapter("What an operator writes, and runs once as an administrator");
    let daemon = Daemon::prepare(&database, kafka.as_ref())?;
    show.text(&daemon.config_shown());
    database.sql(database.grants())?;
    show.text(database.grants());

    show.chapter("rollcall check");
    for line in daemon.check()? {
        show.fact(&line);
    }

    show.chapter("rollcall run: the load");
    let mut tail = Tail::of(daemon.events_file());
    let mut running = daemon.start()?;
    let load = daemon.show_load(show, &running, PEOPLE)?;
    show.fact(&load);

    show.chapter("Changes, from commit to event");
    let mut seen = steps::Steps::new(&database, show, &mut tail);
    seen.wait_for_load()?;
    steps::live(&mut seen)?;

    show.chapter("kill -9 in the middle of a burst");
    let burst = steps::Burst::begin(&database, BURST)?;
    let before_kill = match seen.wait_for_events(BURST as usize / 8) {
        Ok(events) => events,
        Err(failure) => {
            if burst.is_finished() {
                burst.end()?;
            }
            return Err(failure);
        }
    };
    running.kill9();
    let still_writing = !burst.is_finished();
    show.fact(&format!(
        "killed after {before_kill} events of the burst{}",
        if still_writing {
            ", while the application goes on writing"
        } else {
            ""
        }
    ));
    std::thread::sleep(Duration::from_millis(300));
    running = daemon.start()?;
    let written = burst.end()?;
    let caught_up = seen.wait_for_marker()?;
    show.fact(&format!(
        "started again; all {written} changes of the burst are in, {} ms after the last commit",
        caught_up.as_millis()
    ));

    show.chapter("The proof");
    daemon.wait_until_delivered(&running)?;
    show.fact(&daemon.verify()?);
    daemon.stop(&running)?;
    let wanted = proof::expected(&database.rows()?);
    let file = proof::Events::of_file(&daemon.events_file())?;
    file.check_sequences()?;
    let mut fold = file.fold()?;
    show.fact(&format!(
        "{} lines of NDJSON, {} events with different ids, no hole in their sequence",
        file.lines,
        file.len()
    ));
    if let Some(kafka) = &kafka {
        let topic = proof::Events::of_topic(kafka, daemon::TOPIC)?;
        topic.check_sequences()?;
        topic.no_id_twice()?;
        topic.same_ids(&file)?;
        fold = topic.fold()?;
        show.fact(&format!(
            "{} records at read_committed in Kafka, no id twice, the same events as in the file",
            topic.lines
        ));
    }
    let users = proof::compare(&wanted, &fold)?;
    show.fact(&format!(
        "the fold of all events = what a second mapping makes of the table, in all {users} users and {} attributes",
        proof::values(&wanted)
    ));
    Ok(format!(
        "demo: ok, {users} users, {} events, directory = source",
        file.len()
    ))
}
