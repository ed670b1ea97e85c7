//! Makes a first corpus of what real servers write: a transaction an input. README.md says
//! how it is brought to its final size.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tool for developers: it ends at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rollcall_testbed::{MySql, MySqlVersion, Postgres};

/// Long values reach nothing that short ones do not.
const MAX_LEN: usize = 6 << 10;

const BOTH: &str = concat!(
    include_str!("../../../connectors/binlog/tests/logs/common.sql"),
    include_str!("../../../connectors/binlog/tests/differential/workload/both.sql"),
);
const MYSQL: &str = concat!(
    include_str!("../../../connectors/binlog/tests/logs/mysql.sql"),
    include_str!("../../../connectors/binlog/tests/differential/workload/mysql.sql"),
);
const MARIADB: &str = concat!(
    include_str!("../../../connectors/binlog/tests/logs/mariadb.sql"),
    include_str!("../../../connectors/binlog/tests/differential/workload/mariadb.sql"),
);

fn write(target: &str, name: &str, input: &[u8]) {
    if input.len() > MAX_LEN {
        return;
    }
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), input).unwrap();
}

fn from_mysql_and_mariadb() {
    for version in MySqlVersion::ALL {
        let server = MySql::builder().version(version).start().unwrap();
        let own = match version.is_mariadb() {
            true => MARIADB,
            false => MYSQL,
        };
        server.sql(BOTH).unwrap();
        server.sql(own).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut transaction = Vec::new();
        let mut count = 0;
        for file in server.copy_binlogs(folder.path()).unwrap() {
            let bytes = fs::read(file).unwrap();
            let mut rest = &bytes[4..];
            while !rest.is_empty() {
                let size = u32::from_le_bytes(*rest[9..].first_chunk().unwrap()) as usize;
                let (event, tail) = rest.split_at(size);
                rest = tail;
                // A GTID begins the next one.
                if matches!(event[4], 33 | 42 | 162) && !transaction.is_empty() {
                    write("log", &format!("{version:?}-{count:03}"), &transaction);
                    transaction.clear();
                    count += 1;
                }
                let begin = transaction.len();
                transaction.extend_from_slice(&event[..size - 4]);
                let size = (size as u32 - 4).to_le_bytes();
                transaction[begin + 9..begin + 13].copy_from_slice(&size);
            }
        }
    }
}

fn from_the_statements() {
    for (i, sql) in [BOTH, MYSQL, MARIADB].iter().enumerate() {
        for (n, statement) in sql.split(";\n").enumerate() {
            let head = [&[0; 8][..], &45u16.to_le_bytes()].concat();
            let input = [&head, statement.as_bytes()].concat();
            write("statement", &format!("{i}-{n:03}"), &input);
        }
    }
}

const POSTGRES: &str = "
    CREATE SCHEMA hr;
    CREATE TABLE hr.people (id int PRIMARY KEY, a bool, b smallint, c bigint, d real, e float8,
        f numeric, g text, h bytea, i date, j time, k timetz, l timestamp, m timestamptz,
        n interval, o uuid, p jsonb, q int[], r text[], s inet, t money, u bit(3), v xml);
    CREATE TABLE hr.other (id int PRIMARY KEY, v text);
    CREATE PUBLICATION everything FOR ALL TABLES;
    SELECT pg_create_logical_replication_slot('fuzz', 'pgoutput');
    INSERT INTO hr.people VALUES (1, true, -1, 9, 1.5, 'NaN', 1e30, 'é😀', '\\x00ff',
        '2024-02-29', '12:34:56.7', '12:34:56+02', '2024-02-29 01:02:03.4', '2024-02-29 01:02:03+00',
        '1 day -02:03:04.5', gen_random_uuid(), '{\"a\": [1, null]}', '{1,NULL,2}',
        '{a,\"b,c\",NULL,\"\\\"\"}', '::1', 3.5, B'101', '<a/>');
    INSERT INTO hr.people (id) VALUES (2), (3);
    INSERT INTO hr.people (id, i, m, e, f) VALUES (4, 'infinity', '-infinity', '-inf', 'NaN'),
        (5, '0044-03-15 BC', '0044-03-15 BC', 1e-300, -0.0001), (6, '20240-01-01', NULL, 0, 0);
    INSERT INTO hr.people (id, g) VALUES (7, (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 40) n));
    UPDATE hr.people SET b = 2 WHERE id = 7;
    UPDATE hr.people SET id = 20 WHERE id = 2;
    ALTER TABLE hr.people REPLICA IDENTITY FULL;
    UPDATE hr.people SET c = 3 WHERE id = 7;
    DELETE FROM hr.people WHERE id = 3;
    BEGIN; INSERT INTO hr.other VALUES (1, 'x'); DELETE FROM hr.people WHERE id = 20; COMMIT;
    ALTER TABLE hr.people DROP COLUMN v, ADD COLUMN w text DEFAULT 'w';
    INSERT INTO hr.people (id) VALUES (8);
    TRUNCATE hr.people, hr.other;
    SELECT pg_logical_emit_message(true, 'p', 'm');
";

fn from_postgres() {
    let server = Postgres::builder()
        .setting("wal_level", "logical")
        .start()
        .unwrap();
    server.psql("postgres", POSTGRES).unwrap();
    let lines = server
        .psql(
            "postgres",
            "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('fuzz', NULL, \
             NULL, 'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')",
        )
        .unwrap();
    let (mut relations, mut transaction, mut count) = (Vec::new(), Vec::new(), 0);
    for line in lines.lines() {
        let message: Vec<u8> = line
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        let mut frame = vec![b'd'];
        frame.extend((message.len() as u32 + 4 + 25).to_be_bytes());
        frame.push(b'w');
        frame.extend([0; 24]);
        frame.extend_from_slice(&message);
        match message[0] {
            // A relation is sent once: each input gets the last one.
            b'R' => relations = frame,
            b'B' => transaction = frame,
            b'C' => {
                transaction.extend(frame);
                // A relation is valid from its first row on, so it may stand in front.
                let begin = transaction.len().min(4 + 1 + 25 + 21);
                let input = [&transaction[..begin], &relations, &transaction[begin..]].concat();
                write("pgoutput", &format!("transaction-{count:03}"), &input);
                count += 1;
            }
            _ => transaction.extend(frame),
        }
    }
    let keepalive = [&b"d\0\0\0\x16k"[..], &[0; 16], &[1]].concat();
    write("pgoutput", "keepalive", &keepalive);
}

fn main() {
    from_mysql_and_mariadb();
    from_the_statements();
    from_postgres();
}
