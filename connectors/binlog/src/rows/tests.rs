#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use proptest::prelude::*;
use rollcall_contract::{
    Before, Cell, Column, Cursor, Row, TableName, TableNo, TableSchema, Tx, TxId,
};

use super::*;
use crate::event::{Header, Kind, RawEvent};
use crate::table_map::{MappedColumn, TableId, TypeCode};
use crate::types::Oddities;

fn column(code: TypeCode, meta: u16) -> MappedColumn {
    MappedColumn {
        code,
        meta,
        is_nullable: true,
        name: None,
        is_unsigned: Some(false),
        collation: Some(45),
        members: None,
        geometry: None,
        dimensions: None,
        is_visible: None,
    }
}

/// id INT, name VARCHAR(20), j JSON, at DATETIME.
fn table() -> TableMap {
    TableMap {
        id: TableId(1),
        database: "hr".to_owned(),
        table: "t".to_owned(),
        columns: vec![
            column(TypeCode::LONG, 0),
            column(TypeCode::VARCHAR, 80),
            column(TypeCode::JSON, 4),
            column(TypeCode::DATETIME2, 0),
        ],
        primary_key: None,
        json_columns: 1,
    }
}

struct Decoded {
    rows: Vec<String>,
    incomplete: Vec<bool>,
    oddities: Oddities,
}

fn text(row: Row<'_>) -> String {
    let cells = row.cells().map(|cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Missing => "-".to_owned(),
        Cell::Unchanged => "=".to_owned(),
        Cell::Value(v) => String::from_utf8(v.to_vec()).unwrap(),
    });
    cells.collect::<Vec<_>>().join("|")
}

fn decode(kind: Kind, body: &[u8], old_rows: OldRows) -> Result<Decoded, RowError> {
    let map = table();
    let header = Header {
        timestamp: 0,
        kind,
        is_compressed: false,
        server_id: 1,
        size: 0,
        log_pos: 0,
        flags: 0,
    };
    let event = RowsEvent::parse(&RawEvent { header, body })?;
    let layout = Layout::new(&map, &[], &[0], old_rows).unwrap();
    let schema = Arc::new(TableSchema {
        table: TableName::new("hr", "t"),
        columns: layout
            .columns()
            .iter()
            .map(|c| Column {
                name: String::new(),
                class: c.column_type().class(),
                type_name: c.column_type().name(),
                nullable: true,
            })
            .collect(),
        key: vec![0],
    });
    let mut builder = BatchBuilder::default();
    builder.data().extend_from_slice(body);
    let table = builder.table(TableNo::MAIN, &schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: SmallVec::new(),
        commit_us: 0,
    });
    let mut reading = Reading::default();
    let mut rows = RowReader::new(&event, &layout, &mut builder, 0..body.len())?;
    let mut incomplete = Vec::new();
    while let Some(outcome) =
        rows.read(&mut builder, table, incomplete.len() as u32, &mut reading)?
    {
        incomplete.push(outcome.is_incomplete);
    }
    let counted = count_rows(&event, body, &map)?;
    assert_eq!(counted as usize, incomplete.len());
    let batch = builder.build(Cursor::new(&[1], ""));
    let rows = batch.changes().map(|change| {
        let before = match change.before() {
            Before::None => String::new(),
            Before::Key(row) => format!("key {} ", text(row)),
            Before::Full(row) => format!("old {} ", text(row)),
        };
        format!("{before}{}", change.after().map(text).unwrap_or_default())
    });
    Ok(Decoded {
        rows: rows.collect(),
        incomplete,
        oddities: reading.oddities,
    })
}

fn head(present: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 4];
    out.extend(present);
    out
}

/// 2024-02-29 01:02:03
const MOMENT: [u8; 5] = [0x99, 0xB2, 0xBA, 0x10, 0x83];

#[test]
fn a_whole_row_reads_with_its_nulls() {
    let mut body = head(&[0b1111]);
    body.extend([0b0100, 7, 0, 0, 0, 2]);
    body.extend("é".as_bytes());
    body.extend(MOMENT);
    body.extend([0b1010, 8, 0, 0, 0, 2, 0, 0, 0, 4, 1]);
    let decoded = decode(Kind::WriteRows, &body, OldRows::Key).unwrap();
    assert_eq!(
        decoded.rows,
        ["7|é|NULL|2024-02-29T01:02:03", "8|NULL|true|NULL"]
    );
    assert_eq!(decoded.incomplete, [false, false]);
}

#[test]
fn an_insert_without_a_column_is_missing_its_default_and_says_so() {
    let mut body = head(&[0b0011]);
    body.extend([0, 7, 0, 0, 0, 1, b'a']);
    let decoded = decode(Kind::WriteRows, &body, OldRows::Key).unwrap();
    assert_eq!(
        (decoded.rows, decoded.incomplete),
        (vec!["7|a|-|-".to_owned()], vec![true])
    );
}

