//! The raw changes of a table, for consumers of Debezium's envelope.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rollcall_testbed::Postgres;
use serde_json::{Map, Value};

use crate::company::{Company, hire, hire_all, hire_with, long_note};
use crate::sources::prepared;
use crate::topic::{Record, broker, records, sink};
use crate::world::{Options, World};

const UNAVAILABLE: &str = "__debezium_unavailable_value";
const REDACTED: &str = "r3dacted-in-changes";

fn world(name: &str) -> World {
    let mut options = Options::pages_of(20).and(&sink(broker(), name));
    options.source += &format!("\nchange_stream = {{ sink = \"kafka\", topic = \"{name}.raw\" }}");
    World::on(Arc::new(prepared(Postgres::builder())), &options)
}

/// What a consumer that knows nothing but the envelope ends with: rows by the record's key.
fn fold(records: &[Record]) -> BTreeMap<String, Map<String, Value>> {
    let mut table: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for record in records {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let Some(body) = &record.body else {
            table.remove(&key);
            continue;
        };
        let change: Value = serde_json::from_slice(body).unwrap();
        match change["op"].as_str().unwrap() {
            "d" => {
                assert_eq!(change["after"], Value::Null, "{change}");
                table.remove(&key);
            }
            "c" | "r" | "u" => {
                let row = table.entry(key).or_default();
                for (column, value) in change["after"].as_object().unwrap() {
                    if value != UNAVAILABLE {
                        row.insert(column.clone(), value.clone());
                    }
                }
            }
            op => panic!("{op} in {change}"),
        }
    }
    table
}

/// The table as it is, without the redacted column.
fn table(world: &World) -> BTreeMap<String, Map<String, Value>> {
    let rows = world.db.people();
    rows.into_iter()
        .map(|row| {
            let mut row = row.as_object().unwrap().clone();
            row.remove("salary");
            (format!("{{\"id\":{}}}", row["id"]), row)
        })
        .collect()
}

/// Says which rows and columns differ, not what is in them.
fn assert_folds_to(found: &[Record], wanted: &BTreeMap<String, Map<String, Value>>) {
    let found = fold(found);
    let mut differing = Vec::new();
    for key in found.keys().chain(wanted.keys()) {
        match (found.get(key), wanted.get(key)) {
            (Some(_), None) => differing.push(format!("{key} is not in the table")),
            (None, Some(_)) => differing.push(format!("{key} is missing")),
            (Some(one), Some(other)) => {
                let columns = one.keys().chain(other.keys());
                let columns: BTreeSet<_> =
                    columns.filter(|c| one.get(*c) != other.get(*c)).collect();
                if !columns.is_empty() {
                    differing.push(format!("{key} differs in {columns:?}"));
                }
            }
            (None, None) => {}
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
}

fn assert_no_change_came_twice(records: &[Record]) {
    let mut seen = HashSet::new();
    for record in records {
        let Some(body) = &record.body else { continue };
        let change: Value = serde_json::from_slice(body).unwrap();
        let (source, op) = (&change["source"], &change["op"]);
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let name = format!("{} {} {op} {key}", source["position"], source["ordinal"]);
        assert!(seen.insert(name.clone()), "{name} came twice");
    }
}

#[test]
fn raw_changes_fold_to_the_table_whatever_happens_to_keys_and_large_values() {
    let world = world("envelope");
    world.db.sql(&hire_all(30));
    let secret = format!("UPDATE people SET salary = '{REDACTED}' WHERE id < 40;");
    world.db.sql(&secret);
    let daemon = world.streaming();
    world.db.sql(&hire_with(31, &[("note", &long_note(31))]));
    world.db.sql(&secret);
    world.db.sql(
        "UPDATE people SET job_title = 'Clerk' WHERE id BETWEEN 5 AND 31;
         UPDATE people SET note = NULL, roles = 'a, b' WHERE id = 20;
         UPDATE people SET id = 1001 WHERE id = 9;
         BEGIN;
         UPDATE people SET id = 1002 WHERE id = 11;
         UPDATE people SET id = 11 WHERE id = 12;
         COMMIT;
         DELETE FROM people WHERE id IN (3, 31);
         INSERT INTO people (id, kind) VALUES (3, 'contractor');",
    );
    daemon.settle();
    let found = records(broker(), "envelope.raw");
    assert_folds_to(&found, &table(&world));
    assert_no_change_came_twice(&found);
    for record in found.iter().filter(|r| r.body.is_some()) {
        let body = String::from_utf8(record.body.clone().unwrap()).unwrap();
        assert!(
            !body.contains(REDACTED) && !body.contains("salary"),
            "{body}"
        );
        let change: Value = serde_json::from_str(&body).unwrap();
        for part in ["before", "after", "source", "op", "ts_ms"] {
            assert!(change.get(part).is_some(), "{part} is not in {body}");
        }
        assert_eq!(change["source"]["table"], "people");
        assert_eq!(change["source"]["schema"], "public");
        assert!(change["ts_ms"].as_i64() > Some(1_600_000_000_000), "{body}");
    }
    let ops = |op: &str| {
        let bodies = found.iter().filter_map(|r| r.body.as_deref());
        let changes = bodies.map(|b| serde_json::from_slice::<Value>(b).unwrap());
        changes.filter(|c| c["op"] == op).count()
    };
    assert_eq!(ops("r"), 30, "the load");
    assert_eq!(ops("d"), 5, "two leavers, and three old keys");
    for pair in found.windows(2) {
        let body = pair[0].body.as_deref().unwrap_or(b"null");
        if serde_json::from_slice::<Value>(body).unwrap()["op"] == "d" {
            assert_eq!(pair[1].key, pair[0].key);
            assert_eq!(pair[1].body, None, "a tombstone follows");
        }
    }
    assert_eq!(found.iter().filter(|r| r.body.is_none()).count(), 5);
    // They are no events, and take no sequence.
    world.assert_equal();
}

#[test]
fn raw_changes_come_once_though_the_daemon_is_killed() {
    let world = world("envelope-killed");
    // With the whole old row in the log, large values survive a change of the key too.
    world.db.sql("ALTER TABLE people REPLICA IDENTITY FULL");
    world.db.sql(&hire_all(200));
    let writer = Company::new(17, 200).write(Arc::clone(&world.db), Duration::from_millis(20));
    for round in 0..6 {
        let daemon = world.streaming();
        std::thread::sleep(Duration::from_millis(40 * round));
        daemon.kill9();
    }
    let daemon = world.streaming();
    writer.end();
    world.db.sql(&hire(77_777));
    daemon.settle();
    let found = records(broker(), "envelope-killed.raw");
    assert_folds_to(&found, &table(&world));
    assert_no_change_came_twice(&found);
}
