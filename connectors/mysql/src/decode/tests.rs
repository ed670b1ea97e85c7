#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::sync::Arc;

use proptest::prelude::*;
use rollcall_contract::{
    Cell, Class, Column, ConnectorError, GapReason, RelationKind, StreamItem, TableName,
    TableSchema,
};

use super::*;
use crate::position::TxName;
use crate::schema::ColumnInfo;

const UUID: [u8; 16] = [7; 16];

/// Events of rows, version 2.
const INSERTED: u8 = 30;
const DELETED: u8 = 32;

fn event(kind: u8, flags: u16, log_pos: u32, body: &[u8]) -> Vec<u8> {
    let size = Header::LEN + body.len();
    let mut event = vec![1, 0, 0, 0, kind, 7, 0, 0, 0];
    event.extend((size as u32).to_le_bytes());
    event.extend(log_pos.to_le_bytes());
    event.extend(flags.to_le_bytes());
    event.extend(body);
    event
}

fn packet(event: &[u8]) -> Vec<u8> {
    let mut out = ((event.len() + 1) as u32).to_le_bytes()[..3].to_vec();
    out.extend([0, 0]);
    out.extend(event);
    out
}

/// A log as the server sends it, with places as they would be.
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    at: u32,
}

impl Log {
    pub(crate) fn new() -> Log {
        let mut rotate = 4u64.to_le_bytes().to_vec();
        rotate.extend(b"binlog.000001");
        let mut log = Log {
            bytes: packet(&event(4, Header::ARTIFICIAL, 0, &rotate)),
            at: 4,
        };
        let mut format = vec![4, 0];
        format.extend(b"9.7.0");
        format.resize(52, 0);
        format.extend([0, 0, 0, 0, 19]);
        format.extend([8; 40]);
        // No checksums, and the place of one.
        format.extend([0; 5]);
        log.add(15, &format);
        log
    }

    fn add(&mut self, kind: u8, body: &[u8]) -> &mut Log {
        self.add_with(kind, 0, body)
    }

    fn add_with(&mut self, kind: u8, flags: u16, body: &[u8]) -> &mut Log {
        self.at += (Header::LEN + body.len()) as u32;
        self.bytes
            .extend(packet(&event(kind, flags, self.at, body)));
        self
    }

    fn gtid(&mut self, number: u64) -> &mut Log {
        let mut body = vec![0];
        body.extend(UUID);
        body.extend(number.to_le_bytes());
        self.add(33, &body)
    }

    fn query(&mut self, text: &str) -> &mut Log {
        let mut body = vec![0; 8];
        body.extend([2, 0, 0, 0, 0]);
        body.extend(b"hr\0");
        body.extend(text.as_bytes());
        self.add(2, &body)
    }

    /// Inserted rows with these ids in `hr.people`.
    fn rows(&mut self, ids: &[i32]) -> &mut Log {
        self.rows_of(INSERTED, ids)
    }

    fn rows_of(&mut self, kind: u8, ids: &[i32]) -> &mut Log {
        let mut map = vec![9, 0, 0, 0, 0, 0, 1, 0];
        map.extend(b"\x02hr\0\x06people\0");
        // One INT that is not null; it is signed, and its name is `id`.
        map.extend([1, 3, 0, 0]);
        map.extend([1, 1, 0]);
        map.extend(b"\x04\x03\x02id");
        self.add(19, &map);
        let mut rows = vec![9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff];
        for id in ids {
            rows.push(0);
            rows.extend(id.to_le_bytes());
        }
        self.add(kind, &rows)
    }

    pub(crate) fn transaction(&mut self, number: u64, ids: &[i32]) -> &mut Log {
        self.gtid(number).query("BEGIN").rows(ids).add(16, &[0; 8])
    }
}

fn table() -> Table {
    Table {
        schema: Arc::new(TableSchema {
            table: TableName::new("hr", "people"),
            columns: vec![Column {
                name: "id".to_owned(),
                class: Class::Int,
                type_name: "int".to_owned(),
                nullable: false,
            }],
            key: vec![0],
        }),
        columns: vec![ColumnInfo {
            ordinal: 1,
            data_type: "int".to_owned(),
            column_type: "int".to_owned(),
            charset: None,
        }],
        kind: RelationKind::Table,
        engine: "InnoDB".to_owned(),
        is_versioned: false,
        estimated_rows: None,
        key_index: "PRIMARY".to_owned(),
        key_fault: None,
    }
}

pub(crate) fn set(text: &str) -> Gtids {
    let uuid = "07070707-0707-0707-0707-070707070707";
    Gtids::MySql(match text {
        "" => "".parse().unwrap(),
        text => format!("{uuid}:{text}").parse().unwrap(),
    })
}

pub(crate) fn at(gtids: Gtids) -> Position {
    Position::at(Point { gtids, place: None })
}

pub(crate) fn decoder(start: Position, mode: LogMode) -> Decoder {
    Decoder::new(DecoderOptions {
        start,
        mode,
        identity: "server".to_owned(),
        tables: vec![table()],
        zero_dates: ZeroDates::Null,
        caps: BatchCaps::default(),
    })
}

