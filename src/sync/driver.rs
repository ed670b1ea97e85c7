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

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rollcall_contract::{
    Acknowledge, Batch, ChangeStream, ConnectorError, Cursor, Definite, Gap, GapReason, Key,
    Lineage, OTHER_SERVER, Op, Opened as LogOpened, Page, PageRequest, Pool, Pooled, Source,
    SourceStatus, StreamItem, TableSchema,
};
use rollcall_core::attribute::{AttrId, Attributes};
use rollcall_core::id::{MatchHash, RunId, SourceId};
use rollcall_core::mapped::{Assigned, MappedRows, Outcome};
use rollcall_core::mapping::{Mapper, MappingSpec, fold};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use super::planned::PlannedPage;
use super::planning::Planning;
use super::polling::PollTrack;
use super::polls::{Poll, Polls};
use super::scan::{Next, Scan};
use super::shared::SourceLive;
use super::track::Ask;
use super::window::{HeldPage, NoLog, Opened as OpenWindow, Purpose, Windows};
use super::work::{Cause, Changes, KeysOrder, Opened, Order, PageWork, Work};
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
    /// they may mend themselves, slowly when an operator is needed.
    pub async fn run(mut self) {
        let mut delay = Backoff::new(self.retry_max);
        loop {
            let (state, wait, reason) = match self.session(&mut delay).await {
                Ok(never) => match never {},
                Err(Ended::Cancelled | Ended::EngineGone | Ended::Followable(_)) => return,
                Err(Ended::Failed(e)) if e.is_transient() => {
                    ("waiting", delay.pause(), e.to_string())
                }
                Err(Ended::Failed(e)) => ("refused", delay.longest(), e.to_string()),
            };
            tracing::warn!(
                source = self.name,
                state,
                retry_in_ms = wait.as_millis() as u64,
                "{reason}"
            );
            if self.state(state, reason).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
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

    async fn session(&mut self, delay: &mut Backoff) -> Result<Infallible, Ended> {
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
        let mut repairs = resume.repairs;
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                let known = resume.cursor.map(|(_, lineage)| lineage);
                let repairs = std::mem::take(&mut repairs);
                match self.poll(known, why, repairs, delay).await {
                    Ok(never) => match never {},
                    Err(Ended::Followable(opened)) => *opened,
                    Err(ended) => return Err(ended),
                }
            }
        };
        self.polls.forget();
        self.follow(opened, repairs, delay).await
    }

    /// Follows the log until the session ends.
    async fn follow(
        &mut self,
        opened: LogOpened,
        repairs: Vec<Key>,
        delay: &mut Backoff,
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
        delay.reset();
        let watch = self.watch_status();
        let mut stream = opened.stream;
        let mut session = Session::new(self, start, Some(acknowledge), repairs);
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
        repairs: Vec<Key>,
        delay: &mut Backoff,
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
        delay.reset();
        self.live.set_server(SourceStatus::default());
        let mut session = Session::new(self, Cursor::nowhere(""), None, repairs);
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
        ended
    }

    /// Asks the server how many rows a scan will read, for people who wait.
    fn estimate_rows(&self) {
        let (source, live) = (Arc::clone(&self.source), Arc::clone(&self.live));
        tokio::spawn(async move {
            let (Ok(schema), Ok(tables)) = (source.schema().await, source.discover().await) else {
                return;
            };
            let table = tables.iter().find(|t| t.schema.table == schema.table);
            let rows = table.and_then(|t| t.estimated_rows).unwrap_or(0);
            live.scan_total.store(rows, Ordering::Relaxed);
        });
    }

    /// Keeps the server's view fresh, on a connection of its own.
    fn watch_status(&self) -> JoinHandle<()> {
        let (source, live) = (Arc::clone(&self.source), Arc::clone(&self.live));
        tokio::spawn(async move {
            loop {
                if let Ok(status) = source.status().await {
                    live.set_server(status);
                }
                tokio::time::sleep(STATUS_EVERY).await;
            }
        })
    }
}

/// A read that is under way.
struct Read {
    task: JoinHandle<Result<Page, ConnectorError>>,
    window: OpenWindow,
    asked: Vec<Key>,
    purpose: Purpose,
}

