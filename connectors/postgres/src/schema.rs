//! The followed table, as the catalogs describe it.
//!
//! What matters is that a scan and the log agree: the columns are those that the
//! publication sends, in the order of their numbers, which is the order in which the log
//! carries them; and each column's class is decided by the type that its text has, so a
//! domain is followed down to its base type. The record key is what the configuration
//! names, else the replica identity's index, else the primary key. To be followed, a table
//! must have a unique index over exactly these columns, and pages go through it in that
//! index's order and by its own operators. What can only be polled, a view for example, may
//! have a configured key without an index: then the order is that of the columns' types, and
//! whoever reads the pages has to see that no key comes twice.

use std::sync::Arc;

use rollcall_contract::{
    Class, Column, ConnectorError, FollowedTable, RelationKind, TableName, TableSchema,
};
use tokio_postgres::GenericClient;

use crate::query;
use crate::type_map::TypeMap;
use crate::types::{Form, TypeResolver};

/// How the table tells the log which row was changed (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// A named index.
    Index,
    /// The whole old row.
    Full,
    /// Nothing.
    Nothing,
}

impl ReplicaIdentity {
    fn from_char(c: &str) -> Self {
        match c {
            "i" => ReplicaIdentity::Index,
            "f" => ReplicaIdentity::Full,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        }
    }
}

/// Everything that the catalogs say about one table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) kind: RelationKind,
    /// Whether writes to it reach the log at all (`relpersistence`).
    pub(crate) logged: bool,
    pub(crate) identity: ReplicaIdentity,
    /// Columns of the old row that the log carries for a delete; all of them for `Full`.
    pub(crate) identity_columns: Vec<String>,
    /// Whether policies hide rows from this role.
    pub(crate) row_security: bool,
    /// Columns that this role may not read.
    pub(crate) unreadable: Vec<String>,
    /// The columns that the publication sends, and the key (empty when there is none).
    pub(crate) schema: Arc<TableSchema>,
    /// How to print and read back each column of the key, in key order.
    pub(crate) key_order: Vec<KeyColumn>,
    /// For each column of `schema`, the OID of its type.
    pub(crate) type_oids: Vec<u32>,
    /// For each column of `schema`, how its text is read.
    pub(crate) forms: Vec<Form>,
    /// For each column of `schema`, the type to cast a constant to.
    pub(crate) casts: Vec<String>,
    /// The publication's row filter, as SQL.
    pub(crate) row_filter: Option<String>,
    /// Whether a unique index stands behind the key.
    pub(crate) key_is_unique: bool,
    /// Why there is no key, or why it serves for polling only.
    pub(crate) key_fault: Option<String>,
}

impl Table {
    /// The names of the key's columns, in key order.
    pub(crate) fn key_names(&self) -> Vec<String> {
        self.key_order.iter().map(|c| c.name.clone()).collect()
    }
}

/// One column of the key, as the index behind it orders it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    /// The type to cast a constant to.
    pub(crate) cast: String,
    pub(crate) class: Class,
    /// Qualified operators of the index's operator class: `OPERATOR(pg_catalog.<)`.
    pub(crate) less: String,
    pub(crate) greater: String,
    pub(crate) equal: String,
}

struct Attribute {
    name: String,
    type_name: String,
    cast: String,
    type_oid: u32,
    not_null: bool,
    generated: bool,
    readable: bool,
}

