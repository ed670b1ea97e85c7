//! `rollcall secret`: keys made, credentials sealed, all of them sealed again.
//!
//! A credential comes from standard input or a prompt without echo, never from an
//! argument (those stand in the list of processes and the history of a shell). It is held
//! in wiped memory from the first byte on and leaves it as an envelope only.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use crate::config::{ConfigErrors, Environment, KEYS, Kind, Sealing, TOKEN_MIN_BYTES};
use crate::vault::{
    Binding, Key, Owner, SECRET_MAX_BYTES, Vault, VaultError, rotate, write_sealed,
};

/// Seals credentials and manages their key.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  rollcall secret generate-key --out /etc/rollcall/key\n  rollcall secret seal --source hr --field password --write\n  printf %s \"$PASSWORD\" | rollcall secret seal --sink events --field sasl.password\n  rollcall secret rotate"
)]
pub struct SecretArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SecretCommand,
}

/// What to do with credentials.
#[derive(Subcommand, Clone, Debug)]
pub enum SecretCommand {
    /// Seals one credential from standard input or a prompt.
    Seal(SealArgs),
    /// Seals every credential of the file again with the current key.
    Rotate,
    /// Makes a new key.
    GenerateKey(GenerateKeyArgs),
}

/// Which field to seal for.
#[derive(Args, Clone, Debug)]
pub struct SealArgs {
    /// The source that the credential is for.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["sink", "token"],
        required_unless_present_any = ["sink", "token"]
    )]
    pub source: Option<String>,
    /// The sink that the credential is for.
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    pub sink: Option<String>,
    /// The bearer token that the credential is.
    #[arg(long, value_name = "NAME")]
    pub token: Option<String>,
    /// The key of the credential, for example password or sasl.password.
    #[arg(long, value_name = "KEY")]
    pub field: String,
    /// Writes the sealed value into the configuration file, in place of what is there.
    #[arg(long)]
    pub write: bool,
}

/// Where to put a new key.
#[derive(Args, Clone, Debug)]
pub struct GenerateKeyArgs {
    /// Writes the key to a new file that only its owner can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is wrong where it matters for sealing.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A key or value cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Keys or values that cannot be used, each with its name.
    #[error("{}", lines(.0))]
    Several(Vec<(String, VaultError)>),
    /// There is no such source, sink or field.
    #[error("found {found}, expected {expected}; fix: {fix}")]
    Unknown {
        /// What was given.
        found: String,
        /// What there is.
        expected: String,
        /// What to write.
        fix: String,
    },
    /// The prompt was left.
    #[error("cancelled; nothing was sealed")]
    Cancelled,
    /// The credential is no text.
    #[error("the credential is not UTF-8")]
    NoText,
    /// The terminal or the output failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl SecretError {
    /// How a command that ends with it exits.
    pub fn exit(&self) -> Exit {
        match self {
            SecretError::Config(_) => Exit::Configuration,
            SecretError::Unknown { .. } => Exit::NotFound,
            _ => Exit::Failed,
        }
    }
}

impl From<SecretError> for Failure {
    fn from(e: SecretError) -> Failure {
        match e {
            SecretError::Io(e) => e.into(),
            e => Failure::new(e.exit(), e.to_string()),
        }
    }
}

fn lines(errors: &[(String, VaultError)]) -> String {
    let lines: Vec<String> = errors
        .iter()
        .map(|(name, error)| format!("{name}: {error}"))
        .collect();
    lines.join("\n")
}

/// Runs the command. `file` is the configuration file.
///
/// # Errors
/// See [`SecretError`]; the file is unchanged then.
pub fn run(
    args: &SecretArgs,
    file: &Path,
    environment: &dyn Environment,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), SecretError> {
    match &args.command {
        SecretCommand::GenerateKey(args) => generate_key(args, json, out),
        SecretCommand::Rotate => rotate_all(file, environment, json, out),
        SecretCommand::Seal(args) => seal(args, file, environment, json, out, read_secret),
    }
}

