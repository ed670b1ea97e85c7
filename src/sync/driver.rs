//! One source, driven: opens its log, maps what it brings, reads pages when a scan is due,
//! and hands everything to the engine in one order.
//!
//! The order is the argument: the driver is one task, so a page can be placed exactly
//! behind the log events that it has seen. A session ends with the connection; what was
//! handed over by then is in the store or will be delivered again from the stored cursor,
//! so a new session needs nothing of the old one.
//!
//! Where the log cannot be read, for a reason that an operator has to mend, the same session
//! goes on without it: the table is polled ([`super::polls`]), and the log looked at again
//! at intervals. While it is being opened nothing is read, so no page can be newer than the
//! place at which the log begins. An order there is a poll of every row: whoever asks wants what
//! a change column does not tell as well, and who is gone.

mod duplicates;
mod mapping;
mod pages;
mod session;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_contract::{
    ConnectorError, Cursor, Definite, Gap, GapReason, Key, Lineage, OTHER_SERVER,
    Opened as LogOpened, Source, SourceStatus, TableNo,
};
use rollcall_core::attribute::{AttrId, Attributes};
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::mapping::MappingSpec;
use rollcall_store::Flushing;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::session::{Session, WithoutLog};
use super::attempts::{Attempts, Verdict};
use super::polling::{LogKept, PollTrack};
use super::polls::Polls;
use super::shared::SourceLive;
use super::track::Ask;
use super::work::{Cause, KeysOrder, Opened, Order, Work};
use crate::config::PollMode;

/// Above so many rows mapping leaves the runtime's worker to others.
const INLINE_ROWS: usize = 500;

/// While pages wait on an idle log, the server is asked for its position this often.
const HURRY: Duration = Duration::from_millis(10);

/// How often the server's view is refreshed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Everything that one source's driver needs.
pub struct Driver {
    /// The source's number.
    pub id: SourceId,
    /// The source's name.
    pub name: String,
    /// The connector.
    pub source: Arc<dyn Source>,
    /// Where work goes.
    pub engine: mpsc::Sender<Work>,
    /// What the daemon shows.
    pub live: Arc<SourceLive>,
    /// The mapping, not yet bound to a schema.
    pub mapping: Arc<MappingSpec>,
    /// The organization's attributes.
    pub attributes: Arc<Attributes>,
    /// The attributes by which records of this source find their users.
    pub match_attributes: Vec<AttrId>,
    /// Rows of a page at most.
    pub page_rows: usize,
    /// Bytes of a page at most.
    pub page_bytes: usize,
    /// What the engine asks for.
    pub asked: mpsc::UnboundedReceiver<Ask>,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
    /// After so long without a connection that holds it is quarantined.
    pub quarantine_after: Duration,
    /// How many times rarer than alone its server is asked how it stands.
    pub asked_rarer: u32,
    /// When the store is flushed.
    pub flushing: Flushing,
    /// The polls in place of the log.
    pub polls: Polls,
    /// What people, schedules and programs want of this source.
    pub orders: mpsc::Receiver<Order>,
    /// What they want and no run has begun with, whichever session it came in.
    pub ordered: Ordered,
    /// Ends the driver.
    pub cancel: CancellationToken,
}

/// Orders that were taken and not begun.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Who wants a scan.
    scan: Option<Cause>,
    /// Who wants to know its run.
    began: Vec<oneshot::Sender<RunId>>,
    /// Records that are to be read.
    keys: VecDeque<KeysOrder>,
    /// Records that the engine wants to be read again.
    repairs: Vec<Key>,
}

impl Ordered {
    /// What was ordered before the daemon started.
    pub(crate) fn before(cause: Option<Cause>) -> Ordered {
        Ordered {
            scan: cause,
            ..Ordered::default()
        }
    }

    /// Takes an order until a session begins with it. A plan is not kept.
    fn keep(&mut self, order: Order) {
        match order {
            Order::Reconcile { cause, began } => {
                self.scan.get_or_insert(cause);
                self.began.extend(began);
            }
            Order::Keys(order) if self.keys.len() < KEYS_ORDERS => self.keys.push_back(order),
            Order::Keys(_) | Order::Apply { .. } => {}
        }
    }
}

/// So many orders for records wait at most; who gives one more is refused.
const KEYS_ORDERS: usize = 1_000;

