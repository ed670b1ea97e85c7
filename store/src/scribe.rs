//! The thread that writes.
//!
//! It owns the only connection that writes, and does one job after the other. A job that
//! fails leaves no transaction open. While it writes one commit its owner, the
//! [`crate::Writer`], reads for the next one on a connection of its own; the two never
//! touch the same memory.
//!
//! In place of the thread there may be a [`Desk`]: there jobs wait until somebody does them, so
//! that a simulation decides when that is.

use std::collections::VecDeque;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::counts::Counts;
use crate::error::StoreError;
use crate::open::{DATABASE_FILE, connect_checkpointer, page_bytes};

/// What a frame of the log has before its page, bytes
/// (<https://www.sqlite.org/fileformat2.html#walformat>).
const FRAME_HEADER_BYTES: u64 = 24;

/// What the thread owns.
pub(crate) struct Core {
    pub(crate) connection: Connection,
    /// As in the database.
    pub(crate) counts: Counts,
    /// Where blocks of events are compressed.
    pub(crate) memory: Vec<u8>,
    log_frames: Arc<AtomicU64>,
    frame_bytes: u64,
    checkpoint_bytes: u64,
    /// Who takes the log in ahead; nobody where there is no thread.
    ahead: Option<Ahead>,
}

impl Core {
    pub(crate) fn new(
        mut connection: Connection,
        counts: Counts,
        checkpoint_bytes: u64,
    ) -> Result<Core, StoreError> {
        let log_frames = Arc::new(AtomicU64::new(0));
        let frame_bytes = u64::from(page_bytes(&connection)?) + FRAME_HEADER_BYTES;
        let seen = Arc::clone(&log_frames);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames| {
            seen.store(u64::try_from(frames).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Core {
            connection,
            counts,
            memory: Vec::new(),
            log_frames,
            frame_bytes,
            checkpoint_bytes,
            ahead: None,
        })
    }

    /// Whether the log is as long as it may become, and what is left to do of it is little: most
    /// of it was taken in ahead.
    ///
    /// # Errors
    /// Why it could not be taken in ahead.
    pub(crate) fn is_log_due(&mut self) -> Result<bool, StoreError> {
        let frames = self.log_frames.load(Ordering::Relaxed);
        let is_long = frames * self.frame_bytes >= self.checkpoint_bytes;
        match &mut self.ahead {
            Some(ahead) => ahead.look(frames, is_long),
            None => Ok(is_long),
        }
    }

    /// Takes the log into the database as far as readers allow.
    pub(crate) fn checkpoint(&self, mode: &str) -> Result<(), StoreError> {
        if self.log_frames.load(Ordering::Relaxed) == 0 && mode == "PASSIVE" {
            return Ok(());
        }
        if checkpoint(&self.connection, mode)?.is_whole {
            self.log_frames.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Leaves no transaction behind a failure; one that cannot be ended leaves the state of
    /// the disk in doubt.
    pub(crate) fn clean_up(&self, e: StoreError) -> StoreError {
        let stuck =
            !self.connection.is_autocommit() && self.connection.execute_batch("ROLLBACK").is_err();
        if stuck && !e.poisons() {
            StoreError::Poisoned {
                reason: e.to_string(),
            }
        } else {
            e
        }
    }
}

/// How what the store's log has brought is written to the database. What else is written to the
/// same disk meanwhile takes longer, and who can wait helps those who cannot.
#[derive(Clone, Debug, Default)]
pub struct Flushing(Arc<Flush>);

#[derive(Debug, Default)]
struct Flush {
    is_under_way: AtomicBool,
    in_pieces: AtomicBool,
}

impl Flushing {
    /// Whether it is being written now.
    pub fn is_under_way(&self) -> bool {
        self.0.is_under_way.load(Ordering::Relaxed)
    }

    /// Whether it is to be written in small pieces from now on, which takes more in all.
    pub fn keep_small(&self, in_pieces: bool) {
        self.0.in_pieces.store(in_pieces, Ordering::Relaxed);
    }

    /// It is under way until what this gives is dropped.
    fn begin(&self) -> impl Drop + use<> {
        struct Ends(Flushing);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.0.is_under_way.store(false, Ordering::Relaxed);
            }
        }
        self.0.is_under_way.store(true, Ordering::Relaxed);
        Ends(self.clone())
    }
}

/// Takes the log into the database while commits go on.
///
/// Who takes the log in to the end, so that it is begun anew, must be alone, and to flush what a
/// long log has brought to the database takes a disk a good part of a second, in which nothing
/// else is flushed either. So this is done on a thread of its own when the log is as long as it
/// may become, again and again until little is left; and piece by piece as it grows, if that
/// is wanted.
///
/// SQLite flushes the database only when a checkpoint has come to the end of the log, so a pass
/// flushes it itself.
struct Ahead {
    database: PathBuf,
    /// For flushing. It is never closed, since that would end the locks that SQLite holds on the
    /// same file (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
    file: Arc<ManuallyDrop<File>>,
    frame_bytes: u64,
    /// Frames of the log that are in the database.
    done: u64,
    /// Passes since the log is as long as it may become.
    passes: u32,
    has_done_most: bool,
    flushing: Flushing,
    under_way: Option<JoinHandle<Result<u64, StoreError>>>,
}

/// One piece, bytes of the log.
const PIECE_BYTES: u64 = 4 << 20;

/// A pass that has found no more bytes than this has left as little to do.
const LITTLE_BYTES: u64 = 512 << 10;

/// Passes over a long log at most: under a flood each leaves what came meanwhile.
const PASSES: u32 = 6;

impl Ahead {
    /// Whether commits may be stopped to take in the rest of a log of so many frames. Begins the
    /// next pass when there is to be one.
    fn look(&mut self, frames: u64, is_long: bool) -> Result<bool, StoreError> {
        if let Some(pass) = &self.under_way {
            if !pass.is_finished() {
                return Ok(false);
            }
            let found = self.end()?;
            if is_long {
                self.passes += 1;
                self.has_done_most =
                    found * self.frame_bytes <= LITTLE_BYTES || self.passes == PASSES;
            }
        }
        if frames < self.done {
            // The log was begun anew.
            (self.done, self.passes, self.has_done_most) = (0, 0, false);
        }
        if self.has_done_most {
            return Ok(true);
        }
        let in_pieces = self.flushing.0.in_pieces.load(Ordering::Relaxed);
        let is_due = is_long || in_pieces && (frames - self.done) * self.frame_bytes >= PIECE_BYTES;
        if !is_due {
            return Ok(false);
        }
        let (database, file) = (self.database.clone(), Arc::clone(&self.file));
        let flushing = self.flushing.begin();
        let pass = move || {
            let _flushing = flushing;
            let connection = connect_checkpointer(&database)?;
            let taken = checkpoint(&connection, "PASSIVE")?;
            file.sync_data().map_err(|e| StoreError::Poisoned {
                reason: format!("the database could not be flushed: {e}"),
            })?;
            Ok(taken.frames)
        };
        let named = std::thread::Builder::new().name("store log".to_owned());
        match named.spawn(pass) {
            Ok(pass) => self.under_way = Some(pass),
            // Then commits wait for all of it.
            Err(_) => return Ok(is_long),
        }
        Ok(false)
    }

