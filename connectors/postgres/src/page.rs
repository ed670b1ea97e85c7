//! Pages of a scan, each in a short transaction of its own.
//!
//! A page must be exactly what one snapshot holds, since the window argues with that
//! snapshot. Hence the order of statements:
//!
//! 1. `BEGIN` with `REPEATABLE READ`, `READ ONLY`; nothing has a snapshot yet.
//! 2. `LOCK TABLE … ACCESS SHARE`: the lock that a `SELECT` takes anyway, but taken before
//!    the snapshot. A rewriting `ALTER TABLE` that committed between snapshot and lock would
//!    make the table look empty to the snapshot, and an empty page means leavers. Foreign
//!    tables and materialized views cannot be locked so; neither becomes empty in this way.
//! 3. The snapshot, the insert position behind it, and a fingerprint of the catalog rows that
//!    make up the table's definition. The definition is read only when the fingerprint is
//!    another one than that of the page before.
//! 4. The rows, by `COPY`, in the order of the key's index and by its own operators: the
//!    row after the last key of the page before is the first one of this page, for any type
//!    and collation. `row_security = off` turns a policy that would hide rows into an error.
//!
//! A page is bounded twice: by rows, estimated from the width of the rows read so far, and
//! by bytes while it arrives. Rows behind the bound are not kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use rollcall_contract::{
    BatchBuilder, Buffers, ConnectorError, FollowedTable, KEYLESS_ROWS, Key, Op, Page, PageRequest,
    Pool, RelationKind, RowWidth, Since, TableNo, Tx, TxId, check_key_count, check_keys_differ,
};
use smallvec::SmallVec;
use tokio_postgres::{Client, IsolationLevel, Statement, Transaction};

use crate::check;
use crate::config::{NO_ENCODING, PostgresConfig};
use crate::copy_text::{self, Field};
use crate::keyset::{Wanted, Which, select};
use crate::lsn::Lsn;
use crate::position::PgCursor;
use crate::query::{self, failed};
use crate::schema::{self, Table};
use crate::snapshot::{LogLayout, PageWindow, Snapshot};
use crate::source::no_such_table;
use crate::type_map::TypeMap;
use crate::wire;

/// So much room at most a page is given before it is read.
const ROOM_BYTES: usize = 16 << 20;

/// What is kept from page to page of one table.
#[derive(Default)]
pub(crate) struct Pages {
    width: RowWidth,
    /// Memory of pages that are no longer needed, while one is read after the other.
    buffers: Mutex<Pool<Buffers>>,
    /// The definition that was read last, with the fingerprint that it had.
    known: Mutex<Option<(String, Arc<Table>)>>,
}

/// Which table is read, and how.
pub(crate) struct Reading<'a> {
    pub(crate) table: FollowedTable<'a>,
    pub(crate) config: &'a PostgresConfig,
    pub(crate) types: &'a TypeMap,
}

/// A connection that reads pages.
pub(crate) struct Session {
    client: Client,
    server: Server,
    open_window: Statement,
    /// The window of the page before, of whichever table.
    last_window: Option<PageWindow>,
    /// Whether the relation of a table that was read is of a kind that can be locked.
    lockable: BTreeMap<TableNo, bool>,
}

impl Session {
    pub(crate) async fn connect(config: &PostgresConfig) -> Result<Session, ConnectorError> {
        let client = wire::connect_queries(config).await?;
        let server = Server::read(&client).await?;
        client
            .batch_execute(&format!(
                "SELECT pg_catalog.set_config('client_encoding', '{NO_ENCODING}', false) \
                 WHERE pg_catalog.current_setting('server_encoding') = '{NO_ENCODING}'"
            ))
            .await
            .map_err(|e| failed(&e, "choosing the session's encoding"))?;
        let open_window = client
            .prepare(OPEN_WINDOW)
            .await
            .map_err(|e| failed(&e, "preparing to read pages"))?;
        Ok(Session {
            client,
            server,
            open_window,
            last_window: None,
            lockable: BTreeMap::new(),
        })
    }

