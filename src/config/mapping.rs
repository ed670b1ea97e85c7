//! The mapping of a source, as data.
//!
//! What can be said of a rule without its table is settled here: a known attribute, exactly one
//! origin, an expression that can be read, and no options that could never take effect. Whether
//! a column exists and gives what the attribute holds is decided where mappings are compiled,
//! against the schema of the table; each rule keeps its place so that such an error can still
//! name the line.

use rollcall_core::attribute::Attributes;
use rollcall_core::mapping::unreadable;
use toml::de::DeValue;

use super::error::Place;
use super::reader::{Item, Section, child, describe, suggest};
use super::secret::Context;
use super::values;

/// Where an attribute's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// A column's value.
    Column(String),
    /// The columns that are together the key of another record.
    Columns(Vec<String>),
    /// A CEL expression over columns.
    Expr(String),
    /// The same for every record.
    Constant(Constant),
}

/// A fixed value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// A text; a date or timestamp of the file is its ISO form.
    Text(String),
    /// A boolean.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, exactly as it is written.
    Decimal(String),
    /// Several texts.
    List(Vec<String>),
}

/// When the source's value counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strength {
    /// With every change.
    #[default]
    Always,
    /// When the user is created, never after.
    OnCreate,
    /// While the user has no value.
    IfEmpty,
}

impl Strength {
    pub(super) const WORDS: &'static [(&'static str, Strength)] = &[
        ("always", Strength::Always),
        ("on_create", Strength::OnCreate),
        ("if_empty", Strength::IfEmpty),
    ];
}

/// What null does to the attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum OnNull {
    /// Clears it.
    Clear,
    /// Leaves it.
    Keep,
    /// Sets this value.
    Default(Constant),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnNullWord {
    Clear,
    Keep,
    Default,
}

/// The rule of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleConfig {
    /// The attribute, for example `name.givenName` or `custom.badge`.
    pub attribute: String,
    /// Where the rule stands.
    pub place: Place,
    /// Where the value comes from.
    pub kind: RuleKind,
    /// When it counts.
    pub strength: Strength,
    /// What null does.
    pub on_null: OnNull,
    /// The separator of the values of a text.
    pub split: Option<String>,
}

/// A CEL expression that decides which records are users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeConfig {
    /// The expression.
    pub expr: String,
    /// Where it stands.
    pub place: Place,
}

/// The mapping of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingConfig {
    /// One rule for each attribute, in the order of the file; never empty.
    pub rules: Vec<RuleConfig>,
    /// Which records are users; all when none.
    pub scope: Option<ScopeConfig>,
}

/// Attributes that have parts: `name.givenName` may stand there with its dot.
pub(super) const GROUPS: [&str; 3] = ["name", "address", "custom"];

pub(super) fn rules(section: Section<'_>, context: &Context<'_>) -> Option<Vec<RuleConfig>> {
    let mut read = Vec::new();
    let mut complete = true;
    for (name, item) in section.entries() {
        match (GROUPS.contains(&name.as_str()), item.value()) {
            (true, DeValue::Table(_)) => {
                for (part, inner) in item.section()?.entries_of(section.pattern()) {
                    read.push(rule(child(&name, &part), inner, context));
                }
            }
            _ => read.push(rule(name, item, context)),
        }
    }
    if read.is_empty() {
        let document = section.document();
        document.reject(
            section.place(),
            section.path(),
            "no rules",
            "at least one rule",
            format!("add for example `email = \"email\"` to {}", section.title()),
        );
        return None;
    }
    let mut rules: Vec<RuleConfig> = Vec::with_capacity(read.len());
    for rule in read {
        match rule {
            Some(rule) => match rules.iter().find(|r| r.attribute == rule.attribute) {
                Some(first) => {
                    section.document().reject(
                        rule.place,
                        child(section.path(), &rule.attribute),
                        format!("a second rule; the first is in line {}", first.place.line),
                        "one rule for each attribute",
                        "remove one of the two",
                    );
                    complete = false;
                }
                None => rules.push(rule),
            },
            None => complete = false,
        }
    }
    complete.then_some(rules)
}

