//! A database server of the simulation: a table, its log, and all that can go wrong on the way
//! to it.
//!
//! The log is a row of changes; a cursor counts how many of them are taken in. The server keeps
//! what is not acknowledged and nothing else, as a replication slot does, so a store that has
//! forgotten what it acknowledged is found out when it comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rollcall_contract::{
    Acknowledge, BatchBuilder, ChangeStream, Class, Column, ConnectorError, Cursor,
    DiscoveredTable, Gap, GapReason, Key, Lineage, OTHER_SERVER, Op, Opened, Page, PageRequest,
    Report, Small, Source, SourceStatus, StreamItem, TableName, TableNo, TableSchema, Tx, TxId,
    Window,
};
use tokio::sync::Notify;

use crate::broken::Broken;
use crate::dice::Dice;

pub(crate) const COLUMNS: [(&str, Class); 8] = [
    ("id", Class::Int),
    ("email", Class::Text),
    ("name", Class::Text),
    ("title", Class::Text),
    ("kind", Class::Text),
    ("roles", Class::Text),
    ("level", Class::Text),
    ("note", Class::Text),
];

pub(crate) const EMAIL: usize = 1;
pub(crate) const NAME: usize = 2;
pub(crate) const TITLE: usize = 3;
pub(crate) const KIND: usize = 4;
pub(crate) const ROLES: usize = 5;
pub(crate) const LEVEL: usize = 6;
pub(crate) const NOTE: usize = 7;

/// The cells of a row; the first one is the key's number.
pub(crate) type Row = Vec<Option<String>>;

/// The table: rows by key.
pub(crate) type Rows = BTreeMap<u64, Row>;

/// What one change did.
#[derive(Clone, Debug)]
pub(crate) enum Did {
    Insert(u64, Row),
    /// The key before, the key after, the row after.
    Update(u64, u64, Row),
    Delete(u64),
    Truncate,
    /// Something that concerns other tables.
    Elsewhere,
}

#[derive(Clone)]
struct Entry {
    did: Did,
    /// The row before, where there was one.
    before: Option<Row>,
    tx: u64,
    ordinal: u32,
    commit_us: i64,
}

/// A server. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Server {
    name: &'static str,
    state: Arc<Mutex<State>>,
    more: Arc<Notify>,
    broken: Broken,
}

struct State {
    schema: Arc<TableSchema>,
    rows: Rows,
    /// Everything that ever happened.
    log: Vec<Entry>,
    /// The log is kept from here on.
    kept: u64,
    acknowledged: u64,
    txs: u64,
    dice: Dice,
    /// Connections that began before the last cut are gone.
    connections: u64,
    is_down: bool,
    may_read_log: bool,
    /// So many of the next reads fail.
    failing_reads: u64,
    /// Lost acknowledgements and log, by intent.
    lost_log: bool,
}

