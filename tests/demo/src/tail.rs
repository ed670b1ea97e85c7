//! The end of the file of events, watched as it grows.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::Result;

/// How often the file is looked at: well below what is measured.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// An event and when it was there to read.
pub(crate) struct Arrived {
    pub(crate) event: Value,
    at: Timestamp,
}

impl Arrived {
    /// `created`, `updated`, `conflict.opened`, …
    pub(crate) fn what(&self) -> &str {
        let kind = self.event["type"].as_str().unwrap_or_default();
        let kind = kind.strip_prefix("io.rollcall.").unwrap_or(kind);
        let kind = kind.strip_suffix(".v1").unwrap_or(kind);
        kind.strip_prefix("user.").unwrap_or(kind)
    }

    /// When the database committed the change that the event is about.
    fn committed(&self) -> Timestamp {
        let time = self.event["time"].as_str().and_then(|t| t.parse().ok());
        time.unwrap_or(self.at)
    }

    /// From the commit in the database until the event could be read.
    pub(crate) fn latency_ms(&self) -> f64 {
        self.at.duration_since(self.committed()).as_secs_f64() * 1e3
    }

    /// From a moment until the event could be read.
    pub(crate) fn since_ms(&self, moment: Timestamp) -> f64 {
        self.at.duration_since(moment).as_secs_f64() * 1e3
    }

    /// Whether the event is about a record that was there before and was held until now.
    pub(crate) fn is_older_than(&self, moment: Timestamp) -> bool {
        self.committed() < moment
    }

    /// The user's displayName.
    pub(crate) fn who(&self) -> String {
        let user = &self.event["data"]["user"];
        user["displayName"].as_str().unwrap_or_default().to_owned()
    }
}

/// The tail.
pub(crate) struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    pub(crate) fn of(path: PathBuf) -> Tail {
        Tail {
            path,
            file: None,
            rest: Vec::new(),
        }
    }

    /// The lines that have come since, parsed; a line that a crash cut is passed over.
    pub(crate) fn new_events(&mut self) -> Result<Vec<Arrived>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        file.read_to_end(&mut self.rest)?;
        let at = Timestamp::now();
        let end = self
            .rest
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |i| i + 1);
        let events = self.rest[..end]
            .split(|b| *b == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .map(|event| Arrived { event, at })
            .collect();
        self.rest.drain(..end);
        Ok(events)
    }

    /// Waits for events until `done` with one of them.
    pub(crate) fn until(
        &mut self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut(Arrived) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < patience {
            let mut over = false;
            for arrived in self.new_events()? {
                over |= done(arrived);
            }
            if over {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("{what} did not come within {} s", patience.as_secs()).into())
    }
}
