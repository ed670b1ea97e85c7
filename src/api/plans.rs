//! Plans: what waits for a person's word. Keys and kinds, never a value.

use rollcall_contract::Key;
use rollcall_core::id::SourceId;
use rollcall_core::mapped::{key_columns, key_text};
use rollcall_store::{PlanRow, Readers, StoreError};
use serde::{Deserialize, Serialize};

use super::views::rfc3339;
use crate::sync::staging::PlanAnswer;

/// An open plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanView {
    /// Whose.
    pub source: String,
    /// Names exactly what is in it.
    pub hash: String,
    /// Records in it.
    pub records: u64,
    /// Records by what would be taken away: `deleted`, `absent`, `out_of_scope`, `status`,
    /// `identifier`, `roles`, `truncated`.
    pub kinds: std::collections::BTreeMap<String, u64>,
    /// When it changed last, RFC 3339.
    pub changed: String,
    /// Whether it is approved and being applied.
    pub approved: bool,
}

/// A record in a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedView {
    /// Its key.
    pub record: String,
    /// Its columns, when they are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// What would be taken away.
    pub kind: String,
    /// The run that found it.
    pub run: u64,
    /// When, RFC 3339.
    pub staged: String,
}

/// What came of a person's word.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum WordView {
    /// It was done.
    Done {
        /// Whose plan.
        source: String,
        /// Records that were in it.
        records: u64,
        /// Records that still wait.
        left: u64,
        /// The keys of those whose row is not the one that was approved; they wait.
        changed: Vec<String>,
    },
    /// No plan has this hash.
    Unknown,
    /// The plan is another one by now, and nothing was done.
    Changed {
        /// Whose plan.
        source: String,
        /// Records that came since.
        came: u64,
        /// Records that went since.
        went: u64,
        /// Records that changed since.
        changed: u64,
        /// The hash that it has now; none when it is gone.
        hash: Option<String>,
    },
    /// The source has not been reached since the daemon started, and nothing was done.
    NotReady {
        /// Which source.
        source: String,
    },
}

fn names(readers: &Readers) -> Result<impl Fn(SourceId) -> String, StoreError> {
    let sources = readers.sources()?;
    Ok(move |id| {
        let source = sources.iter().find(|s| s.id == id);
        source.map_or_else(String::new, |s| s.name.clone())
    })
}

/// The open plans.
///
/// # Errors
/// When the store cannot be read.
pub fn plans(readers: &Readers) -> Result<Vec<PlanView>, StoreError> {
    let name = names(readers)?;
    let rows = readers.plans()?;
    rows.into_iter()
        .map(|row: PlanRow| {
            let kinds = readers.plan_kinds(row.source)?.into_iter();
            Ok(PlanView {
                source: name(row.source),
                hash: row.hash.to_string(),
                records: row.records,
                kinds: kinds.map(|(k, n)| (k.as_str().to_owned(), n)).collect(),
                changed: rfc3339(row.at_us),
                approved: row.approved,
            })
        })
        .collect()
}

/// Hands out what is in a source's plan, record by record.
///
/// # Errors
/// When the store cannot be read, and those of `each`.
pub fn planned<E: From<StoreError>>(
    readers: &Readers,
    source: SourceId,
    mut each: impl FnMut(PlannedView) -> Result<(), E>,
) -> Result<(), E> {
    const AT_ONCE: usize = 5_000;
    let mut after = Vec::new();
    loop {
        let rows = readers.planned_after(source, &after, AT_ONCE)?;
        for row in &rows {
            each(PlannedView {
                record: key_text(&row.key),
                key: key_columns(&row.key),
                kind: row.staged.kind.as_str().to_owned(),
                run: row.staged.run.0,
                staged: rfc3339(row.staged.staged_us),
            })?;
        }
        match rows.last() {
            Some(last) if rows.len() == AT_ONCE => after = last.key.to_vec(),
            _ => return Ok(()),
        }
    }
}

/// What came of a person's word, for people and programs.
///
/// # Errors
/// When the store cannot be read.
pub fn told(readers: &Readers, answer: &PlanAnswer) -> Result<WordView, StoreError> {
    let name = names(readers)?;
    Ok(match answer.clone() {
        PlanAnswer::Unknown => WordView::Unknown,
        PlanAnswer::NotReady(source) => WordView::NotReady {
            source: name(source),
        },
        PlanAnswer::Done {
            source,
            records,
            left,
            changed,
        } => WordView::Done {
            source: name(source),
            records,
            left,
            changed: changed.iter().map(Key::display).collect(),
        },
        PlanAnswer::Changed { was, is } => WordView::Changed {
            source: name(was.source),
            came: is.map_or(0, |is| is.came - was.came),
            went: is.map_or(was.records, |is| is.went - was.went),
            changed: is.map_or(0, |is| is.changed - was.changed),
            hash: is.map(|is| is.hash.to_string()),
        },
    })
}
