//! Each finding of the check, with its fix; and that it refuses what it must.

use rollcall_contract::{ConnectorError, Finding, Report, Severity, Source, TableNo};
use rollcall_mysql::MySqlSource;
use rollcall_testbed::MySqlVersion;

use crate::bed::{Bed, shared};

fn finding<'r>(report: &'r Report, code: &str) -> &'r Finding {
    report
        .findings
        .iter()
        .find(|f| f.code == code)
        .unwrap_or_else(|| panic!("no finding {code} in {report:#?}"))
}

with_both!(
    a_server_that_is_set_up_has_nothing_to_mend,
    every_setting_that_loses_changes_is_an_error,
    what_the_account_may_not_do_is_an_error_and_what_it_need_not_is_a_warning,
    tables_that_cannot_be_followed_are_refused,
    cascades_that_the_log_does_not_carry_are_named,
);

async fn a_server_that_is_set_up_has_nothing_to_mend(version: MySqlVersion) {
    let bed = Bed::new(version, "check_good");
    let report = bed.source().check().await;
    assert!(report.is_usable(), "{report:#?}");
    assert!(
        report
            .findings
            .iter()
            .all(|f| f.severity < Severity::Warning),
        "{report:#?}"
    );
    assert!(
        report
            .script
            .contains("GRANT SELECT ON `check_good`.`people`")
    );
}

async fn every_setting_that_loses_changes_is_an_error(version: MySqlVersion) {
    let format = [("binlog_format", "MIXED")];
    let filter = [("binlog_ignore_db", "hr")];
    for (settings, code) in [(format, "binlog_format"), (filter, "binlog_filter")] {
        let bed = Bed::alone(version, &settings);
        let report = bed.source().check().await;
        let found = finding(&report, code);
        assert_eq!(found.severity, Severity::Unfollowable, "{found:?}");
        assert!(!found.fix.is_empty());
        let error = bed.source().open(None).await.err().unwrap();
        assert!(matches!(error, ConnectorError::Unfollowable(_)), "{error}");
    }
    let bed = Bed::alone(
        version,
        &[
            ("binlog_row_image", "MINIMAL"),
            ("binlog_row_metadata", "MINIMAL"),
            ("binlog_expire_logs_seconds", "3600"),
        ],
    );
    let report = bed.source().check().await;
    for code in [
        "binlog_row_image",
        "binlog_row_metadata",
        "binlog_expire_logs_seconds",
    ] {
        let found = finding(&report, code);
        assert_eq!(found.severity, Severity::Warning, "{found:?}");
        assert!(!found.fix.is_empty());
    }
}

async fn what_the_account_may_not_do_is_an_error_and_what_it_need_not_is_a_warning(
    version: MySqlVersion,
) {
    let bed = Bed::new(version, "check_grants");
    bed.server.create_user("poor", "secret").unwrap();
    bed.server.create_user("rich", "secret").unwrap();
    crate::bed::grant(&bed.server, "rich");
    bed.sql("GRANT SELECT, INSERT, UPDATE ON check_grants.* TO rich@'%'");
    let check = async |user: &str| {
        let mut config = bed.config();
        config.user = user.to_owned();
        MySqlSource::new(config).check().await
    };
    let poor = check("poor").await;
    assert_eq!(
        finding(&poor, "missing_grant").severity,
        Severity::Unfollowable
    );
    assert_eq!(finding(&poor, "no_such_table").severity, Severity::Error);
    let rich = check("rich").await;
    let excess = finding(&rich, "excess_grants");
    assert_eq!(excess.severity, Severity::Warning);
    assert!(excess.found.contains("INSERT, UPDATE"), "{}", excess.found);
    assert!(rich.is_usable());
}

#[tokio::test]
async fn times_whose_length_the_log_does_not_say_are_refused() {
    let settings = [("mysql56_temporal_format", "OFF")];
    let bed = Bed::alone(MySqlVersion::MariaDb10, &settings);
    bed.sql("ALTER TABLE people ADD t TIME, ADD d DATETIME");
    let report = bed.source().check().await;
    assert!(report.is_usable(), "{report:#?}");
    bed.sql("ALTER TABLE people MODIFY t TIME(6)");
    let report = bed.source().check().await;
    let found = finding(&report, "old_fraction");
    assert_eq!(found.severity, Severity::Unfollowable, "{found:?}");
    assert!(bed.source().open(None).await.is_err());
    bed.sql("SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE people FORCE");
    assert!(bed.source().check().await.is_usable());
}