/// Why a session ended.
enum Ended {
    /// The daemon stops.
    Cancelled,
    /// The engine is gone: the daemon stops.
    EngineGone,
    /// The connector failed.
    Failed(ConnectorError),
    /// The log of a source that was polled can be read.
    Followable(Box<LogOpened>),
}

impl From<ConnectorError> for Ended {
    fn from(e: ConnectorError) -> Self {
        Ended::Failed(e)
    }
}

impl<T> From<mpsc::error::SendError<T>> for Ended {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Ended::EngineGone
    }
}

impl From<oneshot::error::RecvError> for Ended {
    fn from(_: oneshot::error::RecvError) -> Self {
        Ended::EngineGone
    }
}

impl Driver {
    /// Runs until cancelled. Failures are retried for ever: quickly and ever slower when
    /// they may mend themselves, slowly when an operator is needed or when that has gone on for
    /// long, and at once when somebody gives an order.
    pub async fn run(mut self) {
        let mut attempts = Attempts::new(self.retry_max, self.quarantine_after);
        loop {
            let e = match self.session(&mut attempts).await {
                Ok(never) => match never {},
                Err(Ended::Cancelled | Ended::EngineGone | Ended::Followable(_)) => return,
                Err(Ended::Failed(e)) => e,
            };
            let (verdict, wait) = attempts.failed(Instant::now(), e.is_transient());
            let (state, reason) = match verdict {
                Verdict::Waiting => ("waiting", e.to_string()),
                Verdict::Refused => ("refused", e.to_string()),
                Verdict::Quarantined(failures, lasts) => (
                    "quarantined",
                    format!(
                        "It has failed {failures} times in {} min, and is tried now and then; `rollcall sync {}` tries at once. {e}",
                        lasts.as_secs() / 60,
                        self.name
                    ),
                ),
            };
            tracing::warn!(
                source = self.name,
                state,
                retry_in_ms = wait.as_millis() as u64,
                "{reason}"
            );
            if self.state(state, reason).await.is_err() || self.rest(wait).await.is_err() {
                return;
            }
        }
    }

