//! What a valid file becomes.

use std::path::PathBuf;
use std::time::Duration;

use rollcall_contract::TableName;

use super::super::*;
use super::{MYSQL, SMALL, parse_with, valid};

fn postgres(config: &Config) -> &PostgresConfig {
    match &config.sources[0].kind {
        SourceKind::Postgres(postgres) => postgres,
        SourceKind::MySql(_) => panic!("it is a PostgreSQL"),
    }
}

/// None without TLS; with it, whom to believe.
fn verification(config: &Config) -> Option<Option<Verification>> {
    match &config.sources[0].server.tls {
        TlsConfig::Disable => None,
        TlsConfig::Enable { verify, .. } => Some(verify.clone()),
    }
}

#[test]
fn what_is_left_out_takes_its_default() {
    let config = valid(SMALL);
    assert_eq!(config.organization, "acme");
    assert_eq!(config.store.path, PathBuf::from("/var/lib/rollcall"));
    assert_eq!(
        config.store.socket(),
        PathBuf::from("/var/lib/rollcall/rollcall.sock")
    );
    assert_eq!(
        config.store.outbox_retention,
        Duration::from_secs(7 * 86_400)
    );
    assert_eq!(config.store.outbox_max_bytes, 4 << 30);
    assert_eq!(config.api.listen, None);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.shutdown.grace, Duration::from_secs(10));
    let source = config.source("hr").unwrap();
    assert_eq!(source.match_attributes, ["email"]);
    assert_eq!(
        source.fingerprint,
        ["email"],
        "of the default, what is mapped"
    );
    assert_eq!(source.leaver.action, LeaverAction::Deactivate);
    assert_eq!(source.leaver.deactivate_after, Duration::ZERO);
    assert_eq!(source.leaver.delete_after, None);
    let limit = source.limit.unwrap();
    assert_eq!((limit.max_changes, limit.floor), (50, 5));
    assert!((limit.max_percent - 5.0).abs() < f64::EPSILON);
    assert_eq!(limit.window, Duration::from_hours(24));
    assert_eq!(source.batch.rows, 500);
    assert_eq!(source.batch.most_rows, 5_000);
    assert_eq!(source.batch.size_bytes, 2 << 20);
    let postgres = postgres(&config);
    assert_eq!(source.server.port, 5432);
    assert_eq!(postgres.slot, "rollcall_hr");
    assert_eq!(postgres.publication, "rollcall");
    assert_eq!(verification(&config), None, "the loopback");
    assert_eq!(source.table, TableName::new("public", "employees"));
    assert!(config.sinks.is_empty());
}

#[test]
fn a_host_elsewhere_is_verified_in_full_unless_told_otherwise() {
    let full = Some(Verification {
        ca: None,
        host_name: true,
    });
    for (host, verify) in [
        ("db.example.com", Some(full.clone())),
        ("10.0.0.7", Some(full)),
        ("localhost", None),
        ("127.0.0.1", None),
        ("::1", None),
        ("/run/postgresql", None),
    ] {
        let config = valid(&SMALL.replace("localhost", host));
        assert_eq!(verification(&config), verify, "{host}");
    }
    let config = valid(&format!("{SMALL}tls = {{ mode = \"require\" }}\n"));
    assert_eq!(verification(&config), Some(None));
    let config = valid(&format!("{SMALL}tls = {{ ca = \"/dev/null\" }}\n"));
    let verified = verification(&config).unwrap().unwrap();
    assert!(
        verified.host_name && verified.ca.is_some(),
        "whoever names an authority wants it"
    );
}

#[test]
fn a_table_reads_as_postgresql_reads_it() {
    for (text, schema, name) in [
        ("public.employees", "public", "employees"),
        ("HR.Employees", "hr", "employees"),
        ("hr.\\\"Weird.Name\\\"", "hr", "Weird.Name"),
        ("\\\"a\\\"\\\"b\\\".t_1", "a\"b", "t_1"),
    ] {
        let config = valid(&SMALL.replace("public.employees", text));
        assert_eq!(config.sources[0].table, TableName::new(schema, name));
    }
}

