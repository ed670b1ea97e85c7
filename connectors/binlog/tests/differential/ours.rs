//! Our own reading.

use std::path::Path;
use std::sync::Arc;

use rollcall_binlog::event::{Event, Flavour, Framing, Header, RawEvent};
use rollcall_binlog::payload::Payload;
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent};
use rollcall_binlog::table_map::{TableMap, TableMaps};
use rollcall_binlog::types::{ColumnFacts, Disguised, Reading, ZeroDates};
use rollcall_contract as contract;
use rollcall_contract::{BatchBuilder, Cursor, TableName, TableNo, TableSchema, Tx, TxId};

use crate::convert;
use crate::model::{Cell, Column, Entry, Log, Place, Row, Table, places};

/// The columns of `hr.maria` whose type only the catalogue says.
pub(crate) fn disguise(table: &str, column: &str) -> Option<Disguised> {
    match (table, column) {
        ("hr.maria", "u" | "u2") => Some(Disguised::Uuid),
        ("hr.maria", "i6" | "i6b") => Some(Disguised::Inet6),
        ("hr.maria", "i4") => Some(Disguised::Inet4),
        ("hr.maria", "j") => Some(Disguised::Json),
        _ => None,
    }
}

pub(crate) fn read(file: &Path, flavour: Flavour) -> Log {
    let bytes = std::fs::read(file).unwrap();
    let mut reader = Reader {
        maps: TableMaps::new(flavour),
        reading: Reading::new(ZeroDates::Text),
        log: Log::default(),
        place: Place {
            start: 0,
            end: 0,
            statement_end: 0,
        },
    };
    let mut framing = Framing::new();
    for place in places(file) {
        let event = &bytes[place.start as usize..place.end as usize];
        assert_eq!(Header::parse(event).unwrap().size as usize, event.len());
        reader.place = place;
        reader.event(&framing.open(event).unwrap());
    }
    reader.log
}

struct Reader {
    maps: TableMaps,
    reading: Reading,
    log: Log,
    place: Place,
}

impl Reader {
    fn event(&mut self, raw: &RawEvent<'_>) {
        let entry = match raw.parse().unwrap() {
            Event::Gtid(gtid) => Entry::Gtid(gtid.gtid.unwrap().to_string()),
            Event::MariadbGtid(gtid) => Entry::Gtid(gtid.gtid.to_string()),
            Event::Query(query) => {
                Entry::Statement(String::from_utf8(query.text().unwrap().into_owned()).unwrap())
            }
            Event::Xid(number) => Entry::Commit(number),
            Event::XaPrepare(prepare) => Entry::Prepared(prepare.xid.to_string()),
            Event::TableMap => table(self.maps.learn(raw.body).unwrap()),
            Event::Rows => return self.rows(raw),
            Event::TransactionPayload => {
                let mut events = Payload::parse(raw.body).unwrap().events().unwrap();
                let mut out = Vec::new();
                while let Some(range) = events.next(raw.body, &mut out).unwrap() {
                    self.event(&RawEvent::inside(&out[range]).unwrap());
                    out.clear();
                }
                return;
            }
            Event::FormatDescription(_)
            | Event::Rotate(_)
            | Event::PreviousGtids(_)
            | Event::MariadbGtidList(_)
            | Event::Nothing => return,
            other => panic!("{other:?}"),
        };
        self.log.add(self.place.end, entry);
    }

    fn rows(&mut self, raw: &RawEvent<'_>) {
        let event = RowsEvent::parse(raw).unwrap();
        let map = Arc::clone(self.maps.get(event.table).unwrap());
        let name = format!("{}.{}", map.database, map.table);
        let facts: Vec<ColumnFacts> = map
            .columns
            .iter()
            .map(|c| ColumnFacts {
                disguised: disguise(&name, c.name.as_deref().unwrap()),
                ..ColumnFacts::default()
            })
            .collect();
        let layout = Layout::new(&map, &facts, &[0], OldRows::Whole).unwrap();
        let schema = Arc::new(TableSchema {
            table: TableName::new(&map.database, &map.table),
            columns: map
                .columns
                .iter()
                .zip(layout.columns())
                .map(|(c, column)| contract::Column {
                    name: c.name.clone().unwrap(),
                    class: column.column_type().class(),
                    type_name: column.column_type().name(),
                    nullable: c.is_nullable,
                })
                .collect(),
            key: vec![0],
        });
        let mut builder = BatchBuilder::with_buffer(raw.body.to_vec());
        let number = builder.table(TableNo::MAIN, &schema);
        builder.tx(Tx {
            id: TxId::default(),
            position: Default::default(),
            commit_us: 0,
        });
        let body = 0..raw.body.len();
        let mut rows = RowReader::new(&event, &layout, &mut builder, body).unwrap();
        while rows
            .read(&mut builder, number, 0, &mut self.reading)
            .unwrap()
            .is_some()
        {}
        for change in builder.build(Cursor::new(&[1], "1")).changes() {
            let old = change.before().row().map(|row| cells(&row, &schema));
            let new = change.after().map(|row| cells(&row, &schema));
            let row = Row {
                table: name.clone(),
                op: change.op(),
                old: old.unwrap_or_default(),
                new: new.unwrap_or_default(),
            };
            self.log.add(self.place.statement_end, Entry::Row(row));
        }
        if event.ends_statement() {
            self.maps.end_statement();
        }
    }
}

fn cells(row: &contract::Row<'_>, schema: &TableSchema) -> Vec<Cell> {
    row.cells()
        .zip(&schema.columns)
        .map(|(cell, column)| match cell {
            contract::Cell::Null => Cell::Null,
            contract::Cell::Missing | contract::Cell::Unchanged => Cell::Absent,
            contract::Cell::Value(text) => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                match &*column.type_name {
                    "float" => convert::float(text.parse().unwrap()),
                    "double" => convert::double(text.parse().unwrap()),
                    _ => Cell::Text(text),
                }
            }
        })
        .collect()
}

fn table(map: &TableMap) -> Entry {
    let name = |i: usize| map.columns[i].name.clone().unwrap();
    let key = map
        .primary_key
        .iter()
        .flatten()
        .map(|part| match part.prefix {
            0 => name(part.column),
            n => format!("{}({n})", name(part.column)),
        });
    Entry::Table(Table {
        name: format!("{}.{}", map.database, map.table),
        columns: map
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Column {
                name: name(i),
                declared: Vec::new(),
                is_nullable: c.is_nullable,
            })
            .collect(),
        key: key.collect::<Vec<_>>().join(", "),
    })
}
