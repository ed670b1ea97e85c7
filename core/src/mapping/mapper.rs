//! The compiled mapping, applied to rows.
//!
//! The four states of a cell stay apart to the end: a value is copied, null means what the
//! rule says that null means, and a cell that is unchanged or missing is looked up in the
//! stored shadow of the same record. What is in neither says nothing, so the attribute
//! keeps what it has; no path leads from a missing cell to a cleared attribute, nor out of
//! scope. Such a row is marked incomplete and the source is asked again.
//!
//! A row needs its shadow when any cell is not known that a rule, the scope or the new
//! shadow needs. It is deferred then, and deciding that reads the cells' states only, so a
//! row is never mapped half.
//!
//! A row that fails leaves no fields behind: the record is applied whole or not at all. Its
//! shadow is kept even so, because it is what a corrected mapping is tried on.
//!
//! Mapping is a pure function of the cells, so mapping a stored shadow gives what mapping
//! the row gave (property test), but for redacted columns.

use hashbrown::HashMap;
use rollcall_contract::{Cell, Class, Row, TableSchema};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::canonical::Target;
use super::drift::PausedRule;
use super::error::MappingError;
use super::expression::{Expression, Stop};
use super::moment;
use super::reference;
use super::shadow::{self, Cells, Shadow};
use super::spec::OnNull;
use crate::attribute::{AttrId, AttrType};
use crate::document::Moment;
use crate::mapped::{MappedRows, Outcome, Strength};
use crate::reason::SkipReason;

/// Where a compiled rule takes its value from.
#[derive(Debug)]
pub(super) enum Source {
    Column {
        index: usize,
        class: Class,
    },
    /// Together the key of another record: of each part the column, and the class of the
    /// key column that it stands for.
    Key(Vec<(usize, Class)>),
    Expr(Expression),
    Constant(Vec<u8>),
    /// What the rule used is gone: it keeps what it gave.
    Paused,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) number: u16,
    pub(super) attribute: AttrId,
    pub(super) strength: Strength,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) default: Option<Vec<u8>>,
    pub(super) on_null: OnNull,
}

/// A compiled mapping; see [`Mapper::compile`].
#[derive(Debug)]
pub struct Mapper {
    /// The number of `columns` among the schemas of this source.
    pub(super) version: u32,
    /// Names and classes, in the order of rows.
    pub(super) columns: Vec<(String, Class)>,
    /// In ascending order of attributes.
    pub(super) rules: Vec<Rule>,
    pub(super) scope: Option<Expression>,
    /// One for each column.
    pub(super) redacted: Vec<bool>,
    /// Whether any column is redacted.
    pub(super) redacts: bool,
    /// Columns that a row must show, or its shadow: used by a rule or the scope, or stored.
    pub(super) needed: Vec<bool>,
    pub(super) max_value_bytes: usize,
    /// Of the mapping as it was asked for.
    pub(super) fingerprint: u64,
    /// Part of every row's hash, so that a row counts as changed when its mapping did.
    pub(super) hash_seed: u64,
    /// For people, by rule number.
    pub(super) texts: Vec<String>,
    /// The same of the scope.
    pub(super) scope_text: Option<String>,
    pub(super) warnings: Vec<MappingError>,
    /// For an attribute, the column that says when its value was changed.
    pub(super) changed: Vec<(AttrId, usize)>,
    pub(super) paused: Vec<PausedRule>,
    /// For older schemas: where each present column was.
    pub(super) older: HashMap<u32, Vec<Option<usize>>>,
}

/// The cells of one stored row.
pub type StoredCells<'a> = Cells<'a>;

/// What becomes of a row of which a needed value is nowhere to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Incomplete {
    /// The fields concerned keep what they have.
    Keeps,
    /// The whole row waits.
    Defers,
}

/// Ends a row that waits, leaving none of the fields added since a mark.
fn defer(fields: usize, out: &mut MappedRows) {
    let end = out.mark();
    out.truncate_fields(fields);
    out.finish_row(Outcome::Deferred, fields, end..end, 0);
}

/// Whether a cell does not say what the row has there.
fn is_open(cell: &Cell<'_>) -> bool {
    matches!(cell, Cell::Unchanged | Cell::Missing)
}

/// What a rule says.
enum Said {
    /// The bytes appended last.
    Value,
    Null,
    Nothing,
    Paused,
}

