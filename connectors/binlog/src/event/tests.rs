#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use proptest::prelude::*;

use super::*;
use crate::gtid::mysql::{Gtid, ServerUuid};

fn event(kind: u8, flags: u16, body: &[u8], with_checksum: bool) -> Vec<u8> {
    let size = Header::LEN + body.len() + if with_checksum { 4 } else { 0 };
    let mut out = vec![1, 0, 0, 0, kind, 7, 0, 0, 0];
    out.extend((size as u32).to_le_bytes());
    out.extend(120u32.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(body);
    if with_checksum {
        out.extend(crc32fast::hash(&out).to_le_bytes());
    }
    out
}

fn format_description(algorithm: u8) -> Vec<u8> {
    let mut body = vec![4, 0];
    body.extend(b"10.11.19-MariaDB-log");
    body.resize(52, 0);
    body.extend([0, 0, 0, 0, 19]);
    body.extend([8; 40]);
    body.push(algorithm);
    event(15, 0, &body, true)
}

#[test]
fn a_checksum_is_verified_and_taken_away() {
    let mut framing = Framing::new();
    let description = format_description(1);
    let Event::FormatDescription(format) = framing.open(&description).unwrap().parse().unwrap()
    else {
        panic!("another event");
    };
    assert_eq!(format.server_version, "10.11.19-MariaDB-log");
    assert_eq!(format.flavour(), Flavour::Mariadb);
    assert!(framing.has_checksum());
    let mut xid = event(16, 0, &[1, 0, 0, 0, 0, 0, 0, 0], true);
    let raw = framing.open(&xid).unwrap();
    assert_eq!((raw.body.len(), raw.header.server_id), (8, 7));
    assert!(matches!(raw.parse().unwrap(), Event::Xid(1)));
    for at in 0..xid.len() {
        xid[at] ^= 4;
        assert!(framing.open(&xid).is_err(), "{at}");
        xid[at] ^= 4;
    }
}

#[test]
fn without_checksums_a_body_keeps_its_last_bytes() {
    let mut framing = Framing::new();
    framing.open(&format_description(0)).unwrap();
    let xid = event(16, 0, &[1, 0, 0, 0, 0, 0, 0, 0], false);
    assert_eq!(framing.open(&xid).unwrap().body.len(), 8);
    assert!(framing.open(&format_description(9)).is_err());
}

#[test]
fn the_first_artificial_rotate_reads_with_and_without_a_checksum() {
    let mut body = 4u64.to_le_bytes().to_vec();
    body.extend(b"binlog.000001");
    for with_checksum in [false, true] {
        let bytes = event(4, Header::ARTIFICIAL, &body, with_checksum);
        let raw = Framing::new().open(&bytes).unwrap();
        assert!(raw.header.is_artificial());
        let Event::Rotate(rotate) = raw.parse().unwrap() else {
            panic!("another event");
        };
        assert_eq!(
            rotate,
            Rotate {
                file: "binlog.000001",
                position: 4
            }
        );
    }
}

#[test]
fn an_unknown_event_says_whether_it_may_be_left_out() {
    for (flags, ignorable) in [(0, false), (Header::IGNORABLE, true)] {
        let bytes = event(99, flags, &[1, 2], false);
        let raw = Framing::new().open(&bytes).unwrap();
        assert!(matches!(
            raw.parse().unwrap(),
            Event::Unknown { kind: 99, is_ignorable } if is_ignorable == ignorable
        ));
    }
}

#[test]
fn a_gtid_event_gives_the_commit_time_to_the_microsecond() {
    let mut body = vec![1];
    body.extend([0xAB; 16]);
    body.extend(42u64.to_le_bytes());
    body.push(2);
    body.extend([0; 16]);
    let mut old = body.clone();
    old.truncate(25);
    let commit = 1_700_000_000_123_456u64;
    body.extend(&(commit | 1 << 55).to_le_bytes()[..7]);
    body.extend(&(commit - 1).to_le_bytes()[..7]);
    body.push(200);
    let event = GtidEvent::parse(&body).unwrap();
    let gtid = Gtid::new(ServerUuid([0xAB; 16]).into(), 42).unwrap();
    assert_eq!(event.gtid, Some(gtid));
    assert_eq!(event.commit_us, Some(commit));
    assert_eq!(event.original_commit_us, Some(commit - 1));
    assert_eq!(event.length, Some(200));
    assert_eq!(GtidEvent::parse(&old).unwrap().commit_us, None);
}

#[test]
fn a_query_carries_what_decides_how_it_reads() {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0];
    let mut status = vec![0, 0, 0, 0, 0, 1];
    status.extend((1u64 << 2 | 1 << 20).to_le_bytes());
    status.extend([6, 3]);
    status.extend(b"std");
    status.extend([4, 33, 0, 33, 0, 8, 0, 13, 1, 0, 0, 99, 1]);
    body.extend((status.len() as u16).to_le_bytes());
    body.extend(&status);
    body.extend(b"hr\0drop table t");
    let query = Query::parse(&body, false).unwrap();
    assert_eq!(query.database, "hr");
    assert!(query.sql_mode.ansi_quotes() && query.sql_mode.no_backslash_escapes());
    assert_eq!(query.client_collation, Some(33));
    assert_eq!(query.server_collation, Some(8));
    assert_eq!(query.micros, Some(1));
    assert_eq!(&*query.text().unwrap(), b"drop table t");
    assert!(query.updated_databases().is_none());
}

