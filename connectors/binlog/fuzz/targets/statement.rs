//! A SQL mode, a collation and a statement.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall_binlog::charset::Charset;
use rollcall_binlog::ddl::{self, Session};
use rollcall_binlog::event::SqlMode;

fuzz_target!(|input: (u64, u16, &[u8])| {
    let (mode, collation, text) = input;
    let session = Session {
        database: "hr",
        sql_mode: SqlMode::from_bits(mode),
        charset: Charset::of_collation(collation % 330).unwrap_or(Charset::Utf8),
    };
    let _ = ddl::read(text, &session);
});
