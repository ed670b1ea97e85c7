//! Which objects stand behind the configured names.
//!
//! A publication, a table and its partitions can each be replaced by another of the same
//! name, and the log then goes silent about rows, or brings rows of which it never said
//! that they are new. So their identities are kept beside the cursor and compared at every
//! connect and, while the log is read, at intervals. The identity of a catalog row is its
//! OID together with its `xmin`, the transaction that wrote this version of it: what was
//! changed and changed back between two looks is seen too.

use rollcall_contract::{ConnectorError, Gap, GapReason, TableName};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::query;

/// Identities of what is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identities {
    /// `pg_publication.oid`; 0 when there is none of that name.
    pub(crate) publication: u32,
    /// The version of that row: its options.
    pub(crate) options: String,
    /// The catalog rows that put the table into the publication; empty when none does.
    pub(crate) membership: String,
    /// `pg_class.oid`; 0 when there is none of that name.
    pub(crate) table: u32,
    /// How many partitions lie below it, at any depth.
    pub(crate) partitions: u32,
    /// A digest of their OIDs.
    pub(crate) partitions_digest: u64,
}

/// What the publication does, for findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) truncate: bool,
    pub(crate) via_root: bool,
    pub(crate) lists_table: bool,
    pub(crate) row_filter: Option<String>,
}

