//! What is wrong with a mapping.
//!
//! Errors are found when a mapping is compiled, all of them at once, so that a mapping that
//! exists cannot fail for a reason that was visible in its configuration. They are made
//! from names in the configuration and the schema alone; no record is read for them.

use std::fmt;

/// Where in a mapping something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The rule with this index.
    Rule(usize),
    /// The scope.
    Scope,
    /// The redacted column with this index.
    Redact(usize),
    /// The column with this index that says when a value was changed.
    Changed(usize),
    /// The related table with this index.
    Related(usize),
}

/// One error, or one remark, on a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {
    /// Where it is.
    pub place: Place,
    /// The attribute of the rule or of the column, `scope` or `redact`.
    pub rule: String,
    /// What was found.
    pub found: String,
    /// What should be there instead.
    pub expected: String,
    /// A way to put it right.
    pub suggestion: Option<String>,
}

impl MappingError {
    /// The same, where what is unknown is a generated column of the table: it is there, but no
    /// row that is read carries it.
    pub fn of_generated(mut self, generated: &[String]) -> MappingError {
        let is_it = |column: &&String| {
            ["column", "variable"]
                .iter()
                .any(|kind| self.found == unknown(kind, column))
        };
        if let Some(column) = generated.iter().find(is_it) {
            self.found = format!("the generated column `{column}`, which is not in the log");
            self.expected = "a column that is stored, or an expression over such columns".into();
            self.suggestion = None;
        }
        self
    }
}

/// What is found where a name stands that the table does not have.
pub(super) fn unknown(kind: &str, name: &str) -> String {
    format!("an unknown {kind} `{name}`")
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: found {}, expected {}",
            self.rule, self.found, self.expected
        )?;
        match &self.suggestion {
            Some(s) => write!(f, "; {s}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for MappingError {}

/// The candidate that was probably meant, if one is near enough to be worth naming.
pub(crate) fn nearest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&folded, &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// `did you mean …?` for the nearest candidate.
pub(crate) fn did_you_mean<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(wanted, candidates).map(|c| format!("did you mean `{c}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_column_is_not_called_unknown() {
        for kind in ["column", "variable"] {
            let error = |column: &str| MappingError {
                place: Place::Scope,
                rule: "email".to_owned(),
                found: unknown(kind, column),
                expected: "a column of hr.people".to_owned(),
                suggestion: Some("login".to_owned()),
            };
            let generated = ["email".to_owned()];
            assert_eq!(
                error("email").of_generated(&generated).to_string(),
                "email: found the generated column `email`, which is not in the log, expected a \
                 column that is stored, or an expression over such columns"
            );
            assert_eq!(error("mail").of_generated(&generated), error("mail"));
        }
    }
}
