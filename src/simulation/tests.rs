//! Applying a simulation gives exactly what it said: random histories of a table, with people
//! who share an address, leave, come back, and change their key.
//!
//! A failing seed is printed; `ROLLCALL_SEED` runs it alone, `ROLLCALL_SEEDS` says how many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rollcall_contract::{
    BatchBuilder, Class, Column, ConnectorError, Cursor, DiscoveredTable, Key, Lineage, Op, Opened,
    Page, PageRequest, Report, Source, SourceStatus, TableName, TableNo, TableSchema, Tx, TxId,
    Window,
};
use rollcall_core::document::Document;
use rollcall_core::id::UserId;
use rollcall_store::{OpenOptions, Position, Readers, Store, UserFilter, UserRowView};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::still::Still;
use crate::config::{Config, ProcessEnvironment};
use crate::daemon;
use crate::sync::apply;
use crate::sync::planned::{Answered, Digest, Planned, digest, name_of_new};
use crate::sync::work::{Cause, Order, Work};

const CONFIG: &str = r#"
organization = "acme"
[store]
path = "/nowhere"
[source.hr]
type = "postgres"
host = "localhost"
database = "hr"
user = "rollcall"
table = "public.people"
scope = "kind != 'contractor'"
batch = { page_rows = 3 }
LIMIT
[source.hr.map]
email = "email"
displayName = "name"
title = "title"
active = { expr = "kind != 'left'" }
roles = { column = "roles", split = "," }
manager = "boss"
"#;

const COLUMNS: [&str; 7] = ["id", "email", "name", "title", "kind", "roles", "boss"];

type Row = [String; 6];
type Rows = BTreeMap<u64, Row>;

/// A table in memory.
#[derive(Default)]
struct Table(Mutex<Rows>);

impl Table {
    fn page(&self, rows: impl Iterator<Item = (u64, Row)>, last: bool) -> Page {
        let schema = schema();
        let mut builder = BatchBuilder::default();
        let table = builder.table(TableNo::MAIN, &schema);
        builder.tx(Tx {
            id: TxId::default(),
            position: b"0".iter().copied().collect(),
            commit_us: 1,
        });
        let mut key = None;
        for (ordinal, (id, row)) in rows.enumerate() {
            builder.begin(table, Op::Read, ordinal as u32);
            let id = id.to_string();
            builder.cell_bytes(id.as_bytes());
            for cell in &row {
                match cell.as_str() {
                    "" => builder.cell_null(),
                    text => builder.cell_bytes(text.as_bytes()),
                }
            }
            builder.finish(true, 1);
            let mut of = Key::new();
            of.push(id.as_bytes());
            key = Some(of);
        }
        Page {
            rows: builder.build(Cursor::new(b"0", "0")),
            last: key.filter(|_| !last),
            window: Box::new(Never),
        }
    }
}

fn schema() -> Arc<TableSchema> {
    Arc::new(TableSchema {
        table: TableName::new("public", "people"),
        columns: COLUMNS
            .iter()
            .map(|name| Column {
                name: (*name).to_owned(),
                class: Class::Text,
                type_name: "text".to_owned(),
                nullable: true,
            })
            .collect(),
        key: vec![0],
    })
}

fn number(key: &Key) -> u64 {
    key.display().parse().unwrap()
}

struct Never;

impl Window for Never {
    fn may_be_newer(&self, _: &TxId) -> bool {
        unreachable!("a source that stands still answers itself")
    }

    fn is_closed_by(&self, _: &Cursor) -> bool {
        unreachable!("a source that stands still answers itself")
    }
}

#[async_trait]
impl Source for Table {
    async fn check(&self) -> Report {
        Report::default()
    }

    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn schema(&self, _: TableNo) -> Result<Arc<TableSchema>, ConnectorError> {
        Ok(schema())
    }

    async fn open(&self, _: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError> {
        unreachable!("a source that stands still has no log")
    }

    async fn page(&self, _: TableNo, request: PageRequest) -> Result<Page, ConnectorError> {
        let after = request.after.as_ref().map_or(0, number);
        let rows = self.0.lock().unwrap().clone();
        let mut behind = rows.into_iter().filter(|(id, _)| *id > after);
        let some: Vec<_> = behind.by_ref().take(request.limit_rows).collect();
        let is_last = behind.next().is_none();
        Ok(self.page(some.into_iter(), is_last))
    }

    async fn reread(&self, _: TableNo, keys: &[Key]) -> Result<Page, ConnectorError> {
        let rows = self.0.lock().unwrap().clone();
        let some: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((number(key), rows.get(&number(key))?.clone())))
            .collect();
        Ok(self.page(some.into_iter(), true))
    }

