//! Bytes of a log to batches, without a socket: the cost of one row.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollcall_binlog::event::{Flavour, Framing, Header};
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent};
use rollcall_binlog::table_map::{TableMap, TableMaps};
use rollcall_binlog::types::Reading;
use rollcall_contract::{
    Batch, BatchBuilder, Column, Cursor, TableName, TableNo, TableSchema, Tx, TxId,
};

const EVENTS: usize = 200;
/// What fits into an event of 8 KiB.
const ROWS: usize = 60;
/// An employees table: name, type, metadata.
const COLUMNS: [(&str, u8, &[u8]); 12] = [
    ("id", 8, &[]),
    ("number", 15, &[80, 0]),
    ("given_name", 15, &[144, 1]),
    ("family_name", 15, &[144, 1]),
    ("email", 15, &[144, 1]),
    ("department", 15, &[144, 1]),
    ("title", 15, &[144, 1]),
    ("manager_id", 8, &[]),
    ("active", 1, &[]),
    ("hired_on", 10, &[]),
    ("left_on", 10, &[]),
    ("updated_at", 17, &[6]),
];

fn event(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, kind, 1, 0, 0, 0];
    out.extend(((Header::LEN + body.len() + 4) as u32).to_le_bytes());
    out.extend([0; 6]);
    out.extend(body);
    let sum = crc32fast::hash(&out);
    out.extend(sum.to_le_bytes());
    out
}

fn format_description() -> Vec<u8> {
    let mut body = vec![4, 0];
    body.extend(b"9.7.0");
    body.resize(56, 0);
    body.push(19);
    body.extend([8; 40]);
    body.push(1);
    event(15, &body)
}

fn table_map() -> Vec<u8> {
    let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0];
    body.extend(b"\x02hr\0\x09employees\0");
    body.push(COLUMNS.len() as u8);
    body.extend(COLUMNS.iter().map(|c| c.1));
    let meta: Vec<u8> = COLUMNS.iter().flat_map(|c| c.2).copied().collect();
    body.push(meta.len() as u8);
    body.extend(meta);
    body.extend([0xFE, 0x0F]);
    body.extend([1, 1, 0]);
    body.extend([2, 1, 45]);
    let names: Vec<u8> = COLUMNS
        .iter()
        .flat_map(|c| std::iter::once(c.0.len() as u8).chain(c.0.bytes()))
        .collect();
    body.extend([4, names.len() as u8]);
    body.extend(names);
    body.extend([8, 1, 0]);
    event(19, &body)
}

fn image(id: u64, out: &mut Vec<u8>) {
    out.extend([0, 0b0100]);
    out.extend(id.to_le_bytes());
    out.extend(b"\x08E-004711");
    let email = format!("person.number{id}@example.org");
    for text in [
        "Wilhelmina",
        "Featherstone",
        &email,
        "Research and Development",
        "Senior Engineer",
    ] {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.bytes());
    }
    out.extend(17u64.to_le_bytes());
    out.push(1);
    out.extend(&(2024u32 << 9 | 2 << 5 | 29).to_le_bytes()[..3]);
    out.extend(1_700_000_000u32.to_be_bytes());
    out.extend(&123_456u32.to_be_bytes()[1..]);
}

fn rows(kind: u8, first: u64) -> Vec<u8> {
    let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, 2, 0, COLUMNS.len() as u8];
    let is_update = kind == 31;
    body.extend(if is_update {
        &[0xFF, 0x0F, 0xFF, 0x0F][..]
    } else {
        &[0xFF, 0x0F]
    });
    for id in first..first + ROWS as u64 {
        image(id, &mut body);
        if is_update {
            image(id, &mut body);
        }
    }
    event(kind, &body)
}

fn decode(log: &[Vec<u8>], layout: &Layout, schema: &Arc<TableSchema>, room: usize) -> Batch {
    let mut framing = Framing::new();
    let mut maps = TableMaps::new(Flavour::Mysql);
    let mut reading = Reading::default();
    let mut builder = BatchBuilder::with_buffer(Vec::with_capacity(room));
    let table = builder.table(TableNo::MAIN, schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    let mut ordinal = 0;
    for bytes in log {
        let raw = framing.open(bytes).unwrap();
        if raw.header.kind.is_rows() {
            let event = RowsEvent::parse(&raw).unwrap();
            let start = builder.data().len();
            builder.data().extend_from_slice(raw.body);
            let end = start + raw.body.len();
            let mut rows = RowReader::new(&event, layout, &mut builder, start..end).unwrap();
            while rows
                .read(&mut builder, table, ordinal, &mut reading)
                .unwrap()
                .is_some()
            {
                ordinal += 1;
            }
            maps.end_statement();
        } else if raw.header.kind == rollcall_binlog::event::Kind::TableMap {
            maps.learn(raw.body).unwrap();
        }
    }
    builder.build(Cursor::new(&[1], ""))
}

fn bench(c: &mut Criterion) {
    let map_event = table_map();
    let map = TableMap::parse(&map_event[Header::LEN..map_event.len() - 4], Flavour::Mysql);
    let map = map.unwrap();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements((EVENTS * ROWS) as u64));
    for (name, kind, old_rows) in [
        ("insert", 30, OldRows::Key),
        ("update, keys of old rows", 31, OldRows::Key),
        ("update, whole old rows", 31, OldRows::Whole),
    ] {
        let layout = Layout::new(&map, &[], &[0], old_rows).unwrap();
        let columns = layout.columns().iter().zip(&map.columns);
        let schema = Arc::new(TableSchema {
            table: TableName::new("hr", "employees"),
            columns: columns
                .map(|(column, mapped)| Column {
                    name: mapped.name.clone().unwrap(),
                    class: column.column_type().class(),
                    type_name: column.column_type().name(),
                    nullable: mapped.is_nullable,
                })
                .collect(),
            key: vec![0],
        });
        let mut log = vec![format_description()];
        for i in 0..EVENTS {
            log.push(map_event.clone());
            log.push(rows(kind, (i * ROWS) as u64));
        }
        let room = log.iter().map(Vec::len).sum();
        let batch = decode(&log, &layout, &schema, room);
        assert_eq!(batch.len(), EVENTS * ROWS);
        group.bench_function(name, |b| {
            b.iter(|| black_box(decode(&log, &layout, &schema, room)));
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
