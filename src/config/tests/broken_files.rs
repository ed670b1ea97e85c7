//! Whatever happens to a file, it is taken or refused with places in it; a credential in it
//! is never repeated.

use proptest::prelude::*;

use super::parse_with;
use super::table_of_keys::schema_takes;

/// A file with everything in it, and a marker where a credential stands in plain text.
const WHOLE: &str = r#"organization = "acme"
[store]
path = "/var/lib/rollcall"
outbox_retention = "7d"
[api]
listen = "127.0.0.1:9180"
[log]
level = "info,rollcall=debug"
[notify]
command = ["page", "-x", "-x"]
[attributes.badge]
type = "text"
[field.name.givenName]
authority = ["hr"]
[field.title]
mode = "most_recent"
changed = { hr = "updated_at" }
[source.hr]
type = "postgres"
host = "localhost"
port = 5432
database = "hr"
user = "rollcall"
password = { env = "P" }
tls = { mode = "require" }
table = "public.employees"
redact = ["ssn"]
scope = "status != 'contractor'"
limit = { max_percent = 5.5, max_changes = 5, window = "1h", action = "off" }
schedule = { reconcile = "daily 03:00", time_zone = "Europe/Berlin", jitter = "5m" }
change_stream = { sink = "events", topic = "hr.employees" }
[source.hr.map]
email = "emp_email"
title = { column = "job", default = "Employee", strength = "on_create" }
custom.badge = { constant = 7 }
[sink.events]
type = "kafka"
brokers = ["localhost:9092"]
sasl = { mechanism = "PLAIN", username = "u", password = { env = "P" } }
properties = { "linger.ms" = 0, "ssl.keystore.password" = { env = "P" } }
[sink.log]
type = "ndjson"
path = "/tmp/events.ndjson"
"#;

const VALUES: &[&str] = &[
    "5",
    "-1",
    "0x10",
    "1e400",
    "nan",
    "true",
    "\"\"",
    "\"x\"",
    "[]",
    "[1, \"a\"]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
    "\"9d\"",
    "\"99999999999999999999GiB\"",
    "[[",
    "",
];

fn check(text: &str) -> Result<(), TestCaseError> {
    let result = parse_with(text, &[("P", "marker-1")]);
    prop_assert!(
        result.is_err() || schema_takes(text),
        "the schema refuses what the parser takes: {}",
        text
    );
    if let Err(errors) = result {
        prop_assert!(
            errors.iter().count() > 0,
            "refused without a reason: {}",
            text
        );
        let lines = text.lines().count() + 1;
        for error in &errors {
            let line = error.place.map(|place| place.line as usize);
            prop_assert!(line.is_some_and(|line| (1..=lines).contains(&line)));
            prop_assert!(!error.found.is_empty() && !error.fix.is_empty());
        }
        let shown = format!("{errors}{errors:?}");
        prop_assert!(!shown.contains("marker"), "{}", shown);
    }
    Ok(())
}

#[test]
fn the_whole_file_is_valid() {
    parse_with(WHOLE, &[("P", "marker-1")]).unwrap_or_else(|errors| panic!("{errors}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_file_with_changed_lines_is_taken_or_refused_with_places(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..5),
            1..4,
        ),
    ) {
        let mut lines: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
        for (line, value, kind) in changes {
            let at = line.index(lines.len());
            let key = lines[at].split('=').next().unwrap_or_default().trim().to_owned();
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines[at] = format!("{key} = {}", value.get(VALUES)),
                2 => lines.swap(at, 0),
                3 => lines.insert(at, format!("unknown{at} = {}", value.get(VALUES))),
                _ => {
                    let cut = value.index(lines[at].len() + 1);
                    lines[at].truncate(cut);
                }
            }
        }
        check(&lines.join("\n"))?;
    }

    #[test]
    fn a_plain_credential_is_never_repeated(
        place in prop::sample::select(&[
            "password = { env = \"P\" }\ntls",
            "password = { env = \"P\" } }",
            "\"ssl.keystore.password\" = { env = \"P\" }",
        ][..]),
        plain in prop::sample::select(&[
            "\"marker\"", "'marker'", "marker", "{ plain = \"marker\" }", "[\"marker\"]",
            "{ env = \"marker\" }", "{ sealed = \"marker\" }", "\"\"\"\nmarker\n\"\"\"",
            "{ env = [\"marker\"] }", "\"marker",
        ][..]),
    ) {
        let text = WHOLE.replace(place, &place.replace("{ env = \"P\" }", plain));
        prop_assert_ne!(&text, WHOLE);
        prop_assert!(parse_with(&text, &[("P", "p")]).is_err());
        check(&text)?;
    }
}
