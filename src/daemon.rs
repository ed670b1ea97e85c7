//! The daemon: everything started in order, and stopped in order.
//!
//! Start: store (with its lock) → engine → sinks → sources → interfaces. Stop, within the
//! grace period: sources (nothing new is read) → engine (what was read is committed and
//! acknowledged) → sinks (what is in the outbox is delivered as far as it goes) →
//! interfaces → store. What the grace period cuts is in the source's log or in the outbox,
//! and goes on at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use metrics_exporter_prometheus::PrometheusHandle;
use rollcall_contract::{GapReason, Source};
use rollcall_core::attribute::Attributes;
use rollcall_core::id::SourceId;
use rollcall_core::mapping::MappingSpec;
use rollcall_core::staged::{Counted, Limit, Remapping};
use rollcall_store::{Flushing, OpenOptions, Readers, Store, StoreError, Writer};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::tokens::Tokens;
use crate::cli::exit::{Exit, Failure};
use crate::config::{Config, LimitConfig, SourceConfig};
use crate::connect::Connectors;
use crate::delivery::hub::Hub;
use crate::delivery::lane::{Lane, SinkLive};
use crate::delivery::render::Renderer;
use crate::observe::notify::Notifier;
use crate::proof::rolling::Rolling;
use crate::simulation::folder;
use crate::sync::apply::{Directory, Mappers, rules};
use crate::sync::clock::now_us;
use crate::sync::driver::{Driver, Ordered};
use crate::sync::due::Alarm;
use crate::sync::engine::{Engine, Retention};
use crate::sync::ids::Ids;
use crate::sync::polls::Polls;
use crate::sync::scheduler::Scheduler;
use crate::sync::shared::{SourceLive, SourceSnapshot};
use crate::sync::staging::{self, LimitTrack};
use crate::sync::track::{Ask, LotLimit, RawChanges, SourceTrack, history_of};
use crate::sync::work::{Cause, Order, Work};
use crate::{api, connect};

/// Lots that may wait for the engine. Small: a batch is large, and what waits in the
/// source's log costs nothing.
const ENGINE_QUEUE: usize = 1;

/// Orders that may wait for a source that is not connected. Most of them join each other.
const ORDERS: usize = 64;

/// How often the outbox is trimmed and long runs end.
const UPKEEP_EVERY: Duration = Duration::from_secs(10);

/// How late what is due may be looked at.
const DUE_EVERY: Duration = Duration::from_secs(1);

/// What the running daemon shows of itself.
pub struct Shared {
    /// The organization.
    pub organization: String,
    /// The sources in the order of the configuration.
    pub sources: Vec<SourceEntry>,
    /// The sinks in the order of the configuration.
    pub sinks: Vec<SinkEntry>,
    /// The outbox.
    pub hub: Arc<Hub>,
    /// The store, to read.
    pub readers: Readers,
    /// The organization's attributes.
    pub attributes: Arc<Attributes>,
    /// The engine's queue.
    pub engine: mpsc::Sender<Work>,
    /// Who may ask for a sync over TCP.
    pub tokens: Tokens,
    /// The exposition of metrics.
    pub metrics: PrometheusHandle,
    /// When the daemon started, microseconds since the Unix epoch.
    pub started_us: i64,
}

/// A source and its live figures.
pub struct SourceEntry {
    /// Its number.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// What is going on.
    pub live: Arc<SourceLive>,
    /// Where its driver takes orders.
    pub orders: mpsc::Sender<Order>,
    /// Names what its configuration makes of its rows.
    pub configuration: String,
}

impl SourceEntry {
    /// Seconds since the commit of the last change taken in, while the server has more for
    /// us; 0 when there is nothing to take in.
    pub fn lag_seconds(&self, live: &SourceSnapshot) -> f64 {
        let behind =
            live.queued_bytes > 0 || live.server.lag_bytes.is_some_and(|b| b > LAG_NOISE_BYTES);
        let last = self.live.last_commit_us.load(Ordering::Relaxed);
        if behind && last > 0 {
            (now_us() - last).max(0) as f64 / 1e6
        } else {
            0.0
        }
    }
}

