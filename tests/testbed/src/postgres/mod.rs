//! A private PostgreSQL server: its own data, its own port, gone with its owner.
//!
//! A server counts as started when its own `postmaster.pid` says `ready` (the
//! state line that `pg_ctl -w` reads, `miscadmin.h`: `PM_STATUS_READY`) and names
//! the process that was started here. So neither a stranger on the port nor a
//! file that a killed server left can be mistaken for it.
//!
//! After [`Postgres::kill9`] nothing of the server runs any more: children are
//! killed with the first process, because one that lingers keeps the shared
//! memory and the next start fails.

mod builder;
mod standby;

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

pub use builder::PostgresBuilder;
pub use standby::StandbyOptions;

use crate::account::{self, Account};
use crate::error::{Result, TestbedError};
use crate::files::{append, copy_tree};
use crate::locate::{self, PgVersion};
use crate::ports::free_port;
use crate::process::{LastSignal, Process, Signal, read_lossy, run, tail, wrap};
use crate::procstat::{descendants, has_ended};
use crate::scratch::Scratch;
use crate::wait::{wait_for, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// New ports tried when someone else takes the chosen one first.
const PORT_TRIES: u32 = 5;

/// How [`Postgres::stop`] ends the server (the modes of `pg_ctl stop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until every client has gone.
    Smart,
    /// Disconnects clients and writes a checkpoint. Log senders first send what
    /// is left, so a client that does not read holds it up.
    Fast,
    /// Ends at once, as at a power cut with intact disks; recovers at the next start.
    Immediate,
}

/// A running private server. Every method takes `&self`; share it as you like.
pub struct Postgres {
    version: PgVersion,
    bin: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    log: PathBuf,
    port: u16,
    account: Option<Account>,
    process: Mutex<Option<Process>>,
    // Last, so that the process is gone before its folder.
    _scratch: Scratch,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({:?}, port {})", self.version, self.port)
    }
}

/// A cold copy of a data directory, removed on drop.
#[derive(Debug)]
pub struct DataCopy {
    version: PgVersion,
    data: PathBuf,
    _scratch: Scratch,
}

impl Postgres {
    /// What to start: PostgreSQL of the system, `wal_level = logical`, `fsync` off
    /// and everyone trusted, unless told otherwise.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// The port on 127.0.0.1, also the number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host to give to a TCP client.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The folder of the Unix socket; libpq and tokio-postgres take it as `host`.
    pub fn socket_dir(&self) -> &Path {
        &self.sockets
    }

