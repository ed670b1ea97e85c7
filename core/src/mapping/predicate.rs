//! Comparisons of columns with literals, without the interpreter.
//!
//! `status != "contractor"` is asked of every row of most sources. Where an expression
//! consists only of such comparisons, of `in` over literals and of `&&`, `||` and `!`, it
//! is turned into a tree that compares directly. In CEL none of these can fail: equality is
//! defined between values of any two types, so the order of evaluation and the absorption
//! of errors by `&&` and `||` make no difference. Comparisons that depend on conversions
//! between kinds of numbers are left to the interpreter. A property test holds both to the
//! same answer.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use rollcall_contract::Class;

use super::operand::Operand;

/// A boolean expression over comparisons.
#[derive(Clone, Debug)]
pub(super) enum Predicate {
    /// The operand with this index equals one of these.
    Among(usize, Vec<Literal>),
    Not(Box<Predicate>),
    All(Box<[Predicate; 2]>),
    Any(Box<[Predicate; 2]>),
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

impl Predicate {
    /// The predicate of an expression whose variables are the given columns, if it is one.
    pub(super) fn of(expr: &IdedExpr, variables: &[(String, Class)]) -> Option<Predicate> {
        let Expr::Call(call) = &expr.expr else {
            return None;
        };
        if call.target.is_some() {
            return None;
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => Some(Predicate::All(Box::new([
                Predicate::of(a, variables)?,
                Predicate::of(b, variables)?,
            ]))),
            (operators::LOGICAL_OR, [a, b]) => Some(Predicate::Any(Box::new([
                Predicate::of(a, variables)?,
                Predicate::of(b, variables)?,
            ]))),
            (operators::LOGICAL_NOT, [a]) => {
                Some(Predicate::Not(Box::new(Predicate::of(a, variables)?)))
            }
            _ => comparison(call, variables),
        }
    }

    /// Whether it holds. `operands` are the values of the variables, in their order.
    pub(super) fn holds(&self, operands: &[Operand<'_>]) -> bool {
        match self {
            Predicate::Among(variable, literals) => literals
                .iter()
                .any(|literal| equal(&operands[*variable], literal)),
            Predicate::Not(p) => !p.holds(operands),
            Predicate::All(pair) => pair.iter().all(|p| p.holds(operands)),
            Predicate::Any(pair) => pair.iter().any(|p| p.holds(operands)),
        }
    }
}

fn comparison(call: &CallExpr, variables: &[(String, Class)]) -> Option<Predicate> {
    let [a, b] = call.args.as_slice() else {
        return None;
    };
    match call.func_name.as_str() {
        operators::EQUALS | operators::NOT_EQUALS => {
            let (variable, literal) = match (variable(a, variables), variable(b, variables)) {
                (Some(v), None) => (v, literal(b)?),
                (None, Some(v)) => (v, literal(a)?),
                _ => return None,
            };
            let equal = Predicate::Among(variable, vec![literal]);
            Some(if call.func_name == operators::EQUALS {
                equal
            } else {
                Predicate::Not(Box::new(equal))
            })
        }
        operators::IN => {
            let Expr::List(list) = &b.expr else {
                return None;
            };
            let literals: Option<Vec<Literal>> = list.elements.iter().map(literal).collect();
            Some(Predicate::Among(variable(a, variables)?, literals?))
        }
        _ => None,
    }
}

fn variable(expr: &IdedExpr, variables: &[(String, Class)]) -> Option<usize> {
    let Expr::Ident(name) = &expr.expr else {
        return None;
    };
    variables
        .iter()
        .position(|(n, class)| n == name && !matches!(class, Class::Float | Class::List))
}

fn literal(expr: &IdedExpr) -> Option<Literal> {
    match &expr.expr {
        Expr::Literal(LiteralValue::Null) => Some(Literal::Null),
        Expr::Literal(LiteralValue::Boolean(b)) => Some(Literal::Bool(*b.inner())),
        Expr::Literal(LiteralValue::Int(n)) => Some(Literal::Int(*n.inner())),
        Expr::Literal(LiteralValue::String(s)) => Some(Literal::Text(s.inner().to_owned())),
        _ => None,
    }
}

fn equal(operand: &Operand<'_>, literal: &Literal) -> bool {
    match (operand, literal) {
        (Operand::Null(_), Literal::Null) => true,
        (Operand::Bool(a), Literal::Bool(b)) => a.inner() == b,
        (Operand::Int(a), Literal::Int(b)) => a.inner() == b,
        (Operand::UInt(a), Literal::Int(b)) => u64::try_from(*b).is_ok_and(|b| *a.inner() == b),
        (Operand::Text(a), Literal::Text(b)) => a.inner() == b,
        _ => false,
    }
}
