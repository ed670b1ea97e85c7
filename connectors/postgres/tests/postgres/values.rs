//! The same value has the same text in the log and in a query.

use rollcall_contract::{Acknowledge, Cell};
use rollcall_postgres::types::canonical;
use rollcall_postgres::wire::connect_queries;
use tokio_postgres::SimpleQueryMessage;

use crate::server::*;

const COLUMNS: &str =
    "id int PRIMARY KEY, b bool, by bytea, d date, t time, tz timetz, ts timestamp,
    tstz timestamptz, n numeric, f4 float4, f8 float8, u uuid, j json, jb jsonb, i interval,
    a text[], ats timestamptz[], abyte bytea[], a2 int[][], c char(5), ip inet, m \"char\"";

#[tokio::test]
async fn log_and_query_print_every_type_alike() {
    for version in VERSIONS {
        let db = with_table(version, COLUMNS);
        // A role that prefers other forms does not get them.
        db.psql(
            "postgres",
            "ALTER ROLE postgres SET datestyle = 'German'; ALTER ROLE postgres SET timezone = 'Asia/Kolkata';
             ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET intervalstyle = 'iso_8601';
             ALTER ROLE postgres SET extra_float_digits = -3;",
        )
        .unwrap();
        let config = config(&db);
        let start = create_slot(&config).await;
        let mut log = open(&db, &config, start).await;
        db.psql(
            "postgres",
            "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';
             INSERT INTO people VALUES (1, true, '\\xdeadbeef', '2024-02-29', '10:11:12.5', '10:11:12+02',
               '2024-02-29 10:11:12.123456', '2024-02-29 10:11:12.1+05:30', 12.340, 0.1, 1e300 / 3, gen_random_uuid(),
               '{\"a\" : 1}', '{\"b\":[1, 2]}', '1 day 02:00', '{a,NULL,\"q\\\"\\\\,\",\"\"}',
               '{2024-01-01 00:00:00+01,infinity}', '{\"\\\\x0102\"}', '{{1,2},{3,4}}', 'ab', '10.0.0.1/8', 'x');
             INSERT INTO people (id, by, d, ts, tstz, n, f8, a) VALUES (2, '', '-infinity', '0044-03-15 12:00 BC',
               '0044-03-15 12:00+00 BC', 'NaN', '-Infinity', '{}');
             INSERT INTO people (id, d, ts) VALUES (3, '0044-03-15 BC', '12024-01-01');",
        )
        .unwrap();
        let schema = followed(&db);
        let client = connect_queries(&config).await.unwrap();
        let mut rows = Vec::new();
        while rows.len() < 3 {
            let batch = log.batch().await;
            for change in batch.changes() {
                let row = change.after().unwrap();
                rows.push(
                    row.cells()
                        .map(|cell| match cell {
                            Cell::Value(v) => Some(String::from_utf8(v.to_vec()).unwrap()),
                            Cell::Null => None,
                            other => panic!("{other:?}"),
                        })
                        .collect::<Vec<_>>(),
                );
            }
            log.acknowledge.acknowledge(batch.cursor());
        }
        let mut asked = Vec::new();
        for message in client
            .simple_query("SELECT * FROM people ORDER BY id")
            .await
            .unwrap()
        {
            if let SimpleQueryMessage::Row(row) = message {
                asked.push(
                    schema
                        .type_oids
                        .iter()
                        .enumerate()
                        .map(|(i, &oid)| {
                            let text = row.get(i)?.as_bytes();
                            let text = canonical(oid, &no_types(), text).unwrap();
                            Some(String::from_utf8(text.into_owned()).unwrap())
                        })
                        .collect::<Vec<_>>(),
                );
            }
        }
        assert_eq!(rows, asked, "{version:?}");
        let text = |row: usize, column: &str| {
            rows[row][schema.schema.position(column).unwrap()]
                .as_deref()
                .unwrap()
        };
        assert_eq!(text(0, "by"), "deadbeef");
        assert_eq!(text(0, "ts"), "2024-02-29T10:11:12.123456");
        assert_eq!(text(0, "tstz"), "2024-02-29T04:41:12.1Z");
        assert_eq!(text(0, "f4"), "0.1");
        assert_eq!(text(0, "a"), r#"["a",null,"q\"\\,",""]"#);
        assert_eq!(text(0, "ats"), r#"["2023-12-31T23:00:00Z","infinity"]"#);
        assert_eq!(text(0, "abyte"), r#"["0102"]"#);
        assert_eq!(text(0, "a2"), r#"["{1,2}","{3,4}"]"#);
        assert_eq!(text(1, "tstz"), "0044-03-15T12:00:00Z BC");
        assert_eq!(text(2, "d"), "0044-03-15 BC");
        log.close().await;
    }
}
