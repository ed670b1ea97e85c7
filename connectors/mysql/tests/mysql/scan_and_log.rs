//! The log and a scan read every value alike.

use std::sync::Arc;

use rollcall_contract::{Class, Source, StreamItem, TableNo};
use rollcall_mysql::{MySqlSource, ZeroDates};
use rollcall_testbed::{MySql, MySqlVersion};

use crate::bed::{Bed, PATIENCE, account, cells, pages};

/// For which server a type is.
#[derive(Clone, Copy, PartialEq)]
enum For {
    Both,
    MySql,
    MariaDb,
}
use For::{Both, MariaDb as Maria, MySql as My};

/// Column type, class, and values that it may have.
const TYPES: &[(For, &str, Class, &[&str])] = &[
    (Both, "TINYINT", Class::Int, &["-128", "127"]),
    (Both, "TINYINT UNSIGNED", Class::Int, &["255"]),
    (Both, "TINYINT(1)", Class::Int, &["1", "0"]),
    (Both, "SMALLINT", Class::Int, &["-32768"]),
    (Both, "MEDIUMINT", Class::Int, &["-8388608", "8388607"]),
    (Both, "MEDIUMINT UNSIGNED", Class::Int, &["16777215"]),
    (Both, "INT", Class::Int, &["-2147483648"]),
    (Both, "INT UNSIGNED ZEROFILL", Class::Int, &["7"]),
    (Both, "BIGINT", Class::Int, &["-9223372036854775808"]),
    (
        Both,
        "BIGINT UNSIGNED",
        Class::Int,
        &["18446744073709551615"],
    ),
    (Both, "YEAR", Class::Int, &["0", "2024", "2155"]),
    (
        Both,
        "DECIMAL(65,30)",
        Class::Decimal,
        &[
            "-12345678901234567890123456789012345.123456789012345678901234567890",
            "0",
            "0.000000000000000000000000000001",
        ],
    ),
    (Both, "DECIMAL(10,2)", Class::Decimal, &["1.5", "-0.01"]),
    (Both, "DECIMAL(9)", Class::Decimal, &["999999999"]),
    (
        Both,
        "FLOAT",
        Class::Float,
        &["0.1", "1e38", "-1e-38", "16777216"],
    ),
    (
        Both,
        "DOUBLE",
        Class::Float,
        &["0.1", "1e-300", "-1.7976931348623157e308", "1e15"],
    ),
    (Both, "BIT(1)", Class::Bool, &["b'1'", "b'0'"]),
    (Both, "BIT(10)", Class::Bytes, &["b'1000000001'", "b'1'"]),
    (Both, "BIT(64)", Class::Bytes, &["18446744073709551615"]),
    (
        Both,
        "DATE",
        Class::Date,
        &["'2024-02-29'", "'1000-01-01'", "'9999-12-31'"],
    ),
    (
        Both,
        "TIME",
        Class::Time,
        &["'-838:59:59'", "'838:59:59'", "'-00:00:01'", "'12:34:56'"],
    ),
    (
        Both,
        "TIME(6)",
        Class::Time,
        &["'-12:00:00.000001'", "'00:00:00.5'", "'-00:00:00.25'"],
    ),
    (Both, "TIME(3)", Class::Time, &["'-01:02:03.004'"]),
    (
        Both,
        "DATETIME",
        Class::Timestamp,
        &["'2024-02-29 12:34:56'", "'1000-01-01 00:00:00'"],
    ),
    (
        Both,
        "DATETIME(6)",
        Class::Timestamp,
        &[
            "'9999-12-31 23:59:59.999999'",
            "'2024-01-01 00:00:00.120000'",
        ],
    ),
    (
        Both,
        "DATETIME(1)",
        Class::Timestamp,
        &["'2024-01-01 00:00:00.5'"],
    ),
    (
        Both,
        "TIMESTAMP NULL",
        Class::TimestampTz,
        &[
            "'2024-07-01 12:00:00'",
            "'1970-01-01 03:00:01'",
            "'2038-01-19 03:14:07'",
        ],
    ),
    (
        Both,
        "TIMESTAMP(4) NULL",
        Class::TimestampTz,
        &["'2024-07-01 12:00:00.1234'"],
    ),
    (Both, "CHAR(6)", Class::Text, &["'ab'", "''", "'Zoë 😀'"]),
    (
        Both,
        "VARCHAR(300)",
        Class::Text,
        &[
            "'O''Neil, \"x\"'",
            "'tab\\tline\\nback\\\\slash'",
            "REPEAT('ä', 300)",
        ],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET latin1",
        Class::Text,
        &["'é€ß'", "X'8f9d'", "''"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET latin2",
        Class::Text,
        &["'łódź'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET cp1251",
        Class::Text,
        &["'Привет'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET gbk",
        Class::Text,
        &["'中文字'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET big5",
        Class::Text,
        &["'中文字'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET sjis",
        Class::Text,
        &["'日本語ｶﾅ'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET euckr",
        Class::Text,
        &["'한국어'"],
    ),
    (
        Both,
        "CHAR(10) CHARACTER SET ucs2",
        Class::Text,
        &["'Ünï'", "'中'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET utf16",
        Class::Text,
        &["'a😀'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET utf32",
        Class::Text,
        &["'a😀'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET utf8mb3",
        Class::Text,
        &["'Zoë'"],
    ),
    (
        Both,
        "VARCHAR(40) CHARACTER SET ascii",
        Class::Text,
        &["'plain'"],
    ),
    (
        My,
        "VARCHAR(40) CHARACTER SET gb18030",
        Class::Text,
        &["'中文字€'"],
    ),
    (Both, "TINYTEXT", Class::Text, &["'t'"]),
    (Both, "TEXT", Class::Text, &["''", "REPEAT('x', 5000)"]),
    (
        Both,
        "MEDIUMTEXT CHARACTER SET latin1",
        Class::Text,
        &["'é'"],
    ),
    (Both, "LONGTEXT", Class::Text, &["'long'"]),
    (
        Both,
        "BINARY(4)",
        Class::Bytes,
        &["'a'", "X'00ff0000'", "X''"],
    ),
    (Both, "VARBINARY(8)", Class::Bytes, &["X'00ff5c00'", "''"]),
    (Both, "TINYBLOB", Class::Bytes, &["X'00'"]),
    (Both, "BLOB", Class::Bytes, &["X'00ff'", "''"]),
    (Both, "LONGBLOB", Class::Bytes, &["REPEAT(X'ab', 70000)"]),
    (
        Both,
        "ENUM('a','it''s','ä') CHARACTER SET utf8mb4",
        Class::Text,
        &["'a'", "'it''s'", "'ä'", "0"],
    ),
    (
        Both,
        "ENUM('é','x') CHARACTER SET latin1",
        Class::Text,
        &["'é'"],
    ),
    (
        Both,
        "SET('a','b','ü')",
        Class::List,
        &["'a,ü'", "''", "'b'"],
    ),
    (
        Both,
        "POINT",
        Class::Bytes,
        &["ST_GeomFromText('POINT(1.5 -2)')"],
    ),
    (
        Both,
        "GEOMETRY",
        Class::Bytes,
        &["ST_GeomFromText('LINESTRING(0 0,1 1)')"],
    ),
    (
        My,
        "JSON",
        Class::Json,
        &[
            "'{\"b\": [1, null, true, -2.5, \"q\\\\\"ü\"], \"a\": {}}'",
            "'[]'",
            "'\"text\"'",
            "'18446744073709551615'",
            "'-9223372036854775808'",
            "'1e100'",
            "'0.1'",
            "'null'",
            "CAST(CAST('2024-02-29 01:02:03.000004' AS DATETIME(6)) AS JSON)",
            "CAST(CAST('-12:00:00' AS TIME) AS JSON)",
            "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
            "CAST(CAST(12.340 AS DECIMAL(10,3)) AS JSON)",
            "JSON_OBJECT('blob', X'00ff', 'long', REPEAT('x', 70000))",
            "JSON_ARRAY(1, -1, 65536, 4294967296)",
        ],
    ),
    (
        My,
        "VECTOR(3)",
        Class::Bytes,
        &["TO_VECTOR('[1,-2.5,3e10]')"],
    ),
    (Maria, "JSON", Class::Text, &["'{\"b\": [1,  null]}'"]),
    (
        Maria,
        "UUID",
        Class::Uuid,
        &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"],
    ),
    (
        Maria,
        "INET6",
        Class::Other,
        &["'2001:db8::ff00:42:8329'", "'::ffff:10.0.0.1'"],
    ),
    (Maria, "INET4", Class::Other, &["'10.0.0.1'"]),
];

with_both!(
    every_type_reads_the_same_from_the_log_and_from_a_page,
    every_type_reads_the_same_without_metadata,
    dates_that_no_calendar_has_follow_the_choice,
    columns_of_every_kind_are_in_both,
);

async fn columns_of_every_kind_are_in_both(version: MySqlVersion) {
    let functional = match version.is_mariadb() {
        true => "",
        false => ", INDEX ((a + 3))",
    };
    let bed = Bed::on(
        crate::bed::shared(version),
        "value_kinds",
        &format!(
            "CREATE TABLE people (id INT PRIMARY KEY, a INT, v INT AS (a + 1) VIRTUAL,
               s VARCHAR(20) AS (CONCAT('s', a)) STORED, h INT INVISIBLE DEFAULT 5,
               `Weird ``Näme.` TEXT, z INT{functional});"
        ),
    );
    let source = bed.source();
    let schema = source.schema(TableNo::MAIN).await.unwrap();
    let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "a", "v", "s", "h", "Weird `Näme.", "z"]);
    let mut opened = source.open(None).await.unwrap();
    bed.sql(
        "INSERT INTO people (id, a, `Weird ``Näme.`, z) VALUES (1, 7, 'w', 9);
         ALTER TABLE people ADD INDEX (z), ADD COLUMN n INT AFTER id;
         UPDATE people SET a = 8",
    );
    let mut logged = std::collections::BTreeMap::new();
    let mut changes = 0;
    while changes < 2 {
        let item = tokio::time::timeout(PATIENCE, opened.stream.next()).await;
        if let StreamItem::Batch(batch) = item.unwrap().unwrap() {
            changes += batch.len();
            logged.extend(cells(&batch));
        }
    }
    let page = &pages(&source, 10, usize::MAX).await[0];
    assert_eq!(logged, cells(&page.rows));
    let row: Vec<Option<&str>> = logged["1"].iter().map(Option::as_deref).collect();
    let expected = ["8", "9", "s8", "5", "w", "9"].map(Some);
    assert_eq!(row[..2], [Some("1"), None]);
    assert_eq!(row[2..], expected);
}

fn bed(version: MySqlVersion, settings: &[(&str, &str)], tables: &str) -> Bed {
    let mut builder = MySql::builder()
        .version(version)
        .setting("sql_mode", "NO_ENGINE_SUBSTITUTION");
    for (name, value) in settings {
        builder = builder.setting(name, value);
    }
    let server = Arc::new(builder.start().unwrap());
    account(&server);
    Bed::on(server, "hr", tables)
}

async fn every_type_reads_the_same_from_the_log_and_from_a_page(version: MySqlVersion) {
    compare(version, &[]).await;
}

async fn every_type_reads_the_same_without_metadata(version: MySqlVersion) {
    let setting = match version.is_mariadb() {
        true => "NO_LOG",
        false => "MINIMAL",
    };
    compare(version, &[("binlog_row_metadata", setting)]).await;
}

/// One column for each type; row by row the values, the last row all null.
async fn compare(version: MySqlVersion, settings: &[(&str, &str)]) {
    let types: Vec<_> = TYPES
        .iter()
        .filter(|(server, ..)| *server == Both || (*server == Maria) == version.is_mariadb())
        .collect();
    let columns: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(i, (_, column, ..))| format!("c{i} {column}"))
        .collect();
    let bed = bed(
        version,
        settings,
        &format!(
            "CREATE TABLE people (id INT PRIMARY KEY, {}) ROW_FORMAT = DYNAMIC;",
            columns.join(", ")
        ),
    );
    let source = bed.source();
    let schema = source.schema(TableNo::MAIN).await.unwrap();
    for (i, (_, column, class, _)) in types.iter().enumerate() {
        assert_eq!(schema.columns[i + 1].class, *class, "{column}");
    }
    let mut opened = source.open(None).await.unwrap();
    let longest = types.iter().map(|(.., values)| values.len()).max().unwrap();
    for row in 0..=longest {
        let values: Vec<&str> = types
            .iter()
            .map(|(.., values)| match row {
                n if n == longest => "NULL",
                n => values[n % values.len()],
            })
            .collect();
        bed.sql(&format!(
            "SET time_zone = '+03:00'; SET NAMES utf8mb4;
             INSERT INTO people VALUES ({row}, {})",
            values.join(", ")
        ));
    }
    let mut logged = std::collections::BTreeMap::new();
    while logged.len() <= longest {
        let item = tokio::time::timeout(PATIENCE, opened.stream.next())
            .await
            .unwrap()
            .unwrap();
        match item {
            StreamItem::Batch(batch) => {
                assert_eq!(*batch.tables()[0].schema, *schema);
                logged.extend(cells(&batch));
            }
            StreamItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut scanned = std::collections::BTreeMap::new();
    for page in pages(&source, 3, usize::MAX).await {
        assert_eq!(*page.rows.tables()[0].schema, *schema);
        scanned.extend(cells(&page.rows));
    }
    for (key, row) in &logged {
        for (i, cell) in row.iter().enumerate() {
            let column = match i {
                0 => "id",
                i => types[i - 1].1,
            };
            assert_eq!(*cell, scanned[key][i], "{column}, row {key}");
        }
    }
    // The texts are what people expect, not only equal.
    let cell = |column: &str, row: usize| {
        let at = types.iter().position(|(_, c, ..)| *c == column).unwrap();
        logged[&row.to_string()][at + 1].as_deref()
    };
    assert_eq!(cell("BIGINT UNSIGNED", 0), Some("18446744073709551615"));
    assert_eq!(cell("TIMESTAMP NULL", 0), Some("2024-07-01T09:00:00Z"));
    assert_eq!(cell("VARCHAR(40) CHARACTER SET gbk", 0), Some("中文字"));
    assert_eq!(cell("FLOAT", 0), Some("0.1"));
    assert_eq!(cell("BINARY(4)", 0), Some("61000000"));
    assert_eq!(cell("TIME(6)", 0), Some("-12:00:00.000001"));
    assert_eq!(
        cell("ENUM('a','it''s','ä') CHARACTER SET utf8mb4", 3),
        Some("")
    );
}

async fn dates_that_no_calendar_has_follow_the_choice(version: MySqlVersion) {
    let bed = bed(
        version,
        &[],
        "CREATE TABLE people (id INT PRIMARY KEY, d DATE, t DATETIME, s TIMESTAMP NULL);",
    );
    for (choice, first, second) in [
        (ZeroDates::Null, [None, None, None], [None, None]),
        (
            ZeroDates::Text,
            [
                Some("0000-00-00"),
                Some("0000-00-00T00:00:00"),
                Some("0000-00-00T00:00:00Z"),
            ],
            [Some("2024-00-10"), Some("2024-02-00T01:02:03")],
        ),
    ] {
        let mut config = bed.config();
        config.zero_dates = choice;
        let source = MySqlSource::new(config);
        let mut opened = source.open(None).await.unwrap();
        bed.sql(
            "DELETE FROM people;
             INSERT INTO people VALUES (1, 0, 0, 0),
               (2, '2024-00-10', '2024-02-00 01:02:03', '2024-01-01 00:00:00')",
        );
        let mut logged = std::collections::BTreeMap::new();
        while logged.len() < 2 {
            let item = tokio::time::timeout(PATIENCE, opened.stream.next()).await;
            if let StreamItem::Batch(batch) = item.unwrap().unwrap() {
                logged.extend(cells(&batch));
            }
        }
        let scanned = cells(&pages(&source, 10, usize::MAX).await[0].rows);
        assert_eq!(logged, scanned);
        let texts = |key: &str| -> Vec<Option<&str>> {
            logged[key][1..].iter().map(Option::as_deref).collect()
        };
        assert_eq!(texts("1"), first, "{choice:?}");
        assert_eq!(texts("2")[..2], second, "{choice:?}");
        assert_eq!(texts("2")[2], Some("2024-01-01T00:00:00Z"));
        opened.stream.close().await;
    }
}
