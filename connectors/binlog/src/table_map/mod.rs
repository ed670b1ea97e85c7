//! TABLE_MAP: the table of the rows that follow, and what is known of its columns.
//!
//! A table map always says how the bytes of each column are laid out. What they mean
//! (names, signs, character sets, members of enumerations, the key) is metadata that the
//! server writes as `binlog_row_metadata` says: with `FULL` a map describes itself, which is
//! the only description that cannot be of another version of the table than its rows. With
//! less, fields are none here, and whoever reads the rows has to bring them from elsewhere
//! ([`crate::types::ColumnFacts`]) or refuse the table.
//!
//! The same map is sent before nearly every statement. [`TableMaps`] keeps the last one of
//! each table and gives it again when its bytes are the same, so a map costs a comparison
//! and no allocation, and equal maps are one allocation that can be compared by its address.

mod metadata;

use std::sync::Arc;

use hashbrown::HashMap;

use crate::error::DecodeError;
use crate::event::Flavour;
use crate::fields::Fields;

pub(crate) const WHAT: &str = "a TABLE_MAP event";

/// The number that a TABLE_MAP gives to its table, for the rows events that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u64);

/// `enum_field_types` of both servers, as rows carry them: the type under which a CHAR, ENUM
/// or SET hides in a STRING is taken out already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeCode(pub u8);

#[allow(missing_docs, reason = "the server's names")]
impl TypeCode {
    pub const DECIMAL: TypeCode = TypeCode(0);
    pub const TINY: TypeCode = TypeCode(1);
    pub const SHORT: TypeCode = TypeCode(2);
    pub const LONG: TypeCode = TypeCode(3);
    pub const FLOAT: TypeCode = TypeCode(4);
    pub const DOUBLE: TypeCode = TypeCode(5);
    pub const NULL: TypeCode = TypeCode(6);
    pub const TIMESTAMP: TypeCode = TypeCode(7);
    pub const LONGLONG: TypeCode = TypeCode(8);
    pub const INT24: TypeCode = TypeCode(9);
    pub const DATE: TypeCode = TypeCode(10);
    pub const TIME: TypeCode = TypeCode(11);
    pub const DATETIME: TypeCode = TypeCode(12);
    pub const YEAR: TypeCode = TypeCode(13);
    pub const NEWDATE: TypeCode = TypeCode(14);
    pub const VARCHAR: TypeCode = TypeCode(15);
    pub const BIT: TypeCode = TypeCode(16);
    pub const TIMESTAMP2: TypeCode = TypeCode(17);
    pub const DATETIME2: TypeCode = TypeCode(18);
    pub const TIME2: TypeCode = TypeCode(19);
    pub const BLOB_COMPRESSED: TypeCode = TypeCode(140);
    pub const VARCHAR_COMPRESSED: TypeCode = TypeCode(141);
    pub const VECTOR: TypeCode = TypeCode(242);
    pub const JSON: TypeCode = TypeCode(245);
    pub const NEWDECIMAL: TypeCode = TypeCode(246);
    pub const ENUM: TypeCode = TypeCode(247);
    pub const SET: TypeCode = TypeCode(248);
    pub const TINY_BLOB: TypeCode = TypeCode(249);
    pub const MEDIUM_BLOB: TypeCode = TypeCode(250);
    pub const LONG_BLOB: TypeCode = TypeCode(251);
    pub const BLOB: TypeCode = TypeCode(252);
    pub const VAR_STRING: TypeCode = TypeCode(253);
    pub const STRING: TypeCode = TypeCode(254);
    pub const GEOMETRY: TypeCode = TypeCode(255);

    fn is_numeric(self) -> bool {
        matches!(
            self,
            TypeCode::TINY
                | TypeCode::SHORT
                | TypeCode::INT24
                | TypeCode::LONG
                | TypeCode::LONGLONG
                | TypeCode::NEWDECIMAL
                | TypeCode::FLOAT
                | TypeCode::DOUBLE
        )
    }

