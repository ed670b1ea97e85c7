//! What it costs to make records for a sink out of an outbox block, without the sink.
//!
//! One iteration takes the 5,000 events of a delivery out of their block and renders them:
//! CloudEvents headers, keys and shared bodies. What the broker's client adds is measured
//! with a real broker, by the example `throughput` of the Kafka connector.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollcall::delivery::render::{Placed, Renderer};
use rollcall_core::event::{Event, EventBlock, EventKind};
use rollcall_core::id::{RunId, SourceId, UserId};
use rollcall_store::{OutboxBlock, Position, Sequence};

const EVENTS: u64 = 5_000;

fn block() -> OutboxBlock {
    let mut events = EventBlock::default();
    for n in 0..EVENTS {
        let data = format!(
            r#"{{"user":{{"userName":"user.{n}@example.com","displayName":"Chloé Dubois {n}","title":"Senior Engineer","department":"Engineering","active":true}},"changed":["title"],"version":{n}}}"#
        );
        let position = format!("0/{:X}", 0x16B_3748 + n * 200);
        events.push(&Event {
            kind: EventKind::UserUpdated,
            id: u128::from(n)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_be_bytes(),
            user: Some(UserId((u128::from(n) << 64).to_be_bytes())),
            source: Some(SourceId(1)),
            time_us: 1_767_225_600_000_000 + n as i64,
            run: RunId(7),
            position: &position,
            key: &[],
            data: data.as_bytes(),
        });
    }
    OutboxBlock {
        first_position: Position(1),
        first_sequence: Sequence(1),
        count: EVENTS,
        sequenced: EVENTS,
        created_us: 0,
        bytes: Bytes::from(events.into_bytes()),
    }
}

fn deliver(c: &mut Criterion) {
    let block = block();
    let mut renderer = Renderer::new("acme", [(SourceId(1), "hr".to_owned())], []);
    let mut group = c.benchmark_group("deliver");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("render", |b| {
        b.iter(|| {
            let placed: Vec<Placed<'_>> = block
                .events()
                .filter_map(Result::ok)
                .map(|event| Placed {
                    position: event.position.0,
                    sequence: event.sequence.map(|s| s.0),
                    event: event.event,
                    block: &block.bytes,
                })
                .collect();
            black_box(renderer.render(&placed))
        });
    });
    group.finish();
}

criterion_group!(benches, deliver);
criterion_main!(benches);
