//! What a followed table and the publication must be like.

use rollcall_contract::{ConnectorError, FollowedTable, RelationKind, Severity};
use tokio_postgres::Client;

use super::Preflight;
use crate::config::PostgresConfig;
use crate::query;
use crate::schema::{ReplicaIdentity, Table};

pub(super) async fn table(
    client: &Client,
    config: &PostgresConfig,
    followed: &FollowedTable<'_>,
    table: Option<&Table>,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let name = followed.table;
    let Some(table) = table else {
        found.error(
            "no_such_table",
            format!("There is no table {name}."),
            &format!(
                "Correct {} in the configuration; names are case sensitive.",
                followed.place()
            ),
        );
        return Ok(());
    };
    let why_not = obstacle_of_kind(table.kind, table.logged);
    if let Some(why) = why_not {
        found.unfollowable(
            "not_followable",
            format!("{name} {why}"),
            "Follow the tables that hold the rows.",
        );
    }
    if table.row_security {
        found.error(
            "row_security",
            format!(
                "Row security policies of {name} apply to role \"{}\": it would see fewer rows \
                 than the log carries.",
                config.user
            ),
            "Disable row security for this table, or have the role own neither policies nor the \
             table and be exempt from them (BYPASSRLS is reported as excess, and is the lesser evil here).",
        );
    }
    if !table.unreadable.is_empty() {
        found.error(
            "missing_grant",
            format!(
                "The role \"{}\" may not read {} of {name}.",
                config.user,
                match table.unreadable.len() {
                    n if n == table.schema.columns.len() => "any column".to_owned(),
                    _ => format!("column {}", table.unreadable.join(", ")),
                }
            ),
            "GRANT SELECT ON … TO …; (see the script)",
        );
    }
    let writes: Vec<String> = client
        .query(
            "SELECT p FROM pg_catalog.unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p \
             WHERE pg_catalog.has_table_privilege($1::oid, p)",
            &[&table.oid],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the role's privileges"))?
        .iter()
        .map(|r| r.get(0))
        .collect();
    if !writes.is_empty() {
        found.add(
            Severity::Warning,
            "excess_grants",
            format!(
                "The role \"{}\" may {} {name}; this source only reads.",
                config.user,
                writes.join(", ")
            ),
            "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON … FROM …;",
        );
    }
    let keyless = obstacle_of_key(table);
    if why_not.is_none() {
        identity(table, found);
    } else if keyless.is_none() {
        found.ok(
            "key",
            format!("The key of {name} is ({}).", table.key_names().join(", ")),
        );
    }
    if let Some((code, sentence, fix)) = keyless {
        found.error(code, sentence, fix);
    }
    if table.kind == RelationKind::PartitionedTable {
        partitions(client, table, found).await?;
    }
    Ok(())
}

/// Why relations of this kind are not in the log; `None` when they are. Completes
/// "name …".
pub(crate) fn obstacle_of_kind(kind: RelationKind, logged: bool) -> Option<&'static str> {
    match kind {
        RelationKind::View => {
            Some("is a view: the log carries the changes of tables, so it cannot be followed.")
        }
        RelationKind::ForeignTable => Some(
            "is a foreign table: its changes are in another server's log, so it cannot be \
             followed here.",
        ),
        _ if !logged => Some(
            "is unlogged or temporary: its changes are not in the log, so it cannot be followed.",
        ),
        _ => None,
    }
}

/// What stands against a table: a code, a sentence and the fix.
pub(crate) type Obstacle = (&'static str, String, &'static str);

/// Why the rows cannot be told apart, and so not even be read; `None` when they can.
pub(crate) fn obstacle_of_key(table: &Table) -> Option<Obstacle> {
    let name = &table.schema.table;
    if !table.schema.key.is_empty() {
        return None;
    }
    let fault = table
        .key_fault
        .clone()
        .unwrap_or_else(|| format!("{name} has no primary key, so its rows cannot be told apart."));
    let fix = match table.kind {
        RelationKind::View | RelationKind::ForeignTable => {
            "Name in `key` the columns that identify a row."
        }
        _ => "Add a primary key, or name in `key` the columns of a unique index without nulls.",
    };
    Some(("no_key", fault, fix))
}

/// Why the replica identity and the key do not serve; `None` when they do.
fn obstacle_of_identity(table: &Table) -> Option<Obstacle> {
    let name = &table.schema.table;
    if table.identity_columns.is_empty() {
        let found = match table.identity {
            ReplicaIdentity::Nothing => format!("{name} has REPLICA IDENTITY NOTHING"),
            ReplicaIdentity::Index => {
                format!("The index of {name}'s replica identity was dropped")
            }
            _ => format!("{name} has no primary key, and the default replica identity"),
        };
        return Some((
            "replica_identity",
            format!(
                "{found}: as soon as it is published, the application's own UPDATE and DELETE \
                 fail."
            ),
            "Add a primary key, or ALTER TABLE … REPLICA IDENTITY USING INDEX … (unique, not \
             null), or REPLICA IDENTITY FULL.",
        ));
    }
    if let Some(obstacle) = obstacle_of_key(table) {
        return Some(obstacle);
    }
    if let Some(fault) = &table.key_fault {
        return Some((
            "no_key",
            fault.clone(),
            "Add a primary key, or name in `key` the columns of a unique index without nulls.",
        ));
    }
    let lacking: Vec<&str> = table
        .key_order
        .iter()
        .map(|c| c.name.as_str())
        .filter(|c| !table.identity_columns.iter().any(|i| i == c))
        .collect();
    if lacking.is_empty() {
        return None;
    }
    Some((
        "key_not_in_identity",
        format!(
            "The replica identity of {name} does not carry the key column {}: a delete could \
             not say which record it removes.",
            lacking.join(", ")
        ),
        "ALTER TABLE … REPLICA IDENTITY USING INDEX … with the index of the key, or FULL; or \
         use the primary key as `key`.",
    ))
}

