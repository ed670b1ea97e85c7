//! Blocks of events, as they are stored and handed to sinks.
//!
//! A batch's events are one row: compressed, with a checksum over what was compressed,
//! because these bytes leave the house and SQLite itself would not notice a flipped bit.
//! Positions and sequences are not in the bytes but follow from the block's first ones, so
//! a block cannot disagree with its place.

use std::sync::Arc;

use bytes::Bytes;
use rollcall_core::event::{BlockError, Event, EventBlock, EventKind};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::StoreError;
use crate::memory::BlockMemory;
use crate::position::{Position, Sequence};

/// The events of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxBlock {
    /// The position of the first record.
    pub first_position: Position,
    /// The sequence of the first sequenced event (or of the next one, if there is none).
    pub first_sequence: Sequence,
    /// How many records, raw changes included. Never 0.
    pub count: u64,
    /// How many of them have a sequence.
    pub sequenced: u64,
    /// When it was committed, microseconds since the Unix epoch.
    pub created_us: i64,
    /// The encoded events.
    pub bytes: Bytes,
}

/// An event and its place.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// Its place in the outbox.
    pub position: Position,
    /// Its number, unless it is a raw change.
    pub sequence: Option<Sequence>,
    /// The event, borrowed from [`OutboxBlock::bytes`]: `bytes.slice_ref(event.data)`
    /// shares it.
    pub event: Event<'a>,
}

impl OutboxBlock {
    /// The position of the last record.
    pub fn last_position(&self) -> Position {
        self.first_position.plus(self.count).before()
    }

    /// The events in order. Ends with an error at a fault.
    pub fn events(&self) -> impl Iterator<Item = Result<Placed<'_>, BlockError>> {
        let mut sequence = self.first_sequence;
        EventBlock::decode(&self.bytes)
            .enumerate()
            .map(move |(i, event)| {
                let event = event?;
                let own = (event.kind != EventKind::RawChange).then_some(sequence);
                if own.is_some() {
                    sequence = sequence.next();
                }
                Ok(Placed {
                    position: self.first_position.plus(i as u64),
                    sequence: own,
                    event,
                })
            })
    }
}

/// What trimming did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes removed, as stored.
    pub bytes: u64,
    /// Whether there is more to remove: call again when there is time.
    pub more: bool,
}

const COLUMNS: &str = "position, sequence, count, sequenced, created_us, checksum, block";

/// Nothing that LZ4 has compressed is so many times as long
/// (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>: a byte adds 255 to a length).
const RATIO_MAX: usize = 256;

/// Compresses events, behind their size as [`lz4_flex::block::uncompressed_size`] reads it. The
/// memory is used again for each block: it is large, and new memory has to be zeroed first.
fn compress<'m>(events: &[u8], memory: &'m mut Vec<u8>) -> Result<&'m [u8], StoreError> {
    const SIZE: usize = size_of::<u32>();
    let refused = || StoreError::Refused("a block of events is too large".to_owned());
    let size = u32::try_from(events.len()).map_err(|_| refused())?;
    let at_most = SIZE + lz4_flex::block::get_maximum_output_size(events.len());
    if memory.len() < at_most {
        memory.resize(at_most, 0);
    }
    let (prefix, block) = memory.split_at_mut(SIZE);
    prefix.copy_from_slice(&size.to_le_bytes());
    let written = lz4_flex::block::compress_into(events, block).map_err(|_| refused())?;
    Ok(&memory[..SIZE + written])
}

/// Compresses and writes events at their place; gives their size as stored.
pub(crate) fn insert(
    connection: &Connection,
    position: Position,
    sequence: Sequence,
    created_us: i64,
    events: &EventBlock,
    memory: &mut Vec<u8>,
) -> Result<u64, StoreError> {
    let stored = compress(events.as_bytes(), memory)?;
    connection
        .prepare_cached(
            "INSERT INTO outbox(position, sequence, count, sequenced, created_us, stored_bytes, \
             checksum, block) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            position.to_sql(),
            sequence.to_sql(),
            events.len() as i64,
            i64::from(events.sequenced()),
            created_us,
            stored.len() as i64,
            checksum(events.as_bytes()),
            stored,
        ))?;
    Ok(stored.len() as u64)
}

fn checksum(bytes: &[u8]) -> i64 {
    xxhash_rust::xxh3::xxh3_64(bytes) as i64
}

/// What [`compress`] has compressed; nothing when it is damaged.
fn decompress(stored: &[u8], mut memory: Vec<u8>) -> Option<Vec<u8>> {
    let (size, block) = lz4_flex::block::uncompressed_size(stored).ok()?;
    if size > block.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    memory.resize(size, 0);
    let written = lz4_flex::block::decompress_into(block, &mut memory).ok()?;
    (written == size).then_some(memory)
}

fn read(row: &Row<'_>, memory: &BlockMemory) -> Result<OutboxBlock, StoreError> {
    let first_position = Position::from_sql(row.get(0)?);
    let stored = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
    let bytes = decompress(stored, memory.take());
    let expected: i64 = row.get(5)?;
    let Some(bytes) = bytes.filter(|b| checksum(b) == expected) else {
        return Err(StoreError::Damaged {
            detail: format!(
                "the outbox block at position {first_position} does not match its checksum"
            ),
        });
    };
    Ok(OutboxBlock {
        first_position,
        first_sequence: Sequence::from_sql(row.get(1)?),
        count: row.get::<_, i64>(2)?.max(0) as u64,
        sequenced: row.get::<_, i64>(3)?.max(0) as u64,
        created_us: row.get(4)?,
        bytes: memory.share(bytes),
    })
}

