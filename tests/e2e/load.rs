//! Loads and re-scans read pages while the log goes on.

use std::sync::Arc;
use std::time::Duration;

use crate::company::{Company, hire_all, seed};
use crate::sources::{Setup, SourceKind, every_source};
use crate::world::{Options, World};

every_source!(
    a_row_updated_while_its_page_is_read_ends_with_its_newest_value_and_a_deleted_one_stays_deleted,
    a_load_goes_on_behind_its_last_page,
);

fn a_row_updated_while_its_page_is_read_ends_with_its_newest_value_and_a_deleted_one_stays_deleted(
    kind: &SourceKind,
) {
    for seed in [seed(11), seed(12), seed(13)] {
        let world = World::new(kind, &Options::pages_of(10));
        world.db.sql(&hire_all(400));
        let writer = Company::new(seed, 400).write(Arc::clone(&world.db), Duration::ZERO);
        let daemon = world.streaming();
        assert!(writer.end() > 20, "the writer wrote while pages were read");
        daemon.settle();
        world.assert_equal();
        world.assert_verified();
    }
}

fn a_load_goes_on_behind_its_last_page(kind: &SourceKind) {
    let db = (kind.start)(&Setup::default());
    let (options, _proxy) = Options::pages_of(5).slowed(&*db);
    let world = World::on(db, &options);
    world.db.sql(&hire_all(600));
    let first = world.start();
    let status = first.until("some pages to be read", |s| {
        s["sources"][0]["live"]["scan_rows"].as_u64() > Some(40)
    });
    assert_ne!(
        status["sources"][0]["state"], "streaming",
        "it was too quick to be cut"
    );
    first.kill9();
    let second = world.streaming();
    second.settle();
    second.stop();
    let runs = world.json(&["runs"]);
    let loads: Vec<_> = runs
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["kind"] == "load")
        .collect();
    assert_eq!(loads.len(), 1, "{runs}");
    assert_eq!(loads[0]["outcome"], "completed");
    assert_eq!(loads[0]["counters"]["created"], 600, "{}", loads[0]);
    world.events(1);
    world.assert_verified();
}
