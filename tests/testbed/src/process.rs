//! A child process that cannot outlive the test that started it.
//!
//! Three ends are covered. A test that returns or panics drops its [`Process`],
//! which asks it to stop, then kills it. A test process that is itself killed
//! (`kill -9`, a CI time limit) runs no destructor, so each child asks the
//! kernel for a signal at its parent's death (`PR_SET_PDEATHSIG`, prctl(2)). The
//! kernel means the parent *thread* there, and a libtest thread ends with its
//! test; all children are therefore spawned by one thread that lives as long as
//! the process. A signal goes to the id only while the child has not been
//! waited for, under the same lock, so never to a stranger with a reused id.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::account::Account;
use crate::error::{Result, TestbedError};
use crate::locate;
use crate::scratch::Scratch;

const POLL: Duration = Duration::from_millis(5);
/// How long a dropped process may take to obey before it is killed.
const GRACE_ON_DROP: Duration = Duration::from_secs(5);

/// A running (or ended) child process with its output in files.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: Pid,
    stdout: PathBuf,
    stderr: PathBuf,
    last: LastSignal,
    _scratch: Option<Scratch>,
}

/// What tells a process that its owner is gone, by drop or by death.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LastSignal {
    /// Asked to end when dropped, killed when the owner dies.
    Term,
    /// SIGQUIT: PostgreSQL ends at once, but gives back its System V shared
    /// memory, of which a machine has only so many pieces.
    Quit,
    /// SIGKILL: nothing outside its folder is left by it.
    Kill,
}

impl LastSignal {
    fn on_drop(self) -> Signal {
        match self {
            LastSignal::Term => Signal::TERM,
            LastSignal::Quit => Signal::QUIT,
            LastSignal::Kill => Signal::KILL,
        }
    }

    /// As setpriv(1) takes it.
    fn on_owners_death(self) -> &'static str {
        match self {
            LastSignal::Term | LastSignal::Kill => "KILL",
            LastSignal::Quit => "QUIT",
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}, pid {})", self.name, self.pid())
    }
}

impl Process {
    /// Starts a command with no stdin and with stdout and stderr in files of its
    /// own. Program, arguments, environment changes and working folder of
    /// `command` are kept; stdio settings and `env_clear` are not.
    ///
    /// # Errors
    /// When the program is not there or cannot be started.
    pub fn spawn(command: Command) -> Result<Process> {
        let scratch = Scratch::new()?;
        let dir = scratch.path().to_owned();
        Process::start(
            command,
            dir.join("stdout"),
            dir.join("stderr"),
            None,
            LastSignal::Term,
            Some(scratch),
        )
    }

    /// Starts a server whose stdout and stderr go to one log file (appended).
    pub(crate) fn server(
        command: Command,
        log: &Path,
        account: Option<Account>,
        last: LastSignal,
    ) -> Result<Process> {
        Process::start(command, log.to_owned(), log.to_owned(), account, last, None)
    }

