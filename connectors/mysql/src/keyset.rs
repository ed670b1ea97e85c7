//! Which rows a page has, as SQL.
//!
//! Rows are ordered and compared by the server, in the order of the key's index and by its
//! columns' own collations, so "behind the last key" means the same as "later in this
//! order". Comparisons are written out column by column: one of whole rows is answered by
//! neither server from an index, and MariaDB's `IN` of several rows does not find text in a
//! column that has another character set than the list. The condition on the first column is said
//! twice, so that it bounds the range of the index for every version's optimizer.
//!
//! Without a unique index behind the key, a page begins with the last row of the page before:
//! rows that share a key then stand beside each other in some page and are seen to do so. Rows
//! that have no key belong to no page; they are asked for beside the first one.

use rollcall_contract::{
    Class, Column, ConnectorError, Key, Since, TableName, TableSchema, check_change_column,
};

use crate::query::{hex, ident, table};
use crate::schema::Table;
use crate::types;

/// Which rows.
pub(crate) enum Which<'a> {
    /// Those behind a key, or from the beginning.
    After(Option<&'a Key>),
    /// Those with these keys.
    Keys(&'a [Key]),
    /// Those that have no value in a column of the key.
    Keyless,
}

/// The query for a page.
pub(crate) fn select(
    definition: &Table,
    which: &Which<'_>,
    since: Option<&Since>,
    limit_rows: usize,
    wanted: &Wanted,
) -> Result<String, ConnectorError> {
    let schema = &definition.schema;
    let columns: Vec<String> = schema
        .columns
        .iter()
        .enumerate()
        .filter(|(i, _)| wanted.has(*i))
        .map(|(_, c)| ident(&c.name))
        .collect();
    let is_unique = definition.key_is_unique();
    let mut conditions = Vec::new();
    match which {
        Which::After(None) => {}
        Which::After(Some(key)) if is_unique => conditions.push(behind(schema, key)?),
        Which::After(Some(key)) => conditions.push(format!(
            "({} OR {})",
            behind(schema, key)?,
            one_of(schema, std::slice::from_ref(*key))?
        )),
        Which::Keys(keys) => conditions.push(one_of(schema, keys)?),
        Which::Keyless => {}
    }
    if !is_unique && !matches!(which, Which::Keys(_)) {
        let nulls = names(schema).into_iter();
        let nulls: Vec<String> = nulls.map(|name| format!("{name} IS NULL")).collect();
        let not = match which {
            Which::Keyless => "",
            _ => "NOT ",
        };
        conditions.push(format!("{not}({})", nulls.join(" OR ")));
    }
    if let Some(since) = since {
        conditions.push(ChangeColumn::of(schema, &since.column)?.not_below(&since.value)?);
    }
    let condition = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    // Few rows are found by the index of the change column, if there is one.
    let index = match is_unique && since.is_none() {
        true => format!(" FORCE INDEX ({})", ident(&definition.key_index)),
        false => String::new(),
    };
    let order: Vec<String> = schema
        .key
        .iter()
        .map(|&i| ident(&schema.columns[i].name))
        .collect();
    Ok(format!(
        "SELECT {} FROM {}{index}{condition} ORDER BY {} LIMIT {limit_rows}",
        columns.join(", "),
        table(&schema.table),
        order.join(", "),
    ))
}

/// A column that every change of a row raises.
pub(crate) struct ChangeColumn<'a>(&'a Column);

impl<'a> ChangeColumn<'a> {
    /// # Errors
    /// Definite, when there is no such column or its values do not rise.
    pub(crate) fn of(schema: &'a TableSchema, column: &str) -> Result<Self, ConnectorError> {
        let at = check_change_column(schema, column)?;
        Ok(ChangeColumn(&schema.columns[at]))
    }

    /// Rows that may have changed since the column had this value.
    fn not_below(&self, value: &str) -> Result<String, ConnectorError> {
        let name = ident(&self.0.name);
        let value = constant(self.0, value.as_bytes()).ok_or_else(|| {
            ConnectorError::definite(
                "change_column",
                "The change column's greatest value does not read as its type does.",
                "Report this with the server's version.",
            )
        })?;
        Ok(format!("({name} >= {value} OR {name} IS NULL)"))
    }

