//! A log file without checksums.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rollcall_binlog::ddl;
use rollcall_binlog::event::{Event, Flavour, Framing, Header, RawEvent};
use rollcall_binlog::payload::Payload;
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent, count_rows};
use rollcall_binlog::table_map::TableMaps;
use rollcall_binlog::types::{ColumnFacts, Reading, ZeroDates};
use rollcall_contract::{BatchBuilder, Column, TableName, TableSchema, Tx, TxId};

fuzz_target!(|data: &[u8]| {
    let data = data.strip_prefix(b"\xfebin").unwrap_or(data);
    for flavour in [Flavour::Mysql, Flavour::Mariadb] {
        let mut maps = TableMaps::new(flavour);
        let mut rest = data;
        while let Ok(header) = Header::parse(rest) {
            let Some((bytes, tail)) = rest.split_at_checked(header.size as usize) else {
                break;
            };
            rest = tail;
            let _ = Framing::new().open(bytes);
            if let Ok(raw) = RawEvent::inside(bytes) {
                event(&raw, &mut maps, 0);
            }
        }
    }
});

fn event(raw: &RawEvent<'_>, maps: &mut TableMaps, depth: u8) {
    match raw.parse() {
        Ok(Event::TableMap) => {
            let _ = maps.learn(raw.body);
        }
        Ok(Event::Rows) => rows(raw, maps),
        Ok(Event::Query(query)) => {
            if let Ok(text) = query.text() {
                let _ = ddl::read(&text, &ddl::Session::of(&query));
            }
        }
        Ok(Event::TransactionPayload) if depth == 0 => {
            let events = Payload::parse(raw.body).and_then(|p| p.events());
            let Ok(mut events) = events else { return };
            let mut out = Vec::new();
            while let Ok(Some(range)) = events.next(raw.body, &mut out) {
                if let Ok(inner) = RawEvent::inside(&out[range]) {
                    event(&inner, maps, depth + 1);
                }
                out.clear();
            }
        }
        _ => {}
    }
}

fn rows(raw: &RawEvent<'_>, maps: &TableMaps) {
    let Ok(event) = RowsEvent::parse(raw) else {
        return;
    };
    let Some(map) = maps.get(event.table) else {
        return;
    };
    let _ = count_rows(&event, raw.body, map);
    let facts = vec![
        ColumnFacts {
            is_unsigned: Some(true),
            charset: rollcall_binlog::charset::Charset::by_name("utf8mb4"),
            members: Some(vec!["a".to_owned()]),
            disguised: None,
        };
        map.columns.len()
    ];
    let Ok(layout) = Layout::new(map, &facts, &[0], OldRows::Whole) else {
        return;
    };
    let schema = Arc::new(TableSchema {
        table: TableName::new(&map.database, &map.table),
        columns: layout
            .columns()
            .iter()
            .map(|c| Column {
                name: String::new(),
                class: c.column_type().class(),
                type_name: c.column_type().name(),
                nullable: true,
            })
            .collect(),
        key: vec![0],
    });
    let mut builder = BatchBuilder::default();
    builder.data().extend_from_slice(raw.body);
    let table = builder.table(&schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    let mut reading = Reading::new(ZeroDates::Text);
    let body = 0..raw.body.len();
    let Ok(mut reader) = RowReader::new(&event, &layout, &mut builder, body) else {
        return;
    };
    while let Ok(Some(_)) = reader.read(&mut builder, table, 0, &mut reading) {}
}
