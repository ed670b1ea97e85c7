//! What it costs to tell 10,000 people that their department has another name: from the one
//! changed row of a related table to an event for each of them in a file.

use std::time::Duration;

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
    let server = database::postgres().start()?;
    employees::create(&server)?;
    employees::insert(&server, 1, DEPARTMENTS * people)?;
    server.run(&format!(
        "ALTER TABLE employees ADD COLUMN department_id bigint;
         UPDATE employees SET department_id = id % {DEPARTMENTS};
         CREATE TABLE departments (id bigint PRIMARY KEY, name text NOT NULL);
         INSERT INTO departments SELECT i, 'Department ' || i
             FROM generate_series(0, {DEPARTMENTS} - 1) i;
         GRANT SELECT ON departments TO {ROLE};
         ALTER PUBLICATION {PUBLICATION} ADD TABLE departments;"
    ))?;
    server.analyze()?;
    let folder = world.folder("related")?;
    let (store, file) = (folder.join("store"), folder.join("events.ndjson"));
    let mapped = source("hr", server.kind(), &server.connection("related")).replace(
        "department = \"department\"\n",
        "department = \"dept.name\"\n",
    );
    let text = head(&store)
        + &mapped
        + &format!(
            "[source.hr.related.dept]\ntable = \"public.departments\"\n\
             on = {{ id = \"department_id\" }}\n\
             [sink.file]\ntype = \"ndjson\"\npath = \"{}\"\nrotate_size = \"1024GiB\"\n",
            file.display()
        );
    let config = folder.join("related.toml");
    std::fs::write(&config, text)?;

    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(LIMIT)?;
    let status = daemon.until_delivered(&server.head()?, LIMIT)?;
    let mut told = status.outbox_head;
    let mut costs = Vec::new();
    for round in 1..=ROUNDS {
        let before = daemon.stat()?.cpu_seconds;
        server.run(&format!(
            "UPDATE departments SET name = 'Renamed {round}' WHERE id = {}",
            round % DEPARTMENTS
        ))?;
        told += people;
        daemon.until_told(told, LIMIT)?;
        let used = daemon.stat()?.cpu_seconds - before;
        costs.push(used * 1e6 / people as f64);
    }
    daemon.stop()?;
    let shown: Vec<String> = costs.iter().map(|us| format!("{us:.1}")).collect();
    note(&format!("us for each person: {}", shown.join(", ")));
    world
        .report
        .figure("related_fanout_us", median(costs), "us")
}
