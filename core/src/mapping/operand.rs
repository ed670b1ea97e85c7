//! Cells as the operands of expressions.
//!
//! An operand borrows its cell; only text that is not in NFC and lists are copied. Text is
//! in NFC, because expressions are compared with literals that were typed by a person.
//! Decimals, dates and times are texts in their canonical form: a decimal as a binary
//! number would not be the number of the source, and canonical dates and times compare as
//! texts in the order of time. Binary data is its hexadecimal text.

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt};
use cel::common::value::Val;
use rollcall_contract::{Cell, Class, Value};
use unicode_normalization::UnicodeNormalization;

use super::text::is_plainly_nfc;

/// One operand.
#[derive(Debug)]
pub(super) enum Operand<'a> {
    Null(CelNull),
    Bool(CelBool),
    Int(CelInt),
    UInt(CelUInt),
    Double(CelDouble),
    Text(CelString<'a>),
    List(CelList<'a>),
}

/// Why a cell is no operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoOperand {
    /// It is not known.
    Missing,
    /// It is not a value of its class.
    Bad,
}

impl<'a> Operand<'a> {
    pub(super) fn of(class: Class, cell: Cell<'a>) -> Result<Operand<'a>, NoOperand> {
        let text = match cell {
            Cell::Null => return Ok(Operand::Null(CelNull)),
            Cell::Missing | Cell::Unchanged => return Err(NoOperand::Missing),
            Cell::Value(text) => text,
        };
        Ok(match Value::parse(class, text).ok_or(NoOperand::Bad)? {
            Value::Bool(b) => Operand::Bool(b.into()),
            Value::Int(n) => Operand::Int(n.into()),
            Value::UInt(n) => Operand::UInt(n.into()),
            Value::Float(n) => Operand::Double(n.into()),
            Value::Text(t) if is_plainly_nfc(t) => Operand::Text(t.into()),
            Value::Text(t) => Operand::Text(t.nfc().collect::<String>().into()),
            Value::List(items) => {
                let items = items.into_iter().map(|item| -> Box<dyn Val + 'a> {
                    match item {
                        None => Box::new(CelNull),
                        Some(t) => Box::new(CelString::from(t.nfc().collect::<String>())),
                    }
                });
                Operand::List(items.collect::<Vec<_>>().into())
            }
        })
    }

    pub(super) fn as_val(&self) -> &(dyn Val + 'a) {
        match self {
            Operand::Null(v) => v,
            Operand::Bool(v) => v,
            Operand::Int(v) => v,
            Operand::UInt(v) => v,
            Operand::Double(v) => v,
            Operand::Text(v) => v,
            Operand::List(v) => v,
        }
    }
}
