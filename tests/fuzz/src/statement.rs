//! A SQL mode (8 bytes), a collation (2 bytes) and a statement.

use rollcall_binlog::charset::Charset;
use rollcall_binlog::ddl::{self, Session};
use rollcall_binlog::event::SqlMode;

pub(crate) fn run(data: &[u8]) -> usize {
    let Some((mode, rest)) = data.split_first_chunk() else {
        return 0;
    };
    let Some((collation, text)) = rest.split_first_chunk() else {
        return 0;
    };
    let collation = u16::from_le_bytes(*collation);
    let session = Session {
        database: "hr",
        sql_mode: SqlMode::from_bits(u64::from_le_bytes(*mode)),
        charset: Charset::of_collation(collation % 330).unwrap_or(Charset::Utf8),
    };
    let _ = ddl::read(text, &session);
    0
}
