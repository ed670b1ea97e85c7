//! A log file as lines of text: what happened, in order.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use rollcall_binlog::ddl;
use rollcall_binlog::event::{Event, Flavour, Framing, Header, Kind, RawEvent};
use rollcall_binlog::payload::Payload;
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent, count_rows};
use rollcall_binlog::table_map::{TableMap, TableMaps};
use rollcall_binlog::types::{ColumnFacts, Disguised, Reading, ZeroDates};
use rollcall_contract::{
    BatchBuilder, Before, Cell, Column, Cursor, Row, TableName, TableNo, TableSchema, Tx, TxId,
};

/// What to make of a log.
pub(crate) struct Reader {
    pub(crate) old_rows: OldRows,
    pub(crate) zero_dates: ZeroDates,
    /// By the name of a column: what only the server's catalogue says.
    pub(crate) disguised: HashMap<&'static str, Disguised>,
    /// For every column of every table, where the log is silent.
    pub(crate) facts: Vec<ColumnFacts>,
    flavour: Flavour,
    maps: TableMaps,
    framing: Framing,
    reading: Reading,
    pub(crate) lines: String,
}

impl Reader {
    pub(crate) fn new(flavour: Flavour) -> Self {
        Reader {
            old_rows: OldRows::Whole,
            zero_dates: ZeroDates::Null,
            disguised: HashMap::new(),
            facts: Vec::new(),
            flavour,
            maps: TableMaps::new(flavour),
            framing: Framing::new(),
            reading: Reading::default(),
            lines: String::new(),
        }
    }

    /// Reads a whole file, its magic number first.
    pub(crate) fn file(&mut self, file: &[u8]) {
        self.reading.zero_dates = self.zero_dates;
        let mut rest = file.strip_prefix(b"\xfebin").unwrap();
        while !rest.is_empty() {
            let size = Header::parse(rest).unwrap().size as usize;
            let (event, tail) = rest.split_at(size);
            rest = tail;
            let raw = self.framing.open(event).unwrap();
            self.event(&raw);
        }
        let oddities = self.reading.oddities;
        writeln!(
            self.lines,
            "zero dates {}, invalid texts {}",
            oddities.zero_dates, oddities.invalid_texts
        )
        .unwrap();
    }

    fn event(&mut self, raw: &RawEvent<'_>) {
        let event = raw.parse().unwrap();
        let line = match &event {
            Event::FormatDescription(f) => {
                assert_eq!(f.flavour(), self.flavour);
                format!("format {:?} {}", f.flavour(), f.server_version)
            }
            Event::Query(query) => {
                let text = query.text().unwrap();
                let effect = ddl::read(&text, &ddl::Session::of(query));
                format!("query in {:?}: {effect:?}", query.database)
            }
            Event::Xid(_) => "xid".to_owned(),
            Event::XaPrepare(xa) => format!("{xa:?}"),
            Event::Gtid(gtid) => {
                assert!(gtid.commit_us.unwrap() > 1_700_000_000_000_000);
                assert!(gtid.length.unwrap() > 0);
                format!(
                    "gtid :{}",
                    gtid.gtid.unwrap().to_string().split_once(':').unwrap().1
                )
            }
            Event::MariadbGtid(gtid) => format!(
                "gtid {} standalone {} ddl {} xa {:?}",
                gtid.gtid,
                gtid.is_standalone(),
                gtid.is_ddl(),
                gtid.xid
            ),
            Event::TableMap => {
                self.maps.learn(raw.body).unwrap();
                return;
            }
            Event::Rows => {
                self.rows(raw);
                return;
            }
            Event::TransactionPayload => {
                self.lines.push_str("payload\n");
                let mut events = Payload::parse(raw.body).unwrap().events().unwrap();
                let mut out = Vec::new();
                while let Some(range) = events.next(raw.body, &mut out).unwrap() {
                    self.event(&RawEvent::inside(&out[range]).unwrap());
                    out.clear();
                }
                self.lines.push_str("payload ends\n");
                return;
            }
            Event::Nothing => return,
            Event::Rotate(_) | Event::PreviousGtids(_) | Event::MariadbGtidList(_) => {
                format!("{event:?}")
            }
            other => panic!("{other:?}"),
        };
        self.lines.push_str(&line);
        self.lines.push('\n');
    }