async fn tables_that_cannot_be_followed_are_refused(version: MySqlVersion) {
    let server = shared(version);
    for (i, (table, code)) in [
        ("CREATE TABLE people (id INT)", "no_key"),
        (
            "CREATE TABLE people (name VARCHAR(50), PRIMARY KEY (name(5)))",
            "no_key",
        ),
        ("CREATE TABLE people (x FLOAT PRIMARY KEY)", "no_key"),
        // Its text is that of no member, too.
        (
            "CREATE TABLE people (x ENUM('a', '') PRIMARY KEY)",
            "no_key",
        ),
        ("CREATE VIEW people AS SELECT 1 AS id", "no_key"),
        ("CREATE TABLE other (id INT PRIMARY KEY)", "no_such_table"),
    ]
    .into_iter()
    .enumerate()
    {
        let bed = Bed::on(server.clone(), &format!("check_table_{i}"), table);
        let report = bed.source().check().await;
        let found = finding(&report, code);
        assert_eq!(found.severity, Severity::Error, "{table}: {found:?}");
        assert!(bed.source().schema(TableNo::MAIN).await.is_err(), "{table}");
    }
    let bed = Bed::new(version, "check_discover");
    bed.sql("CREATE TABLE keyless (id INT); CREATE VIEW v AS SELECT * FROM people");
    let found = bed.source().discover().await.unwrap();
    let obstacle = |name: &str| {
        let table = found
            .iter()
            .find(|t| t.schema.table.schema == "check_discover" && t.schema.table.name == name);
        table.unwrap().obstacle.clone()
    };
    assert_eq!(obstacle("people"), None);
    assert!(obstacle("keyless").unwrap().contains("no primary key"));
    assert!(obstacle("v").unwrap().contains("view"));
}

async fn cascades_that_the_log_does_not_carry_are_named(version: MySqlVersion) {
    let bed = Bed::on(
        shared(version),
        "check_cascade",
        "CREATE TABLE unit (id INT PRIMARY KEY);
         CREATE TABLE people (id INT PRIMARY KEY, unit INT,
           CONSTRAINT of_unit FOREIGN KEY (unit) REFERENCES unit (id) ON DELETE CASCADE);",
    );
    let report = bed.source().check().await;
    let found = report
        .findings
        .iter()
        .find(|f| f.code == "foreign_key_cascade");
    // From 9.6 on MySQL writes what its cascades do; the stream's test shows that it does.
    match version.is_mariadb() {
        true => assert_eq!(found.unwrap().severity, Severity::Warning),
        false => assert_eq!(found, None),
    }
}

#[tokio::test]
async fn positions_without_gtids_are_warned_of() {
    let bed = Bed::alone(
        MySqlVersion::MySql9,
        &[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")],
    );
    let report = bed.source().check().await;
    assert_eq!(finding(&report, "gtid_mode").severity, Severity::Warning);
    assert!(report.is_usable(), "{report:#?}");
}

#[tokio::test]
async fn numbers_out_of_order_are_warned_of() {
    let bed = Bed::alone(MySqlVersion::MariaDb10, &[("gtid_strict_mode", "OFF")]);
    let report = bed.source().check().await;
    let found = finding(&report, "gtid_strict_mode");
    assert_eq!(found.severity, Severity::Warning);
}

#[tokio::test]
async fn a_key_that_old_rows_do_not_carry_is_refused() {
    let bed = Bed::alone(MySqlVersion::MariaDb10, &[("binlog_row_image", "MINIMAL")]);
    bed.sql("ALTER TABLE people ADD COLUMN no INT NOT NULL UNIQUE");
    let mut config = bed.config();
    config.key = Some(vec!["no".to_owned()]);
    let report = MySqlSource::new(config).check().await;
    let found = report
        .findings
        .iter()
        .find(|f| f.code == "binlog_row_image" && f.severity == Severity::Unfollowable);
    assert!(found.is_some(), "{report:#?}");
}

#[tokio::test]
async fn a_configured_key_needs_its_index() {
    let bed = Bed::on(
        shared(MySqlVersion::MariaDb10),
        "check_key",
        "CREATE TABLE people (id INT PRIMARY KEY, no INT NOT NULL UNIQUE, alias INT UNIQUE);",
    );
    let key_of = async |key: &[&str]| {
        let mut config = bed.config();
        config.key = Some(key.iter().map(|k| (*k).to_owned()).collect());
        MySqlSource::new(config)
            .schema(TableNo::MAIN)
            .await
            .map(|s| s.key.clone())
    };
    assert_eq!(key_of(&["no"]).await.unwrap(), [1]);
    // Without an index that holds it, a key is good for polling only.
    assert_eq!(key_of(&["alias"]).await.unwrap(), [2]);
    let mut config = bed.config();
    config.key = Some(vec!["alias".to_owned()]);
    let error = MySqlSource::new(config).open(None).await.err().unwrap();
    assert!(matches!(error, ConnectorError::Unfollowable(_)), "{error}");
    assert_eq!(error.code(), "no_key");
    assert_eq!(key_of(&["nobody"]).await.unwrap_err().code(), "no_key");
}
