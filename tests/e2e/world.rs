//! One world: a server, a configuration, the program, and what it left behind.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rollcall_testbed::{Process, Proxy, wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::company::hire;
use crate::fold::{Events, assert_same, expected};
use crate::sources::{Server, Setup, SourceKind};

/// How long anything may take that usually takes moments.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The mapping that [`expected`] repeats.
pub(crate) const MAP: &str = r#"
employeeNumber = "id"
name.givenName = "first_name"
name.familyName = "last_name"
displayName = { expr = "join([first_name, last_name], ' ')" }
title = { column = "job_title", default = "Employee" }
department = "department"
userType = { expr = "department == 'Engineering' ? 'developer' : 'user'" }
email = "email"
roles = { column = "roles", split = "," }
custom.note = "note"
custom.level = "level"
"#;

/// What differs from the usual configuration.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Further lines of `[source.hr]`.
    pub(crate) source: String,
    /// The limit; none where a test is about other things.
    pub(crate) limit: Option<String>,
    /// Other lines for the connection.
    pub(crate) connection: Option<String>,
    /// Another table than that of people.
    pub(crate) table: Option<String>,
    /// Other sinks than one NDJSON file.
    pub(crate) file_sink: Option<String>,
    /// Further tables.
    pub(crate) rest: String,
    /// The log level.
    pub(crate) log: Option<&'static str>,
}

impl Options {
    /// Small pages, so that a scan has many.
    pub(crate) fn pages_of(rows: usize) -> Options {
        Options {
            source: format!("batch = {{ page_rows = {rows} }}"),
            ..Options::default()
        }
    }

    /// Through a proxy that holds everything back a little: a load then takes long enough to
    /// be cut, however fast the machine is.
    pub(crate) fn slowed(mut self, db: &dyn Server) -> (Options, Proxy) {
        let direct = db.connection();
        let port = direct.lines().find_map(|l| l.strip_prefix("port = "));
        let port = port.expect("a connection has a port");
        let proxy = Proxy::start(&format!("127.0.0.1:{port}")).unwrap();
        proxy.latency(Duration::from_millis(2));
        let through = format!("port = {}", proxy.port());
        self.connection = Some(direct.replace(&format!("port = {port}"), &through));
        (self, proxy)
    }

    /// With further tables.
    pub(crate) fn and(mut self, rest: &str) -> Options {
        self.rest += rest;
        self
    }
}

/// A world.
pub(crate) struct World {
    /// The server.
    pub(crate) db: Arc<dyn Server>,
    folder: TempDir,
    markers: AtomicU64,
    /// Before the program and its arguments: what runs it elsewhere.
    pub(crate) within: Vec<String>,
}

impl World {
    /// With a server of its own.
    pub(crate) fn new(kind: &SourceKind, options: &Options) -> World {
        World::on((kind.start)(&Setup::default()), options)
    }

    /// On a server that there is.
    pub(crate) fn on(db: Arc<dyn Server>, options: &Options) -> World {
        let world = World {
            db,
            folder: tempfile::tempdir().unwrap(),
            markers: AtomicU64::new(9_000_000),
            within: Vec::new(),
        };
        world.configure(&*world.db, options);
        world
    }

    /// The same folder with the source at another server.
    pub(crate) fn with_server(self, db: Arc<dyn Server>) -> World {
        World { db, ..self }
    }

    /// Writes the configuration, for this server.
    pub(crate) fn configure(&self, db: &dyn Server, options: &Options) {
        let folder = self.folder.path().display();
        let file_sink = options
            .file_sink
            .clone()
            .unwrap_or_else(|| "rotate_size = \"1GiB\"".to_owned());
        let text = format!(
            "organization = \"acme\"\n[store]\npath = \"{folder}/store\"\n\
             [log]\nlevel = \"{log}\"\n\
             [attributes.note]\ntype = \"text\"\n[attributes.level]\ntype = \"integer\"\n\
             [source.hr]\n{connection}\ntable = \"{table}\"\nredact = [\"salary\"]\n\
             scope = \"kind != 'contractor'\"\nretry_max = \"1s\"\nlimit = {limit}\n{source}\n[source.hr.map]{MAP}\n\
             [sink.file]\ntype = \"ndjson\"\npath = \"{folder}/events.ndjson\"\n{file_sink}\n{rest}\n",
            log = options.log.unwrap_or("info"),
            connection = options
                .connection
                .clone()
                .unwrap_or_else(|| db.connection()),
            table = options.table.clone().unwrap_or_else(|| db.table("people")),
            limit = options.limit.as_deref().unwrap_or("{ action = \"off\" }"),
            source = options.source,
            rest = options.rest,
        );
        self.write_config(&text);
    }

