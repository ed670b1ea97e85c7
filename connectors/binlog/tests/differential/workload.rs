//! What the servers are made to write.

use rollcall_testbed::{MySql, MySqlVersion};

const BOTH: [&str; 2] = [
    include_str!("../logs/common.sql"),
    include_str!("workload/both.sql"),
];
const MYSQL: [&str; 2] = [
    include_str!("../logs/mysql.sql"),
    include_str!("workload/mysql.sql"),
];
const MARIADB: [&str; 2] = [
    include_str!("../logs/mariadb.sql"),
    include_str!("workload/mariadb.sql"),
];

/// Text with something for every character set; what one does not have becomes `?`.
const SAMPLES: [&str; 12] = [
    "plain ASCII: [\\]^{|}~",
    "Łódź, žluťoučký kůň, ő",
    "Grüße, garçon, ñandú, Åse, ÿ, €",
    "Привет, Ёж, Ґедзь, Ђура",
    "Καλημέρα",
    "שלום",
    "مرحبا",
    "สวัสดี",
    "你好，世界 繁體",
    "日本語 アイウ ｱｲｳ ～",
    "안녕하세요",
    "Բարեւ, გამარჯობა, 😀",
];

pub(crate) fn run(server: &MySql) {
    let own = match server.version().is_mariadb() {
        true => MARIADB,
        false => MYSQL,
    };
    for sql in BOTH.into_iter().chain(own) {
        server.sql(sql).unwrap();
    }
    if server.version() == MySqlVersion::MariaDb11 {
        server
            .sql(
                "CREATE TABLE hr.vectors (id INT PRIMARY KEY, v VECTOR(3) NOT NULL); \
                 INSERT INTO hr.vectors VALUES (1, VEC_FromText('[1, 2.5, -3]'))",
            )
            .unwrap();
    }
    // A prepared transaction outlives its session, which is what ends it here.
    for name in ["kept", "dropped"] {
        server
            .sql(&format!(
                "XA START '{name}'; INSERT INTO hr.uni VALUES (70, '{name}', 'x'); \
                 XA END '{name}'; XA PREPARE '{name}'"
            ))
            .unwrap();
    }
    server.sql("XA COMMIT 'kept'").unwrap();
    server.sql("XA ROLLBACK 'dropped'").unwrap();
    every_charset(server);
}

fn every_charset(server: &MySql) {
    let charsets = server
        .sql(
            "SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS \
             WHERE CHARACTER_SET_NAME <> 'binary' ORDER BY 1",
        )
        .unwrap();
    let charsets: Vec<&str> = charsets.lines().collect();
    assert!(charsets.len() > 35, "{charsets:?}");
    let columns: Vec<String> = charsets
        .iter()
        .flat_map(|c| {
            [
                format!("v_{c} VARCHAR(60) CHARACTER SET {c}"),
                format!("c_{c} CHAR(4) CHARACTER SET {c}"),
                format!("e_{c} ENUM('x', 'y') CHARACTER SET {c}"),
            ]
        })
        .collect();
    let mut sql = format!(
        "USE hr; SET sql_mode = ''; CREATE TABLE charsets (id INT PRIMARY KEY, {});",
        columns.join(", ")
    );
    for (id, sample) in SAMPLES.iter().enumerate() {
        let sample = format!("'{}'", sample.replace('\\', "\\\\"));
        let values = charsets
            .iter()
            .flat_map(|_| [sample.as_str(), sample.as_str(), "'y'"]);
        let values: Vec<&str> = values.collect();
        sql += &format!(
            " INSERT INTO charsets VALUES ({id}, {});",
            values.join(", ")
        );
    }
    server.sql(&sql).unwrap();
}