    /// Whether the metadata about collations counts it. The servers differ in the types that
    /// they build on BLOB (`is_character_type` of both).
    fn is_character(self, flavour: Flavour) -> bool {
        match self {
            TypeCode::STRING | TypeCode::VAR_STRING | TypeCode::VARCHAR | TypeCode::BLOB => true,
            TypeCode::BLOB_COMPRESSED | TypeCode::VARCHAR_COMPRESSED | TypeCode::GEOMETRY => {
                flavour == Flavour::Mariadb
            }
            TypeCode::VECTOR => flavour == Flavour::Mysql,
            _ => false,
        }
    }

    fn is_enum_or_set(self) -> bool {
        matches!(self, TypeCode::ENUM | TypeCode::SET)
    }
}

/// One column, as far as the map describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedColumn {
    /// Its type.
    pub code: TypeCode,
    /// What the type needs to be read: a length, a precision (see [`crate::types`]).
    pub meta: u16,
    /// Whether it may be null.
    pub is_nullable: bool,
    /// Its name.
    pub name: Option<String>,
    /// Whether it has no sign.
    pub is_unsigned: Option<bool>,
    /// Its collation, which says its character set.
    pub collation: Option<u16>,
    /// The members of an ENUM or SET, in its character set.
    pub members: Option<Vec<Vec<u8>>>,
    /// The kind of geometry.
    pub geometry: Option<u8>,
    /// How many numbers a VECTOR may have.
    pub dimensions: Option<u64>,
    /// Whether `SELECT *` shows it.
    pub is_visible: Option<bool>,
}

/// One column of the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// The column's index.
    pub column: usize,
    /// How many characters of it are in the key; 0 for all.
    pub prefix: u64,
}

/// A table as its rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// The number by which rows refer to it.
    pub id: TableId,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// The columns, in the order in which rows carry them.
    pub columns: Vec<MappedColumn>,
    /// The primary key. None with less than `binlog_row_metadata = FULL`, and also when the
    /// table has none: see [`TableMap::has_names`].
    pub primary_key: Option<Vec<KeyPart>>,
    /// How many columns are JSON: partial updates have a bit for each.
    pub(crate) json_columns: usize,
}

