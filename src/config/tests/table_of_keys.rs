//! The table of keys is the truth about the parser, the page and the schema.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use toml::de::DeTable;

use super::super::reader::Document;
use super::super::{Config, KEYS, Key, Presence, explain, explain::EXAMPLE, json_schema, markdown};

/// Files that lead the parser into each of its branches.
const EVERY_BRANCH: &str = r#"
organization = "acme"
[attributes.badge]
type = "text"
[field.title]
authority = ["hr"]
mode = "most_recent"
skew = "1s"
changed = { hr = "updated_at" }
[source.hr]
type = "postgres"
host = "localhost"
database = "hr"
user = "rollcall"
table = "public.employees"
change_stream = { sink = "events", topic = "raw" }
map = { email = { column = "email" } }
related = { dept = { table = "public.departments", on = { id = "department_id" } } }
[token.ci]
secret = { env = "P" }
[source.crm]
type = "mysql"
host = "localhost"
user = "rollcall"
table = "crm.people"
map = { email = "email" }
[sink.events]
type = "kafka"
brokers = ["localhost:9092"]
sasl = { mechanism = "PLAIN", username = "a", password = { env = "P" } }
properties = { "linger.ms" = 0 }
[sink.others]
type = "kafka"
brokers = ["localhost:9092"]
sasl = { mechanism = "OAUTHBEARER", token_file = "t" }
[sink.log]
type = "ndjson"
"#;

#[test]
fn every_key_that_the_parser_accepts_is_explained_and_no_other() {
    let document = Document::new(Path::new("rollcall.toml"), EVERY_BRANCH);
    let table = DeTable::parse(EVERY_BRANCH).unwrap();
    let environment = BTreeMap::from([("P".to_owned(), "p".repeat(20))]);
    let config = super::super::top::config(&document.root(table.get_ref()), Some(&environment));
    let asked = RefCell::take(&document.asked);
    let (errors, _) = document.finish();
    assert!(config.is_some(), "{errors:?}");
    let listed: BTreeSet<String> = KEYS.iter().map(|key| key.pattern.to_owned()).collect();
    let difference: Vec<_> = asked.symmetric_difference(&listed).collect();
    assert!(difference.is_empty(), "{difference:?}");
    assert_eq!(listed.len(), KEYS.len(), "a key stands there twice");
}

#[test]
fn every_default_and_example_is_a_value_of_toml() {
    for key in KEYS {
        toml::from_str::<toml::Table>(&format!("value = {}", key.example))
            .unwrap_or_else(|error| panic!("example of {}: {error}", key.pattern));
        if let Presence::Default(text) = key.presence {
            toml::from_str::<toml::Table>(&format!("value = {text}"))
                .unwrap_or_else(|error| panic!("default of {}: {error}", key.pattern));
        }
        assert!(key.meaning.ends_with('.'), "{}", key.pattern);
        assert!(!key.meaning.contains('|'), "{}", key.pattern);
    }
}

/// A file made of the examples of one kind of source and sink.
fn from_examples(source: &str, sink: &str, leave_out: &[&str]) -> String {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in KEYS {
        let of_other_type = match key.pattern.starts_with("sink") {
            true => !key.is_of(sink),
            false => !key.is_of(source),
        };
        let is_table = KEYS.iter().any(|other| other.table() == key.pattern);
        if is_table || of_other_type || leave_out.contains(&key.pattern) {
            continue;
        }
        let concrete = |pattern: &str| match pattern.rsplit_once(".map.*") {
            Some((above, below)) => {
                let source = above.replace('*', "hr");
                format!("{source}.map.title{below}")
            }
            None => pattern
                .replace("source.*", "source.hr")
                .replace("sink.*", "sink.events")
                .replace("token.*", "token.ci")
                .replace("attributes.*", "attributes.birthDate")
                .replace("field.*", "field.department")
                .replace("changed.*", "changed.hr")
                .replace("related.*.on.*", "related.dept.on.id")
                .replace("related.*", "related.dept")
                .replace("properties.*", "properties.\"linger.ms\""),
        };
        let path = concrete(key.pattern);
        let table = concrete(key.table());
        let name = path.strip_prefix(&table).unwrap().trim_start_matches('.');
        let value = match name {
            "type" if key.pattern.starts_with("sink") => format!("\"{sink}\""),
            "type" if key.pattern.starts_with("source") => format!("\"{source}\""),
            _ => key.example.to_owned(),
        };
        tables
            .entry(table)
            .or_default()
            .push(format!("{name} = {value}"));
    }
    let mut text = tables.remove("").unwrap().join("\n");
    for (table, lines) in tables {
        text.push_str(&format!("\n[{table}]\n{}\n", lines.join("\n")));
    }
    text.push_str(
        "[source.crm]\ntype = \"postgres\"\nhost = \"/run/postgresql\"\ndatabase = \"crm\"\nuser = \"a\"\ntable = \"public.people\"\nmap = { email = \"email\" }\n",
    );
    text
}