/// Everything that the decoder makes of these bytes, given in pieces.
fn decode(
    decoder: &mut Decoder,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<StreamItem>, ConnectorError> {
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.advance()? {
                Event::NeedsMore => break,
                Event::Full => items.push(StreamItem::Batch(decoder.take_batch())),
                Event::Items => {
                    while let Some(item) = decoder.next_item() {
                        items.push(item);
                    }
                }
                Event::Ended => return Ok(items),
            }
        }
    }
    if decoder.has_whole_batch() {
        items.push(StreamItem::Batch(decoder.take_batch()));
    }
    Ok(items)
}

fn ids(items: &[StreamItem]) -> Vec<String> {
    let mut ids = Vec::new();
    for item in items {
        if let StreamItem::Batch(batch) = item {
            for change in batch.changes() {
                let Some(Cell::Value(id)) = change.after().map(|row| row.cell(0)) else {
                    panic!("no id");
                };
                ids.push(String::from_utf8(id.to_vec()).unwrap());
            }
        }
    }
    ids
}

fn gaps(items: &[StreamItem]) -> Vec<GapReason> {
    items
        .iter()
        .filter_map(|item| match item {
            StreamItem::Gap(gap) => Some(gap.reason),
            _ => None,
        })
        .collect()
}

#[test]
fn transactions_become_a_batch_whatever_the_pieces_are() {
    let mut log = Log::new();
    log.transaction(4, &[1, 2]).transaction(5, &[3]);
    for piece in [1, 3, 50, 10_000] {
        let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
        let items = decode(&mut decoder, &log.bytes, piece).unwrap();
        assert_eq!(ids(&items), ["1", "2", "3"]);
        assert_eq!(decoder.whole_position().unwrap().whole.gtids, set("1-5"));
    }
}

