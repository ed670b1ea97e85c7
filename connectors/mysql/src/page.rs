//! Pages of a scan, each in a short transaction of its own.
//!
//! A page must be exactly what one snapshot holds, and the window must bound that snapshot
//! from both sides. Hence the order of statements:
//!
//! 1. The table's definition, which names the columns and the key.
//! 2. MySQL: the executed GTIDs, the window's lower bound.
//! 3. `START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY`. The snapshot is taken here.
//!    MariaDB says the place of the log that it was taken at.
//! 4. The rows, in the order of the key's index. When the definition has changed since the
//!    snapshot, the server refuses (1412) or the result's columns are of another class than
//!    the definition's; either way the page is asked for again.
//! 5. MySQL: the executed GTIDs again, the upper bound.
//!
//! Where the log is off, or may not be asked where it stands, the rows are as good; the page
//! then has no place in the log and says so.
//!
//! A page is bounded twice: by rows, estimated from the width of the rows read so far, and
//! by bytes while it arrives. Rows behind the bound are not kept. Text comes in the
//! character set of its column, so that the same code turns it into UTF-8 as the log's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rollcall_binlog::table_map::TypeCode;
use rollcall_binlog::types::{Reading, ResultColumn, ResultField, ResultRows};
use rollcall_contract::{
    Batch, BatchBuilder, ConnectorError, Cursor, FollowedTable, KEYLESS_ROWS, Key, Op, Page,
    PageRequest, RowWidth, Since, TableNo, Tx, TxId, check_key_count, check_keys_differ,
};
use smallvec::SmallVec;

use crate::check;
use crate::config::MySqlConfig;
use crate::errors::protocol_violation;
use crate::keyset::{Wanted, Which, select};
use crate::position::{Gtids, Place, Point, Position};
use crate::schema::{self, Table};
use crate::server::{self, LogMode, Server};
use crate::source::no_such_table;
use crate::types;
use crate::values;
use crate::window::PageWindow;
use crate::wire::{Client, ColumnDef};

/// How old a place has to be to be a lower bound without GTIDs.
const SETTLED: Duration = Duration::from_secs(60);

/// What is kept from page to page.
pub(crate) struct Pages {
    /// For each followed table.
    widths: Vec<RowWidth>,
    settled: Mutex<Settled>,
}

/// Places of some time ago.
#[derive(Default)]
struct Settled {
    /// At least [`SETTLED`] ago.
    old: Option<Place>,
    /// On its way to that.
    young: Option<(Place, Instant)>,
}

impl Settled {
    /// The youngest place that is old enough, given the present one.
    fn look(&mut self, now: &Place) -> Option<Place> {
        match &self.young {
            Some((place, at)) if at.elapsed() >= SETTLED => {
                self.old = Some(place.clone());
                self.young = Some((now.clone(), Instant::now()));
            }
            Some(_) => {}
            None => self.young = Some((now.clone(), Instant::now())),
        }
        self.old.clone()
    }
}

/// A session that reads pages.
pub(crate) struct Session {
    client: Client,
    server: Server,
}

impl Session {
    pub(crate) async fn connect(config: &MySqlConfig) -> Result<Session, ConnectorError> {
        let mut client = Client::connect(config).await?;
        let server = Server::read(&mut client).await?;
        server.expect(config)?;
        client.run("SET character_set_results = NULL").await?;
        client.run(server::SNAPSHOTS).await?;
        Ok(Session { client, server })
    }

    pub(crate) fn is_usable(&mut self) -> bool {
        self.client.is_usable()
    }
}

/// Which rows and columns to read.
struct Asked<'a> {
    which: Which<'a>,
    limit_rows: usize,
    limit_bytes: usize,
    only: Option<&'a [usize]>,
    since: Option<&'a Since>,
}

impl Asked<'_> {
    /// So many rows without a key are to be in it, if there are any: some in the first page of
    /// a reading of everything, and one wherever the absence of a record may be concluded.
    fn keyless_rows(&self) -> Option<usize> {
        match self.which {
            Which::After(None) if self.only.is_none() && self.since.is_none() => Some(KEYLESS_ROWS),
            Which::Keys(_) => Some(1),
            Which::After(_) | Which::Keyless => None,
        }
    }
}

struct Read {
    asked_rows: usize,
    rows: usize,
    batch: Batch,
    window: PageWindow,
    bytes: usize,
    cut: bool,
    last: Option<Key>,
}

impl Pages {
    /// For the tables that the configuration names.
    pub(crate) fn new(config: &MySqlConfig) -> Pages {
        Pages {
            widths: config.tables().map(|_| RowWidth::default()).collect(),
            settled: Mutex::default(),
        }
    }