#[test]
fn a_table_reads_as_mysql_reads_it() {
    for (text, schema, name) in [
        ("hr.employees", "hr", "employees"),
        ("HR.Employees", "HR", "Employees"),
        ("2026.7days", "2026", "7days"),
        ("hr.`Weird.Name`", "hr", "Weird.Name"),
        ("`a``b`.\\\"c`d\\\"", "a`b", "c`d"),
    ] {
        let config = valid(&MYSQL.replace("hr.employees", text));
        assert_eq!(config.sources[0].table, TableName::new(schema, name));
    }
}

#[test]
fn a_table_is_written_as_it_is_read() {
    for naming in [Naming::Postgres, Naming::MySql] {
        for name in [
            "employees",
            "Weird.Name",
            "7days",
            "a\"b",
            "a`b",
            "größe",
            "\"",
            "a b",
        ] {
            let table = TableName::new("HR", name);
            let written = naming.write(&table);
            assert_eq!(naming.parse(&written), Some(table), "{written}");
        }
    }
    let plain = TableName::new("hr", "employees");
    assert_eq!(Naming::MySql.write(&plain), "hr.employees");
    assert_eq!(Naming::Postgres.write(&plain), "hr.employees");
}

#[test]
fn mysql_and_mariadb_have_their_own_defaults() {
    for (kind, flavour) in [("mysql", Flavour::MySql), ("mariadb", Flavour::MariaDb)] {
        let config = valid(&MYSQL.replace("\"mysql\"", &format!("\"{kind}\"")));
        let source = config.source("hr").unwrap();
        assert_eq!(source.server.port, 3306);
        let SourceKind::MySql(mysql) = &source.kind else {
            panic!("it is a {kind}");
        };
        assert_eq!(mysql.flavour, flavour);
        assert_eq!(mysql.server_id, None);
        assert_eq!(mysql.zero_dates, ZeroDates::Null);
    }
    let config = valid(&format!(
        "{MYSQL}port = 3307\nserver_id = 4294967295\nzero_dates = \"text\"\n"
    ));
    assert_eq!(config.sources[0].server.port, 3307);
    let SourceKind::MySql(mysql) = &config.sources[0].kind else {
        panic!("it is a mysql");
    };
    assert_eq!(mysql.server_id, Some(u32::MAX));
    assert_eq!(mysql.zero_dates, ZeroDates::Text);
}

#[test]
fn rules_keep_their_order_and_their_lines() {
    let text = SMALL.replace(
        "map = { email = \"emp_email\" }\n",
        r#"scope = "status != 'x'"
[source.hr.map]
title = { column = "job", default = "Employee", strength = "on_create" }
email = "emp_email"
name.givenName = "first"
"name.familyName" = { expr = "upper(last)", on_null = "keep" }
locale = { constant = "de-DE", strength = "if_empty" }
roles = { column = "roles", split = "," }
"#,
    );
    let config = valid(&text);
    let mapping = &config.sources[0].mapping;
    let scope = mapping.scope.as_ref().unwrap();
    assert_eq!(
        (scope.expr.as_str(), scope.place.line),
        ("status != 'x'", 9)
    );
    let read: Vec<(&str, u32)> = mapping
        .rules
        .iter()
        .map(|rule| (rule.attribute.as_str(), rule.place.line))
        .collect();
    assert_eq!(
        read,
        [
            ("title", 11),
            ("email", 12),
            ("name.givenName", 13),
            ("name.familyName", 14),
            ("locale", 15),
            ("roles", 16),
        ]
    );
    let title = &mapping.rules[0];
    assert_eq!(title.kind, RuleKind::Column("job".into()));
    assert_eq!(title.strength, Strength::OnCreate);
    assert_eq!(
        title.on_null,
        OnNull::Default(Constant::Text("Employee".into()))
    );
    assert_eq!(mapping.rules[1].on_null, OnNull::Clear);
    assert_eq!(mapping.rules[3].kind, RuleKind::Expr("upper(last)".into()));
    assert_eq!(mapping.rules[3].on_null, OnNull::Keep);
    assert_eq!(
        mapping.rules[4].kind,
        RuleKind::Constant(Constant::Text("de-DE".into()))
    );
    assert_eq!(mapping.rules[5].split.as_deref(), Some(","));
    assert_eq!(config.locate("source.hr.map.name.familyName").line, 14);
    assert_eq!(config.locate("source.hr.map.locale.constant").line, 15);
    assert_eq!(
        config.locate("source.hr.map.nickName").line,
        10,
        "its table"
    );
    assert_eq!(
        config.locate("source.hr.map.title"),
        Place {
            line: 11,
            column: 1
        }
    );
}