/// A server writes a little log of its own even when nothing happens.
const LAG_NOISE_BYTES: u64 = 1 << 20;

/// A sink and its live figures.
pub struct SinkEntry {
    /// Its name.
    pub name: String,
    /// What is going on.
    pub live: Arc<SinkLive>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What made it stop by itself.
pub async fn run(config: Config, metrics: PrometheusHandle) -> Result<(), Failure> {
    let options = OpenOptions::new(&config.organization);
    let (mut writer, readers) = Store::open(&config.store.path, options)?;
    let prepared = prepare(&config, &mut writer, readers)?;
    folder::remove_left_here();
    let stop = CancellationToken::new();
    let (engine_tx, engine_rx) = mpsc::channel(ENGINE_QUEUE);
    let (fatal_tx, mut fatal) = mpsc::channel::<String>(1);

    let notifier = match &config.notify {
        Some(notify) => Some(Notifier::start(notify.command.clone(), notify.timeout)?),
        None => None,
    };
    let World {
        shared,
        engine,
        mut drivers,
        schedulers,
        proofs,
        lanes,
    } = prepared.assemble(
        &config,
        &connect::Servers,
        writer,
        &engine_tx,
        &fatal_tx,
        notifier,
        metrics,
    );
    let alarm = engine.alarm();
    let (engine_ended_tx, mut engine_ended) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // The receiver outlives the thread unless the daemon is gone.
            let _ = engine_ended_tx.send(runtime.block_on(engine.run(engine_rx)));
        })
        .map_err(Failure::from)?;

    let interfaces = CancellationToken::new();
    let socket = api::serve_unix(
        &config.store.socket(),
        api::router(Arc::clone(&shared)),
        interfaces.clone(),
    )?;
    if let Some(address) = config.api.listen {
        api::serve_tcp(
            address,
            api::public(Arc::clone(&shared)),
            interfaces.clone(),
        )
        .await
        .map_err(|e| {
            Failure::new(
                Exit::Failed,
                format!("api.listen = \"{address}\" cannot be listened on: {e}"),
            )
        })?;
    }
    let (lanes_stop, mut lane_tasks) = (CancellationToken::new(), JoinSet::new());
    for mut lane in lanes {
        lane.cancel = lanes_stop.clone();
        lane_tasks.spawn(lane.run());
    }
    let mut driver_tasks = JoinSet::new();
    for driver in drivers.drain(..) {
        driver_tasks.spawn(
            Driver {
                cancel: stop.clone(),
                ..driver
            }
            .run(),
        );
    }
    for scheduler in schedulers {
        driver_tasks.spawn(
            Scheduler {
                cancel: stop.clone(),
                ..scheduler
            }
            .run(),
        );
    }
    for proof in proofs {
        driver_tasks.spawn(
            Rolling {
                cancel: stop.clone(),
                ..proof
            }
            .run(),
        );
    }
    let upkeep = tokio::spawn(upkeep(engine_tx.clone(), alarm));
    tracing::info!(
        organization = config.organization,
        sources = shared.sources.len(),
        sinks = shared.sinks.len(),
        store = %config.store.path.display(),
        "rollcall is running"
    );
    notify(&[sd_notify::NotifyState::Ready]);

    let mut engine_runs = true;
    let outcome = tokio::select! {
        signal = stop_signal() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        Some(reason) = fatal.recv() => Err(Failure::new(Exit::Fenced, reason)),
        ended = &mut engine_ended => {
            engine_runs = false;
            Err(engine_failure(ended))
        }
    };

    notify(&[sd_notify::NotifyState::Stopping]);
    let deadline = Instant::now() + config.shutdown.grace;
    stop.cancel();
    upkeep.abort();
    within(deadline, "sources", drain(&mut driver_tasks)).await;
    if outcome.is_ok() {
        // What the drivers handed over is committed before the lanes are told to stop.
        within(deadline, "engine", settled(&engine_tx)).await;
        within(deadline, "sinks", delivered(&shared)).await;
    }
    lanes_stop.cancel();
    within(deadline, "sinks", drain(&mut lane_tasks)).await;
    lane_tasks.abort_all();
    let mut ended = Ok(());
    if engine_runs {
        // It may end by itself before it hears of it.
        let _ = engine_tx.send(Work::Stop).await;
        if let Ok(Ok(Err(e))) = tokio::time::timeout_at(deadline, engine_ended).await {
            ended = Err(Failure::from(e));
        }
    }
    interfaces.cancel();
    within(deadline, "interfaces", async {
        let _ = socket.await;
    })
    .await;
    outcome.and(ended)
}

