//! What it costs to store a batch, in CPU per user.
//!
//! A batch is what the directory hands over under load: 20,000 users with documents of
//! about 600 bytes and an event of about 700 bytes each; a new user brings a link and two
//! match keys. First a directory is grown to a million users and the CPU time of its
//! commits is printed as it grows, with random updates (preloading included) in between;
//! then criterion measures single commits, as they are when it is quiet. Set
//! `ROLLCALL_BENCH_USERS` for another size and `ROLLCALL_BENCH_DIR` for another disk.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench, which ends by panicking when the store fails"
)]

use std::time::{Duration, Instant};

use criterion::Criterion;
use rollcall_contract::{Cursor, Lineage};

use rollcall_core::document::FORMAT;
use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::{RunId, SourceId, UserId, UserRow, ValueHash};
use rollcall_core::plan::{Columns, Plan, UserWrite};
use rollcall_core::state::{KeyBytes, LinkTarget, State};
use rollcall_store::{Commit, OpenOptions, Position, Progress, Readers, Store, Writer};

const BATCH: u64 = 20_000;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn id(n: u64) -> UserId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(1_700_000_000_000 + n / 50).to_be_bytes()[2..]);
    id[6..8].copy_from_slice(&(0x7000 | (n % 50) as u16).to_be_bytes());
    id[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    UserId(id)
}

fn key(n: u64) -> KeyBytes {
    let digits = n.to_string();
    let mut key = KeyBytes::new();
    key.push(digits.len() as u8);
    key.extend_from_slice(digits.as_bytes());
    key
}

fn profile(n: u64, version: u64) -> String {
    let mut r = Numbers(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let word = |r: &mut Numbers| -> String {
        (0..4 + r.next() % 6)
            .map(|_| char::from(b'a' + (r.next() % 26) as u8))
            .collect()
    };
    let (given, family) = (word(&mut r), word(&mut r));
    format!(
        "{{\"userName\":\"{given}.{family}{n}\",\"name\":{{\"givenName\":\"{given}\",\
         \"familyName\":\"{family}\"}},\"displayName\":\"{given} {family}\",\"emails\":\
         [\"{given}.{family}{n}@example.org\"],\"title\":\"{} {version}\",\"department\":\"{}\",\
         \"costCenter\":\"{}\",\"employeeNumber\":\"{n}\",\"active\":true,\"locale\":\"en\"}}",
        word(&mut r),
        word(&mut r),
        r.next() % 1_000_000,
    )
}

fn document(n: u64, version: u64) -> Vec<u8> {
    let mut document = vec![FORMAT];
    document.extend_from_slice(&id(n).0);
    let profile = profile(n, version);
    document.extend_from_slice(profile.as_bytes());
    document.extend_from_slice(&profile.as_bytes()[..(600 - document.len()).min(profile.len())]);
    document
}

fn event(plan: &mut Plan, kind: EventKind, n: u64, version: u64) {
    let after = profile(n, version);
    let data = format!(
        "{{\"user\":{after},\"changed\":{{\"title\":{{\"before\":null,\"after\":\"{version}\"}}}},\
         \"filler\":{:?}}}",
        &after[..after.len().min(250)]
    );
    plan.events.push(&Event {
        kind,
        id: id(n ^ version << 40).0,
        user: Some(id(n)),
        source: Some(SourceId(1)),
        time_us: 1_700_000_000_000_000 + n as i64,
        run: RunId(1),
        position: "0/16B3748",
        key: &[],
        data: data.as_bytes(),
    });
}

fn put(plan: &mut Plan, row: UserRow, n: u64, version: u64, is_new: bool) {
    let write = UserWrite {
        document: &document(n, version),
        columns: Some(Columns {
            user_name: Some(&format!("user{n}")),
            display_name: Some(&format!("User Number {n}")),
        }),
        active: true,
        updated_us: 1_700_000_000_000_000 + version as i64,
        is_new,
    };
    plan.users.put(row, &write);
}

fn creation(writer: &mut Writer, from: u64, count: u64) -> Plan {
    let mut plan = Plan::default();
    for n in from..from + count {
        let row = writer.allocate_user();
        put(&mut plan, row, n, 1, true);
        plan.links
            .insert((SourceId(1), key(n)), Some(LinkTarget::User(row)));
        for text in [format!("user{n}"), format!("user{n}@example.org")] {
            plan.set_owner(ValueHash::of(text.as_bytes()), row, true);
        }
        event(&mut plan, EventKind::UserCreated, n, 1);
    }
    plan
}

/// Random distinct users below `users`, at most `count`.
fn victims(r: &mut Numbers, users: u64, count: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..count).map(|_| r.next() % users).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn update(victims: &[u64], version: u64) -> Plan {
    let mut plan = Plan::default();
    for &n in victims {
        put(&mut plan, UserRow(n as i64 + 1), n, version, false);
        event(&mut plan, EventKind::UserUpdated, n, version);
    }
    plan
}

fn commit(writer: &mut Writer, plan: &mut Plan, n: u64) {
    writer
        .commit(&mut Commit {
            now_us: 1_700_000_000_000_000,
            plan: std::mem::take(plan),
            progress: Some(Progress {
                source: SourceId(1),
                cursor: Cursor::new(&n.to_be_bytes(), "0/16B3748"),
                lineage: Some(Lineage("bench".to_owned())),
            }),
            ..Commit::default()
        })
        .unwrap();
}

/// CPU time of the process so far, as the kernel counts it (`/proc/self/stat`, proc(5)): the
/// store writes on a thread of its own. In ticks, of which Linux shows 100 a second.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(10 * ticks)
}

