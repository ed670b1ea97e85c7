//! Columns and a row of a prepared statement.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rollcall_binlog::table_map::TypeCode;
use rollcall_binlog::types::{ColumnFacts, Reading, ResultColumn, ResultField, ResultRows};
use rollcall_contract::{BatchBuilder, Class, Column, Op, TableName, TableSchema, Tx, TxId};

fuzz_target!(|input: (Vec<(u8, u16, u16, u8, u32)>, &[u8])| {
    let (fields, packet) = input;
    let columns = fields.iter().take(16).filter_map(|f| {
        let field = ResultField {
            code: TypeCode(f.0),
            flags: f.1,
            collation: f.2 % 330,
            decimals: f.3,
            length: f.4,
        };
        ResultColumn::new(&field, &ColumnFacts::default()).ok()
    });
    let rows = ResultRows::new(columns.collect());
    let column = |_| Column {
        name: String::new(),
        class: Class::Text,
        type_name: String::new(),
        nullable: true,
    };
    let schema = Arc::new(TableSchema {
        table: TableName::new("hr", "t"),
        columns: (0..rows.columns().len()).map(column).collect(),
        key: vec![0],
    });
    let mut builder = BatchBuilder::default();
    builder.data().extend_from_slice(packet);
    let table = builder.table(&schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    builder.begin(table, Op::Read, 0);
    if rows
        .read(&mut builder, 0..packet.len(), &mut Reading::default())
        .is_ok()
    {
        builder.finish(true, packet.len());
    }
});
