//! What the server and the role must allow.

use rollcall_contract::{ConnectorError, FollowedTable, Severity};
use tokio_postgres::Client;

use super::Preflight;
use crate::config::{NO_ENCODING, PostgresConfig};
use crate::{query, slot};

/// A smaller `max_slot_wal_keep_size` is used up within an ordinary maintenance window.
const SMALL_KEEP_SIZE_MIB: i64 = 1024;

/// What a role may have beyond its grants, in the order in which it is asked for.
const ATTRIBUTES: [&str; 4] = ["SUPERUSER", "BYPASSRLS", "CREATEDB", "CREATEROLE"];

/// Predefined roles that let their members do more than this source needs (PostgreSQL
/// documentation, "Predefined Roles", 13 to 18). Those that only show statistics and settings
/// are not among them.
const PREDEFINED: &[(&str, &str)] = &[
    (
        "pg_execute_server_program",
        "runs programs on the server as its system user",
    ),
    ("pg_write_server_files", "writes any file of the server"),
    ("pg_read_server_files", "reads any file of the server"),
    ("pg_read_all_data", "reads every table"),
    ("pg_write_all_data", "writes every table"),
    ("pg_create_subscription", "makes subscriptions"),
    ("pg_maintain", "locks and rebuilds every table"),
    ("pg_checkpoint", "forces checkpoints"),
    ("pg_signal_backend", "ends the sessions of others"),
    (
        "pg_signal_autovacuum_worker",
        "ends the server's own upkeep",
    ),
    (
        "pg_use_reserved_connections",
        "takes the connections that are kept for administrators",
    ),
];

const SHORT_SENDER_TIMEOUT_MS: i64 = 10_000;
const SHORT_IDLE_TIMEOUT_S: i64 = 24 * 3600;

