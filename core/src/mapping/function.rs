//! The functions of expressions beyond those of CEL.
//!
//! Each is total over its types: null in gives null out (except where it is the point of
//! the function to replace it), so that one missing middle name does not fail a person's
//! record. None reads a clock, a file or a random number: the same row gives the same
//! attributes for ever, which re-mapping a stored row rests on.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, FunctionContext, Value};

type Call = fn(&[Value]) -> Result<Value, String>;

/// Name and implementation; each can be called as `name(x, …)` and as `x.name(…)`.
const FUNCTIONS: &[(&str, Call)] = &[
    ("lower", lower),
    ("lowerAscii", lower_ascii),
    ("upper", upper),
    ("upperAscii", upper_ascii),
    ("trim", trim),
    ("replace", replace),
    ("substring", substring),
    ("indexOf", index_of),
    ("split", split),
    ("join", join),
    ("concat", concat),
    ("coalesce", coalesce),
    ("jsonGet", json_get),
];

/// The functions of CEL's standard library that are there, operators left out.
const STANDARD: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "dyn",
    "type",
];

/// The macros of CEL, for suggestions only: they are expanded before names are looked at.
const MACROS: &[&str] = &["has", "all", "exists", "exists_one", "map", "filter"];

static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

static ROOT: LazyLock<Context<'static, 'static>> = LazyLock::new(|| {
    let mut root = Context::with_env(Arc::clone(&ENVIRONMENT));
    for &(name, call) in FUNCTIONS {
        // Refused only for a name of the standard library; a test calls each of them.
        let _ = root.add_function(
            name,
            move |context: &FunctionContext<'_, '_>| -> Result<Value, ExecutionError> {
                let mut arguments = Vec::with_capacity(context.args.len() + 1);
                for value in context.this.iter().chain(&context.args) {
                    arguments.push(Value::try_from(value.as_ref())?);
                }
                call(&arguments).map_err(|message| context.error(message))
            },
        );
    }
    root
});

/// The environment in which expressions are parsed.
pub(super) fn environment() -> &'static Env {
    &ENVIRONMENT
}

/// The scope in which expressions are evaluated, without any row.
pub(super) fn root() -> &'static Context<'static, 'static> {
    &ROOT
}

/// Whether a call to this name, as the parser spells it, can be answered.
pub(super) fn is_known(name: &str) -> bool {
    name.starts_with(['_', '@', '!', '-'])
        || STANDARD.contains(&name)
        || FUNCTIONS.iter().any(|(f, _)| *f == name)
}

/// Whether the type of what it gives depends on data.
pub(super) fn is_dynamic(name: &str) -> bool {
    name == "jsonGet"
}

/// All names that an operator can call.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let own = FUNCTIONS.iter().map(|(name, _)| *name);
    own.chain(STANDARD.iter().copied())
        .chain(MACROS.iter().copied())
}

fn text_value(text: String) -> Value {
    Value::String(Arc::new(text))
}

fn arity(
    arguments: &[Value],
    usage: &str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<(), String> {
    if range.contains(&arguments.len()) {
        Ok(())
    } else {
        Err(format!("wrong number of arguments, use {usage}"))
    }
}

fn text<'v>(value: &'v Value, usage: &str) -> Result<&'v str, String> {
    match value {
        Value::String(s) => Ok(s),
        other => Err(format!(
            "an argument is of type {}, use {usage}",
            other.type_of()
        )),
    }
}

fn number(value: &Value, usage: &str) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| format!("a negative number, use {usage}")),
        other => Err(format!(
            "an argument is of type {}, use {usage}",
            other.type_of()
        )),
    }
}

/// Calls `with` on a text, hands null through.
fn on_text(
    arguments: &[Value],
    usage: &str,
    with: impl FnOnce(&str) -> String,
) -> Result<Value, String> {
    arity(arguments, usage, 1..=1)?;
    match &arguments[0] {
        Value::Null => Ok(Value::Null),
        value => Ok(text_value(with(text(value, usage)?))),
    }
}

