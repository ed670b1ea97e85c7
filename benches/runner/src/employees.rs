//! The table that everything is measured with: 12 columns, about 190 bytes a row.
//!
//! Rows follow from their number alone, so every run has the same bytes. Updates and
//! deletes hit scattered ids (a stride that is prime to the number of rows), because people
//! do not change in the order in which they were hired.

use std::path::{Path, PathBuf};

use rollcall_testbed::{Postgres, PostgresBuilder};

use crate::Result;

/// The database of every bench.
pub(crate) const DATABASE: &str = "bench";
/// The role of everything that is measured.
pub(crate) const ROLE: &str = "rollcall";
/// The publication.
pub(crate) const PUBLICATION: &str = "rollcall";
/// Rows of a transaction.
const ROWS_PER_TX: u64 = 1_000;
/// Prime, and prime to every size that is used here.
const STRIDE: u64 = 7_919;

/// A server as an operator would run it, except that `fsync` is off: the disk under the
/// source is not what is measured. Checkpoints and vacuum are kept out of the runs.
pub(crate) fn server() -> PostgresBuilder {
    Postgres::builder()
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "32GB")
        .setting("checkpoint_timeout", "1h")
        .setting("autovacuum", "off")
}

/// Makes database, role, table and publication.
pub(crate) fn create(server: &Postgres) -> Result<()> {
    server.psql(
        "postgres",
        &format!("CREATE ROLE {ROLE} LOGIN REPLICATION; CREATE DATABASE {DATABASE};"),
    )?;
    server.psql(
        DATABASE,
        &format!(
            "CREATE TABLE employees (
                 id bigint PRIMARY KEY, email text NOT NULL, first_name text, last_name text,
                 department text, job text, status text NOT NULL, manager_id bigint,
                 hired_on date, salary numeric(10,2), phone text, updated_at timestamptz);
             GRANT SELECT ON employees TO {ROLE};
             CREATE PUBLICATION {PUBLICATION} FOR TABLE employees
                 WITH (publish_via_partition_root = true);"
        ),
    )?;
    Ok(())
}

/// The columns of the row with the number `g`.
const ROW: &str = "g, 'user.' || g || '@example.com',
    (ARRAY['Anna','Björn','Chloé','David','Emma','Farid','Grace','Hiro','Inès','Jakub',
           'Kofi','Lena','Mateo','Nadia','Oscar','Priya'])[1 + g % 16],
    (ARRAY['Albrecht','Bakker','Castillo','Dubois','Eriksson','Fischer','García','Hansen',
           'Ivanova','Janssen','Kowalski','Lindqvist','Müller','Nguyen','Okafor','Petrov',
           'Quinn'])[1 + g % 17],
    (ARRAY['Engineering','Sales','Support','Finance','People','Legal','Operations'])[1 + g % 7],
    (ARRAY['Engineer','Account Manager','Agent','Controller','Recruiter','Counsel',
           'Planner','Analyst','Team Lead'])[1 + g % 9],
    'active', NULLIF(g / 10, 0), date '2000-01-01' + (g % 9000)::int,
    30000 + (g % 70000)::numeric / 4, '+49 30 ' || lpad((g % 10000000)::text, 7, '0'),
    timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second'";

/// Runs one statement for each 1,000 numbers from `first` on, each in a transaction of its
/// own. In the statement `a` and `b` are the first and the last number.
fn in_transactions(server: &Postgres, first: u64, count: u64, statement: &str) -> Result<()> {
    if count > 0 {
        let last = first + count - 1;
        server.psql(
            DATABASE,
            &format!(
                "DO $$ DECLARE a bigint := {first}; b bigint; BEGIN
                   WHILE a <= {last} LOOP
                     b := least(a + {ROWS_PER_TX} - 1, {last});
                     {statement};
                     COMMIT;
                     a := b + 1;
                   END LOOP; END $$;"
            ),
        )?;
    }
    Ok(())
}

