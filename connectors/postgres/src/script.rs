//! The statements that set a source up, for the operator to read and run.
//!
//! They are printed and never run: the daemon's role has no right to any of them, and
//! shall not have. It can be run on a server where nothing is there or a part, and any number
//! of times; also when sources share a role or a publication.
//!
//! No table is published that has no replica identity, because the application's own `UPDATE`
//! would fail from then on. What is known when the script is printed is left out of it; and
//! the script looks again when it is run, since it is often printed before the role can log in.

use std::collections::BTreeSet;

use rollcall_contract::{FollowedTable, TableName};

use crate::config::PostgresConfig;
use crate::query::{ident, literal, table};

/// The followed tables that cannot be published as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unpublished {
    /// Those whose replica identity has to be set up first.
    pub(crate) need_identity: Vec<TableName>,
    /// Those whose changes are not in the log at all, views for example.
    pub(crate) not_in_log: Vec<TableName>,
}

impl Unpublished {
    fn allows(&self, followed: &FollowedTable<'_>) -> bool {
        !self.need_identity.contains(followed.table) && !self.not_in_log.contains(followed.table)
    }
}

const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// The whole set-up for a source, in the order in which it is run by a superuser or the
/// tables' owner.
pub(crate) fn setup(config: &PostgresConfig, unpublished: &Unpublished) -> String {
    let role = ident(&config.user);
    let database = ident(&config.database);
    let mut out = commented(&format!(
        "Run as a superuser, or as an administrator of a managed service, in database {database}.\n\
         The role. On Amazon RDS: GRANT rds_replication TO {role}; instead of REPLICATION."
    ));
    out.push_str(&role_block(&config.user));
    out.push_str(&commented(&format!(
        "If the role exists with more than it needs (only a superuser may say this):\n\
         ALTER ROLE {role} LOGIN REPLICATION NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;\n\
         Then give it a password: \\password {role}"
    )));
    out.push_str(&format!(
        "GRANT CONNECT ON DATABASE {database} TO {role};\n"
    ));
    let schemas: BTreeSet<&String> = config.tables().map(|f| &f.table.schema).collect();
    for schema in schemas {
        let schema = ident(schema);
        out.push_str(&format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"));
    }
    for followed in config.tables() {
        let relation = table(followed.table);
        out.push_str(&format!("GRANT SELECT ON {relation} TO {role};\n"));
    }
    let publishable: Vec<String> = config
        .tables()
        .filter(|f| unpublished.allows(f))
        .map(|f| table(f.table))
        .collect();
    if !publishable.is_empty() {
        out.push_str(&publish(&config.publication, &publishable));
    }
    if !unpublished.need_identity.is_empty() {
        let is_first = publishable.is_empty();
        out.push_str(&identities(config, &unpublished.need_identity, is_first));
    }
    out.push_str(
        "-- Server settings; the first needs a restart (on Amazon RDS: rds.logical_replication = 1):\n\
         -- ALTER SYSTEM SET wal_level = 'logical';\n\
         -- ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare\n",
    );
    out
}

/// What makes the role, or gives it what it lacks. A superuser lacks nothing, and on Amazon RDS
/// the membership takes the place of the attribute, which nobody may give there.
fn role_block(user: &str) -> String {
    let (role, name) = (ident(user), literal(user));
    block(&format!(
        "BEGIN\n  \
           IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN\n    \
             CREATE ROLE {role} LOGIN REPLICATION;\n  \
           END IF;\n  \
           IF EXISTS (SELECT FROM pg_catalog.pg_roles\n            \
             WHERE rolname = {name} AND NOT rolcanlogin) THEN\n    \
             ALTER ROLE {role} LOGIN;\n  \
           END IF;\n  \
           IF EXISTS (SELECT FROM pg_catalog.pg_roles\n            \
             WHERE rolname = {name} AND NOT rolreplication AND NOT rolsuper)\n    \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication'\n            \
               AND pg_catalog.pg_has_role({name}, oid, 'MEMBER')) THEN\n    \
             ALTER ROLE {role} REPLICATION;\n  \
           END IF;\n\
         END"
    ))
}

/// What makes the publication, and adds what it lacks: operations and tables, except for what
/// would make a table's own `UPDATE` fail that has no replica identity when it is run. What is
/// as it should be is not altered, as a publication that was altered is a gap.
fn publish(publication: &str, relations: &[String]) -> String {
    let name = literal(publication);
    let quoted = ident(publication);
    let relations: Vec<String> = relations.iter().map(|r| literal(r)).collect();
    let bare = without_identity("SELECT followed::oid");
    let bare_listed = without_identity(&format!(
        "SELECT c.oid FROM pg_catalog.pg_publication_tables t \
           JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
           WHERE t.pubname = {name}"
    ));
    let body = format!(
        "DECLARE\n  \
           followed regclass;\n  \
           bare text;\n\
         BEGIN\n  \
           IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {name}) THEN\n    \
             CREATE PUBLICATION {quoted}\n      \
               WITH ({OPTIONS});\n  \
           END IF;\n  \
           IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {name}\n      \
             AND NOT (pubinsert AND pubupdate AND pubdelete AND pubtruncate)) THEN\n\
         {bare_listed}    \
             IF bare IS NULL THEN\n      \
               ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate');\n    \
             ELSE\n      \
               RAISE WARNING 'The publication does not send all four operations, and cannot: UPDATE and DELETE of % would fail. Use another publication.', bare;\n    \
             END IF;\n  \
           END IF;\n  \
           FOREACH followed IN ARRAY ARRAY[\n    \
             {relations}\n  \
           ]::regclass[] LOOP\n    \
             -- Else changes come under the names of the partitions.\n    \
             IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = followed AND relkind = 'p')\n      \
               AND EXISTS (SELECT FROM pg_catalog.pg_publication\n              \
                 WHERE pubname = {name} AND NOT pubviaroot) THEN\n      \
               ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true);\n    \
             END IF;\n    \
             -- Nothing to add: FOR ALL TABLES, listed already, or not a table with a log.\n    \
             CONTINUE WHEN\n      \
               EXISTS (SELECT FROM pg_catalog.pg_publication\n              \
                 WHERE pubname = {name} AND puballtables)\n      \
               OR EXISTS (SELECT FROM pg_catalog.pg_publication_tables t\n              \
                 JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname\n              \
                 JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename\n              \
                 WHERE t.pubname = {name} AND c.oid = followed)\n      \
               OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r\n              \
                 JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid\n              \
                 WHERE p.pubname = {name} AND r.prrelid = followed)\n      \
               OR NOT EXISTS (SELECT FROM pg_catalog.pg_class\n              \
                 WHERE oid = followed AND relkind IN ('r', 'p') AND relpersistence = 'p');\n\
         {bare}    \
             IF bare IS NULL THEN\n      \
               EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s', {name}, followed);\n    \
             ELSE\n      \
               RAISE WARNING '% is not published: without a primary key or a replica identity (%), the application''s own UPDATE and DELETE would fail. Mend that, then run this again.', followed, bare;\n    \
             END IF;\n  \
           END LOOP;\n\
         END",
        relations = relations.join(",\n    "),
    );
    block(&body)
}

/// Puts into `bare` which of the tables and their partitions have no replica identity, or
/// null. A deferrable index is none (`RelationGetIndexList` of the server).
fn without_identity(oids: &str) -> String {
    format!(
        "    SELECT pg_catalog.string_agg(c.oid::regclass::text, ', ') INTO bare\n      \
               FROM pg_catalog.pg_class c\n      \
               WHERE c.oid IN ({oids} UNION ALL SELECT t.relid\n          \
                   FROM ({oids}) s(oid), pg_catalog.pg_partition_tree(s.oid) t)\n        \
                 AND c.relreplident <> 'f' AND NOT EXISTS (\n          \
                   SELECT FROM pg_catalog.pg_index i\n          \
                   WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate\n            \
                     AND (c.relreplident = 'i' AND i.indisreplident\n              \
                       OR c.relreplident = 'd' AND i.indisprimary));\n"
    )
}

/// What to do, and in which order, before these tables can be published.
fn identities(config: &PostgresConfig, tables: &[TableName], is_first: bool) -> String {
    let publication = ident(&config.publication);
    let mut text = "Not published yet, because they have no replica identity: from then on the application's\n\
         own UPDATE and DELETE would fail. First, for each table, one of these: a primary key\n\
         (best), a unique index without nulls, or the whole old row in the log:"
        .to_owned();
    for keyless in tables {
        let relation = table(keyless);
        text.push_str(&format!(
            "\nALTER TABLE {relation} ADD PRIMARY KEY (name_of_the_column);\n\
             ALTER TABLE {relation} REPLICA IDENTITY USING INDEX name_of_the_index;\n\
             ALTER TABLE {relation} REPLICA IDENTITY FULL;"
        ));
    }
    text.push_str(
        "\nOnly then publish them, by what this script reads when it is printed again, or by:",
    );
    let relations: Vec<String> = tables.iter().map(table).collect();
    let relations = relations.join(", ");
    text.push_str(&match is_first {
        true => {
            format!("\nCREATE PUBLICATION {publication} FOR TABLE {relations}\n  WITH ({OPTIONS});")
        }
        false => format!("\nALTER PUBLICATION {publication} ADD TABLE {relations};"),
    });
    commented(&text)
}

/// Every line as a comment, also those that begin within a name.
fn commented(text: &str) -> String {
    text.split(['\n', '\r'])
        .map(|line| format!("-- {line}\n"))
        .collect()
}

/// An anonymous block, in dollar quotes that do not occur in it.
fn block(body: &str) -> String {
    let mut quote = "$$".to_owned();
    while body.contains(&quote) {
        quote.insert(1, 'x');
    }
    format!("DO {quote} {body} {quote};\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use rollcall_contract::RelatedTable;

    use super::*;

    /// The lines that are not comments.
    fn live(script: &str) -> impl Iterator<Item = &str> {
        script.lines().filter(|l| !l.trim_start().starts_with("--"))
    }

    #[test]
    fn names_are_quoted_wherever_they_stand() {
        let mut config =
            PostgresConfig::new("localhost", "h\"r", "o'x", TableName::new("s", "People"));
        config.publication = "p q".to_owned();
        let script = setup(&config, &Unpublished::default());
        for part in [
            "GRANT SELECT ON \"s\".\"People\" TO \"o'x\";",
            "rolname = E'o''x'",
            "GRANT CONNECT ON DATABASE \"h\"\"r\"",
            "CREATE PUBLICATION \"p q\"\n",
            "E'\"s\".\"People\"'\n  ]::regclass[]",
        ] {
            assert!(script.contains(part), "{part} is not in:\n{script}");
        }
        assert!(!script.contains("REPLICA IDENTITY FULL"));
    }

    #[test]
    fn no_name_ends_a_comment_or_a_quote() {
        let mut config = PostgresConfig::new(
            "localhost",
            "hr",
            "$$",
            TableName::new("s", "a\nDROP TABLE b"),
        );
        config.publication = "$x$".to_owned();
        let script = setup(
            &config,
            &Unpublished {
                need_identity: vec![config.table.clone()],
                ..Unpublished::default()
            },
        );
        assert!(script.contains("DO $x$ BEGIN"), "{script}");
        let live: Vec<&str> = live(&script).collect();
        let dropped = live.iter().filter(|l| l.starts_with("DROP")).count();
        assert_eq!(dropped, 1, "only within the name in the GRANT:\n{script}");
        assert!(block("BEGIN $$ $x$ END").starts_with("DO $xx$ "));
    }

    #[test]
    fn a_table_without_an_identity_is_not_published() {
        let mut config = PostgresConfig::new("localhost", "hr", "r", TableName::new("s", "a"));
        config.related.push(RelatedTable {
            name: "log".to_owned(),
            table: TableName::new("s", "log"),
            key: None,
        });
        let keyless = |names: &[&str]| Unpublished {
            need_identity: names.iter().map(|n| TableName::new("s", *n)).collect(),
            ..Unpublished::default()
        };
        let script = setup(&config, &keyless(&["log"]));
        let published: Vec<&str> = live(&script).filter(|l| l.contains("E'\"s\".")).collect();
        assert_eq!(published, ["    E'\"s\".\"a\"'"], "{script}");
        let after = script.find("\"log\" REPLICA IDENTITY FULL").unwrap();
        let add = "-- ALTER PUBLICATION \"rollcall\" ADD TABLE \"s\".\"log\";";
        assert!(script[after..].contains(add), "{script}");

        let script = setup(&config, &keyless(&["a", "log"]));
        assert!(
            !live(&script).any(|l| l.contains("PUBLICATION")),
            "{script}"
        );
        let create = "-- CREATE PUBLICATION \"rollcall\" FOR TABLE \"s\".\"a\", \"s\".\"log\"\n";
        assert!(script.contains(create), "{script}");
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
        let script = setup(&config, &Unpublished::default());
        for part in [
            "GRANT USAGE ON SCHEMA \"s\" TO \"r\";\nGRANT USAGE ON SCHEMA \"t\" TO \"r\";",
            "GRANT SELECT ON \"s\".\"a\" TO \"r\";\nGRANT SELECT ON \"s\".\"b\" TO \"r\";",
            "E'\"s\".\"a\"',\n    E'\"s\".\"b\"',\n    E'\"t\".\"c\"'\n",
        ] {
            assert!(script.contains(part), "{part} is not in:\n{script}");
        }
    }
}
