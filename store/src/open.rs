//! Opening a store, and refusing what must not be opened.
//!
//! Everything that could make the file somebody else's is looked at before the first byte
//! is written to it: the magic of SQLite, our application id, the schema version, the
//! organization. The order is lock, look, migrate: two daemons that start together never
//! both migrate. What can be checked cheaply at any size is checked each time (the header,
//! and that the file is as long as its header says); the whole file is checked on demand
//! by [`crate::Readers::check`], and SQLite reports damaged pages when it meets them.
//!
//! A new file is made under its own name but becomes a store only with the transaction of
//! the first migration; a crash before leaves an empty database, which is taken as new.

use std::fs::{self, OpenOptions as FileOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::error::StoreError;
use crate::lock::InstanceLock;
use crate::memory::BlockMemory;
use crate::readers::Readers;
use crate::schema;
use crate::scribe::Desk;
use crate::writer::Writer;

/// The database's name in the store's directory.
pub(crate) const DATABASE_FILE: &str = "rollcall.db";

/// For new databases; one keeps what it was made with. A change of a user somewhere dirties a
/// page, which is read, summed up, written to the log and from there to the database: pages half
/// as large are half of that, and a document rarely takes more than a page.
const PAGE_BYTES: u32 = 2048;
const WRITER_CACHE_KIB: i64 = 8 * 1024;
/// SQLite drops what a reader has cached when another connection has committed, so more than a
/// batch asks for twice is of no use, not even to the writer's own half.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// How long a statement waits for a lock that another process holds (a backup tool, say).
const BUSY_TIMEOUT_MS: u64 = 10_000;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Whose directory this is. Written into a new store, compared with an existing one.
    pub organization: String,
    /// The log file is taken into the database once it is this long. Larger means fewer and
    /// longer pauses.
    pub checkpoint_bytes: u64,
    /// Changes of match keys kept in memory (and in a journal) before they are sorted into
    /// their table.
    pub match_delta_entries: usize,
    /// The database may not grow beyond this; for a store that shares its disk. 0: no limit.
    pub max_bytes: u64,
    /// Where what is to be written waits until it is worked on; none: a thread of its own writes.
    pub desk: Option<Desk>,
}

impl OpenOptions {
    /// The usual options for an organization.
    pub fn new(organization: impl Into<String>) -> OpenOptions {
        OpenOptions {
            organization: organization.into(),
            checkpoint_bytes: 64 << 20,
            match_delta_entries: 100_000,
            max_bytes: 0,
            desk: None,
        }
    }
}

/// The store of a directory.
pub struct Store;

impl Store {
    /// Opens the store for writing, making it if the directory has none.
    ///
    /// # Errors
    /// Each reason why this must not be is an error of its own; none of them leaves a trace
    /// in the file.
    pub fn open(
        directory: impl AsRef<Path>,
        options: OpenOptions,
    ) -> Result<(Writer, Readers), StoreError> {
        let directory = directory.as_ref();
        private_directory(directory)?;
        let lock = InstanceLock::take(directory)?;
        let path = directory.join(DATABASE_FILE);
        let fresh = !look_at_header(&path)?;
        if fresh {
            private_file(FileOptions::new().write(true).create(true).truncate(false))
                .open(&path)
                .map_err(|source| StoreError::Io {
                    action: "making the database",
                    path: path.clone(),
                    source,
                })?;
        }
        let mut connection = connect_writer(&path)?;
        refuse_foreign(&connection, &path)?;
        if let Some(found) = stored_organization(&connection)?
            && found != options.organization
        {
            return Err(StoreError::OtherOrganization {
                path,
                found,
                expected: options.organization,
            });
        }
        prepare_writer(&connection, &options)?;
        begin_log_anew(&connection)?;
        schema::migrate(&mut connection, schema::MIGRATIONS)?;
        let memory = BlockMemory::default();
        let mut writer = Writer::start(
            connection,
            lock,
            directory.to_owned(),
            &options,
            memory.clone(),
        )?;
        // The first start leaves everything in the main file, so that its header says from
        // now on what it is.
        if fresh {
            writer.checkpoint_whole()?;
        }
        let readers = Readers::new(path, memory);
        readers.warm()?;
        Ok((writer, readers))
    }

