//! Where `tests/testbed/install` put the servers.
//!
//! The versions come from the file `tests/testbed/versions`, which the script
//! reads too, so that the two cannot disagree.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::account;
use crate::error::{Result, TestbedError};

const VERSIONS: &str = include_str!("../versions");
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// Which PostgreSQL to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PgVersion {
    /// The system's own package: 15 on Debian 12; or the one whose programs lie in the folder
    /// that `ROLLCALL_TESTBED_POSTGRES` names, so that any version can be put under the tests.
    Debian,
    /// PostgreSQL 18, from a Python wheel. That build has no TLS.
    V18,
}

/// Which server of MySQL's family to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MySqlVersion {
    /// MySQL 9, the newest that Debian has.
    MySql9,
    /// MariaDB 10.11, of Debian 12.
    MariaDb10,
    /// MariaDB 11.8, of Debian 13.
    MariaDb11,
}

impl MySqlVersion {
    /// All of them, for a test that runs with each.
    pub const ALL: [MySqlVersion; 3] = [
        MySqlVersion::MySql9,
        MySqlVersion::MariaDb10,
        MySqlVersion::MariaDb11,
    ];

    /// Whether it is a MariaDB: other GTIDs, other names of statements and programs.
    pub fn is_mariadb(self) -> bool {
        self != MySqlVersion::MySql9
    }

    /// Its name and its key in the file of versions.
    fn name_and_key(self) -> (&'static str, &'static str) {
        match self {
            MySqlVersion::MySql9 => ("MySQL", "MYSQL"),
            MySqlVersion::MariaDb10 => ("MariaDB", "MARIADB"),
            MySqlVersion::MariaDb11 => ("MariaDB", "MARIADB11"),
        }
    }
}

impl fmt::Display for MySqlVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, key) = self.name_and_key();
        write!(f, "{name} {}", version(key))
    }
}

fn version(key: &str) -> &'static str {
    VERSIONS
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map_or("unknown", |(_, value)| value)
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/rollcall-testbed`.
fn user_cache() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache"))
        .join("rollcall-testbed")
}

/// Root's home is closed to the account that servers run under.
fn server_cache() -> PathBuf {
    if account::is_root() {
        PathBuf::from("/var/cache/rollcall-testbed")
    } else {
        user_cache()
    }
}

/// The folder with `postgres`, `initdb`, `psql`, `pg_recvlogical` and the rest.
pub(crate) fn postgres_bin(wanted: PgVersion) -> Result<PathBuf> {
    match wanted {
        PgVersion::Debian => match env::var_os("ROLLCALL_TESTBED_POSTGRES") {
            Some(bin) if !bin.is_empty() => named_postgres_bin(PathBuf::from(bin)),
            _ => debian_postgres_bin(Path::new(DEBIAN_ROOT)),
        },
        PgVersion::V18 => {
            let bin = server_cache()
                .join(format!("postgresql-{}", version("POSTGRES18")))
                .join("bin");
            if bin.join("postgres").exists() {
                Ok(bin)
            } else {
                Err(TestbedError::Missing {
                    what: "PostgreSQL 18".to_owned(),
                    looked: format!("no {}", bin.join("postgres").display()),
                })
            }
        }
    }
}

/// The folder that somebody named, if a server is there.
fn named_postgres_bin(bin: PathBuf) -> Result<PathBuf> {
    if bin.join("postgres").exists() {
        return Ok(bin);
    }
    Err(TestbedError::Missing {
        what: "PostgreSQL".to_owned(),
        looked: format!(
            "ROLLCALL_TESTBED_POSTGRES names {}, which has no postgres",
            bin.display()
        ),
    })
}

/// The newest version that the system's packages have put under `root`.
fn debian_postgres_bin(root: &Path) -> Result<PathBuf> {
    let newest = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("postgres").exists().then_some((major, bin))
        })
        .max_by_key(|(major, _)| *major);
    newest
        .map(|(_, bin)| bin)
        .ok_or_else(|| TestbedError::Missing {
            what: "PostgreSQL".to_owned(),
            looked: format!("no {}/*/bin/postgres", root.display()),
        })
}

/// The folder with the programs of a MySQL or MariaDB, what they need, and an
/// empty data directory.
pub(crate) fn mysql_home(wanted: MySqlVersion) -> Result<PathBuf> {
    let (name, key) = wanted.name_and_key();
    let folder = format!("{}-{}", name.to_lowercase(), version(key));
    let home = server_cache().join(folder);
    if home.join("template").is_dir() {
        Ok(home)
    } else {
        Err(TestbedError::Missing {
            what: wanted.to_string(),
            looked: format!("no {}", home.join("template").display()),
        })
    }
}

/// The folder with Apache Kafka's jars.
pub(crate) fn kafka_libs() -> Result<PathBuf> {
    let home = user_cache().join(format!("kafka-{}", version("KAFKA")));
    if home.join("complete").exists() {
        Ok(home.join("libs"))
    } else {
        Err(TestbedError::Missing {
            what: format!("Apache Kafka {}", version("KAFKA")),
            looked: format!("no {}", home.join("complete").display()),
        })
    }
}

/// A program out of `PATH`.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    env::var_os("PATH")
        .as_deref()
        .map(env::split_paths)
        .into_iter()
        .flatten()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| TestbedError::Missing {
            what: format!("the program {name}"),
            looked: "not in PATH".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as expected"
    )]

    use super::*;

    #[test]
    fn a_missing_server_is_a_sentence_with_the_command_that_installs_it() {
        let error = debian_postgres_bin(Path::new("/nowhere")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PostgreSQL is missing (no /nowhere/*/bin/postgres); install it with `make testbed`"
        );
    }

    #[test]
    fn a_named_folder_without_a_server_is_said() {
        let error = named_postgres_bin(PathBuf::from("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }

    #[test]
    fn of_several_installed_versions_the_newest_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for (major, has_server) in [("9", true), ("15", true), ("16", false), ("common", true)] {
            let bin = root.path().join(major).join("bin");
            fs::create_dir_all(&bin).unwrap();
            if has_server {
                fs::write(bin.join("postgres"), "").unwrap();
            }
        }
        assert_eq!(
            debian_postgres_bin(root.path()).unwrap(),
            root.path().join("15/bin")
        );
    }

    #[test]
    fn versions_are_read_from_the_file_the_installer_reads() {
        assert!(version("POSTGRES18").starts_with("18."));
        assert!(version("KAFKA").starts_with("4."));
    }
}
