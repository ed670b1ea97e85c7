//! From the values of the others to the contract's canonical text.
//!
//! Only notation is converted here: `2024:02:29` is a date, `b'101'` are bits, a number is a
//! member of an ENUM. What bytes mean in a character set, and what a partial update of JSON
//! makes of a document, is asked of the server.

use std::collections::{BTreeSet, HashMap};

use rollcall_binlog::types::Disguised;
use rollcall_testbed::MySql;

use crate::model::{Cell, Column, Log};
use crate::ours::disguise;

/// The kinds of columns that are written differently.
pub(crate) enum Kind {
    Int { is_unsigned: bool },
    Float,
    Double,
    Decimal,
    Year,
    Bit(usize),
    Date,
    Time,
    Datetime,
    Timestamp,
    Text(String),
    Bytes,
    Enum(Vec<Cell>),
    Set(Vec<Cell>),
    Json,
    Vector,
    Disguised(Disguised),
}

impl Column {
    /// What `mysqlbinlog` declares it to be.
    pub(crate) fn kind(&self, table: &str) -> Kind {
        if let Some(disguised) = disguise(table, &self.name) {
            return Kind::Disguised(disguised);
        }
        let declared = String::from_utf8_lossy(&self.declared).into_owned();
        let base = declared.split([' ', '(']).next().unwrap_or_default();
        let after = |word: &str| {
            let (_, rest) = declared.split_once(word)?;
            rest.split(' ').next().map(str::to_owned)
        };
        let charset = after("CHARSET ");
        match base {
            "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Kind::Int {
                is_unsigned: declared.contains("UNSIGNED"),
            },
            "FLOAT" => Kind::Float,
            "DOUBLE" => Kind::Double,
            "DECIMAL" => Kind::Decimal,
            "YEAR" => Kind::Year,
            "BIT" => {
                let bits = after("BIT(").unwrap();
                Kind::Bit(bits.trim_end_matches(')').parse().unwrap())
            }
            "DATE" => Kind::Date,
            "TIME" => Kind::Time,
            "DATETIME" => Kind::Datetime,
            "TIMESTAMP" => Kind::Timestamp,
            // The program has no names for the old formats.
            "INVALID_TYPE" if declared.contains("(11)") => Kind::Time,
            "INVALID_TYPE" if declared.contains("(12)") => Kind::Datetime,
            "INVALID_TYPE" if declared.contains("(7)") => Kind::Timestamp,
            "ENUM" => Kind::Enum(self.members(&charset.unwrap())),
            "SET" => Kind::Set(self.members(&charset.unwrap())),
            "JSON" => Kind::Json,
            "VECTOR" => Kind::Vector,
            _ => match charset {
                Some(charset) => Kind::Text(charset),
                None => Kind::Bytes,
            },
        }
    }

    fn members(&self, charset: &str) -> Vec<Cell> {
        let mut members = Vec::new();
        let mut rest = &self.declared[..];
        while let Some(begin) = rest.iter().position(|b| *b == b'\'') {
            let (member, tail) = unquoted(&rest[begin..]);
            members.push(in_charset(charset, &member));
            rest = tail;
        }
        members
    }
}

/// Bytes that are text in a character set.
pub(crate) fn in_charset(charset: &str, bytes: &[u8]) -> Cell {
    if bytes.is_empty() {
        return Cell::Text(String::new());
    }
    Cell::Ask(format!(
        "CONVERT(_{charset} x'{}' USING utf8mb4)",
        hex(bytes)
    ))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// How a program writes text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Quoting {
    /// As SQL does: MySQL, and names of members on both.
    #[default]
    Sql,
    /// Control characters as `\x0a` and everything else as it is, quotes too: MariaDB.
    Raw,
}

