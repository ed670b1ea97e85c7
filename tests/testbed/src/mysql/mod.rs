//! A private MySQL or MariaDB server: its own data, its own port, gone with its
//! owner.
//!
//! A server counts as started when the process that was started here has said in
//! its own log, after the point where the log stood before, that it is ready for
//! connections: it says so last, with its sockets open. So a stranger on the port
//! cannot be mistaken for it.
//!
//! The two families differ in names of programs, options and statements; what
//! differs is asked of [`MySqlVersion`], so that one test can run with each.

mod binlog;
mod builder;
mod replica;

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use binlog::BinlogFile;
pub use builder::MySqlBuilder;

use crate::account::{self, Account};
use crate::error::{Result, TestbedError};
use crate::files::{append, copy_tree};
use crate::locate::{self, MySqlVersion};
use crate::ports::free_port;
use crate::process::{LastSignal, Process, Signal, read_lossy, run, tail};
use crate::scratch::Scratch;

const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// New ports tried when someone else takes the chosen one first.
const PORT_TRIES: u32 = 5;
const ROOT: &str = "root";

/// A running private server. Every method takes `&self`; share it as you like.
pub struct MySql {
    version: MySqlVersion,
    home: PathBuf,
    data: PathBuf,
    conf: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    port: u16,
    account: Option<Account>,
    process: Mutex<Option<Process>>,
    // Last, so that the process is gone before its folder.
    _scratch: Scratch,
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MySql({:?}, port {})", self.version, self.port)
    }
}

/// A cold copy of a data directory with its options, removed on drop.
#[derive(Debug)]
pub struct MySqlCopy {
    version: MySqlVersion,
    data: PathBuf,
    conf: String,
    _scratch: Scratch,
}

impl MySql {
    /// What to start: MySQL 9 with GTIDs, a full row binlog, no TLS and commits not
    /// forced to the disk, unless told otherwise.
    pub fn builder() -> MySqlBuilder {
        MySqlBuilder::new()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host to give to a TCP client.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The data directory, with the binlog in it (owned by the server's account).
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Which server this is.
    pub fn version(&self) -> MySqlVersion {
        self.version
    }

    /// The id of the server's process, when it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Process::pid)
    }

    /// What the server has logged since the instance was made.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// A program of this server's version, by MySQL's name (`mysql`, `mysqlbinlog`,
    /// `mysqladmin`, `mysqldump`), without options and without the caller's
    /// environment that it would read.
    pub fn tool(&self, name: &str) -> Command {
        let name = match name {
            _ if !self.version.is_mariadb() => name.to_owned(),
            "mysqld" => "mariadbd".to_owned(),
            _ => match name.strip_prefix("mysql") {
                Some("") => "mariadb".to_owned(),
                Some(tool) => format!("mariadb-{tool}"),
                None => name.to_owned(),
            },
        };
        let mut command = Command::new(self.home.join("bin").join(name));
        for (key, _) in std::env::vars_os() {
            let key_text = key.to_string_lossy();
            if key_text.starts_with("MYSQL") || key_text.starts_with("MARIADB") {
                command.env_remove(key);
            }
        }
        // Programs read options of the machine's servers unless this comes first.
        command.arg("--no-defaults");
        command
    }

    /// Runs SQL over the Unix socket as `root`, statement by statement, and gives
    /// the rows: fields parted by a tab, `NULL` for null, rows by a line end, no
    /// last line end. No database is chosen: name it (`hr.employee`) or say `USE`.
    ///
    /// # Errors
    /// When the server is not reachable, or at the first statement that fails, with
    /// the client's words.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.sql_as(ROOT, None, sql)
    }

