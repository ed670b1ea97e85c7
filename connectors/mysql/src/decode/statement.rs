//! Statements of the log: where transactions begin and end, and what happens to the
//! followed table without rows.
//!
//! A statement that is not understood, or that changed rows the log does not carry, is a
//! gap when it could concern the followed table, and never a reason to stop.

use rollcall_binlog::ddl::{self, Effect, Session, Statement, XaVerb};
use rollcall_binlog::event::{Header, Query};
use rollcall_contract::{ConnectorError, GapReason, Op, TableNo};

use super::Decoder;
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
            Statement::Ddl(effects) => self.effects(effects),
            Statement::UnloggedRows => {
                if self.may_concern(query) {
                    self.gap(
                        GapReason::NotInLog,
                        "The log has a change as a statement in place of its rows.".to_owned(),
                    );
                }
            }
            Statement::Unreadable => {
                if self.may_concern(query) {
                    self.gap(
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

    /// Whether a statement could have changed rows of the followed table.
    fn may_concern(&self, query: &Query<'_>) -> bool {
        let database = &self.followed.schema().table.schema;
        if query.database == database {
            return true;
        }
        match query.updated_databases() {
            Some(mut names) => names.any(|name| name == database),
            None => true,
        }
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        let table = self.followed.schema().table.clone();
        let mut replaced = None;
        for effect in effects {
            match effect {
                Effect::Truncated(name) if name == table => self.truncated(),
                Effect::Dropped(name) if name == table => {
                    replaced = Some(format!("The table {table} was dropped."));
                }
                Effect::DatabaseDropped(name) if name == table.schema => {
                    replaced = Some(format!("The database {name} was dropped."));
                }
                Effect::Renamed { from, to } if from == table => {
                    replaced = Some(format!("The table {table} was renamed to {to}."));
                }
                Effect::Renamed { from, to } if to == table => {
                    replaced = Some(format!(
                        "The table {table} is another one now: {from} was renamed to it."
                    ));
                }
                Effect::CreatedWithRows(name) if name == table => {
                    replaced = Some(format!(
                        "The table {table} was made with rows that are not in the log."
                    ));
                }
                Effect::Altered(name) if name == table => self.followed.altered(),
                Effect::RowsMoved(name) if name == table => self.gap(
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
            // Rows that follow have a table map of their own.
            self.layout = None;
            self.followed.replaced();
            self.gap(GapReason::TableRecreated, detail);
        }
    }

    /// All rows are gone at once.
    fn truncated(&mut self) {
        let schema = self.followed.schema();
        let Some(tx) = &mut self.tx else {
            return;
        };
        let ordinal = tx.changes;
        tx.changes += 1;
        if ordinal < tx.skip_below {
            return;
        }
        let table = *self
            .table_index
            .get_or_insert_with(|| self.builder.table(TableNo::MAIN, schema));
        if !tx.is_announced {
            self.builder.tx(tx.announce());
        }
        self.builder.begin(table, Op::Truncate, ordinal);
        self.builder.finish(false, 0);
    }
}
