//! Who owns a server ends it, however the owner ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rollcall_testbed::{Postgres, Process, wait_for, wait_until};

/// Set for the copy of this test binary that is going to be killed.
const OWNER: &str = "ROLLCALL_TESTBED_OWNER";

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_server_goes_with_a_test_that_panics() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let test = std::thread::spawn(move || {
        let db = Postgres::builder().start().unwrap();
        sender
            .send((db.pid().unwrap(), db.data_dir().to_owned()))
            .unwrap();
        panic!("as intended");
    });
    assert!(test.join().is_err());
    let (pid, data) = receiver.recv().unwrap();
    assert!(!exists(pid) && !data.exists());
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let db = std::thread::spawn(|| Postgres::builder().start().unwrap())
        .join()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(db.psql("postgres", "SELECT 1").unwrap(), "1");
}

/// The role of the owner, played by a copy of this test binary; without the
/// variable, as in a plain run, it starts that copy and kills it.
#[test]
fn a_server_dies_with_an_owner_that_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        let db = Postgres::builder().start().unwrap();
        println!("server {}", db.pid().unwrap());
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture"])
        .arg("servers::ownership::a_server_dies_with_an_owner_that_is_killed")
        .env(OWNER, "1");
    let owner = Process::spawn(command).unwrap();
    let server: u32 = wait_for(Duration::from_secs(60), "the owner's server", || {
        owner
            .stdout()
            .lines()
            .find_map(|line| line.rsplit_once("server ")?.1.parse().ok())
            .ok_or_else(|| owner.log())
    })
    .unwrap();
    assert!(exists(server));
    owner.kill9();
    wait_until(Duration::from_secs(10), "the server to die", || {
        !exists(server)
    })
    .unwrap();
}
