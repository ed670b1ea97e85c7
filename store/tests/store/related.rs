//! A property: after any commits the store says of related tables what a model in memory does,
//! before and after a restart: rows by key and by join value, who is joined, and what is still to
//! be told, in its order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rollcall_core::id::SourceId;
use rollcall_core::state::KeyBytes;
use rollcall_store::{
    Commit, Fanout, Readers, RelatedId, RelatedPlace, RelatedRow, RelatedState, RelatedTableRow,
    RelatedWrites, Writer,
};

use crate::people::*;

const TABLES: u16 = 2;
const VALUES: u64 = 3;
const KEYS: u64 = 5;
const RECORDS: u64 = 6;

#[derive(Default)]
struct Model {
    tables: BTreeMap<RelatedId, RelatedTableRow>,
    rows: BTreeMap<RelatedPlace, RelatedRow>,
    records: BTreeSet<(RelatedPlace, KeyBytes)>,
    fanouts: BTreeMap<RelatedPlace, Fanout>,
}

impl Model {
    fn apply(&mut self, writes: &RelatedWrites) {
        let tables = writes.tables.iter();
        self.tables.extend(tables.map(|t| (t.id, t.clone())));
        let rows = writes.rows.iter();
        self.rows
            .extend(rows.map(|(at, row)| (at.clone(), row.clone())));
        for record in &writes.forgotten {
            self.records.remove(record);
        }
        self.records.extend(writes.records.iter().cloned());
        for (at, fanout) in &writes.fanouts {
            match fanout {
                Some(fanout) => self.fanouts.insert(at.clone(), fanout.clone()),
                None => self.fanouts.remove(at),
            };
        }
    }

    fn forget(&mut self, before_us: i64) {
        let dropped: BTreeSet<RelatedId> = self
            .tables
            .values()
            .filter(|t| t.state == RelatedState::Dropped)
            .map(|t| t.id)
            .collect();
        self.rows
            .retain(|(_, id, _), row| !dropped.contains(id) && !is_old_trace(row, before_us));
        self.records.retain(|((_, id, _), _)| !dropped.contains(id));
        self.fanouts.retain(|(_, id, _), _| !dropped.contains(id));
        self.tables.retain(|id, _| !dropped.contains(id));
    }

    /// The keys of the rows that are there, of those that `is_wanted`.
    fn keys(&self, id: RelatedId, is_wanted: impl Fn(&RelatedRow) -> bool) -> Vec<KeyBytes> {
        let rows = self.rows.iter().filter(|((_, of, _), _)| *of == id);
        let there = rows.filter(|(_, row)| row.cells.is_some() && is_wanted(row));
        there.map(|((_, _, key), _)| key.clone()).collect()
    }

    fn next(&self, of_scan: bool) -> Vec<(RelatedPlace, Fanout)> {
        let all = self.fanouts.iter().filter(|(_, f)| of_scan || !f.of_scan);
        let mut all: Vec<_> = all.map(|(at, f)| (at.clone(), f.clone())).collect();
        all.sort_by_key(|((_, id, joined), f)| (f.of_scan, *id, f.commit_us, joined.clone()));
        all
    }
}

fn is_old_trace(row: &RelatedRow, before_us: i64) -> bool {
    row.cells.is_none() && row.at_us < before_us
}

#[derive(Clone, Debug)]
enum Step {
    Table(u16, RelatedState),
    Row {
        place: (u16, u64),
        joined: Option<u64>,
        cells: Option<u8>,
        at_us: i64,
    },
    Record {
        place: (u16, u64),
        record: u64,
        is_forgotten: bool,
    },
    Fanout {
        place: (u16, u64),
        told: Option<(Option<u64>, bool, i64)>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        Just(RelatedState::Loading),
        Just(RelatedState::Loaded),
        Just(RelatedState::Dropped)
    ];
    prop_oneof![
        1 => (0..TABLES, state).prop_map(|(id, state)| Step::Table(id, state)),
        4 => (
            (0..TABLES, 0..KEYS),
            prop::option::of(0..VALUES),
            prop::option::of(any::<u8>()),
            0..10i64,
        )
            .prop_map(|(place, joined, cells, at_us)| Step::Row {
                place,
                joined,
                cells,
                at_us,
            }),
        4 => ((0..TABLES, 0..VALUES), 0..RECORDS, any::<bool>()).prop_map(
            |(place, record, is_forgotten)| Step::Record {
                place,
                record,
                is_forgotten,
            }
        ),
        3 => (
            (0..TABLES, 0..VALUES),
            prop::option::of((prop::option::of(0..RECORDS), any::<bool>(), 0..3i64)),
        )
            .prop_map(|(place, told)| Step::Fanout { place, told }),
    ]
}

fn place((id, n): (u16, u64)) -> RelatedPlace {
    (SOURCE, RelatedId(id), key(n))
}

