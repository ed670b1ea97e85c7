//! Row images that lack what did not change.
//!
//! With `binlog_row_image = MINIMAL` an update carries the key and the columns that it sets,
//! with `NOBLOB` all but large ones; an insert carries the columns that it names. The rest
//! comes from the store, and where that has nothing, from another read of the row.

use crate::company::{hire_all, hire_with, long_note};
use crate::sources::{SourceKind, every_binlog};
use crate::world::{Options, World};

every_binlog!(
    an_update_of_one_column_arrives_whole_with_minimal_images,
    an_update_of_one_column_arrives_whole_without_large_columns,
);

fn an_update_of_one_column_arrives_whole_with_minimal_images(kind: &SourceKind) {
    updates_of_one_column_arrive_whole(kind, "MINIMAL");
}

fn an_update_of_one_column_arrives_whole_without_large_columns(kind: &SourceKind) {
    updates_of_one_column_arrive_whole(kind, "NOBLOB");
}

fn updates_of_one_column_arrive_whole(kind: &SourceKind, image: &str) {
    let world = World::new(kind, &Options::default());
    let set = format!("SET GLOBAL binlog_row_image = '{image}'");
    world.db.admin(&set);
    assert_eq!(world.db.sql("SELECT @@SESSION.binlog_row_image"), image);
    // The first are loaded, the others come through the log.
    world.db.sql(&hire_all(5));
    world.db.sql(&hire_with(6, &[("note", &long_note(6))]));
    let daemon = world.streaming();
    world.db.sql(&hire_with(7, &[("note", &long_note(7))]));
    world.db.sql(&hire_with(
        8,
        &[("kind", "contractor"), ("note", &long_note(8))],
    ));
    world.db.sql(
        "UPDATE people SET job_title = 'Clerk' WHERE id IN (1, 6, 7);
         UPDATE people SET first_name = 'Renamed' WHERE id = 2;
         UPDATE people SET note = NULL WHERE id = 6;
         UPDATE people SET email = 'third@example.com' WHERE id = 3;
         UPDATE people SET id = 9 WHERE id = 7;
         DELETE FROM people WHERE id = 4;",
    );
    // Nobody in the directory until now: no more than this column is known of it.
    world
        .db
        .sql("UPDATE people SET kind = 'employee' WHERE id = 8");
    // What the log does not name has its default, which only the table tells.
    world
        .db
        .sql("INSERT INTO people (id, first_name, email) VALUES (10, 'New', 'new@example.com')");
    daemon.settle();
    let people = world.assert_equal().fold();
    for id in ["8", "9"] {
        let was = if id == "9" { 7 } else { 8 };
        assert_eq!(people[id]["custom"]["note"], long_note(was), "{id}");
    }
    for id in ["1", "6", "9"] {
        assert_eq!(people[id]["title"], "Clerk", "{id}");
    }
    daemon.stop();

    // What the store had is there after a restart.
    let daemon = world.start();
    daemon.until_streaming();
    world
        .db
        .sql("UPDATE people SET job_title = 'Manager' WHERE id IN (5, 8, 9, 10)");
    daemon.settle();
    let people = world.assert_equal().fold();
    assert_eq!(people["9"]["custom"]["note"], long_note(7));
    assert_eq!(people["9"]["title"], "Manager");
    world.assert_verified();
}