impl Mapper {
    /// Makes an older schema of the table known, so that shadows written under it can be
    /// read: columns are found by name, and count only while their class is the same, since
    /// the canonical text of another class is another text.
    pub fn learn_schema(&mut self, version: u32, schema: &TableSchema) {
        let places = self.columns.iter().map(|(name, class)| {
            let at = schema.position(name)?;
            (schema.columns[at].class == *class).then_some(at)
        });
        let places = places.collect();
        if version != self.version {
            self.older.insert(version, places);
        }
    }

    /// Whether shadows written under a schema can be read.
    pub fn knows_schema(&self, version: u32) -> bool {
        version == self.version || self.older.contains_key(&version)
    }

    /// The schema number that new shadows carry.
    pub fn schema_version(&self) -> u32 {
        self.version
    }

    /// Names the mapping: another mapping has another fingerprint.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The columns that decide whether a record is in scope and what values it has for
    /// these attributes, in ascending order.
    pub fn columns_of(&self, attributes: &[AttrId]) -> Vec<usize> {
        let mut columns: Vec<usize> = self
            .scope
            .iter()
            .flat_map(|scope| scope.columns().iter().copied())
            .collect();
        for rule in self
            .rules
            .iter()
            .filter(|r| attributes.contains(&r.attribute))
        {
            match &rule.source {
                Source::Column { index, .. } => columns.push(*index),
                Source::Key(parts) => columns.extend(parts.iter().map(|(index, _)| *index)),
                Source::Expr(e) => columns.extend(e.columns().iter().copied()),
                Source::Constant(_) | Source::Paused => {}
            }
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Remarks on the mapping that are no errors.
    pub fn warnings(&self) -> &[MappingError] {
        &self.warnings
    }

    /// Rules that keep what they gave, because the table changed under them.
    pub fn paused(&self) -> &[PausedRule] {
        &self.paused
    }

    /// Names a rule that was compiled as paused. A row counts as changed when a rule is
    /// paused, or is not any more.
    pub(super) fn pause(&mut self, rule: PausedRule) {
        self.hash_seed = self
            .hash_seed
            .rotate_left(7)
            .wrapping_add(u64::from(rule.attribute.0) + 1);
        self.paused.push(rule);
    }

    /// The first rule that sets an attribute.
    pub fn rule_of(&self, attribute: AttrId) -> Option<u16> {
        let rule = self.rules.iter().find(|r| r.attribute == attribute);
        rule.map(|r| r.number)
    }

    /// A rule as people read it: `email = column emp_email`.
    pub fn rule_text(&self, rule: u16) -> Option<&str> {
        self.texts.get(usize::from(rule)).map(String::as_str)
    }

    /// The scope as people read it: `scope = expression kind != 'guest'`.
    pub fn scope_text(&self) -> Option<&str> {
        self.scope_text.as_deref()
    }

    /// The attribute that a rule sets.
    pub fn rule_attribute(&self, rule: u16) -> Option<AttrId> {
        let found = self.rules.iter().find(|r| r.number == rule);
        found.map(|r| r.attribute)
    }

    /// Maps one row and adds exactly one row to `out`.
    ///
    /// `stored` is the shadow of the same record: `None` when it was not looked up yet, and
    /// the row is deferred if it turns out to be needed; an empty slice when there is none.
    /// A shadow that is damaged or of an unknown schema counts as none.
    pub fn map(&self, row: &Row<'_>, stored: Option<&[u8]>, out: &mut MappedRows) {
        let mut cells: Cells<'_> = (0..self.columns.len()).map(|c| row.cell(c)).collect();
        if self.needs_shadow(&cells) {
            let Some(stored) = stored else {
                return defer(out.field_mark(), out);
            };
            let known = self.known(stored);
            for (column, cell) in cells.iter_mut().enumerate() {
                if is_open(cell) {
                    *cell = known
                        .as_ref()
                        .map_or(Cell::Missing, |known| known.get(column));
                }
            }
        }
        self.finish(&cells, Incomplete::Keeps, out);
    }

    /// The hash that mapping a row would give it; none when that needs the stored shadow.
    /// `scratch` is overwritten.
    pub fn hash(&self, row: &Row<'_>, scratch: &mut Vec<u8>) -> Option<u64> {
        let cells: Cells<'_> = (0..self.columns.len()).map(|c| row.cell(c)).collect();
        if self.needs_shadow(&cells) {
            return None;
        }
        scratch.clear();
        shadow::encode_cells(&cells, |_| false, scratch);
        Some(xxh3_64_with_seed(scratch, self.fingerprint))
    }

    fn needs_shadow(&self, cells: &[Cell<'_>]) -> bool {
        let mut needed = cells.iter().zip(&self.needed);
        needed.any(|(cell, needed)| *needed && is_open(cell))
    }

    /// Maps a stored shadow again, and adds exactly one row to `out`. Redacted columns are
    /// missing in it, so their rules keep what they said, and the hash is not that of the
    /// whole row.
    pub fn map_shadow(&self, shadow: &[u8], out: &mut MappedRows) {
        self.map_stored(shadow, Incomplete::Keeps, out);
    }

    /// As [`Mapper::map_shadow`], but a row that would be incomplete is deferred: for records
    /// that were never applied, of which nothing can be kept.
    pub fn map_shadow_or_defer(&self, shadow: &[u8], out: &mut MappedRows) {
        self.map_stored(shadow, Incomplete::Defers, out);
    }

    /// What a stored row has in each column of the present schema; none when it cannot be
    /// read. For [`Mapper::map_cells`].
    pub fn stored_cells<'a>(&'a self, shadow: &'a [u8]) -> Option<StoredCells<'a>> {
        let known = self.known(shadow)?;
        Some((0..self.columns.len()).map(|c| known.get(c)).collect())
    }

    /// Maps a row that is given cell by cell, one for each column, and adds exactly one row to
    /// `out`.
    pub fn map_cells(&self, cells: &[Cell<'_>], out: &mut MappedRows) {
        self.finish(cells, Incomplete::Keeps, out);
    }

    fn map_stored(&self, shadow: &[u8], if_incomplete: Incomplete, out: &mut MappedRows) {
        let cells: Cells<'_> = match self.known(shadow) {
            Some(known) => (0..self.columns.len()).map(|c| known.get(c)).collect(),
            None => self.columns.iter().map(|_| Cell::Missing).collect(),
        };
        self.finish(&cells, if_incomplete, out);
    }

    /// When a stored row says that its value of an attribute was changed: none when no column
    /// is asked for that, and none within when the column has no such value.
    pub fn changed(&self, attribute: AttrId, shadow: &[u8]) -> Option<Option<Moment>> {
        let (_, column) = self.changed.iter().find(|(a, _)| *a == attribute)?;
        let known = self.known(shadow);
        Some(known.and_then(|known| match known.get(*column) {
            Cell::Value(text) => moment::parse(std::str::from_utf8(text).ok()?),
            _ => None,
        }))
    }

    fn known<'a>(&'a self, stored: &'a [u8]) -> Option<Known<'a>> {
        let shadow = Shadow::decode(stored).ok()?;
        let places = if shadow.version() == self.version {
            None
        } else {
            Some(self.older.get(&shadow.version())?.as_slice())
        };
        Some(Known { shadow, places })
    }

    fn finish(&self, cells: &[Cell<'_>], if_incomplete: Incomplete, out: &mut MappedRows) {
        let start = out.mark();
        let hash = if self.redacts {
            shadow::encode_cells(cells, |_| false, out.bytes());
            let hash = xxh3_64_with_seed(out.since(start), self.hash_seed);
            out.bytes().truncate(start);
            shadow::encode(self.version, cells, |c| self.redacted[c], out.bytes());
            hash
        } else {
            // The shadow holds every cell: it is hashed as it is written.
            shadow::encode_version(self.version, out.bytes());
            let behind_version = out.mark();
            shadow::encode_cells(cells, |_| false, out.bytes());
            xxh3_64_with_seed(out.since(behind_version), self.hash_seed)
        };
        let end = out.mark();
        let fields = out.field_mark();
        let mut incomplete = false;
        let outcome = self.apply(cells, &mut incomplete, out);
        if incomplete && if_incomplete == Incomplete::Defers {
            out.bytes().truncate(start);
            return defer(fields, out);
        }
        if outcome != Outcome::Mapped {
            out.truncate_fields(fields);
            out.bytes().truncate(end);
        }
        out.finish_row(outcome, fields, start..end, hash);
        if incomplete {
            out.mark_incomplete();
        }
    }

    fn apply(&self, cells: &[Cell<'_>], incomplete: &mut bool, out: &mut MappedRows) -> Outcome {
        if let Some(scope) = &self.scope {
            let failed = |reason| Outcome::Failed { reason, rule: None };
            match scope.evaluate(cells, as_scope) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Outcome::OutOfScope,
                Ok(None) => return failed(SkipReason::ExpressionFailed),
                Err(Stop::Missing) => {
                    *incomplete = true;
                    return failed(SkipReason::Incomplete);
                }
                Err(Stop::Bad) => return failed(SkipReason::BadValue),
                Err(Stop::Failed(_)) => return failed(SkipReason::ExpressionFailed),
            }
        }
        for rule in &self.rules {
            let mark = out.mark();
            let said = match rule.value(cells, out.bytes()) {
                Ok(said) => said,
                Err(reason) => {
                    return Outcome::Failed {
                        reason,
                        rule: Some(rule.number),
                    };
                }
            };
            let (attribute, number, strength) = (rule.attribute, rule.number, rule.strength);
            match (said, &rule.default, rule.on_null) {
                (Said::Value, _, _) => {
                    if out.mark() - mark > self.max_value_bytes {
                        return Outcome::Failed {
                            reason: SkipReason::TooLong,
                            rule: Some(number),
                        };
                    }
                    match rule.target.kind {
                        AttrType::Reference => {
                            out.reference_since(mark, attribute, number, strength);
                        }
                        _ => out.value_since(mark, attribute, number, strength),
                    }
                }
                (Said::Null, Some(default), _) => {
                    out.bytes().extend_from_slice(default);
                    out.value_since(mark, attribute, number, strength);
                }
                (Said::Null, None, OnNull::Clear | OnNull::Default) => {
                    out.clear_field(attribute, number, strength);
                }
                (Said::Paused, _, _) | (Said::Null, None, OnNull::Keep) => {
                    out.keep_field(attribute, number, strength);
                }
                (Said::Nothing, _, _) => {
                    *incomplete = true;
                    out.keep_field(attribute, number, strength);
                }
            }
        }
        Outcome::Mapped
    }
}

/// A stored row, seen through the present schema.
struct Known<'a> {
    shadow: Shadow<'a>,
    places: Option<&'a [Option<usize>]>,
}

impl<'a> Known<'a> {
    fn get(&self, column: usize) -> Cell<'a> {
        match self.places {
            None => self.shadow.cell(column),
            Some(places) => match places.get(column).copied().flatten() {
                Some(at) => self.shadow.cell(at),
                None => Cell::Missing,
            },
        }
    }
}

impl Rule {
    #[inline]
    fn value(&self, cells: &[Cell<'_>], out: &mut Vec<u8>) -> Result<Said, SkipReason> {
        let pushed = match &self.source {
            Source::Column { index, class } => match cells.get(*index) {
                Some(Cell::Value(text)) => self.target.push_cell(*class, text, out)?,
                Some(Cell::Null) => false,
                _ => return Ok(Said::Nothing),
            },
            Source::Key(parts) => match push_key(parts, cells, out)? {
                Some(pushed) => pushed,
                None => return Ok(Said::Nothing),
            },
            Source::Constant(bytes) => {
                out.extend_from_slice(bytes);
                true
            }
            Source::Paused => return Ok(Said::Paused),
            Source::Expr(expression) => {
                match expression.evaluate(cells, |value| self.target.push_cel(value, out)) {
                    Ok(pushed) => pushed?,
                    Err(Stop::Missing) => return Ok(Said::Nothing),
                    Err(Stop::Bad) => return Err(SkipReason::BadValue),
                    Err(Stop::Failed(_)) => return Err(SkipReason::ExpressionFailed),
                }
            }
        };
        Ok(if pushed { Said::Value } else { Said::Null })
    }
}

/// Appends a key whose parts are these cells: `false` when one of them is null, or all of
/// them are blank; none when one of them is not known.
fn push_key(
    parts: &[(usize, Class)],
    cells: &[Cell<'_>],
    out: &mut Vec<u8>,
) -> Result<Option<bool>, SkipReason> {
    let before = out.len();
    let (mut is_null, mut is_blank) = (false, true);
    for (index, class) in parts {
        match cells.get(*index) {
            Some(Cell::Value(value)) => {
                let text = std::str::from_utf8(value).map_err(|_| SkipReason::BadValue)?;
                is_blank &= text.trim().is_empty();
                reference::push_part(text, *class, out)?;
            }
            Some(Cell::Null) => is_null = true,
            _ => return Ok(None),
        }
    }
    if is_null || is_blank {
        out.truncate(before);
        return Ok(Some(false));
    }
    Ok(Some(true))
}

/// Whether a value of the scope's expression means "in"; none when it is no answer.
fn as_scope(value: &(dyn cel::common::value::Val + '_)) -> Option<bool> {
    use cel::common::types::{CelBool, CelNull};
    if value.downcast_ref::<CelNull>().is_some() {
        return Some(false);
    }
    value.downcast_ref::<CelBool>().map(|b| *b.inner())
}
