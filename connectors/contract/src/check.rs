//! What a connector finds when it looks before it leaps.

/// How much a finding matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, and something should be known.
    Note,
    /// Works, at a risk that is named.
    Warning,
    /// The log cannot be followed; the table can be polled.
    Unfollowable,
    /// Will not work, or would hurt the application: the source is refused.
    Error,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable code, for example `wal_level` or `replica_identity`.
    pub code: String,
    /// What was found, in one sentence, without any value of a row.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub fix: String,
}

impl Finding {
    /// A finding from its parts.
    pub fn new(
        severity: Severity,
        code: &str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Finding {
            severity,
            code: code.to_owned(),
            found: found.into(),
            fix: fix.into(),
        }
    }
}

/// The whole answer of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
    /// The statements that an operator would run to mend what was found (or to set the
    /// source up); printed, never run.
    pub script: String,
}

impl Report {
    /// Whether the source can be followed, or at least be polled.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|f| f.severity < Severity::Error)
    }

    /// Whether the source can be followed.
    pub fn is_followable(&self) -> bool {
        self.findings
            .iter()
            .all(|f| f.severity < Severity::Unfollowable)
    }
}
