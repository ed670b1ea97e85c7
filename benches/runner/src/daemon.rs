//! The real daemon as a child, watched through its own socket.
//!
//! Every wait ends: with what was waited for, with the daemon's own last words when it
//! ended, or with the state that it stood in when the time was over.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rollcall_testbed::{ProcStat, Process, Signal};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::database::is_reached;

const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often the daemon is asked, at least and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// What is needed of `/v1/status`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) users: u64,
    pub(crate) active: u64,
    pub(crate) outbox_head: u64,
    pub(crate) sources: Vec<SourceView>,
    pub(crate) sinks: Vec<SinkView>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SourceView {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) position: Option<String>,
    pub(crate) gaps: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SinkView {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) position: u64,
}

/// A run of a source, of which is wanted how it ended.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) outcome: String,
    pub(crate) counters: Counters,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Counters {
    pub(crate) processed: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
}

/// An order that was taken.
#[derive(Deserialize)]
struct Accepted {
    run: Option<u64>,
}

impl Status {
    /// Where everything stands, for the sentence of a failure.
    pub(crate) fn describe(&self) -> String {
        let sources = self
            .sources
            .iter()
            .map(|s| (&s.state, &s.reason, s.gaps.len()));
        let sinks = self.sinks.iter().map(|s| (&s.state, &s.reason, s.position));
        format!(
            "{} users; sources (state, reason, gaps) {:?} at {:?}; outbox {}; sinks (state, \
             reason, position) {:?}",
            self.users,
            sources.collect::<Vec<_>>(),
            self.sources.iter().map(|s| &s.position).collect::<Vec<_>>(),
            self.outbox_head,
            sinks.collect::<Vec<_>>()
        )
    }

    fn is_streaming(&self) -> bool {
        self.sources
            .iter()
            .all(|s| s.state == "streaming" && s.gaps.is_empty())
            && self.sinks.iter().all(|s| s.state == "delivering")
    }

    /// Whether every source is stored up to a position of the log.
    fn is_stored_to(&self, wanted: &str) -> bool {
        self.sources
            .iter()
            .all(|s| s.position.as_deref().is_some_and(|p| is_reached(p, wanted)))
    }

    fn is_delivered(&self) -> bool {
        self.sinks.iter().all(|s| s.position >= self.outbox_head)
    }
}

/// Waits before the daemon is asked again: so long that the end is known within a percent,
/// and no shorter, since each question costs the daemon a look at its store.
fn pause(began: Instant) {
    std::thread::sleep((began.elapsed() / 100).clamp(POLL.0, POLL.1));
}

/// A running daemon. It ends with its owner.
pub(crate) struct Daemon {
    process: Process,
    socket: PathBuf,
    pub(crate) started: Instant,
}

impl Daemon {
    /// Starts it; the time is counted from here.
    pub(crate) fn start(program: &Path, config: &Path, store: &Path) -> Result<Daemon> {
        let mut command = Command::new(program);
        command.arg("-c").arg(config).arg("run");
        let started = Instant::now();
        Ok(Daemon {
            process: Process::spawn(command)?,
            socket: store.join("rollcall.sock"),
            started,
        })
    }

    /// CPU time and memory of the whole process.
    pub(crate) fn stat(&self) -> Result<ProcStat> {
        Ok(ProcStat::of(self.process.pid())?)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: rollcall\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let body = head.map_or(&[][..], |at| &answer[at + 4..]);
        if !answer.starts_with(b"HTTP/1.1 2") {
            let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
            return Err(format!("it answered {}", String::from_utf8_lossy(line)).into());
        }
        Ok(serde_json::from_slice(body)?)
    }

    /// Asks for the status until it is as wanted.
    fn wait(
        &self,
        limit: Duration,
        what: &str,
        mut is_done: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let began = Instant::now();
        loop {
            let answer = self.ask("GET", "/v1/status");
            match &answer {
                Ok(status) if is_done(status) => return answer,
                _ => {}
            }
            if let Some(status) = self.process.status() {
                let log = self.process.log();
                return Err(format!("the daemon ended ({status}) before {what}:\n{log}").into());
            }
            if began.elapsed() > limit {
                let log = self.process.log();
                let last = match answer {
                    Ok(status) => status.describe(),
                    Err(error) => format!("unknown ({error})"),
                };
                return Err(format!(
                    "waited {} s for {what}, and it did not happen; the last state was {last}; \
                     the daemon said:\n{log}",
                    limit.as_secs()
                )
                .into());
            }
            pause(began);
        }
    }

    /// Waits until sources stream without a gap and sinks deliver.
    pub(crate) fn until_streaming(&self, limit: Duration) -> Result<Status> {
        self.wait(
            limit,
            "the source to stream and the sink to deliver",
            Status::is_streaming,
        )
    }

    /// Waits until everything up to a position of the log is stored, and delivered.
    ///
    /// The outbox is looked at once more after the position was reached: the first answer
    /// may have read its head before the last commit and the position behind it.
    pub(crate) fn until_delivered(&self, position: &str, limit: Duration) -> Result<Status> {
        let mut is_stored = false;
        self.wait(limit, "everything to be stored and delivered", |status| {
            let was_stored = is_stored;
            is_stored = status.is_stored_to(position);
            was_stored && status.is_delivered()
        })
    }

    /// Waits until so many events were made, and delivered.
    pub(crate) fn until_told(&self, events: u64, limit: Duration) -> Result<Status> {
        self.wait(limit, "all events to be made and delivered", |status| {
            status.outbox_head >= events && status.is_delivered()
        })
    }

    /// Waits until there are so many users, of whom so many are not active.
    pub(crate) fn until_users(&self, users: u64, inactive: u64, limit: Duration) -> Result<Status> {
        self.wait(limit, "all changes to be stored", |status| {
            status.users == users && status.active == users - inactive
        })
    }

    /// Has the source reconciled; gives the run when it has ended.
    pub(crate) fn reconcile(&self, limit: Duration) -> Result<Run> {
        let began = Instant::now();
        let accepted: Accepted = self.ask("POST", "/v1/sources/hr/reconcile")?;
        let number = accepted.run.ok_or("no reconciliation has begun")?;
        loop {
            let run: Run = self.ask("GET", &format!("/v1/runs/{number}"))?;
            if run.outcome != "running" {
                return Ok(run);
            }
            if began.elapsed() > limit {
                let log = self.process.log();
                return Err(format!(
                    "the reconciliation has not ended within {} s; the daemon said:\n{log}",
                    limit.as_secs()
                )
                .into());
            }
            pause(began);
        }
    }

    /// Holds the process still, or lets it go on.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        self.process.signal(if is_frozen {
            Signal::STOP
        } else {
            Signal::CONT
        });
    }

    /// Stops it in order.
    pub(crate) fn stop(self) -> Result<()> {
        let status = self.process.terminate(STOP_LIMIT)?;
        if status.success() {
            Ok(())
        } else {
            let log = self.process.log();
            Err(format!("the daemon did not stop in order ({status}):\n{log}").into())
        }
    }
}