/// A session that polls.
struct WithoutLog {
    /// The server that is polled.
    lineage: Lineage,
    /// Why the log cannot be read; none when it is not wanted.
    why: Option<Definite>,
    /// When the log is looked at again.
    next_look: Instant,
}

struct Session<'a> {
    driver: &'a mut Driver,
    /// Up to here the log was handed on.
    cursor: Cursor,
    acknowledge: Option<Arc<dyn Acknowledge>>,
    /// There while no log is followed.
    without_log: Option<WithoutLog>,
    windows: Windows,
    scan: Scan,
    repairs: Vec<Key>,
    read: Option<Read>,
    /// The order whose records are being read.
    syncing: Option<KeysOrder>,
    mappers: Vec<(Arc<TableSchema>, Arc<Mapper>)>,
    /// A scan is to begin.
    scan_due: bool,
    /// A plan that is to be applied.
    plan: Option<Planning>,
    /// Memory of mapped rows that are no longer needed.
    mapped: Pool<MappedRows>,
}

impl<'a> Session<'a> {
    fn new(
        driver: &'a mut Driver,
        cursor: Cursor,
        acknowledge: Option<Arc<dyn Acknowledge>>,
        repairs: Vec<Key>,
    ) -> Session<'a> {
        Session {
            driver,
            cursor,
            acknowledge,
            without_log: None,
            windows: Windows::default(),
            scan: Scan::default(),
            repairs,
            read: None,
            syncing: None,
            mappers: Vec::new(),
            scan_due: false,
            plan: None,
            mapped: Pool::default(),
        }
    }

    /// Leaves what is under way.
    fn abandon(&mut self) {
        self.driver.live.scan_ended();
        self.stop_reading();
    }

    /// Nothing that was read and not applied counts.
    fn stop_reading(&mut self) {
        if let Some(read) = self.read.take() {
            read.task.abort();
        }
        self.windows.clear();
        if let Some(order) = self.syncing.take() {
            self.driver.ordered.keys.push_front(order);
        }
    }

    async fn run(
        &mut self,
        mut stream: Option<&mut dyn ChangeStream>,
    ) -> Result<Infallible, Ended> {
        let schema = self.driver.source.schema().await?;
        self.bind(&schema).await?;
        self.scan_due |= self.driver.ordered.scan.is_some()
            || self.without_log.is_some() && !self.driver.polls.has_read_all();
        if !self.scan_due {
            self.settled().await?;
        }
        let mut hurry = tokio::time::interval(HURRY);
        hurry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.advance().await?;
            let waiting = !self.windows.is_empty();
            let (polls, looks) = self.pauses();
            tokio::select! {
                biased;
                () = self.driver.cancel.cancelled() => return Err(Ended::Cancelled),
                page = finished(&mut self.read) => self.page_came(page).await?,
                asked = self.driver.asked.recv() => match asked {
                    Some(Ask::Reread(keys)) => self.repairs.extend(keys),
                    Some(Ask::Scan) => self.scan_due = true,
                    None => return Err(Ended::EngineGone),
                },
                order = self.driver.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return Err(Ended::EngineGone),
                },
                item = next_of(&mut stream) => self.item(item?).await?,
                _ = hurry.tick(), if waiting => self.hurry(),
                () = pause(looks) => self.look_at_log().await?,
                () = pause(polls) => self.begin_poll(false).await?,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Reconcile { cause, began } => match self.scan.run() {
                Some(run) if !self.scan_due && self.without_log.is_none() => {
                    // Whoever asked may be gone.
                    let _ = began.map(|began| began.send(run));
                }
                under_way => {
                    // A poll may have passed what the order is about, and no log tells of it:
                    // another one begins behind it.
                    self.scan_due |= under_way.is_none();
                    self.driver.ordered.scan.get_or_insert(cause);
                    self.driver.ordered.began.extend(began);
                }
            },
            Order::Apply { plan, reply } => {
                let planning = Planning::new(plan, reply);
                if self.scan_due || self.scan.run().is_some() {
                    planning.refuse(RECONCILING);
                } else if self.plan.is_some() {
                    planning.refuse("Another plan is being applied. Fix: apply this one again");
                } else {
                    self.plan = Some(planning);
                }
            }
            Order::Keys(order) if self.driver.ordered.keys.len() < KEYS_ORDERS => {
                self.driver.ordered.keys.push_back(order);
            }
            Order::Keys(_) => {}
        }
    }

    async fn item(&mut self, item: StreamItem) -> Result<(), Ended> {
        let source = self.driver.id;
        match item {
            StreamItem::Batch(batch) => {
                self.windows.observe(&batch);
                self.cursor = batch.cursor().clone();
                let (mapped, mappers) = self.map(&batch).await?;
                self.driver
                    .live
                    .queued_bytes
                    .fetch_add(batch.size_bytes() as u64, Ordering::Relaxed);
                let emptied = batch
                    .changes()
                    .find(|c| c.op() == Op::Truncate)
                    .map(|c| c.tx().position().to_owned());
                self.driver
                    .engine
                    .send(Work::Changes(Changes {
                        source,
                        batch,
                        mapped,
                        mappers,
                    }))
                    .await?;
                if let Some(position) = emptied {
                    self.table_emptied(position).await?;
                }
            }
            StreamItem::Progress(cursor) => {
                self.cursor = cursor.clone();
                self.driver
                    .engine
                    .send(Work::Progress { source, cursor })
                    .await?;
            }
            StreamItem::SchemaChanged(schema) => {
                tracing::info!(source = self.driver.name, table = %schema.table, columns = schema.columns.len(), "the table's columns changed");
                self.mapper(&schema).await?;
            }
            StreamItem::Gap(gap) => self.gap(gap).await?,
        }
        Ok(())
    }

    async fn gap(&mut self, gap: Gap) -> Result<(), Ended> {
        tracing::warn!(
            source = self.driver.name,
            reason = gap.reason.as_str(),
            "gap: {}",
            gap.detail
        );
        self.driver
            .engine
            .send(Work::Gap {
                source: self.driver.id,
                gap,
            })
            .await?;
        self.scan_due = true;
        Ok(())
    }

    /// TRUNCATE is the absence of everybody at once. It is never believed from the log
    /// alone: a scan finds out who is there, and a person has the last word.
    async fn table_emptied(&mut self, position: String) -> Result<(), Ended> {
        let detail = "The table was truncated. It is read again; people who are gone from it stay until somebody has approved the plan.";
        self.gap(Gap {
            tables: Vec::new(),
            reason: GapReason::Truncated,
            from: Some(position.clone()),
            to: Some(position),
            detail: detail.to_owned(),
        })
        .await
    }

    /// A scan begins from the beginning of the table, or goes on after a crash. One that is
    /// under way when a gap opens starts again: what it read before proves nothing now.
    async fn begin_scan(&mut self) -> Result<(), Ended> {
        let source = self.driver.id;
        let usual = match self.without_log {
            Some(_) => Cause::Poll,
            None => Cause::Gap,
        };
        let cause = self.driver.ordered.scan.take().unwrap_or(usual);
        let place = self
            .driver
            .ask(|reply| Work::ScanBegin {
                source,
                cause,
                reply,
            })
            .await?;
        for began in self.driver.ordered.began.drain(..) {
            // Whoever asked may be gone.
            let _ = began.send(place.run);
        }
        if let Some(plan) = self.plan.take() {
            plan.refuse(RECONCILING);
        }
        self.stop_reading();
        self.driver.live.scan_began(&place);
        // Polls come and go; what people want to hear of is the first.
        if !self.driver.polls.has_read_all() {
            self.driver.state("scanning", String::new()).await?;
        }
        self.driver.estimate_rows();
        if place.is_load && !self.driver.match_attributes.is_empty() {
            self.find_duplicates().await?;
        }
        self.scan.begin(place);
        Ok(())
    }

    /// Nothing is under way: the log is followed, or the next poll waited for.
    async fn settled(&mut self) -> Result<(), Ended> {
        let Some(without) = &self.without_log else {
            return self.driver.state("streaming", String::new()).await;
        };
        let config = self.driver.polls.config();
        let why = match &without.why {
            Some(why) => format!("The log is not read: {why} "),
            None => String::new(),
        };
        let said = format!("{why}The table is polled every {}.", spelled(config.every));
        let mut warnings = Vec::new();
        let keyless = self.driver.live.keyless.load(Ordering::Relaxed);
        if keyless > 0 {
            let warning = "There are rows that have no value in a column of the key. Each may be anybody's, so nobody is taken for absent while there are any. Correct them, or leave them out of what is polled.";
            tracing::warn!(source = self.driver.name, keyless, "{warning}");
            warnings.push(warning.to_owned());
        }
        let unmarked = self.driver.live.unmarked.load(Ordering::Relaxed);
        if let Some(column) = config.change_column.as_ref().filter(|_| unmarked > 0) {
            let warning = format!(
                "{unmarked} rows have changed since the daemon started, and their column \"{column}\" has not: such changes are found only when every row is read, every {}. Have every change raise the column, or poll without it.",
                spelled(config.full_every)
            );
            tracing::warn!(source = self.driver.name, unmarked, "{warning}");
            warnings.push(warning);
        }
        self.driver.live.set_server(SourceStatus {
            warnings,
            ..SourceStatus::default()
        });
        self.driver.state("polling", said).await
    }

    fn hurry(&self) {
        if let Some(acknowledge) = &self.acknowledge {
            acknowledge.hurry();
        }
    }

    /// How long until the next poll, and until the log is looked at again; none while
    /// something is under way, or a log is followed.
    fn pauses(&self) -> (Option<Duration>, Option<Duration>) {
        let is_idle = self.scan.is_idle() && self.read.is_none() && self.windows.is_empty();
        match self.without_log.as_ref().filter(|_| is_idle) {
            None => (None, None),
            Some(without) => {
                let now = Instant::now();
                let look = without.next_look.saturating_duration_since(now);
                let polls = self.driver.polls.pause(now);
                (Some(polls), without.why.as_ref().map(|_| look))
            }
        }
    }

    /// Begins a poll: of every row when that is wanted or due.
    async fn begin_poll(&mut self, wants_full: bool) -> Result<(), Ended> {
        let source = Arc::clone(&self.driver.source);
        if let Some(without) = &self.without_log {
            source.identify(Some(&without.lineage)).await?;
        }
        let now = Instant::now();
        let mark = match &self.driver.polls.config().change_column {
            Some(column) => source.change_mark(column).await?,
            None => None,
        };
        match self.driver.polls.begin(now, mark, wants_full) {
            Poll::Full => self.begin_scan().await,
            Poll::Changed(since) => {
                self.scan.begin_changed(since);
                Ok(())
            }
        }
    }

    /// Whether the log can be read by now.
    async fn look_at_log(&mut self) -> Result<(), Ended> {
        let Some(without) = &mut self.without_log else {
            return Ok(());
        };
        let began = Instant::now();
        let resume = Some((Cursor::nowhere(""), without.lineage.clone()));
        let opened = tokio::select! {
            () = self.driver.cancel.cancelled() => return Err(Ended::Cancelled),
            opened = self.driver.source.open(resume) => opened,
        };
        // A look that takes long keeps the polls waiting only now and then.
        let pause = self.driver.retry_max.max(began.elapsed() * 4);
        without.next_look = Instant::now() + pause;
        match opened {
            Ok(opened) => Err(Ended::Followable(Box::new(opened))),
            Err(ConnectorError::Unfollowable(why)) => {
                if without.why.as_ref() != Some(&why) {
                    without.why = Some(why);
                    self.settled().await?;
                }
                Ok(())
            }
            Err(e) if e.is_transient() => {
                tracing::info!(source = self.driver.name, "the log was looked at: {e}");
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Applies pages whose windows are closed and starts the next read.
    async fn advance(&mut self) -> Result<(), Ended> {
        if std::mem::take(&mut self.scan_due) {
            match self.without_log.is_some() {
                true => self.begin_poll(true).await?,
                false => self.begin_scan().await?,
            }
        }
        while let Some(page) = self.windows.pop_closed(&self.cursor) {
            self.apply(page).await?;
        }
        if let Some(plan) = self.plan.take_if(|plan| plan.is_whole()) {
            let work = plan.work(self.driver.id);
            self.driver.engine.send(Work::Planned(work)).await?;
        }
        while self.read.is_none() {
            if !self.repairs.is_empty() {
                let at = self.repairs.len().saturating_sub(1000);
                let keys = self.repairs.split_off(at);
                self.read_keys(keys, Purpose::Repair);
                break;
            }
            if let Some((page, keys)) = self.plan.as_mut().and_then(Planning::to_read) {
                self.read_keys(keys, Purpose::Plan { page });
                break;
            }
            if self.begin_keys() {
                break;
            }
            let source = self.driver.id;
            match self.scan.what_next() {
                Next::Page => {
                    let request = self
                        .scan
                        .request(self.driver.page_rows, self.driver.page_bytes);
                    let connector = Arc::clone(&self.driver.source);
                    self.start_read(Vec::new(), Purpose::Scan { number: 0 }, async move {
                        connector.page(request).await
                    });
                }
                Next::Keys(keys) => self.read_keys(keys, Purpose::Absence),
                Next::AskMissing => {
                    let keys = self
                        .driver
                        .ask(|reply| Work::ScanMissing { source, reply })
                        .await?;
                    self.scan.missing(keys);
                }
                Next::End => {
                    self.driver
                        .ask(|reply| Work::ScanEnd { source, reply })
                        .await?;
                    self.scan.end();
                    self.driver.live.scan_ended();
                    self.driver.polls.end();
                    self.settled().await?;
                    if self.driver.ordered.scan.is_some() {
                        self.scan_due = true;
                        return Box::pin(self.advance()).await;
                    }
                }
                Next::EndPoll => {
                    self.driver.ask(|reply| Work::PollEnd { reply }).await?;
                    self.scan.end();
                    self.driver.polls.end();
                }
                Next::Wait | Next::Nothing => break,
            }
        }
        Ok(())
    }

    /// Begins to read the records that somebody wants, if there are any. One order is under way
    /// at a time.
    fn begin_keys(&mut self) -> bool {
        while self.syncing.is_none() {
            let Some(mut order) = self.driver.ordered.keys.pop_front() else {
                return false;
            };
            let columns = self.mappers.last().map_or(0, |(s, _)| s.key.len());
            order.keys.retain(|key| key.parts().count() == columns);
            if order.keys.is_empty() {
                let why = ConnectorError::definite(
                    "key_of_another_form",
                    format!(
                        "The key of the table has {columns} columns, and none of the keys has as many."
                    ),
                    "Give a key as `rollcall users show` spells it: its columns in order, with commas between.",
                );
                // Who asked may be gone.
                let _ = order.ended.send(Err(why));
                continue;
            }
            self.read_keys(order.keys.clone(), Purpose::Sync);
            self.syncing = Some(order);
            return true;
        }
        false
    }

    fn read_keys(&mut self, keys: Vec<Key>, purpose: Purpose) {
        let connector = Arc::clone(&self.driver.source);
        let asked = keys.clone();
        self.start_read(asked, purpose, async move { connector.reread(&keys).await });
    }

    fn start_read(
        &mut self,
        asked: Vec<Key>,
        purpose: Purpose,
        read: impl Future<Output = Result<Page, ConnectorError>> + Send + 'static,
    ) {
        let window = self.windows.open();
        self.read = Some(Read {
            task: tokio::spawn(read),
            window,
            asked,
            purpose,
        });
    }

    async fn page_came(&mut self, came: (Read, Result<Page, ConnectorError>)) -> Result<(), Ended> {
        let (read, page) = came;
        let placed = page.and_then(|page| match (&self.without_log, page.window.obstacle()) {
            (Some(_), _) => Ok(Page {
                window: Box::new(NoLog),
                ..page
            }),
            (None, Some(obstacle)) => Err(obstacle),
            (None, None) => Ok(page),
        });
        let page = match placed {
            Ok(page) => page,
            Err(e) => {
                self.windows.cancel(read.window);
                // A key that the table cannot have ends no session, and is not tried again.
                if read.purpose == Purpose::Sync
                    && let Some(order) = self.syncing.take()
                {
                    let is_transient = e.is_transient();
                    let _ = order.ended.send(Err(e.clone()));
                    if !is_transient {
                        return Ok(());
                    }
                }
                return Err(e.into());
            }
        };
        let purpose = match read.purpose {
            Purpose::Scan { .. } | Purpose::Changed => {
                let purpose = self.scan.page_came(page.last.as_ref());
                if purpose != Purpose::Changed {
                    let rows = page.rows.len() as u64;
                    self.driver
                        .live
                        .scan_rows
                        .fetch_add(rows, Ordering::Relaxed);
                }
                purpose
            }
            Purpose::Absence => {
                self.scan.keys_came();
                Purpose::Absence
            }
            by_key @ (Purpose::Repair | Purpose::Sync | Purpose::Plan { .. }) => by_key,
        };
        self.windows
            .hold(read.window, HeldPage::new(page, purpose, &read.asked));
        self.hurry();
        Ok(())
    }

    async fn apply(&mut self, page: HeldPage) -> Result<(), Ended> {
        let is_sync = page.purpose == Purpose::Sync;
        if !is_sync && !matches!(page.purpose, Purpose::Repair | Purpose::Plan { .. }) {
            self.scan.applied();
        }
        if page.purpose == Purpose::Changed && page.rows.is_empty() {
            return Ok(());
        }
        let (mapped, mappers) = self.map(&page.rows).await?;
        if let Purpose::Plan { page: number } = page.purpose {
            if let Some(plan) = &mut self.plan {
                plan.read(PlannedPage {
                    number,
                    page,
                    mapped,
                    mappers,
                });
            }
            return Ok(());
        }
        let source = self.driver.id;
        let page = PageWork {
            source,
            page,
            mapped,
            mappers,
        };
        let work = match self.syncing.take_if(|_| is_sync) {
            Some(KeysOrder { cause, ended, .. }) => Work::Keys { page, cause, ended },
            None => Work::Page(page),
        };
        self.driver.engine.send(work).await?;
        Ok(())
    }

    /// Maps every new row of a batch.
    async fn map(
        &mut self,
        batch: &Batch,
    ) -> Result<(Pooled<MappedRows>, Vec<Arc<Mapper>>), Ended> {
        let mut mappers = Vec::with_capacity(batch.tables().len());
        for schema in batch.tables() {
            mappers.push(self.mapper(schema).await?);
        }
        let run = || {
            let mut mapped = self.mapped.take();
            mapped.clear();
            for change in batch.changes() {
                if let Some(row) = change.after() {
                    mappers[change.table_index()].map(&row, None, &mut mapped);
                }
            }
            mapped
        };
        let mapped = if batch.len() > INLINE_ROWS {
            tokio::task::block_in_place(run)
        } else {
            run()
        };
        Ok((mapped, mappers))
    }

    async fn mapper(&mut self, schema: &Arc<TableSchema>) -> Result<Arc<Mapper>, Ended> {
        let known = |(s, _): &&(Arc<TableSchema>, _)| Arc::ptr_eq(s, schema) || s == schema;
        match self.mappers.iter().find(known) {
            Some((_, mapper)) => Ok(Arc::clone(mapper)),
            None => self.bind(schema).await,
        }
    }

    /// Binds the mapping to a schema. A scan is due when the mapping changed, or when the
    /// columns did in a way that the log does not bring to old rows.
    async fn bind(&mut self, schema: &Arc<TableSchema>) -> Result<Arc<Mapper>, Ended> {
        let source = self.driver.id;
        let schemas = self
            .driver
            .ask(|reply| Work::Schema {
                source,
                schema: Arc::clone(schema),
                reply,
            })
            .await?;
        let mapper = super::mapper::compile(
            &self.driver.mapping,
            &schemas.versions,
            &self.driver.attributes,
        )?;
        let mapper = Arc::new(mapper);
        let changed = self
            .driver
            .ask(|reply| Work::Mapper {
                source,
                mapper: Arc::clone(&mapper),
                reply,
            })
            .await?;
        self.mappers.push((Arc::clone(schema), Arc::clone(&mapper)));
        self.scan_due |= changed || schemas.scan_due;
        Ok(mapper)
    }

    /// Looks for rows of the table that share a match key, before a first load: of such rows
    /// nobody is written, on whichever pages they are. Only the columns that decide it are
    /// read. Rows that come to share one meanwhile are found by the directory itself.
    async fn find_duplicates(&mut self) -> Result<(), Ended> {
        let schema = self.driver.source.schema().await?;
        let mapper = self.mapper(&schema).await?;
        let attributes = self.driver.match_attributes.clone();
        let only = mapper.columns_of(&attributes);
        let (source, limit_bytes) = (Arc::clone(&self.driver.source), self.driver.page_bytes);
        // The next page is read while this one is looked at.
        let read = move |after: Option<Key>| {
            let (source, only) = (Arc::clone(&source), Some(only.clone()));
            tokio::spawn(async move {
                let request = PageRequest {
                    after,
                    limit_rows: DUPLICATES_ROWS,
                    limit_bytes,
                    only,
                    since: None,
                };
                source.page(request).await
            })
        };
        let mut hashes = Vec::new();
        let mut next = Some(AbortOnDropHandle::new(read(None)));
        while let Some(reading) = next.take() {
            let page = tokio::select! {
                () = self.driver.cancel.cancelled() => return Err(Ended::Cancelled),
                page = reading => page.map_err(|_| read_aborted())??,
            };
            next = page
                .last
                .map(|last| AbortOnDropHandle::new(read(Some(last))));
            tokio::task::block_in_place(|| {
                match_hashes(&page.rows, &mapper, &attributes, &mut hashes);
            });
            if hashes.len() > DUPLICATES_KEYS {
                tracing::warn!(
                    source = self.driver.name,
                    keys = hashes.len(),
                    "the table is too large to look for duplicates beforehand; they are found page by page"
                );
                return Ok(());
            }
        }
        hashes.sort_unstable();
        let repeated = hashes.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]);
        let keys: HashSet<MatchHash> = repeated.collect();
        if !keys.is_empty() {
            self.driver
                .engine
                .send(Work::Duplicates {
                    source: self.driver.id,
                    keys,
                })
                .await?;
        }
        Ok(())
    }
}

