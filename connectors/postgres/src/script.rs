//! The statements that set a source up, for the operator to read and run.
//!
//! They are printed and never run: the daemon's role has no right to any of them, and
//! shall not have. Each statement can be run again without harm or fails with a sentence
//! that says why.

use crate::config::PostgresConfig;
use crate::query::{ident, literal, table};

/// The whole set-up for a source, in the order in which it is run by a superuser or the
/// table's owner. `key_identity`: the table has no usable primary key, so the script says
/// what to do about its replica identity.
pub(crate) fn setup(config: &PostgresConfig, needs_identity: bool) -> String {
    let role = ident(&config.user);
    let relation = table(&config.table);
    let publication = ident(&config.publication);
    let mut out = format!(
        "-- Run as a superuser, or as an administrator of a managed service, in database {database}.\n\
         -- The role. On Amazon RDS: GRANT rds_replication TO {role}; instead of REPLICATION.\n\
         DO $$ BEGIN\n  \
           IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {user}) THEN\n    \
             CREATE ROLE {role} LOGIN REPLICATION;\n  \
           END IF;\n\
         END $$;\n\
         -- If the role exists with more than it needs (only a superuser may say this):\n\
         -- ALTER ROLE {role} LOGIN REPLICATION NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;\n\
         -- Then give it a password: \\password {role}\n\
         GRANT CONNECT ON DATABASE {database} TO {role};\n\
         GRANT USAGE ON SCHEMA {schema} TO {role};\n\
         GRANT SELECT ON {relation} TO {role};\n",
        database = ident(&config.database),
        user = literal(&config.user),
        schema = ident(&config.table.schema),
    );
    if needs_identity {
        out.push_str(&format!(
            "-- Without a primary key the application's own UPDATE and DELETE fail as soon as the\n\
             -- table is published. Best is a primary key; else a unique index without nulls:\n\
             -- ALTER TABLE {relation} REPLICA IDENTITY USING INDEX name_of_the_index;\n\
             -- else the whole old row goes to the log:\n\
             -- ALTER TABLE {relation} REPLICA IDENTITY FULL;\n"
        ));
    }
    out.push_str(&format!(
        "CREATE PUBLICATION {publication} FOR TABLE {relation}\n  \
           WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);\n\
         -- If the publication exists already:\n\
         -- ALTER PUBLICATION {publication} ADD TABLE {relation};\n\
         -- ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate',\n\
         --   publish_via_partition_root = true);\n\
         -- Server settings; the first needs a restart (on Amazon RDS: rds.logical_replication = 1):\n\
         -- ALTER SYSTEM SET wal_level = 'logical';\n\
         -- ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use rollcall_contract::TableName;

    use super::*;

    #[test]
    fn names_are_quoted_wherever_they_stand() {
        let mut config =
            PostgresConfig::new("localhost", "h\"r", "o'x", TableName::new("s", "People"));
        config.publication = "p q".to_owned();
        let script = setup(&config, true);
        for part in [
            "GRANT SELECT ON \"s\".\"People\" TO \"o'x\";",
            "rolname = E'o''x'",
            "GRANT CONNECT ON DATABASE \"h\"\"r\"",
            "CREATE PUBLICATION \"p q\" FOR TABLE \"s\".\"People\"",
            "REPLICA IDENTITY FULL",
        ] {
            assert!(script.contains(part), "{part} is not in:\n{script}");
        }
        assert!(!setup(&config, false).contains("REPLICA IDENTITY"));
    }
}