/// Blocks from the one that holds `from` on, until `max_bytes` of events are read; at least
/// one if there is one. A first block that begins behind `from` says that what was before
/// it has been trimmed.
pub(crate) fn blocks_from(
    connection: &Connection,
    from: Position,
    max_bytes: usize,
    memory: &BlockMemory,
) -> Result<Vec<Arc<OutboxBlock>>, StoreError> {
    let before: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT position, count FROM outbox WHERE position <= ?1 ORDER BY position DESC LIMIT 1",
        )?
        .query_row([from.to_sql()], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let start = match before {
        Some((position, count)) if position + count > from.to_sql() => position,
        _ => from.to_sql(),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox WHERE position >= ?1 ORDER BY position"
    ))?;
    let mut rows = statement.query([start])?;
    let mut blocks = Vec::new();
    let mut size = 0;
    while let Some(row) = rows.next()? {
        let block = read(row, memory)?;
        size += block.bytes.len();
        blocks.push(Arc::new(block));
        if size >= max_bytes {
            break;
        }
    }
    Ok(blocks)
}

/// The first position that is kept and the one behind the last; none when nothing is kept.
pub(crate) fn kept(connection: &Connection) -> Result<Option<(Position, Position)>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT a.position, b.position + b.count FROM \
             (SELECT position FROM outbox ORDER BY position LIMIT 1) a, \
             (SELECT position, count FROM outbox ORDER BY position DESC LIMIT 1) b",
        )?
        .query_row([], |r| {
            Ok((Position::from_sql(r.get(0)?), Position::from_sql(r.get(1)?)))
        })
        .optional()?)
}

/// The first block that was committed at a time or later, and when it was; none when there is
/// none. Goes along all blocks, without their events.
pub(crate) fn first_since(
    connection: &Connection,
    since_us: i64,
) -> Result<Option<(Position, i64)>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT position, created_us FROM outbox WHERE created_us >= ?1 \
             ORDER BY position LIMIT 1",
        )?
        .query_row([since_us], |r| {
            Ok((Position::from_sql(r.get(0)?), r.get(1)?))
        })
        .optional()?)
}

/// The position from which to read on to find everything behind a sequence. Sequences rise
/// with positions, so this halves the range of positions instead of keeping an index.
pub(crate) fn position_behind(
    connection: &Connection,
    after: Sequence,
) -> Result<Position, StoreError> {
    let Some((mut low, mut high)) = kept(connection)? else {
        return Ok(Position::NONE.next());
    };
    let mut block_at = connection.prepare_cached(
        "SELECT position, position + count, sequence + sequenced FROM outbox \
         WHERE position <= ?1 ORDER BY position DESC LIMIT 1",
    )?;
    // The first block that holds an event behind `after` begins in low..=high. `low` is never
    // inside of a block; between blocks it can be, behind a skip (`Writer::skip_to`).
    while low < high {
        let middle = Position(low.0 + (high.0 - low.0) / 2);
        let (begin, end, next): (i64, i64, i64) =
            block_at.query_row([middle.to_sql()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        if Sequence::from_sql(next) > after.next() {
            high = Position::from_sql(begin);
        } else {
            low = Position::from_sql(end).max(middle.next());
        }
    }
    Ok(low)
}

/// Blocks that trimming may remove in one step.
const TRIM_BLOCKS: usize = 500;
/// Stored bytes that trimming may remove in one step.
const TRIM_BYTES: u64 = 16 << 20;

/// The oldest blocks that may go: delivered whole, and older than the retention or beyond
/// the size. Gives the last block's first position and what is removed with it.
pub(crate) fn trimmable(
    connection: &Connection,
    delivered: Position,
    keep_newer_than_us: i64,
    max_bytes: u64,
    stored_bytes: u64,
) -> Result<Option<(Position, Trimmed)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, count, created_us, stored_bytes FROM outbox ORDER BY position LIMIT ?1",
    )?;
    let mut rows = statement.query([TRIM_BLOCKS as i64 + 1])?;
    let mut trimmed = Trimmed::default();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let position = Position::from_sql(row.get(0)?);
        let count = row.get::<_, i64>(1)?.max(0) as u64;
        let created_us: i64 = row.get(2)?;
        let bytes = row.get::<_, i64>(3)?.max(0) as u64;
        let is_delivered = position.plus(count).before() <= delivered;
        let is_too_much = stored_bytes.saturating_sub(trimmed.bytes) > max_bytes;
        if !is_delivered || (created_us >= keep_newer_than_us && !is_too_much) {
            break;
        }
        if trimmed.blocks as usize >= TRIM_BLOCKS || trimmed.bytes >= TRIM_BYTES {
            trimmed.more = true;
            break;
        }
        trimmed.blocks += 1;
        trimmed.bytes += bytes;
        last = Some(position);
    }
    Ok(last.map(|p| (p, trimmed)))
}
