//! How fast the sink is, on a private Apache Kafka: records a second and CPU time of this
//! process per record.
//!
//! `cargo run --example throughput -- [records] [block] [linger_ms] [compression]`

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use rollcall_contract::{Outgoing, Sink};
use rollcall_kafka::{Compression, Delivery, KafkaConfig, KafkaSink};
use rollcall_testbed::{Kafka, ProcStat};

const NAMES: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "content-type",
    "dataschema",
    "organization",
    "sequence",
    "traceparent",
    "partitionkey",
];

/// Events of 800 bytes each, with 12 headers. As in the outbox, the bytes of a whole block
/// lie in one buffer.
fn block_of(first: u64, count: u64) -> Vec<Outgoing> {
    let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
    let mut put = |text: String| {
        ranges.push(bytes.len()..bytes.len() + text.len());
        bytes.extend_from_slice(text.as_bytes());
    };
    for sequence in first..first + count {
        let user = format!("0190b2a4-7c31-7d2e-9f00-{:012x}", sequence % 50_000);
        put(format!(
            r#"{{"user":"{user}","userName":"person{sequence}","displayName":"Person {}","active":true,"department":"Department {}","emails":["person{sequence}@example.org"],"manager":"0190b2a4-7c31-7d2e-9f00-{:012x}","employeeNumber":"{sequence:08}","note":"{:x<120}"}}"#,
            sequence * 31 % 9_973,
            sequence % 40,
            sequence % 700,
            ""
        ));
        for name in NAMES {
            put(match name {
                "id" => format!("0190b2a4-7c31-7d2e-{sequence:016x}"),
                "subject" | "partitionkey" => user.clone(),
                "sequence" => sequence.to_string(),
                "time" => format!("2026-01-01T00:00:{:02}.{:06}Z", sequence % 60, sequence),
                other => format!("urn:example:{other}"),
            });
        }
        put(user);
    }
    let bytes = Bytes::from(bytes);
    let mut slices = ranges.into_iter().map(|range| bytes.slice(range));
    let mut next = || slices.next().unwrap_or_default();
    (first..first + count)
        .map(|sequence| Outgoing {
            sequence,
            value: Some(next()),
            headers: NAMES.iter().map(|name| (*name, next())).collect(),
            key: Some(next()),
            destination: None,
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| -> Result<u64, Box<dyn Error>> {
        Ok(match arguments.next() {
            Some(text) => text.parse()?,
            None => default,
        })
    };
    let (count, block, linger) = (number(100_000)?, number(5_000)?, number(0)?);
    let compression = match arguments.next().as_deref() {
        None | Some("lz4") => Compression::Lz4,
        Some("none") => Compression::None,
        Some("zstd") => Compression::Zstd,
        Some("snappy") => Compression::Snappy,
        Some(other) => return Err(format!("no such compression: {other}").into()),
    };
    let broker = Kafka::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let mut config = KafkaConfig::new(
            "acme",
            format!("{delivery:?}"),
            vec![broker.bootstrap()],
            format!("events.{delivery:?}"),
        );
        config.delivery = delivery;
        config.compression = compression;
        config.linger_ms = u32::try_from(linger)?;
        config.partitions = Some(6);
        runtime.block_on(measure(KafkaSink::new(config), delivery, count, block))?;
    }
    Ok(())
}

async fn measure(
    mut sink: KafkaSink,
    delivery: Delivery,
    count: u64,
    block: u64,
) -> Result<(), Box<dyn Error>> {
    let cpu = || ProcStat::of(std::process::id()).map(|stat| stat.cpu_seconds);
    let took = Instant::now();
    sink.start().await?;
    let started = took.elapsed();
    // The broker's first batches are slow: its code is not compiled yet.
    for warm_up in 0..4 {
        sink.deliver(block_of(warm_up * block, block)).await?;
    }
    let base = 4 * block;
    let all: Vec<Vec<Outgoing>> = (0..count / block)
        .map(|b| block_of(base + b * block, block))
        .collect();
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let mut longest = std::time::Duration::ZERO;
    for one in all {
        let at = Instant::now();
        sink.deliver(one).await?;
        longest = longest.max(at.elapsed());
    }
    let (wall, used) = (began.elapsed(), cpu()? - cpu_before);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let records = count as f64;
    let base = base + count;
    let mut singles: Vec<_> = Vec::new();
    for n in 0..300 {
        let at = Instant::now();
        sink.deliver(block_of(base + n, 1)).await?;
        singles.push(at.elapsed());
    }
    singles.sort_unstable();
    sink.stop().await;
    println!(
        "{delivery:?}: {:.0} records/s, {:.2} us CPU/record, slowest block {longest:?}; one \
         record alone p50 {:?} p99 {:?}; start {started:?}",
        records / wall.as_secs_f64(),
        used * 1e6 / records,
        singles[150],
        singles[297],
    );
    Ok(())
}
