//! What each file holds.

use std::collections::HashMap;
use std::path::Path;

use rollcall_binlog::charset::Charset;
use rollcall_binlog::event::Flavour;
use rollcall_binlog::rows::OldRows;
use rollcall_binlog::types::{ColumnFacts, Disguised, ZeroDates};

use crate::reading::Reader;

fn read(mut reader: Reader, log: &str, expected: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs");
    reader.file(&std::fs::read(folder.join(log)).unwrap());
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(expected);
    std::fs::write(&found, &reader.lines).unwrap();
    let expected = std::fs::read_to_string(folder.join(expected)).unwrap_or_default();
    let difference = reader
        .lines
        .lines()
        .zip(expected.lines().chain(std::iter::repeat("")))
        .find(|(found, expected)| found != expected);
    assert_eq!(
        (difference, reader.lines.lines().count()),
        (None, expected.lines().count()),
        "compare with {}",
        found.display()
    );
}

#[test]
fn every_type_of_mariadb_reads_as_the_server_says() {
    let mut reader = Reader::new(Flavour::Mariadb);
    reader.disguised = HashMap::from([
        ("u", Disguised::Uuid),
        ("u2", Disguised::Uuid),
        ("i6", Disguised::Inet6),
        ("i6b", Disguised::Inet6),
        ("i4", Disguised::Inet4),
        ("j", Disguised::Json),
    ]);
    read(reader, "mariadb-10.11.binlog", "mariadb-10.11.txt");
}

#[test]
fn every_type_of_mysql_reads_as_the_server_says() {
    read(
        Reader::new(Flavour::Mysql),
        "mysql-9.7.binlog",
        "mysql-9.7.txt",
    );
}

#[test]
fn only_keys_are_decoded_of_old_rows_where_no_more_is_wanted() {
    let mut reader = Reader::new(Flavour::Mysql);
    reader.old_rows = OldRows::Key;
    reader.zero_dates = ZeroDates::Text;
    read(reader, "mysql-9.7.binlog", "mysql-9.7-keys.txt");
}

#[test]
fn compressed_events_without_metadata_read_with_what_the_catalogue_says() {
    let mut reader = Reader::new(Flavour::Mariadb);
    let latin1 = Charset::by_name("latin1");
    reader.facts = vec![
        ColumnFacts {
            is_unsigned: Some(true),
            ..ColumnFacts::default()
        },
        ColumnFacts {
            charset: latin1,
            ..ColumnFacts::default()
        },
        ColumnFacts {
            members: Some(vec!["a".to_owned(), "b".to_owned()]),
            ..ColumnFacts::default()
        },
        ColumnFacts {
            charset: Some(Charset::Binary),
            ..ColumnFacts::default()
        },
        ColumnFacts {
            is_unsigned: Some(false),
            ..ColumnFacts::default()
        },
    ];
    read(
        reader,
        "mariadb-10.11-compressed.binlog",
        "mariadb-10.11-compressed.txt",
    );
}
