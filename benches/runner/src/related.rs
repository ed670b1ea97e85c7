//! What it costs to tell people that a related row of theirs is another one, from that row to an
//! event for each of them in a file: 10,000 people whose one department has another name, and as
//! many of whom each has a row of their own.

use std::path::PathBuf;
use std::time::Duration;

use rollcall_testbed::Postgres;

use crate::configuration::{head, source};
use crate::daemon::Daemon;
use crate::database::{self, Database, PUBLICATION, ROLE};
use crate::employees;
use crate::report::median;
use crate::world::World;
use crate::{Result, note};

const ROUNDS: u64 = 5;
/// Of one department.
const PEOPLE: u64 = 10_000;
const DEPARTMENTS: u64 = 10;
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(world: &mut World) -> Result<()> {
    note("related: a department with 10,000 of 100,000 people is renamed");
    let people = world.scaled(PEOPLE);
    let tables = format!(
        "ALTER TABLE employees ADD COLUMN department_id bigint;
         UPDATE employees SET department_id = id % {DEPARTMENTS};
         CREATE TABLE departments (id bigint PRIMARY KEY, name text NOT NULL);
         INSERT INTO departments SELECT i, 'Department ' || i
             FROM generate_series(0, {DEPARTMENTS} - 1) i"
    );
    let place = Place::of(world, "related", people, &tables, "departments")?;
    let costs = place.told("department", "department_id", |round| {
        let department = round % DEPARTMENTS;
        let update = format!("UPDATE departments SET name = 'Renamed {round}'");
        (format!("{update} WHERE id = {department}"), people)
    })?;
    world
        .report
        .figure("related_fanout_us", median(costs), "us")?;

    note("related: each of 100,000 people has another phone, all in one statement");
    let tables = "CREATE TABLE phones (id bigint PRIMARY KEY, name text NOT NULL);
         INSERT INTO phones SELECT id, 'tel ' || id FROM employees";
    let place = Place::of(world, "related_each", people, tables, "phones")?;
    let all = DEPARTMENTS * people;
    let costs = place.told("phoneNumber", "id", |round| {
        let update = format!("UPDATE phones SET name = 'tel {round} ' || id");
        (update, all)
    })?;
    world.report.figure("related_each_us", median(costs), "us")
}

/// A server with employees and a related table, and where the daemon's files lie.
struct Place {
    server: Postgres,
    folder: PathBuf,
    rollcall: PathBuf,
    name: &'static str,
    table: &'static str,
}

impl Place {
    /// `tables` makes the related `table`, which is keyed by `id` and has a `name`.
    fn of(
        world: &mut World,
        name: &'static str,
        people: u64,
        tables: &str,
        table: &'static str,
    ) -> Result<Place> {
        let server = database::postgres().start()?;
        employees::create(&server)?;
        employees::insert(&server, 1, DEPARTMENTS * people)?;
        server.run(&format!(
            "{tables};
             GRANT SELECT ON {table} TO {ROLE};
             ALTER PUBLICATION {PUBLICATION} ADD TABLE {table};"
        ))?;
        server.analyze()?;
        Ok(Place {
            server,
            folder: world.folder(name)?,
            rollcall: world.rollcall.clone(),
            name,
            table,
        })
    }

    /// CPU microseconds for each person who is told, for each round. `attribute` is what the
    /// related row gives whose `id` is the person's `column`. A round's `change` is a statement
    /// and how many people it concerns.
    fn told(
        &self,
        attribute: &str,
        column: &str,
        change: impl Fn(u64) -> (String, u64),
    ) -> Result<Vec<f64>> {
        let (store, file) = (self.folder.join("store"), self.folder.join("events.ndjson"));
        let mapped = source("hr", self.server.kind(), &self.server.connection(self.name));
        let mut lines: Vec<String> = mapped.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with(&format!("{attribute} =")));
        lines.push(format!("{attribute} = \"related.name\""));
        let text = format!(
            "{}{}\n[source.hr.related.related]\ntable = \"public.{}\"\n\
             on = {{ id = \"{column}\" }}\n\
             [sink.file]\ntype = \"ndjson\"\npath = \"{}\"\nrotate_size = \"1024GiB\"\n",
            head(&store),
            lines.join("\n"),
            self.table,
            file.display()
        );
        let config = self.folder.join("related.toml");
        std::fs::write(&config, text)?;

        let daemon = Daemon::start(&self.rollcall, &config, &store)?;
        daemon.until_streaming(LIMIT)?;
        let status = daemon.until_delivered(&self.server.head()?, LIMIT)?;
        let mut told = status.outbox_head;
        let mut costs = Vec::new();
        for round in 1..=ROUNDS {
            let before = daemon.stat()?.cpu_seconds;
            let (statement, people) = change(round);
            self.server.run(&statement)?;
            told += people;
            daemon.until_told(told, LIMIT)?;
            let used = daemon.stat()?.cpu_seconds - before;
            costs.push(used * 1e6 / people as f64);
        }
        daemon.stop()?;
        let shown: Vec<String> = costs.iter().map(|us| format!("{us:.1}")).collect();
        note(&format!("us for each person: {}", shown.join(", ")));
        Ok(costs)
    }
}