fn engine_failure(ended: Result<Result<(), StoreError>, oneshot::error::RecvError>) -> Failure {
    match ended {
        Ok(Err(e)) => Failure::from(e),
        Ok(Ok(())) | Err(_) => {
            Failure::new(Exit::Failed, "the engine ended unexpectedly; see the log")
        }
    }
}

/// Reminds the engine of what is due at intervals, until it is gone.
pub async fn upkeep(engine: mpsc::Sender<Work>, alarm: Alarm) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(DUE_EVERY).await;
        let mut tasks = Vec::new();
        if alarm.rings() {
            tasks.push(Work::Due);
        }
        if last.elapsed() >= UPKEEP_EVERY {
            last = Instant::now();
            tasks.push(Work::Upkeep);
        }
        for task in tasks {
            if engine.send(task).await.is_err() {
                return;
            }
        }
    }
}

async fn drain(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits until the engine has worked off what it was given; at once when it is gone.
pub async fn settled(engine: &mpsc::Sender<Work>) {
    let (reply, done) = oneshot::channel();
    if engine.send(Work::Settle { reply }).await.is_ok() {
        let _ = done.await;
    }
}

/// Waits until every sink that is delivering has reached the head of the outbox.
pub async fn delivered(shared: &Shared) {
    let head = *shared.hub.head().borrow();
    let behind = |sink: &SinkEntry| {
        sink.live.state().0 == "delivering" && sink.live.position.load(Ordering::Relaxed) < head
    };
    while shared.sinks.iter().any(behind) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn within(deadline: Instant, what: &str, work: impl Future<Output = ()>) {
    if tokio::time::timeout_at(deadline, work).await.is_err() {
        tracing::warn!(
            what,
            "the grace period is over; what is left goes on at the next start"
        );
    }
}

/// Waits until the process is told to stop; says by which signal.
pub(crate) async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Tells systemd, where there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(false, states) {
        tracing::debug!("systemd was not told: {e}");
    }
}

/// What is prepared before anything runs: the rules, over an open store.
pub struct Prepared {
    /// The organization's attributes.
    pub(crate) attributes: Arc<Attributes>,
    /// The mappings in force.
    pub(crate) mappers: Mappers,
    directory: Directory,
    /// The numbers of the configured sources, by name.
    pub(crate) ids: HashMap<String, SourceId>,
    hub: Arc<Hub>,
    /// The store, to read.
    pub(crate) readers: Readers,
    flushing: Flushing,
    stored_head: u64,
}

/// One source, before anything runs.
pub(crate) struct Parts {
    /// Its number.
    pub(crate) id: SourceId,
    /// What the engine knows of it.
    pub(crate) track: SourceTrack,
    /// What drives it.
    pub(crate) driver: Driver,
    /// Where the driver takes orders.
    pub(crate) orders: mpsc::Sender<Order>,
}

/// Everything that a daemon runs, before it runs.
pub struct World {
    /// What it shows.
    pub shared: Arc<Shared>,
    /// To run first, and to end last.
    pub engine: Engine,
    /// One for each source.
    pub drivers: Vec<Driver>,
    /// One for each source.
    pub schedulers: Vec<Scheduler>,
    /// One for each source that is proved in the background.
    pub proofs: Vec<Rolling>,
    /// One for each sink.
    pub lanes: Vec<Lane>,
}

/// Makes the configured sources and attributes known to the store, and the rules of it.
///
/// # Errors
/// When the store cannot be written.
pub fn prepare(
    config: &Config,
    writer: &mut Writer,
    readers: Readers,
) -> Result<Prepared, Failure> {
    let now = now_us();
    let mut ids = HashMap::new();
    for source in &config.sources {
        ids.insert(source.name.clone(), writer.source(&source.name, now)?);
    }
    let custom: Vec<_> = config
        .attributes
        .iter()
        .map(|(name, kind)| (name.clone(), connect::attribute_type(*kind)))
        .collect();
    let attributes = Arc::new(Attributes::new(writer.custom_attributes(&custom)?));
    let mappers = Mappers::default();
    let directory = Directory::new(
        rules(config, &ids, &attributes, mappers.clone()),
        mappers.clone(),
        Ids::behind(writer.last_user_id()?),
    );
    let stored_head = writer.counts().next_position.before().0;
    Ok(Prepared {
        attributes,
        mappers,
        directory,
        ids,
        hub: Hub::new(stored_head),
        readers,
        flushing: writer.flushing(),
        stored_head,
    })
}

impl Prepared {
    /// The parts of a source; none for one that is not configured.
    pub(crate) fn source(
        &self,
        config: &Config,
        source: &SourceConfig,
        connector: Arc<dyn Source>,
        engine: &mpsc::Sender<Work>,
    ) -> Option<Parts> {
        let &id = self.ids.get(&source.name)?;
        let source = &source.among(config.sources.len());
        let live = Arc::new(SourceLive::default());
        let (asks, asked) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::channel(ORDERS);
        let track = track(source, &live, asks, &self.readers, id);
        // A store that cannot be read any more ends the daemon elsewhere.
        let before = self.readers.ordered(id).ok().flatten();
        let driver = Driver {
            id,
            name: source.name.clone(),
            source: connector,
            engine: engine.clone(),
            live,
            mapping: Arc::new(mapping_of(config, source)),
            attributes: Arc::clone(&self.attributes),
            match_attributes: source
                .match_attributes
                .iter()
                .filter_map(|name| self.attributes.by_name(name).map(|a| a.id))
                .collect(),
            page_rows: source.batch.page_rows,
            page_bytes: usize::try_from(source.batch.page_size_bytes).unwrap_or(usize::MAX),
            asked,
            retry_max: source.retry_max,
            quarantine_after: source.quarantine_after,
            asked_rarer: source.asked_rarer,
            flushing: self.flushing.clone(),
            orders: ordered,
            ordered: Ordered::before(before.as_deref().and_then(Cause::named)),
            polls: Polls::new(source.poll.clone()),
            cancel: CancellationToken::new(),
        };
        Some(Parts {
            id,
            track,
            driver,
            orders,
        })
    }

    /// An engine that works on one source alone, and for no sink.
    pub(crate) fn engine_of(
        self,
        writer: Writer,
        id: SourceId,
        track: SourceTrack,
        engine: &mpsc::Sender<Work>,
    ) -> Engine {
        let retention = Retention {
            keep_us: i64::MAX,
            max_bytes: u64::MAX,
            keep_history_us: i64::MAX,
        };
        Engine::new(
            writer,
            self.readers,
            self.directory,
            HashMap::from([(id, track)]),
            self.hub,
            retention,
            HashMap::new(),
            engine.downgrade(),
        )
    }

    /// Makes everything that runs, around a store that is open.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn assemble(
        self,
        config: &Config,
        connectors: &dyn Connectors,
        writer: Writer,
        engine: &mpsc::Sender<Work>,
        fatal: &mpsc::Sender<String>,
        notifier: Option<Notifier>,
        metrics: PrometheusHandle,
    ) -> World {
        let mut entries = Vec::new();
        let mut tracks = HashMap::new();
        let mut drivers = Vec::new();
        let mut schedulers = Vec::new();
        let (mut proofs, turn) = (Vec::new(), Arc::new(Semaphore::new(1)));
        for source in &config.sources {
            crate::observe::metrics::begin_at_zero(&source.name);
            let source = &source.among(config.sources.len());
            let connector = connectors.source(&config.organization, source);
            let Some(parts) = self.source(config, source, connector, engine) else {
                continue;
            };
            proofs.extend(source.proof.map(|config| Rolling {
                id: parts.id,
                name: source.name.clone(),
                config,
                page: (parts.driver.page_rows, parts.driver.page_bytes),
                source: Arc::clone(&parts.driver.source),
                mapping: Arc::clone(&parts.driver.mapping),
                attributes: Arc::clone(&self.attributes),
                readers: self.readers.clone(),
                live: Arc::clone(&parts.driver.live),
                engine: engine.clone(),
                orders: parts.orders.clone(),
                turn: Arc::clone(&turn),
                cancel: CancellationToken::new(),
            }));
            schedulers.push(Scheduler {
                id: parts.id,
                name: source.name.clone(),
                schedule: source.schedule.clone(),
                readers: self.readers.clone(),
                live: Arc::clone(&parts.driver.live),
                orders: parts.orders.clone(),
                cancel: CancellationToken::new(),
            });
            entries.push(SourceEntry {
                id: parts.id,
                name: source.name.clone(),
                live: Arc::clone(&parts.driver.live),
                orders: parts.orders,
                configuration: connect::configuration(config, source),
            });
            tracks.insert(parts.id, parts.track);
            drivers.push(parts.driver);
        }
        let names: Vec<(SourceId, String)> =
            entries.iter().map(|e| (e.id, e.name.clone())).collect();
        let stored: HashMap<String, u64> = self
            .readers
            .sinks()
            .unwrap_or_default()
            .into_iter()
            .map(|row| (row.name, row.delivered.0))
            .collect();
        let mut lanes = Vec::new();
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            let live = Arc::new(SinkLive::default());
            let raw = config.sources.iter().filter_map(|s| {
                let stream = s.change_stream.as_ref().filter(|c| c.sink == sink.name)?;
                Some((*self.ids.get(&s.name)?, stream.topic.clone()?))
            });
            lanes.push(Lane {
                name: sink.name.clone(),
                sink: connectors.sink(&config.organization, sink),
                renderer: Renderer::new(&config.organization, names.clone(), raw),
                hub: Arc::clone(&self.hub),
                readers: self.readers.clone(),
                engine: engine.clone(),
                live: Arc::clone(&live),
                stored_position: stored.get(&sink.name).copied().unwrap_or(0),
                stored_head: self.stored_head,
                fatal: fatal.clone(),
                cancel: CancellationToken::new(),
            });
            sinks.push(SinkEntry {
                name: sink.name.clone(),
                live,
            });
        }
        let positions = config
            .sinks
            .iter()
            .map(|s| (s.name.clone(), stored.get(&s.name).copied().unwrap_or(0)))
            .collect();
        let retention = Retention {
            keep_us: i64::try_from(config.store.outbox_retention.as_micros()).unwrap_or(i64::MAX),
            max_bytes: config.store.outbox_max_bytes,
            keep_history_us: i64::try_from(config.store.history_retention.as_micros())
                .unwrap_or(i64::MAX),
        };
        let engine_queue = engine.downgrade();
        let queue = engine.clone();
        let engine = Engine::new(
            writer,
            self.readers.clone(),
            self.directory,
            tracks,
            Arc::clone(&self.hub),
            retention,
            positions,
            engine_queue,
        )
        .with_notifier(notifier);
        let shared = Arc::new(Shared {
            organization: config.organization.clone(),
            sources: entries,
            sinks,
            hub: self.hub,
            readers: self.readers,
            attributes: self.attributes,
            engine: queue,
            tokens: Tokens::new(&config.tokens),
            metrics,
            started_us: now_us(),
        });
        World {
            shared,
            engine,
            drivers,
            schedulers,
            proofs,
            lanes,
        }
    }
}

