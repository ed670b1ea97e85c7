//! The limits: what the server's own tools reach on the same data.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rollcall_testbed::{MySql, Postgres, ProcStat, Process};

use crate::Result;
use crate::database::{DATABASE, PUBLICATION, ROLE};

/// How fast something went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rows_per_s: f64,
    /// CPU time for one row, microseconds.
    pub(crate) cpu_us: f64,
    /// Highest resident memory.
    pub(crate) rss_mib: f64,
}

impl Pace {
    pub(crate) fn new(rows: u64, took: Duration, used: ProcStat) -> Pace {
        Pace {
            rows_per_s: rows as f64 / took.as_secs_f64(),
            cpu_us: used.cpu_seconds * 1e6 / rows as f64,
            rss_mib: used.peak_rss_kib as f64 / 1024.0,
        }
    }
}

/// Waits for a child to end by itself, and gives what it has used: as last seen, at most
/// some milliseconds before its end.
fn used_by(process: &Process, limit: Duration, what: &str) -> Result<ProcStat> {
    let began = Instant::now();
    let mut used = ProcStat::default();
    loop {
        if let Ok(stat) = ProcStat::of(process.pid())
            && stat.peak_rss_kib > 0
        {
            used = stat;
        }
        match process.status() {
            Some(status) if status.success() => return Ok(used),
            Some(status) => {
                return Err(format!("{what} ended with {status}:\n{}", process.log()).into());
            }
            None if began.elapsed() > limit => {
                return Err(format!(
                    "{what} has not ended within {} s:\n{}",
                    limit.as_secs(),
                    process.log()
                )
                .into());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// `pg_recvlogical` of a slot to /dev/null, from its start to its end.
pub(crate) fn recvlogical(
    server: &Postgres,
    slot: &str,
    end: &str,
    rows: u64,
    limit: Duration,
) -> Result<Pace> {
    let mut command = Command::new(server.bin("pg_recvlogical"));
    command
        .args(["--start", "--no-loop", "--no-password"])
        .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
        .args(["-U", ROLE, "-d", DATABASE, "-S", slot])
        .args(["-o", "proto_version=1"])
        .args(["-o", &format!("publication_names={PUBLICATION}")])
        .args(["-E", end, "-s", "1", "-F", "0", "-f", "/dev/null"]);
    let began = Instant::now();
    let process = Process::spawn(command)?;
    let used = used_by(&process, limit, "pg_recvlogical")?;
    Ok(Pace::new(rows, began.elapsed(), used))
}

/// `COPY employees TO '/dev/null'` inside of the server, rows per second.
pub(crate) fn copy_in_server(server: &Postgres, rows: u64) -> Result<f64> {
    let began = Instant::now();
    server.psql(DATABASE, "COPY employees TO '/dev/null'")?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

/// `psql -c 'COPY employees TO STDOUT'` to /dev/null, rows per second.
pub(crate) fn copy_to_client(server: &Postgres, rows: u64, limit: Duration) -> Result<f64> {
    let mut command = Command::new(server.bin("psql"));
    command
        .args(["-X", "-q", "-w", "-h", "127.0.0.1"])
        .args(["-p", &server.port().to_string(), "-U", ROLE, "-d", DATABASE])
        .args(["-o", "/dev/null", "-c", "COPY employees TO STDOUT"]);
    let began = Instant::now();
    let process = Process::spawn(command)?;
    used_by(&process, limit, "psql")?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

/// `mysqlbinlog --verbose` of a file to /dev/null, from its start to its end.
pub(crate) fn mysqlbinlog(server: &MySql, file: &Path, rows: u64, limit: Duration) -> Result<Pace> {
    let mut command = server.tool("mysqlbinlog");
    command
        .args(["--verbose", "--result-file=/dev/null"])
        .arg(file);
    let began = Instant::now();
    let process = Process::spawn(command)?;
    let used = used_by(&process, limit, "mysqlbinlog")?;
    Ok(Pace::new(rows, began.elapsed(), used))
}

/// `mysql --quick -e 'select *'` to /dev/null, rows per second.
pub(crate) fn select_to_client(server: &MySql, rows: u64, limit: Duration) -> Result<f64> {
    let client = server.client(ROLE);
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" >/dev/null"])
        .arg(client.get_program())
        .args(client.get_args())
        .args(["--quick", DATABASE, "-e", "select * from employees"]);
    let began = Instant::now();
    let process = Process::spawn(command)?;
    used_by(&process, limit, "mysql")?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}
