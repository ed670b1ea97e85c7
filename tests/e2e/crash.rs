//! Nothing is lost and nothing is doubled, whenever the daemon dies.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crate::company::{Company, Dice, hire_all, seed};
use crate::fold::{assert_same, expected};
use crate::sources::{Setup, SourceKind, every_source};
use crate::topic::{broker, read, sink};
use crate::world::{Options, World};

every_source!(nothing_is_lost_or_doubled_when_the_daemon_is_killed_at_any_moment);

const KILLS: usize = 22;
const KILLS_IN_LOAD: usize = 6;
const PEOPLE: u64 = 1_500;

fn nothing_is_lost_or_doubled_when_the_daemon_is_killed_at_any_moment(kind: &SourceKind) {
    let seed = seed(7);
    let topic = format!("killed-{}", kind.name);
    let db = (kind.start)(&Setup::default());
    let (options, proxy) = Options::pages_of(40).slowed(&*db);
    let world = World::on(db, &options.and(&sink(broker(), &topic)));
    world.db.sql(&hire_all(PEOPLE));
    let mut dice = Dice(seed);
    let writer = Company::new(seed, PEOPLE).write(Arc::clone(&world.db), Duration::from_millis(20));
    let mut in_load = 0;
    for kill in 0..KILLS {
        let daemon = world.start();
        match kill {
            // The first ones fall into the load, which has 38 slow pages.
            0..KILLS_IN_LOAD if kill.is_multiple_of(2) => {
                let status = daemon.until("some pages to be read", |status| {
                    status["sources"][0]["live"]["scan_rows"].as_u64() > Some(0)
                });
                let source = &status["sources"][0];
                let is_loading = !source["gaps"].as_array().unwrap().is_empty();
                in_load += usize::from(is_loading && source["state"] == "scanning");
                sleep(Duration::from_millis(dice.below(100)));
            }
            // Others fall between changes that are followed.
            KILLS_IN_LOAD.. if kill.is_multiple_of(2) => {
                proxy.latency(Duration::ZERO);
                daemon.until_streaming();
                sleep(Duration::from_millis(dice.below(300)));
            }
            _ => sleep(Duration::from_millis(20 + dice.below(700))),
        }
        daemon.kill9();
    }
    let daemon = world.streaming();
    let changes = writer.end();
    daemon.settle();
    println!("{KILLS} kills, {in_load} of those that asked in the load; {changes} changes");
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