fn limit_track(limit: &LimitConfig, readers: &Readers, id: SourceId) -> LimitTrack {
    let window_us = i64::try_from(limit.window.as_micros()).unwrap_or(i64::MAX);
    let since = staging::minute(now_us()) - staging::window_minutes(window_us);
    let counted = readers.counted_since(id, since).unwrap_or_default();
    let limit = Limit {
        max_changes: limit.max_changes,
        max_percent: limit.max_percent,
        floor: limit.floor,
    };
    LimitTrack::new(limit, window_us, counted)
}

/// A source's mapping, with what decides which source wins.
pub fn mapping_of(config: &Config, source: &SourceConfig) -> MappingSpec {
    let changed = connect::changed_columns(config, source);
    MappingSpec {
        precedence: connect::precedence(config),
        ..connect::mapping_spec_with(source, changed)
    }
}

/// Columns that no raw change of a source has: the redacted ones, and those of related tables,
/// which are no columns of the table whose changes are published.
fn left_out(source: &SourceConfig) -> Vec<String> {
    let mut columns = source.redact.clone();
    for related in connect::mapping_spec(source).related {
        let names = related.columns.iter();
        columns.extend(names.map(|column| format!("{}.{column}", related.name)));
    }
    columns
}

fn waits_for_mapping(readers: &Readers, id: SourceId) -> Remapping {
    let kinds = readers.plan_kinds(id).unwrap_or_default();
    match kinds.iter().any(|(kind, _)| *kind == Counted::Mapping) {
        true => Remapping::Waiting,
        false => Remapping::Nobody,
    }
}