fn identity(table: &Table, found: &mut Preflight) {
    let name = &table.schema.table;
    if let Some((code, sentence, fix)) = obstacle_of_identity(table) {
        if !table.schema.key.is_empty() || code != "no_key" {
            found.unfollowable(code, sentence, fix);
        }
        return;
    }
    let key: Vec<&str> = table.key_order.iter().map(|c| c.name.as_str()).collect();
    found.ok(
        "replica_identity",
        format!("The key of {name} is ({}).", key.join(", ")),
    );
    let sent = |c: &String| table.schema.position(c).is_some();
    if table.identity != ReplicaIdentity::Full && !table.identity_columns.iter().all(sent) {
        found.unfollowable(
            "column_list",
            format!(
                "The publication's column list leaves out columns of the replica identity of \
                 {name}: the application's own UPDATE fails."
            ),
            "ALTER PUBLICATION … SET TABLE … with these columns, or without a column list.",
        );
    }
}

/// A partition has a replica identity of its own.
async fn partitions(
    client: &Client,
    table: &Table,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let name = &table.schema.table;
    let rows = client
        .query(
            "SELECT c.relname::text, c.relkind = 'f', c.relpersistence <> 'p' \
             FROM pg_catalog.pg_partition_tree($1::oid::regclass) t \
             JOIN pg_catalog.pg_class c ON c.oid = t.relid \
             JOIN pg_catalog.pg_class root ON root.oid = $1 \
             WHERE t.isleaf AND (c.relkind = 'f' OR c.relpersistence <> 'p' OR ( \
                 c.relreplident <> 'f' AND (c.relreplident <> root.relreplident \
                   OR (c.relreplident = 'd' AND NOT EXISTS ( \
                     SELECT FROM pg_catalog.pg_index i \
                     WHERE i.indrelid = c.oid AND i.indisprimary))))) \
             ORDER BY 1 LIMIT 5",
            &[&table.oid],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the table's partitions"))?;
    for row in &rows {
        let partition: &str = row.get(0);
        if row.get(1) || row.get(2) {
            found.unfollowable(
                "not_followable",
                format!(
                    "The partition {partition} of {name} is a foreign or unlogged table: its \
                     changes are not in the log."
                ),
                "Detach it, or make it an ordinary table.",
            );
        } else {
            found.unfollowable(
                "replica_identity",
                format!(
                    "The partition {partition} of {name} has another replica identity than its \
                     root: the application's own UPDATE may fail, or a delete not name its record."
                ),
                "ALTER TABLE … REPLICA IDENTITY … on the partition, as on the root.",
            );
        }
    }
    Ok(())
}

pub(super) fn publication(config: &PostgresConfig, found: &mut Preflight) {
    let name = &config.publication;
    let Some(publication) = found.publication.clone() else {
        found.unfollowable(
            "publication_missing",
            format!("There is no publication \"{name}\" in this database."),
            "Have it created; see the script.",
        );
        return;
    };
    for (at, (table, listing)) in config.tables().zip(&publication.tables).enumerate() {
        let table = table.table;
        let kind = found.tables.get(at).and_then(|t| Some(t.as_ref()?.kind));
        if kind == Some(RelationKind::PartitionedTable) && !publication.via_root {
            found.unfollowable(
                "publish_via_partition_root",
                format!(
                    "{table} is partitioned and the publication \"{name}\" sends its changes \
                     under the names of the partitions."
                ),
                "ALTER PUBLICATION … SET (publish_via_partition_root = true);",
            );
        } else if !listing.is_listed {
            found.unfollowable(
                "publication_lacks_table",
                format!("The publication \"{name}\" does not list {table}."),
                "ALTER PUBLICATION … ADD TABLE …; (see the script)",
            );
        }
    }
    let lacking: Vec<&str> = [
        ("insert", publication.insert),
        ("update", publication.update),
        ("delete", publication.delete),
        ("truncate", publication.truncate),
    ]
    .into_iter()
    .filter(|(_, published)| !published)
    .map(|(op, _)| op)
    .collect();
    if lacking.is_empty() {
        found.ok(
            "publication",
            format!("The publication \"{name}\" sends all four operations."),
        );
    } else {
        found.unfollowable(
            "publication_operations",
            format!(
                "The publication \"{name}\" does not send {}: such changes would be missed.",
                lacking.join(", ")
            ),
            "ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate');",
        );
    }
    for (table, listing) in config.tables().zip(&publication.tables) {
        if listing.row_filter.is_some() {
            found.add(
                Severity::Note,
                "row_filter",
                format!(
                    "The publication \"{name}\" filters rows of {}; the scan applies the same \
                     filter, and a row that leaves it counts as deleted.",
                    table.table
                ),
                "",
            );
        }
    }
}
