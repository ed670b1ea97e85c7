//! Types of both servers, and the canonical text of their values.
//!
//! A value comes in two encodings: in the log as the storage layer packs it, in the result
//! of a prepared statement as the client protocol packs it. Each column of either gets one
//! form when its table is described, and a form turns the bytes of one value into the
//! contract's canonical text. Both families of forms end in the same printers,
//! so equal values are equal bytes wherever they were read.
//!
//! Choices where the contract leaves one: fractions of a second lose trailing zeros (as
//! PostgreSQL prints them), so a change of precision alone changes no value. `BIT(1)` is a
//! boolean, wider ones are bytes of their full width. `SET` is a list. `YEAR` is a number,
//! 0 for `0000`. `BINARY(n)` has its n bytes. A VECTOR and a GEOMETRY are their stored
//! bytes (numbers of 32 bits; SRID and WKB). An interval of TIME keeps its sign and its
//! hours beyond 24.

mod log;
mod packed;
mod print;
mod result;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rollcall_contract::{Cells, Class};

use crate::charset::Charset;
use crate::error::DecodeError;
use crate::table_map::TypeCode;

pub(crate) use log::Extent;
pub use log::LogColumn;
pub(crate) use packed::{decimal_text, moment_from_packed};
pub(crate) use print::digits;
use print::{Moment, short_float};
pub use result::{ResultColumn, ResultField, ResultRows};

/// What a column holds, independent of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// TINYINT to BIGINT.
    Int {
        /// Bytes of storage.
        bytes: u8,
        /// Without a sign.
        is_unsigned: bool,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DECIMAL(precision, scale).
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// BIT(bits).
    Bit {
        /// 1 to 64.
        bits: u16,
    },
    /// YEAR.
    Year,
    /// DATE.
    Date,
    /// TIME: an interval, or a time of day.
    Time,
    /// DATETIME.
    Datetime,
    /// TIMESTAMP.
    Timestamp,
    /// CHAR, VARCHAR, TEXT.
    Text(Charset),
    /// BINARY, VARBINARY, BLOB.
    Bytes,
    /// ENUM.
    Enum,
    /// SET.
    Set,
    /// JSON.
    Json,
    /// GEOMETRY and its kinds.
    Geometry,
    /// VECTOR.
    Vector,
    /// MariaDB's UUID.
    Uuid,
    /// MariaDB's INET4 and INET6.
    Inet,
}

impl ColumnType {
    /// The class of its values.
    pub fn class(&self) -> Class {
        match self {
            ColumnType::Int { .. } | ColumnType::Year => Class::Int,
            ColumnType::Float | ColumnType::Double => Class::Float,
            ColumnType::Decimal { .. } => Class::Decimal,
            ColumnType::Bit { bits: 1 } => Class::Bool,
            ColumnType::Bit { .. }
            | ColumnType::Bytes
            | ColumnType::Geometry
            | ColumnType::Vector => Class::Bytes,
            ColumnType::Date => Class::Date,
            ColumnType::Time => Class::Time,
            ColumnType::Datetime => Class::Timestamp,
            ColumnType::Timestamp => Class::TimestampTz,
            ColumnType::Text(_) | ColumnType::Enum => Class::Text,
            ColumnType::Set => Class::List,
            ColumnType::Json => Class::Json,
            ColumnType::Uuid => Class::Uuid,
            ColumnType::Inet => Class::Other,
        }
    }

    /// A name for people, the same from the log and from a result: without lengths.
    pub fn name(&self) -> String {
        match self {
            ColumnType::Int { bytes, is_unsigned } => {
                let name = match bytes {
                    1 => "tinyint",
                    2 => "smallint",
                    3 => "mediumint",
                    4 => "int",
                    _ => "bigint",
                };
                format!("{name}{}", if *is_unsigned { " unsigned" } else { "" })
            }
            ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            ColumnType::Bit { bits } => format!("bit({bits})"),
            ColumnType::Float => "float".to_owned(),
            ColumnType::Double => "double".to_owned(),
            ColumnType::Year => "year".to_owned(),
            ColumnType::Date => "date".to_owned(),
            ColumnType::Time => "time".to_owned(),
            ColumnType::Datetime => "datetime".to_owned(),
            ColumnType::Timestamp => "timestamp".to_owned(),
            ColumnType::Text(_) => "text".to_owned(),
            ColumnType::Bytes => "binary".to_owned(),
            ColumnType::Enum => "enum".to_owned(),
            ColumnType::Set => "set".to_owned(),
            ColumnType::Json => "json".to_owned(),
            ColumnType::Geometry => "geometry".to_owned(),
            ColumnType::Vector => "vector".to_owned(),
            ColumnType::Uuid => "uuid".to_owned(),
            ColumnType::Inet => "inet".to_owned(),
        }
    }
}

