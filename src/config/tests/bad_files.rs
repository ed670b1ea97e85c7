//! Every wrong file has its sentence, and every sentence its place.

use super::{MYSQL, SMALL, parse_with, refused, valid};

/// The sentences after one change to the small file.
fn after(right: &str, wrong: &str) -> Vec<String> {
    let text = SMALL.replacen(right, wrong, 1);
    assert_ne!(text, SMALL, "{right} is not in the file");
    refused(&text)
}

/// Holds a change against the one sentence that it earns.
fn check(cases: &[(&str, &str, &str)]) {
    for (right, wrong, sentence) in cases {
        assert_eq!(after(right, wrong), [*sentence], "{wrong}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_what_was_expected() {
    check(&[
        (
            "organization = \"acme\"",
            "organization = \"Acme Inc\"",
            "rollcall.toml:1:16: organization: found the text \"Acme Inc\", expected 1 to 63 of the characters a-z, 0-9 and -; fix: write for example `organization = \"acme\"`",
        ),
        (
            "user = \"rollcall\"",
            "user = \"rollcall\"\nport = \"5432\"",
            "rollcall.toml:8:8: source.hr.port: found the text \"5432\", expected a whole number from 1 to 65535; fix: write for example `port = 5432`",
        ),
        (
            "user = \"rollcall\"",
            "user = \"\"",
            "rollcall.toml:7:8: source.hr.user: found an empty text, expected a text; fix: write for example `user = \"rollcall\"`",
        ),
        (
            "host = \"localhost\"",
            "host = \"not a host\"",
            "rollcall.toml:5:8: source.hr.host: found the text \"not a host\", expected a host name, an IP address or the path of a Unix socket; fix: write for example `host = \"db.example.com\"`",
        ),
        (
            "table = \"public.employees\"",
            "table = \"employees\"",
            "rollcall.toml:8:9: source.hr.table: found the text \"employees\", expected schema.table, either part in quotes where the server would want them; fix: write `table = \"public.employees\"` if that is its schema",
        ),
        (
            "type = \"postgres\"",
            "type = \"postgre\"",
            "rollcall.toml:4:8: source.hr.type: found the text \"postgre\", expected \"postgres\", \"mysql\" or \"mariadb\"; fix: write \"postgres\"",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = 5 }",
            "rollcall.toml:9:17: source.hr.map.email: found the number 5, expected a column's name or a table with column, columns, expr or constant; fix: write for example `email = { column = \"emp_email\" }`",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\" }\nredact = [\"ssn\", \"ssn\"]",
            "rollcall.toml:10:10: source.hr.redact: found \"ssn\" twice, expected a list of texts, at least one, none twice; fix: remove one of the two",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\" }\nconnect_timeout = \"1m30s\"",
            "rollcall.toml:10:19: source.hr.connect_timeout: found the text \"1m30s\", expected a duration: a whole number with one of the units ms, s, m, h, d; fix: write for example `connect_timeout = \"10s\"`",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\" }\nbatch.size = \"16MB\"",
            "rollcall.toml:10:14: source.hr.batch.size: found the text \"16MB\", expected a size: a whole number with one of the units B, KiB, MiB, GiB; fix: write for example `size = \"16MiB\"`",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\" }\nlimit.max_percent = 101",
            "rollcall.toml:10:21: source.hr.limit.max_percent: found the number 101, expected a number from 0 to 100; fix: write for example `max_percent = 2`",
        ),
        (
            "[source.hr]",
            "[source.HR]",
            "rollcall.toml:3:9: source: found the name \"HR\", expected a name that begins with a letter and has at most 32 of the characters a-z, 0-9, - and _; fix: choose another name",
        ),
    ]);
}

#[test]
fn what_no_server_and_no_system_takes_is_refused_at_its_place() {
    check(&[
        (
            "user = \"rollcall\"",
            "user = \"roll\\u0000call\"",
            "rollcall.toml:7:8: source.hr.user: found a text with a zero byte, expected a text; fix: remove it; no server takes one",
        ),
        (
            "user = \"rollcall\"",
            "user = \"rollcall\"\nkey = [\"i\\u0000d\"]",
            "rollcall.toml:8:7: source.hr.key: found the text \"i\\0d\" in the list, expected a list of texts, at least one, none twice; fix: write for example `key = [\"id\"]`",
        ),
        (
            "table = \"public.employees\"",
            "table = \"public.\\\"a\\u0000\\\"\"",
            "rollcall.toml:8:9: source.hr.table: found the text \"public.\\\"a\\0\\\"\", expected schema.table, either part in quotes where the server would want them; fix: write for example `table = \"public.employees\"`",
        ),
    ]);
    let long = format!(
        "organization = \"acme\"\nstore.path = \"/{}\"",
        "x".repeat(99)
    );
    assert_eq!(
        after("organization = \"acme\"", &long),
        [
            "rollcall.toml:2:14: store.path: found a folder in which the path of the daemon's socket is too long, expected a path that leaves room for /rollcall.sock: 107 bytes with it; fix: name a folder whose path is at least 7 bytes shorter"
        ]
    );
}

#[test]
fn what_is_missing_is_named_with_the_line_to_add() {
    check(&[
        (
            "organization = \"acme\"\n",
            "\n",
            "rollcall.toml:1:1: organization: found nothing, expected 1 to 63 of the characters a-z, 0-9 and -; fix: add `organization = \"acme\"` to the top of the file",
        ),
        (
            "host = \"localhost\"\n",
            "",
            "rollcall.toml:3:9: source.hr.host: found nothing, expected a host name, an IP address or the path of a Unix socket; fix: add `host = \"db.example.com\"` to [source.hr]",
        ),
        (
            "map = { email = \"emp_email\" }\n",
            "",
            "rollcall.toml:3:9: source.hr.map: found nothing, expected a table; fix: add [source.hr.map]",
        ),
        (
            "map = { email = \"emp_email\" }\n",
            "map = {}\n",
            "rollcall.toml:9:1: source.hr.map: found no rules, expected at least one rule; fix: add for example `email = \"email\"` to [source.hr.map]",
        ),
    ]);
    assert_eq!(
        refused("organization = \"acme\"\n"),
        ["rollcall.toml:1:1: source: found nothing, expected a table; fix: add [source]"]
    );
}

#[test]
fn an_unknown_key_comes_with_the_one_that_was_meant() {
    check(&[
        (
            "user = \"rollcall\"",
            "usr = 1\nuser = \"rollcall\"",
            "rollcall.toml:7:1: source.hr.usr: found an unknown key, expected a key of [source.hr]; fix: write `user`",
        ),
        (
            "[source.hr]",
            "[stroe]\npath = \"x\"\n[source.hr]",
            "rollcall.toml:3:2: stroe: found an unknown key, expected a key of the top of the file; fix: write `store`",
        ),
        (
            "organization = \"acme\"",
            "organization = \"acme\"\nlisten = \"127.0.0.1:1\"",
            "rollcall.toml:2:1: listen: found an unknown key, expected a key of the top of the file; fix: move it to [api], where such a key is known",
        ),
        (
            "user = \"rollcall\"",
            "user = \"rollcall\"\nkubernetes = true",
            "rollcall.toml:8:1: source.hr.kubernetes: found an unknown key, expected a key of [source.hr]; fix: remove it; `rollcall config --explain 'source.*'` lists the keys",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = { column = \"emp_email\", onnull = \"keep\" } }",
            "rollcall.toml:9:41: source.hr.map.email.onnull: found an unknown key, expected a key of [source.hr.map.email]; fix: write `on_null`",
        ),
    ]);
    let text = format!("{SMALL}[sink.log]\ntype = \"ndjson\"\ntopic = \"x\"\n");
    assert_eq!(
        refused(&text),
        [
            "rollcall.toml:12:1: sink.log.topic: found a key that only type = \"kafka\" has, expected a key of [sink.log]; fix: remove it"
        ]
    );
}

#[test]
fn a_rule_has_one_origin_and_no_option_without_effect() {
    let rule = |rule: &str| {
        let text = SMALL.replace(
            "map = { email = \"emp_email\" }",
            &format!("map = {{ email = \"e\", title = {rule} }}"),
        );
        let sentences = refused(&text);
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        let start = "rollcall.toml:9:30: source.hr.map.title: ";
        sentences[0].strip_prefix(start).unwrap().to_owned()
    };
    assert_eq!(
        rule("{ column = \"a\", expr = \"b\" }"),
        "found column and expr, expected exactly one of column, columns, expr and constant; fix: keep the one that gives the value"
    );
    assert_eq!(
        rule("{ strength = \"always\" }"),
        "found none of column, columns, expr and constant, expected exactly one of column, columns, expr and constant; fix: keep the one that gives the value"
    );
    assert_eq!(
        rule("{ constant = 1, default = 2 }"),
        "found a constant with default, expected a constant alone or with strength; fix: remove default"
    );
    assert_eq!(
        rule("{ column = \"a\", on_null = \"default\" }"),
        "found on_null = \"default\" without a default, expected a default; fix: add default = …, or write on_null = \"clear\""
    );
    assert_eq!(
        rule("{ column = \"a\", on_null = \"keep\", default = 1 }"),
        "found a default that on_null never lets count, expected on_null = \"default\", or no default; fix: remove one of the two"
    );
}

#[test]
fn attributes_that_others_rely_on_have_a_rule() {
    check(&[
        (
            "map = { email = \"emp_email\" }",
            "map = { userName = \"login\" }",
            "rollcall.toml:3:9: source.hr.match: found the attribute \"email\", which has no rule, expected attributes with a rule in the map of this source; fix: add a rule for email, or name other attributes",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\" }\nfingerprint = [\"title\"]",
            "rollcall.toml:10:15: source.hr.fingerprint: found the attribute \"title\", which has no rule, expected attributes with a rule in the map of this source; fix: add a rule for title, or name other attributes",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\", custom.badge = \"b\" }",
            "rollcall.toml:9:37: source.hr.map.custom.badge: found a custom attribute that is not declared, expected one that [attributes] declares; fix: add [attributes.badge] with its type",
        ),
        (
            "map = { email = \"emp_email\" }",
            "map = { email = \"emp_email\", titel = \"t\" }",
            "rollcall.toml:9:30: source.hr.map.titel: found an unknown attribute, expected an attribute of users; fix: write title",
        ),
    ]);
}

#[test]
fn what_needs_no_table_is_said_of_a_mapping_at_once() {
    let found = after(
        "map = { email = \"emp_email\" }",
        "scope = \"dept + \"\nmap = { email = \"emp_email\", titel = \"t\", locale = { expr = \"a +\" }, custom.x = \"x\" }",
    );
    let begins = [
        "rollcall.toml:9:9: source.hr.scope: found an expression that cannot be read at line 1, ",
        "rollcall.toml:10:30: source.hr.map.titel: found an unknown attribute, ",
        "rollcall.toml:10:61: source.hr.map.locale.expr: found an expression that cannot be read at line 1, ",
        "rollcall.toml:10:77: source.hr.map.custom.x: found a custom attribute that is not declared, ",
    ];
    for begin in begins {
        let said = found.iter().filter(|e| e.starts_with(begin)).count();
        assert!(said > 0, "{begin} is not in {found:#?}");
    }
}

#[test]
fn names_that_lead_nowhere_are_errors() {
    let sink = "[sink.events]\ntype = \"kafka\"\nbrokers = [\"localhost:9092\"]\n";
    let stream = |stream: &str| refused(&format!("{SMALL}change_stream = {stream}\n{sink}"));
    assert_eq!(
        stream("{ sink = \"event\", topic = \"t\" }"),
        [
            "rollcall.toml:10:1: source.hr.change_stream.sink: found the sink \"event\", which does not exist, expected the name of a sink; fix: write \"events\""
        ]
    );
    assert_eq!(
        stream("{ sink = \"events\" }"),
        [
            "rollcall.toml:10:1: source.hr.change_stream.topic: found nothing, expected 1 to 249 of the characters a-z, A-Z, 0-9, ., _ and -; fix: add `topic = \"hr.changes\"`"
        ]
    );
    assert_eq!(
        after(
            "[source.hr]",
            "[field.department]\nauthority = [\"hr\", \"crm\"]\n[source.hr]"
        ),
        [
            "rollcall.toml:4:13: field.department.authority: found the source \"crm\", which does not exist, expected the name of a source; fix: name one of hr, or add [source.crm]"
        ]
    );
}

#[test]
fn the_rules_of_a_field_are_those_of_its_type_and_all_errors_are_told_at_once() {
    let found = after(
        "[source.hr]",
        "[field.active]\nmode = \"target_wins\"\n[field.roles]\nmode = \"most_recent\"\n\
         [field.title]\nmode = \"merge\"\nskew = \"1s\"\n\
         [field.department]\nskew = \"1s\"\nmode = \"target_wins\"\n\
         [field.name.givenNam]\nmode = \"target_wins\"\n\
         [field.locale]\nmode = \"most_recent\"\nchanged = { crm = \"updated_at\" }\n[source.hr]",
    );
    let expected = [
        "field.active: found the attribute \"active\"",
        "fix: remove [field.active]",
        "field.roles.mode: found the text \"most_recent\", expected merge, target_wins",
        "field.title.mode: found the text \"merge\", expected a mode of an attribute that is no list",
        "field.department.skew: found the text \"1s\", expected such a key only beside",
        "write [field.name.givenName]",
        "field.locale.changed.crm: found the source \"crm\", which does not exist",
    ];
    assert_eq!(found.len(), 6, "{found:#?}");
    for part in expected {
        assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn a_key_of_another_kind_of_database_is_refused() {
    assert_eq!(
        refused(&MYSQL.replace("table =", "database = \"hr\"\ntable =")),
        [
            "rollcall.toml:7:1: source.hr.database: found a key that only type = \"postgres\" has, expected a key of [source.hr]; fix: remove it"
        ]
    );
    assert_eq!(
        refused(&MYSQL.replace("hr.employees", "employees")),
        [
            "rollcall.toml:7:9: source.hr.table: found the text \"employees\", expected schema.table, either part in quotes where the server would want them; fix: write `table = \"hr.employees\"` if that is its database"
        ]
    );
    assert_eq!(
        refused(&format!("{SMALL}server_id = 7\n")),
        [
            "rollcall.toml:10:1: source.hr.server_id: found a key that only type = \"mysql\" or \"mariadb\" has, expected a key of [source.hr]; fix: remove it"
        ]
    );
}

#[test]
fn what_two_cannot_share_is_refused() {
    let second = SMALL
        .replace("organization = \"acme\"\n", "")
        .replace("source.hr", "source.crm")
        .replace("table =", "slot = \"rollcall_hr\"\ntable =");
    assert_eq!(
        refused(&format!("{SMALL}{second}")),
        [
            "rollcall.toml:11:9: source.crm.slot: found the slot \"rollcall_hr\", which source \"hr\" has too, expected a slot of its own for each source; fix: write another slot"
        ]
    );
    let first = format!("{MYSQL}server_id = 7\n");
    let second = first
        .replace("organization = \"acme\"\n", "")
        .replace("source.hr", "source.crm");
    assert_eq!(
        refused(&format!("{first}{second}")),
        [
            "rollcall.toml:11:9: source.crm.server_id: found the server_id 7, which source \"hr\" has too, expected a server_id of its own for each source; fix: write another server_id"
        ]
    );
    let sinks = "[sink.a]\ntype = \"ndjson\"\n[sink.b]\ntype = \"ndjson\"\n";
    assert_eq!(
        refused(&format!("{SMALL}{sinks}")),
        [
            "rollcall.toml:12:7: sink.b.path: found standard output, which another sink has too, expected one of its own for each sink; fix: write another one"
        ]
    );
}

#[test]
fn two_sinks_write_no_file_of_each_other() {
    let both = |first: &str, second: &str| {
        format!(
            "{SMALL}[sink.a]\ntype = \"ndjson\"\npath = \"{first}\"\nrotate_keep = 3\n[sink.b]\ntype = \"ndjson\"\npath = \"{second}\"\n"
        )
    };
    let same = refused(&both("/out/x", "/out/./x"));
    assert!(
        same[0].contains("the file /out/x, which another sink has too"),
        "{same:?}"
    );
    let onto = refused(&both("/out/x", "/out/x.3"));
    assert!(
        onto[0].contains("a file that sink \"a\" rotates onto"),
        "{onto:?}"
    );
    let onto = refused(&both("/out/x.1", "/out/x"));
    assert!(onto[0].contains("sink.a.path"), "{onto:?}");
    valid(&both("/out/x", "/out/x.4"));
    valid(&both("/out/x", "/out/x.log"));
}

#[test]
fn a_key_that_is_there_twice_is_named() {
    let twice = refused(&format!("{SMALL}table = \"public.others\"\n"));
    assert!(twice[0].contains("duplicate key `table`"), "{twice:?}");
}

#[test]
fn options_of_tls_that_have_no_effect_are_refused() {
    let tls = |tls: &str| {
        let sentences = refused(&format!("{SMALL}tls = {tls}\n"));
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        sentences[0].clone()
    };
    assert_eq!(
        tls("{ mode = \"disable\", ca = \"/dev/null\" }"),
        "rollcall.toml:10:32: source.hr.tls.ca: found ca with mode = \"disable\", where it has no effect, expected a mode that uses it; fix: write mode = \"verify-full\", or remove ca"
    );
    assert_eq!(
        tls("{ mode = \"verify-full\", cert = \"/dev/null\" }"),
        "rollcall.toml:10:1: source.hr.tls.key: found nothing, expected the path of a file or folder; fix: add `key = \"/etc/rollcall/client.key\"` to [source.hr.tls]"
    );
    assert_eq!(
        tls("{ ca = \"/nowhere/ca.pem\" }"),
        "rollcall.toml:10:14: source.hr.tls.ca: found /nowhere/ca.pem, which cannot be read: No such file or directory (os error 2), expected a file that the daemon can read; fix: put the file there, or write another path"
    );
}

#[test]
fn kafka_sinks_are_checked() {
    let kafka = |lines: &str| {
        let sink = "[sink.events]\ntype = \"kafka\"\nbrokers = [\"localhost:9092\"]\n";
        let text = format!("{SMALL}{sink}{lines}\n");
        let errors = parse_with(&text, &[("P", "p")]).unwrap_err();
        let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        sentences[0].clone()
    };
    assert_eq!(
        kafka("properties = { acks = 1 }"),
        "rollcall.toml:13:23: sink.events.properties.acks: found a property that Rollcall sets itself, expected any other property of librdkafka; fix: remove it; every replica has to have an event"
    );
    assert_eq!(
        kafka("properties.sasl.username = \"u\""),
        "rollcall.toml:13:28: sink.events.properties.sasl.username: found a property that Rollcall sets itself, expected any other property of librdkafka; fix: write sasl.username of this sink instead"
    );
    assert_eq!(
        kafka("sasl = { mechanism = \"PLAIN\", username = \"u\" }"),
        "rollcall.toml:13:1: sink.events.sasl.password: found nothing, expected a reference: { sealed = \"…\" }, { env = \"…\" } or { file = \"…\" }; fix: add `password = { env = \"KAFKA_PASSWORD\" }` to [sink.events.sasl]"
    );
    assert_eq!(
        kafka(
            "sasl = { mechanism = \"PLAIN\", username = \"u\", password = { env = \"P\" }, token_file = \"t\" }"
        ),
        "rollcall.toml:13:86: sink.events.sasl.token_file: found a key that PLAIN does not use, expected the keys of PLAIN; fix: remove it, or write another mechanism"
    );
    assert_eq!(
        kafka("cursors_topic = \"rollcall.identity\""),
        "rollcall.toml:13:17: sink.events.cursors_topic: found the topic of the events, expected a topic of its own; fix: write another topic, for example \"rollcall.cursors\""
    );
    assert_eq!(
        kafka("sasl = { mechanism = \"OAUTHBEARER\" }"),
        "rollcall.toml:13:1: sink.events.sasl.token_file: found nothing, expected the path of a file or folder; fix: add `token_file = \"/run/rollcall/kafka-token\"` to [sink.events.sasl]"
    );
    assert_eq!(
        kafka("tls = { key_password = { env = \"P\" } }"),
        "rollcall.toml:13:1: sink.events.tls.key: found nothing, expected the path of a file or folder; fix: add `key = \"/etc/rollcall/client.key\"` to [sink.events.tls]"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = r#"organization = "ACME"
colour = "blue"

[log]
level = "loud"

[source.hr]
type = "postgres"
port = 0
database = "hr"
user = "rollcall"
password = "marker-password"
table = "public.employees"
[source.hr.map]
email = { column = "emp_email", strength = "often" }
title = { colum = "job" }

[sink.log]
type = "ndjson"
rotate_keep = 3

[sink.other]
type = "webhook"
"#;
    let sentences = refused(text);
    let heads: Vec<String> = sentences
        .iter()
        .map(|sentence| sentence.split(": found ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        heads,
        [
            "rollcall.toml:1:16: organization",
            "rollcall.toml:2:1: colour",
            "rollcall.toml:5:9: log.level",
            "rollcall.toml:7:9: source.hr.host",
            "rollcall.toml:9:8: source.hr.port",
            "rollcall.toml:12:12: source.hr.password",
            "rollcall.toml:15:44: source.hr.map.email.strength",
            "rollcall.toml:16:9: source.hr.map.title",
            "rollcall.toml:16:11: source.hr.map.title.colum",
            "rollcall.toml:20:15: sink.log.rotate_keep",
            "rollcall.toml:23:8: sink.other.type",
        ]
    );
    assert!(!sentences.join("\n").contains("marker-password"));
}

#[test]
fn text_that_is_no_toml_is_refused_without_repeating_it() {
    let text = format!("{SMALL}password = marker-password\nuser2 = 'open\n[store\n");
    let sentences = refused(&text);
    assert!(sentences.len() >= 2, "{sentences:?}");
    assert!(sentences[0].starts_with("rollcall.toml:10:12: found no TOML: "));
    assert!(!sentences.join("\n").contains("marker"), "{sentences:?}");
}

#[test]
fn a_column_counts_characters_not_bytes() {
    let sentences = refused("\"ö\" = 1\norganization = \"äö\"\n");
    assert!(
        sentences
            .iter()
            .any(|s| s.starts_with("rollcall.toml:1:1: ö: found"))
    );
    let sentences = refused(&SMALL.replace("{ email =", "{ title = \"äöü\", email = 5, x ="));
    assert!(
        sentences
            .iter()
            .any(|s| s.starts_with("rollcall.toml:9:32: source.hr.map.email")),
        "{sentences:?}"
    );
}

#[test]
fn a_file_that_is_not_there_has_its_sentence() {
    let path = std::path::Path::new("/nowhere/rollcall.toml");
    assert_eq!(
        super::Config::load(path).unwrap_err().to_string(),
        "/nowhere/rollcall.toml: found no readable file (No such file or directory (os error 2)), expected a configuration; fix: name the file with --config, or write one with `rollcall discover --write-config`"
    );
}
