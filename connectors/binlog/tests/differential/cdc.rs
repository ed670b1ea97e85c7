//! What the crate `mysql_cdc` reads.
//!
//! Its values have no sign, no character set and no names of members; these are taken from
//! what the server's program says of the table.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::MySqlValue;
use mysql_cdc::events::row_events::row_data::RowData;
use mysql_cdc::events::table_map_event::TableMapEvent;
use rollcall_contract::Op;

use crate::convert::{self, Kind, hex};
use crate::model::{Cell, Column, Entry, Log, Place, Row, Table, places};

/// What stands here for a JSON document that the crate does not decode.
pub(crate) const BINARY_JSON: &str = "a document in its binary form";

/// Reads a file to its end. An event that is refused is noted where it ends, and reading
/// goes on behind it; so is one in which the crate panics.
pub(crate) fn read(file: &Path, program: &Log) -> Log {
    let mut reader = Reader {
        described: HashMap::new(),
        maps: HashMap::new(),
        log: Log::default(),
    };
    let mut events = BinlogReader::new(File::open(file).unwrap()).unwrap();
    for place in places(file) {
        for entry in program.0.get(&place.end).into_iter().flatten() {
            if let Entry::Table(table) = entry {
                reader.described.insert(table.name.clone(), table.clone());
            }
        }
        match catch_unwind(AssertUnwindSafe(|| events.next())) {
            Ok(Some(Ok((header, event)))) => {
                assert_eq!(header.event_length, place.end - place.start);
                reader.event(place, event);
            }
            Ok(Some(Err(error))) => {
                let words = format!("{error:?}");
                reader
                    .log
                    .add(place.statement_end, Entry::Unreadable(words));
            }
            Ok(None) => panic!("it ends before {place:?}"),
            Err(_) => {
                let words = "panic".to_owned();
                reader
                    .log
                    .add(place.statement_end, Entry::Unreadable(words));
            }
        }
    }
    assert!(events.next().is_none(), "it reads beyond the end");
    reader.log
}

struct Reader {
    /// By the name of the table.
    described: HashMap<String, Table>,
    maps: HashMap<u64, TableMapEvent>,
    log: Log,
}

impl Reader {
    fn event(&mut self, place: Place, event: BinlogEvent) {
        let entry = match event {
            BinlogEvent::MySqlGtidEvent(gtid) => Entry::Gtid(gtid.gtid.to_string()),
            BinlogEvent::MariaDbGtidEvent(gtid) => Entry::Gtid(gtid.gtid.to_string()),
            BinlogEvent::QueryEvent(query) => Entry::Statement(query.sql_statement),
            BinlogEvent::XidEvent(xid) => Entry::Commit(xid.xid),
            BinlogEvent::TableMapEvent(map) => {
                let entry = table(&map);
                self.maps.insert(map.table_id, map);
                entry
            }
            BinlogEvent::WriteRowsEvent(event) => {
                let table = self.table(event.table_id);
                for row in event.rows {
                    let new = image(&table, row, &event.columns_present);
                    self.row(place, &table, Op::Insert, Vec::new(), new);
                }
                return;
            }
            BinlogEvent::DeleteRowsEvent(event) => {
                let table = self.table(event.table_id);
                for row in event.rows {
                    let old = image(&table, row, &event.columns_present);
                    self.row(place, &table, Op::Delete, old, Vec::new());
                }
                return;
            }
            BinlogEvent::UpdateRowsEvent(event) => {
                let table = self.table(event.table_id);
                for row in event.rows {
                    let old = image(&table, row.before_update, &event.columns_before_update);
                    let new = image(&table, row.after_update, &event.columns_after_update);
                    self.row(place, &table, Op::Update, old, new);
                }
                return;
            }
            _ => return,
        };
        self.log.add(place.end, entry);
    }

    fn table(&self, id: u64) -> Table {
        let map = &self.maps[&id];
        let name = format!("{}.{}", map.database_name, map.table_name);
        self.described[&name].clone()
    }

    fn row(&mut self, place: Place, table: &Table, op: Op, old: Vec<Cell>, new: Vec<Cell>) {
        let row = Row {
            table: table.name.clone(),
            op,
            old,
            new,
        };
        self.log.add(place.statement_end, Entry::Row(row));
    }
}

