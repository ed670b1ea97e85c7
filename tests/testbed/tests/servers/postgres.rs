//! Private PostgreSQL servers.

use std::time::Duration;

use rollcall_testbed::{
    PgVersion, Postgres, ProcStat, StandbyOptions, StopMode, TestbedError, Tls, wait_until,
};

fn pair(db: &Postgres) -> (String, String) {
    (
        db.psql("postgres", "SELECT current_setting('wal_level')")
            .unwrap(),
        db.psql("postgres", "SELECT 1 + 1").unwrap(),
    )
}

#[test]
fn both_versions_start_side_by_side_and_follow_logically() {
    let old = Postgres::builder().start().unwrap();
    let new = Postgres::builder().version(PgVersion::V18).start().unwrap();
    for db in [&old, &new] {
        assert_eq!(pair(db), ("logical".to_owned(), "2".to_owned()));
        let slot = "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')";
        assert_eq!(db.psql("postgres", slot).unwrap(), "s");
        assert!(db.bin("pg_recvlogical").exists());
    }
    assert!(
        new.psql("postgres", "SHOW server_version")
            .unwrap()
            .starts_with("18.")
    );
    assert_ne!(old.port(), new.port());
    let id = "SELECT system_identifier FROM pg_control_system()";
    assert_ne!(
        old.psql("postgres", id).unwrap(),
        new.psql("postgres", id).unwrap()
    );
}

#[test]
fn many_servers_start_at_once_on_ports_of_their_own() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| Postgres::builder().start().unwrap()))
        .collect();
    let servers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let mut ports: Vec<_> = servers.iter().map(Postgres::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
}

#[test]
fn rows_come_back_and_a_failing_statement_is_psqls_own_words() {
    let db = Postgres::builder().start().unwrap();
    let rows = "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL);\n\
                SELECT * FROM t ORDER BY a;";
    assert_eq!(db.psql("postgres", rows).unwrap(), "1|x\n2|");
    let error = db
        .psql("postgres", "SELECT 1;\nSELECT * FROM missing;")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("relation \"missing\" does not exist"),
        "{error}"
    );
}

#[test]
fn a_killed_server_starts_again_with_its_data_and_address() {
    let db = Postgres::builder().fsync(true).start().unwrap();
    db.psql("postgres", "CREATE TABLE t AS SELECT 7 AS n")
        .unwrap();
    let port = db.port();
    db.kill9();
    assert_eq!(db.pid(), None);
    assert!(db.psql("postgres", "SELECT 1").is_err());
    db.start_again().unwrap();
    assert_eq!(db.port(), port);
    assert_eq!(db.psql("postgres", "SELECT n FROM t").unwrap(), "7");
    for _ in 0..5 {
        db.kill9();
        db.start_again().unwrap();
    }
    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        db.stop(mode).unwrap();
        db.start_again().unwrap();
    }
    assert!(matches!(db.start_again(), Err(TestbedError::State(_))));
}

#[test]
fn settings_are_changed_by_reload_and_by_restart() {
    let db = Postgres::builder()
        .setting("wal_sender_timeout", "3s")
        .setting("application_name", "o'clock")
        .start()
        .unwrap();
    assert_eq!(
        db.psql("postgres", "SHOW wal_sender_timeout").unwrap(),
        "3s"
    );
    db.append_conf("wal_sender_timeout = '5s'").unwrap();
    db.reload().unwrap();
    assert_eq!(
        db.psql("postgres", "SHOW wal_sender_timeout").unwrap(),
        "5s"
    );
    db.append_conf("max_replication_slots = 1").unwrap();
    db.restart().unwrap();
    assert_eq!(
        db.psql("postgres", "SHOW max_replication_slots").unwrap(),
        "1"
    );
}

#[test]
fn with_password_authentication_a_role_needs_its_password() {
    let db = Postgres::builder().password_auth().start().unwrap();
    db.psql("postgres", "CREATE ROLE reader LOGIN PASSWORD 'right'")
        .unwrap();
    let sql = "SELECT current_user";
    assert_eq!(
        db.psql_as("reader", Some("right"), "postgres", sql)
            .unwrap(),
        "reader"
    );
    let wrong = db
        .psql_as("reader", Some("wrong"), "postgres", sql)
        .unwrap_err();
    assert!(
        wrong.to_string().contains("password authentication failed"),
        "{wrong}"
    );
    db.set_hba(&["local all all reject"]).unwrap();
    assert!(
        db.psql_as("reader", Some("right"), "postgres", sql)
            .is_err()
    );
}

