//! Hand-made messages of every kind, whole, in pieces and damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use proptest::prelude::*;
use rollcall_contract::{Before, Cell, Change};

use super::sample::*;
use super::*;

/// Everything that a decoder makes of some bytes: readable items, and how it ended.
fn decode_pieces(
    options: DecoderOptions,
    pieces: &[&[u8]],
) -> (Vec<String>, Result<(), ConnectorError>, Decoder) {
    let mut decoder = Decoder::new(options);
    let mut out = Vec::new();
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.advance() {
                Ok(Event::NeedsMore) => break,
                Ok(Event::Full) => {
                    let batch = decoder.take_batch();
                    show(&StreamItem::Batch(batch), &mut out);
                }
                Ok(Event::Items) => {
                    while let Some(item) = decoder.next_item() {
                        show(&item, &mut out);
                    }
                }
                Ok(Event::Keepalive { .. } | Event::Ended) => {}
                Err(e) => {
                    if !decoder.is_empty() {
                        let batch = decoder.take_batch();
                        show(&StreamItem::Batch(batch), &mut out);
                    }
                    return (out, Err(e), decoder);
                }
            }
        }
    }
    if !decoder.is_empty() {
        let batch = decoder.take_batch();
        show(&StreamItem::Batch(batch), &mut out);
    }
    (out, Ok(()), decoder)
}

fn decode(frames: &[Vec<u8>]) -> Vec<String> {
    let (out, end, _) = decode_pieces(options(at(0x100)), &[&frames.concat()]);
    end.unwrap();
    out
}

fn show(item: &StreamItem, out: &mut Vec<String>) {
    match item {
        StreamItem::Batch(batch) => {
            out.extend(batch.changes().map(|c| show_change(&c)));
            out.push(format!("@ {}", batch.cursor()));
        }
        StreamItem::Progress(cursor) => out.push(format!("progress {cursor}")),
        StreamItem::SchemaChanged(_, schema) => out.push(format!(
            "schema {} key {:?}",
            schema
                .columns
                .iter()
                .map(|c| format!("{}:{}", c.name, c.class.name()))
                .collect::<Vec<_>>()
                .join(","),
            schema.key
        )),
        StreamItem::Gap(gap) => out.push(format!("gap {} {}", gap.reason.as_str(), gap.tables[0])),
    }
}