#[test]
fn the_examples_together_are_a_valid_file() {
    let of_files = [
        "vault.key_file",
        "vault.previous_key_files",
        "source.*.tls.ca",
        "source.*.tls.cert",
        "source.*.tls.key",
        "sink.*.tls.ca",
        "sink.*.tls.cert",
        "sink.*.tls.key",
        "sink.*.tls.key_password",
        "source.*.map.*.columns",
        "source.*.map.*.expr",
        "source.*.map.*.constant",
        "source.*.map.*.on_null",
        "sink.*.sasl.token_file",
    ];
    for (source, sink) in [
        ("postgres", "kafka"),
        ("mysql", "kafka"),
        ("mariadb", "ndjson"),
    ] {
        let mut left_out = of_files.to_vec();
        if sink == "ndjson" {
            // Raw changes need a sink with topics.
            left_out.extend(
                KEYS.iter()
                    .map(|key| key.pattern)
                    .filter(|p| p.contains("change_stream")),
            );
        }
        let mut text = from_examples(source, sink, &left_out);
        let needed = "[source.hr.map.email]\ncolumn = \"email\"\n[source.hr.map.employeeNumber]\ncolumn = \"no\"\n[source.hr.map.name]\ngivenName = \"first\"\nfamilyName = \"last\"\n[source.hr.map.custom]\nbirthDate = \"born\"\n";
        text.push_str(needed);
        let environment: BTreeMap<String, String> =
            ["HR_PASSWORD", "KAFKA_PASSWORD", "ROLLCALL_TOKEN"]
                .iter()
                .map(|name| ((*name).to_owned(), "x".repeat(20)))
                .collect();
        Config::parse(Path::new("rollcall.toml"), &text, &environment)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    }
}

#[test]
fn the_example_file_is_valid() {
    let environment = BTreeMap::from([("HR_PASSWORD".to_owned(), "x".to_owned())]);
    Config::parse(Path::new("rollcall.toml"), EXAMPLE, &environment)
        .unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn the_page_in_docs_is_a_copy_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let expected = markdown();
    if std::env::var_os("ROLLCALL_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        present == expected,
        "docs/configuration.md is not what the table of keys says; write it with ROLLCALL_WRITE_DOCS=1 cargo test -p rollcall --lib the_page_in_docs"
    );
}

fn patterns(question: &str) -> Vec<&'static str> {
    let keys = explain(Some(question)).unwrap();
    keys.iter().map(|key| key.pattern).collect()
}

#[test]
fn a_key_is_found_by_its_full_name_its_pattern_its_table_and_its_last_part() {
    assert_eq!(patterns("source.hr.port"), ["source.*.port"]);
    assert_eq!(patterns("source.*.port"), ["source.*.port"]);
    assert_eq!(patterns("port"), ["source.*.port"]);
    assert_eq!(patterns("[log]"), ["log", "log.format", "log.level"]);
    assert_eq!(
        patterns("tls.mode"),
        ["source.*.tls.mode", "sink.*.tls.mode"]
    );
    assert_eq!(patterns("source.hr.map.name.givenName"), ["source.*.map.*"]);
    assert!(patterns("source").contains(&"source.*.map.*.split"));
    assert_eq!(explain(None).unwrap().len(), KEYS.len());
    assert_eq!(explain(Some("slott")).unwrap_err(), Some("slot"));
    assert_eq!(explain(Some("kubernetes")).unwrap_err(), None);
}