#[test]
fn a_statement_names_the_databases_that_it_changes_unless_they_are_too_many() {
    for (status, expected) in [
        (
            &b"\x0c\x02hr\0pay\0\x0d\x07\0\0"[..],
            Some(vec!["hr", "pay"]),
        ),
        (b"\x0c\xfe\x0d\x07\0\0", None),
        (b"\x0d\x07\0\0", None),
    ] {
        let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        body.extend((status.len() as u16).to_le_bytes());
        body.extend(status);
        body.extend(b"\0insert into t values (1)");
        let query = Query::parse(&body, false).unwrap();
        let found = query.updated_databases().map(Iterator::collect::<Vec<_>>);
        assert_eq!(found, expected);
        assert_eq!((query.database, query.micros), ("", Some(7)));
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

/// What dumps of MariaDB 10.11 and MySQL 9.7 sent.
#[test]
fn events_of_real_dumps_read() {
    for bytes in [
        "0000000004070000002c000000000000002000040000000000000062696e6c6f672e3030303030319aa81da2",
        "0000000004080000002c000000000000002000040000000000000062696e6c6f672e3030303030312464116b",
    ] {
        let bytes = unhex(bytes);
        let raw = Framing::new().open(&bytes).unwrap();
        assert!(matches!(
            raw.parse().unwrap(),
            Event::Rotate(Rotate {
                file: "binlog.000001",
                position: 4
            })
        ));
    }
    for bytes in [
        "000000001b08000000240000006e020000000062696e6c6f672e30303030303229f7eb85",
        "0000000029080000002c0000006e0200000000010d62696e6c6f672e3030303030320203fc6e0200180d8da4",
    ] {
        let bytes = unhex(bytes);
        let raw = Framing::new().open(&bytes).unwrap();
        assert!(matches!(
            raw.parse().unwrap(),
            Event::Heartbeat(Heartbeat {
                file: "binlog.000002",
                position: 622
            })
        ));
    }
}

#[test]
fn the_servers_set_with_a_tag_reads_and_is_written_back_the_same() {
    let bytes = unhex(
        "74ea066b230800000075000000f40000008000010200000000000110fb7fc1e8d511f1abb702fc0000000100\
         010000000000000001000000000000002a0000000000000010fb7fc1e8d511f1abb702fc0000000108626c75\
         65010000000000000001000000000000000200000000000000974bee43",
    );
    let raw = Framing::new().open(&bytes).unwrap();
    let Event::PreviousGtids(set) = raw.parse().unwrap() else {
        panic!("another event");
    };
    assert_eq!(
        set.to_string(),
        "10fb7fc1-e8d5-11f1-abb7-02fc00000001:1-41:blue:1"
    );
    let mut again = Vec::new();
    set.encode(&mut again);
    assert_eq!(again, raw.body);
}

#[test]
fn an_incident_and_an_xa_name_read() {
    let raw = event(26, 0, b"\x01\x00\x04lost", false);
    let Event::Incident(incident) = Framing::new().open(&raw).unwrap().parse().unwrap() else {
        panic!("another event");
    };
    assert_eq!((incident.number, incident.message), (1, &b"lost"[..]));
    let raw = event(38, 0, b"\x01\x05\0\0\0\x02\0\0\0\x01\0\0\0xab", false);
    let Event::XaPrepare(xa) = Framing::new().open(&raw).unwrap().parse().unwrap() else {
        panic!("another event");
    };
    assert!(xa.is_one_phase);
    assert_eq!(xa.xid.to_string(), "X'7861',X'62',5");
    let long = event(38, 0, b"\x01\x05\0\0\0\xff\xff\xff\xff\x01\0\0\0xab", false);
    assert!(Framing::new().open(&long).unwrap().parse().is_err());
}

#[test]
fn an_alter_in_two_phases_says_which_it_is() {
    // `binlog_alter_two_phase = 1` of MariaDB 10.11: DDL, an announced ALTER, its end.
    for (body, begun) in [
        ("02000000000000000000000029000000000000", false),
        ("03000000000000000000000029020000000000", true),
        ("04000000000000000000000029040300000000000000", false),
    ] {
        let body = unhex(body);
        let gtid = MariadbGtid::parse(&body, 7).unwrap();
        assert!(gtid.is_ddl() && gtid.is_standalone());
        assert_eq!(
            (gtid.is_begun_alter(), gtid.is_undone_alter()),
            (begun, false)
        );
    }
    let body = unhex("05000000000000000000000029080300000000000000");
    assert!(MariadbGtid::parse(&body, 7).unwrap().is_undone_alter());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        kind in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let bytes = event(kind, 0, &body, true);
        let mut framing = Framing::new();
        if let Ok(raw) = framing.open(&bytes)
            && let Ok(Event::Query(query)) = raw.parse()
        {
            let _ = query.text();
        }
        let _ = framing.open(&body);
    }
}
