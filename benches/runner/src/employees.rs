//! The table and the changes that everything is measured with: 12 columns, about 190 bytes
//! a row, from one definition for all kinds of servers.
//!
//! Rows follow from their number alone, so every run has the same bytes. Updates and
//! deletes hit scattered ids (a stride that is prime to the number of rows), because people
//! do not change in the order in which they were hired. Each transaction is one statement,
//! sent by itself; what SQL's two dialects say differently is [`Dialect`].

use crate::Result;
use crate::database::Database;

/// Rows of a transaction.
const ROWS_PER_TX: u64 = 1_000;
/// Prime, and prime to every size that is used here.
const STRIDE: u64 = 7_919;

/// What servers say differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    MySql,
}

impl Dialect {
    /// A type that both have, by another name.
    fn type_name(self, name: &'static str) -> &'static str {
        match (self, name) {
            (Dialect::Postgres, "varchar(200)") => "text",
            (Dialect::MySql, "timestamptz") => "timestamp(6) NULL",
            _ => name,
        }
    }

    /// The numbers from `a` to `b` as a relation with the column `g`; at most
    /// [`ROWS_PER_TX`] of them, as MySQL recurses no deeper.
    fn numbers(self, a: u64, b: u64) -> String {
        match self {
            Dialect::Postgres => format!("generate_series({a}::bigint, {b}) AS n(g)"),
            Dialect::MySql => format!(
                "(WITH RECURSIVE n (g) AS (SELECT {a} UNION ALL SELECT g + 1 FROM n WHERE g < {b})
                  SELECT g FROM n) AS n"
            ),
        }
    }

    /// One of some texts, by the row's number.
    fn pick(self, texts: &[&str]) -> String {
        let (list, count) = (texts.join("', '"), texts.len());
        match self {
            Dialect::Postgres => format!("(ARRAY['{list}'])[1 + g % {count}]"),
            Dialect::MySql => format!("ELT(1 + g % {count}, '{list}')"),
        }
    }

    fn later(self, from: &str, count: &str, unit: &str) -> String {
        match self {
            Dialect::Postgres => format!("{from} + ({count}) * interval '1 {unit}'"),
            Dialect::MySql => format!("{from} + INTERVAL ({count}) {unit}"),
        }
    }

    /// The columns of the row with the number `g`.
    fn row(self) -> String {
        let first_name = self.pick(&[
            "Anna", "Björn", "Chloé", "David", "Emma", "Farid", "Grace", "Hiro", "Inès", "Jakub",
            "Kofi", "Lena", "Mateo", "Nadia", "Oscar", "Priya",
        ]);
        let last_name = self.pick(&[
            "Albrecht",
            "Bakker",
            "Castillo",
            "Dubois",
            "Eriksson",
            "Fischer",
            "García",
            "Hansen",
            "Ivanova",
            "Janssen",
            "Kowalski",
            "Lindqvist",
            "Müller",
            "Nguyen",
            "Okafor",
            "Petrov",
            "Quinn",
        ]);
        let department = self.pick(&[
            "Engineering",
            "Sales",
            "Support",
            "Finance",
            "People",
            "Legal",
            "Operations",
        ]);
        let job = self.pick(&[
            "Engineer",
            "Account Manager",
            "Agent",
            "Controller",
            "Recruiter",
            "Counsel",
            "Planner",
            "Analyst",
            "Team Lead",
        ]);
        let hired_on = self.later("date '2000-01-01'", "g % 9000", "day");
        let updated_at = self.later("timestamp '2026-01-01 00:00:00'", "g", "second");
        format!(
            "g, concat('user.', g, '@example.com'), {first_name}, {last_name}, {department}, \
             {job}, 'active', NULLIF(floor(g / 10), 0), {hired_on}, \
             30000 + (g % 70000) * 0.25, \
             concat('+49 30 ', substr(cast(10000000 + g % 10000000 AS char(8)), 2)), {updated_at}"
        )
    }

