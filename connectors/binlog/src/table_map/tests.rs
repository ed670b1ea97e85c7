#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use proptest::prelude::*;

use super::*;

/// id INT, name VARCHAR(100) utf8mb4, kind ENUM('a','bb'), price DECIMAL(10,2) unsigned.
fn sample() -> Vec<u8> {
    let mut out = vec![5, 0, 0, 0, 0, 0, 1, 0];
    out.extend(b"\x02hr\0\x06people\0");
    out.extend([4, 3, 15, 254, 246]);
    out.extend([6, 0x90, 1, 247, 1, 10, 2]);
    out.push(0b1110);
    out.extend([1, 1, 0b0100_0000]);
    out.extend([2, 1, 45]);
    out.extend([10, 1, 8]);
    out.extend([4, 19]);
    out.extend(b"\x02id\x04name\x04kind\x05price");
    out.extend([6, 6]);
    out.extend(b"\x02\x01a\x02bb");
    out.extend([8, 1, 0]);
    out.extend([200, 1, 9]);
    out
}

#[test]
fn a_full_map_describes_its_table() {
    let map = TableMap::parse(&sample(), Flavour::Mysql).unwrap();
    assert_eq!(
        (map.id, map.database.as_str(), map.table.as_str()),
        (TableId(5), "hr", "people")
    );
    assert!(map.has_names());
    let names: Vec<_> = map
        .columns
        .iter()
        .filter_map(|c| c.name.as_deref())
        .collect();
    assert_eq!(names, ["id", "name", "kind", "price"]);
    let [id, name, kind, price] = &map.columns[..] else {
        panic!("another number of columns");
    };
    assert_eq!(
        (id.code, id.is_nullable, id.is_unsigned),
        (TypeCode::LONG, false, Some(false))
    );
    assert_eq!(
        (name.code, name.meta, name.collation),
        (TypeCode::VARCHAR, 400, Some(45))
    );
    assert_eq!(
        (kind.code, kind.meta, kind.collation),
        (TypeCode::ENUM, 1, Some(8))
    );
    assert_eq!(
        kind.members.as_deref().unwrap(),
        [b"a".to_vec(), b"bb".to_vec()]
    );
    assert_eq!(
        (price.code, price.meta, price.is_unsigned),
        (TypeCode::NEWDECIMAL, 0x0A02, Some(true))
    );
    assert_eq!(
        map.primary_key.unwrap(),
        [KeyPart {
            column: 0,
            prefix: 0
        }]
    );
}

#[test]
fn the_length_of_a_long_char_hides_in_its_type() {
    // CHAR(255) in utf8mb4 has 1,020 bytes.
    let mut f = Fields::new(WHAT, &[0xCE, 0xFC]);
    assert_eq!(
        type_and_meta(TypeCode::STRING, &mut f).unwrap(),
        (TypeCode::STRING, 1020)
    );
    let mut f = Fields::new(WHAT, &[0xFE, 0xFF]);
    assert_eq!(
        type_and_meta(TypeCode::STRING, &mut f).unwrap(),
        (TypeCode::STRING, 255)
    );
}

#[test]
fn the_same_bytes_give_the_same_map_and_an_ended_statement_none() {
    let mut maps = TableMaps::new(Flavour::Mysql);
    let first = Arc::clone(maps.learn(&sample()).unwrap());
    maps.end_statement();
    assert!(maps.get(TableId(5)).is_none());
    assert!(Arc::ptr_eq(&first, maps.learn(&sample()).unwrap()));
    assert!(Arc::ptr_eq(&first, maps.get(TableId(5)).unwrap()));
    let mut other = sample();
    other[9] = b'q';
    let second = Arc::clone(maps.learn(&other).unwrap());
    assert_eq!(second.database, "qr");
    assert!(!Arc::ptr_eq(&first, &second));
}

proptest! {
    #[test]
    fn damaged_maps_are_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = TableMap::parse(&bytes, Flavour::Mariadb);
        bytes.truncate(cut.index(bytes.len()));
        let _ = TableMap::parse(&bytes, Flavour::Mariadb);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = TableMap::parse(&bytes, Flavour::Mariadb);
    }
}