#[test]
fn what_a_minimal_update_leaves_out_is_as_it_was() {
    let mut body = head(&[0b0001, 0b0010]);
    body.extend([0, 7, 0, 0, 0, 0, 1, b'b']);
    let decoded = decode(Kind::UpdateRows, &body, OldRows::Whole).unwrap();
    assert_eq!(
        (decoded.rows, decoded.incomplete),
        (vec!["key 7|-|-|- 7|b|=|=".to_owned()], vec![false])
    );
}

#[test]
fn an_old_row_that_is_whole_gives_what_the_new_one_lacks() {
    let mut body = head(&[0b1111, 0b0010]);
    body.extend([0b1100, 7, 0, 0, 0, 1, b'a']);
    body.extend([0, 1, b'b']);
    let decoded = decode(Kind::UpdateRows, &body, OldRows::Key).unwrap();
    assert_eq!(decoded.rows, ["old 7|a|NULL|NULL 7|b|NULL|NULL"]);
}

#[test]
fn only_the_key_of_an_old_row_is_decoded_where_no_more_is_wanted() {
    let mut body = head(&[0b1111]);
    body.extend([0b0100, 7, 0, 0, 0, 1, b'a']);
    body.extend(MOMENT);
    for (old_rows, expected) in [
        (OldRows::Key, "key 7|-|-|- "),
        (OldRows::Whole, "old 7|a|NULL|2024-02-29T01:02:03 "),
    ] {
        assert_eq!(
            decode(Kind::DeleteRows, &body, old_rows).unwrap().rows,
            [expected]
        );
    }
}

#[test]
fn a_zero_date_is_null_and_counted() {
    let mut body = head(&[0b1001]);
    body.extend([0, 7, 0, 0, 0, 0x80, 0, 0, 0, 0]);
    let decoded = decode(Kind::WriteRows, &body, OldRows::Key).unwrap();
    assert_eq!(decoded.rows, ["7|-|-|NULL"]);
    assert_eq!(decoded.oddities.zero_dates, 1);
}

fn partial_update(with_old_document: bool) -> Vec<u8> {
    let mut body = head(&[if with_old_document { 0b1111 } else { 0b0001 }, 0b0100]);
    if with_old_document {
        body.extend([0b1010, 7, 0, 0, 0]);
        // [1]
        let document = [2, 1, 0, 7, 0, 5, 1, 0];
        body.extend((document.len() as u32).to_le_bytes());
        body.extend(document);
    } else {
        body.extend([0, 7, 0, 0, 0]);
    }
    // Partial, the one JSON column, no nulls; insert `$[1]` true.
    body.extend([1, 1, 0]);
    let difference = [1, 4, b'$', b'[', b'1', b']', 2, 4, 1];
    body.extend((difference.len() as u32).to_le_bytes());
    body.extend(difference);
    body
}

#[test]
fn a_difference_is_applied_to_the_old_document_or_the_row_is_incomplete() {
    let decoded = decode(Kind::PartialUpdateRows, &partial_update(true), OldRows::Key).unwrap();
    assert_eq!(decoded.rows, ["old 7|NULL|[1]|NULL 7|NULL|[1, true]|NULL"]);
    assert_eq!(decoded.incomplete, [false]);
    let decoded = decode(
        Kind::PartialUpdateRows,
        &partial_update(false),
        OldRows::Key,
    )
    .unwrap();
    assert_eq!(decoded.rows, ["key 7|-|-|- 7|=|-|="]);
    assert_eq!(decoded.incomplete, [true]);
}

#[test]
fn rows_of_another_shape_are_refused() {
    let mut body = head(&[0b1111]);
    body.extend([0b0100, 7, 0, 0, 0, 200, b'a']);
    let error = decode(Kind::WriteRows, &body, OldRows::Key).err().unwrap();
    assert_eq!(error.column, Some(1));
    body[10] = 5;
    assert!(decode(Kind::WriteRows, &body, OldRows::Key).is_err());
    let mut endless = head(&[0]);
    endless.extend([1, 2, 3]);
    let error = decode(Kind::WriteRows, &endless, OldRows::Key)
        .err()
        .unwrap();
    assert_eq!(error.error, NO_BYTES);
}

proptest! {
    #[test]
    fn damaged_rows_are_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        kind in prop_oneof![
            Just(Kind::WriteRows), Just(Kind::UpdateRowsV1), Just(Kind::PartialUpdateRows),
            Just(Kind::DeleteRows), Just(Kind::UpdateRows),
        ],
    ) {
        let mut body = partial_update(true);
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode(kind, &body, OldRows::Whole);
        body.truncate(cut.index(body.len()));
        let _ = decode(kind, &body, OldRows::Key);
    }
}
