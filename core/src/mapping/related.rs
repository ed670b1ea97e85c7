//! Rows of further tables, joined to those of the source's own.
//!
//! To everything behind it a source with related tables has one wider table: the columns of
//! the main table, and behind them a *virtual* column for each related one that is used,
//! named `dept.name`. Mapping, hashing, stored rows, drift, leavers and proofs work on that
//! joined row as on any other; only this module knows that it was joined.
//!
//! Two rows belong together when their join values are equal. A join value is the canonical
//! text of its columns, each in a form that does not depend on the width of a type
//! ([`push_part`]): numbers are equal when they are the same number, texts when they are the
//! same but for spaces at the end. What a collation says beyond that is not asked: `ENG` and
//! `eng` are two values everywhere, so the same rows are joined whichever server they are on.
//! Null is equal to nothing.
//!
//! - Of a table with one row for each (`many = false`) a virtual column is that row's cell,
//!   and null when there is none. When several rows match, the one with the lowest key counts:
//!   a choice that does not depend on the order in which they came.
//! - Of one with many rows it is a list of their cells in the order of their keys, and empty
//!   when there is none.
//! - While it is not known which rows there are, it is [`Cell::Missing`]: it says nothing.
//! - Where the row says that its own join columns are as they were, it is
//!   [`Cell::Unchanged`]: what is stored was joined with the same value, and a related row
//!   that changed since has reached it, or is about to.
//!
//! A column that is gone from its table is no virtual column any more, so the rules that use
//! it are paused like those of any dropped column; and so are all of a table whose join
//! columns are gone.

use std::sync::Arc;

use hashbrown::HashMap;
use rollcall_contract::{
    Batch, BatchBuilder, Before, Cell, Change, Class, Column, Cursor, Key, Row, TableName, TableNo,
    TableSchema, Tx,
};
use smallvec::SmallVec;

use super::error::{MappingError, Place, did_you_mean, unknown};
use super::expression::{self, dotted_names};
use super::shadow;
use super::spec::{MappingSpec, RuleKind};
use crate::state::KeyBytes;

/// So many rows are joined to one at most; a record with more has no value there that can be
/// read, and is skipped for it.
pub const MAX_JOINED: usize = 10_000;

/// What stands in place of more rows than [`MAX_JOINED`]: no list.
const TOO_MANY: &[u8] = b"too many rows";

/// A table whose rows are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedSpec {
    /// What rules call it.
    pub name: String,
    /// Which table.
    pub table: TableName,
    /// Its columns that are equal to columns of the main table: pairs of both, never empty.
    pub on: Vec<(String, String)>,
    /// Whether any number of its rows belong to one record.
    pub many: bool,
    /// The columns that are kept: what rules use, unless they are named.
    pub columns: Vec<String>,
}

/// Whether rules can call a related table so: a name that is none of the language's own.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=63).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name != "row"
        && !expression::is_reserved(name)
}

/// The columns of related tables that a mapping uses, by the names of the tables; sorted.
pub fn used_columns(spec: &MappingSpec, tables: &[&str]) -> Vec<Vec<String>> {
    let mut used = vec![Vec::new(); tables.len()];
    let mut add = |name: &str| {
        if let Some((table, column)) = name.split_once('.')
            && let Some(at) = tables.iter().position(|t| *t == table)
        {
            used[at].push(column.to_owned());
        }
    };
    for rule in &spec.rules {
        match &rule.kind {
            RuleKind::Column(column) => add(column),
            RuleKind::Columns(columns) => columns.iter().for_each(|column| add(column)),
            RuleKind::Expr(source) => dotted_names(source).iter().for_each(|name| add(name)),
            RuleKind::Constant(_) => {}
        }
    }
    if let Some(source) = &spec.scope {
        dotted_names(source).iter().for_each(|name| add(name));
    }
    for (_, column) in &spec.changed {
        add(column);
    }
    for columns in &mut used {
        columns.sort_unstable();
        columns.dedup();
    }
    used
}

