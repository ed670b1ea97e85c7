//! Values of other types within a JSON document.

use super::log::{unpack_datetime, unpack_time};
use super::print::{self, DECIMAL_LEN, Moment};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::table_map::TypeCode;

const WHAT: &str = "a value in a JSON document";

/// Appends a decimal that has its precision and scale in front
/// (`Json_decimal::get_binary`).
pub(crate) fn decimal_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut f = Fields::new(WHAT, bytes);
    let (precision, scale) = (f.u8()?, f.u8()?);
    let mut text = [0; DECIMAL_LEN];
    out.extend_from_slice(print::decimal(f.rest(), precision, scale, &mut text)?);
    Ok(())
}

/// Appends a date or time in the packed form of 64 bits (`TIME_to_longlong_packed`): the
/// fraction in the low 24 bits, the rest above, the whole negated if it is negative.
pub(crate) fn moment_from_packed(
    code: TypeCode,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut f = Fields::new(WHAT, bytes);
    let packed = f.u64()? as i64;
    let magnitude = packed.unsigned_abs();
    let (whole, micros) = (magnitude >> 24, (magnitude & 0xFF_FFFF) as u32);
    if whole >> 40 != 0 || micros >= 1_000_000 {
        return Err(f.bad("a time that is none"));
    }
    let moment = match (code, unpack_datetime(whole, micros)) {
        (TypeCode::TIME, _) => unpack_time(packed < 0, whole, micros),
        (TypeCode::DATE, Moment::Datetime { date, .. }) => Moment::Date { date },
        (_, datetime) => datetime,
    };
    moment.print_in_json(out);
    Ok(())
}
