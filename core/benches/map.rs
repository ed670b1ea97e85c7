//! What mapping one row costs: 12 columns, 8 rules, a scope.
//!
//! `simple` copies columns and compares one with a literal; `cel` computes two of the
//! attributes; `nfd` is `simple` over names that must be composed; `shadow` fills an
//! unchanged column from the stored row. One iteration maps 1,000 rows.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollcall_contract::{
    Batch, BatchBuilder, Class, Column, Cursor, Op, TableName, TableNo, TableSchema, Tx, TxId,
};
use rollcall_core::attribute::{AttrId, AttrType, Attributes, FIRST_CUSTOM};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::{Mapper, MappingSpec, RuleSpec};
use smallvec::SmallVec;

const ROWS: usize = 1_000;

fn schema() -> Arc<TableSchema> {
    let columns = [
        ("id", Class::Int),
        ("email", Class::Text),
        ("first_name", Class::Text),
        ("last_name", Class::Text),
        ("department", Class::Text),
        ("title", Class::Text),
        ("manager_id", Class::Int),
        ("hired_on", Class::Date),
        ("active", Class::Bool),
        ("salary", Class::Decimal),
        ("bio", Class::Text),
        ("updated_at", Class::TimestampTz),
    ];
    Arc::new(TableSchema {
        table: TableName::new("hr", "employees"),
        columns: columns
            .map(|(name, class)| Column {
                name: name.to_owned(),
                class,
                type_name: class.name().to_owned(),
                nullable: true,
            })
            .to_vec(),
        key: vec![0],
    })
}

fn batch(schema: &Arc<TableSchema>, family: &str, bio_unchanged: bool) -> Batch {
    let mut builder = BatchBuilder::default();
    let table = builder.table(TableNo::MAIN, schema);
    builder.tx(Tx {
        id: TxId(SmallVec::new()),
        position: SmallVec::from_slice(b"0/16B3748"),
        commit_us: 1_700_000_000_000_000,
    });
    for i in 0..ROWS {
        builder.begin(table, Op::Insert, i as u32);
        builder.cell_bytes(i.to_string().as_bytes());
        builder.cell_bytes(format!("Person.{i}@example.org").as_bytes());
        builder.cell_bytes(b"Ann");
        builder.cell_bytes(family.as_bytes());
        builder.cell_bytes(b"Engineering");
        builder.cell_bytes(b"Senior Developer");
        builder.cell_bytes((i / 10).to_string().as_bytes());
        builder.cell_bytes(b"2019-04-01");
        builder.cell_bytes(b"t");
        builder.cell_bytes(b"5120.00");
        if bio_unchanged {
            builder.cell_unchanged();
        } else {
            builder.cell_bytes(&[b'x'; 120]);
        }
        builder.cell_bytes(b"2024-02-29T10:00:00.123456Z");
        builder.finish(true, 300);
    }
    builder.build(Cursor::new(&[], ""))
}

fn mapper(schema: &TableSchema, computed: bool) -> Mapper {
    let mut rules = vec![
        RuleSpec::column("userName", "email"),
        RuleSpec::column("email", "email"),
        RuleSpec::column("name.givenName", "first_name"),
        RuleSpec::column("name.familyName", "last_name"),
        RuleSpec::column("department", "department"),
        RuleSpec::column("title", "title"),
        RuleSpec::column("custom.hired", "hired_on"),
        RuleSpec::column("active", "active"),
    ];
    if computed {
        rules[5] = RuleSpec::expr("title", "department == 'Sales' ? 'seller' : title");
        rules.push(RuleSpec::expr(
            "displayName",
            "first_name + ' ' + last_name",
        ));
    }
    let spec = MappingSpec {
        rules,
        scope: Some("title != 'contractor'".to_owned()),
        ..MappingSpec::default()
    };
    let custom = [(AttrId(FIRST_CUSTOM), "hired".to_owned(), AttrType::Date)];
    match Mapper::compile(&spec, schema, &Attributes::new(custom), 1) {
        Ok(mapper) => mapper,
        Err(errors) => unreachable!("the mapping of this bench is valid: {errors:?}"),
    }
}

fn map_all(mapper: &Mapper, batch: &Batch, stored: Option<&[u8]>, out: &mut MappedRows) {
    out.clear();
    for change in batch.changes() {
        if let Some(row) = change.after() {
            mapper.map(&row, stored, out);
        }
    }
}

fn map(criterion: &mut Criterion) {
    let schema = schema();
    let plain = mapper(&schema, false);
    let computed = mapper(&schema, true);
    let composed = batch(&schema, "Lindstr\u{f6}m", false);
    let decomposed = batch(&schema, "Lindstro\u{308}m", false);
    let partial = batch(&schema, "Lindstr\u{f6}m", true);
    let mut out = MappedRows::default();
    map_all(&plain, &composed, None, &mut out);
    let stored = out.row(0).shadow().to_vec();

    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, mapper, batch, stored) in [
        ("simple", &plain, &composed, None),
        ("cel", &computed, &composed, None),
        ("nfd", &plain, &decomposed, None),
        ("shadow", &plain, &partial, Some(stored.as_slice())),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                map_all(mapper, black_box(batch), stored, &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, map);
criterion_main!(benches);