fn generate_key(
    args: &GenerateKeyArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), SecretError> {
    let key = Key::generate()?;
    let id = key.id().to_string();
    let Some(path) = &args.out else {
        let text = key.encode();
        match json {
            true => writeln!(out, "{}", json!({ "key": text.as_str(), "key_id": id }))?,
            false => writeln!(out, "{}", text.as_str())?,
        }
        return Ok(());
    };
    key.write_new_file(path)?;
    let shown = path.display();
    match json {
        true => writeln!(out, "{}", json!({ "file": path, "key_id": id }))?,
        false => writeln!(
            out,
            "key {id} is in {shown} (mode 0600); name it in rollcall.toml:\n[vault]\nkey_file = \"{shown}\""
        )?,
    }
    Ok(())
}

fn rotate_all(
    file: &Path,
    environment: &dyn Environment,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), SecretError> {
    let sealing = Sealing::load(file)?;
    let vault = open(&sealing, environment)?;
    let rotation = rotate(file, &sealing.organization, &vault).map_err(SecretError::Several)?;
    let id = vault.current().to_string();
    match json {
        true => writeln!(
            out,
            "{}",
            json!({ "resealed": rotation.resealed, "current": rotation.current, "key_id": id })
        )?,
        false => writeln!(
            out,
            "{}: {} sealed again with key {id}, {} had it already",
            file.display(),
            rotation.resealed,
            rotation.current
        )?,
    }
    Ok(())
}

/// `secret` is asked only after everything else is known to be right.
fn seal(
    args: &SealArgs,
    file: &Path,
    environment: &dyn Environment,
    json: bool,
    out: &mut dyn Write,
    secret: impl FnOnce(&str) -> Result<SecretString, SecretError>,
) -> Result<(), SecretError> {
    let sealing = Sealing::load(file)?;
    let (owner, known) = match (&args.source, &args.sink, &args.token) {
        (Some(name), _, _) => (Owner::Source(name), &sealing.sources),
        (None, Some(name), _) => (Owner::Sink(name), &sealing.sinks),
        (None, None, Some(name)) => (Owner::Token(name), &sealing.tokens),
        (None, None, None) => {
            return Err(SecretError::Unknown {
                found: "neither a source nor a sink nor a token".to_owned(),
                expected: "one of them".to_owned(),
                fix: "add --source NAME, --sink NAME or --token NAME".to_owned(),
            });
        }
    };
    let (kind, name) = (owner.kind(), owner.name());
    if !known.iter().any(|known| known == name) {
        return Err(SecretError::Unknown {
            found: format!("the {kind} {name:?}, which is not in {}", file.display()),
            expected: format!("one of its {kind}s: {}", known.join(", ")),
            fix: format!("name one of them, or add [{kind}.{name}] first"),
        });
    }
    check_field(owner, &args.field)?;
    let vault = open(&sealing, environment)?;
    let binding = Binding {
        organization: &sealing.organization,
        owner,
        field: &args.field,
    };
    let secret = secret(&format!("{} of {kind} {name} (not shown): ", args.field))?;
    let length = secret.expose_secret().len();
    if matches!(owner, Owner::Token(_)) && length < TOKEN_MIN_BYTES {
        return Err(SecretError::Unknown {
            found: format!("a token of fewer than {TOKEN_MIN_BYTES} characters (not shown)"),
            expected: format!("at least {TOKEN_MIN_BYTES} characters that nobody can guess"),
            fix: "make one with `openssl rand -hex 32`".to_owned(),
        });
    }
    let envelope = vault.seal(&binding, &secret)?;
    if args.write {
        write_sealed(file, &binding, &envelope)?;
    }
    let id = vault.current().to_string();
    match (json, args.write) {
        (true, write) => writeln!(
            out,
            "{}",
            json!({ "sealed": envelope, "key_id": id, "written": write })
        )?,
        (false, true) => writeln!(
            out,
            "{kind}.{name}.{} is sealed with key {id} in {}",
            args.field,
            file.display()
        )?,
        (false, false) => writeln!(out, "{{ sealed = \"{envelope}\" }}")?,
    }
    Ok(())
}