fn table(map: &TableMapEvent) -> Entry {
    let metadata = map.table_metadata.as_ref().unwrap();
    let names = metadata.column_names.clone().unwrap_or_default();
    let simple = metadata.simple_primary_keys.iter().flatten();
    let prefixed = metadata.primary_keys_with_prefix.iter().flatten();
    let keys = simple.map(|at| (*at, 0)).chain(prefixed.copied());
    let key = keys.map(|(at, prefix)| match (&names[at as usize], prefix) {
        (name, 0) => name.clone(),
        (name, n) => format!("{name}({n})"),
    });
    Entry::Table(Table {
        name: format!("{}.{}", map.database_name, map.table_name),
        key: key.collect::<Vec<_>>().join(", "),
        columns: names
            .iter()
            .zip(&map.null_bitmap)
            .map(|(name, nullable)| Column {
                name: name.clone(),
                declared: Vec::new(),
                is_nullable: *nullable,
            })
            .collect(),
    })
}

fn image(table: &Table, row: RowData, present: &[bool]) -> Vec<Cell> {
    row.cells
        .into_iter()
        .zip(&table.columns)
        .zip(present)
        .map(|((value, column), is_present)| match value {
            _ if !is_present => Cell::Absent,
            None => Cell::Null,
            Some(value) => cell(&table.name, column, value),
        })
        .collect()
}

fn cell(table: &str, column: &Column, value: MySqlValue) -> Cell {
    let kind = column.kind(table);
    let int = |value: u64, bits: u32| match kind {
        Kind::Int { is_unsigned: true } => Cell::Text(value.to_string()),
        _ => {
            let shift = 64 - bits;
            Cell::Text((((value << shift) as i64) >> shift).to_string())
        }
    };
    let bytes = |bytes: &[u8]| match &kind {
        Kind::Text(charset) => convert::in_charset(charset, bytes),
        Kind::Disguised(disguised) => convert::revealed(*disguised, bytes),
        Kind::Json => Cell::Text(BINARY_JSON.to_owned()),
        _ => Cell::Text(hex(bytes)),
    };
    let fraction = |millis: u32| convert::short_fraction(&format!(".{millis:03}"));
    match value {
        MySqlValue::TinyInt(n) => int(n.into(), 8),
        MySqlValue::SmallInt(n) => int(n.into(), 16),
        MySqlValue::MediumInt(n) => int(n.into(), 24),
        MySqlValue::Int(n) => int(n.into(), 32),
        MySqlValue::BigInt(n) => int(n, 64),
        MySqlValue::Float(n) => convert::float(n),
        MySqlValue::Double(n) => convert::double(n),
        MySqlValue::Decimal(text) => Cell::Text(text),
        MySqlValue::String(text) => bytes(text.as_bytes()),
        MySqlValue::Blob(value) => bytes(&value),
        MySqlValue::Bit(bits) => match bits[..] {
            [bit] => Cell::Text(if bit { "t" } else { "f" }.to_owned()),
            _ => {
                // The most significant one comes first.
                let number = bits.iter().fold(0, |n, bit| n << 1 | u64::from(*bit));
                let digits = bits.len().div_ceil(8) * 2;
                Cell::Text(format!("{number:0digits$x}"))
            }
        },
        MySqlValue::Enum(number) => match &kind {
            Kind::Enum(members) => convert::member(members, number as usize),
            _ => Cell::Text(number.to_string()),
        },
        MySqlValue::Set(bits) => match &kind {
            Kind::Set(members) => convert::set(members, bits),
            _ => Cell::Text(bits.to_string()),
        },
        MySqlValue::Year(year) => Cell::Text(year.to_string()),
        MySqlValue::Date(d) => Cell::Text(format!("{:04}-{:02}-{:02}", d.year, d.month, d.day)),
        MySqlValue::Time(t) => Cell::Text(format!(
            "{:02}:{:02}:{:02}{}",
            t.hour,
            t.minute,
            t.second,
            fraction(t.millis)
        )),
        MySqlValue::DateTime(d) => Cell::Text(format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}",
            d.year,
            d.month,
            d.day,
            d.hour,
            d.minute,
            d.second,
            fraction(d.millis)
        )),
        MySqlValue::Timestamp(millis) => Cell::Text(convert::timestamp(
            (millis / 1000) as i64,
            (millis % 1000) as i32 * 1_000_000,
        )),
    }
}
