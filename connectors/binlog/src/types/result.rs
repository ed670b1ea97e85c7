//! Values as the client protocol packs them in the rows of a prepared statement (MySQL
//! documentation, "Binary Protocol Resultset Row"). Numbers are as exact as in the log,
//! which text results are not (FLOAT).
//!
//! What a connection has to set for the same text as the log's: `character_set_results =
//! NULL` (text comes in the character set of its column, and the column says which),
//! `time_zone = '+00:00'`, and a `sql_mode` without `PAD_CHAR_TO_FULL_LENGTH`.

use std::ops::Range;

use rollcall_contract::{BatchBuilder, Cells};

use super::print::{Clock, Date, Moment};
use super::{ColumnFacts, ColumnType, Disguised, Form, Reading, Unreadable, is_prefixed};
use crate::charset::Charset;
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::table_map::TypeCode;

const WHAT: &str = "a result row";

/// What a column definition of a result says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultField {
    /// Its type.
    pub code: TypeCode,
    /// Its flags.
    pub flags: u16,
    /// The collation of its text.
    pub collation: u16,
    /// Digits behind the point.
    pub decimals: u8,
    /// The longest value, in bytes; of a BIT in bits.
    pub length: u32,
}

impl ResultField {
    const UNSIGNED: u16 = 0x20;
    const ENUM: u16 = 0x100;
    const SET: u16 = 0x800;

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Clone, Copy, Debug)]
enum Extent {
    Fixed(u8),
    /// A byte of length in front.
    Moment,
    /// A length-encoded length in front.
    Prefixed,
}

/// A column of a result: how its values are found and what they mean.
#[derive(Clone, Debug)]
pub struct ResultColumn {
    extent: Extent,
    form: Form,
    column_type: ColumnType,
}

impl ResultColumn {
    /// Chooses the form of a column. Of the facts only what it is disguised as matters.
    ///
    /// # Errors
    /// When the type or the character set is not known.
    pub fn new(field: &ResultField, facts: &ColumnFacts) -> Result<ResultColumn, Unreadable> {
        let int = |bytes: u8, width| {
            let is_unsigned = field.has(ResultField::UNSIGNED);
            let form = if is_unsigned {
                Form::Unsigned
            } else {
                Form::Signed
            };
            let column_type = ColumnType::Int { bytes, is_unsigned };
            (Extent::Fixed(width), form, column_type)
        };
        let (extent, form, column_type) = match field.code {
            TypeCode::TINY => int(1, 1),
            TypeCode::SHORT => int(2, 2),
            TypeCode::INT24 => int(3, 4),
            TypeCode::LONG => int(4, 4),
            TypeCode::LONGLONG => int(8, 8),
            TypeCode::YEAR => (Extent::Fixed(2), Form::Unsigned, ColumnType::Year),
            TypeCode::FLOAT => (Extent::Fixed(4), Form::Float, ColumnType::Float),
            TypeCode::DOUBLE => (Extent::Fixed(8), Form::Double, ColumnType::Double),
            TypeCode::DECIMAL | TypeCode::NEWDECIMAL => {
                let scale = field.decimals;
                let sign = u32::from(!field.has(ResultField::UNSIGNED));
                let precision = field.length.saturating_sub(sign + u32::from(scale > 0));
                let precision = precision.min(255) as u8;
                (
                    Extent::Prefixed,
                    Form::DecimalText,
                    ColumnType::Decimal { precision, scale },
                )
            }
            TypeCode::BIT => {
                let bits = field.length.min(64) as u16;
                let form = if bits == 1 { Form::Bool } else { Form::Hex };
                (Extent::Prefixed, form, ColumnType::Bit { bits })
            }
            TypeCode::DATE | TypeCode::NEWDATE => {
                (Extent::Moment, Form::DateResult, ColumnType::Date)
            }
            TypeCode::TIME | TypeCode::TIME2 => {
                (Extent::Moment, Form::TimeResult, ColumnType::Time)
            }
            TypeCode::DATETIME | TypeCode::DATETIME2 => {
                (Extent::Moment, Form::DatetimeResult, ColumnType::Datetime)
            }
            TypeCode::TIMESTAMP | TypeCode::TIMESTAMP2 => {
                (Extent::Moment, Form::TimestampResult, ColumnType::Timestamp)
            }
            TypeCode::NULL => (Extent::Fixed(0), Form::Hex, ColumnType::Bytes),
            _ => {
                let (form, column_type) = text(field, facts)?;
                (Extent::Prefixed, form, column_type)
            }
        };
        Ok(ResultColumn {
            extent,
            form,
            column_type,
        })
    }

    /// What it holds.
    pub fn column_type(&self) -> &ColumnType {
        &self.column_type
    }
}

fn text(field: &ResultField, facts: &ColumnFacts) -> Result<(Form, ColumnType), Unreadable> {
    let charset = Charset::of_collation(field.collation);
    let as_text = Form::Text(charset.unwrap_or(Charset::Utf8));
    let disguise = match facts.disguised {
        Some(Disguised::Uuid) => Some(ColumnType::Uuid),
        Some(Disguised::Inet4 | Disguised::Inet6) => Some(ColumnType::Inet),
        Some(Disguised::Json) => Some(ColumnType::Json),
        None => None,
    };
    if let Some(column_type) = disguise {
        return Ok((as_text, column_type));
    }
    Ok(match field.code {
        // Its text is UTF-8, whatever the definition calls it.
        TypeCode::JSON => (Form::Text(Charset::Utf8), ColumnType::Json),
        TypeCode::GEOMETRY => (Form::Hex, ColumnType::Geometry),
        TypeCode::VECTOR => (Form::Hex, ColumnType::Vector),
        code if is_prefixed(code) || matches!(code, TypeCode::ENUM | TypeCode::SET) => {
            let charset = charset.ok_or(Unreadable::Charset)?;
            if field.has(ResultField::ENUM) || code == TypeCode::ENUM {
                (Form::Text(charset), ColumnType::Enum)
            } else if field.has(ResultField::SET) || code == TypeCode::SET {
                (Form::SetText(charset), ColumnType::Set)
            } else if charset == Charset::Binary {
                (Form::Hex, ColumnType::Bytes)
            } else {
                (Form::Text(charset), ColumnType::Text(charset))
            }
        }
        code => return Err(Unreadable::Type(code.0)),
    })
}

