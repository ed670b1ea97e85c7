//! A private Apache Kafka: one node in KRaft mode, broker and controller in one.
//!
//! It counts as started when it answers an `ApiVersions` request: a broker opens
//! its ports to requests last, after it is registered and unfenced, so a topic
//! can be made at once. Where clients have to log in or use TLS, that question
//! goes to a second listener without either, which the test's own tools use too.
//!
//! A stopped or killed broker starts again with the same ports and data, so that
//! to a client it is the same broker that was away.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Result, TestbedError};
use crate::locate;
use crate::ports::{free_port, random};
use crate::process::{LastSignal, Process, Signal, read_lossy, run, tail};
use crate::scratch::Scratch;
use crate::tls::Tls;

const START_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const PORT_TRIES: u32 = 3;

/// One broker is all there is, so every replication factor is 1; few partitions
/// of the internal topics make a start faster.
const ONE_NODE: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
";

/// The first compiler alone: a broker of a test or a bench lives for seconds or minutes.
const SHORT_LIVED_JVM: &[&str] = &["-Xmx512m", "-XX:TieredStopAtLevel=1"];

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// `PLAIN`.
    Plain,
    /// `SCRAM-SHA-256`.
    ScramSha256,
    /// `SCRAM-SHA-512`.
    ScramSha512,
    /// `OAUTHBEARER`, with tokens that nobody signed: any subject whose token has not ended.
    OauthBearer,
}

impl SaslMechanism {
    /// The name of the mechanism in the protocol and in `sasl.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// A broker to be started.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct KafkaBuilder {
    properties: Vec<(String, String)>,
    sasl: Option<(SaslMechanism, String, String)>,
    tls: Option<TlsFiles>,
}

#[derive(Debug, Clone)]
struct TlsFiles {
    keystore: String,
    ca: String,
    client_auth: bool,
}

impl KafkaBuilder {
    /// A line of the broker's configuration, such as `message.max.bytes`; it
    /// overrides what this crate sets.
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Clients log in as this user with SASL/PLAIN.
    pub fn sasl_plain(self, user: &str, password: &str) -> Self {
        self.sasl(SaslMechanism::Plain, user, password)
    }

    /// Clients log in as this user.
    pub fn sasl(mut self, mechanism: SaslMechanism, user: &str, password: &str) -> Self {
        self.sasl = Some((mechanism, user.to_owned(), password.to_owned()));
        self
    }