    /// Waits for the pass that is under way; gives how many frames it has taken in.
    fn end(&mut self) -> Result<u64, StoreError> {
        let Some(pass) = self.under_way.take() else {
            return Ok(0);
        };
        let done = pass.join().unwrap_or(Ok(self.done))?;
        Ok(done.saturating_sub(std::mem::replace(&mut self.done, done)))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Whoever opens the store next finds nobody at work; what this has not taken in, the
        // log still has.
        let _ = self.end();
    }
}

/// How much of the log is in the database.
struct Taken {
    frames: u64,
    is_whole: bool,
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<Taken, StoreError> {
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    connection
        .query_row(&pragma, [], |r| {
            let (is_busy, log, frames): (bool, i64, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
            Ok(Taken {
                frames: u64::try_from(frames).unwrap_or(0),
                is_whole: !is_busy && log == frames,
            })
        })
        .map_err(StoreError::from)
}

type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// Where the jobs of a store lie that has no thread of its own for them. Cloning shares it.
#[derive(Clone, Default)]
pub struct Desk {
    work: Arc<Mutex<DeskWork>>,
}

#[derive(Default)]
struct DeskWork {
    core: Option<Core>,
    jobs: VecDeque<Job>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// Does the job that has waited longest; `false` when none waits.
    pub fn work(&self) -> bool {
        let mut work = self.lock();
        let DeskWork { core, jobs } = &mut *work;
        match (core, jobs.pop_front()) {
            (Some(core), Some(job)) => {
                job(core);
                true
            }
            _ => false,
        }
    }

    /// Does everything that waits.
    fn work_off(&self) {
        while self.work() {}
    }

    fn lock(&self) -> MutexGuard<'_, DeskWork> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of a job that was given to the thread.
pub(crate) struct Answer<T> {
    answer: mpsc::Receiver<T>,
    come: Arc<AtomicBool>,
    desk: Option<Desk>,
}

impl<T> Answer<T> {
    /// Waits for it.
    pub(crate) fn wait(self) -> Result<T, StoreError> {
        if let Some(desk) = &self.desk {
            desk.work_off();
        }
        self.answer.recv().map_err(|_| StoreError::Poisoned {
            reason: "the thread that writes has ended".to_owned(),
        })
    }

    /// Whether waiting for it would take no time.
    pub(crate) fn has_come(&self) -> bool {
        self.come.load(Ordering::Acquire)
    }
}

/// Who does the jobs.
enum Hands {
    Thread {
        jobs: Option<mpsc::Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
    Desk(Desk),
}

/// The thread, seen by its owner. It ends, and closes its connection, with its owner.
pub(crate) struct Scribe {
    hands: Hands,
    flushing: Flushing,
}

impl Scribe {
    /// The jobs lie on a desk.
    pub(crate) fn at(desk: Desk, core: Core) -> Scribe {
        desk.lock().core = Some(core);
        Scribe {
            hands: Hands::Desk(desk),
            flushing: Flushing::default(),
        }
    }

    pub(crate) fn start(mut core: Core, directory: &Path) -> Result<Scribe, StoreError> {
        let database = directory.join(DATABASE_FILE);
        let file = File::open(&database)
            .map_err(|e| StoreError::Refused(format!("the database cannot be opened: {e}")))?;
        let flushing = Flushing::default();
        core.ahead = Some(Ahead {
            database,
            file: Arc::new(ManuallyDrop::new(file)),
            frame_bytes: core.frame_bytes,
            done: 0,
            passes: 0,
            has_done_most: false,
            flushing: flushing.clone(),
            under_way: None,
        });
        let (jobs, work) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Ok(job) = work.recv() {
                    job(&mut core);
                }
            })
            .map_err(|e| StoreError::Refused(format!("no thread could be started: {e}")))?;
        Ok(Scribe {
            hands: Hands::Thread {
                jobs: Some(jobs),
                thread: Some(thread),
            },
            flushing,
        })
    }

    pub(crate) fn flushing(&self) -> Flushing {
        self.flushing.clone()
    }

    /// Gives the thread a job, behind all that it has.
    pub(crate) fn give<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<Result<T, StoreError>> {
        let (give, answer) = mpsc::sync_channel(1);
        let come = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&come);
        let job = move |core: &mut Core| {
            let outcome = job(core);
            // Nobody waits when the owner is gone.
            let _ = give.send(outcome.map_err(|e| core.clean_up(e)));
            told.store(true, Ordering::Release);
        };
        let desk = match &self.hands {
            Hands::Thread { jobs, .. } => {
                // Without the thread the answer's own end is gone, and says so.
                let _ = jobs.as_ref().map(|jobs| jobs.send(Box::new(job)));
                None
            }
            Hands::Desk(desk) => {
                desk.lock().jobs.push_back(Box::new(job));
                Some(desk.clone())
            }
        };
        Answer { answer, come, desk }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        match &mut self.hands {
            Hands::Thread { jobs, thread } => {
                *jobs = None;
                if let Some(thread) = thread.take() {
                    // A thread that panicked has told its waiters so.
                    let _ = thread.join();
                }
            }
            Hands::Desk(desk) => {
                desk.work_off();
                desk.lock().core = None;
            }
        }
    }
}