    fn rows(&mut self, raw: &RawEvent<'_>) {
        let event = RowsEvent::parse(raw).unwrap();
        let map = Arc::clone(self.maps.get(event.table).unwrap());
        let facts: Vec<_> = map
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| ColumnFacts {
                disguised: self.disguised.get(c.name.as_deref().unwrap_or("")).copied(),
                ..self.facts.get(i).cloned().unwrap_or_default()
            })
            .collect();
        let key = key(&map);
        let layout = Layout::new(&map, &facts, &key, self.old_rows).unwrap();
        let schema = Arc::new(schema(&map, &layout, key));
        let mut builder = BatchBuilder::with_buffer(b"in front".to_vec());
        let start = builder.data().len();
        builder.data().extend_from_slice(raw.body);
        let body = start..builder.data().len();
        let table = builder.table(TableNo::MAIN, &schema);
        builder.tx(Tx {
            id: TxId::default(),
            position: Default::default(),
            commit_us: 0,
        });
        let mut rows = RowReader::new(&event, &layout, &mut builder, body.clone()).unwrap();
        let mut incomplete = Vec::new();
        let mut count = 0;
        while let Some(outcome) = rows
            .read(&mut builder, table, count, &mut self.reading)
            .unwrap()
        {
            incomplete.push(outcome.is_incomplete);
            count += 1;
        }
        assert_eq!(count_rows(&event, raw.body, &map).unwrap(), count);
        let mut again = RowReader::new(&event, &layout, &mut builder, body).unwrap();
        let mut skipped = 0;
        while again.skip(&mut builder).unwrap() {
            skipped += 1;
        }
        assert_eq!(skipped, count);
        let batch = builder.build(Cursor::new(&[1], "1"));
        for (change, incomplete) in batch.changes().zip(incomplete) {
            let name = &change.table().table.name;
            write!(self.lines, "{:?} {name}", change.op()).unwrap();
            if incomplete {
                self.lines.push_str(" incomplete");
            }
            match change.before() {
                Before::None => {}
                Before::Key(row) => write!(self.lines, " key {}", text(&row)).unwrap(),
                Before::Full(row) => write!(self.lines, " old {}", text(&row)).unwrap(),
            }
            if let Some(row) = change.after() {
                write!(self.lines, " new {}", text(&row)).unwrap();
            }
            self.lines.push('\n');
        }
        if event.ends_statement() {
            self.maps.end_statement();
        }
        if raw.header.kind == Kind::PartialUpdateRows {
            self.lines.push_str("(partial)\n");
        }
    }
}

fn key(map: &TableMap) -> Vec<usize> {
    match &map.primary_key {
        Some(parts) => parts.iter().map(|p| p.column).collect(),
        None => (0..map.columns.len()).collect(),
    }
}

fn schema(map: &TableMap, layout: &Layout, key: Vec<usize>) -> TableSchema {
    let columns = map.columns.iter().zip(layout.columns()).enumerate();
    TableSchema {
        table: TableName::new(&map.database, &map.table),
        columns: columns
            .map(|(i, (c, column))| Column {
                name: c.name.clone().unwrap_or_else(|| format!("@{}", i + 1)),
                class: column.column_type().class(),
                type_name: column.column_type().name(),
                nullable: c.is_nullable,
            })
            .collect(),
        key,
    }
}

fn text(row: &Row<'_>) -> String {
    let cells = row.cells().map(|cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Missing => "(missing)".to_owned(),
        Cell::Unchanged => "(unchanged)".to_owned(),
        Cell::Value(text) if text.len() > 1000 => {
            let begin = std::str::from_utf8(&text[..40]).unwrap();
            format!("{begin}… {} bytes", text.len())
        }
        Cell::Value(text) => std::str::from_utf8(text).unwrap().to_owned(),
    });
    cells.collect::<Vec<_>>().join("|")
}
