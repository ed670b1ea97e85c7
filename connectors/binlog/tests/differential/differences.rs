//! Which differences are known, and why they are.

use std::collections::BTreeMap;

use rollcall_contract::Op;
use rollcall_testbed::MySqlVersion;

use crate::model::{Cell, Entry};
use crate::{cdc, convert};

/// Who reads otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// `mysqlbinlog` or `mariadb-binlog`.
    Program,
    MysqlCdc,
}

/// Something that another reader says otherwise.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) reader: Reader,
    /// Where the event ends in its file.
    pub(crate) end: u32,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Other things than ours, or more, or fewer.
    Entries {
        ours: Vec<Entry>,
        theirs: Vec<Entry>,
    },
    /// One value of a row.
    Cell {
        /// With its table.
        column: String,
        /// It is in the new image.
        is_new: bool,
        ours: Cell,
        theirs: Cell,
        /// What we have for it in the old image.
        old: Cell,
    },
}

/// A kind of difference that is known.
struct Known {
    reader: Reader,
    on: On,
    is: fn(&What) -> bool,
    why: &'static str,
}

#[derive(PartialEq, Eq)]
enum On {
    Both,
    MySql,
    MariaDb,
}

const KNOWN: &[Known] = &[
    Known {
        reader: Reader::Program,
        on: On::Both,
        is: year_zero,
        why: "the year 0000 is kept as 0; the program adds 1900 to every number",
    },
    Known {
        reader: Reader::Program,
        on: On::Both,
        is: |what| {
            is_cell(what, |c| {
                let six = |cell: &Cell| match cell {
                    Cell::Text(text) => text.parse().map(|n: f64| format!("{n:.5e}")).ok(),
                    _ => None,
                };
                c.column == "hr.nums.f" && six(c.ours).is_some() && six(c.ours) == six(c.theirs)
            })
        },
        why: "the program prints six digits of a FLOAT; it needs up to nine",
    },
    Known {
        reader: Reader::Program,
        on: On::Both,
        is: padding,
        why: "the log has no zeros at the end of a BINARY(n); a SELECT gives all of its bytes",
    },
    Known {
        reader: Reader::Program,
        on: On::Both,
        is: filled_up,
        why: "a column that is in the old image only is as it was: we say so",
    },
    Known {
        reader: Reader::Program,
        on: On::MySql,
        is: |what| {
            gave_up(
                what,
                "hr.geo",
                "!! Don't know how to handle column type=255",
            )
        },
        why: "mysqlbinlog prints no GEOMETRY, and nothing of the event behind one",
    },
    Known {
        reader: Reader::Program,
        on: On::MySql,
        is: |what| {
            is_cell(what, |c| match (c.ours, c.theirs) {
                (Cell::Text(ours), Cell::Text(theirs)) => *ours == format!("\"{theirs}\""),
                _ => false,
            })
        },
        why: "mysqlbinlog prints a JSON document that is a string without its quotes",
    },
    Known {
        reader: Reader::Program,
        on: On::MySql,
        is: |what| {
            is_cell(what, |c| {
                let Cell::Text(theirs) = c.theirs else {
                    return false;
                };
                *c.ours == Cell::Absent && *c.old == Cell::Absent && theirs.starts_with("JSON_")
            })
        },
        why: "a difference to a document that is not in the log: the row has to be read again",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: year_zero,
        why: "mysql_cdc: it adds 1900 to every year, that of 0000 too",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: padding,
        why: "mysql_cdc: it leaves BINARY(n) as the log has it",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: filled_up,
        why: "mysql_cdc: it does not take from the old image what the new one lacks",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: |what| {
            is_cell(what, |c| match (c.ours, c.theirs) {
                (Cell::Text(ours), Cell::Text(theirs)) => {
                    ours.split_once('.').is_some_and(|(whole, fraction)| {
                        let millis = format!("{whole}.{}", &fraction[..fraction.len().min(3)]);
                        convert::short_fraction(&millis) == *theirs
                    })
                }
                _ => false,
            })
        },
        why: "mysql_cdc: it has milliseconds only",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: |what| gave_up(what, "", "Parsing negative TIME values is not supported"),
        why: "mysql_cdc: a negative TIME costs all rows of its event",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: |what| gave_up(what, "", "FromUtf8Error") || gave_up(what, "", "Utf8Error"),
        why: "mysql_cdc: bytes that are no UTF-8 (another character set, BINARY, members of an \
              ENUM) cost all rows of their event, or their table map",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: |what| gave_up(what, "", "No preceding TableMapEvent"),
        why: "mysql_cdc: rows whose table map it refused",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::Both,
        is: |what| is_left_out(what, |entry| matches!(entry, Entry::Prepared(_))),
        why: "mysql_cdc: it does not know XA_PREPARE",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MySql,
        is: |what| {
            is_cell(what, |c| {
                *c.theirs == Cell::Text(cdc::BINARY_JSON.to_owned())
            })
        },
        why: "mysql_cdc: it leaves JSON in its binary form",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MySql,
        is: |what| match what {
            What::Entries { ours, theirs } => {
                let begins = ours.first() == Some(&Entry::Statement("BEGIN".to_owned()));
                let ends = matches!(ours.last(), Some(Entry::Commit(_)));
                begins && ends && theirs.is_empty()
            }
            What::Cell { .. } => false,
        },
        why: "mysql_cdc: it leaves out compressed transactions without a word",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MySql,
        is: |what| {
            is_left_out(what, |entry| match entry {
                Entry::Row(row) => row.table == "hr.js" && row.op == Op::Update,
                _ => false,
            })
        },
        why: "mysql_cdc: it leaves out partial updates without a word",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MySql,
        is: |what| {
            is_left_out(what, |entry| match entry {
                Entry::Gtid(gtid) => gtid.matches(':').count() == 2,
                _ => false,
            })
        },
        why: "mysql_cdc: it does not know GTIDs with a tag",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MySql,
        is: |what| gave_up(what, "hr.vec", "Unknown column type 242"),
        why: "mysql_cdc: it does not know VECTOR, nor then the table",
    },
    Known {
        reader: Reader::MysqlCdc,
        on: On::MariaDb,
        is: |what| {
            is_left_out(what, |entry| match entry {
                Entry::Row(row) => row.table == "hr.wide",
                Entry::Statement(text) => text.contains(" later "),
                _ => false,
            })
        },
        why: "mysql_cdc: it leaves out compressed rows and statements without a word",
    },
];

