//! How a connection is protected, the same for sources and sinks.

use std::path::PathBuf;

use secrecy::SecretString;

use super::reader::{Item, Section, child};
use super::secret::{Context, secret};
use super::values;
use crate::vault::Owner;

/// How a connection is protected.
#[derive(Clone, Debug)]
pub enum TlsConfig {
    /// Not at all.
    Disable,
    /// By TLS.
    Enable {
        /// Whom to believe; none believes any certificate.
        verify: Option<Verification>,
        /// Whom to show.
        client: Option<ClientCertificate>,
    },
}

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// A file with the authorities to trust (PEM); the system's when none.
    pub ca: Option<PathBuf>,
    /// Whether the certificate has to carry the host's name.
    pub host_name: bool,
}

/// Whom to show.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// A file with the certificate and its chain (PEM).
    pub cert: PathBuf,
    /// A file with its key (PEM).
    pub key: PathBuf,
    /// The password of an encrypted key; only for sinks.
    pub key_password: Option<SecretString>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: &[(&str, Mode)] = &[
    ("disable", Mode::Disable),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

/// Reads the table `tls`. Without a mode everything is verified, unless the other end is
/// on this machine and nothing else is said. Keys without effect are errors: whoever wrote
/// one expects a protection that would not be there.
pub(super) fn tls(
    section: Section<'_>,
    context: &Context<'_>,
    owner: Owner<'_>,
    is_local: bool,
) -> Option<TlsConfig> {
    let mode = section.optional("mode", values::choice(MODES));
    let file = |item: &Item<'_>| existing(item, context);
    let ca = section.optional("ca", file);
    let cert = section.optional("cert", file);
    let key = section.optional("key", file);
    let (key_password, keys): (_, &[&'static str]) = match owner {
        Owner::Source(_) | Owner::Token(_) => (Some(None), &["ca", "cert", "key"]),
        Owner::Sink(_) => (
            section.optional("key_password", |item| {
                secret(item, context, owner, "tls.key_password")
            }),
            &["ca", "cert", "key", "key_password"],
        ),
    };
    section.finish();
    let present =
        |keys: &[&'static str]| keys.iter().copied().find(|key| section.item(key).is_some());
    let mode = match mode? {
        Some(mode) => mode,
        None if is_local && present(keys).is_none() => Mode::Disable,
        None => Mode::VerifyFull,
    };
    let without_effect = match mode {
        Mode::Disable => present(keys).map(|key| (key, "disable")),
        Mode::Require => present(&["ca"]).map(|key| (key, "require")),
        Mode::VerifyCa | Mode::VerifyFull => None,
    };
    if let Some((key, mode)) = without_effect {
        reject_idle(&section, key, mode);
        return None;
    }
    let client = match (cert?, key?, key_password?) {
        (Some(cert), Some(key), key_password) => Some(ClientCertificate {
            cert,
            key,
            key_password,
        }),
        (None, None, None) => None,
        (_, None, _) => {
            section.missing("key");
            return None;
        }
        (None, Some(_), _) => {
            section.missing("cert");
            return None;
        }
    };
    let ca = ca?;
    let host_name = mode == Mode::VerifyFull;
    Some(match mode {
        Mode::Disable => TlsConfig::Disable,
        Mode::Require => TlsConfig::Enable {
            verify: None,
            client,
        },
        Mode::VerifyCa | Mode::VerifyFull => TlsConfig::Enable {
            verify: Some(Verification { ca, host_name }),
            client,
        },
    })
}

fn reject_idle(section: &Section<'_>, key: &'static str, mode: &str) {
    let place = section
        .item(key)
        .map_or(section.place(), |item| item.place());
    section.document().reject(
        place,
        child(section.path(), key),
        format!("{key} with mode = \"{mode}\", where it has no effect"),
        "a mode that uses it",
        format!("write mode = \"verify-full\", or remove {key}"),
    );
}

/// A file that is there.
fn existing(item: &Item<'_>, context: &Context<'_>) -> Option<PathBuf> {
    let path = values::path(item)?;
    if !context.looks_at_files() {
        return Some(path);
    }
    match std::fs::File::open(&path) {
        Ok(_) => Some(path),
        Err(error) => item.reject(
            format!("{}, which cannot be read: {error}", path.display()),
            "a file that the daemon can read",
            "put the file there, or write another path",
        ),
    }
}
