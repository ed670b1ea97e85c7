//! Values as the storage layer packs them (`Field_*::pack` of both servers).

use std::sync::Arc;

use super::print::{self, Clock, Date, Moment, SHORT, big_endian};
use super::{ColumnFacts, ColumnType, Disguised, Form, Reading, Unreadable, is_prefixed};
use crate::charset::Charset;
use crate::error::DecodeError;
use crate::table_map::{MappedColumn, TypeCode};
use rollcall_contract::Cells;

/// Where a value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// It has this many bytes.
    Fixed(u16),
    /// It has this many bytes of length in front of it.
    Prefixed(u8),
}

impl Extent {
    /// Of the values of a column, which a table map always says.
    pub(crate) fn of(column: &MappedColumn) -> Result<Extent, Unreadable> {
        let meta = column.meta;
        let fraction = u16::from(meta as u8).div_ceil(2);
        Ok(Extent::Fixed(match column.code {
            TypeCode::NULL => 0,
            TypeCode::TINY | TypeCode::YEAR => 1,
            TypeCode::SHORT => 2,
            TypeCode::INT24 | TypeCode::DATE | TypeCode::NEWDATE | TypeCode::TIME => 3,
            TypeCode::LONG | TypeCode::FLOAT | TypeCode::TIMESTAMP => 4,
            TypeCode::LONGLONG | TypeCode::DOUBLE | TypeCode::DATETIME => 8,
            TypeCode::TIMESTAMP2 if meta <= 6 => 4 + fraction,
            TypeCode::DATETIME2 if meta <= 6 => 5 + fraction,
            TypeCode::TIME2 if meta <= 6 => 3 + fraction,
            TypeCode::NEWDECIMAL => {
                let [precision, scale] = meta.to_be_bytes();
                print::decimal_len(precision, scale).ok_or(Unreadable::Type(column.code.0))? as u16
            }
            TypeCode::BIT => {
                let [bits, bytes] = meta.to_le_bytes();
                u16::from(bytes) + u16::from(bits > 0)
            }
            TypeCode::ENUM | TypeCode::SET if (1..=8).contains(&meta) => meta,
            TypeCode::VARCHAR
            | TypeCode::VAR_STRING
            | TypeCode::VARCHAR_COMPRESSED
            | TypeCode::STRING => {
                return Ok(Extent::Prefixed(if meta > 255 { 2 } else { 1 }));
            }
            code if is_prefixed(code) && (1..=4).contains(&meta) => {
                return Ok(Extent::Prefixed(meta as u8));
            }
            code => return Err(Unreadable::Type(code.0)),
        }))
    }

    /// Where the value that begins at `at` lies, without its length.
    #[inline]
    pub(crate) fn value(self, data: &[u8], at: usize) -> Result<(usize, usize), DecodeError> {
        let (start, len) = match self {
            Extent::Fixed(len) => (at, usize::from(len)),
            Extent::Prefixed(width) => {
                let width = usize::from(width);
                let prefix = data
                    .get(at..)
                    .and_then(|rest| rest.get(..width))
                    .ok_or(SHORT)?;
                let len = prefix.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
                (at + width, len)
            }
        };
        if len > data.len().saturating_sub(start) {
            return Err(SHORT);
        }
        Ok((start, len))
    }
}

/// A column of the log: how its values are found and what they mean.
#[derive(Clone, Debug)]
pub struct LogColumn {
    pub(crate) extent: Extent,
    pub(super) form: Form,
    column_type: ColumnType,
    /// Whether values of partial updates may be differences.
    pub(crate) is_json: bool,
}

impl LogColumn {
    /// Chooses the form of a column, once for each description of its table.
    ///
    /// # Errors
    /// When neither the description nor the facts say what its values mean.
    pub fn new(column: &MappedColumn, facts: &ColumnFacts) -> Result<LogColumn, Unreadable> {
        let extent = Extent::of(column)?;
        let is_old = matches!(
            column.code,
            TypeCode::TIME | TypeCode::DATETIME | TypeCode::TIMESTAMP
        );
        if is_old && facts.has_fraction {
            return Err(Unreadable::OldFraction);
        }
        let charset = match column.collation {
            Some(id) => Charset::of_collation(id),
            None => facts.charset,
        };
        let (column_type, form) = match (facts.disguised, column.code) {
            (Some(Disguised::Uuid), TypeCode::STRING) => (ColumnType::Uuid, Form::Uuid),
            (Some(Disguised::Inet4), TypeCode::STRING) => (ColumnType::Inet, Form::Inet4),
            (Some(Disguised::Inet6), TypeCode::STRING) => (ColumnType::Inet, Form::Inet6),
            (Some(Disguised::Json), code) if is_prefixed(code) => (
                ColumnType::Json,
                Form::Text(charset.unwrap_or(Charset::Utf8)),
            ),
            _ => described(column, facts, charset)?,
        };
        Ok(LogColumn {
            extent,
            form,
            column_type,
            is_json: column.code == TypeCode::JSON,
        })
    }

