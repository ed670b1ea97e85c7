//! What the directory costs per change: creating, updating, and leaving users as they were.
//! The state is in memory, so that only correlation, folding, comparing and events count.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rollcall_core::attribute::{AttrId, Attributes};
use rollcall_core::directory::{
    ChangeRef, MemoryState, Origin, Remap, Resolver, Rules, SourceRules, Workspace,
};
use rollcall_core::document::Document;
use rollcall_core::event::body;
use rollcall_core::id::{NewIds, RunId, SourceId, UserId};
use rollcall_core::mapped::{MappedRows, Outcome, Strength};
use rollcall_core::plan::Plan;

const USERS: usize = 10_000;
const SOURCE: SourceId = SourceId(1);

struct Ids(u64);

impl NewIds for Ids {
    fn user_id(&mut self, _: i64) -> UserId {
        self.0 += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.0.to_be_bytes());
        UserId(id)
    }
}

struct NoRemap;

impl Remap for NoRemap {
    fn remap(&self, _: SourceId, _: &[u8], _: &mut MappedRows) {}
}

/// Rows of an employees table with 12 columns.
fn rows(title: &str, salary: usize) -> MappedRows {
    let mut out = MappedRows::default();
    for i in 0..USERS {
        let values: [(u16, String); 10] = [
            (1, format!("user{i}")),
            (3, format!("Given{i}")),
            (5, format!("Family{i}")),
            (8, format!("Given{i} Family{i}")),
            (10, title.to_owned()),
            (15, "true".to_owned()),
            (16, format!("user{i}@example.org")),
            (18, format!("+49 30 {i:07}")),
            (28, format!("E{i:06}")),
            (32, format!("Department {}", i % 40)),
        ];
        let mark = out.field_mark();
        for (id, value) in &values {
            let start = out.mark();
            out.bytes().extend_from_slice(value.as_bytes());
            out.value_since(start, AttrId(*id), *id, Strength::Always);
        }
        let start = out.mark();
        for (_, value) in &values {
            out.bytes().extend_from_slice(value.as_bytes());
        }
        out.bytes().extend_from_slice(salary.to_string().as_bytes());
        let range = start..out.mark();
        let hash = xxhash_rust::xxh3::xxh3_64(out.since(start));
        out.finish_row(Outcome::Mapped, mark, range, hash);
    }
    out
}

fn apply(rules: &Rules, state: &mut MemoryState, ws: &mut Workspace, rows: &MappedRows) -> Plan {
    let mut plan = Plan::default();
    let mut ids = Ids(0);
    let mut resolver = Resolver::new(rules, state, &mut plan, &mut ids, ws, 1, RunId(1));
    for i in 0..rows.len() {
        let key = (i as u64).to_be_bytes();
        let change = ChangeRef {
            key: &key,
            old_key: None,
            tx: &[1, 2, 3, 4, 5, 6, 7, 8],
            position: "16/B374D848",
            ordinal: i as u32,
            commit_us: 1_700_000_000_000_000,
            origin: Origin::Log,
        };
        resolver.apply(SOURCE, &change, rows.row(i)).unwrap();
    }
    resolver.finish().unwrap();
    plan
}

fn resolve(c: &mut Criterion) {
    let rules = Rules::new(
        "acme",
        Attributes::new([]),
        vec![SourceRules::new(SOURCE, "hr")],
        HashMap::new(),
        Box::new(NoRemap),
    );
    let first = rows("Engineer", 1);
    let mut loaded = MemoryState::default();
    let mut ws = Workspace::default();
    let plan = apply(&rules, &mut loaded, &mut ws, &first);
    loaded.apply(&plan);

    let mut group = c.benchmark_group("resolve");
    group.throughput(Throughput::Elements(USERS as u64));
    group.bench_function("create", |b| {
        b.iter_batched(
            MemoryState::default,
            |mut state| apply(&rules, &mut state, &mut ws, black_box(&first)),
            BatchSize::LargeInput,
        );
    });
    for (name, changed) in [
        ("update", rows("Manager", 2)),
        ("unchanged", rows("Engineer", 3)),
    ] {
        group.bench_function(name, |b| {
            b.iter_with_large_drop(|| apply(&rules, &mut loaded, &mut ws, black_box(&changed)));
        });
    }
    group.finish();

    let bytes = loaded.users.values().next().unwrap().clone();
    let document = Document::decode(&bytes).unwrap();
    let attributes = Attributes::new([]);
    let mut group = c.benchmark_group("document");
    group.throughput(Throughput::Elements(1));
    group.bench_function("event_body", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            body::created(&mut out, &attributes, black_box(&document));
            out.len()
        });
    });
    group.bench_function("decode", |b| {
        let mut spare = rollcall_core::document::Spare::default();
        b.iter(|| {
            let d = Document::decode_with(black_box(&bytes), std::mem::take(&mut spare)).unwrap();
            let n = d.contributions.len();
            spare = d.into_spare();
            n
        });
    });
    group.finish();
}

criterion_group!(benches, resolve);
criterion_main!(benches);
