//! What following this source needs, looked at before anything is touched.
//!
//! Two rules decide what is an error here. A table whose publication would make the
//! application's own `UPDATE` or `DELETE` fail is refused, because we must not be the
//! reason for that. And whatever would let the log or a scan leave out rows without a word
//! (row security, an operation that is not published, a key that a delete does not carry)
//! is refused, because it could never be found out later. All else is a warning or a note.

use std::time::Duration;

use rollcall_contract::{
    ConnectorError, Definite, Finding, RelationKind, Report, Severity, Transient,
};
use tokio_postgres::Client;

use crate::config::PostgresConfig;
use crate::followed::{self, Identities, Publication};
use crate::schema::{self, ReplicaIdentity, Table};
use crate::type_map::TypeMap;
use crate::wire::{self, ReplicationClient};
use crate::{query, script, slot};

/// Transactions that are open for longer hold back the log noticeably.
const LONG_TRANSACTION: Duration = Duration::from_secs(300);
/// A smaller `max_slot_wal_keep_size` is used up within an ordinary maintenance window.
const SMALL_KEEP_SIZE_MIB: i64 = 1024;
const SHORT_SENDER_TIMEOUT_MS: i64 = 10_000;
const SHORT_IDLE_TIMEOUT_S: i64 = 24 * 3600;

/// One finding whose code is known to the program.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    severity: Severity,
    code: &'static str,
    found: String,
    fix: String,
}

/// What was read of the server, with everything that was found on the way.
pub(crate) struct Preflight {
    looks: Vec<Look>,
    pub(crate) version: i32,
    pub(crate) table: Option<Table>,
    pub(crate) followed: Identities,
    pub(crate) publication: Option<Publication>,
}

impl Preflight {
    fn add(&mut self, severity: Severity, code: &'static str, found: String, fix: &str) {
        self.looks.push(Look {
            severity,
            code,
            found,
            fix: fix.to_owned(),
        });
    }

    fn ok(&mut self, code: &'static str, found: String) {
        self.add(Severity::Ok, code, found, "");
    }

    fn error(&mut self, code: &'static str, found: String, fix: &str) {
        self.add(Severity::Error, code, found, fix);
    }

    /// Whether the table's replica identity has to be set up.
    fn needs_identity(&self) -> bool {
        self.table
            .as_ref()
            .is_some_and(|t| t.identity_columns.is_empty())
    }

    /// The followed table, when nothing stands against following it.
    ///
    /// # Errors
    /// The first finding that is an error, with how many there are besides.
    pub(crate) fn usable(self) -> Result<(Table, Identities, i32), ConnectorError> {
        let mut errors = self.looks.iter().filter(|l| l.severity == Severity::Error);
        if let Some(first) = errors.next() {
            let more = match errors.count() {
                0 => String::new(),
                n => format!(" ({n} more: see `rollcall check`.)"),
            };
            return Err(ConnectorError::definite(
                first.code,
                format!("{}{more}", first.found),
                first.fix.clone(),
            ));
        }
        match self.table {
            Some(table) => Ok((table, self.followed, self.version)),
            None => Err(ConnectorError::definite(
                "table_missing",
                "The table does not exist.",
                "Correct `table` in the configuration.",
            )),
        }
    }
}

/// The whole report, with the operator's script.
pub(crate) async fn report(config: &PostgresConfig, types: &TypeMap) -> Report {
    let mut findings = Vec::new();
    let mut needs_identity = false;
    match wire::connect_queries(config).await {
        Err(e) => findings.push(finding_of(&e.error)),
        Ok(client) => {
            findings.push(Finding::new(
                Severity::Ok,
                "connection",
                format!("{} answers role \"{}\".", config.address(), config.user),
                "",
            ));
            match preflight(&client, config, types).await {
                Err(e) => findings.push(finding_of(&e)),
                Ok(found) => {
                    needs_identity = found.needs_identity();
                    findings.extend(
                        found
                            .looks
                            .iter()
                            .map(|l| Finding::new(l.severity, l.code, &l.found, &l.fix)),
                    );
                }
            }
            findings.push(match identify(config).await {
                Err(e) => finding_of(&e),
                Ok(identity) => Finding::new(
                    Severity::Ok,
                    "replication_connection",
                    format!(
                        "The server accepts replication: cluster {}, timeline {}.",
                        identity.system_id, identity.timeline
                    ),
                    "",
                ),
            });
        }
    }
    Report {
        findings,
        script: script::setup(config, needs_identity),
    }
}

