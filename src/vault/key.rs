//! Keys: where they come from and what they are called.
//!
//! A key exists only as 32 bytes that are wiped when they are dropped; its text form is
//! made for writing a key file and wiped as well. A key file that anybody but its owner
//! can read is refused, because such a key protects nothing.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use super::VaultError;

const KEY_BYTES: usize = 32;
/// A key file holds 44 characters and perhaps a line end; more is not a key.
const KEY_FILE_MAX_BYTES: u64 = 256;
/// See the argument about the key id at the top of the vault.
const CHECK_BLOCK: [u8; 16] = *b"rollcall key id1";

/// Which key: eight hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// Reads eight lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<KeyId> {
        let lower = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() != 8 || !lower {
            return None;
        }
        u32::from_str_radix(text, 16)
            .ok()
            .map(|number| KeyId(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key of 256 bits. Its `Debug` shows the id alone.
pub struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: KeyId,
}

impl Key {
    /// A new random key.
    pub fn generate() -> Result<Key, VaultError> {
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        fill_random(&mut *bytes)?;
        Key::from_bytes(bytes)
    }

    /// Reads a key from its base64 text; white space around it does not matter.
    pub fn parse(text: &str) -> Result<Key, VaultError> {
        let mut decoded = Zeroizing::new(Vec::new());
        STANDARD
            .decode_vec(text.trim(), &mut decoded)
            .map_err(|_| VaultError::KeyMalformed)?;
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        if decoded.len() != KEY_BYTES {
            return Err(VaultError::KeyMalformed);
        }
        bytes.copy_from_slice(&decoded);
        Key::from_bytes(bytes)
    }

    /// Reads a key file that nobody but its owner can read.
    pub fn read_file(path: &Path) -> Result<Key, VaultError> {
        let failed = |error| VaultError::File {
            path: path.display().to_string(),
            error,
        };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(VaultError::KeyFileOpen {
                path: path.display().to_string(),
                mode,
            });
        }
        Key::read(&mut file, path)
    }

    /// Reads a key that systemd keeps; its own permissions protect it.
    pub fn read_credential(path: &Path) -> Result<Key, VaultError> {
        let mut file = File::open(path).map_err(|error| VaultError::File {
            path: path.display().to_string(),
            error,
        })?;
        Key::read(&mut file, path)
    }

    fn read(file: &mut File, path: &Path) -> Result<Key, VaultError> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX_BYTES as usize));
        file.take(KEY_FILE_MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| VaultError::File {
                path: path.display().to_string(),
                error,
            })?;
        Key::parse(&text)
    }

    /// Writes the key to a new file of mode 0600; an existing file is never overwritten.
    pub fn write_new_file(&self, path: &Path) -> Result<(), VaultError> {
        let failed = |error| VaultError::File {
            path: path.display().to_string(),
            error,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut text = self.encode();
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// The key as text.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(48));
        STANDARD.encode_string(&self.bytes[..], &mut text);
        text
    }

    /// Which key this is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..]
    }

    fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Key, VaultError> {
        let cipher = Aes256::new_from_slice(&bytes[..]).map_err(|_| VaultError::KeyMalformed)?;
        let mut block = CHECK_BLOCK.into();
        cipher.encrypt_block(&mut block);
        let [a, b, c, d, ..] = <[u8; 16]>::from(block);
        block.as_mut_slice().zeroize();
        Ok(Key {
            bytes,
            id: KeyId([a, b, c, d]),
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), VaultError> {
    getrandom::fill(bytes).map_err(|error| VaultError::Random(error.to_string()))
}
