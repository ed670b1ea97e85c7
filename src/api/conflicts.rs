//! Conflicts: what a person must decide, among what, and what was decided.

use rollcall_core::attribute::{AttrType, Attributes, DISPLAY_NAME, USER_NAME};
use rollcall_core::conflict::{Choice, ConflictKind, ConflictRow, Decision, Fingerprint};
use rollcall_core::directory::Word;
use rollcall_core::document::{Document, Record, UserState};
use rollcall_core::id::{SourceId, UserId, UserRow};
use rollcall_core::mapped::{key_columns, key_text, value_text};
use rollcall_core::reason::SkipReason;
use rollcall_store::{ConflictFilter, Readers, StoreError};
use serde::{Deserialize, Serialize};

use super::views::{rfc3339, source_names};

/// A conflict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictView {
    /// Its stable name, hexadecimal.
    pub fingerprint: String,
    /// What kind.
    pub kind: String,
    /// The source.
    pub source: String,
    /// Keys of the records concerned.
    pub records: Vec<String>,
    /// The columns of each, when they are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Vec<String>>,
    /// Ids of the users concerned.
    pub users: Vec<String>,
    /// The attribute concerned.
    pub attribute: Option<String>,
    /// RFC 3339.
    pub opened: String,
    /// RFC 3339.
    pub closed: Option<String>,
    /// What a person decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
    /// Of an unresolved reference: how many users wait, and why nobody is behind the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingView>,
}

/// A record that users name and that leads to nobody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MissingView {
    /// How many users wait for it.
    pub waiting: u64,
    /// Why it leads to nobody, in a sentence.
    pub reason: String,
}

fn missing(readers: &Readers, row: &ConflictRow) -> Result<Option<MissingView>, StoreError> {
    let is_it = row.kind == ConflictKind::UnresolvedReference && row.closed_us.is_none();
    let Some(key) = row.records.first().filter(|_| is_it) else {
        return Ok(None);
    };
    let reason = match readers.user_by_record(row.source, key)? {
        None => "no record with this key was seen".to_owned(),
        Some(None) => {
            let record = readers.record(row.source, key)?.unwrap_or_default();
            let reason = Record::decode(&record).ok().map(|r| r.reason);
            match reason {
                Some(SkipReason::OutOfScope) => "the record is out of scope".to_owned(),
                Some(reason) => format!("the record is not applied ({})", reason.as_str()),
                None => "the record is not applied".to_owned(),
            }
        }
        Some(Some(user)) => match Document::who(&user.document) {
            Some((_, UserState::Tombstone)) => "its user was deleted".to_owned(),
            _ => "it has a user, and those who wait are being told".to_owned(),
        },
    };
    Ok(Some(MissingView {
        waiting: readers.references_waiting(row.source, Some(key))?,
        reason,
    }))
}

/// A person's word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionView {
    /// What was taken: `new`, `own`, `source`, a user's id or a record's key.
    pub took: String,
    /// Who decided.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

/// A conflict with what can be taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictDetail {
    /// The conflict.
    #[serde(flatten)]
    pub conflict: ConflictView,
    /// Among what a person can choose, in this order; empty when only the source can tell.
    pub candidates: Vec<Candidate>,
}

/// What can be taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// How it is named.
    pub take: String,
    /// What it is, for people; values among it.
    pub what: String,
    /// Whether it is what counts at present.
    pub present: bool,
}

/// What somebody wants of a conflict.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveQuery {
    /// The candidate: its name, or its number from 1. None keeps what counts at present.
    pub take: Option<String>,
    /// Who decides.
    pub actor: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ResolveView {
    /// It is decided.
    Resolved {
        /// The conflict.
        fingerprint: String,
        /// What was taken.
        took: String,
    },
    /// No such conflict is open.
    Unknown,
    /// Nothing was done.
    Refused {
        /// Why, in a sentence.
        reason: String,
    },
}

impl ResolveView {
    fn refused(reason: impl Into<String>) -> ResolveView {
        ResolveView::Refused {
            reason: reason.into(),
        }
    }
}

/// A choice among the candidates of an open conflict, and where the user is whose field it is
/// about.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which conflict.
    pub fingerprint: Fingerprint,
    /// What is taken.
    pub choice: Choice,
    /// For a conflict of two values: whose.
    pub user: Option<UserRow>,
}