async fn identify(config: &PostgresConfig) -> Result<wire::SystemIdentity, ConnectorError> {
    let mut replication = ReplicationClient::connect(config).await?;
    replication.identify_system().await.map_err(refuse_pooler)
}

/// What does not know `IDENTIFY_SYSTEM` is not a server but a pooler in front of one.
pub(crate) fn refuse_pooler(error: crate::errors::PgError) -> ConnectorError {
    match &error.error {
        ConnectorError::Definite(_)
            if error
                .sqlstate
                .as_deref()
                .is_some_and(|s| matches!(s, "42601" | "08P01" | "0A000")) =>
        {
            ConnectorError::definite(
                "pooler",
                "What answers does not know IDENTIFY_SYSTEM: it is a connection pooler, not \
                 PostgreSQL itself.",
                "Give the address of the server itself; poolers do not pass replication on.",
            )
        }
        _ => error.into(),
    }
}

fn finding_of(error: &ConnectorError) -> Finding {
    match error {
        ConnectorError::Definite(Definite {
            code,
            sentence,
            fix,
        }) => Finding::new(Severity::Error, code, sentence, fix),
        ConnectorError::Transient(Transient { code, sentence }) => Finding::new(
            Severity::Error,
            code,
            sentence,
            "Try again; if it stays, look at the server and the network between.",
        ),
    }
}

/// Looks at everything that an ordinary connection can see.
pub(crate) async fn preflight(
    client: &Client,
    config: &PostgresConfig,
    types: &TypeMap,
) -> Result<Preflight, ConnectorError> {
    let mut found = Preflight {
        looks: Vec::new(),
        version: 0,
        table: None,
        followed: Identities::default(),
        publication: None,
    };
    server(client, config, &mut found).await?;
    role(client, config, &mut found).await?;
    let (followed, publication) =
        followed::look(client, &config.publication, &config.table).await?;
    found.followed = followed;
    found.publication = publication;
    found.table = schema::load(
        client,
        &config.table,
        &config.publication,
        config.key.as_deref(),
        types,
    )
    .await?;
    table(client, config, &mut found).await?;
    check_publication(config, &mut found);
    transactions(client, &mut found).await?;
    Ok(found)
}

