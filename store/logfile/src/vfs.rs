//! Between SQLite and the system's files.
//!
//! SQLite calls a file through the table of functions that its first word points to
//! (<https://www.sqlite.org/c3ref/io_methods.html>), in memory of the size that the VFS asks for
//! (<https://www.sqlite.org/c3ref/vfs.html>). Ours asks for one word more than the VFS that is
//! SQLite's default, and lets that one open the file in front of it. A log then gets a copy of the
//! table in which reading, writing, truncating, flushing, its size and closing are ours, and
//! the word leads to what is ours of it.
#![allow(unsafe_code, reason = "SQLite's functions are of C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_io_methods, sqlite3_vfs};

use crate::gather::Gathered;

/// What SQLite knows the VFS by.
const NAME: &CStr = c"rollcall-log";

/// Where the word of ours lies in a file's memory, bytes; none when SQLite did not take the VFS.
static WORD: OnceLock<Option<usize>> = OnceLock::new();

/// What is ours of a log.
struct Log {
    /// The functions that its file was opened with.
    under: &'static sqlite3_io_methods,
    gathered: Gathered,
}

/// Makes the VFS known to SQLite and gives its name, for opening a connection. None: SQLite does
/// not take it. May be called any number of times.
pub fn register() -> Option<&'static CStr> {
    WORD.get_or_init(registered).map(|_| NAME)
}

fn registered() -> Option<usize> {
    let (_, under) = default_vfs()?;
    let word = usize::try_from(under.szOsFile)
        .ok()?
        .next_multiple_of(align_of::<*mut Log>());
    let ours = Box::leak(Box::new(sqlite3_vfs {
        szOsFile: c_int::try_from(word + size_of::<*mut Log>()).ok()?,
        pNext: std::ptr::null_mut(),
        zName: NAME.as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        ..*under
    }));
    // SAFETY: `ours` is leaked, so it stays; its other functions are those of the default, which
    // use of the table they are called with only what was copied.
    let code = unsafe { ffi::sqlite3_vfs_register(ours, 0) };
    (code == ffi::SQLITE_OK).then_some(word)
}

/// SQLite's default, as it wants to be called and as it is. It is looked up anew each time, since
/// tests put another one in its place.
fn default_vfs() -> Option<(*mut sqlite3_vfs, &'static sqlite3_vfs)> {
    // SAFETY: SQLite initializes itself; without a name it gives its default, or null.
    let vfs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    // SAFETY: what SQLite gives stays for ever, and what is read of it is never changed.
    Some((vfs, unsafe { vfs.as_ref() }?))
}

/// The word of a file.
///
/// # Safety
/// `file` is memory that SQLite has allocated for a file of this VFS.
unsafe fn word_of(file: *mut sqlite3_file) -> Option<*mut *mut Log> {
    let word = WORD.get().copied().flatten()?;
    // SAFETY: the VFS has asked for memory that reaches behind the word, and SQLite aligns it to
    // eight bytes, as the word is placed.
    Some(unsafe { file.byte_add(word).cast() })
}

/// What is ours of an open log.
///
/// # Safety
/// `file` was opened by [`open`] as a log, is not closed, and SQLite does one call after the other
/// with it.
unsafe fn log_of<'f>(file: *mut sqlite3_file) -> Option<&'f mut Log> {
    // SAFETY: the caller's promise; `open` has set the word.
    unsafe { (*word_of(file)?).as_mut() }
}

impl Log {
    /// Hands what was gathered to the system.
    ///
    /// # Safety
    /// `file` is the one whose log this is.
    unsafe fn hand_on(&mut self, file: *mut sqlite3_file) -> Result<(), c_int> {
        let under = self.under;
        self.gathered
            // SAFETY: the caller's promise.
            .hand_on(|at, data| unsafe { write_under(under, file, at, data) })
    }
}

/// Writes with the functions that the file was opened with.
///
/// # Safety
/// `file` was opened with `under`.
unsafe fn write_under(
    under: &sqlite3_io_methods,
    file: *mut sqlite3_file,
    at: u64,
    data: &[u8],
) -> Result<(), c_int> {
    let (Some(write), Ok(size), Ok(at)) =
        (under.xWrite, c_int::try_from(data.len()), i64::try_from(at))
    else {
        return Err(ffi::SQLITE_IOERR_WRITE);
    };
    // SAFETY: the caller's promise; `data` is as long as is said.
    done(unsafe { write(file, data.as_ptr().cast(), size, at) })
}

fn done(code: c_int) -> Result<(), c_int> {
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(code)
    }
}