/// What a row says of a join value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinValue {
    /// It has this one.
    Value(KeyBytes),
    /// A column is null: nothing is joined.
    Null,
    /// It is as it was before.
    Unchanged,
    /// A part of it changed, and a part is not known.
    Unknown,
}

impl JoinValue {
    fn of<'a>(cells: impl Iterator<Item = (Cell<'a>, Class)>) -> JoinValue {
        let mut key = Key::new();
        let mut part = SmallVec::<[u8; 32]>::new();
        let (mut known, mut open) = (0, 0);
        let mut is_null = false;
        for (cell, class) in cells {
            match cell {
                Cell::Value(text) => {
                    known += 1;
                    part.clear();
                    push_part(class, text, &mut part);
                    key.push(&part);
                }
                Cell::Null => {
                    known += 1;
                    is_null = true;
                }
                Cell::Unchanged | Cell::Missing => open += 1,
            }
        }
        match (open, known) {
            _ if is_null => JoinValue::Null,
            (0, _) => JoinValue::Value(SmallVec::from_slice(key.as_bytes())),
            (_, 0) => JoinValue::Unchanged,
            _ => JoinValue::Unknown,
        }
    }
}

/// Appends a value as it is compared: numbers without what does not count, texts without
/// spaces at their end, everything else as it is.
fn push_part(class: Class, text: &[u8], out: &mut SmallVec<[u8; 32]>) {
    let text = match class {
        Class::Text | Class::Other => {
            let end = text.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
            &text[..end]
        }
        Class::Int | Class::Decimal | Class::Float => {
            let text = match text.contains(&b'.') && !text.contains(&b'e') {
                true => {
                    let end = text.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1);
                    let text = &text[..end];
                    text.strip_suffix(b".").unwrap_or(text)
                }
                false => text,
            };
            match text {
                b"-0" => b"0",
                other => other,
            }
        }
        _ => text,
    };
    out.extend_from_slice(text);
}

/// A cell that is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinedCell {
    /// Null.
    Null,
    /// It is not known.
    Missing,
    /// It is as it was before.
    Unchanged,
    /// Canonical text.
    Value(Vec<u8>),
}

impl JoinedCell {
    /// As a cell of a row.
    pub fn as_cell(&self) -> Cell<'_> {
        match self {
            JoinedCell::Null => Cell::Null,
            JoinedCell::Missing => Cell::Missing,
            JoinedCell::Unchanged => Cell::Unchanged,
            JoinedCell::Value(text) => Cell::Value(text),
        }
    }
}

/// The rows of related tables.
pub trait RelatedRows {
    /// Why they cannot be read.
    type Error;

    /// Shows the kept cells ([`RelatedReader::cells`]) of a table's rows that have a join
    /// value, in the order of their keys, as far as they are wanted. `false` when it is not
    /// known which rows the table has.
    fn rows(
        &mut self,
        table: TableNo,
        joined: &[u8],
        show: &mut dyn FnMut(&[u8]) -> Shown,
    ) -> Result<bool, Self::Error>;
}

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The next one, if there is one.
    More,
    /// No more.
    Enough,
}

/// Reads the rows of one related table, under one schema of it.
///
/// What is kept of a row are the columns that are wanted and, behind them, those that it is
/// joined by: so an image that has a part of them only is completed from what is kept.
#[derive(Clone, Debug)]
pub struct RelatedReader {
    /// Places of the kept cells; none for a column that is gone.
    cells: Vec<Option<usize>>,
    /// Classes of the last of them, by which rows are joined.
    on: Vec<Class>,
}

/// What is kept of a related row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedImage {
    /// Its join value; none when that is null or not known.
    pub joined: Option<KeyBytes>,
    /// Its kept cells.
    pub cells: Vec<u8>,
}

