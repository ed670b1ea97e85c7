//! Events as lines of JSON (CloudEvents structured mode), to standard output or a file that
//! is rotated by size.
//!
//! Delivered means written and, for a file, synced: the store's cursor moves behind it
//! only then. After a crash the last lines may be written again with the same ids: at least
//! once. A line that was cut by the crash is ended before the next one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rollcall_contract::{
    ConnectorError, Finding, Outgoing, Refused, Report, Severity, Sink, SinkStart,
};
use rustix::fs::{Access, access};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file: rotated beyond `rotate_bytes` into `<path>.1` … `<path>.<keep>`.
    File {
        /// The file.
        path: PathBuf,
        /// Size beyond which it is rotated.
        rotate_bytes: u64,
        /// How many rotated files stay.
        keep: u32,
    },
}

/// Looks at a target without making or changing anything.
pub fn check(target: &Target) -> Report {
    let mut report = Report::default();
    let Target::File { path, .. } = target else {
        return report;
    };
    // A file that is not there yet is made in its folder, and so are those it is rotated to.
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let shown = path.display();
    let finding = if path.is_dir() {
        Finding::new(
            Severity::Error,
            "path_is_a_folder",
            format!("{shown} is a folder, and events go to a file."),
            "Name a file in it.",
        )
    } else if !folder.is_dir() {
        Finding::new(
            Severity::Error,
            "no_folder",
            format!("There is no folder {}.", folder.display()),
            "Make it, with mode 0700 and owned by the daemon's user: it will hold personal data.",
        )
    } else if [Some(folder), path.exists().then_some(path)]
        .into_iter()
        .flatten()
        .any(|place| access(place, Access::WRITE_OK).is_err())
    {
        Finding::new(
            Severity::Error,
            "not_writable",
            format!("{shown} cannot be written by this user."),
            "Give the file and its folder to the daemon's user.",
        )
    } else {
        let found = format!("{shown} can be written.");
        Finding::new(Severity::Ok, "path", found, "")
    };
    report.findings.push(finding);
    report
}

/// The sink.
pub struct NdjsonSink {
    target: Target,
    file: Option<(File, u64)>,
    buffer: Vec<u8>,
}

impl NdjsonSink {
    /// A sink that opens its file when it starts.
    pub fn new(target: Target) -> NdjsonSink {
        NdjsonSink {
            target,
            file: None,
            buffer: Vec::new(),
        }
    }

    fn write(&mut self, block: &[Outgoing]) -> io::Result<()> {
        self.buffer.clear();
        for record in block
            .iter()
            .filter(|r| r.value.is_some() && r.destination.is_none())
        {
            write_line(record, &mut self.buffer);
        }
        match (&self.target, &mut self.file) {
            (Target::Stdout, _) => {
                let mut out = io::stdout().lock();
                out.write_all(&self.buffer)?;
                out.flush()
            }
            (
                Target::File {
                    path,
                    rotate_bytes,
                    keep,
                },
                Some((file, size)),
            ) => {
                if *size > 0 && *size + self.buffer.len() as u64 > *rotate_bytes {
                    rotate(path, *keep)?;
                    (*file, *size) = open(path)?;
                }
                file.write_all(&self.buffer)?;
                file.sync_data()?;
                *size += self.buffer.len() as u64;
                Ok(())
            }
            (Target::File { .. }, None) => Err(io::Error::other("the sink was not started")),
        }
    }

    fn failed(&self, e: &io::Error) -> ConnectorError {
        let place = match &self.target {
            Target::Stdout => "standard output".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        };
        ConnectorError::transient(
            "write_failed",
            format!("Events could not be written to {place}: {e}."),
        )
    }
}

