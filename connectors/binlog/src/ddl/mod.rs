//! What a statement in the log does to tables, without a grammar of SQL.
//!
//! The rows of every event are described by their own table map, so a statement has to be
//! understood only as far as rows come, go or change their table without events of their
//! own: TRUNCATE, DROP, RENAME, partitions that are exchanged or dropped, a table that is
//! replaced. For these the names of the tables are enough, and they stand at the beginning
//! of a statement or of one of its parts.
//!
//! What is not understood is never ignored and never stops the log: it is
//! [`Statement::Unreadable`], and whoever follows a table of that database has to compare it
//! again. Statements that cannot touch rows are known by their first words; any other verb
//! is unreadable, so a verb of a later version is a needless comparison and not a loss.

mod lexer;
mod parser;

use crate::charset::Charset;
use crate::event::{Query, SqlMode};
use rollcall_contract::TableName;

/// How the text of a statement is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// The default database; empty for none.
    pub database: &'a str,
    /// The part of the SQL mode that matters.
    pub sql_mode: SqlMode,
    /// The character set of the text.
    pub charset: Charset,
}

impl<'a> Session<'a> {
    /// The session in which a statement of the log was run.
    pub fn of(query: &Query<'a>) -> Self {
        let charset = query.client_collation.and_then(Charset::of_collation);
        Session {
            database: query.database,
            sql_mode: query.sql_mode,
            charset: charset.unwrap_or(Charset::Utf8),
        }
    }
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A transaction begins.
    Begin,
    /// The transaction committed (written for engines without transactions).
    Commit,
    /// The transaction was rolled back; what was logged of it was applied by engines
    /// without transactions.
    Rollback,
    /// `SAVEPOINT` or `RELEASE SAVEPOINT`.
    Savepoint,
    /// `ROLLBACK TO`: what was logged since was applied by engines without transactions.
    RollbackToSavepoint,
    /// A statement about an XA transaction.
    Xa {
        /// What is done.
        verb: XaVerb,
        /// The transaction.
        xid: OwnedXid,
    },
    /// A change of tables. Empty when it changes none that could be followed.
    Ddl(Vec<Effect>),
    /// Rows may have changed, and the log does not carry them (statement format). Which
    /// databases: [`Query::updated_databases`] and the default one.
    UnloggedRows,
    /// Nothing that concerns rows.
    Nothing,
    /// Not understood.
    Unreadable,
}

/// What is done with an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XaVerb {
    /// `XA START`
    Start,
    /// `XA END`
    End,
    /// `XA PREPARE`
    Prepare,
    /// `XA COMMIT`; in one phase when it was not prepared before.
    Commit,
    /// `XA ROLLBACK`
    Rollback,
}

/// The name of an XA transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedXid {
    /// The format, 1 unless the client said otherwise.
    pub format: u32,
    /// The global transaction id.
    pub global: Vec<u8>,
    /// The branch qualifier.
    pub branch: Vec<u8>,
}

impl OwnedXid {
    /// To be compared with the name in an event.
    pub fn as_xid(&self) -> crate::event::Xid<'_> {
        crate::event::Xid {
            format: self.format,
            global: &self.global,
            branch: &self.branch,
        }
    }
}

/// What happens to a table, in the order in which the statement says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is new, with no rows.
    Created(TableName),
    /// It is new, and its rows are not in the log (`CREATE … SELECT` in statement format).
    CreatedWithRows(TableName),
    /// All of its rows are gone.
    Truncated(TableName),
    /// It is gone.
    Dropped(TableName),
    /// A database with all of its tables is gone.
    DatabaseDropped(String),
    /// It has another name.
    Renamed {
        /// The old name.
        from: TableName,
        /// The new name.
        to: TableName,
    },
    /// Its columns or keys may be others: to be compared with its next table map.
    Altered(TableName),
    /// Rows came or went without events (partitions, tablespaces).
    RowsMoved(TableName),
}

/// Reads a statement of the log.
pub fn read(text: &[u8], session: &Session<'_>) -> Statement {
    // What stands before nearly every transaction.
    match text {
        b"BEGIN" => return Statement::Begin,
        b"COMMIT" => return Statement::Commit,
        _ => {}
    }
    let mut utf8 = Vec::new();
    let text = match std::str::from_utf8(text) {
        Ok(text) if session.charset.is_utf8(text.as_bytes()) => text,
        _ => {
            session.charset.decode(text, &mut utf8);
            std::str::from_utf8(&utf8).unwrap_or_default()
        }
    };
    parser::statement(text, session)
}

#[cfg(test)]
mod tests;