/// Reads the table; `None` when there is no relation of that name.
pub(crate) async fn load<C: GenericClient>(
    client: &C,
    followed: &FollowedTable<'_>,
    publication: &str,
    types: &TypeMap,
) -> Result<Option<Table>, ConnectorError> {
    let (name, configured_key) = (followed.table, followed.key);
    const DOING: &str = "reading the table's definition";
    let Some(relation) = client
        .query_opt(
            "SELECT c.oid, c.relkind::text, c.relpersistence::text, c.relreplident::text, \
                    pg_catalog.row_security_active(c.oid), \
                    pg_catalog.current_setting('server_version_num')::int4 \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            &[&name.schema, &name.name],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?
    else {
        return Ok(None);
    };
    let oid: u32 = relation.get(0);
    let kind = kind(relation.get(1));
    let identity = ReplicaIdentity::from_char(relation.get(3));
    let version: i32 = relation.get(5);

    let attributes = attributes(client, oid).await?;
    let foreign = |a: &Attribute| a.type_oid >= 16384 && types.resolve(a.type_oid).is_none();
    if attributes.iter().any(foreign) {
        types.refresh(client).await?;
    }
    let sent = published_part(client, name, publication, version).await?;
    let sends = |a: &Attribute| match &sent {
        // Below 18 the view names generated columns that are never sent.
        Some(sent) => sent.columns.contains(&a.name) && (version >= 180_000 || !a.generated),
        None => !a.generated,
    };
    let all_names = || {
        attributes
            .iter()
            .map(|a| a.name.clone())
            .collect::<Vec<_>>()
    };
    let published: Vec<&Attribute> = attributes.iter().filter(|a| sends(a)).collect();
    let columns: Vec<Column> = published
        .iter()
        .map(|a| Column {
            name: a.name.clone(),
            class: types.class(a.type_oid),
            type_name: a.type_name.clone(),
            nullable: !a.not_null,
        })
        .collect();

    let indexes = indexes(client, oid).await?;
    let identity_columns = match identity {
        ReplicaIdentity::Full => all_names(),
        ReplicaIdentity::Nothing => Vec::new(),
        ReplicaIdentity::Index => names_of(indexes.iter().find(|i| i.replica_identity)),
        ReplicaIdentity::Default => names_of(indexes.iter().find(|i| i.primary)),
    };
    let (index, mut key_fault) = choose_key(&indexes, configured_key, &attributes);
    let key_is_unique = index.is_some();
    let parts = match (index, configured_key) {
        (Some(index), _) => index.columns.clone(),
        (None, Some(wanted)) => order_of_types(client, oid, wanted).await?,
        (None, None) => Vec::new(),
    };
    let mut key = Vec::new();
    let mut key_order = Vec::new();
    for part in &parts {
        let at = columns.iter().position(|c| c.name == part.name);
        let attribute = published.iter().find(|a| a.name == part.name);
        let (Some(at), Some(attribute)) = (at, attribute) else {
            key_fault = Some(format!(
                "The key column \"{}\" is not among the columns that the publication sends.",
                part.name
            ));
            key.clear();
            key_order.clear();
            break;
        };
        if columns[at].class == Class::List {
            key_fault = Some(format!("The key column \"{}\" is an array.", part.name));
            key.clear();
            key_order.clear();
            break;
        }
        key.push(at);
        key_order.push(KeyColumn {
            name: part.name.clone(),
            cast: attribute.cast.clone(),
            class: columns[at].class,
            less: part.less.clone(),
            greater: part.greater.clone(),
            equal: part.equal.clone(),
        });
    }
    Ok(Some(Table {
        oid,
        kind,
        logged: relation.get::<_, &str>(2) == "p",
        identity,
        identity_columns,
        row_security: relation.get(4),
        unreadable: published
            .iter()
            .filter(|a| !a.readable)
            .map(|a| a.name.clone())
            .collect(),
        type_oids: published.iter().map(|a| a.type_oid).collect(),
        schema: Arc::new(TableSchema {
            table: name.clone(),
            columns,
            key,
        }),
        key_order,
        key_fault,
        forms: published.iter().map(|a| types.form(a.type_oid)).collect(),
        casts: published.iter().map(|a| a.cast.clone()).collect(),
        key_is_unique,
        row_filter: sent.and_then(|s| s.row_filter),
    }))
}

/// The relation's kind from `pg_class.relkind`.
pub(crate) fn kind(relkind: &str) -> RelationKind {
    match relkind {
        "p" => RelationKind::PartitionedTable,
        "v" | "m" => RelationKind::View,
        "f" => RelationKind::ForeignTable,
        _ => RelationKind::Table,
    }
}

async fn attributes<C: GenericClient>(
    client: &C,
    oid: u32,
) -> Result<Vec<Attribute>, ConnectorError> {
    // format_type with -1 rather than null: null would spell char(n) and bit(n) without
    // their length as types of length one.
    let rows = client
        .query(
            "SELECT attname::text, pg_catalog.format_type(atttypid, atttypmod), \
                    pg_catalog.format_type(atttypid, -1), atttypid, attnotnull, \
                    attgenerated <> '', \
                    pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT') \
             FROM pg_catalog.pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&oid],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the table's columns"))?;
    Ok(rows
        .iter()
        .map(|r| Attribute {
            name: r.get(0),
            type_name: r.get(1),
            cast: r.get(2),
            type_oid: r.get(3),
            not_null: r.get(4),
            generated: r.get(5),
            readable: r.get(6),
        })
        .collect())
}

/// The part of a table that a publication sends.
struct Sent {
    columns: Vec<String>,
    row_filter: Option<String>,
}

