//! Statements of the log: where transactions begin and end, and what happens to the
//! followed tables without rows.
//!
//! A statement that is not understood, or that changed rows the log does not carry, is a
//! gap when it could concern a followed table, and never a reason to stop.

use rollcall_binlog::ddl::{self, Effect, Session, Statement, XaVerb};
use rollcall_binlog::event::{Header, Query};
use rollcall_contract::{ConnectorError, GapReason, Op, TableName};

use super::Decoder;
use super::layout::Followed;
use crate::position::Place;

impl Decoder {
    /// A QUERY event.
    pub(super) fn statement(
        &mut self,
        header: &Header,
        query: &Query<'_>,
        begins: Option<Place>,
    ) -> Result<(), ConnectorError> {
        let text = query.text()?;
        let statement = ddl::read(&text, &Session::of(query));
        if self.tx.is_none() {
            // A server without GTIDs of any kind, not even anonymous ones.
            let name = self.unnamed(begins.as_ref())?;
            let commit_us = i64::from(header.timestamp) * 1_000_000;
            self.begin_transaction(name, begins, commit_us);
        }
        let is_known = self.tx.as_ref().is_some_and(|tx| tx.is_known);
        match statement {
            Statement::Begin => {
                if let Some(tx) = &mut self.tx {
                    tx.is_begun = true;
                }
                return Ok(());
            }
            Statement::Commit | Statement::Rollback => {
                self.end_transaction();
                return Ok(());
            }
            Statement::Savepoint | Statement::RollbackToSavepoint => return Ok(()),
            Statement::Xa { verb, xid } => {
                let xid = xid.as_xid().to_string().into_bytes();
                match verb {
                    XaVerb::Start => {
                        if let Some(tx) = &mut self.tx {
                            tx.is_begun = true;
                            tx.is_xa = true;
                        }
                        self.parking.begin();
                    }
                    // The event that follows says whether it is prepared or committed.
                    XaVerb::End | XaVerb::Prepare => {}
                    XaVerb::Commit => {
                        let found = self.parking.end(&xid);
                        self.replay(found);
                    }
                    XaVerb::Rollback => {
                        self.parking.end(&xid);
                        self.end_transaction();
                    }
                }
                return Ok(());
            }
            // Taken in before, with everything that followed from it.
            _ if is_known => {}
            Statement::Ddl(effects) => {
                for at in 0..self.followed.len() {
                    self.effects(at, &effects);
                }
            }
            Statement::UnloggedRows => {
                let concerned = self.may_concern(query);
                if !concerned.is_empty() {
                    self.gap_of(
                        concerned,
                        GapReason::NotInLog,
                        "The log has a change as a statement in place of its rows.".to_owned(),
                    );
                }
            }
            Statement::Unreadable => {
                let concerned = self.may_concern(query);
                if !concerned.is_empty() {
                    self.gap_of(
                        concerned,
                        GapReason::NotInLog,
                        "The log has a statement that is not understood here.".to_owned(),
                    );
                }
            }
            Statement::Nothing => {}
        }
        if self.tx.as_ref().is_some_and(|tx| !tx.is_begun) {
            self.end_transaction();
        }
        Ok(())
    }

    /// The followed tables of which a statement could have changed rows.
    fn may_concern(&self, query: &Query<'_>) -> Vec<TableName> {
        let updated: Option<Vec<_>> = query.updated_databases().map(Iterator::collect);
        let is_concerned = |name: &&TableName| {
            query.database == name.schema
                || updated
                    .as_ref()
                    .is_none_or(|names| names.iter().any(|updated| *updated == name.schema))
        };
        let names = self.followed.iter().map(Followed::name);
        names.filter(is_concerned).cloned().collect()
    }

    /// What a statement does to one of the tables.
    fn effects(&mut self, at: usize, effects: &[Effect]) {
        let table = self.followed[at].name().clone();
        let mut replaced = None;
        for effect in effects {
            match effect {
                Effect::Truncated(name) if *name == table => self.truncated(at),
                Effect::Dropped(name) if *name == table => {
                    replaced = Some(format!("The table {table} was dropped."));
                }
                Effect::DatabaseDropped(name) if *name == table.schema => {
                    replaced = Some(format!("The database {name} was dropped."));
                }
                Effect::Renamed { from, to } if *from == table => {
                    replaced = Some(format!("The table {table} was renamed to {to}."));
                }
                Effect::Renamed { from, to } if *to == table => {
                    replaced = Some(format!(
                        "The table {table} is another one now: {from} was renamed to it."
                    ));
                }
                Effect::CreatedWithRows(name) if *name == table => {
                    replaced = Some(format!(
                        "The table {table} was made with rows that are not in the log."
                    ));
                }
                Effect::Altered(name) if *name == table => self.followed[at].altered(),
                Effect::RowsMoved(name) if *name == table => self.gap_of(
                    vec![table.clone()],
                    GapReason::PartitionsChanged,
                    format!(
                        "Rows of {table} came or went with a partition or a file, which the log \
                         does not carry."
                    ),
                ),
                _ => {}
            }
        }
        if let Some(detail) = replaced {
            self.followed[at].replaced();
            self.gap_of(vec![table], GapReason::TableRecreated, detail);
        }
    }

    /// All rows of a table are gone at once.
    fn truncated(&mut self, at: usize) {
        let Some(tx) = &mut self.tx else {
            return;
        };
        let ordinal = tx.changes;
        tx.changes += 1;
        if ordinal < tx.skip_below {
            return;
        }
        let followed = &mut self.followed[at];
        let index = match followed.index {
            Some(index) => index,
            None => *followed
                .index
                .insert(self.builder.table(followed.no, followed.schema())),
        };
        if !tx.is_announced {
            self.builder.tx(tx.announce());
        }
        self.builder.begin(index, Op::Truncate, ordinal);
        self.builder.finish(false, 0);
    }
}
