#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use proptest::prelude::*;
use rollcall_contract::{
    BatchBuilder, Cell, Column, Cursor, Op, TableName, TableNo, TableSchema, Tx, TxId,
};

use super::*;
use crate::table_map::MappedColumn;

fn builder(columns: usize) -> BatchBuilder {
    let column = |_| Column {
        name: String::new(),
        class: Class::Text,
        type_name: String::new(),
        nullable: true,
    };
    let schema = Arc::new(TableSchema {
        table: TableName::new("hr", "t"),
        columns: (0..columns).map(column).collect(),
        key: vec![0],
    });
    let mut builder = BatchBuilder::default();
    let table = builder.table(TableNo::MAIN, &schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: Default::default(),
        commit_us: 0,
    });
    builder.begin(table, Op::Read, 0);
    builder
}

fn cells(mut builder: BatchBuilder) -> Vec<String> {
    builder.finish(true, 0);
    let batch = builder.build(Cursor::new(&[1], ""));
    let row = batch.change(0).after().unwrap();
    row.cells()
        .map(|cell| match cell {
            Cell::Value(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => format!("{other:?}"),
        })
        .collect()
}

fn put(form: &Form, value: &[u8], zero_dates: ZeroDates) -> Result<String, DecodeError> {
    let mut builder = builder(1);
    builder.data().extend_from_slice(b"..");
    builder.data().extend_from_slice(value);
    let (data, mut cells_of) = builder.parts();
    let mut reading = Reading::new(zero_dates);
    form.put(data, 2, value.len(), &mut cells_of, &mut reading)?;
    Ok(cells(builder).remove(0))
}

fn text(form: &Form, value: &[u8]) -> String {
    put(form, value, ZeroDates::Null).unwrap()
}

#[test]
fn the_old_temporal_types_read() {
    assert_eq!(
        text(&Form::OldTimeLog, &123_456i32.to_le_bytes()[..3]),
        "12:34:56"
    );
    assert_eq!(
        text(&Form::OldTimeLog, &(-8_385_959i32).to_le_bytes()[..3]),
        "-838:59:59"
    );
    let n = 20_240_229_010_203u64;
    assert_eq!(
        text(&Form::OldDatetimeLog, &n.to_le_bytes()),
        "2024-02-29T01:02:03"
    );
    assert_eq!(
        text(&Form::OldTimestampLog, &1u32.to_le_bytes()),
        "1970-01-01T00:00:01Z"
    );
    assert_eq!(
        text(&Form::OldTimestampLog, &u32::MAX.to_le_bytes()),
        "2106-02-07T06:28:15Z"
    );
    assert!(put(&Form::OldDatetimeLog, &[0xFF; 8], ZeroDates::Text).is_err());
}

#[test]
fn a_date_that_no_calendar_has_becomes_what_the_source_asks_for() {
    let date = |y: u32, m: u32, d: u32| (y << 9 | m << 5 | d).to_le_bytes()[..3].to_vec();
    for (value, digits) in [
        (date(0, 0, 0), "0000-00-00"),
        (date(2024, 0, 10), "2024-00-10"),
        (date(2024, 5, 0), "2024-05-00"),
        (date(2023, 2, 29), "2023-02-29"),
        (date(2024, 4, 31), "2024-04-31"),
        (date(1900, 2, 29), "1900-02-29"),
    ] {
        assert_eq!(
            put(&Form::DateLog, &value, ZeroDates::Null).unwrap(),
            "Null"
        );
        assert_eq!(
            put(&Form::DateLog, &value, ZeroDates::Text).unwrap(),
            digits
        );
        assert!(put(&Form::DateLog, &value, ZeroDates::Refuse).is_err());
    }
    for (value, digits) in [
        (date(2000, 2, 29), "2000-02-29"),
        (date(9999, 12, 31), "9999-12-31"),
    ] {
        assert_eq!(
            put(&Form::DateLog, &value, ZeroDates::Refuse).unwrap(),
            digits
        );
    }
}

#[test]
fn an_enum_without_a_value_is_empty_and_a_set_is_a_list() {
    let members: Arc<[String]> = ["a", "b\"c", "d"].map(str::to_owned).into();
    for (index, expected) in [(0, ""), (1, "a"), (3, "d"), (4, ""), (255, "")] {
        assert_eq!(
            text(&Form::EnumIndex(Arc::clone(&members)), &[index]),
            expected
        );
    }
    for (bits, expected) in [
        (0, "[]"),
        (5, r#"["a","d"]"#),
        (2, r#"["b\"c"]"#),
        (0xF0, "[]"),
    ] {
        assert_eq!(
            text(&Form::SetBits(Arc::clone(&members)), &[bits]),
            expected
        );
    }
    assert_eq!(text(&Form::SetText(Charset::Utf8), b"a,d"), r#"["a","d"]"#);
    assert_eq!(text(&Form::SetText(Charset::Utf8), b""), "[]");
}

#[test]
fn a_number_loses_the_zeros_that_fill_it_up() {
    for (value, expected) in [
        ("000001.50", "1.50"),
        ("000000.00", "0.00"),
        ("0", "0"),
        ("000", "0"),
        ("-0.5", "-0.5"),
        ("12", "12"),
        ("", ""),
    ] {
        assert_eq!(
            text(&Form::DecimalText, value.as_bytes()),
            expected,
            "{value}"
        );
    }
}

#[test]
fn a_text_that_is_not_in_its_character_set_is_counted() {
    let mut builder = builder(1);
    builder.data().extend_from_slice(b"a\xff");
    let (data, mut cells_of) = builder.parts();
    let mut reading = Reading::default();
    let form = Form::Text(Charset::Utf8);
    form.put(data, 0, 2, &mut cells_of, &mut reading).unwrap();
    assert_eq!(cells(builder), ["a\u{FFFD}ff"]);
    assert_eq!(reading.oddities.take().invalid_texts, 1);
    assert_eq!(reading.oddities, Oddities::default());
}

fn field(code: TypeCode, flags: u16, collation: u16) -> ResultField {
    ResultField {
        code,
        flags,
        collation,
        decimals: 2,
        length: 9,
    }
}

fn result_row(fields: &[ResultField], packet: &[u8]) -> Result<Vec<String>, DecodeError> {
    let columns = fields
        .iter()
        .map(|f| ResultColumn::new(f, &ColumnFacts::default()).unwrap());
    let rows = ResultRows::new(columns.collect());
    let mut builder = builder(fields.len());
    builder.data().extend_from_slice(b"...");
    builder.data().extend_from_slice(packet);
    let end = builder.data().len();
    rows.read(&mut builder, 3..end, &mut Reading::default())
        .map_err(|(_, error)| error)?;
    Ok(cells(builder))
}

fn sample_fields() -> Vec<ResultField> {
    vec![
        field(TypeCode::LONG, 0x20, 63),
        field(TypeCode::INT24, 0, 63),
        field(TypeCode::NEWDECIMAL, 0, 63),
        field(TypeCode::VAR_STRING, 0, 8),
        field(TypeCode::STRING, 0x100, 45),
        field(TypeCode::STRING, 0x800, 45),
        field(TypeCode::BLOB, 0, 63),
        field(TypeCode::DATE, 0, 63),
        field(TypeCode::TIMESTAMP, 0, 63),
        field(TypeCode::TIME, 0, 63),
        field(TypeCode::DATETIME, 0, 63),
        field(TypeCode::YEAR, 0x20, 63),
        field(TypeCode::FLOAT, 0, 63),
        field(TypeCode::JSON, 0, 63),
        field(TypeCode::LONG, 0, 63),
    ]
}

fn sample_packet() -> Vec<u8> {
    let mut out = vec![0, 0, 0, 1];
    out.extend(u32::MAX.to_le_bytes());
    out.extend((-5i32).to_le_bytes());
    out.extend(b"\x041.50\x02a\xe9\x01x\x03a,b\x02\x00\xff");
    out.extend([4, 0xE8, 7, 2, 29]);
    out.extend([11, 0xE8, 7, 2, 29, 1, 2, 3, 0x20, 0xA1, 7, 0]);
    out.extend([8, 1, 34, 0, 0, 0, 22, 59, 59]);
    out.push(0);
    out.extend([0xE8, 7]);
    out.extend(0.1f32.to_le_bytes());
    out.extend(b"\x02{}");
    out
}

#[test]
fn a_row_of_a_prepared_statement_reads_as_the_log_does() {
    let found = result_row(&sample_fields(), &sample_packet()).unwrap();
    assert_eq!(
        found,
        [
            "4294967295",
            "-5",
            "1.50",
            "aé",
            "x",
            r#"["a","b"]"#,
            "00ff",
            "2024-02-29",
            "2024-02-29T01:02:03.5Z",
            "-838:59:59",
            "Null",
            "2024",
            "0.1",
            "{}",
            "Null",
        ]
    );
}

fn packed_decimal(digits: &[u8], scale: usize, is_negative: bool) -> Vec<u8> {
    let whole = digits.len() - scale;
    let mut out = Vec::new();
    let mut group = |digits: &[u8]| {
        let n = digits.iter().fold(0u32, |n, d| n * 10 + u32::from(*d));
        let len = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4][digits.len()];
        out.extend(&n.to_be_bytes()[4 - len..]);
    };
    let first = whole % 9;
    if first > 0 {
        group(&digits[..first]);
    }
    digits[first..whole].chunks(9).for_each(&mut group);
    digits[whole..].chunks(9).for_each(&mut group);
    out[0] ^= 0x80;
    if is_negative {
        out.iter_mut().for_each(|b: &mut u8| *b = !*b);
    }
    out
}

proptest! {
    #[test]
    fn a_decimal_keeps_all_of_its_digits(
        digits in proptest::collection::vec(0u8..10, 1..=65),
        scale in 0usize..=30,
        is_negative in any::<bool>(),
    ) {
        let scale = scale.min(digits.len());
        let packed = packed_decimal(&digits, scale, is_negative);
        let form = Form::PackedDecimal { precision: digits.len() as u8, scale: scale as u8 };
        let spelled: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
        let (whole, fraction) = spelled.split_at(digits.len() - scale);
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let sign = if is_negative && digits.iter().any(|d| *d > 0) { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        prop_assert_eq!(text(&form, &packed), format!("{sign}{whole}{point}{fraction}"));
    }

    #[test]
    fn a_number_reads_back_from_its_text(n in any::<f64>(), m in any::<f32>(), i in any::<i64>()) {
        if n.is_finite() {
            let found = text(&Form::Double, &n.to_le_bytes());
            prop_assert_eq!(found.parse::<f64>().unwrap().to_bits(), n.to_bits(), "{}", found);
        }
        if m.is_finite() {
            let found = text(&Form::Float, &m.to_le_bytes());
            prop_assert_eq!(found.parse::<f32>().unwrap().to_bits(), m.to_bits(), "{}", found);
        }
        prop_assert_eq!(text(&Form::Signed, &i.to_le_bytes()), i.to_string());
        prop_assert_eq!(text(&Form::Unsigned, &i.to_le_bytes()), (i as u64).to_string());
        let short = (i << 40) >> 40;
        prop_assert_eq!(text(&Form::Signed, &short.to_le_bytes()[..3]), short.to_string());
    }

    #[test]
    fn days_are_those_of_the_calendar(days in 0u32..49_711) {
        let mut date = (1970u16, 1u8, 1u8);
        let mut left = days;
        loop {
            let leap = date.0.is_multiple_of(4) && (!date.0.is_multiple_of(100) || date.0.is_multiple_of(400));
            let year = if leap { 366 } else { 365 };
            if left < year { break; }
            left -= year;
            date.0 += 1;
        }
        let leap = date.0.is_multiple_of(4) && (!date.0.is_multiple_of(100) || date.0.is_multiple_of(400));
        for len in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if left < len { break; }
            left -= len;
            date.1 += 1;
        }
        date.2 += left as u8;
        let found = print::Date::from_days(days);
        prop_assert_eq!((found.year, found.month, found.day), date);
    }

    #[test]
    fn any_bytes_of_any_type_are_read_or_refused(
        code in any::<u8>(),
        meta in any::<u16>(),
        collation in proptest::option::of(0u16..330),
        value in proptest::collection::vec(any::<u8>(), 0..40),
        flags in any::<u16>(),
    ) {
        let column = MappedColumn {
            code: TypeCode(code),
            meta,
            is_nullable: true,
            name: None,
            is_unsigned: Some(true),
            collation,
            members: Some(vec![b"a".to_vec()]),
            geometry: None,
            dimensions: None,
            is_visible: None,
        };
        if let Ok(column) = LogColumn::new(&column, &ColumnFacts::default())
            && let Ok((start, len)) = column.extent.value(&value, 0)
        {
            let _ = put(&column.form, &value[start..start + len], ZeroDates::Text);
            let _ = column.column_type().name();
        }
        let field = ResultField {
            code: TypeCode(code),
            flags,
            collation: collation.unwrap_or(63),
            decimals: meta as u8,
            length: u32::from(meta),
        };
        if ResultColumn::new(&field, &ColumnFacts::default()).is_ok() {
            let mut packet = vec![0, 0];
            packet.extend(&value);
            let _ = result_row(&[field], &packet);
        }
    }

    #[test]
    fn damaged_result_rows_are_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = sample_packet();
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = result_row(&sample_fields(), &packet);
        packet.truncate(cut.index(packet.len()));
        let _ = result_row(&sample_fields(), &packet);
    }
}