    /// Clients use TLS; with `client_auth` they need a certificate of the same
    /// authority.
    ///
    /// # Errors
    /// When a file of `tls` cannot be read.
    pub fn tls(mut self, tls: &Tls, client_auth: bool) -> Result<Self> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path)
                .map_err(TestbedError::io(format!("reading {}", path.display())))
        };
        self.tls = Some(TlsFiles {
            keystore: read(tls.server_key())? + &read(tls.server_cert())?,
            ca: read(tls.ca())?,
            client_auth,
        });
        Ok(self)
    }

    /// Formats a data directory and starts the broker on free ports.
    ///
    /// # Errors
    /// When Kafka or Java is not installed, or the broker does not start; the text
    /// has its log.
    pub fn start(self) -> Result<Kafka> {
        for _ in 1..PORT_TRIES {
            match self.try_start() {
                Err(TestbedError::Start { log, .. }) if log.contains("Address already in use") => {}
                other => return other,
            }
        }
        self.try_start()
    }

    fn try_start(&self) -> Result<Kafka> {
        let libs = locate::kafka_libs()?;
        let java = locate::program("java")?;
        let scratch = Scratch::new()?;
        let dir = scratch.path();
        let port = free_port()?;
        let plain_port = if self.is_secured() {
            free_port()?
        } else {
            port
        };
        let config = dir.join("server.properties");
        let kafka = Kafka {
            java,
            libs,
            log: dir.join("log"),
            config,
            port,
            plain_port,
            process: Mutex::new(None),
            _scratch: scratch,
        };
        write(
            &kafka.config,
            &self.configuration(kafka.dir(), port, plain_port)?,
        )?;

        let cluster = cluster_id();
        let config = kafka.config.display().to_string();
        let mut format = vec!["format", "--standalone", "-t", &cluster, "-c", &config];
        let scram = self.scram_record();
        if let Some(record) = &scram {
            format.extend(["--add-scram", record]);
        }
        kafka.tool("kafka.tools.StorageTool", &format)?;
        *kafka.lock() = Some(kafka.launch()?);
        Ok(kafka)
    }

    fn is_secured(&self) -> bool {
        self.sasl.is_some() || self.tls.is_some()
    }

    fn scram_record(&self) -> Option<String> {
        match &self.sasl {
            None | Some((SaslMechanism::Plain | SaslMechanism::OauthBearer, ..)) => None,
            Some((mechanism, user, password)) => Some(format!(
                "{}=[name={user},password={password}]",
                mechanism.name()
            )),
        }
    }

    fn configuration(&self, dir: &Path, port: u16, plain_port: u16) -> Result<String> {
        let controller_port = free_port()?;
        let mut text = String::from(ONE_NODE);
        let mut set = |name: &str, value: &str| text.push_str(&format!("{name}={value}\n"));
        let controller = format!("127.0.0.1:{controller_port}");
        set("controller.quorum.bootstrap.servers", &controller);
        set("log.dirs", &dir.join("data").display().to_string());

        let mut listeners = format!("PLAINTEXT://127.0.0.1:{plain_port},CONTROLLER://{controller}");
        let mut protocols = String::from("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT");
        if self.is_secured() {
            listeners.push_str(&format!(",CLIENT://127.0.0.1:{port}"));
            protocols.push_str(match (&self.sasl, &self.tls) {
                (Some(_), Some(_)) => ",CLIENT:SASL_SSL",
                (Some(_), None) => ",CLIENT:SASL_PLAINTEXT",
                (None, _) => ",CLIENT:SSL",
            });
        }
        set("listeners", &listeners);
        set("listener.security.protocol.map", &protocols);

        if let Some((mechanism, user, password)) = &self.sasl {
            let (login, users) = match mechanism {
                SaslMechanism::Plain => (
                    "plain.PlainLoginModule",
                    format!(" user_{user}=\"{password}\""),
                ),
                SaslMechanism::OauthBearer => (
                    "oauthbearer.OAuthBearerLoginModule",
                    format!(" unsecuredLoginStringClaim_sub=\"{user}\""),
                ),
                _ => ("scram.ScramLoginModule", String::new()),
            };
            set(
                "listener.name.client.sasl.enabled.mechanisms",
                mechanism.name(),
            );
            set(
                &format!(
                    "listener.name.client.{}.sasl.jaas.config",
                    mechanism.name().to_lowercase()
                ),
                &format!("org.apache.kafka.common.security.{login} required{users};"),
            );
        }
        if let Some(tls) = &self.tls {
            let keystore = dir.join("keystore.pem");
            let truststore = dir.join("truststore.pem");
            write(&keystore, &tls.keystore)?;
            write(&truststore, &tls.ca)?;
            for (name, path) in [("keystore", keystore), ("truststore", truststore)] {
                let name = format!("listener.name.client.ssl.{name}");
                set(&format!("{name}.type"), "PEM");
                set(&format!("{name}.location"), &path.display().to_string());
            }
            set(
                "listener.name.client.ssl.client.auth",
                if tls.client_auth { "required" } else { "none" },
            );
        }
        for (name, value) in &self.properties {
            set(name, value);
        }
        Ok(text)
    }
}

/// A running private broker. Every method takes `&self`.
pub struct Kafka {
    java: PathBuf,
    libs: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    plain_port: u16,
    process: Mutex<Option<Process>>,
    // Last, so that the process is gone before its folder.
    _scratch: Scratch,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kafka(port {})", self.port)
    }
}

impl Kafka {
    /// A broker without login and TLS.
    ///
    /// # Errors
    /// As [`KafkaBuilder::start`].
    pub fn start() -> Result<Kafka> {
        Kafka::builder().start()
    }

