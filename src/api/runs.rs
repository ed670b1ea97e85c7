//! Runs and their records, as plain data; see [`super::views`].

use rollcall_contract::Key;
use rollcall_core::id::RunId;
use rollcall_core::plan::Counters;
use rollcall_store::{Readers, RunFilter, RunRow, StoreError};
use serde::{Deserialize, Serialize};

use super::views::{rfc3339, source_names};
use crate::sync::clock::now_us;
#[cfg(doc)]
use crate::sync::runs::{RUN_KINDS, RUN_OUTCOMES};

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// Its number.
    pub run: u64,
    /// The source.
    pub source: String,
    /// One of [`RUN_KINDS`].
    pub kind: String,
    /// Why it began: `log`, `gap`, `mapping_changed`, `manual`, ….
    pub cause: String,
    /// One of [`RUN_OUTCOMES`].
    pub outcome: String,
    /// A sentence or document beside the outcome.
    pub detail: Option<String>,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: Option<String>,
    /// Milliseconds from its begin to its end, or until now.
    pub duration_ms: u64,
    /// Position at which it began.
    pub from: Option<String>,
    /// Position that it has reached.
    pub to: Option<String>,
    /// What it did.
    pub counters: Counters,
    /// How often a record was to be named and the list was full.
    pub unlisted: u64,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<String>,
    /// Only those before this run.
    pub before: Option<u64>,
    /// At most so many (50).
    pub limit: Option<usize>,
}

/// A run and the records that it names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// Records that were skipped, that failed, or that are applied again.
    pub records: Vec<RunRecordView>,
}

/// A record of a run: what it is called and what became of it, without a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecordView {
    /// The source.
    pub source: String,
    /// The key; none when it has none that can be read.
    pub record: Option<String>,
    /// `skipped`, `errored` or `healed`.
    pub outcome: String,
    /// The stable reason.
    pub reason: String,
    /// The attribute concerned.
    pub attribute: Option<String>,
    /// The rule concerned, as it stood in the configuration.
    pub rule: Option<String>,
    /// RFC 3339.
    pub noted: String,
}

/// Runs, the newest first.
///
/// # Errors
/// When the store cannot be read.
pub fn runs(readers: &Readers, query: &RunQuery) -> Result<Vec<RunView>, StoreError> {
    let mut filter = RunFilter {
        source: None,
        kind: query.kind.clone(),
        outcome: query.outcome.clone(),
        before: query.before.map(RunId),
    };
    if let Some(name) = &query.source {
        match readers.source(name)? {
            Some(row) => filter.source = Some(row.id),
            None => return Ok(Vec::new()),
        }
    }
    let name = source_names(readers)?;
    Ok(readers
        .runs(&filter, query.limit.unwrap_or(50).min(10_000))?
        .into_iter()
        .map(|row| run_view(name(row.source), row))
        .collect())
}

/// A run with the records that it names.
///
/// # Errors
/// When the store cannot be read.
pub fn run(readers: &Readers, id: u64) -> Result<Option<RunDetail>, StoreError> {
    let Some(row) = readers.run(RunId(id))? else {
        return Ok(None);
    };
    let name = source_names(readers)?;
    let records = readers.run_records(row.id, usize::MAX)?.into_iter();
    let records = records.map(|r| RunRecordView {
        source: name(r.source),
        record: Key::from_bytes(&r.key)
            .filter(|_| !r.key.is_empty())
            .map(|k| k.display()),
        outcome: match (r.healed, r.reason.is_error()) {
            (true, _) => "healed",
            (false, true) => "errored",
            (false, false) => "skipped",
        }
        .to_owned(),
        reason: r.reason.as_str().to_owned(),
        attribute: r.attribute,
        rule: r.rule,
        noted: rfc3339(r.noted_us),
    });
    Ok(Some(RunDetail {
        records: records.collect(),
        run: run_view(name(row.source), row),
    }))
}

pub(super) fn run_view(source: String, row: RunRow) -> RunView {
    let until = row.ended_us.unwrap_or_else(now_us);
    RunView {
        run: row.id.0,
        source,
        kind: row.kind,
        cause: row.cause,
        outcome: row.outcome,
        detail: row.detail,
        started: rfc3339(row.started_us),
        ended: row.ended_us.map(rfc3339),
        duration_ms: until.saturating_sub(row.started_us).max(0).unsigned_abs() / 1000,
        from: row.from,
        to: row.to,
        counters: row.counters,
        unlisted: row.unlisted,
    }
}