fn track(
    source: &SourceConfig,
    live: &Arc<SourceLive>,
    asks: mpsc::UnboundedSender<Ask>,
    readers: &Readers,
    id: SourceId,
) -> SourceTrack {
    let mut gaps = readers.gaps(true, 100_000).unwrap_or_default();
    gaps.retain(|g| g.source == id);
    let history = history_of(gaps.iter().map(|g| &g.gap));
    let open_gaps = gaps
        .iter()
        .filter(|g| g.closed_us.is_none())
        .map(|g| g.id)
        .collect();
    let plan_open = readers
        .plans()
        .is_ok_and(|plans| plans.iter().any(|p| p.source == id));
    let given_up = readers
        .source(&source.name)
        .is_ok_and(|stored| stored.is_some_and(|s| s.given_up));
    let mut open = gaps.iter().filter(|g| g.closed_us.is_none());
    let remapping = if open.any(|g| g.gap.reason == GapReason::MappingChanged) {
        Remapping::Everybody
    } else if plan_open {
        waits_for_mapping(readers, id)
    } else {
        Remapping::Nobody
    };
    SourceTrack {
        name: source.name.clone(),
        live: Arc::clone(live),
        acknowledge: None,
        asks,
        open_gaps,
        stream_run: None,
        scan: None,
        lot: LotLimit {
            changes: source.batch.most_rows,
            bytes: usize::try_from(source.batch.size_bytes).unwrap_or(usize::MAX),
        },
        worked: None,
        is_proved: source.proof.is_some(),
        proof_run: None,
        limit: source.limit.map(|limit| limit_track(&limit, readers, id)),
        plan_open,
        given_up,
        remapping,
        related: None,
        poll: None,
        state: "new",
        reason: String::new(),
        position: String::new(),
        raw_changes: source.change_stream.as_ref().map(|_| RawChanges {
            redact: left_out(source),
        }),
        history,
    }
}
