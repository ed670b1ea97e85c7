//! Names and values as they stand in our SQL. Sessions run with an empty `sql_mode`, so
//! there is one way to quote.

use rollcall_contract::TableName;

/// A quoted name.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A quoted table with its database.
pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// A quoted text.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// Bytes as a hexadecimal constant.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 3);
    out.push_str("X'");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_or_a_text_ends_it() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("O'Ne\\il"), "'O''Ne\\\\il'");
        assert_eq!(hex(b"\x00\xffA"), "X'00ff41'");
        assert_eq!(table(&TableName::new("h`r", "pe'ople")), "`h``r`.`pe'ople`");
    }
}
