//! Messages of the replication protocol, as they come from the socket.

use std::sync::Arc;

use hashbrown::HashMap;
use rollcall_contract::{Batch, BatchCaps, Cell, TableName, TableSchema};
use rollcall_postgres::decode::{Decoder, DecoderOptions, Event, Followed};
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::types::ResolvedType;

/// The tables that are followed; their columns are what the log says.
const SCHEMA: &str = "hr";
const TABLES: [&str; 2] = ["people", "units"];

fn followed(table: &str) -> Followed {
    Followed {
        schema: Arc::new(TableSchema {
            table: TableName::new(SCHEMA, table),
            columns: Vec::new(),
            key: Vec::new(),
        }),
        type_oids: Vec::new(),
        table_oid: None,
        key: Some(vec!["id".to_owned()]),
    }
}

pub(crate) fn run(data: &[u8]) -> usize {
    let types: HashMap<u32, ResolvedType> = HashMap::new();
    let mut decoder = Decoder::new(DecoderOptions {
        start: PgCursor {
            system_id: 1,
            timeline: 1,
            commit_end: Lsn(0),
            inside: None,
        },
        followed: TABLES.map(followed).to_vec(),
        types: Arc::new(types),
        xid_reference: Xid(1),
        caps: BatchCaps::default(),
    });
    // As a socket gives it: what is cut between two reads has to come out the same.
    for read in data.chunks((data.len() / 3).max(1)) {
        decoder.buffer().extend_from_slice(read);
        loop {
            match decoder.advance() {
                Ok(Event::NeedsMore) => break,
                Ok(Event::Full) => look_at(&decoder.take_batch()),
                Ok(Event::Items) => while decoder.next_item().is_some() {},
                Ok(Event::Keepalive { .. }) => {}
                Ok(Event::Ended) | Err(_) => {
                    look_at(&decoder.take_batch());
                    return 0;
                }
            }
        }
    }
    look_at(&decoder.take_batch());
    0
}

/// Every cell lies within its batch.
fn look_at(batch: &Batch) {
    for change in batch.changes() {
        let rows = change.before().row().into_iter().chain(change.after());
        for row in rows {
            for cell in row.cells() {
                if let Cell::Value(text) = cell {
                    std::hint::black_box(text.len());
                }
            }
        }
    }
}
