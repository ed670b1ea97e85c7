//! Following a run of the daemon: a progress bar on a terminal, plain lines elsewhere, both
//! on standard error, until it ends.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rollcall_core::id::RunId;
use rollcall_store::Readers;

use super::exit::{Exit, Failure};
use super::socket;
use crate::api::runs::{self, RunDetail, RunView};
use crate::api::views::{SourceStatusView, Status};
use crate::config::Outline;
use crate::sync::shared::ScanProgress;

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Who follows.
pub(super) struct Follower<'a> {
    source: &'a str,
    socket: PathBuf,
    readers: Readers,
    shown: Shown,
    waiting_for: String,
}

/// Where progress is shown.
enum Shown {
    Bar(ProgressBar),
    Lines(Option<Instant>),
    Nowhere,
}

impl<'a> Follower<'a> {
    /// Follows runs of a source; without a word when `quiet`.
    pub(super) fn new(
        outline: &Outline,
        source: &'a str,
        quiet: bool,
    ) -> Result<Follower<'a>, Failure> {
        let shown = match quiet {
            true => Shown::Nowhere,
            false if std::io::stderr().is_terminal() => {
                let style = ProgressStyle::with_template("{prefix} {bar:30} {msg}");
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                Shown::Bar(
                    ProgressBar::new(0)
                        .with_style(style)
                        .with_prefix(source.to_owned()),
                )
            }
            false => Shown::Lines(None),
        };
        Ok(Follower {
            source,
            socket: outline.store.socket(),
            readers: Readers::open_readonly(&outline.store.path, &outline.organization)?,
            shown,
            waiting_for: String::new(),
        })
    }

    /// Waits until a run has ended; one that is not known yet is the next scan of the source.
    /// A run that another one took over is followed by that.
    pub(super) fn until_ended(mut self, mut run: Option<u64>) -> Result<RunDetail, Failure> {
        loop {
            let source = self.ask()?;
            let scan = source.live.as_ref().and_then(|live| live.scan.as_ref());
            match run {
                Some(known) => {
                    let row = self.readers.run(RunId(known))?;
                    match row.as_ref().map(|row| row.outcome.as_str()) {
                        Some("superseded") => run = None,
                        None | Some("running") => {}
                        Some(_) => {
                            if let Shown::Bar(bar) = &self.shown {
                                bar.finish_and_clear();
                            }
                            if let Some(ended) = runs::run(&self.readers, known)? {
                                return Ok(ended);
                            }
                        }
                    }
                }
                None => run = scan.map(|scan| scan.run),
            }
            match scan {
                Some(scan) => self.show(scan),
                None => self.wait_for(&source),
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn ask(&self) -> Result<SourceStatusView, Failure> {
        let status: Option<Status> = socket::get(&self.socket, "/v1/status")?;
        let source = status.and_then(|s| s.sources.into_iter().find(|s| s.name == self.source));
        source.ok_or_else(|| {
            let sentence = "the daemon has stopped. What it had begun goes on behind its last page at its next start; see `rollcall runs`";
            Failure::new(Exit::NotRunning, sentence)
        })
    }

    fn show(&mut self, scan: &ScanProgress) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_length(scan.total.unwrap_or(0).max(scan.rows));
                bar.set_position(scan.rows);
                bar.set_message(scan.to_string());
            }
            Shown::Lines(last) if last.is_none_or(|at| at.elapsed() >= LINE_EVERY) => {
                *last = Some(Instant::now());
                self.say(&scan.to_string());
            }
            Shown::Lines(_) | Shown::Nowhere => {}
        }
    }

    /// Says once why nothing moves.
    fn wait_for(&mut self, source: &SourceStatusView) {
        let reason = source.reason.clone().unwrap_or_default();
        if !matches!(source.state.as_str(), "waiting" | "refused") || self.waiting_for == reason {
            return;
        }
        let text = format!("the source is {}: {reason}", source.state);
        match &self.shown {
            Shown::Bar(bar) => bar.set_message(text),
            Shown::Lines(_) => self.say(&text),
            Shown::Nowhere => {}
        }
        self.waiting_for = reason;
    }

    fn say(&self, text: &str) {
        // What is only told on the way may be lost.
        let _ = writeln!(std::io::stderr().lock(), "{}: {text}", self.source);
    }
}

/// One sentence about a run that ended.
pub(super) fn how_it_ended(run: &RunView) -> String {
    let c = &run.counters;
    let counts = format!(
        "{} processed, {} created, {} updated, {} deactivated, {} skipped, {} errored",
        c.processed, c.created, c.updated, c.deactivated, c.skipped, c.errored
    );
    let staged = match run.outcome.as_str() {
        "staged" => {
            "; changes that take something away wait for approval: see `rollcall plan list`"
        }
        "unproved" => {
            "; there are rows without a key, so nobody was taken for absent: see `rollcall status`"
        }
        _ => "",
    };
    format!(
        "{} run {} of {} {}: {counts}{staged}",
        run.kind, run.run, run.source, run.outcome
    )
}