pub(super) async fn server(
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
        found.unfollowable(
            "wal_level",
            format!("wal_level is {wal_level}."),
            "Set wal_level = logical (on Amazon RDS rds.logical_replication = 1) and restart the server.",
        );
    }
    if row.get::<_, &str>(11) == NO_ENCODING {
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
        found.unfollowable(
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
        None => found.unfollowable(
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

pub(super) async fn role(
    client: &Client,
    config: &PostgresConfig,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let row = client
        .query_one(
            "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the role's attributes"))?;
    let role = query::ident(&config.user);
    let attributes: Vec<&str> = ATTRIBUTES
        .into_iter()
        .enumerate()
        .filter(|(i, _)| row.get::<_, bool>(*i))
        .map(|(_, name)| name)
        .collect();
    let memberships = memberships(client).await?;
    if attributes.is_empty() && memberships.is_empty() {
        found.ok(
            "role",
            format!("The role \"{}\" has no more than it needs.", config.user),
        );
    }
    if !attributes.is_empty() {
        let taken: Vec<String> = attributes.iter().map(|a| format!("NO{a}")).collect();
        found.add(
            Severity::Warning,
            "excess_privileges",
            format!(
                "The role \"{}\" has {}, which this source does not need.",
                config.user,
                attributes.join(", ")
            ),
            &format!("ALTER ROLE {role} {};", taken.join(" ")),
        );
    }
    for membership in &memberships {
        let way = match membership.through == membership.role {
            true => String::new(),
            false => format!(" through \"{}\"", membership.through),
        };
        found.add(
            Severity::Warning,
            "excess_membership",
            format!(
                "The role \"{}\" is{way} a member of \"{}\", which {}; this source does not \
                 need that.",
                config.user, membership.role, membership.may
            ),
            &format!("REVOKE {} FROM {role};", query::ident(&membership.through)),
        );
    }
    let mut looked_at: Vec<&str> = Vec::new();
    for followed in config.tables() {
        let schema = followed.table.schema.as_str();
        if !looked_at.contains(&schema) {
            looked_at.push(schema);
            usage(client, config, &followed, found).await?;
        }
    }
    Ok(())
}

/// A role whose rights this one can have, and the role that was granted to it on the way.
struct Membership {
    role: String,
    through: String,
    /// What comes with it. Completes "which …".
    may: String,
}

/// The roles of which this one is a member, at any depth, that bring more than it needs.
///
/// Attributes come only by `SET ROLE`, rights also by inheritance. A member may always say
/// `SET ROLE` before 16; from then on each grant has its options, and who may administer it can
/// give them to himself. A superuser has everything by his own attribute, so his memberships
/// are not looked at.
async fn memberships(client: &Client) -> Result<Vec<Membership>, ConnectorError> {
    // Columns that only some versions have are read by name out of the row as JSON.
    let rows = client
        .query(
            "WITH RECURSIVE grants AS ( \
                 SELECT a.member, a.roleid, \
                        a.admin_option OR COALESCE((j->>'set_option')::bool, true) AS sets, \
                        COALESCE((j->>'inherit_option')::bool, true) AS inherits \
                 FROM pg_catalog.pg_auth_members a, pg_catalog.to_jsonb(a) j), \
             reached(role, through, sets, has) AS ( \
                 SELECT g.roleid, g.roleid, g.sets, g.sets OR g.inherits \
                 FROM grants g JOIN pg_catalog.pg_roles me ON me.oid = g.member \
                 WHERE me.rolname = current_user AND NOT me.rolsuper \
                 UNION \
                 SELECT g.roleid, r.through, r.sets AND g.sets, \
                        r.sets AND g.sets OR r.has AND g.inherits \
                 FROM reached r JOIN grants g ON g.member = r.role) \
             SELECT r.rolname::text, t.rolname::text, \
                    pg_catalog.bool_or(sets) AND r.rolsuper, \
                    pg_catalog.bool_or(sets) AND r.rolbypassrls, \
                    pg_catalog.bool_or(sets) AND r.rolcreatedb, \
                    pg_catalog.bool_or(sets) AND r.rolcreaterole \
             FROM reached JOIN pg_catalog.pg_roles r ON r.oid = reached.role \
             JOIN pg_catalog.pg_roles t ON t.oid = reached.through WHERE has \
             GROUP BY 1, 2, r.rolsuper, r.rolbypassrls, r.rolcreatedb, r.rolcreaterole \
             ORDER BY 1, 2",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the role's memberships"))?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let role: String = row.get(0);
            let attributes: Vec<&str> = ATTRIBUTES
                .into_iter()
                .enumerate()
                .filter(|(i, _)| row.get::<_, bool>(i + 2))
                .map(|(_, name)| name)
                .collect();
            let may = match PREDEFINED.iter().find(|(name, _)| *name == role) {
                Some((_, may)) => (*may).to_owned(),
                None if attributes.is_empty() => return None,
                None => format!("has {}", attributes.join(", ")),
            };
            Some(Membership {
                role,
                through: row.get(1),
                may,
            })
        })
        .collect())
}

/// Whether the role may use the schema of a followed table.
async fn usage(
    client: &Client,
    config: &PostgresConfig,
    followed: &FollowedTable<'_>,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let schema = &followed.table.schema;
    let row = client
        .query_one(
            "SELECT CASE WHEN pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NULL \
               THEN NULL ELSE pg_catalog.has_schema_privilege($1, 'USAGE') END",
            &[schema],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the role's privileges"))?;
    match row.get::<_, Option<bool>>(0) {
        Some(true) => {}
        Some(false) => found.error(
            "missing_grant",
            format!(
                "The role \"{}\" may not use schema \"{schema}\".",
                config.user
            ),
            "GRANT USAGE ON SCHEMA … TO …; (see the script)",
        ),
        None => found.error(
            "no_such_schema",
            format!("There is no schema \"{schema}\"."),
            &format!(
                "Correct {} in the configuration; names are case sensitive.",
                followed.place()
            ),
        ),
    }
    Ok(())
}
