//! Private MySQL and MariaDB servers, each test with every one of them.

use std::time::Duration;

use rollcall_testbed::{MySql, MySqlVersion, TestbedError, Tls};

const TABLE: &str = "CREATE DATABASE hr; CREATE TABLE hr.t (id INT PRIMARY KEY, name VARCHAR(20))";

fn start(version: MySqlVersion) -> MySql {
    MySql::builder().version(version).start().unwrap()
}

#[test]
fn every_version_starts_with_gtids_and_a_full_row_binlog() {
    for version in MySqlVersion::ALL {
        let (db, other) = (start(version), start(version));
        assert_ne!(db.port(), other.port());
        let said = db.sql("SELECT @@version").unwrap();
        assert!(
            said.starts_with(match version {
                MySqlVersion::MySql9 => "9.",
                MySqlVersion::MariaDb10 => "10.11.",
                MySqlVersion::MariaDb11 => "11.8.",
            }),
            "{said}"
        );
        assert_eq!(said.contains("MariaDB"), version.is_mariadb());
        let log = "SELECT @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata";
        assert_eq!(db.sql(log).unwrap(), "1\tROW\tFULL\tFULL");
        for identity in ["SELECT @@server_id", "SELECT @@port"] {
            assert_ne!(db.sql(identity).unwrap(), other.sql(identity).unwrap());
        }
        if !version.is_mariadb() {
            let uuid = "SELECT @@server_uuid";
            assert_ne!(db.sql(uuid).unwrap(), other.sql(uuid).unwrap());
        }
        let before = db.gtid().unwrap();
        db.sql(TABLE).unwrap();
        assert_ne!(db.gtid().unwrap(), before);
    }
}

#[test]
fn rows_come_back_and_a_failing_statement_is_the_clients_own_words() {
    for version in MySqlVersion::ALL {
        let db = start(version);
        db.sql(TABLE).unwrap();
        let rows = "USE hr; INSERT INTO t VALUES (1, 'Zoë'), (2, NULL);\n\
                    SELECT * FROM t ORDER BY id;";
        assert_eq!(db.sql(rows).unwrap(), "1\tZoë\n2\tNULL");
        let error = db
            .sql("SELECT 1;\nSELECT * FROM hr.missing;")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ERROR 1146 (42S02) at line 2")
                && error.contains("Table 'hr.missing' doesn't exist"),
            "{error}"
        );
    }
}

#[test]
fn a_killed_server_starts_again_with_its_data_its_address_and_its_binlog() {
    for version in MySqlVersion::ALL {
        let db = start(version);
        db.sql(TABLE).unwrap();
        let (port, id) = (db.port(), db.sql("SELECT @@server_id").unwrap());
        for n in 0..3 {
            db.sql(&format!("INSERT INTO hr.t VALUES ({n}, 'x')"))
                .unwrap();
            db.kill9();
            assert_eq!(db.pid(), None);
            assert!(db.sql("SELECT 1").is_err());
            db.start_again().unwrap();
        }
        assert_eq!(db.sql("SELECT count(*) FROM hr.t").unwrap(), "3");
        db.restart().unwrap();
        assert!(matches!(db.start_again(), Err(TestbedError::State(_))));
        assert_eq!(
            (db.port(), db.sql("SELECT @@server_id").unwrap()),
            (port, id)
        );
        assert!(db.binlogs().unwrap().len() >= 5);
    }
}

#[test]
fn settings_count_from_the_start_or_the_next_restart() {
    for version in MySqlVersion::ALL {
        let db = MySql::builder()
            .version(version)
            .setting("binlog_row_image", "MINIMAL")
            .initialized_with("lower_case_table_names", "1")
            .start()
            .unwrap();
        let sql = "SELECT @@binlog_row_image, @@lower_case_table_names";
        assert_eq!(db.sql(sql).unwrap(), "MINIMAL\t1");
        db.append_conf("binlog_row_image = NOBLOB").unwrap();
        db.restart().unwrap();
        assert_eq!(db.sql(sql).unwrap(), "NOBLOB\t1");
    }
}

#[test]
fn a_user_needs_the_password_and_may_do_only_what_was_granted() {
    for version in MySqlVersion::ALL {
        let db = start(version);
        db.sql(TABLE).unwrap();
        db.create_user("reader", r"it's \right").unwrap();
        let who = "SELECT current_user()";
        assert_eq!(
            db.sql_as("reader", Some(r"it's \right"), who).unwrap(),
            "reader@%"
        );
        let wrong = db.sql_as("reader", Some("wrong"), who).unwrap_err();
        assert!(wrong.to_string().contains("Access denied"), "{wrong}");
        let read = "SELECT count(*) FROM hr.t";
        assert!(db.sql_as("reader", Some(r"it's \right"), read).is_err());
        db.sql("GRANT SELECT ON hr.* TO reader").unwrap();
        assert_eq!(
            db.sql_as("reader", Some(r"it's \right"), read).unwrap(),
            "0"
        );
        let plugin = if version.is_mariadb() {
            "ed25519"
        } else {
            "caching_sha2_password"
        };
        db.create_user_with("other", plugin, "secret").unwrap();
        assert_eq!(db.sql_as("other", Some("secret"), who).unwrap(), "other@%");
    }
}