fn code_of(outcome: Result<(), c_int>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a file that it owns; without functions it is not closed.
    unsafe { (*file).pMethods = std::ptr::null() };
    let Some((vfs, under)) = default_vfs().filter(|(_, under)| has_room_for(under)) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: the memory is of this VFS.
    let (Some(open_under), Some(word)) = (under.xOpen, unsafe { word_of(file) }) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: the arguments are SQLite's own, for a VFS whose files have room in `file`.
    let code = unsafe { open_under(vfs, name, file, flags, out) };
    if code != ffi::SQLITE_OK || flags & ffi::SQLITE_OPEN_WAL == 0 {
        return code;
    }
    // SAFETY: the file is open, so its first word points to its functions; whoever made them
    // keeps them as long as the program runs.
    let Some(under) = (unsafe { (*file).pMethods.as_ref::<'static>() }) else {
        return code;
    };
    let log = Box::new(Log {
        under,
        gathered: Gathered::default(),
    });
    // SAFETY: the word is in the file's memory; `close` takes the log back.
    unsafe { word.write(Box::into_raw(log)) };
    // SAFETY: the file is SQLite's and open; the table stays.
    unsafe { (*file).pMethods = table_over(under) };
    code
}

/// Whether what a VFS has of a file ends before the word of ours.
fn has_room_for(vfs: &sqlite3_vfs) -> bool {
    let size = usize::try_from(vfs.szOsFile).ok();
    size.zip(WORD.get().copied().flatten())
        .is_some_and(|(size, word)| size <= word)
}

/// Our table over another; made once for each of those.
fn table_over(under: &'static sqlite3_io_methods) -> &'static sqlite3_io_methods {
    static TABLES: Mutex<Vec<(usize, &'static sqlite3_io_methods)>> = Mutex::new(Vec::new());
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let address = std::ptr::from_ref(under).addr();
    if let Some((_, table)) = tables.iter().find(|(known, _)| *known == address) {
        return table;
    }
    let table = Box::leak(Box::new(sqlite3_io_methods {
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        ..*under
    }));
    tables.push((address, table));
    table
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    match default_vfs().and_then(|(vfs, under)| Some((vfs, under.xDelete?))) {
        // SAFETY: the arguments are SQLite's own, for the VFS that they are handed to.
        Some((vfs, delete_under)) => unsafe { delete_under(vfs, name, sync_folder) },
        None => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what was opened here, once.
    let Some(word) = (unsafe { word_of(file) }) else {
        return ffi::SQLITE_IOERR_CLOSE;
    };
    // SAFETY: `open` has put a box's content there, and nobody comes to it after this.
    let mut log = unsafe { Box::from_raw(word.replace(std::ptr::null_mut())) };
    // What is still there belongs to no commit, so nobody asks whether it arrives.
    // SAFETY: the log is of this file.
    let _ = unsafe { log.hand_on(file) };
    match log.under.xClose {
        // SAFETY: the file was opened with this table.
        Some(close_under) => unsafe { close_under(file) },
        None => ffi::SQLITE_IOERR_CLOSE,
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    data: *mut c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite calls what was opened here.
    let (Some(log), Ok(begin), Ok(len)) = (
        unsafe { log_of(file) },
        u64::try_from(at),
        u64::try_from(size),
    ) else {
        return ffi::SQLITE_IOERR_READ;
    };
    if log.gathered.has_part_of(begin, len)
        // SAFETY: the log is of this file.
        && let Err(code) = unsafe { log.hand_on(file) }
    {
        return code;
    }
    match log.under.xRead {
        // SAFETY: the file was opened with this table; the arguments are SQLite's own.
        Some(read_under) => unsafe { read_under(file, data, size, at) },
        None => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite calls what was opened here.
    let (Some(log), Ok(size), Ok(at)) = (
        unsafe { log_of(file) },
        usize::try_from(size),
        u64::try_from(at),
    ) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives as many bytes as it says.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
    let Log { under, gathered } = log;
    // SAFETY: the file was opened with this table.
    code_of(gathered.write(at, data, |at, data| unsafe {
        write_under(under, file, at, data)
    }))
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, len: i64) -> c_int {
    // SAFETY: SQLite calls what was opened here, for a file that was opened with this table.
    unsafe { behind_all(file, |under| under.xTruncate.map(|f| f(file, len))) }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { behind_all(file, |under| under.xSync.map(|f| f(file, flags))) }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: as above; `size` is SQLite's.
    unsafe { behind_all(file, |under| under.xFileSize.map(|f| f(file, size))) }
}

/// Calls a function of the table below, behind all that was written.
///
/// # Safety
/// `file` was opened here as a log.
unsafe fn behind_all(
    file: *mut sqlite3_file,
    call: impl FnOnce(&sqlite3_io_methods) -> Option<c_int>,
) -> c_int {
    // SAFETY: the caller's promise.
    let Some(log) = (unsafe { log_of(file) }) else {
        return ffi::SQLITE_IOERR;
    };
    // SAFETY: the log is of this file.
    if let Err(code) = unsafe { log.hand_on(file) } {
        return code;
    }
    call(log.under).unwrap_or(ffi::SQLITE_IOERR)
}