async fn server(
    client: &Client,
    config: &PostgresConfig,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_setting('server_version_num')::int4, \
                    pg_catalog.current_setting('server_version'), \
                    pg_catalog.current_setting('wal_level'), \
                    pg_catalog.current_setting('max_replication_slots')::int8, \
                    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), \
                    pg_catalog.current_setting('max_wal_senders')::int8, \
                    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication), \
                    (SELECT setting::int8 FROM pg_catalog.pg_settings \
                      WHERE name = 'max_slot_wal_keep_size'), \
                    (SELECT setting::int8 FROM pg_catalog.pg_settings \
                      WHERE name = 'wal_sender_timeout'), \
                    pg_catalog.date_part('epoch', pg_catalog.current_setting( \
                      'idle_replication_slot_timeout', true)::interval)::int8, \
                    pg_catalog.pg_is_in_recovery(), \
                    pg_catalog.current_setting('server_encoding')",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the server's settings"))?;
    let version: i32 = row.get(0);
    found.version = version;
    let spelled: &str = row.get(1);
    if version < 130_000 {
        found.error(
            "server_version",
            format!("The server is PostgreSQL {spelled}."),
            "Upgrade it: 13 is the oldest version that is supported.",
        );
    } else {
        found.ok("server_version", format!("PostgreSQL {spelled}."));
    }
    if row.get(10) {
        found.error(
            "standby",
            "The server is a standby.".to_owned(),
            "Give the address of the primary.",
        );
    }
    let wal_level: &str = row.get(2);
    if wal_level == "logical" {
        found.ok("wal_level", "wal_level is logical.".to_owned());
    } else {
        found.error(
            "wal_level",
            format!("wal_level is {wal_level}."),
            "Set wal_level = logical (on Amazon RDS rds.logical_replication = 1) and restart the server.",
        );
    }
    if row.get::<_, &str>(11) == "SQL_ASCII" {
        found.add(
            Severity::Warning,
            "server_encoding",
            "The database does not say in which encoding its text is (SQL_ASCII).".to_owned(),
            "Text that is not UTF-8 cannot be mapped; move the table to a database with an encoding.",
        );
    }
    let slot = slot::read(client, &config.slot).await?;
    slots(config, &slot, row.get(3), row.get(4), found)?;
    let (senders_max, senders): (i64, i64) = (row.get(5), row.get(6));
    let ours = i64::from(slot.as_ref().is_some_and(|s| s.active));
    if senders - ours < senders_max {
        found.ok(
            "wal_senders",
            format!("{senders} of {senders_max} walsenders are in use."),
        );
    } else {
        found.error(
            "wal_senders",
            format!("All {senders_max} walsenders are in use."),
            "Raise max_wal_senders and restart the server.",
        );
    }
    limits(row.get(7), row.get(8), row.get(9), found);
    if version < 170_000 {
        found.add(
            Severity::Note,
            "failover",
            "A slot of this version does not survive a fail-over to a standby: the whole table \
             would be read again."
                .to_owned(),
            "From PostgreSQL 17 on, slots can be synchronized to the standby.",
        );
    }
    Ok(())
}

fn slots(
    config: &PostgresConfig,
    slot: &Option<slot::SlotRow>,
    max: i64,
    used: i64,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    match slot {
        Some(row) => {
            slot::ours(&config.slot, &config.database, row)?;
            if let Some(reason) = row.invalidated() {
                found.add(
                    Severity::Warning,
                    "slot",
                    format!(
                        "The server gave up the replication slot \"{}\" ({reason}).",
                        config.slot
                    ),
                    "It will be made anew, and the table read again.",
                );
            } else {
                let used_by = if row.active { "is in use" } else { "exists" };
                found.ok(
                    "slot",
                    format!("The replication slot \"{}\" {used_by}.", config.slot),
                );
            }
        }
        None if used < max => found.ok(
            "slot",
            format!("{used} of {max} replication slots are in use; one is free for us."),
        ),
        None => found.error(
            "slots_full",
            format!("All {max} replication slots of the server are in use."),
            "Raise max_replication_slots and restart the server, or drop a slot that nobody uses.",
        ),
    }
    Ok(())
}