/// Conflicts, the newest first.
///
/// # Errors
/// When the store cannot be read.
pub fn conflicts(readers: &Readers, with_closed: bool) -> Result<Vec<ConflictView>, StoreError> {
    let name = source_names(readers)?;
    let filter = ConflictFilter {
        with_closed,
        ..ConflictFilter::default()
    };
    let rows = readers.conflicts(filter, 1000)?;
    rows.iter().map(|row| view(readers, row, &name)).collect()
}

/// A conflict by its name.
///
/// # Errors
/// When the store cannot be read.
pub fn conflict(readers: &Readers, name: &str) -> Result<Option<ConflictDetail>, StoreError> {
    let Some(row) = find(readers, name)? else {
        return Ok(None);
    };
    let candidates = match row.closed_us {
        None => candidates(readers, &row)?,
        Some(_) => Vec::new(),
    };
    Ok(Some(ConflictDetail {
        conflict: view(readers, &row, &source_names(readers)?)?,
        candidates: candidates.into_iter().map(|(_, c)| c).collect(),
    }))
}

/// What a person's word means, or why it means nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn chosen(
    readers: &Readers,
    name: &str,
    take: Option<&str>,
) -> Result<Result<Chosen, ResolveView>, StoreError> {
    let row = find(readers, name)?.filter(|row| row.closed_us.is_none());
    let Some(row) = row else {
        return Ok(Err(ResolveView::Unknown));
    };
    let candidates = candidates(readers, &row)?;
    let found = match take {
        Some(take) => {
            let number = take.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let named = candidates.iter().position(|(_, c)| c.take == take);
            named.or(number).and_then(|at| candidates.get(at))
        }
        None => candidates.iter().find(|(_, c)| c.present),
    };
    let Some((choice, _)) = found else {
        return Ok(Err(ResolveView::refused(match (candidates.is_empty(), take) {
            (true, _) => "nobody but the source can tell; correct it there".to_owned(),
            (false, None) => {
                "nothing of it counts at present; take one of its candidates (`rollcall conflicts show`)"
                    .to_owned()
            }
            (false, Some(take)) => format!(
                "{take:?} is none of its candidates (`rollcall conflicts show`)"
            ),
        })));
    };
    let user = match (row.kind, row.users.first()) {
        (ConflictKind::Value, Some(user)) => readers.user_by_id(*user)?.map(|u| u.row),
        _ => None,
    };
    Ok(Ok(Chosen {
        fingerprint: row.fingerprint,
        choice: choice.clone(),
        user,
    }))
}

/// What came of a word; none when the source has not been reached since the daemon started.
pub fn told(chosen: &Chosen, word: Option<Word>) -> ResolveView {
    match word {
        None => ResolveView::refused(
            "its source has not been reached since the daemon started, so nothing of it can be applied; see `rollcall status`",
        ),
        Some(Word::Taken) => ResolveView::Resolved {
            fingerprint: format!("{:016x}", chosen.fingerprint.0),
            took: took(&chosen.choice),
        },
        Some(Word::NotOpen) => ResolveView::Unknown,
        Some(Word::NoAnswer) => ResolveView::refused("that is none of its candidates any more"),
        Some(Word::OtherHasUser) => ResolveView::refused(
            "another of these records has the user; take that one, or correct the source",
        ),
        Some(Word::Mixed) => ResolveView::refused(
            "the record has a user already, and what is stored of it cannot be applied; correct the source",
        ),
    }
}

fn find(readers: &Readers, name: &str) -> Result<Option<ConflictRow>, StoreError> {
    match u64::from_str_radix(name, 16) {
        Ok(number) if name.len() == 16 => readers.conflict(Fingerprint(number)),
        _ => Ok(None),
    }
}

fn view(
    readers: &Readers,
    row: &ConflictRow,
    source: &impl Fn(SourceId) -> String,
) -> Result<ConflictView, StoreError> {
    Ok(ConflictView {
        fingerprint: format!("{:016x}", row.fingerprint.0),
        kind: row.kind.as_str().to_owned(),
        source: source(row.source),
        records: row.records.iter().map(|key| key_text(key)).collect(),
        keys: row
            .records
            .iter()
            .map(|key| key_columns(key))
            .filter(|columns| !columns.is_empty())
            .collect(),
        users: row.users.iter().map(ToString::to_string).collect(),
        attribute: row.attribute.clone(),
        opened: rfc3339(row.opened_us),
        closed: row.closed_us.map(rfc3339),
        decision: row.decision.as_ref().map(decision),
        missing: missing(readers, row)?,
    })
}