impl RelatedReader {
    /// For rows of a schema.
    pub fn new(spec: &RelatedSpec, schema: &TableSchema) -> RelatedReader {
        let on = spec.on.iter().map(|(column, _)| column);
        let class = |at: Option<usize>| at.map_or(Class::Other, |at| schema.columns[at].class);
        RelatedReader {
            cells: spec
                .columns
                .iter()
                .chain(on.clone())
                .map(|column| schema.position(column))
                .collect(),
            on: on.map(|column| class(schema.position(column))).collect(),
        }
    }

    /// Whether rows can be joined at present.
    fn joins(&self) -> bool {
        let on = self.cells.len() - self.on.len();
        self.cells[on..].iter().all(Option::is_some)
    }

    /// What is kept of a row. `stored` is what is kept of it already: what the row does not
    /// carry is taken from there.
    pub fn image(&self, row: &Row<'_>, stored: Option<&[u8]>) -> RelatedImage {
        let known = stored.and_then(|stored| shadow::decode_cells(stored).ok());
        let before = |at: usize| known.as_ref().and_then(|known| known.get(at).copied());
        let cells = self.cells.iter().enumerate().map(|(at, column)| {
            match column.map(|column| row.cell(column)) {
                None => Cell::Missing,
                Some(Cell::Unchanged | Cell::Missing) => before(at).unwrap_or(Cell::Missing),
                Some(cell) => cell,
            }
        });
        let cells: SmallVec<[Cell<'_>; 16]> = cells.collect();
        let on = cells[cells.len() - self.on.len()..].iter().copied();
        let joined = match JoinValue::of(on.zip(self.on.iter().copied())) {
            JoinValue::Value(value) => Some(value),
            JoinValue::Null | JoinValue::Unchanged | JoinValue::Unknown => None,
        };
        let mut kept = Vec::new();
        shadow::encode_cells(&cells, |_| false, &mut kept);
        RelatedImage {
            joined,
            cells: kept,
        }
    }
}

/// How the rows of a main table are joined, under one schema of each table.
#[derive(Debug)]
pub struct Join {
    schema: Arc<TableSchema>,
    main_columns: usize,
    tables: Vec<JoinedTable>,
    readers: Vec<RelatedReader>,
}

#[derive(Debug)]
struct JoinedTable {
    many: bool,
    /// The main table's columns; none while nothing can be joined.
    on: Option<Vec<(usize, Class)>>,
    /// The first virtual column.
    first: usize,
    /// For each virtual column, its place among the kept cells.
    cells: Vec<usize>,
}

impl Join {
    /// For these schemas: that of the main table, and that of each related one in their order.
    ///
    /// # Errors
    /// When a column of the main table has the name of a virtual one.
    pub fn new(
        specs: &[RelatedSpec],
        main: &TableSchema,
        related: &[Arc<TableSchema>],
    ) -> Result<Join, Vec<MappingError>> {
        let mut columns = main.columns.clone();
        let mut tables = Vec::with_capacity(specs.len());
        let mut errors = Vec::new();
        for (number, (spec, schema)) in specs.iter().zip(related).enumerate() {
            if main.position(&spec.name).is_some() {
                errors.push(MappingError {
                    place: Place::Related(number),
                    rule: spec.name.clone(),
                    found: format!("the name of a column of {}", main.table),
                    expected: "a name that no column has".to_owned(),
                    suggestion: Some("give the related table another name".to_owned()),
                });
            }
            let own = spec.on.iter().map(|(_, column)| {
                let at = main.position(column)?;
                Some((at, main.columns[at].class))
            });
            let reader = RelatedReader::new(spec, schema);
            let on = own.collect::<Option<Vec<_>>>().filter(|_| reader.joins());
            let first = columns.len();
            let mut cells = Vec::new();
            for (at, name) in spec.columns.iter().enumerate().filter(|_| on.is_some()) {
                let Some(found) = schema.position(name).map(|at| &schema.columns[at]) else {
                    continue;
                };
                let virtual_name = format!("{}.{name}", spec.name);
                if main.position(&virtual_name).is_some() {
                    errors.push(MappingError {
                        place: Place::Related(number),
                        rule: spec.name.clone(),
                        found: format!("a column `{virtual_name}` of {}", main.table),
                        expected: "no column with the name of a related one".to_owned(),
                        suggestion: Some("give the related table another name".to_owned()),
                    });
                }
                columns.push(Column {
                    name: virtual_name,
                    class: if spec.many { Class::List } else { found.class },
                    type_name: match spec.many {
                        true => format!("list of {}", found.type_name),
                        false => found.type_name.clone(),
                    },
                    nullable: true,
                });
                cells.push(at);
            }
            tables.push(JoinedTable {
                many: spec.many,
                on,
                first,
                cells,
            });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let readers = specs.iter().zip(related);
        Ok(Join {
            schema: Arc::new(TableSchema {
                table: main.table.clone(),
                columns,
                key: main.key.clone(),
            }),
            main_columns: main.columns.len(),
            tables,
            readers: readers.map(|(s, t)| RelatedReader::new(s, t)).collect(),
        })
    }

    /// What is wrong with the tables themselves: columns that do not exist, each with its
    /// table. For a first look; a column that goes later pauses what uses it.
    pub fn flaws(
        specs: &[RelatedSpec],
        main: &TableSchema,
        related: &[Arc<TableSchema>],
    ) -> Vec<MappingError> {
        let mut flaws = Vec::new();
        for (number, (spec, schema)) in specs.iter().zip(related).enumerate() {
            let own = spec.on.iter().map(|(_, column)| (main, column));
            let theirs = spec.on.iter().map(|(column, _)| column);
            let theirs = theirs
                .chain(&spec.columns)
                .map(|column| (&**schema, column));
            for (table, column) in own.chain(theirs) {
                if table.position(column).is_some() {
                    continue;
                }
                let names = table.columns.iter().map(|c| c.name.as_str());
                flaws.push(MappingError {
                    place: Place::Related(number),
                    rule: spec.name.clone(),
                    found: unknown("column", column),
                    expected: format!("a column of {}", table.table),
                    suggestion: did_you_mean(column, names),
                });
            }
        }
        flaws
    }

    /// Of tables with one row for each: the names of those whose rows may match more than
    /// once as far as their keys say, so that the lowest key counts.
    pub fn ambiguous<'s>(
        specs: &'s [RelatedSpec],
        related: &[Arc<TableSchema>],
    ) -> impl Iterator<Item = &'s RelatedSpec> {
        let unique: Vec<bool> = specs
            .iter()
            .zip(related)
            .map(|(spec, schema)| {
                let mut key = schema.key.iter().map(|at| &schema.columns[*at].name);
                key.all(|name| spec.on.iter().any(|(column, _)| column == name))
            })
            .collect();
        let specs = specs.iter().zip(unique);
        specs.filter_map(|(spec, unique)| (!spec.many && !unique).then_some(spec))
    }

