//! Simulation: what a reconciliation would do, without doing it.
//!
//! ```text
//! store ─copy─► private folder ─► engine + driver (the same code) ─► copy ─compare─► plan
//!                                    ▲ the source's full keyed read, no log, no sinks
//! ```
//!
//! Why the plan is what would happen: the copy is one committed state of the store, and on
//! it runs nothing else than the daemon's own driver and engine, of which only the log is
//! silent ([`still`]), the sinks are missing, the limit lets everything pass, and what waits
//! for approval is approved: the plan says what the limit would make of it. Why nothing is touched: the store is only
//! read, by a connection that can do nothing else; the source is asked for its columns and
//! rows alone; what is written lies in a folder of its own ([`folder`]) that is removed at
//! the end.

pub mod changes;
mod compare;
pub mod folder;
pub mod plan;
pub mod still;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rollcall_contract::{GapReason, Source};
use rollcall_core::directory::Rules;
use rollcall_core::id::{MatchHash, SourceId};
use rollcall_core::mapping::Mapper;
use rollcall_store::{OpenOptions, Readers, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::{Exit, Failure};
use crate::config::{Config, PollMode, SourceConfig};
use crate::connect;
use crate::daemon;
use crate::sync;
use crate::sync::clock::now_us;
use crate::sync::planned::Digest;
use crate::sync::staging::{PlanAnswer, Word};
use crate::sync::window::Purpose;
use crate::sync::work::{Cause, Order, Work};
use changes::Changes;
use compare::Comparing;
use folder::Folder;
use plan::{LimitView, Plan};
use still::Still;

/// How often is looked whether everything is approved.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(5);

/// Simulates a reconciliation of a source of `config` over a copy of the store in `store`
/// (an empty one, when there is none yet). Ends early when `stop` says so.
///
/// # Errors
/// When the store cannot be copied, the source cannot be read, the mapping does not fit, or
/// it was stopped.
pub async fn simulate(
    config: &Config,
    source: &SourceConfig,
    connector: Arc<dyn Source>,
    store: &Path,
    stop: CancellationToken,
) -> Result<Plan, Failure> {
    let folder = Folder::make()?;
    // What writes into the folder has ended when this has: nothing of it stays behind.
    let outcome = run(config, source, connector, store, &folder, &stop).await;
    drop(folder);
    outcome
}

fn stopped() -> Failure {
    Failure::new(
        Exit::Failed,
        "stopped; nothing was changed, and the copy of the store is removed",
    )
}

async fn run(
    config: &Config,
    source: &SourceConfig,
    connector: Arc<dyn Source>,
    store: &Path,
    folder: &Folder,
    stop: &CancellationToken,
) -> Result<Plan, Failure> {
    let began_us = now_us();
    copy(config, store, folder, stop).await?;
    let options = OpenOptions::new(&config.organization);
    let (mut writer, readers) = Store::open(folder.path(), options)?;
    let before = readers.standing_still()?;
    let prepared = daemon::prepare(config, &mut writer, readers.clone())?;
    bind_others(config, source, &prepared)?;
    let (still, seen) = Still::new(connector);
    let (engine_tx, engine_rx) = mpsc::channel(1);
    let (driver_tx, driver_rx) = mpsc::channel(1);
    // The silent log stands in for one that cannot be read, too.
    let mut quiet = source.clone();
    quiet.poll.mode = PollMode::Never;
    let Some(mut parts) = prepared.source(config, &quiet, Arc::new(still), &driver_tx) else {
        return Err(Failure::new(Exit::NotFound, "there is no such source"));
    };
    drop(driver_tx);
    let linked = before.counts()?.linked_of(parts.id);
    let limit = LimitView::of(&mut parts.track, linked, now_us());
    parts.track.let_everything_pass();
    let (id, attributes) = (parts.id, Arc::clone(&prepared.attributes));
    let store_id = writer.identity().store;
    let names = prepared.ids.iter().map(|(name, id)| (*id, name.clone()));
    let names: HashMap<SourceId, String> = names.collect();
    let rules = sync::apply::rules(config, &prepared.ids, &attributes, prepared.mappers.clone());
    let mut known = Known::default();
    let engine = prepared.engine_of(writer, id, parts.track, &engine_tx);
    let runtime = Handle::current();
    let engine = tokio::task::spawn_blocking(move || runtime.block_on(engine.run(engine_rx)));
    let order = Order::Reconcile {
        cause: Cause::Manual,
        began: None,
    };
    // There is room for the first order.
    let _ = parts.orders.try_send(order);
    let end = CancellationToken::new();
    parts.driver.cancel = end.clone();
    let driver = tokio::spawn(parts.driver.run());
    let mut from = driver_rx;
    let done = async {
        let mapper = watch(&mut from, &engine_tx, &rules, &mut known).await?;
        approve(id, &readers, &mut from, &engine_tx).await?;
        Ok(mapper)
    };
    let watched = tokio::select! {
        watched = done => watched,
        () = stop.cancelled() => Err(stopped().sentence),
    };
    end.cancel();
    driver.abort();
    let mapper = match watched {
        Ok(mapper) => mapper,
        Err(reason) => {
            // The engine that failed says why; otherwise the source did.
            let _ = engine_tx.send(Work::Stop).await;
            drop(before);
            engine.await.map_err(|_| broken())??;
            return Err(Failure::new(Exit::Failed, reason));
        }
    };
    let mut plan = Plan::new(&config.organization, &source.name);
    plan.changes = Changes::in_folder(folder.path())?;
    plan.limit = limit;
    plan.apply.configuration = connect::configuration(config, source);
    plan.apply.store = store_id;
    plan.apply.duplicates = known.duplicates;
    let plan = tokio::task::spawn_blocking(move || {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        plan.position.clone_from(&seen.position);
        plan.rows = seen.rows;
        let comparing = Comparing {
            before: &before,
            after: &readers,
            source: id,
            attributes: &attributes,
            mapper: &mapper,
            names: &names,
            seen: &seen,
            shared: known.shared,
            remapped: is_remapped(&readers, id, began_us)?,
        };
        comparing.compare(&mut plan)?;
        Ok::<Plan, Failure>(plan)
    });
    let mut plan = plan.await.map_err(|_| broken())??;
    plan.limit.judge();
    let _ = engine_tx.send(Work::Stop).await;
    engine.await.map_err(|_| broken())??;
    Ok(plan)
}

fn broken() -> Failure {
    Failure::new(Exit::Failed, "the simulation ended unexpectedly")
}

/// Copies the store, if there is one.
async fn copy(
    config: &Config,
    store: &Path,
    folder: &Folder,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let readers = match Readers::open_readonly(store, &config.organization) {
        Ok(readers) => readers,
        Err(StoreError::Missing { .. }) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    folder.has_room_for(readers.size_bytes()?)?;
    let (path, stop) = (folder.path().to_owned(), stop.clone());
    let copied =
        tokio::task::spawn_blocking(move || readers.copy_to(&path, || !stop.is_cancelled()));
    match copied.await.map_err(|_| broken())?? {
        true => Ok(()),
        false => Err(stopped()),
    }
}

/// Gives the rules the mappings of the other sources: a record of theirs may be applied
/// again because of what changes here. A mapping that does not fit what is stored is left
/// out; the daemon has none then either.
fn bind_others(
    config: &Config,
    simulated: &SourceConfig,
    prepared: &daemon::Prepared,
) -> Result<(), Failure> {
    for source in config.sources.iter().filter(|s| s.name != simulated.name) {
        let Some(&id) = prepared.ids.get(&source.name) else {
            continue;
        };
        let mut schemas = Vec::new();
        for stored in prepared.readers.schemas(id)? {
            if let Ok(schema) = serde_json::from_str(&stored.columns) {
                schemas.push((stored.version, schema));
            }
        }
        let spec = daemon::mapping_of(config, source);
        if let Ok(mapper) = sync::mapper::compile(&spec, &schemas, &prepared.attributes) {
            prepared.mappers.set(id, Arc::new(mapper));
        }
    }
    Ok(())
}

/// What the rules were told before they were given rows: match keys that several rows have.
#[derive(Default)]
struct Known {
    /// By page.
    shared: BTreeMap<u32, Vec<Digest>>,
    /// Of the whole table.
    duplicates: Vec<Digest>,
}

impl Known {
    fn take_in(&mut self, work: &Work, rules: &Rules, pages: &mut u32) {
        let digests = |keys: Vec<MatchHash>| keys.into_iter().map(|key| Digest(key.0)).collect();
        match work {
            Work::Duplicates { keys, .. } => {
                let mut keys: Vec<MatchHash> = keys.iter().copied().collect();
                keys.sort_unstable();
                self.duplicates = digests(keys);
            }
            Work::Page(page) if matches!(page.page.purpose, Purpose::Scan { .. }) => {
                let shared = sync::pages::shared_keys(rules, page);
                if !shared.is_empty() {
                    self.shared.insert(*pages, digests(shared));
                }
                *pages += 1;
            }
            _ => {}
        }
    }
}

/// Hands the driver's work on to the engine until its scan has ended; gives the mapping that
/// it was done with, or why it cannot be done.
async fn watch(
    from: &mut mpsc::Receiver<Work>,
    engine: &mpsc::Sender<Work>,
    rules: &Rules,
    known: &mut Known,
) -> Result<Arc<Mapper>, String> {
    let mut pages = 0;
    let mut mapper = None;
    let mut ended = false;
    while let Some(work) = from.recv().await {
        known.take_in(&work, rules, &mut pages);
        match &work {
            Work::Mapper { mapper: bound, .. } => mapper = Some(Arc::clone(bound)),
            Work::ScanEnd { .. } => ended = true,
            Work::State { state, reason, .. } => match (*state, ended) {
                ("waiting" | "refused", _) => return Err(reason.clone()),
                (_, true) => return mapper.ok_or_else(String::new),
                _ => {}
            },
            _ => {}
        }
        if engine.send(work).await.is_err() {
            break;
        }
    }
    Err("the engine ended".to_owned())
}

/// Whether a gap of the mapping was open in the copy.
fn is_remapped(readers: &Readers, source: SourceId, began_us: i64) -> Result<bool, StoreError> {
    let gaps = readers.gaps(true, 100_000)?;
    let was_open = |closed_us: Option<i64>| closed_us.is_none_or(|us| us >= began_us);
    Ok(gaps.iter().any(|g| {
        g.source == source && g.gap.reason == GapReason::MappingChanged && was_open(g.closed_us)
    }))
}

/// Approves what still waits: what was staged before, and what is staged whatever the limit
/// says. What has to be read again for that is handed on meanwhile.
async fn approve(
    source: SourceId,
    readers: &Readers,
    from: &mut mpsc::Receiver<Work>,
    engine: &mpsc::Sender<Work>,
) -> Result<(), String> {
    let hand_on = async {
        while let Some(work) = from.recv().await {
            if let Work::State { state, reason, .. } = &work
                && matches!(*state, "waiting" | "refused")
            {
                return reason.clone();
            }
            if engine.send(work).await.is_err() {
                break;
            }
        }
        "the engine ended".to_owned()
    };
    let approved = async {
        loop {
            let plans = readers.plans().map_err(|e| e.to_string())?;
            let Some(plan) = plans.into_iter().find(|p| p.source == source) else {
                if readers.is_relinking().map_err(|e| e.to_string())? {
                    // Many name somebody who is new, and are told one after the other.
                    tokio::time::sleep(LOOKED_AT_EVERY).await;
                    continue;
                }
                return Ok(());
            };
            if plan.approved {
                tokio::time::sleep(LOOKED_AT_EVERY).await;
                continue;
            }
            let (reply, told) = oneshot::channel();
            let work = Work::Plan {
                hash: plan.hash,
                word: Word::Approve,
                reply,
            };
            // An engine that is gone says why when it is waited for.
            let _ = engine.send(work).await;
            if !matches!(told.await, Ok(PlanAnswer::Changed { .. })) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        approved = approved => approved,
        why = hand_on => Err(why),
    }
}
