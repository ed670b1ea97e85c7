//! The log and a scan read every value alike.

use rollcall_contract::{Class, Source, StreamItem, TableNo};
use rollcall_testbed::PgVersion;

use crate::bed::{Bed, PATIENCE, cells, pages, shared};

/// Column type, class, and values that it may have.
const TYPES: &[(&str, Class, &[&str])] = &[
    ("boolean", Class::Bool, &["true", "false"]),
    ("smallint", Class::Int, &["-32768", "0"]),
    ("integer", Class::Int, &["2147483647"]),
    ("bigint", Class::Int, &["-9223372036854775808"]),
    ("oid", Class::Int, &["4294967295"]),
    (
        "numeric",
        Class::Decimal,
        &["12.340", "'NaN'", "'Infinity'", "1e30", "-0.00"],
    ),
    ("numeric(9,4)", Class::Decimal, &["1.5"]),
    (
        "real",
        Class::Float,
        &["0.1", "'NaN'", "'-Infinity'", "1e38"],
    ),
    (
        "double precision",
        Class::Float,
        &["0.1::float8 + 0.2::float8", "1e-300", "'-0'"],
    ),
    ("money", Class::Other, &["12.5"]),
    (
        "text",
        Class::Text,
        &[
            "''",
            "E'tab\\tline\\nback\\\\slash\\rcr\\b\\f\\v'",
            "'\\N'",
            "E'Ze\\u0301'",
        ],
    ),
    ("varchar(20)", Class::Text, &["'O''Neil, \"x\"'"]),
    ("char(6)", Class::Text, &["'ab'"]),
    ("name", Class::Text, &["'n'"]),
    ("\"char\"", Class::Text, &["'c'"]),
    ("bytea", Class::Bytes, &["'\\x00ff5c'", "''"]),
    (
        "date",
        Class::Date,
        &[
            "'2024-02-29'",
            "'infinity'",
            "'0044-03-15 BC'",
            "'12345-01-01'",
        ],
    ),
    ("time", Class::Time, &["'23:59:59.5'", "'24:00'"]),
    ("timetz", Class::Time, &["'12:00:00.000001+05:30'"]),
    (
        "timestamp",
        Class::Timestamp,
        &[
            "'2024-02-29 12:34:56.789'",
            "'-infinity'",
            "'0044-03-15 12:00 BC'",
            "'294276-12-31 23:59:59.999999'",
        ],
    ),
    (
        "timestamptz",
        Class::TimestampTz,
        &[
            "'2024-07-01 12:00+02'",
            "'infinity'",
            "'0044-03-15 12:00+00 BC'",
            "'2024-01-01 00:00:00.123456Z'",
        ],
    ),
    ("interval", Class::Other, &["'1 year -3 days 04:05:06.789'"]),
    (
        "uuid",
        Class::Uuid,
        &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"],
    ),
    (
        "json",
        Class::Json,
        &["'{\"b\": [1,  null], \"a\": \"\\t\"}'"],
    ),
    (
        "jsonb",
        Class::Json,
        &["'{\"b\": [1,  null], \"a\": \"\\\\\"}'"],
    ),
    ("inet", Class::Other, &["'10.0.0.1/8'", "'::1'"]),
    ("cidr", Class::Other, &["'10.0.0.0/8'"]),
    ("macaddr", Class::Other, &["'08:00:2b:01:02:03'"]),
    ("point", Class::Other, &["'(1.1,2.2)'"]),
    ("bit(3)", Class::Other, &["B'101'"]),
    ("varbit", Class::Other, &["B'10'"]),
    ("tsvector", Class::Other, &["'a:1 b:2'"]),
    ("int4range", Class::Other, &["'[1,5)'", "'empty'"]),
    ("tstzrange", Class::Other, &["'[2024-01-01 00:00+00,)'"]),
    (
        "text[]",
        Class::List,
        &[
            "ARRAY['a','B c','','NULL',NULL,'q\"\\']",
            "'{}'",
            "'[0:1]={a,b}'",
        ],
    ),
    ("int[]", Class::List, &["'{1,2,NULL}'", "'{{1,2},{3,4}}'"]),
    (
        "timestamptz[]",
        Class::List,
        &["ARRAY['2024-07-01 12:00+02'::timestamptz]"],
    ),
    ("bytea[]", Class::List, &["ARRAY['\\x00ff'::bytea]"]),
    ("box[]", Class::List, &["'{(1,1),(0,0);(2,2),(1,1)}'"]),
    ("mood", Class::Text, &["'so so'"]),
    ("mood[]", Class::List, &["ARRAY['so so','ok']::mood[]"]),
    ("mail", Class::Text, &["'a@b'"]),
    ("moment", Class::TimestampTz, &["'2024-07-01 12:00+02'"]),
    (
        "moment[]",
        Class::List,
        &["ARRAY['2024-07-01 12:00+02'::moment]"],
    ),
    (
        "moments",
        Class::List,
        &["ARRAY['2024-07-01 12:00+02'::timestamptz]"],
    ),
    ("citext", Class::Text, &["'MiXed'"]),
    ("pair", Class::Other, &["ROW(1, 'x y')::pair"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_scanned_value_is_the_logged_value_for_every_type() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let columns: Vec<String> = TYPES
            .iter()
            .enumerate()
            .map(|(i, (name, ..))| format!("c{i} {name}"))
            .collect();
        let tables = format!(
            "CREATE EXTENSION citext;
             CREATE TYPE mood AS ENUM ('ok', 'so so');
             CREATE DOMAIN mail AS text CHECK (VALUE LIKE '%@%');
             CREATE DOMAIN moment AS timestamptz;
             CREATE DOMAIN moments AS timestamptz[];
             CREATE TYPE pair AS (n int, t text);
             CREATE TABLE people (id int PRIMARY KEY, {});",
            columns.join(", ")
        );
        let bed = Bed::on(shared(version), "value_types", &tables);
        let source = bed.source();
        let mut opened = source.open(None).await.unwrap();

        // One row for each value, all other columns null; the server's own settings are
        // not those that the values are read with.
        let mut inserts = String::from(
            "SET timezone = 'Asia/Kolkata'; SET datestyle = 'German'; SET bytea_output = 'escape';
             SET extra_float_digits = 0; SET intervalstyle = 'iso_8601';",
        );
        let mut id = 0;
        for (i, (_, _, values)) in TYPES.iter().enumerate() {
            for value in *values {
                id += 1;
                let value = if value.starts_with('\'') && value.ends_with('\'') {
                    (*value).to_owned()
                } else {
                    format!("({value})")
                };
                inserts += &format!("INSERT INTO people (id, c{i}) VALUES ({id}, {value});");
            }
        }
        bed.sql(&inserts);

        let mut logged = std::collections::BTreeMap::new();
        let mut schema = None;
        while logged.len() < id {
            let item = tokio::time::timeout(PATIENCE, opened.stream.next())
                .await
                .unwrap()
                .unwrap();
            match item {
                StreamItem::Batch(batch) => {
                    schema = batch.tables().first().map(|t| t.schema.clone());
                    logged.extend(cells(&batch));
                }
                StreamItem::Progress(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let scanned: std::collections::BTreeMap<_, _> = pages(&source, 7, 1 << 20)
            .await
            .iter()
            .flat_map(|page| cells(&page.rows))
            .collect();
        assert_eq!(scanned, logged);

        let schema = schema.unwrap();
        assert_eq!(*schema, *source.schema(TableNo::MAIN).await.unwrap());
        for (i, (name, class, _)) in TYPES.iter().enumerate() {
            let column = &schema.columns[i + 1];
            assert_eq!(column.class, *class, "{name}");
            for row in logged.values() {
                if let Some(text) = &row[i + 1] {
                    assert!(
                        rollcall_contract::Value::parse(*class, text.as_bytes()).is_some(),
                        "{name}: {text}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_is_in_both_or_in_none() {
    for version in [PgVersion::Debian, PgVersion::V18] {
        let tables = "CREATE TABLE people (id int PRIMARY KEY, name text,
            twice int GENERATED ALWAYS AS (id * 2) STORED);";
        let bed = Bed::on(shared(version), "value_generated", tables);
        let source = bed.source();
        let mut opened = source.open(None).await.unwrap();
        bed.sql("INSERT INTO people VALUES (1, 'x')");
        let logged = loop {
            match opened.stream.next().await.unwrap() {
                StreamItem::Batch(batch) => break cells(&batch),
                StreamItem::Progress(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let scanned = cells(&pages(&source, 10, 1 << 20).await[0].rows);
        assert_eq!(scanned, logged);
    }
}
