//! A value that is the key of another record.
//!
//! Links are found by the bytes of their key: the canonical texts of its columns
//! ([`rollcall_contract::Key`]), compared byte for byte, whatever the collation of a column
//! makes of letters. A reference must end in the same bytes, or it would never find its
//! record. A column of the key's own class has them as it is. From another class only what
//! plainly means the same is taken: whole numbers written as text or with a fraction of
//! zeros, a UUID in any spelling, a number or a UUID where keys are texts.
//!
//! A text that is no key at all (`n/a` where keys are numbers) is kept as it stands: no
//! record has it, so it stays unresolved and is named, and its own record is none the worse
//! for it.

use std::borrow::Cow;

use rollcall_contract::{Class, Key};

use crate::reason::SkipReason;

/// No server has keys with columns that are longer.
const MAX_PART_BYTES: usize = 4096;

/// Whether a value of one class can name a key column of another.
pub(super) fn fits(class: Class, key: Class) -> bool {
    use Class as C;
    class == key
        || matches!(
            (key, class),
            (C::Int, C::Decimal | C::Text | C::Other)
                | (C::Decimal, C::Int | C::Text | C::Other)
                | (C::Uuid, C::Text | C::Other)
                | (
                    C::Text | C::Other,
                    C::Int | C::Decimal | C::Uuid | C::Text | C::Other
                )
        )
}

/// Appends a part of a key: a value, as a key column of this class has it.
pub(super) fn push_part(text: &str, key: Class, out: &mut Vec<u8>) -> Result<(), SkipReason> {
    let part = part(text, key);
    if part.len() > MAX_PART_BYTES {
        return Err(SkipReason::TooLong);
    }
    let mut encoded = Key::new();
    encoded.push(part.as_bytes());
    out.extend_from_slice(encoded.as_bytes());
    Ok(())
}

fn part(text: &str, key: Class) -> Cow<'_, str> {
    match key {
        Class::Int => whole_number(text).map_or(Cow::Borrowed(text), Cow::Owned),
        Class::Uuid => match uuid::Uuid::try_parse(text.trim()) {
            Ok(id) => Cow::Owned(id.hyphenated().to_string()),
            Err(_) => Cow::Borrowed(text),
        },
        _ => Cow::Borrowed(text),
    }
}

/// The one form of a whole number within the 64 bits that a key column can have.
fn whole_number(text: &str) -> Option<String> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    match whole.parse::<i64>() {
        Ok(n) => Some(n.to_string()),
        Err(_) => whole.parse::<u64>().ok().map(|n| n.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_the_bytes_of_the_key_that_it_names() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        for (text, class, column) in [
            ("42", Class::Int, "42"),
            (" +0042 ", Class::Int, "42"),
            ("42.00", Class::Int, "42"),
            ("-0", Class::Int, "0"),
            ("18446744073709551615", Class::Int, "18446744073709551615"),
            (&uuid.to_uppercase(), Class::Uuid, uuid),
            (&uuid.replace('-', ""), Class::Uuid, uuid),
            (" E7 ", Class::Text, " E7 "),
        ] {
            let (mut out, mut key) = (Vec::new(), Key::new());
            push_part(text, class, &mut out).unwrap();
            key.push(column.as_bytes());
            assert_eq!(out, key.as_bytes(), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_stays_as_it_is_and_what_is_longer_than_any_key_fails() {
        for text in ["n/a", "42.5", "1e3"] {
            assert_eq!(part(text, Class::Int), text);
        }
        assert_eq!(part("nobody", Class::Uuid), "nobody");
        let long = "x".repeat(MAX_PART_BYTES + 1);
        let mut out = Vec::new();
        assert_eq!(
            push_part(&long, Class::Text, &mut out),
            Err(SkipReason::TooLong)
        );
    }
}
