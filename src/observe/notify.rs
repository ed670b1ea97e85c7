//! The operator's own command for what needs a person: `[notify] command`.
//!
//! It is called without a shell, with the event as JSON on its standard input, by a thread of
//! its own, one call after the other. Nobody waits for it: what comes while too many calls
//! wait is left out and logged, and one that takes longer than its time is killed. The event
//! itself is in the outbox whatever becomes of the call.

use std::io::{self, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Calls that may wait.
const WAITING: usize = 64;

/// How often a call is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Calls the operator's command.
#[derive(Clone, Debug)]
pub struct Notifier {
    calls: SyncSender<String>,
}

impl Notifier {
    /// Begins to serve calls of a program with its arguments.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(command: Vec<String>, timeout: Duration) -> io::Result<Notifier> {
        let (calls, waiting) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("notify".to_owned())
            .spawn(move || serve(&waiting, &command, timeout))?;
        Ok(Notifier { calls })
    }

    /// Has the command told of an event. Never waits.
    pub fn tell(&self, event: String) {
        if self.calls.try_send(event).is_err() {
            tracing::warn!("notify.command is not told of an event: {WAITING} calls wait already");
        }
    }
}

fn serve(waiting: &Receiver<String>, command: &[String], timeout: Duration) {
    let Some((program, arguments)) = command.split_first() else {
        return;
    };
    for event in waiting {
        if let Err(why) = call(program, arguments, event, timeout) {
            // Its words are its own: they may hold anything.
            tracing::warn!(program, "notify.command has failed: {why}");
        }
    }
}

fn call(
    program: &str,
    arguments: &[String],
    event: String,
    timeout: Duration,
) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    if let Some(mut input) = child.stdin.take() {
        // A program that reads nothing must not hold up the others.
        let _ = std::thread::Builder::new()
            .name("notify-input".to_owned())
            .spawn(move || {
                // Whoever does not want to know does not have to read.
                let _ = input.write_all(event.as_bytes());
            });
    }
    wait(&mut child, Instant::now() + timeout).map_err(|e| e.to_string())
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<()> {
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(format!("it ended with {status}"))),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other("it took too long and was killed"));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shell(script: &str) -> (String, Vec<String>) {
        ("sh".to_owned(), vec!["-c".to_owned(), script.to_owned()])
    }

    #[test]
    fn the_command_reads_the_event_and_a_failure_is_told_without_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let (program, arguments) = shell(&format!("cat > {}", file.display()));
        let event = "{\"a\":1}".to_owned();
        call(&program, &arguments, event, Duration::from_secs(60)).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"a\":1}");
        let (program, arguments) = shell("echo secret >&2; exit 3");
        let why = call(&program, &arguments, String::new(), Duration::from_secs(60)).unwrap_err();
        assert!(why.contains('3') && !why.contains("secret"), "{why}");
        assert!(call("/nowhere/at/all", &[], String::new(), Duration::ZERO).is_err());
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed_and_nobody_waits_for_it() {
        let (program, arguments) = shell("exec sleep 600");
        let large = "x".repeat(1 << 20);
        let why = call(
            &program,
            &arguments,
            large.clone(),
            Duration::from_millis(50),
        )
        .unwrap_err();
        assert!(why.contains("too long"), "{why}");
        let command = std::iter::once(program).chain(arguments).collect();
        let notifier = Notifier::start(command, Duration::from_secs(600)).unwrap();
        for _ in 0..2 * WAITING {
            notifier.tell(String::new());
        }
    }
}