    /// Reads one page of one of the configuration's tables.
    pub(crate) async fn page(
        &self,
        session: &mut Session,
        config: &MySqlConfig,
        table: &FollowedTable<'_>,
        request: &PageRequest,
    ) -> Result<Page, ConnectorError> {
        let width = &self.widths[table.no.index()];
        let rows = width.rows(request);
        let asked = Asked {
            which: Which::After(request.after.as_ref()),
            limit_rows: rows,
            limit_bytes: request.limit_bytes,
            only: request.only.as_deref(),
            since: request.since.as_ref(),
        };
        let read = self.read(session, config, table, &asked).await?;
        width.learn(request, read.rows, read.bytes);
        let is_last = read.rows < read.asked_rows && !read.cut;
        Ok(Page {
            last: if is_last { None } else { read.last },
            rows: read.batch,
            window: Box::new(read.window),
        })
    }

    /// Reads records by key.
    pub(crate) async fn reread(
        &self,
        session: &mut Session,
        config: &MySqlConfig,
        table: &FollowedTable<'_>,
        keys: &[Key],
    ) -> Result<Page, ConnectorError> {
        check_key_count(keys.len())?;
        let asked = Asked {
            which: Which::Keys(keys),
            limit_rows: keys.len().max(1),
            limit_bytes: usize::MAX,
            only: None,
            since: None,
        };
        let read = self.read(session, config, table, &asked).await?;
        Ok(Page {
            rows: read.batch,
            last: None,
            window: Box::new(read.window),
        })
    }

    async fn read(
        &self,
        session: &mut Session,
        config: &MySqlConfig,
        table: &FollowedTable<'_>,
        asked: &Asked<'_>,
    ) -> Result<Read, ConnectorError> {
        let client = &mut session.client;
        let definition = schema::load(client, table)
            .await?
            .ok_or_else(|| no_such_table(table))?;
        if let Some(obstacle) = check::obstacle_of_key(&definition) {
            return Err(obstacle.into());
        }
        let rows = Rows::new(table.no, &definition, config, asked);
        let read = self.transaction(client, &session.server, &definition, rows, asked);
        let read = read.await;
        // Ends the snapshot also after a refusal; a broken session is not kept anyway.
        if !client.is_broken() {
            client.run("ROLLBACK").await?;
        }
        read
    }

    async fn transaction(
        &self,
        client: &mut Client,
        server: &Server,
        definition: &Table,
        mut rows: Rows<'_>,
        asked: &Asked<'_>,
    ) -> Result<Read, ConnectorError> {
        let low = self.low_mark(client, server).await;
        client.run(server::SNAPSHOT).await?;
        let low = match low {
            Ok(None) => server::snapshot_place(client, server).await.map(Low::Exact),
            Ok(Some(low)) => Ok(low),
            Err(e) => Err(e),
        };
        if let Some(at_most) = asked.keyless_rows().filter(|_| !definition.key_is_unique()) {
            let which = Which::Keyless;
            let sql = select(definition, &which, None, at_most, &rows.wanted)?;
            client
                .select(&sql, &mut |columns, payload| rows.take(columns, payload))
                .await?;
            // What has no key takes no room from what has.
            (rows.bytes, rows.cut, rows.before) = (0, false, rows.builder.len());
        }
        let sql = select(
            definition,
            &asked.which,
            asked.since,
            rows.limit_rows,
            &rows.wanted,
        )?;
        client
            .select(&sql, &mut |columns, payload| rows.take(columns, payload))
            .await?;
        let placed = match low {
            Ok(low) => self.window(client, server, definition, low).await,
            Err(e) => Err(e),
        };
        let window = match placed {
            Ok(window) => window,
            Err(e) if e.is_transient() => return Err(e),
            Err(obstacle) => PageWindow::Unplaced {
                obstacle,
                at: server::clock(client).await?,
            },
        };
        rows.finish(window)
    }

    /// What the page will have seen for certain; none where the snapshot itself says it.
    async fn low_mark(
        &self,
        client: &mut Client,
        server: &Server,
    ) -> Result<Option<Low>, ConnectorError> {
        Ok(match server.log_mode() {
            LogMode::MariaDbGtid => None,
            LogMode::MySqlGtid => Some(Low::Gtids(server::executed(client, server).await?)),
            LogMode::Place => {
                let now = server::head(client, server).await?.place;
                let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
                Some(Low::Settled(settled.look(&now)))
            }
        })
    }

    /// The window of a page whose rows have been read.
    async fn window(
        &self,
        client: &mut Client,
        server: &Server,
        definition: &Table,
        low: Low,
    ) -> Result<PageWindow, ConnectorError> {
        Ok(match low {
            Low::Gtids(low) => {
                let high = server::executed(client, server).await?;
                let (Gtids::MySql(low), Gtids::MySql(high)) = (low, high) else {
                    return Err(protocol_violation(
                        "gtid_mode changed while a page was read",
                    ));
                };
                PageWindow::Gtids { low, high }
            }
            Low::Exact(place) => PageWindow::Places {
                // Rows of other engines are read as they are, whatever the snapshot says.
                high: if definition.is_transactional() {
                    place.clone()
                } else {
                    server::head(client, server).await?.place
                },
                low: Some(place),
                sees_other_servers: true,
            },
            Low::Settled(low) => PageWindow::Places {
                low,
                high: server::head(client, server).await?.place,
                sees_other_servers: false,
            },
        })
    }
}

