//! The decoder of binary logs alone, over a file: every event opened and its checksum
//! verified, the rows of the table made into batches, dropped.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rollcall_binlog::event::{Flavour, Framing, Header, Kind, RawEvent};
use rollcall_binlog::rows::{Layout, OldRows, RowReader, RowsEvent};
use rollcall_binlog::table_map::{TableMap, TableMaps};
use rollcall_binlog::types::Reading as Values;
use rollcall_contract::{
    BatchBuilder, Buffers, Column, Cursor, Pool, TableName, TableNo, TableSchema, Tx, TxId,
};

use super::{Outcome, Reading};
use crate::Result;
use crate::allocator::allocations;

/// Read at once.
const CHUNK: usize = 256 << 10;
/// How far a batch grows by the daemon's defaults.
const BATCH: usize = 5_000;
/// What a file begins with.
const MAGIC: &[u8] = b"\xfebin";

/// What the child is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A file of MySQL's log.
    path: PathBuf,
}

/// Decodes a file.
pub(crate) fn measure(path: &Path, rows: u64, limit: Duration) -> Result<Outcome> {
    let path = path.to_string_lossy();
    super::measure(&["file", &path], rows, limit)
}

pub(super) fn read(args: &Args) -> Result<Reading> {
    let mut file = File::open(&args.path)?;
    let mut decoder = Decoder::new();
    let mut buffer = Vec::with_capacity(2 * CHUNK);
    let mut is_begun = false;
    let before = allocations();
    loop {
        let read = Read::by_ref(&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut buffer)?;
        let mut rest = buffer.as_slice();
        if !is_begun {
            rest = rest
                .strip_prefix(MAGIC)
                .ok_or("this is not a file of a binary log")?;
            is_begun = true;
        }
        while rest.len() >= Header::LEN {
            let size = Header::parse(rest)?.size as usize;
            let Some((event, tail)) = rest.split_at_checked(size) else {
                break;
            };
            decoder.event(event)?;
            rest = tail;
        }
        let done = buffer.len() - rest.len();
        buffer.drain(..done);
        if read == 0 {
            break;
        }
    }
    decoder.drop_batch();
    if !buffer.is_empty() {
        return Err("the file ends inside of an event".into());
    }
    Ok(Reading {
        changes: decoder.changes,
        allocations: allocations() - before,
        ..Reading::default()
    })
}

/// How the table is read.
struct Table {
    map: Arc<TableMap>,
    layout: Layout,
    schema: Arc<TableSchema>,
}

struct Decoder {
    framing: Framing,
    maps: TableMaps,
    values: Values,
    table: Option<Table>,
    pool: Pool<Buffers>,
    builder: BatchBuilder,
    ordinal: u32,
    changes: u64,
}

impl Decoder {
    fn new() -> Decoder {
        Decoder {
            framing: Framing::new(),
            maps: TableMaps::new(Flavour::Mysql),
            values: Values::default(),
            table: None,
            pool: Pool::default(),
            builder: BatchBuilder::default(),
            ordinal: 0,
            changes: 0,
        }
    }

    fn event(&mut self, bytes: &[u8]) -> Result<()> {
        let raw = self.framing.open(bytes)?;
        match raw.header.kind {
            kind if kind.is_rows() => self.rows(&raw)?,
            Kind::TableMap => {
                self.maps.learn(raw.body)?;
            }
            _ => {
                raw.parse()?;
            }
        }
        Ok(())
    }

    fn rows(&mut self, raw: &RawEvent<'_>) -> Result<()> {
        let event = RowsEvent::parse(raw)?;
        let map = self.maps.get(event.table).ok_or("rows without a table")?;
        if map.table == "employees" {
            if !matches!(&self.table, Some(table) if Arc::ptr_eq(&table.map, map)) {
                self.table = Some(Table::new(map)?);
            }
            self.take(&event, raw.body)?;
        }
        if event.ends_statement() {
            self.maps.end_statement();
        }
        if self.builder.len() >= BATCH {
            self.drop_batch();
        }
        Ok(())
    }

    fn take(&mut self, event: &RowsEvent, body: &[u8]) -> Result<()> {
        let Some(table) = &self.table else {
            return Ok(());
        };
        let builder = &mut self.builder;
        let start = builder.data().len();
        builder.data().extend_from_slice(body);
        let index = builder.table(TableNo::MAIN, &table.schema);
        if !builder.has_tx() {
            builder.tx(Tx {
                id: TxId::default(),
                position: Default::default(),
                commit_us: 0,
            });
        }
        let mut rows = RowReader::new(event, &table.layout, builder, start..start + body.len())?;
        while rows
            .read(builder, index, self.ordinal, &mut self.values)?
            .is_some()
        {
            self.ordinal = self.ordinal.wrapping_add(1);
        }
        Ok(())
    }

    fn drop_batch(&mut self) {
        let room = self.builder.data().len();
        let next = BatchBuilder::in_pool(&self.pool, &[], room);
        let full = std::mem::replace(&mut self.builder, next);
        self.changes += full.build(Cursor::new(&[1], "")).len() as u64;
    }
}

impl Table {
    fn new(map: &Arc<TableMap>) -> Result<Table> {
        let key = map.primary_key.iter().flatten();
        let key: Vec<usize> = key.map(|part| part.column).collect();
        let layout = Layout::new(map, &[], &key, OldRows::Key)?;
        let columns = map.columns.iter().zip(layout.columns());
        let schema = Arc::new(TableSchema {
            table: TableName::new(&map.database, &map.table),
            columns: columns
                .map(|(mapped, column)| Column {
                    name: mapped.name.clone().unwrap_or_default(),
                    class: column.column_type().class(),
                    type_name: column.column_type().name(),
                    nullable: mapped.is_nullable,
                })
                .collect(),
            key,
        });
        Ok(Table {
            map: Arc::clone(map),
            layout,
            schema,
        })
    }
}
