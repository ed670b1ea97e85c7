//! What is on the disk, and what is only in the kernel's cache.
//!
//! * A write is in the cache until the file is flushed. When the power goes, any of the sectors
//!   written since the last flush may have reached the disk, in any order, and a sector is never
//!   torn itself. The same holds for a change of the file's length.
//! * After a flush that failed the cache holds what was written, and the disk any part of it;
//!   flushing again does not bring the rest there, as on Linux.
//! * Whether a name is there, or no longer, is certain when its folder is flushed: SQLite does
//!   that with the first flush of a log that it has made.
//! * A process that dies leaves the cache as it is.
//! * A full disk takes the part of a write for which there is room.
//!
//! Everything is decided by the seed and the order of calls.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashMap;

use crate::vfs;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How a program ends without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process was killed: the kernel keeps what was written.
    Process,
    /// The power went: what was not flushed is there in part, or not at all.
    Power,
}

/// What a disk does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It fails to write.
    Write,
    /// It fails to flush.
    Flush,
    /// Nothing is done any more: the program is taken to have died within this call.
    Death,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Writes and truncations.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

/// A simulated disk. Cloning shares it.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    root: PathBuf,
    files: HashMap<PathBuf, FileState>,
    dice: Dice,
    usage: Usage,
    /// What is refused, and how many calls of that kind come before.
    refusal: Option<(Refusal, u64)>,
    capacity: Option<u64>,
    is_dead: bool,
    /// The write within which the program died: the power may have gone behind any part of it.
    last: Option<(PathBuf, Pending)>,
    has_lost: bool,
    has_refused: bool,
}

/// What the disk has of a file; the file itself is what the cache has.
#[derive(Default)]
struct FileState {
    /// None: the disk does not know of the file.
    durable: Option<Vec<u8>>,
    pending: Vec<Pending>,
    is_deleted: bool,
}

enum Pending {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

/// What SQLite is to be told of a call.
pub(crate) enum Verdict {
    /// It is done.
    Do,
    /// Only so many bytes of it are done, and then there is no room.
    Full(usize),
    /// Only so many bytes of it are done, and then it failed.
    Fail(usize),
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of three ways: nothing, everything, or each by itself.
    fn fate(&mut self) -> Fate {
        match self.next() % 4 {
            0 => Fate::None,
            1 => Fate::All,
            _ => Fate::Some,
        }
    }

    fn survives(&mut self, fate: Fate) -> bool {
        match fate {
            Fate::None => false,
            Fate::All => true,
            Fate::Some => self.next().is_multiple_of(2),
        }
    }
}

#[derive(Clone, Copy)]
enum Fate {
    None,
    All,
    Some,
}

impl FileState {
    /// What the disk has after some of what was pending has reached it.
    fn with_some(&self, dice: &mut Dice) -> Option<Vec<u8>> {
        if self.is_deleted {
            // The entry may not have been removed yet.
            return self.durable.clone().filter(|_| dice.survives(Fate::Some));
        }
        if self.durable.is_none() && self.pending.is_empty() {
            return None;
        }
        let fate = dice.fate();
        if self.durable.is_none() && !dice.survives(fate) {
            return None;
        }
        let mut content = self.durable.clone().unwrap_or_default();
        for change in &self.pending {
            match change {
                Pending::Write { at, data } => {
                    let mut done = 0;
                    while done < data.len() {
                        let begin = at + done;
                        let end = (begin / SECTOR + 1) * SECTOR;
                        let part = (end - begin).min(data.len() - done);
                        if dice.survives(fate) {
                            write_at(&mut content, begin, &data[done..done + part]);
                        }
                        done += part;
                    }
                }
                Pending::Length(len) => {
                    if dice.survives(fate) {
                        content.resize(*len, 0);
                    }
                }
            }
        }
        Some(content)
    }

