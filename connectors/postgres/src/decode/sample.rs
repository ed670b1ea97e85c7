//! Messages as the server sends them, made by hand.

use std::sync::Arc;

use hashbrown::HashMap;
use rollcall_contract::{BatchCaps, Class, Column, TableName, TableSchema};

use super::{DecoderOptions, Followed};
use crate::lsn::{Lsn, Xid};
use crate::position::PgCursor;
use crate::types::ResolvedType;

pub(crate) const OID: u32 = 16_385;

/// One column of a row.
#[derive(Clone, Copy)]
pub(crate) enum C<'a> {
    Null,
    Unchanged,
    Text(&'a str),
}

/// A message in its CopyData, with the header of the log.
pub(crate) fn log(lsn: u64, body: &[u8]) -> Vec<u8> {
    let mut inner = vec![b'w'];
    inner.extend(lsn.to_be_bytes());
    inner.extend(lsn.to_be_bytes());
    inner.extend([0; 8]);
    inner.extend_from_slice(body);
    frame(b'd', &inner)
}

pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(crate) fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
    let mut inner = vec![b'k'];
    inner.extend(wal_end.to_be_bytes());
    inner.extend([0; 8]);
    inner.push(u8::from(reply));
    frame(b'd', &inner)
}

pub(crate) fn begin(final_lsn: u64, xid: u32) -> Vec<u8> {
    let mut body = vec![b'B'];
    body.extend(final_lsn.to_be_bytes());
    body.extend(1_000_000i64.to_be_bytes());
    body.extend(xid.to_be_bytes());
    log(final_lsn, &body)
}

pub(crate) fn commit(final_lsn: u64, end: u64) -> Vec<u8> {
    let mut body = vec![b'C', 0];
    body.extend(final_lsn.to_be_bytes());
    body.extend(end.to_be_bytes());
    body.extend(1_000_000i64.to_be_bytes());
    log(end, &body)
}

pub(crate) fn relation(oid: u32, name: &str, columns: &[(&str, u32, bool)]) -> Vec<u8> {
    let mut body = vec![b'R'];
    body.extend(oid.to_be_bytes());
    body.extend(b"public\0");
    body.extend(name.as_bytes());
    body.extend([0, b'd']);
    body.extend((columns.len() as u16).to_be_bytes());
    for (name, type_oid, in_identity) in columns {
        body.push(u8::from(*in_identity));
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(type_oid.to_be_bytes());
        body.extend((-1i32).to_be_bytes());
    }
    log(0, &body)
}

pub(crate) fn people() -> Vec<u8> {
    relation(OID, "people", PEOPLE)
}

pub(crate) const PEOPLE: &[(&str, u32, bool)] = &[
    ("id", 23, true),
    ("name", 25, false),
    ("seen", 1184, false),
    ("tags", 1009, false),
];

fn tuple(body: &mut Vec<u8>, kind: u8, cells: &[C<'_>]) {
    body.push(kind);
    body.extend((cells.len() as u16).to_be_bytes());
    for cell in cells {
        match cell {
            C::Null => body.push(b'n'),
            C::Unchanged => body.push(b'u'),
            C::Text(text) => {
                body.push(b't');
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
    }
}

/// A row message: `parts` are its tuples with their kinds.
pub(crate) fn row(tag: u8, oid: u32, parts: &[(u8, &[C<'_>])]) -> Vec<u8> {
    let mut body = vec![tag];
    body.extend(oid.to_be_bytes());
    for (kind, cells) in parts {
        tuple(&mut body, *kind, cells);
    }
    log(0, &body)
}

pub(crate) fn insert(id: &str) -> Vec<u8> {
    let cells = [
        C::Text(id),
        C::Text("Ada"),
        C::Text("2024-02-29 10:11:12+00"),
        C::Text("{a,NULL}"),
    ];
    row(b'I', OID, &[(b'N', &cells)])
}

pub(crate) fn truncate(oids: &[u32]) -> Vec<u8> {
    let mut body = vec![b'T'];
    body.extend((oids.len() as u32).to_be_bytes());
    body.push(0);
    for oid in oids {
        body.extend(oid.to_be_bytes());
    }
    log(0, &body)
}

pub(crate) fn people_schema() -> Arc<TableSchema> {
    let column = |name: &str, class, type_name: &str| Column {
        name: name.to_owned(),
        class,
        type_name: type_name.to_owned(),
        nullable: name != "id",
    };
    Arc::new(TableSchema {
        table: TableName::new("public", "people"),
        columns: vec![
            column("id", Class::Int, "integer"),
            column("name", Class::Text, "text"),
            column("seen", Class::TimestampTz, "timestamp with time zone"),
            column("tags", Class::List, "text[]"),
        ],
        key: vec![0],
    })
}

pub(crate) fn at(lsn: u64) -> PgCursor {
    PgCursor {
        system_id: 7,
        timeline: 1,
        commit_end: Lsn(lsn),
        inside: None,
    }
}

pub(crate) fn options(start: PgCursor) -> DecoderOptions {
    DecoderOptions {
        start,
        followed: vec![Followed {
            schema: people_schema(),
            type_oids: PEOPLE.iter().map(|c| c.1).collect(),
            table_oid: Some(OID),
            key: None,
        }],
        types: Arc::new(HashMap::<u32, ResolvedType>::new()),
        xid_reference: Xid(3 << 32 | 700),
        caps: BatchCaps::default(),
    }
}
