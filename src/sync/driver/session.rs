//! One session of a driver: what the log brings, which pages are read, and when each is
//! handed over. See [`super`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall_contract::{
    Acknowledge, ChangeStream, Class, ConnectorError, Cursor, Definite, Gap, GapReason, Key,
    Lineage, Op, Page, Pool, StreamItem, TableName, TableNo, TableSchema,
};
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::Join;
use rollcall_store::RelatedWrites;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mapping::on_worker;
use super::{Driver, Ended, HURRY};
use crate::sync::clock::now_us;
use crate::sync::joined::Tables;
use crate::sync::planning::Planning;
use crate::sync::polls::Poll;
use crate::sync::related::Unjoined;
use crate::sync::scan::{Next, Scan};
use crate::sync::track::Ask;
use crate::sync::window::{HeldPage, NoLog, Opened as OpenWindow, Purpose, Windows};
use crate::sync::work::{Cause, Changes, KeysOrder, Missing, Order, Turn, Work};

/// Rows of a page while the log brings changes: they wait for a page to be applied, so that
/// is to take few milliseconds.
const BUSY_ROWS: usize = 2_000;

/// The same beside other sources.
const BESIDE_ROWS: usize = 250;

/// Batches of so many changes are a flood's. Beside other sources they wait while the store is
/// flushed …
const FLOOD: usize = 12;

/// … looking again so often …
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// … and no longer than this each.
const HELD_BACK: Duration = Duration::from_millis(100);

/// A read that is under way.
struct Read {
    task: JoinHandle<Result<Page, ConnectorError>>,
    table: TableNo,
    window: OpenWindow,
    asked: Vec<Key>,
    purpose: Purpose,
}

/// A session that polls.
pub(super) struct WithoutLog {
    /// The server that is polled.
    pub(super) lineage: Lineage,
    /// Why the log cannot be read; none when it is not wanted.
    pub(super) why: Option<Definite>,
    /// When the log is looked at again.
    pub(super) next_look: Instant,
}

