//! Which rows a page has, as SQL.
//!
//! Rows are ordered and compared by the operators of the index behind the key, named with
//! their schema. So "behind the last key" means the same as "later in this order" for any
//! type and collation, whatever the search path is.
//!
//! Without a unique index behind the key, a page begins with the last row of the page before:
//! rows that share a key then stand beside each other in some page and are seen to do so. Rows
//! that have no key belong to no page; they are asked for beside the first one.

use rollcall_contract::{Class, ConnectorError, Key, RelationKind, Since, check_change_column};

use crate::query::{ident, literal, literal_of, table};
use crate::schema::{KeyColumn, Table};

/// Which rows.
pub(crate) enum Which<'a> {
    /// Those behind a key, or from the beginning.
    After(Option<&'a Key>),
    /// Those with these keys.
    Keys(&'a [Key]),
    /// Those that have no value in a column of the key.
    Keyless,
}

/// The `SELECT` behind the `COPY`.
pub(crate) fn select(
    definition: &Table,
    which: &Which<'_>,
    since: Option<&Since>,
    limit_rows: usize,
    wanted: &Wanted,
) -> Result<String, ConnectorError> {
    let columns: Vec<String> = definition
        .schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            if wanted.has(i) {
                ident(&c.name)
            } else {
                "NULL".to_owned()
            }
        })
        .collect();
    // The rows of inheriting tables have a name of their own in the log.
    let only = match definition.kind {
        RelationKind::Table => "ONLY ",
        _ => "",
    };
    let mut conditions = Vec::new();
    if let Some(filter) = &definition.row_filter {
        conditions.push(format!("({filter})"));
    }
    match which {
        Which::After(None) => {}
        Which::After(Some(key)) if definition.key_is_unique => {
            conditions.push(behind(&definition.key_order, key)?);
        }
        Which::After(Some(key)) => conditions.push(format!(
            "({} OR {})",
            behind(&definition.key_order, key)?,
            one_of(&definition.key_order, std::slice::from_ref(*key))?
        )),
        Which::Keys(keys) => conditions.push(one_of(&definition.key_order, keys)?),
        Which::Keyless => {}
    }
    if !definition.key_is_unique && !matches!(which, Which::Keys(_)) {
        let nulls = definition.key_order.iter().map(|c| ident(&c.name));
        let nulls: Vec<String> = nulls.map(|name| format!("{name} IS NULL")).collect();
        let not = match which {
            Which::Keyless => "",
            _ => "NOT ",
        };
        conditions.push(format!("{not}({})", nulls.join(" OR ")));
    }
    if let Some(since) = since {
        let change = ChangeColumn::of(definition, &since.column)?;
        conditions.push(change.not_below(&since.value));
    }
    let filter = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    let order: Vec<String> = definition
        .key_order
        .iter()
        .map(|c| format!("{} USING {}", ident(&c.name), c.less))
        .collect();
    Ok(format!(
        "COPY (SELECT {} FROM {only}{}{filter} ORDER BY {} LIMIT {limit_rows}) TO STDOUT",
        columns.join(", "),
        table(&definition.schema.table),
        order.join(", "),
    ))
}

/// A column that every change of a row raises.
pub(crate) struct ChangeColumn<'a> {
    name: String,
    cast: &'a str,
    class: Class,
}

impl<'a> ChangeColumn<'a> {
    /// # Errors
    /// Definite, when there is no such column or its values do not rise.
    pub(crate) fn of(definition: &'a Table, column: &str) -> Result<Self, ConnectorError> {
        let schema = &definition.schema;
        let at = check_change_column(schema, column)?;
        let class = schema.columns[at].class;
        Ok(ChangeColumn {
            name: ident(column),
            cast: &definition.casts[at],
            class,
        })
    }

    /// Rows that may have changed since the column had this value.
    fn not_below(&self, value: &str) -> String {
        let (name, value, cast) = (&self.name, literal(value), self.cast);
        format!("({name} OPERATOR(pg_catalog.>=) {value}::{cast} OR {name} IS NULL)")
    }

    /// The query for the greatest value; a time ahead of the clock counts as now.
    pub(crate) fn mark(&self, definition: &Table) -> String {
        let (name, cast) = (&self.name, self.cast);
        let value = match self.class {
            Class::Int | Class::Decimal => name.clone(),
            _ => format!("LEAST({name}, pg_catalog.clock_timestamp()::{cast})"),
        };
        let relation = table(&definition.schema.table);
        format!(
            "SELECT ({value})::text FROM {relation} WHERE {name} IS NOT NULL \
             ORDER BY {name} DESC LIMIT 1"
        )
    }
}

/// Which columns a page carries.
pub(crate) struct Wanted(Option<Vec<bool>>);

impl Wanted {
    /// These columns and the key; all when none is named.
    pub(crate) fn new(only: Option<&[usize]>, definition: &Table) -> Wanted {
        Wanted(only.map(|only| {
            let schema = &definition.schema;
            let is_wanted = |i| only.contains(&i) || schema.key.contains(&i);
            (0..schema.columns.len()).map(is_wanted).collect()
        }))
    }