    /// Whether a table can be locked. Asked once: a relation of another kind under its name
    /// is noticed when it matters.
    async fn is_lockable(&mut self, table: &FollowedTable<'_>) -> Result<bool, ConnectorError> {
        if let Some(&known) = self.lockable.get(&table.no) {
            return Ok(known);
        }
        let relation = self
            .client
            .query_opt(
                "SELECT c.relkind IN ('m', 'f') FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2",
                &[&table.table.schema, &table.table.name],
            )
            .await
            .map_err(|e| failed(&e, "preparing to read pages"))?;
        let lockable = !relation.is_some_and(|row| row.get(0));
        self.lockable.insert(table.no, lockable);
        Ok(lockable)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// One statement, so one snapshot: what is seen, how far the log was when it was seen, and
/// the versions of the catalog rows behind the definition. In a statement the functions
/// are called after the snapshot was taken.
const OPEN_WINDOW: &str = "\
    SELECT pg_catalog.pg_current_snapshot()::text, \
           (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
             ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text, \
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8, \
           (SELECT pg_catalog.concat_ws('|', c.oid, c.xmin, \
              (SELECT pg_catalog.string_agg(pg_catalog.concat(a.attnum, ':', a.xmin), ',' \
                 ORDER BY a.attnum) \
               FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), \
              (SELECT pg_catalog.string_agg(pg_catalog.concat(i.indexrelid, ':', i.xmin), ',' \
                 ORDER BY i.indexrelid) \
               FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), \
              (SELECT pg_catalog.string_agg(pg_catalog.concat(p.oid, ':', p.xmin, ':', pr.xmin), ',') \
               FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel pr \
                 ON pr.prpubid = p.oid AND pr.prrelid = c.oid \
               WHERE p.pubname = $3)) \
            FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname = $1 AND c.relname = $2)";

/// What identifies the server in the cursor of a page.
#[derive(Clone, Copy)]
struct Server {
    system_id: u64,
    timeline: u32,
    layout: LogLayout,
}

impl Server {
    /// Reads it; these do not change while a connection lives.
    async fn read(client: &Client) -> Result<Server, ConnectorError> {
        let row = client
            .query_one(
                "SELECT s.system_identifier, c.timeline_id, \
                        pg_catalog.current_setting('wal_block_size')::int8, \
                        pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) \
                 FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c",
                &[],
            )
            .await
            .map_err(|e| failed(&e, "reading the layout of the log"))?;
        Ok(Server {
            system_id: row.get::<_, i64>(0) as u64,
            timeline: row.get::<_, i32>(1) as u32,
            layout: LogLayout {
                page_size: row.get::<_, i64>(2) as u64,
                segment_size: row.get::<_, i64>(3) as u64,
            },
        })
    }
}

impl Pages {
    /// Reads one page.
    pub(crate) async fn page(
        &self,
        session: &mut Session,
        reading: &Reading<'_>,
        request: &PageRequest,
    ) -> Result<Page, ConnectorError> {
        let rows = self.width.rows(request);
        let asked = Asked {
            table: reading.table.no,
            which: Which::After(request.after.as_ref()),
            limit_rows: rows,
            limit_bytes: request.limit_bytes,
            only: request.only.as_deref(),
            since: request.since.as_ref(),
        };
        let read = self.read(session, reading, &asked).await?;
        self.width.learn(request, read.rows, read.bytes);
        let is_last = read.rows < read.asked_rows && !read.cut;
        let last = if is_last { None } else { read.last };
        if is_last {
            *self.buffers() = Pool::default();
        }
        Ok(Page {
            rows: read.batch,
            last,
            window: Box::new(read.window),
        })
    }

    /// Reads records by key.
    pub(crate) async fn reread(
        &self,
        session: &mut Session,
        reading: &Reading<'_>,
        keys: &[Key],
    ) -> Result<Page, ConnectorError> {
        check_key_count(keys.len())?;
        let asked = Asked {
            table: reading.table.no,
            which: Which::Keys(keys),
            limit_rows: keys.len(),
            limit_bytes: usize::MAX,
            only: None,
            since: None,
        };
        let read = self.read(session, reading, &asked).await?;
        Ok(Page {
            rows: read.batch,
            last: None,
            window: Box::new(read.window),
        })
    }

    fn buffers(&self) -> MutexGuard<'_, Pool<Buffers>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(
        &self,
        session: &mut Session,
        reading: &Reading<'_>,
        asked: &Asked<'_>,
    ) -> Result<Read, ConnectorError> {
        const DOING: &str = "reading a page of the table";
        let Reading { table, config, .. } = reading;
        let server = session.server;
        let lockable = session.is_lockable(table).await?;
        let transaction = session
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(|e| failed(&e, DOING))?;
        let timeout_ms = config.query_timeout.as_millis();
        let lock = match lockable {
            true => format!(
                "LOCK TABLE {} IN ACCESS SHARE MODE",
                query::table(table.table)
            ),
            false => String::new(),
        };
        transaction
            .batch_execute(&format!(
                "SET LOCAL row_security = off; SET LOCAL lock_timeout = {timeout_ms}; \
                 SET LOCAL statement_timeout = {timeout_ms}; {lock}"
            ))
            .await
            .map_err(|e| failed(&e, DOING))?;
        let (window, taken_us, fingerprint) =
            open_window(&transaction, &session.open_window, &server, reading).await?;
        let window = window.continued(session.last_window.as_ref());
        session.last_window = Some(window.clone());
        let definition = self.definition(&transaction, reading, fingerprint).await?;
        let can_be_emptied = matches!(
            definition.kind,
            RelationKind::Table | RelationKind::PartitionedTable
        );
        if can_be_emptied && !lockable {
            return Err(ConnectorError::transient(
                "table_changed",
                format!("{} became a table while it was read.", table.table),
            ));
        }
        let builder = match asked.which {
            Which::After(_) => {
                let buffers = self.buffers().clone();
                BatchBuilder::in_pool(&buffers, &[], asked.limit_bytes.min(ROOM_BYTES))
            }
            Which::Keys(_) | Which::Keyless => BatchBuilder::default(),
        };
        let read = copy_rows(
            &transaction,
            &definition,
            asked,
            taken_us,
            &server,
            window,
            builder,
        )
        .await?;
        transaction.commit().await.map_err(|e| failed(&e, DOING))?;
        Ok(read)
    }

    /// The table's definition, as of the transaction's snapshot.
    async fn definition(
        &self,
        transaction: &Transaction<'_>,
        reading: &Reading<'_>,
        fingerprint: String,
    ) -> Result<Arc<Table>, ConnectorError> {
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, definition)) = known.as_ref().filter(|(f, _)| *f == fingerprint) {
                return Ok(Arc::clone(definition));
            }
        }
        let publication = &reading.config.publication;
        let definition = schema::load(transaction, &reading.table, publication, reading.types)
            .await?
            .ok_or_else(|| no_such_table(&reading.table))?;
        if let Some((code, sentence, fix)) = check::obstacle_of_key(&definition) {
            return Err(ConnectorError::definite(code, sentence, fix));
        }
        let definition = Arc::new(definition);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((fingerprint, Arc::clone(&definition)));
        Ok(definition)
    }
}

