//! The statements that set a source up, for the operator to read and run.
//!
//! They are printed and never run: the daemon's role has no right to any of them, and
//! shall not have. Each statement can be run again without harm or fails with a sentence
//! that says why.

use std::collections::BTreeSet;

use rollcall_contract::TableName;

use crate::config::PostgresConfig;
use crate::query::{ident, literal, table};

/// The whole set-up for a source, in the order in which it is run by a superuser or the
/// tables' owner. `need_identity`: the tables that have no usable primary key, so the script
/// says what to do about their replica identity.
pub(crate) fn setup(config: &PostgresConfig, need_identity: &[TableName]) -> String {
    let role = ident(&config.user);
    let relations: Vec<String> = config.tables().map(|f| table(f.table)).collect();
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
         GRANT CONNECT ON DATABASE {database} TO {role};\n",
        database = ident(&config.database),
        user = literal(&config.user),
    );
    let schemas: BTreeSet<&String> = config.tables().map(|f| &f.table.schema).collect();
    for schema in schemas {
        let schema = ident(schema);
        out.push_str(&format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"));
    }
    for relation in &relations {
        out.push_str(&format!("GRANT SELECT ON {relation} TO {role};\n"));
    }
    if !need_identity.is_empty() {
        out.push_str(
            "-- Without a primary key the application's own UPDATE and DELETE fail as soon as the\n\
             -- table is published. Best is a primary key; else a unique index without nulls, or\n\
             -- the whole old row in the log:\n",
        );
    }
    for keyless in need_identity {
        let relation = table(keyless);
        out.push_str(&format!(
            "-- ALTER TABLE {relation} REPLICA IDENTITY USING INDEX name_of_the_index;\n\
             -- ALTER TABLE {relation} REPLICA IDENTITY FULL;\n"
        ));
    }
    out.push_str(&format!(
        "CREATE PUBLICATION {publication} FOR TABLE {}\n  \
           WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);\n\
         -- If the publication exists already, the tables that it lacks:\n",
        relations.join(", ")
    ));
    for relation in &relations {
        out.push_str(&format!(
            "-- ALTER PUBLICATION {publication} ADD TABLE {relation};\n"
        ));
    }
    out.push_str(&format!(
        "-- ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate',\n\
         --   publish_via_partition_root = true);\n\
         -- Server settings; the first needs a restart (on Amazon RDS: rds.logical_replication = 1):\n\
         -- ALTER SYSTEM SET wal_level = 'logical';\n\
         -- ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use rollcall_contract::RelatedTable;

    use super::*;

    #[test]
    fn names_are_quoted_wherever_they_stand() {
        let mut config =
            PostgresConfig::new("localhost", "h\"r", "o'x", TableName::new("s", "People"));
        config.publication = "p q".to_owned();
        let script = setup(&config, std::slice::from_ref(&config.table));
        for part in [
            "GRANT SELECT ON \"s\".\"People\" TO \"o'x\";",
            "rolname = E'o''x'",
            "GRANT CONNECT ON DATABASE \"h\"\"r\"",
            "CREATE PUBLICATION \"p q\" FOR TABLE \"s\".\"People\"",
            "REPLICA IDENTITY FULL",
        ] {
            assert!(script.contains(part), "{part} is not in:\n{script}");
        }
        assert!(!setup(&config, &[]).contains("REPLICA IDENTITY"));
    }

    #[test]
    fn every_table_is_granted_and_published() {
        let mut config = PostgresConfig::new("localhost", "hr", "r", TableName::new("s", "a"));
        for (schema, name) in [("s", "b"), ("t", "c")] {
            config.related.push(RelatedTable {
                name: name.to_owned(),
                table: TableName::new(schema, name),
                key: None,
            });
        }
        let script = setup(&config, &[]);
        for part in [
            "GRANT USAGE ON SCHEMA \"s\" TO \"r\";\nGRANT USAGE ON SCHEMA \"t\" TO \"r\";",
            "GRANT SELECT ON \"s\".\"a\" TO \"r\";\nGRANT SELECT ON \"s\".\"b\" TO \"r\";",
            "FOR TABLE \"s\".\"a\", \"s\".\"b\", \"t\".\"c\"\n",
            "-- ALTER PUBLICATION \"rollcall\" ADD TABLE \"t\".\"c\";",
        ] {
            assert!(script.contains(part), "{part} is not in:\n{script}");
        }
    }
}
