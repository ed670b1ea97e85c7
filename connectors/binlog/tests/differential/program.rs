//! What `mysqlbinlog --verbose` and `mariadb-binlog --verbose` print, taken apart.
//!
//! Both print a line with the kind and the end of each event, behind it statements up to a
//! line `/*!*/;`, table maps as comments, and rows as SQL of a kind, one column a line.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use rollcall_contract::Op;
use rollcall_testbed::MySql;

use crate::convert::{self, Quoting};
use crate::model::{Cell, Column, Entry, Log, Row, Table, places};

pub(crate) fn read(server: &MySql, file: &Path) -> Log {
    let mut command = server.tool("mysqlbinlog");
    command.args([
        "-vv",
        "--print-table-metadata",
        "--base64-output=DECODE-ROWS",
    ]);
    let output = command.arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = file.with_extension("printed");
    std::fs::write(printed, &output.stdout).unwrap();
    let mut parser = Parser {
        quoting: match server.version().is_mariadb() {
            true => Quoting::Raw,
            false => Quoting::Sql,
        },
        ends: places(file).into_iter().map(|p| (p.start, p.end)).collect(),
        ..Parser::default()
    };
    for line in output.stdout.split(|b| *b == b'\n') {
        parser.line(line);
    }
    parser.flush();
    parser.log
}

/// What the lines belong to that come now.
#[derive(Default, PartialEq, Eq)]
enum Section {
    #[default]
    Other,
    Gtid,
    Statement,
    Table,
}

#[derive(Default)]
struct Parser {
    quoting: Quoting,
    log: Log,
    /// By where it starts.
    ends: HashMap<u32, u32>,
    /// Events that were announced by `# at`, before their heads.
    starts: VecDeque<u32>,
    end: u32,
    section: Section,
    statement: Vec<u8>,
    /// The open table map: its name and its lines.
    table: Option<(String, Vec<u8>)>,
    key: String,
    tables: Vec<Table>,
    /// The open row and its values as they are printed.
    row: Option<(Op, String, [Values; 2])>,
    side: usize,
}