#[test]
fn a_kafka_sink_reads_whole() {
    let text = format!(
        r#"{SMALL}
[sink.events]
type = "kafka"
brokers = ["kafka-1.example.com:9092", "kafka-2.example.com:9092"]
delivery = "at_least_once"
partitions = 6
sasl = {{ mechanism = "SCRAM-SHA-512", username = "u", password = {{ env = "KAFKA" }} }}
[sink.events.properties]
linger.ms = 3
"ssl.keystore.password" = {{ env = "STORE" }}
compression.type = "zstd"
"#
    );
    let config = parse_with(&text, &[("KAFKA", "marker-one"), ("STORE", "marker-two")]).unwrap();
    let Destination::Kafka(kafka) = &config.sink("events").unwrap().destination else {
        panic!("another sink");
    };
    assert_eq!(kafka.topic, "rollcall.identity");
    assert_eq!(kafka.cursors_topic, "rollcall.cursors");
    assert_eq!(kafka.delivery, Delivery::AtLeastOnce);
    assert_eq!(kafka.transactional_id, "rollcall.acme.events");
    assert_eq!((kafka.partitions, kafka.replication), (Some(6), None));
    let TlsConfig::Enable { verify, client } = &kafka.tls else {
        panic!("no TLS");
    };
    assert!(verify.as_ref().unwrap().host_name && client.is_none());
    let names: Vec<&str> = kafka.properties.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["compression.type", "linger.ms", "ssl.keystore.password"]
    );
    assert!(matches!(&kafka.properties["linger.ms"], PropertyValue::Plain(v) if v == "3"));
    assert!(matches!(
        &kafka.properties["ssl.keystore.password"],
        PropertyValue::Secret(_)
    ));
    let shown = format!("{config:?}");
    assert!(!shown.contains("marker"), "{shown}");
}

#[test]
fn a_bearer_token_stays_a_file_that_is_read_when_it_is_needed() {
    let text = format!(
        "{SMALL}[sink.events]\ntype = \"kafka\"\nbrokers = [\"localhost:9092\"]\nsasl = {{ mechanism = \"OAUTHBEARER\", token_file = \"/run/token\" }}\n"
    );
    let config = valid(&text);
    let Destination::Kafka(kafka) = &config.sinks[0].destination else {
        panic!("another sink");
    };
    assert!(matches!(
        kafka.sasl.as_ref(),
        Some(Sasl::OAuthBearer { token_file }) if token_file == &PathBuf::from("/run/token")
    ));
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let text = SMALL.replace(
        "[source.hr]",
        "store.path = \"data\"\n[sink.log]\ntype = \"ndjson\"\npath = \"out/e.ndjson\"\n[source.hr]",
    );
    let none = std::collections::BTreeMap::new();
    let config = Config::parse(
        std::path::Path::new("/etc/rollcall/rollcall.toml"),
        &text,
        &none,
    )
    .unwrap();
    assert_eq!(config.store.path, PathBuf::from("/etc/rollcall/data"));
    let Destination::Ndjson(NdjsonConfig::File {
        path,
        rotate_size_bytes,
        rotate_keep,
    }) = &config.sinks[0].destination
    else {
        panic!("another sink");
    };
    assert_eq!(path, &PathBuf::from("/etc/rollcall/out/e.ndjson"));
    assert_eq!((*rotate_size_bytes, *rotate_keep), (100 << 20, 10));
}

#[test]
fn an_outline_needs_no_credential() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let text = format!(
        "{SMALL}password = {{ sealed = \"rc1.00000000.AAAA\" }}\ntls = {{ mode = \"verify-ca\", ca = \"absent.pem\" }}\n"
    );
    std::fs::write(&path, &text).unwrap();
    let outline = Outline::load(&path).unwrap();
    assert_eq!(outline.organization, "acme");
    assert_eq!(outline.sources, ["hr"]);
    assert_eq!(Config::load(&path).unwrap_err().iter().count(), 2);
}
