//! Table maps and rows of the followed tables; those of all others are passed over.

use std::ops::Range;
use std::sync::Arc;

use rollcall_binlog::DecodeError;
use rollcall_binlog::event::{Header, RawEvent};
use rollcall_binlog::rows::{RowReader, RowsEvent};
use rollcall_binlog::table_map::TableMap;
use rollcall_contract::{ConnectorError, GapReason, StreamItem};

use super::Decoder;
use super::layout::Followed;
use crate::errors::protocol_violation;
use crate::values;

impl Decoder {
    /// A table map whose body lies at this range of the buffer.
    pub(super) fn table_map(
        &mut self,
        header: &Header,
        body: Range<usize>,
    ) -> Result<(), ConnectorError> {
        let bytes = &self.builder.parts().0[body.clone()];
        let map = self.maps.learn(bytes)?;
        let Some(at) = self.followed.iter().position(|f| f.is(map)) else {
            return Ok(());
        };
        let map = Arc::clone(map);
        if self.tx.as_ref().is_some_and(|tx| tx.is_xa) {
            self.put_by(header, body);
            return Ok(());
        }
        let layout = self.followed[at].layout.as_ref();
        if layout.is_some_and(|l| l.is_of(&map)) || self.is_left_out() {
            return Ok(());
        }
        let followed = &mut self.followed[at];
        let (no, name) = (followed.no, followed.name().clone());
        let change = followed.take_on(&map)?;
        if let Some(schema) = change.schema {
            self.flush();
            self.items.push_back(StreamItem::SchemaChanged(no, schema));
        }
        if let Some(detail) = change.rewritten {
            self.gap_of(vec![name], GapReason::SchemaChanged, detail);
        }
        Ok(())
    }

    /// A rows event whose body lies at this range of the buffer.
    pub(super) fn rows(
        &mut self,
        header: &Header,
        body: Range<usize>,
    ) -> Result<(), ConnectorError> {
        let raw = RawEvent {
            header: *header,
            body: &self.builder.parts().0[body.clone()],
        };
        let event = RowsEvent::parse(&raw)?;
        let is_empty = event.is_empty(raw.body);
        let map = match self.maps.get(event.table) {
            Some(map) => {
                let at = self.followed.iter().position(|f| f.is(map));
                at.map(|at| (at, Arc::clone(map)))
            }
            None if is_empty => None,
            None => {
                return Err(protocol_violation("rows of a table that was not described"));
            }
        };
        if event.ends_statement() {
            self.maps.end_statement();
        }
        let Some((at, map)) = map else {
            return Ok(());
        };
        let Some(tx) = &self.tx else {
            return Err(protocol_violation("rows outside of a transaction"));
        };
        if tx.is_xa {
            self.put_by(header, body);
            return Ok(());
        }
        if tx.is_known {
            return Ok(());
        }
        // Rows that are expanded are appended to the buffer: nothing may lie behind them.
        let aside = header.is_compressed.then(|| {
            let data = self.builder.data();
            data.split_off(self.parsed.min(data.len()))
        });
        self.take_rows(at, &event, &map, body)?;
        if let Some(aside) = aside {
            let data = self.builder.data();
            self.parsed = data.len();
            data.extend_from_slice(&aside);
        }
        Ok(())
    }

    /// Decodes the rows of an event of this table, but for those that were handed over before.
    fn take_rows(
        &mut self,
        at: usize,
        event: &RowsEvent,
        map: &Arc<TableMap>,
        body: Range<usize>,
    ) -> Result<(), ConnectorError> {
        let Followed {
            no,
            layout,
            index,
            reading,
            ..
        } = &mut self.followed[at];
        let layout = layout.as_ref().filter(|layout| layout.is_of(map));
        let (Some(tx), Some(layout)) = (&mut self.tx, layout) else {
            return Err(protocol_violation("rows of a table that was not described"));
        };
        let schema = &layout.schema;
        let unreadable = |column: Option<usize>, error: &DecodeError| {
            let column = column.and_then(|i| schema.columns.get(i));
            values::unreadable_value(column.map(|c| c.name.as_str()), error)
        };
        let builder = &mut self.builder;
        let mut reader =
            RowReader::new(event, &layout.rows, builder, body).map_err(|e| unreadable(None, &e))?;
        while tx.changes < tx.skip_below {
            if !reader
                .skip(builder)
                .map_err(|e| unreadable(e.column, &e.error))?
            {
                return Ok(());
            }
            tx.changes += 1;
        }
        let table = *index.get_or_insert_with(|| builder.table(*no, schema));
        if !tx.is_announced {
            builder.tx(tx.announce());
        }
        while reader
            .read(builder, table, tx.changes, reading)
            .map_err(|e| unreadable(e.column, &e.error))?
            .is_some()
        {
            tx.changes += 1;
        }
        Ok(())
    }

    /// Whether changes of the open transaction were all taken in before.
    fn is_left_out(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.is_known)
    }

    /// Puts an event by, without its checksum.
    fn put_by(&mut self, header: &Header, body: Range<usize>) {
        let mut event = self.builder.data()[body.start - Header::LEN..body.end].to_vec();
        if header.size as usize != event.len() {
            // The size is told at byte 9.
            let size = (event.len() as u32).to_le_bytes();
            event[9..13].copy_from_slice(&size);
        }
        self.parking.add(&event);
    }
}
