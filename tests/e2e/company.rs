//! An application that writes: random changes from a seed, of every sort that a log has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::sources::Server;

/// Numbers from a seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// The seed of this run: `ROLLCALL_SEED`, else `usual`. It is printed, so that a failure
/// can be repeated.
pub(crate) fn seed(usual: u64) -> u64 {
    let seed = std::env::var("ROLLCALL_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(usual);
    println!("seed: ROLLCALL_SEED={seed}");
    seed
}

/// Longer than what PostgreSQL keeps in the row itself.
pub(crate) fn long_note(n: u64) -> String {
    format!("note {n} ").repeat(400)
}

/// `INSERT` of one person with an address of its own.
pub(crate) fn hire(id: u64) -> String {
    hire_with(id, &[])
}

/// The same with other or further columns.
pub(crate) fn hire_with(id: u64, columns: &[(&str, &str)]) -> String {
    let email = format!("person.{id}@example.com");
    let last = format!("Kovács {id}");
    let mut all = vec![
        ("first_name", "José"),
        ("last_name", &last),
        ("email", &email),
    ];
    for (name, value) in columns {
        all.retain(|(n, _)| n != name);
        all.push((name, value));
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let values: Vec<String> = all
        .iter()
        .map(|(_, v)| format!("'{}'", v.replace('\'', "''")))
        .collect();
    format!(
        "INSERT INTO people (id, {}) VALUES ({id}, {});\n",
        names.join(", "),
        values.join(", ")
    )
}

/// People 1 to `n`, every tenth with a long note.
pub(crate) fn hire_all(n: u64) -> String {
    let mut sql = String::from("BEGIN;\n");
    for id in 1..=n {
        sql += &if id.is_multiple_of(10) {
            hire_with(id, &[("note", &long_note(id))])
        } else {
            hire(id)
        };
    }
    sql + "COMMIT;\n"
}

/// Who works here, so that a change meets somebody.
#[derive(Clone)]
pub(crate) struct Company {
    dice: Dice,
    ids: Vec<u64>,
    next: u64,
    n: u64,
}

impl Company {
    /// With people 1 to `people`.
    pub(crate) fn new(seed: u64, people: u64) -> Company {
        Company {
            dice: Dice(seed),
            ids: (1..=people).collect(),
            next: people + 1,
            n: 0,
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next += 1;
        self.ids.push(self.next);
        self.next
    }

    fn someone(&mut self) -> u64 {
        let n = self.ids.len() as u64;
        self.ids[self.dice.below(n) as usize]
    }

    /// One transaction: one change, several, or several that are rolled back.
    pub(crate) fn transaction(&mut self) -> String {
        match self.dice.below(8) {
            0 => {
                let changes: String = (0..2 + self.dice.below(6)).map(|_| self.change()).collect();
                format!("BEGIN;\n{changes}COMMIT;\n")
            }
            1 => {
                let mut elsewhere = self.clone();
                let changes: String = (0..3).map(|_| elsewhere.change()).collect();
                self.dice = elsewhere.dice;
                format!("BEGIN;\n{changes}ROLLBACK;\n")
            }
            _ => self.change(),
        }
    }

    fn change(&mut self) -> String {
        self.n += 1;
        let n = self.n;
        let kind = self.dice.below(12);
        if self.ids.len() < 20 || kind == 0 {
            let id = self.new_id();
            return hire_with(
                id,
                &[("department", "Engineering"), ("roles", "staff, admin")],
            );
        }
        let id = self.someone();
        match kind {
            1 => {
                self.ids.retain(|i| *i != id);
                format!("DELETE FROM people WHERE id = {id};\n")
            }
            2 => {
                self.ids.retain(|i| *i != id);
                let new = self.new_id();
                format!("UPDATE people SET id = {new} WHERE id = {id};\n")
            }
            3 => {
                format!("UPDATE people SET email = 'moved.{id}.{n}@example.com' WHERE id = {id};\n")
            }
            4 => format!(
                "UPDATE people SET note = '{}' WHERE id = {id};\n",
                long_note(n)
            ),
            // Leaves a long note as it is: the log does not carry it.
            5 | 6 => format!("UPDATE people SET department = 'Ops {n}' WHERE id = {id};\n"),
            7 => format!(
                "UPDATE people SET roles = 'staff, r{}', note = NULL WHERE id = {id};\n",
                n % 7
            ),
            8 => format!(
                "UPDATE people SET level = '{}' WHERE id BETWEEN {id} AND {};\n",
                n % 9,
                id + 5
            ),
            9 => format!(
                "UPDATE people SET kind = CASE kind WHEN 'contractor' THEN 'employee' ELSE 'contractor' END WHERE id = {id};\n"
            ),
            _ => format!("UPDATE people SET job_title = 'Title {n}' WHERE id = {id};\n"),
        }
    }

    /// Writes until told to stop, on a thread of its own.
    pub(crate) fn write(mut self, db: Arc<dyn Server>, pause: Duration) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let some: String = (0..8).map(|_| self.transaction()).collect();
                db.sql(&some);
                sleep(pause);
            }
            self.n
        });
        Writer { stop, thread }
    }
}

/// A writing application.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    /// Stops it; gives how many changes it made.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