impl Server {
    pub(crate) fn new(name: &'static str, seed: u64, broken: &Broken) -> Server {
        let columns = COLUMNS.iter().map(|(name, class)| Column {
            name: (*name).to_owned(),
            class: *class,
            type_name: "text".to_owned(),
            nullable: true,
        });
        let schema = TableSchema {
            table: TableName::new("public", "people"),
            columns: columns.collect(),
            key: vec![0],
        };
        Server {
            name,
            state: Arc::new(Mutex::new(State {
                schema: Arc::new(schema),
                rows: Rows::new(),
                log: Vec::new(),
                kept: 0,
                acknowledged: 0,
                txs: 0,
                dice: Dice::new(seed),
                connections: 0,
                is_down: false,
                may_read_log: true,
                failing_reads: 0,
                lost_log: false,
            })),
            more: Arc::new(Notify::new()),
            broken: broken.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A transaction.
    pub(crate) fn commit(&self, commit_us: i64, dids: Vec<Did>) {
        let mut state = self.state();
        state.txs += 1;
        let tx = state.txs;
        for (ordinal, did) in dids.into_iter().enumerate() {
            let before = apply(&mut state.rows, &did);
            state.log.push(Entry {
                did,
                before,
                tx,
                ordinal: ordinal as u32,
                commit_us,
            });
        }
        drop(state);
        self.more.notify_waiters();
    }

    pub(crate) fn rows(&self) -> Rows {
        self.state().rows.clone()
    }

    /// The table as it was when so many changes had been made.
    pub(crate) fn rows_at(&self, cursor: u64) -> Rows {
        let mut rows = Rows::new();
        for entry in &self.state().log[..cursor as usize] {
            apply(&mut rows, &entry.did);
        }
        rows
    }

    pub(crate) fn head(&self) -> u64 {
        self.state().log.len() as u64
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Whether the server gave up its log since this was asked last.
    pub(crate) fn cut(&self) {
        self.state().connections += 1;
        self.more.notify_waiters();
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
        if is_down {
            self.cut();
        }
    }

    pub(crate) fn may_read_log(&self, may: bool) {
        self.state().may_read_log = may;
        if !may {
            self.cut();
        }
    }

    pub(crate) fn fail_reads(&self, n: u64) {
        self.state().failing_reads = n;
    }

    /// The server gives its log up, whoever waits for it.
    pub(crate) fn lose_log(&self) {
        let mut state = self.state();
        state.kept = state.log.len() as u64;
        state.lost_log = true;
        drop(state);
        self.cut();
    }

    /// Everything works again.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.may_read_log = true;
        state.failing_reads = 0;
    }

    async fn travel(&self) {
        let us = match self.state().dice.below(8) {
            0 => 20_000,
            n => n * 150,
        };
        tokio::time::sleep(Duration::from_micros(us)).await;
    }

    fn reachable(&self) -> Result<(), ConnectorError> {
        let mut state = self.state();
        if state.is_down {
            return Err(lost());
        }
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(lost());
        }
        Ok(())
    }

    /// Rows as one page, as of now.
    fn page_of(&self, ids: Vec<u64>, is_last: bool, only: Option<&[usize]>) -> Page {
        let state = self.state();
        let mut builder = BatchBuilder::default();
        let table = builder.table(TableNo::MAIN, &state.schema);
        builder.tx(Tx {
            id: TxId::default(),
            position: state.log.len().to_string().bytes().collect(),
            commit_us: state.log.last().map_or(0, |e| e.commit_us),
        });
        let mut last = None;
        for (ordinal, id) in ids.into_iter().enumerate() {
            let Some(row) = state.rows.get(&id) else {
                continue;
            };
            builder.begin(table, Op::Read, ordinal as u32);
            for (at, cell) in row.iter().enumerate() {
                match cell {
                    _ if at > 0 && only.is_some_and(|only| !only.contains(&at)) => {
                        builder.cell_missing();
                    }
                    Some(text) => builder.cell_bytes(text.as_bytes()),
                    None => builder.cell_null(),
                }
            }
            builder.finish(true, 64);
            last = Some(key_of(id));
        }
        Page {
            rows: builder.build(cursor(state.log.len() as u64)),
            last: last.filter(|_| !is_last),
            window: Box::new(Seen {
                log: state.log.len() as u64,
                tx: state.txs,
            }),
        }
    }
}

/// Changes the table; gives the row that was there before.
fn apply(rows: &mut Rows, did: &Did) -> Option<Row> {
    match did {
        Did::Insert(id, row) => rows.insert(*id, row.clone()),
        Did::Update(from, to, row) => {
            let before = rows.remove(from);
            rows.insert(*to, row.clone());
            before
        }
        Did::Delete(id) => rows.remove(id),
        Did::Truncate => {
            rows.clear();
            None
        }
        Did::Elsewhere => None,
    }
}

pub(crate) fn key_of(id: u64) -> Key {
    let mut key = Key::new();
    key.push(id.to_string().as_bytes());
    key
}

fn number(key: &Key) -> u64 {
    key.display().parse().unwrap_or(0)
}

fn cursor(at: u64) -> Cursor {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&at.to_be_bytes());
    Cursor::new(&bytes, &at.to_string())
}