fn open(sealing: &Sealing, environment: &dyn Environment) -> Result<Vault, SecretError> {
    match sealing.vault.open(environment) {
        Ok(Some(vault)) => Ok(vault),
        Ok(None) => Err(VaultError::NoKey.into()),
        Err(errors) => Err(SecretError::Several(errors)),
    }
}

/// A value sealed for a key that holds no credential would never be opened.
fn check_field(owner: Owner<'_>, field: &str) -> Result<(), SecretError> {
    let prefix = format!("{}.*.", owner.kind());
    let fields: Vec<&str> = KEYS
        .iter()
        .filter(|key| matches!(key.kind, Kind::Secret | Kind::Property))
        .filter_map(|key| key.pattern.strip_prefix(&prefix))
        .collect();
    let known = fields.iter().any(|known| match known.strip_suffix('*') {
        Some(table) => field
            .strip_prefix(table)
            .is_some_and(|rest| !rest.is_empty()),
        None => *known == field,
    });
    if known {
        return Ok(());
    }
    Err(SecretError::Unknown {
        found: format!("the field {field:?}, which holds no credential"),
        expected: format!("one of {}", fields.join(", ")),
        fix: "name one of them".to_owned(),
    })
}

/// Reads a credential from the terminal without echo, or all of standard input; one line
/// end at its end is not part of it.
fn read_secret(prompt: &str) -> Result<SecretString, SecretError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return secret_from(&read_bytes(stdin.as_fd(), false)?);
    }
    let mut stderr = io::stderr().lock();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let hidden = HiddenInput::begin(stdin.as_fd())?;
    let bytes = read_bytes(stdin.as_fd(), true);
    drop(hidden);
    stderr.write_all(b"\n")?;
    typed(&bytes?)
}

/// What was typed at the prompt.
fn typed(line: &[u8]) -> Result<SecretString, SecretError> {
    if line.contains(&INTERRUPT) {
        return Err(SecretError::Cancelled);
    }
    secret_from(line)
}

/// Control-C.
const INTERRUPT: u8 = 3;

/// A terminal without echo until this is dropped. Signals from keys are off meanwhile and
/// Control-C ends the line, so that leaving the prompt always brings the echo back.
struct HiddenInput<'f> {
    terminal: std::os::fd::BorrowedFd<'f>,
    before: Termios,
}

impl<'f> HiddenInput<'f> {
    fn begin(terminal: std::os::fd::BorrowedFd<'f>) -> io::Result<HiddenInput<'f>> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(HiddenInput { terminal, before })
    }
}

impl Drop for HiddenInput<'_> {
    fn drop(&mut self) {
        // Nothing is left to do about a terminal that is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Reads without a buffer in between, which would keep a copy.
fn read_bytes(
    input: std::os::fd::BorrowedFd<'_>,
    one_line: bool,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_MAX_BYTES + 2]);
    let mut filled = 0;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        if room.is_empty() {
            return Err(VaultError::SecretLength(filled).into());
        }
        let read = match rustix::io::read(input, room) {
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        filled += read;
        let ended = bytes
            .get(..filled)
            .is_some_and(|bytes| bytes.ends_with(b"\n") || bytes.ends_with(&[INTERRUPT]));
        if read == 0 || (one_line && ended) {
            bytes.truncate(filled);
            return Ok(bytes);
        }
    }
}