/// The next thing that the log brings; nothing for ever without one. Cancel safe.
async fn next_of(stream: &mut Option<&mut dyn ChangeStream>) -> Result<StreamItem, ConnectorError> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Waits, for ever when there is nothing to wait for.
async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// A duration as the configuration spells it.
fn spelled(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let ms = duration.as_millis();
    UNITS
        .iter()
        .find(|(unit, _)| ms.is_multiple_of(*unit))
        .map_or_else(
            || format!("{ms}ms"),
            |(unit, name)| format!("{}{name}", ms / unit),
        )
}

/// Appends the hashes of the match keys of every row that is in scope.
fn match_hashes(rows: &Batch, mapper: &Mapper, attributes: &[AttrId], hashes: &mut Vec<MatchHash>) {
    let (mut mapped, mut folded) = (MappedRows::default(), Vec::new());
    for row in rows.changes().filter_map(|change| change.after()) {
        mapped.clear();
        mapper.map(&row, Some(&[]), &mut mapped);
        let row = mapped.row(0);
        if row.outcome() != Outcome::Mapped {
            continue;
        }
        for field in row.fields().filter(|f| attributes.contains(&f.attribute)) {
            if let Assigned::Value(value) = field.assigned {
                folded.clear();
                fold(value, &mut folded);
                hashes.push(MatchHash::of(field.attribute, &folded));
            }
        }
    }
}

fn read_aborted() -> ConnectorError {
    ConnectorError::transient("read_aborted", "A page could not be read to its end.")
}

/// Rows that one page of the search for duplicates reads.
const DUPLICATES_ROWS: usize = 50_000;

/// The search for duplicates remembers at most so many match keys (8 bytes each).
const DUPLICATES_KEYS: usize = 32 << 20;

/// Why a plan gives way to a reconciliation.
const RECONCILING: &str = "The source is being reconciled. Nothing was applied. Fix: apply the plan again when `rollcall status` says that it has ended";

/// Waits for the read that is under way, for ever when there is none. Cancel safe: the read
/// stays in its place until it is finished.
async fn finished(read: &mut Option<Read>) -> (Read, Result<Page, ConnectorError>) {
    let page = match read {
        Some(read) => match (&mut read.task).await {
            Ok(page) => page,
            Err(_) => Err(read_aborted()),
        },
        None => std::future::pending().await,
    };
    match read.take() {
        Some(read) => (read, page),
        None => std::future::pending().await,
    }
}
