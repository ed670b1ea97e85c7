//! How the account is proved, by plugin.
//!
//! The server names a plugin and a challenge (and may change its mind once). Three plugins
//! answer with a proof from which the password does not follow; the fourth step that some
//! of them need, the password itself, is given only where nobody in between can read it:
//! under TLS, on a Unix socket, or encrypted with the server's RSA key.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, VerifyingKey};
use rollcall_contract::ConnectorError;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::errors::protocol_violation;

/// The plugins that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    /// MySQL 8 and above.
    CachingSha2,
    /// Older accounts, and MariaDB's default.
    Native,
    /// MariaDB.
    Ed25519,
    /// The password as it is: PAM, LDAP, tokens of managed services.
    Clear,
}

impl Plugin {
    /// By the server's name for it.
    pub(crate) fn named(name: &[u8]) -> Option<Plugin> {
        Some(match name {
            b"caching_sha2_password" => Plugin::CachingSha2,
            b"mysql_native_password" => Plugin::Native,
            b"client_ed25519" => Plugin::Ed25519,
            b"mysql_clear_password" => Plugin::Clear,
            _ => return None,
        })
    }

    /// The server's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Plugin::CachingSha2 => "caching_sha2_password",
            Plugin::Native => "mysql_native_password",
            Plugin::Ed25519 => "client_ed25519",
            Plugin::Clear => "mysql_clear_password",
        }
    }

    /// The first answer to a challenge.
    ///
    /// # Errors
    /// Definite, when the password would travel readable.
    pub(crate) fn answer(
        self,
        password: &[u8],
        challenge: &[u8],
        is_private: bool,
    ) -> Result<Zeroizing<Vec<u8>>, ConnectorError> {
        let answer = match self {
            Plugin::CachingSha2 | Plugin::Native if password.is_empty() => Vec::new(),
            Plugin::CachingSha2 => caching_sha2(password, challenge),
            Plugin::Native => native(password, challenge),
            Plugin::Ed25519 => ed25519(password, challenge),
            Plugin::Clear if is_private => return Ok(clear(password)),
            Plugin::Clear => {
                return Err(ConnectorError::definite(
                    "password_in_clear",
                    "The server asks for the password in clear, and the connection is not \
                     encrypted.",
                    "Set `tls` for this source to verify-full (or require), or give the account \
                     another authentication plugin.",
                ));
            }
        };
        Ok(Zeroizing::new(answer))
    }
}

/// The password with the zero byte behind it.
pub(crate) fn clear(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    out.extend_from_slice(password);
    out.push(0);
    out
}

/// The password, masked by the challenge, for the holder of the server's RSA key only.
pub(crate) fn rsa(
    password: &[u8],
    challenge: &[u8],
    pem: &[u8],
) -> Result<Vec<u8>, ConnectorError> {
    let unusable = || protocol_violation("an RSA key that cannot be used");
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| unusable())?;
    let key = PublicEncryptingKey::from_der(der.as_ref())
        .and_then(|key| Ok(OaepPublicEncryptingKey::new(key)?))
        .map_err(|_| unusable())?;
    if challenge.is_empty() {
        return Err(unusable());
    }
    let mut masked = clear(password);
    for (byte, mask) in masked.iter_mut().zip(challenge.iter().cycle()) {
        *byte ^= mask;
    }
    let mut out = vec![0; key.ciphertext_size()];
    let len = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut out, None)
        .map_err(|_| unusable())?
        .len();
    out.truncate(len);
    Ok(out)
}

/// `SHA1(password) XOR SHA1(challenge, SHA1(SHA1(password)))`.
fn native(password: &[u8], challenge: &[u8]) -> Vec<u8> {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
    let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(challenge);
    context.update(twice.as_ref());
    xor(once.as_ref(), context.finish().as_ref())
}

/// `SHA256(password) XOR SHA256(SHA256(SHA256(password)), challenge)`.
fn caching_sha2(password: &[u8], challenge: &[u8]) -> Vec<u8> {
    let once = digest(&SHA256, password);
    let twice = digest(&SHA256, once.as_ref());
    let mut context = Context::new(&SHA256);
    context.update(twice.as_ref());
    context.update(challenge);
    xor(once.as_ref(), context.finish().as_ref())
}

/// A signature of the challenge with the key that the password's hash is. The password may
/// be of any length, which is why it is the expanded key that is made.
fn ed25519(password: &[u8], challenge: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA512, password);
    let mut bytes = Zeroizing::new([0; 64]);
    bytes.copy_from_slice(hash.as_ref());
    let secret = ExpandedSecretKey::from_bytes(&bytes);
    let public = VerifyingKey::from(&secret);
    raw_sign::<Sha512>(&secret, challenge, &public)
        .to_bytes()
        .to_vec()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}
