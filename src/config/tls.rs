//! The files of a TLS connection, the same for sources and sinks.

use std::path::PathBuf;

use super::reader::{Item, Section, child};
use super::secret::Context;
use super::values;

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// A file with the authorities to trust (PEM); the system's when none.
    pub ca: Option<PathBuf>,
    /// Whether the certificate has to carry the host's name.
    pub host_name: bool,
}

/// Whom to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A file with the certificate and its chain (PEM).
    pub cert: PathBuf,
    /// A file with its key (PEM).
    pub key: PathBuf,
}

/// Reads `ca`, `cert` and `key`; the latter two come together or not at all.
pub(super) fn files(
    section: &Section<'_>,
    context: &Context<'_>,
) -> Option<(Option<PathBuf>, Option<ClientCertificate>)> {
    let file = |item: &Item<'_>| existing(item, context);
    let ca = section.optional("ca", file);
    let cert = section.optional("cert", file);
    let key = section.optional("key", file);
    let client = match (cert?, key?) {
        (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            section.missing("key");
            return None;
        }
        (None, Some(_)) => {
            section.missing("cert");
            return None;
        }
    };
    Some((ca?, client))
}

/// Which of these keys stands in the file.
pub(super) fn first_present(section: &Section<'_>, keys: &[&'static str]) -> Option<&'static str> {
    keys.iter().copied().find(|key| section.item(key).is_some())
}

/// Says that a key has no effect in a mode.
pub(super) fn idle(section: &Section<'_>, key: &'static str, mode: &str) {
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