/// How many changes a cursor has behind it; none for one that names no place.
pub(crate) fn place_of(cursor: &Cursor) -> Option<u64> {
    let bytes = cursor.as_bytes().get(1..)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn lost() -> ConnectorError {
    ConnectorError::transient("connection_lost", "The connection was lost.")
}

/// What a page has seen.
struct Seen {
    log: u64,
    tx: u64,
}

impl Window for Seen {
    fn may_be_newer(&self, tx: &TxId) -> bool {
        let bytes: Option<[u8; 8]> = tx.0.as_slice().try_into().ok();
        bytes.is_none_or(|bytes| u64::from_be_bytes(bytes) > self.tx)
    }

    fn is_closed_by(&self, cursor: &Cursor) -> bool {
        place_of(cursor).is_some_and(|at| at >= self.log)
    }
}

struct Acknowledged(Server);

impl Acknowledge for Acknowledged {
    fn acknowledge(&self, cursor: &Cursor) {
        let mut state = self.0.state();
        let at = place_of(cursor).unwrap_or(0);
        if at > state.log.len() as u64 {
            self.0.broken.say(format!(
                "{} was told of a place {at} that is not",
                self.0.name
            ));
        }
        state.acknowledged = state.acknowledged.max(at);
        state.kept = state.kept.max(at);
    }

    fn hurry(&self) {
        self.0.more.notify_waiters();
    }

    fn keep_small(&self, _: Option<Small>) {
        // Its batches are always small.
    }
}

struct Log {
    server: Server,
    at: u64,
    /// The position that was told last.
    told: u64,
    connection: u64,
}

#[async_trait]
impl ChangeStream for Log {
    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        loop {
            let more = Arc::clone(&self.server.more);
            let more = more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if let Some(item) = self.read()? {
                return Ok(item);
            }
            more.await;
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Log {
    fn read(&mut self) -> Result<Option<StreamItem>, ConnectorError> {
        let mut state = self.server.state();
        let state = &mut *state;
        if state.is_down || state.connections != self.connection {
            return Err(lost());
        }
        let head = state.log.len() as u64;
        if self.at == head {
            let is_news = self.told < head;
            self.told = head;
            return Ok(is_news.then(|| StreamItem::Progress(cursor(head))));
        }
        let most = 1 + state.dice.below(12);
        let mut builder = BatchBuilder::default();
        let table = builder.table(TableNo::MAIN, &state.schema);
        let mut tx = None;
        while self.at < head && (builder.len() as u64) < most {
            let entry = &state.log[self.at as usize];
            if tx != Some(entry.tx) {
                tx = Some(entry.tx);
                builder.tx(Tx {
                    id: TxId(entry.tx.to_be_bytes().iter().copied().collect()),
                    position: entry.tx.to_string().bytes().collect(),
                    commit_us: entry.commit_us,
                });
            }
            write(&mut builder, table, entry, &mut state.dice);
            self.at += 1;
        }
        if builder.is_empty() {
            self.told = self.at;
            return Ok(Some(StreamItem::Progress(cursor(self.at))));
        }
        self.told = self.at;
        Ok(Some(StreamItem::Batch(builder.build(cursor(self.at)))))
    }
}

/// Writes a change as a log has it: with more or less of the row before, and without values that
/// it did not touch.
fn write(builder: &mut BatchBuilder, table: u16, entry: &Entry, dice: &mut Dice) {
    let cells = |builder: &mut BatchBuilder, row: &Row, unchanged: Option<&Row>| {
        for (at, cell) in row.iter().enumerate() {
            match cell {
                Some(_) if at == NOTE && unchanged.is_some_and(|b| b[at] == *cell) => {
                    builder.cell_unchanged();
                }
                Some(text) => builder.cell_bytes(text.as_bytes()),
                None => builder.cell_null(),
            }
        }
    };
    let old = |builder: &mut BatchBuilder, row: &Row, is_full: bool| {
        for (at, cell) in row.iter().enumerate() {
            match cell {
                _ if at > 0 && !is_full => builder.cell_missing(),
                Some(text) => builder.cell_bytes(text.as_bytes()),
                None => builder.cell_null(),
            }
        }
        match is_full {
            true => builder.before_is_full(),
            false => builder.before_is_key(),
        }
    };
    match &entry.did {
        Did::Insert(_, row) => {
            builder.begin(table, Op::Insert, entry.ordinal);
            cells(builder, row, None);
            builder.finish(true, 64);
        }
        Did::Update(from, to, row) => {
            builder.begin(table, Op::Update, entry.ordinal);
            if let Some(before) = &entry.before
                && (from != to || dice.one_in(2))
            {
                old(builder, before, dice.one_in(2));
            }
            let unchanged = entry.before.as_ref().filter(|_| dice.one_in(2));
            cells(builder, row, unchanged);
            builder.finish(true, 64);
        }
        Did::Delete(_) => {
            let Some(before) = &entry.before else { return };
            builder.begin(table, Op::Delete, entry.ordinal);
            old(builder, before, dice.one_in(2));
            builder.finish(false, 64);
        }
        Did::Truncate => {
            builder.begin(table, Op::Truncate, entry.ordinal);
            builder.finish(false, 64);
        }
        Did::Elsewhere => {}
    }
}

const LINEAGE: &str = "simulated";

#[async_trait]
impl Source for Server {
    async fn check(&self) -> Report {
        Report::default()
    }

    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn schema(&self, _: TableNo) -> Result<Arc<TableSchema>, ConnectorError> {
        self.travel().await;
        self.reachable()?;
        Ok(Arc::clone(&self.state().schema))
    }

    async fn open(&self, resume: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError> {
        self.travel().await;
        self.reachable()?;
        let mut state = self.state();
        if !state.may_read_log {
            return Err(ConnectorError::definite(
                "no_right",
                "The role may not read the log.",
                "Let it.",
            )
            .of_the_log());
        }
        let head = state.log.len() as u64;
        let gap = |reason, from: Option<u64>| Gap {
            tables: Vec::new(),
            reason,
            from: from.map(|at| at.to_string()),
            to: Some(head.to_string()),
            detail: "The log does not reach back so far.".to_owned(),
        };
        let (start, gaps) = match resume.map(|(cursor, _)| place_of(&cursor)) {
            None if state.acknowledged > 0 => {
                self.broken
                    .say(format!("{}: the store has forgotten its cursor", self.name));
                (head, vec![gap(GapReason::InitialLoad, None)])
            }
            None => (head, vec![gap(GapReason::InitialLoad, None)]),
            Some(None) => (head, vec![gap(GapReason::NotFollowed, None)]),
            Some(Some(at)) if at < state.kept => {
                if at < state.acknowledged {
                    self.broken.say(format!(
                        "{}: {} was acknowledged, and the store stands at {at}",
                        self.name, state.acknowledged
                    ));
                }
                if !state.lost_log {
                    self.broken
                        .say(format!("{}: a gap without a reason", self.name));
                }
                (head, vec![gap(GapReason::PositionLost, Some(at))])
            }
            Some(Some(at)) if at > head => {
                self.broken
                    .say(format!("{}: the cursor {at} is not in the log", self.name));
                return Err(lost());
            }
            Some(Some(at)) => (at, Vec::new()),
        };
        state.kept = state.kept.max(start);
        let stream = Log {
            server: self.clone(),
            at: start,
            told: start,
            connection: state.connections,
        };
        Ok(Opened {
            start: cursor(start),
            lineage: Lineage(LINEAGE.to_owned()),
            gaps,
            stream: Box::new(stream),
            acknowledge: Arc::new(Acknowledged(self.clone())),
        })
    }

    async fn page(&self, _: TableNo, request: PageRequest) -> Result<Page, ConnectorError> {
        self.travel().await;
        self.reachable()?;
        let page = {
            let after = request.after.as_ref().map_or(0, number);
            let rows = self.rows();
            let mut behind = rows.range(after + 1..).map(|(id, _)| *id);
            let some: Vec<u64> = behind.by_ref().take(request.limit_rows.max(1)).collect();
            self.page_of(some, behind.next().is_none(), request.only.as_deref())
        };
        self.travel().await;
        self.reachable()?;
        Ok(page)
    }

    async fn reread(&self, _: TableNo, keys: &[Key]) -> Result<Page, ConnectorError> {
        self.travel().await;
        self.reachable()?;
        let mut ids: Vec<u64> = keys.iter().map(number).collect();
        ids.sort_unstable();
        ids.dedup();
        let page = self.page_of(ids, true, None);
        self.travel().await;
        self.reachable()?;
        Ok(page)
    }

    async fn identify(&self, known: Option<&Lineage>) -> Result<Lineage, ConnectorError> {
        self.travel().await;
        self.reachable()?;
        let ours = Lineage(LINEAGE.to_owned());
        match known {
            Some(known) if *known != ours => Err(ConnectorError::definite(
                OTHER_SERVER,
                "Another server.",
                "Name the right one.",
            )),
            _ => Ok(ours),
        }
    }

    async fn change_mark(&self, _: &str) -> Result<Option<String>, ConnectorError> {
        Ok(None)
    }

    async fn status(&self) -> Result<SourceStatus, ConnectorError> {
        Ok(SourceStatus::default())
    }
}