#[test]
fn a_long_event_waits_in_a_buffer_of_its_own() {
    let many: Vec<i32> = (0..400_000).collect();
    let mut log = Log::new();
    log.transaction(4, &[1]).transaction(5, &many);
    let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
    let items = decode(&mut decoder, &log.bytes, 10_000).unwrap();
    let sizes: Vec<usize> = items
        .iter()
        .map(|item| match item {
            StreamItem::Batch(batch) => batch.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [1, 400_000]);
    assert_eq!(decoder.whole_position().unwrap().whole.gtids, set("1-5"));
}

#[test]
fn a_batch_that_is_waited_for_ends_behind_so_many_changes_and_grows_otherwise() {
    let mut log = Log::new();
    for tx in 4..13 {
        log.transaction(tx, &[1, 2]);
    }
    for (is_awaited, expected) in [(true, vec![4, 4, 4, 4, 2]), (false, vec![16, 2])] {
        let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
        decoder.caps = BatchCaps {
            changes: 3,
            most_changes: 32,
            ..BatchCaps::default()
        };
        decoder.set_awaited(is_awaited);
        let items = decode(&mut decoder, &log.bytes, log.bytes.len()).unwrap();
        let sizes = items.iter().map(|item| match item {
            StreamItem::Batch(batch) => batch.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), expected, "awaited: {is_awaited}");
    }
}

#[test]
fn beside_others_batches_are_small_from_the_next_one_on() {
    let mut log = Log::new();
    for tx in 4..13 {
        log.transaction(tx, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
    let small = Some(Small { taking: 25 });
    for (small, expected) in [(small, vec![20, 20, 20, 20, 10]), (None, vec![90])] {
        let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
        decoder.keep_small(small);
        let items = decode(&mut decoder, &log.bytes, log.bytes.len()).unwrap();
        let sizes = items.iter().map(|item| match item {
            StreamItem::Batch(batch) => batch.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), expected, "{small:?}");
    }
}

#[test]
fn beside_others_a_transaction_that_takes_is_split_where_its_limit_can_trip() {
    for (kind, expected) in [(INSERTED, [30, 30]), (DELETED, [40, 20])] {
        let mut log = Log::new();
        log.gtid(4).query("BEGIN");
        for _ in 0..6 {
            log.rows_of(kind, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        }
        log.add(16, &[0; 8]);
        let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
        decoder.keep_small(Some(Small { taking: 40 }));
        let items = decode(&mut decoder, &log.bytes, log.bytes.len()).unwrap();
        let sizes = items.iter().map(|item| match item {
            StreamItem::Batch(batch) => batch.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_was_taken_in_is_left_out() {
    let mut log = Log::new();
    log.transaction(4, &[1])
        .transaction(5, &[2, 3, 4])
        .transaction(6, &[5]);
    let start = Position {
        inside: Some(Inside {
            tx: TxName::MySql("07070707-0707-0707-0707-070707070707:5".parse().unwrap()),
            changes: 2,
        }),
        ..at(set("1-4"))
    };
    let mut decoder = decoder(start, LogMode::MySqlGtid);
    let items = decode(&mut decoder, &log.bytes, 7).unwrap();
    assert_eq!(ids(&items), ["4", "5"]);
    let StreamItem::Batch(batch) = &items[0] else {
        panic!("no batch");
    };
    assert_eq!(
        batch.change(0).ordinal(),
        2,
        "it has the number that it always has"
    );
}

#[test]
fn an_unknown_event_fails_closed_unless_it_may_be_left_out() {
    let mut log = Log::new();
    log.add_with(99, Header::IGNORABLE, b"x")
        .transaction(4, &[1]);
    let mut known = decoder(at(set("1-3")), LogMode::MySqlGtid);
    assert_eq!(ids(&decode(&mut known, &log.bytes, 100).unwrap()), ["1"]);
    log.add(99, b"x").transaction(5, &[2]);
    let mut unknown = decoder(at(set("1-3")), LogMode::MySqlGtid);
    let error = decode(&mut unknown, &log.bytes, 100).unwrap_err();
    assert_eq!(error.code(), "unknown_event");
    assert!(!error.is_transient());
    assert_eq!(unknown.take_batch().len(), 1, "what came before is whole");
}

#[test]
fn an_incident_is_a_gap_and_the_log_goes_on() {
    let mut log = Log::new();
    log.transaction(4, &[1])
        .gtid(5)
        .add(26, &[1, 0, 4, b'l', b'o', b's', b't'])
        .transaction(6, &[2]);
    let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
    let items = decode(&mut decoder, &log.bytes, 1000).unwrap();
    assert_eq!(gaps(&items), [GapReason::NotInLog]);
    assert_eq!(ids(&items), ["1", "2"]);
    assert!(
        matches!(items[0], StreamItem::Batch(_)),
        "the gap stands where it is"
    );
}

#[test]
fn the_other_half_of_a_transaction_that_does_not_come_is_a_gap() {
    let mut log = Log::new();
    log.add(34, &[0; 25])
        .query("BEGIN")
        .rows(&[2])
        .add(16, &[0; 8]);
    let place = |position| Place::new("server", "binlog.000001", position);
    let start = Position {
        inside: Some(Inside {
            tx: TxName::Place(place(20)),
            changes: 1,
        }),
        ..Position::at(Point {
            gtids: Gtids::None,
            place: Some(place(20)),
        })
    };
    let mut decoder = decoder(start, LogMode::Place);
    let items = decode(&mut decoder, &log.bytes, 1000).unwrap();
    assert_eq!(gaps(&items), [GapReason::PositionLost]);
    assert_eq!(ids(&items), ["2"]);
}

#[test]
fn rows_without_their_table_or_transaction_are_refused() {
    let mut log = Log::new();
    log.gtid(4)
        .query("BEGIN")
        .add(30, &[8, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff, 0, 1, 0, 0, 0]);
    let mut nameless = decoder(at(set("1-3")), LogMode::MySqlGtid);
    assert!(decode(&mut nameless, &log.bytes, 100).is_err());
    let mut log = Log::new();
    log.rows(&[1]);
    let mut outside = decoder(at(set("1-3")), LogMode::MySqlGtid);
    assert!(decode(&mut outside, &log.bytes, 100).is_err());
}

#[test]
fn a_transaction_without_a_number_is_refused_where_all_have_one() {
    let mut log = Log::new();
    log.add(34, &[0; 25]);
    let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
    let error = decode(&mut decoder, &log.bytes, 100).unwrap_err();
    assert_eq!(error.code(), "gtid_mode");
}

#[test]
fn the_servers_own_error_is_told() {
    let mut log = Log::new();
    let mut payload = vec![0xff];
    payload.extend(1236u16.to_le_bytes());
    payload.extend(b"#HY000A replica with the same server_uuid/server_id as this replica");
    log.bytes.extend(&(payload.len() as u32).to_le_bytes()[..3]);
    log.bytes.push(0);
    log.bytes.extend(payload);
    let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
    let error = decode(&mut decoder, &log.bytes, 100).unwrap_err();
    assert_eq!(error.code(), "replica_clash");
}

proptest! {
    /// Whatever comes, the answer is an error or changes, and never a panic.
    #[test]
    fn damaged_bytes_end_in_an_error(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..6),
        cut in any::<prop::sample::Index>(),
        piece in 1usize..300,
    ) {
        let mut log = Log::new();
        log.transaction(4, &[1, 2])
            .gtid(5)
            .query("XA START X'01',X'',1")
            .rows(&[7])
            .query("XA END X'01',X'',1")
            .add(38, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])
            .gtid(6)
            .query("XA COMMIT X'01',X'',1")
            .gtid(7)
            .query("TRUNCATE people")
            .transaction(8, &[3]);
        let mut bytes = log.bytes.clone();
        for (at, bit) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let mut decoder = decoder(at(set("1-3")), LogMode::MySqlGtid);
        if let Ok(items) = decode(&mut decoder, &bytes, piece)
            && flips.is_empty()
            && bytes.len() == log.bytes.len()
        {
            prop_assert_eq!(gaps(&items), []);
        }
    }
}