/// What the publication sends of the table; `None` when it does not list it, or the server
/// (below 15) has no column lists and row filters and so sends all that is not generated.
async fn published_part<C: GenericClient>(
    client: &C,
    name: &TableName,
    publication: &str,
    version: i32,
) -> Result<Option<Sent>, ConnectorError> {
    if version < 150_000 {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "SELECT attnames::text[], rowfilter FROM pg_catalog.pg_publication_tables \
             WHERE pubname = $1 AND schemaname = $2 AND tablename = $3",
            &[&publication, &name.schema, &name.name],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the publication's columns"))?;
    Ok(row.and_then(|row| {
        Some(Sent {
            columns: row.get::<_, Option<Vec<String>>>(0)?,
            row_filter: row.get(1),
        })
    }))
}

struct Index {
    primary: bool,
    replica_identity: bool,
    columns: Vec<IndexColumn>,
}

#[derive(Clone)]
struct IndexColumn {
    name: String,
    not_null: bool,
    less: String,
    greater: String,
    equal: String,
}

fn names_of(index: Option<&Index>) -> Vec<String> {
    index
        .map(|i| i.columns.iter().map(|c| c.name.clone()).collect())
        .unwrap_or_default()
}

/// The unique B-tree indexes over plain columns of all rows, the primary key first.
async fn indexes<C: GenericClient>(client: &C, oid: u32) -> Result<Vec<Index>, ConnectorError> {
    let rows = client
        .query(
            "SELECT i.indexrelid, i.indisprimary, i.indisreplident, a.attname::text, \
                    a.attnotnull, op.lt, op.eq, op.gt \
             FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid \
             JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree' \
             CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k(n) \
             JOIN pg_catalog.pg_attribute a \
               ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n] \
             JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[k.n] \
             CROSS JOIN LATERAL (SELECT \
                 max(o.text) FILTER (WHERE p.amopstrategy = 1) AS lt, \
                 max(o.text) FILTER (WHERE p.amopstrategy = 3) AS eq, \
                 max(o.text) FILTER (WHERE p.amopstrategy = 5) AS gt \
               FROM pg_catalog.pg_amop p \
               CROSS JOIN LATERAL (SELECT \
                   pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS text \
                 FROM pg_catalog.pg_operator o \
                 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
                 WHERE o.oid = p.amopopr) o \
               WHERE p.amopfamily = oc.opcfamily AND p.amoplefttype = oc.opcintype \
                 AND p.amoprighttype = oc.opcintype) op \
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
               AND i.indpred IS NULL AND i.indexprs IS NULL \
             ORDER BY i.indisprimary DESC, i.indexrelid, k.n",
            &[&oid],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the table's indexes"))?;
    let mut indexes: Vec<(u32, Index)> = Vec::new();
    for r in &rows {
        let id: u32 = r.get(0);
        if indexes.last().is_none_or(|(last, _)| *last != id) {
            indexes.push((
                id,
                Index {
                    primary: r.get(1),
                    replica_identity: r.get(2),
                    columns: Vec::new(),
                },
            ));
        }
        if let Some((_, index)) = indexes.last_mut() {
            index.columns.push(IndexColumn {
                name: r.get(3),
                not_null: r.get(4),
                less: r.get(5),
                equal: r.get(6),
                greater: r.get(7),
            });
        }
    }
    Ok(indexes.into_iter().map(|(_, index)| index).collect())
}

