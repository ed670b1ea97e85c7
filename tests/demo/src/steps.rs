//! What happens at the company while the daemon follows: single changes that a person can
//! read, and a burst in which it is killed.

use std::fmt::Write as _;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use unicode_normalization::UnicodeNormalization as _;

use crate::database::Database;
use crate::people::{self, Dice};
use crate::show::Show;
use crate::tail::{Arrived, Tail};
use crate::{PATIENCE, PEOPLE, Result};

/// The title that the last change of the burst sets.
const MARKER: &str = "Keeper of the Last Change";
/// The person whose title it sets.
const MARKED: u64 = 1;

/// The database, and the events that come of it.
pub(crate) struct Steps<'a> {
    database: &'a Database,
    show: &'a Show,
    tail: &'a mut Tail,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(database: &'a Database, show: &'a Show, tail: &'a mut Tail) -> Steps<'a> {
        Steps {
            database,
            show,
            tail,
        }
    }

    /// Passes over the events of the load, up to the one that tells of its end.
    pub(crate) fn wait_for_load(&mut self) -> Result<()> {
        self.tail.until(PATIENCE, "the end of the load", |arrived| {
            arrived.what() == "run.completed"
        })
    }

    /// Commits one change and shows the events that come of it; gives the user's id.
    fn step(&mut self, why: &str, sql: &str, events: &[&str]) -> Result<String> {
        self.tail.new_events()?;
        let began = Timestamp::now();
        self.database.sql(sql)?;
        let mut missing: Vec<&str> = events.to_vec();
        let mut came: Vec<Arrived> = Vec::new();
        let what = format!("{why}: {}", events.join(" and "));
        let result = self.tail.until(PATIENCE, &what, |arrived| {
            if let Some(i) = missing.iter().position(|m| *m == arrived.what()) {
                missing.swap_remove(i);
            }
            came.push(arrived);
            missing.is_empty()
        });
        let mut subject = String::new();
        let mut name = String::new();
        for arrived in &came {
            if let Some(id) = arrived.event["subject"].as_str() {
                id.clone_into(&mut subject);
            }
            if !arrived.who().is_empty() {
                name = arrived.who();
            }
        }
        let mut why = why;
        for arrived in &came {
            let what = arrived.what();
            let who = if what.starts_with("conflict") {
                String::new()
            } else {
                Some(arrived.who())
                    .filter(|w| !w.is_empty())
                    .unwrap_or(name.clone())
            };
            let latency = self.latency(arrived, began);
            self.show.event(why, what, &who, &latency);
            why = "";
        }
        result.map(|()| subject)
    }

    /// From the commit to the event. Where the log tells times to the second only, from
    /// before the statement was sent.
    fn latency(&self, arrived: &Arrived, began: Timestamp) -> String {
        let coarse = self.database.has_coarse_times();
        let oldest = match coarse {
            true => Timestamp::from_second(began.as_second()).unwrap_or(began),
            false => began,
        };
        if arrived.is_older_than(oldest) {
            "was held".to_owned()
        } else if coarse {
            format!("< {:.1} ms", arrived.since_ms(began))
        } else {
            format!("{:.1} ms", arrived.latency_ms())
        }
    }

    /// Waits until so many events have come.
    pub(crate) fn wait_for_events(&mut self, n: usize) -> Result<usize> {
        let mut came = 0;
        self.tail.until(PATIENCE, "events of the burst", |_| {
            came += 1;
            came >= n
        })?;
        Ok(came)
    }

    /// Waits for the event of the burst's last change; gives its latency.
    pub(crate) fn wait_for_marker(&mut self) -> Result<Duration> {
        let mut latency = 0.0;
        self.tail
            .until(PATIENCE, "the last change of the burst", |arrived| {
                let is_it = arrived.event["data"]["user"]["title"] == MARKER;
                if is_it {
                    latency = arrived.latency_ms();
                }
                is_it
            })?;
        Ok(Duration::from_secs_f64(latency.max(0.0) / 1e3))
    }
}

