#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4f11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

#[test]
fn sets_print_and_parse_as_the_server_spells_them() {
    for text in [
        String::new(),
        format!("{A}:1"),
        format!("{A}:1-5:7:9-12,{B}:1-9223372036854775806"),
        format!("{A}:1-5:blue:1-3:7:green:2"),
        format!("{A}:blue:1-3,{B}:1"),
    ] {
        assert_eq!(set(&text).to_string(), text);
    }
    let loose = format!(" {}:7-9:1-3 :4-6,\n{B}:2,,{A}:20 ", A.to_uppercase());
    assert_eq!(set(&loose).to_string(), format!("{A}:1-9:20,{B}:2"));
    assert_eq!(
        set(&format!("{A}:5-3")),
        GtidSet::new(),
        "an empty interval is allowed"
    );
    assert_eq!(
        set(&format!("{}:1", A.replace('-', ""))),
        set(&format!("{A}:1"))
    );
    assert_eq!(set(&format!("{A}:BLUE:1")), set(&format!("{A}:blue:1")));
    for text in [
        "x".to_owned(),
        A.to_owned(),
        format!("{A}:"),
        format!("{A}:0"),
        format!("{A}:1-"),
        format!("{A}:-1"),
        format!("{A}:1-9223372036854775807"),
        format!("{A}:99999999999999999999"),
        format!("{A}:+1"),
        format!("{A}:blue"),
        format!("{A}:1:blue"),
        format!("{A}:b-l:1"),
        format!("{A}:{}:1", "b".repeat(33)),
        format!("{A}1:1"),
    ] {
        assert!(text.parse::<GtidSet>().is_err(), "{text}");
    }
}

#[test]
fn single_transactions_print_and_parse() {
    for text in [format!("{A}:1"), format!("{A}:blue:23")] {
        assert_eq!(text.parse::<Gtid>().unwrap().to_string(), text);
    }
    for text in [
        format!("{A}:0"),
        format!("{A}::1"),
        format!("{A}:blue:"),
        "1:1".to_owned(),
    ] {
        assert!(text.parse::<Gtid>().is_err(), "{text}");
    }
}

#[test]
fn a_hole_stays_a_hole() {
    let mut applied = set(&format!("{A}:1-5:7"));
    assert!(!applied.contains(format!("{A}:6").parse().unwrap()));
    assert_eq!(
        set(&format!("{A}:1-7")).minus(&applied),
        set(&format!("{A}:6"))
    );
    applied.add(format!("{A}:6").parse().unwrap());
    assert_eq!(applied, set(&format!("{A}:1-7")));
}

#[test]
fn a_tag_is_another_origin() {
    let plain = set(&format!("{A}:1-5"));
    let tagged = set(&format!("{A}:blue:1-5"));
    assert!(!plain.contains_all(&tagged));
    assert_eq!(plain.minus(&tagged), plain);
    assert!(tagged.has_tags() && !plain.has_tags());
}

#[test]
fn the_binary_form_is_the_servers() {
    let mut bytes = Vec::new();
    set(&format!("{A}:1-5:7")).encode(&mut bytes);
    let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0];
    expected.extend(A.parse::<ServerUuid>().unwrap().0);
    for n in [2u64, 1, 6, 7, 8] {
        expected.extend(n.to_le_bytes());
    }
    assert_eq!(bytes, expected, "the end of an interval is not part of it");

    bytes.clear();
    set(&format!("{A}:1:up:2")).encode(&mut bytes);
    let mut expected = vec![1, 2, 0, 0, 0, 0, 0, 1];
    expected.extend(A.parse::<ServerUuid>().unwrap().0);
    expected.push(0);
    for n in [1u64, 1, 2] {
        expected.extend(n.to_le_bytes());
    }
    expected.extend(A.parse::<ServerUuid>().unwrap().0);
    expected.extend([4, b'u', b'p']);
    for n in [1u64, 2, 3] {
        expected.extend(n.to_le_bytes());
    }
    assert_eq!(bytes, expected);
}

#[test]
fn a_count_that_is_not_there_allocates_nothing() {
    let mut bytes = vec![0xFF; 6];
    bytes.extend([0, 0]);
    assert!(GtidSet::decode(&bytes).is_err());
    let mut bytes = Vec::new();
    set(&format!("{A}:1")).encode(&mut bytes);
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(GtidSet::decode(&bytes).is_err());
}

/// Few origins and small numbers, so that sets meet.
fn gtids() -> impl Strategy<Value = BTreeSet<(u8, u8, u64)>> {
    proptest::collection::btree_set((0..2u8, 0..3u8, 1..20u64), 0..40)
}

fn of(gtids: &BTreeSet<(u8, u8, u64)>) -> GtidSet {
    gtids
        .iter()
        .map(|&(server, tag, number)| {
            let tag = ["", "a", "ab"][usize::from(tag)].parse().unwrap();
            let uuid = ServerUuid([server; 16]);
            Gtid::new(Origin { uuid, tag }, number).unwrap()
        })
        .collect()
}

proptest! {
    #[test]
    fn sets_do_what_plain_sets_do(a in gtids(), b in gtids()) {
        let (left, right) = (of(&a), of(&b));
        prop_assert_eq!(left.count(), a.len() as u64);
        let union = a.union(&b).copied().collect();
        let mut both = left.clone();
        both.add_all(&right);
        prop_assert_eq!(&both, &of(&union));
        let difference = a.difference(&b).copied().collect();
        prop_assert_eq!(left.minus(&right), of(&difference));
        prop_assert_eq!(left.contains_all(&right), b.is_subset(&a));
        prop_assert_eq!(left == right, a == b);
    }

    #[test]
    fn sets_read_back_from_text_and_bytes(a in gtids()) {
        let set = of(&a);
        prop_assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set.clone());
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        prop_assert_eq!(GtidSet::decode(&bytes).unwrap(), set);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = GtidSet::decode(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(tail in "[0-9a-c:,\\- \n]{0,24}") {
        if let Ok(set) = format!("{A}:{tail}").parse::<GtidSet>() {
            prop_assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set);
        }
    }
}
