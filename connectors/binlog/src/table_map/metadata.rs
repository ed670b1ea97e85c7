//! The optional metadata of a table map: fields of a type, a length and a value each
//! (`Table_map_event::Optional_metadata_fields`). Each describes the columns of one kind
//! only, in their order.

use super::{KeyPart, MappedColumn, TableMap, TypeCode, WHAT};
use crate::error::DecodeError;
use crate::event::Flavour;
use crate::fields::Fields;

pub(super) fn read(
    map: &mut TableMap,
    mut f: Fields<'_>,
    flavour: Flavour,
) -> Result<(), DecodeError> {
    let is_character = |code: TypeCode| code.is_character(flavour);
    while !f.is_empty() {
        let field = f.u8()?;
        let value = f.lenenc_bytes()?;
        let mut value = Fields::new(WHAT, value);
        let columns = &mut map.columns;
        match field {
            1 => bits(columns, TypeCode::is_numeric, value.rest(), |c, bit| {
                c.is_unsigned = Some(bit);
            })?,
            2 => default_collation(columns, is_character, value)?,
            3 => each(columns, is_character, |c| {
                c.collation = Some(collation(&mut value)?);
                Ok(())
            })?,
            4 => each(
                columns,
                |_| true,
                |c| {
                    let name = value.lenenc_bytes()?;
                    c.name = Some(value.name(name)?.to_owned());
                    Ok(())
                },
            )?,
            5 => members(columns, TypeCode::SET, &mut value)?,
            6 => members(columns, TypeCode::ENUM, &mut value)?,
            7 => each(
                columns,
                |code| code == TypeCode::GEOMETRY,
                |c| {
                    c.geometry = u8::try_from(value.lenenc()?).ok();
                    Ok(())
                },
            )?,
            8 => map.primary_key = Some(key(map.columns.len(), &mut value, false)?),
            9 => map.primary_key = Some(key(map.columns.len(), &mut value, true)?),
            10 => default_collation(columns, TypeCode::is_enum_or_set, value)?,
            11 => each(columns, TypeCode::is_enum_or_set, |c| {
                c.collation = Some(collation(&mut value)?);
                Ok(())
            })?,
            12 => bits(
                columns,
                |_| true,
                value.rest(),
                |c, bit| {
                    c.is_visible = Some(bit);
                },
            )?,
            13 => each(
                columns,
                |code| code == TypeCode::VECTOR,
                |c| {
                    c.dimensions = Some(value.lenenc()?);
                    Ok(())
                },
            )?,
            _ => {}
        }
    }
    Ok(())
}

fn each(
    columns: &mut [MappedColumn],
    is_described: impl Fn(TypeCode) -> bool,
    mut read: impl FnMut(&mut MappedColumn) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    columns
        .iter_mut()
        .filter(|c| is_described(c.code))
        .try_for_each(&mut read)
}

/// One bit a column, from the highest of each byte.
fn bits(
    columns: &mut [MappedColumn],
    is_described: impl Fn(TypeCode) -> bool,
    bytes: &[u8],
    set: impl Fn(&mut MappedColumn, bool),
) -> Result<(), DecodeError> {
    let mut at = 0;
    each(columns, is_described, |c| {
        let byte = bytes
            .get(at / 8)
            .ok_or(DecodeError::Truncated { what: WHAT })?;
        set(c, byte & 0x80 >> (at % 8) != 0);
        at += 1;
        Ok(())
    })
}

fn collation(value: &mut Fields<'_>) -> Result<u16, DecodeError> {
    u16::try_from(value.lenenc()?).map_err(|_| value.bad("a collation beyond 65,535"))
}

/// The collation of most columns, then those that have another: their index among the
/// columns of this kind, and their collation.
fn default_collation(
    columns: &mut [MappedColumn],
    is_described: impl Fn(TypeCode) -> bool,
    mut value: Fields<'_>,
) -> Result<(), DecodeError> {
    let default = collation(&mut value)?;
    let mut described: Vec<_> = columns
        .iter_mut()
        .filter(|c| is_described(c.code))
        .collect();
    for column in &mut described {
        column.collation = Some(default);
    }
    while !value.is_empty() {
        let at = value.lenenc_len()?;
        let other = collation(&mut value)?;
        described
            .get_mut(at)
            .ok_or_else(|| value.bad("a collation of no column"))?
            .collation = Some(other);
    }
    Ok(())
}

fn members(
    columns: &mut [MappedColumn],
    code: TypeCode,
    value: &mut Fields<'_>,
) -> Result<(), DecodeError> {
    each(
        columns,
        |c| c == code,
        |c| {
            let count = value.lenenc_len()?;
            // Each member has a length of a byte at least.
            let mut members = Vec::with_capacity(count.min(value.len()));
            for _ in 0..count {
                members.push(value.lenenc_bytes()?.to_vec());
            }
            c.members = Some(members);
            Ok(())
        },
    )
}

fn key(
    columns: usize,
    value: &mut Fields<'_>,
    has_prefixes: bool,
) -> Result<Vec<KeyPart>, DecodeError> {
    let mut parts = Vec::new();
    while !value.is_empty() {
        let column = value.lenenc_len()?;
        let prefix = if has_prefixes { value.lenenc()? } else { 0 };
        if column >= columns {
            return Err(value.bad("a key of no column"));
        }
        parts.push(KeyPart { column, prefix });
    }
    Ok(parts)
}