/// Reads rows of a result.
#[derive(Clone, Debug)]
pub struct ResultRows {
    columns: Vec<ResultColumn>,
    /// For each cell of a row, whether the result has it; empty when it has all.
    has: Vec<bool>,
}

impl ResultRows {
    /// For a result of these columns.
    pub fn new(columns: Vec<ResultColumn>) -> Self {
        ResultRows {
            columns,
            has: Vec::new(),
        }
    }

    /// For a result that has some of a row's columns only: `has` says of each column of the
    /// row whether the result has it; the cells of the others are missing.
    pub fn narrow(columns: Vec<ResultColumn>, has: Vec<bool>) -> Self {
        ResultRows { columns, has }
    }

    /// Its columns.
    pub fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    /// Adds the cells of a row whose packet (its header byte 0 included) lies at this range
    /// of the builder's data. The change must be open; what was added stays on an error, so
    /// the change has to be abandoned.
    ///
    /// # Errors
    /// When the bytes are not such a row, with the column if it is the fault of one.
    pub fn read(
        &self,
        builder: &mut BatchBuilder,
        packet: Range<usize>,
        reading: &mut Reading,
    ) -> Result<(), (Option<usize>, DecodeError)> {
        let end = packet.end;
        super::is_addressable(end).map_err(|e| (None, e))?;
        let (data, mut cells) = builder.parts();
        let mut f = Fields::new(WHAT, data.get(packet).unwrap_or_default());
        let nulls = (|| {
            if f.u8()? != 0 {
                return Err(f.bad("another header"));
            }
            f.bytes((self.columns.len() + 7 + 2) / 8)
        })();
        let nulls = nulls.map_err(|e| (None, e))?;
        let mut has = self.has.iter();
        for (i, column) in self.columns.iter().enumerate() {
            while has.next() == Some(&false) {
                cells.missing();
            }
            if nulls[(i + 2) / 8] & 1 << ((i + 2) % 8) != 0 {
                cells.null();
                continue;
            }
            column
                .put(data, end, &mut f, &mut cells, reading)
                .map_err(|e| (Some(i), e))?;
        }
        for _ in has {
            cells.missing();
        }
        if !f.is_empty() {
            return Err((None, f.bad("bytes behind its last column")));
        }
        Ok(())
    }
}

impl ResultColumn {
    #[inline]
    fn put(
        &self,
        data: &[u8],
        end: usize,
        f: &mut Fields<'_>,
        cells: &mut Cells<'_>,
        reading: &mut Reading,
    ) -> Result<(), DecodeError> {
        let len = match self.extent {
            Extent::Fixed(len) => usize::from(len),
            Extent::Moment => usize::from(f.u8()?),
            Extent::Prefixed => f.lenenc_len()?,
        };
        let at = end - f.len();
        f.bytes(len)?;
        self.form.put(data, at, len, cells, reading)
    }
}

/// Year, month, day; nothing at all when everything is zero.
pub(super) fn date(value: &[u8]) -> Result<Moment, DecodeError> {
    let mut f = Fields::new(WHAT, value);
    Ok(Moment::Date {
        date: read_date(&mut f)?,
    })
}

pub(super) fn datetime(value: &[u8], is_instant: bool) -> Result<Moment, DecodeError> {
    let mut f = Fields::new(WHAT, value);
    Ok(Moment::Datetime {
        date: read_date(&mut f)?,
        clock: read_clock(&mut f, 0)?,
        is_instant,
    })
}

pub(super) fn time(value: &[u8]) -> Result<Moment, DecodeError> {
    let mut f = Fields::new(WHAT, value);
    let (is_negative, days) = if f.is_empty() {
        (false, 0)
    } else {
        (f.u8()? != 0, f.u32()?)
    };
    // The server's longest interval has 34 days.
    if days > 40 {
        return Err(f.bad("a TIME of more than 838 hours"));
    }
    let clock = read_clock(&mut f, days as u16 * 24)?;
    Ok(Moment::Time { is_negative, clock })
}

fn read_date(f: &mut Fields<'_>) -> Result<Date, DecodeError> {
    if f.is_empty() {
        return Ok(Date::default());
    }
    let year = f.u16()?;
    if year > 9999 {
        return Err(f.bad("a year beyond 9999"));
    }
    Ok(Date {
        year,
        month: f.u8()?,
        day: f.u8()?,
    })
}

fn read_clock(f: &mut Fields<'_>, hours: u16) -> Result<Clock, DecodeError> {
    let mut clock = Clock {
        hour: hours,
        ..Clock::default()
    };
    if !f.is_empty() {
        clock.hour += u16::from(f.u8()?);
        clock.minute = f.u8()?;
        clock.second = f.u8()?;
    }
    if !f.is_empty() {
        clock.micros = f.u32()?;
    }
    if !f.is_empty() || clock.micros >= 1_000_000 {
        return Err(f.bad("a time that is none"));
    }
    Ok(clock)
}
