//! Numbers as `my_gcvt` of the server prints them into a document (`strings/dtoa.cc`, with
//! `MY_GCVT_MAX_FIELD_WIDTH`): the shortest digits, written out while the point is within 15
//! places of them, with a bare exponent beyond.

use crate::error::DecodeError;
use crate::types::digits;

/// `MAX_DECPT_FOR_F_FORMAT`.
const MAX_POINT: i32 = 15;

pub(super) fn print(value: f64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let digits = digits(value).ok_or(DecodeError::malformed("a JSON number", "not finite"))?;
    let len = digits.as_bytes().len() as i32;
    let begin = out.len();
    // Written out, a number below 1 takes its digits, the zeros before them, a zero and a
    // point, and has to fit into 34 characters with its sign.
    let width = 34 - i32::from(digits.is_negative);
    let fits = digits.point > 0 || len - digits.point + 2 <= width;
    if fits && digits.point > -MAX_POINT && (digits.point <= MAX_POINT || len > digits.point) {
        digits.print_fixed(out);
    } else {
        digits.print_mantissa(out);
        out.push(b'e');
        out.extend_from_slice(itoa::Buffer::new().format(digits.point - 1).as_bytes());
    }
    // A number with a fraction reads as one.
    if !out[begin..].iter().any(|b| matches!(b, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
    Ok(())
}