    /// The query for the greatest value; a time ahead of the clock counts as now.
    pub(crate) fn mark(&self, relation: &TableName) -> String {
        let (name, relation) = (ident(&self.0.name), table(relation));
        let value = match self.0.class {
            Class::Int | Class::Decimal => format!("MAX({name})"),
            Class::Date => format!("LEAST(MAX({name}), CURRENT_DATE())"),
            _ => format!("LEAST(MAX({name}), NOW(6))"),
        };
        format!("SELECT REPLACE(CAST({value} AS CHAR), ' ', 'T') FROM {relation}")
    }
}

/// Which columns a page carries.
pub(crate) struct Wanted(Option<Vec<bool>>);

impl Wanted {
    /// These columns and the key; all when none is named.
    pub(crate) fn new(only: Option<&[usize]>, schema: &TableSchema) -> Wanted {
        Wanted(only.map(|only| {
            let is_wanted = |i| only.contains(&i) || schema.key.contains(&i);
            (0..schema.columns.len()).map(is_wanted).collect()
        }))
    }

    /// Whether a column is one of them.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted[column])
    }
}

/// Rows whose key comes behind the given one.
fn behind(schema: &TableSchema, key: &Key) -> Result<String, ConnectorError> {
    let values = constants(schema, key)?;
    let names: Vec<String> = names(schema);
    let mut out = String::new();
    for ((name, value), &i) in names.iter().zip(&values).zip(&schema.key).rev() {
        let greater = match types::numbers_above(&schema.columns[i], value) {
            None => format!("{name} > {value}"),
            Some(above) if above.is_empty() => "FALSE".to_owned(),
            Some(above) => format!("{name} IN ({above})"),
        };
        out = if out.is_empty() {
            greater
        } else {
            format!("({greater} OR ({name} = {value} AND {out}))")
        };
    }
    Ok(match (names.first(), values.first()) {
        (Some(name), Some(value)) if names.len() > 1 => format!("{name} >= {value} AND {out}"),
        _ => out,
    })
}

/// Rows whose key is one of these. What was given up is nobody's.
fn one_of(schema: &TableSchema, keys: &[Key]) -> Result<String, ConnectorError> {
    let names = names(schema);
    let mut each = Vec::with_capacity(keys.len());
    for key in keys.iter().filter(|key| !key.is_given_up()) {
        let values = constants(schema, key)?;
        let parts = names.iter().zip(&values);
        let parts: Vec<String> = parts.map(|(n, v)| format!("{n} = {v}")).collect();
        each.push(parts.join(" AND "));
    }
    Ok(match each.is_empty() {
        true => "FALSE".to_owned(),
        false => format!("({})", each.join(") OR (")),
    })
}

fn names(schema: &TableSchema) -> Vec<String> {
    let name = |&i: &usize| ident(&schema.columns[i].name);
    schema.key.iter().map(name).collect()
}

/// The key's parts as constants that compare as their columns do.
fn constants(schema: &TableSchema, key: &Key) -> Result<Vec<String>, ConnectorError> {
    let foreign = || {
        ConnectorError::definite(
            "key_of_another_schema",
            "A stored key does not fit the table's key columns.",
            "The key was changed: remove what the store holds of this source, or restore the key.",
        )
    };
    let parts: Vec<&[u8]> = key.parts().collect();
    if parts.len() != schema.key.len() {
        return Err(foreign());
    }
    schema
        .key
        .iter()
        .zip(parts)
        .map(|(&i, part)| constant(&schema.columns[i], part).ok_or_else(foreign))
        .collect()
}

