//! Further tables of a source, whose rows are joined to those of its own.
//!
//! Names, tables and the form of `on` are settled here; whether the columns exist is decided
//! where the mapping is compiled, against the schemas of the tables.

use rollcall_contract::TableName;
use rollcall_core::mapping::related;
use toml::de::DeValue;

use super::error::Place;
use super::reader::{Item, Section};
use super::source;
use super::table::Naming;
use super::values;

/// A table whose rows are joined to those of the source's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedConfig {
    /// What rules call it: `[source.hr.related.<name>]`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Which table.
    pub table: TableName,
    /// Its columns that are equal to columns of the source's table: pairs of both, never empty.
    pub on: Vec<(String, String)>,
    /// Whether any number of its rows belong to one record.
    pub many: bool,
    /// The columns that name its rows; the table's primary key when none.
    pub key: Option<Vec<String>>,
    /// The columns that are kept; those that rules use when none.
    pub columns: Option<Vec<String>>,
}

/// A source has so many at most.
const MAX_TABLES: usize = 32;

pub(super) fn all(
    section: &Section<'_>,
    main: Option<&TableName>,
    naming: Naming,
) -> Option<Vec<RelatedConfig>> {
    let mut read: Vec<RelatedConfig> = Vec::new();
    let mut complete = true;
    for (name, item) in section.entries() {
        match one(&name, &item, naming) {
            Some(table) if Some(&table.table) == main => {
                item.reject::<()>(
                    format!("the table {}, which is the source's own", table.table),
                    "another table than the source's own",
                    "name the table whose rows are to be joined",
                );
                complete = false;
            }
            Some(table) => match read.iter().find(|t| t.table == table.table) {
                Some(first) => {
                    item.reject::<()>(
                        format!(
                            "the table {} once more; {} is the same",
                            table.table, first.name
                        ),
                        "each table once",
                        "join it once, and use its columns in several rules",
                    );
                    complete = false;
                }
                None => read.push(table),
            },
            None => complete = false,
        }
    }
    if let Some((_, item)) = section.entries().get(MAX_TABLES) {
        return item.reject(
            format!("more than {MAX_TABLES} related tables"),
            format!("at most {MAX_TABLES}"),
            "join tables in a view of the source",
        );
    }
    complete.then_some(read)
}

fn one(name: &str, item: &Item<'_>, naming: Naming) -> Option<RelatedConfig> {
    if !related::is_name(name) {
        return item.reject(
            format!("the name {name:?}"),
            "a name that expressions can read: letters, digits and _, no digit first, and none of CEL's own words",
            "write for example [source.hr.related.dept]",
        );
    }
    let section = item.section()?;
    let table = section.required("table", |item| source::table(item, naming));
    let on = section.item("on");
    if on.is_none() {
        section.missing("on");
    }
    let on = on.and_then(|item| {
        let columns = item.section()?;
        let mut pairs = Vec::new();
        for (theirs, item) in columns.entries() {
            pairs.push((theirs, values::text(&item)?));
        }
        match pairs.is_empty() {
            true => item.wrong(),
            false => Some(pairs),
        }
    });
    let many = section.required("many", values::boolean);
    let key = section.optional("key", values::texts);
    let columns = section.optional("columns", values::texts);
    section.finish();
    Some(RelatedConfig {
        name: name.to_owned(),
        place: section.place(),
        table: table?,
        on: on?,
        many: many?,
        key: key?,
        columns: columns?,
    })
}

/// Refuses a join by a column whose values may not be stored.
pub(super) fn reject_redacted(section: &Section<'_>, redact: &[String]) -> Option<()> {
    let mut complete = true;
    for (_, item) in section.entries() {
        let Some(on) = item.section().and_then(|table| table.item("on")) else {
            continue;
        };
        let Some(columns) = on.section() else {
            continue;
        };
        for (_, item) in columns.entries() {
            if let DeValue::String(column) = item.value()
                && redact.iter().any(|redacted| redacted == column)
            {
                item.reject::<()>(
                    format!("the redacted column {column:?}"),
                    "a column whose values may be stored: what is joined is found by it",
                    "take it out of `redact`, or join by another column",
                );
                complete = false;
            }
        }
    }
    complete.then_some(())
}