/// A type of MariaDB that both encodings carry as another one; only
/// `information_schema.COLUMNS` (and, for JSON, a check constraint) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disguised {
    /// UUID, in the log 16 bytes.
    Uuid,
    /// INET4, in the log 4 bytes.
    Inet4,
    /// INET6, in the log 16 bytes.
    Inet6,
    /// JSON, which MariaDB keeps as a LONGTEXT.
    Json,
}

/// What is known of a column from elsewhere, for where its description is silent. A
/// description that is not silent wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Whether it has no sign.
    pub is_unsigned: Option<bool>,
    /// Its character set.
    pub charset: Option<Charset>,
    /// The members of an ENUM or SET.
    pub members: Option<Vec<String>>,
    /// Whether it is one of MariaDB's types that look like another.
    pub disguised: Option<Disguised>,
    /// Whether it is a TIME, DATETIME or TIMESTAMP with fractions of a second.
    pub has_fraction: bool,
}

/// Why the values of a column cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Whether it has a sign.
    #[error("whether it is unsigned is not in the log")]
    Sign,
    /// Its character set.
    #[error("its character set is not in the log, or is not known")]
    Charset,
    /// The members of an ENUM or SET.
    #[error("the members of its type are not in the log")]
    Members,
    /// Its type.
    #[error("its type {0} is not known")]
    Type(u8),
    /// MariaDB's COMPRESSED column attribute.
    #[error("it has the attribute COMPRESSED")]
    Compressed,
    /// A time with a fraction in the format of MariaDB 5.3, to which its type in the log is
    /// that of a time without one.
    #[error("its fractions of a second are in a format whose length is not in the log")]
    OldFraction,
}

/// What becomes of a date that no calendar has: `0000-00-00`, `2024-00-10`, `2024-02-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ZeroDates {
    /// It is null, and counted in [`Oddities`].
    #[default]
    Null,
    /// It keeps its digits, in the form of its class.
    Text,
    /// It is an error.
    Refuse,
}

/// Values that were not what their type promises, counted since the counts were last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Oddities {
    /// Dates that no calendar has.
    pub zero_dates: u64,
    /// Texts with bytes that are no character of their character set.
    pub invalid_texts: u64,
}

impl Oddities {
    /// Gives the counts and begins again.
    pub fn take(&mut self) -> Oddities {
        std::mem::take(self)
    }
}

/// What reading values needs besides their forms.
#[derive(Debug, Default)]
pub struct Reading {
    /// The choice for dates that no calendar has.
    pub zero_dates: ZeroDates,
    /// What was met.
    pub oddities: Oddities,
    /// The document that a difference is applied to; kept for its room.
    pub(crate) old_document: Vec<u8>,
}

impl Reading {
    /// With nothing met yet.
    pub fn new(zero_dates: ZeroDates) -> Self {
        Reading {
            zero_dates,
            ..Reading::default()
        }
    }
}

/// How the bytes of one value become canonical text.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Little-endian, of 1 to 8 bytes.
    Signed,
    Unsigned,
    Float,
    Double,
    PackedDecimal {
        precision: u8,
        scale: u8,
    },
    /// Digits, perhaps filled up with zeros in front (ZEROFILL).
    DecimalText,
    /// BIT(1).
    Bool,
    Hex,
    /// Padded with zero bytes at the end, which the log leaves out.
    HexPadded(usize),
    /// One byte, from 1900.
    Year,
    /// The encodings of the storage layer.
    DateLog,
    TimeLog,
    OldTimeLog,
    DatetimeLog,
    OldDatetimeLog,
    TimestampLog,
    OldTimestampLog,
    /// The encodings of the client protocol.
    DateResult,
    TimeResult,
    DatetimeResult,
    TimestampResult,
    Text(Charset),
    EnumIndex(Arc<[String]>),
    SetBits(Arc<[String]>),
    SetText(Charset),
    Json,
    Uuid,
    Inet4,
    Inet6,
}