    /// What it holds.
    pub fn column_type(&self) -> &ColumnType {
        &self.column_type
    }

    /// Adds the value whose bytes lie at `at`.
    #[inline]
    pub(crate) fn put(
        &self,
        data: &[u8],
        at: usize,
        len: usize,
        cells: &mut Cells<'_>,
        reading: &mut Reading,
    ) -> Result<(), DecodeError> {
        self.form.put(data, at, len, cells, reading)
    }
}

fn described(
    column: &MappedColumn,
    facts: &ColumnFacts,
    charset: Option<Charset>,
) -> Result<(ColumnType, Form), Unreadable> {
    let int = |bytes| {
        let is_unsigned = column.is_unsigned.or(facts.is_unsigned);
        let is_unsigned = is_unsigned.ok_or(Unreadable::Sign)?;
        let form = if is_unsigned {
            Form::Unsigned
        } else {
            Form::Signed
        };
        Ok((ColumnType::Int { bytes, is_unsigned }, form))
    };
    Ok(match column.code {
        TypeCode::TINY => int(1)?,
        TypeCode::SHORT => int(2)?,
        TypeCode::INT24 => int(3)?,
        TypeCode::LONG => int(4)?,
        TypeCode::LONGLONG => int(8)?,
        TypeCode::FLOAT => (ColumnType::Float, Form::Float),
        TypeCode::DOUBLE => (ColumnType::Double, Form::Double),
        TypeCode::NEWDECIMAL => {
            let [precision, scale] = column.meta.to_be_bytes();
            (
                ColumnType::Decimal { precision, scale },
                Form::PackedDecimal { precision, scale },
            )
        }
        TypeCode::BIT => {
            let [bits, bytes] = column.meta.to_le_bytes();
            let bits = u16::from(bytes) * 8 + u16::from(bits);
            let form = if bits == 1 { Form::Bool } else { Form::Hex };
            (ColumnType::Bit { bits }, form)
        }
        TypeCode::YEAR => (ColumnType::Year, Form::Year),
        TypeCode::DATE | TypeCode::NEWDATE => (ColumnType::Date, Form::DateLog),
        TypeCode::TIME => (ColumnType::Time, Form::OldTimeLog),
        TypeCode::TIME2 => (ColumnType::Time, Form::TimeLog),
        TypeCode::DATETIME => (ColumnType::Datetime, Form::OldDatetimeLog),
        TypeCode::DATETIME2 => (ColumnType::Datetime, Form::DatetimeLog),
        TypeCode::TIMESTAMP => (ColumnType::Timestamp, Form::OldTimestampLog),
        TypeCode::TIMESTAMP2 => (ColumnType::Timestamp, Form::TimestampLog),
        TypeCode::ENUM => (
            ColumnType::Enum,
            Form::EnumIndex(members(column, facts, charset)?),
        ),
        TypeCode::SET => (
            ColumnType::Set,
            Form::SetBits(members(column, facts, charset)?),
        ),
        TypeCode::JSON => (ColumnType::Json, Form::Json),
        TypeCode::GEOMETRY => (ColumnType::Geometry, Form::Hex),
        TypeCode::VECTOR => (ColumnType::Vector, Form::Hex),
        TypeCode::BLOB_COMPRESSED | TypeCode::VARCHAR_COMPRESSED => {
            return Err(Unreadable::Compressed);
        }
        code if is_prefixed(code) => match charset.ok_or(Unreadable::Charset)? {
            Charset::Binary if code == TypeCode::STRING => {
                (ColumnType::Bytes, Form::HexPadded(usize::from(column.meta)))
            }
            Charset::Binary => (ColumnType::Bytes, Form::Hex),
            charset => (ColumnType::Text(charset), Form::Text(charset)),
        },
        code => return Err(Unreadable::Type(code.0)),
    })
}

fn members(
    column: &MappedColumn,
    facts: &ColumnFacts,
    charset: Option<Charset>,
) -> Result<Arc<[String]>, Unreadable> {
    match (&column.members, &facts.members) {
        (Some(members), _) => {
            let charset = charset.ok_or(Unreadable::Charset)?;
            Ok(members.iter().map(|m| charset.decode_string(m)).collect())
        }
        (None, Some(members)) => Ok(members.as_slice().into()),
        (None, None) => Err(Unreadable::Members),
    }
}

/// Five bits of day, four of month, the rest of year.
pub(super) fn date(value: &[u8]) -> Result<Moment, DecodeError> {
    let n = print::unsigned(value)?;
    let date = Date {
        year: (n >> 9) as u16,
        month: (n >> 5 & 15) as u8,
        day: (n & 31) as u8,
    };
    Ok(Moment::Date { date })
}