/// Canonical text as a constant; none when it is not a text of this column.
fn constant(column: &Column, part: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(part).ok()?;
    if let Some(number) = types::number_of(column, text) {
        return number.ok().map(|n| n.to_string());
    }
    let is_made_of = |allowed: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_digit() || allowed.contains(c))
    };
    Some(match column.class {
        Class::Int if is_made_of("-") => text.to_owned(),
        Class::Decimal if is_made_of("-.") => text.to_owned(),
        Class::Uuid if is_made_of("-abcdef") => format!("'{text}'"),
        Class::Text => format!("_utf8mb4 {}", hex(part)),
        Class::Bytes if text.len() % 2 == 0 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("X'{text}'")
        }
        Class::Date if is_made_of("-") => format!("DATE'{text}'"),
        Class::Time if is_made_of("-:.") => format!("TIME'{text}'"),
        Class::Timestamp | Class::TimestampTz if is_made_of("-:.TZ") => {
            let plain = text.trim_end_matches('Z').replace('T', " ");
            format!("TIMESTAMP'{plain}'")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use rollcall_contract::TableName;

    use super::*;

    fn schema(columns: &[(&str, Class)]) -> TableSchema {
        TableSchema {
            table: TableName::new("hr", "people"),
            columns: columns
                .iter()
                .map(|(name, class)| Column {
                    name: (*name).to_owned(),
                    class: *class,
                    type_name: class.name().to_owned(),
                    nullable: false,
                })
                .collect(),
            key: (0..columns.len()).collect(),
        }
    }

    fn key(parts: &[&str]) -> Key {
        let mut key = Key::new();
        for part in parts {
            key.push(part.as_bytes());
        }
        key
    }

    #[test]
    fn a_composite_key_is_bounded_by_its_first_column() {
        let schema = schema(&[("org", Class::Text), ("no", Class::Int)]);
        assert_eq!(
            behind(&schema, &key(&["O'X", "7"])).unwrap(),
            "`org` >= _utf8mb4 X'4f2758' AND (`org` > _utf8mb4 X'4f2758' OR \
             (`org` = _utf8mb4 X'4f2758' AND `no` > 7))"
        );
        assert!(behind(&schema, &key(&["7"])).is_err());
        assert_eq!(
            one_of(&schema, &[key(&["a", "1"])]).unwrap(),
            "(`org` = _utf8mb4 X'61' AND `no` = 1)"
        );
    }

    #[test]
    fn an_enum_is_bounded_by_its_numbers() {
        let mut schema = schema(&[("kind", Class::Text), ("no", Class::Int)]);
        schema.columns[0].type_name = "enum('z','a','m')".to_owned();
        assert_eq!(
            behind(&schema, &key(&["z", "7"])).unwrap(),
            "`kind` >= 1 AND (`kind` IN (2, 3) OR (`kind` = 1 AND `no` > 7))"
        );
        assert_eq!(
            behind(&schema, &key(&["m", "7"])).unwrap(),
            "`kind` >= 3 AND (FALSE OR (`kind` = 3 AND `no` > 7))"
        );
        assert!(behind(&schema, &key(&["x", "7"])).is_err());
    }

    #[test]
    fn each_class_has_a_constant_of_its_own() {
        for (class, text, sql) in [
            (Class::Int, "-7", "-7"),
            (Class::Decimal, "12.340", "12.340"),
            (Class::Bytes, "00ff", "X'00ff'"),
            (Class::Date, "2024-02-29", "DATE'2024-02-29'"),
            (Class::Time, "-838:59:59", "TIME'-838:59:59'"),
            (
                Class::Timestamp,
                "2024-02-29T01:02:03.5",
                "TIMESTAMP'2024-02-29 01:02:03.5'",
            ),
            (
                Class::TimestampTz,
                "2024-02-29T01:02:03Z",
                "TIMESTAMP'2024-02-29 01:02:03'",
            ),
        ] {
            let schema = schema(&[("k", class)]);
            assert_eq!(
                behind(&schema, &key(&[text])).unwrap(),
                format!("`k` > {sql}")
            );
        }
    }

    #[test]
    fn what_is_not_of_its_class_never_becomes_sql() {
        for (class, text) in [
            (Class::Int, "1 OR 1=1"),
            (Class::Decimal, "1;"),
            (Class::Bytes, "zz"),
            (Class::Date, "2024-01-01' OR '"),
            (Class::Float, "1.5"),
            (Class::Int, ""),
        ] {
            assert!(behind(&schema(&[("k", class)]), &key(&[text])).is_err());
        }
        assert_eq!(one_of(&schema(&[("k", Class::Int)]), &[]).unwrap(), "FALSE");
    }
}
