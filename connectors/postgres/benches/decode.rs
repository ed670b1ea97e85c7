//! Bytes of the log to batches, without a socket: the cost of one change.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rollcall_contract::{BatchCaps, Class, Column, TableName, TableSchema};
use rollcall_postgres::decode::{Decoder, DecoderOptions, Event, Followed};
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::types::{Form, ResolvedType};

const OID: u32 = 16_385;
const ROWS: usize = 1_000;
const TRANSACTIONS: usize = 20;
/// An employees table: names and type OIDs.
const COLUMNS: [(&str, u32); 12] = [
    ("id", 20),
    ("number", 25),
    ("given_name", 25),
    ("family_name", 25),
    ("email", 25),
    ("department", 25),
    ("title", 25),
    ("manager_id", 20),
    ("active", 16),
    ("hired_on", 1082),
    ("left_on", 1082),
    ("updated_at", 1184),
];

fn log(body: &[u8], out: &mut Vec<u8>) {
    out.push(b'd');
    out.extend((body.len() as u32 + 4 + 25).to_be_bytes());
    out.push(b'w');
    out.extend([0; 24]);
    out.extend_from_slice(body);
}

fn sample() -> Vec<u8> {
    let mut out = Vec::new();
    let mut relation = vec![b'R'];
    relation.extend(OID.to_be_bytes());
    relation.extend(b"hr\0employees\0d");
    relation.extend((COLUMNS.len() as u16).to_be_bytes());
    for (i, (name, oid)) in COLUMNS.iter().enumerate() {
        relation.push(u8::from(i == 0));
        relation.extend(name.as_bytes());
        relation.push(0);
        relation.extend(oid.to_be_bytes());
        relation.extend((-1i32).to_be_bytes());
    }
    for tx in 1..=TRANSACTIONS as u64 {
        let final_lsn = tx << 20;
        let mut begin = vec![b'B'];
        begin.extend(final_lsn.to_be_bytes());
        begin.extend([0; 8]);
        begin.extend((tx as u32).to_be_bytes());
        log(&begin, &mut out);
        if tx == 1 {
            log(&relation, &mut out);
        }
        for row in 0..ROWS {
            let mut body = vec![b'I'];
            body.extend(OID.to_be_bytes());
            body.push(b'N');
            body.extend((COLUMNS.len() as u16).to_be_bytes());
            let id = row.to_string();
            let email = format!("person.number{row}@example.org");
            for text in [
                Some(id.as_str()),
                Some("E-004711"),
                Some("Wilhelmina"),
                Some("Featherstone"),
                Some(&email),
                Some("Research and Development"),
                Some("Senior Engineer"),
                Some("17"),
                Some("t"),
                Some("2019-04-01"),
                None,
                Some("2024-02-29 10:11:12.123456+00"),
            ] {
                match text {
                    None => body.push(b'n'),
                    Some(text) => {
                        body.push(b't');
                        body.extend((text.len() as u32).to_be_bytes());
                        body.extend(text.as_bytes());
                    }
                }
            }
            log(&body, &mut out);
        }
        let mut commit = vec![b'C', 0];
        commit.extend(final_lsn.to_be_bytes());
        commit.extend((final_lsn + 64).to_be_bytes());
        commit.extend([0; 8]);
        log(&commit, &mut out);
    }
    out
}

fn decoder() -> Decoder {
    let types: HashMap<u32, ResolvedType> = HashMap::new();
    let schema = TableSchema {
        table: TableName::new("hr", "employees"),
        columns: COLUMNS
            .iter()
            .map(|(name, oid)| Column {
                name: (*name).to_owned(),
                class: Form::of(*oid, &types).class(),
                type_name: String::new(),
                nullable: true,
            })
            .collect(),
        key: vec![0],
    };
    assert_eq!(schema.columns[11].class, Class::TimestampTz);
    Decoder::new(DecoderOptions {
        start: PgCursor {
            system_id: 1,
            timeline: 1,
            commit_end: Lsn(1),
            inside: None,
        },
        followed: vec![Followed {
            schema: Arc::new(schema),
            type_oids: COLUMNS.iter().map(|c| c.1).collect(),
            table_oid: Some(OID),
            key: None,
        }],
        types: Arc::new(types),
        xid_reference: Xid(1),
        caps: BatchCaps::default(),
    })
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> usize {
    let mut changes = 0;
    for read in bytes.chunks(128 << 10) {
        decoder.buffer().extend_from_slice(read);
        while decoder.advance().unwrap() == Event::Full {
            changes += black_box(decoder.take_batch()).len();
        }
    }
    changes + black_box(decoder.take_batch()).len()
}

fn bench(c: &mut Criterion) {
    let bytes = sample();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements((ROWS * TRANSACTIONS) as u64));
    group.bench_function("employees_12_columns", |b| {
        b.iter_batched_ref(
            decoder,
            |decoder| assert_eq!(decode(decoder, &bytes), ROWS * TRANSACTIONS),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