/// Checks a value against the part of JSON Schema that ours uses.
fn accepts(schema: &Value, root: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else {
        return schema == &Value::Bool(true);
    };
    rules.iter().all(|(rule, limit)| match rule.as_str() {
        "$ref" => {
            let name = limit.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            accepts(&root["$defs"][name], root, value)
        }
        "type" => {
            let is = |kind: &Value| match kind.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_i64(),
                other => panic!("the schema uses the type {other}"),
            };
            match limit {
                Value::Array(kinds) => kinds.iter().any(is),
                kind => is(kind),
            }
        }
        "properties" => limit.as_object().unwrap().iter().all(|(key, schema)| {
            value
                .get(key)
                .is_none_or(|value| accepts(schema, root, value))
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            map.iter()
                .filter(|(key, _)| schema["properties"].get(key.as_str()).is_none())
                .all(|(_, value)| accepts(limit, root, value))
        }),
        "required" => limit
            .as_array()
            .unwrap()
            .iter()
            .all(|key| value.get(key.as_str().unwrap()).is_some()),
        "enum" => limit.as_array().unwrap().contains(value),
        "const" => limit == value,
        "minimum" => value.as_f64().is_none_or(|n| n >= limit.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= limit.as_f64().unwrap()),
        "minLength" | "minItems" => {
            let length = value.as_array().map(Vec::len);
            length
                .or(value.as_str().map(str::len))
                .is_none_or(|n| n > 0)
        }
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| accepts(limit, root, item))),
        "anyOf" => limit
            .as_array()
            .unwrap()
            .iter()
            .any(|schema| accepts(schema, root, value)),
        "oneOf" => {
            let all = limit.as_array().unwrap();
            all.iter().filter(|s| accepts(s, root, value)).count() == 1
        }
        "allOf" => limit.as_array().unwrap().iter().all(|schema| {
            !accepts(&schema["if"], root, value) || accepts(&schema["then"], root, value)
        }),
        "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "if" | "then"
        | "pattern" | "uniqueItems" => true,
        other => panic!("the schema uses {other}"),
    })
}

/// Whether the schema takes a file.
pub(super) fn schema_takes(text: &str) -> bool {
    let schema = json_schema();
    let table: toml::Table = toml::from_str(text).unwrap();
    accepts(&schema, &schema, &serde_json::to_value(table).unwrap())
}

#[test]
fn the_schema_takes_what_the_parser_takes_and_refuses_what_it_refuses() {
    assert!(schema_takes(EXAMPLE));
    assert!(schema_takes(EVERY_BRANCH));
    assert!(schema_takes(super::SMALL));
    assert!(schema_takes(super::MYSQL));
    for (right, wrong) in [
        ("host = \"localhost\"", "hosts = \"localhost\""),
        ("host = \"localhost\"", "host = 5"),
        (
            "host = \"localhost\"",
            "host = \"localhost\"\npath = \"-\"\nbrokers = []",
        ),
        ("host = \"localhost\"\n", ""),
        ("type = \"postgres\"", "type = \"oracle\""),
        ("{ email = \"emp_email\" }", "{ email = { colum = \"x\" } }"),
        (
            "user = \"rollcall\"",
            "user = \"rollcall\"\npassword = \"plain\"",
        ),
        ("user = \"rollcall\"", "user = \"rollcall\"\nport = 70000"),
    ] {
        let text = super::SMALL.replace(right, wrong);
        assert_ne!(text, super::SMALL);
        assert!(!schema_takes(&text), "{text}");
        assert!(super::parse(&text).is_err(), "{text}");
    }
    for line in [
        "slot = \"rollcall\"",
        "database = \"hr\"",
        "server_id = 0",
        "zero_dates = \"zero\"",
    ] {
        let text = format!("{}{line}\n", super::MYSQL);
        assert!(!schema_takes(&text), "{text}");
        assert!(super::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn every_key_has_a_description_in_the_schema() {
    fn count(schema: &Value) -> usize {
        match schema {
            Value::Object(map) => {
                usize::from(map.get("description").is_some_and(Value::is_string))
                    + map.values().map(count).sum::<usize>()
            }
            Value::Array(items) => items.iter().map(count).sum(),
            _ => 0,
        }
    }
    let table_rows: Vec<&Key> = KEYS.iter().collect();
    assert!(count(&json_schema()) >= table_rows.len());
}