/// The changes that a person can read.
pub(crate) fn live(steps: &mut Steps<'_>) -> Result<()> {
    let new = PEOPLE + 1;
    let hired = steps.step(
        "hired",
        &format!(
            "INSERT INTO hr.employees (id, first_name, last_name, email, department, roles, hired_on) \
             VALUES ({new}, '{}', 'Lindström', '  Zoe.Lindstrom@Example.com ', \
             'Engineering', 'staff, developer', current_date)",
            "Zoë".nfd()
        ),
        &["created"],
    )?;
    let same = |what: &str, user: &str| -> Result<()> {
        if user == hired {
            return Ok(());
        }
        Err(format!("{what} made another user of the same person").into())
    };
    let renamed = steps.step(
        "married",
        &format!(
            "UPDATE hr.employees SET last_name = 'Lindström-García', \
             email = 'zoe.garcia@example.com' WHERE id = {new}"
        ),
        &["updated", "identifier_changed"],
    )?;
    same("a new name", &renamed)?;
    let rekeyed = steps.step(
        "new employee number",
        &format!("UPDATE hr.employees SET id = {} WHERE id = {new}", new + 1),
        &["updated"],
    )?;
    same("a new key", &rekeyed)?;
    let left = steps.step(
        "left",
        &format!("DELETE FROM hr.employees WHERE id = {}", new + 1),
        &["deactivated"],
    )?;
    same("leaving", &left)?;
    let back = steps.step(
        "came back",
        &format!(
            "INSERT INTO hr.employees (id, first_name, last_name, email, department, roles, hired_on) \
             VALUES ({}, 'Zoë', 'Lindström-García', 'zoe.garcia@example.com', 'Engineering', \
             'staff, developer', current_date)",
            new + 1
        ),
        &["activated"],
    )?;
    same("coming back", &back)?;
    steps.step(
        "promoted (long note)",
        &format!(
            "UPDATE hr.employees SET job_title = 'Head of Notes' WHERE id = {}",
            people::WITH_NOTE
        ),
        &["updated"],
    )?;
    steps.step(
        "contractor taken on",
        &format!(
            "UPDATE hr.employees SET employment_type = 'employee' WHERE id = {}",
            people::CONTRACTOR
        ),
        &["created"],
    )?;
    steps.step(
        "address corrected",
        &format!(
            "UPDATE hr.employees SET email = 'employee.{id}@example.com' WHERE id = {id}",
            id = people::TWINS.1
        ),
        &["created", "conflict.resolved"],
    )?;
    Ok(())
}

/// An application that writes, a transaction for each change, on a thread of its own.
pub(crate) struct Burst {
    writer: JoinHandle<std::result::Result<(), String>>,
    changes: u64,
}

impl Burst {
    pub(crate) fn begin(database: &Database, changes: u64) -> Result<Burst> {
        let sql = burst_sql(changes);
        let mut command = database.client();
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().ok_or("the client takes no input")?;
        let writer = std::thread::spawn(move || {
            use std::io::Write as _;
            let written = input.write_all(sql.as_bytes());
            drop(input);
            let output = child.wait_with_output().map_err(|e| e.to_string())?;
            if output.status.success() {
                written.map_err(|e| e.to_string())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        });
        Ok(Burst { writer, changes })
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.writer.is_finished()
    }

    /// Waits until everything is committed; gives how many changes that was.
    pub(crate) fn end(self) -> Result<u64> {
        let ended = self.writer.join().map_err(|_| "the writer panicked")?;
        ended.map_err(|e| format!("the application could not write: {e}"))?;
        Ok(self.changes)
    }
}

fn burst_sql(changes: u64) -> String {
    let mut dice = Dice(2);
    let mut sql = String::new();
    let mut next = PEOPLE + 1_000;
    for n in 1..changes {
        // The first people are left alone: they are who the demo talks about.
        let someone = 5_000 + dice.below(PEOPLE - 5_000);
        let _ = match dice.below(10) {
            0 => {
                next += 1;
                write!(sql, "{}", people::insert(next, &mut dice))
            }
            1 => writeln!(sql, "DELETE FROM hr.employees WHERE id = {someone};"),
            2 => {
                next += 1;
                writeln!(
                    sql,
                    "UPDATE hr.employees SET id = {next} WHERE id = {someone};"
                )
            }
            3 => writeln!(
                sql,
                "UPDATE hr.employees SET email = 'moved.{n}@example.com' WHERE id = {someone};"
            ),
            4 => writeln!(
                sql,
                "UPDATE hr.employees SET notes = '{}' WHERE id = {someone};",
                people::note(&mut dice)
            ),
            5 => writeln!(
                sql,
                "UPDATE hr.employees SET roles = NULL, department = 'Ops {n}' WHERE id = {someone};"
            ),
            _ => writeln!(
                sql,
                "UPDATE hr.employees SET job_title = 'Specialist {n}', updated_at = now() WHERE id = {someone};"
            ),
        };
    }
    let _ = writeln!(
        sql,
        "UPDATE hr.employees SET job_title = '{MARKER}' WHERE id = {MARKED};"
    );
    sql
}