    /// As [`MySql::sql`], as another user, with a password where one is needed.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn sql_as(&self, user: &str, password: Option<&str>, sql: &str) -> Result<String> {
        // A file, not a pipe: any amount of SQL while any amount of output comes.
        let mut script = tempfile::tempfile().map_err(TestbedError::io("making an SQL file"))?;
        script
            .write_all(sql.as_bytes())
            .and_then(|()| script.rewind())
            .map_err(TestbedError::io("writing an SQL file"))?;
        let mut command = self.client(user);
        command
            .args(["--batch", "--raw", "--skip-column-names"])
            .stdin(script);
        if let Some(password) = password {
            command.env("MYSQL_PWD", password);
        }
        run(command)
    }

    /// The command-line client, told how to reach this server over its socket.
    pub fn client(&self, user: &str) -> Command {
        let mut command = self.tool("mysql");
        command
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--user={user}"))
            .arg(format!("--plugin-dir={}", self.client_plugins().display()))
            .arg("--default-character-set=utf8mb4");
        if self.version.is_mariadb() {
            // From 11.4 on it wants TLS unless told otherwise.
            command.arg("--skip-ssl");
        }
        command
    }

    /// Makes a user who may log in from everywhere with a password, and nothing
    /// else. How the password is proved is the server's default:
    /// `caching_sha2_password` on MySQL, `mysql_native_password` on MariaDB.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn create_user(&self, name: &str, password: &str) -> Result<()> {
        let (name, password) = (quoted(name), quoted(password));
        self.sql(&format!("CREATE USER {name}@'%' IDENTIFIED BY {password}"))
            .map(drop)
    }

    /// As [`MySql::create_user`], with a plugin: `ed25519` on MariaDB.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn create_user_with(&self, name: &str, plugin: &str, password: &str) -> Result<()> {
        let (name, password) = (quoted(name), quoted(password));
        let proof = if self.version.is_mariadb() {
            format!("VIA {plugin} USING PASSWORD({password})")
        } else {
            format!("WITH {plugin} BY {password}")
        };
        self.sql(&format!("CREATE USER {name}@'%' IDENTIFIED {proof}"))
            .map(drop)
    }

    /// Ends the server in order (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or has not ended within 60 s.
    pub fn stop(&self) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.as_ref().ok_or_else(|| self.state("does not run"))?;
        process.signal(Signal::TERM);
        process.wait_timeout(STOP_TIMEOUT)?;
        *slot = None;
        Ok(())
    }

    /// Kills the server at once (SIGKILL).
    pub fn kill9(&self) {
        if let Some(process) = self.lock().take() {
            process.kill9();
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

    /// [`MySql::stop`] and [`MySql::start_again`].
    ///
    /// # Errors
    /// As the two.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Appends lines to the file of options (the last line for a name counts);
    /// [`MySql::restart`] makes them count.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_conf(&self, lines: &str) -> Result<()> {
        append(&self.conf, lines)
    }

    /// A cold copy of the data directory: the server is stopped for it and then
    /// started again if it ran.
    ///
    /// # Errors
    /// When it cannot be stopped, copied or started again.
    pub fn copy_data_dir(&self) -> Result<MySqlCopy> {
        let ran = self.pid().is_some();
        if ran {
            self.stop()?;
        }
        let scratch = Scratch::new()?;
        let data = scratch.path().join("data");
        copy_tree(&self.data, &data)?;
        let conf = read_lossy(&self.conf);
        if ran {
            self.start_again()?;
        }
        Ok(MySqlCopy {
            version: self.version,
            data,
            conf,
            _scratch: scratch,
        })
    }

    /// What an operator does who restores a backup: stops the server, puts the
    /// copy in place of its data, starts it. Address and options stay.
    ///
    /// # Errors
    /// When a step fails.
    pub fn restore_from(&self, copy: &MySqlCopy) -> Result<()> {
        if self.pid().is_some() {
            self.stop()?;
        }
        fs::remove_dir_all(&self.data).map_err(TestbedError::io(format!(
            "removing {}",
            self.data.display()
        )))?;
        copy_tree(&copy.data, &self.data)?;
        self.start_again()
    }

    /// A second server on a copy, on a port of its own: the same server (UUID,
    /// server id, binlog) at another address.
    ///
    /// # Errors
    /// When it cannot be copied or does not start.
    pub fn from_copy(copy: &MySqlCopy) -> Result<MySql> {
        let server = MySql::prepare(copy.version)?;
        copy_tree(&copy.data, &server.data)?;
        server.append_conf(&copy.conf)?;
        server.first_start()
    }

    /// An instance without data and options.
    fn prepare(version: MySqlVersion) -> Result<MySql> {
        let home = locate::mysql_home(version)?;
        let account = account::unprivileged()?;
        let scratch = Scratch::new()?;
        // The server makes its socket in a folder that is its own.
        let sockets = scratch.path().join("s");
        let data = scratch.path().join("data");
        for folder in [&sockets, &data] {
            fs::create_dir(folder).map_err(TestbedError::io(format!(
                "making the folder {}",
                folder.display()
            )))?;
            account::give(folder, account)?;
        }
        let log = scratch.path().join("log");
        let conf = scratch.path().join("my.cnf");
        for file in [&log, &conf] {
            File::create(file)
                .and_then(|_| fs::set_permissions(file, fs::Permissions::from_mode(0o644)))
                .map_err(TestbedError::io(format!("making {}", file.display())))?;
        }
        Ok(MySql {
            version,
            home,
            data,
            conf,
            socket: sockets.join("mysql.sock"),
            log,
            port: free_port()?,
            account,
            process: Mutex::new(None),
            _scratch: scratch,
        })
    }

    /// A copy of a data directory is a server of its own once it has lost the UUID
    /// that MySQL keeps there; a new one is made at the start.
    fn forget_identity(&self) -> Result<()> {
        match fs::remove_file(self.data.join("auto.cnf")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TestbedError::io("removing auto.cnf")(error))
            }
            _ => Ok(()),
        }
    }

    /// Starts it, on another port when this one was taken in the meantime.
    fn first_start(mut self) -> Result<MySql> {
        for tries_left in (0..PORT_TRIES).rev() {
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

    /// The server with what it has to be told before any file of options.
    fn server_command(&self) -> Command {
        let usr = self.home.join("root/usr");
        let share = ["mariadb", "mysql"]
            .map(|name| usr.join("share").join(name))
            .into_iter()
            .find(|share| self.version.is_mariadb() && share.join("english").is_dir())
            .unwrap_or_else(|| usr.join("share/mysql"));
        let mut command = Command::new(self.tool("mysqld").get_program());
        command
            .arg(format!("--defaults-file={}", self.conf.display()))
            .arg(format!("--basedir={}", usr.display()))
            .arg(format!("--lc-messages-dir={}", share.display()))
            .arg(format!(
                "--plugin-dir={}",
                usr.join("lib/mysql/plugin").display()
            ))
            .arg(format!("--datadir={}", self.data.display()));
        command
    }

    fn launch(&self) -> Result<Process> {
        let logged = fs::metadata(&self.log).map_or(0, |m| m.len());
        let mut command = self.server_command();
        command
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", self.socket.display()))
            // A server that starts removes the temporary tables of all others that share
            // the folder.
            .arg(format!(
                "--tmpdir={}",
                self.socket.parent().unwrap_or(Path::new("/tmp")).display()
            ))
            .arg(format!(
                "--pid-file={}",
                self.data.join("server.pid").display()
            ));
        let process = Process::server(command, &self.log, self.account, LastSignal::Kill)?;
        let failed = |reason: String| TestbedError::Start {
            server: format!("{} on port {}", self.version, self.port),
            reason,
            log_path: self.log.clone(),
            log: tail(&self.log_from(logged)).to_owned(),
        };
        let start = Instant::now();
        loop {
            if let Some(status) = process.status() {
                return Err(failed(format!("it ended with {status}")));
            }
            if self.log_from(logged).contains(": ready for connections") {
                return Ok(process);
            }
            if start.elapsed() > START_TIMEOUT {
                return Err(failed(format!("not ready after {START_TIMEOUT:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_from(&self, offset: u64) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// MariaDB's clients have their plugins apart, in the folder of the machine's
    /// architecture.
    fn client_plugins(&self) -> PathBuf {
        let lib = self.home.join("root/usr/lib");
        let apart = fs::read_dir(&lib)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("libmariadb3/plugin"))
            .find(|plugins| self.version.is_mariadb() && plugins.is_dir());
        apart.unwrap_or_else(|| lib.join("mysql/plugin"))
    }

    fn state(&self, what: &str) -> TestbedError {
        TestbedError::State(format!("the {} on port {} {what}", self.version, self.port))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text as SQL writes it, while backslashes escape (the `sql_mode` that a server
/// begins with).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}
