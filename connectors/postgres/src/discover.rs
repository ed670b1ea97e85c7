//! The tables that this role can see.
//!
//! Read in three statements for the whole database, however many tables there are.
//! Partitions are left out: they are followed through their root.

use std::collections::HashMap;

use rollcall_contract::{
    Class, Column, ConnectorError, DiscoveredTable, RelationKind, TableName, TableSchema,
};
use tokio_postgres::Client;

use crate::check::obstacle_of_kind;
use crate::type_map::TypeMap;
use crate::{query, schema};

/// More than this is nobody's list to read.
const MAX_TABLES: i64 = 10_000;

const VISIBLE: &str = "SELECT c.oid FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition \
       AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
       AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
       AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

/// Lists them, by schema and name.
pub(crate) async fn tables(
    client: &Client,
    types: &TypeMap,
) -> Result<Vec<DiscoveredTable>, ConnectorError> {
    const DOING: &str = "listing the tables";
    types.refresh(client).await?;
    // A partitioned table has an estimate of its own only on some versions; the sum over
    // its partitions is as good.
    let relations = client
        .query(
            &format!(
                "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, \
                        c.relpersistence = 'p', c.relreplident::text, \
                        CASE WHEN c.relkind = 'p' THEN ( \
                          SELECT pg_catalog.sum(leaf.reltuples) FILTER (WHERE leaf.reltuples >= 0) \
                          FROM pg_catalog.pg_partition_tree(c.oid) t \
                          JOIN pg_catalog.pg_class leaf ON leaf.oid = t.relid WHERE t.isleaf) \
                        WHEN c.relkind IN ('r', 'm') AND c.reltuples >= 0 \
                          AND (c.reltuples > 0 OR c.relpages > 0) THEN c.reltuples \
                        END::float8 \
                 FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid IN ({VISIBLE}) ORDER BY 2, 3 LIMIT {MAX_TABLES}"
            ),
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?;
    let columns = client
        .query(
            &format!(
                "SELECT attrelid, attnum, attname::text, \
                        pg_catalog.format_type(atttypid, atttypmod), atttypid, attnotnull, \
                        attgenerated <> '' \
                 FROM pg_catalog.pg_attribute \
                 WHERE attrelid IN ({VISIBLE}) AND attnum > 0 AND NOT attisdropped \
                 ORDER BY attrelid, attnum"
            ),
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?;
    let keys = client
        .query(
            &format!(
                "SELECT i.indrelid, i.indisreplident, \
                        (SELECT pg_catalog.array_agg(i.indkey[k] ORDER BY k) \
                         FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k) \
                 FROM pg_catalog.pg_index i \
                 WHERE i.indrelid IN ({VISIBLE}) AND (i.indisprimary OR i.indisreplident) \
                 ORDER BY i.indrelid, i.indisreplident DESC"
            ),
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?;

    let mut by_table: HashMap<u32, Vec<(i16, Column)>> = HashMap::new();
    // The log carries them only where a publication says so (18), which the script's does not.
    let mut generated: HashMap<u32, Vec<(i16, String)>> = HashMap::new();
    for row in &columns {
        if row.get(6) {
            let column = (row.get(1), row.get(2));
            generated.entry(row.get(0)).or_default().push(column);
            continue;
        }
        let class: Class = types.class(row.get(4));
        by_table.entry(row.get(0)).or_default().push((
            row.get(1),
            Column {
                name: row.get(2),
                class,
                type_name: row.get(3),
                nullable: !row.get::<_, bool>(5),
            },
        ));
    }
    // The replica identity's index comes first, and counts before the primary key.
    let mut key_of: HashMap<u32, Vec<i16>> = HashMap::new();
    for row in &keys {
        key_of.entry(row.get(0)).or_insert_with(|| row.get(2));
    }
    Ok(relations
        .iter()
        .map(|row| {
            let oid: u32 = row.get(0);
            let columns = by_table.remove(&oid).unwrap_or_default();
            let generated = generated.remove(&oid).unwrap_or_default();
            let is_generated = |n: &i16| generated.iter().any(|(number, _)| number == n);
            let lost_key = key_of.get(&oid).is_some_and(|k| k.iter().any(is_generated));
            let key: Vec<usize> = key_of
                .get(&oid)
                .filter(|_| !lost_key)
                .map(|numbers| {
                    numbers
                        .iter()
                        .filter_map(|n| columns.iter().position(|(number, _)| number == n))
                        .collect()
                })
                .unwrap_or_default();
            let kind = schema::kind(row.get(3));
            let obstacle = match lost_key {
                true => {
                    Some("Its key has a generated column, which the log does not carry.".to_owned())
                }
                false => obstacle(kind, row.get(4), row.get(5), key.is_empty()),
            };
            let estimated_rows = row.get::<_, Option<f64>>(6);
            DiscoveredTable {
                schema: TableSchema {
                    table: TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
                    columns: columns.into_iter().map(|(_, column)| column).collect(),
                    key,
                },
                generated: generated.into_iter().map(|(_, name)| name).collect(),
                kind,
                estimated_rows: estimated_rows.map(|rows| rows as u64),
                obstacle,
            }
        })
        .collect())
}

fn obstacle(kind: RelationKind, logged: bool, identity: &str, keyless: bool) -> Option<String> {
    if let Some(why) = obstacle_of_kind(kind, logged) {
        return Some(format!("It {why}"));
    }
    match identity {
        "n" => Some(
            "Its replica identity is NOTHING: published, its own UPDATE and DELETE would fail."
                .to_owned(),
        ),
        "f" if keyless => Some(
            "It has no primary key: name in `key` the columns of a unique index without nulls."
                .to_owned(),
        ),
        _ if keyless => Some(
            "It has no primary key: published, its own UPDATE and DELETE would fail.".to_owned(),
        ),
        _ => None,
    }
}
