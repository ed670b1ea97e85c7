//! What an expression does to made-up rows.
//!
//! CEL is typed when it runs, not when it is read. Evaluating an expression over a handful
//! of typical values of its columns' classes finds what would fail for every record: an
//! operator between types that it does not take, a result that is not the attribute's type.
//! Only what fails for all of the made-up rows is called an error, so a valid expression is
//! never refused for a value that was merely unlucky.

use cel::ExecutionError;
use cel::common::types::{CelBool, CelNull, CelString};
use cel::common::value::Val;
use rollcall_contract::{Cell, Class, TableSchema};

use super::canonical::Target;
use super::expression::{Expression, Flaw, Stop};
use crate::reason::SkipReason;

/// How many made-up rows there are.
const ROWS: usize = 5;

fn samples(class: Class) -> [&'static str; ROWS] {
    match class {
        Class::Bool => ["t", "f", "t", "f", "t"],
        Class::Int => ["1", "0", "42", "-7", "1000000"],
        Class::Decimal => ["1.5", "0", "42", "-7.25", "1000000"],
        Class::Float => ["1.5", "0.25", "42", "-7.25", "1000000"],
        Class::Text => ["ann.lee@example.org", "", "2024-01-31", "1", "a b;c,d"],
        Class::Bytes => ["6162", "", "00", "ff", "616263"],
        Class::Date => ["2024-01-31"; ROWS],
        Class::Time => ["10:00:00"; ROWS],
        Class::Timestamp => ["2024-01-31T10:00:00"; ROWS],
        Class::TimestampTz => ["2024-01-31T10:00:00Z"; ROWS],
        Class::Uuid => ["01890a5d-ac96-774b-bcce-b302099a8057"; ROWS],
        Class::Json => ["{}", "[]", "{\"a\":\"b\"}", "[\"a\"]", "{\"a\":{\"b\":1}}"],
        Class::List => ["[\"a\",\"b\"]", "[]", "[\"a\"]", "[null]", "[\"1\"]"],
        Class::Other => ["a", "", "1", "2024-01-31", "a b"],
    }
}

/// What the made-up rows showed.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What fails for every record.
    pub(super) flaw: Option<Flaw>,
    /// Nullable columns whose null fails the expression.
    pub(super) null_fails: Vec<String>,
}

/// Runs an expression whose value goes into an attribute, or (without one) into the scope.
pub(super) fn run(
    expression: &Expression,
    schema: &TableSchema,
    target: Option<&Target>,
) -> Findings {
    let mut wrong_types = Vec::new();
    let mut wrong_results = Vec::new();
    let mut acceptable = 0usize;
    let mut answered = [false; ROWS];
    for (row, answered) in answered.iter_mut().enumerate() {
        let cells = made_up(schema, row, None);
        match expression.evaluate(&cells, |value| mismatch(value, target)) {
            Ok(result) => {
                *answered = true;
                match result {
                    Some(kind) => wrong_results.push(kind),
                    None => acceptable += 1,
                }
            }
            Err(Stop::Failed(error)) if is_about_types(&error) && !expression.is_dynamic() => {
                wrong_types.push(error);
            }
            Err(_) => acceptable += 1,
        }
    }
    if acceptable == 0 {
        let expected = match target {
            Some(target) => {
                format!("a value for an attribute of type {:?}", target.kind).to_lowercase()
            }
            None => "true or false".to_owned(),
        };
        let found = match (wrong_results.first(), wrong_types.first()) {
            (Some(kind), _) => format!("an expression that gives {kind}"),
            (None, Some(error)) => format!("an expression that always fails: {}", describe(error)),
            (None, None) => return Findings::default(),
        };
        return Findings {
            flaw: Some(Flaw {
                found,
                expected,
                suggestion: None,
            }),
            null_fails: Vec::new(),
        };
    }
    Findings {
        flaw: None,
        null_fails: nulls_that_fail(expression, schema, &answered),
    }
}

fn nulls_that_fail(
    expression: &Expression,
    schema: &TableSchema,
    answered: &[bool; ROWS],
) -> Vec<String> {
    let nullable = expression.columns().iter().copied();
    let nullable = nullable.filter(|&c| schema.columns[c].nullable);
    let failing = nullable.filter(|&column| {
        let mut tried = answered
            .iter()
            .enumerate()
            .filter(|(_, ok)| **ok)
            .peekable();
        tried.peek().is_some()
            && tried.all(|(row, _)| {
                let cells = made_up(schema, row, Some(column));
                matches!(
                    expression.evaluate(&cells, |_| ()),
                    Err(Stop::Failed(error)) if is_about_types(&error)
                )
            })
    });
    failing.map(|c| schema.columns[c].name.clone()).collect()
}

fn made_up(schema: &TableSchema, row: usize, null: Option<usize>) -> Vec<Cell<'static>> {
    let columns = schema.columns.iter().enumerate();
    columns
        .map(|(i, column)| {
            if null == Some(i) {
                Cell::Null
            } else {
                Cell::Value(samples(column.class)[row].as_bytes())
            }
        })
        .collect()
}

/// The kind of a result that can never be used, none for one that can.
fn mismatch(value: &(dyn Val + '_), target: Option<&Target>) -> Option<String> {
    if value.downcast_ref::<CelNull>().is_some() {
        return None;
    }
    let fits = match target {
        None => value.downcast_ref::<CelBool>().is_some(),
        // Whether text can be read as a date or a number depends on the text.
        Some(target) => {
            let pushed = target.push_cel(value, &mut Vec::new());
            pushed != Err(SkipReason::TypeMismatch)
                || value.downcast_ref::<CelString>().is_some() && target.reads_text()
        }
    };
    (!fits).then(|| format!("a {}", value.get_type().name()))
}

fn is_about_types(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::NotSupportedAsMethod { .. }
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::NoSuchOverload(_)
        | ExecutionError::UndeclaredReference(_)
        | ExecutionError::MissingArgumentOrTarget
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedIndex(..) => true,
        // A pattern that is none, and how the functions of this crate refuse their arguments.
        ExecutionError::FunctionError { function, message } => {
            function == "matches" || message.contains(", use ")
        }
        _ => false,
    }
}

/// In words; the values in it are made up.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => format!(
            "{} does not take ({})",
            overload.function().trim_matches('_'),
            overload.argument_types().join(", ")
        ),
        ExecutionError::UnsupportedBinaryOperator(operator, a, b) => {
            format!("`{operator}` of {} and {}", a.type_of(), b.type_of())
        }
        ExecutionError::ValuesNotComparable(a, b) => {
            format!("{} cannot be compared with {}", a.type_of(), b.type_of())
        }
        ExecutionError::UnexpectedType { want, .. } => format!("an argument is not {want}"),
        ExecutionError::FunctionError { function, message } => {
            format!("{function}: {}", message.lines().next().unwrap_or_default())
        }
        ExecutionError::UndeclaredReference(name) => format!("unknown name `{name}`"),
        _ => "an operation on a type that does not have it".to_owned(),
    }
}