/// Reads the identities, and the publication when there is one.
pub(crate) async fn look<C: GenericClient>(
    client: &C,
    publication: &str,
    table: &TableName,
) -> Result<(Identities, Option<Publication>), ConnectorError> {
    const DOING: &str = "reading the publication";
    let relation = client
        .query_typed_opt(
            "SELECT c.oid, c.relkind = 'p' FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2",
            &[(&table.schema, Type::NAME), (&table.name, Type::NAME)],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?;
    let (table_oid, partitioned): (u32, bool) =
        relation.map_or((0, false), |row| (row.get(0), row.get(1)));
    let mut followed = Identities {
        table: table_oid,
        ..Identities::default()
    };
    if partitioned {
        let partitions = client
            .query_typed(
                "WITH RECURSIVE below(oid) AS ( \
                     SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = $1 \
                     UNION ALL \
                     SELECT i.inhrelid FROM pg_catalog.pg_inherits i \
                     JOIN below b ON i.inhparent = b.oid) \
                 SELECT oid FROM below ORDER BY oid",
                &[(&table_oid, Type::OID)],
            )
            .await
            .map_err(|e| query::failed(&e, "reading the table's partitions"))?;
        followed.partitions = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        followed.partitions_digest = digest(partitions.iter().map(|row| row.get(0)));
    }
    // Columns that only some versions have are read by name out of the row as JSON.
    let Some(row) = client
        .query_typed_opt(
            "SELECT p.oid, p.xmin::text, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, \
                    p.pubviaroot, p.puballtables, t.j->>'tablename' IS NOT NULL, \
                    t.j->>'rowfilter', \
                    pg_catalog.current_setting('server_version_num')::int4 \
             FROM pg_catalog.pg_publication p \
             LEFT JOIN LATERAL (SELECT pg_catalog.to_jsonb(pt) AS j \
               FROM pg_catalog.pg_publication_tables pt \
               WHERE pt.pubname = p.pubname AND pt.schemaname = $2 AND pt.tablename = $3) t \
               ON true \
             WHERE p.pubname = $1",
            &[
                (&publication, Type::NAME),
                (&table.schema, Type::NAME),
                (&table.name, Type::NAME),
            ],
        )
        .await
        .map_err(|e| query::failed(&e, DOING))?
    else {
        return Ok((followed, None));
    };
    followed.publication = row.get(0);
    followed.options = row.get(1);
    let all_tables: bool = row.get(7);
    let listed: bool = row.get(8);
    let version: i32 = row.get(10);
    if listed {
        followed.membership = if all_tables {
            "all".to_owned()
        } else {
            membership(client, followed.publication, table_oid, version).await?
        };
    }
    let found = Publication {
        insert: row.get(2),
        update: row.get(3),
        delete: row.get(4),
        truncate: row.get(5),
        via_root: row.get(6),
        lists_table: listed,
        row_filter: row.get(9),
    };
    Ok((followed, Some(found)))
}

/// The catalog rows through which a publication lists a table: of the table itself, of a
/// table that it is a partition of, or (15 and above) of the schema.
async fn membership<C: GenericClient>(
    client: &C,
    publication: u32,
    table: u32,
    version: i32,
) -> Result<String, ConnectorError> {
    let by_schema = if version >= 150_000 {
        "UNION ALL SELECT 'schema ' || pn.oid || ' ' || pn.xmin::text \
         FROM pg_catalog.pg_publication_namespace pn \
         JOIN pg_catalog.pg_class c ON c.relnamespace = pn.pnnspid \
         WHERE pn.pnpubid = $1 AND c.oid = $2"
    } else {
        ""
    };
    let sql = format!(
        "WITH RECURSIVE up(oid) AS ( \
             SELECT $2::oid UNION ALL \
             SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid) \
         SELECT pg_catalog.string_agg(m.id, ', ' ORDER BY m.id) FROM ( \
             SELECT 'table ' || pr.oid || ' ' || pr.xmin::text AS id \
             FROM pg_catalog.pg_publication_rel pr JOIN up ON pr.prrelid = up.oid \
             WHERE pr.prpubid = $1 {by_schema}) m"
    );
    let row = client
        .query_typed_one(&sql, &[(&publication, Type::OID), (&table, Type::OID)])
        .await
        .map_err(|e| query::failed(&e, "reading the publication's tables"))?;
    Ok(row
        .get::<_, Option<String>>(0)
        .unwrap_or_else(|| "listed".to_owned()))
}

/// FNV-1a over the OIDs: stable between releases, which the standard library's hasher is
/// not promised to be.
fn digest(oids: impl Iterator<Item = u32>) -> u64 {
    oids.flat_map(u32::to_be_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// What may have been lost between two looks. `from` and `to` of the gaps are left open.
pub(crate) fn compare(
    before: &Identities,
    now: &Identities,
    publication: &str,
    table: &TableName,
) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut add = |reason, detail: String| {
        gaps.push(Gap {
            tables: vec![table.clone()],
            reason,
            from: None,
            to: None,
            detail,
        });
    };
    if now.table == 0 {
        add(
            GapReason::TableRecreated,
            format!("The table {table} no longer exists."),
        );
    } else if before.table != now.table && before.table != 0 {
        add(
            GapReason::TableRecreated,
            format!("The table {table} was dropped and created again; all of it is read again."),
        );
    }
    if now.publication == 0 {
        add(
            GapReason::PublicationChanged,
            format!("The publication \"{publication}\" no longer exists."),
        );
    } else if before.publication != now.publication {
        add(
            GapReason::PublicationChanged,
            format!(
                "The publication \"{publication}\" was dropped and created again; changes made \
                 in between are not in the log."
            ),
        );
    } else if now.membership.is_empty() {
        add(
            GapReason::PublicationChanged,
            format!(
                "The publication \"{publication}\" no longer lists {table}; its changes are not \
                 in the log."
            ),
        );
    } else if before.membership != now.membership || before.options != now.options {
        add(
            GapReason::PublicationChanged,
            format!(
                "The publication \"{publication}\" was altered, so changes of {table} may not \
                 have been in the log for a time; all of it is read again."
            ),
        );
    }
    if now.table != 0
        && before.table == now.table
        && (before.partitions, before.partitions_digest) != (now.partitions, now.partitions_digest)
    {
        add(
            GapReason::PartitionsChanged,
            format!(
                "Partitions of {table} were attached or detached ({} before, {} now); the log \
                 does not carry the rows that came or went with them.",
                before.partitions, now.partitions
            ),
        );
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Identities {
        Identities {
            publication: 1,
            options: "700".to_owned(),
            membership: "table 5 701".to_owned(),
            table: 9,
            partitions: 2,
            partitions_digest: digest([10, 11].into_iter()),
        }
    }

    fn reasons(now: Identities) -> Vec<GapReason> {
        compare(&base(), &now, "rollcall", &TableName::new("hr", "people"))
            .iter()
            .map(|gap| gap.reason)
            .collect()
    }

    #[test]
    fn nothing_changed_is_no_gap() {
        assert_eq!(reasons(base()), []);
    }

    #[test]
    fn every_replaced_object_is_a_gap() {
        let changed = |change: fn(&mut Identities)| {
            let mut now = base();
            change(&mut now);
            reasons(now)
        };
        use GapReason::*;
        assert_eq!(changed(|f| f.table = 0), [TableRecreated]);
        assert_eq!(changed(|f| f.table = 8), [TableRecreated]);
        assert_eq!(changed(|f| f.publication = 0), [PublicationChanged]);
        assert_eq!(changed(|f| f.publication = 2), [PublicationChanged]);
        assert_eq!(changed(|f| f.membership.clear()), [PublicationChanged]);
        assert_eq!(
            changed(|f| f.membership.push('1')),
            [PublicationChanged],
            "removed and added again"
        );
        assert_eq!(changed(|f| f.options.push('1')), [PublicationChanged]);
        assert_eq!(
            changed(|f| f.partitions_digest = digest([10, 12].into_iter())),
            [PartitionsChanged],
            "one detached, another attached"
        );
    }
}
