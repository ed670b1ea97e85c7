//! Errors that fail for ever, and errors that a retry may mend.
//!
//! The difference is in the type, so nobody has to guess it from a text: a definite error
//! needs an operator, a transient one needs time. One kind of definite error concerns the
//! log alone: as long as it lasts, the table can be read in its place.

/// The same call with the same input fails for ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}{}", if fix.is_empty() { String::new() } else { format!(" Fix: {fix}") })]
pub struct Definite {
    /// A stable code, for example `password_rejected`.
    pub code: &'static str,
    /// What happened, for the operator. Never holds a cell value or a credential.
    pub sentence: String,
    /// What to do.
    pub fix: String,
}

/// A retry may succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Transient {
    /// A stable code, for example `connection_lost`.
    pub code: &'static str,
    /// What happened, for the operator.
    pub sentence: String,
}

/// What a connector's call may end with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorError {
    /// Needs an operator.
    #[error(transparent)]
    Definite(#[from] Definite),
    /// Needs an operator before the log can be read; the table can be read as it is. Never
    /// used where who answers, or whether it may be trusted, is in question.
    #[error(transparent)]
    Unfollowable(Definite),
    /// Needs time.
    #[error(transparent)]
    Transient(#[from] Transient),
}

impl ConnectorError {
    /// A definite error.
    pub fn definite(
        code: &'static str,
        sentence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Definite {
            code,
            sentence: sentence.into(),
            fix: fix.into(),
        }
        .into()
    }

    /// The same error, as one that concerns nothing but the log. A transient one stays.
    #[must_use]
    pub fn of_the_log(self) -> Self {
        match self {
            ConnectorError::Definite(e) => ConnectorError::Unfollowable(e),
            other => other,
        }
    }

    /// A transient error.
    pub fn transient(code: &'static str, sentence: impl Into<String>) -> Self {
        Transient {
            code,
            sentence: sentence.into(),
        }
        .into()
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectorError::Definite(e) | ConnectorError::Unfollowable(e) => e.code,
            ConnectorError::Transient(e) => e.code,
        }
    }

    /// Whether waiting may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, ConnectorError::Transient(_))
    }
}
