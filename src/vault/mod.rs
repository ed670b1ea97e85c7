//! Sealed credentials.
//!
//! A credential lies in `rollcall.toml` as an envelope `rc1.<key id>.<nonce and
//! ciphertext>`: AES-256-GCM with a random 96-bit nonce. The associated data names the
//! envelope's version, the key, the organization, the source or sink and the field, each
//! part with its length before it, so that no two places share an encoding: an envelope
//! that is copied to another place, or changed in a single bit, does not open.
//!
//! A [`Vault`] holds one current key, which seals, and any number of previous ones, which
//! only open. A new key can therefore be put in place first, everything be sealed again
//! afterwards, and the old key be taken away last, with a readable file at every moment.
//!
//! The key id in an envelope only says which key to try. It is a key check value, the
//! first four bytes of one encrypted block. That block is a constant that GCM encrypts
//! only as part of a message under one single nonce out of 2^96, and it is not the zero
//! block (whose encryption is GCM's authentication key), so publishing it gives nothing
//! away that opening an envelope would need.

mod key;
mod rotate;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

pub use key::{Key, KeyId};
pub use rotate::{Rotation, Sealed, find_sealed, rotate, write_sealed};

/// The name of the environment variable with the current key.
pub const KEY_VARIABLE: &str = "ROLLCALL_KEY";
/// The name of the environment variable with previous keys, separated by commas.
pub const PREVIOUS_KEYS_VARIABLE: &str = "ROLLCALL_PREVIOUS_KEYS";
/// The name of the current key among systemd's credentials.
pub const KEY_CREDENTIAL: &str = "rollcall.key";
/// The name of the previous key among systemd's credentials.
pub const PREVIOUS_KEY_CREDENTIAL: &str = "rollcall.previous.key";

const VERSION: &str = "rc1";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// The longest credential that is sealed, in bytes.
pub const SECRET_MAX_BYTES: usize = 64 * 1024;

/// What has a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    /// A source, by its name.
    Source(&'a str),
    /// A sink, by its name.
    Sink(&'a str),
    /// A bearer token of the API, by its name.
    Token(&'a str),
}

impl<'a> Owner<'a> {
    /// `source`, `sink` or `token`: the table of the file and the option of the command.
    pub fn kind(self) -> &'static str {
        match self {
            Owner::Source(_) => "source",
            Owner::Sink(_) => "sink",
            Owner::Token(_) => "token",
        }
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        match self {
            Owner::Source(name) | Owner::Sink(name) | Owner::Token(name) => name,
        }
    }
}

/// The one place where an envelope opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding<'a> {
    /// The organization.
    pub organization: &'a str,
    /// The source or sink.
    pub owner: Owner<'a>,
    /// The key below its table, parts joined by dots, for example `sasl.password`.
    pub field: &'a str,
}

impl Binding<'_> {
    /// The command that seals a value for this place.
    pub fn seal_command(&self) -> String {
        seal_command(self.owner, self.field)
    }

    /// An injective encoding: every part has its length before it.
    fn associated_data(&self, key: KeyId) -> Vec<u8> {
        let key = key.to_string();
        let parts = [
            VERSION,
            &key,
            self.organization,
            self.owner.kind(),
            self.owner.name(),
            self.field,
        ];
        let mut bytes = Vec::with_capacity(128);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// The command that seals a value for a field.
pub fn seal_command(owner: Owner<'_>, field: &str) -> String {
    format!(
        "rollcall secret seal --{} {} --field {field}",
        owner.kind(),
        owner.name()
    )
}

/// Why a key or an envelope cannot be used. No message holds a part of either.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A key that is not 32 bytes of base64.
    #[error("a key is 32 bytes in base64 (44 characters), and this is something else")]
    KeyMalformed,
    /// A key file that others can read.
    #[error("{path} can be read by others than its owner (mode {mode:04o}); fix: chmod 600 {path}")]
    KeyFileOpen {
        /// The key file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// No key at hand.
    #[error(
        "there is no key to seal and open credentials with; fix: make one with `rollcall secret generate-key --out FILE` and name it as [vault] key_file, or give it in ROLLCALL_KEY"
    )]
    NoKey,
    /// The system gave no randomness.
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    /// Not an envelope.
    #[error(
        "this is not a sealed value: it reads rc1.<key id>.<data>, and this one is cut or changed"
    )]
    EnvelopeMalformed,
    /// An envelope of a key that is not there.
    #[error(
        "it was sealed with key {id}, and the keys at hand are {available}; fix: name that key in [vault] previous_key_files, or seal the value again"
    )]
    UnknownKey {
        /// The key that the envelope names.
        id: String,
        /// The ids of the keys that were tried.
        available: String,
    },
    /// The right key, another place or other bytes.
    #[error(
        "it was sealed for another organization, source, sink or field, or was changed since; fix: seal the value for this place with `{command}`"
    )]
    Refused {
        /// How to seal it again.
        command: String,
    },
    /// An empty or overlong value.
    #[error("a credential has between 1 and {SECRET_MAX_BYTES} bytes, and this one has {0}")]
    SecretLength(usize),
    /// The file cannot be edited.
    #[error("{0}")]
    Edit(String),
}

