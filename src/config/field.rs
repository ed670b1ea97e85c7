//! Whose value of a field counts: the tables `[field.<attribute>]`.
//!
//! Names of attributes and sources are settled here; whether a column exists is decided where
//! mappings are compiled, against the schema of the table.

use std::collections::BTreeMap;
use std::time::Duration;

use rollcall_core::attribute::{ACTIVE, AttrType, Attributes};
use toml::de::DeValue;

use super::reader::{Section, child, suggest};
use super::{AttributeType, mapping, source, values};

/// Who decides a field between sources and the identity side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldMode {
    /// What the identity side writes stays until a source changes its value.
    SourceWins,
    /// What the identity side writes stays.
    TargetWins,
    /// The newer value wins.
    MostRecent,
    /// Sources give a value only while there is none.
    IfEmpty,
    /// Sources give a value only when the user is made or a record is linked.
    OnCreate,
    /// All parts of a list count.
    Merge,
}

impl FieldMode {
    pub(super) const WORDS: &'static [(&'static str, FieldMode)] = &[
        ("source_wins", FieldMode::SourceWins),
        ("target_wins", FieldMode::TargetWins),
        ("most_recent", FieldMode::MostRecent),
        ("if_empty", FieldMode::IfEmpty),
        ("on_create", FieldMode::OnCreate),
        ("merge", FieldMode::Merge),
    ];

    fn fits(self, is_list: bool) -> bool {
        match self {
            FieldMode::SourceWins | FieldMode::MostRecent => !is_list,
            FieldMode::Merge => is_list,
            FieldMode::TargetWins | FieldMode::IfEmpty | FieldMode::OnCreate => true,
        }
    }
}

/// The rules of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConfig {
    /// The sources that decide it, the first one first; each exists.
    pub authority: Vec<String>,
    /// Who decides where these do not; the usual when none.
    pub mode: Option<FieldMode>,
    /// How far clocks may differ, for [`FieldMode::MostRecent`]; the usual when none.
    pub skew: Option<Duration>,
    /// For a source, the column that says when the value was changed.
    pub changed: BTreeMap<String, String>,
}

/// `[field.name.givenName]` is a table in a table for TOML and one attribute for us.
pub(super) fn fields(
    section: &Section<'_>,
    sources: &[String],
    custom: &BTreeMap<String, AttributeType>,
) -> Option<BTreeMap<String, FieldConfig>> {
    let mut read = BTreeMap::new();
    let mut complete = true;
    let mut items = Vec::new();
    for (name, item) in section.entries() {
        match item.value() {
            DeValue::Table(_) if mapping::GROUPS.contains(&name.as_str()) => {
                let inner = item.section()?.entries_of(section.pattern());
                items.extend(
                    inner
                        .into_iter()
                        .map(|(part, item)| (child(&name, &part), item)),
                );
            }
            _ => items.push((name, item)),
        }
    }
    for (attribute, item) in items {
        let kind = kind(&attribute, custom);
        if kind.is_none() {
            reject_attribute(section, &attribute, &item, custom);
        }
        let rules = item
            .section()
            .and_then(|rules| field(&rules, kind, sources));
        match rules.filter(|_| kind.is_some()) {
            Some(rules) => drop(read.insert(attribute, rules)),
            None => complete = false,
        }
    }
    complete.then_some(read)
}

/// Whether an attribute is a list; none when no value of it can be decided on.
fn kind(attribute: &str, custom: &BTreeMap<String, AttributeType>) -> Option<bool> {
    if let Some(name) = attribute.strip_prefix("custom.") {
        return Some(*custom.get(name)? == AttributeType::List);
    }
    let core = Attributes::new([]);
    let known = core.by_name(attribute).filter(|a| a.id != ACTIVE)?;
    Some(known.kind == AttrType::List)
}

fn reject_attribute(
    section: &Section<'_>,
    attribute: &str,
    item: &super::reader::Item<'_>,
    custom: &BTreeMap<String, AttributeType>,
) {
    let core = Attributes::new([]);
    let of_core = core
        .iter()
        .filter(|a| a.id != ACTIVE)
        .map(|a| a.name.clone());
    let names: Vec<String> = of_core
        .chain(custom.keys().map(|name| format!("custom.{name}")))
        .collect();
    let fix = match suggest(attribute, names.iter().map(String::as_str)) {
        _ if core.by_name(attribute).is_some() => format!("remove [field.{attribute}]"),
        Some(near) => format!("write [field.{near}]"),
        None => "declare it in [attributes], and name it custom.<name> here".to_owned(),
    };
    section.document().reject(
        item.key_place(),
        child(section.path(), attribute),
        format!("the attribute {attribute:?}, of which no source can be asked"),
        "an attribute of users other than active",
        fix,
    );
}

fn field(section: &Section<'_>, is_list: Option<bool>, sources: &[String]) -> Option<FieldConfig> {
    let authority = section.optional("authority", |item| {
        let order = values::texts(item)?;
        let mut unknown = order.iter().filter(|name| !sources.contains(name));
        match unknown.next() {
            None => Some(order),
            Some(name) => {
                reject_source(section, "authority", item, name, sources);
                None
            }
        }
    });
    let mode = section.optional("mode", |item| {
        let mode = values::choice(FieldMode::WORDS)(item)?;
        if is_list.is_none_or(|is_list| mode.fits(is_list)) {
            return Some(mode);
        }
        match is_list {
            Some(true) => item.reject(
                item.found(),
                "merge, target_wins, if_empty or on_create: the attribute is a list",
                "write `mode = \"merge\"`",
            ),
            _ => item.reject(
                item.found(),
                "a mode of an attribute that is no list",
                "write `mode = \"source_wins\"`",
            ),
        }
    });
    let timed = matches!(mode, Some(Some(FieldMode::MostRecent)) | None);
    let skew = section.optional("skew", |item| {
        let skew = values::duration(item)?;
        match timed {
            true => Some(skew),
            false => useless(item),
        }
    });
    let changed = section.section("changed").and_then(|columns| {
        let mut read = BTreeMap::new();
        let mut complete = true;
        for (source, item) in columns.entries() {
            let column = match (timed, sources.contains(&source)) {
                (false, _) => useless(&item),
                (true, false) => {
                    reject_source(&columns, &source, &item, &source, sources);
                    None
                }
                (true, true) => values::text(&item),
            };
            match column {
                Some(column) => drop(read.insert(source, column)),
                None => complete = false,
            }
        }
        complete.then_some(read)
    });
    section.finish();
    Some(FieldConfig {
        authority: authority?.unwrap_or_default(),
        mode: mode?,
        skew: skew?,
        changed: changed?,
    })
}

fn useless<T>(item: &super::reader::Item<'_>) -> Option<T> {
    item.reject(
        item.found(),
        "such a key only beside mode = \"most_recent\"",
        "remove it, or write `mode = \"most_recent\"`",
    )
}

fn reject_source(
    section: &Section<'_>,
    key: &str,
    item: &super::reader::Item<'_>,
    name: &str,
    sources: &[String],
) {
    let known = sources.iter().map(String::as_str);
    source::reject_name(section, key, item.place(), "source", name, known);
}
