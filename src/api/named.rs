//! Whom a name means that a person gives. A record that is known and leads to nobody is told from
//! one that nobody has heard of: who looks for somebody who is missing needs to know why.

use rollcall_contract::Key;
use rollcall_core::attribute::{EMAIL, USER_NAME};
use rollcall_core::document::{Document, Hold, Record};
use rollcall_core::id::{UserId, UserRow, ValueHash};
use rollcall_core::mapped::{key_columns, key_text};
use rollcall_core::mapping::fold;
use rollcall_core::reason::SkipReason;
use rollcall_store::{Readers, SourceRow, StoreError, UserRowView};
use serde::{Deserialize, Serialize};

use super::views::rfc3339;

/// Why a name leads to no user.
#[derive(Clone, Debug)]
pub enum NoUser {
    /// Nothing has this name.
    Nobody,
    /// A record has it, and leads to nobody.
    Record(RecordView),
    /// Several records may be meant: each as it is spelled to mean no other.
    Several(Vec<String>),
}

impl std::fmt::Display for NoUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoUser::Nobody => f.write_str("no such user"),
            NoUser::Several(readings) => write!(
                f,
                "several records can be read so. Fix: name one of them as {}",
                readings.join(" or ")
            ),
            NoUser::Record(record) => {
                write!(
                    f,
                    "the record {}:{} is known and leads to no user: {}",
                    record.source, record.record, record.state
                )?;
                if let Some(reason) = record.reason.as_ref().filter(|r| **r != record.state) {
                    write!(f, " ({reason})")?;
                }
                if !record.conflicts.is_empty() {
                    write!(f, ", conflict {}", record.conflicts.join(", "))?;
                }
                Ok(())
            }
        }
    }
}

/// A record that leads to no user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// The source.
    pub source: String,
    /// The key.
    pub record: String,
    /// Its columns, when they are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// `held`, `failed`, `out_of_scope`, or `gone`.
    pub state: String,
    /// Why; none when the record is gone.
    pub reason: Option<String>,
    /// The conflicts that name it.
    pub conflicts: Vec<String>,
    /// Position of its last change; none when the record is gone.
    pub position: Option<String>,
    /// Commit time of its last change, RFC 3339; none when the record is gone.
    pub committed: Option<String>,
}

fn record(readers: &Readers, source: &SourceRow, key: &Key) -> Result<RecordView, StoreError> {
    let mut view = RecordView {
        source: source.name.clone(),
        record: key_text(key.as_bytes()),
        key: key_columns(key.as_bytes()),
        state: "gone".to_owned(),
        reason: None,
        conflicts: Vec::new(),
        position: None,
        committed: None,
    };
    let Some(document) = readers.record(source.id, key.as_bytes())? else {
        return Ok(view);
    };
    let record = Record::decode(&document).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })?;
    let state = match record.reason {
        SkipReason::OutOfScope => "out_of_scope",
        reason if reason.is_error() => "failed",
        _ => "held",
    };
    state.clone_into(&mut view.state);
    view.reason = Some(record.reason.as_str().to_owned());
    let conflicts = Hold::decode(record.hold).conflicts.into_iter();
    view.conflicts = conflicts.map(|c| format!("{:016x}", c.0)).collect();
    view.position = Some(record.position.to_owned());
    view.committed = Some(rfc3339(record.commit_us));
    Ok(view)
}

/// The place and the id of a user by its id, userName, email, or `source:key`.
///
/// # Errors
/// When the store cannot be read.
pub fn place_of(
    readers: &Readers,
    name: &str,
) -> Result<Result<(UserRow, UserId), NoUser>, StoreError> {
    let row = match find(readers, name)? {
        Ok(row) => row,
        Err(none) => return Ok(Err(none)),
    };
    let document = Document::decode(&row.document).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })?;
    Ok(Ok((row.row, document.id)))
}

pub(super) fn find(
    readers: &Readers,
    name: &str,
) -> Result<Result<UserRowView, NoUser>, StoreError> {
    if let Ok(id) = uuid::Uuid::parse_str(name) {
        let user = readers.user_by_id(UserId(*id.as_bytes()))?;
        return Ok(user.ok_or(NoUser::Nobody));
    }
    for attribute in [USER_NAME, EMAIL] {
        let mut folded = Vec::new();
        fold(name.as_bytes(), &mut folded);
        for row in readers.users_by_value(ValueHash::of(&folded))? {
            let Ok(document) = Document::decode(&row.document) else {
                continue;
            };
            let mut own = Vec::new();
            fold(document.value(attribute).unwrap_or_default(), &mut own);
            if own == folded {
                return Ok(Ok(row));
            }
        }
    }
    let Some((source, parts)) = name.split_once(':') else {
        return Ok(Err(NoUser::Nobody));
    };
    let Some(source) = readers.source(source)? else {
        return Ok(Err(NoUser::Nobody));
    };
    let mut known = Vec::new();
    for key in keys_of(parts) {
        if let Some(user) = readers.user_by_record(source.id, key.as_bytes())? {
            known.push((key, user));
        }
    }
    Ok(match (known.pop(), known.is_empty()) {
        (None, _) => Err(NoUser::Nobody),
        (Some((_, Some(row))), true) => Ok(row),
        (Some((key, None)), true) => Err(NoUser::Record(record(readers, &source, &key)?)),
        (Some(last), false) => {
            known.push(last);
            let spelled = |key: &Key| format!("{}:{}", source.name, key.spelled());
            Err(NoUser::Several(
                known.iter().map(|(key, _)| spelled(key)).collect(),
            ))
        }
    })
}