    async fn identify(&self, _: Option<&Lineage>) -> Result<Lineage, ConnectorError> {
        Ok(Lineage(String::new()))
    }

    async fn change_mark(&self, _: &str) -> Result<Option<String>, ConnectorError> {
        Ok(None)
    }

    async fn status(&self) -> Result<SourceStatus, ConnectorError> {
        Ok(SourceStatus::default())
    }
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn row(&mut self) -> Row {
        let pick = |n: u64, of: &[&str]| of[n as usize % of.len()].to_owned();
        [
            format!("p{}@example.com", self.below(14)),
            format!("Name {}", self.below(4)),
            pick(self.below(3), &["Clerk", "Chief", ""]),
            pick(
                self.below(9),
                &["staff", "staff", "staff", "contractor", "left"],
            ),
            pick(self.below(3), &["a,b", "a", ""]),
            match self.below(24) {
                0 => String::new(),
                id => id.to_string(),
            },
        ]
    }

    fn change(&mut self, rows: &mut Rows) {
        for _ in 0..=self.below(6) {
            let id = 1 + self.below(16);
            match self.below(5) {
                0 => {
                    rows.remove(&id);
                }
                1 => {
                    // Another key for the same person.
                    if let Some(row) = rows.remove(&id) {
                        rows.insert(20 + self.below(8), row);
                    }
                }
                2 => {
                    if let Some(row) = rows.get_mut(&id) {
                        row[2] = format!("Title {}", self.below(3));
                    }
                }
                _ => {
                    let row = self.row();
                    rows.insert(id, row);
                }
            }
        }
    }
}

/// What a run left.
struct Left {
    /// Where its events begin.
    from: Position,
    /// Who was known before.
    known: HashSet<UserId>,
    after: Readers,
    answer: Option<Answered>,
}

/// Runs the driver and the engine over the store in a folder: a reconciliation whose plan is
/// approved, or a plan that is applied.
async fn drive(store: &Path, config: &Config, table: &Arc<Table>, plan: Option<Planned>) -> Left {
    let source = &config.sources[0];
    let (mut writer, readers) = Store::open(store, OpenOptions::new("acme")).unwrap();
    let from = readers.counts().unwrap().next_position;
    let users = readers.users(&UserFilter::default(), None, 1_000).unwrap();
    let id_of = |u: &UserRowView| Document::decode(&u.document).unwrap().id;
    let known = users.iter().map(id_of).collect();
    let prepared = daemon::prepare(config, &mut writer, readers.clone()).unwrap();
    let (still, _) = Still::new(Arc::clone(table) as _);
    let (engine_tx, engine_rx) = mpsc::channel(1);
    let (driver_tx, driver_rx) = mpsc::channel(1);
    let mut parts = prepared
        .source(config, source, Arc::new(still), &driver_tx)
        .unwrap();
    drop(driver_tx);
    let id = parts.id;
    let attributes = &prepared.attributes;
    let rules = apply::rules(config, &prepared.ids, attributes, prepared.mappers.clone());
    let mut shared = super::Known::default();
    let engine = prepared.engine_of(writer, id, parts.track, &engine_tx);
    let runtime = Handle::current();
    let engine = tokio::task::spawn_blocking(move || runtime.block_on(engine.run(engine_rx)));
    let (reply, told) = oneshot::channel();
    let is_plan = plan.is_some();
    let order = match plan {
        Some(plan) => Order::Apply { plan, reply },
        None => Order::Reconcile {
            cause: Cause::Manual,
            began: None,
        },
    };
    parts.orders.try_send(order).unwrap();
    let end = CancellationToken::new();
    parts.driver.cancel = end.clone();
    let driver = tokio::spawn(parts.driver.run());
    let mut answer = None;
    let mut driver_rx = driver_rx;
    let whole = async {
        let watched = super::watch(&mut driver_rx, &engine_tx, &rules, &mut shared).await;
        watched.unwrap();
        let approved = super::approve(id, &readers, &mut driver_rx, &engine_tx).await;
        approved.unwrap();
    };
    tokio::select! {
        () = whole => {}
        told = told, if is_plan => answer = told.ok(),
    }
    end.cancel();
    driver.abort();
    engine_tx.send(Work::Stop).await.unwrap();
    engine.await.unwrap().unwrap();
    Left {
        from,
        known,
        after: readers,
        answer,
    }
}