    fn start(
        command: Command,
        stdout: PathBuf,
        stderr: PathBuf,
        account: Option<Account>,
        last: LastSignal,
        scratch: Option<Scratch>,
    ) -> Result<Process> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let starting = || format!("starting {}", command.get_program().display());
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(TestbedError::io(format!("opening {}", path.display())))
        };
        let mut wrapped = wrap(&command, account, Some(last))?;
        wrapped
            .stdin(Stdio::null())
            .stdout(open(&stdout)?)
            .stderr(open(&stderr)?);
        // setpriv reports a missing program in the child's stderr only; a name
        // with a slash is checked here, where it can be said plainly.
        let program = Path::new(command.get_program());
        if program.components().count() > 1 && !program.exists() {
            return Err(TestbedError::io(starting())(io::ErrorKind::NotFound.into()));
        }
        let child = spawn_from_lasting_thread(wrapped).map_err(TestbedError::io(starting()))?;
        let pid = Pid::from_child(&child);
        Ok(Process {
            name,
            child: Mutex::new(child),
            pid,
            stdout,
            stderr,
            last,
            _scratch: scratch,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The file that stdout goes to.
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// The file that stderr goes to.
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// What it has printed on stdout so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has printed on stderr so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// stdout, then stderr, for a failure's text.
    pub fn log(&self) -> String {
        if self.stdout == self.stderr {
            return self.stdout();
        }
        format!(
            "--- stdout ---\n{}\n--- stderr ---\n{}",
            self.stdout(),
            self.stderr()
        )
    }

    /// The exit status, when it has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        self.lock().try_wait().ok().flatten()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.status().is_none()
    }

    /// Sends a signal; `false` when it has already ended.
    pub fn signal(&self, signal: Signal) -> bool {
        let mut child = self.lock();
        matches!(child.try_wait(), Ok(None)) && kill_process(self.pid, signal).is_ok()
    }

    /// Asks it to end (SIGTERM) and gives its status.
    ///
    /// # Errors
    /// When it has not ended within `grace`; it then still runs.
    pub fn terminate(&self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait_timeout(grace)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill9(&self) {
        self.signal(Signal::KILL);
        // A killed process ends, unless it hangs in the kernel: not for ever here.
        let _ = self.wait_timeout(Duration::from_secs(30));
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it still runs after `timeout`; the text has the end of its output.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self
                .lock()
                .try_wait()
                .map_err(TestbedError::io(format!("waiting for {}", self.name)))?;
            if let Some(status) = status {
                return Ok(status);
            }
            if start.elapsed() >= timeout {
                return Err(TestbedError::TimedOut {
                    what: format!("{} (pid {}) to end", self.name, self.pid()),
                    seconds: start.elapsed().as_secs_f64(),
                    last: format!("; its output ends with\n{}", tail(&self.log())),
                });
            }
            thread::sleep(POLL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.signal(self.last.on_drop()) && self.wait_timeout(GRACE_ON_DROP).is_err() {
            self.kill9();
        }
    }
}

/// The command under `setpriv`, which drops root and, for a child that stays,
/// asks for a signal at our death; it then becomes the program, so the id is the
/// program's own.
pub(crate) fn wrap(
    command: &Command,
    account: Option<Account>,
    stays: Option<LastSignal>,
) -> Result<Command> {
    let mut wrapped = Command::new(locate::program("setpriv")?);
    if let Some(last) = stays {
        wrapped.args(["--pdeathsig", last.on_owners_death()]);
    }
    if let Some(Account { uid, gid }) = account {
        wrapped.arg(format!("--reuid={uid}"));
        wrapped.arg(format!("--regid={gid}"));
        wrapped.arg("--clear-groups");
    }
    wrapped
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    } else if account.is_some() {
        // The caller's folder may be closed to the account.
        wrapped.current_dir("/");
    }
    Ok(wrapped)
}

/// Runs a tool to its end and gives its stdout without the last line end.
///
/// # Errors
/// When it cannot be started or its status is not 0; the text has its output.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let tool = Path::new(command.get_program()).display().to_string();
    let output = command
        .output()
        .map_err(TestbedError::io(format!("running {tool}")))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.trim_end_matches('\n').to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() {
        stdout
    } else {
        stderr
    };
    Err(TestbedError::Tool {
        tool,
        status: output.status.to_string(),
        output: tail(said.trim()).to_owned(),
    })
}

/// The last part of a log, at most 8 kB of it, cut at a line.
pub(crate) fn tail(text: &str) -> &str {
    const KEPT_BYTES: usize = 8_000;
    let Some(mut from) = text.len().checked_sub(KEPT_BYTES) else {
        return text;
    };
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let part = &text[from..];
    part.split_once('\n').map_or(part, |(_, rest)| rest)
}

pub(crate) fn read_lossy(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

type Order = (Command, Sender<io::Result<Child>>);

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts servers is gone");
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        // Should this thread not start, the receiver is dropped and every order
        // fails with the sentence above.
        let _ = thread::Builder::new()
            .name("testbed-spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in receiver {
                    let _ = answer.send(command.spawn());
                }
            });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as expected"
    )]

    use super::*;

    fn sh(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command).unwrap()
    }

    #[test]
    fn output_and_status_are_kept() {
        let process = sh("echo out; echo err >&2; exit 7");
        let status = process.wait_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(
            (process.stdout(), process.stderr()),
            ("out\n".into(), "err\n".into())
        );
    }

    #[test]
    fn a_process_that_does_not_end_is_a_sentence_with_its_output() {
        let process = sh("echo ready; exec sleep 60");
        crate::wait_until(Duration::from_secs(10), "ready", || {
            process.stdout() == "ready\n"
        })
        .unwrap();
        let error = process.wait_timeout(Duration::from_millis(50)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh (pid ") && text.contains("ready"),
            "{text}"
        );
        assert!(process.is_running());
        process.kill9();
        assert!(!process.is_running());
        assert!(!process.signal(Signal::TERM));
    }

    #[test]
    fn a_dropped_process_is_gone_even_when_it_ignores_the_request() {
        let process = sh("trap '' TERM; echo ready; while :; do sleep 1; done");
        crate::wait_until(Duration::from_secs(10), "ready", || {
            process.stdout() == "ready\n"
        })
        .unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Process::spawn(Command::new("/nowhere/daemon")).unwrap_err();
        assert!(error.to_string().starts_with("starting /nowhere/daemon: "));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let log = (0..5_000)
            .map(|n| format!("line {n}\n"))
            .collect::<String>();
        let shown = tail(&log);
        assert!(shown.len() <= 8_000 && shown.starts_with("line ") && shown.ends_with("4999\n"));
    }
}
