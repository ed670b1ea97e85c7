//! From the commit to a consumer, at a steady 200 changes a second.
//!
//! Each change is a transaction of its own with a marker in a mapped column. The clock starts
//! just before the statement that commits is sent, so the time that the server needs for it
//! is in the figure, and stops when a `read_committed` consumer of this process holds the
//! event with that marker. Both are this process's own monotonic clock.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use rollcall_testbed::Postgres;

use crate::configuration::{KafkaTarget, write_config};
use crate::daemon::Daemon;
use crate::database::{self, DATABASE, Database};
use crate::employees;
use crate::report::percentile;
use crate::world::World;
use crate::{Result, note};

const PER_SECOND: u32 = 200;
/// Before anything counts: the broker's code is compiled while it runs.
const WARM_UP: Duration = Duration::from_secs(10);
const ARRIVE_LIMIT: Duration = Duration::from_secs(30);
const USERS: u64 = 20_000;
const MARKER: &[u8] = b"marker-";

/// Measures one way of delivery.
pub(crate) fn run(world: &mut World, delivery: &'static str) -> Result<()> {
    note(&format!("latency: 200 changes a second, {delivery}"));
    let kafka = KafkaTarget {
        bootstrap: world.kafka()?.bootstrap(),
        name: format!("latency_{delivery}"),
        delivery,
    };
    let server = database::postgres().start()?;
    employees::create(&server)?;
    employees::insert(&server, 1, USERS)?;
    let folder = world.folder(&kafka.name)?;
    let store = folder.join("store");
    let config = write_config(&folder, &server, &store, &kafka.name, Some(&kafka))?;
    let daemon = Daemon::start(&world.rollcall, &config, &store)?;
    daemon.until_streaming(Duration::from_secs(120))?;
    daemon.until_delivered(&server.head()?, Duration::from_secs(60))?;

    let length = WARM_UP + Duration::from_secs(world.scaled(60));
    let before = daemon.stat()?;
    let arrived = Steady::new(&server, &kafka, STEADY)?.run(length)?;
    let used = daemon.stat()?.cpu_seconds - before.cpu_seconds;
    daemon.stop()?;

    let warm = arrived.first().map(|(sent, _)| *sent + WARM_UP);
    let counts = |sent: Instant| warm.is_some_and(|warm| sent >= warm);
    let times = sorted_ms(&arrived, counts);
    let name = format!("latency_{delivery}");
    let report = &mut world.report;
    report.figure(&format!("{name}_p50_ms"), percentile(&times, 0.5), "ms")?;
    report.figure(&format!("{name}_p99_ms"), percentile(&times, 0.99), "ms")?;
    report.figure(&format!("{name}_max_ms"), percentile(&times, 1.0), "ms")?;
    report.figure(
        &format!("{name}_cpu_percent"),
        used / length.as_secs_f64() * 100.0,
        "percent",
    )
}

/// Who is changed, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Trickle {
    pub(crate) per_second: u32,
    /// The first id.
    pub(crate) first: u64,
    /// So many people.
    pub(crate) users: u64,
}

/// Of the benches of latency.
const STEADY: Trickle = Trickle {
    per_second: PER_SECOND,
    first: 1,
    users: USERS,
};

/// Changes at a steady rate, and who waits for them.
pub(crate) struct Steady<'a> {
    server: &'a Postgres,
    consumer: BaseConsumer,
    trickle: Trickle,
    /// Changes that were made.
    made: u64,
}