    /// The data directory (0700, owned by the server's account).
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The superuser: no password over the socket.
    pub fn superuser(&self) -> &'static str {
        "postgres"
    }

    /// `host=… port=… user=… dbname=…` over TCP, as libpq and tokio-postgres read it.
    pub fn conninfo(&self, user: &str, db: &str) -> String {
        conninfo(self.host(), self.port, user, db)
    }

    /// The same over the Unix socket.
    pub fn socket_conninfo(&self, user: &str, db: &str) -> String {
        conninfo(&self.sockets.display().to_string(), self.port, user, db)
    }

    /// Which PostgreSQL this is.
    pub fn version(&self) -> PgVersion {
        self.version
    }

    /// A program of this server's version: `psql`, `pg_recvlogical`, …
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The id of the server's first process, when it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Process::pid)
    }

    /// What the server has logged since the instance was made.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Runs SQL over the Unix socket as the superuser with `psql -X -q -A -t`,
    /// statement by statement, and gives the rows: fields parted by `|`, rows by
    /// a line end, no last line end.
    ///
    /// # Errors
    /// When the server is not reachable, or at the first statement that fails,
    /// with psql's words.
    pub fn psql(&self, db: &str, sql: &str) -> Result<String> {
        self.psql_as(self.superuser(), None, db, sql)
    }

    /// As [`Postgres::psql`], as another role, with a password where one is needed.
    ///
    /// # Errors
    /// As [`Postgres::psql`].
    pub fn psql_as(
        &self,
        user: &str,
        password: Option<&str>,
        db: &str,
        sql: &str,
    ) -> Result<String> {
        // A file, not a pipe: any amount of SQL while any amount of output comes.
        let mut script = tempfile::tempfile().map_err(TestbedError::io("making an SQL file"))?;
        script
            .write_all(sql.as_bytes())
            .and_then(|()| std::io::Seek::rewind(&mut script))
            .map_err(TestbedError::io("writing an SQL file"))?;
        let mut command = self.tool("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-w"])
            .args(["-U", user, "-d", db])
            .arg("-h")
            .arg(&self.sockets)
            .args(["-p", &self.port.to_string()])
            .stdin(script);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        run(command)
    }

    /// Ends the server and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or has not ended within 60 s.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.as_ref().ok_or_else(|| self.state("does not run"))?;
        process.signal(match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        });
        process.wait_timeout(STOP_TIMEOUT)?;
        *slot = None;
        Ok(())
    }

    /// Kills every process of the server at once (SIGKILL).
    pub fn kill9(&self) {
        let mut slot = self.lock();
        if let Some(process) = slot.take() {
            // Stopped first, so that it makes no child between list and kill.
            process.signal(Signal::STOP);
            let children = descendants(process.pid());
            for pid in &children {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            process.kill9();
            // The next start fails while one of them holds the shared memory; a
            // process that got SIGKILL goes, so a time-out here is not an error.
            let _ = wait_until(Duration::from_secs(10), "killed processes to end", || {
                children.iter().copied().all(has_ended)
            });
        }
    }

    /// Starts a stopped or killed server again: same port, same data.
    ///
    /// # Errors
    /// When it runs already, or does not start; the text has its log.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.lock();
        if slot.as_ref().is_some_and(Process::is_running) {
            return Err(self.state("runs already"));
        }
        *slot = Some(self.launch()?);
        Ok(())
    }

    /// [`Postgres::stop`] (fast) and [`Postgres::start_again`].
    ///
    /// # Errors
    /// As the two.
    pub fn restart(&self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        self.start_again()
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// As [`Postgres::psql`].
    pub fn checkpoint(&self) -> Result<()> {
        self.psql("postgres", "CHECKPOINT").map(drop)
    }

    /// Appends lines to `postgresql.conf` (the last line for a name counts);
    /// [`Postgres::reload`] or [`Postgres::restart`] makes them count.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_conf(&self, lines: &str) -> Result<()> {
        append(&self.data.join("postgresql.conf"), lines)
    }

    /// Replaces `pg_hba.conf` and reloads. The superuser's way over the socket
    /// stays, as the first line.
    ///
    /// # Errors
    /// When the file cannot be written or the server does not run.
    pub fn set_hba(&self, lines: &[&str]) -> Result<()> {
        self.write_hba(lines)?;
        self.reload()
    }

    /// Makes the server read its configuration files, and waits until it has.
    ///
    /// # Errors
    /// As [`Postgres::psql`].
    pub fn reload(&self) -> Result<()> {
        let before = self.psql("postgres", "SELECT pg_conf_load_time()")?;
        self.psql("postgres", "SELECT pg_reload_conf()")?;
        wait_for(
            Duration::from_secs(10),
            "the server to reload its configuration",
            || match self.psql("postgres", "SELECT pg_conf_load_time()") {
                Ok(now) if now != before => Ok(()),
                Ok(now) => Err(format!("loaded at {now}")),
                Err(error) => Err(error.to_string()),
            },
        )
    }

    /// A cold copy of the data directory: the server is stopped for it and then
    /// started again if it ran.
    ///
    /// # Errors
    /// When it cannot be stopped, copied or started again.
    pub fn copy_data_dir(&self) -> Result<DataCopy> {
        let ran = self.pid().is_some();
        if ran {
            self.stop(StopMode::Fast)?;
        }
        let scratch = Scratch::new()?;
        let data = scratch.path().join("data");
        copy_tree(&self.data, &data)?;
        if ran {
            self.start_again()?;
        }
        Ok(DataCopy {
            version: self.version,
            data,
            _scratch: scratch,
        })
    }

    /// What an operator does who restores a backup: stops the server, puts the
    /// copy in place of its data, starts it. The address stays.
    ///
    /// # Errors
    /// When a step fails.
    pub fn restore_from(&self, copy: &DataCopy) -> Result<()> {
        if self.pid().is_some() {
            self.stop(StopMode::Fast)?;
        }
        fs::remove_dir_all(&self.data).map_err(TestbedError::io(format!(
            "removing {}",
            self.data.display()
        )))?;
        copy_tree(&copy.data, &self.data)?;
        self.own_address()?;
        self.start_again()
    }

    /// A second server on a copy, on a port of its own: the same cluster (system
    /// identifier, slots) at another address.
    ///
    /// # Errors
    /// When it cannot be copied or does not start.
    pub fn from_copy(copy: &DataCopy) -> Result<Postgres> {
        let (postgres, _) = Postgres::prepare(copy.version)?;
        copy_tree(&copy.data, &postgres.data)?;
        postgres.first_start()
    }

    /// An instance without data, and whether it is root's.
    fn prepare(version: PgVersion) -> Result<(Postgres, Option<Account>)> {
        let bin = locate::postgres_bin(version)?;
        let account = account::unprivileged()?;
        let scratch = Scratch::new()?;
        let sockets = scratch.path().join("s");
        fs::create_dir(&sockets).map_err(TestbedError::io("making the socket folder"))?;
        account::give(&sockets, account)?;
        let log = scratch.path().join("log");
        File::create(&log).map_err(TestbedError::io("making the log file"))?;
        let data = scratch.path().join("data");
        fs::create_dir(&data).map_err(TestbedError::io("making the data folder"))?;
        // pg_basebackup keeps the mode of a folder it finds; the server wants 0700.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))
            .map_err(TestbedError::io("setting the mode of the data folder"))?;
        account::give(&data, account)?;
        let postgres = Postgres {
            version,
            bin,
            data,
            sockets,
            log,
            port: free_port()?,
            account,
            process: Mutex::new(None),
            _scratch: scratch,
        };
        Ok((postgres, account))
    }

    /// Starts it, on another port when this one was taken in the meantime.
    fn first_start(mut self) -> Result<Postgres> {
        for tries_left in (0..PORT_TRIES).rev() {
            self.own_address()?;
            match self.launch() {
                Ok(process) => {
                    *self.lock() = Some(process);
                    break;
                }
                Err(TestbedError::Start { log, .. })
                    if tries_left > 0 && log.contains("Address already in use") =>
                {
                    self.port = free_port()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Writes the address to the configuration, after all that came before it.
    fn own_address(&self) -> Result<()> {
        self.append_conf(&format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            self.port,
            self.sockets.display()
        ))
    }

    fn launch(&self) -> Result<Process> {
        let logged = fs::metadata(&self.log).map_or(0, |m| m.len());
        let mut command = self.tool("postgres");
        command.arg("-D").arg(&self.data);
        let process = Process::server(command, &self.log, self.account, LastSignal::Quit)?;
        let failed = |reason: String| TestbedError::Start {
            server: format!("PostgreSQL ({:?}) on port {}", self.version, self.port),
            reason,
            log_path: self.log.clone(),
            log: tail(&self.log_from(logged)).to_owned(),
        };
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = process.status() {
                return Err(failed(format!("it ended with {status}")));
            }
            if self.is_ready(process.pid()) {
                return Ok(process);
            }
            if start.elapsed() > START_TIMEOUT {
                return Err(failed(format!("not ready after {START_TIMEOUT:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The state line of `postmaster.pid`, which counts only beside our own id.
    fn is_ready(&self, pid: u32) -> bool {
        let text = read_lossy(&self.data.join("postmaster.pid"));
        let mut lines = text.lines();
        lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
            && lines.nth(6).map(str::trim) == Some("ready")
    }

    fn log_from(&self, offset: u64) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// A program of this server without the caller's `PG…` environment.
    fn tool(&self, name: &str) -> Command {
        bare_tool(&self.bin, name)
    }

    /// Runs a program of this server under the account that owns its data.
    fn run_as_owner(&self, command: &Command) -> Result<String> {
        run(wrap(command, self.account, None)?)
    }

    fn write_hba(&self, lines: &[&str]) -> Result<()> {
        let mut text = String::from("local all postgres trust\nlocal replication postgres trust\n");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let path = self.data.join("pg_hba.conf");
        fs::write(&path, text).map_err(TestbedError::io(format!("writing {}", path.display())))
    }

    /// A killed server leaves its piece of System V shared memory, which its next
    /// start would take over; here there is none. The 7th line of a
    /// `postmaster.pid` that is left names it: key and id.
    fn release_shared_memory(&self) {
        let text = read_lossy(&self.data.join("postmaster.pid"));
        let id = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_ascii_whitespace().nth(1));
        if let Some(id) = id {
            // The system refuses the id of a stranger; there is nothing to do then.
            let _ = Command::new("ipcrm").args(["-m", id]).output();
        }
    }

    fn state(&self, what: &str) -> TestbedError {
        TestbedError::State(format!("the PostgreSQL on port {} {what}", self.port))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody reads this data again: no checkpoint, no waiting for clients.
        drop(self.lock().take());
        self.release_shared_memory();
    }
}

fn conninfo(host: &str, port: u16, user: &str, db: &str) -> String {
    format!("host={host} port={port} user={user} dbname={db}")
}

fn bare_tool(bin: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PG") {
            command.env_remove(key);
        }
    }
    command.env("LC_ALL", "C.UTF-8");
    command
}