pub(super) struct Session<'a> {
    pub(super) driver: &'a mut Driver,
    /// Up to here the log was handed on.
    cursor: Cursor,
    acknowledge: Option<Arc<dyn Acknowledge>>,
    /// There while no log is followed.
    pub(super) without_log: Option<WithoutLog>,
    windows: Windows,
    pub(super) scan: Scan,
    read: Option<Read>,
    /// The engine looks for what no page of the scan had.
    searching: Option<oneshot::Receiver<Missing>>,
    /// Whether the log has brought something since the last page was asked for.
    is_log_busy: bool,
    /// Whether the scan's rows are mapped here; else they are taken to be as they are stored.
    pub(super) maps_scan: bool,
    /// The order whose records are being read.
    pub(super) syncing: Option<KeysOrder>,
    pub(super) mappers: Vec<(Arc<TableSchema>, Arc<Mapper>)>,
    /// The tables' columns, as far as the log has come.
    pub(super) tables: Option<Tables>,
    /// How rows of the main table are joined and mapped; none where nothing is joined.
    pub(super) joining: Option<(Arc<Join>, Arc<Mapper>)>,
    /// A scan is to begin.
    pub(super) scan_due: bool,
    /// A plan that is to be applied.
    pub(super) plan: Option<Planning>,
    /// Memory of mapped rows that are no longer needed.
    pub(super) mapped: Pool<MappedRows>,
    /// See [`Turn`].
    turn: Arc<Semaphore>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        driver: &'a mut Driver,
        cursor: Cursor,
        acknowledge: Option<Arc<dyn Acknowledge>>,
    ) -> Session<'a> {
        Session {
            driver,
            cursor,
            acknowledge,
            without_log: None,
            windows: Windows::default(),
            scan: Scan::default(),
            read: None,
            searching: None,
            is_log_busy: false,
            maps_scan: true,
            syncing: None,
            mappers: Vec::new(),
            tables: None,
            joining: None,
            scan_due: false,
            plan: None,
            mapped: Pool::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Leaves what is under way.
    pub(super) fn abandon(&mut self) {
        self.driver.live.scan_ended();
        self.stop_reading();
    }

    /// Nothing that was read and not applied counts. What the engine has asked for is read
    /// later.
    fn stop_reading(&mut self) {
        let repairs = &mut self.driver.ordered.repairs;
        if let Some(read) = self.read.take() {
            read.task.abort();
            if read.purpose == Purpose::Repair {
                repairs.extend(read.asked);
            }
        }
        self.searching = None;
        let held = self.windows.clear().into_iter();
        let asked = held.filter(|page| page.purpose == Purpose::Repair);
        repairs.extend(asked.flat_map(|page| page.asked));
        if let Some(order) = self.syncing.take() {
            self.driver.ordered.keys.push_front(order);
        }
    }

    pub(super) async fn run(
        &mut self,
        mut stream: Option<&mut dyn ChangeStream>,
    ) -> Result<Infallible, Ended> {
        let tables = Tables::of(&*self.driver.source, &self.driver.mapping).await?;
        self.bind_tables(tables).await?;
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
                missing = answered(&mut self.searching) => self.scan.missing(missing?),
                asked = self.driver.asked.recv() => match asked {
                    Some(Ask::Reread(keys)) => self.driver.ordered.repairs.extend(keys),
                    Some(Ask::Scan) => self.scan_due = true,
                    None => return Err(Ended::EngineGone),
                },
                order = self.driver.orders.recv() => match order {
                    Some(order) => self.obey(order).await?,
                    None => return Err(Ended::EngineGone),
                },
                item = next_of(&mut stream) => self.item(item?).await?,
                _ = hurry.tick(), if waiting => self.hurry(),
                () = pause(looks) => self.look_at_log().await?,
                () = pause(polls) => self.begin_poll(false).await?,
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Ended> {
        match order {
            Order::Reconcile { cause, began } => match self.scan.run() {
                Some(run) if !self.scan_due && self.without_log.is_none() => {
                    // Whoever asked may be gone.
                    let _ = began.map(|began| began.send(run));
                    let source = self.driver.id;
                    self.driver.engine.send(Work::Obeyed { source }).await?;
                }
                under_way => {
                    // A poll may have passed what the order is about, and no log tells of it:
                    // another one begins behind it.
                    self.scan_due |= under_way.is_none();
                    self.driver.ordered.keep(Order::Reconcile { cause, began });
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
            Order::Keys(_) => self.driver.ordered.keep(order),
        }
        Ok(())
    }

    async fn item(&mut self, item: StreamItem) -> Result<(), Ended> {
        let source = self.driver.id;
        match item {
            StreamItem::Batch(batch) => {
                self.is_log_busy = true;
                self.windows.observe(&batch);
                self.cursor = batch.cursor().clone();
                let (changes, queued_bytes) = (batch.len(), batch.size_bytes() as u64);
                self.driver
                    .live
                    .queued_bytes
                    .fetch_add(queued_bytes, Ordering::Relaxed);
                let emptied = batch
                    .changes()
                    .find(|c| c.op() == Op::Truncate)
                    .map(|c| (c.table().table.clone(), c.tx().position().to_owned()));
                // The gap is stored before the cursor passes the truncation: whoever dies between
                // the two finds both once more.
                if let Some((table, position)) = emptied {
                    self.table_emptied(table, position).await?;
                }
                let work = match self.joining.is_some() {
                    true => Work::Unjoined(Unjoined {
                        source,
                        tables: self.uses_of(&batch).await?,
                        batch,
                        turn: self.turn(changes).await,
                    }),
                    false => {
                        let mappers = self.mappers_of(&batch).await?;
                        let mapped = on_worker(&batch, || self.map(&batch, &mappers));
                        Work::Changes(Changes {
                            source,
                            batch,
                            mapped,
                            mappers,
                            related: RelatedWrites::default(),
                            related_rows: 0,
                            reread: Vec::new(),
                            queued_bytes,
                            turn: self.turn(changes).await,
                        })
                    }
                };
                self.driver.engine.send(work).await?;
            }
            StreamItem::Progress(cursor) => {
                self.cursor = cursor.clone();
                self.driver
                    .engine
                    .send(Work::Progress { source, cursor })
                    .await?;
            }
            StreamItem::SchemaChanged(table, schema) => {
                tracing::info!(source = self.driver.name, table = %schema.table, columns = schema.columns.len(), "the table's columns changed");
                match self.joining.is_some() {
                    true => drop(self.table_changed(table, &schema).await?),
                    false => drop(self.mapper(&schema).await?),
                }
            }
            StreamItem::Gap(gap) => self.gap(gap).await?,
        }
        Ok(())
    }

    fn is_beside_others(&self) -> bool {
        self.driver.live.beside_others.load(Ordering::Relaxed)
    }

    /// Waits for this source's turn to hand over so many changes, if there are others.
    fn turn(&self, changes: usize) -> impl Future<Output = Turn> + use<> {
        let turn = self.is_beside_others().then(|| Arc::clone(&self.turn));
        let flushing = self.driver.flushing.clone();
        async move {
            let turn = turn?;
            let until = Instant::now() + HELD_BACK;
            while changes >= FLOOD && flushing.is_under_way() && Instant::now() < until {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // It is never closed.
            turn.acquire_owned().await.ok()
        }
    }

    pub(super) async fn gap(&mut self, gap: Gap) -> Result<(), Ended> {
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
    async fn table_emptied(&mut self, table: TableName, position: String) -> Result<(), Ended> {
        let detail = "The table was truncated. It is read again; people who are gone from it, or would lose something, stay as they are until somebody has approved the plan.";
        self.gap(Gap {
            tables: vec![table],
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
        let ordered = self.driver.ordered.scan.take();
        let (cause, obeys) = (ordered.unwrap_or(usual), ordered.is_some());
        let place = self
            .driver
            .ask(|reply| Work::ScanBegin {
                source,
                cause,
                obeys,
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
        // What is new, or is mapped in another way, is never as it is stored.
        self.maps_scan = place.is_load || place.cause == Cause::MappingChanged.as_str();
        if place.is_load && !self.driver.match_attributes.is_empty() {
            self.find_duplicates().await?;
        }
        self.scan.begin(place, self.driver.mapping.related.len());
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
        self.driver.live.set_notices(warnings);
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
                let related = self.driver.mapping.related.len();
                self.scan.begin_changed(since, related);
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
            biased;
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
            let repairs = &mut self.driver.ordered.repairs;
            if !repairs.is_empty() {
                let keys = repairs.split_off(repairs.len().saturating_sub(1000));
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
                    let is_log_busy = std::mem::take(&mut self.is_log_busy);
                    let at_most = match is_log_busy {
                        _ if self.is_beside_others() => BESIDE_ROWS,
                        true => BUSY_ROWS,
                        false => usize::MAX,
                    };
                    let rows = self.driver.page_rows.min(at_most);
                    let request = self.scan.request(rows, self.driver.page_bytes);
                    let connector = Arc::clone(&self.driver.source);
                    let (table, purpose) = (self.scan.table(), Purpose::Scan { number: 0 });
                    self.start_read(table, Vec::new(), purpose, async move {
                        connector.page(table, request).await
                    });
                }
                Next::Keys(keys) => {
                    self.read_keys_of(self.scan.table(), keys, Purpose::Absence);
                }
                Next::AskMissing => {
                    let (reply, answer) = oneshot::channel();
                    let work = match self.scan.table() {
                        TableNo::MAIN => Work::ScanMissing { source, reply },
                        table => Work::RelatedMissing {
                            source,
                            table,
                            reply,
                        },
                    };
                    self.driver.engine.send(work).await?;
                    self.searching = Some(answer);
                }
                Next::EndTable => {
                    let table = self.scan.table();
                    self.driver
                        .ask(|reply| Work::RelatedEnd {
                            source,
                            table,
                            reply,
                        })
                        .await?;
                    self.scan.next_table();
                }
                Next::End => {
                    self.driver
                        .ask(|reply| Work::ScanEnd { source, reply })
                        .await?;
                    self.scan.end();
                    self.driver.live.scan_ended();
                    self.driver.polls.end();
                    if let Some(began) = self.driver.polls.whole_began() {
                        let ago = i64::try_from(began.elapsed().as_micros()).unwrap_or(0);
                        self.driver
                            .live
                            .whole_poll_us
                            .store(now_us() - ago, Ordering::Relaxed);
                    }
                    self.settled().await?;
                    self.scan_due |= self.driver.ordered.scan.is_some();
                    if self.scan_due {
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
            let Some((schema, _)) = self.mappers.last() else {
                self.driver.ordered.keys.push_front(order);
                return false;
            };
            for may_be in &mut order.keys {
                may_be.retain(|key| may_be_key(schema, key));
            }
            if order.keys.iter().any(Vec::is_empty) {
                let columns = schema.key.len();
                let why = ConnectorError::definite(
                    "key_of_another_form",
                    format!(
                        "The key of the table has {columns} columns, and what was given cannot be one."
                    ),
                    "Give a key as `rollcall users show` spells it: its columns in order, with commas between, or a JSON array of them.",
                );
                // Who asked may be gone.
                let _ = order.ended.send(Err(why));
                continue;
            }
            self.read_keys(order.keys.concat(), Purpose::Sync);
            self.syncing = Some(order);
            return true;
        }
        false
    }

    fn read_keys(&mut self, keys: Vec<Key>, purpose: Purpose) {
        self.read_keys_of(TableNo::MAIN, keys, purpose);
    }

    fn read_keys_of(&mut self, table: TableNo, keys: Vec<Key>, purpose: Purpose) {
        let connector = Arc::clone(&self.driver.source);
        let asked = keys.clone();
        self.start_read(table, asked, purpose, async move {
            connector.reread(table, &keys).await
        });
    }

    fn start_read(
        &mut self,
        table: TableNo,
        asked: Vec<Key>,
        purpose: Purpose,
        read: impl Future<Output = Result<Page, ConnectorError>> + Send + 'static,
    ) {
        let window = self.windows.open();
        self.read = Some(Read {
            task: tokio::spawn(read),
            table,
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
                if purpose != Purpose::Changed && read.table == TableNo::MAIN {
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
        self.windows.hold(
            read.window,
            HeldPage::new(page, read.table, purpose, read.asked),
        );
        self.hurry();
        Ok(())
    }
}

/// Whether a key may be one of a table: as many parts as columns, and numbers where those are.
/// One that was given up can be asked for, and is absent.
fn may_be_key(schema: &TableSchema, key: &Key) -> bool {
    let classes = schema.key.iter().map(|&at| schema.columns[at].class);
    let fits = |class: Class, part: &[u8]| {
        let text = std::str::from_utf8(part);
        match class {
            Class::Int => text.is_ok_and(|text| text.parse::<i128>().is_ok()),
            Class::Uuid => text.is_ok_and(|text| text.parse::<uuid::Uuid>().is_ok()),
            _ => true,
        }
    };
    key.is_given_up()
        || key.parts().count() == schema.key.len()
            && classes
                .zip(key.parts())
                .all(|(class, part)| fits(class, part))
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

pub(super) fn read_aborted() -> ConnectorError {
    ConnectorError::transient("read_aborted", "A page could not be read to its end.")
}

/// Why a plan gives way to a reconciliation.
const RECONCILING: &str = "The source is being reconciled. Nothing was applied. Fix: apply the plan again when `rollcall status` says that it has ended";

/// Waits for an answer of the engine, for ever when nothing was asked. Cancel safe.
async fn answered<T>(asked: &mut Option<oneshot::Receiver<T>>) -> Result<T, Ended> {
    let answer = match asked {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    };
    *asked = None;
    Ok(answer?)
}

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