#[derive(Default)]
struct Spent {
    cpu: Duration,
    wall: Duration,
    users: u64,
}

impl Spent {
    fn on<T>(&mut self, users: u64, work: impl FnOnce() -> T) -> T {
        let (cpu_before, began) = (cpu(), Instant::now());
        let out = work();
        self.cpu += cpu() - cpu_before;
        self.wall += began.elapsed();
        self.users += users;
        out
    }

    fn print(&self, name: &str) {
        let per = |d: Duration| d.as_secs_f64() * 1e6 / self.users.max(1) as f64;
        println!(
            "{name:<36} {:>6.2} us CPU, {:>6.2} us elapsed a user",
            per(self.cpu),
            per(self.wall)
        );
    }
}

fn open() -> (tempfile::TempDir, Writer, Readers) {
    let dir = match std::env::var_os("ROLLCALL_BENCH_DIR") {
        Some(at) => tempfile::tempdir_in(at).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let (mut writer, readers) = Store::open(dir.path(), OpenOptions::new("bench")).unwrap();
    writer.source("people", 1).unwrap();
    (dir, writer, readers)
}

fn trim(writer: &mut Writer) {
    let all = writer.counts().next_position;
    while writer.trim_outbox(all, i64::MAX, 0).unwrap().more {}
}

fn updates(writer: &mut Writer, users: u64, rounds: u64) {
    let mut r = Numbers(users | 1);
    let (mut spent, mut reading) = (Spent::default(), Spent::default());
    for round in 0..rounds {
        let victims = victims(&mut r, users, BATCH);
        let keys: Vec<KeyBytes> = victims.iter().map(|&n| key(n)).collect();
        let mut plan = update(&victims, round + 2);
        let count = victims.len() as u64;
        reading.on(count, || {
            writer
                .preload(SourceId(1), keys.iter().map(|k| k.as_slice()))
                .unwrap();
        });
        spent.on(count, || commit(writer, &mut plan, round));
        trim(writer);
    }
    reading.print(&format!("  preload of updates at {users}"));
    spent.print(&format!("  random update at {users}"));
}

fn growth() {
    let users: u64 = std::env::var("ROLLCALL_BENCH_USERS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let (_dir, mut writer, readers) = open();
    let mut spent = Spent::default();
    let mut trimming = Spent::default();
    let mut n = 0;
    while n < users {
        let mut plan = creation(&mut writer, n, BATCH);
        spent.on(BATCH, || commit(&mut writer, &mut plan, n));
        trimming.on(BATCH, || trim(&mut writer));
        n += BATCH;
        let quarter = n % 200_000 == 0;
        if quarter {
            spent.print(&format!("create up to {n}"));
            spent = Spent::default();
        }
        if n == 60_000 || n == 200_000 || n == users {
            updates(&mut writer, n, 10);
            let mut asking = Spent::default();
            let hashes: Vec<ValueHash> = (n..n + BATCH)
                .map(|n| ValueHash::of(format!("user{n}@example.org").as_bytes()))
                .collect();
            asking.on(BATCH, || writer.preload_owners(hashes).unwrap());
            asking.print(&format!("  values that nobody has at {n}"));
        }
    }
    trimming.print("trimming the outbox");
    let began = Instant::now();
    let found = readers
        .users(
            &rollcall_store::UserFilter {
                text: Some("no such text".to_owned()),
                ..Default::default()
            },
            None,
            10,
        )
        .unwrap();
    assert!(found.is_empty());
    println!(
        "search through {n} users               {:>6.0} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    let before = std::fs::metadata(readers.path()).unwrap().len();
    println!(
        "size of the database                   {:>6} MiB",
        before >> 20
    );
}

fn quiet(c: &mut Criterion) {
    let (_dir, mut writer, readers) = open();
    let mut plan = creation(&mut writer, 0, 50_000);
    commit(&mut writer, &mut plan, 0);
    let mut r = Numbers(77);
    let mut version = 1;
    let mut group = c.benchmark_group("commit");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("one updated user", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Spent::default();
            for _ in 0..iterations {
                version += 1;
                let mut plan = update(&victims(&mut r, 50_000, 1), version);
                spent.on(1, || commit(&mut writer, &mut plan, version));
            }
            spent.wall
        });
    });
    let from = writer.counts().next_position.before();
    group.bench_function("reading the newest block", |b| {
        b.iter(|| readers.outbox_from(from, 1 << 20).unwrap());
    });
    assert!(from > Position::NONE);
    group.finish();
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    growth();
    let mut criterion = Criterion::default().configure_from_args();
    quiet(&mut criterion);
    criterion.final_summary();
}