/// The keys that are at hand.
#[derive(Debug)]
pub struct Vault {
    current: Key,
    previous: Vec<Key>,
}

impl Vault {
    /// A vault that seals with one key and opens with that and the previous ones.
    pub fn new(current: Key, previous: Vec<Key>) -> Vault {
        Vault { current, previous }
    }

    /// The id of the key that seals.
    pub fn current(&self) -> KeyId {
        self.current.id()
    }

    /// Seals a value for one place. Two calls never give the same text.
    pub fn seal(&self, binding: &Binding<'_>, secret: &SecretString) -> Result<String, VaultError> {
        let plain = secret.expose_secret().as_bytes();
        if plain.is_empty() || plain.len() > SECRET_MAX_BYTES {
            return Err(VaultError::SecretLength(plain.len()));
        }
        let mut nonce = [0u8; NONCE_BYTES];
        key::fill_random(&mut nonce)?;
        // Room for the tag from the start: growing would leave a copy of the plain text.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        buffer.extend_from_slice(plain);
        let data = binding.associated_data(self.current.id());
        cipher(&self.current)?
            .encrypt_in_place(&Nonce::from(nonce), &data, &mut *buffer)
            .map_err(|_| VaultError::SecretLength(plain.len()))?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + buffer.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&buffer);
        let id = self.current.id();
        Ok(format!("{VERSION}.{id}.{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Opens an envelope at its place.
    pub fn open(&self, binding: &Binding<'_>, envelope: &str) -> Result<SecretString, VaultError> {
        let (id, nonce, ciphertext) = parse(envelope)?;
        let mut named = false;
        for key in self.keys().filter(|key| key.id() == id) {
            named = true;
            let mut buffer = Zeroizing::new(ciphertext.clone());
            let opened = cipher(key)?.decrypt_in_place(
                &Nonce::from(nonce),
                &binding.associated_data(id),
                &mut *buffer,
            );
            if opened.is_ok() {
                let text =
                    std::str::from_utf8(&buffer).map_err(|_| VaultError::EnvelopeMalformed)?;
                return Ok(SecretString::from(text.to_owned()));
            }
        }
        if named {
            return Err(VaultError::Refused {
                command: binding.seal_command(),
            });
        }
        let available: Vec<String> = self.keys().map(|key| key.id().to_string()).collect();
        Err(VaultError::UnknownKey {
            id: id.to_string(),
            available: available.join(", "),
        })
    }

    /// Whether an envelope was sealed with the current key.
    pub fn is_current(&self, envelope: &str) -> bool {
        parse(envelope).is_ok_and(|(id, _, _)| id == self.current.id())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

fn cipher(key: &Key) -> Result<Aes256Gcm, VaultError> {
    Aes256Gcm::new_from_slice(key.bytes()).map_err(|_| VaultError::KeyMalformed)
}

fn parse(envelope: &str) -> Result<(KeyId, [u8; NONCE_BYTES], Vec<u8>), VaultError> {
    let mut parts = envelope.split('.');
    let (Some(VERSION), Some(id), Some(data), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(VaultError::EnvelopeMalformed);
    };
    let id = KeyId::parse(id).ok_or(VaultError::EnvelopeMalformed)?;
    let data = URL_SAFE_NO_PAD
        .decode(data)
        .map_err(|_| VaultError::EnvelopeMalformed)?;
    match data.split_first_chunk::<NONCE_BYTES>() {
        Some((nonce, rest)) if rest.len() > TAG_BYTES => Ok((id, *nonce, rest.to_vec())),
        _ => Err(VaultError::EnvelopeMalformed),
    }
}

#[cfg(test)]
mod tests;