    /// The joined rows' schema.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// How many related tables there are.
    pub fn tables(&self) -> impl Iterator<Item = TableNo> + use<> {
        (1..=self.tables.len()).map(TableNo::at)
    }

    /// How the rows of a related table are read.
    pub fn reader(&self, table: TableNo) -> Option<&RelatedReader> {
        self.readers.get(table.index().checked_sub(1)?)
    }

    /// Whether a column of the joined row is a virtual one.
    pub fn is_virtual(&self, column: usize) -> bool {
        column >= self.main_columns
    }

    /// The columns of the main table that are needed to join.
    pub fn own_columns(&self) -> impl Iterator<Item = usize> {
        let on = self.tables.iter().filter_map(|t| t.on.as_ref());
        on.flatten().map(|(at, _)| *at)
    }

    /// What a row says of the join value of a related table. `cell` gives the cells of the
    /// main table's columns.
    pub fn value<'a>(&self, table: TableNo, cell: impl Fn(usize) -> Cell<'a>) -> JoinValue {
        let joined = table
            .index()
            .checked_sub(1)
            .and_then(|t| self.tables.get(t));
        match joined.and_then(|t| t.on.as_ref()) {
            Some(on) => JoinValue::of(on.iter().map(|(at, class)| (cell(*at), *class))),
            None => JoinValue::Unchanged,
        }
    }

    /// The virtual cells of a related table for a join value, and the index of the first.
    /// The number of rows that matched where one is to be is told.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn cells<R: RelatedRows>(
        &self,
        table: TableNo,
        value: &JoinValue,
        rows: &mut R,
    ) -> Result<Cells, R::Error> {
        let Some(joined) = table
            .index()
            .checked_sub(1)
            .and_then(|t| self.tables.get(t))
        else {
            return Ok(Cells::default());
        };
        let columns = joined.cells.len();
        let all = |cell: JoinedCell| vec![cell; columns];
        let empty = match joined.many {
            true => JoinedCell::Value(b"[]".to_vec()),
            false => JoinedCell::Null,
        };
        let mut matched = 0;
        let cells = match value {
            _ if joined.on.is_none() => Vec::new(),
            JoinValue::Unchanged | JoinValue::Unknown => all(JoinedCell::Unchanged),
            JoinValue::Null => all(empty),
            JoinValue::Value(value) => {
                let mut found: Vec<JoinedCell> = Vec::new();
                let mut lists = vec![List::default(); if joined.many { columns } else { 0 }];
                let is_known = rows.rows(table, value, &mut |kept| {
                    matched += 1;
                    let kept = shadow::decode_cells(kept).unwrap_or_default();
                    let kept = |at: &usize| kept.get(*at).copied().unwrap_or(Cell::Missing);
                    if joined.many {
                        for (list, at) in lists.iter_mut().zip(&joined.cells) {
                            list.push(kept(at));
                        }
                        return match matched > MAX_JOINED {
                            true => Shown::Enough,
                            false => Shown::More,
                        };
                    }
                    if matched == 1 {
                        found = joined.cells.iter().map(|at| owned(kept(at))).collect();
                    }
                    match matched {
                        1 => Shown::More,
                        _ => Shown::Enough,
                    }
                })?;
                match (is_known, joined.many) {
                    (false, _) => all(JoinedCell::Missing),
                    (true, true) if matched > MAX_JOINED => {
                        all(JoinedCell::Value(TOO_MANY.to_vec()))
                    }
                    (true, true) => lists.into_iter().map(List::end).collect(),
                    (true, false) if matched == 0 => all(empty),
                    (true, false) => found,
                }
            }
        };
        Ok(Cells {
            first: joined.first,
            cells,
            is_ambiguous: !joined.many && matched > 1,
        })
    }
}