#[test]
fn the_work_of_a_server_is_in_its_whole_tree() {
    let db = Postgres::builder().start().unwrap();
    let pid = db.pid().unwrap();
    let before = ProcStat::of_tree(pid).unwrap();
    // The backend works and is still there while its work is read.
    let client = std::process::Command::new(db.bin("psql"))
        .args(["-X", "-q", "-d"])
        .arg(db.socket_conninfo("postgres", "postgres"))
        .args(["-c", "SELECT count(*) FROM generate_series(1, 3000000)"])
        .args(["-c", "SELECT pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut client = client.unwrap();
    wait_until(Duration::from_secs(30), "the backend's CPU time", || {
        let now = ProcStat::of_tree(pid).unwrap();
        now.cpu_seconds > before.cpu_seconds + 0.1 && now.peak_rss_kib > before.peak_rss_kib
    })
    .unwrap();
    assert!(ProcStat::of(pid).unwrap().cpu_seconds < ProcStat::of_tree(pid).unwrap().cpu_seconds);
    client.kill().unwrap();
    client.wait().unwrap();
}

/// Runs `SELECT ssl` through libpq over TCP with these connection parameters.
fn over_tls(db: &Postgres, parameters: &str) -> Result<String, String> {
    let output = std::process::Command::new(db.bin("psql"))
        .args(["-X", "-A", "-t", "-w", "-c"])
        .arg("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .arg(format!(
            "port={} user=postgres dbname=postgres {parameters}",
            db.port()
        ))
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn tls_is_trusted_only_from_the_right_authority_and_under_the_right_name() {
    let tls = Tls::for_localhost("postgres").unwrap();
    let stranger = Tls::for_localhost("postgres").unwrap();
    let other_name = Tls::for_names(&["elsewhere.example"], "postgres").unwrap();
    let trust = |tls: &Tls| {
        format!(
            "host=127.0.0.1 sslmode=verify-full sslrootcert={}",
            tls.ca().display()
        )
    };

    let db = Postgres::builder().tls_with(&tls).unwrap().start().unwrap();
    assert_eq!(over_tls(&db, &trust(&tls)).as_deref(), Ok("t"));
    let error = over_tls(&db, &trust(&stranger)).unwrap_err();
    assert!(error.contains("certificate verify failed"), "{error}");

    let db = Postgres::builder()
        .tls_with(&other_name)
        .unwrap()
        .start()
        .unwrap();
    let error = over_tls(&db, &trust(&other_name)).unwrap_err();
    assert!(error.contains("does not match host name"), "{error}");
}

#[test]
fn a_client_certificate_is_asked_for_and_compared_with_the_role() {
    let tls = Tls::for_localhost("postgres").unwrap();
    let db = Postgres::builder()
        .tls_with(&tls)
        .unwrap()
        .hba("hostssl all all 127.0.0.1/32 cert")
        .start()
        .unwrap();
    let base = format!(
        "host=127.0.0.1 sslmode=verify-full sslrootcert={}",
        tls.ca().display()
    );
    let with_cert = format!(
        "{base} sslcert={} sslkey={}",
        tls.client_cert().display(),
        tls.client_key().display()
    );
    assert_eq!(over_tls(&db, &with_cert).as_deref(), Ok("t"));
    assert!(over_tls(&db, &base).is_err());
}

#[test]
fn a_standby_replays_and_is_promoted_to_a_new_timeline() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let primary = Postgres::builder().version(version).start().unwrap();
        let options = StandbyOptions {
            slot: Some("standby".to_owned()),
            settings: vec![("hot_standby_feedback".to_owned(), "on".to_owned())],
        };
        let standby = primary.basebackup_standby_with(&options).unwrap();
        primary
            .psql("postgres", "CREATE TABLE t AS SELECT 3 AS n")
            .unwrap();
        let lsn = primary.current_lsn().unwrap();
        standby
            .wait_for_replay(&lsn, Duration::from_secs(30))
            .unwrap();
        assert_eq!(standby.psql("postgres", "SELECT n FROM t").unwrap(), "3");
        assert_eq!(
            primary
                .psql("postgres", "SELECT slot_name FROM pg_replication_slots")
                .unwrap(),
            "standby"
        );
        primary.kill9();
        standby.promote().unwrap();
        standby
            .psql("postgres", "INSERT INTO t VALUES (4)")
            .unwrap();
        let timeline = "CHECKPOINT; SELECT timeline_id FROM pg_control_checkpoint()";
        assert_eq!(standby.psql("postgres", timeline).unwrap(), "2");
    }
}

#[test]
fn a_synchronized_failover_slot_is_on_the_standby() {
    let primary = Postgres::builder().version(PgVersion::V18).start().unwrap();
    let settings = [
        ("hot_standby_feedback", "on"),
        ("sync_replication_slots", "on"),
    ];
    let options = StandbyOptions {
        slot: Some("standby".to_owned()),
        settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
    };
    let standby = primary.basebackup_standby_with(&options).unwrap();
    let make = "SELECT pg_create_logical_replication_slot('f', 'pgoutput', false, false, true)";
    primary.psql("postgres", make).unwrap();
    let synced = "SELECT slot_name FROM pg_replication_slots WHERE synced";
    wait_until(
        Duration::from_secs(60),
        "the slot to be synchronized",
        || standby.psql("postgres", synced).is_ok_and(|s| s == "f"),
    )
    .unwrap();
}

#[test]
fn a_restored_database_is_the_old_one_at_the_same_address() {
    let db = Postgres::builder().start().unwrap();
    db.psql("postgres", "CREATE TABLE t AS SELECT 1 AS n")
        .unwrap();
    let copy = db.copy_data_dir().unwrap();
    db.psql("postgres", "INSERT INTO t VALUES (2)").unwrap();
    let count = "SELECT count(*) FROM t";
    let twin = Postgres::from_copy(&copy).unwrap();
    assert_ne!(twin.port(), db.port());
    assert_eq!(twin.psql("postgres", count).unwrap(), "1");
    assert_eq!(db.psql("postgres", count).unwrap(), "2");
    db.restore_from(&copy).unwrap();
    assert_eq!(db.psql("postgres", count).unwrap(), "1");
}

#[test]
fn a_server_that_does_not_start_shows_its_own_log() {
    let error = Postgres::builder()
        .setting("shared_buffers", "no number")
        .start()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("did not start") && text.contains("shared_buffers"),
        "{text}"
    );
}