    /// Changes the people whose ids a relation computes.
    fn update(self, set: &str, numbers: &str, id: &str) -> String {
        match self {
            Dialect::Postgres => {
                format!("UPDATE employees e SET {set} FROM {numbers} WHERE e.id = {id}")
            }
            Dialect::MySql => {
                format!("UPDATE {numbers} STRAIGHT_JOIN employees e ON e.id = {id} SET {set}")
            }
        }
    }

    /// Takes out the people whose ids a relation computes.
    fn delete(self, numbers: &str, id: &str) -> String {
        match self {
            Dialect::Postgres => {
                format!("DELETE FROM employees e USING {numbers} WHERE e.id = {id}")
            }
            Dialect::MySql => {
                format!("DELETE e FROM {numbers} STRAIGHT_JOIN employees e ON e.id = {id}")
            }
        }
    }
}

/// Makes the empty table, and an account that may follow it.
pub(crate) fn create(server: &dyn Database) -> Result<()> {
    server.make_database()?;
    let text = server.dialect().type_name("varchar(200)");
    let instant = server.dialect().type_name("timestamptz");
    server.run(&format!(
        "CREATE TABLE employees (
             id bigint PRIMARY KEY, email {text} NOT NULL, first_name {text}, last_name {text},
             department {text}, job {text}, status {text} NOT NULL, manager_id bigint,
             hired_on date, salary numeric(10,2), phone {text}, updated_at {instant});"
    ))?;
    server.grant()
}

/// Runs one statement for each 1,000 numbers from `first` on, each in a transaction of its
/// own. The statement is made from a relation of numbers.
fn in_transactions(
    server: &dyn Database,
    first: u64,
    count: u64,
    statement: impl Fn(&str) -> String,
) -> Result<()> {
    let end = first + count;
    let mut script = String::new();
    for a in (first..end).step_by(ROWS_PER_TX as usize) {
        let b = (a + ROWS_PER_TX).min(end) - 1;
        script.push_str(&statement(&server.dialect().numbers(a, b)));
        script.push_str(";\n");
    }
    server.run(&script).map(drop)
}

/// Hires people with the ids from `first` on.
pub(crate) fn insert(server: &dyn Database, first: u64, count: u64) -> Result<()> {
    let row = server.dialect().row();
    in_transactions(server, first, count, |numbers| {
        format!("INSERT INTO employees SELECT {row} FROM {numbers}")
    })
}

/// The id in place `g` of the scattered order over ids 1 to `rows`.
fn scattered(rows: u64) -> String {
    format!("(g * {STRIDE}) % {rows} + 1")
}

/// Promotes people in scattered order: places `first` on of the order over `rows` ids.
pub(crate) fn update(server: &dyn Database, rows: u64, first: u64, count: u64) -> Result<()> {
    let dialect = server.dialect();
    let later = dialect.later("e.updated_at", "1", "day");
    let set =
        format!("job = concat('Senior ', e.job), salary = e.salary + 500, updated_at = {later}");
    in_transactions(server, first, count, |numbers| {
        dialect.update(&set, numbers, &scattered(rows))
    })
}

/// Takes people out in the same order.
pub(crate) fn delete(server: &dyn Database, rows: u64, first: u64, count: u64) -> Result<()> {
    let dialect = server.dialect();
    in_transactions(server, first, count, |numbers| {
        dialect.delete(numbers, &scattered(rows))
    })
}

/// How many changes there are of each sort.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) inserts: u64,
    pub(crate) updates: u64,
    pub(crate) deletes: u64,
}

impl Workload {
    /// With so many inserts: half as many updates, a tenth as many deletes.
    pub(crate) fn of(inserts: u64) -> Workload {
        Workload {
            inserts,
            updates: inserts / 2,
            deletes: inserts / 10,
        }
    }

    pub(crate) fn changes(self) -> u64 {
        self.inserts + self.updates + self.deletes
    }

    /// Makes the changes in the empty table.
    pub(crate) fn run(self, server: &dyn Database) -> Result<()> {
        insert(server, 1, self.inserts)?;
        update(server, self.inserts, 0, self.updates)?;
        // Half of those who leave had been promoted.
        let first = self.updates - self.deletes / 2;
        delete(server, self.inserts, first, self.deletes)
    }
}
