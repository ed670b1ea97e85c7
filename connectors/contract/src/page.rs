//! How large a page is asked for: what the connectors of databases share.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Batch, Class, ConnectorError, Key, PageRequest, TableSchema};

/// Rows of the first page, when nothing is known of their width.
const FIRST_ROWS: usize = 1_000;
/// The first page has at most so many rows without a key beside its own: that there are such
/// rows is what counts.
pub const KEYLESS_ROWS: usize = 1_000;
/// At most so many records are read again by key in one call.
const MAX_KEYS: usize = 1_000;

/// The mean width of a table's rows, as its last whole page had it.
#[derive(Debug, Default)]
pub struct RowWidth {
    /// Bytes as the server sends a row; 0 when unknown.
    bytes: AtomicUsize,
}

impl RowWidth {
    /// The rows to ask for: as many as `limit_bytes` hold by what is known of their width,
    /// at least one and at most `limit_rows`. A page of some columns only is not narrowed.
    #[must_use]
    pub fn rows(&self, request: &PageRequest) -> usize {
        let rows = if request.only.is_some() {
            request.limit_rows
        } else {
            let width = self.bytes.load(Ordering::Relaxed);
            request.limit_bytes.checked_div(width).unwrap_or(FIRST_ROWS)
        };
        rows.clamp(1, request.limit_rows.max(1))
    }

    /// Learns from a page that was read. An empty page teaches nothing, nor does one of some
    /// columns only.
    pub fn learn(&self, request: &PageRequest, rows: usize, bytes: usize) {
        if request.only.is_none()
            && let Some(width) = bytes.checked_div(rows)
        {
            self.bytes.store(width.max(1), Ordering::Relaxed);
        }
    }
}

/// The place in a schema of the column that every change of a row raises.
///
/// # Errors
///
/// `change_column`, definite, when there is no such column or its values do not rise.
pub fn check_change_column(schema: &TableSchema, column: &str) -> Result<usize, ConnectorError> {
    let refused = |what| {
        ConnectorError::definite(
            "change_column",
            what,
            "Name in `poll.change_column` a number, date or time that every change raises.",
        )
    };
    let Some(at) = schema.position(column) else {
        let table = &schema.table;
        return Err(refused(format!("{table} has no column \"{column}\".")));
    };
    match schema.columns[at].class {
        Class::Int | Class::Decimal | Class::Date | Class::Timestamp | Class::TimestampTz => Ok(at),
        _ => Err(refused(format!(
            "The column \"{column}\" of {} is of type {}.",
            schema.table, schema.columns[at].type_name
        ))),
    }
}

/// Refuses to read more records again by key than one call may ask for.
///
/// # Errors
///
/// `too_many_keys`, definite, for more than 1,000.
pub fn check_key_count(asked: usize) -> Result<(), ConnectorError> {
    if asked <= MAX_KEYS {
        return Ok(());
    }
    Err(ConnectorError::definite(
        "too_many_keys",
        format!("{asked} records were asked for at once."),
        format!("Ask for at most {MAX_KEYS} at a time."),
    ))
}

/// Refuses a page, in the order of its keys, of which two rows have the same one: whatever
/// names its rows so cannot be told apart.
///
/// # Errors
///
/// `key_not_unique`, definite.
pub fn check_keys_differ(rows: &Batch) -> Result<(), ConnectorError> {
    let mut before: Option<Key> = None;
    for change in rows.changes() {
        let table = change.table();
        let key = change.after().and_then(|row| Key::of_row(table, &row));
        if key.is_some() && key == before {
            return Err(ConnectorError::definite(
                "key_not_unique",
                format!(
                    "{table} has several rows with the same key.",
                    table = table.table
                ),
                "Name in `key` columns that identify a row.",
            ));
        }
        before = key;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(only: Option<Vec<usize>>) -> PageRequest {
        PageRequest {
            after: None,
            limit_rows: 5_000,
            limit_bytes: 100_000,
            only,
            since: None,
        }
    }

    #[test]
    fn a_page_holds_as_many_rows_as_its_bytes_allow() {
        let (whole, some) = (request(None), request(Some(vec![0])));
        let width = RowWidth::default();
        assert_eq!(width.rows(&whole), FIRST_ROWS);
        width.learn(&whole, 0, 0);
        width.learn(&some, 10, 10);
        assert_eq!(width.rows(&whole), FIRST_ROWS, "nothing was learnt");
        width.learn(&whole, 10, 1_000);
        assert_eq!(width.rows(&whole), 1_000);
        assert_eq!(width.rows(&some), 5_000);
        width.learn(&whole, 1, 1_000_000);
        assert_eq!(width.rows(&whole), 1);
        width.learn(&whole, 10, 0);
        assert_eq!(width.rows(&whole), 5_000);
    }

    #[test]
    fn too_many_keys_are_refused() {
        assert!(check_key_count(MAX_KEYS).is_ok());
        let refused = check_key_count(MAX_KEYS + 1).map_err(|e| e.code());
        assert_eq!(refused, Err("too_many_keys"));
    }
}