/// At most so many commas of a record's name are tried as parts of a value.
const COMMAS_TRIED: usize = 8;

/// The keys that are shown as this text: a JSON array is its columns. Otherwise a comma stands
/// between two parts, or it belongs to a value: every way to read the first commas is tried.
pub(super) fn keys_of(text: &str) -> Vec<Key> {
    if let Some(columns) = columns_of(text) {
        let mut key = Key::new();
        for column in &columns {
            key.push(column.as_bytes());
        }
        return vec![key];
    }
    let pieces: Vec<&str> = text.split(',').collect();
    let tried = (pieces.len() - 1).min(COMMAS_TRIED);
    let read = |joined: u32| {
        let mut key = Key::new();
        let mut part = pieces[0].to_owned();
        for (i, piece) in pieces.iter().enumerate().skip(1) {
            if i <= tried && joined & (1 << (i - 1)) != 0 {
                part.push(',');
                part.push_str(piece);
            } else {
                key.push(part.as_bytes());
                part = (*piece).to_owned();
            }
        }
        key.push(part.as_bytes());
        key
    };
    (0..1 << tried).map(read).collect()
}

fn columns_of(text: &str) -> Option<Vec<String>> {
    let columns: Vec<String> = serde_json::from_str(text).ok()?;
    (!columns.is_empty()).then_some(columns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use rollcall_core::id::SourceId;
    use rollcall_core::state::KeyBytes;
    use rollcall_core::state::LinkTarget;
    use rollcall_store::{Commit, OpenOptions, Store, Writer};

    use super::*;

    const HR: SourceId = SourceId(1);

    fn key(columns: &[&str]) -> Key {
        let mut key = Key::new();
        for column in columns {
            key.push(column.as_bytes());
        }
        key
    }

    fn store(folder: &std::path::Path) -> (Writer, Readers) {
        let (mut writer, readers) = Store::open(folder, OpenOptions::new("acme")).unwrap();
        assert_eq!(writer.source("hr", 1).unwrap(), HR);
        (writer, readers)
    }

    /// A record that leads to nobody, because of a reason and a conflict.
    fn hold(writer: &mut Writer, columns: &[&str], reason: SkipReason) {
        let mut hold = Vec::new();
        let conflicts = [rollcall_core::conflict::Fingerprint(0x1f)];
        Hold {
            conflicts: conflicts.into_iter().collect(),
            ..Hold::default()
        }
        .encode(&mut hold);
        let mut document = Vec::new();
        Record {
            reason,
            former: None,
            tx: b"",
            position: "0/16B",
            commit_us: 0,
            hash: 0,
            hold: &hold,
            shadow: b"",
        }
        .encode(&mut document);
        let mut commit = Commit::default();
        let bytes = || (HR, KeyBytes::from_slice(key(columns).as_bytes()));
        commit.plan.links.insert(bytes(), Some(LinkTarget::Record));
        commit.plan.records.insert(bytes(), Some(document));
        writer.commit(&mut commit).unwrap();
    }

    #[test]
    fn a_record_that_leads_to_nobody_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, readers) = store(folder.path());
        hold(&mut writer, &["4711"], SkipReason::DuplicateInSource);
        hold(&mut writer, &["4712"], SkipReason::OutOfScope);
        hold(&mut writer, &["4713"], SkipReason::BadValue);
        let said = |name: &str| find(&readers, name).unwrap().unwrap_err();
        let NoUser::Record(record) = said("hr:4711") else {
            unreachable!("the record is known");
        };
        assert_eq!(record.state, "held");
        assert_eq!(record.reason.as_deref(), Some("duplicate_in_source"));
        assert_eq!(record.conflicts, ["000000000000001f"]);
        assert_eq!(
            said("hr:4711").to_string(),
            "the record hr:4711 is known and leads to no user: held (duplicate_in_source), conflict 000000000000001f"
        );
        let out = said("hr:4712").to_string();
        assert!(out.contains("no user: out_of_scope, conflict"), "{out}");
        let failed = said("hr:4713").to_string();
        assert!(failed.contains("failed (bad_value)"), "{failed}");
        assert_eq!(said("hr:9").to_string(), "no such user");
        assert_eq!(said("it:4711").to_string(), "no such user");
    }

    #[test]
    fn a_key_that_can_be_read_in_two_ways_is_refused_and_can_be_spelled() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, readers) = store(folder.path());
        hold(&mut writer, &["a,b", "c"], SkipReason::Uniqueness);
        let said = |name: &str| find(&readers, name).unwrap().unwrap_err();
        // The only one that there is.
        assert!(matches!(said("hr:a,b,c"), NoUser::Record(_)));
        hold(&mut writer, &["a", "b,c"], SkipReason::BadValue);
        let several = said("hr:a,b,c").to_string();
        for reading in [r#"hr:["a,b","c"]"#, r#"hr:["a","b,c"]"#] {
            assert!(several.contains(reading), "{several}");
            let NoUser::Record(record) = said(reading) else {
                unreachable!("one record is spelled so");
            };
            assert_eq!(format!("hr:{}", record.record), reading);
        }
        assert!(matches!(said(r#"hr:["a","b","c"]"#), NoUser::Nobody));
    }
}
