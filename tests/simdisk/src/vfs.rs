//! Between SQLite and the system's files.
//!
//! SQLite calls a file through the table of functions that its first word points to
//! (<https://www.sqlite.org/c3ref/io_methods.html>). Files of a simulated disk get a copy of the
//! system's table in which writing, truncating, flushing and closing are ours: these ask the disk
//! first and then call the system's. Everything else, and every file elsewhere, is the system's
//! alone. The copy says version 2 of the table, so that nothing is written past it through
//! mapped memory.
#![allow(unsafe_code, reason = "SQLite's functions are of C")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use hashbrown::HashMap;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{Disk, Verdict, WeakDisk};

/// What is known of files, by the address that SQLite has for them.
static FILES: LazyLock<Mutex<HashMap<usize, OpenFile>>> = LazyLock::new(Mutex::default);

/// The folders that are disks.
static DISKS: Mutex<Vec<(PathBuf, WeakDisk)>> = Mutex::new(Vec::new());

/// The system's functions, and ours.
static SYSTEM: OnceLock<Option<System>> = OnceLock::new();

struct System {
    vfs: *mut sqlite3_vfs,
}

// SAFETY: SQLite registers a VFS once and never changes or frees it, and it may be called from
// any thread (<https://www.sqlite.org/c3ref/vfs.html>).
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

#[derive(Clone)]
struct OpenFile {
    disk: Disk,
    name: PathBuf,
    system: &'static sqlite3_io_methods,
}

/// Has SQLite ask `disk` about files below `root`.
pub(crate) fn install(root: &Path, disk: &Disk) -> io::Result<()> {
    if SYSTEM.get_or_init(register).is_none() {
        return Err(io::Error::other("SQLite takes no other functions"));
    }
    let mut disks = lock(&DISKS);
    disks.retain(|(known, disk)| known != root && disk.upgrade().is_some());
    disks.push((root.to_owned(), disk.downgrade()));
    Ok(())
}

fn register() -> Option<System> {
    // SAFETY: SQLite initializes itself; without a name it gives its default, or null.
    let vfs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    // SAFETY: not null, and what SQLite gives stays for ever.
    let system = unsafe { vfs.as_ref() }?;
    let ours = Box::leak(Box::new(sqlite3_vfs {
        zName: c"simulated".as_ptr(),
        pNext: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        ..*system
    }));
    // SAFETY: `ours` is leaked, so it stays; its other functions are the system's, which use of
    // the table they are called with only what was copied.
    let code = unsafe { ffi::sqlite3_vfs_register(ours, 1) };
    (code == ffi::SQLITE_OK).then_some(System { vfs })
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's VFS.
fn system() -> Option<&'static sqlite3_vfs> {
    let system = SYSTEM.get()?.as_ref()?;
    // SAFETY: see `register`.
    unsafe { system.vfs.as_ref() }
}

/// The path of a file on a simulated disk, and the disk.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn place(name: *const c_char) -> Option<(PathBuf, Disk)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let disks = lock(&DISKS);
    let (_, disk) = disks.iter().find(|(root, _)| path.starts_with(root))?;
    Some((path.to_owned(), disk.upgrade()?))
}