    /// Waits for so long, or until somebody wants something of the source.
    async fn rest(&mut self, wait: Duration) -> Result<(), Ended> {
        let wait = tokio::time::sleep(wait);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Ended::Cancelled),
                () = &mut wait => return Ok(()),
                order = self.orders.recv() => match order {
                    // A plan is for a source that is connected: whoever asked is told.
                    Some(Order::Apply { .. }) => {}
                    Some(order) => {
                        self.ordered.keep(order);
                        return Ok(());
                    }
                    None => return Err(Ended::EngineGone),
                },
            }
        }
    }

    async fn state(&self, state: &'static str, reason: String) -> Result<(), Ended> {
        self.live.set_state(state, &reason);
        self.engine
            .send(Work::State {
                source: self.id,
                state,
                reason,
            })
            .await?;
        Ok(())
    }

    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.engine.send(work(reply)).await?;
        Ok(answer.await?)
    }

    async fn session(&mut self, attempts: &mut Attempts) -> Result<Infallible, Ended> {
        self.state("connecting", String::new()).await?;
        let resume = self
            .ask(|reply| Work::Resume {
                source: self.id,
                reply,
            })
            .await?;
        let opened = match self.polls.config().mode {
            PollMode::Always => Err(None),
            mode => tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Ended::Cancelled),
                opened = self.source.open(resume.cursor.clone()) => match (opened, mode) {
                    (Ok(opened), _) => Ok(opened),
                    (Err(ConnectorError::Unfollowable(why)), PollMode::WhenNeeded) => {
                        Err(Some(why))
                    }
                    (Err(e), _) => return Err(e.into()),
                },
            },
        };
        self.ordered.repairs = resume.repairs;
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                let known = resume.cursor.map(|(_, lineage)| lineage);
                match self.poll(known, why, attempts).await {
                    Ok(never) => match never {},
                    Err(Ended::Followable(opened)) => *opened,
                    Err(ended) => return Err(ended),
                }
            }
        };
        self.polls.forget();
        self.follow(opened, attempts).await
    }

    /// Follows the log until the session ends.
    async fn follow(
        &mut self,
        opened: LogOpened,
        attempts: &mut Attempts,
    ) -> Result<Infallible, Ended> {
        for gap in &opened.gaps {
            tracing::warn!(
                source = self.name,
                reason = gap.reason.as_str(),
                from = gap.from,
                to = gap.to,
                "gap: {}",
                gap.detail
            );
        }
        let (start, acknowledge) = (opened.start.clone(), Arc::clone(&opened.acknowledge));
        let scan_due = self
            .ask(|reply| {
                Work::Opened(Opened {
                    source: self.id,
                    start: opened.start,
                    lineage: opened.lineage,
                    gaps: opened.gaps,
                    acknowledge: opened.acknowledge,
                    reply,
                })
            })
            .await?;
        attempts.connected(Instant::now());
        self.live.set_notices(Vec::new());
        let watch = self.watch_status(|status| status);
        let mut stream = opened.stream;
        let mut session = Session::new(self, start, Some(acknowledge));
        session.scan_due = scan_due;
        let ended = session.run(Some(&mut *stream)).await;
        session.abandon();
        watch.abort();
        stream.close().await;
        ended
    }

    /// Polls the table until its log can be followed, or the session ends. `why` is the
    /// reason that the log cannot be read; without one it is not asked for.
    async fn poll(
        &mut self,
        known: Option<Lineage>,
        why: Option<Definite>,
        attempts: &mut Attempts,
    ) -> Result<Infallible, Ended> {
        let (lineage, gap) = match self.source.identify(known.as_ref()).await {
            Ok(lineage) => (lineage, None),
            // Whoever lets the table be polled for good lets this server take the place of
            // the one before, as it could by its log.
            Err(e) if e.code() == OTHER_SERVER && why.is_none() => {
                let gap = Gap {
                    tables: Vec::new(),
                    reason: GapReason::OtherServer,
                    from: None,
                    to: None,
                    detail: format!("{e}"),
                };
                (self.source.identify(None).await?, Some(gap))
            }
            Err(e) => return Err(e.into()),
        };
        let poll = PollTrack {
            change_column: self.polls.config().change_column.clone(),
        };
        let source = self.id;
        self.ask(|reply| Work::Polling {
            source,
            lineage: lineage.clone(),
            poll,
            reply,
        })
        .await?;
        attempts.connected(Instant::now());
        self.live.set_server(SourceStatus::default());
        let watch = self.watch_status(of_polled);
        let mut session = Session::new(self, Cursor::nowhere(""), None);
        session.without_log = Some(WithoutLog {
            lineage,
            why,
            next_look: Instant::now() + session.driver.retry_max,
        });
        let ended = match gap {
            Some(gap) => session.gap(gap).await,
            None => Ok(()),
        };
        let ended = match ended {
            Ok(()) => session.run(None).await,
            Err(ended) => Err(ended),
        };
        session.abandon();
        watch.abort();
        ended
    }

    /// Asks the server how many rows a scan will read, for people who wait.
    fn estimate_rows(&self) {
        let (source, live) = (Arc::clone(&self.source), Arc::clone(&self.live));
        tokio::spawn(async move {
            let schema = source.schema(TableNo::MAIN).await;
            let (Ok(schema), Ok(tables)) = (schema, source.discover().await) else {
                return;
            };
            let table = tables.iter().find(|t| t.schema.table == schema.table);
            let rows = table.and_then(|t| t.estimated_rows).unwrap_or(0);
            live.scan_total.store(rows, Ordering::Relaxed);
        });
    }

    /// Keeps what is shown of the server's view fresh, on a connection of its own.
    fn watch_status(&self, shown: fn(SourceStatus) -> SourceStatus) -> JoinHandle<()> {
        let (source, live) = (Arc::clone(&self.source), Arc::clone(&self.live));
        let every = STATUS_EVERY * self.asked_rarer;
        tokio::spawn(async move {
            loop {
                if let Ok(status) = source.status().await {
                    live.set_server(shown(status));
                }
                tokio::time::sleep(every).await;
            }
        })
    }
}

/// Of the server's view, what concerns a source whose log is not read.
fn of_polled(status: SourceStatus) -> SourceStatus {
    let Some(kept) = LogKept::of(&status) else {
        return SourceStatus::default();
    };
    let mut warnings = vec![format!("{} {}", kept.found, kept.fix)];
    warnings.extend(status.warnings);
    SourceStatus {
        retained_bytes: status.retained_bytes,
        safe_bytes: status.safe_bytes,
        warnings,
        ..SourceStatus::default()
    }
}