/// The year 0000.
fn year_zero(what: &What) -> bool {
    let is = |cell: &Cell, year: &str| *cell == Cell::Text(year.to_owned());
    is_cell(what, |c| {
        c.column == "hr.ints.y" && is(c.ours, "0") && is(c.theirs, "1900")
    })
}

/// Ours has zero bytes behind theirs.
fn padding(what: &What) -> bool {
    is_cell(what, |c| match (c.ours, c.theirs) {
        (Cell::Text(ours), Cell::Text(theirs)) => ours
            .strip_prefix(theirs.as_str())
            .is_some_and(|rest| c.column.ends_with(".b") && rest.bytes().all(|b| b == b'0')),
        _ => false,
    })
}

/// The new image lacks what the old one has.
fn filled_up(what: &What) -> bool {
    is_cell(what, |c| {
        c.is_new && *c.theirs == Cell::Absent && c.ours == c.old
    })
}

/// One value.
struct Values<'w> {
    column: &'w str,
    is_new: bool,
    ours: &'w Cell,
    theirs: &'w Cell,
    old: &'w Cell,
}

fn is_cell(what: &What, is: impl Fn(Values<'_>) -> bool) -> bool {
    match what {
        What::Cell {
            column,
            is_new,
            ours,
            theirs,
            old,
            ..
        } => is(Values {
            column,
            is_new: *is_new,
            ours,
            theirs,
            old,
        }),
        What::Entries { .. } => false,
    }
}

/// The other reader refuses a table map, or rows, of a table (any, if it has no name here)
/// with these words, and has nothing else to say of them.
fn gave_up(what: &What, table: &str, words: &str) -> bool {
    let What::Entries { ours, theirs } = what else {
        return false;
    };
    let is_of = |entry: &Entry| match entry {
        Entry::Row(row) => table.is_empty() || row.table == table,
        Entry::Table(map) => table.is_empty() || map.name == table,
        _ => false,
    };
    let is_refusal = |entry: &Entry| match entry {
        Entry::Unreadable(said) => said.contains(words),
        _ => false,
    };
    ours.iter().all(is_of) && theirs.iter().any(is_refusal)
}

/// The other reader has nothing where we have only this.
fn is_left_out(what: &What, is: impl Fn(&Entry) -> bool) -> bool {
    match what {
        What::Entries { ours, theirs } => ours.iter().all(is) && theirs.is_empty(),
        What::Cell { .. } => false,
    }
}

/// Fails when a difference is not listed, or when one that is listed did not come up.
pub(crate) fn judge(version: MySqlVersion, found: &[Difference]) {
    let known = KNOWN.iter().filter(|known| match known.on {
        On::Both => true,
        On::MySql => !version.is_mariadb(),
        On::MariaDb => version.is_mariadb(),
    });
    let known: Vec<&Known> = known.collect();
    let mut counts: BTreeMap<&str, usize> = known.iter().map(|k| (k.why, 0)).collect();
    let mut unknown = Vec::new();
    for difference in found {
        let reasons = known
            .iter()
            .find(|k| k.reader == difference.reader && (k.is)(&difference.what));
        match reasons {
            Some(known) => *counts.entry(known.why).or_default() += 1,
            None => unknown.push(format!(
                "{:?} at {}: {:?}",
                difference.reader, difference.end, difference.what
            )),
        }
    }
    for (why, count) in &counts {
        println!("{count:5} times: {why}");
    }
    assert!(
        unknown.is_empty(),
        "{version}: {} differences are not listed, of {}:\n{}",
        unknown.len(),
        found.len(),
        unknown.join("\n")
    );
    let unseen: Vec<&str> = counts
        .iter()
        .filter(|(_, n)| **n == 0)
        .map(|(w, _)| *w)
        .collect();
    assert!(
        unseen.is_empty(),
        "{version}: listed, but not met: {unseen:#?}"
    );
}