/// Takes the snapshot.
async fn open_window(
    transaction: &Transaction<'_>,
    statement: &Statement,
    server: &Server,
    reading: &Reading<'_>,
) -> Result<(PageWindow, i64, String), ConnectorError> {
    const DOING: &str = "taking the page's snapshot";
    let table = reading.table.table;
    let row = transaction
        .query_one(
            statement,
            &[&table.schema, &table.name, &reading.config.publication],
        )
        .await
        .map_err(|e| failed(&e, DOING))?;
    let snapshot = Snapshot::parse(row.get(0));
    let insert = row.get::<_, &str>(1).parse::<Lsn>();
    let (Some(snapshot), Ok(insert)) = (snapshot, insert) else {
        return Err(ConnectorError::definite(
            "snapshot_unreadable",
            "The server's snapshot or position is not in the documented form.",
            "Report this with the server's version.",
        ));
    };
    let window = PageWindow {
        snapshot,
        high: server.layout.last_record_end(insert),
    };
    let fingerprint = row.get::<_, Option<String>>(3).unwrap_or_default();
    Ok((window, row.get(2), fingerprint))
}

/// Which rows and columns to read.
struct Asked<'a> {
    table: TableNo,
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
    batch: rollcall_contract::Batch,
    window: PageWindow,
    rows: usize,
    asked_rows: usize,
    bytes: usize,
    cut: bool,
    last: Option<Key>,
}