    /// What to start.
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder::default()
    }

    /// The port on 127.0.0.1 that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The listener without login and TLS, for the test's own look at the broker;
    /// the same as [`Kafka::bootstrap`] where clients need neither.
    pub fn plain_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.plain_port)
    }

    /// The broker's process id, when it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Process::pid)
    }

    /// What the broker has logged (warnings and worse).
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Ends the broker in order (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or has not ended within 60 s.
    pub fn stop(&self) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.as_ref().ok_or_else(|| self.state("does not run"))?;
        process.terminate(STOP_TIMEOUT)?;
        *slot = None;
        Ok(())
    }

    /// Kills the broker (SIGKILL).
    pub fn kill9(&self) {
        if let Some(process) = self.lock().take() {
            process.kill9();
        }
    }

    /// Stops the broker's process where it stands (SIGSTOP): its ports stay open
    /// and nobody answers.
    pub fn freeze(&self) {
        if let Some(process) = self.lock().as_ref() {
            process.signal(Signal::STOP);
        }
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&self) {
        if let Some(process) = self.lock().as_ref() {
            process.signal(Signal::CONT);
        }
    }

    /// Starts a stopped or killed broker again: same ports, same data.
    ///
    /// # Errors
    /// When it runs already, or does not start; the text has its log.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.lock();
        if slot.as_ref().is_some_and(Process::is_running) {
            return Err(self.state("runs already"));
        }
        *slot = Some(self.launch()?);
        Ok(())
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.TopicCommand`,
    /// and gives its stdout. Each call starts a Java machine: a second or two.
    ///
    /// # Errors
    /// When it ends with an error, with its words.
    pub fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let mut command = self.java(&["-Xmx256m", "-XX:TieredStopAtLevel=1"]);
        command.arg(class).args(args);
        run(command)
    }

    /// Makes a topic with one replica.
    ///
    /// # Errors
    /// As [`Kafka::tool`].
    pub fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let (bootstrap, partitions) = (self.plain_bootstrap(), partitions.to_string());
        let mut args = vec![
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            name,
        ];
        args.extend(["--partitions", &partitions]);
        let configs: Vec<String> = configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        for config in &configs {
            args.extend(["--config", config]);
        }
        self.tool("org.apache.kafka.tools.TopicCommand", &args)
            .map(drop)
    }

    fn launch(&self) -> Result<Process> {
        let mut command = self.java(SHORT_LIVED_JVM);
        command.arg("kafka.Kafka").arg(&self.config);
        let logged = read_lossy(&self.log).len();
        let process = Process::server(command, &self.log, None, LastSignal::Kill)?;
        let start = Instant::now();
        loop {
            let reason = if let Some(status) = process.status() {
                format!("it ended with {status}")
            } else if self.answers() {
                return Ok(process);
            } else if start.elapsed() > START_TIMEOUT {
                format!("not ready after {START_TIMEOUT:?}")
            } else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let log = self.log();
            return Err(TestbedError::Start {
                server: format!("Apache Kafka on port {}", self.port),
                reason,
                log_path: self.log.clone(),
                log: tail(log.get(logged..).unwrap_or(&log)).to_owned(),
            });
        }
    }

    /// Whether the broker answers `ApiVersions` (key 18, version 0).
    fn answers(&self) -> bool {
        const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.plain_port));
        let ask = || -> std::io::Result<[u8; 10]> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&REQUEST)?;
            // Length, our correlation id, error code 0.
            let mut head = [0; 10];
            stream.read_exact(&mut head)?;
            Ok(head)
        };
        ask().is_ok_and(|head| head[4..] == [0, 0, 0, 7, 0, 0])
    }

    fn java(&self, options: &[&str]) -> Command {
        let mut command = Command::new(&self.java);
        command
            .args(options)
            .arg("-Djava.awt.headless=true")
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-cp")
            .arg(self.libs.join("*"))
            .current_dir(self.dir());
        // Options from the caller's environment would be announced on stderr.
        for name in ["JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"] {
            command.env_remove(name);
        }
        command
    }

    fn dir(&self) -> &Path {
        self._scratch.path()
    }

    fn state(&self, what: &str) -> TestbedError {
        TestbedError::State(format!("the Kafka on port {} {what}", self.port))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(TestbedError::io(format!("writing {}", path.display())))
}

/// 16 random bytes in Kafka's base64url: 22 characters, of which the last holds
/// only two bits (`A`). Letters alone keep it from looking like an option.
fn cluster_id() -> String {
    let mut id: String = [random(), random()]
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .chain(random().to_be_bytes())
        .take(21)
        .map(|byte| char::from(b'A' + byte % 16))
        .collect();
    id.push('A');
    id
}
