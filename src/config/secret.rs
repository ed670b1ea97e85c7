//! Credentials: references in the file, values in memory.
//!
//! A credential is never a text in the file. A plain one is refused together with the
//! command that seals it, and not repeated: nothing here puts a value into an error. What
//! a reference names is read once, when the configuration is loaded, into a
//! [`SecretString`], which is wiped when dropped and hidden from `Debug`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::error::Place;
use super::reader::Item;
use crate::vault::{
    Binding, KEY_CREDENTIAL, KEY_VARIABLE, Key, Owner, PREVIOUS_KEY_CREDENTIAL,
    PREVIOUS_KEYS_VARIABLE, SECRET_MAX_BYTES, Vault, VaultError, seal_command,
};

/// Where variables come from.
pub trait Environment {
    /// The value of a variable; none when it is not set or no Unicode.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Environment for BTreeMap<String, String> {
    fn variable(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// Where keys are looked for besides the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaultConfig {
    /// The file with the current key.
    pub key_file: Option<PathBuf>,
    /// Files with keys that still open.
    pub previous_key_files: Vec<PathBuf>,
}

impl VaultConfig {
    /// Gathers every key at hand: the first of `ROLLCALL_KEY`, `key_file` and the systemd
    /// credential is the current one, all others only open. None when there is no key.
    ///
    /// # Errors
    /// One for each key that is named and cannot be used, with the name.
    pub fn open(
        &self,
        environment: &dyn Environment,
    ) -> Result<Option<Vault>, Vec<(String, VaultError)>> {
        let mut keys = Vec::new();
        let mut errors = Vec::new();
        let mut take = |name: &str, key: Result<Key, VaultError>| match key {
            Ok(key) => keys.push(key),
            Err(error) => errors.push((name.to_owned(), error)),
        };
        if let Some(text) = environment.variable(KEY_VARIABLE) {
            take(KEY_VARIABLE, Key::parse(&Zeroizing::new(text)));
        }
        if let Some(path) = &self.key_file {
            take("vault.key_file", Key::read_file(path));
        }
        let credentials = environment.variable("CREDENTIALS_DIRECTORY");
        for name in [KEY_CREDENTIAL, PREVIOUS_KEY_CREDENTIAL] {
            let path = credentials
                .as_ref()
                .map(|folder| Path::new(folder).join(name));
            if let Some(path) = path.filter(|path| path.exists()) {
                take(name, Key::read_credential(&path));
            }
        }
        for path in &self.previous_key_files {
            take("vault.previous_key_files", Key::read_file(path));
        }
        if let Some(list) = environment.variable(PREVIOUS_KEYS_VARIABLE) {
            let list = Zeroizing::new(list);
            for text in list.split(',') {
                take(PREVIOUS_KEYS_VARIABLE, Key::parse(text));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut keys = keys.into_iter();
        Ok(keys
            .next()
            .map(|current| Vault::new(current, keys.collect())))
    }
}

/// How the credentials of a file are read.
pub(super) enum Resolver<'a> {
    /// Reads what references name.
    Resolve {
        vault: Option<Vault>,
        environment: &'a dyn Environment,
    },
    /// Looks at the form of references only and leaves every value empty.
    Skip,
}

/// What the parts of the file need to know of its top.
pub(super) struct Context<'a> {
    /// None when it was wrong, which is an error already.
    pub(super) organization: Option<String>,
    pub(super) resolver: Resolver<'a>,
    /// The custom attributes that are declared.
    pub(super) attributes: Vec<String>,
}

impl Context<'_> {
    /// Whether files that are named have to be there.
    pub(super) fn looks_at_files(&self) -> bool {
        matches!(self.resolver, Resolver::Resolve { .. })
    }
}