/// Hires people with the ids from `first` on.
pub(crate) fn insert(server: &Postgres, first: u64, count: u64) -> Result<()> {
    let statement =
        format!("INSERT INTO employees SELECT {ROW} FROM generate_series(a, b) AS n(g)");
    in_transactions(server, first, count, &statement)
}

/// The id in place `g` of the scattered order over ids 1 to `rows`.
fn scattered(rows: u64) -> String {
    format!("(g * {STRIDE}) % {rows} + 1")
}

/// Promotes people in scattered order: places `first` on of the order over `rows` ids.
pub(crate) fn update(server: &Postgres, rows: u64, first: u64, count: u64) -> Result<()> {
    let id = scattered(rows);
    let statement = format!(
        "UPDATE employees e SET job = 'Senior ' || e.job, salary = e.salary + 500,
             updated_at = e.updated_at + interval '1 day'
         FROM generate_series(a, b) AS n(g) WHERE e.id = {id}"
    );
    in_transactions(server, first, count, &statement)
}

/// Takes people out in the same order.
pub(crate) fn delete(server: &Postgres, rows: u64, first: u64, count: u64) -> Result<()> {
    let id = scattered(rows);
    let statement =
        format!("DELETE FROM employees e USING generate_series(a, b) AS n(g) WHERE e.id = {id}");
    in_transactions(server, first, count, &statement)
}

/// The head of the server's log.
pub(crate) fn head(server: &Postgres) -> Result<String> {
    Ok(server.psql(DATABASE, "SELECT pg_current_wal_insert_lsn()")?)
}

/// A position of the log as a number, to compare.
pub(crate) fn lsn(text: &str) -> Result<u64> {
    let number = || {
        let (high, low) = text.trim().split_once('/')?;
        let high = u64::from_str_radix(high, 16).ok()?;
        Some(high << 32 | u64::from_str_radix(low, 16).ok()?)
    };
    number().ok_or_else(|| format!("{text:?} is not a position of the log").into())
}

/// The Kafka sink of a configuration.
pub(crate) struct KafkaTarget {
    pub(crate) bootstrap: String,
    /// Topics and transactional id carry it, so that no run meets another one's.
    pub(crate) name: String,
    pub(crate) delivery: &'static str,
}

impl KafkaTarget {
    pub(crate) fn topic(&self) -> String {
        format!("{}.identity", self.name)
    }
}

/// Writes the daemon's configuration: eight attributes (one of them computed) and a scope.
pub(crate) fn write_config(
    folder: &Path,
    server: &Postgres,
    store: &Path,
    slot: &str,
    kafka: Option<&KafkaTarget>,
) -> Result<PathBuf> {
    let mut text = format!(
        "organization = \"bench\"\n\
         [store]\npath = \"{store}\"\n\
         [log]\nlevel = \"warn\"\n\
         [source.hr]\ntype = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         database = \"{DATABASE}\"\nuser = \"{ROLE}\"\ntable = \"public.employees\"\n\
         slot = \"{slot}\"\npublication = \"{PUBLICATION}\"\n\
         scope = \"status != 'contractor'\"\n\
         [source.hr.map]\n\
         userName = \"email\"\n\
         email = \"email\"\n\
         name.givenName = \"first_name\"\n\
         name.familyName = \"last_name\"\n\
         displayName = {{ expr = \"first_name + ' ' + last_name\" }}\n\
         title = {{ column = \"job\", default = \"Employee\" }}\n\
         department = \"department\"\n\
         phoneNumber = \"phone\"\n",
        store = store.display(),
        port = server.port(),
    );
    if let Some(kafka) = kafka {
        text.push_str(&format!(
            "[sink.events]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{}\"\n\
             cursors_topic = \"{name}.cursors\"\ntransactional_id = \"{name}\"\n\
             delivery = \"{}\"\n",
            kafka.bootstrap,
            kafka.topic(),
            kafka.delivery,
            name = kafka.name,
        ));
    }
    let path = folder.join(format!("{slot}.toml"));
    std::fs::write(&path, text)?;
    Ok(path)
}
