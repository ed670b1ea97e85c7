//! What cannot be followed is refused, with a sentence and a fix.

use std::sync::Arc;

use rollcall_contract::{
    ConnectorError, RelatedTable, RelationKind, Report, Severity, Source, TableName, TableNo,
};
use rollcall_postgres::PostgresSource;
use rollcall_testbed::{PgVersion, Postgres};

use crate::bed::{Bed, PEOPLE, shared};

/// What stands against following the table: errors, or else what leaves it to be polled.
fn errors(report: &Report) -> Vec<&str> {
    match codes(report, Severity::Error) {
        none if none.is_empty() => codes(report, Severity::Unfollowable),
        errors => errors,
    }
}

fn codes(report: &Report, severity: Severity) -> Vec<&str> {
    report
        .findings
        .iter()
        .filter(|f| f.severity == severity)
        .map(|f| f.code.as_str())
        .collect()
}

/// Both doors say the same: `check` as a finding, `open` as an error.
pub(crate) async fn refused(source: &PostgresSource) -> String {
    let report = source.check().await;
    assert!(!report.is_followable(), "{report:?}");
    for finding in &report.findings {
        if finding.severity >= Severity::Warning {
            assert!(!finding.fix.is_empty(), "{finding:?}");
        }
    }
    let error = source.open(None).await.err().unwrap();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(error.code(), errors(&report)[0]);
    error.code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_set_up_by_the_script_is_usable() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let server = Postgres::builder().version(version).start().unwrap();
        server.psql("postgres", "CREATE DATABASE scripted").unwrap();
        server.psql("scripted", PEOPLE).unwrap();
        let bed = Bed {
            server: Arc::new(server),
            db: "scripted".to_owned(),
        };
        let before = bed.source().check().await;
        assert!(!before.is_usable());
        bed.sql(&before.script);
        let after = bed.source().check().await;
        assert!(after.is_usable(), "{after:?}");
        assert_eq!(
            codes(&after, Severity::Warning),
            ["max_slot_wal_keep_size"],
            "{after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_followed_is_refused_before_the_application_is_hurt() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "unfollowable",
        "CREATE TABLE people (id int, name text);",
    );
    assert_eq!(refused(&bed.source()).await, "no_key");
    let report = bed.source().check().await;
    assert_eq!(codes(&report, Severity::Unfollowable), ["replica_identity"]);
    bed.sql("ALTER TABLE people ADD PRIMARY KEY (id); ALTER TABLE people REPLICA IDENTITY NOTHING");
    assert_eq!(refused(&bed.source()).await, "replica_identity");
    let slots = bed.sql(&format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        bed.slot()
    ));
    assert_eq!(slots, "0", "nothing was made");
    bed.sql("ALTER TABLE people REPLICA IDENTITY DEFAULT");
    assert!(bed.source().check().await.is_usable());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_never_publishes_a_table_without_a_replica_identity() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let server = Arc::new(Postgres::builder().version(version).start().unwrap());
        server.psql("postgres", "CREATE DATABASE keyless").unwrap();
        let bed = Bed {
            server,
            db: "keyless".to_owned(),
        };
        bed.sql(
            "CREATE TABLE people (id int, name text); INSERT INTO people VALUES (1);
             CREATE TABLE unit (id int PRIMARY KEY DEFERRABLE); INSERT INTO unit VALUES (1);
             CREATE TABLE site (id int) PARTITION BY LIST (id);
             CREATE TABLE site_1 PARTITION OF site FOR VALUES IN (1);
             ALTER TABLE site REPLICA IDENTITY FULL; INSERT INTO site VALUES (1);",
        );
        let mut config = bed.config();
        config.related = ["unit", "site"]
            .map(|name| RelatedTable {
                name: name.to_owned(),
                table: TableName::new("public", name),
                key: None,
            })
            .to_vec();
        let source = PostgresSource::new(config);
        let written = || {
            bed.sql("UPDATE people SET name = 'x'; UPDATE unit SET id = 1; UPDATE site SET id = 1;")
        };
        // The first is printed before the role can log in, so it has to look by itself.
        for _ in 0..2 {
            bed.sql(&source.check().await.script);
            written();
        }
        let published = "SELECT count(*) FROM pg_publication_tables";
        assert_eq!(bed.sql(published), "0");
        bed.sql(
            "ALTER TABLE people ADD PRIMARY KEY (id); ALTER TABLE site_1 REPLICA IDENTITY FULL;
             ALTER TABLE unit REPLICA IDENTITY FULL;",
        );
        bed.sql(&source.check().await.script);
        written();
        assert_eq!(bed.sql(published), "3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_mends_what_is_there_in_part_and_can_be_run_again() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let bed = Bed::on(shared(version), "partly", PEOPLE);
        bed.sql(
            "CREATE TABLE unit (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY);
             CREATE TABLE \"o'dd %I\" (id int PRIMARY KEY) PARTITION BY LIST (id);
             CREATE TABLE odd_1 PARTITION OF \"o'dd %I\" FOR VALUES IN (1);
             CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1);
             CREATE VIEW staff AS SELECT * FROM people;
             CREATE ROLE partly NOLOGIN; DROP PUBLICATION rollcall;
             CREATE PUBLICATION rollcall FOR TABLE other WITH (publish = 'insert');",
        );
        let of = |table: &str| {
            let mut config = bed.config();
            config.user = "partly".to_owned();
            config.table = TableName::new("public", table);
            PostgresSource::new(config)
        };
        // They share the publication.
        let sources = [of("people"), of("unit"), of("o'dd %I")];
        let mut marks = Vec::new();
        for _ in 0..3 {
            for source in &sources {
                bed.sql(&source.check().await.script);
            }
            marks
                .push(bed.sql("SELECT p.xmin, r.xmin FROM pg_publication p, pg_publication_rel r"));
        }
        assert_eq!(marks[0], marks[2], "what is right is not altered");
        for source in &sources {
            let report = source.check().await;
            assert!(report.is_followable(), "{report:?}");
        }
        let view = of("staff");
        for _ in 0..2 {
            let script = view.check().await.script;
            assert!(!script.contains("CREATE PUBLICATION"), "{script}");
            bed.sql(&script);
        }
        // Printed when the role cannot log in, it looks by itself.
        bed.sql("ALTER ROLE partly NOLOGIN");
        bed.sql(&view.check().await.script);
        let published = bed.sql("SELECT count(*) FROM pg_publication_tables");
        assert_eq!(published, "4");

        // All tables: nothing to add, and no operation that would hurt another one.
        bed.sql(
            "DROP PUBLICATION rollcall;
             CREATE PUBLICATION rollcall FOR ALL TABLES WITH (publish = 'insert, truncate');",
        );
        bed.sql(&sources[0].check().await.script);
        bed.sql("UPDATE keyless SET id = 2; DROP TABLE keyless;");
        bed.sql(&sources[0].check().await.script);
        let report = sources[0].check().await;
        assert!(report.is_followable(), "{report:?}");
        bed.sql(
            "DROP PUBLICATION rollcall;
             CREATE PUBLICATION rollcall FOR TABLES IN SCHEMA public;",
        );
        bed.sql(&sources[0].check().await.script);
        assert!(sources[0].check().await.is_followable());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_delete_does_not_carry_is_refused() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "key_carried",
        "CREATE TABLE people (id int PRIMARY KEY, no int NOT NULL UNIQUE);",
    );
    let mut config = bed.config();
    config.key = Some(vec!["no".to_owned()]);
    let source = PostgresSource::new(config);
    assert_eq!(refused(&source).await, "key_not_in_identity");
    bed.sql("ALTER TABLE people REPLICA IDENTITY USING INDEX people_no_key");
    assert!(source.check().await.is_usable());
    assert_eq!(source.schema(TableNo::MAIN).await.unwrap().key, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_foreign_tables_are_not_followed_and_can_be_read_with_a_key() {
    let bed = Bed::new("views");
    bed.sql(
        "CREATE VIEW v AS SELECT * FROM people;
         CREATE MATERIALIZED VIEW m AS SELECT * FROM people;
         CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE FOREIGN TABLE f (id int) SERVER s;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO rollcall",
    );
    for name in ["v", "m", "u", "f"] {
        let mut config = bed.config();
        config.table = TableName::new("public", name);
        config.key = Some(vec!["id".to_owned()]);
        let source = PostgresSource::new(config.clone());
        assert_eq!(refused(&source).await, "not_followable", "{name}");
        let error = source.open(None).await.err().unwrap();
        assert!(matches!(error, ConnectorError::Unfollowable(_)), "{error}");
        assert!(source.check().await.is_usable(), "{name}");
        assert_eq!(source.schema(TableNo::MAIN).await.unwrap().key, [0]);
        config.key = None;
        let keyless = PostgresSource::new(config).schema(TableNo::MAIN).await;
        assert_eq!(keyless.is_ok(), name == "u", "{name}");
    }
    let found = bed.source().discover().await.unwrap();
    let seen: Vec<(&str, RelationKind, bool)> = found
        .iter()
        .map(|t| (t.schema.table.name.as_str(), t.kind, t.obstacle.is_none()))
        .collect();
    assert_eq!(
        seen,
        [
            ("f", RelationKind::ForeignTable, false),
            ("m", RelationKind::View, false),
            ("people", RelationKind::Table, true),
            ("u", RelationKind::Table, false),
            ("v", RelationKind::View, false),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn discover_tells_columns_keys_and_estimates() {
    let tables = "CREATE TABLE people (org text, id int, born date, PRIMARY KEY (id, org))
           PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF people FOR VALUES FROM (0) TO (1000);
         INSERT INTO people SELECT 'x', g, now() FROM generate_series(1, 200) g;
         CREATE TABLE hidden (id int); ANALYZE;";
    let bed = Bed::on(shared(PgVersion::Debian), "discovered", tables);
    bed.sql("REVOKE SELECT ON hidden FROM rollcall");
    let found = bed.source().discover().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let people = &found[0];
    assert_eq!(people.kind, RelationKind::PartitionedTable);
    assert_eq!(people.estimated_rows, Some(200));
    assert_eq!(people.schema.key, [1, 0]);
    assert_eq!(people.obstacle, None);
    let types: Vec<&str> = people
        .schema
        .columns
        .iter()
        .map(|c| c.type_name.as_str())
        .collect();
    assert_eq!(types, ["text", "integer", "date"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn discover_keeps_generated_columns_apart() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "generated",
        "CREATE TABLE people (id int PRIMARY KEY, login text,
           email text GENERATED ALWAYS AS (login || '@x') STORED);
         CREATE TABLE derived (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY);",
    );
    let found = bed.source().discover().await.unwrap();
    let seen: Vec<(usize, &[usize], &[String])> = found
        .iter()
        .map(|t| (t.schema.columns.len(), &t.schema.key[..], &t.generated[..]))
        .collect();
    let (b, email) = (["b".to_owned()], ["email".to_owned()]);
    assert_eq!(seen, [(1, &[][..], &b[..]), (2, &[0][..], &email[..])]);
    let obstacle = found[0].obstacle.as_ref().unwrap();
    assert!(obstacle.contains("generated column"), "{obstacle}");
    let schema = bed.source().schema(TableNo::MAIN).await.unwrap();
    assert_eq!(found[1].schema, *schema, "what is drafted is what is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_is_named() {
    let bed = Bed::new("grants");
    bed.sql("REVOKE SELECT ON people FROM rollcall");
    assert_eq!(refused(&bed.source()).await, "missing_grant");
    bed.sql("GRANT SELECT (id, name) ON people TO rollcall");
    let report = bed.source().check().await;
    let finding = report
        .findings
        .iter()
        .find(|f| f.severity == Severity::Error)
        .unwrap();
    assert!(finding.found.contains("column mail"), "{finding:?}");
    bed.sql("CREATE SCHEMA s; CREATE TABLE s.people (id int PRIMARY KEY)");
    let mut config = bed.config();
    config.table = TableName::new("s", "people");
    assert_eq!(refused(&PostgresSource::new(config)).await, "missing_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_replication_is_told_so() {
    let bed = Bed::new("no_replication");
    bed.sql("CREATE ROLE plain_reader LOGIN; GRANT SELECT ON people TO plain_reader");
    let mut config = bed.config();
    config.user = "plain_reader".to_owned();
    let report = PostgresSource::new(config).check().await;
    assert_eq!(errors(&report), ["missing_grant"], "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_privileges_are_named() {
    let bed = Bed::new("excess");
    bed.sql(
        "CREATE ROLE too_much LOGIN REPLICATION CREATEDB CREATEROLE BYPASSRLS;
         GRANT SELECT, UPDATE, TRUNCATE ON people TO too_much",
    );
    let mut config = bed.config();
    config.user = "too_much".to_owned();
    let report = PostgresSource::new(config).check().await;
    assert!(report.is_usable());
    let found = |code: &str| {
        let finding = report.findings.iter().find(|f| f.code == code);
        finding.map(|f| f.found.clone()).unwrap_or_default()
    };
    assert!(found("excess_privileges").contains("BYPASSRLS, CREATEDB, CREATEROLE"));
    assert!(found("excess_grants").contains("UPDATE, TRUNCATE"));
    let mut config = bed.config();
    config.user = "postgres".to_owned();
    let report = PostgresSource::new(config).check().await;
    assert!(codes(&report, Severity::Warning).contains(&"excess_privileges"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_is_a_member_of_counts_as_its_own() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let bed = Bed::on(shared(version), "memberships", PEOPLE);
        bed.sql(
            "CREATE ROLE modest LOGIN REPLICATION NOINHERIT; GRANT SELECT ON people TO modest;
             CREATE ROLE \"an admin\" SUPERUSER; CREATE ROLE team; CREATE ROLE readers;
             CREATE ROLE makers CREATEDB CREATEROLE;
             GRANT \"an admin\" TO team; GRANT team TO modest; GRANT readers TO modest;
             GRANT makers TO modest; GRANT pg_monitor TO modest;
             GRANT pg_execute_server_program, pg_read_server_files TO modest;",
        );
        let mut config = bed.config();
        config.user = "modest".to_owned();
        let source = PostgresSource::new(config);
        let report = source.check().await;
        assert!(!codes(&report, Severity::Ok).contains(&"role"));
        let found: Vec<(&str, &str)> = report
            .findings
            .iter()
            .filter(|f| f.code == "excess_membership")
            .map(|f| (f.found.as_str(), f.fix.as_str()))
            .collect();
        let sentence =
            |what: &str| format!("The role \"modest\" is {what}; this source does not need that.");
        let expected = [
            (
                sentence("through \"team\" a member of \"an admin\", which has SUPERUSER"),
                "REVOKE \"team\" FROM \"modest\";",
            ),
            (
                sentence("a member of \"makers\", which has CREATEDB, CREATEROLE"),
                "REVOKE \"makers\" FROM \"modest\";",
            ),
            (
                sentence(
                    "a member of \"pg_execute_server_program\", which runs programs on the server \
                     as its system user",
                ),
                "REVOKE \"pg_execute_server_program\" FROM \"modest\";",
            ),
            (
                sentence(
                    "a member of \"pg_read_server_files\", which reads any file of the server",
                ),
                "REVOKE \"pg_read_server_files\" FROM \"modest\";",
            ),
        ];
        let expected: Vec<(&str, &str)> = expected.iter().map(|(s, f)| (s.as_str(), *f)).collect();
        assert_eq!(found, expected);
        for (_, fix) in found {
            bed.sql(fix);
        }
        let report = source.check().await;
        assert!(codes(&report, Severity::Ok).contains(&"role"), "{report:?}");
    }
    // From 16 on a grant can withhold SET ROLE, and with it the attributes.
    let bed = Bed::on(shared(PgVersion::V18), "withheld", PEOPLE);
    bed.sql(
        "CREATE ROLE withheld LOGIN REPLICATION; GRANT SELECT ON people TO withheld;
         CREATE ROLE maker CREATEDB; GRANT pg_read_all_data TO maker;
         GRANT maker TO withheld WITH SET FALSE, INHERIT TRUE;",
    );
    let mut config = bed.config();
    config.user = "withheld".to_owned();
    let report = PostgresSource::new(config).check().await;
    let found: Vec<&str> = report
        .findings
        .iter()
        .filter(|f| f.code == "excess_membership")
        .map(|f| f.found.as_str())
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("through \"maker\" a member of \"pg_read_all_data\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_security_is_refused() {
    let bed = Bed::new("row_security");
    bed.sql("ALTER TABLE people ENABLE ROW LEVEL SECURITY");
    assert_eq!(refused(&bed.source()).await, "row_security");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publication_must_send_everything_of_the_table() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "publications",
        "CREATE TABLE people (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF people FOR VALUES FROM (0) TO (10);",
    );
    let source = bed.source();
    bed.sql("ALTER PUBLICATION rollcall SET (publish = 'insert, update, truncate')");
    assert_eq!(refused(&source).await, "publication_operations");
    bed.sql(
        "ALTER PUBLICATION rollcall SET (publish = 'insert, update, delete, truncate',
           publish_via_partition_root = false)",
    );
    assert_eq!(refused(&source).await, "publish_via_partition_root");
    bed.sql("ALTER PUBLICATION rollcall SET (publish_via_partition_root = true)");
    assert!(source.check().await.is_usable());
    bed.sql("ALTER PUBLICATION rollcall SET TABLE people (name)");
    assert_eq!(refused(&source).await, "no_key");
    bed.sql("ALTER PUBLICATION rollcall SET TABLE people WHERE (id > 1)");
    let report = source.check().await;
    assert!(codes(&report, Severity::Note).contains(&"row_filter"));
    bed.sql("ALTER PUBLICATION rollcall DROP TABLE people");
    assert_eq!(refused(&source).await, "publication_lacks_table");
    bed.sql("DROP PUBLICATION rollcall");
    assert_eq!(refused(&source).await, "publication_missing");
    bed.sql("DROP TABLE people");
    assert_eq!(refused(&source).await, "no_such_table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_another_replica_identity_is_refused() {
    let bed = Bed::on(
        shared(PgVersion::Debian),
        "leaf_identity",
        "CREATE TABLE people (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF people FOR VALUES FROM (0) TO (10);
         ALTER TABLE p1 REPLICA IDENTITY NOTHING;",
    );
    assert_eq!(refused(&bed.source()).await, "replica_identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_slots_and_a_low_wal_level_are_named() {
    let server = Postgres::builder()
        .setting("max_replication_slots", "1")
        .start()
        .unwrap();
    let bed = Bed::on(Arc::new(server), "slots", PEOPLE);
    bed.sql("SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    assert_eq!(refused(&bed.source()).await, "slots_full");
    bed.sql("SELECT pg_drop_replication_slot('other')");
    assert!(bed.source().check().await.is_usable());

    bed.server.append_conf("wal_level = replica").unwrap();
    bed.server.restart().unwrap();
    assert_eq!(refused(&bed.source()).await, "wal_level");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_slot_time_out_is_a_warning() {
    let server = Postgres::builder()
        .version(PgVersion::V18)
        .setting("idle_replication_slot_timeout", "1h")
        .setting("max_slot_wal_keep_size", "4GB")
        .start()
        .unwrap();
    let bed = Bed::on(Arc::new(server), "idle_slot", PEOPLE);
    let report = bed.source().check().await;
    assert!(report.is_usable(), "{report:?}");
    assert_eq!(
        codes(&report, Severity::Warning),
        ["idle_replication_slot_timeout"]
    );
    let finding = report
        .findings
        .iter()
        .find(|f| f.code == "idle_replication_slot_timeout")
        .unwrap();
    assert!(finding.found.contains("3600 s"), "{finding:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused() {
    let server = Postgres::builder().start().unwrap();
    let bed = Bed::on(Arc::new(server), "on_standby", PEOPLE);
    let standby = bed.server.basebackup_standby().unwrap();
    let bed = Bed {
        server: Arc::new(standby),
        db: bed.db.clone(),
    };
    let report = bed.source().check().await;
    assert_eq!(errors(&report), ["standby"], "{report:?}");
}
