//! What is counted of a batch, and which records its run names.

use super::*;

/// Key, reason, whether it is applied again, attribute and rule of each noted record.
type Line = (&'static str, SkipReason, bool, Option<AttrId>, Option<u16>);

fn noted(w: &World) -> Vec<Line> {
    let name = |key: &[u8]| {
        ["", "1", "2", "3"]
            .into_iter()
            .find(|k| k.as_bytes() == key)
    };
    let lines = w.last.noted.iter();
    lines
        .map(|n| {
            (
                name(&n.key).unwrap(),
                n.reason,
                n.healed,
                n.attribute,
                n.rule,
            )
        })
        .collect()
}

fn reasons(w: &World) -> Vec<(SkipReason, u64)> {
    w.last.counters.reasons.iter().collect()
}

const EMAIL: Option<AttrId> = Some(crate::attribute::EMAIL);
const FAILED: Line = ("1", SkipReason::TypeMismatch, false, None, Some(7));

#[test]
fn a_record_that_fails_is_named_with_its_rule_and_told_once_it_heals() {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "16=a@x;!fail"));
    assert_eq!(noted(&w), [FAILED]);
    assert_eq!(reasons(&w), [(SkipReason::TypeMismatch, 1)]);
    w.one(put(A, "1", "16=a@x"));
    let healed = ("1", SkipReason::TypeMismatch, true, None, None);
    assert_eq!(noted(&w), [healed], "one without a user");
    assert_eq!((w.last.counters.created, w.last.counters.healed), (1, 1));
    w.one(put(A, "1", "16=a@x;!fail"));
    assert_eq!(noted(&w), [FAILED]);
    w.one(put(A, "1", "16=a@x;10=Boss"));
    assert_eq!(noted(&w), [healed], "one with a user");
    w.one(put(A, "1", "16=a@x;10=Clerk"));
    assert!(noted(&w).is_empty());
}

#[test]
fn a_scan_that_passes_over_held_records_counts_them_as_left_out_again() {
    let mut w = World::new(two_sources());
    w.batch(&[put(A, "1", "16=a@x"), put(A, "2", "16=a@x")]);
    let duplicates = [
        ("1", SkipReason::DuplicateInSource, false, EMAIL, None),
        ("2", SkipReason::DuplicateInSource, false, EMAIL, None),
    ];
    assert_eq!(noted(&w), duplicates);
    w.one(put(A, "3", "16=c@x"));
    w.one(put(A, "3", "16=c@x;!fail"));
    let rows = ["16=a@x", "16=a@x", "16=c@x;!fail"];
    for _ in 0..2 {
        let steps: Vec<Step> = ["1", "2", "3"]
            .into_iter()
            .zip(rows)
            .map(|(key, row)| scan(A, key, row))
            .collect();
        w.batch(&steps);
        let c = &w.last.counters;
        assert_eq!((c.processed, c.unchanged), (3, 0));
        assert_eq!((c.skipped, c.errored), (2, 1));
        let failed = ("3", SkipReason::TypeMismatch, false, None, Some(7));
        assert_eq!(noted(&w), [&duplicates[..], &[failed]].concat());
    }
}

#[test]
fn a_scan_that_passes_over_a_held_record_of_a_user_counts_it_as_left_out_again() {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "16=a@x"));
    w.one(put(A, "2", "16=a@x"));
    w.one(scan(A, "1", "16=a@x"));
    assert_eq!((w.last.counters.skipped, w.last.counters.unchanged), (1, 0));
    let held = ("1", SkipReason::DuplicateInSource, false, EMAIL, None);
    assert_eq!(noted(&w), [held]);
}

#[test]
fn what_a_scan_holds_back_counts_as_what_becomes_of_it() {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "16=a@x"));
    w.counting(Counting::HoldBack);
    w.one(scan(A, "1", "16=b@x"));
    assert_eq!((w.last.counters.processed, w.last.counters.skipped), (1, 0));
    assert!(noted(&w).is_empty());
    assert_eq!(w.staged().len(), 1);
    w.approve();
    let c = &w.last.counters;
    assert_eq!((c.updated, c.processed, c.healed), (1, 0, 0));
    assert!(noted(&w).is_empty());
    // While a plan is open, whatever counts is left out at once.
    w.counting(Counting::Stage);
    w.one(scan(A, "1", "16=c@x"));
    assert_eq!(noted(&w), [("1", SkipReason::Staged, false, None, None)]);
}