    /// Whether a column is one of them.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted[column])
    }
}

/// Rows whose key comes behind the given one. One row comparison when all columns compare
/// by the same operator, since the planner answers that from the index at once; else the
/// comparison is written out column by column.
fn behind(order: &[KeyColumn], key: &Key) -> Result<String, ConnectorError> {
    let values = constants(order, key)?;
    let names: Vec<String> = order.iter().map(|c| ident(&c.name)).collect();
    if let [first, rest @ ..] = order
        && rest.iter().all(|c| c.greater == first.greater)
    {
        return Ok(if rest.is_empty() {
            format!("{} {} {}", names[0], first.greater, values[0])
        } else {
            format!(
                "ROW({}) {} ROW({})",
                names.join(", "),
                first.greater,
                values.join(", ")
            )
        });
    }
    let mut out = String::new();
    for i in (0..order.len()).rev() {
        let greater = format!("{} {} {}", names[i], order[i].greater, values[i]);
        out = if out.is_empty() {
            greater
        } else {
            format!(
                "({greater} OR ({} {} {} AND {out}))",
                names[i], order[i].equal, values[i]
            )
        };
    }
    Ok(out)
}

/// Rows whose key is one of these. What was given up is nobody's.
fn one_of(order: &[KeyColumn], keys: &[Key]) -> Result<String, ConnectorError> {
    let mut each = Vec::with_capacity(keys.len());
    for key in keys.iter().filter(|key| !key.is_given_up()) {
        let values = constants(order, key)?;
        let columns: Vec<String> = order
            .iter()
            .zip(&values)
            .map(|(c, v)| format!("{} {} {v}", ident(&c.name), c.equal))
            .collect();
        each.push(format!("({})", columns.join(" AND ")));
    }
    Ok(if each.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", each.join(" OR "))
    })
}

/// The key's parts as constants of the columns' types.
fn constants(order: &[KeyColumn], key: &Key) -> Result<Vec<String>, ConnectorError> {
    let foreign = || {
        ConnectorError::definite(
            "key_of_another_schema",
            "A stored key does not fit the table's key columns.",
            "The key was changed: remove what the store holds of this source, or restore the key.",
        )
    };
    let parts: Vec<&[u8]> = key.parts().collect();
    if parts.len() != order.len() {
        return Err(foreign());
    }
    order
        .iter()
        .zip(parts)
        .map(|(column, part)| {
            let constant = match column.class {
                Class::Bytes => {
                    let digits = std::str::from_utf8(part).map_err(|_| foreign())?;
                    literal(&format!("\\x{digits}"))
                }
                _ => literal_of(part),
            };
            Ok(format!("{constant}::{}", column.cast))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use super::*;

    fn column(name: &str, cast: &str, schema: &str, class: Class) -> KeyColumn {
        let op = |o: &str| format!("OPERATOR({schema}.{o})");
        KeyColumn {
            name: name.to_owned(),
            cast: cast.to_owned(),
            class,
            less: op("<"),
            greater: op(">"),
            equal: op("="),
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
    fn a_composite_key_is_one_row_comparison() {
        let order = [
            column("org", "text", "pg_catalog", Class::Text),
            column("no", "integer", "pg_catalog", Class::Int),
        ];
        assert_eq!(
            behind(&order, &key(&["O'X", "7"])).unwrap(),
            "ROW(\"org\", \"no\") OPERATOR(pg_catalog.>) ROW(E'O''X'::text, E'7'::integer)"
        );
        assert_eq!(
            behind(&order[1..], &key(&["7"])).unwrap(),
            "\"no\" OPERATOR(pg_catalog.>) E'7'::integer"
        );
        assert!(behind(&order, &key(&["7"])).is_err());
    }

    #[test]
    fn columns_with_operators_of_their_own_are_compared_one_by_one() {
        let order = [
            column("mail", "public.citext", "public", Class::Text),
            column("raw", "bytea", "pg_catalog", Class::Bytes),
        ];
        assert_eq!(
            behind(&order, &key(&["a", "00ff"])).unwrap(),
            "(\"mail\" OPERATOR(public.>) E'a'::public.citext OR \
             (\"mail\" OPERATOR(public.=) E'a'::public.citext AND \
             \"raw\" OPERATOR(pg_catalog.>) E'\\\\x00ff'::bytea))"
        );
    }

    #[test]
    fn records_are_read_again_by_equality() {
        let order = [column("no", "integer", "pg_catalog", Class::Int)];
        assert_eq!(one_of(&order, &[]).unwrap(), "false");
        assert_eq!(
            one_of(&order, &[key(&["1"]), key(&["2"])]).unwrap(),
            "((\"no\" OPERATOR(pg_catalog.=) E'1'::integer) OR \
             (\"no\" OPERATOR(pg_catalog.=) E'2'::integer))"
        );
    }
}