/// No value of the servers is larger (`max_allowed_packet`).
pub(crate) const TOO_LONG: DecodeError = DecodeError::Unsupported {
    what: "a value",
    why: "its canonical text does not fit into one batch",
};

/// More than any value takes whose text is not as long as its bytes: a SET of 64 members
/// with every character escaped.
const SHORT_TEXT: usize = 1 << 20;

/// The batch's buffer is addressed with 31 bits.
pub(crate) fn is_addressable(end: usize) -> Result<(), DecodeError> {
    if end >= 1 << 31 {
        return Err(TOO_LONG);
    }
    Ok(())
}

fn fits(cells: &Cells<'_>, needed: usize) -> Result<(), DecodeError> {
    if needed > cells.room() {
        return Err(TOO_LONG);
    }
    Ok(())
}

impl Form {
    /// Adds the value whose bytes lie at `at` in the batch's buffer.
    #[inline]
    pub(crate) fn put(
        &self,
        data: &[u8],
        at: usize,
        len: usize,
        cells: &mut Cells<'_>,
        reading: &mut Reading,
    ) -> Result<(), DecodeError> {
        let value = data
            .get(at..)
            .and_then(|rest| rest.get(..len))
            .ok_or(print::SHORT)?;
        match self {
            Form::Text(charset) => {
                if charset.is_utf8(value) {
                    cells.range(at, len);
                    return Ok(());
                }
                text(*charset, value, cells, reading)
            }
            _ if cells.room() < SHORT_TEXT => Err(TOO_LONG),
            Form::Signed => {
                cells.bytes(itoa::Buffer::new().format(print::signed(value)?).as_bytes());
                Ok(())
            }
            Form::Unsigned => {
                cells.bytes(
                    itoa::Buffer::new()
                        .format(print::unsigned(value)?)
                        .as_bytes(),
                );
                Ok(())
            }
            Form::TimestampLog
            | Form::DatetimeLog
            | Form::DateLog
            | Form::TimeLog
            | Form::OldTimeLog
            | Form::OldDatetimeLog
            | Form::OldTimestampLog => {
                let moment = match self {
                    Form::TimestampLog => log::timestamp(value),
                    Form::DatetimeLog => log::datetime(value),
                    Form::DateLog => log::date(value),
                    Form::TimeLog => log::time(value),
                    Form::OldTimeLog => log::old_time(value),
                    Form::OldDatetimeLog => log::old_datetime(value),
                    _ => log::old_timestamp(value),
                }?;
                moment_cell(moment, cells, reading)
            }
            Form::DateResult => moment_cell(result::date(value)?, cells, reading),
            Form::TimeResult => moment_cell(result::time(value)?, cells, reading),
            Form::DatetimeResult => moment_cell(result::datetime(value, false)?, cells, reading),
            Form::TimestampResult => moment_cell(result::datetime(value, true)?, cells, reading),
            Form::EnumIndex(members) => {
                let index = usize::try_from(print::unsigned(value)?).ok();
                // 0 is the server's mark for a value that was none.
                let member = index
                    .and_then(|n| n.checked_sub(1))
                    .and_then(|n| members.get(n));
                cells.bytes(member.map_or(b"", |m| m.as_bytes()));
                Ok(())
            }
            Form::PackedDecimal { precision, scale } => {
                let mut text = [0; print::DECIMAL_LEN];
                cells.bytes(print::decimal(value, *precision, *scale, &mut text)?);
                Ok(())
            }
            Form::DecimalText => {
                let is_digits = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'.');
                if !value.iter().all(is_digits) {
                    return Err(DecodeError::malformed("a DECIMAL", "not in digits"));
                }
                let zeros = value.iter().take_while(|b| **b == b'0').count();
                let is_needed = !value.get(zeros).is_some_and(u8::is_ascii_digit);
                let skip = zeros - usize::from(zeros > 0 && is_needed);
                cells.range(at + skip, len - skip);
                Ok(())
            }
            Form::Float => {
                let value = value.try_into().map_err(|_| print::SHORT)?;
                cells.write(|out| short_float(f32::from_le_bytes(value), 6, out))
            }
            Form::Double => {
                let value = value.try_into().map_err(|_| print::SHORT)?;
                cells.write(|out| short_float(f64::from_le_bytes(value), 15, out))
            }
            Form::Year => {
                let &[year] = value else {
                    return Err(print::SHORT);
                };
                let year = if year == 0 { 0 } else { 1900 + u16::from(year) };
                cells.bytes(itoa::Buffer::new().format(year).as_bytes());
                Ok(())
            }
            Form::Bool => {
                let is_set = value.iter().any(|b| *b != 0);
                cells.bytes(if is_set { b"t" } else { b"f" });
                Ok(())
            }
            Form::Hex => hex(value, 0, cells),
            Form::HexPadded(width) => hex(value, width.saturating_sub(len), cells),
            Form::SetBits(members) => {
                let bits = print::unsigned(value)?;
                let chosen = members.iter().enumerate();
                list(
                    chosen
                        .filter(|(i, _)| bits & 1u64.checked_shl(*i as u32).unwrap_or(0) != 0)
                        .map(|(_, member)| member.as_str()),
                    cells,
                )
            }
            Form::SetText(charset) => {
                let text = charset.decode_string(value);
                list(text.split(',').filter(|m| !m.is_empty()), cells)
            }
            Form::Json => {
                fits(cells, crate::json::longest_text(len))?;
                cells.write(|out| crate::json::print(value, out))
            }
            Form::Uuid => {
                cells.bytes(&print::uuid(value)?);
                Ok(())
            }
            Form::Inet4 => {
                let mut bytes = [0; 4];
                print::padded(value, &mut bytes)?;
                cells.bytes(Ipv4Addr::from(bytes).to_string().as_bytes());
                Ok(())
            }
            Form::Inet6 => {
                let mut bytes = [0; 16];
                print::padded(value, &mut bytes)?;
                cells.bytes(print::inet6(Ipv6Addr::from(bytes)).as_bytes());
                Ok(())
            }
        }
    }
}