fn limits(
    keep_size_mib: Option<i64>,
    sender_timeout_ms: Option<i64>,
    idle_timeout_s: Option<i64>,
    found: &mut Preflight,
) {
    match keep_size_mib {
        Some(-1) => found.add(
            Severity::Warning,
            "max_slot_wal_keep_size",
            "max_slot_wal_keep_size is -1: while this daemon is away, the log can fill the \
             server's disk."
                .to_owned(),
            "Set max_slot_wal_keep_size to what the disk can spare.",
        ),
        Some(size) if size < SMALL_KEEP_SIZE_MIB => found.add(
            Severity::Warning,
            "max_slot_wal_keep_size",
            format!(
                "max_slot_wal_keep_size is {size} MB: a short outage is enough to lose the slot, \
                 and the table is then read again."
            ),
            "Raise max_slot_wal_keep_size to what is written in the longest outage expected.",
        ),
        Some(size) => found.ok(
            "max_slot_wal_keep_size",
            format!("max_slot_wal_keep_size is {size} MB."),
        ),
        None => {}
    }
    match sender_timeout_ms {
        Some(ms) if ms > 0 && ms < SHORT_SENDER_TIMEOUT_MS => found.add(
            Severity::Warning,
            "wal_sender_timeout",
            format!("wal_sender_timeout is {ms} ms; a slow network ends the stream."),
            "Set wal_sender_timeout to 60s.",
        ),
        Some(0) => found.add(
            Severity::Note,
            "wal_sender_timeout",
            "wal_sender_timeout is 0: after a cut network the slot may stay in use for long."
                .to_owned(),
            "Set wal_sender_timeout to 60s.",
        ),
        Some(ms) => found.ok(
            "wal_sender_timeout",
            format!("wal_sender_timeout is {ms} ms."),
        ),
        None => {}
    }
    match idle_timeout_s {
        Some(s) if s > 0 => found.add(
            if s < SHORT_IDLE_TIMEOUT_S {
                Severity::Warning
            } else {
                Severity::Note
            },
            "idle_replication_slot_timeout",
            format!(
                "idle_replication_slot_timeout is {s} s: after this daemon has been away for so \
                 long, the slot is lost and the table is read again."
            ),
            "Set idle_replication_slot_timeout to 0, or to longer than any outage expected.",
        ),
        Some(_) => found.ok(
            "idle_replication_slot_timeout",
            "idle_replication_slot_timeout is 0.".to_owned(),
        ),
        None => {}
    }
}

