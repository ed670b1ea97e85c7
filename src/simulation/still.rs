//! A source that stands still: its table can be read, its log says nothing.
//!
//! The log continues at what the store holds and brings nothing, so the driver does what it
//! does behind an idle log. Every page is newer than the copied store, which ended before it
//! was read: its window is closed at once, and nothing stored is newer than it. Nothing is
//! asked of the server but its columns and rows: no slot, no reader of a binary log, nothing
//! acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rollcall_contract::{
    Acknowledge, ChangeStream, ConnectorError, Cursor, DiscoveredTable, Gap, GapReason, Key,
    Lineage, Opened, Page, PageRequest, Report, Small, Source, SourceStatus, StreamItem, TableNo,
    TableSchema, TxId, Window,
};
use xxhash_rust::xxh3::xxh3_64;

/// See the module.
pub struct Still {
    inner: Arc<dyn Source>,
    seen: Arc<Mutex<Seen>>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Seen {
    /// Where the source stood when its last page was read.
    pub position: String,
    /// Rows of all pages.
    pub rows: u64,
    pages: u32,
    /// By hash of their key, where records stand: page, and place on it.
    places: HashMap<u64, (u32, u32)>,
}

impl Seen {
    /// On which page a record was read, and where on it; none when it was on no page.
    pub fn place(&self, key: &[u8]) -> Option<(u32, u32)> {
        self.places.get(&xxh3_64(key)).copied()
    }

    fn take_in(&mut self, page: &Page) {
        page.rows.cursor().text().clone_into(&mut self.position);
        for (at, change) in page.rows.changes().enumerate() {
            let key = change
                .after()
                .and_then(|row| Key::of_row(change.table(), &row));
            if let Some(key) = key {
                self.rows += 1;
                self.places
                    .insert(xxh3_64(key.as_bytes()), (self.pages, at as u32));
            }
        }
        self.pages += 1;
    }
}

impl Still {
    /// Stands in for a source. What was read is told apart.
    pub fn new(inner: Arc<dyn Source>) -> (Still, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let still = Still {
            inner,
            seen: Arc::clone(&seen),
        };
        (still, seen)
    }
}

fn closed(page: Page) -> Page {
    Page {
        window: Box::new(Closed),
        ..page
    }
}

#[async_trait]
impl Source for Still {
    async fn check(&self) -> Report {
        self.inner.check().await
    }

    async fn discover(&self) -> Result<Vec<DiscoveredTable>, ConnectorError> {
        self.inner.discover().await
    }

    async fn schema(&self, table: TableNo) -> Result<Arc<TableSchema>, ConnectorError> {
        self.inner.schema(table).await
    }

    async fn open(&self, resume: Option<(Cursor, Lineage)>) -> Result<Opened, ConnectorError> {
        let gaps = match resume {
            Some(_) => Vec::new(),
            None => vec![Gap {
                tables: Vec::new(),
                reason: GapReason::InitialLoad,
                from: None,
                to: None,
                detail: "The source was never read.".to_owned(),
            }],
        };
        let (start, lineage) =
            resume.unwrap_or_else(|| (Cursor::new(&[], ""), Lineage(String::new())));
        Ok(Opened {
            start,
            lineage,
            gaps,
            stream: Box::new(Silent),
            acknowledge: Arc::new(Silent),
        })
    }

    async fn page(&self, table: TableNo, request: PageRequest) -> Result<Page, ConnectorError> {
        // Looking for duplicates reads some columns only; the scan reads all of them again.
        let is_scan = request.only.is_none() && table == TableNo::MAIN;
        let page = closed(self.inner.page(table, request).await?);
        if is_scan {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.take_in(&page);
        }
        Ok(page)
    }

    async fn reread(&self, table: TableNo, keys: &[Key]) -> Result<Page, ConnectorError> {
        Ok(closed(self.inner.reread(table, keys).await?))
    }

    async fn identify(&self, known: Option<&Lineage>) -> Result<Lineage, ConnectorError> {
        self.inner.identify(known).await
    }

    async fn change_mark(&self, column: &str) -> Result<Option<String>, ConnectorError> {
        self.inner.change_mark(column).await
    }

    async fn status(&self) -> Result<SourceStatus, ConnectorError> {
        Ok(SourceStatus::default())
    }
}

/// A log that says nothing and is told nothing.
struct Silent;

#[async_trait]
impl ChangeStream for Silent {
    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        std::future::pending().await
    }

    async fn close(self: Box<Self>) {}
}

impl Acknowledge for Silent {
    fn acknowledge(&self, _: &Cursor) {}

    fn hurry(&self) {}

    fn keep_small(&self, _: Option<Small>) {}
}

struct Closed;

impl Window for Closed {
    fn may_be_newer(&self, _: &TxId) -> bool {
        false
    }

    fn is_closed_by(&self, _: &Cursor) -> bool {
        true
    }
}
