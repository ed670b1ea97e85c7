//! One life of the daemon, from opening its store to its end: the daemon's own parts, put
//! together as it does, on one thread and over simulated time.
//!
//! Two things differ from the daemon. The engine is a task among the others, and what is to be
//! written lies on a desk until a task of ours comes by, some moments later: so the engine
//! decides on the next lot over one that is under way, as beside the daemon's thread that writes.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use rollcall::config::{Config, SinkConfig, SourceConfig};
use rollcall::connect::Connectors;
use rollcall::daemon::{self, Shared};
use rollcall::sync::work::Work;
use rollcall_contract::{Sink, Source};
use rollcall_store::{Desk, OpenOptions, Readers, Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::destination::Destination;
use crate::dice::Dice;
use crate::server::Server;

/// The servers and destinations of a world, by the names in its configuration.
#[derive(Default)]
pub(crate) struct Around {
    pub(crate) servers: BTreeMap<String, Server>,
    pub(crate) destinations: BTreeMap<String, Destination>,
}

impl Connectors for Around {
    fn source(&self, _: &str, config: &SourceConfig) -> Arc<dyn Source> {
        Arc::new(self.servers[&config.name].clone())
    }

    fn sink(&self, _: &str, config: &SinkConfig) -> Box<dyn Sink> {
        self.destinations[&config.name].sink()
    }
}

/// How the store is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) checkpoint_bytes: u64,
    pub(crate) match_delta_entries: usize,
}

/// Why a life ended by itself.
#[derive(Debug)]
pub(crate) enum Ended {
    Store(StoreError),
    Fenced,
    Panicked(String),
}

pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    engine: JoinHandle<Result<(), StoreError>>,
    sources: JoinSet<()>,
    lanes: JoinSet<()>,
    stop: CancellationToken,
    lanes_stop: CancellationToken,
    fatal: mpsc::Receiver<String>,
}

impl Life {
    pub(crate) fn begin(
        config: &Config,
        around: &Around,
        sizes: Sizes,
        mut dice: Dice,
    ) -> Result<Life, StoreError> {
        let desk = Desk::default();
        let options = OpenOptions {
            checkpoint_bytes: sizes.checkpoint_bytes,
            match_delta_entries: sizes.match_delta_entries,
            desk: Some(desk.clone()),
            ..OpenOptions::new(&config.organization)
        };
        let (mut writer, readers) = Store::open(&config.store.path, options)?;
        let prepared = daemon::prepare(config, &mut writer, readers).map_err(|e| {
            // The daemon's failure has lost its kind by here; none of them is one of logic.
            StoreError::Refused(e.sentence)
        })?;
        let (engine_tx, engine_rx) = mpsc::channel(1);
        let (fatal_tx, fatal) = mpsc::channel(1);
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let world = prepared.assemble(config, around, writer, &engine_tx, &fatal_tx, None, metrics);
        let alarm = world.engine.alarm();
        let wake = Arc::new(Notify::new());
        let given = Arc::clone(&wake);
        let mut run = Box::pin(world.engine.run(engine_rx));
        let engine = tokio::spawn(poll_fn(move |cx| {
            let polled = run.as_mut().poll(cx);
            given.notify_one();
            polled
        }));
        let (stop, lanes_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut sources, mut lanes) = (JoinSet::new(), JoinSet::new());
        for mut lane in world.lanes {
            lane.cancel = lanes_stop.clone();
            lanes.spawn(lane.run());
        }
        for mut driver in world.drivers {
            driver.cancel = stop.clone();
            sources.spawn(driver.run());
        }
        for mut scheduler in world.schedulers {
            scheduler.cancel = stop.clone();
            sources.spawn(scheduler.run());
        }
        tokio::spawn(daemon::upkeep(engine_tx, alarm));
        tokio::spawn(async move {
            loop {
                wake.notified().await;
                loop {
                    let us = dice.below(3_000);
                    tokio::time::sleep(Duration::from_micros(us)).await;
                    if !desk.work() {
                        break;
                    }
                }
            }
        });
        Ok(Life {
            shared: world.shared,
            engine,
            sources,
            lanes,
            stop,
            lanes_stop,
            fatal,
        })
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.shared.readers
    }

    /// Why it has ended, if it has.
    pub(crate) async fn ended(&mut self) -> Option<Ended> {
        if self.engine.is_finished() {
            return Some(match (&mut self.engine).await {
                Ok(Ok(())) => Ended::Panicked("the engine ended without a reason".to_owned()),
                Ok(Err(e)) => Ended::Store(e),
                Err(e) => Ended::Panicked(e.to_string()),
            });
        }
        for tasks in [&mut self.sources, &mut self.lanes] {
            while let Some(done) = tasks.try_join_next() {
                if let Err(e) = done {
                    return Some(Ended::Panicked(e.to_string()));
                }
            }
        }
        self.fatal.try_recv().ok().map(|_| Ended::Fenced)
    }

    /// Ends in the daemon's order.
    pub(crate) async fn stop(mut self) -> Result<(), Ended> {
        let grace = Duration::from_secs(10);
        self.stop.cancel();
        let engine = self.shared.engine.clone();
        // What the grace period cuts goes on at the next start.
        let _ = tokio::time::timeout(grace, async {
            while self.sources.join_next().await.is_some() {}
            daemon::settled(&engine).await;
            daemon::delivered(&self.shared).await;
        })
        .await;
        self.lanes_stop.cancel();
        let _ = tokio::time::timeout(grace, async {
            while self.lanes.join_next().await.is_some() {}
        })
        .await;
        let _ = engine.send(Work::Stop).await;
        match self.engine.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Ended::Store(e)),
            Err(e) => Err(Ended::Panicked(e.to_string())),
        }
    }
}