/// What the events of a run say.
fn said(left: &Left) -> BTreeMap<Digest, usize> {
    let mut all = BTreeMap::new();
    let mut from = left.from;
    let new = |user: UserId| {
        let is_new = !left.known.contains(&user);
        let user = left.after.user_by_id(user).unwrap().filter(|_| is_new)?;
        name_of_new(&Document::decode(&user.document).unwrap())
    };
    loop {
        let blocks = left.after.outbox_from(from, 1 << 20).unwrap();
        let Some(last) = blocks.last() else {
            return all;
        };
        from = last.last_position().next();
        for placed in blocks.iter().flat_map(|b| b.events()) {
            if let Some(digest) = digest(&placed.unwrap().event, new) {
                *all.entry(digest).or_default() += 1;
            }
        }
    }
}

fn foretold(plan: &Plan) -> BTreeMap<Digest, usize> {
    let mut all = BTreeMap::new();
    let records = plan.apply.records.iter().flat_map(|r| &r.events);
    for digest in records.chain(&plan.apply.other_events) {
        *all.entry(*digest).or_default() += 1;
    }
    all
}

/// Everybody, apart from ids, in any order.
fn people(readers: &Readers) -> Vec<String> {
    let users = readers.users(&UserFilter::default(), None, 1_000).unwrap();
    let key_of = |user: &UserRowView| {
        let document = Document::decode(&user.document).unwrap();
        (document.id.to_string(), document.links[0].key.to_vec())
    };
    let keys: BTreeMap<String, Vec<u8>> = users.iter().map(key_of).collect();
    // Ids of others are not the same ones in another store.
    let shown = |value: &[u8]| {
        let key = std::str::from_utf8(value).ok().and_then(|id| keys.get(id));
        key.cloned().unwrap_or(value.to_vec())
    };
    let mut people: Vec<String> = users
        .iter()
        .map(|user| {
            let document = Document::decode(&user.document).unwrap();
            let links = document.links.iter().map(|l| (l.key, l.state));
            let values = document
                .contributions
                .iter()
                .map(|c| (c.attribute, shown(c.value)));
            let (links, values): (Vec<_>, Vec<_>) = (links.collect(), values.collect());
            format!(
                "{} {:?} {links:?} {values:?}",
                document.version, document.state
            )
        })
        .collect();
    people.sort();
    people
}

fn copy(from: &Path, to: &Path) {
    let readers = Readers::open_readonly(from, "acme").unwrap();
    assert!(readers.copy_to(to, || true).unwrap());
}

async fn history(seed: u64) {
    let mut dice = Dice(seed);
    let limit = ["limit = { action = \"off\" }", "", "limit = { floor = 0 }"];
    let text = CONFIG.replace("LIMIT", limit[seed as usize % 3]);
    let config = Config::parse(Path::new("/nowhere.toml"), &text, &ProcessEnvironment).unwrap();
    let folder = super::folder::Folder::make().unwrap();
    let store = |name: &str| -> PathBuf { folder.path().join(name) };
    let table = Arc::new(Table::default());
    // An empty table makes the next round a first load.
    let rows = if seed % 4 == 3 { 0 } else { 10 };
    for id in 1..=rows {
        let row = dice.row();
        table.0.lock().unwrap().insert(id, row);
    }
    drive(&store("real"), &config, &table, None).await;
    for round in 0..3 {
        let changes = if rows + round == 0 { 5 } else { 1 };
        for _ in 0..changes {
            dice.change(&mut table.0.lock().unwrap());
        }
        let source = &config.sources[0];
        let connector = Arc::clone(&table) as Arc<dyn Source>;
        let stop = CancellationToken::new();
        let plan = super::simulate(&config, source, connector, &store("real"), stop).await;
        let plan = plan.map_err(|e| e.sentence).unwrap();
        let other = store(&format!("other {round}"));
        copy(&store("real"), &other);
        let real = drive(&store("real"), &config, &table, None).await;
        let at = format!("ROLLCALL_SEED={seed}, round {round}");
        assert_eq!(said(&real), foretold(&plan), "{at}: {:?}", plan.changes);
        let applied = drive(&other, &config, &table, Some(plan.apply.clone())).await;
        let answer = applied.answer.as_ref();
        let is_applied = matches!(answer, Some(Answered::Applied { .. }));
        assert!(is_applied, "{at}: {answer:?}, {:?}", plan.changes);
        assert_eq!(said(&applied), foretold(&plan), "{at}: {:?}", plan.changes);
        assert_eq!(people(&applied.after), people(&real.after), "{at}");
        let again = drive(&other, &config, &table, Some(plan.apply)).await;
        assert_eq!(said(&again), BTreeMap::new(), "{at}");
    }
}

#[test]
fn applying_a_simulation_gives_exactly_what_it_said() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seeds = match number("ROLLCALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ROLLCALL_SEEDS").unwrap_or(40),
    };
    let runtime = crate::cli::runtime().map_err(|e| e.sentence).unwrap();
    for seed in seeds {
        runtime.block_on(history(seed));
    }
}