fn secret_from(bytes: &[u8]) -> Result<SecretString, SecretError> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| SecretError::NoText)?;
    Ok(SecretString::from(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test that cannot go on fails"
    )]

    use std::collections::BTreeMap;

    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::config::Config;

    const FILE: &str = "organization = \"acme\"\n\n[source.hr]\ntype = \"postgres\"\nhost = \"localhost\"\ndatabase = \"hr\"\nuser = \"rollcall\"\npassword = \"in plain text\" # of the role\ntable = \"public.employees\"\nmap = { email = \"emp_email\" }\n";

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SecretArgs,
    }

    struct Room {
        folder: tempfile::TempDir,
        environment: BTreeMap<String, String>,
    }

    impl Room {
        fn new() -> Room {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("rollcall.toml"), FILE).unwrap();
            let key = Key::generate().unwrap().encode().to_string();
            Room {
                folder,
                environment: BTreeMap::from([("ROLLCALL_KEY".to_owned(), key)]),
            }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("rollcall.toml")
        }

        fn run(&self, words: &[&str], json: bool) -> Result<String, SecretError> {
            let words = ["secret"].iter().chain(words);
            let line = Line::try_parse_from(words).expect("the line is right");
            let mut out = Vec::new();
            let file = self.file();
            match &line.args.command {
                SecretCommand::Seal(args) => {
                    let secret = |_: &str| Ok(SecretString::from("marker"));
                    seal(args, &file, &self.environment, json, &mut out, secret)?;
                }
                _ => run(&line.args, &file, &self.environment, json, &mut out)?,
            }
            Ok(String::from_utf8(out).unwrap())
        }

        fn password(&self) -> String {
            let text = std::fs::read_to_string(self.file()).unwrap();
            let config = Config::parse(&self.file(), &text, &self.environment).unwrap();
            let source = config.source("hr").unwrap();
            let password = source.server.password.as_ref().unwrap();
            password.expose_secret().to_owned()
        }
    }

    #[test]
    fn a_token_that_would_not_load_is_not_sealed() {
        let room = Room::new();
        let token = "[token.siem]\nsecret = \"in plain text, long enough\"\nper_minute = 60\n";
        std::fs::write(room.file(), format!("{FILE}{token}")).unwrap();
        let refused = room.run(&["seal", "--token", "siem", "--field", "secret"], false);
        let refused = refused.expect_err("it is too short").to_string();
        assert!(refused.contains("fewer than 20 characters"), "{refused}");
        assert!(!refused.contains("marker"), "{refused}");
    }

    #[test]
    fn a_plain_password_is_sealed_in_its_place_and_then_loads() {
        let room = Room::new();
        let out = room
            .run(
                &["seal", "--source", "hr", "--field", "password", "--write"],
                false,
            )
            .unwrap();
        assert!(
            out.starts_with("source.hr.password is sealed with key "),
            "{out}"
        );
        let text = std::fs::read_to_string(room.file()).unwrap();
        assert!(text.contains("\" } # of the role\n"), "{text}");
        assert!(!text.contains("marker") && !text.contains("in plain text"));
        assert_eq!(room.password(), "marker");
    }

    #[test]
    fn what_is_printed_can_be_put_into_the_file() {
        let room = Room::new();
        let out = room.run(&["seal", "--source", "hr", "--field", "password"], false);
        let text = FILE.replace("\"in plain text\"", out.unwrap().trim());
        std::fs::write(room.file(), text).unwrap();
        assert_eq!(room.password(), "marker");
        let json = room.run(&["seal", "--source", "hr", "--field", "password"], true);
        let json: Value = serde_json::from_str(&json.unwrap()).unwrap();
        assert!(json["sealed"].as_str().unwrap().starts_with("rc1."));
        assert_eq!(json["written"], false);
    }

    #[test]
    fn a_key_is_made_named_and_rotated_to() {
        let mut room = Room::new();
        room.run(
            &["seal", "--source", "hr", "--field", "password", "--write"],
            false,
        )
        .unwrap();
        let path = room.folder.path().join("new.key");
        let shown = path.to_str().unwrap().to_owned();
        let out = room.run(&["generate-key", "--out", &shown], true).unwrap();
        let made: Value = serde_json::from_str(&out).unwrap();
        // The new key takes the first place, the old one only opens.
        let old = room.environment.remove("ROLLCALL_KEY").unwrap();
        room.environment
            .insert("ROLLCALL_PREVIOUS_KEYS".to_owned(), old);
        let mut text = std::fs::read_to_string(room.file()).unwrap();
        text.push_str(&format!("[vault]\nkey_file = {shown:?}\n"));
        std::fs::write(room.file(), text).unwrap();
        assert_eq!(room.password(), "marker", "before the rotation");
        let out = room.run(&["rotate"], true).unwrap();
        let rotation: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(rotation["resealed"], 1);
        assert_eq!(rotation["key_id"], made["key_id"]);
        room.environment.clear();
        assert_eq!(room.password(), "marker", "after the old key is gone");
    }

    #[test]
    fn a_printed_key_is_one() {
        let text = Room::new().run(&["generate-key"], false).unwrap();
        assert!(Key::parse(&text).is_ok());
    }

    #[test]
    fn names_and_fields_that_lead_nowhere_are_refused_before_anything_is_asked() {
        let room = Room::new();
        let error = |words: &[&str]| room.run(words, false).unwrap_err().to_string();
        assert_eq!(
            error(&["seal", "--source", "crm", "--field", "password"]),
            format!(
                "found the source \"crm\", which is not in {}, expected one of its sources: hr; fix: name one of them, or add [source.crm] first",
                room.file().display()
            )
        );
        assert_eq!(
            error(&["seal", "--source", "hr", "--field", "user"]),
            "found the field \"user\", which holds no credential, expected one of password; fix: name one of them"
        );
        let mut room = Room::new();
        room.environment.clear();
        let error = room.run(&["seal", "--source", "hr", "--field", "password"], false);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("there is no key to seal")
        );
    }

    /// Both ends of a new terminal: what a person types into, and what a program reads.
    fn terminal() -> (std::fs::File, std::fs::File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let program = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        (std::fs::File::from(person), program)
    }

    #[test]
    fn a_credential_typed_at_the_prompt_is_not_shown_and_the_echo_comes_back() {
        let (mut person, mut program) = terminal();
        let echo = |program: &std::fs::File| {
            let modes = tcgetattr(program).unwrap().local_modes;
            (
                modes.contains(LocalModes::ECHO),
                modes.contains(LocalModes::ISIG),
            )
        };
        assert_eq!(echo(&program), (true, true));

        let hidden = HiddenInput::begin(program.as_fd()).unwrap();
        person.write_all(b"marker\n").unwrap();
        let bytes = read_bytes(program.as_fd(), true).unwrap();
        assert_eq!(secret_from(&bytes).unwrap().expose_secret(), "marker");
        drop(hidden);
        assert_eq!(echo(&program), (true, true));

        program.write_all(b"done").unwrap();
        let mut shown = [0; 64];
        let length = io::Read::read(&mut person, &mut shown).unwrap();
        assert_eq!(&shown[..length], b"done", "the terminal showed more");
    }

    #[test]
    fn control_c_at_the_prompt_cancels_at_once() {
        let (mut person, program) = terminal();
        let hidden = HiddenInput::begin(program.as_fd()).unwrap();
        person.write_all(b"mark\x03").unwrap();
        let bytes = read_bytes(program.as_fd(), true).unwrap();
        drop(hidden);
        assert!(matches!(typed(&bytes), Err(SecretError::Cancelled)));
    }

    #[test]
    fn a_credential_from_a_pipe_loses_one_line_end() {
        for (text, expected) in [
            ("a b", "a b"),
            ("x\n", "x"),
            ("x\r\n", "x"),
            ("x\n\n", "x\n"),
        ] {
            let (input, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            drop(writer);
            let bytes = read_bytes(input.as_fd(), false).unwrap();
            assert_eq!(secret_from(&bytes).unwrap().expose_secret(), expected);
        }
        assert!(matches!(secret_from(&[0xff]), Err(SecretError::NoText)));
    }
}