/// The virtual cells of a related table.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// The index of the first of them in the joined row.
    pub first: usize,
    /// They, in their order.
    pub cells: Vec<JoinedCell>,
    /// Whether several rows matched where one is to be.
    pub is_ambiguous: bool,
}

fn owned(cell: Cell<'_>) -> JoinedCell {
    match cell {
        Cell::Null => JoinedCell::Null,
        Cell::Missing | Cell::Unchanged => JoinedCell::Missing,
        Cell::Value(text) => JoinedCell::Value(text.to_vec()),
    }
}

/// A list that is being written.
#[derive(Clone, Debug, Default)]
struct List {
    text: Vec<u8>,
    is_missing: bool,
}

impl List {
    fn push(&mut self, cell: Cell<'_>) {
        self.text
            .push(if self.text.is_empty() { b'[' } else { b',' });
        match cell {
            Cell::Null => self.text.extend_from_slice(b"null"),
            Cell::Missing | Cell::Unchanged => self.is_missing = true,
            Cell::Value(text) => {
                // A text that is not UTF-8 is no text of a list either.
                let text = String::from_utf8_lossy(text);
                if serde_json::to_writer(&mut self.text, &*text).is_err() {
                    self.is_missing = true;
                }
            }
        }
    }

    fn end(mut self) -> JoinedCell {
        if self.is_missing {
            return JoinedCell::Missing;
        }
        if self.text.is_empty() {
            self.text.push(b'[');
        }
        self.text.push(b']');
        JoinedCell::Value(self.text)
    }
}