/// Values as they are printed, by the number of their column.
type Values = Vec<(usize, Vec<u8>)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Parser {
    fn line(&mut self, line: &[u8]) {
        if let Some(row) = line.strip_prefix(b"### ") {
            return self.row_line(row);
        }
        if let Some(columns) = line.strip_prefix(b"# Columns(") {
            if let Some((_, lines)) = &mut self.table {
                lines.extend_from_slice(columns);
            }
            return;
        }
        if let Some(columns) = line.strip_prefix(b"#         `") {
            if let Some((_, lines)) = &mut self.table {
                lines.extend_from_slice(b" `");
                lines.extend_from_slice(columns);
            }
            return;
        }
        if let Some(key) = line.strip_prefix(b"# Primary Key(") {
            self.key = text(key.strip_suffix(b")").unwrap());
            return;
        }
        if let Some(start) = line.strip_prefix(b"# at ") {
            self.starts.push_back(text(start).parse().unwrap());
            return;
        }
        if line.len() > 8 && line[0] == b'#' && line[1..7].iter().all(u8::is_ascii_digit) {
            return self.head(&text(line));
        }
        match self.section {
            Section::Gtid => {
                if let Some(rest) = line.strip_prefix(b"SET @@SESSION.GTID_NEXT= '") {
                    let gtid = text(rest.split(|b| *b == b'\'').next().unwrap());
                    self.log.add(self.end, Entry::Gtid(gtid));
                }
            }
            Section::Statement if line == b"/*!*/;" => {
                let statement = std::mem::take(&mut self.statement);
                let statement = text(&statement);
                self.log.add(self.end, Entry::Statement(statement));
                self.section = Section::Other;
            }
            // What sets the session up before.
            Section::Statement if line.ends_with(b"/*!*/;") => self.statement.clear(),
            Section::Statement => {
                if !self.statement.is_empty() {
                    self.statement.push(b'\n');
                }
                self.statement.extend_from_slice(line);
            }
            _ => {}
        }
    }

    /// `#261125 14:02:27 server id 8  end_log_pos 127 CRC32 0xd6b0663a \tQuery\t…`
    fn head(&mut self, line: &str) {
        self.flush();
        self.section = Section::Other;
        let Some((_, rest)) = line.split_once("end_log_pos ") else {
            return;
        };
        // MariaDB 11 writes no positions into the events of a transaction; the events of a
        // payload begin where the payload ends.
        let start = self.starts.pop_front().unwrap();
        let (end, rest) = rest.split_once(' ').unwrap();
        self.end = match end.parse().unwrap() {
            0 => self.ends[&start],
            end => end,
        };
        let (_, kind) = rest.split_once('\t').unwrap();
        let mut entry = |entry| self.log.add(self.end, entry);
        if kind.starts_with("Query") {
            self.section = Section::Statement;
            self.statement.clear();
        } else if let Some(number) = kind.strip_prefix("Xid = ") {
            entry(Entry::Commit(number.parse().unwrap()));
        } else if let Some(xid) = kind
            .strip_prefix("XA PREPARE ")
            .or(kind.strip_prefix("XID = "))
        {
            entry(Entry::Prepared(xid.to_owned()));
        } else if let Some(xid) = kind.strip_prefix("XA COMMIT ") {
            let xid = xid.strip_suffix(" ONE PHASE").unwrap();
            entry(Entry::Prepared(xid.to_owned()));
        } else if let Some(gtid) = kind.strip_prefix("GTID ") {
            entry(Entry::Gtid(gtid.split(' ').next().unwrap().to_owned()));
        } else if kind.starts_with("GTID") {
            self.section = Section::Gtid;
        } else if let Some(name) = kind.strip_prefix("Table_map: ") {
            let (name, _) = name.split_once(" mapped").unwrap();
            self.section = Section::Table;
            self.table = Some((name.replace('`', ""), Vec::new()));
            self.key.clear();
        }
    }

    /// What stands behind `### `.
    fn row_line(&mut self, line: &[u8]) {
        if let Some(value) = line.strip_prefix(b"  @") {
            let at = value.iter().position(|b| *b == b'=').unwrap();
            let number: usize = text(&value[..at]).parse().unwrap();
            let values = &mut self.row.as_mut().unwrap().2[self.side];
            values.push((number - 1, value[at + 1..].to_vec()));
            return;
        }
        match line {
            b"WHERE" => self.side = 0,
            b"SET" => self.side = 1,
            _ => {
                let line = text(line);
                let begins = [
                    ("INSERT INTO ", Op::Insert),
                    ("UPDATE ", Op::Update),
                    ("DELETE FROM ", Op::Delete),
                ];
                let begin = begins
                    .iter()
                    .find_map(|(words, op)| Some((line.strip_prefix(words)?, *op)));
                if let Some((name, op)) = begin {
                    self.flush();
                    self.row = Some((op, name.replace('`', ""), Default::default()));
                } else {
                    // A partial update of JSON goes on.
                    let values = &mut self.row.as_mut().unwrap().2[self.side];
                    let value = &mut values.last_mut().unwrap().1;
                    value.extend_from_slice(line.as_bytes());
                }
            }
        }
    }

    /// The table map or the row is whole.
    fn flush(&mut self) {
        if let Some((name, lines)) = self.table.take() {
            let table = Table {
                columns: columns(lines.strip_suffix(b")").unwrap_or(&lines)),
                key: std::mem::take(&mut self.key),
                name,
            };
            self.tables.retain(|t| t.name != table.name);
            self.tables.push(table.clone());
            self.log.add(self.end, Entry::Table(table));
        }
        if let Some((op, name, printed)) = self.row.take() {
            let table = self.tables.iter().find(|t| t.name == name).unwrap();
            let gave_up = printed
                .iter()
                .flatten()
                .find(|(_, v)| v.starts_with(b"!! "));
            let entry = match gave_up {
                Some((_, words)) => Entry::Unreadable(text(words)),
                None => {
                    let [old, new] = printed;
                    let old_cells = image(table, &old, &Vec::new(), op != Op::Insert, self.quoting);
                    let new_cells = image(table, &new, &old, op != Op::Delete, self.quoting);
                    Entry::Row(Row {
                        table: name,
                        op,
                        old: old_cells,
                        new: new_cells,
                    })
                }
            };
            self.log.add(self.end, entry);
        }
    }
}

fn image(
    table: &Table,
    printed: &Values,
    old: &Values,
    is_there: bool,
    quoting: Quoting,
) -> Vec<Cell> {
    if !is_there {
        return Vec::new();
    }
    let find = |values: &Values, i: usize| {
        let value = values.iter().find(|(n, _)| *n == i);
        value.map(|(_, printed)| printed.clone())
    };
    table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| match find(printed, i) {
            Some(value) => convert::printed(
                &table.name,
                column,
                i,
                &value,
                find(old, i).as_deref(),
                quoting,
            ),
            None => Cell::Absent,
        })
        .collect()
}

/// `` `id` INT NOT NULL, `e` ENUM('x', 'y') CHARSET latin1 COLLATE latin1_swedish_ci ``
fn columns(list: &[u8]) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut rest = list;
    while let Some(begin) = rest.iter().position(|b| *b == b'`') {
        let named = &rest[begin + 1..];
        let name_end = named.iter().position(|b| *b == b'`').unwrap();
        let tail = &named[name_end + 1..];
        // The next name is the first one outside of quotes.
        let (mut end, mut is_quoted, mut is_escaped) = (tail.len(), false, false);
        for (i, b) in tail.iter().enumerate() {
            match b {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'\'' => is_quoted = !is_quoted,
                b'`' if !is_quoted => {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        let mut declared = tail[..end].trim_ascii();
        declared = declared.strip_suffix(b",").unwrap_or(declared);
        columns.push(Column {
            name: text(&named[..name_end]),
            is_nullable: !declared.windows(8).any(|w| w == b"NOT NULL"),
            declared: declared.to_vec(),
        });
        rest = &tail[end..];
    }
    columns
}