/// Splits off the fraction of a packed moment: its hundredths, ten thousandths or
/// millionths.
fn micros(fraction: &[u8]) -> Result<u32, DecodeError> {
    let micros = big_endian(fraction) as u32 * [1, 10_000, 100, 1][fraction.len().min(3)];
    if micros >= 1_000_000 {
        return Err(DecodeError::malformed(
            "a time",
            "a second of more than a second",
        ));
    }
    Ok(micros)
}

/// Seconds since the Unix epoch and a fraction. The first second is the server's
/// `0000-00-00 00:00:00`.
pub(super) fn timestamp(value: &[u8]) -> Result<Moment, DecodeError> {
    let (seconds, fraction) = value.split_first_chunk::<4>().ok_or(SHORT)?;
    from_epoch(u32::from_be_bytes(*seconds), micros(fraction)?)
}

pub(super) fn old_timestamp(value: &[u8]) -> Result<Moment, DecodeError> {
    from_epoch(print::unsigned(value)? as u32, 0)
}

fn from_epoch(seconds: u32, micros: u32) -> Result<Moment, DecodeError> {
    let date = if seconds == 0 && micros == 0 {
        Date::default()
    } else {
        Date::from_days(seconds / 86_400)
    };
    let of_day = seconds % 86_400;
    Ok(Moment::Datetime {
        date,
        clock: Clock {
            hour: (of_day / 3_600) as u16,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            micros,
        },
        is_instant: true,
    })
}

/// A sign bit, 17 bits of year * 13 + month, 5 of day, 5 of hour, 6 of minute, 6 of second,
/// and a fraction (`my_datetime_packed_from_binary`).
pub(super) fn datetime(value: &[u8]) -> Result<Moment, DecodeError> {
    let (whole, fraction) = value.split_at_checked(5).ok_or(SHORT)?;
    let packed = big_endian(whole)
        .checked_sub(1 << 39)
        .ok_or(DecodeError::malformed("a DATETIME", "it is negative"))?;
    Ok(unpack_datetime(packed, micros(fraction)?))
}

/// Of the 40 bits without the sign.
pub(crate) fn unpack_datetime(packed: u64, micros: u32) -> Moment {
    let year_month = packed >> 22;
    Moment::Datetime {
        date: Date {
            year: (year_month / 13) as u16,
            month: (year_month % 13) as u8,
            day: (packed >> 17 & 31) as u8,
        },
        clock: Clock {
            hour: (packed >> 12 & 31) as u16,
            minute: (packed >> 6 & 63) as u8,
            second: (packed & 63) as u8,
            micros,
        },
        is_instant: false,
    }
}

/// 10 bits of hour, 6 of minute, 6 of second and a fraction, all as one number that may be
/// negative, stored with an offset (`my_time_packed_from_binary`).
pub(super) fn time(value: &[u8]) -> Result<Moment, DecodeError> {
    let fraction_len = value
        .len()
        .checked_sub(3)
        .filter(|n| *n <= 3)
        .ok_or(SHORT)?;
    let fraction_bits = 8 * fraction_len as u32;
    let number = big_endian(value) as i64 - (0x80_0000 << fraction_bits);
    let magnitude = number.unsigned_abs();
    let fraction = magnitude & ((1 << fraction_bits) - 1);
    let fraction = &fraction.to_be_bytes()[8 - fraction_len..];
    Ok(unpack_time(
        number < 0,
        magnitude >> fraction_bits,
        micros(fraction)?,
    ))
}

pub(crate) fn unpack_time(is_negative: bool, packed: u64, micros: u32) -> Moment {
    Moment::Time {
        is_negative,
        clock: Clock {
            hour: (packed >> 12 & 1023) as u16,
            minute: (packed >> 6 & 63) as u8,
            second: (packed & 63) as u8,
            micros,
        },
    }
}

/// The decimal digits HHMMSS of a number.
pub(super) fn old_time(value: &[u8]) -> Result<Moment, DecodeError> {
    let number = print::signed(value)?;
    let magnitude = number.unsigned_abs();
    Ok(Moment::Time {
        is_negative: number < 0,
        clock: digits_clock(magnitude, magnitude / 10_000),
    })
}

/// The decimal digits YYYYMMDDHHMMSS of a number.
pub(super) fn old_datetime(value: &[u8]) -> Result<Moment, DecodeError> {
    let number = print::unsigned(value)?;
    let days = number / 1_000_000;
    if days > 99_991_231 {
        return Err(DecodeError::malformed("a DATETIME", "beyond the year 9999"));
    }
    Ok(Moment::Datetime {
        date: Date {
            year: (days / 10_000) as u16,
            month: (days / 100 % 100) as u8,
            day: (days % 100) as u8,
        },
        clock: digits_clock(number, number / 10_000 % 100),
        is_instant: false,
    })
}

fn digits_clock(number: u64, hour: u64) -> Clock {
    Clock {
        hour: hour.min(999) as u16,
        minute: (number / 100 % 100) as u8,
        second: (number % 100) as u8,
        micros: 0,
    }
}
