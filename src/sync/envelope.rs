//! Raw row changes in the envelope of Debezium (`before`, `after`, `source`, `op`, `ts_ms`),
//! so that consumers of that format need no change.
//!
//! The shape is that of Debezium's connectors without schemas
//! (<https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>):
//! integers and finite floats are JSON numbers, booleans are JSON booleans, everything else
//! is text; a value that the log does not carry is Debezium's own placeholder, which is
//! part of that format.

use rollcall_contract::{Before, Cell, Change, Class, Column, Op, Row, TableSchema};
use rollcall_core::event::{Event, EventBlock, EventKind};
use rollcall_core::id::{RunId, SourceId};
use serde_json::Value;

const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The raw stream of one source.
pub(super) struct Stream<'a> {
    /// Which source.
    pub(super) source: SourceId,
    /// Its name.
    pub(super) name: &'a str,
    /// The run that publishes.
    pub(super) run: RunId,
    /// Columns that are left out: their values go nowhere, and not into the outbox either.
    pub(super) redact: &'a [String],
}

impl Stream<'_> {
    /// Adds a change to the block. A changed key is two changes, as in that format: the old
    /// key's record is deleted, the new one's is made. Behind a deletion stands a tombstone
    /// (a key without a body), by which a compacted topic forgets the record.
    pub(super) fn push(&self, change: &Change<'_>, events: &mut EventBlock) {
        let table = change.table();
        let key = |row: &Row<'_>| self.key_of(table, row);
        let image = |row: &Row<'_>| self.image(table, row);
        let before = match change.before() {
            Before::None => Value::Null,
            Before::Key(row) => key(&row),
            Before::Full(row) => image(&row),
        };
        let old_key = Before::row(change.before()).map(|row| key(&row));
        let after = change.after().map_or(Value::Null, |row| image(&row));
        let new_key = change.after().map(|row| key(&row));
        match (change.op(), old_key, new_key) {
            (Op::Update, Some(old), Some(new)) if old != new => {
                self.push_one(change, "d", &old, before, Value::Null, events);
                self.push_one(change, "c", &new, Value::Null, after, events);
            }
            (op, old, new) => {
                let op = match op {
                    Op::Read => "r",
                    Op::Insert => "c",
                    Op::Update => "u",
                    Op::Delete => "d",
                    Op::Truncate => "t",
                };
                let key = new.or(old).unwrap_or(Value::Null);
                self.push_one(change, op, &key, before, after, events);
            }
        }
    }

    fn push_one(
        &self,
        change: &Change<'_>,
        op: &str,
        key: &Value,
        before: Value,
        after: Value,
        events: &mut EventBlock,
    ) {
        let table = change.table();
        let tx = change.tx();
        let body = serde_json::json!({
            "before": before,
            "after": after,
            "source": {
                "connector": "rollcall",
                "version": env!("CARGO_PKG_VERSION"),
                "name": self.name,
                "ts_ms": tx.commit_us / 1000,
                "snapshot": if op == "r" { "true" } else { "false" },
                "schema": table.table.schema,
                "table": table.table.name,
                "position": tx.position(),
                "ordinal": change.ordinal(),
            },
            "op": op,
            "ts_ms": tx.commit_us / 1000,
        });
        // A change of the whole table has no key.
        let key = match key {
            Value::Null => String::new(),
            key => key.to_string(),
        };
        let mut push = |what: &str, data: &[u8]| {
            let id = format!(
                "{}\n{}\n{}\n{what}",
                self.name,
                tx.position(),
                change.ordinal()
            );
            events.push(&Event {
                kind: EventKind::RawChange,
                id: xxhash_rust::xxh3::xxh3_128(id.as_bytes()).to_be_bytes(),
                user: None,
                source: Some(self.source),
                time_us: tx.commit_us,
                run: self.run,
                position: tx.position(),
                key: key.as_bytes(),
                data,
            });
        };
        push(op, body.to_string().as_bytes());
        if op == "d" {
            push("tombstone", &[]);
        }
    }

    fn shows(&self, column: &Column) -> bool {
        !self.redact.contains(&column.name)
    }

    fn image(&self, table: &TableSchema, row: &Row<'_>) -> Value {
        let cells = table.columns.iter().zip(row.cells());
        let shown = cells.filter(|(column, _)| self.shows(column));
        Value::Object(
            shown
                .map(|(column, cell)| (column.name.clone(), value(column.class, cell)))
                .collect(),
        )
    }

    fn key_of(&self, table: &TableSchema, row: &Row<'_>) -> Value {
        let columns = table.key.iter().map(|&i| (i, &table.columns[i]));
        let shown = columns.filter(|(_, column)| self.shows(column));
        Value::Object(
            shown
                .map(|(i, column)| (column.name.clone(), value(column.class, row.cell(i))))
                .collect(),
        )
    }
}

fn value(class: Class, cell: Cell<'_>) -> Value {
    let text = match cell {
        Cell::Null => return Value::Null,
        Cell::Missing | Cell::Unchanged => return Value::from(UNAVAILABLE),
        Cell::Value(bytes) => String::from_utf8_lossy(bytes),
    };
    match class {
        Class::Bool => Value::Bool(text == "t"),
        Class::Int => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(n), _) => Value::from(n),
            (_, Ok(n)) => Value::from(n),
            _ => Value::from(text),
        },
        Class::Float => text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| Value::from(text), Value::Number),
        Class::List => serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text)),
        _ => Value::from(text),
    }
}
