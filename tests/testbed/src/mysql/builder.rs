//! What a private MySQL or MariaDB is started with.
//!
//! A server begins with a copy of the empty data directory that was made when it
//! was installed: making one takes MySQL five seconds. What MySQL fixes for good
//! when it makes a directory ([`MySqlBuilder::initialized_with`]) costs these.
//!
//! In a file of options the last line for a name counts, so the caller's settings
//! come after the defaults. Address, data and folders of the program are given as
//! arguments, which count more than any file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::MySql;
use crate::account;
use crate::error::{Result, TestbedError};
use crate::files::copy_tree;
use crate::locate::MySqlVersion;
use crate::ports::random;
use crate::process::{run, wrap};
use crate::tls::Tls;

/// Small, since several servers run side by side on a small machine; and what the
/// daemon asks for, since a test that wants otherwise says so.
const DEFAULTS: &str = "\
[mysqld]
skip_name_resolve = ON
character_set_server = utf8mb4
max_connections = 60
innodb_buffer_pool_size = 32M
log_bin = binlog
binlog_row_image = FULL
binlog_row_metadata = FULL
secure_file_priv =
";

const MYSQL: &str = "\
mysqlx = 0
gtid_mode = ON
enforce_gtid_consistency = ON
innodb_redo_log_capacity = 64M
";

const MARIADB: &str = "\
binlog_format = ROW
gtid_strict_mode = ON
log_slave_updates = ON
plugin_load_add = auth_ed25519
innodb_log_file_size = 64M
";

/// Commits reach the system, not the disk: a killed server loses none of them.
const NO_FSYNC: &str = "sync_binlog = 0\ninnodb_flush_log_at_trx_commit = 2\n";

/// The server of a [`MySql`] to be started.
#[derive(Debug)]
#[must_use]
pub struct MySqlBuilder {
    version: MySqlVersion,
    settings: String,
    initialized_with: Vec<(String, String)>,
    fsync: bool,
    tls: bool,
    tls_files: Option<TlsPem>,
}

#[derive(Debug)]
struct TlsPem {
    ca: String,
    cert: String,
    key: String,
}

impl MySqlBuilder {
    pub(super) fn new() -> MySqlBuilder {
        MySqlBuilder {
            version: MySqlVersion::MySql9,
            settings: String::new(),
            initialized_with: Vec::new(),
            fsync: false,
            tls: false,
            tls_files: None,
        }
    }

    /// Which server; [`MySqlVersion::MySql9`] unless said.
    pub fn version(mut self, version: MySqlVersion) -> Self {
        self.version = version;
        self
    }

    /// A line of the file of options. A value with spaces or `#` needs quotes.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push_str(&format!("{name} = {value}\n"));
        self
    }

    /// A setting that has to be known when the data directory is made, such as
    /// MySQL's `lower_case_table_names`; it is a setting of the server too.
    pub fn initialized_with(mut self, name: &str, value: &str) -> Self {
        self.initialized_with
            .push((name.to_owned(), value.to_owned()));
        self.setting(name, value)
    }

    /// Whether commits are forced to the disk (`sync_binlog`,
    /// `innodb_flush_log_at_trx_commit`). Off unless said; without it a killed
    /// server still loses nothing, a cut power line would.
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// TLS with a certificate for localhost from an authority nobody knows. Without
    /// it the server speaks no TLS at all, unlike one that is installed as usual.
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// TLS with this server certificate; client certificates of the same authority
    /// are accepted (`REQUIRE X509` in `CREATE USER` asks for one).
    ///
    /// # Errors
    /// When one of its files cannot be read.
    pub fn tls_with(mut self, tls: &Tls) -> Result<Self> {
        self.tls_files = Some(TlsPem::read(tls)?);
        self.tls = true;
        Ok(self)
    }

    /// Makes the data directory and starts the server on a free port.
    ///
    /// # Errors
    /// When the server is not installed, or does not start; the text has its log.
    pub fn start(self) -> Result<MySql> {
        let server = MySql::prepare(self.version)?;
        if self.initialized_with.is_empty() || self.version.is_mariadb() {
            copy_tree(&server.home.join("template"), &server.data)?;
        } else {
            server.initialize(&self.initialized_with)?;
        }
        server.forget_identity()?;
        server.append_conf(DEFAULTS)?;
        server.append_conf(if self.version.is_mariadb() {
            MARIADB
        } else {
            MYSQL
        })?;
        if !self.fsync {
            server.append_conf(NO_FSYNC)?;
        }
        if self.tls {
            let files = match self.tls_files {
                Some(files) => files,
                None => TlsPem::read(&Tls::for_localhost("root")?)?,
            };
            server.append_conf(&files.install(&server)?)?;
        } else {
            server.append_conf(if self.version.is_mariadb() {
                "skip_ssl\n"
            } else {
                "tls_version =\n"
            })?;
        }
        server.append_conf(&format!("server_id = {}\n", server_id()))?;
        server.append_conf(&self.settings)?;
        server.first_start()
    }
}

/// Any number that a server may have.
pub(super) fn server_id() -> u32 {
    u32::try_from(random() % u64::from(u32::MAX - 1)).unwrap_or(0) + 1
}

impl MySql {
    /// MySQL makes a data directory with settings that count for good.
    fn initialize(&self, settings: &[(String, String)]) -> Result<()> {
        let mut command = self.server_command();
        command.args(["--initialize-insecure", "--disable-log-bin"]);
        for (name, value) in settings {
            command.arg(format!("--{name}={value}"));
        }
        run(wrap(&command, self.account, None)?).map(drop)
    }
}

impl TlsPem {
    fn read(tls: &Tls) -> Result<TlsPem> {
        let read = |path: std::path::PathBuf| {
            fs::read_to_string(&path)
                .map_err(TestbedError::io(format!("reading {}", path.display())))
        };
        Ok(TlsPem {
            ca: read(tls.ca())?,
            cert: read(tls.server_cert())?,
            key: read(tls.server_key())?,
        })
    }

    /// Puts the files beside the data and gives the options that name them.
    fn install(&self, server: &MySql) -> Result<String> {
        let mut options = String::new();
        for (option, name, pem) in [
            ("ssl_ca", "tls-ca.pem", &self.ca),
            ("ssl_cert", "tls-server.pem", &self.cert),
            ("ssl_key", "tls-server.key", &self.key),
        ] {
            let path = server.data.join(name);
            write_private(&path, pem)?;
            account::give(&path, server.account)?;
            options.push_str(&format!("{option} = {}\n", path.display()));
        }
        Ok(options)
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .map_err(TestbedError::io(format!("writing {}", path.display())))
}