fn lower(a: &[Value]) -> Result<Value, String> {
    on_text(a, "lower(text)", str::to_lowercase)
}

fn lower_ascii(a: &[Value]) -> Result<Value, String> {
    on_text(a, "lowerAscii(text)", str::to_ascii_lowercase)
}

fn upper(a: &[Value]) -> Result<Value, String> {
    on_text(a, "upper(text)", str::to_uppercase)
}

fn upper_ascii(a: &[Value]) -> Result<Value, String> {
    on_text(a, "upperAscii(text)", str::to_ascii_uppercase)
}

fn trim(a: &[Value]) -> Result<Value, String> {
    on_text(a, "trim(text)", |t| t.trim().to_owned())
}

fn replace(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "replace(text, what, with)";
    arity(a, USAGE, 3..=3)?;
    if matches!(a[0], Value::Null) {
        return Ok(Value::Null);
    }
    let (t, what, with) = (
        text(&a[0], USAGE)?,
        text(&a[1], USAGE)?,
        text(&a[2], USAGE)?,
    );
    if what.is_empty() {
        return Ok(text_value(t.to_owned()));
    }
    Ok(text_value(t.replace(what, with)))
}

/// From a position up to (without) another, counted in code points; beyond the end there is
/// nothing, which is no error: names are shorter than expected every day.
fn substring(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "substring(text, start) or substring(text, start, end)";
    arity(a, USAGE, 2..=3)?;
    if matches!(a[0], Value::Null) {
        return Ok(Value::Null);
    }
    let start = number(&a[1], USAGE)?;
    let end = match a.get(2) {
        Some(end) => number(end, USAGE)?,
        None => usize::MAX,
    };
    let chars = text(&a[0], USAGE)?.chars();
    Ok(text_value(
        chars.skip(start).take(end.saturating_sub(start)).collect(),
    ))
}

/// In code points; -1 where the text is not found.
fn index_of(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "indexOf(text, what)";
    arity(a, USAGE, 2..=2)?;
    if matches!(a[0], Value::Null) {
        return Ok(Value::Null);
    }
    let (t, what) = (text(&a[0], USAGE)?, text(&a[1], USAGE)?);
    Ok(Value::Int(match t.find(what) {
        Some(at) => t[..at].chars().count() as i64,
        None => -1,
    }))
}

fn split(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "split(text, separator)";
    arity(a, USAGE, 2..=2)?;
    if matches!(a[0], Value::Null) {
        return Ok(Value::Null);
    }
    let (t, separator) = (text(&a[0], USAGE)?, text(&a[1], USAGE)?);
    if separator.is_empty() {
        return Err(format!("an empty separator, use {USAGE}"));
    }
    let parts = t.split(separator).map(|p| text_value(p.to_owned()));
    Ok(Value::List(Arc::new(parts.collect())))
}

/// Joins what is there: nulls and empty texts are left out together with their separator.
fn join(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "join(list, separator)";
    arity(a, USAGE, 1..=2)?;
    let separator = match a.get(1) {
        Some(s) => text(s, USAGE)?,
        None => "",
    };
    let Value::List(items) = &a[0] else {
        return match &a[0] {
            Value::Null => Ok(Value::Null),
            other => Err(format!(
                "the first argument is of type {}, use {USAGE}",
                other.type_of()
            )),
        };
    };
    let mut out = String::new();
    for item in items.iter() {
        let written = written(item, USAGE)?;
        if written.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push_str(separator);
        }
        out.push_str(&written);
    }
    Ok(text_value(out))
}

fn written(value: &Value, usage: &str) -> Result<String, String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::String(s) => s.as_str().to_owned(),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        other => {
            return Err(format!(
                "an argument is of type {}, use {usage}",
                other.type_of()
            ));
        }
    })
}

/// As `+` over texts, but null adds nothing; null only when all are.
fn concat(a: &[Value]) -> Result<Value, String> {
    if a.iter().all(|v| matches!(v, Value::Null)) {
        return Ok(Value::Null);
    }
    let parts: Result<String, String> = a.iter().map(|v| written(v, "concat(value, …)")).collect();
    parts.map(text_value)
}

