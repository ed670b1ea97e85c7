//! The same log files, read three times: by this crate, by the server's own program
//! (`mysqlbinlog --verbose`, `mariadb-binlog --verbose`), and by the crate `mysql_cdc`.
//!
//! The files are made anew at every run, by MySQL 9 and by MariaDB 10.11 and 11, from a
//! workload with every type, every character set that the server has, DDL, transactions,
//! savepoints, XA, partial JSON, compressed transactions and events, and the three row
//! images. What the three make of each event is put into one form and compared, cell by
//! cell: GTIDs, statements, commits, names and keys of tables, rows. Where the two others
//! leave bytes as they are (character sets, UUIDs, partial updates of JSON), the server is
//! asked what these mean; our own tables and functions take no part in it.
//!
//! They do not all say the same, and need not: [`differences`] lists every kind of
//! difference with its reason. One that is not listed fails the test, and so does one that
//! is listed and did not come up.
//!
//! `mysql_cdc` 0.2.1 can read the files of all three servers to their ends; what it leaves
//! out or refuses in them is listed as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod cdc;
mod compare;
mod convert;
mod differences;
mod model;
mod ours;
mod program;
mod workload;

use std::path::Path;

use rollcall_binlog::event::Flavour;
use rollcall_testbed::{MySql, MySqlVersion};

use crate::differences::Reader;
use crate::model::Log;

fn three_readers_agree(version: MySqlVersion) {
    let server = MySql::builder().version(version).start().unwrap();
    workload::run(&server);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{version:?}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let files = server.copy_binlogs(&folder).unwrap();
    let flavour = match version.is_mariadb() {
        true => Flavour::Mariadb,
        false => Flavour::Mysql,
    };
    let mut found = Vec::new();
    let mut rows = 0;
    for file in &files {
        let mut logs = [
            ours::read(file, flavour),
            program::read(&server, file),
            Log::default(),
        ];
        logs[2] = cdc::read(file, &logs[1]);
        convert::ask(&server, &mut logs);
        let [ours, program, cdc] = &logs;
        rows += ours.rows();
        found.extend(compare::logs(Reader::Program, ours, program));
        found.extend(compare::logs(Reader::MysqlCdc, ours, cdc));
    }
    assert!(rows > 90, "the workload has {rows} rows only");
    differences::judge(version, &found);
}

#[test]
fn mysql_9_reads_alike() {
    three_readers_agree(MySqlVersion::MySql9);
}

#[test]
fn mariadb_10_reads_alike() {
    three_readers_agree(MySqlVersion::MariaDb10);
}

#[test]
fn mariadb_11_reads_alike() {
    three_readers_agree(MySqlVersion::MariaDb11);
}