fn decision(decision: &Decision) -> DecisionView {
    DecisionView {
        took: took(&decision.choice),
        by: decision.actor.clone(),
        reason: decision.reason.clone(),
        at: rfc3339(decision.at_us),
    }
}

fn took(choice: &Choice) -> String {
    match choice {
        Choice::Record(key) => key_text(key),
        Choice::User(user) => user.to_string(),
        Choice::New => "new".to_owned(),
        Choice::Own => "own".to_owned(),
        Choice::Source => "source".to_owned(),
    }
}

fn candidates(
    readers: &Readers,
    row: &ConflictRow,
) -> Result<Vec<(Choice, Candidate)>, StoreError> {
    let one = |choice: Choice, what: String, present: bool| {
        let take = took(&choice);
        (
            choice,
            Candidate {
                take,
                what,
                present,
            },
        )
    };
    let users = || {
        let each = row.users.iter();
        each.map(|user| Ok(one(Choice::User(*user), user_text(readers, *user)?, false)))
            .collect::<Result<Vec<_>, StoreError>>()
    };
    let somebody_new = || one(Choice::New, "somebody new".to_owned(), false);
    Ok(match row.kind {
        ConflictKind::DuplicateInSource => {
            let source = source_names(readers)?(row.source);
            let what = |key: &[u8]| format!("record {source}:{}", key_text(key));
            let records = row.records.iter();
            records
                .map(|key| one(Choice::Record(key.clone()), what(key), false))
                .collect()
        }
        ConflictKind::DisputedMatch | ConflictKind::KeyReuse => {
            let mut all = users()?;
            all.push(somebody_new());
            all
        }
        ConflictKind::Uniqueness => users()?,
        // The table is to be mended, or the mapping: there is nothing to take.
        ConflictKind::SchemaDrift | ConflictKind::UnresolvedReference => Vec::new(),
        ConflictKind::Value => {
            let values = values(readers, row)?;
            values
                .into_iter()
                .map(|(choice, what, present)| one(choice, what, present))
                .collect()
        }
    })
}

fn user_text(readers: &Readers, id: UserId) -> Result<String, StoreError> {
    let Some(row) = readers.user_by_id(id)? else {
        return Ok("a user that is gone".to_owned());
    };
    let document = decode(&row.document)?;
    let text = |attribute| {
        let value = document.value(attribute).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    Ok(format!("user {} {}", text(USER_NAME), text(DISPLAY_NAME)))
}

/// The two values of a field.
fn values(readers: &Readers, row: &ConflictRow) -> Result<Vec<(Choice, String, bool)>, StoreError> {
    let attributes = Attributes::new(readers.custom_attributes()?);
    let attribute = row.attribute.as_deref().and_then(|n| attributes.by_name(n));
    let user = match row.users.first() {
        Some(user) => readers.user_by_id(*user)?,
        None => None,
    };
    let (Some(attribute), Some(user)) = (attribute, user) else {
        return Ok(Vec::new());
    };
    let document = decode(&user.document)?;
    let group = document.group(attribute.id);
    let text = |value: &[u8], kind: AttrType| format!("{:?}", value_text(value, kind));
    let own = document.own(attribute.id);
    let mine = group.iter().find(|c| c.link.is_none());
    let rival = group.iter().find(|c| c.link.is_some());
    let (Some(own), Some(mine), Some(rival)) = (own, mine, rival) else {
        return Ok(Vec::new());
    };
    let link = rival.link.and_then(|l| document.links.get(usize::from(l)));
    let from = match link {
        Some(link) => format!(
            "{}:{}",
            source_names(readers)?(link.source),
            key_text(link.key)
        ),
        None => String::new(),
    };
    let wins = own.standing.wins;
    let written = text(mine.value, attribute.kind);
    let said = text(rival.value, attribute.kind);
    Ok(vec![
        (
            Choice::Own,
            format!("{written}, written by {}", own.actor),
            wins,
        ),
        (Choice::Source, format!("{said}, from {from}"), !wins),
    ])
}

fn decode(bytes: &[u8]) -> Result<Document<'_>, StoreError> {
    Document::decode(bytes).map_err(|e| StoreError::Damaged {
        detail: e.to_string(),
    })
}