/// The first that is not null.
fn coalesce(a: &[Value]) -> Result<Value, String> {
    let found = a.iter().find(|v| !matches!(v, Value::Null));
    Ok(found.cloned().unwrap_or(Value::Null))
}

/// The value at a path of names and list indexes in a JSON document; null where the path
/// leads nowhere. Objects are given as JSON text.
fn json_get(a: &[Value]) -> Result<Value, String> {
    const USAGE: &str = "jsonGet(column, \"name.0.name\")";
    arity(a, USAGE, 2..=2)?;
    if matches!(a[0], Value::Null) {
        return Ok(Value::Null);
    }
    let document: serde_json::Value = serde_json::from_str(text(&a[0], USAGE)?)
        .map_err(|_| "the text is not a JSON document".to_owned())?;
    let mut at = Some(&document);
    for step in text(&a[1], USAGE)?.split('.') {
        at = at.and_then(|v| match v {
            serde_json::Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            other => other.get(step),
        });
    }
    Ok(at.map_or(Value::Null, from_json))
}

fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(f)) => Value::Float(f),
            (None, None) => text_value(n.to_string()),
        },
        Json::String(s) => text_value(s.clone()),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(_) => text_value(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a failed test should stop at once"
    )]
    use super::*;

    fn is_true(source: &str) {
        let program = environment().compile(source).unwrap();
        assert_eq!(program.execute(root()), Ok(Value::Bool(true)), "{source}");
    }

    #[test]
    fn each_function_does_what_the_reference_says() {
        for source in [
            "lower('ÅNN') == 'ånn' && 'ÅNN'.lower() == 'ånn'",
            "lowerAscii('ÅNN') == 'Ånn'",
            "upper('ånn') == 'ÅNN'",
            "upperAscii('ånn') == 'åNN'",
            "trim('  a ') == 'a'",
            "replace('a-b-c', '-', '') == 'abc'",
            "replace('abc', '', 'x') == 'abc'",
            "substring('åbcd', 1) == 'bcd'",
            "substring('åbcd', 1, 3) == 'bc'",
            "substring('ab', 5) == ''",
            "'åb@c'.indexOf('@') == 2",
            "'ab'.indexOf('@') == -1",
            "'a;b'.split(';') == ['a', 'b']",
            "join(['Ann', null, '', 'Lee'], ' ') == 'Ann Lee'",
            "['a', 'b'].join() == 'ab'",
            "concat('a', null, 1, true) == 'a1true'",
            "concat(null, null) == null",
            "coalesce(null, '', 'x') == ''",
            "coalesce(null) == null",
            "jsonGet('{\"a\":[{\"b\":\"c\"}]}', 'a.0.b') == 'c'",
            "jsonGet('{\"a\":1}', 'a') == 1",
            "jsonGet('{\"a\":1}', 'b.c') == null",
        ] {
            is_true(source);
        }
    }

    #[test]
    fn null_goes_through() {
        for source in [
            "lower(null) == null",
            "trim(null) == null",
            "replace(null, 'a', 'b') == null",
            "substring(null, 1) == null",
            "indexOf(null, 'a') == null",
            "split(null, 'a') == null",
            "join(null, 'a') == null",
            "jsonGet(null, 'a') == null",
        ] {
            is_true(source);
        }
    }

    #[test]
    fn standard_functions_are_there() {
        for source in [
            "size('abc') == 3 && 'abc'.contains('b') && 'abc'.startsWith('a')",
            "'abc'.endsWith('c') && 'abc'.matches('^a.c$')",
            "string(1) == '1' && int('2') == 2 && double('1.5') == 1.5 && bool('true')",
            "uint(1) == 1u && bytes('a') == b'a' && type(1) == int && dyn(1) == 1",
            "[1, 2].exists(x, x == 2) && [1, 2].all(x, x > 0) && size([1].map(x, x)) == 1",
        ] {
            is_true(source);
        }
    }
}
