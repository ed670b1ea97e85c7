//! SQL on ordinary connections: quoting, and what a failed statement means.
//!
//! `COPY` and `LOCK` take no parameters, so names and key values are written into the
//! statement. Both kinds of quoting here are exact for any text under any server setting:
//! identifiers by doubling the quote, values as escape strings (`E'…'`), whose meaning
//! does not depend on `standard_conforming_strings`.

use rollcall_contract::{ConnectorError, Definite, TableName, Transient};

use crate::errors;

/// `name` as a quoted identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema-qualified, quoted table name.
pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// `text` as a string constant.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    out.push_str("E'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// `bytes` as a string constant; what is not UTF-8 comes from a database without an encoding,
/// where an escaped byte is that byte.
pub(crate) fn literal_of(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    if let Ok(text) = std::str::from_utf8(bytes) {
        return literal(text);
    }
    let mut out = String::from("E'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' | 0x80.. => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
            byte => out.push(char::from(byte)),
        }
    }
    out.push('\'');
    out
}

/// What the failure of a statement means. `doing` completes "while …".
pub(crate) fn failed(error: &tokio_postgres::Error, doing: &str) -> ConnectorError {
    let mut failed: ConnectorError = match error.as_db_error() {
        Some(db) => errors::from_sqlstate(db.code().code(), db.message()).into(),
        None => ConnectorError::transient("connection_lost", "The connection to PostgreSQL ended."),
    };
    let (ConnectorError::Definite(Definite { sentence, .. })
    | ConnectorError::Unfollowable(Definite { sentence, .. })
    | ConnectorError::Transient(Transient { sentence, .. })) = &mut failed;
    sentence.push_str(&format!(" It happened while {doing}."));
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_cannot_be_left_by_any_text() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("O'Neil\\"), "E'O''Neil\\\\'");
        assert_eq!(literal_of("é'".as_bytes()), "E'é'''");
        assert_eq!(literal_of(b"\xe9t'\\"), "E'\\xe9t\\x27\\x5c'");
        assert_eq!(
            table(&TableName::new("h r", "Em\"p")),
            "\"h r\".\"Em\"\"p\""
        );
    }
}