/// These columns with the operators of their types' own order; nothing when one of them does
/// not exist or has no order.
async fn order_of_types<C: GenericClient>(
    client: &C,
    oid: u32,
    wanted: &[String],
) -> Result<Vec<IndexColumn>, ConnectorError> {
    let rows = client
        .query(
            "WITH RECURSIVE base (attnum, type) AS ( \
                 SELECT attnum, atttypid FROM pg_catalog.pg_attribute \
                 WHERE attrelid = $1 AND attnum > 0 AND attname = ANY ($2) \
               UNION ALL \
                 SELECT b.attnum, t.typbasetype FROM base b \
                 JOIN pg_catalog.pg_type t ON t.oid = b.type WHERE t.typtype = 'd') \
             SELECT a.attname::text, a.attnotnull, op.lt, op.eq, op.gt \
             FROM base b \
             JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd' \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = b.attnum \
             CROSS JOIN LATERAL (SELECT oc.opcfamily, oc.opcintype \
               FROM pg_catalog.pg_opclass oc \
               JOIN pg_catalog.pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree' \
               JOIN pg_catalog.pg_type it ON it.oid = oc.opcintype \
               WHERE oc.opcdefault AND (oc.opcintype = t.oid \
                 OR (t.typtype = 'e' AND it.typname = 'anyenum') \
                 OR EXISTS (SELECT FROM pg_catalog.pg_cast c \
                   WHERE c.castsource = t.oid AND c.casttarget = oc.opcintype \
                     AND c.castmethod = 'b' AND c.castcontext = 'i')) \
               ORDER BY oc.opcintype = t.oid DESC, it.typispreferred DESC LIMIT 1) oc \
             CROSS JOIN LATERAL (SELECT \
                 max(o.text) FILTER (WHERE p.amopstrategy = 1) AS lt, \
                 max(o.text) FILTER (WHERE p.amopstrategy = 3) AS eq, \
                 max(o.text) FILTER (WHERE p.amopstrategy = 5) AS gt \
               FROM pg_catalog.pg_amop p \
               CROSS JOIN LATERAL (SELECT \
                   pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS text \
                 FROM pg_catalog.pg_operator o \
                 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
                 WHERE o.oid = p.amopopr) o \
               WHERE p.amopfamily = oc.opcfamily AND p.amoplefttype = oc.opcintype \
                 AND p.amoprighttype = oc.opcintype) op",
            &[&oid, &wanted],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the order of the key's types"))?;
    let column = |name: &String| {
        let row = rows.iter().find(|r| r.get::<_, &str>(0) == name)?;
        Some(IndexColumn {
            name: name.clone(),
            not_null: row.get(1),
            less: row.get(2),
            equal: row.get(3),
            greater: row.get(4),
        })
    };
    Ok(wanted
        .iter()
        .map(column)
        .collect::<Option<_>>()
        .unwrap_or_default())
}

/// The index that the key stands on, and a sentence when there is none that can serve.
fn choose_key<'a>(
    indexes: &'a [Index],
    configured: Option<&[String]>,
    attributes: &[Attribute],
) -> (Option<&'a Index>, Option<String>) {
    let Some(wanted) = configured.filter(|w| !w.is_empty()) else {
        let found = indexes
            .iter()
            .find(|i| i.replica_identity)
            .or_else(|| indexes.iter().find(|i| i.primary));
        return (found, None);
    };
    for name in wanted {
        if !attributes.iter().any(|a| a.name == *name) {
            return (
                None,
                Some(format!(
                    "The configured key column \"{name}\" does not exist."
                )),
            );
        }
    }
    let same = |i: &&Index| {
        i.columns.len() == wanted.len() && i.columns.iter().all(|c| wanted.contains(&c.name))
    };
    let list = wanted.join(", ");
    match indexes.iter().find(same) {
        None => (
            None,
            Some(format!(
                "No unique index covers exactly the configured key ({list})."
            )),
        ),
        Some(index) => match index.columns.iter().find(|c| !c.not_null) {
            Some(column) => (
                None,
                Some(format!(
                    "The configured key column \"{}\" may be null.",
                    column.name
                )),
            ),
            None => (Some(index), None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &str) -> Attribute {
        Attribute {
            name: name.to_owned(),
            type_name: "integer".to_owned(),
            cast: "integer".to_owned(),
            type_oid: 23,
            not_null: true,
            generated: false,
            readable: true,
        }
    }

    fn index(primary: bool, columns: &[(&str, bool)]) -> Index {
        Index {
            primary,
            replica_identity: false,
            columns: columns
                .iter()
                .map(|(name, not_null)| IndexColumn {
                    name: (*name).to_owned(),
                    not_null: *not_null,
                    less: String::new(),
                    greater: String::new(),
                    equal: String::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_configured_key_needs_a_unique_index_without_nulls() {
        let attributes = ["id", "a", "b"].map(attribute);
        let indexes = [
            index(true, &[("id", true)]),
            index(false, &[("b", true), ("a", true)]),
            index(false, &[("a", false)]),
        ];
        let choose = |key: &[&str]| {
            let key: Vec<String> = key.iter().map(|k| (*k).to_owned()).collect();
            let (index, fault) = choose_key(&indexes, Some(&key), &attributes);
            (names_of(index), fault)
        };
        assert_eq!(choose(&[]), (vec!["id".to_owned()], None));
        assert_eq!(
            choose(&["a", "b"]),
            (vec!["b".to_owned(), "a".to_owned()], None)
        );
        assert!(choose(&["a"]).1.is_some_and(|f| f.contains("may be null")));
        assert!(choose(&["b"]).1.is_some_and(|f| f.contains("No unique")));
        assert!(choose(&["c"]).1.is_some_and(|f| f.contains("not exist")));
    }
}