impl Steady<'_> {
    /// Nothing yet.
    pub(crate) fn new<'a>(
        server: &'a Postgres,
        kafka: &KafkaTarget,
        trickle: Trickle,
    ) -> Result<Steady<'a>> {
        Ok(Steady {
            server,
            consumer: consumer(kafka)?,
            trickle,
            made: 0,
        })
    }

    /// Makes changes for so long; gives when each was sent, and when it was seen.
    pub(crate) fn run(&mut self, length: Duration) -> Result<Vec<(Instant, Instant)>> {
        let changes = length.as_millis() as u64 * u64::from(self.trickle.per_second) / 1000;
        let numbers = self.made..self.made + changes;
        self.made = numbers.end;
        let (server, trickle) = (self.server, self.trickle);
        let (sent, seen) = std::thread::scope(|scope| -> Result<_> {
            let writer = scope.spawn({
                let numbers = numbers.clone();
                move || write(server, trickle, numbers)
            });
            let seen = consume(&self.consumer, numbers.clone(), length + ARRIVE_LIMIT)?;
            let sent = writer.join().map_err(|_| "the writer panicked")??;
            Ok((sent, seen))
        })?;
        let both = numbers.zip(sent).map(|(number, sent)| {
            let seen = seen.get(&number).copied();
            seen.map(|seen| (sent, seen))
                .ok_or_else(|| format!("change {number} never arrived").into())
        });
        both.collect()
    }
}

/// The times of the changes that count, milliseconds.
pub(crate) fn sorted_ms(
    arrived: &[(Instant, Instant)],
    counts: impl Fn(Instant) -> bool,
) -> Vec<f64> {
    let mut times: Vec<f64> = arrived
        .iter()
        .filter(|(sent, _)| counts(*sent))
        .map(|(sent, seen)| seen.duration_since(*sent).as_secs_f64() * 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Commits changes at a steady pace, with these numbers in their markers; gives when each was
/// sent.
pub(crate) fn write(
    server: &Postgres,
    trickle: Trickle,
    numbers: Range<u64>,
) -> Result<Vec<Instant>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let conninfo = server.conninfo(server.superuser(), DATABASE);
        let (client, connection) =
            tokio_postgres::connect(&conninfo, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let update = client
            .prepare("UPDATE employees SET job = $1, updated_at = now() WHERE id = $2")
            .await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / trickle.per_second);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sent = Vec::new();
        for number in numbers {
            ticks.tick().await;
            let marker = format!("marker-{number:08}");
            let id = (trickle.first + number % trickle.users) as i64;
            sent.push(Instant::now());
            client.execute(&update, &[&marker, &id]).await?;
        }
        Ok(sent)
    })
}

/// Reads the topic's only partition from its present end.
fn consumer(kafka: &KafkaTarget) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("group.id", &kafka.name)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let topic = kafka.topic();
    let (_, high) = consumer.fetch_watermarks(&topic, 0, Duration::from_secs(20))?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic, 0, Offset::Offset(high))?;
    consumer.assign(&from)?;
    Ok(consumer)
}

/// When each marked change was first seen.
fn consume(
    consumer: &BaseConsumer,
    numbers: Range<u64>,
    limit: Duration,
) -> Result<HashMap<u64, Instant>> {
    let began = Instant::now();
    let changes = (numbers.end - numbers.start) as usize;
    let mut seen = HashMap::with_capacity(changes);
    while seen.len() < changes {
        if began.elapsed() > limit {
            return Err(format!(
                "{} of {changes} changes arrived within {} s",
                seen.len(),
                limit.as_secs()
            )
            .into());
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        let now = Instant::now();
        let number = message.payload().and_then(marker);
        if let Some(number) = number.filter(|n| numbers.contains(n)) {
            seen.entry(number).or_insert(now);
        }
    }
    Ok(seen)
}

/// The number behind the marker in an event.
pub(crate) fn marker(body: &[u8]) -> Option<u64> {
    let at = body.windows(MARKER.len()).position(|w| w == MARKER)? + MARKER.len();
    std::str::from_utf8(body.get(at..at + 8)?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_where_it_stands() {
        assert_eq!(marker(br#"{"title":"marker-00000417"}"#), Some(417));
        assert_eq!(marker(br#"{"title":"marker-417"}"#), None);
        assert_eq!(marker(b"{}"), None);
    }
}