async fn copy_rows(
    transaction: &Transaction<'_>,
    definition: &Table,
    asked: &Asked<'_>,
    taken_us: i64,
    server: &Server,
    window: PageWindow,
    mut builder: BatchBuilder,
) -> Result<Read, ConnectorError> {
    const DOING: &str = "reading a page of the table";
    let malformed = |what: &str| {
        ConnectorError::definite(
            "protocol_violation",
            format!("The server sent a row in COPY that {what}."),
            "Report this with the server's version.",
        )
    };
    let schema = Arc::clone(&definition.schema);
    let wanted = Wanted::new(asked.only, definition);
    // A page without a unique key begins with a row that is known.
    let least = if definition.key_is_unique { 1 } else { 2 };
    let limit_rows = asked.limit_rows.max(least);
    let sql = select(definition, &asked.which, asked.since, limit_rows, &wanted)?;
    let keyless = asked.keyless_rows().filter(|_| !definition.key_is_unique);
    let keyless = keyless
        .map(|rows| select(definition, &Which::Keyless, None, rows, &wanted))
        .transpose()?;
    builder.tx(Tx {
        id: TxId::default(),
        position: SmallVec::from_slice(window.high.to_string().as_bytes()),
        commit_us: taken_us,
    });
    let at = builder.table(asked.table, &schema);
    let (mut bytes, mut cut, mut before) = (0, false, 0);
    let (mut fields, mut scratch): (Vec<Field>, Vec<u8>) = (Vec::new(), Vec::new());
    for sql in keyless.iter().chain([&sql]) {
        // What has no key takes no room from what has.
        (bytes, cut, before) = (0, false, builder.len());
        let stream = transaction
            .copy_out(sql)
            .await
            .map_err(|e| failed(&e, DOING))?;
        let mut stream = std::pin::pin!(stream);
        while let Some(row) = stream.try_next().await.map_err(|e| failed(&e, DOING))? {
            if cut {
                continue;
            }
            let from = builder.data().len();
            builder.data().extend_from_slice(&row);
            if !copy_text::split_row(builder.data(), from, &mut fields) {
                return Err(malformed("is not in the text format"));
            }
            if fields.len() != schema.columns.len() {
                return Err(malformed("has another number of columns"));
            }
            let ordinal = u32::try_from(builder.len()).unwrap_or(u32::MAX);
            builder.begin(at, Op::Read, ordinal);
            for (i, field) in fields.iter().enumerate() {
                match *field {
                    _ if !wanted.has(i) => builder.cell_missing(),
                    None => builder.cell_null(),
                    Some((start, len)) => definition.forms[i]
                        .add_cell(&mut builder, start..start + len, &mut scratch)
                        .map_err(|e| {
                            malformed(&format!(
                                "has a value of column \"{}\" that {e}",
                                schema.columns[i].name
                            ))
                        })?,
                }
            }
            builder.finish(true, row.len());
            bytes += row.len();
            cut = bytes >= asked.limit_bytes && builder.len() >= before + least;
        }
    }
    let cursor = PgCursor {
        system_id: server.system_id,
        timeline: server.timeline,
        commit_end: window.high,
        inside: None,
    };
    let batch = builder.build(cursor.encode());
    if !definition.key_is_unique {
        check_keys_differ(&batch)?;
    }
    let last = match batch.len() {
        0 => None,
        n => batch
            .change(n - 1)
            .after()
            .and_then(|row| Key::of_row(&schema, &row)),
    };
    Ok(Read {
        asked_rows: limit_rows,
        rows: batch.len() - before,
        batch,
        window,
        bytes,
        cut,
        last,
    })
}