/// Appends one record as a line.
pub(crate) fn write_line(record: &Outgoing, out: &mut Vec<u8>) {
    out.push(b'{');
    for (name, value) in &record.headers {
        let name = if *name == "content-type" {
            "datacontenttype"
        } else {
            name
        };
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write_text(value, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"data\":");
    out.extend_from_slice(record.value.as_deref().unwrap_or(b"null"));
    out.extend_from_slice(b"}\n");
}

/// Appends a text, quoted. Mostly there is nothing in it that JSON would escape.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |b: &u8| (b' '..=b'~').contains(b) && !matches!(b, b'"' | b'\\');
    if text.iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    // A string always serialises, and a vector takes every write.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
}

/// Opens for appending; ends a line that a crash cut. A file that is made here belongs to
/// its owner alone: it holds personal data.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        let mut last = [0u8];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    for n in (1..keep).rev() {
        match std::fs::rename(numbered(n), numbered(n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[async_trait]
impl Sink for NdjsonSink {
    async fn start(&mut self) -> Result<SinkStart, ConnectorError> {
        if let Target::File { path, .. } = &self.target {
            match open(path) {
                Ok(opened) => self.file = Some(opened),
                Err(e) => return Err(self.failed(&e)),
            }
        }
        Ok(SinkStart::Unknown)
    }

    async fn deliver(&mut self, block: Vec<Outgoing>) -> Result<Vec<Refused>, ConnectorError> {
        match tokio::task::block_in_place(|| self.write(&block)) {
            Ok(()) => Ok(Vec::new()),
            Err(e) => Err(self.failed(&e)),
        }
    }

    async fn stop(&mut self) {
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;
    use bytes::Bytes;

    fn record(n: u64) -> Outgoing {
        Outgoing {
            sequence: n,
            key: None,
            value: Some(Bytes::from(format!("{{\"n\":{n}}}"))),
            headers: vec![
                ("id", Bytes::from(n.to_string())),
                ("content-type", Bytes::from_static(b"application/json")),
            ],
            destination: None,
        }
    }

    #[test]
    fn a_text_is_quoted_as_json_has_it() {
        let of_bytes = (0..=127u8).map(|b| vec![b'a', b, b'z']);
        let others = ["", "é", "a\u{2028}b", "\u{7f}", "\u{10ffff}"].map(|t| t.as_bytes().to_vec());
        for text in of_bytes.chain(others) {
            let mut line = Vec::new();
            write_text(&text, &mut line);
            let read: String = serde_json::from_slice(&line).unwrap();
            assert_eq!(read.as_bytes(), text);
        }
    }

    #[test]
    fn a_line_is_one_json_document_even_behind_a_cut_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.ndjson");
        std::fs::write(&path, b"{\"cut").unwrap();
        let target = Target::File {
            path: path.clone(),
            rotate_bytes: 1 << 20,
            keep: 1,
        };
        let mut sink = NdjsonSink::new(target);
        sink.file = Some(open(&path).unwrap());
        sink.write(&[record(1), record(2)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "{\"cut");
        let second: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(second["data"]["n"], 2);
        assert_eq!(second["datacontenttype"], "application/json");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_before_the_daemon_runs() {
        let dir = tempfile::tempdir().unwrap();
        let checked = |path: PathBuf| {
            let report = check(&Target::File {
                path,
                rotate_bytes: 1,
                keep: 1,
            });
            report.findings[0].code.clone()
        };
        assert_eq!(checked(dir.path().join("e")), "path");
        assert_eq!(checked(dir.path().join("no/e")), "no_folder");
        assert_eq!(checked(dir.path().to_owned()), "path_is_a_folder");
        assert!(!dir.path().join("e").exists(), "nothing is made");
    }

    #[test]
    fn a_file_of_events_belongs_to_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn rotation_keeps_as_many_files_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut sink = NdjsonSink::new(Target::File {
            path: path.clone(),
            rotate_bytes: 1,
            keep: 2,
        });
        sink.file = Some(open(&path).unwrap());
        for n in 0..5 {
            sink.write(&[record(n)]).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["e", "e.1", "e.2"]);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"n\":4"));
    }
}
