//! What any of the readers finds in a log.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rollcall_contract::Op;

/// One value of a row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// The image has no such column.
    Absent,
    Null,
    /// In the contract's canonical text.
    Text(String),
    /// As [`Cell::Text`], but the server has to be asked: an SQL expression.
    Ask(String),
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Absent => f.write_str("absent"),
            Cell::Null => f.write_str("NULL"),
            Cell::Text(text) if text.len() > 300 => {
                let begin: String = text.chars().take(60).collect();
                write!(f, "{begin:?}… of {} bytes", text.len())
            }
            Cell::Text(text) => write!(f, "{text:?}"),
            Cell::Ask(sql) => write!(f, "what is {sql}"),
        }
    }
}

/// A row that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) table: String,
    pub(crate) op: Op,
    pub(crate) old: Vec<Cell>,
    pub(crate) new: Vec<Cell>,
}

/// A column as its table map describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// In the words of `mysqlbinlog`, text in the column's character set; empty from others.
    pub(crate) declared: Vec<u8>,
    pub(crate) is_nullable: bool,
}

/// A table map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// As `mysqlbinlog` prints it: `b, x(3)`.
    pub(crate) key: String,
}

/// One thing that stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Gtid(String),
    Statement(String),
    Commit(u64),
    /// An XA transaction is prepared, or committed in one phase.
    Prepared(String),
    Table(Table),
    Row(Row),
    /// The reader gave up here, with these words.
    Unreadable(String),
}

impl Entry {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Entry::Gtid(_) => "GTID",
            Entry::Statement(_) => "statement",
            Entry::Commit(_) => "commit",
            Entry::Prepared(_) => "XA prepare",
            Entry::Table(_) => "table map",
            Entry::Row(_) => "row",
            Entry::Unreadable(_) => "unreadable",
        }
    }
}

/// Where an event lies in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// For rows: where the last event of their statement ends. `mysqlbinlog` prints the rows
    /// of a statement together, so that is where all readers put them.
    pub(crate) statement_end: u32,
}

/// The events of a file, as their headers and the flags of rows say.
pub(crate) fn places(file: &Path) -> Vec<Place> {
    let bytes = std::fs::read(file).unwrap();
    let (mut at, mut places, mut open) = (4, Vec::new(), 0);
    while at < bytes.len() {
        let kind = bytes[at + 4];
        let size = u32::from_le_bytes(*bytes[at + 9..].first_chunk().unwrap());
        let (start, end) = (at as u32, at as u32 + size);
        places.push(Place {
            start,
            end,
            statement_end: end,
        });
        let is_rows = matches!(kind, 23..=25 | 30..=32 | 39 | 166..=171);
        let ends_statement = bytes[at + 19 + 6] & 1 != 0;
        if is_rows && ends_statement {
            for place in &mut places[open..] {
                place.statement_end = end;
            }
        }
        if !is_rows && kind != 19 || ends_statement {
            open = places.len();
        }
        at = end as usize;
    }
    places
}

/// What one reader found in one file, by where the event ends in it. The events of a
/// compressed transaction all end where that does.
#[derive(Default)]
pub(crate) struct Log(pub(crate) BTreeMap<u32, Vec<Entry>>);

impl Log {
    pub(crate) fn add(&mut self, end: u32, entry: Entry) {
        self.0.entry(end).or_default().push(entry);
    }

    pub(crate) fn rows(&self) -> usize {
        let entries = self.0.values().flatten();
        entries.filter(|e| matches!(e, Entry::Row(_))).count()
    }

    /// Every cell.
    pub(crate) fn cells(&mut self) -> impl Iterator<Item = &mut Cell> {
        self.0.values_mut().flatten().flat_map(|entry| match entry {
            Entry::Row(row) => row.old.iter_mut().chain(row.new.iter_mut()),
            _ => [].iter_mut().chain([].iter_mut()),
        })
    }
}