async fn role(
    client: &Client,
    config: &PostgresConfig,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let row = client
        .query_one(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, \
                    CASE WHEN pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NULL \
                      THEN NULL ELSE pg_catalog.has_schema_privilege($1, 'USAGE') END \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
            &[&config.table.schema],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the role's attributes"))?;
    let excess: Vec<&str> = ["SUPERUSER", "BYPASSRLS", "CREATEDB", "CREATEROLE"]
        .into_iter()
        .enumerate()
        .filter(|(i, _)| row.get::<_, bool>(*i))
        .map(|(_, name)| name)
        .collect();
    if excess.is_empty() {
        found.ok(
            "role",
            format!("The role \"{}\" has no more than it needs.", config.user),
        );
    } else {
        found.add(
            Severity::Warning,
            "excess_privileges",
            format!(
                "The role \"{}\" has {}, which this source does not need.",
                config.user,
                excess.join(", ")
            ),
            "ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;",
        );
    }
    match row.get::<_, Option<bool>>(4) {
        Some(true) => {}
        Some(false) => found.error(
            "missing_grant",
            format!(
                "The role \"{}\" may not use schema \"{}\".",
                config.user, config.table.schema
            ),
            "GRANT USAGE ON SCHEMA … TO …; (see the script)",
        ),
        None => found.error(
            "no_such_schema",
            format!("There is no schema \"{}\".", config.table.schema),
            "Correct `table` in the configuration; names are case sensitive.",
        ),
    }
    Ok(())
}

async fn table(
    client: &Client,
    config: &PostgresConfig,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let name = &config.table;
    let Some(table) = found.table.clone() else {
        found.error(
            "no_such_table",
            format!("There is no table {name}."),
            "Correct `table` in the configuration; names are case sensitive.",
        );
        return Ok(());
    };
    if let Some(why) = obstacle_of_kind(table.kind, table.logged) {
        found.error(
            "not_followable",
            format!("{name} {why}"),
            "Follow the tables that hold the rows.",
        );
        return Ok(());
    }
    if table.row_security {
        found.error(
            "row_security",
            format!(
                "Row security policies of {name} apply to role \"{}\": it would see fewer rows \
                 than the log carries.",
                config.user
            ),
            "Disable row security for this table or give the role a policy that hides nothing \
             and BYPASSRLS.",
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
    identity(config, &table, found);
    if table.kind == RelationKind::PartitionedTable {
        partitions(client, config, &table, found).await?;
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

/// Why the replica identity and the key do not serve; `None` when they do. The code comes
/// first, the sentence second, the fix last.
pub(crate) fn obstacle_of_identity(table: &Table) -> Option<(&'static str, String, &'static str)> {
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
    if table.schema.key.is_empty() {
        let fault = table.key_fault.clone().unwrap_or_else(|| {
            format!("{name} has no primary key, so its rows cannot be told apart.")
        });
        return Some((
            "no_key",
            fault,
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

fn identity(config: &PostgresConfig, table: &Table, found: &mut Preflight) {
    if let Some((code, sentence, fix)) = obstacle_of_identity(table) {
        found.error(code, sentence, fix);
        return;
    }
    let key: Vec<&str> = table.key_order.iter().map(|c| c.name.as_str()).collect();
    found.ok(
        "replica_identity",
        format!("The key of {} is ({}).", config.table, key.join(", ")),
    );
    let sent = |c: &String| table.schema.position(c).is_some();
    if table.identity != ReplicaIdentity::Full && !table.identity_columns.iter().all(sent) {
        found.error(
            "column_list",
            format!(
                "The publication's column list leaves out columns of the replica identity of {}: \
                 the application's own UPDATE fails.",
                config.table
            ),
            "ALTER PUBLICATION … SET TABLE … with these columns, or without a column list.",
        );
    }
}

/// A partition has a replica identity of its own.
async fn partitions(
    client: &Client,
    config: &PostgresConfig,
    table: &Table,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
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
            found.error(
                "not_followable",
                format!(
                    "The partition {partition} of {} is a foreign or unlogged table: its changes \
                     are not in the log.",
                    config.table
                ),
                "Detach it, or make it an ordinary table.",
            );
        } else {
            found.error(
                "replica_identity",
                format!(
                    "The partition {partition} of {} has another replica identity than its root: \
                     the application's own UPDATE may fail, or a delete not name its record.",
                    config.table
                ),
                "ALTER TABLE … REPLICA IDENTITY … on the partition, as on the root.",
            );
        }
    }
    Ok(())
}

fn check_publication(config: &PostgresConfig, found: &mut Preflight) {
    let name = &config.publication;
    let Some(publication) = found.publication.clone() else {
        found.error(
            "publication_missing",
            format!("There is no publication \"{name}\" in this database."),
            "Have it created; see the script.",
        );
        return;
    };
    let partitioned = found
        .table
        .as_ref()
        .is_some_and(|t| t.kind == RelationKind::PartitionedTable);
    if partitioned && !publication.via_root {
        found.error(
            "publish_via_partition_root",
            format!(
                "{} is partitioned and the publication \"{name}\" sends its changes under the \
                 names of the partitions.",
                config.table
            ),
            "ALTER PUBLICATION … SET (publish_via_partition_root = true);",
        );
    } else if !publication.lists_table {
        found.error(
            "publication_lacks_table",
            format!("The publication \"{name}\" does not list {}.", config.table),
            "ALTER PUBLICATION … ADD TABLE …; (see the script)",
        );
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
        found.error(
            "publication_operations",
            format!(
                "The publication \"{name}\" does not send {}: such changes would be missed.",
                lacking.join(", ")
            ),
            "ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate');",
        );
    }
    if publication.row_filter.is_some() {
        found.add(
            Severity::Note,
            "row_filter",
            format!(
                "The publication \"{name}\" filters rows of {}; the scan applies the same filter, \
                 and a row that leaves it counts as deleted.",
                config.table
            ),
            "",
        );
    }
}

async fn transactions(client: &Client, found: &mut Preflight) -> Result<(), ConnectorError> {
    for holder in slot::holders(client, LONG_TRANSACTION).await? {
        found.add(
            Severity::Warning,
            "long_transaction",
            format!(
                "A transaction has been open for {} s ({}, xid {}): the slot cannot be made, and \
                 the log not be removed, before it ends.",
                holder.age_s, holder.who, holder.xid
            ),
            "End it, or wait for it.",
        );
    }
    Ok(())
}