/// Joins the changes of the main table in a batch, one after the other.
#[derive(Default)]
pub struct Joiner {
    builder: BatchBuilder,
    /// The transaction that was begun last.
    tx: Option<Tx>,
    /// What was joined by each value since a related row changed last.
    known: HashMap<(TableNo, KeyBytes), Arc<Cells>>,
    /// Whether several rows matched where one is to be.
    is_ambiguous: bool,
}

/// What came of a change that was joined.
#[derive(Debug, Default)]
pub struct JoinedChange {
    /// The join value of each related table that the new row has.
    pub values: SmallVec<[(TableNo, KeyBytes); 4]>,
    /// Whether a part of a join value changed and a part is not known: the row is joined as
    /// before, and has to be read again.
    pub is_unknown: bool,
}

impl Joiner {
    /// Joins a change of the main table.
    ///
    /// # Errors
    /// When related rows cannot be read.
    pub fn push<R: RelatedRows>(
        &mut self,
        join: &Join,
        change: &Change<'_>,
        rows: &mut R,
    ) -> Result<JoinedChange, R::Error> {
        let tx = change.tx();
        if self.tx.as_ref() != Some(tx) {
            self.tx = Some(tx.clone());
            self.builder.tx(tx.clone());
        }
        let mut said = JoinedChange::default();
        let mut virtual_cells: SmallVec<[Arc<Cells>; 4]> = SmallVec::new();
        let after = change.after();
        if let Some(row) = &after {
            for table in join.tables() {
                let value = join.value(table, |at| row.cell(at));
                said.is_unknown |= value == JoinValue::Unknown;
                let JoinValue::Value(joined) = &value else {
                    virtual_cells.push(Arc::new(join.cells(table, &value, rows)?));
                    continue;
                };
                let place = (table, joined.clone());
                let cells = match self.known.get(&place) {
                    Some(cells) => Arc::clone(cells),
                    None => {
                        let cells = Arc::new(join.cells(table, &value, rows)?);
                        self.is_ambiguous |= cells.is_ambiguous;
                        self.known.insert(place.clone(), Arc::clone(&cells));
                        cells
                    }
                };
                virtual_cells.push(cells);
                said.values.push(place);
            }
        }
        let table = self.builder.table(TableNo::MAIN, &join.schema);
        self.builder.begin(table, change.op(), change.ordinal());
        match change.before() {
            Before::None => {}
            Before::Key(row) => {
                self.before(join, &row);
                self.builder.before_is_key();
            }
            Before::Full(row) => {
                self.before(join, &row);
                self.builder.before_is_full();
            }
        }
        if let Some(row) = &after {
            for at in 0..join.main_columns {
                self.cell(row.cell(at));
            }
            for cells in &virtual_cells {
                for cell in &cells.cells {
                    self.cell(cell.as_cell());
                }
            }
        }
        self.builder.finish(after.is_some(), change.size_bytes());
        Ok(said)
    }

    /// The old row, as far as it goes: what was joined to it is not in the log.
    fn before(&mut self, join: &Join, row: &Row<'_>) {
        for at in 0..join.main_columns {
            self.cell(row.cell(at));
        }
        for _ in join.main_columns..join.schema.columns.len() {
            self.builder.cell_missing();
        }
    }

    fn cell(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Null => self.builder.cell_null(),
            Cell::Missing => self.builder.cell_missing(),
            Cell::Unchanged => self.builder.cell_unchanged(),
            Cell::Value(text) => self.builder.cell_bytes(text),
        }
    }

    /// A related row has changed: what was joined before may be another now.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Whether several rows matched where one is to be.
    pub fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// The joined changes, at the cursor of their batch.
    pub fn finish(self, cursor: Cursor) -> Batch {
        self.builder.build(cursor)
    }
}