/// Reads a reference and what it names.
pub(super) fn secret(
    item: &Item<'_>,
    context: &Context<'_>,
    owner: Owner<'_>,
    field: &str,
) -> Option<SecretString> {
    let command = seal_command(owner, field);
    let expected = "a reference: { sealed = \"…\" }, { env = \"…\" } or { file = \"…\" }";
    let table = match item.value() {
        DeValue::Table(table) => table,
        DeValue::String(_) => {
            return item.reject(
                "a credential in plain text (not shown)",
                expected,
                format!("seal it with `{command}`, and change it where it is in use if others could read this file"),
            );
        }
        _ => return item.wrong(),
    };
    let mut entries = table.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return item.reject(
            format!("a table with {} keys", table.len()),
            expected,
            "leave exactly one of sealed, env and file",
        );
    };
    let DeValue::String(text) = value.get_ref() else {
        return item.reject(
            format!("a {} in it", value.get_ref().type_str()),
            expected,
            "write a text",
        );
    };
    let place = item.document().place(value.span());
    match name.get_ref().as_ref() {
        "sealed" => open_sealed(item, place, context, owner, field, text),
        "env" => from_variable(item, place, context, text),
        "file" => from_file(item, place, context, text),
        other => item.reject(
            format!("a table with the key {other:?}"),
            expected,
            format!("write one of sealed, env and file, or seal the credential with `{command}`"),
        ),
    }
}

fn open_sealed(
    item: &Item<'_>,
    place: Place,
    context: &Context<'_>,
    owner: Owner<'_>,
    field: &str,
    envelope: &str,
) -> Option<SecretString> {
    let vault = match &context.resolver {
        Resolver::Resolve { vault, .. } => vault,
        Resolver::Skip => return Some(SecretString::default()),
    };
    let organization = context.organization.as_deref()?;
    let binding = Binding {
        organization,
        owner,
        field,
    };
    let opened = match vault {
        Some(vault) => vault.open(&binding, envelope),
        None => Err(VaultError::NoKey),
    };
    opened
        .map_err(|error| {
            let (reason, fix) = split_fix(&error.to_string(), &binding.seal_command());
            item.document().reject(
                place,
                item.path(),
                format!("a sealed value that does not open: {reason}"),
                "a value that was sealed for this place with a key at hand",
                fix,
            );
        })
        .ok()
}

/// A vault's sentence may carry its own fix.
pub(super) fn split_fix(sentence: &str, command: &str) -> (String, String) {
    match sentence.split_once("; fix: ") {
        Some((reason, fix)) => (reason.to_owned(), fix.to_owned()),
        None => (sentence.to_owned(), format!("seal it with `{command}`")),
    }
}

fn from_variable(
    item: &Item<'_>,
    place: Place,
    context: &Context<'_>,
    name: &str,
) -> Option<SecretString> {
    let named_like_one = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !named_like_one {
        // It may be the credential itself, put in the wrong place.
        item.document().reject(
            place,
            item.path(),
            "a text that is no variable's name (not shown)",
            "the name of an environment variable in capitals, digits and _",
            "name the variable, not what it holds",
        );
        return None;
    }
    let Resolver::Resolve { environment, .. } = &context.resolver else {
        return Some(SecretString::default());
    };
    match environment.variable(name) {
        Some(value) if !value.is_empty() => Some(SecretString::from(value)),
        other => {
            let state = if other.is_some() {
                "is empty"
            } else {
                "is not set"
            };
            item.document().reject(
                place,
                item.path(),
                format!("the variable {name:?}, which {state}"),
                "a variable that holds the credential",
                "set it in the environment of the daemon",
            );
            None
        }
    }
}

fn from_file(
    item: &Item<'_>,
    place: Place,
    context: &Context<'_>,
    name: &str,
) -> Option<SecretString> {
    if !context.looks_at_files() {
        return Some(SecretString::default());
    }
    let folder = item.document().file().parent().unwrap_or(Path::new(""));
    let path = folder.join(name);
    let reason = match read_limited(&path) {
        Ok(text) => {
            let value = text.strip_suffix('\n').unwrap_or(&text);
            let value = value.strip_suffix('\r').unwrap_or(value);
            if !value.is_empty() {
                return Some(SecretString::from(value.to_owned()));
            }
            "is empty".to_owned()
        }
        Err(error) => format!("cannot be read: {error}"),
    };
    item.document().reject(
        place,
        item.path(),
        format!("the file {}, which {reason}", path.display()),
        "a file that holds the credential",
        "write the credential to that file, readable for the daemon alone",
    );
    None
}

fn read_limited(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_MAX_BYTES + 2));
    std::fs::File::open(path)?
        .take(SECRET_MAX_BYTES as u64 + 2)
        .read_to_string(&mut text)?;
    Ok(text)
}