fn raw(value: &[u8]) -> Vec<u8> {
    let mut rest = &value[1..value.len() - 1];
    let mut out = Vec::new();
    while let Some((byte, tail)) = rest.split_first() {
        match rest {
            [b'\\', b'x', b'0' | b'1', _, ..] => {
                out.extend(unquoted(&[b"'", &rest[..4], b"'"].concat()).0);
                rest = &rest[4..];
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

/// The bytes of the quoted text that begins here, and what is behind it.
fn unquoted(quoted: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        match quoted[at..] {
            [b'\\', b'x', a, b, ..] => {
                let digits = [a, b];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
                at += 4;
            }
            [b'\\', escaped, ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    b'0' => 0,
                    other => other,
                });
                at += 2;
            }
            [b'\'', ..] => return (out, &quoted[at + 1..]),
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
            [] => panic!("a text without its end"),
        }
    }
}

/// A value as the server's program prints it, with a comment behind.
pub(crate) fn printed(
    table: &str,
    column: &Column,
    number: usize,
    printed: &[u8],
    old: Option<&[u8]>,
    quoting: Quoting,
) -> Cell {
    let value = without_comment(printed);
    if value == b"NULL" {
        return Cell::Null;
    }
    let bytes = || match value.first() {
        Some(b'\'') if quoting == Quoting::Raw => raw(value),
        Some(b'\'') => unquoted(value).0,
        _ => value.to_vec(),
    };
    let text = || String::from_utf8(bytes()).unwrap();
    let bits = || {
        text()
            .trim_start_matches("b'")
            .trim_end_matches('\'')
            .to_owned()
    };
    match column.kind(table) {
        Kind::Int { is_unsigned } => {
            let text = text();
            // `-1 (255)`: with a sign, and without.
            Cell::Text(match text.split_once(" (") {
                Some((_, plain)) if is_unsigned => plain.trim_end_matches(')').to_owned(),
                Some((signed, _)) => signed.to_owned(),
                None => text,
            })
        }
        Kind::Float => float(text().parse().unwrap()),
        Kind::Double => double(text().parse().unwrap()),
        Kind::Decimal | Kind::Year => Cell::Text(text()),
        Kind::Bit(1) => Cell::Text(if bits() == "1" { "t" } else { "f" }.to_owned()),
        Kind::Bit(width) => {
            let number = u64::from_str_radix(&bits(), 2).unwrap();
            Cell::Text(format!(
                "{number:0digits$x}",
                digits = width.div_ceil(8) * 2
            ))
        }
        Kind::Date => Cell::Text(text().replace(':', "-")),
        Kind::Time => Cell::Text(short_fraction(&text())),
        Kind::Datetime => Cell::Text(short_fraction(&text()).replace(' ', "T")),
        Kind::Timestamp => {
            let text = text();
            let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let nanoseconds = format!("{fraction:0<9}").parse().unwrap();
            Cell::Text(timestamp(seconds.parse().unwrap(), nanoseconds))
        }
        Kind::Text(charset) => in_charset(&charset, &bytes()),
        Kind::Bytes => Cell::Text(hex(&bytes())),
        Kind::Enum(members) => member(&members, text().parse().unwrap()),
        Kind::Set(members) => set(&members, u64::from_str_radix(&bits(), 2).unwrap()),
        Kind::Json if value.first() == Some(&b'\'') => Cell::Text(text()),
        Kind::Json => partial(number, value, old.map(without_comment)),
        Kind::Vector => {
            let list = text();
            let numbers = list.trim_matches(['[', ']']).split(',');
            let numbers = numbers.flat_map(|n| n.parse::<f32>().unwrap().to_le_bytes());
            Cell::Text(hex(&numbers.collect::<Vec<u8>>()))
        }
        Kind::Disguised(disguised) => revealed(disguised, &bytes()),
    }
}

fn without_comment(printed: &[u8]) -> &[u8] {
    let end = printed.windows(4).rposition(|w| w == b" /* ");
    printed[..end.unwrap_or(printed.len())].trim_ascii_end()
}

/// `JSON_REPLACE(@2, '$.a', 1)`: the server runs it over the old document.
fn partial(number: usize, expression: &[u8], old: Option<&[u8]>) -> Cell {
    let expression = String::from_utf8(expression.to_vec()).unwrap();
    let Some(old) = old else {
        return Cell::Text(expression);
    };
    let old = format!("CAST({} AS JSON)", String::from_utf8_lossy(old));
    Cell::Ask(expression.replace(&format!("@{}", number + 1), &old))
}

/// The member of this number; 0 is that of no member.
pub(crate) fn member(members: &[Cell], number: usize) -> Cell {
    match number.checked_sub(1) {
        Some(at) => members[at].clone(),
        None => Cell::Text(String::new()),
    }
}

/// A list of the members whose bits are set.
pub(crate) fn set(members: &[Cell], bits: u64) -> Cell {
    let chosen: Vec<String> = members
        .iter()
        .enumerate()
        .filter(|(i, _)| bits & 1 << i != 0)
        .map(|(_, member)| match member {
            Cell::Ask(sql) => format!("'\"', {sql}, '\"'"),
            _ => panic!("a member of no text"),
        })
        .collect();
    Cell::Ask(format!(
        "CONCAT('[', {}']')",
        match chosen.join(", ',', ") {
            list if list.is_empty() => list,
            list => list + ", ",
        }
    ))
}

/// A value of MariaDB that the log carries as bytes, without zeros at their end.
pub(crate) fn revealed(disguised: Disguised, bytes: &[u8]) -> Cell {
    let (kind, digits) = match disguised {
        Disguised::Uuid => ("UUID", 32),
        Disguised::Inet4 => ("INET4", 8),
        Disguised::Inet6 => ("INET6", 32),
        Disguised::Json => return Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
    };
    let bytes = hex(bytes);
    Cell::Ask(format!(
        "CAST(CAST(x'{bytes:0<digits$}' AS {kind}) AS CHAR)"
    ))
}

/// Everybody writes numbers with a point in another way: here they get one.
pub(crate) fn float(number: f32) -> Cell {
    Cell::Text(format!("{number:e}"))
}

pub(crate) fn double(number: f64) -> Cell {
    Cell::Text(format!("{number:e}"))
}

/// Without zeros at the end of the fraction.
pub(crate) fn short_fraction(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

/// Both servers keep `0000-00-00` as 0.
pub(crate) fn timestamp(seconds: i64, nanoseconds: i32) -> String {
    if seconds == 0 && nanoseconds == 0 {
        return "0000-00-00T00:00:00Z".to_owned();
    }
    jiff::Timestamp::new(seconds, nanoseconds)
        .unwrap()
        .to_string()
}

/// Replaces every [`Cell::Ask`] by the server's answer.
pub(crate) fn ask(server: &MySql, logs: &mut [Log]) {
    let asked: BTreeSet<String> = logs
        .iter_mut()
        .flat_map(Log::cells)
        .filter_map(|cell| match cell {
            Cell::Ask(sql) => Some(sql.clone()),
            _ => None,
        })
        .collect();
    let mut sql = "SET NAMES utf8mb4;".to_owned();
    for expression in &asked {
        sql += &format!(" SELECT HEX({expression});");
    }
    let answers = server.sql(&sql).unwrap();
    let answers: HashMap<&String, String> = asked
        .iter()
        .zip(answers.split('\n'))
        .map(|(sql, answer)| {
            assert_ne!(answer, "NULL", "the server does not know what {sql} is");
            let bytes: Vec<u8> = answer
                .as_bytes()
                .chunks(2)
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect();
            (sql, String::from_utf8(bytes).unwrap())
        })
        .collect();
    assert_eq!(answers.len(), asked.len());
    for cell in logs.iter_mut().flat_map(Log::cells) {
        if let Cell::Ask(sql) = cell {
            *cell = Cell::Text(answers[sql].clone());
        }
    }
}
