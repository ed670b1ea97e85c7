//! The daemon as an operator has it: a configuration, and the program's own commands.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rollcall_testbed::{Kafka, Process};
use serde_json::Value;

use crate::database::Database;
use crate::show::Show;
use crate::{PATIENCE, Result};

/// The topic of events.
pub(crate) const TOPIC: &str = "rollcall.identity";

/// What the operator writes; the rest has defaults.
const CONFIG: &str = r#"organization = "acme"

[store]
path = "DIR/store"

[attributes.hiredOn]
type = "date"
[attributes.note]
type = "text"

[source.hr]
SOURCE
host = "127.0.0.1"
port = PORT
user = "rollcall"
table = "hr.employees"
redact = ["salary"]
scope = "employment_type != 'contractor'"
batch = { page_rows = 500 }  # small, to have something to look at
limit = { action = "off" }   # people come and go here as they never do

[source.hr.map]
employeeNumber = "id"
name.givenName = "first_name"
name.familyName = "last_name"
displayName = { expr = "join([first_name, last_name], ' ')" }
email = "email"
phoneNumber = "phone"
title = { column = "job_title", default = "Employee" }
department = "department"
userType = { expr = "department == 'Engineering' ? 'developer' : 'user'" }
roles = { column = "roles", split = "," }
custom.hiredOn = "hired_on"
custom.note = { column = "notes", on_null = "clear" }

[sink.file]
type = "ndjson"
path = "DIR/events.ndjson"
"#;

/// The configuration, the program, and the folder of both.
pub(crate) struct Daemon {
    program: PathBuf,
    folder: tempfile::TempDir,
    config: String,
}

impl Daemon {
    /// Finds the program and writes its configuration.
    pub(crate) fn prepare(database: &Database, kafka: Option<&Kafka>) -> Result<Daemon> {
        let program = match std::env::var_os("ROLLCALL") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("rollcall"),
        };
        if !program.exists() {
            let sentence = format!(
                "{} is not there; `make demo` builds it first",
                program.display()
            );
            return Err(sentence.into());
        }
        let folder = tempfile::tempdir()?;
        let mut config = CONFIG
            .replace("DIR", &folder.path().display().to_string())
            .replace("SOURCE", database.config_lines())
            .replace("PORT", &database.port().to_string());
        if let Some(kafka) = kafka {
            config += &format!(
                "\n[sink.kafka]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{TOPIC}\"\npartitions = 3\n",
                kafka.bootstrap()
            );
        }
        std::fs::write(folder.path().join("rollcall.toml"), &config)?;
        Ok(Daemon {
            program,
            folder,
            config,
        })
    }

    /// The configuration with a short name for its folder.
    pub(crate) fn config_shown(&self) -> String {
        let folder = self.folder.path().display().to_string();
        self.config.replace(&folder, "…")
    }

    /// The file of events.
    pub(crate) fn events_file(&self) -> PathBuf {
        self.folder.path().join("events.ndjson")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("rollcall.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.config_file()).args(args);
        command
    }

    fn ask(&self, args: &[&str]) -> Result<Value> {
        let output = self.command(args).arg("--json").output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            let words = args.join(" ");
            format!("`rollcall {words}` ended with {}: {said}", output.status).into()
        })
    }

    /// `rollcall check` in short: how much is right, and whatever is remarked.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        let checked = self.ask(&["check"])?;
        let mut lines = Vec::new();
        for one in checked.as_array().into_iter().flatten() {
            let name = format!("{} {}", text(&one["kind"]), text(&one["name"]));
            let findings = one["findings"].as_array().cloned().unwrap_or_default();
            let fine = findings.iter().filter(|f| f["severity"] == "ok").count();
            lines.push(match findings.len() {
                0 => format!("{name}: nothing to remark"),
                _ => format!("{name}: {fine} checks passed"),
            });
            for finding in findings.iter().filter(|f| f["severity"] != "ok") {
                let (severity, found) = (text(&finding["severity"]), text(&finding["found"]));
                lines.push(format!("  {severity}: {found}"));
            }
            if one["usable"] != true {
                return Err(format!("{name} cannot be used:\n{}", lines.join("\n")).into());
            }
        }
        Ok(lines)
    }

    /// Starts the daemon; it ends with the value.
    pub(crate) fn start(&self) -> Result<Process> {
        Ok(Process::spawn(self.command(&["run"]))?)
    }

    /// `rollcall status --json` of a daemon that runs.
    fn status(&self, running: &Process) -> Result<Value> {
        let status = self.ask(&["status"]);
        if !running.is_running() {
            return Err(format!("the daemon has ended by itself:\n{}", running.log()).into());
        }
        status
    }

    /// Shows the load until the source streams; one line about it.
    pub(crate) fn show_load(&self, show: &Show, running: &Process, rows: u64) -> Result<String> {
        let began = Instant::now();
        let bar = ProgressBar::new(rows).with_style(ProgressStyle::with_template(
            "         {bar:40} {pos}/{len} rows",
        )?);
        if !show.is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        while began.elapsed() < PATIENCE {
            let status = match self.status(running) {
                Ok(status) => status,
                // The store is made in the first moments; a daemon that ended is not asked again.
                Err(_) if running.is_running() => continue,
                Err(e) => return Err(e),
            };
            let source = &status["sources"][0];
            let read = source["live"]["scan_rows"].as_u64().unwrap_or(0);
            bar.set_position(read.min(rows));
            match text(&source["state"]).as_str() {
                "streaming" if status["running"] == true => {
                    bar.finish_and_clear();
                    return Ok(format!(
                        "{rows} rows read in {:.1} s, {} users, {} conflict (two people with one address)",
                        began.elapsed().as_secs_f64(),
                        status["users"],
                        status["conflicts"]["duplicate_in_source"]
                            .as_u64()
                            .unwrap_or(0),
                    ));
                }
                "refused" => {
                    return Err(format!("the source was refused: {}", source["reason"]).into());
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(format!("the load did not end in time:\n{}", running.log()).into())
    }

    /// Waits until every sink has all that is in the outbox.
    pub(crate) fn wait_until_delivered(&self, running: &Process) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let status = self.status(running)?;
            let head = status["outbox_head"].as_u64();
            let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
            if sinks.iter().all(|s| s["position"].as_u64() == head) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("a sink did not get all events in time".into())
    }

    /// `rollcall verify hr`.
    pub(crate) fn verify(&self) -> Result<String> {
        let output = self.command(&["verify", "hr"]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`rollcall verify hr` says: {said}{why}").into());
        }
        Ok(format!("rollcall verify hr: {said}"))
    }

    /// Stops the daemon in order.
    pub(crate) fn stop(&self, running: &Process) -> Result<()> {
        let status = running.terminate(Duration::from_secs(15))?;
        if !status.success() {
            return Err(format!("the daemon ended with {status}:\n{}", running.log()).into());
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Reads what a running daemon may be writing just now.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()).into())
}
