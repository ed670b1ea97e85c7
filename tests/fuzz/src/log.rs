//! A log file without checksums.

use std::sync::Arc;

use rollcall_binlog::charset::Charset;
use rollcall_binlog::ddl;
use rollcall_binlog::event::{Event, Flavour, Framing, Header, Kind, RawEvent};
use rollcall_binlog::payload::Payload;
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent, count_rows};
use rollcall_binlog::table_map::TableMaps;
use rollcall_binlog::types::{ColumnFacts, Reading, ZeroDates};
use rollcall_contract::{BatchBuilder, Column, TableName, TableNo, TableSchema, Tx, TxId};

pub(crate) fn run(data: &[u8]) -> usize {
    let data = data.strip_prefix(b"\xfebin").unwrap_or(data);
    let mut plain = 0;
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
                plain += event(&raw, &mut maps, false);
            }
        }
    }
    plain
}

fn event(raw: &RawEvent<'_>, maps: &mut TableMaps, is_within: bool) -> usize {
    let mut plain = 0;
    match raw.parse() {
        Ok(Event::TableMap) => {
            let _ = maps.learn(raw.body);
        }
        Ok(Event::Rows) => plain += rows(raw, maps),
        Ok(Event::Query(query)) => {
            if let Ok(text) = query.text() {
                if raw.header.kind == Kind::QueryCompressed {
                    plain += text.len();
                }
                let _ = ddl::read(&text, &ddl::Session::of(&query));
            }
        }
        Ok(Event::TransactionPayload) if !is_within => {
            let Ok(mut events) = Payload::parse(raw.body).and_then(|p| p.events()) else {
                return plain;
            };
            let mut out = Vec::new();
            loop {
                let next = events.next(raw.body, &mut out);
                plain += out.len();
                let Ok(Some(range)) = next else {
                    return plain;
                };
                if let Ok(inner) = RawEvent::inside(&out[range]) {
                    plain += event(&inner, maps, true);
                }
                out.clear();
            }
        }
        _ => {}
    }
    plain
}

fn rows(raw: &RawEvent<'_>, maps: &TableMaps) -> usize {
    let Ok(event) = RowsEvent::parse(raw) else {
        return 0;
    };
    let Some(map) = maps.get(event.table) else {
        return 0;
    };
    let _ = count_rows(&event, raw.body, map);
    let facts = vec![
        ColumnFacts {
            is_unsigned: Some(true),
            charset: Charset::by_name("utf8mb4"),
            members: Some(vec!["a".to_owned()]),
            ..ColumnFacts::default()
        };
        map.columns.len()
    ];
    let Ok(layout) = Layout::new(map, &facts, &[0], OldRows::Whole) else {
        return 0;
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
    let table = builder.table(TableNo::MAIN, &schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    let mut reading = Reading::new(ZeroDates::Text);
    let body = 0..raw.body.len();
    let reader = RowReader::new(&event, &layout, &mut builder, body);
    let plain = builder.data().len() - raw.body.len();
    if let Ok(mut reader) = reader {
        while let Ok(Some(_)) = reader.read(&mut builder, table, 0, &mut reading) {}
    }
    plain
}