fn writes_of(steps: &[Step]) -> RelatedWrites {
    let mut writes = RelatedWrites::default();
    for step in steps {
        // Later ones of a commit come behind the earlier ones.
        let mut next = RelatedWrites::default();
        match step {
            Step::Table(id, state) => next.tables.push(RelatedTableRow {
                source: SOURCE,
                id: RelatedId(*id),
                name: format!("table{id}"),
                definition: "{}".to_owned(),
                state: *state,
            }),
            Step::Row {
                place: at,
                joined,
                cells,
                at_us,
            } => {
                let row = RelatedRow {
                    joined: joined.map(key),
                    cells: cells.map(|fill| vec![fill; 3]),
                    tx: key(*at_us as u64),
                    at_us: *at_us,
                };
                next.rows.insert(place(*at), row);
            }
            Step::Record {
                place: at,
                record,
                is_forgotten: true,
            } => next.forgotten.push((place(*at), key(*record))),
            Step::Record {
                place: at, record, ..
            } => {
                next.records.insert((place(*at), key(*record)));
            }
            Step::Fanout { place: at, told } => {
                let fanout = told.map(|(after, of_scan, commit_us)| Fanout {
                    after: after.map(key),
                    of_scan,
                    position: "0/1".to_owned(),
                    ordinal: 1,
                    commit_us,
                });
                next.fanouts.insert(place(*at), fanout);
            }
        }
        writes.add(&next);
    }
    writes
}

fn compare(writer: &mut Writer, readers: &Readers, model: &Model) -> Result<(), TestCaseError> {
    let tables: Vec<RelatedTableRow> = model.tables.values().cloned().collect();
    prop_assert_eq!(&writer.related_tables(SOURCE).unwrap(), &tables);
    prop_assert_eq!(&readers.related_tables(SOURCE).unwrap(), &tables);
    for id in (0..TABLES).map(RelatedId) {
        for k in 0..KEYS {
            let at = (SOURCE, id, key(k));
            let place = (SOURCE, id, at.2.as_slice());
            let row = model.rows.get(&at).cloned();
            prop_assert_eq!(&writer.related_row(place).unwrap(), &row);
            prop_assert_eq!(&readers.related_row(place).unwrap(), &row);
        }
        let all = model.keys(id, |_| true);
        let (one, last) = (key(1), key(KEYS));
        for (after, limit) in [(&b""[..], usize::MAX), (&one, 2), (&last, 1)] {
            let behind = all.iter().filter(|k| k.as_slice() > after);
            let expected: Vec<KeyBytes> = behind.take(limit).cloned().collect();
            let table = (SOURCE, id);
            let found = writer.related_keys_after(table, after, limit).unwrap();
            prop_assert_eq!(&found, &expected);
            let found = readers.related_keys_after(table, after, limit).unwrap();
            prop_assert_eq!(&found, &expected);
        }
        for joined in (0..VALUES).map(key) {
            compare_value(writer, readers, model, (SOURCE, id, joined))?;
        }
    }
    for of_scan in [false, true] {
        let next = model.next(of_scan);
        prop_assert_eq!(&writer.fanouts(SOURCE, of_scan, usize::MAX).unwrap(), &next);
        let first: Vec<_> = next.into_iter().take(2).collect();
        prop_assert_eq!(&writer.fanouts(SOURCE, of_scan, 2).unwrap(), &first);
    }
    let open = model.fanouts.len() as u64;
    prop_assert_eq!(readers.fanouts_open(SOURCE).unwrap(), open);
    prop_assert_eq!(readers.fanouts_open(SourceId(2)).unwrap(), 0);
    Ok(())
}

/// Rows and records of a join value.
fn compare_value(
    writer: &mut Writer,
    readers: &Readers,
    model: &Model,
    (source, id, joined): RelatedPlace,
) -> Result<(), TestCaseError> {
    let place = (source, id, joined.as_slice());
    let expected = model.keys(id, |row| row.joined.as_ref() == Some(&joined));
    let mut found = Vec::new();
    let show = |key: &[u8], cells: &[u8]| {
        assert_eq!(cells.len(), 3);
        found.push(KeyBytes::from_slice(key));
        true
    };
    writer.related_rows(place, show).unwrap();
    prop_assert_eq!(&found, &expected);
    let mut only = Vec::new();
    let show = |key: &[u8], _: &[u8]| {
        only.push(KeyBytes::from_slice(key));
        false
    };
    readers.related_rows(place, show).unwrap();
    prop_assert_eq!(&only[..], &expected[..expected.len().min(1)]);

    let at = (source, id, joined.clone());
    let records = model.records.iter().filter(|(of, _)| *of == at);
    let records: Vec<KeyBytes> = records.map(|(_, record)| record.clone()).collect();
    let first = key(0);
    for (after, limit) in [(&b""[..], usize::MAX), (&first, 2)] {
        let behind = records.iter().filter(|k| k.as_slice() > after);
        let expected: Vec<KeyBytes> = behind.take(limit).cloned().collect();
        let found = writer.related_records_after(place, after, limit).unwrap();
        prop_assert_eq!(&found, &expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_store_says_of_related_tables_what_a_model_does(
        rounds in prop::collection::vec(
            (prop::collection::vec(step(), 0..12), prop::option::of(0..10i64), any::<bool>()),
            1..8,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut readers) = open(dir.path());
        let mut model = Model::default();
        for (steps, forgotten_before, reopen) in &rounds {
            let writes = writes_of(steps);
            model.apply(&writes);
            let mut next = Commit { related: writes, ..Commit::default() };
            writer.commit(&mut next).unwrap();
            writer.release().unwrap();
            compare(&mut writer, &readers, &model)?;
            if let Some(before_us) = *forgotten_before {
                writer.release().unwrap();
                while writer.forget_related(before_us).unwrap() > 0 {}
                model.forget(before_us);
            }
            if *reopen {
                drop((writer, readers));
                (writer, readers) = open(dir.path());
            }
            writer.release().unwrap();
            compare(&mut writer, &readers, &model)?;
        }
    }
}
