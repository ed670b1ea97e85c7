//! What is large at the source stays small in the daemon.

use rollcall_testbed::{ProcStat, wait_for};

use crate::company::hire_all;
use crate::sources::{MYSQL, SourceKind, every_source};
use crate::world::{Options, PATIENCE, World};

every_source!(a_transaction_larger_than_memory_allows_passes_in_bounded_memory);

const ROWS: u64 = 200_000;
/// The promise for a transaction of any size; this one has some 180 MB of rows.
const BOUND_KIB: u64 = 256 * 1024;

/// Compressed, they are less than a hundredth of that in the log.
const COMPRESSED_BOUND_KIB: u64 = 192 * 1024;

fn a_transaction_larger_than_memory_allows_passes_in_bounded_memory(kind: &SourceKind) {
    let world = World::new(kind, &Options::default());
    passes_in_bounded_memory(&world, "", BOUND_KIB);
}

#[test]
fn a_compressed_transaction_that_expands_far_passes_in_bounded_memory() {
    let world = World::new(&MYSQL, &Options::default());
    let compressed = "SET SESSION binlog_transaction_compression = ON;";
    passes_in_bounded_memory(&world, compressed, COMPRESSED_BOUND_KIB);
    let far = world.db.sql(
        "SELECT MAX(UNCOMPRESSED_BYTES_COUNTER > 100 * COMPRESSED_BYTES_COUNTER)
         FROM performance_schema.binary_log_transaction_compression_stats
         WHERE COMPRESSION_TYPE = 'ZSTD'",
    );
    assert_eq!(far, "1", "it was compressed, and expands far");
}

fn passes_in_bounded_memory(world: &World, session: &str, bound_kib: u64) {
    world.db.sql(&hire_all(10));
    let daemon = world.streaming();
    // Out of scope, so that the transaction and not the directory is what is measured; the
    // last rows are in scope.
    world.db.sql(&format!(
        "{session}
         INSERT INTO people (id, first_name, kind, job_title)
         SELECT n, 'Batch', CASE WHEN n > {last} THEN 'employee' ELSE 'contractor' END,
                rpad(concat(n), 900, 'x')
         FROM {numbers} ORDER BY n",
        last = 1000 + ROWS - 100,
        numbers = world.db.numbers(1000, 1000 + ROWS),
    ));
    let record = format!("hr:{}", 1000 + ROWS);
    wait_for(PATIENCE * 4, "the end of the transaction", || {
        assert!(daemon.process.is_running(), "{}", daemon.process.log());
        match world.rollcall(&["users", "show", &record]).status.success() {
            true => Ok(()),
            false => Err(daemon.status().to_string()),
        }
    })
    .unwrap();
    let peak = ProcStat::of(daemon.process.pid()).unwrap().peak_rss_kib;
    println!("peak resident memory {} MiB", peak / 1024);
    assert!(peak < bound_kib, "peak resident memory {} MiB", peak / 1024);
    assert_eq!(daemon.status()["users"], 110);
    daemon.until_delivered();
    let created = world.events(0).of_type("user.created").len();
    assert_eq!(created, 110);
}
