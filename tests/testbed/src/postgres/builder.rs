//! What a private PostgreSQL is started with.
//!
//! Later lines of `postgresql.conf` override earlier ones, so the caller's
//! settings come after the defaults; the address comes last of all, because a
//! copy or standby inherits the file of another server.

use std::fs;
use std::path::Path;

use super::Postgres;
use crate::account;
use crate::error::{Result, TestbedError};
use crate::locate::PgVersion;
use crate::tls::Tls;

/// Small and plentiful: several servers run side by side on a small machine, and
/// a test shall never run out of slots by accident. Dynamic shared memory lies in
/// the data directory, so that a killed server leaves none behind.
const DEFAULTS: &str = "\
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
max_connections = 60
wal_level = logical
max_replication_slots = 40
max_wal_senders = 40
max_wal_size = 256MB
autovacuum_naptime = 10s
password_encryption = scram-sha-256
log_line_prefix = '%m [%p] '
log_statement = none
";

/// Without these a start takes half the time; a power cut would lose data, a
/// killed process does not. `synchronous_commit` stays on: a commit that returns
/// shall be in the log for whoever follows it, not up to 0.6 s later.
const NO_FSYNC: &str = "fsync = off\nfull_page_writes = off\n";

/// The server of a [`Postgres`] to be started.
#[derive(Debug)]
#[must_use]
pub struct PostgresBuilder {
    version: PgVersion,
    settings: String,
    hba: Vec<String>,
    fsync: bool,
    password_auth: bool,
    tls: bool,
    tls_files: Option<TlsPem>,
    data_checksums: bool,
}

#[derive(Debug)]
struct TlsPem {
    ca: String,
    cert: String,
    key: String,
}

impl Default for PostgresBuilder {
    fn default() -> Self {
        PostgresBuilder {
            version: PgVersion::Debian,
            settings: String::new(),
            hba: Vec::new(),
            fsync: false,
            password_auth: false,
            tls: false,
            tls_files: None,
            data_checksums: false,
        }
    }
}

impl PostgresBuilder {
    /// Which PostgreSQL; [`PgVersion::Debian`] unless said.
    pub fn version(mut self, version: PgVersion) -> Self {
        self.version = version;
        self
    }

    /// A line of `postgresql.conf`; the value is quoted here.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings
            .push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        self
    }

    /// Whether commits are forced to the disk (`fsync`, `full_page_writes`). Off
    /// unless said; tests that crash the *server* want it on.
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Asks every role for a SCRAM-SHA-256 password, but for the superuser on the
    /// Unix socket. Without it everyone on this machine is trusted.
    pub fn password_auth(mut self) -> Self {
        self.password_auth = true;
        self
    }

    /// A line of `pg_hba.conf`, before the usual ones, so that it counts first:
    /// `hostssl all all 127.0.0.1/32 cert`.
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// TLS with a certificate for localhost from an authority nobody knows: enough
    /// for `sslmode=require`.
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// TLS with this server certificate; client certificates of the same authority
    /// are accepted.
    ///
    /// # Errors
    /// When one of its files cannot be read.
    pub fn tls_with(mut self, tls: &Tls) -> Result<Self> {
        self.tls_files = Some(TlsPem::read(tls)?);
        self.tls = true;
        Ok(self)
    }

    /// Page checksums (`initdb --data-checksums`).
    pub fn data_checksums(mut self) -> Self {
        self.data_checksums = true;
        self
    }

    /// Makes the data directory and starts the server on a free port.
    ///
    /// # Errors
    /// When the server is not installed, or does not start; the text has its log.
    pub fn start(self) -> Result<Postgres> {
        let (postgres, owner) = Postgres::prepare(self.version)?;
        let mut initdb = postgres.tool("initdb");
        initdb
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .arg("--locale=C.UTF-8")
            .arg("-D")
            .arg(&postgres.data);
        if !self.fsync {
            initdb.arg("--no-sync");
        }
        if self.data_checksums {
            initdb.arg("--data-checksums");
        }
        postgres.run_as_owner(&initdb)?;

        postgres.append_conf(DEFAULTS)?;
        if !self.fsync {
            postgres.append_conf(NO_FSYNC)?;
        }
        if self.tls {
            let files = match self.tls_files {
                Some(files) => files,
                None => TlsPem::read(&Tls::for_localhost("postgres")?)?,
            };
            files.install(&postgres.data, owner)?;
            postgres.append_conf(
                "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'ca.crt'\n",
            )?;
        }
        postgres.append_conf(&self.settings)?;

        let mut hba: Vec<&str> = self.hba.iter().map(String::as_str).collect();
        let method = if self.password_auth {
            "scram-sha-256"
        } else {
            "trust"
        };
        let usual = [
            format!("local all all {method}"),
            format!("local replication all {method}"),
            format!("host all all 127.0.0.1/32 {method}"),
            format!("host replication all 127.0.0.1/32 {method}"),
        ];
        hba.extend(usual.iter().map(String::as_str));
        postgres.write_hba(&hba)?;
        postgres.first_start()
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

    /// Puts the files into the data directory; the server refuses a key that
    /// others may read.
    fn install(&self, data: &Path, owner: Option<account::Account>) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for (name, pem) in [
            ("ca.crt", &self.ca),
            ("server.crt", &self.cert),
            ("server.key", &self.key),
        ] {
            let path = data.join(name);
            fs::write(&path, pem)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .map_err(TestbedError::io(format!("writing {}", path.display())))?;
            account::give(&path, owner)?;
        }
        Ok(())
    }
}