    /// The process that has the store of a directory open for writing: none when nobody
    /// has, and `Some(None)` when it did not say who it is.
    pub fn in_use(directory: impl AsRef<Path>) -> Result<Option<Option<u32>>, StoreError> {
        crate::lock::held_by(directory.as_ref())
    }
}

impl Readers {
    /// Opens the store of a directory to read only, whether a daemon runs or not. The store of
    /// another organization is refused: what it says would be taken for this one's.
    pub fn open_readonly(
        directory: impl AsRef<Path>,
        organization: &str,
    ) -> Result<Readers, StoreError> {
        let directory = directory.as_ref();
        let path = directory.join(DATABASE_FILE);
        if !look_at_header(&path)? {
            return Err(StoreError::Missing {
                path: directory.to_owned(),
            });
        }
        let readers = Readers::new(path.clone(), BlockMemory::default());
        readers.with(|c| {
            refuse_foreign(c, &path)?;
            let found = schema::version(c)?;
            if found < schema::latest() {
                return Err(StoreError::Refused(format!(
                    "the store {} has schema version {found}, this program reads version {}; start the daemon once, it brings the store up to date",
                    path.display(),
                    schema::latest()
                )));
            }
            match stored_organization(c)? {
                Some(found) if found != organization => Err(StoreError::OtherOrganization {
                    path: path.clone(),
                    found,
                    expected: organization.to_owned(),
                }),
                _ => Ok(()),
            }
        })?;
        Ok(readers)
    }
}

/// Makes what is created readable by nobody else.
pub(crate) fn private_file(options: &mut FileOptions) -> &mut FileOptions {
    options.mode(0o600)
}

pub(crate) fn private_directory(directory: &Path) -> Result<(), StoreError> {
    let io = |action, source| StoreError::Io {
        action,
        path: directory.to_owned(),
        source,
    };
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {
            // A directory that serves something else as well keeps its mode; the store's own
            // files are private wherever they lie.
            let is_open = found.permissions().mode() & 0o077 != 0;
            if is_open
                && is_ours_alone(directory).map_err(|e| io("listing the store's directory", e))?
            {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                    .map_err(|e| io("closing the store's directory to others", e))?;
            }
            Ok(())
        }
        Ok(_) => Err(StoreError::NotOurs {
            path: directory.to_owned(),
            found: "a file where the store's directory should be".to_owned(),
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| io("making the store's directory", e)),
        Err(e) => Err(io("looking at the store's directory", e)),
    }
}

fn is_ours_alone(directory: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("rollcall.") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a database (`false`: none, or an empty file). Reads the header as
/// described in <https://www.sqlite.org/fileformat2.html>, section 1.3.
fn look_at_header(path: &Path) -> Result<bool, StoreError> {
    let io = |source| StoreError::Io {
        action: "reading the database's header",
        path: path.to_owned(),
        source,
    };
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io(e)),
    };
    let size = file.metadata().map_err(io)?.len();
    if size == 0 {
        return Ok(false);
    }
    let mut header = [0u8; 100];
    let not_ours = |found: &str| StoreError::NotOurs {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    if let Err(e) = file.read_exact(&mut header) {
        return Err(match e.kind() {
            ErrorKind::UnexpectedEof => not_ours("too short for a database"),
            _ => io(e),
        });
    }
    if &header[..16] != b"SQLite format 3\0" {
        return Err(not_ours(
            "no SQLite database, or one whose first page is damaged",
        ));
    }
    let word = |at: usize| {
        let mut four = [0u8; 4];
        four.copy_from_slice(&header[at..at + 4]);
        u32::from_be_bytes(four)
    };
    let page = match u64::from(word(16) >> 16) {
        1 => 65_536,
        n => n,
    };
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    let wal_is_empty = fs::metadata(wal).map_or(true, |m| m.len() == 0);
    let expected = u64::from(word(28)) * page;
    // With a log beside it the main file may lag behind its header.
    if wal_is_empty && word(24) == word(92) && size < expected {
        return Err(StoreError::Damaged {
            detail: format!("the file has {size} bytes and its header says {expected}"),
        });
    }
    Ok(true)
}

fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let id: i64 = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
    if id != i64::from(schema::APPLICATION_ID) {
        let tables: i64 =
            connection.query_row("SELECT COUNT(*) FROM sqlite_master", [], |r| r.get(0))?;
        if id != 0 || tables > 0 {
            return Err(StoreError::NotOurs {
                path: path.to_owned(),
                found: format!("a SQLite database with application id {id:#x}"),
            });
        }
    }
    let found = schema::version(connection)?;
    if found > schema::latest() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema::latest(),
        });
    }
    Ok(())
}

fn stored_organization(connection: &Connection) -> Result<Option<String>, StoreError> {
    if schema::version(connection)? == 0 {
        return Ok(None);
    }
    Ok(connection
        .query_row(
            "SELECT value FROM meta WHERE name = 'organization'",
            [],
            |r| r.get(0),
        )
        .optional()?)
}

fn prepare_writer(connection: &Connection, options: &OpenOptions) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Refused(format!(
            "the store's file system does not allow a write-ahead log (SQLite answered {mode:?}); use a local disk"
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Checkpoints are made by the writer, where a failed flush can be seen.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Under a flood the log is several times as long as it should be before commits wait for it.
    // What is cut off it then has to be given to it again, block by block, by the next one.
    connection.pragma_update(
        None,
        "journal_size_limit",
        i64::try_from(options.checkpoint_bytes.saturating_mul(8)).unwrap_or(i64::MAX),
    )?;
    if options.max_bytes > 0 {
        let pages = (options.max_bytes / u64::from(page_bytes(connection)?)).max(1);
        connection.pragma_update(
            None,
            "max_page_count",
            i64::try_from(pages).unwrap_or(i64::MAX),
        )?;
    }
    // A statement is planned once, whatever its parameters are bound to:
    // <https://www.sqlite.org/c3ref/c_dbconfig_defensive.html>.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

/// The size of the pages that the database was made with.
pub(crate) fn page_bytes(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.pragma_query_value(None, "page_size", |r| r.get(0))?)
}

/// Takes whatever log there is into the database, and begins a new one. After a flush that
/// failed, the kernel goes on showing what never reached the disk: that log can be read, and
/// what was appended to it would be cut off with it when the power goes. Its pages are written
/// and flushed anew in the database, and nothing builds on the log any more.
///
/// A command that is reading keeps the log where it is; then it is as long as it was.
fn begin_log_anew(connection: &Connection) -> Result<(), StoreError> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
    if busy {
        tracing::warn!(
            "the store's log is being read by somebody, and goes on where it ended; it is begun anew later"
        );
    }
    Ok(())
}

/// The connection that writes. What it appends to the log is gathered, so it has to commit with
/// `synchronous = FULL`.
fn connect_writer(path: &Path) -> Result<Connection, StoreError> {
    let vfs = rollcall_logfile::register().ok_or_else(|| {
        StoreError::Refused("SQLite does not take functions for writing its log".to_owned())
    })?;
    Ok(Connection::open_with_flags_and_vfs(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        vfs,
    )?)
}

/// The connection on which the writer's own half reads.
pub(crate) fn connect_state(directory: &Path) -> Result<Connection, StoreError> {
    let connection = connect_reader(&directory.join(DATABASE_FILE))?;
    // As for the connection that writes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// A connection that takes the log into the database, and does nothing else.
pub(crate) fn connect_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(connection)
}

/// A connection that can read and nothing else; closing it never touches the log.
pub(crate) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}