#[test]
fn the_binlog_is_listed_rotated_copied_and_purged() {
    for version in MySqlVersion::ALL {
        let db = start(version);
        db.sql(TABLE).unwrap();
        db.sql("INSERT INTO hr.t VALUES (1, 'one')").unwrap();
        let folder = tempfile_folder();
        let copies = db.copy_binlogs(&folder).unwrap();
        let output = db
            .tool("mysqlbinlog")
            .args(["--verbose", "--base64-output=DECODE-ROWS"])
            .args(&copies)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("### INSERT INTO `hr`.`t`"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
        let current = db.current_binlog().unwrap();
        assert!(db.binlogs().unwrap().len() > 1 && current.size_bytes > 0);
        assert!(db.binlog_path(&current.name).exists());
        db.purge_binlogs().unwrap();
        let left = db.binlogs().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_ne!(left[0].name, current.name);
    }
}

fn tempfile_folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!(
        "binlogs-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir(&folder).unwrap();
    folder
}

#[test]
fn a_replica_has_the_same_gtids_and_is_promoted() {
    for version in MySqlVersion::ALL {
        let primary = start(version);
        primary.sql(TABLE).unwrap();
        let replica = primary.replica().unwrap();
        primary.sql("INSERT INTO hr.t VALUES (1, 'one')").unwrap();
        replica
            .wait_for_primary(&primary, Duration::from_secs(60))
            .unwrap();
        let rows = "SELECT * FROM hr.t";
        assert_eq!(replica.sql(rows).unwrap(), "1\tone");
        assert_eq!(replica.sql("SELECT @@read_only").unwrap(), "1");
        let primary_gtid = primary.gtid().unwrap();
        assert_eq!(replica.gtid().unwrap(), primary_gtid);
        primary.kill9();
        replica.promote().unwrap();
        assert_eq!(replica.sql("SELECT @@read_only").unwrap(), "0");
        replica.sql("INSERT INTO hr.t VALUES (2, 'two')").unwrap();
        assert_eq!(replica.sql(rows).unwrap(), "1\tone\n2\ttwo");
        assert_ne!(replica.gtid().unwrap(), primary_gtid);
        assert!(replica.current_binlog().unwrap().size_bytes > 0);
    }
}

#[test]
fn a_restored_server_is_the_old_one_at_the_same_address() {
    for version in MySqlVersion::ALL {
        let db = start(version);
        db.sql(TABLE).unwrap();
        let copy = db.copy_data_dir().unwrap();
        db.sql("INSERT INTO hr.t VALUES (1, 'one')").unwrap();
        let count = "SELECT count(*), @@server_id FROM hr.t";
        let id = db.sql("SELECT @@server_id").unwrap();
        let twin = MySql::from_copy(&copy).unwrap();
        assert_ne!(twin.port(), db.port());
        assert_eq!(twin.sql(count).unwrap(), format!("0\t{id}"));
        assert_eq!(db.sql(count).unwrap(), format!("1\t{id}"));
        db.restore_from(&copy).unwrap();
        assert_eq!(db.sql(count).unwrap(), format!("0\t{id}"));
        if !version.is_mariadb() {
            let uuid = "SELECT @@server_uuid";
            assert_eq!(db.sql(uuid).unwrap(), twin.sql(uuid).unwrap());
        }
    }
}

/// Asks over TCP whether the connection is encrypted.
fn over_tcp(db: &MySql, options: &[String]) -> Result<String, String> {
    let output = db
        .tool("mysql")
        .args(["--host=127.0.0.1", "--user=reader", "--password=secret"])
        .args(["--batch", "--skip-column-names"])
        .arg(format!("--port={}", db.port()))
        .args(options)
        .arg("--execute=SHOW STATUS LIKE 'Ssl_version'")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        Ok(out.trim().to_owned())
    } else {
        Err(err.into_owned())
    }
}

#[test]
fn tls_is_there_when_asked_for_and_trusted_only_from_the_right_authority() {
    let tls = Tls::for_localhost("reader").unwrap();
    let stranger = Tls::for_localhost("reader").unwrap();
    for version in MySqlVersion::ALL {
        let options = |tls: &Tls| {
            let verify = if version.is_mariadb() {
                "--ssl-verify-server-cert"
            } else {
                "--ssl-mode=VERIFY_IDENTITY"
            };
            vec![
                verify.to_owned(),
                format!("--ssl-ca={}", tls.ca().display()),
            ]
        };
        let plain = start(version);
        plain.create_user("reader", "secret").unwrap();
        let refused = over_tcp(&plain, &options(&tls)).unwrap_err();
        assert!(refused.contains("SSL"), "{refused}");

        let db = MySql::builder()
            .version(version)
            .tls_with(&tls)
            .unwrap()
            .start()
            .unwrap();
        db.create_user("reader", "secret").unwrap();
        let encrypted = over_tcp(&db, &options(&tls)).unwrap();
        assert!(encrypted.starts_with("Ssl_version\tTLS"), "{encrypted}");
        let error = over_tcp(&db, &options(&stranger)).unwrap_err();
        assert!(error.contains("certificate"), "{error}");

        db.sql("ALTER USER reader REQUIRE X509").unwrap();
        assert!(over_tcp(&db, &options(&tls)).is_err());
        let mut with_certificate = options(&tls);
        with_certificate.push(format!("--ssl-cert={}", tls.client_cert().display()));
        with_certificate.push(format!("--ssl-key={}", tls.client_key().display()));
        assert!(over_tcp(&db, &with_certificate).is_ok());
    }
}

#[test]
fn a_server_that_does_not_start_shows_its_own_log() {
    for version in MySqlVersion::ALL {
        let error = MySql::builder()
            .version(version)
            .setting("no_such_setting", "1")
            .start()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{version} on port"))
                && text.contains("did not start")
                && text.contains("no_such_setting"),
            "{text}"
        );
    }
}