fn file_of(file: *mut sqlite3_file) -> Option<OpenFile> {
    lock(&FILES).get(&file.addr()).cloned()
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let (Some(system), Some(vfs)) = (system(), SYSTEM.get().and_then(Option::as_ref)) else {
        return ffi::SQLITE_CANTOPEN;
    };
    let Some(system_open) = system.xOpen else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite gives null or a C string.
    let found = unsafe { place(name) };
    if found.as_ref().is_some_and(|(_, disk)| disk.is_dead()) {
        // SAFETY: SQLite gives a file that it owns; without functions it is not closed.
        unsafe { (*file).pMethods = std::ptr::null() };
        return ffi::SQLITE_CANTOPEN;
    }
    let is_new = found.as_ref().is_some_and(|(path, _)| !path.exists());
    // SAFETY: the arguments are SQLite's own, for the VFS that they are meant for.
    let code = unsafe { system_open(vfs.vfs, name, file, flags, out) };
    let Some((path, disk)) = found.filter(|_| code == ffi::SQLITE_OK) else {
        return code;
    };
    // SAFETY: the system has opened the file, so its first word points to its functions, which
    // are a constant of SQLite.
    let Some(methods) = (unsafe { (*file).pMethods.as_ref::<'static>() }) else {
        return code;
    };
    disk.opened(&path, is_new);
    let opened = OpenFile {
        disk,
        name: path,
        system: methods,
    };
    lock(&FILES).insert(file.addr(), opened);
    // SAFETY: the file is SQLite's and open; the table is leaked and has the system's functions
    // for what is not ours.
    unsafe { (*file).pMethods = ours(methods) };
    code
}

/// Our table in place of a system's; made once for each of those.
fn ours(system: &'static sqlite3_io_methods) -> *const sqlite3_io_methods {
    static TABLES: LazyLock<Mutex<HashMap<usize, &'static sqlite3_io_methods>>> =
        LazyLock::new(Mutex::default);
    let mut tables = lock(&TABLES);
    let table = tables
        .entry(std::ptr::from_ref(system).addr())
        .or_insert_with(|| {
            Box::leak(Box::new(sqlite3_io_methods {
                iVersion: system.iVersion.min(2),
                xClose: Some(close),
                xWrite: Some(write),
                xTruncate: Some(truncate),
                xSync: Some(sync),
                ..*system
            }))
        });
    std::ptr::from_ref(*table)
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let (Some(system), Some(vfs)) = (system(), SYSTEM.get().and_then(Option::as_ref)) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    // SAFETY: SQLite gives a C string.
    if let Some((path, disk)) = unsafe { place(name) }
        && !matches!(disk.deletes(&path, sync_folder != 0), Verdict::Do)
    {
        return ffi::SQLITE_IOERR_DELETE;
    }
    match system.xDelete {
        // SAFETY: the arguments are SQLite's own, for the VFS that they are meant for.
        Some(system_delete) => unsafe { system_delete(vfs.vfs, name, sync_folder) },
        None => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let known = lock(&FILES).remove(&file.addr());
    match known.and_then(|known| known.system.xClose) {
        // SAFETY: the file was opened by the system, whose function this is.
        Some(system_close) => unsafe { system_close(file) },
        None => ffi::SQLITE_IOERR_CLOSE,
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    let known = file_of(file);
    let Some((known, system_write)) = known.and_then(|k| Some((k.clone(), k.system.xWrite?)))
    else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    let (Ok(size), Ok(begin)) = (usize::try_from(len), usize::try_from(at)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives as many bytes as it says.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
    let (some, after) = match known.disk.writes(&known.name, begin, bytes) {
        Verdict::Do => (size, ffi::SQLITE_OK),
        Verdict::Full(some) => (some, ffi::SQLITE_FULL),
        Verdict::Fail(some) => (some, ffi::SQLITE_IOERR_WRITE),
    };
    let some = c_int::try_from(some.min(size)).unwrap_or(0);
    if some == 0 {
        return after;
    }
    // SAFETY: the file was opened by the system, whose function this is; `some` is no more than
    // what SQLite gave.
    match unsafe { system_write(file, data, some, at) } {
        ffi::SQLITE_OK => after,
        code => code,
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, len: i64) -> c_int {
    let known = file_of(file);
    let Some((known, system_truncate)) = known.and_then(|k| Some((k.clone(), k.system.xTruncate?)))
    else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    let Ok(size) = usize::try_from(len) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    match known.disk.truncates(&known.name, size) {
        // SAFETY: the file was opened by the system, whose function this is.
        Verdict::Do => unsafe { system_truncate(file, len) },
        _ => ffi::SQLITE_IOERR_TRUNCATE,
    }
}

/// The system is not asked: what survives is the account's to say.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    match file_of(file).map(|known| known.disk.flushes(&known.name)) {
        Some(Verdict::Do) => ffi::SQLITE_OK,
        _ => ffi::SQLITE_IOERR_FSYNC,
    }
}
