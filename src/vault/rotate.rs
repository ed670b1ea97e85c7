//! Sealed values in the file: finding them, putting one in, sealing all of them again.
//!
//! The file is edited as the operator wrote it: comments, order and spacing stay. It is
//! replaced by a whole new one (written beside it, synced, renamed, the folder synced), so
//! a crash leaves the old file or the new one, never a part. Rotation opens every value
//! before it writes anything: when one does not open, nothing changes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{Binding, Owner, Vault, VaultError};

/// What a rotation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rotation {
    /// Values that were sealed again.
    pub resealed: usize,
    /// Values that had the current key already.
    pub current: usize,
}

/// A sealed value of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// `source`, `sink` or `token`.
    pub kind: &'static str,
    /// The name of the source, sink or token.
    pub name: String,
    /// The key below its table.
    pub field: String,
    /// The envelope.
    pub envelope: String,
}

impl Sealed {
    fn owner(&self) -> Owner<'_> {
        match self.kind {
            "source" => Owner::Source(&self.name),
            "token" => Owner::Token(&self.name),
            _ => Owner::Sink(&self.name),
        }
    }
}

/// Every sealed value of a file's text.
pub fn find_sealed(document: &DocumentMut) -> Vec<Sealed> {
    let mut found = Vec::new();
    for kind in ["source", "sink", "token"] {
        let owners = document.get(kind).and_then(Item::as_table_like);
        for (name, item) in owners.into_iter().flat_map(TableLike::iter) {
            if let Some(table) = item.as_table_like() {
                gather(table, kind, name, "", &mut found);
            }
        }
    }
    found
}

fn gather(
    table: &dyn TableLike,
    kind: &'static str,
    name: &str,
    above: &str,
    found: &mut Vec<Sealed>,
) {
    for (key, item) in table.iter() {
        if key == "sealed" && !above.is_empty() {
            if let Some(envelope) = item.as_str() {
                found.push(Sealed {
                    kind,
                    name: name.to_owned(),
                    field: above.to_owned(),
                    envelope: envelope.to_owned(),
                });
            }
        } else if let Some(inner) = item.as_table_like() {
            let field = match above {
                "" => key.to_owned(),
                above => format!("{above}.{key}"),
            };
            gather(inner, kind, name, &field, found);
        }
    }
}

/// Seals every value of the file again with the current key.
///
/// # Errors
/// One for each value that does not open, with its place; the file is unchanged then.
pub fn rotate(
    path: &Path,
    organization: &str,
    vault: &Vault,
) -> Result<Rotation, Vec<(String, VaultError)>> {
    let at_file = |error| vec![(path.display().to_string(), error)];
    let mut document = read_document(path).map_err(at_file)?;
    let mut rotation = Rotation::default();
    let mut errors = Vec::new();
    for sealed in find_sealed(&document) {
        let binding = Binding {
            organization,
            owner: sealed.owner(),
            field: &sealed.field,
        };
        let place = format!("{}.{}.{}", sealed.kind, sealed.name, sealed.field);
        let again = vault.open(&binding, &sealed.envelope).and_then(|secret| {
            match vault.is_current(&sealed.envelope) {
                true => Ok(None),
                false => vault.seal(&binding, &secret).map(Some),
            }
        });
        match again {
            Ok(None) => rotation.current += 1,
            Ok(Some(envelope)) => match replace(&mut document, &sealed, &envelope) {
                Some(()) => rotation.resealed += 1,
                None => errors.push((place, VaultError::EnvelopeMalformed)),
            },
            Err(error) => errors.push((place, error)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if rotation.resealed > 0 {
        write_whole(path, &document.to_string()).map_err(at_file)?;
    }
    Ok(rotation)
}

/// Puts one sealed value into the file, in place of whatever the field holds.
///
/// # Errors
/// When the source or sink is not in the file, or the file cannot be read or replaced.
pub fn write_sealed(path: &Path, binding: &Binding<'_>, envelope: &str) -> Result<(), VaultError> {
    let mut document = read_document(path)?;
    let (kind, name) = (binding.owner.kind(), binding.owner.name());
    let missing = || VaultError::Edit(format!("{} has no [{kind}.{name}]", path.display()));
    let mut table = document
        .get_mut(kind)
        .and_then(|owners| owners.get_mut(name))
        .and_then(Item::as_table_like_mut)
        .ok_or_else(missing)?;
    let mut rest = binding.field;
    // A property's name has dots of its own.
    while let Some((key, below)) = rest.split_once('.') {
        if table.get(rest).is_some() {
            break;
        }
        let inner = table.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(false);
            Item::Table(table)
        });
        table = inner
            .as_table_like_mut()
            .ok_or_else(|| VaultError::Edit(format!("{kind}.{name}.{key} is no table")))?;
        rest = below;
        if key == "properties" {
            break;
        }
    }
    let mut reference = InlineTable::new();
    reference.insert("sealed", envelope.into());
    let mut value = Value::InlineTable(reference);
    if let Some(old) = table.get(rest).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    match table.get_mut(rest) {
        Some(item) => *item = Item::Value(value),
        None => drop(table.insert(rest, Item::Value(value))),
    }
    write_whole(path, &document.to_string())
}

fn replace(document: &mut DocumentMut, sealed: &Sealed, envelope: &str) -> Option<()> {
    let owner = document
        .get_mut(sealed.kind)?
        .get_mut(&sealed.name)?
        .as_table_like_mut()?;
    let value = reference_mut(owner, &sealed.field)?;
    let mut new = Value::from(envelope);
    *new.decor_mut() = value.decor().clone();
    *value = new;
    Some(())
}

/// The text of a reference; keys may have dots of their own.
fn reference_mut<'t>(table: &'t mut dyn TableLike, field: &str) -> Option<&'t mut Value> {
    let keys: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    let key = keys.into_iter().find(|key| {
        field == key
            || field
                .strip_prefix(key.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
    })?;
    let inner = table.get_mut(&key)?.as_table_like_mut()?;
    match field.strip_prefix(&key)?.strip_prefix('.') {
        Some(rest) => reference_mut(inner, rest),
        None => inner.get_mut("sealed")?.as_value_mut(),
    }
}

fn read_document(path: &Path) -> Result<DocumentMut, VaultError> {
    let text = fs::read_to_string(path).map_err(|error| VaultError::File {
        path: path.display().to_string(),
        error,
    })?;
    // The error's display repeats the line, which may hold a credential.
    text.parse::<DocumentMut>().map_err(|error| {
        let words = error.message().lines().collect::<Vec<_>>().join(", ");
        VaultError::Edit(format!("{} is no TOML: {words}", path.display()))
    })
}

/// Replaces a file as a whole, keeping its mode.
fn write_whole(path: &Path, text: &str) -> Result<(), VaultError> {
    let failed = |error| VaultError::File {
        path: path.display().to_string(),
        error,
    };
    // A link stays a link: what it leads to is replaced.
    let path = fs::canonicalize(path).map_err(failed)?;
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    };
    let mut temporary_name = name.to_owned();
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(temporary_name);
    let result = write_beside(&temporary, text, mode).and_then(|()| fs::rename(&temporary, &path));
    if let Err(error) = result {
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn write_beside(path: &PathBuf, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}