    fn flush(&mut self) {
        let content = self.durable.get_or_insert_with(Vec::new);
        for change in self.pending.drain(..) {
            match change {
                Pending::Write { at, data } => write_at(content, at, &data),
                Pending::Length(len) => content.resize(len, 0),
            }
        }
    }
}

fn write_at(content: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(data);
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.lock();
        f.debug_struct("Disk")
            .field("usage", &inner.usage)
            .field("refusal", &inner.refusal)
            .field("room", &inner.capacity)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Makes a folder a simulated disk for as long as this lives.
    ///
    /// # Errors
    /// When the folder does not exist, or SQLite cannot be told.
    pub fn under(folder: &Path, seed: u64) -> io::Result<Disk> {
        let root = fs::canonicalize(folder)?;
        let disk = Disk {
            inner: Arc::new(Mutex::new(Inner {
                root: root.clone(),
                files: HashMap::new(),
                dice: Dice(seed),
                usage: Usage::default(),
                refusal: None,
                capacity: None,
                is_dead: false,
                last: None,
                has_lost: false,
                has_refused: false,
            })),
        };
        vfs::install(&root, &disk)?;
        Ok(disk)
    }

    /// Refuses something once: the call behind so many of its kind. Death counts all of them.
    pub fn refuse(&self, what: Refusal, behind: u64) {
        self.lock().refusal = Some((what, behind));
    }

    /// Refuses nothing any more that has not been refused yet.
    pub fn obey(&self) {
        self.lock().refusal = None;
    }

    /// So many bytes of files have room; none: any.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes that the files take.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// How often what was done.
    pub fn usage(&self) -> Usage {
        self.lock().usage
    }

    /// Whether the program is taken to have died.
    pub fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    /// Whether a flush has failed since the last start.
    pub fn has_lost(&self) -> bool {
        self.lock().has_lost
    }

    /// Whether something was refused since this was asked last.
    pub fn take_refused(&self) -> bool {
        std::mem::take(&mut self.lock().has_refused)
    }

    /// Whether there is an end to the room.
    pub fn is_full(&self) -> bool {
        self.lock().capacity.is_some()
    }

    /// The program dies: nothing that it still calls is done.
    pub fn die(&self) {
        self.lock().is_dead = true;
    }

    /// The next program finds what the last one left. Nothing may be open any more.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn start_again(&self, loss: Loss) -> io::Result<()> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.is_dead = false;
        inner.refusal = None;
        if let Some((name, last)) = inner.last.take().filter(|_| loss == Loss::Power)
            && let Some(state) = inner.files.get_mut(&name)
        {
            state.pending.push(last);
        }
        // After a failed flush the kernel may have forgotten what it could not write.
        let forgets = inner.has_lost && inner.dice.survives(Fate::Some);
        inner.has_lost = false;
        let mut names: Vec<PathBuf> = inner.files.keys().cloned().collect();
        names.sort_unstable();
        for name in names {
            let Some(state) = inner.files.get_mut(&name) else {
                continue;
            };
            if loss == Loss::Power {
                let content = state.with_some(&mut inner.dice);
                match &content {
                    Some(content) => fs::write(&name, content)?,
                    None => remove(&name)?,
                }
                *state = FileState {
                    durable: content,
                    ..FileState::default()
                };
            } else if forgets && !state.is_deleted {
                let mut content = state.durable.clone().unwrap_or_default();
                for change in &state.pending {
                    match change {
                        Pending::Write { at, data } => write_at(&mut content, *at, data),
                        Pending::Length(len) => content.resize(*len, 0),
                    }
                }
                fs::write(&name, &content)?;
            }
        }
        // The index of the log is no file of the disk: it is made anew.
        for entry in fs::read_dir(&inner.root)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with("-shm") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn downgrade(&self) -> WeakDisk {
        WeakDisk(Arc::downgrade(&self.inner))
    }

    pub(crate) fn opened(&self, name: &Path, is_new: bool) {
        let mut inner = self.lock();
        let state = inner.files.get(name);
        if state.is_none_or(|s| s.is_deleted) {
            let durable = match is_new {
                true => None,
                false => fs::read(name).ok(),
            };
            let state = FileState {
                durable,
                ..FileState::default()
            };
            inner.files.insert(name.to_owned(), state);
        }
    }

    pub(crate) fn writes(&self, name: &Path, at: usize, data: &[u8]) -> Verdict {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.is_dead {
            return Verdict::Fail(0);
        }
        inner.usage.writes += 1;
        let refused = inner.refuses(Refusal::Write);
        let mut len = data.len();
        if let Some(capacity) = inner.capacity {
            let is = file_len(name);
            let grows = (at as u64 + len as u64).saturating_sub(is);
            let room = capacity.saturating_sub(inner.used());
            if grows > room {
                len = len.saturating_sub(usize::try_from(grows - room).unwrap_or(len));
            }
        }
        if inner.is_dead {
            let data = data.to_vec();
            inner.last = Some((name.to_owned(), Pending::Write { at, data }));
            return Verdict::Fail(0);
        }
        if refused {
            len = len / 2 / SECTOR * SECTOR;
        }
        if let Some(state) = inner.files.get_mut(name)
            && len > 0
        {
            let data = data[..len].to_vec();
            state.pending.push(Pending::Write { at, data });
        }
        match (refused, len < data.len()) {
            (true, _) => Verdict::Fail(len),
            (false, true) => Verdict::Full(len),
            (false, false) => Verdict::Do,
        }
    }

    pub(crate) fn truncates(&self, name: &Path, len: usize) -> Verdict {
        let mut inner = self.lock();
        if inner.is_dead {
            return Verdict::Fail(0);
        }
        inner.usage.writes += 1;
        let refused = inner.refuses(Refusal::Write);
        if !refused
            && !inner.is_dead
            && let Some(state) = inner.files.get_mut(name)
        {
            state.pending.push(Pending::Length(len));
        }
        match refused || inner.is_dead {
            true => Verdict::Fail(0),
            false => Verdict::Do,
        }
    }

    pub(crate) fn flushes(&self, name: &Path) -> Verdict {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.is_dead {
            return Verdict::Fail(0);
        }
        inner.usage.flushes += 1;
        let refused = inner.refuses(Refusal::Flush);
        if inner.is_dead {
            return Verdict::Fail(0);
        }
        let Some(state) = inner.files.get_mut(name) else {
            return Verdict::Do;
        };
        if refused {
            inner.has_lost = true;
            state.durable = state.with_some(&mut inner.dice);
            state.pending.clear();
            return Verdict::Fail(0);
        }
        let is_named = state.durable.is_some();
        state.flush();
        if !is_named {
            inner.flush_names();
        }
        Verdict::Do
    }

    pub(crate) fn deletes(&self, name: &Path, flushes: bool) -> Verdict {
        let mut inner = self.lock();
        if inner.is_dead {
            return Verdict::Fail(0);
        }
        if let Some(state) = inner.files.get_mut(name) {
            state.pending.clear();
            state.is_deleted = true;
        }
        if flushes {
            inner.flush_names();
        }
        Verdict::Do
    }
}

/// A disk that does not live because of this.
pub(crate) struct WeakDisk(Weak<Mutex<Inner>>);

impl WeakDisk {
    pub(crate) fn upgrade(&self) -> Option<Disk> {
        self.0.upgrade().map(|inner| Disk { inner })
    }
}

impl Inner {
    /// Whether this call is the one that is refused. Sets `is_dead` when the program dies in it.
    fn refuses(&mut self, what: Refusal) -> bool {
        let Some((wanted, behind)) = &mut self.refusal else {
            return false;
        };
        if *wanted != what && *wanted != Refusal::Death {
            return false;
        }
        if let Some(fewer) = behind.checked_sub(1) {
            *behind = fewer;
            return false;
        }
        let is_death = *wanted == Refusal::Death;
        self.refusal = None;
        self.is_dead = is_death;
        self.has_refused = true;
        !is_death
    }

    /// Which files there are, and which no longer, is on the disk.
    fn flush_names(&mut self) {
        self.files.retain(|_, state| !state.is_deleted);
        for state in self.files.values_mut() {
            state.durable.get_or_insert_default();
        }
    }

    fn used(&self) -> u64 {
        self.files
            .iter()
            .filter(|(_, state)| !state.is_deleted)
            .map(|(name, _)| file_len(name))
            .sum()
    }
}

fn file_len(name: &Path) -> u64 {
    fs::metadata(name).map_or(0, |m| m.len())
}

fn remove(name: &Path) -> io::Result<()> {
    match fs::remove_file(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