    /// Writes a configuration as it is.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.config(), text).unwrap();
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("rollcall.toml")
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The file of events.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("events.ndjson")
    }

    /// The program with this configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut words = self.within.iter().map(String::as_str);
        let program = env!("CARGO_BIN_EXE_rollcall");
        let mut command = match words.next() {
            Some(first) => Command::new(first),
            None => Command::new(program),
        };
        if !self.within.is_empty() {
            command.args(words).arg(program);
        }
        command.arg("-c").arg(self.config()).args(args);
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) fn rollcall(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Starts the daemon.
    pub(crate) fn start(&self) -> Daemon<'_> {
        Daemon {
            process: Process::spawn(self.command(&["run"])).unwrap(),
            world: self,
        }
    }

    /// Starts the daemon and waits until it streams and no gap is open.
    pub(crate) fn streaming(&self) -> Daemon<'_> {
        let daemon = self.start();
        daemon.until_streaming();
        daemon
    }

    /// The events of the file, of which crashes may have cut lines.
    pub(crate) fn events(&self, crashes: usize) -> Events {
        let events = Events::of_files(&self.file(), crashes);
        events.assert_whole();
        events
    }

    /// The fold of the file's events is the mapping of `SELECT *`.
    pub(crate) fn assert_equal(&self) -> Events {
        let events = self.events(0);
        assert_same(&events.fold(), &expected(&self.db.people()));
        events
    }

    /// `rollcall verify` agrees.
    pub(crate) fn assert_verified(&self) {
        let output = self.rollcall(&["verify", "hr"]);
        let said = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{why}");
        assert!(
            said.starts_with("directory = source as of position "),
            "{said}"
        );
    }
}

/// A running daemon; it is killed when the value goes.
pub(crate) struct Daemon<'w> {
    /// The process.
    pub(crate) process: Process,
    world: &'w World,
}

impl Daemon<'_> {
    /// `rollcall status --json` of the running daemon, as soon as it answers.
    pub(crate) fn status(&self) -> Value {
        wait_for(PATIENCE, "the daemon to answer", || {
            assert!(
                self.process.is_running(),
                "it has ended:\n{}",
                self.process.log()
            );
            let output = self.world.command(&["status", "--json"]).output().unwrap();
            match serde_json::from_slice::<Value>(&output.stdout) {
                Ok(status) if status["running"] == true => Ok(status),
                _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
        .unwrap()
    }

    /// Waits for a status.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        wait_for(PATIENCE, what, || {
            let status = self.status();
            if is_so(&status) {
                return Ok(status);
            }
            Err(format!("{status}\n{}", self.process.log()))
        })
        .unwrap()
    }

    /// Waits until all sources stream and no gap is open.
    pub(crate) fn until_streaming(&self) -> Value {
        self.until("the source to stream", |status| {
            let sources = status["sources"].as_array().unwrap();
            !sources.is_empty()
                && sources
                    .iter()
                    .all(|s| s["state"] == "streaming" && s["gaps"].as_array().unwrap().is_empty())
        })
    }

    /// Commits one more change, and waits until it and everything before it is in the
    /// directory and with every sink.
    pub(crate) fn settle(&self) {
        let id = self.world.markers.fetch_add(1, Ordering::Relaxed);
        self.world.db.sql(&hire(id));
        let record = format!("hr:{id}");
        let arrived = wait_until(PATIENCE, "the last change to arrive", || {
            assert!(
                self.process.is_running(),
                "it has ended:\n{}",
                self.process.log()
            );
            self.world
                .rollcall(&["users", "show", &record])
                .status
                .success()
        });
        assert!(
            arrived.is_ok(),
            "{arrived:?}\n{}\n{}",
            self.status(),
            self.process.log()
        );
        self.until_delivered();
    }

    /// Waits until every sink has everything.
    pub(crate) fn until_delivered(&self) {
        self.until("the sinks to have everything", |status| {
            let sinks = status["sinks"].as_array().unwrap();
            sinks.iter().all(|s| s["position"] == status["outbox_head"])
        });
    }

    /// SIGTERM; it ends in order.
    pub(crate) fn stop(self) {
        let status = self.process.terminate(2 * PATIENCE).unwrap();
        assert!(status.success(), "{status}\n{}", self.process.log());
    }

    /// SIGKILL.
    pub(crate) fn kill9(self) {
        self.process.kill9();
    }
}
