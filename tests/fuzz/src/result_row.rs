//! Columns (a count, then ten bytes each) and a row of a prepared statement.

use std::sync::Arc;

use rollcall_binlog::table_map::TypeCode;
use rollcall_binlog::types::{ColumnFacts, Reading, ResultColumn, ResultField, ResultRows};
use rollcall_contract::{
    BatchBuilder, Class, Column, Op, TableName, TableNo, TableSchema, Tx, TxId,
};

const FIELD: usize = 10;

pub(crate) fn run(data: &[u8]) -> usize {
    let Some((&count, rest)) = data.split_first() else {
        return 0;
    };
    let Some((fields, packet)) = rest.split_at_checked(usize::from(count) * FIELD) else {
        return 0;
    };
    let columns = fields.chunks_exact(FIELD).filter_map(|f| {
        let field = ResultField {
            code: TypeCode(f[0]),
            flags: u16::from_le_bytes([f[1], f[2]]),
            collation: u16::from_le_bytes([f[3], f[4]]) % 330,
            decimals: f[5],
            length: u32::from_le_bytes([f[6], f[7], f[8], f[9]]),
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
    let table = builder.table(TableNo::MAIN, &schema);
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
    0
}