/// What a page has seen for certain.
enum Low {
    /// These transactions.
    Gtids(Gtids),
    /// The log up to here, and nothing more.
    Exact(Place),
    /// The log up to here at least; none when nothing is certain.
    Settled(Option<Place>),
}

/// The rows of a page while they arrive.
struct Rows<'a> {
    definition: &'a Table,
    wanted: Wanted,
    builder: BatchBuilder,
    table: u16,
    reader: Option<ResultRows>,
    reading: Reading,
    limit_rows: usize,
    limit_bytes: usize,
    /// So many rows are taken at the least.
    least: usize,
    /// So many rows have no key and stand before the others.
    before: usize,
    bytes: usize,
    cut: bool,
}

impl<'a> Rows<'a> {
    fn new(
        no: TableNo,
        definition: &'a Table,
        config: &MySqlConfig,
        asked: &Asked<'_>,
    ) -> Rows<'a> {
        let mut builder = BatchBuilder::default();
        let table = builder.table(no, &definition.schema);
        let now_us = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as i64);
        builder.tx(Tx {
            id: TxId::default(),
            position: SmallVec::new(),
            commit_us: now_us,
        });
        // A page without a unique key begins with a row that is known.
        let least = if definition.key_is_unique() { 1 } else { 2 };
        Rows {
            limit_rows: asked.limit_rows.max(least),
            least,
            wanted: Wanted::new(asked.only, &definition.schema),
            definition,
            builder,
            table,
            reader: None,
            reading: values::reading(config.zero_dates),
            limit_bytes: asked.limit_bytes,
            before: 0,
            bytes: 0,
            cut: false,
        }
    }

    /// The forms of the result's columns, which must be what the definition says.
    fn describe(&mut self, columns: &[ColumnDef]) -> Result<ResultRows, ConnectorError> {
        let definition = self.definition;
        let wanted = (0..definition.columns.len()).filter(|&i| self.wanted.has(i));
        let mut forms = Vec::with_capacity(columns.len());
        for (i, column) in wanted.zip(columns) {
            let field = ResultField {
                code: TypeCode(column.kind),
                flags: column.flags,
                collation: column.charset,
                decimals: column.decimals,
                length: column.length,
            };
            let facts = types::facts(&definition.columns[i]);
            let described = &definition.schema.columns[i];
            let form = ResultColumn::new(&field, &facts)
                .map_err(|why| values::unreadable_column(&described.name, why))?;
            if form.column_type().class() != described.class {
                return Err(ConnectorError::transient(
                    "table_changed",
                    format!(
                        "The column \"{}\" changed its type while the table was read.",
                        described.name
                    ),
                ));
            }
            forms.push(form);
        }
        let width = definition.columns.len();
        Ok(match forms.len() == width {
            true => ResultRows::new(forms),
            false => ResultRows::narrow(forms, (0..width).map(|i| self.wanted.has(i)).collect()),
        })
    }

    fn take(&mut self, columns: &[ColumnDef], payload: &[u8]) -> Result<(), ConnectorError> {
        if self.cut {
            return Ok(());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.describe(columns)?,
        };
        let ordinal = u32::try_from(self.builder.len()).unwrap_or(u32::MAX);
        let data = self.builder.data();
        let start = data.len();
        data.extend_from_slice(payload);
        let end = data.len();
        self.builder.begin(self.table, Op::Read, ordinal);
        let schema = &self.definition.schema;
        let wanted = &self.wanted;
        reader
            .read(&mut self.builder, start..end, &mut self.reading)
            .map_err(|(column, error)| {
                let column = column.and_then(|i| {
                    let mut columns = schema.columns.iter().enumerate();
                    columns.by_ref().filter(|(at, _)| wanted.has(*at)).nth(i)
                });
                values::unreadable_value(column.map(|(_, c)| c.name.as_str()), &error)
            })?;
        self.builder.finish(true, payload.len());
        self.bytes += payload.len();
        self.cut = self.bytes >= self.limit_bytes && self.builder.len() >= self.before + self.least;
        self.reader = Some(reader);
        Ok(())
    }

    fn finish(self, window: PageWindow) -> Result<Read, ConnectorError> {
        // What a page's batch calls its position is where the log was when it was read.
        let at = |gtids, place| Position::at(Point { gtids, place }).encode();
        let cursor = match &window {
            PageWindow::Gtids { high, .. } => at(Gtids::MySql(high.clone()), None),
            PageWindow::Places { high, .. } => at(Gtids::None, Some(high.clone())),
            PageWindow::Unplaced { at, .. } => Cursor::nowhere(at),
        };
        let batch = self.builder.build(cursor);
        if !self.definition.key_is_unique() {
            check_keys_differ(&batch)?;
        }
        let schema = &self.definition.schema;
        let last = match batch.len() {
            0 => None,
            n => batch
                .change(n - 1)
                .after()
                .and_then(|row| Key::of_row(schema, &row)),
        };
        Ok(Read {
            asked_rows: self.limit_rows,
            rows: batch.len() - self.before,
            batch,
            window,
            bytes: self.bytes,
            cut: self.cut,
            last,
        })
    }
}
