//! Nothing is lost and nothing is doubled, whenever the daemon dies.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crate::company::{Company, Dice, hire_all, seed};
use crate::fold::{assert_same, expected};
use crate::sources::{SourceKind, every_source};
use crate::topic::{broker, read, sink};
use crate::world::{Options, World};

every_source!(nothing_is_lost_or_doubled_when_the_daemon_is_killed_at_any_moment);

const KILLS: usize = 22;
const PEOPLE: u64 = 1_500;

fn nothing_is_lost_or_doubled_when_the_daemon_is_killed_at_any_moment(kind: &SourceKind) {
    let seed = seed(7);
    let topic = format!("killed-{}", kind.name);
    let options = Options::pages_of(40).and(&sink(broker(), &topic));
    let world = World::new(kind, &options);
    world.db.sql(&hire_all(PEOPLE));
    let mut dice = Dice(seed);
    let writer = Company::new(seed, PEOPLE).write(Arc::clone(&world.db), Duration::from_millis(20));
    let mut in_load = 0;
    for kill in 0..KILLS {
        let daemon = world.start();
        // The first ones fall into the load: it has 38 pages and takes longer than that.
        if kill.is_multiple_of(2) {
            let status = daemon.status();
            in_load += usize::from(status["sources"][0]["state"] != "streaming");
            sleep(Duration::from_millis(dice.below(if kill < 8 {
                150
            } else {
                500
            })));
        } else {
            sleep(Duration::from_millis(20 + dice.below(700)));
        }
        daemon.kill9();
    }
    let daemon = world.streaming();
    let changes = writer.end();
    daemon.settle();
    println!(
        "{KILLS} kills, {in_load} of those that looked were before streaming, {changes} changes"
    );
    assert!(in_load >= 2, "the load was over before it was killed");
    world.assert_verified();
    daemon.stop();
    let wanted = expected(&world.db.people());
    let events = read(broker(), &topic);
    events.assert_whole();
    events.assert_once();
    assert_same(&events.fold(), &wanted);
    assert_same(&world.events(KILLS).fold(), &wanted);
}