fn show_row(row: rollcall_contract::Row<'_>) -> String {
    row.cells()
        .map(|cell| match cell {
            Cell::Null => "null".to_owned(),
            Cell::Missing => "missing".to_owned(),
            Cell::Unchanged => "unchanged".to_owned(),
            Cell::Value(v) => format!("'{}'", String::from_utf8_lossy(v)),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn show_change(c: &Change<'_>) -> String {
    let before = match c.before() {
        Before::None => String::new(),
        Before::Key(row) => format!(" key({})", show_row(row)),
        Before::Full(row) => format!(" old({})", show_row(row)),
    };
    let after = c
        .after()
        .map_or(String::new(), |row| format!(" new({})", show_row(row)));
    format!(
        "{:?} {}#{}{before}{after}",
        c.op(),
        c.tx().position(),
        c.ordinal()
    )
}

const ADA: &str = "'Ada' '2024-02-29T10:11:12Z' '[\"a\",null]'";

#[test]
fn a_transaction_becomes_changes_with_names_for_ever() {
    let frames = [
        begin(0x200, 705),
        people(),
        insert("1"),
        insert("2"),
        commit(0x200, 0x230),
    ];
    let (out, end, decoder) = decode_pieces(options(at(0x100)), &[&frames.concat()]);
    end.unwrap();
    assert_eq!(
        out,
        [
            format!("Insert 0/200#0 new('1' {ADA})"),
            format!("Insert 0/200#1 new('2' {ADA})"),
            "@ 0/230".to_owned(),
        ]
    );
    assert_eq!(decoder.received(), Lsn(0x230));
    assert_eq!(decoder.whole_position(), Some(at(0x230)));
}

#[test]
fn a_transaction_carries_its_extended_id_and_its_time() {
    let mut decoder = Decoder::new(options(at(0)));
    let frames = [
        begin(0x200, 705),
        people(),
        insert("1"),
        commit(0x200, 0x230),
    ];
    decoder.buffer().extend_from_slice(&frames.concat());
    assert_eq!(decoder.advance().unwrap(), Event::NeedsMore);
    assert!(decoder.has_whole_batch());
    let batch = decoder.take_batch();
    let change = batch.change(0);
    assert_eq!(xid_of(&change.tx().id), Some(Xid(3 << 32 | 705)));
    assert_eq!(change.tx().commit_us, EPOCH_2000_US + 1_000_000);
    assert_eq!(change.table().columns[0].type_name, "integer");
    assert!(change.size_bytes() > 40);
}

#[test]
fn all_replica_identities_keep_what_they_know_apart() {
    let new = [C::Text("9"), C::Text("B"), C::Null, C::Unchanged];
    let key = [C::Text("1"), C::Null, C::Null, C::Null];
    let old = [C::Text("1"), C::Null, C::Text("infinity"), C::Text("{x}")];
    let out = decode(&[
        begin(0x200, 1),
        people(),
        row(b'U', OID, &[(b'N', &new)]),
        row(b'U', OID, &[(b'K', &key), (b'N', &new)]),
        row(b'U', OID, &[(b'O', &old), (b'N', &new)]),
        row(b'D', OID, &[(b'K', &key)]),
        row(b'D', OID, &[(b'O', &old)]),
        commit(0x200, 0x230),
    ]);
    assert_eq!(
        out,
        [
            "Update 0/200#0 new('9' 'B' null unchanged)",
            "Update 0/200#1 key('1' missing missing missing) new('9' 'B' null unchanged)",
            "Update 0/200#2 old('1' null 'infinity' '[\"x\"]') new('9' 'B' null '[\"x\"]')",
            "Delete 0/200#3 key('1' missing missing missing)",
            "Delete 0/200#4 old('1' null 'infinity' '[\"x\"]')",
            "@ 0/230",
        ]
    );
}

#[test]
fn an_unchanged_value_stays_unchanged_when_the_old_row_lacks_it_too() {
    let new = [C::Text("1"), C::Text("B"), C::Null, C::Unchanged];
    let old = [C::Text("1"), C::Null, C::Null, C::Unchanged];
    let out = decode(&[
        begin(0x200, 1),
        people(),
        row(b'U', OID, &[(b'O', &old), (b'N', &new)]),
        commit(0x200, 0x230),
    ]);
    assert_eq!(
        out[0],
        "Update 0/200#0 old('1' null null missing) new('1' 'B' null unchanged)"
    );
}

#[test]
fn rows_of_other_tables_are_left_out_and_counted() {
    let other = relation(99, "other", &[("id", 23, true)]);
    let theirs = row(b'I', 99, &[(b'N', &[C::Text("5")])]);
    let out = decode(&[
        begin(0x200, 1),
        other,
        theirs.clone(),
        people(),
        insert("1"),
        truncate(&[99, OID]),
        truncate(&[99]),
        theirs,
        insert("2"),
        commit(0x200, 0x230),
    ]);
    assert_eq!(
        out,
        [
            format!("Insert 0/200#1 new('1' {ADA})"),
            "Truncate 0/200#2".to_owned(),
            format!("Insert 0/200#5 new('2' {ADA})"),
            "@ 0/230".to_owned(),
        ]
    );
}

#[test]
fn messages_types_and_origins_are_no_rows() {
    let mut message = vec![b'M', 1];
    message.extend([0; 8]);
    message.extend(b"rollcall\0");
    message.extend([0, 0, 0, 0]);
    let out = decode(&[
        log(0x150, &message),
        begin(0x200, 1),
        log(0, b"O\0\0\0\0\0\0\0\0elsewhere\0"),
        log(0, b"Y\0\0\x60\0public\0mood\0"),
        people(),
        log(0x150, &message),
        insert("1"),
        commit(0x200, 0x230),
        frame(b'N', b"SNOTICE\0\0"),
    ]);
    assert_eq!(
        out,
        [
            format!("Insert 0/200#0 new('1' {ADA})"),
            "@ 0/230".to_owned()
        ]
    );
}

#[test]
fn a_schema_change_comes_between_the_changes_before_and_behind_it() {
    let wider = relation(
        OID,
        "people",
        &[
            ("id", 23, true),
            ("name", 25, false),
            ("seen", 1184, false),
            ("tags", 1009, false),
            ("born", 1082, false),
        ],
    );
    let cells = [
        C::Text("2"),
        C::Null,
        C::Null,
        C::Null,
        C::Text("1970-01-01"),
    ];
    let out = decode(&[
        begin(0x200, 1),
        people(),
        insert("1"),
        wider,
        row(b'I', OID, &[(b'N', &cells)]),
        commit(0x200, 0x230),
    ]);
    assert_eq!(
        out,
        [
            format!("Insert 0/200#0 new('1' {ADA})"),
            "@ 0/100+0/200#1".to_owned(),
            "schema id:int,name:text,seen:timestamptz,tags:list,born:date key [0]".to_owned(),
            "Insert 0/200#1 new('2' null null null '1970-01-01')".to_owned(),
            "@ 0/230".to_owned(),
        ]
    );
}

#[test]
fn a_table_without_its_key_columns_is_an_error() {
    let mut wanted = options(at(0));
    wanted.followed[0].key = Some(vec!["id".to_owned()]);
    let frames = [
        begin(0x200, 1),
        relation(OID, "people", &[("number", 23, true)]),
    ];
    let (_, end, _) = decode_pieces(wanted, &[&frames.concat()]);
    assert_eq!(end.unwrap_err().code(), "key_lost");
    // Without a configured key the replica identity takes its place.
    let out = decode(&frames);
    assert_eq!(out, ["schema number:int key [0]"]);
}

#[test]
fn old_rows_that_do_not_name_their_record_are_a_gap() {
    let columns: Vec<_> = PEOPLE
        .iter()
        .map(|(name, oid, _)| (*name, *oid, *name == "name"))
        .collect();
    let frames = [
        begin(0x200, 705),
        relation(OID, "people", &columns),
        insert("1"),
        commit(0x200, 0x230),
    ];
    let (out, end, _) = decode_pieces(options(at(0x100)), &[&frames.concat()]);
    end.unwrap();
    assert_eq!(out[0], "gap not_in_log public.people");
    assert!(out[1].starts_with("Insert"), "{out:?}");
}

#[test]
fn a_table_that_was_made_anew_is_a_gap() {
    let out = decode(&[
        begin(0x200, 1),
        people(),
        insert("1"),
        commit(0x200, 0x230),
        begin(0x300, 2),
        relation(OID + 1, "people", PEOPLE),
        row(
            b'D',
            OID + 1,
            &[(b'K', &[C::Text("4"), C::Null, C::Null, C::Null])],
        ),
        commit(0x300, 0x330),
    ]);
    assert_eq!(
        out,
        [
            format!("Insert 0/200#0 new('1' {ADA})"),
            "@ 0/230".to_owned(),
            "gap table_recreated public.people".to_owned(),
            "Delete 0/300#0 key('4' missing missing missing)".to_owned(),
            "@ 0/330".to_owned(),
        ]
    );
}

#[test]
fn a_table_that_was_renamed_away_is_a_gap() {
    let out = decode(&[
        begin(0x200, 1),
        relation(OID, "persons", PEOPLE),
        insert("1"),
        commit(0x200, 0x230),
    ]);
    assert_eq!(out, ["gap publication_changed public.people"]);
}

#[test]
fn transactions_before_the_position_are_dropped() {
    let frames = [
        begin(0x200, 1),
        people(),
        insert("1"),
        commit(0x200, 0x230),
        begin(0x230, 2),
        insert("2"),
        commit(0x230, 0x260),
    ];
    let (out, end, _) = decode_pieces(options(at(0x230)), &[&frames.concat()]);
    end.unwrap();
    assert_eq!(
        out,
        [
            format!("Insert 0/230#0 new('2' {ADA})"),
            "@ 0/260".to_owned()
        ]
    );
}

/// Frames of two transactions of three rows, and their changes with all names.
fn two_transactions() -> (Vec<u8>, Vec<String>) {
    let frames = [
        begin(0x200, 1),
        people(),
        insert("1"),
        insert("2"),
        insert("3"),
        commit(0x200, 0x230),
        keepalive(0x280, false),
        begin(0x300, 2),
        insert("4"),
        insert("5"),
        insert("6"),
        commit(0x300, 0x330),
    ]
    .concat();
    let changes = (0..6)
        .map(|i| {
            let position = if i < 3 { "0/200" } else { "0/300" };
            format!("Insert {position}#{} new('{}' {ADA})", i % 3, i + 1)
        })
        .collect();
    (frames, changes)
}

#[test]
fn a_large_transaction_is_split_and_resumed_without_loss_or_repetition() {
    let (frames, expected) = two_transactions();
    for cap in 1..=7 {
        // Stop behind each batch in turn, and open again at its cursor.
        let mut seen = Vec::new();
        let mut start = at(0x100);
        for _ in 0..20 {
            let mut wanted = options(start);
            wanted.caps.most_changes = cap;
            let mut decoder = Decoder::new(wanted);
            decoder.buffer().extend_from_slice(&frames);
            while matches!(decoder.advance().unwrap(), Event::Keepalive { .. }) {}
            if decoder.is_empty() {
                break;
            }
            let batch = decoder.take_batch();
            seen.extend(batch.changes().map(|c| show_change(&c)));
            start = PgCursor::decode(batch.cursor()).unwrap();
        }
        assert_eq!(seen, expected, "cap {cap}");
    }
}

#[test]
fn half_a_transaction_that_does_not_come_again_is_a_gap() {
    let mut start = at(0x100);
    start.inside = Some(Inside {
        final_lsn: Lsn(0x200),
        rows: 2,
    });
    let next = [begin(0x300, 2), people(), insert("4"), commit(0x300, 0x330)].concat();
    let (out, end, _) = decode_pieces(options(start), &[&next]);
    end.unwrap();
    assert_eq!(
        out,
        [
            "gap position_lost public.people".to_owned(),
            format!("Insert 0/300#0 new('4' {ADA})"),
            "@ 0/330".to_owned(),
        ]
    );
    let (out, _, decoder) = decode_pieces(options(start), &[&keepalive(0x180, false)]);
    assert_eq!((out.len(), decoder.whole_position()), (0, None));
}

#[test]
fn an_idle_log_moves_the_position_and_an_open_transaction_does_not() {
    let mut decoder = Decoder::new(options(at(0x100)));
    decoder.buffer().extend_from_slice(&keepalive(0x180, true));
    assert_eq!(decoder.advance().unwrap(), Event::Keepalive { reply: true });
    assert_eq!(decoder.whole_position(), Some(at(0x180)));
    let open = [begin(0x200, 1), keepalive(0x500, false)].concat();
    decoder.buffer().extend_from_slice(&open);
    assert_eq!(
        decoder.advance().unwrap(),
        Event::Keepalive { reply: false }
    );
    assert_eq!(decoder.whole_position(), None);
    assert_eq!(decoder.received(), Lsn(0x500));
    decoder.buffer().extend_from_slice(&commit(0x200, 0x230));
    decoder.advance().unwrap();
    assert_eq!(decoder.whole_position(), Some(at(0x230)));
}

#[test]
fn a_transaction_of_half_the_cap_is_never_split() {
    let mut wanted = options(at(0x100));
    wanted.caps.most_changes = 6;
    let mut frames = vec![begin(0x200, 1), people(), insert("0"), commit(0x200, 0x210)];
    for tx in 1..8 {
        frames.push(begin(0x200 + tx * 0x20, 2));
        frames.extend((0..3).map(|i| insert(&i.to_string())));
        frames.push(commit(0x200 + tx * 0x20, 0x210 + tx * 0x20));
    }
    let (out, _, _) = decode_pieces(wanted, &[&frames.concat()]);
    let cursors: Vec<_> = out.iter().filter(|line| line.starts_with('@')).collect();
    assert_eq!(cursors.len(), 7);
    assert!(cursors.iter().all(|c| !c.contains('#')), "{cursors:?}");
}

#[test]
fn a_batch_that_is_waited_for_ends_behind_so_many_changes_and_grows_otherwise() {
    let mut frames = vec![people()];
    for tx in 0..9 {
        frames.push(begin(0x200 + tx * 0x20, 2));
        frames.extend((0..2).map(|i| insert(&i.to_string())));
        frames.push(commit(0x200 + tx * 0x20, 0x210 + tx * 0x20));
    }
    for (is_awaited, expected) in [(true, vec![4, 4, 4, 4]), (false, vec![16])] {
        let mut wanted = options(at(0x100));
        wanted.caps.changes = 3;
        wanted.caps.most_changes = 32;
        let mut decoder = Decoder::new(wanted);
        decoder.set_awaited(is_awaited);
        decoder.buffer().extend_from_slice(&frames.concat());
        let mut sizes = Vec::new();
        while decoder.advance().unwrap() == Event::Full {
            sizes.push(decoder.take_batch().len());
        }
        assert_eq!(
            (sizes, decoder.len()),
            (expected, 2),
            "awaited: {is_awaited}"
        );
    }
}

#[test]
fn a_batch_is_full_by_bytes_too() {
    let mut wanted = options(at(0));
    wanted.caps.bytes = 1_000;
    let mut frames = vec![begin(0x200, 1), people()];
    frames.extend((0..100).map(|i| insert(&i.to_string())));
    frames.push(commit(0x200, 0x230));
    let (out, end, _) = decode_pieces(wanted, &[&frames.concat()]);
    end.unwrap();
    let batches = out.iter().filter(|line| line.starts_with('@')).count();
    assert!((8..=60).contains(&batches), "{batches}");
    assert_eq!(out.len() - batches, 100);
}

#[test]
fn the_end_and_the_errors_of_the_server_are_told_apart() {
    let (_, end, _) = decode_pieces(
        options(at(0)),
        &[&frame(b'E', b"SFATAL\0C57P01\0Mterminating connection\0\0")],
    );
    let error = end.unwrap_err();
    assert_eq!(error.code(), "server_shutdown");
    assert!(error.is_transient());
    let mut decoder = Decoder::new(options(at(0)));
    decoder.buffer().extend_from_slice(&frame(b'c', b""));
    assert_eq!(decoder.advance().unwrap(), Event::Ended);
}

#[test]
fn what_the_protocol_does_not_allow_is_an_error_and_quotes_nothing() {
    let cells = [C::Text("marker-7"), C::Null, C::Null, C::Null];
    let ok = [begin(0x200, 1), people()];
    let mut cases = vec![
        vec![b'd', 0, 0, 0, 3],
        vec![b'd', 0x7f, 0xff, 0xff, 0xff],
        frame(b'd', b""),
        frame(b'd', b"w"),
        frame(b'd', b"q"),
        frame(b'x', b""),
        log(0, b""),
        log(0, b"Zmarker-7"),
        begin(0x300, 2),
        commit(0x900, 0x930),
        log(0, b"I\0\0"),
        row(b'I', 4_711, &[(b'N', &cells)]),
        row(b'I', OID, &[(b'N', &cells[..3])]),
        row(b'I', OID, &[(b'K', &cells)]),
        row(b'U', OID, &[(b'K', &cells)]),
        row(b'D', OID, &[(b'N', &cells)]),
        log(0, b"T\xff\xff\xff\xff\0"),
        log(0, b"R\0\0\0\x01public"),
    ];
    let mut long = row(b'I', OID, &[(b'N', &cells)]);
    let at_len = long.len() - 3 - 8 - 4;
    long[at_len..at_len + 4].copy_from_slice(&0x7fff_0000u32.to_be_bytes());
    cases.push(long);
    for case in cases {
        let bytes = [ok.concat(), case.clone()].concat();
        let (_, end, _) = decode_pieces(options(at(0x100)), &[&bytes]);
        let error = end.expect_err(&String::from_utf8_lossy(&case));
        assert_eq!(error.code(), "protocol_violation", "{case:?}");
        assert!(!error.is_transient() && !error.to_string().contains("marker"));
    }
    let cells = [C::Text("1"), C::Null, C::Text("marker-7"), C::Null];
    let bytes = [ok.concat(), row(b'I', OID, &[(b'N', &cells)])].concat();
    let (_, end, _) = decode_pieces(options(at(0x100)), &[&bytes]);
    let error = end.unwrap_err();
    assert_eq!(error.code(), "unexpected_form");
    assert!(error.to_string().contains("seen") && !error.to_string().contains("marker"));
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_changes(
        mut cuts in prop::collection::vec(0usize..800, 0..12),
        cap in 1usize..8,
    ) {
        let (frames, expected) = two_transactions();
        cuts.push(0);
        cuts.push(frames.len());
        for cut in &mut cuts {
            *cut = (*cut).min(frames.len());
        }
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &frames[w[0]..w[1]]).collect();
        let mut wanted = options(at(0x100));
        wanted.caps.most_changes = cap;
        let (mut out, end, decoder) = decode_pieces(wanted, &pieces);
        end.unwrap();
        prop_assert_eq!(decoder.whole_position(), Some(at(0x330)));
        out.retain(|line| !line.starts_with('@'));
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_pieces(options(at(0)), &[&bytes]);
        let framed: Vec<u8> = [begin(0x200, 1), people(), log(0, &bytes), frame(b'd', &bytes)].concat();
        let _ = decode_pieces(options(at(0)), &[&framed]);
        for tag in *b"BCRYOIUDTM" {
            let body = [&[tag][..], &OID.to_be_bytes(), &bytes].concat();
            let framed: Vec<u8> = [begin(0x200, 1), people(), log(0, &body)].concat();
            let _ = decode_pieces(options(at(0)), &[&framed]);
        }
    }

    #[test]
    fn damaged_messages_never_panic(at_byte in 0usize..1_000, bit in 0u8..8, len in 0usize..1_000) {
        let (mut frames, _) = two_transactions();
        let n = frames.len();
        frames[at_byte % n] ^= 1 << bit;
        let _ = decode_pieces(options(at(0)), &[&frames]);
        let _ = decode_pieces(options(at(0)), &[&frames[..len.min(n)]]);
    }
}

/// A table beside `people`, as the query side knows it.
fn unit(oid: u32) -> Followed {
    let mut schema = (*people_schema()).clone();
    schema.table.name = "unit".to_owned();
    schema.columns.truncate(2);
    Followed {
        schema: Arc::new(schema),
        type_oids: vec![23, 25],
        table_oid: Some(oid),
        key: None,
    }
}

/// Reads to the end with a related table; what each change is: table, operation, ordinal.
fn decode_related(
    frames: &[Vec<u8>],
    start: PgCursor,
    changes: usize,
) -> (Vec<(u16, Op, u32)>, Vec<PgCursor>) {
    let mut wanted = options(start);
    wanted.followed.push(unit(OID + 1));
    wanted.caps.changes = changes;
    let mut decoder = Decoder::new(wanted);
    decoder.buffer().extend_from_slice(&frames.concat());
    let (mut seen, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let event = decoder.advance().unwrap();
        assert_ne!(event, Event::Items, "nothing but rows");
        let batch = decoder.take_batch();
        seen.extend(
            batch
                .changes()
                .map(|c| (c.table_no().0, c.op(), c.ordinal())),
        );
        cursors.push(PgCursor::decode(batch.cursor()).unwrap());
        if event == Event::NeedsMore {
            return (seen, cursors);
        }
    }
}

#[test]
fn a_split_transaction_of_several_tables_goes_on_where_it_was_left() {
    let of_unit = |tag| {
        let cells = [C::Text("7"), C::Text("Sales")];
        row(
            tag,
            OID + 1,
            &[(if tag == b'D' { b'K' } else { b'N' }, &cells)],
        )
    };
    let frames = [
        begin(0x200, 705),
        relation(OID + 1, "unit", &PEOPLE[..2]),
        of_unit(b'I'),
        people(),
        insert("1"),
        relation(OID + 2, "else", &PEOPLE[..2]),
        row(b'I', OID + 2, &[(b'N', &[C::Text("1"), C::Null])]),
        of_unit(b'D'),
        insert("2"),
        truncate(&[OID + 1, OID + 2, OID]),
        commit(0x200, 0x230),
    ];
    let all = [
        (1, Op::Insert, 0),
        (0, Op::Insert, 1),
        (1, Op::Delete, 3),
        (0, Op::Insert, 4),
        (0, Op::Truncate, 5),
        (1, Op::Truncate, 5),
    ];
    for cap in 1..=6 {
        let (seen, cursors) = decode_related(&frames, at(0x100), cap);
        assert_eq!(seen, all, "in batches of {cap}");
        for cursor in cursors {
            let first = cursor.inside.map_or(u32::MAX, |inside| inside.rows);
            let left: Vec<_> = all.iter().copied().filter(|c| c.2 >= first).collect();
            let (again, _) = decode_related(&frames, cursor, 100);
            assert_eq!(again, left, "behind {cursor}");
        }
    }
}

#[test]
fn beside_others_batches_are_small_from_the_next_one_on() {
    let mut frames = vec![people()];
    for tx in 0..9 {
        frames.push(begin(0x200 + tx * 0x20, 2));
        frames.extend((0..10).map(|i| insert(&i.to_string())));
        frames.push(commit(0x200 + tx * 0x20, 0x210 + tx * 0x20));
    }
    let small = Some(Small { taking: 25 });
    for (small, expected, rest) in [(small, vec![20, 20, 20, 20], 10), (None, vec![], 90)] {
        let mut decoder = Decoder::new(options(at(0x100)));
        decoder.keep_small(small);
        decoder.buffer().extend_from_slice(&frames.concat());
        let mut sizes: Vec<usize> = Vec::new();
        while decoder.advance().unwrap() == Event::Full {
            sizes.push(decoder.take_batch().len());
        }
        assert_eq!((sizes, decoder.len()), (expected, rest), "{small:?}");
    }
}

#[test]
fn beside_others_a_transaction_that_takes_is_split_where_its_limit_can_trip() {
    let key = [C::Text("7"), C::Null, C::Null, C::Null];
    let deleted = row(b'D', OID, &[(b'K', &key)]);
    for (rows, expected, rest) in [(insert("7"), vec![25, 25], 10), (deleted, vec![40], 20)] {
        let mut decoder = Decoder::new(options(at(0x100)));
        decoder.keep_small(Some(Small { taking: 40 }));
        let frames = [begin(0x200, 2), people(), rows.repeat(60)].concat();
        decoder.buffer().extend_from_slice(&frames);
        let mut sizes: Vec<usize> = Vec::new();
        while decoder.advance().unwrap() == Event::Full {
            sizes.push(decoder.take_batch().len());
        }
        assert_eq!((sizes, decoder.len()), (expected, rest));
    }
}