fn rule(attribute: String, item: Item<'_>, context: &Context<'_>) -> Option<RuleConfig> {
    let known = is_known(&attribute, &item, context);
    let place = item.key_place();
    if let DeValue::String(_) = item.value() {
        let column = values::text(&item)?;
        known?;
        return Some(RuleConfig {
            attribute,
            place,
            kind: RuleKind::Column(column),
            strength: Strength::Always,
            on_null: OnNull::Clear,
            split: None,
        });
    }
    let DeValue::Table(table) = item.value() else {
        return item.wrong();
    };
    let section = item.section()?;
    let column = section.optional("column", values::text);
    let columns = section.optional("columns", values::texts);
    let expr = section.optional("expr", expression);
    let fixed = section.optional("constant", constant);
    let default = section.optional("default", constant);
    let strength = section.required("strength", values::choice(Strength::WORDS));
    let word = section.optional("on_null", values::choice(ON_NULL_WORDS));
    let split = section.optional("split", separator);
    section.finish();

    let origins: Vec<&str> = ["column", "columns", "expr", "constant"]
        .into_iter()
        .filter(|origin| table.contains_key(*origin))
        .collect();
    if origins.len() != 1 {
        let found = match origins.is_empty() {
            true => "none of column, columns, expr and constant".to_owned(),
            false => origins.join(" and "),
        };
        return item.reject(
            found,
            "exactly one of column, columns, expr and constant",
            "keep the one that gives the value",
        );
    }
    if origins == ["constant"] {
        let idle: Vec<&str> = ["default", "on_null", "split"]
            .into_iter()
            .filter(|key| table.contains_key(*key))
            .collect();
        if !idle.is_empty() {
            return item.reject(
                format!("a constant with {}", idle.join(" and ")),
                "a constant alone or with strength",
                format!("remove {}", idle.join(" and ")),
            );
        }
    }
    let kind = match (column?, columns?, expr?, fixed?) {
        (Some(column), _, _, _) => RuleKind::Column(column),
        (_, Some(columns), _, _) => RuleKind::Columns(columns),
        (_, _, Some(expr), _) => RuleKind::Expr(expr),
        (_, _, _, Some(value)) => RuleKind::Constant(value),
        (None, None, None, None) => return item.wrong(),
    };
    let on_null = match (word?, default?) {
        (None | Some(OnNullWord::Default), Some(value)) => OnNull::Default(value),
        (None | Some(OnNullWord::Clear), None) => OnNull::Clear,
        (Some(OnNullWord::Keep), None) => OnNull::Keep,
        (Some(OnNullWord::Default), None) => {
            return item.reject(
                "on_null = \"default\" without a default",
                "a default",
                "add default = …, or write on_null = \"clear\"",
            );
        }
        (Some(OnNullWord::Clear | OnNullWord::Keep), Some(_)) => {
            return item.reject(
                "a default that on_null never lets count",
                "on_null = \"default\", or no default",
                "remove one of the two",
            );
        }
    };
    known?;
    Some(RuleConfig {
        attribute,
        place,
        kind,
        strength: strength?,
        on_null,
        split: split?,
    })
}

const ON_NULL_WORDS: &[(&str, OnNullWord)] = &[
    ("clear", OnNullWord::Clear),
    ("keep", OnNullWord::Keep),
    ("default", OnNullWord::Default),
];

/// A separator may be white space, so only the empty text is refused.
fn separator(item: &Item<'_>) -> Option<String> {
    values::text_where(|text| !text.is_empty())(item)
}

/// An expression that can be read, whatever its names mean.
pub(super) fn expression(item: &Item<'_>) -> Option<String> {
    let source = values::text(item)?;
    let flaws = unreadable(&source);
    for flaw in &flaws {
        let fix = flaw.suggestion.clone();
        let fix = fix.unwrap_or_else(|| "correct it at the place that is named".to_owned());
        item.reject::<()>(flaw.found.as_str(), flaw.expected.as_str(), fix);
    }
    flaws.is_empty().then_some(source)
}

fn is_known(attribute: &str, item: &Item<'_>, context: &Context<'_>) -> Option<()> {
    let (found, expected, fix) = match attribute.strip_prefix("custom.") {
        Some(name) => {
            if context.attributes.iter().any(|known| known == name) {
                return Some(());
            }
            let fix = match suggest(name, context.attributes.iter().map(String::as_str)) {
                Some(near) => format!("write custom.{near}, or declare [attributes.{name}]"),
                None => format!("add [attributes.{name}] with its type"),
            };
            let found = "a custom attribute that is not declared";
            (found, "one that [attributes] declares", fix)
        }
        None => {
            let core = Attributes::new([]);
            if core.by_name(attribute).is_some() {
                return Some(());
            }
            let fix = match suggest(attribute, core.iter().map(|a| a.name.as_str())) {
                Some(near) => format!("write {near}"),
                None => format!("declare [attributes.{attribute}] and write custom.{attribute}"),
            };
            ("an unknown attribute", "an attribute of users", fix)
        }
    };
    let (document, place) = (item.document(), item.key_place());
    document.reject(place, item.path(), found, expected, fix);
    None
}

/// A fixed value.
pub(super) fn constant(item: &Item<'_>) -> Option<Constant> {
    match item.value() {
        DeValue::String(text) => Some(Constant::Text(text.to_string())),
        DeValue::Boolean(value) => Some(Constant::Boolean(*value)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Constant::Integer)
            .or_else(|| item.wrong()),
        DeValue::Float(number) if number.as_str().contains(['n', 'i']) => item.wrong(),
        DeValue::Float(number) => Some(Constant::Decimal(number.as_str().to_owned())),
        DeValue::Datetime(date) => Some(Constant::Text(date.to_string())),
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for value in items {
                match value.get_ref() {
                    DeValue::String(text) => list.push(text.to_string()),
                    other => {
                        return item.reject(
                            format!("{} in the list", describe(other)),
                            item.kind().expected(),
                            "write every value of the list as a text",
                        );
                    }
                }
            }
            Some(Constant::List(list))
        }
        DeValue::Table(_) => item.wrong(),
    }
}