impl TableMap {
    /// Reads the body of a TABLE_MAP event.
    ///
    /// # Errors
    /// When it is not one. Metadata of a later kind is left out.
    pub fn parse(body: &[u8], flavour: Flavour) -> Result<TableMap, DecodeError> {
        let mut f = Fields::new(WHAT, body);
        let id = TableId(f.u48()?);
        let _flags = f.u16()?;
        let database = name_with_length(&mut f)?;
        let table = name_with_length(&mut f)?;
        let count = f.lenenc_len()?;
        if count > MAX_COLUMNS {
            return Err(f.bad("more columns than a table can have"));
        }
        let codes = f.bytes(count)?;
        let meta = f.lenenc_bytes()?;
        let mut meta = Fields::new(WHAT, meta);
        let nullable = f.bytes(count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (i, &code) in codes.iter().enumerate() {
            let (code, meta) = type_and_meta(TypeCode(code), &mut meta)?;
            columns.push(MappedColumn {
                code,
                meta,
                is_nullable: nullable[i / 8] & 1 << (i % 8) != 0,
                name: None,
                is_unsigned: None,
                collation: None,
                members: None,
                geometry: None,
                dimensions: None,
                is_visible: None,
            });
        }
        if !meta.is_empty() {
            return Err(f.bad("more metadata than its columns have"));
        }
        let json_columns = columns.iter().filter(|c| c.code == TypeCode::JSON).count();
        let mut map = TableMap {
            id,
            database,
            table,
            columns,
            primary_key: None,
            json_columns,
        };
        metadata::read(&mut map, f, flavour)?;
        Ok(map)
    }

    /// The number of the table in the body of a TABLE_MAP event.
    ///
    /// # Errors
    /// When the body is too short for one.
    pub fn id_of(body: &[u8]) -> Result<TableId, DecodeError> {
        Ok(TableId(Fields::new(WHAT, body).u48()?))
    }

    /// Whether the map describes itself (`binlog_row_metadata = FULL`).
    pub fn has_names(&self) -> bool {
        self.columns.iter().all(|c| c.name.is_some())
    }
}

fn name_with_length(f: &mut Fields<'_>) -> Result<String, DecodeError> {
    let len = usize::from(f.u8()?);
    let text = f.bytes(len)?;
    let name = f.name(text)?.to_owned();
    if f.u8()? != 0 {
        return Err(f.bad("a name without its end"));
    }
    Ok(name)
}

/// `table_def::table_def` of both servers: how many bytes of metadata a type has, and in
/// which order.
fn type_and_meta(code: TypeCode, meta: &mut Fields<'_>) -> Result<(TypeCode, u16), DecodeError> {
    Ok(match code {
        TypeCode::FLOAT
        | TypeCode::DOUBLE
        | TypeCode::TINY_BLOB
        | TypeCode::MEDIUM_BLOB
        | TypeCode::LONG_BLOB
        | TypeCode::BLOB
        | TypeCode::BLOB_COMPRESSED
        | TypeCode::GEOMETRY
        | TypeCode::JSON
        | TypeCode::VECTOR
        | TypeCode::TIME2
        | TypeCode::DATETIME2
        | TypeCode::TIMESTAMP2 => (code, u16::from(meta.u8()?)),
        TypeCode::VARCHAR | TypeCode::VAR_STRING | TypeCode::VARCHAR_COMPRESSED | TypeCode::BIT => {
            (code, meta.u16()?)
        }
        // Precision and scale.
        TypeCode::NEWDECIMAL => {
            let [precision, scale] = meta.array()?;
            (code, u16::from_be_bytes([precision, scale]))
        }
        // The type that hides in it, and a length whose two highest bits stand, inverted,
        // among those of the type.
        TypeCode::STRING | TypeCode::ENUM | TypeCode::SET => {
            let [real, low] = meta.array()?;
            let high = u16::from(!real & 0x30) << 4;
            let len = high | u16::from(low);
            match TypeCode(real | 0x30) {
                real @ (TypeCode::ENUM | TypeCode::SET) => (real, len),
                _ => (TypeCode::STRING, len),
            }
        }
        _ => (code, 0),
    })
}

/// Both servers allow 4,096 and some that are hidden.
const MAX_COLUMNS: usize = 8192;

/// How many tables are kept. A server with more in use pays for reading their maps again.
const MAX_KEPT: usize = 4096;

struct Kept {
    body: Vec<u8>,
    map: Arc<TableMap>,
    /// The statement in which it came: rows of others may not refer to it.
    statement: u64,
}

/// The last map of each table.
pub struct TableMaps {
    flavour: Flavour,
    kept: HashMap<TableId, Kept>,
    statement: u64,
}

impl TableMaps {
    /// None yet. The flavour is that of the server that wrote the log
    /// ([`crate::event::FormatDescription::flavour`]).
    pub fn new(flavour: Flavour) -> Self {
        TableMaps {
            flavour,
            kept: HashMap::new(),
            statement: 0,
        }
    }

    /// Takes the body of a TABLE_MAP event in. The map is the same allocation as before
    /// when nothing of it has changed.
    ///
    /// # Errors
    /// When the body is not a table map.
    pub fn learn(&mut self, body: &[u8]) -> Result<&Arc<TableMap>, DecodeError> {
        use hashbrown::hash_map::Entry;
        let id = TableMap::id_of(body)?;
        if self.kept.len() >= MAX_KEPT && !self.kept.contains_key(&id) {
            self.kept.retain(|_, kept| kept.statement == self.statement);
        }
        let kept = match self.kept.entry(id) {
            Entry::Occupied(entry) if entry.get().body == body => entry.into_mut(),
            entry => {
                let kept = Kept {
                    body: body.to_vec(),
                    map: Arc::new(TableMap::parse(body, self.flavour)?),
                    statement: self.statement,
                };
                entry.insert(kept).into_mut()
            }
        };
        kept.statement = self.statement;
        Ok(&kept.map)
    }

    /// The map that a rows event refers to.
    pub fn get(&self, id: TableId) -> Option<&Arc<TableMap>> {
        self.kept
            .get(&id)
            .filter(|kept| kept.statement == self.statement)
            .map(|kept| &kept.map)
    }

    /// Rows that follow must be preceded by maps of their own: the statement has ended, or
    /// another file begins.
    pub fn end_statement(&mut self) {
        self.statement += 1;
    }
}

#[cfg(test)]
mod tests;