#[cold]
fn text(
    charset: Charset,
    value: &[u8],
    cells: &mut Cells<'_>,
    reading: &mut Reading,
) -> Result<(), DecodeError> {
    // A byte that is no character becomes five.
    fits(cells, value.len().saturating_mul(5))?;
    let mut invalid = 0;
    cells.write(|out| {
        invalid = charset.decode(value, out);
        Ok(())
    })?;
    reading.oddities.invalid_texts += u64::from(invalid > 0);
    Ok(())
}

#[inline]
fn moment_cell(
    moment: Moment,
    cells: &mut Cells<'_>,
    reading: &mut Reading,
) -> Result<(), DecodeError> {
    if !moment.is_real() {
        reading.oddities.zero_dates += 1;
        match reading.zero_dates {
            ZeroDates::Text => {}
            ZeroDates::Null => {
                cells.null();
                return Ok(());
            }
            ZeroDates::Refuse => {
                return Err(DecodeError::Unsupported {
                    what: "a date",
                    why: "no calendar has it, and the source refuses such dates",
                });
            }
        }
    }
    let mut text = [0; print::MOMENT_LEN];
    cells.bytes(moment.print(&mut text));
    Ok(())
}

fn hex(value: &[u8], padding: usize, cells: &mut Cells<'_>) -> Result<(), DecodeError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    fits(cells, (value.len() + padding).saturating_mul(2))?;
    cells.write(|out| {
        out.reserve(2 * (value.len() + padding));
        for b in value {
            out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
        out.resize(out.len() + 2 * padding, b'0');
        Ok(())
    })
}

fn list<'m>(
    members: impl Iterator<Item = &'m str>,
    cells: &mut Cells<'_>,
) -> Result<(), DecodeError> {
    cells.write(|out| {
        out.push(b'[');
        for (i, member) in members.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            crate::json::quote(member.as_bytes(), out);
        }
        out.push(b']');
        Ok(())
    })
}

/// Whether the type is one whose bytes have a length in front of them.
fn is_prefixed(code: TypeCode) -> bool {
    matches!(
        code,
        TypeCode::VARCHAR
            | TypeCode::VAR_STRING
            | TypeCode::STRING
            | TypeCode::TINY_BLOB
            | TypeCode::MEDIUM_BLOB
            | TypeCode::LONG_BLOB
            | TypeCode::BLOB
            | TypeCode::BLOB_COMPRESSED
            | TypeCode::VARCHAR_COMPRESSED
            | TypeCode::JSON
            | TypeCode::GEOMETRY
            | TypeCode::VECTOR
    )
}

#[cfg(test)]
mod tests;
